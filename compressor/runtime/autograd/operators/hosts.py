"""Operators on numbers that stay in Python: the arithmetic of shapes."""

import math
import operator as py
from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import onnx_ir as ir
import torch

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import on_numbers
from compressor.runtime.autograd.values import DTYPES, Host, Scalar, numbers, size_of


def _divide(left: Scalar, right: Scalar) -> Scalar:
    if isinstance(left, int) and isinstance(right, int):
        return int(left / right) if abs(left) < 2**52 else left // right
    return left / right if isinstance(left, float) or isinstance(right, float) else left // right


def _equal(left: Scalar, right: Scalar) -> Scalar:
    """A size that is only known as a symbol is never negative."""
    for one, other in ((left, right), (right, left)):
        if isinstance(one, int) and one < 0 and not isinstance(other, (int, float)):
            return False
    return left == right


_BINARY: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "Add": py.add,
    "Sub": py.sub,
    "Mul": py.mul,
    "Div": _divide,
    "Equal": _equal,
    "Greater": py.gt,
    "GreaterOrEqual": py.ge,
    "Less": py.lt,
    "LessOrEqual": py.le,
    "And": lambda a, b: bool(a) and bool(b),
    "Or": lambda a, b: bool(a) or bool(b),
    "Max": max,
    "Min": min,
    "Pow": lambda a, b: type(a)(a**b),
}
_JUDGING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not")
_UNARY: dict[str, Callable[[Scalar], Scalar]] = {
    "Neg": py.neg,
    "Abs": abs,
    "Not": py.not_,
    "Floor": lambda x: float(math.floor(x)),
    "Ceil": lambda x: float(math.ceil(x)),
    "Sqrt": math.sqrt,
    "Reciprocal": lambda x: 1 / x,
}
_NEEDS_NUMBERS = ("Floor", "Ceil", "Sqrt", "Reciprocal", "Max", "Min", "Pow", "And", "Or")


def _broadcast(shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes)) if len(set(shapes)) > 1 else shapes[0]


def _spread(value: Host, shape: tuple[int, ...]) -> list[Scalar]:
    """The items of `value` for every place of a tensor of `shape`."""
    if value.shape == shape:
        return list(value.items)
    if len(value.items) == 1:
        return [value.items[0]] * int(size_of(shape))
    own = (1,) * (len(shape) - len(value.shape)) + value.shape
    strides = [0 if n == 1 else int(size_of(own[i + 1 :])) for i, n in enumerate(own)]
    places = product(*map(range, shape))
    return [value.items[sum(p * s for p, s in zip(place, strides, strict=True))] for place in places]


@on_numbers(*_BINARY)
def _binary(node: Node) -> Run:
    name = node.ir.op_type
    compute, judging = _BINARY[name], name in _JUDGING

    def run(*values: Host) -> Host | None:
        left = values[0]
        for right in values[1:]:
            if name in _NEEDS_NUMBERS and not (left.known and right.known):
                return None
            if name == "Div" and 0 in right.items:
                return None
            shape = _broadcast((left.shape, right.shape))
            pairs = zip(_spread(left, shape), _spread(right, shape), strict=True)
            left = Host([compute(a, b) for a, b in pairs], shape, torch.bool if judging else left.dtype)
        return left

    return run


@on_numbers(*_UNARY)
def _unary(node: Node) -> Run:
    name = node.ir.op_type
    compute = _UNARY[name]

    def run(value: Host) -> Host | None:
        if name in _NEEDS_NUMBERS and not (value.known and all(item > 0 for item in value.items)):
            return None
        return Host([compute(item) for item in value.items], value.shape, value.dtype)

    return run


@on_numbers("Cast")
def _cast(node: Node) -> Run:
    dtype = DTYPES.get(ir.DataType(node.integer("to")))

    def run(value: Host) -> Host | None:
        if dtype == value.dtype:
            return value
        if dtype in (torch.int64, torch.int32):
            whole = not value.dtype.is_floating_point
            return (
                Host(value.items if whole else [int(i) for i in value.items], value.shape, dtype)
                if whole or value.known
                else None
            )
        if dtype in (torch.float32, torch.float64) and value.known:
            return Host([float(item) for item in value.items], value.shape, dtype)
        return None

    return run


@on_numbers("Where")
def _where(node: Node) -> Run:
    def run(condition: Host, left: Host, right: Host) -> Host:
        shape = _broadcast((condition.shape, left.shape, right.shape))
        rows = zip(_spread(condition, shape), _spread(left, shape), _spread(right, shape), strict=True)
        return Host([a if c else b for c, a, b in rows], shape, left.dtype)

    return run


@on_numbers("Concat")
def _concat(node: Node) -> Run:
    def run(*parts: Host) -> Host | None:
        if any(len(part.shape) != 1 for part in parts):
            return None
        items = [item for part in parts for item in part.items]
        return Host(items, (len(items),), parts[0].dtype)

    return run


@on_numbers("Gather")
def _gather(node: Node) -> Run:
    def run(data: Host, indices: Host) -> Host | None:
        if len(data.shape) != 1 or not indices.known:
            return None
        return Host([data.items[int(i)] for i in indices.items], indices.shape, data.dtype)

    return run


@on_numbers("Slice")
def _slice(node: Node) -> Run:
    fixed = node.ints("starts"), node.ints("ends")

    def run(
        data: Host, starts: Host | None = None, ends: Host | None = None, axes: Any = None, steps: Any = None
    ) -> Host | None:
        begin, end = (numbers(v) if v is not None else f or [] for v, f in zip((starts, ends), fixed, strict=True))
        if len(data.shape) != 1 or len(begin) != 1:
            return None
        step = (numbers(steps) or [1])[0]
        stop = None if step < 0 and end[0] < -len(data.items) else end[0]
        items = data.items[begin[0] : stop : step]
        return Host(items, (len(items),), data.dtype)

    return run


@on_numbers("Unsqueeze")
def _unsqueeze(node: Node) -> Run:
    fixed = node.ints("axes") or []

    def run(data: Host, axes: Host | None = None) -> Host:
        along = [int(a) for a in numbers(axes)] or fixed
        rank, shape = len(data.shape) + len(along), list(data.shape)
        for axis in sorted(a % rank for a in along):
            shape.insert(axis, 1)
        return Host(data.items, tuple(shape), data.dtype)

    return run


@on_numbers("Squeeze")
def _squeeze(node: Node) -> Run:
    fixed = node.ints("axes")

    def run(data: Host, axes: Host | None = None) -> Host:
        along = [int(a) % len(data.shape) for a in numbers(axes) or fixed or []]
        kept = [n for i, n in enumerate(data.shape) if (i not in along if along else n != 1)]
        return Host(data.items, tuple(kept), data.dtype)

    return run


@on_numbers("Reshape")
def _reshape(node: Node) -> Run:
    fixed = node.ints("shape") or []

    def run(data: Host, shape: Host | None = None) -> Host | None:
        wanted = list(shape.items) if shape is not None else list(fixed)
        if not all(isinstance(n, int) for n in wanted) or 0 in wanted:
            return None
        rest = int(size_of(n for n in wanted if n != -1))
        filled = tuple(len(data.items) // rest if n == -1 else n for n in wanted)
        return Host(data.items, filled, data.dtype)

    return run


@on_numbers("Split")
def _split(node: Node) -> Run:
    fixed, count = node.ints("split"), len(node.ir.outputs)

    def run(data: Host, sizes: Host | None = None) -> tuple[Host, ...] | None:
        if len(data.shape) != 1:
            return None
        length = -(-len(data.items) // count)
        parts = numbers(sizes) or fixed or [length] * count
        ends = [sum(parts[: i + 1]) for i in range(len(parts))]
        cut = [data.items[end - size : end] for end, size in zip(ends, parts, strict=True)]
        return tuple(Host(items, (len(items),), data.dtype) for items in cut)

    return run


@on_numbers("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduce(node: Node) -> Run:
    computes: dict[str, Any] = {"ReduceProd": size_of, "ReduceSum": sum, "ReduceMax": max, "ReduceMin": min}
    compute = computes[node.ir.op_type]
    keep, careful = node.integer("keepdims", 1), node.ir.op_type in ("ReduceMax", "ReduceMin")

    def run(data: Host, axes: Host | None = None) -> Host | None:
        if len(data.shape) != 1 or not data.items or (careful and not data.known):
            return None
        return Host([compute(data.items)], (1,) if keep else (), data.dtype)

    return run


@on_numbers("Expand")
def _expand(node: Node) -> Run:
    def run(data: Host, shape: Host) -> Host | None:
        if not shape.known or size_of(shape.items) > 64 or 0 in shape.items:
            return None
        wanted = _broadcast((data.shape, tuple(int(n) for n in shape.items)))
        return Host(_spread(data, wanted), wanted, data.dtype)

    return run
