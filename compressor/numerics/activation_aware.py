"""Inputs that matter get finer steps: activation-aware scaling of weights.

Lin et al. 2023, "AWQ: Activation-aware Weight Quantization": before a weight is rounded, the columns that
large activations multiply are scaled up, and the activations down by as much,

    W x = (W S) (S⁻¹ x),    S = diag(s),    s_j = E[x_j²]^(strength / 2),

so that their rounding error shrinks against that of the others. The strength is the one with the least
error of the layers' outputs, tr((Q S⁻¹ - W) H (Q S⁻¹ - W)ᵀ), over a grid that includes 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.rounding import output_error
from compressor.numerics.schemes import Scheme, encode

_STRENGTHS = np.linspace(0, 1, 11)
_FLOOR = 1e-3
"""Least E[x_j²] as a share of the mean: inputs that are nearly always 0 are not scaled without end."""


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """What was found for the layers that read one tensor.

    Attributes:
        scale: s, (inputs,), with geometric mean 1.
        strength: of the scaling; 0 when none is better.
        before: noise power of the outputs over their signal power without scaling, summed over the layers.
        after: the same with it.
    """

    scale: Floats
    strength: float
    before: float
    after: float


def search(matrices: Sequence[Floats], schemes: Sequence[Scheme], moments: Doubles) -> Scaling:
    """The scaling of least error for layers that multiply the same inputs.

    Args:
        matrices: of the layers, each (outputs, inputs).
        schemes: how each is to be coded.
        moments: H = E[xxᵀ], (inputs, inputs).
    """
    power = np.diag(moments)
    floored = np.maximum(power, _FLOOR * power.mean() if power.any() else 1.0)
    found = []
    for strength in _STRENGTHS:
        exponents = strength / 2 * (np.log(floored) - np.log(floored).mean())
        scale = np.exp(exponents).astype(np.float32)
        error = sum(_error(m, s, scale, moments) for m, s in zip(matrices, schemes, strict=True))
        found.append(Scaling(scale, float(strength), 0.0, error))
    best = min(found, key=lambda scaling: scaling.after)
    return Scaling(best.scale, best.strength, found[0].after, best.after)


def _error(matrix: Floats, scheme: Scheme, scale: Floats, moments: Doubles) -> float:
    rounded = encode(matrix * scale, scheme).dequantize()[:, : matrix.shape[1]] / scale
    return output_error(matrix[None], rounded[None], moments[None])
