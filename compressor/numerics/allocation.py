"""How many bits each weight gets: the least loss within a size, or the least size within a loss.

With one candidate chosen for every weight, losses and sizes add up over the weights. That is the
multiple-choice knapsack, solved exactly by dynamic programming over sizes counted in small units
(Sinha & Zoltners 1979): the least loss of the first n weights within a size is

    best_n(size) = min over candidates of  loss + best_n-1(size - size of the candidate).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Doubles

UNITS = 1 << 16
"""Parts that the largest size is divided into; the size of a candidate is rounded up to whole ones."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """What one weight may become.

    Attributes:
        losses: of each candidate, >= 0.
        sizes: of each candidate, bytes.
    """

    losses: Doubles
    sizes: Doubles


def least_loss(weights: Sequence[Candidates], size: float) -> list[int] | None:
    """One candidate for every weight, so that they fit into `size` and lose least; None when none fit."""
    smallest = [int(np.argmin(weight.sizes)) for weight in weights]
    if sum(float(weight.sizes[i]) for weight, i in zip(weights, smallest, strict=True)) > size:
        return None
    table = _Table.of(weights, size)
    return table.choice(UNITS) if np.isfinite(table.best[-1]) else smallest


def least_size(weights: Sequence[Candidates], loss: float) -> list[int]:
    """One candidate for every weight, so that they lose no more than `loss` and are smallest.

    Those of least loss, when even these lose more.
    """
    most = sum(float(weight.sizes.max()) for weight in weights)
    table = _Table.of(weights, most / (1 - len(weights) / UNITS))
    enough = np.flatnonzero(table.best <= max(loss, float(table.best[-1])))
    return table.choice(int(enough[0]))


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The least loss within every number of units, and the candidates that lead there.

    Attributes:
        best: of all weights, (units + 1,).
        picks: of each weight, (units + 1,).
        costs: of each weight, units of its candidates.
    """

    best: Doubles
    picks: list[NDArray[np.int8]]
    costs: list[NDArray[np.int64]]

    @classmethod
    def of(cls, weights: Sequence[Candidates], size: float) -> "_Table":
        best = np.zeros(UNITS + 1)
        picks, costs = [], []
        for weight in weights:
            units = np.minimum(np.ceil(weight.sizes * (UNITS / size) - 1e-9), UNITS + 1).astype(np.int64)
            tried = np.full((len(units), UNITS + 1), np.inf)
            for row, cost, loss in zip(tried, units, weight.losses, strict=True):
                if cost <= UNITS:
                    row[cost:] = best[: UNITS + 1 - cost] + loss
            picks.append(tried.argmin(axis=0).astype(np.int8))
            costs.append(units)
            best = tried.min(axis=0)
        return cls(best, picks, costs)

    def choice(self, units: int) -> list[int]:
        """The candidates of least loss within so many units."""
        chosen = []
        for pick, cost in zip(reversed(self.picks), reversed(self.costs), strict=True):
            chosen.append(int(pick[units]))
            units -= int(cost[chosen[-1]])
        return chosen[::-1]
