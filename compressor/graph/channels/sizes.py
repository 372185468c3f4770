"""Sizes as numbers in the graph: where an operator reads one, where it comes from, and how it is made to follow."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from operator import add, floordiv, mul, sub

import numpy as np
import onnx_ir as ir

from compressor.graph.channels.coupling import Alive, Axis, Coupling
from compressor.graph.channels.tags import Labels
from compressor.graph.edit import constant, graph_of, new_initializer, redirect
from compressor.graph.weights import Use, attribute, uses_of

_SAME_ENTRIES = ("Unsqueeze", "Squeeze", "Identity", "Cast", "Reshape", "Flatten")
_ARITHMETIC: dict[str, Callable[[int, int], int]] = {"Add": add, "Sub": sub, "Mul": mul, "Div": floordiv}
_SIZE_INPUTS = {"Reshape": (1,), "Expand": (1,), "Resize": (3,), "ConstantOfShape": (0,)}
"""Where a size that is handed on is understood."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number that does not depend on what the model is fed.

    Attributes:
        value: it.
        stored: whether it lies in a constant, from where it is only handed on.
    """

    value: int
    stored: bool = True


@dataclass(frozen=True, slots=True)
class Size:
    """The size of an axis of a tensor, as the graph finds it out by itself."""

    tensor: ir.Value
    axis: int


def source(c: Coupling, value: ir.Value | None, position: int) -> Number | Size | None:
    """What an entry of a vector of integers is; None when it is computed."""
    array = constant(value)
    if array is not None:
        return Number(int(array.reshape(-1)[position]))
    node = None if value is None else value.producer()
    if value is None or node is None:
        return None
    if node.op_type == "Shape":
        return Size(_read(node), position + _first(c, node))
    step = _behind(c, node, position)
    return _computed(c, node, position) if step is None else source(c, node.inputs[step[0]], step[1])


def follow(c: Coupling, node: ir.Node, idx: int, position: int, axis: Axis) -> None:
    """Let an entry of the sizes that a node reads be what is left of `axis`; freeze it when that cannot be."""
    if axis.labels is None:
        return
    match source(c, node.inputs[idx], position):
        case Number(value) if value <= 0:
            return
        case Number(_, True):
            c.rewrites.append(partial(write, c, Use(node, idx), position, axis.labels))
        case Size(tensor, number):
            c.tie(axis, c.axes(tensor)[number])
        case _:
            c.freeze(axis, f"{node.op_type} {node.name} reads its size from a computation")


def put(c: Coupling, use: Use, position: int, number: int) -> None:
    """Replace an entry of the constant that ends up in this input; nothing else that reads it sees that."""
    value = use.node.inputs[use.idx]
    if value is not None:
        use.node.replace_input_with(use.idx, _replaced(c, use.node, value, position, number))


def write(c: Coupling, use: Use, position: int, labels: Labels, alive: Alive) -> None:
    """Let an entry of the constant that ends up in this input be how many of these entries stay."""
    left = alive(labels)
    if not left.all():
        put(c, use, position, int(left.sum()))


def fix_known(c: Coupling) -> bool:
    """Turn sizes that the graph finds out by itself, but which stem from its weights, into numbers.

    What is computed from them then stays what it was, and the numbers that shape tensors follow.

    Returns:
        Whether there were any.
    """
    fixed = False
    for node in list(c.model.ir.graph):
        output = node.outputs[0]
        if node.op_type not in ("Shape", "Gather", "Slice", *_SAME_ENTRIES) or not uses_of(output):
            continue
        if c.sizes(output) is None or len(c.sizes(output) or ()) > 1:
            continue
        found = [source(c, output, place) for place in range(_length(c, output))]
        known = [item for item in found if isinstance(item, Size) and c.axes(item.tensor)[item.axis].labels is not None]
        if known and len(known) == len(found):
            numbers = np.array([c.axes(item.tensor)[item.axis].size for item in known], np.int64)
            constant_ = numbers.reshape(c.sizes(output) or ())
            if output.dtype is not None:
                constant_ = constant_.astype(output.dtype.numpy())
            redirect(uses_of(output), new_initializer(graph_of(node), f"{output.name}_known", constant_))
            fixed = True
    return fixed


def freeze_escaping(c: Coupling, node: ir.Node) -> None:
    """Freeze the axes whose sizes a Shape gives to something that does more with them than shape a tensor."""
    axes = c.axes(_read(node))
    first = _first(c, node)
    for position in range((c.sizes(node.outputs[0]) or (0,))[0]):
        axis = axes[first + position]
        if axis.labels is not None:
            reason = next(_escapes(c, node.outputs[0], position), None)
            if reason is not None:
                c.freeze(axis, reason)


def _escapes(c: Coupling, value: ir.Value, position: int) -> Iterator[str]:
    """Ways to make use of an entry of a vector that are not understood."""
    if value.is_graph_output():
        yield f"its size is {value.name}, an output of the model"
    for node, idx in uses_of(value):
        if node.graph is not c.model.ir.graph:
            yield f"{node.op_type} {node.name} reads its size in a branch or loop"
            continue
        if idx in _SIZE_INPUTS.get(node.op_type, ()):
            continue
        steps = [_behind(c, node, place) for place in range(_length(c, node.outputs[0]))]
        if None in steps or not steps:
            yield f"{node.op_type} {node.name} computes with its size"
        for place, step in enumerate(steps):
            if step == (idx, position):
                yield from _escapes(c, node.outputs[0], place)


def _computed(c: Coupling, node: ir.Node, position: int) -> Number | Size | None:
    """An entry of what is put together from numbers, as exporters do where a size may be left open."""
    if node.op_type == "ConstantOfShape":
        value = node.attributes.get("value")
        return Number(0 if value is None else int(value.as_tensor().numpy().item()), False)
    if node.op_type not in ("Where", "Equal", *_ARITHMETIC):
        return None
    first, *others = (source(c, v, position if _length(c, v) > 1 else 0) for v in node.inputs)
    match node.op_type, first, others:
        case "Where", Number(chosen), [yes, no]:
            picked = yes if chosen else no
            return Number(picked.value, False) if isinstance(picked, Number) else picked
        case "Equal", Number(a), [Number(b)]:
            return Number(int(a == b), False)
        case ("Equal", Number(negative), [Size()]) | ("Equal", Size(), [Number(negative)]) if negative < 0:
            return Number(0, False)
        case op_type, Number(a), [Number(b)] if op_type in _ARITHMETIC and (op_type != "Div" or b):
            return Number(_ARITHMETIC[op_type](a, b), False)
    return None


def _is_real(node: ir.Node) -> bool:
    return node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()).is_floating_point()


def _behind(c: Coupling, node: ir.Node, position: int) -> tuple[int, int] | None:
    """The input that a node takes this entry of its result from, and where there, if it only hands it on."""
    if any(len(c.sizes(value) or ()) > 1 for value in (*node.inputs, *node.outputs) if value is not None):
        return None
    if node.op_type in _SAME_ENTRIES:
        return None if _is_real(node) else (0, position)
    match node.op_type:
        case "Concat":
            return _part_of(c, node, position)
        case "Gather":
            indices = constant(node.inputs[1])
            return None if indices is None else (0, int(indices.reshape(-1)[position]) % _length(c, node.inputs[0]))
        case "Slice":
            starts, steps = constant(node.inputs[1]), constant(node.inputs[4]) if len(node.inputs) > 4 else np.ones(1)
            if starts is None or steps is None:
                return None
            begin, step = int(starts.reshape(-1)[0]), int(steps.reshape(-1)[0])
            first, _, _ = slice(begin, None, step).indices(_length(c, node.inputs[0]))
            return 0, first + position * step
    return None


def _part_of(c: Coupling, node: ir.Node, position: int) -> tuple[int, int] | None:
    for idx, value in enumerate(node.inputs):
        length = _length(c, value)
        if position < length:
            return idx, position
        position -= length
    return None


def _length(c: Coupling, value: ir.Value | None) -> int:
    sizes = None if value is None else c.sizes(value)
    return sizes[0] if sizes else 1


def _read(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name} reads nothing")
    return value


def _first(c: Coupling, node: ir.Node) -> int:
    """Axis whose size comes first in the result of a Shape."""
    first, _, _ = slice(attribute(node, "start", 0), None).indices(len(c.sizes(_read(node)) or ()))
    return first


def _replaced(c: Coupling, reader: ir.Node, value: ir.Value, position: int, number: int) -> ir.Value:
    """A value like `value` but for one entry; the nodes on the way to its constant are copied."""
    array, graph = constant(value), graph_of(reader)
    if array is not None:
        changed = array.copy()
        changed.reshape(-1)[position] = number
        return new_initializer(graph, f"{value.name}_left", changed)
    node = value.producer()
    step = None if node is None else _behind(c, node, position)
    handed_on = None if node is None or step is None else node.inputs[step[0]]
    if node is None or step is None or handed_on is None:
        raise ValueError(f"{value.name} is no constant")
    inputs = list(node.inputs)
    inputs[step[0]] = _replaced(c, node, handed_on, step[1], number)
    copy = ir.Node("", node.op_type, inputs, list(node.attributes.values()), name=f"{node.name}_left")
    copy.outputs[0].name, copy.outputs[0].type = f"{value.name}_left", value.type
    c.shapes[copy.outputs[0].name] = c.sizes(value) or ()
    graph.insert_after(node, copy)
    return copy.outputs[0]
