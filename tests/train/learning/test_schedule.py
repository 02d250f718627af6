"""The steps of an epoch: which sets take part, and that each track has its turn."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from m2e.train.config import TrainConfig
from m2e.train.learning.schedule import draw_schedule
from m2e.train.learning.spans import spans_from

PAPER = TrainConfig.preset("paper")


def sizes(config: TrainConfig, *counts: int) -> list[list[int]]:
    splits = [torch.arange(count) for count in counts]
    lengths = [torch.ones(count, dtype=torch.long) for count in counts]
    schedule = draw_schedule(splits, lengths, config, torch.Generator().manual_seed(0))
    for number, step in enumerate(schedule.sizes):
        assert [len(batch.rows) if batch else 0 for batch in schedule.step(number)] == step
    return schedule.sizes


def test_a_shorter_set_runs_dry_or_starts_over() -> None:
    stop, cycle = replace(PAPER, exhausted="stop"), replace(PAPER, exhausted="cycle")
    assert sizes(stop, 26, 10) == [[8, 8], [8, 2], [8, 0], [2, 0]]
    assert sizes(cycle, 26, 10) == [[8, 8], [8, 2], [8, 8], [2, 2]]


def test_steps_of_the_papers_sets() -> None:
    steps = sizes(replace(PAPER, exhausted="stop"), 9_949, 1_261, 536, 495)
    assert len(steps) == 1_244
    assert [sum(step[i] > 0 for step in steps) for i in range(4)] == [1_244, 158, 67, 62]


def test_a_pass_visits_every_track_once_and_passes_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    split, lengths = torch.arange(100, 130), torch.ones(130, dtype=torch.long)

    def visited() -> Tensor:
        schedule = draw_schedule([split], [lengths], PAPER, generator)
        return torch.cat([batch.rows for i in range(len(schedule)) for batch in schedule.step(i) if batch])

    first, second = visited(), visited()
    assert first.sort().values.equal(split)
    assert second.sort().values.equal(split)
    assert not first.equal(second)


@pytest.mark.parametrize("exhausted", ["stop", "cycle"])
@pytest.mark.parametrize("span", ["paper", "uniform"])
def test_an_epoch_at_once_draws_what_step_after_step_would(exhausted: str, span: str) -> None:
    """So that a model is the same to the bit, however its schedule is drawn."""
    config = replace(PAPER, exhausted=exhausted, span=span, batch_size=4)  # type: ignore[arg-type]
    splits = [torch.arange(5, 36), torch.arange(9), torch.arange(20, 26)]
    lengths = [torch.randint(1, 9, (40,), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    ahead, after = (torch.Generator().manual_seed(7) for _ in range(2))

    def batches(split: Tensor) -> Iterator[Tensor]:
        while True:
            yield from split[torch.randperm(len(split), generator=after)].split(4)  # type: ignore[no-untyped-call]
            if exhausted == "stop":
                return

    for _ in range(2):
        schedule = draw_schedule(splits, lengths, config, ahead)
        passes = [batches(split) for split in splits]
        for number in range(len(schedule)):
            rows = [next(each, None) for each in passes]
            for mine, theirs, n_segments in zip(schedule.step(number), rows, lengths, strict=True):
                assert (mine is None) == (theirs is None)
                if mine is None or theirs is None:
                    continue
                uniform = (torch.rand(len(theirs), dtype=torch.float64, generator=after) for _ in range(2))
                start, stop = spans_from(*uniform, n_segments[theirs], span)
                assert mine.rows.equal(theirs)
                assert mine.start.equal(start)
                assert mine.stop.equal(stop)
        assert ahead.get_state().equal(after.get_state())
