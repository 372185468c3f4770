"""A linear layer fitted anew to what it ought to make: least squares over streamed samples.

With inputs x, extended by a constant 1 for the bias, and wanted outputs y, the weights that err least are

    W = (E[y xᵀ] + λ W₀) (E[x xᵀ] + λ)⁻¹,

drawn towards W₀, the weights there are, by a λ that matters only where the samples say nothing. In pruning
this is He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks". Where single weights are to stay
what they are, every row of W has equations of its own; they are solved together, by conjugate gradients.
"""

import numpy as np

from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.sparsity import Mask

DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""λ as a share of the mean square of an input: the one is taken with which unseen samples are met best."""

_ITERATIONS = 100
_RESIDUAL = 1e-6
"""Of conjugate gradients: as many at most, or until this share of the right-hand side is left."""


class Regression:
    """Moments of inputs and wanted outputs, folded over batches.

    Args:
        groups: parts of a grouped convolution; 1 for all other layers.
        inputs: of each.
        outputs: of each.
        biased: whether there is a bias to be fitted too.
    """

    def __init__(self, groups: int, inputs: int, outputs: int, biased: bool = True) -> None:
        self._biased = biased
        self._own = np.zeros((groups, inputs + 1, inputs + 1))
        self._cross = np.zeros((groups, outputs, inputs + 1))
        self._sums = np.zeros((groups, inputs))
        self._wanted = 0.0
        self._rows = 0

    def __add__(self, other: "Regression") -> "Regression":
        """Of the samples of both."""
        total = Regression(len(self._own), self._own.shape[1] - 1, self._cross.shape[1], self._biased)
        total._own, total._cross = self._own + other._own, self._cross + other._cross
        total._sums = self._sums + other._sums
        total._wanted, total._rows = self._wanted + other._wanted, self._rows + other._rows
        return total

    def update(self, x: Floats, y: Floats) -> None:
        """Fold in a batch: (groups, rows, inputs) and (groups, rows, outputs)."""
        last = np.full((*x.shape[:2], 1), self._biased, np.float32)
        extended = np.concatenate([x, last], axis=2)
        self._own += extended.swapaxes(1, 2) @ extended
        self._sums += x.sum(axis=1, dtype=np.float64)
        self._cross += y.swapaxes(1, 2) @ extended
        self._wanted += float((y.astype(np.float64) ** 2).sum())
        self._rows += x.shape[1]

    @property
    def wanted(self) -> float:
        """Power of y, summed over all samples."""
        return self._wanted

    def error(self, weights: Doubles, bias: Doubles) -> float:
        """Power of what these err by, as a share of that of y.

        Args:
            weights: (groups, outputs, inputs).
            bias: (groups, outputs).
        """
        whole = np.concatenate([weights, bias[..., None]], axis=2)
        squared = float(((whole @ self._own) * whole).sum()) - 2 * float((whole * self._cross).sum()) + self._wanted
        return max(squared, 0.0) / self._wanted if self._wanted > 0 else 0.0

    def spread(self, weights: Doubles) -> tuple[Doubles, Doubles]:
        """Mean and variance of what weights make, (groups, outputs) each, the bias left out.

        Args:
            weights: (groups, outputs, inputs).
        """
        count = max(self._rows, 1)
        mean = self._sums / count
        centred = self._own[:, :-1, :-1] / count - mean[:, :, None] * mean[:, None]
        variance = np.einsum("goi,gij,goj->go", weights, centred, weights, optimize=True)
        return np.einsum("goi,gi->go", weights, mean), np.maximum(variance, 0.0)

    def solve(
        self, weights: Doubles, bias: Doubles, damping: float, free: Mask | None = None
    ) -> tuple[Doubles, Doubles]:
        """The weights and the bias that err least, drawn towards these.

        Args:
            weights: (groups, outputs, inputs).
            bias: (groups, outputs).
            damping: λ.
            free: which of the weights may change; all when None.
        """
        size = self._own.shape[1] - 1
        mean = np.einsum("gii->g", self._own[:, :size, :size]) / max(size, 1)
        penalty = np.zeros_like(self._own)
        penalty[:, range(size), range(size)] = np.where(mean > 0, damping * mean, 1.0)[:, None]
        penalty[:, size, size] = 1e-6 * max(self._rows, 1)
        start = np.concatenate([weights, bias[..., None]], axis=2)
        own, cross = self._own + penalty, self._cross + start @ penalty
        if free is None:
            whole = np.linalg.solve(own.swapaxes(1, 2), cross.swapaxes(1, 2)).swapaxes(1, 2).astype(np.float64)
        else:
            with_bias = np.concatenate([free, np.ones_like(free[..., :1])], axis=2)
            whole = start + _solved_where(own, cross - start @ own, with_bias)
        return whole[..., :-1], whole[..., -1]


def fitted(
    seen: Regression, unseen: Regression, weights: Doubles, bias: Doubles, free: Mask | None = None
) -> tuple[Doubles, Doubles] | None:
    """Weights and bias for all samples, drawn towards these by as much as serves unseen samples best.

    Args:
        seen: some of the samples.
        unseen: the others.
        weights: there are, (groups, outputs, inputs).
        bias: there is, (groups, outputs).
        free: which of the weights may change; all when None.

    Returns:
        None when none of the fits to the seen samples is better on the unseen than what there is.
    """
    errors = [unseen.error(*seen.solve(weights, bias, damping, free)) for damping in DAMPINGS]
    best = int(np.argmin(errors))
    if errors[best] >= unseen.error(weights, bias):
        return None
    return (seen + unseen).solve(weights, bias, DAMPINGS[best], free)


def _solved_where(own: Doubles, cross: Doubles, free: Mask) -> Doubles:
    """Rows d, zero where they are not free, with d · own = cross where they are.

    Args:
        own: positive definite, (groups, inputs, inputs).
        cross: (groups, outputs, inputs).
        free: the same shape.
    """
    scales = np.where(free, 1 / np.einsum("gii->gi", own)[:, None], 0.0)
    found, left = np.zeros_like(cross), np.where(free, cross, 0.0)
    ahead = scales * left
    power = (left * ahead).sum(axis=2, keepdims=True)
    enough = _RESIDUAL**2 * power
    for _ in range(_ITERATIONS):
        if (power <= enough).all():
            break
        image = np.where(free, ahead @ own, 0.0)
        curvature = (ahead * image).sum(axis=2, keepdims=True)
        step = np.divide(power, curvature, out=np.zeros_like(power), where=curvature > 0)
        found += step * ahead
        left -= step * image
        before, power = power, (scales * left * left).sum(axis=2, keepdims=True)
        ahead = scales * left + np.divide(power, before, out=np.zeros_like(power), where=before > 0) * ahead
    return found
