"""The bias of a layer, wherever its form keeps it, moved by a little.

A bias is an input of Conv and Gemm, or a constant added behind a product, in float or in int32 at
x_scale · w_scale. Where there is none, one is added in the form that ONNX Runtime still fuses to the same kernel.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.chains import is_vector, rewrite
from compressor.graph.edit import constant, graph_of, insert, new_initializer, new_node, redirect, take_over_output
from compressor.graph.model import Model
from compressor.graph.quantize import insert_bias
from compressor.graph.twins import Twins
from compressor.graph.weights import Use, uses_of
from compressor.numerics.affine import INT32_LIMIT, Floats, quantize_bias

_BIASED = ("Conv", "ConvTranspose", "Gemm")


def bias_refusal(model: Model, layer: Twins) -> str | None:
    """Why the bias of a layer cannot be moved; None when it can."""
    node = _node(model, layer)
    if node.op_type in _BIASED:
        value = node.inputs[2] if len(node.inputs) > 2 else None
        movable = value is None or is_vector(Use(node, 2), -1, layer.channels) or _integers(Use(node, 2)) is not None
        return None if movable else "its bias is computed, or not one number per channel"
    if _added(node, layer) is None and any(use.node.op_type == "QuantizeLinear" for use in uses_of(node.outputs[0])):
        return "it has no bias, and with one its output would leave int8"
    return None


def has_place_for_bias(model: Model, layer: Twins) -> bool:
    """Whether the bias of a layer can be moved without a new operator behind it."""
    node = _node(model, layer)
    return bias_refusal(model, layer) is None and (node.op_type in _BIASED or _added(node, layer) is not None)


def move_bias(model: Model, layer: Twins, shift: Floats) -> None:
    """Add `shift`, (channels,), to the bias of a layer that has no `bias_refusal`."""
    node = _node(model, layer)
    if node.op_type in _BIASED:
        _move_input(node, layer, shift)
        return
    added = _added(node, layer)
    if added is None:
        _add_behind(node, layer, shift)
    else:
        _add(added, shift)


def _node(model: Model, layer: Twins) -> ir.Node:
    return next(node for node in model.ir.graph if node.name == layer.layer)


def _move_input(node: ir.Node, layer: Twins, shift: Floats) -> None:
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        _add(Use(node, 2), shift)
    else:
        _new_input(node, layer, shift)


def _new_input(node: ir.Node, layer: Twins, shift: Floats) -> None:
    """In int32 where input and weights are integers, else in float."""
    node.resize_inputs(3)
    scales = [_scale(value, layer.channels) for value in node.inputs[:2]]
    if scales[0] is None or scales[1] is None:
        node.replace_input_with(2, new_initializer(graph_of(node), f"{node.name}_bias", _typed(node, shift)))
        return
    both = scales[0] * scales[1]
    insert_bias(Use(node, 2), quantize_bias(shift, both), both)


def _integers(use: Use) -> tuple[Use, Floats] | None:
    """Where the int32 of what is read there are read, and their scale, (channels,)."""
    value = use.node.inputs[use.idx]
    producer = None if value is None else value.producer()
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    integers, scale = (constant(value) for value in producer.inputs[:2])
    if integers is None or scale is None or integers.ndim != 1 or integers.dtype != np.int32:
        return None
    return Use(producer, 0), np.broadcast_to(scale, integers.shape).astype(np.float32)


def _scale(value: ir.Value | None, channels: int) -> Floats | None:
    """Of what DequantizeLinear makes, (channels,)."""
    producer = None if value is None else value.producer()
    scale = constant(producer.inputs[1]) if producer is not None and producer.op_type == "DequantizeLinear" else None
    if scale is None or scale.size not in (1, channels):
        return None
    return np.broadcast_to(scale.reshape(-1), (channels,)).astype(np.float32)


def _added(node: ir.Node, layer: Twins) -> Use | None:
    """The constant that a product ends in adding, or that is added to it by its only reader."""
    uses = uses_of(node.outputs[0])
    readers = [node] if node.op_type == "Add" else [use.node for use in uses if len(uses) == 1]
    found = (
        Use(reader, idx)
        for reader in readers
        for idx in range(len(reader.inputs))
        if reader.op_type == "Add"
        and (is_vector(Use(reader, idx), layer.axis, layer.channels) or _integers(Use(reader, idx)) is not None)
    )
    return None if node.outputs[0].is_graph_output() and node.op_type != "Add" else next(found, None)


def _add(use: Use, shift: Floats) -> None:
    integers = _integers(use)
    if integers is None:
        array = np.asarray(constant(use.node.inputs[use.idx]), np.float64)
        rewrite(use, array + shift.reshape(array.shape))
    else:
        read, scale = integers
        moved = np.asarray(constant(read.node.inputs[0]), np.float64) + np.rint(shift / scale)
        rewrite(read, np.clip(moved, -INT32_LIMIT, INT32_LIMIT))


def _add_behind(node: ir.Node, layer: Twins, shift: Floats) -> None:
    graph, value = graph_of(node), node.outputs[0]
    uses = uses_of(value)
    aligned = _typed(node, shift).reshape(-1, *[1] * (-1 - layer.axis))
    stored = new_initializer(graph, f"{node.name}_bias", aligned)
    added = new_node("Add", [value, stored], f"{value.name}_corrected", value.dtype)
    added.outputs[0].shape = value.shape
    redirect(uses, added.outputs[0])
    insert(graph, value, [added])
    if value.is_graph_output():
        take_over_output(graph, value, added.outputs[0])


def _typed(node: ir.Node, shift: Floats) -> NDArray[np.generic]:
    dtype = node.outputs[0].dtype
    return shift if dtype is None else shift.astype(dtype.numpy())
