"""What is reached through a link: read as anything else is, and moved by nobody but its owner.

The hub's own cache is a folder of links, and people keep features on another disk. To move a link's target would take
it from whoever else uses it; to move the link would save nothing.
"""

from __future__ import annotations

from pathlib import Path


def link_on_the_way(folder: Path, path: Path) -> Path | None:
    """The first link on the way from a folder to what lies in it, `path` itself included; None where there is none."""
    way = [path, *path.parents]
    inside = way[: way.index(folder)] if folder in way else [path]
    return next((place for place in reversed(inside) if place.is_symlink()), None)


def why_it_stays(folder: Path, path: Path) -> str:
    """Why a damaged file of a cache's folder is not moved, "" where it may be.

    Args:
        folder: of the data set, as the user names it; it may be a link itself.
        path: the file in it.
    """
    if link := link_on_the_way(folder, path):
        return (
            f"{link} is a link to {link.readlink()}, and m2e moves nothing that is reached through a link: bring what "
            "it leads to again, or remove the link, and run the same command again"
        )
    return ""
