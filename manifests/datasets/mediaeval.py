"""The MediaEval clips that DEAM (ids up to 2000) and EmoMusic (744 of them) number alike."""

from __future__ import annotations

# Four pairs of songs carry identical audio features in DEAM's own feature files.
_SAME_AUDIO = {"536": "175", "758": "390", "706": "296", "893": "631"}

SAME_AUDIO_ISSUE = (
    "four pairs of songs hold the same audio: 175 and 536, 390 and 758, 296 and 706, 631 and 893; "
    "each pair shares a clip group"
)


def clip_group(song_id: str) -> str:
    """The group of MediaEval clip `song_id`, the same in both data sets and for known duplicates."""
    return f"mediaeval/{_SAME_AUDIO.get(song_id, song_id)}"
