"""From a song to its emotion: the extractor's features, the trainer's models, one result."""

from m2e.predict.predictor import Predictor
from m2e.predict.result import Emotion, Moment, SongPrediction, TagScore

__all__ = ["Emotion", "Moment", "Predictor", "SongPrediction", "TagScore"]
