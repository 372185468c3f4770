"""Set weights to zero where the outputs of their layers miss them least, on calibration data.

With H = E[xxᵀ] over what a layer reads, the weights that are kept make up for those that are not
(`numerics/sparsifying.py`). ONNX Runtime has no sparse kernels: zeros make nothing faster, and a dense file no
smaller until it is compressed.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from compressor.calibration.moments import by_moments, seen
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.weights import Weight
from compressor.numerics.divergence import relative_error
from compressor.numerics.rounding import output_error
from compressor.numerics.sparsifying import activation_aware, second_order
from compressor.passes.base import Context, SparsePass
from compressor.report import Change, Finding


class PruneSecondOrder(SparsePass):
    """Set weights to zero, the others making up for them (unstructured). Saves nothing until the file is compressed."""

    type: Literal["prune_second_order"] = "prune_second_order"
    importance: Literal["second_order", "activation_aware"] = Field(
        default="second_order",
        description="second_order: what the others can best make up for goes, and they do; activation_aware: what is "
        "small times the size of its input goes, and nothing else changes",
    )

    @property
    def needs_calibration(self) -> bool:
        """Always."""
        return True

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Watch what layers read, and set their weights to zero one layer after the other."""
        chosen, skips = self.sorted_out(model)
        yield from skips
        if context.calibration is None:
            raise PassError("needs data.calibration, to see what layers read")
        data, scratch, progress, threads = context.calibration, context.scratch, context.progress, context.threads
        prune = second_order if self.importance == "second_order" else activation_aware
        for weight, source, moments in by_moments(model, chosen, data, scratch, progress, threads):
            before = weight.matrix()
            grouped = before.reshape(source.groups, -1, before.shape[1])
            found = prune(grouped, moments, self.zeros())
            after = found.reshape(before.shape)
            weight.store(after)
            zeros = 1 - np.count_nonzero(after) / max(after.size, 1)
            missed = output_error(grouped, found, moments)
            detail = f"{zeros:.1%} zero, output error {missed:.1%}"
            error, size = relative_error(before, after), weight.nbytes
            yield Change(weight.name, weight.layer, detail, error, size, size, float(zeros))

    def refusal(self, weight: Weight) -> str | None:
        """As for every zero; and what the layer reads must be seen."""
        if seen(weight) is None:
            return "what it reads cannot be seen as rows; use prune_magnitude"
        return super().refusal(weight)
