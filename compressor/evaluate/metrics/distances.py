"""Metrics of regression: outputs against numbers of the same shape."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from compressor.errors import DataError
from compressor.evaluate.metrics.base import paired
from compressor.runtime.ort import Array


class _MeanError:
    """Mean over all entries of all labelled outputs of some distance."""

    higher_is_better: ClassVar[bool] = False
    power: ClassVar[int]

    def __init__(self) -> None:
        self._sum, self._entries = 0.0, 0

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        for name, found, wanted in paired(outputs, labels, samples):
            if not np.issubdtype(wanted.dtype, np.number):
                raise DataError(f"labels of output {name} are {wanted.dtype}; mse and mae want numbers")
            if found.size != wanted.size:
                raise DataError(f"output {name} has shape {list(found.shape)}, its labels {list(wanted.shape)}")
            difference = np.abs(found.astype(np.float64).ravel() - wanted.astype(np.float64).ravel())
            self._sum += float((difference**self.power).sum())
            self._entries += found.size

    def result(self) -> float:
        """Over everything folded in."""
        return self._sum / max(self._entries, 1)


class MeanSquaredError(_MeanError):
    """Mean of the squared difference from the labels."""

    power = 2


class MeanAbsoluteError(_MeanError):
    """Mean of the absolute difference from the labels."""

    power = 1
