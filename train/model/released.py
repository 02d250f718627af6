"""The published checkpoints of the paper's code (Lightning files such as J_all.ckpt) as models of ours.

Such a file is a zip archive that torch.load unpickles. It is checked first: its size, that its parts are stored as they
are and intact, and that the names, shapes and types of its tensors are exactly those of our release preset. Only
weights are read (``weights_only=True``): no code of the file runs.

Of a file's tensors, those of the network have the prefix "model."; four more hold the weights of the tags in its loss
and are not needed. The student's branches are "classification_branch" and "regression_branch", a teacher's is
"output_proj".
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from m2e.cache.settings import ExtractionConfig
from m2e.common.errors import DataError
from m2e.common.regular import read_regular
from m2e.train.config import Task, TrainConfig
from m2e.train.model.checkpoint import CARD_FILE, WEIGHTS_FILE, ModelCard, load_model, save_model
from m2e.train.model.network import EmotionModel
from m2e.train.report.paper import DATASETS

# The classes of MediaEval's Emotion and Theme task, in the order of the columns of all published results.
TAGS = (
    "action", "adventure", "advertising", "background", "ballad", "calm", "children", "christmas", "commercial", "cool",
    "corporate", "dark", "deep", "documentary", "drama", "dramatic", "dream", "emotional", "energetic", "epic", "fast",
    "film", "fun", "funny", "game", "groovy", "happy", "heavy", "holiday", "hopeful", "inspiring", "love", "meditative",
    "melancholic", "melodic", "motivational", "movie", "nature", "party", "positive", "powerful", "relaxing", "retro",
    "romantic", "sad", "sexy", "slow", "soft", "soundscape", "space", "sport", "summer", "trailer", "travel", "upbeat",
    "uplifting",
)  # fmt: skip
# The settings of m2e-extract that make the features these models were trained on.
EXTRACTION = ExtractionConfig(
    encoder="MERT-v1-95M",
    encoder_revision="12af15fef9d0ac838c3f475bfbbf26d2060dd4f5",
    chords="btc",
    chords_revision="git-blob:11c6edbaaaee33737aa7a41dcb9044191630326f",
)
WIDTH = 2 * 768

_PREFIX = "model."
_LOSS_TENSORS = {
    f"loss_fn_classification{suffix}.{name}" for suffix in ("", "_eval") for name in ("weight", "pos_weight")
}
# The published student has 4.3 MB, three times as much with an optimizer's state.
_LARGEST_FILE = 64 * 2**20
_STUDENT: dict[Task, int] = {"tags": len(TAGS), "valence_arousal": 2}


def import_checkpoint(path: Path, folder: Path) -> ModelCard:
    """Write a published checkpoint as a model folder of ours.

    Raises:
        DataError: see `read_released`; or the folder cannot be written, or holds something else.
    """
    models, card = read_released(path)
    taken = any((folder / name).exists() for name in (WEIGHTS_FILE, CARD_FILE))
    if taken and not _is_there(folder, models, card):
        raise DataError(f"{folder} holds another model or run: choose another --out")
    save_model(folder, models, card)
    return card


def _is_there(folder: Path, models: dict[Task, EmotionModel], card: ModelCard) -> bool:
    """The folder holds this very model."""
    try:
        found, its_card = load_model(folder)
    except DataError:
        return False
    return its_card == card and all(
        value.equal(found[task].state_dict()[name])
        for task, model in models.items()
        for name, value in model.state_dict().items()
    )


def read_released(path: Path) -> tuple[dict[Task, EmotionModel], ModelCard]:
    """Models in eval mode on the CPU, one a task (of a student twice the same), and their card.

    What a file was trained on stands in its name alone: "J_all" is the student of all four sets that the paper tests on
    J, "J" its teacher.

    Raises:
        DataError: the file is missing, too large, truncated, damaged, or not of this form.
    """
    state, digest = _read(path)
    weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
    foreign = sorted(set(state) - {_PREFIX + name for name in weights} - _LOSS_TENSORS)
    if foreign:
        raise _not_released(path, f"it holds {', '.join(map(repr, foreign[:3]))}")
    outputs = _outputs(path, weights)
    config = TrainConfig.preset("release")
    model = EmotionModel(config, WIDTH, outputs)
    expected = {name: value.shape for name, value in model.state_dict().items()}
    found = {name: value.shape for name, value in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        # Shapes before values: a forged tensor may claim any size without having it.
        if expected.get(name) != found.get(name):
            shapes = [
                tuple(shape) if shape is not None else "nothing" for shape in (found.get(name), expected.get(name))
            ]
            raise _not_released(path, f"{name} is {shapes[0]}, not {shapes[1]}")
        if weights[name].dtype != torch.float32 or not weights[name].isfinite().all():
            raise _not_released(path, f"{name} is not finite float32")
    model.load_state_dict(weights)
    card = ModelCard(
        train=config,
        extraction=EXTRACTION,
        width=WIDTH,
        tag_names=TAGS if "tags" in outputs else (),
        tasks=tuple(outputs),
        datasets=tuple(
            {"name": DATASETS[letter], "letter": letter, "provenance": f"published checkpoint, sha256 {digest}"}
            for letter in _trained_on(path.stem, outputs)
        ),
    )
    return dict.fromkeys(outputs, model.eval()), card


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a checked file, and the digest of its bytes."""
    try:
        content = read_regular(path, _LARGEST_FILE)
    except OSError as error:
        raise DataError(f"cannot read the checkpoint {path}: {error.strerror or error}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise _not_released(path, "its parts are compressed, which torch.save never does")
            if sum(part.file_size for part in parts) > _LARGEST_FILE:
                raise _not_released(path, f"its parts claim more than {_LARGEST_FILE // 2**20} MB")
            damaged = archive.testzip()
        if damaged:
            raise DataError(f"{path} is damaged at {damaged!r}: download it again")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checkpoint: Any = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except DataError:
        raise
    except zipfile.BadZipFile as error:
        raise _not_released(path, "it is no PyTorch file, or is truncated") from error
    except Exception as error:  # torch.load raises whatever its unpickler meets
        raise _not_released(path, "torch.load finds more in it than weights, or less") from error
    state = checkpoint.get("state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise _not_released(path, "it has no state_dict of tensors")
    return dict(state), hashlib.sha256(content).hexdigest()


def _outputs(path: Path, weights: dict[str, Tensor]) -> dict[Task, int]:
    if "classification_branch.2.weight" in weights:
        return _STUDENT
    teacher = weights.get("output_proj.2.weight")
    for task, size in _STUDENT.items():
        if teacher is not None and teacher.ndim == 2 and len(teacher) == size:
            return {task: size}
    raise _not_released(path, "it has neither a student's branches nor a teacher's")


def _trained_on(stem: str, outputs: dict[Task, int]) -> tuple[str, ...]:
    letter, _, rest = stem.partition("_")
    if letter in DATASETS and rest == "all" and len(outputs) == 2:
        return tuple(DATASETS)
    alone = letter in DATASETS and not rest and len(outputs) == 1 and (letter == "J") == ("tags" in outputs)
    return (letter,) if alone else ()


def _not_released(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is no published checkpoint of Music2Emotion: {reason}. "
        "A folder that m2e-train wrote needs no import: --evaluate takes it as it is"
    )
