"""Predicting a song is what evaluating its cache is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.workspace import SETS, STUDENT

from m2e.cache import ChordSequence, DataError, ExtractionConfig, FeatureCache
from m2e.extract.extractor import Extractor
from m2e.predict import Predictor
from m2e.predict.result import Emotion, Moment, TagScore
from m2e.predict.setup import prepare
from m2e.train.data.tensors import load_data, open_caches
from m2e.train.model.checkpoint import load_model
from m2e.train.scoring.evaluate import predict


@pytest.fixture(scope="module")
def predictor(workspace: Path) -> Predictor:
    return Predictor.from_pretrained(workspace / STUDENT, device="cpu")


@pytest.mark.parametrize("name", SETS)
def test_predicting_audio_equals_evaluating_its_cache(workspace: Path, predictor: Predictor, name: str) -> None:
    models, card = load_model(workspace / STUDENT)
    (data,) = load_data(open_caches(workspace / "features", [name]), card.train, torch.device("cpu"))
    labels = FeatureCache.open(workspace / "features" / name).labels
    ids = [track_id for track_id, split in zip(labels.track_ids, labels.splits, strict=True) if split == "test"]
    for task in data.targets:
        evaluated = predict(models[task], data, "test", task)
        for track_id, outputs in zip(ids, evaluated, strict=True):
            audio = workspace / f"small-{name}" / f"{int(track_id) - 2001}.flac"
            emotion = predictor.predict(audio).emotion
            if task == "tags":
                heard = [tag.probability for tag in emotion.tags]
                expected = outputs.sigmoid().tolist()
            else:
                heard, expected = [emotion.valence, emotion.arousal], outputs.tolist()
            assert heard == pytest.approx(expected, abs=1e-6, rel=0)


def test_the_timeline_is_each_segment_alone_beside_the_songs_chords(workspace: Path, predictor: Predictor) -> None:
    features = Extractor.of(predictor.setup.models)(workspace / "music/more/long.flac")
    result = predictor.predict_features(features, "x")
    assert [(moment.start, moment.end) for moment in result.timeline] == [(0, 30), (30, 60), (60, 90)]
    assert result.seconds == pytest.approx(100)
    for i, moment in enumerate(result.timeline):
        alone = replace(features, embeddings=features.embeddings[i : i + 1])
        expected = predictor.predict_features(alone).emotion
        assert moment.emotion.valence == pytest.approx(expected.valence, abs=1e-6)
        assert [tag.probability for tag in moment.emotion.tags] == pytest.approx(
            [tag.probability for tag in expected.tags], abs=1e-6
        )
    assert len({moment.emotion.valence for moment in result.timeline}) == 3
    assert result.emotion.valence != result.timeline[0].emotion.valence


def test_a_short_song_is_one_moment_that_ends_with_it(workspace: Path, predictor: Predictor) -> None:
    (moment,) = predictor.predict(workspace / "music/short.ogg").timeline
    assert (moment.start, moment.end) == (0, pytest.approx(4, abs=0.01))


def test_a_song_without_chords_is_predicted(workspace: Path, predictor: Predictor) -> None:
    features = Extractor.of(predictor.setup.models)(workspace / "music/short.ogg")
    silent = replace(features, chords=ChordSequence.from_labels(np.zeros((0, 2)), []), key=None)
    result = predictor.predict_features(silent)
    assert np.isfinite(result.emotion.valence)
    assert result.as_json()["chords"] == []
    assert result.as_json()["key"] is None


def test_thresholds_are_those_of_the_model_and_decide_what_is_given(workspace: Path, predictor: Predictor) -> None:
    result = predictor.predict(workspace / "song.mp3")
    assert tuple(tag.threshold for tag in result.emotion.tags) == predictor.card.thresholds
    given = [tag.name for tag in result.emotion.tags if tag.probability >= tag.threshold]
    assert sorted(result.as_json()["given"]) == sorted(given)
    likeliest = result.emotion.likeliest
    assert [tag.given for tag in likeliest] == sorted((tag.given for tag in likeliest), reverse=True)


def test_a_teacher_predicts_its_own_task_alone(workspace: Path) -> None:
    folder = workspace / STUDENT.parent
    tags = Predictor.from_pretrained(folder / "teacher-J", device="cpu").predict(workspace / "song.mp3")
    assert tags.emotion.tags
    assert tags.emotion.valence is None
    rated = Predictor.from_pretrained(folder / "teacher-D", device="cpu").predict(workspace / "song.mp3")
    assert rated.emotion.tags == ()
    assert rated.emotion.arousal is not None


def test_weights_that_change_before_they_are_loaded_are_refused(workspace: Path, tmp_path: Path) -> None:
    setup = prepare(shutil.copytree(workspace / STUDENT, tmp_path / "model"), device="cpu")
    Predictor(setup)
    with pytest.raises(DataError, match="changed since this began"):
        Predictor(replace(setup, digest="0" * 16))


def test_save_pretrained_and_from_pretrained(workspace: Path, predictor: Predictor, tmp_path: Path) -> None:
    predictor.save_pretrained(tmp_path / "mine")
    again = Predictor.from_pretrained(tmp_path / "mine", device="cpu").predict(workspace / "song.mp3")
    assert again.as_json() == predictor.predict(workspace / "song.mp3").as_json()


def edit_card(workspace: Path, to: Path, old: str, new: str) -> Path:
    """A copy of the student with a change in its config.json."""
    to.mkdir()
    for name in ("model.safetensors", "config.json"):
        (to / name).write_bytes((workspace / STUDENT / name).read_bytes())
    text = (to / "config.json").read_text()
    assert old in text
    values = json.loads(text.replace(old, new))
    values["features"] = ExtractionConfig.from_json(json.dumps(values["extraction"])).fingerprint
    (to / "config.json").write_text(json.dumps(values))
    return to


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"encoder": "tiny"', '"encoder": "MERT-at-home"', "local encoder, MERT-at-home sha256:.* --encoder DIR"),
        ('"encoder_revision": "sha256:', '"encoder_revision": "sha256:0', "features of tiny sha256:0.*, not of tiny"),
        (
            '"chords_revision": ""',
            '"chords_revision": "sha256:77"',
            "chords of template sha256:77.* --chord-checkpoint",
        ),
        ('"feature_version": 1', '"feature_version": 99', "features of version 99; this m2e makes version 1"),
        ('"format": 1', '"format": 99', "no model of m2e-train"),
    ],
)
def test_other_features_than_those_of_training_are_refused(
    workspace: Path, tmp_path: Path, old: str, new: str, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        prepare(edit_card(workspace, tmp_path / "model", old, new), device="cpu")


def test_a_model_without_weights_is_one_line(workspace: Path, tmp_path: Path) -> None:
    folder = edit_card(workspace, tmp_path / "model", "tiny", "tiny")
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match="has no weights"):
        prepare(folder, device="cpu")


def test_two_predictors_in_turn_load_their_models_once_and_leave_the_process_as_it_is(
    workspace: Path, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2e.extract import extractor

    loads = []
    real = extractor.load_encoder
    monkeypatch.setattr(extractor, "load_encoder", lambda *how: loads.append(how) or real(*how))  # type: ignore[func-returns-value]
    setup = predictor.setup
    other = replace(setup, models=replace(setup.models, config=replace(setup.models.config, layers=(5, 6, 7))))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        both = [Predictor(setup), Predictor(other)]
        song = workspace / "music/short.ogg"
        said = [each.predict(song).emotion for _ in range(2) for each in both]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert len(loads) == 2
    assert said[0] == said[2] == said[1] == said[3]


def test_an_encoder_of_another_width_is_one_line(workspace: Path, predictor: Predictor) -> None:
    features = Extractor.of(predictor.setup.models)(workspace / "music/short.ogg")
    with pytest.raises(DataError, match="takes features of width 128; its encoder makes 64"):
        predictor.predict_features(replace(features, embeddings=features.embeddings[..., :32]))


def test_a_model_that_was_set_aside_is_not_the_one_to_take(tmp_path: Path) -> None:
    for name in ("single-D", "single-D-before-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"whole run: give .*single-D$"):
        prepare(tmp_path)


def test_a_runs_folder_says_which_model_to_take(workspace: Path) -> None:
    with pytest.raises(DataError, match=r"whole run: give .*student"):
        prepare(workspace / STUDENT.parent)
    with pytest.raises(DataError, match="there is no folder runs/none/of-them"):
        prepare("runs/none/of-them")
    with pytest.raises(DataError, match="no model of m2e-train"):
        prepare(workspace / "music")


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (TagScore, ("calm", float("nan"), 0.5)),
        (TagScore, ("calm", 0.5, 1.5)),
        (TagScore, (None, 0.5, 0.5)),
        (Emotion, ((), float("inf"), None)),
        (Emotion, ((), "5", None)),
        (Emotion, (["calm"], None, None)),
        (Moment, (5.0, 1.0, None)),
        (Moment, (0.0, float("nan"), None)),
    ],
)
def test_results_check_themselves(make: type[Any], values: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be|finite"):
        make(*values)
