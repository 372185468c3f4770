"""Remove whole residual blocks and sublayers of transformers: those whose absence the outputs miss least.

A block adds something to its input, y = x + f(x) (`graph/blocks.py`); without it, what follows reads x. Every block is
left out alone and the drift of the model's outputs is measured; the least missed goes, and the next is the one that is
missed least beside those that are gone. What is left is fitted anew by least squares to what the model made before
(`calibration/repair.py`).
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compressor.calibration.repair import fits, repair
from compressor.data import held_out
from compressor.errors import PassError
from compressor.evaluate.judge import Judge
from compressor.graph.blocks import Block, Shapes, find_blocks, remove_block
from compressor.graph.model import Model
from compressor.graph.select import Selectors
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Note, Skip
from compressor.runtime.shapes import observe_shapes


class PruneBlocks(Pass):
    """Remove whole residual blocks and attention or feed-forward sublayers. Give blocks or drift."""

    type: Literal["prune_blocks"] = "prune_blocks"
    blocks: Annotated[int, Field(ge=1)] | None = Field(default=None, description="how many to remove")
    drift: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="instead: as many as go before the outputs drift further than this on calibration data: KL "
        "divergence of class scores, else the share of noise in the power of the outputs; before any repair",
    )
    repair: bool = Field(
        default=True, description="fit the layers that are left to what the model made before, on calibration data"
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.blocks is None) == (self.drift is None):
            raise ValueError("give one of blocks and drift, for example blocks: 2")
        return self

    @property
    def needs_calibration(self) -> bool:
        """Always."""
        return True

    def apply(self, model: Model, context: Context) -> Iterator[Finding | Note]:
        """Try every block, and remove those that are missed least."""
        if context.calibration is None:
            raise PassError("needs data.calibration, to measure what the outputs miss")
        shapes = observe_shapes(model, context.feeds(), context.scratch)
        found = {block.key: block for block in find_blocks(model, shapes) if self._selected(block)}
        if not found:
            return
        judge = Judge(context.reference, held_out(context.calibration)[1], context.scratch, context.threads)
        alone = {
            key: judge.drift(_without(model, key, shapes))
            for key in context.progress.track(found, "blocks", len(found))
        }
        before, names = model.copy(), {key: block.name for key, block in found.items()}
        removed = self._remove(model, dict(alone), judge, shapes)
        if self.repair and removed:
            list(repair(model, before, fits(model, {}, shapes), context))
        for key, name in names.items():
            if key in removed:
                yield Change(name, "block", removed[key])
            else:
                yield Skip(name, "block", "the outputs miss others less")
        if len(removed) < (self.blocks or 0):
            yield Note(f"{self.type}: {len(removed)} of {self.blocks} blocks are removed: no others are left")

    def _remove(self, model: Model, missed: dict[str, float], judge: Judge, shapes: Shapes) -> dict[str, str]:
        """Take blocks out, each time the one that is missed least beside those that are gone.

        Args:
            missed: key -> drift of the outputs without that block; with others gone it is rarely less, so
                that only those that may be next are measured again.

        Returns:
            The blocks in the order in which they went -> what went, and the drift from then on.
        """
        removed: dict[str, str] = {}
        measured = set(missed)
        while missed and (self.blocks is None or len(removed) < self.blocks):
            there = {block.key: block for block in find_blocks(model, shapes)}
            missed = {key: drift for key, drift in missed.items() if key in there}
            while missed and (key := min(missed, key=lambda key: missed[key])) not in measured:
                missed[key] = judge.drift(_without(model, key, shapes))
                measured.add(key)
            if not missed or (self.drift is not None and missed[key] > self.drift):
                break
            layers = len(there[key].weights)
            remove_block(model, key, shapes)
            removed[key] = f"removed with {layers} layers; until then the outputs drift by {missed.pop(key):.3g}"
            measured = set()
        return removed

    def _selected(self, block: Block) -> bool:
        layers = [(weight.names, weight.layer) for weight in block.weights]
        wanted = any(Selectors(self.targets).match(*layer) for layer in layers)
        return wanted and all(Selectors((), self.ignore).match(*layer) for layer in layers)


def _without(model: Model, key: str, shapes: Shapes) -> Model:
    """A copy without a block."""
    trial = model.copy()
    remove_block(trial, key, shapes)
    return trial
