"""Weights set to zero so that the output of their layer errs least: pruning to second order.

Frantar & Alistarh 2023, "SparseGPT": inputs are settled in order (`numerics/second_order.py`), a mask is chosen for a
few at a time by w_j² / U_jj², the error that setting w_j to zero leaves behind, and what is kept makes up for it. As in
rounding, what the greedy order leaves is taken by coordinate descent among the weights that were kept.

Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models" ("Wanda"): the smallest
|w_j| · √E[x_j²] of every row go, and nothing else changes.

All functions take the weights of a layer as (groups, rows, inputs) and H = E[xxᵀ] as (groups, inputs, inputs).
"""

import numpy as np

from compressor.numerics.affine import Doubles, Floats
from compressor.numerics.second_order import compensate, damped_moments, inverse_factor
from compressor.numerics.sparsity import Blocks, Mask, NOfM, Pattern, Unstructured, keep_largest

_AT_ONCE = 128
"""Inputs whose mask is chosen together, where the pattern does not say."""

_SWEEPS = 10
"""Rounds of coordinate descent; further ones change little."""


def second_order(weights: Floats, moments: Doubles, zeros: Pattern) -> Floats:
    """The weights that are kept, made up for those that are not; zero elsewhere.

    Args:
        weights: (groups, rows, inputs).
        moments: H, (groups, inputs, inputs).
        zeros: which weights go; a share of them holds in every 128 inputs, or as many as whole blocks take.
    """
    damped, live = damped_moments(moments)
    columns = np.where(live[..., None], weights.swapaxes(1, 2), 0).astype(np.float64)
    upper = inverse_factor(damped)
    diagonal = np.einsum("gii->gi", upper)
    mask = np.ones(columns.shape, np.bool_)
    width = zeros.m if isinstance(zeros, NOfM) else zeros.columns if isinstance(zeros, Blocks) else 1
    together = width if isinstance(zeros, NOfM) else max(_AT_ONCE // width, 1) * width

    def settle(j: int) -> Doubles:
        if j % together == 0:
            ahead = slice(j, j + together)
            scores = np.square(columns[:, ahead] / diagonal[:, ahead, None]).swapaxes(1, 2).astype(np.float32)
            mask[:, ahead] = np.stack([zeros.keep(group) for group in scores]).swapaxes(1, 2)
        return np.where(mask[:, j], columns[:, j], 0.0)

    compensate(columns, damped, settle, max(_AT_ONCE // together, 1) * together, upper)
    kept = np.where(mask, columns, 0.0).swapaxes(1, 2)
    return _descended(kept, mask.swapaxes(1, 2), weights.astype(np.float64), damped).astype(np.float32)


def activation_aware(weights: Floats, moments: Doubles, zeros: Pattern) -> Floats:
    """The weights that are kept, as they were; zero elsewhere.

    Args:
        weights: (groups, rows, inputs).
        moments: H, (groups, inputs, inputs).
        zeros: which weights go; a plain share of them holds in every row.
    """
    norms = np.sqrt(np.einsum("gii->gi", moments)).astype(np.float32)
    scores = np.abs(weights) * norms[:, None]
    if isinstance(zeros, Unstructured):
        mask = np.stack([keep_largest(row, zeros.sparsity) for row in scores.reshape(-1, scores.shape[2])])
    else:
        mask = np.stack([zeros.keep(group) for group in scores])
    return np.where(mask.reshape(weights.shape), weights, np.float32(0))


def _descended(kept: Doubles, mask: Mask, weights: Doubles, moments: Doubles) -> Doubles:
    """Each weight that is kept set to what is best given all others, again and again."""
    found = kept.copy()
    gradient = (weights - found) @ moments
    for _ in range(_SWEEPS):
        for i in range(found.shape[2]):
            step = np.where(mask[:, :, i], gradient[:, :, i] / moments[:, None, i, i], 0.0)
            found[:, :, i] += step
            gradient -= step[..., None] * moments[:, None, i]
    return found
