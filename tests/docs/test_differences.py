"""The table of presets in docs/differences.md is the presets."""

import re

from support.documents import ROOT

from m2e.train.config import TrainConfig


def test_the_presets_are_as_the_table_says() -> None:
    text = (ROOT / "docs/differences.md").read_text(encoding="utf-8")
    paper, release = TrainConfig.preset("paper"), TrainConfig.preset("release")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.+?) \| (.+?) \|", text, re.MULTILINE)
    listed = {name for names, *_ in rows for name in re.findall(r"\w+", names)}
    differing = {name for name in vars(paper) if getattr(paper, name) != getattr(release, name)} - {"based_on"}
    assert differing <= listed
    for names, *cells in rows:
        for config, cell in zip((paper, release), cells, strict=True):
            for name in re.findall(r"\w+", names):
                value = getattr(config, name)
                if isinstance(value, bool) or value == 0 or isinstance(value, str):
                    continue  # in words there
                shown = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
                assert shown in cell, f"{name} is {value} with preset {config.based_on}; the table says {cell}"
