"""Weights in int8, activations ranged at run time.

Weights are rounded to nearest on a symmetric int8 grid per output channel. MatMul and Gemm become
DynamicQuantizeLinear → MatMulInteger, which ONNX Runtime fuses to one int8 kernel; embeddings become
a lookup in int8 and one multiplication per row. Needs no data. A convolution ranged at run time is
six to ten times slower than in float on x86, so Conv is left alone.
"""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.quantize import insert_dynamic_convolution, insert_dynamic_product, insert_embedding
from compressor.graph.refusals import SLOW_CONVOLUTION, already_quantized, dynamic_refusal
from compressor.graph.weights import Weight
from compressor.numerics.affine import Granularity, PerChannel, PerTensor, symmetric_grid
from compressor.numerics.divergence import relative_error
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip


class QuantizeDynamic(Pass):
    """int8 weights for MatMul, Gemm and embeddings; activations are ranged at run time. Needs no data."""

    type: Literal["quantize_dynamic"] = "quantize_dynamic"
    granularity: Literal["per_channel", "per_tensor"] = Field(
        default="per_channel", description="one scale per output channel (more accurate, as fast) or per weight"
    )
    embeddings: bool = Field(default=True, description="also store lookup tables in int8, one scale per row")
    convolutions: bool = Field(
        default=False, description="also quantize Conv: smaller, but 6 to 10 times slower than float on x86"
    )

    def warnings(self) -> Iterator[str]:
        """Convolutions get slower."""
        if self.convolutions:
            yield f"quantize_dynamic with convolutions: {SLOW_CONVOLUTION}"

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Round every weight and let its layer range its input at run time."""
        for name, layer in already_quantized(model):
            yield Skip(name, layer, "quantized already")
        for weight in list(model.weights(self.selectors)):
            reason = self._unwanted(weight) or dynamic_refusal(weight)
            yield Skip(weight.name, weight.layer, reason) if reason else self._quantize(weight)
        settle(model.ir)

    def _unwanted(self, weight: Weight) -> str | None:
        if weight.layer == "Conv" and not self.convolutions:
            return SLOW_CONVOLUTION
        if weight.layer == "Gather" and not self.embeddings:
            return "embeddings: false"
        return None

    def _quantize(self, weight: Weight) -> Change:
        name, layer, bytes_before = weight.name, weight.layer, weight.nbytes
        matrix = weight.matrix()
        per_row = self.granularity == "per_channel" or layer == "Gather"
        granularity: Granularity = PerChannel(0) if per_row else PerTensor()
        grid = symmetric_grid(matrix, granularity)
        quantized = grid.quantize(matrix)
        error = relative_error(matrix, grid.dequantize(quantized))
        insert = {"Gather": insert_embedding, "Conv": insert_dynamic_convolution}.get(layer, insert_dynamic_product)
        for use in weight.uses:
            insert(weight, use, quantized, grid)
        detail = "int8 rows" if layer == "Gather" else f"int8 {self.granularity}, ranged at run time"
        return Change(name, layer, detail, error, bytes_before, quantized.nbytes + grid.scale.nbytes)
