"""Completion scripts come from click, and complete."""

import subprocess
import sys
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent


@pytest.mark.parametrize("name", ["cache", "extract", "manifest", "predict", "train"])
def test_the_script_is_there_and_names_the_command(name: str) -> None:
    variable = f"_M2E_{name.upper()}_COMPLETE"
    command = [str(BIN / f"m2e-{name}")]
    script = subprocess.run(command, env={variable: "bash_source", "PATH": "/usr/bin:/bin"}, capture_output=True)
    assert script.returncode == 0
    assert f"complete -o nosort -F _m2e_{name}_completion m2e-{name}".encode() in script.stdout


def test_options_and_choices_are_completed() -> None:
    def complete(words: str, number: int) -> list[str]:
        environment = {"_M2E_TRAIN_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        result = subprocess.run([str(BIN / "m2e-train")], env=environment, capture_output=True, text=True, check=True)
        return [line.partition(",")[2] for line in result.stdout.splitlines()]

    assert "--datasets" in complete("m2e-train --da", 1)
    assert complete("m2e-train --preset ", 2) == ["paper", "release"]
