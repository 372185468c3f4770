"""Metrics against labels, folded over batches."""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import numpy as np

from compressor.data.base import MetricName
from compressor.errors import DataError
from compressor.runtime.ort import Array


class Metric(Protocol):
    """A number that sums up how well outputs match labels."""

    higher_is_better: ClassVar[bool]

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        ...

    def result(self) -> float:
        """Over everything folded in."""
        ...


class _TopK:
    """Share of samples whose class is among the k largest outputs; labels (samples,)."""

    higher_is_better: ClassVar[bool] = True
    k: ClassVar[int]

    def __init__(self) -> None:
        self._right = self._samples = 0

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        for name, scores, wanted in paired(outputs, labels, samples):
            if scores.ndim != 2 or wanted.ndim != 1:
                raise DataError(
                    f"output {name} has shape {list(scores.shape)} and its labels {list(wanted.shape)}; "
                    "top1 and top5 want scores (samples, classes) and labels (samples,)"
                )
            _check_classes(name, wanted, scores.shape[1])
            best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, : self.k]
            self._right += int((best == wanted[:, None]).any(axis=1).sum())
            self._samples += len(wanted)

    def result(self) -> float:
        """Over everything folded in."""
        return self._right / max(self._samples, 1)


def _check_classes(output: str, labels: Array, classes: int) -> None:
    """Labels must be class numbers.

    Raises:
        DataError: they are not.
    """
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels of output {output} are {labels.dtype}; top1 and top5 want class numbers")
    numbers = labels.astype(np.int64)
    outside = numbers[(numbers < 0) | (numbers >= classes)]
    if outside.size:
        raise DataError(f"label {outside[0]} of output {output} is no class; there are {classes}, numbered from 0")


class Top1(_TopK):
    """Share of samples whose largest output is the labelled class."""

    k = 1


class Top5(_TopK):
    """Share of samples whose labelled class is among the five largest outputs."""

    k = 5


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


METRICS: Mapping[MetricName, type[Metric]] = {
    "top1": Top1,
    "top5": Top5,
    "mse": MeanSquaredError,
    "mae": MeanAbsoluteError,
}


def paired(outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> list[tuple[str, Array, Array]]:
    """Every labelled output with its labels; labels without a name belong to the first output.

    Raises:
        DataError: labels for an output that the model does not have.
    """
    first = next(iter(outputs))
    pairs = []
    for label, wanted in labels.items():
        name = label or first
        if name not in outputs:
            raise DataError(f"labels name {name}, which is no output of the model; it has {', '.join(outputs)}")
        pairs.append((name, outputs[name][:samples], wanted))
    return pairs
