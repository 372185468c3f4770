"""What an observer accumulates of one tensor, batch by batch, until it can say the range."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from compressor.calibration.histograms import FoldedHistogram
from compressor.numerics.observers import Histogram, Range, entropy_range, mse_range, percentile_range

ObserverName = Literal["min_max", "mean_min_max", "percentile", "entropy", "mse"]

GROUP = 16
"""Samples, at least, whose extremes are taken together by `mean_min_max`: whole batches until there are as many."""


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One batch of a tensor.

    Attributes:
        low: its smallest entry.
        high: its largest entry.
        samples: in the batch.
        entries: an even part of its entries; empty for a statistic that wants none.
        stride: how many entries each of these stands for.
    """

    low: float
    high: float
    samples: int
    entries: NDArray[np.generic]
    stride: int


class Statistic(Protocol):
    """What is remembered of a tensor: of one size, however many batches there are.

    Attributes:
        wants_entries: whether `Seen.entries` is needed; otherwise they are not taken out of the graph.
    """

    wants_entries: ClassVar[bool]

    def update(self, seen: Seen) -> None:
        """Fold in a batch."""
        ...

    def range(self) -> Range:
        """The real values to be covered; (0, 0) when there was no batch."""
        ...


@dataclass(frozen=True, slots=True)
class Observer:
    """A rule that turns what was seen of a tensor into a range.

    Attributes:
        name: `min_max` covers everything, `mean_min_max` what a group of 16 samples reaches on average;
            the others weigh the histogram, see `numerics.observers`.
        percentile: of `percentile`: per cent of the entries that are to lie in the range.
        bits: of `entropy` and `mse`: the grid to be laid over the range has 2^bits values.
    """

    name: ObserverName
    percentile: float = 99.99
    bits: int = 8

    def statistic(self) -> Statistic:
        """A new one, of a tensor of which nothing was seen yet."""
        match self.name:
            case "min_max":
                return Extremes()
            case "mean_min_max":
                return MeanExtremes()
            case "percentile":
                return Distribution(partial(percentile_range, percentile=self.percentile))
            case "entropy":
                return Distribution(partial(entropy_range, bits=self.bits))
            case "mse":
                return Distribution(partial(mse_range, bits=self.bits))


class Extremes:
    """The smallest and the largest entry of all."""

    wants_entries: ClassVar[bool] = False

    def __init__(self) -> None:
        self._low, self._high = inf, -inf

    def update(self, seen: Seen) -> None:
        """Fold in a batch."""
        self._low, self._high = min(self._low, seen.low), max(self._high, seen.high)

    def range(self) -> Range:
        """From one to the other."""
        return Range(self._low, self._high) if self._low <= self._high else Range(0.0, 0.0)


class MeanExtremes:
    """The mean of the extremes of groups of 16 samples (whole batches).

    In the spirit of the moving average of Krishnamoorthi 2018, "Quantizing deep convolutional networks
    for efficient inference": rare outliers are clamped, and all other values get finer steps. Fewer
    than 16 samples are one group.
    """

    wants_entries: ClassVar[bool] = False

    def __init__(self) -> None:
        self._group, self._members = Extremes(), 0
        self._low, self._high, self._groups = 0.0, 0.0, 0

    def update(self, seen: Seen) -> None:
        """Fold in a batch; a group that is full joins the mean."""
        self._group.update(seen)
        self._members += seen.samples
        if self._members >= GROUP:
            self._close()

    def range(self) -> Range:
        """The mean over all groups; the last one counts if it is more than half full."""
        if self._members > GROUP // 2 or not self._groups:
            self._close()
        return Range(self._low / self._groups, self._high / self._groups)

    def _close(self) -> None:
        """Let the group join the mean, and begin another."""
        low, high = self._group.range()
        self._low, self._high, self._groups = self._low + low, self._high + high, self._groups + 1
        self._group, self._members = Extremes(), 0


class Distribution:
    """A histogram of the entries, and the exact extremes.

    Args:
        rule: says which part of the histogram the range should cover.
    """

    wants_entries: ClassVar[bool] = True

    def __init__(self, rule: Callable[[Histogram], Range]) -> None:
        self._rule = rule
        self._extremes, self._histogram = Extremes(), FoldedHistogram()

    def update(self, seen: Seen) -> None:
        """Fold in a batch."""
        self._extremes.update(seen)
        self._histogram.update(seen.entries, seen.stride)

    def range(self) -> Range:
        """What the rule wants covered, but nothing beyond the extremes."""
        low, high = self._extremes.range()
        wanted = self._rule(self._histogram.between(low, high))
        return Range(max(wanted.low, low), min(wanted.high, high))
