"""What m2e-extract does, as a function: data sets one after the other, with the same workers."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import cache as remembered
from functools import partial
from pathlib import Path
from typing import Any

from m2e.common.errors import RequestError
from m2e.common.system import check_processes
from m2e.extract.job.plan import Selection
from m2e.extract.job.report import Extracted, Tell, ignore
from m2e.extract.job.session import Session
from m2e.extract.models import Models, Sources
from m2e.extract.workers.choose import on_cluster, on_this_machine
from m2e.extract.workers.schedule import Engine
from m2e.manifests import is_table, load
from m2e.manifests.dataset import DEFAULT_CHOICES, Choices


class Job:
    """One call of m2e-extract, prepared and not begun."""

    def __init__(
        self,
        datasets: str | Sequence[str],
        root: str | Path | None = None,
        cache: str | Path = "features",
        *,
        selection: Selection | None = None,
        device: str = "auto",
        jobs: int | None = None,
        scheduler: str | None = None,
        worker_resources: Mapping[str, float] | None = None,
        splits: str | Path | None = None,
        choices: Choices = DEFAULT_CHOICES,
        name: str = "",
        replace: bool = False,
        tell: Tell = ignore,
        **settings: Any,
    ) -> None:
        """Read the manifests, and find the models.

        Args:
            datasets: names of registered data sets, or paths of CSV files; one, or several.
            root: the folder of one data set; by default its name under $M2E_DATA or data, or the CSV file's own.
            cache: folder of all caches.
            selection: which tracks, and which of these again.
            device: "cpu", "cuda", or "auto", which takes a GPU where there is one.
            jobs: processes; None: one a core.
            scheduler: address of a Dask scheduler whose workers extract, or "local:N".
            worker_resources: what Dask workers must have been given to be taken.
            splits: for one data set: folder with train.txt, validation.txt and test.txt, in place of its own splits.
            choices: what a data set leaves to the user.
            name: of the data set of one CSV file, in place of the file's.
            replace: it takes the place of another one of the same name.
            tell: see `Session`.
            settings: see `Sources.find`: encoder, chords, layers, ...

        Raises:
            DataError: a data set, a model or the combination is not to be had.
        """
        names = [datasets] if isinstance(datasets, str) else list(datasets)
        resources = dict(worker_resources or {})
        if len(names) > 1 and (root or splits):
            raise RequestError(
                "--root and --splits are of one data set; for the folder that holds several set M2E_DATA"
            )
        if name and (len(names) > 1 or not is_table(names[0])):
            raise RequestError("--name is for one table of your own: other data sets have their names")
        if not scheduler:
            check_processes()
        folder, lists = (None if given is None else Path(given) for given in (root, splits))
        manifests = [load(each, folder, lists, choices, name) for each in names]
        sources = Sources.find(**settings)
        if scheduler and device == "auto":
            device = "cuda" if "GPU" in resources else "cpu"
        self.sessions = [
            Session(
                manifest,
                Path(cache),
                sources,
                selection or Selection(),
                device,
                decoders=jobs or 0,
                elsewhere=bool(scheduler),
                tell=tell,
                replace=replace,
            )
            for manifest in manifests
        ]
        self._current = self.sessions[0] if self.sessions else None
        self._workers: Callable[[Models], AbstractContextManager[Engine]] = (
            partial(on_cluster, scheduler, resources, Path(cache), manifests)
            if scheduler
            else partial(on_this_machine, jobs)
        )

    def run(self) -> list[Extracted]:
        """Extract each data set.

        Raises:
            DataError: a cache cannot be used or written, a model cannot be loaded, or workers cannot live.
        """
        with ExitStack() as stack:

            @remembered
            def engine(models: Models) -> Engine:
                return stack.enter_context(self._workers(models))

            found = []
            for session in self.sessions:
                self._current = session
                found.append(session.run(engine))
            return found

    def say_what_is_kept(self, arguments: Sequence[str]) -> None:
        """Of the data set that was interrupted, and how to go on; `arguments` are those of the command."""
        if self._current:
            self._current.interrupted(shlex.join(["m2e-extract", *arguments]))


def extract(
    datasets: str | Sequence[str], root: str | Path | None = None, cache: str | Path = "features", **how: Any
) -> list[Extracted]:
    """Extract data sets into caches, as m2e-extract does: what is there stays, and what was interrupted goes on.

    >>> extract("emomusic", root="data/emomusic", cache="features")

    Args:
        datasets, root, cache, how: see `Job`. Fields of `Selection`, such as ``limit=10``, can be given by their names.

    Raises:
        DataError: as `Job` and `Job.run`.
        ValueError: a field of `Selection` is not as it should be.
    """
    fields = {name: how.pop(name) for name in Selection.__dataclass_fields__ if name in how}
    if fields:
        how["selection"] = Selection(**fields)
    return Job(datasets, root, cache, **how).run()
