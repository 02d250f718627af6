"""m2e-train as a user runs it, on caches with and without anything to learn."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.caches import CONFIG, make_cache, make_labels

from m2e.cache import Labels, write_labels
from m2e.train.cli import main
from m2e.train.model.checkpoint import load_model

TAGS = ("calm", "happy", "sad")
FILES = {"config.json", "report.json", "report.csv", "report.md", "report.html"}


def both_sets(folder: Path, signal: float = 1.0) -> Path:
    make_cache(folder / "one", make_labels("one", "J", 100, TAGS, seed=1), signal=signal)
    make_cache(folder / "two", make_labels("two", "D", 80, seed=2), signal=signal)
    return folder


def run(folder: Path, out: Path, *more: str, datasets: str = "J,D") -> Result:
    where = ["--cache", str(folder), "--out", str(out), "--device", "cpu"]
    return CliRunner().invoke(main, ["--datasets", datasets, *where, "--epochs", "12", "--lr", "0.002", *more])


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Result]:
    """A cache folder, the folder of a run on it, and what the run said."""
    folder = both_sets(tmp_path_factory.mktemp("features"))
    out = tmp_path_factory.mktemp("runs") / "JD"
    return folder, out, run(folder, out)


def test_the_signal_is_learned_by_teachers_and_student(learned: tuple[Path, Path, Result]) -> None:
    _, out, result = learned
    assert result.exit_code == 0, result.output
    results = report(out)["results"]
    assert [(r["model"], r["dataset"], r["trained_on"]) for r in results] == [
        ("student", "one", ["J", "D"]),
        ("teacher", "one", ["J"]),
        ("student", "two", ["J", "D"]),
        ("teacher", "two", ["D"]),
    ]
    for r in results:
        metrics = r["metrics"]
        if r["task"] == "tags":
            assert metrics["roc_auc"] > 0.8, r
        else:
            assert min(metrics["r2_valence"], metrics["r2_arousal"]) > 0.5, r


def test_the_report_says_what_it_is_about(learned: tuple[Path, Path, Result]) -> None:
    _, out, result = learned
    said = report(out)
    assert said["config"]["epochs"] == 12
    assert said["config"]["based_on"] == "paper"
    assert said["extraction"] == json.loads(CONFIG.to_json())
    assert said["features"] == CONFIG.fingerprint
    assert set(said["versions"]) == {"python", "m2e", "torch", "numpy", "scikit-learn"}
    assert [(d["name"], d["letter"], d["tracks"]) for d in said["datasets"]] == [
        ("one", "J", {"train": 60, "validation": 20, "test": 20}),
        ("two", "D", {"train": 48, "validation": 16, "test": 16}),
    ]
    assert said["results"][0]["paper"] == [0.1526, 0.7806]
    assert said["results"][3]["paper"] == [0.5131, 0.6025]
    assert said["cautions"] == []
    for words in ("trained on J+D", "teacher", "0.1526", "0.7806", "random labels of one", "layers 5, 6", "seed 0"):
        assert words in result.stderr
    assert result.stderr.splitlines()[-1].endswith("--seed 1 and another --out")
    assert result.stdout == ""


def test_models_on_disk_are_the_ones_that_were_tested(learned: tuple[Path, Path, Result]) -> None:
    _, out, _ = learned
    assert {path.name for path in out.iterdir()} == FILES | {"student", "teacher-D", "teacher-J"}
    models, card = load_model(out / "student")
    assert set(models) == {"tags", "valence_arousal"}
    assert card.tag_names == TAGS
    assert [dataset["letter"] for dataset in card.datasets] == ["J", "D"]
    assert set(load_model(out / "teacher-D")[0]) == {"valence_arousal"}


def test_the_same_command_gives_the_same_bytes(learned: tuple[Path, Path, Result], tmp_path: Path) -> None:
    folder, out, _ = learned
    assert run(folder, tmp_path / "again").exit_code == 0
    for name in ("student", "teacher-J", "teacher-D"):
        for file in ("model.safetensors", "config.json"):
            assert (tmp_path / "again" / name / file).read_bytes() == (out / name / file).read_bytes()
    first, again = report(out), report(tmp_path / "again")
    assert {**first, "seconds": 0} == {**again, "seconds": 0}
    assert run(folder, tmp_path / "other", "--seed", "1", "--epochs", "1").exit_code == 0
    assert report(tmp_path / "other")["results"] != first["results"]


def test_shuffled_labels_give_chance(tmp_path: Path) -> None:
    folder = both_sets(tmp_path / "features")
    rng = np.random.default_rng(5)
    for labels in (make_labels("one", "J", 100, TAGS, seed=1), make_labels("two", "D", 80, seed=2)):
        order = rng.permutation(len(labels.track_ids))
        shuffled = replace(labels, tags=labels.tags[order], valence_arousal=labels.valence_arousal[order])
        write_labels(folder / labels.dataset, shuffled)
    assert run(folder, tmp_path / "out").exit_code == 0
    for r in report(tmp_path / "out")["results"]:
        metrics = r["metrics"]
        if r["task"] == "tags":
            assert 0.3 < metrics["roc_auc"] < 0.7, r
        else:
            assert max(metrics["r2_valence"], metrics["r2_arousal"]) < 0.2, r


@pytest.mark.parametrize("preset", ["paper", "release"])
def test_one_data_set_is_a_single_model_without_a_student(
    learned: tuple[Path, Path, Result], tmp_path: Path, preset: str
) -> None:
    result = run(learned[0], tmp_path / "out", "--json", "--preset", preset, datasets="two")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said == report(tmp_path / "out")
    (only,) = said["results"]
    assert (only["model"], only["trained_on"], only["paper"]) == ("single", ["D"], [0.5131, 0.6025])
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"single-D"}
    assert only["metrics"]["r2_valence"] > 0.5


def test_inputs_choose_the_papers_row_and_name_the_folder(
    learned: tuple[Path, Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    where = ["--cache", str(learned[0]), "--device", "cpu", "--epochs", "1"]
    result = CliRunner().invoke(main, ["--datasets", "two", "--inputs", "key,chords", *where])
    assert result.exit_code == 0, result.output
    assert "inputs chords, key" in result.stderr
    (only,) = report(tmp_path / "runs" / "D-chords-key-paper-0")["results"]
    assert (only["inputs"], only["paper"]) == (["chords", "key"], [0.0706, 0.0770])


def small(tmp_path: Path, labels: Labels, encoder: str = "test") -> Result:
    make_cache(tmp_path / "features" / labels.dataset, labels, replace(CONFIG, encoder=encoder))
    return run(tmp_path / "features", tmp_path / "out", "--epochs", "2", datasets=labels.dataset)


def test_synthetic_data_and_an_untrained_encoder_stand_where_the_numbers_stand(tmp_path: Path) -> None:
    result = small(tmp_path, make_labels("demo-deam", "D", 10), "tiny")
    assert result.exit_code == 0, result.output
    assert len(report(tmp_path / "out")["cautions"]) == 2
    table = " ".join(result.stderr[result.stderr.index("Test metrics") :].split())
    assert "SYNTHETIC data: not comparable with the paper" in table
    assert "encoder is untrained" in table


def test_tiny_sets_with_both_labels_and_without_validation_or_test(tmp_path: Path) -> None:
    labels = make_labels("mine", "", 10, ("happy", "never"))
    both = replace(labels, valence_arousal=np.full((10, 2), 4, np.float32))
    result = small(tmp_path, both)
    assert result.exit_code == 0, result.output
    tags, va = report(tmp_path / "out")["results"]
    assert (tags["tracks"], va["tracks"]) == (2, 2)
    # Two tracks with equal labels: no R2.
    assert va["metrics"]["r2_valence"] is None
    result = small(tmp_path, replace(both, splits=("train",) * 10))
    assert result.exit_code == 0, result.output
    assert [r["metrics"] for r in report(tmp_path / "out")["results"]] == [None, None]
    # Before the run and in the report.
    assert result.stderr.count("no test tracks") == 2
    assert "no validation tracks" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--datasets", "J,P"], 1, "m2e-extract --dataset pmemo"),
        (["--datasets", "J,twoo"], 1, "did you mean two"),
        (["--datasets", "J,J"], 1, "twice"),
        (["--datasets", ""], 1, "no cache of ''"),
        (["--datasets", "J", "--features", "zz"], 1, "begin with 'zz'"),
        (["--datasets", "J", "--preset", "best"], 2, "--preset"),
        (["--datasets", "J", "--epochs", "0"], 2, "--epochs"),
        (["--datasets", "J", "--lr", "0"], 2, "--lr"),
        (["--datasets", "J", "--lr", "nan"], 2, "learning_rate"),
        (["--datasets", "J", "--batch-size", "99999999"], 2, "batch_size"),
        (["--datasets", "J", "--seed", "99999999999999999999"], 2, "--seed"),
        (["--datasets", "J", "--out", "/dev/null/x"], 1, "cannot write"),
        ([], 2, "--datasets"),
        (["--table", "1"], 2, "--table"),
        (["--table", "3", "--evaluate", "."], 2, "--table and --evaluate are different things"),
        (["--evaluate", ".", "--import-checkpoint", __file__], 2, "give one of them"),
        (["--table", "3", "--datasets", "J"], 2, "--datasets cannot be given with --table"),
        (["--table", "3", "--seed", "1"], 2, "--seed cannot be given with --table"),
        (["--datasets", "J", "--seeds", "1"], 2, "--seeds is for --table"),
        (["--table", "2", "--inputs", "mert"], 2, "--inputs cannot be given with --table"),
        (["--datasets", "J", "--inputs", "mert,audio"], 2, "'audio' is none of mert, chords, key"),
        (["--evaluate", "."], 2, "which data sets?"),
        (["--evaluate", ".", "--datasets", "J", "--epochs", "3"], 2, "--epochs cannot be given with --evaluate"),
        (["--evaluate", "nowhere", "--datasets", "J"], 2, "'nowhere' does not exist"),
        (["--import-checkpoint", __file__, "--datasets", "J"], 2, "--datasets, --device cannot be given with"),
        (["--import-checkpoint", "."], 2, "is a directory"),
        (["--table", "3", "--seeds", "0,0"], 2, "different numbers"),
        (["--table", "3", "--seeds", "0,x"], 2, "such as 0,1,2"),
        (["--table", "3", "--seeds", "-1"], 2, "seeds are different numbers, 0 to"),
    ],
)
def test_bad_input_is_one_line(
    learned: tuple[Path, Path, Result], arguments: list[str], code: int, message: str
) -> None:
    result = CliRunner().invoke(main, ["--cache", str(learned[0]), "--device", "cpu", *arguments])
    assert result.exit_code == code
    assert "Traceback" not in result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert result.stdout == ""


def test_training_needs_no_audio_or_encoder_library(learned: tuple[Path, Path, Result], tmp_path: Path) -> None:
    # A loader that raises, not a finder: torch looks for the specs of libraries that it never loads.
    code = (
        "import sys\n"
        "from importlib.machinery import ModuleSpec\n"
        "class Absent:\n"
        "    names = {'librosa', 'transformers', 'music21', 'pandas', 'soundfile', 'av', 'soxr'}\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in self.names | {'m2e.extract', 'm2e.manifests'}:\n"
        "            return ModuleSpec(name, self)\n"
        "    def create_module(self, spec): return None\n"
        "    def exec_module(self, module): raise ImportError(module.__name__)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from m2e.train.cli import main\n"
        "main()\n"
    )
    arguments = ["--datasets", "J,D", "--cache", str(learned[0]), "--out", str(tmp_path), "--epochs", "1"]
    command = [sys.executable, "-W", "error", "-c", code, *arguments, "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert len(report(tmp_path)["results"]) == 4


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Caches of three sets; of "d" every fourth track has no features, all of them test tracks but one."""
    for name, letter in (("j", "J"), ("d", "D")):
        make_cache(tmp_path / name, make_labels(name, letter, 40, TAGS if letter == "J" else ()), signal=0.5)
    labels = make_labels("d", "D", 50)
    more = replace(labels, splits=(*labels.splits[:40], *["test"] * 9, "train"))
    write_labels(tmp_path / "d", more)
    return tmp_path


@pytest.mark.parametrize("mode", ["train", "table", "evaluate"])
def test_a_part_of_a_data_set_is_taken_only_on_demand(partial: Path, tmp_path: Path, mode: str) -> None:
    out = tmp_path / "out"
    if mode == "evaluate":
        learned = run(partial, tmp_path / "run", "--epochs", "1", datasets="J")
        assert learned.exit_code == 0
        assert "have no features" not in learned.stderr
        ours = run(partial, tmp_path / "run-d", "--epochs", "1", "--allow-missing", datasets="D")
        assert ours.exit_code == 0, ours.output
        options = ["--evaluate", str(tmp_path / "run-d" / "single-D"), "--datasets", "D"]
        counts = "9 of 17 labelled tracks"
    else:
        options = ["--table", "3"] if mode == "table" else ["--datasets", "J,D"]
        options += ["--epochs", "1"]
        counts = "10 of 50 labelled tracks"
    options += ["--cache", str(partial), "--out", str(out), "--device", "cpu"]
    refused = CliRunner().invoke(main, options)
    assert refused.exit_code == 1
    last = refused.stderr.splitlines()[-1]
    assert last.startswith(f"Error: {partial / 'd'}: {counts}")
    assert last.endswith("--allow-missing")
    assert not out.exists()
    done = CliRunner().invoke(main, [*options, "--allow-missing"])
    assert done.exit_code == 0, done.output
    assert f"missing d: {counts}" in done.stderr
    assert "these are results of a part of it" in (out / "report.md").read_text()
