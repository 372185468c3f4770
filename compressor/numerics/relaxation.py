"""Weights on their way between two neighbouring levels, for rounding that is learned.

Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization": every weight is low + h · gap,
with a share h in [0, 1] that ends at one of both. The two levels here are the one that a weight has been rounded to
and the next one towards the weight as it was, so that what is learned starts from any rounding, and can stay there.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import Floats
from compressor.numerics.levels import Coded, Codes
from compressor.numerics.sparsity import kept_of


@dataclass(frozen=True, slots=True)
class Between:
    """Two neighbouring levels for every weight, all arrays (outputs, inputs).

    Attributes:
        codes: of the lower level.
        low: what that stands for.
        gap: from there to the upper level, in the same units; 0 where a step is 0, and at zeros that stay.
        share: of the gap at which the weight was, before it was rounded, 0 … 1.
    """

    codes: Codes
    low: Floats
    gap: Floats
    share: Floats

    def settled(self, up: NDArray[np.bool_]) -> Codes:
        """The codes where some weights go to their upper level and the others to their lower one."""
        return (self.codes + (up & (self.gap > 0))).astype(np.int8)


def between(coded: Coded, weights: Floats) -> Between:
    """What every weight may become; those that were pruned stay zero.

    Args:
        coded: what it has been rounded to.
        weights: what it was, (outputs, inputs), or narrower than the codes.
    """
    inputs = weights.shape[1]
    codes, levels = coded.codes[:, :inputs], coded.levels
    steps, zeros = (array[:, :inputs] for array in coded.per_weight())

    def real(at: Codes) -> Floats:
        found: Floats = (levels.of(at).astype(np.float32) - zeros) * steps
        return found

    down = weights < real(codes)
    low = np.clip(codes - down.astype(np.int16), levels.low, levels.high - 1).astype(np.int8)
    bottom = real(low)
    gap = real((low + 1).astype(np.int8)) - bottom
    kept = None if levels.odd else kept_of(weights)
    if kept is not None:
        low, bottom, gap = np.where(kept, low, codes), np.where(kept, bottom, real(codes)), np.where(kept, gap, 0)
    share = np.divide(weights - bottom, gap, out=np.zeros_like(bottom), where=gap > 0)
    return Between(low, bottom, gap, np.clip(share, 0, 1))
