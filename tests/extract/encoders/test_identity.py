"""An encoder is its weights and what in its settings changes numbers, whatever it is called and wherever it lies."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from safetensors.torch import load_file, save_file
from support.lent import invoke
from support.music import write_songs
from transformers import HubertConfig

from m2e.cache import DataError, ExtractionConfig, FeatureCache
from m2e.cache.folders import read_config, write_config
from m2e.extract import extractor
from m2e.extract.chords.registry import recogniser_revision
from m2e.extract.cli import main
from m2e.extract.encoders import registry as encoders
from m2e.extract.encoders.identity import identify, numeric_settings, weights_digest
from m2e.extract.encoders.mert import HUBERT_BASE
from m2e.extract.encoders.registry import HubEncoder, find_encoder, settle
from m2e.extract.encoders.tiny import tiny_encoder_folder
from m2e.extract.extractor import Extractor
from m2e.extract.models import Models
from m2e.predict.setup import _find_encoder

COMMIT = "b" * 40


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """An encoder that no registry knows: tiny, with one number changed."""
    folder = Path(shutil.copytree(tiny_encoder_folder(), tmp_path / "mine"))
    tensors = load_file(folder / "model.safetensors")
    tensors["encoder.layers.0.attention.k_proj.weight"][0, 0] += 1
    save_file(tensors, folder / "model.safetensors")
    return folder


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def extract(table: Path, cache: Path, *options: str | Path) -> Result:
    usual = ["--chords", "template", "--device", "cpu", "--jobs", "1", "--json"]
    arguments = ["--dataset", table, "--cache", cache, *usual, *options]
    return invoke(main, [str(word) for word in arguments], catch_exceptions=False)


def test_what_a_file_leaves_out_is_what_transformers_takes_for_it() -> None:
    usual = HubertConfig()
    for name, value in HUBERT_BASE.items():
        theirs = getattr(usual, name)
        assert (list(theirs) if isinstance(theirs, tuple | list) else theirs) == value, name


def test_settings_that_change_nothing_change_no_identity_and_those_that_do_do(mine: Path) -> None:
    before = identify(mine)
    edit(mine, _name_or_path="me/elsewhere", transformers_version="9.9", mask_time_prob=0.5, hidden_dropout=0.3)
    assert identify(mine) == before
    edit(mine, layer_norm_eps=1e-5)  # as it is where it is not said
    assert identify(mine) == before
    for changes in ({"layer_norm_eps": 1e-6}, {"num_attention_heads": 4}, {"deepnorm": True}):
        edit(mine, **changes)
        assert identify(mine) != before
        edit(mine, layer_norm_eps=None, num_attention_heads=2, deepnorm=False)
        assert identify(mine) == before
    (mine / "preprocessor_config.json").write_text('{"sampling_rate": 24000, "do_normalize": false}')
    assert identify(mine) != before
    edit(mine, model_type="another")
    other = identify(mine)
    edit(mine, mask_time_prob=0.6)  # of what is not known nobody can tell
    assert identify(mine) != other


def test_equal_encoders_in_two_folders_share_a_cache(mine: Path, tmp_path: Path) -> None:
    table, cache = write_songs(tmp_path / "songs", 2), tmp_path / "cache"
    first = extract(table, cache, "--encoder", mine)
    assert first.exit_code == 0
    again = extract(table, cache, "--encoder", mine.rename(tmp_path / "called otherwise"))
    assert json.loads(again.stdout)["new"] == 0
    assert "other settings" not in again.stderr
    (features,) = cache.glob("songs/features-*")
    assert read_config(features).encoder == "mine"
    other = extract(table, cache, "--encoder", tiny_encoder_folder())
    assert json.loads(other.stdout)["new"] == 2
    assert "it is untrained" in other.stderr or "untrained" in other.stderr
    assert len(list(cache.glob("songs/features-*"))) == 2


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_encoder_that_changes_before_the_workers_load_it_ends_the_run(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    table, cache = write_songs(tmp_path / "songs", 3), tmp_path / "cache"

    def change(device: str) -> str:
        edit(mine, layer_norm_eps=1e-6)
        return device

    monkeypatch.setattr("m2e.extract.job.session.usable_device", change)
    result = extract(table, cache, "--encoder", mine, "--jobs", str(jobs))
    assert result.exit_code == 1
    assert f"Error: {mine} changed since this began: it is sha256:" in result.stderr.splitlines()[-1]
    assert not list(cache.rglob("*.h5"))[1:]  # but for labels
    assert not list(cache.rglob("shard-*")) + list(cache.rglob("failures-*"))
    again = extract(table, cache, "--encoder", mine)
    assert json.loads(again.stdout)["new"] == 3


def test_weights_are_compared_once_they_are_loaded(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = find_encoder(str(mine))
    config = ExtractionConfig(source.name, source.revision, chords="cnn", chords_revision=recogniser_revision("cnn"))
    good = Extractor.of(Models(config, mine, None, "cpu"))
    good.load()
    real = extractor.load_encoder

    def loaded(*words: Any) -> Any:
        result = real(*words)
        edit(mine, layer_norm_eps=1e-6)
        return result

    monkeypatch.setattr(extractor, "load_encoder", loaded)
    with pytest.raises(DataError, match="changed since this began"):
        Extractor.of(good.models).encoder  # noqa: B018
    other = replace(config, chords_revision="sha256:" + "0" * 64)
    with pytest.raises(DataError, match=r"cnn changed since this began: it is sha256:.* and the features are to be of"):
        Extractor.of(replace(good.models, config=other)).recogniser  # noqa: B018


def test_the_pinned_encoder_is_known_by_its_files(hub: Path) -> None:
    config = ExtractionConfig("mine-v1", COMMIT, chords="template")
    Extractor.of(Models(config, hub, None, "cpu")).load()
    edit(hub, layer_norm_eps=1e-6)
    with pytest.raises(DataError, match="changed since this began"):
        Extractor.of(Models(config, hub, None, "cpu")).load()
    # Of a former cache's commit no file tells.
    Extractor.of(Models(replace(config, encoder_revision="1" * 40), hub, None, "cpu")).load()


def test_a_registered_name_is_only_for_that_encoder(mine: Path, tmp_path: Path) -> None:
    for name in ("MERT-v1-95M", "MERT-v1-330M@" + COMMIT, "tiny"):
        folder = Path(shutil.copytree(mine, tmp_path / "weights" / name))
        source = find_encoder(str(folder))
        assert source.name == f"{name} (a folder)"
        assert source.revision == identify(mine)
    assert find_encoder(str(tiny_encoder_folder())).name == "tiny"


@pytest.fixture
def hub(mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's copy of `mine`, registered under two names: pinned with its digest, and to be named by commit."""
    there = Path(shutil.copytree(mine, tmp_path / "hub" / "snapshots" / COMMIT))
    pinned = HubEncoder("me/mine", COMMIT, weights_digest(there)[:16], numeric_settings(there))
    registry = {"mine-v1": pinned, "mine-v2": HubEncoder("me/mine", None), "tiny": None}
    monkeypatch.setattr(encoders, "ENCODERS", registry)
    monkeypatch.setattr(encoders, "fetch_encoder", lambda source: there)
    return there


def test_a_local_copy_is_the_hubs_encoder(hub: Path, mine: Path) -> None:
    assert find_encoder(str(mine)) == replace(find_encoder("mine-v1"), folder=mine)
    assert settle(find_encoder("mine-v1")).folder is None  # known without its files
    config = ExtractionConfig("mine-v1", COMMIT, chords="template")
    assert _find_encoder(config, mine).revision == COMMIT
    edit(mine, layer_norm_eps=1e-6)
    assert find_encoder(str(mine)).name == "mine"
    with pytest.raises(DataError, match="trained on features of mine-v1"):
        _find_encoder(config, mine)


def test_so_is_one_of_a_commit_that_is_not_pinned(hub: Path, mine: Path) -> None:
    assert settle(find_encoder("mine-v2", COMMIT)).name == "mine-v1"  # which it is
    for folder in (hub, mine):
        edit(folder, layer_norm_eps=1e-6)
    source = settle(find_encoder("mine-v2", COMMIT))
    assert (source.name, source.revision) == (f"mine-v2@{COMMIT}", identify(mine))
    config = ExtractionConfig(source.name, source.revision, chords="template")
    for copy in (mine, None):
        assert _find_encoder(config, copy).revision == source.revision


def test_caches_whose_fingerprint_has_the_name_in_it_are_read(tmp_path: Path) -> None:
    """As versions before 0.2 made them."""
    from support.caches import make_cache, make_labels

    from m2e.cache.settings import FormerConfig

    former = FormerConfig("my-encoder", "sha256:" + "0" * 64, chords="template")
    now = ExtractionConfig("my-encoder", "sha256:" + "0" * 64, chords="template")
    assert former.fingerprint != now.fingerprint == replace(now, encoder="another").fingerprint
    assert ExtractionConfig("a", COMMIT).fingerprint != ExtractionConfig("b", COMMIT).fingerprint
    cache = make_cache(tmp_path / "deam", make_labels("deam", "D", 5), former)
    assert len(FeatureCache.open(cache).load().track_ids) == 5
    assert FeatureCache.open(cache).config.fingerprint == former.fingerprint
    assert now.differences(replace(now, encoder="another")) == []
    features = cache / f"features-{now.fingerprint}"
    write_config(features, replace(now, encoder="called otherwise"))
    assert read_config(features).encoder == "called otherwise"
