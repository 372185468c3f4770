"""From stored numbers to what a model was trained on; the same for every user of a recipe."""

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field

from compressor.data.base import Array, Settings
from compressor.errors import DataError
from compressor.graph.model import TensorSpec


def _sequence(value: object) -> object:
    return (value,) if isinstance(value, (int, float)) else value


def _positive(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(v <= 0 for v in values):
        raise ValueError("every entry must be greater than 0")
    return values


Numbers = Annotated[
    tuple[float, ...],
    BeforeValidator(_sequence, json_schema_input_type=float | tuple[float, ...]),
]
"""Some numbers, or a single one."""

Scales = Annotated[Numbers, AfterValidator(_positive)]
"""Numbers above 0."""


class Normalization(Settings):
    """x -> (x · scale - mean) / std, and the order of axes.

    Applied to float inputs only. `mean` and `std` hold one number, or one per channel.
    """

    scale: float = Field(default=1.0, description="multiplies stored values; images are 1/255 without it")
    mean: Numbers = Field(default=(), description="subtracted after scaling; one, or one per channel")
    std: Scales = Field(default=(), description="divides after that; one, or one per channel")
    layout: Literal["keep", "nhwc_to_nchw", "nchw_to_nhwc"] = Field(
        default="keep", description="order of axes: as stored, or moved"
    )

    def apply(self, array: Array, spec: TensorSpec, place: str) -> Array:
        """The feed for input `spec`, of its float type; arrays for integer inputs only change layout.

        Raises:
            DataError: `mean` or `std` do not fit the channels.
        """
        moved = _moved(array, self.layout)
        if not np.issubdtype(np.dtype(spec.dtype), np.floating):
            return moved
        if not np.issubdtype(moved.dtype, np.number):
            return moved
        untouched = self.scale == 1 and not self.mean and not self.std
        if untouched and np.issubdtype(moved.dtype, np.floating):
            return moved
        real = moved.astype(np.float32) * np.float32(self.scale)
        channel = 1 if self.layout != "nchw_to_nhwc" and real.ndim > 2 else real.ndim - 1
        for field, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, 1, real.shape[channel] if real.ndim else 1):
                raise DataError(
                    f"{place}: {field} has {len(values)} entries, input {spec.name} {real.shape[channel]} channels"
                )
        return (real - _along(self.mean or (0.0,), real.ndim, channel)) / _along(self.std or (1.0,), real.ndim, channel)


def _along(values: tuple[float, ...], ndim: int, axis: int) -> NDArray[np.float32]:
    shape = [1] * ndim
    shape[axis:] = [len(values), *shape[axis + 1 :]]
    return np.asarray(values, np.float32).reshape(shape)


def _moved(array: Array, layout: str) -> Array:
    match layout:
        case "nhwc_to_nchw":
            return np.moveaxis(array, -1, -array.ndim + 1)
        case "nchw_to_nhwc":
            return np.moveaxis(array, -array.ndim + 1, -1)
    return array
