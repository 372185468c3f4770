"""The same model in a smaller file: short names, no notes."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from compressor.graph.compact import compute_bias_scales, shorten
from compressor.graph.model import Model
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding


class Compact(Pass):
    """Shorten inner names and drop notes: tens of kilobytes, which counts in models below a megabyte. Goes last."""

    may_do_nothing: ClassVar[bool] = True

    type: Literal["compact"] = "compact"

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Rename, and leave out what can be computed; what the model computes does not change."""
        saved, shortened = compute_bias_scales(model), shorten(model)
        if saved:
            yield Change("(graph)", "graph", "scales of biases are computed at load", None, saved, 0)
        if shortened:
            yield Change("(graph)", "graph", f"{shortened} names shortened or dropped")
