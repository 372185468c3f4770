"""Convolutions, straight and transposed."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator

Pads = tuple[list[int], list[int]]
"""Before and after, for each spatial axis."""

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


def same_pads(total: Sequence[int], upper: bool) -> Pads:
    """What must be added in all, split in two; the odd one goes to the end for SAME_UPPER."""
    less, more = [n // 2 for n in total], [n - n // 2 for n in total]
    return (less, more) if upper else (more, less)


def pads_for(
    node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], holes: Sequence[int]
) -> Pads:
    """The padding that attributes ask for, given the spatial sizes of the input."""
    rank, mode, given = len(kernel), node.string("auto_pad", "NOTSET"), node.ints("pads")
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, holes, strict=True)]
        total = [max((-(-n // s) - 1) * s + r - n, 0) for n, s, r in zip(sizes, strides, reach, strict=True)]
        return same_pads(total, mode == "SAME_UPPER")
    if given is None or mode == "VALID":
        return [0] * rank, [0] * rank
    return given[:rank], given[rank:]


def padded(x: Tensor, pads: Pads, value: float = 0.0) -> Tensor:
    """`x` with its spatial axes extended."""
    ends = [n for pair in zip(pads[0][::-1], pads[1][::-1], strict=True) for n in pair]
    return F.pad(x, ends, value=value) if any(ends) else x


@operator("Conv")
def _conv(node: Node) -> Run:
    groups, strides, holes = node.integer("group", 1), node.ints("strides"), node.ints("dilations")

    def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = weight.dim() - 2
        step, dilation = strides or [1] * rank, holes or [1] * rank
        before, after = pads_for(node, x.shape[2:], weight.shape[2:], step, dilation)
        if before != after:
            x, before = padded(x, (before, after)), [0] * rank
        return _CONV[rank](x, weight, bias, step, before, dilation, groups)

    return conv


@operator("ConvTranspose")
def _conv_transpose(node: Node) -> Run:
    """Without padding, then cut at both ends: the only way to pads that differ."""
    groups, strides, holes = node.integer("group", 1), node.ints("strides"), node.ints("dilations")
    extra = node.ints("output_padding")

    def conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        rank = weight.dim() - 2
        step, dilation, rest = strides or [1] * rank, holes or [1] * rank, extra or [0] * rank
        reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilation, strict=True)]
        full = [(n - 1) * s + r + e for n, s, r, e in zip(x.shape[2:], step, reach, rest, strict=True)]
        before, after = _cuts(node, full, [n * s for n, s in zip(x.shape[2:], step, strict=True)])
        if before == after and not any(e >= max(s, d) for e, s, d in zip(rest, step, dilation, strict=True)):
            return _TRANSPOSED[rank](x, weight, bias, step, before, rest, groups, dilation)
        made = _TRANSPOSED[rank](x, weight, None, step, 0, 0, groups, dilation)
        made = padded(made, ([-b for b in before], [e - a for e, a in zip(rest, after, strict=True)]))  # negative: cut
        return made if bias is None else made + bias.reshape(-1, *[1] * rank)

    return conv


def _cuts(node: Node, full: Sequence[int], same: Sequence[int]) -> Pads:
    """What a transposed convolution loses at its ends.

    Args:
        node: the convolution.
        full: spatial sizes of its result when nothing is cut.
        same: the sizes that auto_pad SAME stands for.
    """
    rank, mode = len(full), node.string("auto_pad", "NOTSET")
    wanted, given = node.ints("output_shape"), node.ints("pads")
    if wanted or mode.startswith("SAME"):
        spare = [f - t for f, t in zip(full, wanted[-rank:] if wanted else same, strict=True)]
        before, _ = same_pads([max(n, 0) for n in spare], mode == "SAME_UPPER")
        return before, [n - b for n, b in zip(spare, before, strict=True)]
    if given and mode == "NOTSET":
        return given[:rank], given[rank:]
    return [0] * rank, [0] * rank


def _exact(x: Tensor, weight: Tensor, node: Node) -> Tensor:
    """Convolution of integers as int32; double precision holds every sum exactly."""
    made: Tensor = _conv(node)(x.double(), weight.double())  # type: ignore[operator]
    return made.to(torch.int64).to(torch.int32)


def _per_channel(value: Tensor, rank: int) -> Tensor:
    return value.reshape(-1, *[1] * rank) if value.dim() == 1 and value.numel() > 1 else value


@operator("ConvInteger")
def _conv_integer(node: Node) -> Run:
    def conv(x: Tensor, weight: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None) -> Tensor:
        left = x.to(torch.int32) - (0 if x_zero is None else x_zero.to(torch.int32))
        zero = 0 if w_zero is None else _per_channel(w_zero.to(torch.int32), weight.dim() - 1)
        return _exact(left, weight.to(torch.int32) - zero, node)

    return conv


@operator("QLinearConv")
def _qlinear_conv(node: Node) -> Run:
    from compressor.runtime.autograd.operators.quantization import quantize_to

    def conv(
        x: Tensor,
        sx: Tensor,
        zx: Tensor,
        w: Tensor,
        sw: Tensor,
        zw: Tensor,
        sy: Tensor,
        zy: Tensor,
        bias: Tensor | None = None,
    ) -> Tensor:
        rank = w.dim() - 2
        zero = _per_channel(zw.to(torch.int32), rank + 1)
        total = _exact(x.to(torch.int32) - zx.to(torch.int32), w.to(torch.int32) - zero, node)
        if bias is not None:
            total = total + bias.reshape(-1, *[1] * rank)
        return quantize_to(total.float() * (sx * _per_channel(sw, rank) / sy), zy)

    return conv


@operator("DeformConv")
def _deform_conv(node: Node) -> Run:
    """Every kernel position reads the image where its offset says, bilinearly; outside it is zero."""
    groups, shared = node.integer("group", 1), node.integer("offset_group", 1)
    strides, holes = node.ints("strides") or [1, 1], node.ints("dilations") or [1, 1]

    def conv(
        x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        kernel = weight.shape[2:]
        before, _ = pads_for(node, x.shape[2:], kernel, strides, holes)
        height, width = offset.shape[2:]
        moves = offset.reshape(x.shape[0], shared, kernel[0] * kernel[1], 2, height, width)
        rows = torch.arange(height).reshape(-1, 1) * strides[0] - before[0]
        columns = torch.arange(width) * strides[1] - before[1]
        within = torch.arange(kernel[0] * kernel[1])
        down = rows + (within // kernel[1] * holes[0]).reshape(-1, 1, 1)
        right = columns + (within % kernel[1] * holes[1]).reshape(-1, 1, 1)
        read = _bilinear(x, moves[:, :, :, 0] + down, moves[:, :, :, 1] + right, shared)
        if mask is not None:
            scale = mask.reshape(x.shape[0], shared, 1, -1, height, width)
            read = (read.reshape(x.shape[0], shared, -1, *read.shape[2:]) * scale).reshape(read.shape)
        columns_of = read.reshape(x.shape[0], groups, -1, height * width)
        made = torch.einsum("ngkp,gok->ngop", columns_of, weight.reshape(groups, weight.shape[0] // groups, -1))
        made = made.reshape(x.shape[0], -1, height, width)
        return made if bias is None else made + bias.reshape(-1, 1, 1)

    return conv


def _bilinear(x: Tensor, down: Tensor, right: Tensor, shared: int) -> Tensor:
    """(N, C, K, H, W): `x` at places (N, offset groups, K, H, W)."""
    batch, channels, height, width = x.shape
    grid = torch.stack([2 * right / max(width - 1, 1) - 1, 2 * down / max(height - 1, 1) - 1], -1)
    images = x.reshape(batch * shared, channels // shared, height, width)
    flat = grid.reshape(batch * shared, -1, grid.shape[-2], 2).to(x.dtype)
    read = F.grid_sample(images, flat, align_corners=True, padding_mode="zeros")
    return read.reshape(batch, channels, *down.shape[2:])
