"""The report's forms: complete, equal to one another, and safe whatever names the data bring."""

import base64
import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from sklearn.metrics import auc
from support.caches import make_cache, make_labels

from m2e.train.cli import main
from m2e.train.report import plots
from m2e.train.report.grids import Grid
from m2e.train.report.results import Curves
from m2e.train.scoring.metrics import tag_metrics

SCRIPT = "<script>alert(1)</script>"
TAGS = (SCRIPT, "a|b *c* [d](e)", r"$\frac{x", "never", "\"quoted' & 漢字")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run on sets with hostile names; no test track has the tag "never"."""
    folder = tmp_path_factory.mktemp("hostile")
    tagged = make_labels('<i>"tagged" [red]', "", 60, TAGS, seed=1)
    tags = tagged.tags.copy()
    tags[4::5, 3], tags[0, 3] = 0, 1
    rated = make_labels("rated|one", "", 40, seed=2, prefix="r")
    make_cache(folder / "c" / "a", replace(tagged, tags=tags, provenance=f"labels {SCRIPT} | from 'there'"), signal=1)
    make_cache(folder / "c" / "b", rated, signal=1)
    names = f"{tagged.dataset},{rated.dataset}"
    where = ["--cache", str(folder / "c"), "--out", str(folder / "out"), "--device", "cpu", "--epochs", "2"]
    return folder / "out", CliRunner().invoke(main, ["--datasets", names, *where])


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def images(html: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)]


def test_the_page_needs_nothing_else_and_runs_nothing(hostile: tuple[Path, Result]) -> None:
    out, result = hostile
    assert result.exit_code == 0, result.output
    html = (out / "report.html").read_text()
    page = Page(html)
    assert set(page.tags) <= {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div", "table", "thead", "tbody", "tr", "th",
        "td", "dl", "dt", "dd", "br", "img", "details", "summary", "pre",
    }  # fmt: skip
    assert {name for name, _ in page.attributes} <= {
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "class",
        "alt",
        "src",
    }
    assert all(value.startswith("data:image/svg+xml;base64,") for name, value in page.attributes if name == "src")
    assert ("content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes
    assert "http" not in re.sub(r"base64,[^\"]+", "", html).replace("http-equiv", "")
    assert "url(" not in html
    for text in (SCRIPT, '<i>"tagged" [red]', "rated|one"):
        assert text in page.text
    # Curves of tags, two scatter plots in one image, learning curves.
    assert len(images(html)) == 3
    for image in images(html):
        root = ElementTree.fromstring(image)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert not {element.tag.rpartition("}")[2] for element in root.iter()} & {
            "script",
            "image",
            "a",
            "foreignObject",
        }


def test_all_forms_hold_the_same_numbers(hostile: tuple[Path, Result]) -> None:
    out, result = hostile
    report = json.loads((out / "report.json").read_text())
    rows = list(csv.DictReader((out / "report.csv").read_text().splitlines()))
    markdown = (out / "report.md").read_text()
    text = Page((out / "report.html").read_text()).text
    assert len(rows) == sum(len(each["metrics"]) for each in report["results"]) == 2 * 2 + 2 * 4
    for each in report["results"]:
        for field, value in each["metrics"].items():
            (row,) = (
                r for r in rows if (r["dataset"], r["model"], r["metric"]) == (each["dataset"], each["model"], field)
            )
            assert float(row["mean"]) == value
            assert [float(row["low"]), float(row["high"])] == each["interval"][field]
            for form in (markdown, text, result.stderr):
                assert f"{value:.4f}" in form
    assert {curve["epochs"] for curve in report["models"].values()} == {2}
    for curve in report["models"].values():
        assert len(curve["training_loss"]) == 2
        assert all(len(losses) == 2 for losses in curve["validation_loss"].values())


def test_markdown_is_text_not_markup(hostile: tuple[Path, Result]) -> None:
    markdown = (hostile[0] / "report.md").read_text()
    assert SCRIPT not in markdown
    tables = [re.sub(r"\\.", "", line) for line in markdown.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {8}


def test_a_tag_without_positives_is_told_everywhere(hostile: tuple[Path, Result]) -> None:
    out, result = hostile
    said = "1 tag with no positive test track, whose average precision counts as 0 and whose ROC-AUC is undefined"
    assert json.loads((out / "report.json").read_text())["results"][0]["without_positives"] == 1
    for form in (result.stderr, (out / "report.md").read_text(), Page((out / "report.html").read_text()).text):
        assert said in form


def test_markup_in_names_is_printed_as_it_is(hostile: tuple[Path, Result]) -> None:
    assert '<i>"tagged" [red]' in hostile[1].stderr[hostile[1].stderr.index("Test metrics") :]


def test_wide_tables_are_cut_into_parts_that_fit() -> None:
    rows = (
        ("a row of some length", "ours", *["0.1234"] * 4, *["-"] * 4),
        ("other", "ours", *["-"] * 4, *["0.9876"] * 4),
    )
    grid = Grid("title", ("name", "", *(f"J\nmetric {i}" for i in range(8))), tuple((row,) for row in rows), 2)
    assert grid.parts(200) == [grid]
    narrow = grid.parts(80)
    assert [part.columns[2:] for part in narrow] == [grid.columns[2:6], grid.columns[6:]]
    # A row that says nothing there is left out.
    assert [[block[0][0] for block in part.blocks] for part in narrow] == [["a row of some length"], ["other"]]
    assert len(grid.parts(10)) == 4


def path_points(svg: bytes, colour: str) -> list[int]:
    """Number of points of each drawn line of a colour."""
    lines = ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}path")
    return [line.get("d", "").count("L") + 1 for line in lines if f"stroke: {colour}" in line.get("style", "")]


def test_figures_draw_what_they_are_given() -> None:
    rng = np.random.default_rng(0)
    truth = (rng.uniform(size=(40, 3)) < 0.4).astype(float)
    truth[:, 2] = 0
    svg = plots.tag_curves(("a", "b", "none"), truth, truth + rng.normal(size=truth.shape))
    # Two tags have curves, of one point a hundredth; the third has none.
    assert [path_points(svg, colour).count(101) for colour in ("#c8571b", "#2a6db0")] == [2, 2]
    curves = Curves([3.0, 2.0, 1.0], {"tags": [2.0, 1.5, 1.7]}, {"tags": 2})
    drawn = plots.learning_curves({"one": curves})
    assert 3 in path_points(drawn, "#2a6db0")
    assert plots.learning_curves({"one": curves}) == drawn
    no_validation = Curves([3.0], {"valence_arousal": []}, {"valence_arousal": 1})
    assert plots.learning_curves({"one": no_validation, "two": curves})
    equal = np.full((3, 2), 5.0)
    assert plots.valence_arousal_scatter(equal, equal + 6)


def test_curves_have_the_areas_that_the_metrics_say() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.uniform(size=(3000, 1)) < 0.2).astype(float)
    scores = truth + rng.normal(size=truth.shape)
    precision, hit_rate = plots.tag_points(truth[:, 0], scores[:, 0])
    metrics = tag_metrics(truth, scores)
    assert precision.mean() == pytest.approx(metrics.pr_auc, abs=0.01)
    assert auc(plots.GRID, hit_rate) == pytest.approx(metrics.roc_auc, abs=0.005)


def reports_of(out: Path) -> dict[str, Any]:
    return {path.name: path.read_bytes() for path in out.glob("report.*") if path.suffix != ".json"}


def test_equal_runs_give_equal_reports(hostile: tuple[Path, Result], tmp_path: Path) -> None:
    out, _ = hostile
    names = '<i>"tagged" [red],rated|one'
    where = ["--cache", str(out.parent / "c"), "--out", str(tmp_path), "--device", "cpu", "--epochs", "2"]
    assert CliRunner().invoke(main, ["--datasets", names, *where]).exit_code == 0
    assert reports_of(tmp_path) == reports_of(out)
