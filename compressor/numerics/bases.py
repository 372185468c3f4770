"""A basis for what several layers read, of which the last vectors are missed least.

With H = E[xxᵀ] = L Lᵀ and A the sum of WᵀW over the layers, each beside the power of its output, the error
Σ‖W(x - x̂)‖² of x̂ in n dimensions is least where these are the first n columns of T = L U, with the eigenvectors U of
Lᵀ A L in falling order. It is the whitened truncation of Wang et al. 2024, "SVD-LLM", for several layers at once;
Ashkboos et al. 2024, "SliceGPT", turn the residual stream of transformers in this way, with A = 1. The coordinates
z = T⁻¹x are uncorrelated and all of power one, so that a quantizer with one scale suits all of them.
"""

from collections.abc import Sequence

import numpy as np

from compressor.numerics.affine import Doubles

_DAMPING = 1e-6
"""Share of the mean square that is added, so that what is always zero has a place too."""


def least_missed_last(weights: Sequence[Doubles], moments: Sequence[Doubles]) -> tuple[Doubles, Doubles] | None:
    """T and its inverse; None where there is nothing to go by.

    Args:
        weights: W of every layer, (outputs, inputs).
        moments: H of what each reads, (inputs, inputs).
    """
    powers = [float(np.einsum("oi,ij,oj->", w, h, w, optimize=True)) for w, h in zip(weights, moments, strict=True)]
    own = np.mean(moments, axis=0)
    mean = float(np.trace(own)) / len(own)
    if mean <= 0 or min(powers) <= 0:
        return None
    root = np.linalg.cholesky(own + _DAMPING * mean * np.eye(len(own)))
    asked = np.sum([w.T @ w / power for w, power in zip(weights, powers, strict=True)], axis=0)
    vectors = np.linalg.eigh(root.T @ asked @ root)[1][:, ::-1]
    inverse = np.linalg.solve(root.T, vectors).T
    return (root @ vectors).astype(np.float64), inverse.astype(np.float64)
