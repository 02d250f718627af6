"""The way of a GPU, on a CPU: decoders beside it, batches of several tracks, and what happens when one of them dies."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.music import write_songs

from m2e.cache import ChordSequence, DataError, ExtractionConfig, TrackFeatures
from m2e.cache.catalogue import scan
from m2e.cache.failures import Failure, read_failures
from m2e.cache.folders import features_folder
from m2e.cache.harmony import Key
from m2e.cache.notes import Note
from m2e.extract.encoders.batching import embed_tracks
from m2e.extract.encoders.mert import load_mert
from m2e.extract.encoders.registry import Encoder, find_encoder, load_encoder
from m2e.extract.encoders.tiny import tiny_encoder_folder
from m2e.extract.extractor import Extractor, PreparedTrack
from m2e.extract.job.plan import Task
from m2e.extract.job.report import Tally
from m2e.extract.models import Models
from m2e.extract.workers import gpu
from m2e.extract.workers.attempts import attempt
from m2e.extract.workers.gpu import Busy, extract_ahead
from m2e.extract.workers.handover import Handover, NoRoom, handover_folder
from m2e.extract.workers.schedule import Lost
from m2e.extract.workers.task import Extraction

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_decoders_left() -> Iterator[None]:
    yield
    if gpu._start_decoders.cache_info().currsize:
        gpu._start_decoders(2).kill()
        gpu._start_decoders.cache_clear()


@pytest.fixture(scope="module")
def models() -> Models:
    source = find_encoder("tiny")
    assert source.folder is not None
    config = ExtractionConfig(source.name, source.revision, chords="template", tail="keep", min_tail_seconds=0.5)
    return Models(replace(config, segment_seconds=1.0), source.folder, None, "cpu", decoders=2 * gpu.SHARING)


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    """Seven songs and a broken file."""
    write_songs(tmp_path, 7)
    (tmp_path / "7.wav").write_text("not music")
    return [Task(path.stem, path, path.stat().st_size) for path in sorted(tmp_path.glob("[0-7].*"))]


def waves(*lengths: int) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.standard_normal(length).astype(np.float32) for length in lengths]


class Passes:
    """A network that notes how many segments it was given at once."""

    def __init__(self) -> None:
        self.network, self.seen = load_mert(tiny_encoder_folder(), (5, 7)), list[int]()

    def to(self, device: str) -> "Passes":
        return self

    def __call__(self, waves: Any) -> Any:
        self.seen.append(len(waves))
        return self.network(waves)


def test_a_device_gives_what_a_cpu_gives_and_says_when_it_was_busy(device: str) -> None:
    tracks = {str(i): waves(*[24_000 + 320 * (i % 3)] * (1 + i % 4)) for i in range(12)}
    encoder = load_encoder(tiny_encoder_folder(), (5, 7), device)
    spans: list[tuple[float, float]] = []
    found = dict(embed_tracks(encoder, tracks.items(), lambda *span: spans.append(span)))
    single = load_encoder(tiny_encoder_folder(), (5, 7))
    for name, segments in tracks.items():
        np.testing.assert_allclose(found[name], single.embed(segments), atol=1e-5)
    assert all(began < ended for began, ended in spans)


def test_segments_of_several_tracks_share_a_pass_and_each_gets_its_own_embeddings() -> None:
    tracks = {"a": waves(24_000, 24_000, 9_000), "b": [], "c": waves(24_000), "d": waves(24_000, 24_000)}
    network = Passes()
    spans: list[tuple[float, float]] = []
    found = dict(embed_tracks(Encoder(network, "cpu", batch=3), tracks.items(), lambda *span: spans.append(span)))  # type: ignore[arg-type]
    assert sorted(network.seen) == [1, 2, 3]
    assert next(iter(found)) == "b"
    assert found.pop("b").size == 0
    single = load_encoder(tiny_encoder_folder(), (5, 7))
    for name, embeddings in found.items():
        np.testing.assert_allclose(embeddings, single.embed(tracks[name]), atol=1e-5)
    assert len(spans) == 3
    assert all(began < ended for began, ended in spans)


def test_a_batch_that_does_not_fit_is_halved_until_one_does() -> None:
    class Small(Passes):
        room = 2

        def __call__(self, waves: Any) -> Any:
            if len(waves) > self.room:
                raise torch.OutOfMemoryError(f"{len(waves)} are too many")
            return super().__call__(waves)

    network = Small()
    tracks = [(str(i), waves(*[12_000] * 5)) for i in range(4)]
    found = dict(embed_tracks(Encoder(network, "cpu", batch=8), tracks))  # type: ignore[arg-type]
    assert max(network.seen) == 2
    single = load_encoder(tiny_encoder_folder(), (5, 7))
    for name, segments in tracks:
        np.testing.assert_allclose(found[name], single.embed(segments), atol=1e-5)
    network.room = 0
    with pytest.raises(DataError, match="too little free memory for one segment"):
        list(embed_tracks(Encoder(network, "cpu", batch=8), tracks))  # type: ignore[arg-type]


def test_a_segment_at_which_the_network_fails_costs_its_track_and_no_other() -> None:
    class Fragile(Passes):
        def __call__(self, waves: Any) -> Any:
            if bool((waves.abs().amax(dim=1) > 50).any()):
                raise RuntimeError("cuFFT error: CUFFT_INTERNAL_ERROR")
            return super().__call__(waves)

    network = Fragile()
    tracks = {str(i): waves(*[12_000] * (3 + i % 2)) for i in range(20)}
    tracks["4"][1][7] = 99.0
    found = dict(embed_tracks(Encoder(network, "cpu", batch=8), tracks.items()))  # type: ignore[arg-type]
    assert isinstance(error := found.pop("4"), RuntimeError)
    assert "cuFFT" in str(error)
    single = load_encoder(tiny_encoder_folder(), (5, 7))
    assert len(found) == 19
    for name, embeddings in found.items():
        assert isinstance(embeddings, np.ndarray)
        np.testing.assert_allclose(embeddings, single.embed(tracks[name]), atol=1e-5)
    with pytest.raises(RuntimeError, match="cuFFT"):
        Encoder(network, "cpu", batch=8).embed(tracks["4"])  # type: ignore[arg-type]


def test_a_batch_that_was_halved_grows_again() -> None:
    class Crowded(Passes):
        def __call__(self, waves: Any) -> Any:
            if 2 < len(self.seen) < 6 and len(waves) > 2:
                raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")
            return super().__call__(waves)

    network = Crowded()
    tracks = [(str(i), waves(*[12_000] * 4)) for i in range(60)]
    assert len(dict(embed_tracks(Encoder(network, "cpu", batch=8), tracks))) == 60  # type: ignore[arg-type]
    assert network.seen[:6] == [8, 8, 8, 2, 2, 2]
    assert network.seen[-2] == 8


def test_a_failure_of_the_device_itself_ends_the_process_that_has_it(
    models: Models, tasks: list[Task], tmp_path: Path
) -> None:
    """What was sealed is kept, and the engine tries the rest in a new process: see the tests of run_tasks."""
    code = """
import sys
from pathlib import Path, PosixPath
from m2e.cache import ExtractionConfig
from m2e.extract.workers import gpu, task as pipeline
from m2e.extract.encoders.batching import DeviceLostError
from m2e.extract.job.plan import Task
from m2e.extract.models import Models

def extract(tasks, models, spans):
    taken = list(tasks)
    yield from pipeline.Extraction(models, Path(sys.argv[1]))._extract(iter(taken[:2]), spans)
    raise DeviceLostError("the GPU failed: an illegal memory access")

class Failing(pipeline.Extraction):
    def _extract(self, tasks, spans):
        yield from extract(tasks, self.models, spans)

models, tasks = eval(sys.argv[2]), eval(sys.argv[3])
Failing(models, Path(sys.argv[1]))(iter(tasks))
"""
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", code, str(cache), repr(models), repr(tasks[:4])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (os.EX_UNAVAILABLE, "")
    assert len(scan(features_folder(cache, models.config), models.config).index) == 2


def test_a_handed_over_track_is_what_was_put_and_leaves_nothing(tmp_path: Path) -> None:
    chords = ChordSequence.from_labels([[0, 1], [1, 2.5]], ["C:maj", "N"])
    key, noted = Key(3, "minor"), (Note("cut", (1.0, 2.0)), Note("silent"))
    track = PreparedTrack(tmp_path / "a.wav", waves(24_000, 7), chords, key, 2.5, b"1" * 32, 99, noted)
    given = Handover.put(track, tmp_path)
    assert [path.stat().st_size > 96_000 for path in tmp_path.iterdir()] == [True]
    back = given.take()
    for mine, theirs in zip(back.segments, track.segments, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert (back.chords.labels, back.key, back.audio_sha256) == (chords.labels, key, track.audio_sha256)
    assert back.notes == noted
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="TMPDIR"):
        Handover.put(track, tmp_path / "nowhere")


def test_a_track_whose_file_changes_on_the_way_is_a_failure_and_no_room_is_none(tmp_path: Path) -> None:
    def segments() -> Iterator[Any]:
        yield waves(10)[0]
        raise DataError("a.wav: has changed")

    class Changing:
        def __len__(self) -> int:
            return 2

        def __iter__(self) -> Iterator[Any]:
            return segments()

    chords = ChordSequence.from_labels([[0, 1]], ["N"])
    track = PreparedTrack(tmp_path / "a.wav", Changing(), chords, None, 1.0, b"1" * 32, 99)
    task = Task("a", tmp_path / "a.wav", 99)
    failed = attempt(task, lambda: Handover.put(track, tmp_path))
    assert isinstance(failed, Failure)
    assert (failed.stage, failed.reason) == ("audio", "a.wav: has changed")
    assert not list(tmp_path.iterdir())
    with pytest.raises(NoRoom, match="make room there"):
        attempt(task, lambda: Handover.put(track, tmp_path / "nowhere"))


def test_the_folder_is_where_tmpdir_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with handover_folder() as folder:
        assert folder.parent == tmp_path
    monkeypatch.setenv("TMPDIR", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"TMPDIR is .*nowhere, which is no folder"), handover_folder():
        pass


def test_the_folder_is_its_owners_alone_and_those_of_dead_processes_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    monkeypatch.setattr("m2e.extract.workers.handover._IN_MEMORY", tmp_path)
    monkeypatch.setattr("m2e.extract.workers.handover._ROOM", 0)
    monkeypatch.delenv("TMPDIR", raising=False)
    dead = tmp_path / f".tmp-m2e-{socket.gethostname()}-{2**22 + 1}-{0:012x}"
    dead.mkdir()
    (dead / "wave").touch()
    with handover_folder() as folder:
        assert list(tmp_path.iterdir()) == [folder]
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.iterdir())


def test_features_equal_those_of_one_process_and_a_broken_file_is_a_failure(
    models: Models, tasks: list[Task], tmp_path: Path
) -> None:
    spans: list[tuple[float, float]] = []
    found = {task.track_id: outcome for task, outcome in extract_ahead(iter(tasks), models, spans)}
    broken = found.pop("7")
    assert isinstance(broken, Failure)
    assert broken.stage == "audio"
    assert len(found) == 7
    assert spans
    for task in tasks:
        if task.track_id in found:
            track, alone = found[task.track_id], Extractor.of(models)(task.path, task.track_id)
            assert isinstance(track, TrackFeatures)
            np.testing.assert_array_equal(track.embeddings, alone.embeddings)
            assert (track.chords.labels, track.key, track.audio_sha256) == (
                alone.chords.labels,
                alone.key,
                alone.audio_sha256,
            )


def test_a_worker_with_a_gpu_seals_them_all_and_says_when_it_was_busy(
    models: Models, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the device: `models` say "cuda", and the encoder that is loaded for it is on the CPU."""
    monkeypatch.setattr(gpu, "extractor_of", lambda _: Extractor.of(models))
    work = Extraction(replace(models, device="cuda"), tmp_path / "cache")
    for batch in (tasks[:4], tasks[4:]):
        *outcomes, busy = work(iter(batch))
        assert isinstance(busy, Busy)
        assert len(outcomes) == len(batch)
    tally = Tally(spans={busy.gpu: list(busy.spans)})
    assert tally.gpu_busy is not None
    assert 0 < tally.gpu_busy <= 1
    features = features_folder(tmp_path / "cache", models.config)
    assert len(scan(features, models.config).index) == 7
    assert read_failures(features).keys() == {"7"}


class Deadly(gpu._Preparation):
    """Kills its process at one file, as a decoder's fault would."""

    def __call__(self, tasks: Iterator[Task]) -> Any:
        def checked() -> Iterator[Task]:
            for task in tasks:
                if task.track_id == "5":
                    os.kill(os.getpid(), signal.SIGKILL)
                yield task

        return super().__call__(checked())


def test_a_decoder_that_dies_twice_at_a_file_costs_that_file(
    models: Models, tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "_Preparation", Deadly)
    found: dict[str, list[object]] = {}
    for task, outcome in extract_ahead(iter(tasks), models, []):
        found.setdefault(task.track_id, []).append(outcome)
    assert [isinstance(outcome, Lost) and outcome.final for outcome in found.pop("5")] == [False, True]
    assert sorted(found) == ["0", "1", "2", "3", "4", "6", "7"]


def test_leaving_in_the_middle_ends_the_decoders_and_their_files(
    models: Models, tasks: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("m2e.extract.workers.handover._IN_MEMORY", tmp_path)
    monkeypatch.setattr("m2e.extract.workers.handover._ROOM", 0)
    monkeypatch.delenv("TMPDIR", raising=False)
    before = set(tmp_path.iterdir())
    found = extract_ahead(iter(tasks), models, [])
    next(found)
    assert gpu._start_decoders.cache_info().currsize == 1
    found.close()  # type: ignore[attr-defined]
    assert gpu._start_decoders.cache_info().currsize == 0
    assert set(tmp_path.iterdir()) == before


RUN = """
import sys
from pathlib import Path
from m2e.extract.workers.schedule import run_tasks
from m2e.extract.workers.gpu import extract_ahead
from m2e.extract.workers.task import Extraction
from m2e.extract.job.plan import Task
from m2e.extract.models import Models
from m2e.extract.workers.local import LocalWorkers

class Staged(Extraction):
    def _extract(self, tasks, spans):
        yield from extract_ahead(tasks, self.models, spans)

folder = Path(sys.argv[1])
tasks = [Task(path.stem, path, 1) for path in sorted(folder.glob("[0-6].*"))]
with LocalWorkers(2) as workers:
    outcomes = list(run_tasks(Staged(eval(sys.argv[2]), folder / "cache"), tasks, workers))
print(sorted(outcome for outcome in outcomes if isinstance(outcome, str)))
"""


def test_two_such_workers_end_in_peace(models: Models, tasks: list[Task], tmp_path: Path) -> None:
    """Each has decoders of its own, processes of a process: nobody complains about what they leave."""
    names = "from pathlib import PosixPath\nfrom m2e.cache import ExtractionConfig\n"
    models = replace(models, decoders=gpu.SHARING)  # one for each
    done = subprocess.run(
        [sys.executable, "-c", names + RUN, str(tmp_path), repr(models)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == str(sorted("0123456")).split()


def test_busy_is_counted_once_where_two_processes_overlap() -> None:
    assert Tally().gpu_busy is None
    assert Tally(spans={"a": [(10, 12), (11, 13), (14, 15), (11.5, 12)]}).gpu_busy == pytest.approx(4 / 5)


def test_two_gpus_that_are_half_busy_are_half_busy_and_machines_have_clocks_of_their_own() -> None:
    halves: list[tuple[float, float]] = [(0, 1), (2, 3), (4, 4)]
    shifted = [(began + 1e6, ended + 1e6) for began, ended in halves]
    assert Tally(spans={"a 1": halves, "a 2": [(1, 2), (3, 4), (5, 5)]}).gpu_busy == pytest.approx(1 / 2)
    assert Tally(spans={"a 1": halves, "b 1": shifted}).gpu_busy == pytest.approx(1 / 2)


def test_a_moment_is_no_time_to_be_busy_in() -> None:
    assert Tally(spans={"a": [(3, 3)]}).gpu_busy is None
    assert Tally(spans={"a": [(3, 3)], "b": [(0, 1), (1, 2)]}).gpu_busy == 1
