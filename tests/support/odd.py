"""What may lie in the place of a small file: made at a path, one by one."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

Make = Callable[[Path], object]


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # an address has no room for a long path
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    finally:
        os.chdir(before)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


# To read these may never end, or cannot begin.
NO_FILES: dict[str, Make] = {
    "pipe": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": Path.mkdir,
    "link to nothing": lambda path: path.symlink_to("nothing"),
    "link in a loop": lambda path: path.symlink_to(path.name),
}
# Files, and no JSON that m2e writes.
NO_JSON: dict[str, Make] = {
    "terabyte": _sparse,
    "nothing": lambda path: path.write_bytes(b""),
    "deep": lambda path: path.write_bytes(b'{"a":' * 200_000),
    "deep and whole": lambda path: path.write_bytes(b'{"a":' * 400 + b"1" + b"}" * 400),
    "infinite": lambda path: path.write_bytes(b'{"sample_rate": Infinity}'),
    "too large a number": lambda path: path.write_bytes(b'{"sample_rate": 1e999}'),
    "no UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "a list": lambda path: path.write_bytes(b"[1]"),
}


def put(path: Path, make: Make) -> None:
    """In place of what is there."""
    path.unlink(missing_ok=True)
    make(path)
