"""Encoders: MERT, loaded natively as transformers' HuBERT; never by remote code.

MERT-v1 (Li et al., arXiv 2306.00107) is HuBERT at 24 kHz: 7 convolutions (75 frames a second), a positional
convolution, Transformer blocks. Hidden state h[0] is the input of block 1 and h[k] the output of block k; a segment's
embedding is the time mean of each stored h[k].

A new model of the same kind is a line in `ENCODERS`; any folder in Hugging Face layout (config.json,
preprocessor_config.json, model.safetensors or pytorch_model.bin) works by its path.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from m2e.cache.errors import DataError

if TYPE_CHECKING:
    import torch
    from transformers import HubertModel

SAMPLE_RATE = 24_000
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TRY_OUT = "to try m2e without any weights: --encoder tiny --chords template"


@dataclass(frozen=True)
class HubEncoder:
    """A model on the Hugging Face hub.

    Attributes:
        repository: owner/name.
        revision: the pinned commit, 40 hex digits; None: the user must name one.
        sha256: the beginning of the weights' digest, "" where unknown.
    """

    repository: str
    revision: str | None
    sha256: str = ""


ENCODERS: dict[str, HubEncoder | None] = {
    "MERT-v1-95M": HubEncoder("m-a-p/MERT-v1-95M", "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5", "a2b8b747f72c06e0"),
    "MERT-v1-330M": HubEncoder("m-a-p/MERT-v1-330M", None),
    "tiny": None,  # made on the spot, untrained: extract/tiny.py
}


@dataclass(frozen=True)
class EncoderSource:
    """An encoder that is identified but not loaded; cheap, and picklable into workers.

    Attributes:
        name: as the cache records it.
        revision: the hub's commit, or "sha256:..." over a local folder's files.
        folder: its files, None while they are still on the hub.
    """

    name: str
    revision: str
    folder: Path | None


def find_encoder(name: str, revision: str | None = None) -> EncoderSource:
    """Identify an encoder by registry name or folder, without loading or downloading it.

    Args:
        name: a key of `ENCODERS`, or a folder in Hugging Face layout.
        revision: a commit of the hub's repository in place of the pinned one.

    Raises:
        DataError: unknown name, a folder without the files of a model, or a revision is needed.
    """
    if name == "tiny":
        from m2e.extract.tiny import tiny_encoder_folder

        folder = tiny_encoder_folder()
        return EncoderSource("tiny", _folder_revision(folder), folder)
    known = ENCODERS.get(name)
    if known:
        commit = revision or known.revision
        if commit is None:
            raise DataError(
                f"no revision of {known.repository} is pinned: name one with --revision (40 hex digits), or pass the "
                "folder of a downloaded copy as --encoder"
            )
        if len(commit) != 40 or set(commit) - set("0123456789abcdef"):
            raise DataError(f"revision {commit!r} is not a commit: 40 hex digits, so that the weights cannot change")
        return EncoderSource(name, commit, None)
    folder = Path(name)
    if not folder.is_dir():
        near = difflib.get_close_matches(name, ENCODERS, 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(
            f"no encoder {name!r}: {hint}known are {', '.join(ENCODERS)} and folders in Hugging Face layout"
        )
    return EncoderSource(folder.resolve().name, _folder_revision(folder), folder.resolve())


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
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # its retries would bury the one line that says what to do
    try:
        for name in (CONFIG, PREPROCESSOR):
            hf_hub_download(known.repository, name, revision=source.revision)
        weights = Path(hf_hub_download(known.repository, WEIGHTS[1], revision=source.revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        files = f"{CONFIG} {PREPROCESSOR} {WEIGHTS[1]}"
        raise DataError(
            f"cannot fetch {known.repository} from the hub ({error.__class__.__name__}). Where there is a network run "
            f"`hf download {known.repository} {files} --revision {source.revision} --local-dir weights/{source.name}`, "
            f"bring the folder here and pass --encoder weights/{source.name}; {TRY_OUT}"
        ) from error
    if source.revision == known.revision and not _sha256(weights).startswith(known.sha256):
        raise DataError(
            f"{weights} is not the file that m2e expects (sha256 {known.sha256}...): delete it, fetch again"
        )
    return weights.parent


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weights_file(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds neither {WEIGHTS[0]} nor {WEIGHTS[1]}: not a model in Hugging Face layout")


def _folder_revision(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in (folder / CONFIG, folder / PREPROCESSOR, _weights_file(folder)):
        if not path.is_file():
            raise DataError(f"{folder} has no {path.name}: not a model in Hugging Face layout")
        digest.update(_sha256(path).encode())
    return f"sha256:{digest.hexdigest()}"


class Encoder:
    """A loaded MERT, cut above the highest layer that is asked for."""

    def __init__(
        self, model: HubertModel, layers: Sequence[int], normalise: bool, final_norm: bool, device: str
    ) -> None:
        self._model = model.to(device).eval().requires_grad_(False)
        self._layers = tuple(layers)
        self._normalise = normalise
        self._final_norm = final_norm
        self._device = device

    def embed(self, segments: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Time means of the hidden states.

        Args:
            segments: waves at 24 kHz, at least 720 samples each [shape=(n,) each].

        Returns:
            [shape=(segments, layers, dim)]
        """
        # One at a time: padding would change the result, and a batch gains nothing on a CPU.
        return np.stack([self._embed(segment) for segment in segments])

    def _embed(self, wave: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            states = self.hidden_states(torch.from_numpy(np.ascontiguousarray(wave)).to(self._device)[None])
            means = [states[layer].mean(dim=1) for layer in self._layers]  # each [1, dim]
            return torch.cat(means).float().cpu().numpy()  # [layers, dim]

    def hidden_states(self, waves: torch.Tensor) -> dict[int, torch.Tensor]:
        """h[k] for every layer k up to the highest stored.

        Args:
            waves: at 24 kHz [shape=(batch, n)].

        Returns:
            k -> [shape=(batch, frames, dim)]
        """
        model = self._model
        if self._normalise:  # the Wav2Vec2 feature extractor's: population variance
            variance, mean = waves.var(dim=1, keepdim=True, correction=0), waves.mean(dim=1, keepdim=True)
            waves = (waves - mean) / (variance + 1e-7).sqrt()
        features = model.feature_extractor(waves).transpose(1, 2)  # [batch, frames, conv_dim]
        hidden = model.feature_projection(features)  # [batch, frames, dim]
        hidden = hidden + model.encoder.pos_conv_embed(hidden)
        stable = model.config.do_stable_layer_norm
        if not stable:
            hidden = model.encoder.layer_norm(hidden)
        states = {0: hidden}
        for number, block in enumerate(model.encoder.layers, start=1):
            out = block(hidden, attention_mask=None)
            hidden = out[0] if isinstance(out, tuple) else out  # transformers 4 returns a tuple
            states[number] = hidden
        if self._final_norm:
            states[len(model.encoder.layers)] = model.encoder.layer_norm(hidden)
        return states


def load_encoder(folder: Path, layers: Sequence[int], device: str = "cpu") -> Encoder:
    """Load a MERT checkpoint from a folder in Hugging Face layout, strictly and without the blocks above max(layers).

    Raises:
        DataError: it is not a MERT that this code reproduces, a file is damaged, or it has too few layers.
    """
    from transformers import HubertConfig, HubertModel

    config = _read_json(folder / CONFIG)
    preprocessor = _read_json(folder / PREPROCESSOR)
    _check_variant(folder, config, preprocessor, max(layers))
    stored = int(config["num_hidden_layers"])
    settings = {"conv_pos_batch_norm": False, **config, "num_hidden_layers": max(layers)}
    for name in ("model_type", "auto_map", "architectures", "torch_dtype", "transformers_version", "_name_or_path"):
        settings.pop(name, None)
    model = HubertModel(HubertConfig(**settings))
    _load_strictly(model, _weights_file(folder), max(layers), stored)
    final_norm = bool(config.get("do_stable_layer_norm")) and max(layers) == stored
    return Encoder(model, layers, bool(preprocessor.get("do_normalize", True)), final_norm, device)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} is not a JSON object")
    return values


def _check_variant(folder: Path, config: dict[str, Any], preprocessor: dict[str, Any], highest: int) -> None:
    if config.get("model_type") not in ("mert_model", "hubert"):
        raise DataError(f"{folder} is a {config.get('model_type')!r} model, not MERT: m2e reads MERT-v1 checkpoints")
    for name in ("deepnorm", "feature_extractor_cqt"):
        if config.get(name):
            raise DataError(f"{folder}: MERT with {name} is not supported; MERT-v1-95M and MERT-v1-330M are without")
    if preprocessor.get("sampling_rate") != SAMPLE_RATE:
        raise DataError(f"{folder} expects {preprocessor.get('sampling_rate')} Hz, not MERT-v1's {SAMPLE_RATE} Hz")
    if config.get("feat_extract_norm") not in ("group", "layer"):
        raise DataError(f"{folder}: feat_extract_norm {config.get('feat_extract_norm')!r} is neither group nor layer")
    if not isinstance(config.get("num_hidden_layers"), int) or highest > config["num_hidden_layers"]:
        raise DataError(f"{folder} has {config.get('num_hidden_layers')} layers; layer {highest} was asked for")


def _load_strictly(model: HubertModel, path: Path, kept: int, stored: int) -> None:
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            tensors = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # each library has its own ways to fail on a damaged file
        first = str(error).strip().split("\n")[0]
        raise DataError(f"{path} cannot be loaded ({first}): truncated, or not a checkpoint? Fetch it again") from error
    wanted = set(model.state_dict())
    # torch renamed weight norm's tensors; checkpoints and models come with either pair of names.
    renames = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    prefix = "encoder.pos_conv_embed.conv."
    for old, new in renames.items():
        here, there = (new, old) if prefix + old in wanted else (old, new)
        if prefix + here in tensors:
            tensors[prefix + there] = tensors.pop(prefix + here)
    above = tuple(f"encoder.layers.{number}." for number in range(kept, stored))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(above)}
    # Used in pre-training only: absent from some exports, and without effect on features.
    if "masked_spec_embed" in wanted and "masked_spec_embed" not in tensors:
        tensors["masked_spec_embed"] = model.state_dict()["masked_spec_embed"]
    missing, unexpected = sorted(wanted - set(tensors)), sorted(set(tensors) - wanted)
    if missing or unexpected:
        raise DataError(
            f"{path} is not MERT: {len(missing)} tensors are missing ({', '.join(missing[:2])}), "
            f"{len(unexpected)} are foreign ({', '.join(unexpected[:2])})"
        )
    try:
        model.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit its {CONFIG}: {str(error).strip().splitlines()[-1].strip()}") from error
