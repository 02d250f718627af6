"""Commands of a process without standard streams, as a daemon starts them."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.caches import make_cache, make_labels

HOLD = "from m2e.common.streams import hold_standard_streams; hold_standard_streams(); "


def shell(line: str, *arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    """`line` of sh, which finds the arguments as $1 and so on."""
    command = ["sh", "-c", line, "sh", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- 2>&-", "<&- >&- 2>&-"])
def test_what_is_opened_next_takes_no_stream_for_its_own(tmp_path: Path, closed: str) -> None:
    file = tmp_path / "file"
    code = (
        f"import os, sys; {HOLD}"
        "number = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(2, b'a library speaks'); "
        "print('and we'); print('and we', file=sys.stderr); sys.stdin.read(0); "
        "os.system('echo a child >&2'); os.write(number, b'ours'); sys.exit(0 if number > 2 else 3)"
    )
    assert shell(f'"$1" -c "$2" "$3" {closed}', sys.executable, code, file).returncode == 0
    assert file.read_bytes() == b"ours"


def test_open_streams_stay_as_they_are() -> None:
    streams = "(sys.stdin, sys.stdout, sys.stderr)"
    code = f"import sys; before = {streams}; {HOLD}print(before == {streams})"
    assert shell('"$1" -c "$2"', sys.executable, code).stdout == "True\n"


def test_commands_work_without_them(tmp_path: Path) -> None:
    folder = make_cache(tmp_path / "deam", make_labels("deam", "D", 4))
    code = "from m2e.cache.cli import main; main()"
    closed = shell('"$1" -c "$2" verify "$3" <&- >&- 2>&-', sys.executable, code, folder)
    assert closed.returncode == 0
    (shard,) = folder.glob("features-*/shard-*.h5")
    shard.write_bytes(shard.read_bytes()[:-100])
    closed = shell('"$1" -c "$2" verify "$3" 2>&-', sys.executable, code, folder)
    assert closed.returncode == 1
    assert shard.name in closed.stdout
