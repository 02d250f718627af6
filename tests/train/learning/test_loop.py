"""The schedule, the choice of the epoch, and what a model may see."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.caches import make_cache, make_labels

from m2e.cache import DataError
from m2e.train.config import Input, TrainConfig
from m2e.train.data.tensors import EmotionData, load_data, open_caches
from m2e.train.learning.loop import output_sizes, step_loss, train_student, train_teacher
from m2e.train.learning.schedule import draw_schedule
from m2e.train.learning.teachers import freeze
from m2e.train.model.fused_attention import fused_attention
from m2e.train.model.network import EmotionModel, Inputs, concatenate, padding_id
from m2e.train.scoring.evaluate import measure, predict, validation_loss

SMALL = TrainConfig.preset(
    "paper", root_dim=8, quality_dim=8, heads=2, ffn=16, hidden=32, branch_hidden=16, epochs=4, learning_rate=3e-3
)
CPU = torch.device("cpu")
# As the command does: matrices this small lose by threads.
torch.set_num_threads(1)


@pytest.fixture
def sets(tmp_path: Path) -> list[EmotionData]:
    make_cache(tmp_path / "j", make_labels("j", "J", 60, ("a", "b", "c")), signal=0.5)
    make_cache(tmp_path / "d", make_labels("d", "D", 30), signal=0.5)
    return load_data(open_caches(tmp_path, ["J", "D"]), SMALL, CPU)


def test_each_task_keeps_its_best_epoch(sets: list[EmotionData]) -> None:
    teachers = [train_teacher(data, SMALL).models for data in sets]
    student = train_student(sets, teachers, replace(SMALL, epochs=12))
    assert set(student.models) == {"tags", "valence_arousal"}
    for data in sets:
        (task,) = data.targets
        losses = student.validation[task]
        assert len(losses) == student.epochs == 12
        assert student.best_epoch[task] == 1 + losses.index(min(losses))
        assert validation_loss(student.models[task], data, task, SMALL) == pytest.approx(min(losses), rel=1e-6)


def test_validation_of_a_task_is_the_mean_over_its_sets(sets: list[EmotionData]) -> None:
    twice = [sets[1], replace(sets[1], splits={**sets[1].splits, "validation": sets[1].splits["test"]})]
    config = replace(SMALL, epochs=1)
    teachers = [train_teacher(data, config).models for data in twice]
    student = train_student(twice, teachers, config)
    model = student.models["valence_arousal"]
    both = [validation_loss(model, data, "valence_arousal", config) for data in twice]
    assert student.validation["valence_arousal"] == [pytest.approx(sum(both) / 2)]


def test_patience_stops_when_no_task_gets_better(sets: list[EmotionData]) -> None:
    config = replace(SMALL, epochs=300, patience=3, learning_rate=0.02)
    trained = train_teacher(sets[1], config)
    assert trained.epochs == trained.best_epoch["valence_arousal"] + 3 < 300


def test_without_validation_the_last_epoch_counts_and_without_test_there_is_nothing_to_measure(
    sets: list[EmotionData],
) -> None:
    none = torch.zeros(0, dtype=torch.long)
    data = replace(sets[1], splits={"train": sets[1].splits["train"], "validation": none, "test": none})
    trained = train_teacher(data, replace(SMALL, patience=1))
    assert trained.best_epoch == {"valence_arousal": SMALL.epochs}
    assert trained.validation == {"valence_arousal": []}
    assert measure(trained.models["valence_arousal"], data, "valence_arousal") is None


def test_a_teacher_is_the_same_whatever_else_is_trained(sets: list[EmotionData]) -> None:
    first = train_teacher(sets[1], SMALL).models["valence_arousal"]
    train_teacher(sets[0], SMALL)
    again = train_teacher(sets[1], SMALL).models["valence_arousal"]
    other = train_teacher(sets[1], replace(SMALL, seed=1)).models["valence_arousal"]
    for name, value in first.state_dict().items():
        assert value.equal(again.state_dict()[name]), name
    assert not first.input_proj[0].weight.equal(other.input_proj[0].weight)


def test_distillation_pulls_the_student_to_its_teacher_and_leaves_the_teacher(sets: list[EmotionData]) -> None:
    data = sets[0]
    teacher = train_teacher(data, replace(SMALL, epochs=20)).models
    before = {name: value.clone() for name, value in teacher["tags"].state_dict().items()}
    # Labels that say the opposite, and nobody to prefer an epoch by them: only the teacher knows better.
    opposite = replace(
        data,
        targets={"tags": 1 - data.targets["tags"]},
        splits={**data.splits, "validation": torch.zeros(0, dtype=torch.long)},
    )
    taught = train_student([opposite], [teacher], replace(SMALL, epochs=20, kd_weight=1.0)).models["tags"]
    assert all(value.equal(before[name]) for name, value in teacher["tags"].state_dict().items())
    ours, theirs = (predict(model, data, "train", "tags").softmax(1) for model in (taught, teacher["tags"]))
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_are_those_of_float64(tmp_path: Path, preset: str, padded: bool) -> None:
    config = TrainConfig.preset(preset, dropout=0.0)
    make_cache(tmp_path / "j", make_labels("j", "J", 60, ("a", "b", "c")), signal=0.5)
    make_cache(tmp_path / "d", make_labels("d", "D", 30), signal=0.5)
    sets = load_data(open_caches(tmp_path, ["J", "D"]), config, CPU)
    teachers = [freeze(train_teacher(data, replace(config, epochs=1)).models, data) for data in sets]
    torch.manual_seed(1)
    model = EmotionModel(config, sets[0].width, output_sizes(sets)).train()
    precise = copy.deepcopy(model).double()
    model.attention, model.padded = fused_attention, padded
    splits, lengths = [torch.arange(8)] * 2, [data.n_segments for data in sets]
    step = draw_schedule(splits, lengths, config, torch.Generator().manual_seed(2)).step(0)
    for each, data in ((model, sets), (precise, [as_double(data) for data in sets])):
        longest = 100 if each is model and padded else None
        step_loss(each, data, teachers, step, config, longest).backward()  # type: ignore[no-untyped-call]
    for (name, one), other in zip(model.named_parameters(), precise.parameters(), strict=True):
        assert one.grad is not None, name
        assert other.grad is not None, name
        # The gradient of a key's bias is 0: a softmax does not see what all scores share.
        size = max(float(other.grad.norm()), 1e-6)
        assert float((one.grad.double() - other.grad).norm()) < 2e-6 * size, name


def as_double(data: EmotionData) -> EmotionData:
    targets = {task: values.double() for task, values in data.targets.items()}
    return replace(data, sums=data.sums.double(), tag_rate=data.tag_rate.double(), targets=targets)


@pytest.mark.parametrize("inputs", [("mert",), ("chords", "key"), ("chords",), ("mert", "key")])
def test_a_model_sees_its_inputs_and_nothing_else(sets: list[EmotionData], inputs: tuple[Input, ...]) -> None:
    trained = train_teacher(sets[1], replace(SMALL, inputs=inputs, epochs=1))
    model = trained.models["valence_arousal"]
    seen = sets[1].whole(torch.arange(6))
    said = model(seen).of("valence_arousal")
    changes: dict[Input, Inputs] = {
        "mert": replace(seen, features=seen.features + 1),
        "chords": replace(seen, root=(seen.root + 1) % 12),
        "key": replace(seen, mode=1 - seen.mode),
    }
    for name, changed in changes.items():
        assert model(changed).of("valence_arousal").equal(said) == (name not in inputs), name


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_other_precisions_train_nearly_alike(sets: list[EmotionData], precision: str) -> None:
    exact, rough = (
        train_teacher(sets[1], replace(SMALL, precision=each, dropout=0.0)) for each in ("float32", precision)
    )
    assert rough.training == pytest.approx(exact.training, rel=0.02)


def test_a_diverging_run_stops_with_a_line(sets: list[EmotionData]) -> None:
    data = replace(sets[1], sums=sets[1].sums * 1e30)
    with pytest.raises(DataError, match="no longer finite after epoch 1"):
        train_teacher(data, SMALL)


def test_masked_padding_changes_nothing_and_unmasked_padding_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    make_cache(tmp_path / "d", make_labels("d", "D", 10))
    for preset in ("paper", "release"):
        config = TrainConfig.preset(preset)
        (data,) = load_data(open_caches(tmp_path, ["d"]), config, CPU)
        torch.manual_seed(0)
        model = EmotionModel(config, data.width, {"valence_arousal": 2}).eval()
        # A track without chords and one cut short, beside a long one.
        short = replace(data, n_chords=data.n_chords.clone(), root=data.root.clone())
        if config.mask_padding:
            short.n_chords[0], short.n_chords[1] = 0, 5
            short.root[0, :], short.root[1, 5:] = padding_id(config), padding_id(config)
        rows = torch.arange(3)
        together = model(short.whole(rows)).of("valence_arousal")
        parts = [short.whole(row) for row in rows.split(1)]  # type: ignore[no-untyped-call]
        alone = torch.cat([model(part).of("valence_arousal") for part in parts])
        torch.testing.assert_close(together, alone)
        torch.testing.assert_close(model(concatenate(parts, padding_id(config))).of("valence_arousal"), together)
        assert parts[0].root.shape[1] == (0 if config.mask_padding else 100)
