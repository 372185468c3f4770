"""Metrics of classifiers: scores (samples, classes) against class numbers (samples,)."""

from collections.abc import Iterator, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from compressor.errors import DataError
from compressor.evaluate.metrics.base import check_numbers, paired
from compressor.runtime.ort import Array


class _TopK:
    """Share of samples whose class is among the k largest outputs; labels (samples,)."""

    higher_is_better: ClassVar[bool] = True
    k: ClassVar[int]

    def __init__(self) -> None:
        self._right = self._samples = 0

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        for _, scores, wanted in _scored(outputs, labels, samples):
            best = np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, : self.k]
            self._right += int((best == wanted[:, None]).any(axis=1).sum())
            self._samples += len(wanted)

    def result(self) -> float:
        """Over everything folded in."""
        return self._right / max(self._samples, 1)


class Top1(_TopK):
    """Share of samples whose largest output is the labelled class."""

    k = 1


class Top5(_TopK):
    """Share of samples whose labelled class is among the five largest outputs."""

    k = 5


class F1:
    """Harmonic mean of precision and recall, 2 · TP / (2 · TP + FP + FN), of the class with the largest output.

    With two classes that of class 1, the positive one; with more the macro average, the plain mean over
    the classes that occur among labels or predictions. Of several labelled outputs, the mean.
    """

    higher_is_better: ClassVar[bool] = True

    def __init__(self) -> None:
        self._counts: dict[str, NDArray[np.int64]] = {}

    def update(self, outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int) -> None:
        """Fold in one batch."""
        for name, scores, wanted in _scored(outputs, labels, samples):
            classes = scores.shape[1]
            found = np.argmax(scores.astype(np.float64), axis=1)
            counts = self._counts.setdefault(name, np.zeros((3, classes), np.int64))
            for row, members in enumerate((wanted[found == wanted], found, wanted)):
                counts[row] += np.bincount(members.astype(np.int64), minlength=classes)

    def result(self) -> float:
        """Over everything folded in."""
        return float(np.mean([_f1(counts) for counts in self._counts.values()])) if self._counts else 0.0


def _f1(counts: NDArray[np.int64]) -> float:
    """Of rows right, predicted and labelled, (3, classes)."""
    right, predicted, labelled = counts
    occurring = predicted + labelled > 0
    scores = 2 * right / np.maximum(predicted + labelled, 1)
    return float(scores[1] if len(scores) == 2 else scores[occurring].mean())


def _scored(
    outputs: Mapping[str, Array], labels: Mapping[str, Array], samples: int
) -> Iterator[tuple[str, Array, Array]]:
    """Every labelled output with its labels.

    Raises:
        DataError: these are no scores of several classes, or no class numbers.
    """
    for name, scores, wanted in paired(outputs, labels, samples):
        if scores.ndim != 2 or scores.shape[1] < 2 or wanted.ndim != 1:
            raise DataError(
                f"output {name} has shape {list(scores.shape)} and its labels {list(wanted.shape)}; "
                "top1, top5 and f1 want scores (samples, classes) of two classes or more and labels (samples,)"
            )
        check_numbers(name, wanted, scores.shape[1], "top1, top5 and f1 want class numbers")
        yield name, scores, wanted
