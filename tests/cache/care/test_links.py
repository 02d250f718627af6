"""A cache whose files are links, as the hub keeps them, or whose folders are on another disk, is a cache."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.caches import CONFIG, make_cache, make_labels

from m2e.cache import DataError, FeatureCache, read_labels, write_labels
from m2e.cache.care.links import link_on_the_way
from m2e.cache.care.verify import verify
from m2e.cache.catalogue import scan
from m2e.cache.cli import main
from m2e.cache.folders import features_folder
from m2e.cache.lock import LOCK_FILE

LABELS = make_labels("deam", "D", 6)


def linked(source: Path, target: Path) -> Path:
    """A copy of a cache in the hub's layout: real folders, in which every file is a relative link to a blob."""
    blobs = target.parent / "blobs"
    blobs.mkdir(parents=True)
    for number, path in enumerate(sorted(path for path in source.rglob("*") if path.is_file())):
        (blobs / str(number)).write_bytes(path.read_bytes())
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blobs / str(number), place.parent))
    return target


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    return linked(make_cache(tmp_path / "deam", LABELS), tmp_path / "hub" / "snapshot" / "deam")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


def tree(folder: Path) -> dict[str, str | bytes]:
    """All that lies below a folder, links as their targets."""
    return {
        str(path.relative_to(folder)): str(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if (path.is_symlink() or path.is_file()) and path.name != LOCK_FILE
    }


def test_the_hubs_own_layout_is_read(hub: Path, tmp_path: Path) -> None:
    features = features_folder(hub, CONFIG)
    assert verify(features, deep=True) == []
    ours, theirs = FeatureCache.open(hub), FeatureCache.open(tmp_path / "deam")
    np.testing.assert_array_equal(ours.load().embeddings, theirs.load().embeddings)
    before = tree(tmp_path / "hub")
    for command in ("info", "verify", "repair", "failures"):
        result = run(command, hub)
        assert result.exit_code == 0, result.output
    assert tree(tmp_path / "hub") == before


def test_folders_that_are_links_are_read(tmp_path: Path) -> None:
    there = make_cache(tmp_path / "disk" / "deam", LABELS)
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "deam").symlink_to(there)
    assert len(FeatureCache.open(tmp_path / "features" / "deam").track_ids) == 6
    assert run("verify", tmp_path / "features" / "deam", "--deep").exit_code == 0


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])  # through the link


@pytest.mark.parametrize("name", ["features-*/shard-*.h5", "features-*/config.json", "labels.h5"])
def test_what_a_link_leads_to_is_not_moved(hub: Path, tmp_path: Path, name: str) -> None:
    (path,) = hub.glob(name)
    damage(path)
    before = tree(tmp_path / "hub")
    result = run("repair", hub)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()[-1:]
    assert f"{path} is a link to {path.readlink()}" in line
    assert "moves nothing that is reached through a link" in line
    assert tree(tmp_path / "hub") == before


def test_a_link_to_nothing_is_named_and_stays(hub: Path, tmp_path: Path) -> None:
    (path,) = hub.glob("features-*/shard-*.h5")
    path.resolve().unlink()
    for command in ("info", "verify", "repair"):
        result = run(command, hub)
        assert result.exit_code == 1
        assert "which is not there" in result.output
    assert path.is_symlink()
    with pytest.raises(DataError, match=r"is a link to .*, which is not there"):
        scan(features_folder(hub, CONFIG), CONFIG)


def test_a_damaged_file_in_a_linked_folder_is_not_moved(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "deam", LABELS)
    features = features_folder(cache, CONFIG)
    features.rename(tmp_path / "elsewhere")
    features.symlink_to(tmp_path / "elsewhere")
    (shard,) = features.glob("shard-*.h5")
    damage(shard)
    result = run("repair", cache)
    assert result.exit_code == 1
    assert f"{features} is a link to {tmp_path / 'elsewhere'}" in result.stderr
    assert shard.exists()


def test_writing_and_packing_replace_links_and_leave_their_targets(hub: Path, tmp_path: Path) -> None:
    blobs = tree(tmp_path / "hub" / "blobs")
    write_labels(hub, LABELS)
    assert not (hub / "labels.h5").is_symlink()
    assert read_labels(hub).track_ids == LABELS.track_ids
    assert run("pack", hub).exit_code == 0
    assert len(FeatureCache.open(hub).track_ids) == 6
    assert tree(tmp_path / "hub" / "blobs") == blobs


def test_the_first_link_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "real" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    assert link_on_the_way(tmp_path, tmp_path / "real" / "inner" / "a") is None
    assert link_on_the_way(tmp_path, tmp_path / "link" / "inner" / "a") == tmp_path / "link"
    assert link_on_the_way(tmp_path / "link", tmp_path / "link" / "inner" / "a") is None
