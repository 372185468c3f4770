"""Quantize and dequantize, as straight-through estimators where gradients are asked for.

A quantized tensor whose gradient matters travels in float, rounded and clipped; the gradient passes where
nothing was clipped (Bengio et al. 2013), and reaches the scale as in LSQ (Esser et al. 2020).
"""

from typing import Any

import torch
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.operators.moving import cast
from compressor.runtime.autograd.operators.pairs import LIMITS, quantizer_of, type_of_codes, undone
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import DTYPES


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
    wanted = type_of_codes(node.ir)
    if wanted not in DTYPES:
        raise node.unsupported(f"to {wanted.name} cannot be executed by torch here")

    paired = undone(node.ir)
    limits = paired or LIMITS.get(wanted)

    def quantize(x: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
        learns = torch.is_grad_enabled() and (x.requires_grad or scale.requires_grad)
        simple = x.dtype == scale.dtype == torch.float32 and scale.numel() == 1 and not node.network.unrounded
        if paired is not None and learns and simple:
            made: Tensor = _FakeQuantize.apply(x, scale, 0 if zero is None else int(zero), *paired)  # type: ignore[no-untyped-call]
            return made
        precise = x.to(scale.dtype) if scale.dtype != x.dtype else x
        codes = precise / _spread(scale, x, axis, block)
        shift = 0 if zero is None else _spread(zero, x, axis, block).to(codes.dtype)
        if limits is None:
            return cast(codes + shift, wanted, saturate)
        made = torch.clamp(round_through(codes) + shift, *limits)
        if node.network.unrounded and made.requires_grad:
            made = torch.where(torch.rand_like(made) < node.network.unrounded, codes + shift, made)
        if paired is not None and learns:
            return (made - shift) * _spread(scale, x, axis, block)
        return made if made.requires_grad else made.to(DTYPES[wanted])

    return quantize


@operator("DequantizeLinear")
def _dequantize(node: Node) -> Run:
    axis, block = node.integer("axis", 1), node.integer("block_size")
    dtype = node.dtype("output_dtype")
    paired = undone(quantizer_of(node.ir)) is not None

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
