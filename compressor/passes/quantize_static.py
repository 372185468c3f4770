"""Weights and activations in int8, ranges fixed beforehand from sample data.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference". The one combination that is fast on x86: activations in uint8 with a free zero point,
weights in int8 with zero point 0 and one scale per output channel, bias in int32 at exactly
x_scale · w_scale. It is written as Q/DQ pairs, placed where ONNX Runtime fuses them to integer
kernels (`graph/regions.py`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from compressor.calibration import Observer, collect_ranges
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.quantize import (
    StaticPlan,
    bias_of,
    insert_activations,
    insert_bias,
    insert_weight,
    plan_static,
)
from compressor.graph.refusals import already_quantized, static_refusal
from compressor.graph.weights import Use, Weight
from compressor.numerics.affine import (
    Floats,
    Granularity,
    Grid,
    PerChannel,
    PerTensor,
    asymmetric_grid,
    least_weight_scale,
    quantize_bias,
    symmetric_grid,
)
from compressor.numerics.divergence import relative_error
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip


class QuantizeStatic(Pass):
    """int8 weights and activations with ranges from calibration: the fast form for convolutions."""

    needs_calibration: ClassVar[bool] = True

    type: Literal["quantize_static"] = "quantize_static"
    scheme: Literal["w8a8"] = Field(default="w8a8", description="bits of weights and activations")
    granularity: Literal["per_channel", "per_tensor"] = Field(
        default="per_channel", description="one weight scale per output channel (more accurate, as fast) or per weight"
    )
    observer: Observer = Field(
        default="mean_min_max",
        description="how samples become a range: all that was seen, or the mean of the extremes of groups of 16",
    )

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Find what can run in integers, range its tensors on the calibration data, and write both."""
        for name, layer in already_quantized(model):
            yield Skip(name, layer, "quantized already")
        chosen: list[Weight] = []
        for weight in model.weights(self.selectors):
            reason = static_refusal(weight)
            if reason is None:
                chosen.append(weight)
            else:
                yield Skip(weight.name, weight.layer, reason)
        if chosen:
            yield from self._quantize(model, plan_static(chosen), context)

    def _quantize(self, model: Model, plan: StaticPlan, context: Context) -> Iterator[Finding]:
        grids = _activation_grids(model, plan, context, self.observer)
        for weight in plan.weights:
            name, layer, bytes_before = weight.name, weight.layer, weight.nbytes
            rounded = self._round(weight, plan, grids)
            for use in weight.uses:
                rounded.write(weight, use, float(grids[plan.input_of(use)].scale))
            detail = f"int8 {self.granularity}, uint8 activations"
            yield Change(name, layer, detail, rounded.error, bytes_before, rounded.nbytes)
        insert_activations(model, plan, grids)

    def _round(self, weight: Weight, plan: StaticPlan, grids: dict[str, Grid]) -> "_Rounded":
        """The weight on its grid, to nearest, with scales that every bias fits."""
        matrix = weight.matrix()
        floors = [np.zeros(len(matrix), np.float32)]
        for use in weight.uses:
            bias = bias_of(use, len(matrix))
            if bias is not None:
                floors.append(least_weight_scale(bias, float(grids[plan.input_of(use)].scale)))
        floor = np.maximum.reduce(floors)
        granularity: Granularity = PerChannel(0) if self.granularity == "per_channel" else PerTensor()
        least = floor if self.granularity == "per_channel" else float(floor.max())
        grid = symmetric_grid(matrix, granularity, least)
        return _Rounded(matrix, grid)


@dataclass(frozen=True, slots=True)
class _Rounded:
    """A weight and the grid it goes on."""

    matrix: Floats
    grid: Grid

    @property
    def error(self) -> float:
        """Relative error of rounding."""
        return relative_error(self.matrix, self.grid.dequantize(self.grid.quantize(self.matrix)))

    @property
    def nbytes(self) -> int:
        """Of the integers and their scales."""
        return self.matrix.size + self.grid.scale.nbytes

    def write(self, weight: Weight, use: Use, x_scale: float) -> None:
        """Put the integers, and the bias at x_scale · w_scale, in front of one layer."""
        bias = bias_of(use, len(self.matrix))
        insert_weight(weight, use, self.grid.quantize(self.matrix), self.grid)
        if bias is not None:
            scale = np.broadcast_to(np.float32(x_scale) * self.grid.scale, bias.shape).astype(np.float32)
            insert_bias(use, quantize_bias(bias, scale), scale)


def _activation_grids(model: Model, plan: StaticPlan, context: Context, observer: Observer) -> dict[str, Grid]:
    """A uint8 grid per shared grid, over the union of the ranges of its members."""
    if context.calibration is None:
        raise PassError("quantize_static: needs data.calibration, or use quantize_dynamic, which needs no data")
    members = {tensor: plan.members(tensor) for tensor in plan.tensors}
    observed = tuple(name for names in members.values() for name in names)
    ranges = collect_ranges(model, observed, context.calibration, context.scratch, context.progress, context.threads)
    grids = {}
    for tensor, names in members.items():
        lows, highs = zip(*(ranges[name].ends(observer) for name in names), strict=True)
        grids[tensor] = asymmetric_grid(min(lows), max(highs))
    return grids
