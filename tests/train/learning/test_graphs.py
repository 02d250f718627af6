"""A GPU's way through an epoch, on a CPU: the same losses and models as step after step."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.caches import make_cache, make_labels
from torch import Tensor

from m2e.train.config import TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning.graphs import StepGraphs
from m2e.train.learning.loop import History, Keeper, _Training, train_student, train_teacher
from m2e.train.learning.teachers import freeze

torch.set_num_threads(1)


def load(folder: Path, config: TrainConfig, device: str = "cpu") -> list[EmotionData]:
    make_cache(folder / "j", make_labels("j", "J", 60, ("a", "b", "c")), signal=0.5)
    make_cache(folder / "d", make_labels("d", "D", 30), signal=0.5)
    return load_data(open_caches(folder, ["J", "D"]), config, torch.device(device))


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_an_epoch_of_graphs_is_an_epoch_of_steps(tmp_path: Path, preset: str) -> None:
    config = replace(TrainConfig.preset(preset, dropout=0.0, learning_rate=1e-3), epochs=1)
    sets = load(tmp_path, config)
    teachers = [freeze(train_teacher(data, config).models, data) for data in sets]
    plain, graphed = (_Training(sets, teachers, config) for _ in range(2))
    graphed.model.padded = True
    graphed.graphs = StepGraphs(graphed._learn, sets, config.mask_padding)
    for _ in range(3):
        plain._epoch()
        graphed._epoch()
    assert graphed.history.training == pytest.approx(plain.history.training, rel=1e-5)
    for task, losses in plain.history.validation.items():
        assert graphed.history.validation[task] == pytest.approx(losses, rel=1e-4)
    for (name, one), other in zip(graphed.model.named_parameters(), plain.model.parameters(), strict=True):
        # Adam divides by the root of the squared gradient: rounding of a gradient near 0 moves a weight by the rate.
        assert float((one - other).detach().norm()) < 2e-3 * float(other.detach().norm()) + 1e-3, name


def test_steps_have_few_shapes_and_room_for_every_chord(tmp_path: Path) -> None:
    config = TrainConfig.preset("paper", batch_size=4)
    sets = load(tmp_path, config)
    training = _Training(sets, None, config)
    seen: list[tuple[list[int], int]] = []

    def learn(step: object, longest: int) -> None:
        assert isinstance(step, list)
        counts = [data.n_chords[batch.rows].max() for data, batch in zip(sets, step, strict=True) if batch]
        assert longest >= max(counts)
        seen.append(([len(batch.rows) for batch in step if batch], longest))

    training.graphs = StepGraphs(learn, sets, masked=True)
    for _ in range(3):
        training._epoch()
    assert len({str(shape) for shape in seen}) <= 6 < len(seen)


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_a_device_trains_as_a_cpu_does(tmp_path: Path, preset: str, device: str) -> None:
    config = replace(TrainConfig.preset(preset, dropout=0.0, learning_rate=1e-3), epochs=4)
    there, here = (load(tmp_path / place, config, place) for place in (device, "cpu"))
    models = [train_teacher(data, config) for data in (*there, *here)]
    students = [
        train_student(there, [model.models for model in models[:2]], config),
        train_student(here, [model.models for model in models[2:]], config),
    ]
    for ours, theirs in (*zip(models[:2], models[2:], strict=True), students):
        assert ours.training == pytest.approx(theirs.training, rel=1e-4)
        assert ours.validation == {task: pytest.approx(losses, rel=1e-3) for task, losses in theirs.validation.items()}


def test_an_interrupted_training_goes_on_to_the_same_model(tmp_path: Path, device: str) -> None:
    """With dropout, and on a GPU with graphs that are recorded anew."""
    config = replace(TrainConfig.preset("paper", learning_rate=1e-3), epochs=6)
    data = load(tmp_path, config, device)[0]

    class Kept(Keeper):
        def __init__(self, until: int) -> None:
            self.until, self.kept = until, list[tuple[dict[str, Tensor], History]]()

        def restore(self) -> tuple[dict[str, Tensor], History] | None:
            return self.kept[-1] if self.kept else None

        def keep(self, tensors: Callable[[], dict[str, Tensor]], history: History) -> None:
            self.kept.append((tensors(), copy.deepcopy(history)))
            if history.epochs == self.until:
                raise KeyboardInterrupt

    whole, keeper = train_teacher(data, config), Kept(until=3)
    with pytest.raises(KeyboardInterrupt):
        train_teacher(data, config, keeper)
    keeper.until = 0
    resumed = train_teacher(data, config, keeper)
    assert resumed.training == whole.training
    for name, value in whole.models["tags"].state_dict().items():
        assert value.equal(resumed.models["tags"].state_dict()[name]), name
