"""How far the mean of a layer's output has moved, channel by channel.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction": rounding a weight
moves the mean of what it makes, E[ỹ] ≠ E[y], and all layers behind it are off by the same amount on every
sample. The bias takes it back: b ← b + E[y] - E[ỹ].

When the channels were rescaled in between, y = a ỹ + noise with a > 0, the means are compared in the units of
ỹ: E[y] / a - E[ỹ], with a = √(Var y / Var ỹ).
"""

import numpy as np

from compressor.numerics.affine import Doubles, Floats

_SAME_UNITS = 0.1
"""Typical |log a| below which the channels were not rescaled, and a is taken for 1."""

LEAST_CORRELATION = 0.5
"""Typical correlation of y and ỹ below which they are not the same thing."""


class ChannelMoments:
    """First and second moments of y and ỹ, folded over batches.

    Args:
        channels: how many.
    """

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sums: Doubles = np.zeros((5, channels))

    def update(self, expected: Floats, found: Floats) -> None:
        """Fold in rows of y and of ỹ, both (rows, channels)."""
        self._count += len(expected)
        products = ((expected, expected), (found, found), (expected, found))
        self._sums[:2] += expected.sum(axis=0, dtype=np.float64), found.sum(axis=0, dtype=np.float64)
        self._sums[2:] += [np.einsum("rc,rc->c", *pair) for pair in products]

    def correlation(self) -> float:
        """Median over the channels that move at all of the correlation of y and ỹ; 0 when none does."""
        _, (expected, found, both) = self._central()
        moving = (expected > 0) & (found > 0)
        if not moving.any():
            return 0.0
        return float(np.median(both[moving] / np.sqrt(expected[moving] * found[moving])))

    def shift(self) -> Floats:
        """What to add to the bias, (channels,)."""
        (expected, found), (wanted, got, _) = self._central()
        moving = (wanted > 0) & (got > 0)
        units = np.sqrt(np.divide(wanted, got, out=np.ones_like(wanted), where=moving))
        if not moving.any() or np.median(np.abs(np.log(units[moving]))) < _SAME_UNITS:
            return np.asarray(expected - found, np.float32)
        return np.asarray(np.where(moving, expected / units - found, 0.0), np.float32)

    def _central(self) -> tuple[Doubles, Doubles]:
        """Means of y and ỹ, (2, channels); their variances and covariance, (3, channels)."""
        moments = self._sums / max(self._count, 1)
        first, second = moments[:2], moments[2:]
        squares = np.stack([first[0] * first[0], first[1] * first[1], first[0] * first[1]])
        central: Doubles = second - squares
        noise = 1e-6 * np.abs(squares)
        central[:2] = np.where(central[:2] > noise[:2], central[:2], 0.0)
        return first, central
