"""m2e-predict --serve in a process of its own, and requests to it."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from m2e.predict.serve.server import UPLOAD_TYPE

# How long a client may stall: less than in service, since tests wait for it.
PATIENCE_SECONDS = 3.0
CODE = f"""
import m2e.predict.serve.uploads as uploads
uploads.PATIENCE_SECONDS = {PATIENCE_SECONDS}
from m2e.predict.cli import main; main()
"""


class Server:
    """m2e-predict --serve in a process of its own."""

    def __init__(self, model: Path, temporary: Path, *options: str, shell: str = "") -> None:
        """`shell`: a command that goes before, such as a limit."""
        arguments = ["--serve", "--port", "0", "--device", "cpu", "--model", str(model), *options]
        self.temporary = temporary
        self.process = subprocess.Popen(
            ["sh", "-c", f'{shell}exec "$@"', "sh", sys.executable, "-c", CODE, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        assert self.process.stderr
        said = ""
        for line in self.process.stderr:
            said += line
            if found := re.search(r"Open http://127\.0\.0\.1:(\d+) ", line):
                self.port = int(found[1])
                return
        raise AssertionError(said)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: Any = None, client: str = "127.0.0.1", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """`client`: an address of this machine, from which the request comes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120, source_address=(client, 0))
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def predict(self, content: bytes, client: str = "127.0.0.1") -> tuple[int, dict[str, Any]]:
        status, _, text = self.request("POST", "/predict", content, client, Content_Type=UPLOAD_TYPE)
        return status, json.loads(text)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=60)[1]
        assert "Traceback" not in said, said
        return self.process.returncode
