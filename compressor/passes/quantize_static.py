"""Weights and activations in integers, ranges fixed beforehand from sample data.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference". The one combination that is fast on x86: activations in uint8 with a free zero point,
weights in int8 with zero point 0 and one scale per output channel, bias in int32 at exactly
x_scale · w_scale. It is written as Q/DQ pairs, placed where ONNX Runtime fuses them to integer
kernels (`graph/regions.py`).

Weights of fewer bits are stored packed and turn into int8 when the model is loaded
(`graph/packing.py`), so that they cost bytes but no time: the kernels are the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compressor.calibration import Observer, ObserverName, collect_ranges
from compressor.calibration.coding import Fulfilled, Order, fulfil
from compressor.data import Settings
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.packing import store_in_place
from compressor.graph.quantize import (
    StaticPlan,
    bias_of,
    insert_activations,
    insert_bias,
    insert_weight,
    plan_static,
)
from compressor.graph.refusals import set_aside, static_refusal
from compressor.graph.select import Selectors
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats, Grid, asymmetric_grid, least_weight_scale, quantize_bias
from compressor.numerics.divergence import relative_error
from compressor.numerics.levels import Bits
from compressor.numerics.schemes import Scheme
from compressor.passes.base import Budget, Context, Names, Pass, by_bits
from compressor.report import Change, Finding, Skip
from compressor.runtime.environment import SATURATION, saturates

_SCHEMES: dict[str, Bits] = {
    "w8a8": 8,
    "w4a8": 4,
    "w3a8": 3,
    "w2a8": 2,
    "ternary": "ternary",
    "binary": "binary",
}


class WeightSettings(Settings):
    """What weights become."""

    bits: Bits = Field(default=8, description="of a weight; a ternary one takes 1.6 bits, a binary one 1")
    granularity: Literal["per_tensor", "per_channel", "per_block"] = Field(
        default="per_channel",
        description="what shares a step: the whole weight, an output channel, or a block of its inputs",
    )
    block: Annotated[int, Field(ge=4, le=1024)] = Field(
        default=32, description="inputs that share a step with per_block; the nearest divisor of their number is taken"
    )
    rounding: Literal["nearest", "second_order"] | None = Field(
        default=None,
        description="each weight to its nearest step, or so that the layer's output errs least on the calibration "
        "data; when left out, nearest for 8 bits and second_order below",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.granularity == "per_tensor" and (self.bits != 8 or self.rounding == "second_order"):
            raise ValueError("granularity per_tensor goes with 8 bits rounded to nearest; use per_channel")
        if self.granularity == "per_block" and self.bits == 8 and "bits" in self.model_fields_set:
            raise ValueError("granularity per_block goes with less than 8 bits; use per_channel")
        return self

    def scheme(self) -> Scheme:
        """What that asks of codes."""
        rounding = self.rounding or ("nearest" if self.bits == 8 else "second_order")
        granularity = "per_channel" if self.bits == 8 and self.granularity == "per_block" else self.granularity
        return Scheme(self.bits, granularity, self.block, rounding=rounding)


class WeightOverride(WeightSettings):
    """Other settings for the weights of some layers; what is left out is as in `weights`."""

    targets: Names = Field(description="the layers: name, operator type, glob or re:…")


class ActivationSettings(Settings):
    """How the ranges of activations are found."""

    observer: ObserverName = Field(
        default="mse",
        description="how samples become a range: all that was seen, the mean of the extremes of groups of 16, all but "
        "the outermost entries, or what loses the least information or has the least mean squared error in int8",
    )
    percentile: Annotated[float, Field(gt=50, le=100)] | None = Field(
        default=None, description="of observer percentile: per cent of the entries to cover; 99.99 when left out"
    )

    @model_validator(mode="after")
    def _percentile_is_used(self) -> Self:
        if self.percentile is not None and self.observer != "percentile":
            raise ValueError(f"percentile says nothing to the observer {self.observer}; use observer: percentile")
        return self


class QuantizeStatic(Pass):
    """Integer weights and uint8 activations with ranges from calibration: the fast form for convolutions."""

    needs_calibration: ClassVar[bool] = True

    type: Literal["quantize_static"] = "quantize_static"
    scheme: Literal["w8a8", "w4a8", "w3a8", "w2a8", "ternary", "binary"] | None = Field(
        default=None, description="short for weights: {bits: …}; w8a8 when neither is given"
    )
    weights: WeightSettings = Field(default=WeightSettings(), description="what weights become")
    activations: ActivationSettings = Field(default=ActivationSettings(), description="how activations are ranged")
    budget: Budget | None = Field(
        default=None, description="instead of bits: give every weight as many as it needs within a size or a drift"
    )
    overrides: tuple[WeightOverride, ...] = Field(
        default=(), description="other settings for some layers; the first entry that selects a layer counts"
    )
    reduce_range: bool = Field(
        default=False,
        description="weights end at ±64 instead of ±127: for x86 processors without VNNI, where sums saturate",
    )

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.scheme is not None and "bits" in self.weights.model_fields_set:
            raise ValueError("give scheme or weights.bits, not both")
        if self.budget is not None and (self.scheme is not None or "bits" in self.weights.model_fields_set):
            raise ValueError("give bits or budget, not both")
        for override in self.overrides:
            self._merged(override)
        return self

    def warnings(self) -> Iterator[str]:
        """Sums of products may saturate."""
        if saturates() and not self.reduce_range:
            yield f"quantize_static: {SATURATION}"

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Find what can run in integers, range its tensors on the calibration data, and write both."""
        yield from (Skip(*found) for found in set_aside(model))
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
        observer = Observer(self.activations.observer, self.activations.percentile or 99.99)
        grids = _activation_grids(model, plan, context, observer)
        candidates = []
        for weight in plan.weights:
            least = _least_scales(weight, plan, grids)
            candidates.append([Order(weight, scheme, least) for scheme in self._schemes(weight)])
        orders = (
            [one for (one,) in candidates] if self.budget is None else self.budget.choose(model, candidates, context)
        )
        for fulfilled in fulfil(model, orders, context):
            yield _write(model, fulfilled, plan, grids)
        insert_activations(model, plan, grids)

    def settled(self, findings: Sequence[Finding]) -> Pass:
        """With the bits that the budget led to as overrides."""
        if self.budget is None:
            return self
        found = by_bits(findings).items()
        chosen = tuple(WeightOverride.model_validate({"targets": names, "bits": bits}) for bits, names in found)
        return self.model_copy(update={"budget": None, "overrides": (*chosen, *self.overrides)})

    def _schemes(self, weight: Weight) -> list[Scheme]:
        """What the weight may become: one thing, unless there is a budget to keep."""
        settings = self._settings(weight)
        if self.budget is None or "bits" in settings.model_fields_set:
            return [replace(settings.scheme(), reduced=self.reduce_range)]
        tried = (settings.model_copy(update={"bits": bits}) for bits in self.budget.widths)
        return [replace(one.scheme(), reduced=self.reduce_range) for one in tried]

    def _settings(self, weight: Weight) -> WeightSettings:
        for override in self.overrides:
            if Selectors(override.targets).match(weight.names, weight.layer):
                return self._merged(override)
        return self._general()

    def _general(self) -> WeightSettings:
        return self.weights if self.scheme is None else _with(self.weights, {"bits": _SCHEMES[self.scheme]})

    def _merged(self, override: WeightOverride) -> WeightSettings:
        given = override.model_fields_set - {"targets"}
        return _with(self._general(), {name: getattr(override, name) for name in given})


def _with(settings: WeightSettings, changed: dict[str, object]) -> WeightSettings:
    """The settings with some fields changed, validated again."""
    kept = {name: getattr(settings, name) for name in settings.model_fields_set}
    return WeightSettings.model_validate({**kept, **changed})


def _least_scales(weight: Weight, plan: StaticPlan, grids: dict[str, Grid]) -> Floats:
    """The smallest scales at which every bias fits into int32, (outputs,)."""
    outputs = len(weight.matrix())
    floors = [np.zeros(outputs, np.float32)]
    for use in weight.uses:
        bias = bias_of(use, outputs)
        if bias is not None:
            floors.append(least_weight_scale(bias, float(grids[plan.input_of(use)].scale)))
    largest: Floats = np.maximum.reduce(floors)
    return largest


def _write(model: Model, fulfilled: Fulfilled, plan: StaticPlan, grids: dict[str, Grid]) -> Change:
    """Put a weight's integers, and its biases at x_scale · w_scale, in front of its layers."""
    order, coded = fulfilled.order, fulfilled.coded
    weight = order.weight
    name, layer, bytes_before = weight.name, weight.layer, weight.nbytes
    error = relative_error(weight.matrix(), fulfilled.rounded())
    for use in weight.uses:
        bias = bias_of(use, len(coded.codes))
        if bias is not None:
            x_scale = np.float32(grids[plan.input_of(use)].scale)
            scale = np.broadcast_to(x_scale * coded.scale, bias.shape).astype(np.float32)
            insert_bias(use, quantize_bias(bias, scale), scale)
    insert_weight(weight, store_in_place(model.ir, weight, coded))
    return Change(
        name, layer, f"{order.scheme}; uint8 activations", error, bytes_before, coded.nbytes, bits=order.scheme.bits
    )


def _activation_grids(model: Model, plan: StaticPlan, context: Context, observer: Observer) -> dict[str, Grid]:
    """A uint8 grid per shared grid, over the union of the ranges of its members."""
    if context.calibration is None:
        raise PassError("quantize_static: needs data.calibration, or use quantize_dynamic, which needs no data")
    members = {tensor: plan.members(tensor) for tensor in plan.tensors}
    observed = {name: observer for names in members.values() for name in names}
    ranges = collect_ranges(model, observed, context.calibration, context.scratch, context.progress, context.threads)
    grids = {}
    for tensor, names in members.items():
        lows, highs = zip(*(ranges[name] for name in names), strict=True)
        grids[tensor] = asymmetric_grid(min(lows), max(highs))
    return grids
