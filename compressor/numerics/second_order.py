"""What is done to one input of a layer is made up for by the weights of the inputs still to come.

With H = E[xxᵀ] over the inputs x of a layer and U upper, UᵀU = H⁻¹, a weight w_j that becomes q_j leaves

    e = (w_j - q_j) / U_jj,    w_k ← w_k - e U_jk    for k > j

(Frantar et al. 2022, "GPTQ"; Frantar & Alistarh 2023, "SparseGPT"; after Hassibi & Stork 1993, "Optimal Brain
Surgeon"). Whether q_j is a level of a grid or zero is up to the caller.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Doubles

DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it."""


def damped_moments(moments: Doubles) -> tuple[Doubles, NDArray[np.bool_]]:
    """H made well conditioned, and which inputs are ever anything but 0."""
    diagonal = np.einsum("gii->gi", moments)
    live = diagonal > 0
    mean = diagonal.mean(axis=1, keepdims=True)
    damped = moments + np.eye(moments.shape[1]) * np.where(mean > 0, DAMPING * mean, 1.0)[..., None]
    return damped, live


def inverse_factor(moments: Doubles) -> Doubles:
    """U, upper, with UᵀU = H⁻¹, of every group: (groups, inputs, inputs)."""
    return np.linalg.cholesky(np.linalg.inv(moments)).swapaxes(1, 2).astype(np.float64)


def compensate(
    columns: Doubles, moments: Doubles, settle: Callable[[int], Doubles], at_once: int, upper: Doubles | None = None
) -> None:
    """Settle the inputs in order; `columns` ends as what they were when their turn came.

    Args:
        columns: weights, (groups, inputs, rows), changed in place.
        moments: H, (groups, inputs, inputs), well conditioned.
        settle: what the weights of an input become, (groups, rows); it finds them, and `at_once` inputs ahead within
            a multiple of it, as they are by then.
        at_once: inputs between two updates of all that are still to come.
        upper: U, where it is known already.
    """
    inputs = columns.shape[1]
    factor = inverse_factor(moments) if upper is None else upper
    for start in range(0, inputs, at_once):
        stop = min(start + at_once, inputs)
        errors = np.empty_like(columns[:, start:stop])
        for j in range(start, stop):
            settled = settle(j)
            errors[:, j - start] = (columns[:, j] - settled) / factor[:, j, j, None]
            columns[:, j + 1 : stop] -= factor[:, j, j + 1 : stop, None] * errors[:, None, j - start]
        columns[:, stop:] -= factor[:, start:stop, stop:].swapaxes(1, 2) @ errors
