"""Every form that the encoders at hand write: read to the sample, and told when a part of it is missing."""

from pathlib import Path

import numpy as np
import pytest
from support.encoded import FORMS, Form, cut, delay, noise, overwrite

from m2e.cache import DataError
from m2e.extract.audio.reader import load_audio

SECONDS = 6.0
# FFmpeg's decoder of WMA takes off what Microsoft's encoder puts before the sound, and FFmpeg's encoder does not.
WMA_DELAY = -2048
# An enormous float is an enormous float.
FLOATS = {"wav-f32", "wav-f64", "aifc"}

forms = pytest.mark.parametrize(("name", "form"), FORMS.items(), ids=FORMS)


@pytest.fixture
def written(name: str, form: Form, tmp_path: Path) -> Path:
    """The name tells nothing of the form: what a file is comes from its content."""
    return form.write(tmp_path / "song", noise(SECONDS, form.rate, form.channels))


@forms
def test_delay_and_length_are_those_of_what_was_written(name: str, form: Form, written: Path) -> None:
    audio = load_audio(written, form.rate)
    wave = noise(SECONDS, form.rate, form.channels).mean(axis=0)
    expected = WMA_DELAY if name.startswith("wma") else form.delay
    assert abs(delay(audio.encoder_wave, wave) - expected) <= 0.05e-3 * form.rate
    excess = audio.duration - SECONDS
    # Where the container does not say what is sound, it is whole frames, with the encoder's own delay.
    assert -0.02 < excess < (0.05 if form.whole_frames else 0.02)
    assert len(audio.encoder_wave) == round(audio.duration * form.rate)
    assert not {note.kind for note in audio.notes} - {"rate"}


@forms
def test_a_file_that_is_cut_is_refused_or_taken_with_a_note(name: str, form: Form, written: Path) -> None:
    part = cut(written)
    if not form.tells_cut:
        assert 2.2 < load_audio(part, form.rate).duration < 2.6
        return
    with pytest.raises(DataError, match=r"cut-song (is cut|cannot be decoded)") as error:
        load_audio(part, form.rate)
    assert "\n" not in str(error.value)
    if form.index_last or name == "caf-alac":
        return  # nothing of it can be read
    assert "--accept-cut" in str(error.value)
    audio = load_audio(part, form.rate, accept_cut=True)
    (note,) = (note for note in audio.notes if note.kind == "cut")
    assert note.numbers[0] == pytest.approx(audio.duration)
    assert 1.9 < audio.duration < 2.6
    if len(note.numbers) == 2:
        assert note.numbers[1] == pytest.approx(SECONDS, abs=0.11)
    whole = load_audio(written, form.rate).encoder_wave[: form.rate]
    np.testing.assert_array_equal(audio.encoder_wave[: form.rate], whole)


@forms
@pytest.mark.parametrize("zeros", [False, True], ids=["other bytes", "zeros"])
def test_frames_that_are_damaged_are_told(name: str, form: Form, written: Path, zeros: bool) -> None:
    bad = overwrite(written, 8192, zeros)
    if name in FLOATS and not zeros:
        with pytest.raises(DataError, match=r"not numbers|beyond"):
            load_audio(bad, form.rate)
        return
    if form.plain and name != "voc":  # other bytes are other samples
        assert load_audio(bad, form.rate, accept_cut=True).duration > 5
        return
    with pytest.raises(DataError, match=r"is (damaged|cut): \d+\.\d s? ?of \d+\.\d s.*--accept-cut"):
        load_audio(bad, form.rate)
    audio = load_audio(bad, form.rate, accept_cut=True)
    faults = {note.kind: note.numbers for note in audio.notes if note.kind in ("cut", "damaged")}
    lost = faults["damaged"][0] if "damaged" in faults else SECONDS - faults["cut"][0]
    assert lost + audio.duration == pytest.approx(SECONDS, abs=0.2)
