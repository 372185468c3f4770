"""Weights and activations in integers, ranges fixed beforehand from sample data.

Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference". The one combination that is fast on x86: activations in uint8 with a free zero point,
weights in int8 with zero point 0 and one scale per output channel, bias in int32 at exactly
x_scale · w_scale. It is written as Q/DQ pairs, placed where ONNX Runtime fuses them to integer
kernels (`graph/regions.py`).

Weights of fewer bits are stored packed and turn into int8 when the model is loaded
(`graph/packing.py`), so that they cost bytes but no time: the kernels are the same.

Layers that ONNX Runtime does not fuse to an integer kernel (`calibration/rehearsal.py`) multiply in float,
and so do, on demand, those that are faster so: their weights are stored in as few bits and turn into float
when the model is loaded.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compressor.calibration import Observer, ObserverName, collect_ranges
from compressor.calibration.coding import Fulfilled, Order, fulfil
from compressor.calibration.rehearsal import Mix, Rehearsal, bits_of, shared_grids
from compressor.data import Dataset, Settings
from compressor.errors import PassError
from compressor.graph.model import Model
from compressor.graph.quantize import StaticPlan, insert_activations, insert_layer, plan_static
from compressor.graph.refusals import set_aside, static_refusal, storage_refusal
from compressor.graph.select import Selectors
from compressor.graph.storage import insert_storage
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats, Grid, least_weight_scale
from compressor.numerics.divergence import relative_error
from compressor.numerics.levels import Bits
from compressor.numerics.observers import Range
from compressor.numerics.schemes import Scheme
from compressor.passes.base import Budget, Context, Names, Pass, selector_of
from compressor.report import Change, Finding, Note, Skip
from compressor.runtime.environment import SATURATION, saturates
from compressor.training.rounding import learn_rounding
from compressor.training.settings import RoundingSettings

_IN_FLOAT = "in float: "
_BITS_OF_KERNELS = 8
_NO_KERNELS = (
    "activations of 4 bits are computed by the kernels for 8, so that nothing gets faster by them; "
    "8 bits lose less at the same speed"
)

_SCHEMES: dict[str, tuple[Bits, int]] = {
    "w8a8": (8, 8),
    "w4a8": (4, 8),
    "w4a4": (4, 4),
    "w3a8": (3, 8),
    "w2a8": (2, 8),
    "ternary": ("ternary", 8),
    "binary": ("binary", 8),
}
"""Bits of weights and of activations."""


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
    rounding: Literal["nearest", "second_order", "learned"] | None = Field(
        default=None,
        description="each weight to its nearest step; second_order: so that the layer's output errs least on the "
        "calibration data; learned: then also by gradients, so that stretches of layers err least (needs torch, takes "
        "minutes, pays at 3 bits and fewer); when left out, nearest for 8 bits and second_order below",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.granularity == "per_tensor" and (self.bits != 8 or self.rounding not in (None, "nearest")):
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
    compute: Literal["int8", "float"] = Field(
        default="int8",
        description="float: the weights are stored in these bits and turned into float at load; activations stay float",
    )


class ActivationSettings(Settings):
    """What activations become, and how their ranges are found."""

    bits: Literal[8, 4] = Field(
        default=8,
        description="of an activation; 4 leave 16 of the 256 levels of uint8, which is no faster here: it shows what a "
        "processor with such kernels would compute. Inputs and outputs of the model keep 8",
    )
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

    type: Literal["quantize_static"] = "quantize_static"
    scheme: Literal["w8a8", "w4a8", "w4a4", "w3a8", "w2a8", "ternary", "binary"] | None = Field(
        default=None, description="short for bits of weights and activations; w8a8 when none is given"
    )
    weights: WeightSettings = Field(default=WeightSettings(), description="what weights become")
    activations: ActivationSettings = Field(default=ActivationSettings(), description="how activations are ranged")
    budget: Budget | None = Field(
        default=None, description="instead of bits: give every weight as many as it needs within a size or a drift"
    )
    overrides: tuple[WeightOverride, ...] = Field(
        default=(), description="other settings for some layers; the first entry that selects a layer counts"
    )
    learning: RoundingSettings = Field(
        default=RoundingSettings(), description="of rounding: learned, how long and how fast"
    )
    layers: Literal["all", "faster"] = Field(
        default="all",
        description="which layers run in int8: all that can, or all but those with which the model was timed to be "
        "slower on this machine; the others are then stored in the same bits and turned into float at load",
    )
    reduce_range: bool = Field(
        default=False,
        description="weights end at ±64 instead of ±127: for x86 processors without VNNI, where sums saturate",
    )

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.scheme is not None and "bits" in self.weights.model_fields_set:
            raise ValueError("give scheme or weights.bits, not both")
        if self.scheme is not None and "bits" in self.activations.model_fields_set:
            raise ValueError("give scheme or activations.bits, not both")
        if self.budget is not None and (self.scheme is not None or "bits" in self.weights.model_fields_set):
            raise ValueError("give bits or budget, not both")
        general = (self._general(), *map(self._merged, self.overrides))
        if self.budget is not None and any(settings.granularity == "per_tensor" for settings in general):
            raise ValueError("a budget goes with granularity per_channel and per_block")
        return self

    @property
    def needs_calibration(self) -> bool:
        """Always."""
        return True

    def warnings(self) -> Iterator[str]:
        """Sums of products may saturate."""
        if saturates() and not self.reduce_range:
            yield f"quantize_static: {SATURATION}"
        if self._activation_bits < _BITS_OF_KERNELS:
            yield f"quantize_static: {_NO_KERNELS}"

    def apply(self, model: Model, context: Context) -> Iterator[Finding | Note]:
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
            yield from self._quantize(model, chosen, context)

    def _quantize(self, model: Model, weights: list[Weight], context: Context) -> Iterator[Finding | Note]:
        ranges = self._ranges(model, weights, context)
        mix = self._mix(model, weights, ranges, context)
        plan = plan_static([w for w in weights if w.value.name in mix.integer], mix.merged)
        grids = shared_grids(plan, ranges, self._activation_bits)
        candidates: list[list[Order]] = []
        for weight in weights:
            least = _least_scales(weight, plan, grids) if weight in plan.weights else 0.0
            reason = None if weight in plan.weights else storage_refusal(weight)
            if reason is None:
                candidates.append([Order(weight, scheme, least) for scheme in self._schemes(weight)])
            else:
                why = f"{_IN_FLOAT}{mix.floating[weight.value.name or '']}; {reason}"
                yield Skip(weight.name, weight.layer, why)
        orders = (
            [one for (one,) in candidates] if self.budget is None else self.budget.choose(model, candidates, context)
        )
        found: Iterable[Fulfilled] = fulfil(model, orders, context)
        if any(order.scheme.rounding == "learned" for order in orders):
            copy = _rounding_activations(model, plan, grids)
            found, said = learn_rounding(model, copy, found, self.learning, context.seed, context)
            yield Note(f"{self.type}: {said}")
        for fulfilled in found:
            yield _write(model, fulfilled, plan, grids, mix)
        insert_activations(model, plan, grids)

    def _ranges(self, model: Model, weights: list[Weight], context: Context) -> dict[str, Range]:
        """Of all activations that can get a grid, whichever do: what is observed changes what ONNX Runtime fuses."""
        plan, asked = plan_static(weights), self.activations
        tensors: dict[str, Observer] = {}
        for tensor in plan.tensors:
            bits = bits_of(plan, tensor, self._activation_bits)
            tensors |= dict.fromkeys(plan.members(tensor), Observer(asked.observer, asked.percentile or 99.99, bits))
        data = _calibration(context)
        return collect_ranges(model, tensors, data, context.scratch, context.progress, context.threads)

    def _mix(self, model: Model, weights: list[Weight], ranges: dict[str, Range], context: Context) -> Mix:
        """Which layers run in int8, and why the others do not."""
        asked = {weight.value.name or "": self._compute(weight) for weight in weights}
        rehearsal = Rehearsal(model, ranges, context.scratch)
        mix = rehearsal.fused([name for name, compute in asked.items() if compute == "int8"])
        if self.layers == "faster" and mix.integer:
            mix = rehearsal.faster(mix, _calibration(context).split(1)[0].first().feeds, context.progress)
        return mix.without([name for name, compute in asked.items() if compute == "float"], "compute: float")

    def settled(self, findings: Sequence[Finding]) -> Pass:
        """With the bits that the budget led to, and the layers that are faster in float, as overrides."""
        if self.budget is None and self.layers == "all":
            return self
        types = {finding.layer for finding in findings}
        grouped: dict[tuple[tuple[tuple[str, object], ...], int | None], list[str]] = {}
        for finding in findings:
            found = tuple(self._found(finding))
            override = self._override_of((finding.weight,), finding.layer)
            if found:
                grouped.setdefault((found, override), []).append(selector_of(finding, types))
        settled = []
        for (found, index), names in grouped.items():
            given = {} if index is None else self.overrides[index].model_dump(exclude_unset=True)
            settled.append(WeightOverride.model_validate({**given, **dict(found), "targets": names}))
        return self.model_copy(update={"budget": None, "layers": "all", "overrides": (*settled, *self.overrides)})

    def _found(self, finding: Finding) -> Iterator[tuple[str, object]]:
        """The settings of a layer that the pass has chosen by itself."""
        words, bits = (finding.detail, finding.bits) if isinstance(finding, Change) else (finding.reason, None)
        if self.budget is not None and bits is not None:
            yield "bits", bits
        if self.layers == "faster" and _IN_FLOAT in words:
            yield "compute", "float"

    def _schemes(self, weight: Weight) -> list[Scheme]:
        """What the weight may become: one thing, unless there is a budget to keep."""
        settings = self._settings(weight)
        if self.budget is None or "bits" in settings.model_fields_set:
            return [replace(settings.scheme(), reduced=self.reduce_range)]
        widths: tuple[Bits, ...] = self.budget.widths or (8, 4, 3, 2, "ternary")
        tried = (settings.model_copy(update={"bits": bits}) for bits in widths)
        return [replace(one.scheme(), reduced=self.reduce_range) for one in tried]

    def _settings(self, weight: Weight) -> WeightSettings:
        index = self._override_of(weight.names, weight.layer)
        return self._general() if index is None else self._merged(self.overrides[index])

    def _compute(self, weight: Weight) -> Literal["int8", "float"]:
        """What the layer is to multiply in, if it can."""
        index = self._override_of(weight.names, weight.layer)
        return "int8" if index is None else self.overrides[index].compute

    def _override_of(self, names: tuple[str, ...], layer: str) -> int | None:
        """Number of the first override that selects a layer."""
        found = (i for i, o in enumerate(self.overrides) if Selectors(o.targets).match(names, layer))
        return next(found, None)

    def _general(self) -> WeightSettings:
        return self.weights if self.scheme is None else _with(self.weights, {"bits": _SCHEMES[self.scheme][0]})

    @property
    def _activation_bits(self) -> int:
        return self.activations.bits if self.scheme is None else _SCHEMES[self.scheme][1]

    def _merged(self, override: WeightOverride) -> WeightSettings:
        given = override.model_fields_set - {"targets", "compute"}
        return _with(self._general(), {name: getattr(override, name) for name in given})


def _with(settings: WeightSettings, changed: dict[str, object]) -> WeightSettings:
    """The settings with some fields changed, validated again."""
    kept = {name: getattr(settings, name) for name in settings.model_fields_set}
    return WeightSettings.model_validate({**kept, **changed})


def _least_scales(weight: Weight, plan: StaticPlan, grids: dict[str, Grid]) -> Floats:
    """The smallest scales at which every bias fits into int32, (outputs,)."""
    floors = [np.zeros(len(weight.matrix()), np.float32)]
    floors += [least_weight_scale(bias.values, float(grids[bias.tensor].scale)) for bias in plan.biases(weight)]
    largest: Floats = np.maximum.reduce(floors)
    return largest


def _rounding_activations(model: Model, plan: StaticPlan, grids: dict[str, Grid]) -> Model:
    """A copy whose weights are still floats."""
    copy, names = model.copy(), {weight.value.name for weight in plan.weights}
    insert_activations(copy, plan_static([w for w in copy.weights() if w.value.name in names], plan.merged), grids)
    return copy


def _write(model: Model, fulfilled: Fulfilled, plan: StaticPlan, grids: dict[str, Grid], mix: Mix) -> Change:
    order, coded = fulfilled.order, fulfilled.coded
    weight, in_float = order.weight, mix.floating.get(order.weight.value.name or "")
    name, layer, bytes_before = weight.name, weight.layer, weight.nbytes
    error = relative_error(weight.matrix(), fulfilled.rounded())
    if in_float is None:
        bits = grids[plan.read_by(weight)].high.bit_length()
        read = "uint8 activations" if bits == _BITS_OF_KERNELS else f"activations of {bits} bits"
        insert_layer(model, plan, weight, coded, grids)
    else:
        read = f"{_IN_FLOAT}{in_float}"
        insert_storage(model.ir, weight, coded)
    return Change(
        name,
        layer,
        f"{order.scheme}; {read}",
        error,
        bytes_before,
        coded.nbytes,
        bits=order.scheme.bits,
    )


def _calibration(context: Context) -> Dataset:
    if context.calibration is None:
        raise PassError("needs data.calibration, or use quantize_dynamic, which needs no data")
    return context.calibration
