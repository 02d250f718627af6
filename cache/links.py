"""What is reached through a link: read as anything else is, and moved by nobody but its owner.

The hub's own cache is a folder of links, and people keep features on another disk. To move a link's target would take
it from whoever else uses it; to move the link would save nothing.
"""

from __future__ import annotations

from pathlib import Path

from m2e.cache.errors import DataError


def link_on_the_way(folder: Path, path: Path) -> Path | None:
    """The first link on the way from a folder to what lies in it, `path` itself included; None where there is none."""
    way = [path, *path.parents]
    inside = way[: way.index(folder)] if folder in way else [path]
    return next((place for place in reversed(inside) if place.is_symlink()), None)


def refuse_linked(folder: Path, path: Path, reason: str) -> None:
    """Raise DataError where a damaged file of a cache's folder is reached through a link, and so must not be moved.

    Args:
        folder: of the data set, as the user names it; it may be a link itself.
        path: the file in it.
        reason: what is wrong with it.
    """
    if link := link_on_the_way(folder, path):
        raise DataError(
            f"{reason}. {link} is a link to {link.readlink()}, and m2e moves nothing that is reached through a link: "
            "bring what it leads to again, or remove the link, and run the same command again"
        )
