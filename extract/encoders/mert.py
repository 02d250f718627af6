"""A MERT checkpoint, a folder in Hugging Face layout, into the network.

It loads as transformers' HubertModel, strictly and never by the remote code that comes with it, and is rearranged then
(extract/encoders/mert_net.py).
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2e.common.checks import is_whole, require
from m2e.common.errors import DataError
from m2e.common.json_files import read_object

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import HubertModel

    from m2e.cache.settings import Precision
    from m2e.extract.encoders.mert_net import MERT

SAMPLE_RATE = 24_000
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What transformers' HuBERT computes depends on these, and takes these values for those that a file leaves out. Nothing
# else of a file reaches transformers: it may name code, and the rest is for training.
HUBERT_BASE: dict[str, Any] = {
    "conv_bias": False,
    "conv_dim": [512] * 7,
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_pos_batch_norm": False,
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "do_stable_layer_norm": False,
    "feat_extract_activation": "gelu",
    "feat_extract_norm": "group",
    "feat_proj_layer_norm": True,
    "hidden_act": "gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 12,
    "num_conv_pos_embedding_groups": 16,
    "num_conv_pos_embeddings": 128,
    "num_hidden_layers": 12,
}


def weights_file(folder: Path) -> Path:
    """The file with a model's weights.

    Raises:
        DataError: there is none.
    """
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} holds neither {WEIGHTS[0]} nor {WEIGHTS[1]}: not a model in Hugging Face layout")


def load_mert(folder: Path, layers: Sequence[int], precision: Precision = "float32") -> MERT:
    """The network up to layer max(layers), on the CPU.

    Raises:
        DataError: it is not a MERT that this code reproduces, a file is damaged, or it has too few layers.
    """
    from m2e.extract.encoders.mert_net import MERT

    preprocessor = read_settings(folder / PREPROCESSOR)
    if preprocessor.get("sampling_rate") != SAMPLE_RATE:
        raise DataError(f"{folder} expects {preprocessor.get('sampling_rate')} Hz, not MERT-v1's {SAMPLE_RATE} Hz")
    normalise = preprocessor.get("do_normalize", True)
    require(isinstance(normalise, bool), f"{folder / PREPROCESSOR}: do_normalize", normalise, "true or false")
    model, final_norm = load_hubert(folder, max(layers))
    network = MERT(model, layers, normalise, final_norm, precision)
    del model
    gc.collect()  # transformers' model has cycles, and would stay for a long time
    return network


def load_hubert(folder: Path, highest: int) -> tuple[HubertModel, bool]:
    """transformers' model with the first `highest` blocks, and whether its last layer norm applies to their output.

    It does in a pre-norm model with all its blocks; transformers itself leaves it out of the last hidden state from
    5.18 on.

    Raises:
        DataError: as for `load_mert`.
    """
    import torch
    from transformers import HubertConfig, HubertModel

    config = read_settings(folder / CONFIG)
    _check_variant(folder, config, highest)
    settings = {name: config.get(name, usual) for name, usual in HUBERT_BASE.items()}
    try:
        # No memory is set aside before the tensors are known to fit.
        with torch.device("meta"):
            model = HubertModel(HubertConfig(**{**settings, "num_hidden_layers": highest}))
    except Exception as error:  # transformers and torch each refuse impossible sizes in their own ways
        raise DataError(f"{folder / CONFIG} describes no HuBERT: {_first_line(error)}") from error
    path = weights_file(folder)
    _load_strictly(model, path, _tensors(path), highest, config["num_hidden_layers"])
    return model.eval(), bool(config.get("do_stable_layer_norm")) and highest == config["num_hidden_layers"]


def read_settings(path: Path) -> dict[str, Any]:
    """What a model's JSON file says. Raises DataError where it cannot be read."""
    try:
        return read_object(path)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _check_variant(folder: Path, config: dict[str, Any], highest: int) -> None:
    if config.get("model_type") not in ("mert_model", "hubert"):
        raise DataError(f"{folder} is a {config.get('model_type')!r} model, not MERT: m2e reads MERT-v1 checkpoints")
    for name in ("deepnorm", "feature_extractor_cqt", "conv_pos_batch_norm", "adapter_attn_dim"):
        if config.get(name):
            raise DataError(f"{folder}: MERT with {name} is not supported; MERT-v1-95M and MERT-v1-330M are without")
    if config.get("feat_extract_norm") not in ("group", "layer"):
        raise DataError(f"{folder}: feat_extract_norm {config.get('feat_extract_norm')!r} is neither group nor layer")
    for name in ("feat_extract_activation", "hidden_act"):
        if config.get(name, "gelu") != "gelu":
            raise DataError(f"{folder}: {name} {config[name]!r} is not gelu, as in MERT-v1")
    if not is_whole(config.get("num_hidden_layers"), highest):
        raise DataError(f"{folder} has {config.get('num_hidden_layers')} layers; layer {highest} was asked for")


def _tensors(path: Path) -> dict[str, Tensor]:
    import torch
    from safetensors.torch import load_file

    try:
        tensors = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        )
        return {name: tensor.float() for name, tensor in tensors.items()}
    except pickle.UnpicklingError as error:
        raise DataError(
            f"{path} is no file of plain tensors: it is damaged, or holds pickled objects, which m2e never runs"
        ) from error
    except Exception as error:  # each library has its own ways to fail on a damaged file
        raise DataError(
            f"{path} cannot be loaded ({_first_line(error)}): truncated, or not a checkpoint? Fetch it again"
        ) from error


def _load_strictly(model: HubertModel, path: Path, tensors: dict[str, Tensor], kept: int, stored: int) -> None:
    import torch

    wanted = model.state_dict()
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
    if "masked_spec_embed" in wanted:
        tensors.setdefault("masked_spec_embed", torch.zeros(wanted["masked_spec_embed"].shape))
    missing, unexpected = sorted(wanted.keys() - tensors.keys()), sorted(tensors.keys() - wanted.keys())
    if missing or unexpected:
        raise DataError(
            f"{path} is not MERT: {len(missing)} tensors are missing ({', '.join(missing[:2])}), "
            f"{len(unexpected)} are foreign ({', '.join(unexpected[:2])})"
        )
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise DataError(f"{path} holds values that are not finite: fetch it again")
    try:
        model.load_state_dict(tensors, strict=True, assign=True)
    except RuntimeError as error:
        raise DataError(f"{path} does not fit its {CONFIG}: {str(error).strip().splitlines()[-1].strip()}") from error


def _first_line(error: Exception) -> str:
    """And the next, after a heading."""
    first, _, rest = str(error).strip().partition("\n")
    more = rest.strip().split("\n")[0] if first.endswith(":") else ""
    return f"{first} {more}".strip() or type(error).__name__
