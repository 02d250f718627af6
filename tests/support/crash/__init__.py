"""Programs that the reliability tests run in processes of their own, to be killed, starved or fed with bad files.

Each prints its figures as JSON: `python -m support.crash.kills FOLDER 200`.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[2]


def run(program: str, *words: object, before: tuple[str, ...] = ()) -> Any:
    """What a program of this folder found; `before` it may come words such as unshare."""
    command = [*before, sys.executable, "-m", f"support.crash.{program}", *(str(word) for word in words)]
    result = subprocess.run(
        command,
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}\n{result.stdout}\n{result.stderr}"
    found = json.loads(result.stdout.splitlines()[-1])
    print(program, *words[1:], found)  # pytest -rP shows it, for docs/reliability.md
    return found
