"""Features of a data set that does not fit into memory: mapped from the cache's files, a track at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.catalogue import Catalogue, ChangedMeanwhile
from m2e.cache.feature_file import FeatureFile
from m2e.common.errors import DataError
from m2e.common.regular import open_regular


class MappedEmbeddings:
    """The embeddings of many tracks, read-only, in no memory but the file system's cache.

    ``mapped[i]`` is track i [shape=(segments, layers, dim), float16], a view into its file. Digests are not checked on
    the way: `m2e-cache verify --deep` does. It can be pickled into workers, and goes on working when a packer replaces
    the files that it has mapped. From `FeatureCache.map`.
    """

    def __init__(self, catalogue: Catalogue, rows: NDArray[np.int64]) -> None:
        """Map the tracks in `rows` of a catalogue; raises ChangedMeanwhile where a packer has replaced a file."""
        index = catalogue.index[rows]
        self._file = catalogue.file[rows]
        self._first = index["first_segment"].astype(np.int64)
        self.segments = index["segments"].astype(np.int64)
        """Segments of each track [shape=(N,)]."""
        self._files = {int(number): catalogue.files[int(number)] for number in np.unique(self._file)}
        self._maps = {number: _map(file) for number, file in self._files.items()}

    def __len__(self) -> int:
        return len(self._file)

    def __getitem__(self, i: int) -> NDArray[np.float16]:
        first = self._first[i]
        return self._maps[int(self._file[i])][first : first + self.segments[i]]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_maps"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        try:
            self._maps = {number: _map(file) for number, file in self._files.items()}
        except ChangedMeanwhile as error:
            raise DataError("the cache was packed before this worker could map it: map it again") from error


def _map(file: FeatureFile) -> NDArray[np.float16]:
    shape = (file.n_segments, *file.shape)
    if not file.n_segments:
        return np.empty(shape, "<f2")
    try:
        with open_regular(file.path) as raw:
            return np.memmap(raw, "<f2", "r", file.embeddings, shape)
    except FileNotFoundError as error:
        raise ChangedMeanwhile from error
