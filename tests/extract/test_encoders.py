"""MERT as transformers' HuBERT: equal to the official model, strict about what it loads."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel

from m2e.cache import DataError
from m2e.extract.audio import load_audio, resample_sinc, split_segments
from m2e.extract.encoders import fetch_encoder, find_encoder, load_encoder
from m2e.extract.tiny import tiny_encoder_folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_encoder_folder(), tmp_path / "tiny"))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(24_000 * seconds)).astype(np.float32)


@pytest.mark.parametrize("name", ["tiny_base", "tiny_noprojln", "tiny_stable330"])
def test_hidden_states_equal_the_official_model(reference: Path, name: str) -> None:
    folder = reference / "golden" / "mert" / name
    with np.load(folder / "io.npz") as file:
        golden = dict(file)
    top = golden["short3_hidden"].shape[0] - 1
    encoder = load_encoder(folder, range(1, top + 1))
    with torch.inference_mode():
        states = encoder.hidden_states(torch.from_numpy(golden["short3_wave"])[None])
    for layer in range(top + 1):
        np.testing.assert_allclose(states[layer][0], golden["short3_hidden"][layer], atol=1e-5, rtol=0)
    np.testing.assert_allclose(encoder.embed([golden["short3_wave"]]), golden["short3_feature"], atol=2e-6, rtol=0)


def test_audio_file_to_embeddings_equals_the_released_code(reference: Path) -> None:
    folder = reference / "golden" / "mert" / "tiny_base"
    with np.load(folder / "io.npz") as file:
        golden = dict(file)
    short = load_audio(reference / "golden" / "audio" / "short3.mp3")
    np.testing.assert_allclose(resample_sinc(short.wave, short.rate, 24_000), golden["short3_wave"], atol=1e-5, rtol=0)
    clip = load_audio(reference / "golden" / "audio" / "clip47.mp3")
    segments = split_segments(resample_sinc(clip.wave, clip.rate, 24_000), 720_000, "keep", 120_000)
    embeddings = load_encoder(folder, range(1, 9)).embed(segments)
    for i in range(2):
        np.testing.assert_allclose(embeddings[i], golden[f"clip47_feature_{i}"][0], atol=2e-6, rtol=0)


def test_blocks_above_the_highest_layer_change_nothing(tiny: Path) -> None:
    wave = noise(1.0)
    few, all_layers = load_encoder(tiny, (2, 3)), load_encoder(tiny, range(8))
    np.testing.assert_array_equal(few.embed([wave])[0], all_layers.embed([wave])[0][2:4])


def test_segments_do_not_influence_each_other(tiny: Path) -> None:
    encoder = load_encoder(tiny, (5, 6, 7))
    waves = [noise(1.0, 1), noise(0.1, 2), noise(2.0, 3)]
    together = encoder.embed(waves)
    assert together.shape == (3, 3, 64)
    for wave, embedding in zip(waves, together, strict=True):
        np.testing.assert_array_equal(encoder.embed([wave])[0], embedding)


def test_loudness_alone_changes_nothing(tiny: Path) -> None:
    encoder = load_encoder(tiny, (7,))
    np.testing.assert_allclose(encoder.embed([noise(1)]), encoder.embed([noise(1) * 0.1]), atol=1e-4)


def test_silence_is_finite(tiny: Path) -> None:
    assert np.isfinite(load_encoder(tiny, (7,)).embed([np.zeros(24_000, np.float32)])).all()


def test_tiny_is_the_same_every_time_and_known_by_its_bytes(tiny: Path) -> None:
    source = find_encoder("tiny")
    assert source.revision == find_encoder(str(tiny)).revision
    config = HubertConfig(**json.loads((tiny / "config.json").read_text()), conv_pos_batch_norm=False)
    assert sum(p.numel() for p in HubertModel(config).parameters()) < 1_000_000
    (tiny / "config.json").write_text((tiny / "config.json").read_text() + " ")
    assert source.revision != find_encoder(str(tiny)).revision


def test_old_and_new_weight_norm_names_and_both_file_forms_load(tiny: Path) -> None:
    expected = load_encoder(tiny, (5,)).embed([noise(1)])
    tensors = load_file(tiny / "model.safetensors")
    renames = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    for old, new in renames.items():
        tensors = {name.replace(old, new): tensor for name, tensor in tensors.items()}
    assert any(name.endswith("weight_g") for name in tensors)
    tensors.pop("masked_spec_embed")
    (tiny / "model.safetensors").unlink()
    torch.save(tensors, tiny / "pytorch_model.bin")
    np.testing.assert_array_equal(load_encoder(tiny, (5,)).embed([noise(1)]), expected)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "bert"}, "'bert' model, not MERT"),
        ({"deepnorm": True}, "deepnorm is not supported"),
        ({"feature_extractor_cqt": True}, "cqt is not supported"),
        ({"feat_extract_norm": "batch"}, "neither group nor layer"),
        ({"num_hidden_layers": 4}, "has 4 layers; layer 7"),
        ({"hidden_size": 48}, "does not fit its config.json"),
    ],
)
def test_other_models_are_refused(tiny: Path, change: dict[str, object], says: str) -> None:
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(DataError, match=says):
        load_encoder(tiny, (7,))


def test_a_wrong_sampling_rate_is_refused(tiny: Path) -> None:
    (tiny / "preprocessor_config.json").write_text('{"sampling_rate": 16000}')
    with pytest.raises(DataError, match="16000 Hz"):
        load_encoder(tiny, (7,))


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
def test_truncated_weights_are_one_line(tiny: Path, form: str) -> None:
    tensors = load_file(tiny / "model.safetensors")
    (tiny / "model.safetensors").unlink()
    (save_file if form == "model.safetensors" else torch.save)(tensors, tiny / form)
    (tiny / form).write_bytes((tiny / form).read_bytes()[:5000])
    with pytest.raises(DataError, match="cannot be loaded") as error:
        load_encoder(tiny, (7,))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("edit", ["missing", "foreign"])
def test_loading_is_strict(tiny: Path, edit: str) -> None:
    tensors = load_file(tiny / "model.safetensors")
    if edit == "missing":
        tensors.pop("encoder.layers.0.final_layer_norm.bias")
    else:
        tensors["classifier.weight"] = torch.zeros(1)
    save_file(tensors, tiny / "model.safetensors")
    with pytest.raises(DataError, match=r"is not MERT: .*(final_layer_norm|classifier)"):
        load_encoder(tiny, (7,))


def test_pickled_code_in_a_checkpoint_is_never_run(tiny: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tiny / "attacked",))

    (tiny / "model.safetensors").unlink()
    torch.save({"x": Attack()}, tiny / "pytorch_model.bin")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_encoder(tiny, (7,))
    assert not (tiny / "attacked").exists()


def test_unknown_encoders_suggest_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean MERT-v1-95M"):
        find_encoder("MERT-95M")
    with pytest.raises(DataError, match=r"neither model\.safetensors"):
        find_encoder(str(tmp_path))


def test_revisions_are_pinned() -> None:
    assert find_encoder("MERT-v1-95M").revision == "12af15fef9d0ac838c3f475bfbbf26d2060dd4f5"
    with pytest.raises(DataError, match="--revision"):
        find_encoder("MERT-v1-330M")
    with pytest.raises(DataError, match="40 hex"):
        find_encoder("MERT-v1-330M", "main")
    assert find_encoder("MERT-v1-330M", "a" * 40).folder is None


def test_without_the_hub_one_line_says_how_to_bring_the_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"hf download m-a-p/MERT-v1-95M .*--encoder tiny") as error:
        fetch_encoder(find_encoder("MERT-v1-95M"))
    assert "\n" not in str(error.value)
