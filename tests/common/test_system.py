"""What the operating system lacks is said in one line, when a command starts."""

import os
import shutil
import signal
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from click.testing import CliRunner

COMMANDS = {
    "m2e-cache": ["info", "."],
    "m2e-extract": ["--dataset", "deam"],
    "m2e-manifest": ["check"],
    "m2e-predict": ["song.mp3", "--model", "model"],
    "m2e-train": ["--datasets", "J"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("missing", ["os.pwrite", "signal.pthread_sigmask", "fcntl"])
def test_every_command_names_what_is_missing(command: str, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = entry_points(group="console_scripts", name=command)
    main = found.load()
    if missing == "fcntl":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        module, _, name = missing.partition(".")
        monkeypatch.delattr({"os": os, "signal": signal}[module], name)
    result = CliRunner().invoke(main, COMMANDS[command])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert missing in line
    assert "on Windows use WSL 2" in line
    assert CliRunner().invoke(main, ["--help"]).exit_code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="mounts of Linux")
@pytest.mark.parametrize(
    ("mount", "says"),
    [
        ("mount -t tmpfs -o ro none /dev/shm", "no semaphores (Read-only file system). Linux keeps them in /dev/shm"),
        (
            "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero > /dev/shm/x",
            "no semaphores (No space left on device). Linux keeps them in /dev/shm",
        ),
        ("mount -t tmpfs none /proc", "needs /proc: mount it"),
    ],
)
def test_without_what_processes_need(mount: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "songs.csv").write_text("track_id,path,tags\n1,1.wav,x\n")
    mine = ["unshare", "--mount", "--map-root-user", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mine, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no right to mount")
    code = "from m2e.extract.cli import main; main()"
    options = ["--dataset", str(tmp_path / "songs.csv"), "--encoder", "tiny", "--chords", "template"]
    result = subprocess.run(
        [*mine, sys.executable, "-c", code, *options], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: no worker processes can be started here")
    assert says in line
