"""Matrix products, in float and on integers."""

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator


@operator("MatMul")
def _matmul(node: Node) -> Run:
    def matmul(left: Tensor, right: Tensor) -> Tensor:
        if left.dtype.is_floating_point:
            return torch.matmul(left, right)
        return torch.matmul(left.to(torch.int64), right.to(torch.int64)).to(left.dtype)

    return matmul


@operator("Gemm")
def _gemm(node: Node) -> Run:
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    left_turned, right_turned = node.integer("transA"), node.integer("transB")
    plain = alpha == 1 and beta == 1 and not left_turned

    def gemm(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
        if plain and left.dtype.is_floating_point and (bias is None or bias.dim() == 1):
            return F.linear(left, right if right_turned else right.T, bias)
        made = alpha * torch.matmul(left.T if left_turned else left, right.T if right_turned else right)
        made = made if bias is None else made + beta * bias
        return made.to(left.dtype)

    return gemm


def _centred(x: Tensor, zero_point: Tensor | None, columns: bool) -> Tensor:
    """Integers minus their zero point, which may be one for each row, or for each column."""
    wide = x.to(torch.int32)
    if zero_point is None:
        return wide
    zero = zero_point.to(torch.int32)
    return wide - (zero.unsqueeze(-1) if zero.dim() == 1 and zero.numel() > 1 and not columns else zero)


@operator("MatMulInteger")
def _matmul_integer(node: Node) -> Run:
    def product(
        left: Tensor, right: Tensor, left_zero: Tensor | None = None, right_zero: Tensor | None = None
    ) -> Tensor:
        return _exact_matmul(_centred(left, left_zero, False), _centred(right, right_zero, True))

    return product


def _exact_matmul(left: Tensor, right: Tensor) -> Tensor:
    """int32, computed in double precision, where every sum of products of 9-bit integers is exact."""
    return torch.matmul(left.double(), right.double()).to(torch.int64).to(torch.int32)


@operator("QLinearMatMul")
def _qlinear_matmul(node: Node) -> Run:
    from compressor.runtime.autograd.operators.quantization import quantize_to

    def product(a: Tensor, sa: Tensor, za: Tensor, b: Tensor, sb: Tensor, zb: Tensor, sy: Tensor, zy: Tensor) -> Tensor:
        total = _exact_matmul(_centred(a, za, False), _centred(b, zb, True))
        left = sa.float().unsqueeze(-1) if sa.dim() == 1 and sa.numel() > 1 else sa.float()
        return quantize_to(total.float() * (left * sb.float() / sy.float()), zy)

    return product


@operator("MatMulNBits", domain="com.microsoft")
def _matmul_n_bits(node: Node) -> Run:
    """Codes are only read: what they stand for is a constant."""
    columns, rows, bits, block = (node.integer(name) for name in ("N", "K", "bits", "block_size"))
    held: dict[torch.device, Tensor] = {}

    def unpacked(codes: Tensor, scales: Tensor, zero: Tensor | None) -> Tensor:
        if (
            torch.jit._trace.is_tracing() or torch.compiler.is_compiling()
        ):  # the codes are stored, not what they stand for
            return _unpacked(codes, scales, zero, columns, rows, bits, block)
        if codes.device not in held:
            held[codes.device] = _unpacked(codes, scales, zero, columns, rows, bits, block)
        return held[codes.device]

    def product(x: Tensor, codes: Tensor, scales: Tensor, zero: Tensor | None = None, *rest: Tensor | None) -> Tensor:
        bias = rest[1] if len(rest) > 1 else None
        return F.linear(x, unpacked(codes, scales, zero).to(x.dtype), bias)

    return product


def _unpacked(
    codes: Tensor, scales: Tensor, zero: Tensor | None, columns: int, rows: int, bits: int, block: int
) -> Tensor:
    """(N, K): codes are (N, blocks, bytes), lowest bits first, one scale and zero point for each block."""
    blocks = -(-rows // block)
    levels = _spread_bits(codes.reshape(columns, blocks, -1), bits).float()
    if zero is None:
        middle = torch.full((), float(2 ** (bits - 1)))
    elif zero.dtype.is_floating_point:
        middle = zero.reshape(columns, blocks, 1)
    else:
        middle = _spread_bits(zero.reshape(columns, -1), bits)[:, :blocks].float().unsqueeze(-1)
    matrix = (levels - middle) * scales.reshape(columns, blocks, 1).float()
    return matrix.reshape(columns, -1)[:, :rows].contiguous()


def _spread_bits(packed: Tensor, bits: int) -> Tensor:
    if bits == 8:
        return packed
    shifts = torch.arange(0, 8, bits)
    codes: Tensor = (packed.to(torch.int32).unsqueeze(-1) >> shifts) & (2**bits - 1)
    return codes.flatten(-2)


@operator("GatherBlockQuantized", domain="com.microsoft")
def _gather_block_quantized(node: Node) -> Run:
    """Rows of a table in codes: looked up, then brought to their scale."""
    bits, block = node.integer("bits", 4), node.integer("block_size", 128)
    if node.integer("gather_axis"):
        raise node.unsupported("along another axis than the first cannot be executed by torch here")
    kind = node.input_dtype(0)
    packed = kind == ir.DataType.UINT8 and bits < 8

    def look_up(table: Tensor, indices: Tensor, scales: Tensor, zero: Tensor | None = None) -> Tensor:
        places = indices.long()
        codes = _spread_bits(table[places], bits) if packed else table[places]
        steps = scales[places]
        if zero is None:
            middle: Tensor | float = float(2 ** (bits - 1)) if kind == ir.DataType.UINT8 else 0.0
        else:
            rows = _spread_bits(zero[places], bits)[..., : steps.shape[-1]] if packed else zero[places]
            middle = rows.float().repeat_interleave(block, -1)[..., : codes.shape[-1]]
        wide = steps.float().repeat_interleave(block, -1)[..., : codes.shape[-1]]
        return ((codes.float() - middle) * wide).to(scales.dtype)

    return look_up


@operator("FusedMatMul", domain="com.microsoft")
def _fused_matmul(node: Node) -> Run:
    alpha, left_turned, right_turned = node.real("alpha", 1.0), node.integer("transA"), node.integer("transB")

    def product(left: Tensor, right: Tensor) -> Tensor:
        a = left.transpose(-1, -2) if left_turned else left
        return alpha * torch.matmul(a, right.transpose(-1, -2) if right_turned else right)

    return product
