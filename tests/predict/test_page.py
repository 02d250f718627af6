"""The page in a real browser: a song goes in, and what the user sees is the prediction."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.browser import CHROMIUM, Browser
from support.server import Server
from support.workspace import STUDENT, call

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: the page is not tested")


@pytest.fixture
def browser(server: Server, tmp_path: Path) -> Iterator[Browser]:
    with Browser(tmp_path / "profile") as opened:
        opened.open(server.address)
        opened.wait("document.body && document.body.dataset.ready === 'yes'")
        yield opened


def text(browser: Browser, element: str) -> str:
    return browser.evaluate(f"document.getElementById('{element}').textContent")


def test_a_dropped_song_is_shown(browser: Browser, server: Server, workspace: Path, tmp_path: Path) -> None:
    song = tmp_path / "<b>ärger & 'song'.flac"
    song.write_bytes((workspace / "music/more/long.flac").read_bytes())
    said = call("m2e-predict", song, "--json", "--device", "cpu", "--model", workspace / STUDENT).stdout
    expected: dict[str, Any] = json.loads(said)

    browser.choose_file("#file", song)
    browser.wait("!document.getElementById('result').hidden")
    assert text(browser, "song") == song.name
    assert f"1:40 · {expected['key']} · valence {expected['valence']:.2f}" in text(browser, "facts")
    assert "SYNTHETIC" in text(browser, "cautions")

    point = browser.evaluate("['cx', 'cy'].map((n) => Number(document.getElementById('point').getAttribute(n)))")
    clipped = [min(9, max(1, expected[name])) for name in ("valence", "arousal")]
    assert point == pytest.approx([34 + (clipped[0] - 1) * 32, 266 - (clipped[1] - 1) * 32], abs=1e-6)
    assert browser.evaluate("document.querySelectorAll('#plane .moment').length") == 3
    rows = browser.evaluate("[...document.querySelectorAll('#tags li')].map((row) => [row.className, row.innerText])")
    assert [(kind == "given", *words.split()) for kind, words in rows] == [
        (name in expected["given"], name, f"{expected['tags'][name]:.2f}")
        for name in [*expected["given"], *sorted(expected["tags"].keys() - expected["given"], key=order(expected))]
    ]
    assert browser.evaluate("document.querySelectorAll('#chords title').length") == len(expected["chords"])
    assert browser.evaluate("document.querySelectorAll('#timeline polyline').length") == 2
    assert browser.evaluate("document.querySelectorAll('#table tr').length") == 4

    picture = tmp_path / "page.png"
    browser.screenshot(picture)
    pixels = read_png(picture)
    assert (pixels[:10] == 255).all(), "light, whatever the system prefers"
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    assert browser.errors == []
    assert {url.rpartition("/")[0] for url in browser.requests} == {server.address}


def order(expected: dict[str, Any]) -> Any:
    return lambda name: -expected["tags"][name]


def test_what_cannot_be_heard_is_said_on_the_page(browser: Browser, workspace: Path, tmp_path: Path) -> None:
    browser.choose_file("#file", workspace / "music/broken.mp3")
    browser.wait("document.getElementById('status').className === 'error'")
    assert text(browser, "status").startswith("broken.mp3: the file is no audio file")
    assert browser.evaluate("document.getElementById('result').hidden")
    (tmp_path / "large.wav").write_bytes(bytes(3_000_001))
    browser.choose_file("#file", tmp_path / "large.wav")
    browser.wait("document.getElementById('status').textContent.includes('larger than 3 MB')")
    browser.choose_file("#file", workspace / "music/short.ogg")
    browser.wait("!document.getElementById('result').hidden")
    assert text(browser, "status") == ""


def read_png(path: Path) -> NDArray[np.uint8]:
    """Pixels of an RGB or RGBA PNG of 8 bits, as Chromium writes them [shape=(height, width, 3)]."""
    from PIL import Image

    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
