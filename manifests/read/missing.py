"""Audio that is not where a data set says: by name, with what is there and is called most like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from m2e.common.names import Names
from m2e.manifests.types import Track


def name_missing(tracks: Sequence[Track], most: int) -> Iterator[str]:
    """A line for each of the first `most` tracks, whose audio is missing, and one for the number of the others."""
    names = Names()
    for track in tracks[:most]:
        near = names.nearest(track.audio_path)
        yield f"{track.track_id}: {track.audio_path}" + (f"; the nearest is {near}" if near else "")
    if len(tracks) > most:
        yield f"and of {len(tracks) - most} more tracks; m2e-manifest check --json names them all"
