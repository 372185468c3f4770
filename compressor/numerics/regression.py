"""A linear layer fitted anew to what it ought to make: least squares over streamed samples.

With inputs x, extended by a constant 1 for the bias, and wanted outputs y, the weights that err least are

    W = (E[y xᵀ] + λ W₀) (E[x xᵀ] + λ)⁻¹,

drawn towards W₀, the weights there are, by a λ that matters only where the samples say nothing. In pruning
this is He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks".
"""

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Floats

Doubles = NDArray[np.float64]

DAMPING = 0.01
"""λ as a share of the mean square of an input."""


class Regression:
    """Moments of inputs and wanted outputs, folded over batches.

    Args:
        groups: parts of a grouped convolution; 1 for all other layers.
        inputs: of each.
        outputs: of each.
    """

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        self._own = np.zeros((groups, inputs + 1, inputs + 1))
        self._cross = np.zeros((groups, outputs, inputs + 1))
        self._wanted = 0.0
        self._rows = 0

    def update(self, x: Floats, y: Floats) -> None:
        """Fold in a batch: (groups, rows, inputs) and (groups, rows, outputs)."""
        ones = np.ones((*x.shape[:2], 1), np.float32)
        extended = np.concatenate([x, ones], axis=2)
        self._own += extended.swapaxes(1, 2) @ extended
        self._cross += y.swapaxes(1, 2) @ extended
        self._wanted += float((y.astype(np.float64) ** 2).sum())
        self._rows += x.shape[1]

    def error(self, weights: Doubles, bias: Doubles) -> float:
        """Power of what these weights, (groups, outputs, inputs), and bias, (groups, outputs), err by, over that of y."""
        whole = np.concatenate([weights, bias[..., None]], axis=2)
        squared = float(((whole @ self._own) * whole).sum()) - 2 * float((whole * self._cross).sum()) + self._wanted
        return max(squared, 0.0) / self._wanted if self._wanted > 0 else 0.0

    def solve(self, weights: Doubles, bias: Doubles, damping: float = DAMPING) -> tuple[Doubles, Doubles]:
        """The weights and the bias that err least, drawn towards these."""
        size = self._own.shape[1] - 1
        mean = np.einsum("gii->g", self._own[:, :size, :size]) / max(size, 1)
        penalty = np.zeros_like(self._own)
        penalty[:, range(size), range(size)] = np.where(mean > 0, damping * mean, 1.0)[:, None]
        penalty[:, size, size] = 1e-6 * max(self._rows, 1)
        start = np.concatenate([weights, bias[..., None]], axis=2)
        found = np.linalg.solve((self._own + penalty).swapaxes(1, 2), (self._cross + start @ penalty).swapaxes(1, 2))
        whole = found.swapaxes(1, 2)
        return whole[..., :-1], whole[..., -1]
