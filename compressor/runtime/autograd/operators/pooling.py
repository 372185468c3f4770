"""Pooling: the largest, the mean, the norm of every window."""

from collections.abc import Callable
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.operators.convolution import Pads, padded, pads_for
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import numbers, size_of

_MAX: dict[int, Callable[..., Tensor]] = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
_MEAN: dict[int, Callable[..., Tensor]] = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


class _Windows:
    """Where the windows of a pooling lie."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.kernel = node.ints("kernel_shape") or []
        rank = len(self.kernel)
        self.strides = node.ints("strides") or [1] * rank
        self.holes = node.ints("dilations") or [1] * rank
        self.up = bool(node.integer("ceil_mode"))

    def pads(self, x: Tensor) -> Pads:
        return pads_for(self.node, x.shape[2:], self.kernel, self.strides, self.holes)

    def overhang(self, x: Tensor, pads: Pads) -> list[int]:
        """What the last window reaches over the padded end, when sizes are rounded up."""
        if not self.up:
            return [0] * len(self.kernel)
        found = []
        for axis, size in enumerate(x.shape[2:]):
            full = size + pads[0][axis] + pads[1][axis]
            reach = (self.kernel[axis] - 1) * self.holes[axis] + 1
            count = ceil((full - reach) / self.strides[axis]) + 1
            if (count - 1) * self.strides[axis] >= size + pads[0][axis]:
                count -= 1
            found.append(max((count - 1) * self.strides[axis] + reach - full, 0))
        return found

    def extended(self, x: Tensor, value: float) -> Tensor:
        before, after = self.pads(x)
        beyond = [a + o for a, o in zip(after, self.overhang(x, (before, after)), strict=True)]
        return padded(x, (before, beyond), value)

    def take(self, x: Tensor) -> Tensor:
        """(N, C, positions …, window): the windows of an already extended tensor."""
        for axis, (size, stride, hole) in enumerate(zip(self.kernel, self.strides, self.holes, strict=True)):
            x = x.unfold(2 + axis, (size - 1) * hole + 1, stride)[..., ::hole]
        return x.flatten(2 + len(self.kernel))


def windows_of(node: Node, value: float) -> Callable[[Tensor], Tensor]:
    """A function from (N, C, spatial …) to its windows, the outside filled with `value`."""
    windows = _Windows(node)
    return lambda x: windows.take(windows.extended(x, value))


@operator("MaxPool")
def _max_pool(node: Node) -> Run:
    windows, rank = _Windows(node), len(node.ints("kernel_shape") or [])
    places, by_column = node.wants(1), node.integer("storage_order")

    def pool(x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        before, after = windows.pads(x)
        small = all(2 * b <= k for b, k in zip(before, windows.kernel, strict=True))
        if not places and before == after and small and not windows.up and x.dtype.is_floating_point:
            return _MAX[rank](x, windows.kernel, windows.strides, before, windows.holes)
        lowest = -float("inf") if x.dtype.is_floating_point else torch.iinfo(x.dtype).min
        taken = windows.take(windows.extended(x, lowest))
        best = taken.max(-1)
        if not places:
            return best.values
        flat = torch.arange(size_of(x.shape), dtype=torch.float64).reshape(x.shape)
        if by_column:
            spatial = list(range(2, x.dim()))
            turned = x.permute(0, 1, *spatial[::-1]).shape
            flat = torch.arange(size_of(x.shape), dtype=torch.float64).reshape(turned).permute(0, 1, *spatial[::-1])
        where = windows.take(windows.extended(flat, -1.0)).gather(-1, best.indices.unsqueeze(-1))
        return best.values, where.squeeze(-1).long()

    return pool


@operator("AveragePool")
def _average_pool(node: Node) -> Run:
    """A window counts what lies in the image, and the padding only when it is asked to."""
    windows, rank = _Windows(node), len(node.ints("kernel_shape") or [])
    whole = bool(node.integer("count_include_pad"))

    def pool(x: Tensor) -> Tensor:
        before, after = windows.pads(x)
        small = all(2 * b <= k for b, k in zip(before, windows.kernel, strict=True))
        if before == after and small and not windows.up and set(windows.holes) <= {1}:
            return _MEAN[rank](x, windows.kernel, windows.strides, before, False, whole)
        counted = padded(x.new_ones(x.shape), (before, after), 1.0) if whole else x.new_ones(x.shape)
        reach = (before, after) if not whole else ([0] * rank, [0] * rank)
        beyond = [a + o for a, o in zip(reach[1], windows.overhang(x, (before, after)), strict=True)]
        count = windows.take(padded(counted, (reach[0], beyond))).sum(-1)
        return windows.take(windows.extended(x, 0.0)).sum(-1) / count

    return pool


@operator("MaxUnpool", numbers=(2,))
def _max_unpool(node: Node) -> Run:
    """Places count in the smallest image that fits; a larger one is filled up at its ends."""
    kernel = node.ints("kernel_shape") or []
    strides, ends = node.ints("strides") or [1] * len(kernel), node.ints("pads") or [0] * 2 * len(kernel)

    def unpool(x: Tensor, places: Tensor, shape: Tensor | None = None) -> Tensor:
        rank = len(kernel)
        sizes = [
            (n - 1) * s + k - ends[i] - ends[i + rank]
            for i, (n, s, k) in enumerate(zip(x.shape[2:], strides, kernel, strict=True))
        ]
        own = [*x.shape[:2], *sizes]
        wanted = [int(n) for n in numbers(shape)] or own
        flat = torch.zeros(int(size_of(own)), dtype=x.dtype).index_put((places.reshape(-1),), x.reshape(-1))
        missing = [n - m for n, m in zip(wanted, own, strict=True)]
        return F.pad(flat.reshape(own), [n for size in missing[::-1] for n in (0, size)])

    return unpool
