"""Parity with the released code: its checkpoints load strictly and give its outputs, losses, gradients and steps."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.caches import CONFIG

from m2e.cache.harmony import PITCH_CLASSES, ChordSequence, Key
from m2e.train.config import Task, TrainConfig
from m2e.train.data.encoding import encode_harmony
from m2e.train.data.tensors import EmotionData
from m2e.train.learning.loop import Taught, step_loss
from m2e.train.learning.schedule import Batch
from m2e.train.learning.spans import span_means
from m2e.train.model.attention import Attention, plain_attention
from m2e.train.model.fused_attention import fused_attention
from m2e.train.model.network import EmotionModel, Inputs
from m2e.train.scoring.evaluate import validation_loss

RELEASE = TrainConfig.preset("release")
BOTH: dict[Task, int] = {"tags": 56, "valence_arousal": 2}
SETS = ("jamendo", "emomusic", "pmemo", "deam")


def recorded(outputs: torch.Tensor) -> Taught:
    """A teacher of which only the outputs are known."""
    return lambda rows, start, stop: outputs[rows]


def released(path: Path, outputs: dict[Task, int]) -> tuple[EmotionModel, dict[str, torch.Tensor]]:
    state = torch.load(path, weights_only=True)["state_dict"]
    model = EmotionModel(RELEASE, 1536, outputs)
    model.load_state_dict({k.removeprefix("model."): v for k, v in state.items() if k.startswith("model.")})
    return model.eval(), state


def as_data(name: str, batch: Any, rate: torch.Tensor) -> EmotionData:
    """The reference's batch as a data set: tracks of one segment, all of them in every split."""
    features = torch.from_numpy(batch[f"{name}__x_mert"])
    n = len(features)
    tagged = name == "jamendo"
    targets: dict[Task, torch.Tensor] = (
        {"tags": torch.from_numpy(batch[f"{name}__y_mood"])}
        if tagged
        else {"valence_arousal": torch.from_numpy(batch[f"{name}__y_va"])}
    )
    return EmotionData(
        name=name,
        letter=name[0].upper(),
        provenance="",
        extraction=CONFIG,
        tag_names=tuple(str(i) for i in range(56)) if tagged else (),
        sums=torch.stack([torch.zeros_like(features), features], dim=1).reshape(2 * n, -1),
        base=2 * torch.arange(n),
        n_segments=torch.ones(n, dtype=torch.long),
        root=torch.from_numpy(batch[f"{name}__x_chord_root"]),
        quality=torch.from_numpy(batch[f"{name}__x_chord_attr"]),
        n_chords=torch.full((n,), 100),
        mode=torch.from_numpy(batch[f"{name}__x_key"])[:, 0],
        targets=targets,
        tag_rate=rate,
        splits={split: torch.arange(n) for split in ("train", "validation", "test")},
        notes=(),
    )


def whole(rows: torch.Tensor) -> Batch:
    """Tracks of one segment each."""
    return Batch(rows, torch.zeros_like(rows), torch.ones_like(rows))


class Reference:
    def __init__(self, folder: Path) -> None:
        self.student, state = released(folder / "heads" / "J_all.ckpt", BOTH)
        rate = (1 / state["loss_fn_classification.pos_weight"]).float()
        batch, outputs = (np.load(folder / "train" / f"{name}.npz") for name in ("batch", "outputs"))
        self.sets = [as_data(name, batch, rate) for name in SETS]
        self.outputs = {key: torch.from_numpy(outputs[key]) for key in outputs}
        self.teachers = [
            dict.fromkeys(data.targets, recorded(self.outputs[f"{data.name}__teacher"])) for data in self.sets
        ]
        self.golden = json.loads((folder / "train" / "golden_losses.json").read_text())

    def to_double(self) -> None:
        """One hidden unit of this batch stands 2e-7 from the corner of its ReLU: rounding decides its gradient."""
        self.student.double()
        self.sets = [
            replace(
                data,
                sums=data.sums.double(),
                tag_rate=data.tag_rate.double(),
                targets={task: values.double() for task, values in data.targets.items()},
            )
            for data in self.sets
        ]

    def loss(self, kd: bool, names: tuple[str, ...] = SETS) -> torch.Tensor:
        step = [whole(data.splits["train"]) if data.name in names else None for data in self.sets]
        return step_loss(self.student, self.sets, self.teachers if kd else None, step, RELEASE)


@pytest.fixture
def released_run(reference: Path) -> Reference:
    return Reference(reference / "golden")


@pytest.mark.parametrize(("outputs", "parameters", "tensors"), [(BOTH, 1_072_058, 36), ({"tags": 56}, 940_216, 32)])
def test_sizes_of_the_released_models(outputs: dict[Task, int], parameters: int, tensors: int) -> None:
    model = EmotionModel(RELEASE, 1536, outputs)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors


@pytest.mark.parametrize("attend", [plain_attention, fused_attention])
def test_outputs_on_the_training_batch(attend: Attention, released_run: Reference, reference: Path) -> None:
    released_run.student.attention = attend
    teachers = {
        "jamendo": released(reference / "golden" / "heads" / "J.ckpt", {"tags": 56})[0],
        "deam": released(reference / "golden" / "heads" / "D.ckpt", {"valence_arousal": 2})[0],
    }
    for data in released_run.sets:
        inputs = data.whole(data.splits["test"])
        student = released_run.student(inputs)
        close = {"rtol": 0, "atol": 1e-5}
        torch.testing.assert_close(student.tag_logits, released_run.outputs[f"{data.name}__student_cls"], **close)
        torch.testing.assert_close(student.valence_arousal, released_run.outputs[f"{data.name}__student_reg"], **close)
        if data.name in teachers:
            taught = teachers[data.name](inputs).of(next(iter(data.targets)))
            torch.testing.assert_close(taught, released_run.outputs[f"{data.name}__teacher"], **close)


@pytest.mark.parametrize("song", ["short3", "clip47"])
def test_outputs_on_whole_songs(song: str, released_run: Reference, reference: Path) -> None:
    stored = np.load(reference / "golden" / "e2e" / song / "model_io.npz")
    values = [torch.from_numpy(stored[name]) for name in ("x_mert", "x_chord_root", "x_chord_attr", "x_key")]
    said = released_run.student(Inputs(*values[:3], values[3][:, 0]))
    np.testing.assert_allclose(said.tag_logits.detach(), stored["cls"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(said.valence_arousal.detach(), stored["reg"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("song", ["short3", "clip47"])
def test_inputs_of_whole_songs(song: str, reference: Path) -> None:
    folder = reference / "golden" / "e2e" / song
    stored = np.load(folder / "model_io.npz")
    # Index k of a segment's file is h[k + 1].
    files = sorted(folder.glob("segment_*.npy"))
    segments = np.concatenate([np.load(path)[:, [k - 1 for k in RELEASE.layers]] for path in files])
    # Straight to float32: the reference never stored float16.
    sums = torch.from_numpy(np.cumsum(np.pad(segments.reshape(len(files), -1), ((1, 0), (0, 0))), axis=0))
    one = torch.tensor([0])
    np.testing.assert_allclose(span_means(sums, one, one, one + len(files)), stored["x_mert"], rtol=0, atol=1e-6)

    lines = [line.split() for line in (folder / f"{song}.lab").read_text().splitlines()]
    times = [(float(start), float(end)) for start, end, _ in lines]
    tonic, mode = json.loads((folder / "key.json").read_text())["key"].split()
    key = Key(PITCH_CLASSES.index(tonic.upper()), mode)  # a minor tonic is written small
    harmony = encode_harmony(ChordSequence.from_labels(times, [label for _, _, label in lines]), key, "n")
    n = min(len(lines), RELEASE.max_chords)
    for ours, theirs in ((harmony.root, stored["x_chord_root"]), (harmony.quality, stored["x_chord_attr"])):
        np.testing.assert_array_equal(ours[:n], theirs[0, :n])
        assert not theirs[0, n:].any()


@pytest.mark.parametrize("attend", [plain_attention, fused_attention])
@pytest.mark.parametrize("kd", [True, False])
def test_losses_gradients_and_a_step(kd: bool, attend: Attention, released_run: Reference) -> None:
    golden = released_run.golden
    released_run.student.attention = attend
    for name in SETS:
        loss = released_run.loss(kd, (name,))
        assert loss.item() == pytest.approx(golden[f"kd={kd}/train/{name}"]["total"], rel=1e-5)
    assert released_run.loss(kd, ("jamendo", "deam")).item() == pytest.approx(golden[f"kd={kd}/training_step_JD"], 1e-5)
    for data in released_run.sets:
        (task,) = data.targets
        validation = validation_loss(released_run.student, data, task, RELEASE)
        name = "loss_mood" if task == "tags" else "loss_va"
        assert validation == pytest.approx(golden[f"kd={kd}/val/{data.name}"][name], rel=1e-5)

    released_run.student.attention = plain_attention
    released_run.to_double()
    loss = released_run.loss(kd)
    assert loss.item() == pytest.approx(golden[f"kd={kd}/training_step"], rel=1e-5)
    optimizer = torch.optim.Adam(released_run.student.parameters(), lr=RELEASE.learning_rate, fused=True)
    loss.backward()
    parameters = dict(released_run.student.named_parameters())
    norms = {f"model.{name}": float(value.grad.norm()) for name, value in parameters.items() if value.grad is not None}
    assert norms == pytest.approx(golden[f"kd={kd}/gradnorm"], rel=1e-4)
    optimizer.step()
    sums = {f"model.{name}": value.double().sum().item() for name, value in parameters.items()}
    assert sums == pytest.approx(golden[f"kd={kd}/after_step_sums"], rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(
    ("names", "untouched"), [(("deam", "pmemo"), "classification_branch"), (("jamendo",), "regression_branch")]
)
def test_a_step_leaves_the_branch_of_absent_tasks_alone(
    names: tuple[str, ...], untouched: str, released_run: Reference
) -> None:
    released_run.loss(True, names).backward()
    for name, value in released_run.student.named_parameters():
        touched = value.grad is not None and bool(value.grad.any())
        assert touched != name.startswith(untouched), name
