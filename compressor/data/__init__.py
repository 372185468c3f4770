"""Where samples come from: files, folders, the model's own shapes, or the user's code."""

from typing import Annotated

from pydantic import Field

from compressor.data.arrays import ArraysSource
from compressor.data.base import Batch, Dataset, MetricName, RecipePath, Settings
from compressor.data.images import ImagesSource
from compressor.data.kept import KeptDataset
from compressor.data.python import PythonSource
from compressor.data.random import RandomSource
from compressor.data.text import TextSource
from compressor.data.thinned import held_out

AnySource = Annotated[
    ArraysSource | ImagesSource | TextSource | RandomSource | PythonSource, Field(discriminator="source")
]

__all__ = [
    "AnySource",
    "ArraysSource",
    "Batch",
    "Dataset",
    "ImagesSource",
    "KeptDataset",
    "MetricName",
    "PythonSource",
    "RandomSource",
    "RecipePath",
    "Settings",
    "TextSource",
    "held_out",
]
