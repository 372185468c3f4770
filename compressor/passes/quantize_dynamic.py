"""Weights in int8, activations ranged at run time.

Weights are rounded to nearest on a symmetric int8 grid per output channel. MatMul and Gemm become
DynamicQuantizeLinear → MatMulInteger, which ONNX Runtime fuses to one int8 kernel; embeddings become
a lookup in int8 and one multiplication per row. LSTM becomes DynamicQuantizeLSTM. Needs no data. A
convolution ranged at run time is six to ten times slower than in float on x86, so Conv is left alone.
Products that are too small to gain speed (`calibration/break_even.py`) can instead be stored in int8 and
turned into float at load.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import Field

from compressor.calibration.break_even import slower_products
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.packing import store_in_place, store_product
from compressor.graph.quantize import insert_dynamic_convolution, insert_dynamic_product, insert_embedding
from compressor.graph.recurrent import insert_recurrent, is_alone, slower_lstm
from compressor.graph.refusals import SLOW_CONVOLUTION, dynamic_refusal, set_aside, storage_refusal
from compressor.graph.storage import insert_storage
from compressor.graph.weights import Weight
from compressor.numerics.divergence import relative_error
from compressor.numerics.levels import Coded
from compressor.numerics.schemes import Scheme, encode
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip
from compressor.runtime.environment import SATURATION, saturates


class QuantizeDynamic(Pass):
    """int8 weights for MatMul, Gemm, LSTM and embeddings; activations are ranged at run time. Needs no data."""

    type: Literal["quantize_dynamic"] = "quantize_dynamic"
    granularity: Literal["per_channel", "per_tensor"] = Field(
        default="per_channel", description="one scale per output channel (more accurate, as fast) or per weight"
    )
    layers: Literal["all", "faster"] = Field(
        default="all",
        description="which MatMuls and Gemms multiply in int8: all, or those large enough to gain speed; the others "
        "are then stored in int8 and turned into float at load",
    )
    embeddings: bool = Field(default=True, description="also store lookup tables in int8, one scale per row")
    recurrent: Literal["faster", "all", "none"] = Field(
        default="faster", description="which LSTMs: those that are large enough to gain speed, all, or none"
    )
    convolutions: bool = Field(
        default=False, description="also quantize Conv: smaller, but 6 to 10 times slower than float on x86"
    )

    reduce_range: bool = Field(
        default=False,
        description="weights end at ±64 instead of ±127: for x86 processors without VNNI, where sums saturate",
    )

    def warnings(self) -> Iterator[str]:
        """Convolutions get slower, and sums of products may saturate."""
        if saturates() and not self.reduce_range:
            yield f"quantize_dynamic: {SATURATION}"
        if self.convolutions:
            yield f"quantize_dynamic with convolutions: {SLOW_CONVOLUTION}"

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Round every weight and let its layer range its input at run time."""
        yield from (Skip(*found) for found in set_aside(model))
        selected = list(model.weights(self.selectors))
        reasons = [self._unwanted(w) or dynamic_refusal(w) or self._unwanted_lstm(w, selected) for w in selected]
        chosen = [weight for weight, reason in zip(selected, reasons, strict=True) if reason is None]
        small = self._small(model, chosen, context)
        for weight, reason in zip(selected, reasons, strict=True):
            yield Skip(weight.name, weight.layer, reason) if reason else self._quantize(model, weight, small)
        settle(model.ir)

    def _small(self, model: Model, weights: list[Weight], context: Context) -> dict[str, str]:
        """Array name -> why its product would be no faster."""
        if self.layers == "all":
            return {}
        return slower_products(model, [w for w in weights if w.layer in ("MatMul", "Gemm")], context)

    def _unwanted(self, weight: Weight) -> str | None:
        if weight.layer == "Conv" and not self.convolutions:
            return SLOW_CONVOLUTION
        if weight.layer == "Gather" and not self.embeddings:
            return "embeddings: false"
        if weight.layer == "LSTM" and self.recurrent == "none":
            return "recurrent: none"
        return None

    def _unwanted_lstm(self, weight: Weight, selected: list[Weight]) -> str | None:
        if weight.layer != "LSTM":
            return None
        if is_alone(weight, selected):
            return "W and R are quantized together; select both"
        return slower_lstm(weight) if self.recurrent == "faster" else None

    def _quantize(self, model: Model, weight: Weight, small: Mapping[str, str]) -> Finding:
        name, layer, bytes_before = weight.name, weight.layer, weight.nbytes
        why, too_small = small.get(weight.value.name or ""), storage_refusal(weight)
        if why and too_small:
            return Skip(name, layer, f"{why}; {too_small}")
        per_row = self.granularity == "per_channel" or layer == "Gather"
        multiplied = layer != "Gather"
        scheme = Scheme(8, "per_channel" if per_row else "per_tensor", reduced=self.reduce_range and multiplied)
        coded = encode(weight.matrix(), scheme)
        error = relative_error(weight.matrix(), coded.dequantize())
        if why:
            insert_storage(model.ir, weight, coded)
        else:
            _insert(model, weight, coded)
        use = f"in float: {why}" if why else "ranged at run time"
        detail = "int8 rows" if layer == "Gather" else f"int8 {self.granularity}, {use}"
        return Change(name, layer, detail, error, bytes_before, coded.nbytes)


def _insert(model: Model, weight: Weight, coded: Coded) -> None:
    match weight.layer:
        case "LSTM":
            insert_recurrent(weight, coded.integers(), coded.scale)
        case "Gather":
            insert_embedding(weight, store_in_place(model.ir, weight, coded))
        case "Conv":
            insert_dynamic_convolution(weight, store_in_place(model.ir, weight, coded))
        case _:
            insert_dynamic_product(weight, store_product(model.ir, weight, coded))
