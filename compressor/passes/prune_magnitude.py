"""Set the smallest weights to zero, by magnitude.

Han et al. 2015, "Learning both Weights and Connections for Efficient Neural Networks". ONNX Runtime
has no sparse kernels: zeros make nothing faster, and a dense file no smaller until it is compressed.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compressor.graph.model import Model
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats
from compressor.numerics.divergence import relative_error
from compressor.numerics.sparsity import keep_largest, magnitude_threshold
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip


class PruneMagnitude(Pass):
    """Set the smallest weights to zero (unstructured). Saves nothing until the file is compressed."""

    type: Literal["prune_magnitude"] = "prune_magnitude"
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None, description="share of weights to set to zero; 0.5 when threshold is left out too"
    )
    threshold: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="instead: set to zero what is smaller than this"
    )
    scope: Literal["layer", "global"] = Field(
        default="layer", description="sparsity holds in every layer, or over all selected layers together"
    )

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.sparsity is not None and self.threshold is not None:
            raise ValueError("give sparsity or threshold, not both")
        if self.threshold is not None and self.scope == "global":
            raise ValueError("a threshold is the same in every layer; leave scope out")
        return self

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Set what is small to zero, layer by layer or below one common magnitude."""
        found = list(model.weights(self.selectors))
        yield from (Skip(w.name, w.layer, "its weights are float64, which this would round") for w in found if _wide(w))
        weights = [weight for weight in found if not _wide(weight)]
        threshold = self._common_threshold(weights)
        for weight in weights:
            before = weight.matrix()
            after = _pruned(before, self._sparsity, threshold)
            zeros = 1 - np.count_nonzero(after) / max(after.size, 1)
            if np.array_equal(before, after):
                yield Skip(weight.name, weight.layer, "nothing below the threshold")
                continue
            weight.store(after)
            error = relative_error(before, after)
            yield Change(
                weight.name, weight.layer, f"{zeros:.1%} zero", error, weight.nbytes, weight.nbytes, float(zeros)
            )

    @property
    def _sparsity(self) -> float:
        return 0.5 if self.sparsity is None else self.sparsity

    def _common_threshold(self, weights: list[Weight]) -> float | None:
        """The magnitude to be kept at least, when it is the same for all layers."""
        if self.scope == "layer" or self.threshold is not None:
            return self.threshold
        return magnitude_threshold(lambda: (w.matrix() for w in weights), self._sparsity)


def _wide(weight: Weight) -> bool:
    return weight.dtype == "float64"


def _pruned(matrix: Floats, sparsity: float, threshold: float | None) -> Floats:
    """`matrix` without what is below `threshold`, else without a share `sparsity` of it."""
    magnitude = np.abs(matrix)
    kept = keep_largest(magnitude, sparsity) if threshold is None else magnitude >= threshold
    return np.where(kept, matrix, np.float32(0))
