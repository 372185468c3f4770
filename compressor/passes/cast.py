"""Weights stored in 16 bits, or a whole model brought to float32.

float16 has 11 significant bits and ends at 65504; bfloat16 has 8 and float32's range. What is stored so
is widened by a Cast that ONNX Runtime folds when it loads the model: the file is half as large, and
execution as fast and as large in memory as before. Computing in 16 bits is nothing that ONNX Runtime
does on a CPU, so this pass never asks for it; the other direction, `dtype: float32`, makes a model that
asks for it (or for float64) one that can be quantized.
"""

from collections.abc import Iterator
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from compressor.graph.cast import PRECISION, Constant, Narrow, constants, narrowed, store_narrow, widen
from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.numerics.divergence import relative_error
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Skip


class Cast(Pass):
    """Store float32 weights in 16 bits, at the same speed; or make a float16 model compute in float32."""

    type: Literal["cast"] = "cast"
    dtype: Literal["float16", "bfloat16", "float32"] = Field(
        default="float16",
        description="what weights are stored in; or float32, for the whole model: then it can be quantized",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.dtype == "float32" and (self.targets or self.ignore):
            raise ValueError("dtype: float32 is for the whole model; leave targets and ignore out")
        return self

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Round what is in range, or widen everything."""
        if self.dtype == "float32":
            yield from _widened(model)
            return
        yield from (Skip(*found) for found in set_aside(model, products=False))
        for constant in list(constants(model, self.selectors)):
            yield _stored(constant, self.dtype)
        settle(model.ir)


def _stored(constant: Constant, dtype: Narrow) -> Finding:
    name, layer = constant.name, constant.layer
    if constant.dtype != "float32":
        return Skip(name, layer, f"is {constant.dtype} already; only float32 is stored in 16 bits")
    before = constant.array().astype(np.float32, copy=False)
    after, precision = narrowed(before, dtype), PRECISION[dtype]
    with np.errstate(invalid="ignore"):
        error = relative_error(before, after.astype(np.float32))
    if not error <= precision.rounding:
        reach = f"{precision.smallest:.1e} to {precision.largest:.4g}"
        return Skip(name, layer, f"would lose what is outside of {dtype}'s range, {reach}; bfloat16 goes farther")
    store_narrow(constant.value, after)
    return Change(name, layer, f"stored in {dtype}", error, before.nbytes, after.nbytes)


def _widened(model: Model) -> Iterator[Finding]:
    bytes_before = widen(model)
    for weight in model.weights():
        before = bytes_before.get(weight.value)
        if before is None:
            yield Skip(weight.name, weight.layer, "is float32 already")
        else:
            yield Change(weight.name, weight.layer, "computes in float32", None, before, weight.nbytes)
