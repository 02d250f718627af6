"""The encoder for trying out: MERT's architecture, small, with seeded weights that nobody trained.

It exists so that the whole road can be walked without a download. It is written as a folder in Hugging Face layout
and loaded by the code that loads MERT-v1-95M. Its embeddings carry what random filters hear, no more.

With an initial gain of 1 tracks would differ by .05 around a common offset of .5, far less than with trained weights,
and a head could hardly learn from them at the paper's learning rate; hence `GAIN`.
"""

from __future__ import annotations

import json
from pathlib import Path

RECIPE = 1
SEED = 0
GAIN = 6.0


def tiny_encoder_folder() -> Path:
    """The tiny encoder's folder, made in the user's cache on first use.

    Raises:
        DataError: the cache folder cannot be written.
    """
    from m2e.common.errors import DataError
    from m2e.common.files import temporary_folder

    folder = _place()
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, mode=0o777) as temporary:
            _write(temporary)
            temporary.rename(folder)
    except (OSError, DataError) as error:
        if not folder.is_dir():  # another process may have been first
            raise DataError(f"cannot write the tiny encoder to {folder}: {error}. Set XDG_CACHE_HOME") from error
    return folder


def tiny_is_made() -> bool:
    """Whether `tiny_encoder_folder` has made it already."""
    return _place().is_dir()


def _place() -> Path:
    import pooch

    return Path(pooch.os_cache("m2e")) / f"tiny-mert-{RECIPE}"


def _write(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file
    from transformers import HubertConfig, HubertModel

    settings = {
        "conv_bias": False,
        "conv_dim": [48] * 7,
        "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "do_stable_layer_norm": False,
        "feat_extract_norm": "group",
        "feat_proj_layer_norm": True,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_conv_pos_embedding_groups": 16,
        "num_conv_pos_embeddings": 128,
        "num_hidden_layers": 7,
        "sample_rate": 24_000,
        "vocab_size": 32,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = HubertModel(HubertConfig(**settings, conv_pos_batch_norm=False))
    for block in model.encoder.layers:
        torch.nn.init.constant_(block.final_layer_norm.weight, GAIN)
    config = {"model_type": "mert_model", "deepnorm": False, "feature_extractor_cqt": False, **settings}
    preprocessor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 24_000, "do_normalize": True}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
