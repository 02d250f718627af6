"""Published checkpoints: read strictly and safely, brought into our form, and tested like our own."""

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.caches import CONFIG, make_cache, make_labels

from m2e.cache import DataError
from m2e.extract.chords.btc_weights import OFFICIAL_REVISION
from m2e.extract.encoders.registry import ENCODERS
from m2e.train.cli import main
from m2e.train.config import TrainConfig
from m2e.train.model.checkpoint import load_model
from m2e.train.model.network import EmotionModel, Inputs
from m2e.train.model.released import EXTRACTION, TAGS, import_checkpoint, read_released
from m2e.train.scoring.test_splits import score_checkpoint

STUDENT: dict[Any, int] = {"tags": 56, "valence_arousal": 2}


def checkpoint(outputs: dict[Any, int] = STUDENT) -> dict[str, Any]:
    """A Lightning file's content with random weights."""
    torch.manual_seed(0)
    model = EmotionModel(TrainConfig.preset("release"), 1536, outputs)
    state: dict[str, Any] = {f"model.{name}": value for name, value in model.state_dict().items()}
    for suffix in ("", "_eval"):
        for name in ("weight", "pos_weight"):
            state[f"loss_fn_classification{suffix}.{name}"] = torch.ones(56, dtype=torch.float64)
    return {"epoch": 3, "global_step": 9, "pytorch-lightning_version": "2.4.0", "state_dict": state, "loops": {}}


@pytest.fixture
def published(tmp_path: Path) -> Path:
    torch.save(checkpoint(), tmp_path / "J_all.ckpt")
    return tmp_path / "J_all.ckpt"


def test_outputs_are_the_released_codes(reference: Path, tmp_path: Path) -> None:
    golden = reference / "golden"
    card = import_checkpoint(golden / "heads" / "J_all.ckpt", tmp_path / "ours")
    models, read = load_model(tmp_path / "ours")
    assert read == card
    assert (card.tasks, [each["letter"] for each in card.datasets]) == (("tags", "valence_arousal"), list("JDEP"))
    for song in ("short3", "clip47"):
        stored = np.load(golden / "e2e" / song / "model_io.npz")
        values = [torch.from_numpy(stored[name]) for name in ("x_mert", "x_chord_root", "x_chord_attr", "x_key")]
        inputs = Inputs(*values[:3], values[3][:, 0])
        for task, name in (("tags", "cls"), ("valence_arousal", "reg")):
            said = models[task](inputs).of(task).detach()  # type: ignore[index,arg-type]
            np.testing.assert_allclose(said, stored[name], rtol=0, atol=1e-5)
    for name, tasks in (("J", ("tags",)), ("D", ("valence_arousal",))):
        models, card = read_released(golden / "heads" / f"{name}.ckpt")
        assert (tuple(models), card.tasks, [each["letter"] for each in card.datasets]) == (tasks, tasks, [name])


def test_tag_names_are_the_official_ones_in_their_order(reference: Path) -> None:
    text = (reference / "data" / "mtg-jamendo" / "data" / "tags" / "moodtheme_split.txt").read_text()
    assert [f"mood/theme---{tag}" for tag in TAGS] == text.split()


def test_its_features_are_those_of_the_default_extraction() -> None:
    encoder = ENCODERS[EXTRACTION.encoder]
    assert encoder is not None
    assert (EXTRACTION.encoder_revision, EXTRACTION.chords_revision) == (encoder.revision, OFFICIAL_REVISION)
    assert replace(EXTRACTION, layers=CONFIG.layers) == EXTRACTION


@pytest.mark.parametrize(
    ("name", "outputs", "letters"),
    [
        ("D_all", STUDENT, "JDEP"),
        ("J", {"tags": 56}, "J"),
        ("E", {"valence_arousal": 2}, "E"),
        ("J", {"valence_arousal": 2}, ""),
        ("best", STUDENT, ""),
    ],
)
def test_the_name_says_what_it_was_trained_on(tmp_path: Path, name: str, outputs: dict[Any, int], letters: str) -> None:
    torch.save(checkpoint(outputs), tmp_path / f"{name}.ckpt")
    models, card = read_released(tmp_path / f"{name}.ckpt")
    assert "".join(each["letter"] for each in card.datasets) == letters
    assert tuple(models) == tuple(outputs)
    assert len(card.tag_names) == outputs.get("tags", 0)


class Evil:
    """Runs code where a pickle is trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def edit(path: Path, what: str) -> None:
    """Make of a good file a bad one."""
    content = checkpoint()
    state = content["state_dict"]
    name = "model.input_proj.0.weight"
    if what == "missing":
        del state[name]
    elif what == "foreign":
        state["optimizer.lr"] = torch.zeros(1)
    elif what == "more":
        state["model.extra"] = torch.zeros(1)
    elif what == "shape":
        state[name] = state[name][:, :-1].clone()
    elif what == "forged shape":
        state[name] = torch.zeros(1).expand(10**7, 10**4)
    elif what == "float64":
        state[name] = state[name].double()
    elif what == "nan":
        state[name][3, 3] = torch.nan
    elif what == "teacher of 7":
        state = {k: v for k, v in state.items() if "branch" not in k}
        state |= {"model.output_proj.2.weight": torch.zeros(7, 256)}
        content["state_dict"] = state
    elif what == "names":
        content["state_dict"] = {1: torch.zeros(1)}
    elif what == "no state":
        content = {"weights": state}
    elif what == "list":
        content = [1]  # type: ignore[assignment]
    elif what == "code":
        content["callbacks"] = Evil(path.parent / "ran")
    torch.save(content, path)
    raw = path.read_bytes()
    if what == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif what == "flipped":
        at = raw.index(state[name].numpy().tobytes()[:64])
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "text":
        path.write_text("no checkpoint")
    elif what == "pickle":
        path.write_bytes(pickle.dumps(Evil(path.parent / "ran")))
    elif what == "large":
        with path.open("ab") as file:
            file.truncate(65 * 2**20)
    elif what == "compressed":
        packed = io.BytesIO()
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
            for part in old.infolist():
                new.writestr(part.filename, old.read(part))
        path.write_bytes(packed.getvalue())
    elif what == "archive":
        with zipfile.ZipFile(path, "w") as new:
            new.writestr("readme.txt", "hello")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "input_proj.0.weight is nothing, not (512, 1545)"),
        ("foreign", "'optimizer.lr'"),
        ("more", "extra is (1,), not nothing"),
        ("shape", "(512, 1544), not (512, 1545)"),
        ("forged shape", "(10000000, 10000), not"),
        ("float64", "not finite float32"),
        ("nan", "not finite float32"),
        ("teacher of 7", "neither a student's branches nor a teacher's"),
        ("names", "no state_dict"),
        ("no state", "no state_dict"),
        ("list", "no state_dict"),
        ("code", "more in it than weights"),
        ("pickle", "no PyTorch file"),
        ("truncated", "truncated"),
        ("flipped", "damaged"),
        ("empty", "no PyTorch file"),
        ("text", "no PyTorch file"),
        ("large", "no such file has over"),
        ("compressed", "compressed"),
        ("archive", "more in it than weights, or less"),
    ],
)
def test_other_files_are_refused_in_one_line_and_never_run(published: Path, what: str, message: str) -> None:
    edit(published, what)
    with pytest.raises(DataError) as caught:
        read_released(published)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "J_all.ckpt" in str(caught.value)
    assert not (published.parent / "ran").exists()
    result = CliRunner().invoke(main, ["--import-checkpoint", str(published), "--out", str(published.parent / "out")])
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert not (published.parent / "out").exists()


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of the published width: two of three layers of 768."""
    folder = tmp_path_factory.mktemp("wide")
    jamendo = make_labels("mtg-jamendo", "J", 25, TAGS, seed=1)
    make_cache(folder / "mtg-jamendo", jamendo, EXTRACTION, dim=768)
    make_cache(folder / "deam", make_labels("deam", "D", 25, seed=2, prefix="d"), EXTRACTION, dim=768)
    return folder


def evaluate(path: Path, cache: Path, out: Path, datasets: str = "J,D") -> tuple[dict[str, Any], str]:
    where = ["--cache", str(cache), "--out", str(out), "--device", "cpu", "--json"]
    result = CliRunner().invoke(main, ["--evaluate", str(path), "--datasets", datasets, *where])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((out / "report.json").read_text())
    return json.loads(result.stdout), result.stderr


def test_a_published_file_and_its_import_score_the_same(published: Path, wide: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--import-checkpoint", str(published), "--out", str(tmp_path / "ours")])
    assert result.exit_code == 0, result.output
    assert "mtg-jamendo, deam, emomusic, pmemo" in result.stderr
    assert result.stderr.splitlines()[-1].endswith(f"m2e-train --evaluate {tmp_path / 'ours'} --datasets J,D,E,P")
    released, said = evaluate(published, wide, tmp_path / "a")
    ours = score_checkpoint(tmp_path / "ours", wide, ["J", "D"], torch.device("cpu")).as_json()["results"]
    for before, after in zip(released["results"], ours, strict=True):
        for name in ("dataset", "task", "tracks", "metrics", "trained_on", "inputs", "interval", "paper"):
            assert before[name] == json.loads(json.dumps(after[name])), name
    assert [each["paper"] for each in released["results"]] == [[0.1543, 0.7810], [0.5184, 0.6228]]
    assert released["config"]["layers"] == [6, 7]
    assert released["cautions"] == []
    assert "trained on as part of emomusic, pmemo" in released["left_out"][0]
    for words in ("J_all.ckpt", "layers 6, 7", "random labels of deam", "preset release"):
        assert words in said


def test_features_of_other_settings_are_a_caution(published: Path, tmp_path: Path) -> None:
    labels = make_labels("deam", "D", 15)
    make_cache(tmp_path / "c" / "deam", labels, replace(EXTRACTION, chords="template", chords_revision=""), dim=768)
    report, said = evaluate(published, tmp_path / "c", tmp_path / "out", "D")
    assert "chords: 'template', not 'btc'" in report["cautions"][0]
    assert "chords: 'template'" in " ".join(said[said.index("Test metrics") :].split())


def bad(path: Path, cache: Path, datasets: str = "J") -> str:
    result = CliRunner().invoke(
        main, ["--evaluate", str(path), "--datasets", datasets, "--cache", str(cache), "--device", "cpu"]
    )
    assert result.exit_code == 1, result.output
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("Error: "))
    return line


def test_checkpoints_and_caches_that_do_not_fit_are_one_line(published: Path, wide: Path, tmp_path: Path) -> None:
    make_cache(tmp_path / "c" / "mine", make_labels("mine", "", 15), EXTRACTION, dim=8)
    assert "takes features 1536 wide, of MERT-v1-95M; the cache of mine has 16" in bad(
        published, tmp_path / "c", "mine"
    )
    make_cache(tmp_path / "t" / "mine", make_labels("mine", "", 15, ("calm", "happy")), EXTRACTION, dim=768)
    assert "56 tags, action, adventure, advertising, ...; mine has 2, calm, happy" in bad(
        published, tmp_path / "t", "mine"
    )
    torch.save(checkpoint({"tags": 56}), tmp_path / "J.ckpt")
    assert "predicts tags; deam has valence_arousal" in bad(tmp_path / "J.ckpt", wide, "D")
    make_cache(tmp_path / "l" / "mine", make_labels("mine", "", 15), replace(EXTRACTION, layers=(5, 6)), dim=768)
    assert "holds layers 5,6; this run needs 6,7" in bad(published, tmp_path / "l", "mine")
    assert "m2e-extract --dataset pmemo" in bad(published, wide, "P")
    (tmp_path / "empty").mkdir()
    assert "no model folder" in bad(tmp_path / "empty", wide)


def test_an_import_replaces_nothing_but_itself(published: Path, tmp_path: Path) -> None:
    out = tmp_path / "ours"
    assert import_checkpoint(published, out) == import_checkpoint(published, out)
    before = (out / "model.safetensors").read_bytes()
    changed = checkpoint()
    next(iter(changed["state_dict"].values())).add_(1)
    torch.save(changed, published)
    with pytest.raises(DataError, match=r"ours holds another model or run: choose another --out"):
        import_checkpoint(published, out)
    assert (out / "model.safetensors").read_bytes() == before
