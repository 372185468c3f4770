"""What nothing needs to run: in a small model names, notes and repeated numbers outweigh the weights."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import constant, new_node, remove_if_unused
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.graph.weights import RESAMPLES, find_weights

_CONVOLUTIONS = ("Conv", "ConvTranspose", "ConvInteger")
_DEFAULTS = {"dilations": 1, "group": 1, "strides": 1, "pads": 0}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def compute_bias_scales(model: Model) -> int:
    """Let the scale of every int32 bias be the product of its input's and its weight's, which it equals.

    Returns:
        Bytes that need not be stored.
    """
    saved = 0
    for graph in model.ir.graphs():
        for node in (n for n in graph if n.op_type in ("Conv", "Gemm") and len(n.inputs) > 2):
            x, w, b = (None if v is None else v.producer() for v in node.inputs[:3])
            if x is None or w is None or b is None or not all(p.op_type == "DequantizeLinear" for p in (x, w, b)):
                continue
            saved += _compute_scale(graph, b, x.inputs[1], w.inputs[1])
    return saved


def _compute_scale(graph: ir.Graph, bias: ir.Node, x_scale: ir.Value | None, w_scale: ir.Value | None) -> int:
    old = bias.inputs[1]
    stored, x_factor, w_factor = constant(old), constant(x_scale), constant(w_scale)
    if old is None or stored is None or x_factor is None or w_factor is None:
        return 0
    if not np.array_equal(x_factor.astype(np.float32) * w_factor.astype(np.float32), stored):
        return 0
    multiply = new_node("Mul", [x_scale, w_scale], f"{old.name}_computed", ir.DataType.FLOAT)
    graph.insert_before(bias, multiply)
    bias.replace_input_with(1, multiply.outputs[0])
    remove_if_unused(old)
    return stored.nbytes


def shorten(model: Model) -> int:
    """Give inner values the shortest names, and let nodes without weights go without.

    Layers keep their names, and so do inputs, outputs and dimensions.

    Returns:
        Names that were shortened or dropped.
    """
    layers = {use.node.name for weight in find_weights(model.ir) for use in weight.uses}
    layers |= {name for name, _, _ in set_aside(model)}
    taken = {v.name for graph in model.ir.graphs() for v in (*graph.inputs, *graph.outputs, *_inner(graph))}
    names = (name for name in map(_short, count()) if name not in taken)
    shortened = 0
    for graph in model.ir.graphs():
        graph.doc_string = None
        for node in graph:
            shortened += _strip(node, node.name in layers)
        for value in list(_inner(graph)):
            value.name = next(names)
            shortened += 1
    return shortened


def _strip(node: ir.Node, is_layer: bool) -> int:
    node.doc_string = None
    for name in _DEFAULTS.keys() & node.attributes.keys():
        if set(_values(node.attributes[name])) == {_DEFAULTS[name]} and node.op_type in _CONVOLUTIONS:
            del node.attributes[name]
    for key in node.metadata_props.keys() - {RESAMPLES}:
        del node.metadata_props[key]
    if is_layer or not node.name:
        return 0
    node.name = ""
    return 1


def _inner(graph: ir.Graph) -> Iterator[ir.Value]:
    """What is neither input nor output of its graph."""
    for value in graph.initializers.values():
        if not value.is_graph_input() and not value.is_graph_output():
            yield value
    for node in graph:
        yield from (v for v in node.outputs if v.name and not v.is_graph_output())


def _values(attribute: ir.Attr) -> tuple[int, ...]:
    return (attribute.as_int(),) if attribute.type == ir.AttributeType.INT else tuple(attribute.as_ints())


def _short(number: int) -> str:
    """0, 1, … z, 10, … in base 36."""
    digits = _DIGITS[number % 36]
    while number := number // 36:
        digits = _DIGITS[number % 36] + digits
    return digits
