"""MERT as transformers' HuBERT: equal to the official model, strict about what it loads."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertModel

from m2e.cache import DataError
from m2e.extract.audio.reader import load_audio, split_segments
from m2e.extract.encoders.mert import load_hubert, load_mert
from m2e.extract.encoders.registry import Encoder, fetch_encoder, find_encoder, load_encoder
from m2e.extract.encoders.tiny import tiny_encoder_folder

torch.set_num_threads(1)  # as in every worker


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the tiny encoder that a test may damage."""
    return Path(shutil.copytree(tiny_encoder_folder(), tmp_path / "tiny"))


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=int(24_000 * seconds)).astype(np.float32)


def exact_states(folder: Path, wave: torch.Tensor, blocks: int) -> list[np.ndarray]:
    """h[0], h[1], ... by transformers' own model in float64 [shape=(frames, dim) each]."""
    model, wave = load_hubert(folder, blocks)[0].double(), wave.double()
    with torch.no_grad():
        out = model((wave - wave.mean()) / (wave.var(correction=0) + 1e-7).sqrt(), output_hidden_states=True)
    return [state[0].numpy() for state in (*out.hidden_states[:-1], out.last_hidden_state)]


@pytest.mark.parametrize("name", ["tiny_base", "tiny_noprojln", "tiny_stable330"])
def test_hidden_states_and_features_equal_the_official_model(reference: Path, name: str, device: str) -> None:
    folder = reference / "golden" / "mert" / name
    with np.load(folder / "io.npz") as file:
        golden = dict(file)
    layers = range(1, len(golden["short3_hidden"]))
    wave = golden["short3_wave"]
    given = torch.from_numpy(wave)[None]
    states = load_mert(folder, layers).to(device).hidden_states(given.to(device))
    # The official outputs are rounded as ours are, each by its processor's order of sums: both are near the exact ones.
    for state, official, exact in zip(
        states, golden["short3_hidden"], exact_states(folder, given, max(layers)), strict=True
    ):
        np.testing.assert_allclose(state[0].cpu(), exact, atol=1e-5, rtol=0)
        np.testing.assert_allclose(official, exact, atol=1e-5, rtol=0)
    features = load_encoder(folder, layers, device).embed([wave])
    np.testing.assert_allclose(features, golden["short3_feature"], atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["tiny_base", "tiny_noprojln", "tiny_stable330"])
def test_audio_file_to_embeddings_equals_the_released_code(reference: Path, name: str) -> None:
    """A full segment, and the short one at the end, alone."""
    folder = reference / "golden" / "mert" / name
    with np.load(folder / "io.npz") as file:
        golden = dict(file)
    short = load_audio(reference / "golden" / "audio" / "short3.mp3")
    np.testing.assert_allclose(short.encoder_wave, golden["short3_wave"], atol=1e-5, rtol=0)
    clip = load_audio(reference / "golden" / "audio" / "clip47.mp3")
    segments = split_segments(clip.encoder_wave, 720_000, "keep", 120_000)
    embeddings = load_encoder(folder, range(1, len(golden["short3_hidden"]))).embed(segments)
    assert len(embeddings) == 2
    for i, embedding in enumerate(embeddings):
        np.testing.assert_allclose(embedding, golden[f"clip47_feature_{i}"][0], atol=2e-6, rtol=0)


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


def test_a_batch_is_its_segments_one_by_one_in_their_order(tiny: Path) -> None:
    """Batches are of equal lengths; the fourth segment here has none to go with."""
    waves = [noise(1.0, 1), noise(1.0, 2) * 5 + 3, noise(1.0, 3), noise(0.7, 4), noise(1.0, 5)]
    batched = Encoder(load_mert(tiny, (0, 5, 7)), "cpu", batch=3).embed(waves)
    single = load_encoder(tiny, (0, 5, 7)).embed(waves)
    np.testing.assert_allclose(batched, single, atol=1e-5, rtol=0)
    assert np.abs(np.diff(single, axis=0)).max(axis=(1, 2)).min() > 1e-3


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
    assert find_encoder(str(tiny)).name == "tiny"


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
        ({"conv_pos_batch_norm": True}, "conv_pos_batch_norm is not supported"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim is not supported"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not gelu"),
        ({"feat_extract_activation": "relu"}, "feat_extract_activation 'relu' is not gelu"),
        ({"num_hidden_layers": 4}, "has 4 layers; layer 7"),
        ({"num_hidden_layers": "many"}, "has many layers"),
        ({"hidden_size": 48}, "does not fit its config.json"),
        ({"hidden_size": 10**12, "intermediate_size": 10**12}, r"config\.json"),
        ({"hidden_size": 65}, "describes no HuBERT"),
        ({"conv_dim": [48] * 6}, "describes no HuBERT"),
        ({"hidden_size": "wide"}, "describes no HuBERT"),
    ],
)
def test_other_models_are_refused(tiny: Path, change: dict[str, object], says: str) -> None:
    config = json.loads((tiny / "config.json").read_text())
    (tiny / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(DataError, match=says) as error:
        load_encoder(tiny, (7,))
    assert "\n" not in str(error.value)


def test_a_config_without_conv_pos_batch_norm_or_with_half_precision_weights_loads(tiny: Path) -> None:
    """As MERT-v1's own config.json, which is older than the setting."""
    assert "conv_pos_batch_norm" not in json.loads((tiny / "config.json").read_text())
    tensors = {name: tensor.half() for name, tensor in load_file(tiny / "model.safetensors").items()}
    expected = load_encoder(tiny, (5,)).embed([noise(1)])
    save_file(tensors, tiny / "model.safetensors")
    np.testing.assert_allclose(load_encoder(tiny, (5,)).embed([noise(1)]), expected, atol=0.05)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_a_damaged_or_missing_config_is_one_line(tiny: Path, name: str, content: str | None) -> None:
    (tiny / name).unlink() if content is None else (tiny / name).write_text(content)
    with pytest.raises(DataError, match=name) as error:
        load_encoder(tiny, (7,))
    assert "\n" not in str(error.value)


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
    with pytest.raises(DataError, match=r"holds pickled objects, which m2e never runs$"):
        load_encoder(tiny, (7,))
    assert not (tiny / "attacked").exists()


def test_weights_that_are_not_numbers_are_refused_before_any_track_is_heard(tiny: Path) -> None:
    tensors = load_file(tiny / "model.safetensors")
    tensors["encoder.layers.0.attention.k_proj.weight"][0, 0] = torch.nan
    save_file(tensors, tiny / "model.safetensors")
    with pytest.raises(DataError, match="holds values that are not finite"):
        load_encoder(tiny, (7,))


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


@pytest.fixture
def hub(tiny: Path) -> Iterator[str]:
    """Address of a stand-in for the hub, which has the tiny encoder under any name at any revision."""
    torch.save(load_file(tiny / "model.safetensors"), tiny / "pytorch_model.bin")

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> bytes:
            if "/resolve/" not in self.path:
                self.send_error(404)
                return b""
            content = (tiny / self.path.rpartition("/")[2]).read_bytes()
            self.send_response(200)
            self.send_header("X-Repo-Commit", self.path.split("/resolve/")[1][:40])
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return content

        def do_GET(self) -> None:
            content = self.do_HEAD()
            breaks_off = "/cut/" in self.path and self.path.endswith(".bin")
            self.wfile.write(content[: len(content) // (2 if breaks_off else 1)])

        def log_message(self, format: str, *args: object) -> None:
            print(f"asked for {self.path}" if "/resolve/" in self.path else "")

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(hub: str, cache: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with the hub's client pointed at `hub`, which it reads when imported, and its progress shown."""
    code = f"from m2e.extract.encoders.registry import *\nfrom m2e.extract.encoders.registry import HubEncoder\n{code}"
    settings = {"HF_ENDPOINT": hub, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "0", "TQDM_POSITION": "-1"}
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, **settings}, capture_output=True, text=True)


def test_a_download_is_of_the_pinned_revision_and_not_taken_when_it_is_another_file(
    hub: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    result = fetch(hub, tmp_path, "fetch_encoder(find_encoder('MERT-v1-95M'))")
    assert "the hub sent another pytorch_model.bin than m2e expects (sha256 a2b8b747f72c06e0...)" in result.stderr
    assert len(list(tmp_path.glob("models--*/blobs/*"))) == 2  # what is kept is not fetched again
    asked = {line for line in capfd.readouterr().out.splitlines() if line.startswith("asked for")}
    prefix = "asked for /m-a-p/MERT-v1-95M/resolve/12af15fef9d0ac838c3f475bfbbf26d2060dd4f5/"
    assert asked == {prefix + name for name in ("config.json", "preprocessor_config.json", "pytorch_model.bin")}


def test_a_download_that_breaks_off_is_one_line(hub: str, tmp_path: Path) -> None:
    line = "ENCODERS['mine'] = HubEncoder('me/cut', 'b' * 40, '0')"
    for address in (hub, "garbage"):
        result = fetch(address, tmp_path, f"{line}\nfetch_encoder(find_encoder('mine'))")
        assert "DataError: cannot fetch me/cut from the hub" in result.stderr.splitlines()[-1]


def test_another_model_of_the_kind_is_a_line_in_the_registry(hub: str, tmp_path: Path, tiny: Path) -> None:
    digest = hashlib.sha256((tiny / "pytorch_model.bin").read_bytes()).hexdigest()
    line = f"ENCODERS['mine'] = HubEncoder('me/mine', 'b' * 40, '{digest[:16]}')"
    result = fetch(hub, tmp_path, f"{line}\nprint(fetch_encoder(find_encoder('mine')))")
    assert "pytorch_model.bin: 100%" in result.stderr  # its progress
    expected = load_encoder(tiny, (1, 2)).embed([noise(1)])
    np.testing.assert_array_equal(load_encoder(Path(result.stdout.strip()), (1, 2)).embed([noise(1)]), expected)


def test_without_the_hub_one_line_says_how_to_bring_the_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DataError, match=r"hf download m-a-p/MERT-v1-95M .*--encoder tiny") as error:
        fetch_encoder(find_encoder("MERT-v1-95M"))
    command = (
        "hf download m-a-p/MERT-v1-95M config.json preprocessor_config.json pytorch_model.bin "
        "--revision 12af15fef9d0ac838c3f475bfbbf26d2060dd4f5 --local-dir weights/MERT-v1-95M"
    )
    assert f"`{command}`" in str(error.value)
    assert "--encoder weights/MERT-v1-95M" in str(error.value)
    assert "\n" not in str(error.value)
