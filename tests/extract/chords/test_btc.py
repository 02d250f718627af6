"""BTC against the released code's outputs, and its checkpoint against all that is not one."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch
from numpy.typing import NDArray

from m2e.cache.harmony import chord_from_class, chord_label
from m2e.common.errors import DataError
from m2e.extract.chords import registry as registry
from m2e.extract.chords.btc import BTC, CHUNK_SAMPLES, SAMPLE_RATE, BTCRecogniser, cqt_features, load_checkpoint
from m2e.extract.chords.btc_weights import OFFICIAL_REVISION, git_blob_id, official_checkpoint, weights_revision

CLIPS = ["short3", "clip47"]


def random_checkpoint() -> dict[str, Any]:
    """A checkpoint of the published form, its weights random."""
    torch.manual_seed(0)
    state = {name: torch.randn_like(tensor) * 0.2 for name, tensor in BTC().state_dict().items()}
    lstm = torch.nn.LSTM(128, 64, bidirectional=True).state_dict()
    state |= {f"output_layer.lstm.{name}": tensor for name, tensor in lstm.items()}
    return {"model": state, "mean": np.float64(-3.5), "std": np.float64(1.6), "optimizer": None, "epoch": np.int64(1)}


def saved(content: Any, path: Path, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


def noise(n: int) -> NDArray[np.float32]:
    return (0.1 * np.random.default_rng(0).standard_normal(n)).astype(np.float32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(random_checkpoint(), tmp_path_factory.mktemp("btc") / "random.pt")


@pytest.fixture(scope="module")
def recogniser(checkpoint: Path) -> BTCRecogniser:
    return BTCRecogniser(checkpoint, "")


@pytest.fixture(scope="module")
def reference_recogniser(reference: Path, device: str) -> BTCRecogniser:
    return BTCRecogniser(reference / "golden/btc/btc_model_large_voca.pt", "", device)


def reference_clip(reference: Path, clip: str) -> tuple[NDArray[np.float32], dict[str, NDArray[Any]]]:
    """The clip as the released code hears it (22,050 Hz, mono), and that code's outputs."""
    wave, rate = soundfile.read(reference / "golden/audio" / f"{clip}.mp3", dtype="float32", always_2d=True)
    wave = soxr.resample(wave.mean(axis=1), rate, SAMPLE_RATE, "HQ")
    with np.load(reference / "golden/btc" / f"cqt_{clip}.npz") as arrays:
        outputs = dict(arrays)
    assert len(wave) == outputs["n_samples"]
    np.testing.assert_allclose(wave[: len(outputs["wave22k_head"])], outputs["wave22k_head"], atol=1e-5)
    return wave, outputs


@pytest.mark.parametrize("clip", CLIPS)
def test_reference_features(reference: Path, clip: str) -> None:
    wave, outputs = reference_clip(reference, clip)
    np.testing.assert_allclose(cqt_features(wave), outputs["feature"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("clip", CLIPS)
def test_reference_logits(reference: Path, reference_recogniser: BTCRecogniser, clip: str) -> None:
    with np.load(reference / "golden/btc" / f"cqt_{clip}.npz") as arrays:
        outputs = dict(arrays)
    (logits,) = reference_recogniser.logits([outputs["feature"]])
    np.testing.assert_allclose(logits, outputs["logits"], atol=1e-3, rtol=0)
    second, first = np.sort(outputs["logits"], axis=1)[:, -2:].T
    clear = first - second > 1e-2
    assert clear.mean() > 0.9
    assert (logits.argmax(axis=1) == outputs["pred"])[clear].all()


@pytest.mark.parametrize("clip", CLIPS)
def test_reference_chords(reference: Path, reference_recogniser: BTCRecogniser, clip: str) -> None:
    wave, _ = reference_clip(reference, clip)
    rows = [line.split() for line in (reference / "golden/e2e" / clip / f"{clip}.lab").read_text().splitlines()]
    chords = reference_recogniser(wave)
    assert chords.labels == [label for *_, label in rows]
    times = np.array([row[:2] for row in rows], float)
    # The released code lets the last chord pass the end of the audio.
    times[-1, 1] = min(times[-1, 1], len(wave) / SAMPLE_RATE)
    np.testing.assert_allclose(chords.intervals, times, atol=5.1e-4)


@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoint_loads(tmp_path: Path, legacy: bool) -> None:
    content = random_checkpoint()
    path = saved(content, tmp_path / "btc.pt", _use_new_zipfile_serialization=not legacy)
    model, mean, std = load_checkpoint(path)
    assert (mean, std) == (-3.5, 1.6)
    assert len(content["model"]) == 221
    assert sum(tensor.numel() for tensor in content["model"].values()) == 3_036_842
    assert all(torch.equal(tensor, content["model"][name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("ours", "theirs"), [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")])
def test_checkpoint_of_either_numpy_loads(tmp_path: Path, ours: bytes, theirs: bytes) -> None:
    path = saved(random_checkpoint(), tmp_path / "btc.pt", _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"c%b.multiarray\n" % ours, b"c%b.multiarray\n" % theirs))
    assert b"c%b.multiarray\nscalar" % theirs in path.read_bytes()
    assert load_checkpoint(path)[1:] == (-3.5, 1.6)


@pytest.mark.parametrize("n", [1, 63, 1_102, CHUNK_SAMPLES, CHUNK_SAMPLES + 1, CHUNK_SAMPLES + 50_000])
def test_any_length_is_heard_to_its_end(recogniser: BTCRecogniser, n: int) -> None:
    chords = recogniser(noise(n))
    assert chords.intervals[0, 0] == 0
    # A chunk has a frame for every 2,048 samples begun, of 10/108 s each: a little less than what they last.
    assert n / SAMPLE_RATE - 0.04 < chords.intervals[-1, 1] <= np.float32(n / SAMPLE_RATE)
    assert (chords.intervals[1:, 0] == chords.intervals[:-1, 1]).all()


def test_chords_are_the_likeliest_of_each_frame(recogniser: BTCRecogniser) -> None:
    wave = noise(CHUNK_SAMPLES + 50_000)
    classes = recogniser.logits([cqt_features(wave)])[0].argmax(axis=1)
    assert len(classes) == 108 + 25
    chords = recogniser(wave)
    middles = (np.arange(len(classes)) + 0.5) * 10 / 108
    heard = [chords.labels[i] for i in np.searchsorted(chords.intervals[:, 0], middles) - 1]
    assert heard == [chord_label(*chord_from_class(number)) for number in classes]


def test_instances_do_not_hear_each_other(recogniser: BTCRecogniser) -> None:
    features = cqt_features(noise(3 * CHUNK_SAMPLES))
    together, alone = recogniser.logits([features, features[:, 108:216]])
    np.testing.assert_allclose(together[108:216], alone, atol=1e-4)


def test_several_tracks_at_once(recogniser: BTCRecogniser) -> None:
    waves = [noise(n) for n in (CHUNK_SAMPLES + 50_000, 1_000, 15 * CHUNK_SAMPLES, CHUNK_SAMPLES)]
    durations = [len(wave) / SAMPLE_RATE for wave in waves]
    together = recogniser.recognise([cqt_features(wave) for wave in waves], durations)
    for chords, wave in zip(together, waves, strict=True):
        alone = recogniser(wave)
        assert chords.labels == alone.labels
        np.testing.assert_array_equal(chords.intervals, alone.intervals)


@pytest.mark.parametrize(("direction", "kept"), [("forward", slice(0, 128)), ("backward", slice(128, 256))])
def test_a_direction_hears_one_side_only(checkpoint: Path, direction: str, kept: slice) -> None:
    encoder = load_checkpoint(checkpoint)[0].self_attn_layers
    encoder.self_attn_layers = encoder.self_attn_layers[:1]
    weight = encoder.self_attn_layers[0].linear.weight
    changed_frame = 50
    frames = torch.randn(1, 108, 144)
    altered = frames.clone()
    altered[0, changed_frame] += 1
    with torch.no_grad():
        only = torch.zeros_like(weight)
        only[:, kept] = weight[:, kept]
        weight.copy_(only)
        moved = (encoder(frames) - encoder(altered)).abs().amax(dim=-1)[0] > 1e-6
    # Two convolutions of three frames each reach two frames to either side.
    first, last = changed_frame - 2, changed_frame + 2
    assert moved[first : last + 1].any()
    if direction == "forward":
        assert not moved[:first].any()
        assert moved[last + 1 :].float().mean() > 0.9
    else:
        assert not moved[last + 1 :].any()
        assert moved[:first].float().mean() > 0.9


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].pop(name)


def with_value(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content.__setitem__(name, value)


def with_tensor(name: str, tensor: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["model"].__setitem__(name, tensor)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("output_layer.output_projection.bias"), "1 tensors .* 'output_layer.output_projection.bias'"),
        (with_tensor("extra.weight", torch.zeros(1)), "1 tensors .* 'extra.weight'"),
        (with_tensor("output_layer.output_projection.bias", torch.zeros(25)), "not BTC with 170 chords"),
        (with_tensor("output_layer.output_projection.bias", 3), "not BTC with 170 chords"),
        (with_tensor("output_layer.output_projection.bias", torch.full((170,), torch.nan)), "not finite"),
        (with_value("std", 0.0), "not positive"),
        (with_value("mean", np.float64("nan")), "not finite"),
        (with_value("mean", "x"), "not readable as BTC's"),
        (with_value("model", [1, 2]), "not readable as BTC's"),
        (lambda content: content.pop("std"), "not readable as BTC's"),
    ],
)
def test_other_checkpoint_is_refused(tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str) -> None:
    content = random_checkpoint()
    spoil(content)
    with pytest.raises(DataError, match=message) as refusal:
        load_checkpoint(saved(content, tmp_path / "btc.pt"))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"RIFF....WAVE", b"PK\x03\x04 not a zip", b"\x80\x02K\x01."])
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "btc.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"btc\.pt is not readable as BTC's") as refusal:
        load_checkpoint(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_file_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = saved(random_checkpoint(), tmp_path / "btc.pt", _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path.write_bytes(content[: int(share * len(content))])
        with pytest.raises(DataError, match="not readable as BTC's"):
            load_checkpoint(path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    for load in (load_checkpoint, weights_revision):
        with pytest.raises(DataError, match=r"nowhere\.pt: [Nn]o such file"):
            load(tmp_path / "nowhere.pt")


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_checkpoint_does_not_run(tmp_path: Path) -> None:
    path = saved(random_checkpoint() | {"optimizer": Attack(tmp_path / "owned")}, tmp_path / "btc.pt")
    with pytest.raises(DataError, match="not readable as BTC's"):
        load_checkpoint(path)
    assert not (tmp_path / "owned").exists()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Address of an HTTP server over the folder tmp_path/"served"."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "served").mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served"))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def test_weights_are_fetched_once(tmp_path: Path, server: str) -> None:
    published = saved(random_checkpoint(), tmp_path / "served" / "btc.pt")
    fetch = partial(official_checkpoint, f"{server}/btc.pt", git_blob_id(published.read_bytes()), tmp_path / "cache")
    path = fetch()
    assert path.read_bytes() == published.read_bytes()
    published.unlink()
    assert fetch() == path
    load_checkpoint(path)


def test_other_content_is_not_kept(tmp_path: Path, server: str) -> None:
    saved(random_checkpoint(), tmp_path / "served" / "btc.pt")
    with pytest.raises(DataError, match="was not the published file and is deleted"):
        official_checkpoint(f"{server}/btc.pt", folder=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_absent_file_and_unreachable_server(tmp_path: Path, server: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    for url in (f"{server}/btc.pt", f"{closed}/btc.pt"):
        with pytest.raises(DataError, match=r"cannot download btc\.pt from http.*--chord-checkpoint PATH") as refusal:
            official_checkpoint(url, folder=tmp_path / "cache")
        assert "--chords cnn" in str(refusal.value)
        assert "\n" not in str(refusal.value)


def test_registry_never_substitutes(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unreachable = partial(official_checkpoint, f"{server}/absent.pt", folder=tmp_path)
    monkeypatch.setattr(registry, "official_checkpoint", unreachable)
    with pytest.raises(DataError, match="cannot download"):
        registry.load_recogniser("btc")


def test_registry_loads_a_local_checkpoint(checkpoint: Path) -> None:
    recogniser = registry.load_recogniser("btc", checkpoint)
    assert recogniser.name == "btc"
    assert recogniser.revision == registry.recogniser_revision("btc", checkpoint)
    assert recogniser.revision.startswith("sha256:")
    assert len(recogniser(noise(SAMPLE_RATE))) > 0


def test_blob_id_is_gits() -> None:
    # Git's well-known name of the empty file.
    assert git_blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
    assert registry.recogniser_revision("btc") == OFFICIAL_REVISION


def test_a_local_copy_of_the_published_file_has_its_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "copy.pt"
    path.write_bytes(b"weights")
    monkeypatch.setattr("m2e.extract.chords.btc_weights.OFFICIAL_BLOB", git_blob_id(b"weights"))
    assert weights_revision(path) == OFFICIAL_REVISION
