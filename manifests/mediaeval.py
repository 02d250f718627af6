"""The MediaEval clips that DEAM (ids up to 2000) and EmoMusic (744 of them) number alike."""

from __future__ import annotations

# Four pairs of songs carry identical audio features in DEAM's own feature files.
_SAME_AUDIO = {"536": "175", "758": "390", "706": "296", "893": "631"}


def clip_group(song_id: str) -> str:
    """The group of MediaEval clip `song_id`, the same in both data sets and for known duplicates."""
    return f"mediaeval/{_SAME_AUDIO.get(song_id, song_id)}"
