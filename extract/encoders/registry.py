"""Encoders: MERT, loaded natively as transformers' HuBERT; never by remote code.

MERT-v1 (Li et al., arXiv 2306.00107) is HuBERT at 24 kHz: 7 convolutions (75 frames a second), a positional
convolution, Transformer blocks. Hidden state h[0] is the input of block 1 and h[k] the output of block k; a segment's
embedding is the time mean of each stored h[k].

A new model of the same kind is a line in `ENCODERS`; any folder in Hugging Face layout (config.json,
preprocessor_config.json, model.safetensors or pytorch_model.bin) works by its path.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.settings import BY_DIGEST, PRECISIONS
from m2e.common.checks import is_one_of, require
from m2e.common.errors import DataError
from m2e.common.float32 import float32_products
from m2e.extract.audio.sound import SizedWaves
from m2e.extract.encoders.batching import embed_tracks
from m2e.extract.encoders.identity import identify, numeric_settings, weights_digest
from m2e.extract.encoders.mert import CONFIG, HUBERT_BASE, PREPROCESSOR, SAMPLE_RATE, WEIGHTS, load_mert, read_settings
from m2e.extract.encoders.tiny import tiny_encoder_folder, tiny_is_made

if TYPE_CHECKING:
    from torch import Tensor, nn

    from m2e.cache.settings import Precision

TRY_OUT = "to try m2e without any download: --encoder tiny --chords cnn"


@dataclass(frozen=True)
class HubEncoder:
    """A model on the Hugging Face hub.

    Attributes:
        repository: owner/name.
        revision: the pinned commit, 40 hex digits; None: the user must name one.
        sha256: the beginning of the weights' digest, "" where unknown.
        settings: with these weights, they make it this model wherever its files come from, see `numeric_settings`.
    """

    repository: str
    revision: str | None
    sha256: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_pinned(self) -> bool:
        """Whether its identity is known without its files."""
        return bool(self.revision and self.sha256 and self.settings)


ENCODERS: dict[str, HubEncoder | None] = {
    "MERT-v1-95M": HubEncoder(
        "m-a-p/MERT-v1-95M",
        "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
        "a2b8b747f72c06e0",
        {**HUBERT_BASE, "do_normalize": True, "sampling_rate": SAMPLE_RATE},
    ),
    "MERT-v1-330M": HubEncoder("m-a-p/MERT-v1-330M", None),
    "tiny": None,  # made on the spot, untrained: extract/encoders/tiny.py
}


@dataclass(frozen=True)
class EncoderSource:
    """An encoder that is identified but not loaded; cheap, and picklable into workers.

    Attributes:
        name: for people, as the cache records it: the registry's where it is known to be that one.
        revision: the pinned commit of a registered one, or its identity (`m2e.extract.encoders.identity`). Of another
            commit of the hub the commit, until `settle` has its files.
        folder: its files, None while they are still on the hub.
    """

    name: str
    revision: str
    folder: Path | None


def find_encoder(name: str, revision: str | None = None) -> EncoderSource:
    """Identify an encoder by registry name or folder, without loading or downloading it.

    Args:
        name: a key of `ENCODERS`, with "@COMMIT" or without, or a folder in Hugging Face layout.
        revision: a commit of the hub's repository in place of the pinned one.

    Raises:
        DataError: unknown name, a folder without the files of a model, or a revision is needed.
    """
    if name == "tiny":
        folder = tiny_encoder_folder()
        return EncoderSource(name, identify(folder), folder)
    base, _, commit = name.partition("@")
    if (known := ENCODERS.get(base)) and not Path(name).is_dir():
        return EncoderSource(base, _checked(revision or commit or known.revision, known), None)
    folder = Path(name).absolute()
    if not folder.is_dir():
        near = difflib.get_close_matches(name, ENCODERS, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"no encoder {name!r}: {hint}known are {', '.join(ENCODERS)} and folders in Hugging Face layout"
        )
    return _of_folder(folder.resolve())


def _of_folder(folder: Path) -> EncoderSource:
    weights, numbers = weights_digest(folder), numeric_settings(folder)
    for name, known in ENCODERS.items():
        if known and known.is_pinned and weights.startswith(known.sha256) and numbers == known.settings:
            return EncoderSource(name, _checked(known.revision, known), folder)
    revision = identify(folder)
    if tiny_is_made() and revision == identify(tiny_encoder_folder()):
        return EncoderSource("tiny", revision, folder)
    # A registered name is only for what is known to be that encoder.
    called = folder.name.partition("@")[0]
    return EncoderSource(f"{folder.name} (a folder)" if called in ENCODERS else folder.name, revision, folder)


def _checked(commit: str | None, known: HubEncoder) -> str:
    if commit is None:
        raise DataError(
            f"no revision of {known.repository} is pinned: name one with --revision (40 hex digits), or pass the "
            "folder of a downloaded copy as --encoder"
        )
    if len(commit) != 40 or set(commit) - set("0123456789abcdef"):
        raise DataError(f"revision {commit!r} is not a commit: 40 hex digits, so that the weights cannot change")
    return commit


def is_pinned(revision: str) -> bool:
    """Whether it is the commit of a registered encoder whose files are known by their digests."""
    return any(known and known.is_pinned and known.revision == revision for known in ENCODERS.values())


def settle(source: EncoderSource) -> EncoderSource:
    """The same with its identity: of a commit of the hub whose weights' digest is not pinned, its files have to tell.

    Raises:
        DataError: as `fetch_encoder`.
    """
    known = ENCODERS.get(source.name)
    if source.folder or known is None or (known.is_pinned and source.revision == known.revision):
        return source
    found = _of_folder(fetch_encoder(source))
    return replace(found, name=f"{source.name}@{source.revision}") if found.revision.startswith(BY_DIGEST) else found


def fetch_encoder(source: EncoderSource) -> Path:
    """The folder with the encoder's files; downloads from the hub what is not on this machine.

    Raises:
        DataError: the hub cannot be reached, or sends something else than expected.
    """
    if source.folder:
        return source.folder
    known = ENCODERS[source.name]
    if known is None:
        raise AssertionError(f"{source.name} has no files on the hub")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # its retries would bury the one line that says what to do
    try:
        for name in (CONFIG, PREPROCESSOR):
            hf_hub_download(known.repository, name, revision=source.revision)
        weights = Path(hf_hub_download(known.repository, WEIGHTS[1], revision=source.revision))
    except Exception as error:  # the hub's client passes on whatever its HTTP library raises
        files = f"{CONFIG} {PREPROCESSOR} {WEIGHTS[1]}"
        raise DataError(
            f"cannot fetch {known.repository} from the hub ({error.__class__.__name__}). Where there is a network run "
            f"`hf download {known.repository} {files} --revision {source.revision} --local-dir weights/{source.name}`, "
            f"bring the folder here and pass --encoder weights/{source.name}; {TRY_OUT}"
        ) from error
    if source.revision == known.revision and not weights_digest(weights.parent).startswith(known.sha256):
        for path in (weights.resolve(), weights):  # the one is a link to the other, which the client would make again
            path.unlink(missing_ok=True)
        raise DataError(
            f"the hub sent another {weights.name} than m2e expects (sha256 {known.sha256}...). It is deleted: run the "
            "same command again"
        )
    return weights.parent


class Encoder:
    """A loaded encoder.

    Its network takes waves of equal length [shape=(batch, n)] to the time means of the stored hidden states
    [shape=(batch, layers, dim)].
    """

    def __init__(
        self, network: nn.Module, device: str, batch: int | None = None, precision: Precision = "float32"
    ) -> None:
        """`batch`: segments in one pass. None: one on a CPU, where more gain nothing and take memory; on a GPU as
        many as fit, found out in the first pass."""
        self.network = network.to(device)
        self.device = device
        self.batch = batch or (1 if device == "cpu" else None)
        self.precision = precision

    def __call__(self, waves: Tensor) -> Tensor:
        """One pass of the network; what its precision leaves in float32 is float32, whatever torch was told."""
        with float32_products("tf32" if self.precision == "tf32" else "ieee"):
            return self.network(waves)

    def embed(self, segments: SizedWaves) -> NDArray[np.float32]:
        """Time means of the hidden states.

        Args:
            segments: waves at 24 kHz, at least 720 samples each [shape=(n,) each].

        Returns:
            [shape=(segments, layers, dim)]

        Raises:
            As the network.
        """
        ((_, embeddings),) = embed_tracks(self, [(None, segments)])
        if isinstance(embeddings, Exception):
            raise embeddings
        return embeddings


# Encoders of other architectures: the model_type in config.json -> a function like `load_mert`, from folder, layers and
# precision to the network of an `Encoder`. What is not here is tried as MERT.
ARCHITECTURES: dict[str, Callable[[Path, Sequence[int], Precision], nn.Module]] = {}


def load_encoder(
    folder: Path,
    layers: Sequence[int],
    device: str = "cpu",
    precision: Precision = "float32",
    sample_rate: int = SAMPLE_RATE,
) -> Encoder:
    """Load a checkpoint from a folder in Hugging Face layout, without the blocks above max(layers).

    Args:
        folder: of the checkpoint.
        layers: which hidden states, ascending.
        device: "cpu" or "cuda".
        precision: of matrix products.
        sample_rate: of the waves that it will be given, Hz.

    Raises:
        DataError: it is not a model that this code reproduces, hears another sample rate, a file is damaged, or it has
            too few layers.
    """
    require(is_one_of(precision, PRECISIONS), "precision", precision, f"one of {', '.join(PRECISIONS)}")
    ascending = len(layers) > 0 and all(a < b for a, b in pairwise(layers)) and layers[0] >= 0
    require(ascending, "layers", layers, "layer numbers from 0 on, ascending")
    hears = read_settings(folder / PREPROCESSOR).get("sampling_rate", sample_rate)
    if hears != sample_rate:
        raise DataError(f"{folder} hears audio of {hears!r} Hz, and the settings say sample_rate {sample_rate}")
    if precision == "int8" and device != "cpu":
        raise DataError("precision int8 is for CPUs; on a GPU bf16 is faster and closer")
    if precision == "tf32" and device == "cpu":
        raise DataError("precision tf32 is for NVIDIA GPUs; a CPU computes in float32, bf16 or int8")
    load = ARCHITECTURES.get(str(read_settings(folder / CONFIG).get("model_type")), load_mert)
    return Encoder(load(folder, layers, precision), device, precision=precision)
