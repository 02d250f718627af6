"""The paper's tables: what they need, what they show, and what is done when data sets are missing or a run goes on."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from support.caches import make_cache, make_labels

from m2e.train import run as run_module
from m2e.train.cli import main
from m2e.train.report.paper import TABLES
from m2e.train.tables import jobs

TAGS = ("calm", "happy", "sad")
NAMES = {"J": "mtg-jamendo", "D": "deam", "E": "emomusic", "P": "pmemo"}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    for seed, (letter, name) in enumerate(NAMES.items()):
        labels = make_labels(name, letter, 40, TAGS if letter == "J" else (), seed, prefix=letter)
        make_cache(folder / name, labels, signal=1)
    return folder


def table(number: int, cache: Path, out: Path, *more: str) -> Result:
    where = ["--cache", str(cache), "--out", str(out), "--device", "cpu", "--epochs", "1"]
    return CliRunner().invoke(main, ["--table", str(number), *where, *more])


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def test_what_each_table_trains() -> None:
    def names(number: int, available: str) -> list[str]:
        return [f"{''.join(job.trained_on)}:{'+'.join(job.row.inputs)}" for job in jobs(TABLES[number], available)]

    inputs = ("mert", "chords+key", "mert+chords+key")
    assert names(2, "JDEP") == [f"{letter}:{each}" for each in inputs for letter in "JDEP"]
    assert names(2, "E") == [f"E:{each}" for each in inputs]
    students = ["JD", "JE", "JP", "JDEP"]
    assert names(3, "JDEP") == [f"{each}:mert+chords+key" for each in [*"JDEP", *students]]
    assert names(3, "JD") == [f"{each}:mert+chords+key" for each in ["J", "D", "JD"]]
    assert names(4, "JDEP") == ["J:mert+chords+key", "JDEP:mert+chords+key"]
    assert names(4, "J") == ["J:mert+chords+key"]
    assert names(4, "DEP") == []
    assert [job.tested_on for job in jobs(TABLES[4], "JDEP")] == [("J",), ("J",)]


@pytest.fixture(scope="module")
def third(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("table") / "3"
    return out, table(3, caches, out)


def cells(out: Path) -> dict[tuple[str, str], list[str]]:
    """Of the table in report.md: the numbers of each line, by row and line."""
    lines = [line[2:-2].split(" | ") for line in (out / "report.md").read_text().splitlines() if "|" in line]
    found: dict[tuple[str, str], list[str]] = {("", ""): lines[0][2:]}
    name = ""
    for line in lines[2:]:
        name = line[0] or name
        found[name, line[1]] = line[2:]
    return found


def test_table_3_stands_in_the_papers_layout_with_its_numbers(third: tuple[Path, Result]) -> None:
    out, result = third
    assert result.exit_code == 0, result.output
    said = result.stderr[result.stderr.index("Table III") :]
    assert max(map(len, said[: said.index("labels ")].splitlines())) <= 80
    assert result.stderr.splitlines()[-1].endswith("--seeds 0,1,2; what is done is kept")
    found = cells(out)
    assert found["", ""] == ["J PR-AUC", "J ROC-AUC", *(f"{s} R2 {axis}" for s in "DEP" for axis in "VA")]
    assert [name for name, line in found if line == "ours"] == [row.name for row in TABLES[3].rows]
    assert found["J + E", "paper"] == ["0.1540", "0.7809", "-", "-", "0.6091", "0.7525", "-", "-"]
    (jamendo,) = (
        each for each in report(out)["results"] if each["dataset"] == "mtg-jamendo" and each["trained_on"] == ["J", "E"]
    )
    ours, (low, high) = jamendo["metrics"]["pr_auc"], jamendo["interval"]["pr_auc"]
    assert [found["J + E", line][0] for line in ("ours", "95 % from", "95 % to", "difference")] == [
        f"{ours:.4f}", f"{low:.4f}", f"{high:.4f}", f"{ours - 0.1540:+.4f}",
    ]  # fmt: skip
    assert ("J + E", "sd") not in found
    assert "-" not in found["J + D + E + P", "ours"]
    assert found["J + D", "ours"][4:] == ["-"] * 4


def test_every_teacher_is_trained_once(third: tuple[Path, Result]) -> None:
    out, _ = third
    assert sorted(path.name.partition("-")[0] for path in (out / "teachers").iterdir()) == ["D", "E", "J", "P"]
    students = {path.parent.name for path in out.glob("*/student")}
    assert students == {f"{each}-seed-0" for each in ("J-D", "J-E", "J-P", "J-D-E-P")}


def test_a_table_again_trains_nothing(
    third: tuple[Path, Result], caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing is to be trained")

    out = tmp_path / "again"
    shutil.copytree(third[0], out)
    (out / "report.json").unlink()
    monkeypatch.setattr(run_module, "train_teacher", refuse)
    monkeypatch.setattr(run_module, "train_student", refuse)
    assert table(3, caches, out).exit_code == 0
    assert {**report(out), "seconds": 0} == {**report(third[0]), "seconds": 0}
    assert isinstance(table(3, caches, out, "--seeds", "0,1").exception, AssertionError)


def test_tables_2_and_4(caches: Path, tmp_path: Path) -> None:
    assert table(2, caches, tmp_path / "2").exit_code == 0
    found = cells(tmp_path / "2")
    assert [name for name, line in found if line == "ours"] == ["MERT", "Chord/Key", "MERT + Chord/Key"]
    assert found["Chord/Key", "paper"][:2] == ["0.0531", "0.6158"]
    assert not any("-" in found[name, "ours"] for name, line in found if line == "ours")
    inputs = {tuple(each["inputs"]): each["metrics"] for each in report(tmp_path / "2")["results"]}
    assert len({json.dumps(each) for each in inputs.values()}) == 3

    assert table(4, caches, tmp_path / "4").exit_code == 0
    found = cells(tmp_path / "4")
    assert found["", ""] == ["J PR-AUC", "J ROC-AUC"]
    assert found["lileonardo", "paper"] == ["0.1508", "0.7747"]
    assert found["CP-JKU 2019, ensemble", "other"] == ["0.1546", "0.7729"]
    assert found["J + D + E + P", "paper"] == ["0.1543", "0.7810"]


def test_seeds_give_mean_and_standard_deviation(caches: Path, tmp_path: Path) -> None:
    found = {}
    for seeds in ("0", "1", "2", "0,1,2"):  # in one folder: the last trains nothing
        assert table(4, caches, tmp_path, "--seeds", seeds).exit_code == 0
        found[seeds] = report(tmp_path)
    together = found["0,1,2"]
    assert together["seeds"] == [0, 1, 2]
    for i, result in enumerate(together["results"]):
        for field in ("pr_auc", "roc_auc"):
            alone = [found[seed]["results"][i]["metrics"][field] for seed in "012"]
            assert result["metrics"][field] == pytest.approx(np.mean(alone))
            assert result["sd"][field] == pytest.approx(np.std(alone, ddof=1))
            assert len(set(alone)) == 3
    assert cells(tmp_path)["J", "sd"] == [
        f"{together['results'][0]['sd'][field]:.4f}" for field in ("pr_auc", "roc_auc")
    ]
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert rows[0]["seeds"] == "0+1+2"
    assert float(rows[0]["sd"]) == together["results"][0]["sd"]["pr_auc"]


def test_missing_caches_leave_rows_out_and_say_how_to_make_them(caches: Path, tmp_path: Path) -> None:
    for name in ("mtg-jamendo", "deam"):
        (tmp_path / "some" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "some" / name).symlink_to(caches / name)
    result = table(3, tmp_path / "some", tmp_path / "out")
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("left out")]
    for letter, rows in (
        ("E", "Single data set (E), J + E, J + D + E + P"),
        ("P", "Single data set (P), J + P, J + D"),
    ):
        command = f"`m2e-extract --dataset {NAMES[letter]} --cache {tmp_path / 'some'}`"
        # Before the run and in the report.
        assert sum(rows in line and command in line for line in lines) == 2
        assert any(command in line for line in report(tmp_path / "out")["left_out"])
    found = cells(tmp_path / "out")
    assert "-" not in found["J + D", "ours"][:4]
    assert set(found["J + D + E + P", "ours"]) == {"-"}
    assert found["J + D + E + P", "paper"][0] == "0.1543"

    (tmp_path / "only" / "deam").parent.mkdir()
    (tmp_path / "only" / "deam").symlink_to(caches / "deam")
    result = table(4, tmp_path / "only", tmp_path / "none")
    assert result.exit_code == 1
    assert "m2e-extract --dataset mtg-jamendo" in result.stderr
    result = table(4, tmp_path, tmp_path / "none")
    assert result.exit_code == 1
    assert "there are no caches" in result.stderr
    assert not (tmp_path / "none").exists()
