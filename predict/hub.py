"""Model folders from and to the Hugging Face hub: the same three files there and here.

Nothing that comes from the hub is run: the weights are safetensors, the rest is JSON and text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from m2e.common.errors import DataError

# Weights, settings, model card.
FILES = ("model.safetensors", "config.json", "README.md")


def find_model(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a model: `model` itself where it is one, else owner/name on the hub, in the hub's local cache.

    Args:
        model: a folder, or owner/name.
        revision: on the hub: a commit, branch or tag; None for its main branch.

    Raises:
        DataError: there is neither, or the hub cannot be reached.
    """
    folder = Path(model)
    if folder.is_dir():
        if revision:
            raise DataError(f"{folder} is a folder on this machine, which has no revision {revision}")
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", str(model)):
        raise DataError(
            f"there is no folder {folder}: give a model's folder, such as runs/J-D-E-P-paper-0/student, or owner/name "
            "on the Hugging Face hub"
        )
    from huggingface_hub import snapshot_download

    with _one_line(f"there is no folder {folder}, and {model} cannot be fetched from the hub"):
        return Path(snapshot_download(str(model), revision=revision, allow_patterns=list(FILES)))


def push_model(folder: Path, repository: str, private: bool = True) -> str:
    """Upload a model's folder to owner/name on the hub, made where it is not there; log in first: `hf auth login`.

    Returns:
        The commit, by which `find_model` finds these very files again.

    Raises:
        DataError: a file is missing, nobody is logged in, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    if missing := [name for name in FILES if not (folder / name).is_file()]:
        raise DataError(f"{folder} has no {missing[0]}: m2e-train writes it beside the weights when it ends")
    api = HfApi()
    with _one_line(f"{folder} cannot be uploaded to {repository}"):
        api.create_repo(repository, private=private, exist_ok=True)
        return api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=list(FILES)).oid


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # its retries would bury the one line that says what to do
    try:
        yield
    except Exception as error:  # the hub's client passes on whatever its HTTP library raises
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError(f"{what}: {reason.strip()}") from error
