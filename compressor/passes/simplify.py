"""Clean-up without loss: the same function in fewer nodes.

Constant folding, common subexpressions and fusion rules are onnxscript.optimizer's; the affine maps
per channel that it leaves beside a layer (Conv · Mul/Add, BatchNormalization · Conv, …) are folded
into the layer by the equations of `numerics/folding.py`. Einsum becomes the product that it is, which
other passes can work on.
"""

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar, Literal

from compressor.graph.model import Model
from compressor.graph.simplify import simplify
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding


class Simplify(Pass):
    """Fold constants and normalizations, Einsum as MatMul, drop what does nothing, merge duplicates. Loses nothing."""

    may_do_nothing: ClassVar[bool] = True

    type: Literal["simplify"] = "simplify"

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Fold and drop until nothing is left to do."""
        before, bytes_before = model.node_counts(), model.nbytes()
        for found in simplify(model):
            yield Change(found.layer, found.layer_type, found.detail)
        after, bytes_after = model.node_counts(), model.nbytes()
        gone = before - after
        if gone or bytes_after < bytes_before:
            yield Change("(graph)", "graph", _summary(before, gone), None, bytes_before, bytes_after)


def _summary(before: Counter[str], gone: Counter[str]) -> str:
    most = ", ".join(f"{count} {op_type}" for op_type, count in gone.most_common(4))
    rest = " …" if len(gone) > 4 else ""
    return f"{gone.total()} of {before.total()} nodes removed: {most}{rest}" if gone else "duplicate arrays merged"
