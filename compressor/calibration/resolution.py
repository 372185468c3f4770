"""What becomes of a model when its images are smaller: whether it runs, what it costs, what it makes."""

from collections.abc import Callable, Sequence
from functools import partial

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
        images: of it, at least one.
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
        if all(image.fixed for image in self._images):
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
            if len(was) != 4 or was[:2] != made[:2]:
                raise PassError(
                    f"output {output.name} becomes {list(made)} in place of {list(was)}, with images of "
                    f"{text_of(sizes)}; only maps, (samples, channels, height, width), can be enlarged again"
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
        found = []
        for aligned in (True, False):
            sizes = self._smaller(aligned)
            must_run = aligned or sizes == self._smaller(True)
            within = _last(sizes, partial(self._costs_within, limit=limit, must_run=must_run))
            found += [within] if within is not None and within not in found else []
        if not found:
            half = self.macs(self.sizes(LEAST)) / self.macs(self.whole)
            raise PassError(
                f"macs: {limit / self.macs(self.whole):.3g} is out of reach: at half the size {half:.3g} are left"
            )
        return found

    def _smaller(self, aligned: bool) -> list[Sizes]:
        """From half the sides on."""
        image = self._images[0]
        stride, side = image.stride if aligned else 1, image.size[0]
        shares = (number * stride / side for number in range(-(-side // (2 * stride)), -(-side // stride)))
        return list(dict.fromkeys(self.sizes(share, aligned) for share in shares))

    def _costs_within(self, sizes: Sizes, limit: float, must_run: bool) -> bool:
        try:
            return self.macs(sizes) <= limit
        except PassError:
            if must_run:
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


def _last(sizes: Sequence[Sizes], within: Callable[[Sizes], bool]) -> Sizes | None:
    """The last of those that hold, when they do up to some place."""
    low, high = 0, len(sizes)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if within(sizes[middle]) else (low, middle)
    return sizes[low - 1] if low else None


def text_of(sizes: Sizes) -> str:
    """For messages."""
    return ", ".join(f"{height} × {width}" for height, width in sizes)
