"""Let a convolutional network work on a smaller image than it is given: fewer positions, the same weights.

Width, depth and resolution are what such a network is scaled by (Tan and Le 2019, "EfficientNet"), and resolution is
often what is missed least (Han et al. 2020, "Model Rubik's Cube: Twisting Resolution, Depth and Width for TinyNets").
Inputs and outputs stay what they are: the image is resized in the graph, where convolutions are first to read it.
"""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compressor.calibration.resolution import LEAST, Reduced, Sizes, text_of
from compressor.data import held_out
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.resizing import Image, find_images
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip
from compressor.runtime.shapes import observe_shapes


class ReduceResolution(Pass):
    """Work on smaller images than are given: fewer MACs, the same weights. Give macs or sides."""

    type: Literal["reduce_resolution"] = "reduce_resolution"
    macs: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="multiply-accumulates to keep, at most, as a share of what the model has at this point; of the "
        "sizes that keep within it, the one is taken that the outputs miss least",
    )
    sides: Annotated[float, Field(ge=LEAST, lt=1)] | None = Field(
        default=None,
        description="instead: share of height and width to keep; sizes that the strides of the model divide cost least",
    )

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.macs is None) == (self.sides is None):
            raise ValueError("give one of macs and sides, for example macs: 0.75")
        return self

    @property
    def needs_calibration(self) -> bool:
        """To choose among sizes."""
        return self.macs is not None

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Find the images, choose their sizes, and let everything follow."""
        feeds = context.feeds()
        shapes = observe_shapes(model, feeds, context.scratch)
        images = []
        for image in find_images(model, shapes):
            if not image.fixed:
                yield Skip(image.tensor, "image", "may have any size: feed smaller images, or fix its size in the file")
            elif any(self.selectors.match((name,), layer) for name, layer in image.readers):
                images.append(image)
            else:
                yield Skip(image.tensor, "image", "targets and ignore leave out all layers that read it")
        if images:
            yield from self._reduce(model, images, Reduced(model.copy(), images, shapes, feeds, context), context)

    def _reduce(self, model: Model, images: list[Image], reduced: Reduced, context: Context) -> Iterator[Finding]:
        sizes = self._chosen(model, reduced, context)
        share = reduced.macs(sizes) / reduced.macs(reduced.whole)
        if share >= 1:
            raise PassError(
                f"with {text_of(sizes)} in place of {text_of(reduced.whole)} the MACs are {share:.2f} times as many, "
                "those for resizing included; take sizes with a large common divisor, or leave this pass out"
            )
        model.ir = reduced.at(sizes).ir
        for image, (height, width) in zip(images, sizes, strict=True):
            detail = f"{image.size[0]} × {image.size[1]} → {height} × {width}; {share:.1%} of the MACs are left"
            yield Change(image.tensor, "image", detail)

    def _chosen(self, model: Model, reduced: Reduced, context: Context) -> Sizes:
        """Those that are asked for, or those within the budget with which the outputs drift least."""
        if self.sides is not None:
            sizes = reduced.sizes(self.sides, aligned=False)
            if sizes == reduced.whole:
                raise PassError(f"sides: {self.sides} of {text_of(sizes)} is as large as it was; give less")
            return sizes
        found = reduced.largest((self.macs or 1.0) * reduced.macs(reduced.whole))
        if len(found) == 1 or context.calibration is None:
            return found[0]
        judge = context.judge_from(model, held_out(context.calibration)[1])
        return min(found, key=lambda sizes: judge.drift(reduced.at(sizes)))
