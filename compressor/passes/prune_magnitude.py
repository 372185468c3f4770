"""Set the smallest weights to zero, by magnitude.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks". ONNX Runtime
has no sparse kernels: zeros make nothing faster, and a dense file no smaller until it is compressed.
"""

import math
from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compressor.graph.model import Model
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats
from compressor.numerics.divergence import relative_error
from compressor.numerics.sparsity import Blocks, magnitude_threshold
from compressor.passes.base import Context, SparsePass
from compressor.report import Change, Finding, Skip


class PruneMagnitude(SparsePass):
    """Set the smallest weights to zero (unstructured). Saves nothing until the file is compressed."""

    type: Literal["prune_magnitude"] = "prune_magnitude"
    threshold: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="instead of sparsity: set to zero what is smaller than this"
    )
    scope: Literal["layer", "global"] = Field(
        default="layer", description="sparsity holds in every layer, or over all selected layers together"
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        placed = self.pattern is not None or self.block is not None
        if self.threshold is not None and self.sparsity is not None:
            raise ValueError("give sparsity or threshold, not both")
        if self.threshold is not None and placed:
            raise ValueError("a threshold decides on every weight alone; leave pattern and block out")
        if self.threshold is not None and self.scope == "global":
            raise ValueError("a threshold is the same in every layer; leave scope out")
        if self.scope == "global" and placed:
            raise ValueError("pattern and block hold in every layer; leave scope out")
        return self

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Set what is small to zero, layer by layer or below one common magnitude."""
        chosen, skips = self.sorted_out(model)
        yield from skips
        threshold = self._common_threshold(chosen)
        ties = self._ties(chosen, threshold)
        for weight in chosen:
            before = weight.matrix()
            after = self._pruned(before, threshold)
            if ties:
                equal = np.flatnonzero(np.abs(after) == threshold)[:ties]
                after.flat[equal] = 0
                ties -= len(equal)
            zeros = 1 - np.count_nonzero(after) / max(after.size, 1)
            if np.array_equal(before, after):
                yield Skip(weight.name, weight.layer, "nothing below the threshold that is not zero already")
                continue
            weight.store(after)
            error = relative_error(before, after)
            yield Change(
                weight.name, weight.layer, f"{zeros:.1%} zero", error, weight.nbytes, weight.nbytes, float(zeros)
            )

    def _common_threshold(self, weights: list[Weight]) -> float | None:
        """The magnitude to be kept at least, when it is the same for all layers."""
        if self.scope == "layer" or self.threshold is not None:
            return self.threshold
        return magnitude_threshold(lambda: (w.matrix() for w in weights), self.share)

    def _ties(self, weights: list[Weight], threshold: float | None) -> int:
        """How many of those that are exactly at the common magnitude have to go too."""
        if self.scope == "layer" or threshold is None or not math.isfinite(threshold):
            return 0
        size = sum(weight.matrix().size for weight in weights)
        below = sum(int(np.count_nonzero(np.abs(weight.matrix()) < threshold)) for weight in weights)
        return max(round(self.share * size) - below, 0)

    def _pruned(self, matrix: Floats, threshold: float | None) -> Floats:
        """`matrix` without what is below `threshold`, else without what is smallest."""
        magnitude, zeros = np.abs(matrix), self.zeros()
        if threshold is not None:
            kept = magnitude >= threshold
        else:
            kept = zeros.keep(np.square(magnitude) if isinstance(zeros, Blocks) else magnitude)
        return np.where(kept, matrix, np.float32(0))
