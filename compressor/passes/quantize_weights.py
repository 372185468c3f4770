"""Weights in few bits; activations stay float, or are ranged at run time.

Two ways to compute with them:

- `compute: int8`. Blocks have steps that are whole multiples of their row's scale (a two-level grid),
  so that ONNX Runtime folds the codes to one int8 weight at load and multiplies in int8, at the speed
  of quantize_dynamic for any number of rows.
- `compute: float`. Blocks have real steps, and the operators of ONNX Runtime for blocks keep the codes
  packed in memory: less memory, and the fastest form for one row at a time, as in decoding; with many
  rows it is no faster than float.

Embeddings are looked up in packed rows. What multiplies in float anyway (Conv, ConvTranspose, GRU …) is
stored in few bits and turned into float at load, which costs no time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from compressor.calibration.break_even import slower_products
from compressor.calibration.coding import Fulfilled, Order, fulfil
from compressor.calibration.scaling import scale_inputs
from compressor.data import Settings
from compressor.graph.blockwise import insert_block_dequantization, insert_block_embedding, insert_block_product
from compressor.graph.edit import settle
from compressor.graph.factors import insert_correction
from compressor.graph.lookup import insert_packed_lookup, lookup_refusal
from compressor.graph.model import Model
from compressor.graph.packing import has_blocks, store_product
from compressor.graph.quantize import insert_dynamic_product
from compressor.graph.refusals import dynamic_refusal, set_aside, storage_refusal, table_refusal
from compressor.graph.select import Selectors
from compressor.graph.storage import insert_storage
from compressor.graph.weights import Weight
from compressor.numerics.divergence import relative_error
from compressor.numerics.levels import Bits, Coded
from compressor.numerics.low_rank import correction
from compressor.numerics.schemes import Granularity, Scheme
from compressor.passes.base import Budget, Context, Names, Pass, chosen_bits
from compressor.report import Change, Finding, Note, Skip
from compressor.training.rounding import learn_rounding
from compressor.training.settings import RoundingSettings

_BLOCKS = (256, 128, 64, 32, 16)
_PRODUCTS = ("MatMul", "Gemm")

Block = Annotated[int, Field(ge=4, le=1024)]


class LayerSettings(Settings):
    """What the weights of a layer become."""

    bits: Bits = Field(default=4, description="of a weight; a ternary one takes 1.6 bits, a binary one 1")
    block: Block = Field(
        default=32,
        description="inputs that share a step: with compute int8 the nearest divisor of their number is taken, with "
        "compute float it must be 16, 32, 64, 128 or 256",
    )
    rounding: Literal["nearest", "half_quadratic", "activation_aware", "second_order", "learned"] | None = Field(
        default=None,
        description="each weight to its nearest step; half_quadratic: steps that fit most weights closely (compute "
        "float); activation_aware: finer steps for inputs that are large; second_order: so that the layer's output "
        "errs least; learned: then by gradients (torch, minutes). When left out, second_order where there is "
        "calibration data, else nearest",
    )
    compensate_rank: Annotated[int, Field(ge=0, le=1024)] = Field(
        default=0,
        description="rank of two thin float products beside each product, which make up for what its codes lose; worth "
        "it with very few bits. 0: none",
    )


class LayerOverride(LayerSettings):
    """Other settings for some layers; what is left out is as for all."""

    targets: Names = Field(description="the layers: name, operator type, glob or re:…")


class QuantizeWeights(LayerSettings, Pass):
    """Weights in 8 to 1 bits, in blocks with a step each: small, and in int8 compute also fast."""

    type: Literal["quantize_weights"] = "quantize_weights"
    compute: Literal["int8", "float"] = Field(
        default="int8",
        description="products in int8 with activations ranged at run time (fast for any number of rows), or in "
        "ONNX Runtime's operators for packed blocks (least memory, fastest for single rows)",
    )
    layers: Literal["all", "faster"] = Field(
        default="all",
        description="with compute int8: which MatMuls and Gemms multiply in int8, all or those large enough to gain "
        "speed; the others are then turned into float at load",
    )
    format: Literal["matmul_nbits", "standard"] = Field(
        default="matmul_nbits",
        description="with compute float: MatMulNBits of ONNX Runtime, or DequantizeLinear of ONNX (8 and 4 bits)",
    )
    symmetric: bool = Field(
        default=True, description="with compute float: steps around 0, or blocks with a zero point of their own"
    )
    embeddings: Literal[8, 4, 3, 2] | None = Field(
        default=None,
        description="bits of lookup tables; when left out, as bits, or 2 where these are fewer",
    )
    embedding_block: Literal[16, 32, 64, 128, 256] = Field(
        default=128,
        description="entries of a row of a lookup table that share a step; fewer where rows ask for it",
    )
    learning: RoundingSettings = Field(
        default=RoundingSettings(), description="of rounding: learned, how long and how fast"
    )
    budget: Budget | None = Field(
        default=None, description="instead of bits: give every weight as many as it needs within a size or a drift"
    )
    overrides: tuple[LayerOverride, ...] = Field(
        default=(), description="other settings for some layers; the first entry that selects a layer counts"
    )

    @model_validator(mode="after")
    def _executable(self) -> Self:
        if self.budget is not None and "bits" in self.model_fields_set:
            raise ValueError("give bits or budget, not both")
        general = (self._merged(), *map(self._merged, self.overrides))
        for settings in general:
            for bits in (settings.bits,) if self.budget is None else self._widths():
                tried = settings.model_copy(update={"bits": bits})
                _refuse_combination(tried, self.compute, self.format, self.symmetric)
        if self.budget is not None and any(settings.rounding == "activation_aware" for settings in general):
            raise ValueError("a budget goes with rounding nearest, half_quadratic, second_order and learned")
        if self.budget is not None and any(settings.compensate_rank for settings in general):
            raise ValueError("compensate_rank goes with bits: a budget counts codes alone")
        return self

    def apply(self, model: Model, context: Context) -> Iterator[Finding | Note]:
        """Choose a form for every layer, code its weights and write them."""
        yield from (Skip(*found) for found in set_aside(model))
        candidates = []
        weights = list(model.weights(self.selectors))
        aware = [w for w in weights if _is_product(w) and self._settings(w).rounding == "activation_aware"]
        scale_inputs(model, aware, lambda w: self._scheme(w, self._settings(w), context), context)
        for weight in weights:
            reason = _refusal(weight)
            if reason is None:
                candidates.append([Order(weight, scheme) for scheme in self._schemes(weight, context)])
            else:
                yield Skip(weight.name, weight.layer, reason)
        orders = (
            [one for (one,) in candidates] if self.budget is None else self.budget.choose(model, candidates, context)
        )
        small = self._small(model, weights, context)
        found: Iterable[Fulfilled] = fulfil(model, orders, context)
        if any(order.scheme.rounding == "learned" for order in orders):
            found, said = learn_rounding(model, model.copy(), found, self.learning, context.seed, context)
            yield Note(f"{self.type}: {said}")
        for fulfilled in found:
            yield self._write(model, fulfilled, small)
        settle(model.ir)

    def settled(self, findings: Sequence[Finding]) -> Pass:
        """With the bits that the budget led to as overrides."""
        if self.budget is None:
            return self
        grouped: dict[tuple[int | str | None, int | None], list[str]] = {}
        for change, selector in chosen_bits(findings):
            override = self._override_of((change.weight,), change.layer)
            grouped.setdefault((change.bits, override), []).append(selector)
        chosen = []
        for (bits, index), names in grouped.items():
            given = {} if index is None else self.overrides[index].model_dump(exclude_unset=True)
            chosen.append(LayerOverride.model_validate({**given, "targets": names, "bits": bits}))
        return self.model_copy(update={"budget": None, "overrides": (*chosen, *self.overrides)})

    def _schemes(self, weight: Weight, context: Context) -> list[Scheme]:
        """What the weight may become: one thing, unless there is a budget to keep."""
        settings = self._settings(weight)
        fixed = self.budget is None or (_is_table(weight) and self.embeddings is not None)
        if self.budget is None or fixed or "bits" in settings.model_fields_set:
            return [self._scheme(weight, settings, context)]
        widths = self._widths()
        if _is_table(weight):
            widths = tuple(dict.fromkeys(map(_packed_width, widths)))
        return [self._scheme(weight, settings.model_copy(update={"bits": bits}), context) for bits in widths]

    def _widths(self) -> tuple[Bits, ...]:
        """What a budget may choose from."""
        given = None if self.budget is None else self.budget.widths
        if self.compute == "int8":
            return given or (8, 4, 3, 2, "ternary")
        return given or ((8, 4) if self.format == "standard" else (8, 4, 2))

    def _scheme(self, weight: Weight, settings: LayerSettings, context: Context) -> Scheme:
        if _is_table(weight):
            return self._table_scheme(weight, settings)
        compute = self.compute if _is_product(weight) else "int8"
        rounding = settings.rounding or ("nearest" if context.calibration is None else "second_order")
        if rounding == "activation_aware" or (rounding == "half_quadratic" and compute == "int8"):
            rounding = "nearest"
        in_blocks = has_blocks(weight) and (settings.bits != 8 or compute == "float")
        granularity: Granularity = "per_block" if in_blocks else "per_channel"
        return Scheme(settings.bits, granularity, settings.block, compute, self.symmetric, rounding)

    def _table_scheme(self, weight: Weight, settings: LayerSettings) -> Scheme:
        bits = self.embeddings or _packed_width(settings.bits)
        if bits == 3 and lookup_refusal(weight, settings.block) is None:
            return Scheme(3, "per_block", settings.block)
        block = next((b for b in _BLOCKS if b <= self.embedding_block and weight.shape[1] % b == 0), _BLOCKS[-1])
        return Scheme(4 if bits == 3 else bits, "per_block", block, "float", self.symmetric)

    def _settings(self, weight: Weight) -> LayerSettings:
        index = self._override_of(weight.names, weight.layer)
        return self._merged(None if index is None else self.overrides[index])

    def _override_of(self, names: tuple[str, ...], layer: str) -> int | None:
        """Number of the first override that selects a layer."""
        found = (i for i, o in enumerate(self.overrides) if Selectors(o.targets).match(names, layer))
        return next(found, None)

    def _merged(self, override: LayerOverride | None = None) -> LayerSettings:
        fields = LayerSettings.model_fields
        changed = fields.keys() & override.model_fields_set if override else ()
        given = {name: getattr(override, name) for name in changed}
        general = {name: getattr(self, name) for name in fields.keys() & self.model_fields_set}
        return LayerSettings.model_validate({**general, **given})

    def _small(self, model: Model, weights: list[Weight], context: Context) -> dict[str, str]:
        """Array name -> why its product would be no faster in int8."""
        if self.compute == "float" or self.layers == "all":
            return {}
        return slower_products(model, filter(_is_product, weights), context)

    def _write(self, model: Model, fulfilled: Fulfilled, small: Mapping[str, str]) -> Change:
        order, coded, weight = fulfilled.order, fulfilled.coded, fulfilled.order.weight
        name, layer, bytes_before = weight.name, weight.layer, weight.nbytes
        rank, corrected = self._settings(weight).compensate_rank if _is_product(weight) else 0, 0
        why, made, beside = small.get(weight.value.name or ""), fulfilled.rounded(), ""
        if rank:
            first, second = correction(weight.matrix() - made, rank, fulfilled.moments)
            beside = f", rank {len(first)} beside"
            if coded.nbytes + first.nbytes + second.nbytes < bytes_before:
                insert_correction(weight, first, second)
                made, corrected = made + second @ first, first.nbytes + second.nbytes
            else:
                beside += " left out: no smaller than floats"
        error = relative_error(weight.matrix(), made)
        self._insert(model, weight, coded, order.scheme, in_float=bool(why))
        detail = f"{order.scheme}{beside}{f'; in float: {why}' if why else ''}"
        return Change(name, layer, detail, error, bytes_before, coded.nbytes + corrected, bits=order.scheme.bits)

    def _insert(self, model: Model, weight: Weight, coded: Coded, scheme: Scheme, in_float: bool) -> None:
        """Put codes in place of a weight, in the form that its layer computes with."""
        if in_float or not (_is_product(weight) or _is_table(weight)):
            insert_storage(model.ir, weight, coded)
        elif weight.layer == "Gather" and scheme.bits == 3:
            insert_packed_lookup(model.ir, weight, coded)
        elif weight.layer == "Gather":
            insert_block_embedding(weight, coded)
        elif scheme.compute == "int8":
            insert_dynamic_product(weight, store_product(model.ir, weight, coded))
        elif self.format == "standard" and not weight.in_subgraph:
            insert_block_dequantization(weight, coded)
        else:
            insert_block_product(weight, coded)


def _refuse_combination(settings: LayerSettings, compute: str, layout: str, symmetric: bool) -> None:
    """What has no kernel is said before anything runs."""
    if compute == "int8":
        if settings.rounding == "half_quadratic" or not symmetric:
            raise ValueError("rounding half_quadratic and symmetric: false go with compute: float")
        return
    kernels = {8: (16, 32, 64, 128, 256), 4: (16, 32, 64, 128, 256), 2: (32, 64, 128)}
    width = settings.bits if isinstance(settings.bits, int) else 1
    if settings.block not in kernels.get(width, ()):
        there = "; ".join(f"{bits} bits in blocks of {', '.join(map(str, blocks))}" for bits, blocks in kernels.items())
        raise ValueError(
            f"compute: float has no kernel for {settings.bits} bits in blocks of {settings.block}; there are {there}; "
            "compute: int8 takes any"
        )
    if layout == "standard" and settings.bits == 2:
        raise ValueError("format: standard goes with 8 and 4 bits; use matmul_nbits")


def _is_product(weight: Weight) -> bool:
    """Whether the layer can multiply by integers; the others read a weight that is turned into float at load."""
    return weight.layer in _PRODUCTS and dynamic_refusal(weight) is None and not weight.read_otherwise


def _is_table(weight: Weight) -> bool:
    """Whether all that is done with the weight is to look rows up, so that it can stay packed."""
    return weight.layer == "Gather" and dynamic_refusal(weight) is None and not weight.read_otherwise


def _refusal(weight: Weight) -> str | None:
    """Why a weight stays as it is; None when it can be coded."""
    if _is_table(weight):
        return table_refusal(weight)
    return None if _is_product(weight) else storage_refusal(weight)


def _packed_width(bits: Bits) -> Bits:
    """The bits of a lookup table: as wide as asked for, but 2 at least."""
    return bits if isinstance(bits, int) else 2
