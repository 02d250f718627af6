"""The page's server over real HTTP: what it answers, what it refuses, and that hostile songs cost little."""

from __future__ import annotations

import http.client
import json
import re
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.server import Server
from support.workspace import STUDENT, call

from m2e.predict.server import UPLOAD_TYPE


def test_a_song_is_predicted_as_the_command_predicts_it(server: Server, workspace: Path) -> None:
    status, answer = server.predict((workspace / "song.mp3").read_bytes())
    assert status == 200
    song = workspace / "song.mp3"
    said = call("m2e-predict", song, "--json", "--device", "cpu", "--model", workspace / STUDENT).stdout
    assert {**json.loads(said), "song": ""} == answer


def test_nothing_of_an_upload_stays(server: Server, workspace: Path) -> None:
    server.predict((workspace / "music/short.ogg").read_bytes())
    server.predict(b"not audio")
    assert [path for path in server.temporary.iterdir() if path.name.startswith("m2e-")] == []


def test_what_is_no_song_is_one_line_without_a_path(server: Server) -> None:
    status, answer = server.predict(b"not audio")
    assert status == 422
    assert "cannot be decoded" in answer["error"]
    assert str(server.temporary) not in answer["error"]
    assert tempfile.gettempdir() not in answer["error"]


def test_an_upload_is_cut_off_at_its_limit(server: Server) -> None:
    assert server.predict(bytes(3_000_001))[0] == 413

    def endless() -> Iterator[bytes]:
        while True:
            yield bytes(100_000)

    with pytest.raises((ConnectionError, http.client.HTTPException)):  # noqa: PT012
        server.request("POST", "/predict", endless(), Content_Type=UPLOAD_TYPE)
        raise ConnectionError


def test_an_upload_that_breaks_off_is_no_news(server: Server) -> None:
    for _ in range(8):  # as many as may wait at once, and more
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {UPLOAD_TYPE}\r\nContent-Length: 100000"
            connection.sendall(head.encode() + b"\r\n\r\n" + bytes(500))
    deadline = time.monotonic() + 30
    while server.predict(b"no song")[0] == 503:  # until the server has noticed
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_small_file_that_grows_without_bound_stops_at_the_memory_limit(server: Server, workspace: Path) -> None:
    with tempfile.NamedTemporaryFile(suffix=".flac") as file:
        with soundfile.SoundFile(file.name, "w", 48_000, 1, format="FLAC") as bomb:
            for _ in range(150):  # 50 minutes of silence
                bomb.write(np.zeros(20 * 48_000, np.int16))
        content = Path(file.name).read_bytes()
    assert len(content) < 1_000_000
    status, answer = server.predict(content)
    assert status == 422
    assert "memory" in answer["error"]
    assert server.predict((workspace / "music/short.ogg").read_bytes())[0] == 200


def test_other_hosts_and_other_origins_are_refused(server: Server) -> None:
    assert server.request("GET", "/", Host="127.0.0.1")[0] == 200
    assert server.request("GET", "/", Host="localhost:80")[0] == 200
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "169.254.1.1"):
        assert server.request("GET", "/", Host=host)[0] == 400
        assert server.request("POST", "/predict", b"x", Host=host, Content_Type=UPLOAD_TYPE)[0] == 400
    # What a page of another origin can send without asking first.
    for kind in ("text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        assert server.request("POST", "/predict", b"x", Content_Type=kind, Origin="http://evil.example")[0] == 415
    asked = {"Origin": "http://evil.example", "Access_Control_Request_Method": "POST"}
    status, headers, _ = server.request("OPTIONS", "/predict", **asked)
    assert status == 405
    assert not [name for name in headers if name.lower().startswith("access-control")]


def test_no_path_leads_to_a_file(server: Server) -> None:
    for path in ("/../setup.py", "/%2e%2e/setup.py", "/page.py", "//etc/passwd", "/static/page.js", "/predict"):
        assert server.request("GET", path)[0] in (404, 405)


def test_every_page_is_served_under_a_strict_policy(server: Server) -> None:
    for path, kind in (("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")):
        status, headers, content = server.request("GET", path)
        assert status == 200
        lower = {name.lower(): value for name, value in headers.items()}
        assert lower["content-type"].startswith(kind)
        assert "default-src 'none'" in lower["content-security-policy"]
        assert lower["x-content-type-options"] == "nosniff"
        assert not re.search(rb"https?://(?!www\.w3\.org/2000/svg)", content), "no resource from elsewhere"


def test_a_port_in_use_is_one_line(server: Server, workspace: Path) -> None:
    result = call("m2e-predict", "--serve", "--port", str(server.port), "--model", workspace / STUDENT)
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{server.port}" in result.stderr.splitlines()[-1]
