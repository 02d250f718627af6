"""One run: a teacher for each data set, then the student that learns from them all; every model saved as it ends.

A folder of a model that has been trained holds, beside the model, history.json: what the training went through, and the
identity of what it was trained with and on. A run takes such a model as it is where the identity fits, and renames its
folder where it does not.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from m2e.cache.settings import BY_DIGEST
from m2e.common.console import progress_bar
from m2e.common.errors import DataError
from m2e.common.files import write_atomically
from m2e.common.json_files import read_object, typed
from m2e.train.aside import set_aside
from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData
from m2e.train.learning import distributed
from m2e.train.learning.loop import History, Keeper, Trained, train_student, train_teacher
from m2e.train.learning.state import LARGEST_HISTORY, StateFile, read_history
from m2e.train.model.checkpoint import WEIGHTS_FILE, ModelCard, load_model, save_model
from m2e.train.scoring.thresholds import choose_thresholds

HISTORY_FILE = "history.json"
OnEpoch = Callable[[History], object]
Train = Callable[[Keeper], Trained]


@dataclass(frozen=True, eq=False)
class Run:
    """What a run trained.

    Attributes:
        teachers: by label (letter, or name) of the data set; of a run on one data set, its single model.
        student: None where there is one data set: nothing was distilled.
    """

    teachers: dict[str, Trained]
    student: Trained | None

    @property
    def models(self) -> dict[str, Trained]:
        """Every model under the name of its folder: "teacher-J" ... "student", or "single-J"."""
        if self.student is None:
            return {f"single-{label}": model for label, model in self.teachers.items()}
        return {**{f"teacher-{label}": model for label, model in self.teachers.items()}, "student": self.student}


def train_all(
    sets: Sequence[EmotionData],
    config: TrainConfig,
    out: Path,
    teachers: Path | None = None,
    tensorboard: Path | None = None,
) -> Run:
    """Train what these data sets need, and save each model in its folder of `out`.

    What an earlier run finished is loaded, and what it left unfinished goes on from its last epoch, where config and
    data are the same.

    Args:
        teachers: a folder of teachers (and single models, which are the same) that several runs share; they are then
            there, not in `out`.
        tensorboard: a folder for logs of the losses.

    Raises:
        DataError: a loss is no longer finite, or a folder cannot be read or written.
        ModuleNotFoundError: there are to be logs, and tensorboard is not installed.
        KeyboardInterrupt: as it comes; what is unfinished is kept first.
    """
    progress = progress_bar("epochs")
    single = len(sets) == 1
    trained: dict[str, Trained] = {}
    with progress:

        def obtain(name: str, members: Sequence[EmotionData], shared: Path | None, train: Train) -> Trained:
            identity = identify(members, config, distilled=name == "student")
            folder = shared / f"{members[0].label}-{identity[:16]}" if shared else out / name
            with _logs(tensorboard, name) as log:
                row = _row(progress, name, config.epochs)
                card = partial(_card, members, config)
                return _train_or_load(
                    folder, identity, members[0].device, card, lambda history: (row(history), log(history)), train
                )

        for data in sets:
            name = f"{'single' if single else 'teacher'}-{data.label}"
            trained[data.label] = obtain(name, [data], teachers, partial(train_teacher, data, config))
        if single:
            return Run(trained, None)
        taught = [teacher.models for teacher in trained.values()]
        return Run(trained, obtain("student", sets, None, partial(train_student, sets, taught, config)))


def identify(sets: Sequence[EmotionData], config: TrainConfig, distilled: bool) -> str:
    """64 hex digits of a hash over all that decides what a training gives: config, data sets in order, features and
    labels; teachers follow from them."""
    values = {
        "config": json.loads(config.to_json()),
        "distilled": distilled,
        "sets": [[data.name, data.letter, _settings(data), data.digest] for data in sets],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _settings(data: EmotionData) -> dict[str, Any]:
    """Of its features; what an encoder is called is no part of it where a digest says which it is."""
    values: dict[str, Any] = json.loads(data.extraction.to_json())
    if data.extraction.encoder_revision.startswith(BY_DIGEST):
        values["encoder"] = ""
    return values


def load_trained(folder: Path, identity: str, device: torch.device) -> Trained | None:
    """The finished model of a folder, on `device`; None where there is none of this identity.

    Raises:
        DataError: there is one, and it is damaged.
    """
    found = _finished(folder)
    if found is None or found[0] != identity:
        return None
    history = found[1]
    try:
        models, _ = load_model(folder)
    except DataError as error:
        raise DataError(f"{error}. Delete {folder} to train this model again") from error
    models = {task: model.to(device) for task, model in models.items()}
    return Trained(models, history.best_epoch, history.validation, history.epochs, history.training)


def _finished(folder: Path) -> tuple[str, History] | None:
    """Identity and history of a folder's finished training; None where none has finished."""
    path = folder / HISTORY_FILE
    try:
        about = read_object(path, LARGEST_HISTORY)
        return typed(about, "identity", str), read_history(typed(about, "history", dict))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, DataError) as error:
        raise DataError(f"cannot read {path}: {error}. Delete {folder} to train this model again") from error


def _card(sets: Sequence[EmotionData], config: TrainConfig, trained: Trained) -> ModelCard:
    return ModelCard.of(sets, config, choose_thresholds(trained.models, sets))


def _train_or_load(
    folder: Path,
    identity: str,
    device: torch.device,
    card: Callable[[Trained], ModelCard],
    watch: OnEpoch,
    train: Train,
) -> Trained:
    """The finished model of `folder`, or the result of `train`, which is then saved there; what another training left
    in `folder` is renamed first."""
    if finished := load_trained(folder, identity, device):
        watch(History(finished.epochs, finished.training, finished.validation, finished.best_epoch))
        return finished
    state = StateFile(folder, identity, watch)
    if distributed.rank() == 0 and _holds_another(folder, state):
        set_aside(folder)
    distributed.wait()
    trained = train(state)
    if distributed.rank() == 0:
        history = History(trained.epochs, trained.training, trained.validation, trained.best_epoch)
        # First, for it vouches for the model beside it.
        (folder / HISTORY_FILE).unlink(missing_ok=True)
        save_model(folder, trained.models, card(trained))
        about = {"identity": identity, "history": asdict(history)}
        write_atomically(folder / HISTORY_FILE, (json.dumps(about, indent=2) + "\n").encode())
        state.remove()
    return trained


def _holds_another(folder: Path, state: StateFile) -> bool:
    """`folder` holds a model or a state that is not known to be this training's."""
    # In this order: another process that ends the same training writes the one before it removes the other.
    kept, finished = state.found(), _finished(folder)
    if finished:
        return finished[0] != state.identity
    return (folder / WEIGHTS_FILE).exists() if kept is None else kept != state.identity


def _row(progress: Progress, name: str, epochs: int) -> OnEpoch:
    """A row of the progress bar with the last losses, moved once an epoch."""
    row = progress.add_task(name, total=epochs, rate=0.0)
    started, begun_at, done = time.monotonic(), 0, 0

    def watch(history: History) -> None:
        nonlocal begun_at, done
        if history.epochs > done + 1:
            # Epochs of an earlier run tell nothing about the time left.
            begun_at = history.epochs
            progress.reset(row, total=epochs, completed=history.epochs)
        validated = [f", validation {losses[-1]:.4g}" for losses in history.validation.values() if losses]
        description = f"{name}  loss {history.training[-1]:.4g}{''.join(validated)}"
        rate = (history.epochs - begun_at) / (time.monotonic() - started)
        progress.update(row, completed=history.epochs, rate=rate, description=description)
        done = history.epochs

    return watch


@contextmanager
def _logs(folder: Path | None, name: str) -> Iterator[OnEpoch]:
    """Logs of the losses for TensorBoard, in a folder a model; none without a folder."""
    if folder is None or distributed.rank():
        yield lambda history: None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(folder / name) as writer:
        written = 0

        def watch(history: History) -> None:
            nonlocal written
            series = {"training": history.training}
            series |= {f"validation/{task}": losses for task, losses in history.validation.items()}
            for title, losses in series.items():
                for epoch, loss in enumerate(losses[written:], written + 1):
                    writer.add_scalar(f"loss/{title}", loss, epoch)
            written = history.epochs
            writer.flush()

        yield watch
