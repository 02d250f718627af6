"""A prepared teacher says what the teacher says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.caches import make_cache, make_labels

from m2e.train.config import TrainConfig
from m2e.train.data.tensors import load_data, open_caches
from m2e.train.learning.loop import output_sizes
from m2e.train.learning.spans import spans_from
from m2e.train.learning.teachers import freeze
from m2e.train.model.network import EmotionModel


@pytest.mark.parametrize(
    ("preset", "changes"),
    [("paper", {}), ("release", {}), ("paper", {"inputs": ("mert",)}), ("release", {"inputs": ("chords", "key")})],
)
def test_a_frozen_teacher_sees_the_same_span(tmp_path: Path, preset: str, changes: dict[str, Any]) -> None:
    config = TrainConfig.preset(preset, **changes)
    make_cache(tmp_path / "j", make_labels("j", "J", 40, ("a", "b")))
    (data,) = load_data(open_caches(tmp_path, ["J"]), config, torch.device("cpu"))
    model = EmotionModel(config, data.width, output_sizes([data])).eval()
    teacher = freeze({"tags": model}, data)["tags"]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        rows = torch.randint(40, (8,), generator=generator)
        uniform = torch.rand(2, 8, dtype=torch.float64, generator=generator)
        start, stop = spans_from(*uniform, data.n_segments[rows], "uniform")
        expected = model(data.inputs(rows, start, stop)).of("tags").detach()
        torch.testing.assert_close(teacher(rows, start, stop), expected, rtol=0, atol=2e-6)
        assert not teacher(rows, start, stop).requires_grad
