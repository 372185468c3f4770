"""Inputs of layers taken away one unit after the other, the others making up for each as well as they can.

Optimal Brain Surgeon (Hassibi & Stork 1993) on whole groups of inputs, as in Kurtić et al. 2023, "ZipLM", and
Wang et al. 2024, "Structurally Prune Anything". With H = E[xxᵀ] over the inputs of a layer, leaving out the
inputs S raises the mean squared error of its output by

    tr(W_S (H⁻¹_SS)⁻¹ W_Sᵀ),

once the other weights have become W - W_S (H⁻¹_SS)⁻¹ H⁻¹_S:, and the inverse H⁻¹ - H⁻¹_:S (H⁻¹_SS)⁻¹ H⁻¹_S:.
A unit that several layers read costs the sum of what it costs each, as a share of the power of their outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Doubles, Floats

Positions = NDArray[np.int64]

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it, however many rows there were."""

_STEPS = 64
"""Rounds, about, in which all units of a layer would be eliminated."""


class Reader:
    """A layer that reads the units.

    Args:
        weights: (groups, rows, inputs).
        moments: H, (groups, inputs, inputs).
        positions: inputs of each unit, in every group the same.
        rows: that the moments were taken over; the fewer there are for each input, the less they are trusted.
    """

    def __init__(
        self, weights: Floats, moments: Doubles, positions: Sequence[Positions], rows: float = float("inf")
    ) -> None:
        size = moments.shape[1]
        mean = np.einsum("gii->g", moments) / size
        damping = DAMPING + size / max(rows, 1)
        damped = moments + np.eye(size) * np.where(mean > 0, damping * mean, 1.0)[:, None, None]
        self.weights = weights.astype(np.float64)
        self.power = max(float(np.einsum("gri,gij,grj->", self.weights, damped, self.weights, optimize=True)), 1e-300)
        self._inverse = np.linalg.inv(damped)
        self._positions = positions

    def matrix(self) -> Floats:
        """The weights as they are now, (groups · rows, inputs)."""
        return self.weights.reshape(-1, self.weights.shape[2]).astype(np.float32)

    def costs(self, units: Sequence[int]) -> Doubles:
        """What the output would err by, as a share of its power, without each of these units."""
        widths = {len(self._positions[unit]) for unit in units}
        costs = np.zeros(len(units))
        for width in widths - {0}:
            places = [i for i, unit in enumerate(units) if len(self._positions[unit]) == width]
            index = np.stack([self._positions[units[i]] for i in places])
            part = self.weights[:, :, index]
            block = self._inverse[:, index[:, :, None], index[:, None, :]]
            solved = np.linalg.solve(block, np.moveaxis(part, 1, -1))
            costs[places] = np.einsum("gruk,gukr->u", part, solved)
        return costs / self.power

    def eliminate(self, units: Sequence[int]) -> float:
        """Do without these units, and let the others make up for it; returns the error that this adds."""
        index = np.concatenate([self._positions[unit] for unit in units])
        if not len(index):
            return 0.0
        across = self._inverse[:, index]
        lost = self.weights[:, :, index]
        solved = np.linalg.solve(across[:, :, index], across)
        added = float(np.einsum("grk,gkr->", lost, np.linalg.solve(across[:, :, index], lost.swapaxes(1, 2))))
        self.weights -= lost @ solved
        self.weights[:, :, index] = 0
        self._inverse -= across.swapaxes(1, 2) @ solved
        self._inverse[:, index] = self._inverse[:, :, index] = 0
        return added / self.power


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """Units in the order in which they are best done without.

    Attributes:
        order: units, the first to go first.
        errors: of the readers' outputs without the first n of them, (n + 1,): starts at 0, never falls.
    """

    order: tuple[int, ...]
    errors: Doubles


def eliminate(
    readers: Sequence[Reader], count: int, most: int, scores: Doubles | None = None, before: Elimination | None = None
) -> Elimination:
    """Take units away greedily, until `most` more are gone; the readers end without them.

    Args:
        readers: all layers that read them.
        count: units there were.
        most: units to take away.
        scores: what else doing without each unit costs, (units,).
        before: what was taken from these readers already.
    """
    order = list(before.order) if before else []
    errors = before.errors.tolist() if before else [0.0]
    left = sorted(set(range(count)) - set(order))
    extra = np.zeros(count) if scores is None else scores
    wanted = len(order) + most
    while len(order) < wanted:
        costs = extra[left] + sum((reader.costs(left) for reader in readers), start=np.zeros(len(left)))
        step = min(max(count // _STEPS, 1), wanted - len(order))
        chosen = [left[i] for i in np.argsort(costs, kind="stable")[:step]]
        error = errors[-1] + float(extra[chosen].sum()) + sum(reader.eliminate(chosen) for reader in readers)
        errors += np.linspace(errors[-1], error, len(chosen) + 1)[1:].tolist()
        order += chosen
        left = sorted(set(left) - set(chosen))
    return Elimination(tuple(order), np.array(errors))
