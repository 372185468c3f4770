"""Operators that multiply by matrices, and those with one number per channel."""

from functools import partial

import numpy as np
import onnx_ir as ir

from compressor.graph.channels.coupling import Alive, Axis, Coupling
from compressor.graph.channels.tags import Labels
from compressor.graph.edit import constant
from compressor.graph.weights import attribute

# fmt: off
_ZERO_STAYS = (
    "Abs", "Cast", "Celu", "Ceil", "Div", "Dropout", "Elu", "Erf", "Expand", "Flatten", "Floor", "Gather", "Gelu",
    "HardSwish", "Identity", "LeakyRelu", "Mish", "Neg", "PRelu", "Relu", "Reshape", "Resize", "Round", "Selu",
    "Shrink", "Sign", "Sin", "Sinh", "Slice", "Softsign", "Split", "Sqrt", "Squeeze", "Swish", "Tan", "Tanh", "Tile",
    "ThresholdedRelu", "Transpose", "Unsqueeze",
)
"""Operators that make zero of zero in their first input."""

_MADE = (
    "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "MatMul", "RMSNormalization",
)
"""Operators whose constants say what is zero."""
# fmt: on


def matmul(c: Coupling, node: ir.Node) -> None:
    """(…, m, k) · (…, k, n): inner axes meet, outer ones pass, all others meet one to one."""
    a, b = (list(c.axes(value)) for value in node.inputs[:2] if value is not None)
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else []
    contract(c, node, c.tie(a[-1], b[-2] if len(b) > 1 else b[0]))
    c.set_axes(node.outputs[0], [*broadcast(c, a[:-2], b[:-2]), *rows, *columns])


def contract(c: Coupling, node: ir.Node, axis: Axis) -> None:
    """Note that a sum of products of activations is over what is left, where it is not zeros that are left out."""
    factors = [value for value in node.inputs[:2] if value is not None]
    if not any(value.is_initializer() or _stays_zero(value) for value in factors):
        c.relax(node, [axis])


def _stays_zero(value: ir.Value) -> bool:
    """Whether a channel that is zero in all constants is zero in this activation too."""
    node = value.producer()
    if node is None:
        array = constant(value)
        return array is not None and (array.size > 1 or not array.any())
    if node.op_type in _MADE:
        return True
    if node.op_type in ("Mul", "Where"):
        return any(v is not None and _stays_zero(v) for v in node.inputs[-2:])
    if node.op_type in ("Add", "Sub", "Concat", "Sum"):
        return all(v is not None and _stays_zero(v) for v in node.inputs)
    first = node.inputs[0] if node.inputs else None
    return node.op_type in _ZERO_STAYS and first is not None and _stays_zero(first)


def gemm(c: Coupling, node: ir.Node) -> None:
    """A' (m, k) · B' (k, n) + C, broadcast to (m, n)."""
    a, b = (list(c.axes(value)) for value in node.inputs[:2] if value is not None)
    rows, inner = reversed(a) if attribute(node, "transA", 0) else a
    other, columns = reversed(b) if attribute(node, "transB", 0) else b
    contract(c, node, c.tie(inner, other))
    out = [rows, columns]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        out = broadcast(c, out, c.axes(node.inputs[2]))
    c.set_axes(node.outputs[0], out)


def conv(c: Coupling, node: ir.Node) -> None:
    """x (n, groups · i, …), weights (groups · o, i, …): channels meet group by group."""
    x, weights, bias = _layer(c, node)
    why = f"{node.op_type} {node.name} works across positions"
    groups = attribute(node, "group", 1)
    if groups == 1:
        c.tie(x[1], weights[1])
        out = weights[0]
    else:
        outer, inner = c.regroup([x[1]], (groups, x[1].size // groups), why)
        made, _ = c.regroup([weights[0]], (groups, weights[0].size // groups), why)
        outer = c.tie(outer, made)
        c.tie(inner, weights[1])
        out = weights[0]
        _follow_groups(c, node, outer)
    _finish(c, node, x, weights, out, bias, why)


def conv_transpose(c: Coupling, node: ir.Node) -> None:
    """x (n, groups · i, …), weights (groups · i, o, …), result (n, groups · o, …)."""
    x, weights, bias = _layer(c, node)
    why = f"{node.op_type} {node.name} works across positions"
    groups = attribute(node, "group", 1)
    c.tie(x[1], weights[0])
    out = weights[1]
    if groups > 1:
        outer, _ = c.regroup([weights[0]], (groups, weights[0].size // groups), why)
        (out,) = c.regroup([outer, weights[1]], (groups * weights[1].size,), why)
        _follow_groups(c, node, outer)
    _finish(c, node, x, weights, out, bias, why)


def per_channel(c: Coupling, node: ir.Node) -> None:
    """BatchNormalization, InstanceNormalization: vectors over axis 1; the latter takes means over positions."""
    source, *vectors = (value for value in node.inputs if value is not None)
    axes = list(c.axes(source))
    for vector in vectors:
        axes[1] = c.tie(axes[1], c.axes(vector)[0])
    if node.op_type == "InstanceNormalization":
        c.relax(node, axes[2:])
    for output in node.outputs:
        c.set_axes(output, axes if output is node.outputs[0] else axes[1:2])


def layer_normalization(c: Coupling, node: ir.Node) -> None:
    """Means over the last axes, taken over what is left of them; scale and bias meet these."""
    source, *vectors = (value for value in node.inputs if value is not None)
    axes = list(c.axes(source))
    first = attribute(node, "axis", -1) % len(axes)
    for vector in vectors:
        axes = broadcast(c, axes, c.axes(vector))
    c.relax(node, axes[first:])
    c.set_axes(node.outputs[0], axes)
    for output in node.outputs[1:]:
        c.set_axes(output, [*axes[:first], *(Axis(1) for _ in axes[first:])])


def group_normalization(c: Coupling, node: ir.Node) -> None:
    """Channels are groups of equally many; scale and bias have one number per channel, or per group before opset 21."""
    source, scale, bias = (value for value in node.inputs[:3] if value is not None)
    axes = list(c.axes(source))
    groups = attribute(node, "num_groups", 1)
    why = f"{node.op_type} {node.name} works across positions"
    outer, _ = c.regroup([axes[1]], (groups, axes[1].size // groups), why)
    for vector in (scale, bias):
        (per,) = c.axes(vector)
        outer = c.tie(outer, per) if per.size == groups else outer
        axes[1] = axes[1] if per.size == groups else c.tie(axes[1], per)
    if outer.labels is not None:
        c.rewrites.append(partial(_set_count, node, "num_groups", outer.labels))
    c.relax(node, axes[1:2])
    c.set_axes(node.outputs[0], axes)


def recurrent(c: Coupling, node: ir.Node) -> None:
    """LSTM, GRU, RNN: inputs meet W; hidden units are rows of every gate, columns of R, and what comes out."""
    for value in node.inputs[1:3]:
        if value is not None:
            c.fix(value, [0], f"{node.op_type} {node.name} runs that way")
    x, w, r = (list(c.axes(value)) for value in node.inputs[:3] if value is not None)
    c.tie(x[2], w[2])
    gates = w[1].size // r[2].size
    hidden = r[2]
    why = f"{node.op_type} {node.name}: its state is given"
    for axis in (w[1], r[1]):
        hidden = _tied_repeated(c, axis, hidden, gates)
    for idx, number, times in ((3, 1, 2 * gates), (5, 2, 1), (6, 2, 1), (7, 1, 3)):
        value = node.inputs[idx] if len(node.inputs) > idx else None
        if value is not None:
            hidden = _tied_repeated(c, c.axes(value)[number], hidden, times)
            c.fix(value, range(number), why)
    if hidden.labels is not None:
        c.rewrites.append(partial(_set_count, node, "hidden_size", hidden.labels))
    for output in node.outputs:
        sizes = c.sizes(output) or ()
        fixed = [Axis(n, None, why) for n in sizes[:-1]]
        c.set_axes(output, [*fixed, hidden] if sizes else [])


def _tied_repeated(c: Coupling, axis: Axis, unit: Axis, times: int) -> Axis:
    """Tie an axis of so many stretches of `unit`, one after the other."""
    if unit.labels is None or axis.labels is None:
        c.freeze(axis, unit.why or axis.why)
        return c.freeze(unit, unit.why or axis.why)
    c.tie(axis, Axis(axis.size, np.tile(unit.labels, times)))
    return unit


def _layer(c: Coupling, node: ir.Node) -> tuple[list[Axis], list[Axis], ir.Value | None]:
    x, weights = (list(c.axes(value)) for value in node.inputs[:2] if value is not None)
    return x, weights, node.inputs[2] if len(node.inputs) > 2 else None


def _finish(
    c: Coupling, node: ir.Node, x: list[Axis], weights: list[Axis], out: Axis, bias: ir.Value | None, why: str
) -> None:
    for axis in x[2:]:
        c.freeze(axis, why)
    if node.inputs[1] is not None:
        c.fix(node.inputs[1], range(2, len(weights)), why)
    if bias is not None:
        out = c.tie(out, c.axes(bias)[0])
    sizes = c.sizes(node.outputs[0]) or ()
    c.set_axes(node.outputs[0], [x[0], out, *(Axis(n, None, why) for n in sizes[2:])])


def broadcast(c: Coupling, a: list[Axis], b: list[Axis]) -> list[Axis]:
    """Axes aligned from the last one, tied where both are there."""
    shared = min(len(a), len(b))
    longer = a if len(a) > len(b) else b
    met = [c.tie(left, right) for left, right in zip(a[len(a) - shared :], b[len(b) - shared :], strict=True)]
    return [*longer[: len(longer) - shared], *met]


def _follow_groups(c: Coupling, node: ir.Node, outer: Axis) -> None:
    if outer.labels is not None:
        c.rewrites.append(partial(_set_count, node, "group", outer.labels))


def _set_count(node: ir.Node, name: str, labels: Labels, alive: Alive) -> None:
    """Let an attribute say how many there are left."""
    node.attributes[name] = ir.AttrInt64(name, int(alive(labels).sum()))
