"""README.md of a model's folder: what the Hugging Face hub calls a model card, for people and for the hub."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from m2e.common.files import write_atomically
from m2e.train.model.checkpoint import CARD_FILE, ModelCard, read_card
from m2e.train.report.results import METRICS, Result

README = "README.md"
_NAMES = {"tags": "mood tags", "valence_arousal": "valence and arousal on the scale 1-9"}
_MERT_LICENCE = (
    "MERT's weights are CC BY-NC 4.0 (non-commercial use, with attribution to Li et al., arXiv 2306.00107). This model "
    "was trained on what MERT hears and cannot be used without it: take it as bound by the same terms."
)
_OTHER_LICENCE = (
    "The licence of the encoder named above holds for every use of this model, which cannot hear without it."
)
_DATA_LICENCE = (
    "Each data set has terms of its own, on audio and on labels; they may restrict what is done with a model trained "
    "on it. m2e itself is MIT, BTC's chord recogniser too."
)


def write_model_cards(out: Path, names: Iterable[str], results: Sequence[Result]) -> None:
    """Write the card of each model of a run into its folder.

    Args:
        out: the run's folder.
        names: of the models' folders in it.
        results: of all models.

    Raises:
        DataError: a folder cannot be written.
    """
    for name in names:
        card = read_card(out / name)
        own = [result for result in results if name in (result.made.model, "-".join(_made(result)))]
        write_model_card(out / name, card, own)


def _made(result: Result) -> tuple[str, ...]:
    """The parts of the name of a teacher's or single model's folder."""
    return (result.made.model, *result.made.trained_on)


def write_model_card(folder: Path, card: ModelCard, results: Sequence[Result] = ()) -> None:
    """Write a model's card into its folder; raises DataError where that cannot be written."""
    write_atomically(folder / README, model_card(card, results).encode())


def model_card(card: ModelCard, results: Sequence[Result] = ()) -> str:
    """The text: front matter for the hub, then data, labels, splits, features, training, scores, licences.

    Args:
        card: of the model.
        results: on test sets; none are shown where there are none.
    """
    extraction, train = card.extraction, card.train
    # Extraction gives these names to what it has identified, and to nothing else.
    mert = extraction.encoder.partition("@")[0] in ("MERT-v1-95M", "MERT-v1-330M")
    synthetic = any("synthetic" in data["provenance"].lower() for data in card.datasets)
    cautions = ["**Trained on SYNTHETIC data: it says nothing about real music.**"] * synthetic
    cautions += ["**Its encoder is untrained: for trying out, not for results.**"] * (extraction.encoder == "tiny")
    chords = f"{extraction.chords} {extraction.chords_revision}".strip()
    sections = [
        _front_matter(mert),
        "# From music to emotion",
        f"Predicts {' and '.join(_NAMES[task] for task in card.tasks)} of a song. Made by m2e after J. Kang and "
        "D. Herremans, *Towards Unified Music Emotion Recognition across Dimensional and Categorical Models* "
        "(arXiv 2502.03979); it is not the authors' model.",
        *cautions,
        "```\npip install 'm2e[predict]'\nm2e-predict song.mp3 --model OWNER/NAME\n```",
        "## Data, labels and splits",
        "\n".join(f"- {data['name']}: {data['provenance']}" for data in card.datasets) or "Not known.",
        "## Features",
        f"- encoder: {extraction.encoder}, revision {extraction.encoder_revision}; hidden states "
        f"{', '.join(map(str, train.layers))}, {extraction.segment_seconds:g} s segments, {extraction.precision}\n"
        f"- chords: {chords}; the key follows from them",
        "## Training",
        f"Preset `{train.based_on}`, inputs {', '.join(train.inputs)}, at most {train.epochs} epochs, "
        f"seed {train.seed}; all settings are in {CARD_FILE}.",
        *_scores(results),
        *_thresholds(card),
        "## Licences",
        f"- {_MERT_LICENCE if mert else _OTHER_LICENCE}\n- {_DATA_LICENCE}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(mert: bool) -> str:
    lines = ["---", "license: cc-by-nc-4.0" if mert else "license: other", "library_name: m2e"]
    lines += ["pipeline_tag: audio-classification", "tags:", "- music", "- emotion", "- valence-arousal", "---"]
    return "\n".join(lines)


def _scores(results: Sequence[Result]) -> list[str]:
    rows = [
        f"| {result.dataset} ({result.test}, {result.tracks} tracks) | {heading} | {_number(result.value(field))} "
        f"| {_interval(result.low(field), result.high(field))} |"
        for result in results
        for heading, field in METRICS[result.task]
        if result.metrics
    ]
    head = "| test set | metric | value | 95 % interval |\n|---|---|---|---|\n"
    return ["## Scores", head + "\n".join(rows)] if rows else []


def _thresholds(card: ModelCard) -> list[str]:
    if not card.thresholds:
        return []
    head = "| tag | given from probability |\n|---|---|\n"
    rows = "\n".join(f"| {name} | {value:.3f} |" for name, value in zip(card.tag_names, card.thresholds, strict=True))
    return ["## Thresholds", "Where F1 on the validation split is best:", head + rows]


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.4f} to {high:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
