"""A training that was stopped, however rudely, goes on to the very same result."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from support.caches import make_cache, make_labels

from m2e.cache import DataError, write_labels
from m2e.train import run
from m2e.train.cli import main
from m2e.train.config import TASKS, TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning import state
from m2e.train.learning.loop import History, train_student, train_teacher
from m2e.train.learning.state import STATE_FILE, StateFile
from m2e.train.run import train_all

SMALL = TrainConfig.preset("paper", hidden=32, branch_hidden=16, epochs=6, learning_rate=3e-3)
torch.set_num_threads(1)


def make_caches(folder: Path) -> Path:
    make_cache(folder / "j", make_labels("j", "J", 60, ("a", "b", "c")), signal=0.5)
    make_cache(folder / "d", make_labels("d", "D", 30), signal=0.5)
    return folder


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    return make_caches(tmp_path / "caches")


def load(caches: Path, config: TrainConfig = SMALL) -> list[EmotionData]:
    return load_data(open_caches(caches, ["J", "D"]), config, torch.device("cpu"))


def stop_at(epoch: int, error: type[BaseException] = KeyboardInterrupt) -> Callable[[History], None]:
    def watch(history: History) -> None:
        if history.epochs == epoch:
            raise error

    return watch


def forget(history: History) -> None:
    pass


@pytest.mark.parametrize(
    "changes", [{}, {"mask_padding": False, "max_chords": 20, "exhausted": "stop"}, {"patience": 2}]
)
def test_a_student_goes_on_to_the_same_bits(caches: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = replace(SMALL, **changes)
    sets = load(caches, config)
    teachers = [train_teacher(data, replace(config, epochs=2)).models for data in sets]
    whole = train_student(sets, teachers, config)
    for epoch in (1, 4):
        with pytest.raises(KeyboardInterrupt):
            train_student(sets, teachers, config, StateFile(tmp_path, "x", stop_at(epoch)))
        torch.manual_seed(99)
    # Not of the same training: not used.
    assert StateFile(tmp_path, "y", forget).restore() is None
    parts = train_student(sets, teachers, config, StateFile(tmp_path, "x", forget))
    assert (parts.training, parts.validation, parts.best_epoch) == (
        whole.training,
        whole.validation,
        whole.best_epoch,
    )
    for task, model in whole.models.items():
        for name, value in model.state_dict().items():
            assert value.equal(parts.models[task].state_dict()[name]), name


def test_states_are_not_written_after_every_short_epoch(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(caches)[1]
    written: list[int] = []
    monkeypatch.setattr(state, "write_atomically", lambda path, content: written.append(len(content)))
    train_teacher(data, SMALL, StateFile(tmp_path, "x", forget))
    assert len(written) == 1
    monkeypatch.setattr(state, "SECONDS", 0.0)
    train_teacher(data, SMALL, StateFile(tmp_path, "x", forget))
    assert len(written) == 1 + SMALL.epochs


def test_what_is_finished_is_loaded_and_what_changed_is_trained_again(caches: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = train_all(load(caches), SMALL, out)
    files = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert {path.name for path in files} == {"model.safetensors", "config.json", "history.json"}
    again = train_all(load(caches), SMALL, out)
    assert files == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert first.student is not None
    assert again.student is not None
    for one, other in ((first.student, again.student), (first.teachers["J"], again.teachers["J"])):
        assert (one.training, one.validation, one.best_epoch, one.epochs) == (
            other.training, other.validation, other.best_epoch, other.epochs,
        )  # fmt: skip
        for task, model in one.models.items():
            assert not other.models[task].training
            for name, value in model.state_dict().items():
                assert value.equal(other.models[task].state_dict()[name])

    # Other labels of one set: its teacher and the student, and not the other's teacher.
    write_labels(caches / "d", make_labels("d", "D", 30, seed=9))
    train_all(load(caches), SMALL, out)
    changed = {path.parent.name for path, before in files.items() if path.stat().st_mtime_ns != before}
    assert changed == {"teacher-D", "student"}
    train_all(load(caches), replace(SMALL, seed=1), out)
    assert all(path.stat().st_mtime_ns != before for path, before in files.items())


def test_runs_share_their_teachers(caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = tmp_path / "teachers"
    sets = load(caches)
    both = train_all(sets, SMALL, tmp_path / "JD", shared)
    assert {path.name for path in (tmp_path / "JD").iterdir()} == {"student"}
    assert {path.name.partition("-")[0] for path in shared.iterdir()} == {"J", "D"}
    monkeypatch.setattr(run, "train_teacher", stop_at(0))  # must not be called
    single = train_all(sets[1:], SMALL, tmp_path / "D", shared)
    assert single.student is None
    assert single.teachers["D"].validation == both.teachers["D"].validation
    alone = train_all(sets, SMALL, tmp_path / "again", shared).student
    assert alone is not None
    assert both.student is not None
    assert alone.training == both.student.training


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"history": {}}', b"\xff"])
def test_damaged_histories_are_one_line(caches: Path, tmp_path: Path, content: bytes) -> None:
    sets = load(caches)[1:]
    train_all(sets, replace(SMALL, epochs=1), tmp_path)
    (tmp_path / "single-D" / "history.json").write_bytes(content)
    with pytest.raises(DataError, match=r"history.json.*Delete .*single-D") as caught:
        train_all(sets, replace(SMALL, epochs=1), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["cut", "empty", "history", "shape"])
def test_damaged_states_are_one_line(caches: Path, tmp_path: Path, change: str) -> None:
    data = load(caches)[1]
    path = tmp_path / STATE_FILE
    with pytest.raises(KeyboardInterrupt):
        train_teacher(data, SMALL, StateFile(tmp_path, "x", stop_at(2)))
    if change == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif change == "empty":
        path.write_bytes(b"")
    elif change == "history":
        path.write_bytes(path.read_bytes().replace(b'epochs\\": 2', b'epochs\\": 7'))
    config = replace(SMALL, hidden=16) if change == "shape" else SMALL
    with pytest.raises(DataError, match=r"state") as caught:
        train_teacher(data, config, StateFile(tmp_path, "x", forget))
    assert "\n" not in str(caught.value)


def test_losses_are_logged_for_tensorboard(caches: Path, tmp_path: Path) -> None:
    # In a process of its own: tensorboard's imports warn.
    code = (
        "import sys\n"
        "from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n"
        "from m2e.train.cli import main\n"
        "main(sys.argv[2:], standalone_mode=False)\n"
        "for model in ('teacher-J', 'teacher-D', 'student'):\n"
        "    events = EventAccumulator(f'{sys.argv[1]}/tensorboard/{model}').Reload()\n"
        "    for tag in events.Tags()['scalars']: print(model, tag, *(event.value for event in events.Scalars(tag)))\n"
    )
    options = ["--datasets", "J,D", "--cache", caches, "--out", tmp_path / "out", "--epochs", 2, "--device", "cpu"]
    command = [sys.executable, "-c", code, tmp_path / "out", *options, "--tensorboard"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    logged = {tuple(line.split()[:2]): [float(x) for x in line.split()[2:]] for line in result.stdout.splitlines()}
    for model, tasks in (("teacher-J", ["tags"]), ("teacher-D", ["valence_arousal"]), ("student", TASKS)):
        history = json.loads((tmp_path / "out" / model / "history.json").read_text())["history"]
        assert logged[model, "loss/training"] == pytest.approx(history["training"])
        for task in tasks:
            assert logged[model, f"loss/validation/{task}"] == pytest.approx(history["validation"][task])


def test_without_tensorboard_its_logs_are_one_line(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    where = ["--cache", str(caches), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*ARGUMENTS, *where, "--tensorboard"])
    assert result.exit_code == 1
    assert "Error: tensorboard is not installed here" in result.stderr
    assert "pip install" in result.stderr
    assert not (tmp_path / "out" / "teacher-J").exists()


ARGUMENTS = ["--datasets", "J,D", "--device", "cpu", "--epochs", "12", "--lr", "0.002"]


def start(caches: Path, out: Path) -> "subprocess.Popen[str]":
    """m2e-train in a process of its own, writing its state after every epoch."""
    code = "import m2e.train.learning.state as s; s.SECONDS = 0.0\nfrom m2e.train.cli import main; main()"
    command = [sys.executable, "-c", code, *ARGUMENTS, "--cache", str(caches), "--out", str(out)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(process: "subprocess.Popen[str]", ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def epochs_kept(out: Path, model: str) -> int:
    try:
        with safe_open(out / model / STATE_FILE, framework="pt") as file:
            return int(json.loads(file.metadata()["history"])["epochs"])
    except FileNotFoundError:
        return 0


def uninterrupted(caches: Path, out: Path) -> None:
    result = CliRunner().invoke(main, [*ARGUMENTS, "--cache", str(caches), "--out", str(out)])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run that nothing disturbs leaves."""
    folder = tmp_path_factory.mktemp("whole")
    uninterrupted(make_caches(folder / "caches"), folder / "out")
    return folder / "out"


def assert_same_models(one: Path, other: Path) -> None:
    for model in ("teacher-J", "teacher-D", "student"):
        for file in ("model.safetensors", "history.json", "config.json"):
            assert (one / model / file).read_bytes() == (other / model / file).read_bytes(), (model, file)
        assert not (one / model / STATE_FILE).exists()


def test_a_killed_run_goes_on_to_the_same_bytes(caches: Path, tmp_path: Path, whole: Path) -> None:
    out = tmp_path / "killed"
    for model, epochs in (("teacher-J", 3), ("student", 5)):
        process = start(caches, out)
        wait_for(process, lambda model=model, epochs=epochs: epochs_kept(out, model) >= epochs)  # type: ignore[misc]
        process.kill()
        process.communicate()
        assert 0 < epochs_kept(out, model) < 12
    uninterrupted(caches, out)
    assert_same_models(out, whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_the_last_epoch_and_says_how_to_go_on(
    caches: Path, tmp_path: Path, whole: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(caches, out)
    wait_for(process, lambda: epochs_kept(out, "teacher-J") >= 2)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert said.splitlines()[-1].startswith("interrupted")
    assert "Run the same command" in said
    assert "Traceback" not in said
    uninterrupted(caches, out)
    assert_same_models(out, whole)
