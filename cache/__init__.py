"""The contract between extraction and training: HDF5 files with features, and their labels."""

from m2e.cache.harmony import ChordSequence, Key
from m2e.cache.labels import read_labels, write_labels
from m2e.cache.reader import FeatureCache, FeatureTable
from m2e.cache.settings import ExtractionConfig
from m2e.cache.types import Labels, TrackFeatures
from m2e.cache.writer import FeatureWriter
from m2e.common.errors import DataError

__all__ = [
    "ChordSequence",
    "DataError",
    "ExtractionConfig",
    "FeatureCache",
    "FeatureTable",
    "FeatureWriter",
    "Key",
    "Labels",
    "TrackFeatures",
    "read_labels",
    "write_labels",
]
