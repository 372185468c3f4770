"""Outliers of activations moved into the weights that read them: for transformers, before quantization.

Xiao et al. 2022, "SmoothQuant", with the strength chosen for every tensor by the error of its layers in int8
on held-out ranges (`numerics/smoothing.py`). The division goes into the normalization or the layer in front
where nothing else reads the tensor; otherwise into a multiplication per channel, which takes little time
(1 to 3 % of MiniLM) and is therefore only written where the error at least halves. The function that the
model computes in float stays the same.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from pydantic import Field

from compressor.calibration.channels import ChannelStatistic, collect_channels
from compressor.errors import PassError
from compressor.graph.chains import Channels, Maker, read_together, reading_refusal
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.graph.weights import Weight
from compressor.numerics.smoothing import Product, Smoothing, search
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip

_WORTH_A_MULTIPLICATION, _WORTH_IT = 0.5, 0.9
"""Share of the error that may be left, where there is an extra multiplication and where there is none."""


class Smooth(Pass):
    """SmoothQuant: move outliers of activations into the weights of MatMul and Gemm; loses nothing by itself."""

    type: Literal["smooth"] = "smooth"
    explicit: bool = Field(
        default=True,
        description="write a multiplication per channel where no layer in front can take up the division and it "
        "at least halves the error; otherwise such layers are left alone",
    )

    @property
    def needs_calibration(self) -> bool:
        """Always."""
        return True

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Group the layers by what they read, and smooth each tensor for all of its readers at once."""
        yield from (Skip(*found) for found in set_aside(model))
        chosen: list[Weight] = []
        for weight in model.weights(self.selectors):
            reason = _refusal(weight)
            if reason is None:
                chosen.append(weight)
            else:
                yield Skip(weight.name, weight.layer, reason)
        groups = read_together(chosen)
        statistics = _statistics(model, groups, context) if groups else {}
        for channels in groups:
            yield from self._smooth(channels, statistics[channels.tensor])
        settle(model.ir)

    def _smooth(self, channels: Channels, seen: ChannelStatistic) -> Iterator[Finding]:
        maker = channels.maker()
        if isinstance(maker, str) and not self.explicit:
            return _skipped(channels, f"{maker}; explicit: true would multiply in front of it")
        if not len(seen.rows):
            return _skipped(channels, "its input was empty on all samples")
        return _smoothed(channels, maker, search(_product(channels, seen), seen.halves))


def _refusal(weight: Weight) -> str | None:
    if weight.layer not in ("MatMul", "Gemm"):
        return f"{weight.layer} is not smoothed, only MatMul and Gemm are"
    if weight.in_subgraph:
        return "inside a branch of If or the body of Loop, where activations cannot be observed yet"
    return reading_refusal(weight)


def _statistics(model: Model, groups: list[Channels], context: Context) -> dict[str, ChannelStatistic]:
    if context.calibration is None:
        raise PassError("smooth: needs data.calibration, to see which channels of the activations are large")
    tensors = tuple(dict.fromkeys(channels.tensor for channels in groups))
    return collect_channels(model, tensors, context.calibration, context.scratch, context.progress, context.threads)


def _product(channels: Channels, seen: ChannelStatistic) -> Product:
    matrix = np.concatenate([weight.matrix() for weight in channels.readers])
    return Product(seen.rows, matrix, seen.rows @ matrix.T)


def _smoothed(channels: Channels, maker: Maker | str, found: Smoothing) -> Iterator[Finding]:
    """Write what was found, if it is worth it."""
    errors = f"error {found.before:.2g} -> {found.after:.2g}"
    if isinstance(maker, Maker):
        worth, place, divide, idle = _WORTH_IT, f"divided in {maker.name}", maker.divide, "no gain"
    else:
        worth, place, divide = _WORTH_A_MULTIPLICATION, "multiplied in front", channels.divide_in_front
        idle = "not worth a multiplication"
    if found.after > worth * found.before:
        yield from _skipped(channels, f"{idle} ({errors})")
        return
    divide(found.scale)
    channels.multiply(found.scale)
    for weight in channels.readers:
        yield Change(weight.name, weight.layer, f"strength {found.choice.strength:g}, {place}, {errors}")


def _skipped(channels: Channels, reason: str) -> Iterator[Finding]:
    return (Skip(weight.name, weight.layer, reason) for weight in channels.readers)
