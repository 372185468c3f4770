"""Outliers moved from activations, which share one grid, to weights, where every channel has its own.

Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models":

    y = W x = (W S) (S⁻¹ x),    S = diag(s),    sⱼ = max|xⱼ|^α / max|Wⱼ|^(1-α).

A few channels of a transformer's activations are ten times larger than the others; on one grid per tensor they
decide the step of all. Two things differ from the paper. α is chosen for every tensor, by the error of the
layers themselves. And a channel is not taken for smaller than a share φ of the largest one: a channel that
slept in the samples would be blown up, and with it the range of the tensor, once it wakes. For the same reason
a choice is judged by ranges that it has not seen.
"""

from dataclasses import dataclass, replace

import numpy as np

from compressor.numerics.affine import Floats, PerChannel, asymmetric_grid, symmetric_grid

_STRENGTHS = (0.8, 0.4, 0.5, 0.6, 0.7, 0.9, 1.0)
"""α: at 1 all channels of the activations become equally large."""

_FLOORS = (0.0, 0.06, 0.12, 0.18, 0.25, 0.35, 0.5)
"""φ: 0 believes the samples."""

_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class Choice:
    """How much to smooth.

    Attributes:
        strength: α.
        floor: φ.
    """

    strength: float
    floor: float

    def scale(self, activations: Floats, weights: Floats) -> Floats:
        """s, (channels,), of geometric mean 1.

        Args:
            activations: largest magnitude of every channel, (channels,).
            weights: largest magnitude of the weights that read it, (channels,).
        """
        x, w = (a.astype(np.float64) for a in (activations, weights))
        x = np.maximum(x, max(self.floor, _SMALLEST) * x.max(initial=_SMALLEST))
        w = np.maximum(w, _SMALLEST * w.max(initial=_SMALLEST))
        logarithm = self.strength * np.log(x) - (1 - self.strength) * np.log(w)
        return np.asarray(np.exp(logarithm - logarithm.mean()), np.float32)


@dataclass(frozen=True, slots=True)
class Extent:
    """What every channel of a tensor reaches; both (channels,)."""

    low: Floats
    high: Floats

    @property
    def magnitude(self) -> Floats:
        """Largest |x| of every channel."""
        magnitude: Floats = np.maximum(-self.low, self.high)
        return magnitude

    def union(self, other: "Extent") -> "Extent":
        """What either reaches."""
        return Extent(np.minimum(self.low, other.low), np.maximum(self.high, other.high))


@dataclass(frozen=True, slots=True)
class Product:
    """Layers that multiply one tensor, and rows of it to try them on.

    Attributes:
        rows: of the tensor, (rows, channels).
        matrix: of all layers, one below the other, (outputs, channels).
        outputs: rows · matrixᵀ.
    """

    rows: Floats
    matrix: Floats
    outputs: Floats

    def error(self, scale: Floats, extent: Extent) -> float:
        """Error of the outputs in int8, relative to each row's own size, mean over rows.

        Activations on a uint8 grid for the tensor, weights on an int8 grid per output. Relative to the
        row: behind a residual connection and a normalization, a row's size is lost again.

        Args:
            scale: s, (channels,).
            extent: what is to fit on the grid, before the division by s.
        """
        grid = asymmetric_grid(float((extent.low / scale).min()), float((extent.high / scale).max()))
        rows = grid.dequantize(grid.quantize(self.rows / scale))
        weights = symmetric_grid(self.matrix * scale, PerChannel(0))
        matrix = weights.dequantize(weights.quantize(self.matrix * scale))
        noise = np.square(rows @ matrix.T - self.outputs).sum(axis=1)
        signal = np.square(self.outputs).sum(axis=1)
        return float(np.divide(noise, signal, out=np.zeros_like(noise), where=signal > 0).mean())


@dataclass(frozen=True, slots=True)
class Smoothing:
    """What was found for one tensor.

    Attributes:
        choice: the best.
        scale: s, (channels,).
        before: error of the outputs without it.
        after: error with it.
    """

    choice: Choice
    scale: Floats
    before: float
    after: float


def search(layers: Product, halves: tuple[Extent, Extent]) -> Smoothing:
    """The choice with the least error: first φ, then α.

    Args:
        layers: what reads the tensor.
        halves: what its channels reach in either half of the samples: s from one is tried on the other.
    """
    weights = np.abs(layers.matrix).max(axis=0)

    def error(choice: Choice | None) -> float:
        scales = [choice.scale(half.magnitude, weights) if choice else np.ones_like(weights) for half in halves]
        return sum(layers.error(scale, unseen) for scale, unseen in zip(scales, reversed(halves), strict=True)) / 2

    by_floor = {choice: error(choice) for choice in (Choice(_STRENGTHS[0], floor) for floor in _FLOORS)}
    best = min(by_floor, key=by_floor.__getitem__)
    by_strength = {choice: error(choice) for choice in (replace(best, strength=a) for a in _STRENGTHS[1:])}
    found = by_strength | {best: by_floor[best]}
    best = min(found, key=found.__getitem__)
    return Smoothing(best, best.scale(halves[0].union(halves[1]).magnitude, weights), error(None), found[best])
