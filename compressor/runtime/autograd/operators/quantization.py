"""Quantize and dequantize, as straight-through estimators where gradients are asked for.

A quantized tensor whose gradient matters travels in float, rounded and clipped; the gradient passes where
nothing was clipped (Bengio et al. 2013), and reaches the scale as in LSQ (Esser et al. 2020).
"""

from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.operators.moving import cast
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import DTYPES

LIMITS: dict[ir.DataType, tuple[int, int]] = {
    ir.DataType.INT2: (-2, 1),
    ir.DataType.UINT2: (0, 3),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}
"""Smallest and largest code of each integer type."""


def _spread(value: Tensor, x: Tensor, axis: int, block: int) -> Tensor:
    """One number for all, for each index of an axis, or for each block of it, over the shape of `x`."""
    if value.numel() == 1:
        return value.reshape(())
    if block:
        return value.repeat_interleave(block, axis).narrow(axis, 0, x.shape[axis])
    shape = [1] * x.dim()
    shape[axis] = -1
    return value.reshape(shape)


class _RoundThrough(torch.autograd.Function):
    """Round to even; the gradient passes as if nothing had happened."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.round(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0]


def round_through(x: Tensor) -> Tensor:
    """Rounded to even, with the gradient of the identity."""
    rounded: Tensor = _RoundThrough.apply(x) if torch.is_grad_enabled() and x.requires_grad else torch.round(x)  # type: ignore[no-untyped-call]
    return rounded


class _FakeQuantize(torch.autograd.Function):
    """What quantizing and dequantizing make of a tensor, in one go: for tensors of images memory is what takes time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero: int, low: int, high: int) -> Tensor:
        step = float(scale)
        made = (x / scale.reshape(())).round_().clamp_(low - zero, high - zero).mul_(step)
        ctx.save_for_backward(x, made, scale)
        ctx.limits = (low - zero - 0.5) * step, (high - zero + 0.5) * step
        return made

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, made, scale = ctx.saved_tensors
        passed = torch.ops.aten.hardtanh_backward(gradients[0], x, *ctx.limits)
        slope = None
        if ctx.needs_input_grad[1]:  # Σ g · (code - x / scale) within the limits, Σ g · code beyond them
            slope = ((_dot(gradients[0], made) - _dot(passed, x)) / float(scale)).reshape(scale.shape)
        return passed, slope, None, None, None


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Sum of the products of all entries."""
    if other.dim() == 4 and other.is_contiguous(memory_format=torch.channels_last):
        one, other = one.permute(0, 2, 3, 1), other.permute(0, 2, 3, 1)
    return torch.dot(one.reshape(-1), other.reshape(-1))


def quantize_to(x: Tensor, zero_point: Tensor) -> Tensor:
    """Rounded, shifted and saturated in the type of the zero point."""
    low, high = torch.iinfo(zero_point.dtype).min, torch.iinfo(zero_point.dtype).max
    return torch.clamp(torch.round(x) + zero_point.to(x.dtype), low, high).to(zero_point.dtype)


@operator("QuantizeLinear")
def _quantize(node: Node) -> Run:
    axis, block, saturate = node.integer("axis", 1), node.integer("block_size"), bool(node.integer("saturate", 1))
    wanted = _type_of_codes(node.ir)
    if wanted not in DTYPES:
        raise node.unsupported(f"to {wanted.name} cannot be executed by torch here")

    paired = _is_undone(node.ir)

    def quantize(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        learns = torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad)
        simple = x.dtype == scale.dtype == torch.float32 and scale.numel() == 1 and not node.network.unrounded
        if paired and learns and simple:
            made: Tensor = _FakeQuantize.apply(x, scale, 0 if zero is None else int(zero), *LIMITS[wanted])  # type: ignore[no-untyped-call]
            return made
        precise = x.to(scale.dtype) if scale.dtype != x.dtype else x
        codes = precise / _spread(scale, x, axis, block)
        shift = 0 if zero is None else _spread(zero, x, axis, block).to(codes.dtype)
        if wanted not in LIMITS:
            return cast(codes + shift, wanted, saturate)
        made = torch.clamp(round_through(codes) + shift, *LIMITS[wanted])
        if node.network.unrounded and made.requires_grad:
            made = torch.where(torch.rand_like(made) < node.network.unrounded, codes + shift, made)
        if paired and learns:
            return (made - shift) * _spread(scale, x, axis, block)
        return made if made.requires_grad else made.to(DTYPES[wanted])

    return quantize


def _type_of_codes(quantizer: ir.Node) -> ir.DataType:
    """That of the zero point, or what is stated, else 8 bits without a sign."""
    zero, stated = quantizer.inputs[2] if len(quantizer.inputs) > 2 else None, quantizer.attributes.get("output_dtype")
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    if stated is not None and stated.as_int():
        return ir.DataType(stated.as_int())
    return quantizer.outputs[0].dtype or ir.DataType.UINT8


def _is_undone(quantizer: ir.Node) -> bool:
    """Whether all that reads the codes of a quantizer is what makes floats of them again, by the same numbers.

    Then the floats themselves are handed on where gradients are asked for.
    """
    codes = quantizer.outputs[0]
    plain = (
        not codes.is_graph_output()
        and _type_of_codes(quantizer) in LIMITS
        and not quantizer.attributes.get("block_size")
    )
    return plain and all(
        use.node.op_type == "DequantizeLinear"
        and tuple(use.node.inputs[1:]) == tuple(quantizer.inputs[1:])
        and use.node.attributes.get("axis") == quantizer.attributes.get("axis")
        and "output_dtype" not in use.node.attributes
        for use in codes.uses()
    )


@operator("DequantizeLinear")
def _dequantize(node: Node) -> Run:
    axis, block = node.integer("axis", 1), node.integer("block_size")
    dtype = node.dtype("output_dtype")
    source = None if node.ir.inputs[0] is None else node.ir.inputs[0].producer()
    paired = source is not None and source.op_type == "QuantizeLinear" and _is_undone(source)

    def dequantize(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        if paired and x.is_floating_point():
            return x
        exact = torch.float64 if scale.dtype == torch.float64 else torch.float32
        codes = x.to(exact)
        if zero is not None:
            codes = codes - _spread(zero, x, axis, block).to(exact)
        return (codes * _spread(scale.to(exact), x, axis, block)).to(dtype or scale.dtype)

    return dequantize


@operator("DynamicQuantizeLinear")
def _dynamic_quantize(node: Node) -> Run:
    """Codes, scale and zero point of the range that the tensor has, which always includes zero."""

    def quantize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
        scale = (high - low) / 255
        scale = torch.where(scale == 0, torch.ones_like(scale), scale).detach()
        zero = torch.clamp(torch.round(-low.detach() / scale), 0, 255)
        codes = torch.clamp(round_through(x / scale) + zero, 0, 255)
        return codes if codes.requires_grad else codes.to(torch.uint8), scale, zero.to(torch.uint8)

    return quantize
