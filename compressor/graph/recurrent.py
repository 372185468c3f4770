"""LSTM in integers: the operator DynamicQuantizeLSTM of ONNX Runtime.

Its kernel multiplies the input (all steps at once) and the hidden state (step by step), both ranged at
run time, by int8 weights; bias, gates, cell state and peepholes stay float. Against LSTM it wants both
weights in int8, transposed to (directions, inputs, 4 · hidden), and as inputs 8 to 11 a scale and a zero
point of each, (directions,) or (directions, 4 · hidden). Everything else is passed on as it is. GRU and
RNN have no such kernel.
"""

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import new_initializer, remove_if_unused
from compressor.graph.weights import Weight, attribute
from compressor.numerics.affine import Floats, Ints

_LEAST_WEIGHTS, _LEAST_OF_ONE_STEP = 16_384, 65_536
"""Weights per direction from which an LSTM is faster in int8, and from which one that makes a single step is:
with fewer, ranging the hidden state at every step takes longer than is won (measured with AVX512-VNNI)."""

_DOMAIN, _INTEGER = "com.microsoft", "DynamicQuantizeLSTM"
_LEFT_OUT = "layout"


def partner(weight: Weight) -> ir.Value | None:
    """The other weight of an LSTM, R of W and W of R.

    None when it is computed, or when one of the two is read where the other is not: ONNX Runtime
    quantizes both or none.
    """
    others = {use.node.inputs[3 - use.idx] for use in weight.uses}
    other = others.pop()
    if others or other is None or other.const_value is None or not other.is_initializer():
        return None
    readers, other_readers = ({node for node, _ in value.uses()} for value in (weight.value, other))
    return other if readers == other_readers else None


def lstm_refusal(weight: Weight) -> str | None:
    """Why a weight of an LSTM cannot be ranged at run time; None when it can."""
    if partner(weight) is None:
        return "W and R are quantized together, and one of the two is computed or shared with another layer"
    if any(attribute(use.node, _LEFT_OUT, 0) for use in weight.uses):
        return "ONNX Runtime has no kernel for layout 1"
    return None


def is_alone(weight: Weight, selected: Iterable[Weight]) -> bool:
    """Whether the other weight of an LSTM is not among the selected ones."""
    return partner(weight) not in {other.value for other in selected}


def slower_lstm(weight: Weight) -> str | None:
    """Why an LSTM would be slower in int8; None when it would be faster."""
    arrays = [value.const_value for value in (weight.value, partner(weight)) if value is not None]
    entries = sum(prod(tensor.shape.numpy()[1:]) for tensor in arrays if tensor is not None)
    steps = {_steps(use.node) for use in weight.uses}
    least = _LEAST_OF_ONE_STEP if steps == {1} else _LEAST_WEIGHTS
    if entries >= least:
        return None
    sort = "an LSTM of one step" if steps == {1} else "an LSTM"
    return f"{sort} is slower in int8 below {least} weights, this one has {entries}; recurrent: all quantizes it anyway"


def _steps(node: ir.Node) -> int | None:
    """Length of the sequence, where it is fixed."""
    source = node.inputs[0]
    length = None if source is None or not source.shape else source.shape[0]
    return length if isinstance(length, int) else None


def insert_recurrent(weight: Weight, quantized: Ints, scales: Floats) -> None:
    """Let all LSTMs that share one of their two weights read it in int8; the second makes them integer.

    Args:
        weight: W or R; the other one must follow, or have gone before.
        quantized: (directions · 4 · hidden, inputs), int8.
        scales: () or (directions · 4 · hidden,).
    """
    graph, name = weight.value.graph, weight.value.name or ""
    if graph is None:
        raise ValueError(f"{name} is in no graph")
    directions, gates, inputs = weight.shape
    array = np.ascontiguousarray(quantized.reshape(directions, gates, inputs).transpose(0, 2, 1))
    shape = (directions, gates) if scales.ndim else (directions,)
    stored = new_initializer(graph, f"{name}_quantized", array)
    scale = new_initializer(graph, f"{name}_scale", np.broadcast_to(scales, prod(shape)).reshape(shape))
    zero_point = new_initializer(graph, f"{name}_zero_point", np.zeros(shape, np.int8))
    for node, index in weight.uses:
        node.resize_inputs(12)
        for place, value in ((index, stored), (6 + 2 * index, scale), (7 + 2 * index, zero_point)):
            node.replace_input_with(place, value)
        if all(node.inputs[place] is not None for place in (8, 10)):
            _become_integer(node, directions)
    remove_if_unused(weight.value)


def _become_integer(node: ir.Node, directions: int) -> None:
    """Change the operator; no checker can infer what comes out of it, so types and shapes are written down."""
    hidden = attribute(node, "hidden_size", 0) or None
    node.op_type, node.domain = _INTEGER, _DOMAIN
    node.attributes.pop(_LEFT_OUT, None)
    shapes = ((None, directions, None, hidden), (directions, None, hidden), (directions, None, hidden))
    for output, shape in zip(node.outputs, shapes, strict=False):
        output.type = ir.TensorType(ir.DataType.FLOAT)
        output.shape = output.shape or ir.Shape(shape)
