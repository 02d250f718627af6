"""A report as one HTML page that needs nothing else: no script, no file, no network.

Every text is escaped, and figures are images within the page, so that names from data can neither be markup nor run.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Sequence
from html import escape

from m2e.train.report import plots
from m2e.train.report.grids import Grid
from m2e.train.report.report import Report
from m2e.train.scoring.evaluate import Evaluation

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 1080px; margin: 2em auto;
       padding: 0 1.2em; }
h1 { font-size: 1.6em; line-height: 1.25; margin-bottom: .3em; }
h2 { font-size: 1.2em; margin: 2em 0 .4em; border-bottom: 1px solid #ddd; padding-bottom: .2em; }
h3 { font-size: 1em; margin: 1.4em 0 .2em; }
p.caution { background: #fdecea; border-left: 4px solid #b3261e; margin: .6em 0; padding: .5em .8em; font-weight: 600; }
div.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th { text-align: right; font-weight: 600; border-bottom: 2px solid #444; padding: .25em .7em; white-space: pre-line;
     vertical-align: bottom; }
td { text-align: right; padding: .12em .7em; white-space: nowrap; }
th.text, td.text { text-align: left; }
tbody + tbody { border-top: 1px solid #ccc; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15em 1.2em; font-size: 14px; }
dt { font-weight: 600; color: #444; } dd { margin: 0; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; display: block; margin: .4em 0; }
pre { background: #f6f6f6; padding: .8em; overflow-x: auto; font-size: 12.5px; }
p.caption { color: #444; font-size: 13.5px; margin: .2em 0; }
"""
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(report: Report) -> str:
    """The page; equal reports give equal pages."""
    parts = [
        f"<h1>{escape(report.title)}</h1>",
        *(f'<p class="caution">{escape(line)}</p>' for line in report.cautions),
        *(f"<h2>{escape(grid.title)}</h2>{_table(grid)}" for grid in report.grids()),
        "<h2>Where the numbers come from</h2>",
        _facts(report.facts()),
        *_figures(report),
        "<h2>Settings</h2>",
        _settings("training", report.config.to_json()),
        _settings("extraction", report.extraction.to_json()),
        _settings("versions", json.dumps(report.as_json()["versions"], indent=2)),
    ]
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def _table(grid: Grid) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        kinds = (' class="text"' if i < grid.texts else "" for i in range(len(row)))
        return "".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for kind, text in zip(kinds, row, strict=True))

    bodies = ("".join(f"<tr>{cells(row, 'td')}</tr>" for row in block) for block in grid.blocks)
    body = "".join(f"<tbody>{rows}</tbody>" for rows in bodies)
    return f'<div class="wide"><table><thead><tr>{cells(grid.columns, "th")}</tr></thead>{body}</table></div>'


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    grouped = itertools.groupby(facts, key=lambda fact: fact[0])
    lines = ((term, "<br>".join(escape(text) for _, text in group)) for term, group in grouped)
    return f"<dl>{''.join(f'<dt>{escape(term)}</dt><dd>{text}</dd>' for term, text in lines)}</dl>"


def _figures(report: Report) -> list[str]:
    parts = []
    for each in _shown(report.evaluations):
        made, name = each.made, each.data.name
        what = "Tags" if each.task == "tags" else "Valence and arousal"
        parts.append(f"<h2>{what} of {escape(name)}</h2>")
        seed = f", seed {made.seeds[0]}" if made.seeds else ""
        of = f"{made.model}, trained on {'+'.join(made.trained_on) or 'unknown data'}{seed}"
        parts.append(f'<p class="caption">{len(each.truth)} test tracks; {escape(of)}.</p>')
        if each.task == "tags":
            image = plots.tag_curves(each.data.tag_names, each.truth, each.outputs[0])
        else:
            image = plots.valence_arousal_scatter(each.truth, each.outputs[0])
        parts.append(_image(image, f"{what} of {name}: {of}"))
    if report.curves:
        parts.append("<h2>Learning curves</h2>")
        parts.append(
            '<p class="caption">Validation is the task loss alone; training has the distillation loss as well, and '
            "sums over data sets. A dot marks the epoch whose weights were tested.</p>"
        )
        parts.append(_image(plots.learning_curves(report.curves), "Loss of every model in each epoch"))
    return parts


def _shown(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """One a test set and task: that of the model that saw most data sets and inputs."""
    best: dict[tuple[str, str], Evaluation] = {}
    for each in evaluations:
        if len(each.truth):
            key = (each.data.name, each.task)
            size = (len(each.made.trained_on), len(each.made.inputs))
            if key not in best or size > (len(best[key].made.trained_on), len(best[key].made.inputs)):
                best[key] = each
    return list(best.values())


def _settings(name: str, text: str) -> str:
    return f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"


def _image(svg: bytes, description: str) -> str:
    data = base64.b64encode(svg).decode()
    return f'<img alt="{escape(description, quote=True)}" src="data:image/svg+xml;base64,{data}">'
