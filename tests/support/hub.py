"""A stand-in for the Hugging Face hub that keeps repositories in a local folder: what huggingface_hub asks of one."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_nobody"


class Handler(BaseHTTPRequestHandler):
    """`<folder>/<owner>/<name>/<commit>/<file>`; the last commit is in `main`."""

    protocol_version = "HTTP/1.1"

    def __init__(self, folder: Path, *arguments: Any) -> None:
        self.folder = folder
        super().__init__(*arguments)

    def log_message(self, *_: object) -> None:
        return None

    def parts(self) -> list[str]:
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, values: Any, status: int = 200, **headers: str) -> None:
        self.answer(json.dumps(values).encode(), status, Content_Type="application/json", **headers)

    def commit(self, repository: str, revision: str) -> Path | None:
        head = self.folder / repository / "main"
        name = head.read_text() if revision == "main" and head.exists() else revision
        path = self.folder / repository / name
        return path if path.is_dir() else None

    def do_GET(self) -> None:
        match self.parts():
            case ["api", "models", owner, name, "revision" | "tree" as what, revision]:
                commit = self.commit(f"{owner}/{name}", revision)
                if commit is None:
                    return self.json({"error": "Not found"}, 404, X_Error_Code="RepoNotFound")
                files = sorted(commit.iterdir())
                if what == "tree":
                    return self.json(
                        [
                            {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": digest(f.read_bytes())}
                            for f in files
                        ]
                    )
                siblings = [{"rfilename": file.name} for file in files]
                return self.json({"id": f"{owner}/{name}", "sha": commit.name, "siblings": siblings})
            case [owner, name, "resolve", revision, file]:
                commit = self.commit(f"{owner}/{name}", revision)
                if commit is not None and (commit / file).is_file():
                    content = (commit / file).read_bytes()
                    return self.answer(content, ETag=f'"{digest(content)}"', X_Repo_Commit=commit.name)
        return self.json({"error": "Not found"}, 404, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.json({"error": "Invalid username or password."}, 401)
        match self.parts():
            case ["api", "repos", "create"]:
                values = json.loads(body)
                name = f"{values['organization']}/{values['name']}"
                (self.folder / name).mkdir(parents=True, exist_ok=True)
                return self.json({"url": f"http://{self.headers['Host']}/{name}"})
            case ["api", "validate-yaml"]:
                return self.json({"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", _]:
                files = json.loads(body)["files"]
                return self.json(
                    {
                        "files": [
                            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files
                        ]
                    }
                )
            case ["api", "models", owner, name, "commit", _]:
                files = {}
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                oid = digest(*(text for pair in sorted(files.items()) for text in (pair[0].encode(), pair[1])))
                repository = self.folder / owner / name
                (repository / oid).mkdir()
                for path, content in files.items():
                    (repository / oid / path).write_bytes(content)
                (repository / "main").write_text(oid)
                return self.json(
                    {"commitUrl": f"http://{self.headers['Host']}/{owner}/{name}/commit/{oid}", "commitOid": oid}
                )
        return self.json({"error": "Not found"}, 404)


def digest(*parts: bytes) -> str:
    """40 hex digits, as git's."""
    return hashlib.sha1(b"\0".join(parts)).hexdigest()


@contextmanager
def local_hub(folder: Path) -> Iterator[str]:
    """Serve repositories of `folder`; gives the address for HF_ENDPOINT."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, folder))
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
