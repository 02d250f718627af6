"""The likeliest path through frames, where a chord lasts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def likeliest_path(scores: NDArray[np.floating], stay: float) -> NDArray[np.intp]:
    """The state of each frame on the likeliest path, by Viterbi's algorithm.

    Args:
        scores: log-likelihood of each state in each frame, but for a constant a frame [shape=(frames, states)].
        stay: probability that a frame has the state of the one before; all other states are equally likely.

    Returns:
        [shape=(frames,)]
    """
    n_frames, n_states = scores.shape
    # Among equals, moving from the best state is the same for all states: a path needs only one comparison a state.
    move = np.log((1 - stay) / (n_states - 1)) - np.log(stay)
    moved = np.empty((n_frames, n_states), bool)
    source = np.empty(n_frames, np.intp)
    total = np.zeros(n_states)
    for frame, score in enumerate(scores):
        source[frame] = total.argmax()
        arriving = total[source[frame]] + move
        moved[frame] = arriving > total
        total = np.maximum(total, arriving) + score
    path = np.empty(n_frames, np.intp)
    state = total.argmax()
    for frame in reversed(range(n_frames)):
        path[frame] = state
        if moved[frame, state]:
            state = source[frame]
    return path
