"""Chord recognisers by name: "btc", the paper's; "cnn", its weights part of the package; "template", without any."""

from __future__ import annotations

from pathlib import Path

from m2e.common.errors import DataError
from m2e.extract.chords.btc_weights import official_checkpoint, weights_revision
from m2e.extract.chords.recogniser import ChordRecogniser

RECOGNISERS = ("btc", "cnn", "template")
CNN_WEIGHTS = Path(__file__).with_name("cnn.safetensors")


def recogniser_revision(name: str, checkpoint: Path | None = None) -> str:
    """The `revision` that `load_recogniser` with these arguments will have, without loading or fetching anything.

    Raises:
        DataError: no such recogniser, or its checkpoint cannot be read.
    """
    if name not in RECOGNISERS:
        raise DataError(f"no chord recogniser is called {name!r}: use one of {', '.join(RECOGNISERS)}")
    if name == "btc":
        return weights_revision(checkpoint)
    if checkpoint is not None:
        raise DataError(f"chord recogniser {name!r} takes no weights: leave out --chord-checkpoint")
    return weights_revision(CNN_WEIGHTS) if name == "cnn" else ""


def fetch_recogniser(name: str, checkpoint: Path | None = None) -> Path | None:
    """The file with a recogniser's weights, None where it takes none; BTC's is downloaded on first use.

    Raises:
        DataError: it cannot be downloaded, or is not the published file.
    """
    return checkpoint or (official_checkpoint() if name == "btc" else None)


def load_recogniser(name: str, checkpoint: Path | None = None, device: str = "cpu") -> ChordRecogniser:
    """A recogniser ready for use; `checkpoint` as `fetch_recogniser` returns it, BTC's network on `device`.

    Raises:
        DataError: no such recogniser, or its weights cannot be fetched or read.
    """
    revision = recogniser_revision(name, checkpoint)
    weights = fetch_recogniser(name, checkpoint)
    # torch is slow to import: only what is asked for is.
    if weights is not None:
        from m2e.extract.chords.btc import BTCRecogniser

        return BTCRecogniser(weights, revision, device)
    if name == "cnn":
        from m2e.extract.chords.cnn import CNNRecogniser

        return CNNRecogniser(CNN_WEIGHTS, revision)
    from m2e.extract.chords.template import TemplateRecogniser

    return TemplateRecogniser()
