"""The likeliest path through frames, where a chord lasts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def likeliest_path(blocks: Iterable[NDArray[np.floating]], stay: float) -> NDArray[np.intp]:
    """The state of each frame on the likeliest path, by Viterbi's algorithm.

    Args:
        blocks: log-likelihood of each state in each frame, but for a constant a frame [shape=(frames, states) each];
            at least one frame, the blocks one after the other.
        stay: probability that a frame has the state of the one before; all other states are equally likely.

    Returns:
        [shape=(frames,)]
    """
    all_moved: list[NDArray[np.bool_]] = []
    sources: list[np.intp] = []
    total: NDArray[np.float64] = np.zeros(0)
    for scores in blocks:
        n_states = scores.shape[1]
        if not all_moved:
            total = np.zeros(n_states)
            # Among equals, moving from the best state is the same for all: a path needs only one comparison a state.
            move = np.log((1 - stay) / (n_states - 1)) - np.log(stay)
        moved = np.empty(scores.shape, bool)
        for frame, score in enumerate(scores):
            sources.append(total.argmax())
            arriving = total[sources[-1]] + move
            moved[frame] = arriving > total
            total = np.maximum(total, arriving) + score
        all_moved.append(moved)
    path = np.empty(len(sources), np.intp)
    state, frame = total.argmax(), len(sources)
    for moved in reversed(all_moved):
        for row in moved[::-1]:
            frame -= 1
            path[frame] = state
            if row[state]:
                state = sources[frame]
    return path
