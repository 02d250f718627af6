"""A registered data set: how to read its folder, and what people must put there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from m2e.cache.errors import DataError
from m2e.manifests.track import Manifest


@dataclass(frozen=True)
class DataSet:
    """An entry of the registry.

    Attributes:
        name: such as "mtg-jamendo"; also the default name of its folder.
        letter: the paper's letter (J, D, E, P).
        description: one line for listings.
        holds: what its folder must hold, to end the sentence "it should hold ...".
        source: where to get that.
        parse: the folder -> its manifest; raises DataError.
    """

    name: str
    letter: str
    description: str
    holds: str
    source: str
    parse: Callable[[Path], Manifest]

    def read(self, root: Path) -> Manifest:
        """The manifest of the data set in folder `root`.

        Raises:
            DataError: no such folder, or its files are missing or damaged; the line also says what should be there.
        """
        try:
            if not root.is_dir():
                raise DataError(f"{root}: no such folder")
            if not any(root.iterdir()):
                raise DataError(f"{root}: the folder is empty")
            return self.parse(root)
        except OSError as error:
            raise DataError(f"{error.filename or root}: cannot be read: {error.strerror}") from error
        except DataError as error:
            raise DataError(f"{error}; for {self.name}, {root} should hold {self.holds}, from {self.source}") from error
