"""What becomes of a model when its images are smaller: whether it runs, what it costs, what it makes."""

from collections.abc import Iterator, Sequence
from math import gcd

from compressor.calibration.coding import Surroundings
from compressor.errors import CompressorError, PassError
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_tensors
from compressor.graph.resizing import (
    Image,
    Shapes,
    Size,
    follow,
    grow_back,
    pool_globally,
    shrink,
    sized,
)
from compressor.numerics.cubic import MOST_FILTERS
from compressor.runtime.macs import count_macs
from compressor.runtime.ort import Feeds, Session, reason_of
from compressor.runtime.shapes import observe_shapes

Sizes = tuple[Size, ...]
"""One for every image."""

LEAST = 0.5
"""Share of its sides that an image keeps."""


class Reduced:
    """A model with its images at other sizes.

    Args:
        model: it is not changed.
        images: of it, of fixed size, at least one.
        shapes: of its tensors on these feeds.
        feeds: one sample.
        context: where to execute it.
    """

    def __init__(
        self, model: Model, images: Sequence[Image], shapes: Shapes, feeds: Feeds, context: Surroundings
    ) -> None:
        self._model, self._images, self._shapes, self._feeds, self._context = model, images, shapes, feeds, context
        self._macs: dict[Sizes, int] = {}

    @property
    def whole(self) -> Sizes:
        """The sizes that the images have."""
        return tuple(image.size for image in self._images)

    def sizes(self, share: float, aligned: bool = True) -> Sizes:
        """The images with about this share of their sides.

        Args:
            share: of height and width.
            aligned: take sizes that the strides divide, where the images have such.
        """
        return tuple(_scaled(image, share, image.stride if aligned else 1) for image in self._images)

    def at(self, sizes: Sizes) -> Model:
        """A copy with its images at these sizes, and everything else that follows from it.

        Raises:
            PassError: the model cannot take them.
        """
        model = self._model.copy()
        pool_globally(model, self._shapes)
        shrink(model, list(zip(self._images, sizes, strict=True)))
        try:
            self._follow(model, sizes[0])
            now = observe_shapes(model, self._feeds, self._context.scratch)
        except CompressorError as error:
            raise PassError(
                f"a layer depends on the size of the image, and takes no {text_of(sizes)} in place of "
                f"{text_of(self.whole)}: {reason_of(error)}"
            ) from error
        for output in model.outputs():
            was, made = self._shapes.get(output.name, ()), now.get(output.name, ())
            if was == made:
                continue
            if len(was) != 4 or was[:2] != made[:2] or not output.dtype.startswith("float"):
                raise PassError(
                    f"output {output.name} becomes {list(made)} in place of {list(was)}, with images of "
                    f"{text_of(sizes)}; only maps of floats, (samples, channels, height, width), can be enlarged again"
                )
            grow_back(model, output.name, (was[2], was[3]))
        return model

    def macs(self, sizes: Sizes) -> int:
        """Multiply-accumulates of one sample.

        Raises:
            PassError: as `at`.
        """
        if sizes not in self._macs:
            model = self._model if sizes == self.whole else self.at(sizes)
            self._macs[sizes] = sum(count_macs(model, self._feeds, self._context.scratch).values())
        return self._macs[sizes]

    def largest(self, limit: float) -> list[Sizes]:
        """The largest sizes within a limit of multiply-accumulates: one that strides divide, and any.

        Raises:
            PassError: there is none, or the model takes none.
        """
        aligned = next((sizes for sizes in self._smaller(True) if self.macs(sizes) <= limit), None)
        between = (sizes for sizes in self._smaller(False) if aligned is None or sizes > aligned)
        larger = next((sizes for sizes in between if self._runs_within(sizes, limit)), None)
        found = [sizes for sizes in (aligned, larger) if sizes is not None]
        if not found:
            raise PassError(
                f"macs: {limit / self.macs(self.whole):.3g} is out of reach: at half the size "
                f"{self.macs(self.sizes(LEAST)) / self.macs(self.whole):.3g} of them are left"
            )
        return found

    def _smaller(self, aligned: bool) -> Iterator[Sizes]:
        """Down to half the sides; those that are not aligned as far as few filters make them."""
        image = self._images[0]
        stride, side = image.stride if aligned else 1, image.size[0]
        for number in range(-(-side // stride) - 1, -(-side // (2 * stride)) - 1, -1):
            if aligned or number // gcd(number, side) <= MOST_FILTERS:
                yield self.sizes(number * stride / side, aligned)

    def _runs_within(self, sizes: Sizes, limit: float) -> bool:
        try:
            return self.macs(sizes) <= limit
        except PassError:
            if self._images[0].stride == 1:
                raise
            return False

    def _follow(self, model: Model, size: Size) -> None:
        height, width = (to / side for to, side in zip(size, self.whole[0], strict=True))
        for node in sized(model):
            source = node.inputs[0]
            if source is not None and source.name:
                follow(node, self._shapes, self._shape(model, source.name), (height, width))

    def _shape(self, model: Model, name: str) -> tuple[int, ...]:
        """Of a tensor, whatever comes behind it."""
        file = self._context.scratch / "sized.onnx"
        with_tensors(model, (name,)).save(file)
        made = Session(file, self._context.threads).run(self._feeds)[VALUE + name]
        file.unlink()
        return made.shape


def _scaled(image: Image, share: float, stride: int) -> Size:
    height, width = (max(1, round(side * share / stride)) * stride for side in image.size)
    return height, width


def text_of(sizes: Sizes) -> str:
    """For messages."""
    return ", ".join(f"{height} × {width}" for height, width in sizes)
