"""The page's server over real HTTP: what it answers, what it refuses, and that hostile songs cost little."""

from __future__ import annotations

import contextlib
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
from support.server import PATIENCE_SECONDS, Server
from support.workspace import STUDENT, call

from m2e.predict.serve.server import UPLOAD_TYPE
from m2e.predict.serve.uploads import MOST_OF_A_CLIENT


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
    assert answer["error"] == "the file is no audio file (it looks like text)"
    assert str(server.temporary) not in answer["error"]
    assert tempfile.gettempdir() not in answer["error"]


def test_a_list_of_other_files_opens_none(server: Server, workspace: Path) -> None:
    for playlist in (f"ffconcat version 1.0\nfile {workspace / 'song.mp3'}\n", f"#EXTM3U\n{workspace / 'song.mp3'}\n"):
        status, answer = server.predict(playlist.encode())
        assert status == 422
        assert "is no audio file (it looks like a playlist)" in answer["error"]


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
    while server.predict(b"no song")[0] in (429, 503):  # until the server has noticed
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stalled(server: Server, client: str, sent: int = 500) -> socket.socket:
    """An upload that has begun, and of which nothing more comes."""
    connection = socket.create_connection(("127.0.0.1", server.port), source_address=(client, 0))
    head = f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {UPLOAD_TYPE}\r\nContent-Length: 1000000"
    connection.sendall(head.encode() + b"\r\n\r\n" + bytes(sent))
    return connection


def answer(connection: socket.socket, seconds: float) -> bytes:
    """All that comes until the other end closes, which it does in time."""
    connection.settimeout(seconds)
    said = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65_536):
            said += part
    return said


def until(server: Server, client: str, status: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while server.predict(b"no song", client)[0] != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_stalled_uploads_block_their_client_alone_and_not_for_long(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        ours = [stack.enter_context(stalled(server, "127.0.0.2")) for _ in range(MOST_OF_A_CLIENT)]
        until(server, "127.0.0.2", 429, 5)
        assert server.predict(bytes(2_900_000), "127.0.0.2")[0] == 429  # it hears that though it sends much
        assert server.predict(b"no song", "127.0.0.3")[0] == 422
        for connection in ours:
            said = answer(connection, PATIENCE_SECONDS + 5)
            assert said.startswith(b"HTTP/1.1 408 ")
            assert b"too slowly" in said
        until(server, "127.0.0.2", 422, 5)


def test_an_upload_that_trickles_is_given_up(server: Server) -> None:
    started = time.monotonic()
    with stalled(server, "127.0.0.4") as connection:
        connection.settimeout(0.5)
        said = b""
        while not said and time.monotonic() < started + PATIENCE_SECONDS + 10:
            with contextlib.suppress(TimeoutError):
                said = connection.recv(65_536)
            if not said:
                connection.sendall(b"x")
    assert said.startswith(b"HTTP/1.1 408 ")


def test_connections_without_requests_end_and_are_few(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.5", 0)))
            for _ in range(40)
        ]
        for connection in silent[:4]:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")  # and no more
        assert server.request("GET", "/", client="127.0.0.6")[0] == 200
        assert server.predict(b"no song", "127.0.0.6")[0] == 422
        for connection in silent:
            assert answer(connection, 2 * PATIENCE_SECONDS + 5) == b""


def test_after_a_full_disk_the_page_goes_on(workspace: Path, tmp_path: Path) -> None:
    """A limit on the length of files stands for the disk."""
    server = Server(workspace / STUDENT, tmp_path, "--max-upload", "3", shell="ulimit -f 1000; ")
    try:
        for _ in range(8):
            status, said = server.predict(bytes(2_500_000))
            assert status == 507
            assert "no room for the upload here" in said["error"]
            assert [path for path in tmp_path.iterdir() if path.name.startswith("m2e-")] == []
        assert server.predict((workspace / "music/short.ogg").read_bytes())[0] == 200
    finally:
        assert server.stop() == 0


def test_a_small_file_that_grows_without_bound_stops_at_a_limit(workspace: Path, tmp_path: Path) -> None:
    """It is decoded bit by bit, so that time ends it; a limit of less memory than any song takes ends all."""
    with soundfile.SoundFile(tmp_path / "bomb.flac", "w", 48_000, 1, format="FLAC") as bomb:
        for _ in range(225):  # 75 minutes of silence
            bomb.write(np.zeros(20 * 48_000, np.int16))
    assert (tmp_path / "bomb.flac").stat().st_size < 2_000_000
    short = (workspace / "music/short.ogg").read_bytes()
    server = Server(workspace / STUDENT, tmp_path, "--max-upload", "3", "--time-limit", "5", "--memory-limit", "700")
    try:
        status, said = server.predict((tmp_path / "bomb.flac").read_bytes())
        assert (status, said["error"]) == (422, "this file takes longer than the 5 s that are allowed")
        assert server.predict(short)[0] == 200
    finally:
        assert server.stop() == 0
    server = Server(workspace / STUDENT, tmp_path, "--memory-limit", "1")
    try:
        status, said = server.predict(short)
        assert status == 422
        assert "memory" in said["error"]
    finally:
        assert server.stop() == 0


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
