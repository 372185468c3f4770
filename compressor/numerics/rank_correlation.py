"""Whether two lists of numbers put their items in the same order.

Spearman 1904, "The Proof and Measurement of Association between Two Things": the correlation of ranks,

    ρ = Σ (r - r̄)(s - s̄) / √(Σ (r - r̄)² · Σ (s - s̄)²)

with r and s the ranks in both lists; equal values share the mean of the ranks they take up.
"""

import numpy as np

from compressor.numerics.affine import Doubles


def spearman(a: Doubles, b: Doubles) -> float:
    """ρ of two lists of one length, -1 … 1; NaN where one of them is constant, empty or holds NaN."""
    if not a.size or np.isnan(a).any() or np.isnan(b).any():
        return float("nan")
    r, s = ranks(a), ranks(b)
    r, s = r - r.mean(), s - s.mean()
    spread = float(np.sqrt((r @ r) * (s @ s)))
    return float(r @ s) / spread if spread else float("nan")


def ranks(values: Doubles) -> Doubles:
    """Place of each value in ascending order, from 1; equal values take the mean of their places."""
    _, position, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    places: Doubles = (last - (counts - 1) / 2)[position]
    return places
