"""Layers that stay in float among integers.

ONNX Runtime rounds the weights of every Conv, ConvTranspose and Gemm that reads a DequantizeLinear with one
scale to int8 on its own, all of a weight with one scale (its WeightBiasQuantization), whether or not that
layer was to be quantized. It leaves those alone that read one with a scale per channel.
"""

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import constant, graph_of, new_initializer, new_node
from compressor.graph.weights import attribute


def keep_float(node: ir.Node) -> None:
    """Let a layer read its dequantized input with the same scale written down once per channel."""
    dequantize, channels = _producer(node), _channels(node)
    if dequantize is None or channels is None:
        return
    graph, name = graph_of(node), f"{node.name}_input"
    spread = [np.broadcast_to(np.asarray(constant(value)), channels) for value in dequantize.inputs[1:]]
    operands = [dequantize.inputs[0]]
    for suffix, array in zip(("scale", "zero_point"), spread, strict=True):
        operands.append(new_initializer(graph, f"{name}_{suffix}", np.ascontiguousarray(array)))
    axis = 0 if attribute(node, "transA", 0) else 1
    alike = new_node("DequantizeLinear", operands, name, ir.DataType.FLOAT, {"axis": axis})
    alike.outputs[0].shape = dequantize.outputs[0].shape
    graph.insert_before(node, alike)
    node.replace_input_with(0, alike.outputs[0])


def _producer(node: ir.Node) -> ir.Node | None:
    source = node.inputs[0]
    producer = None if source is None else source.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" else None


def _channels(node: ir.Node) -> int | None:
    """How many channels a layer reads; None for what ONNX Runtime leaves alone."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
        return None
    weight = node.inputs[1]
    straight = node.op_type == "Conv" or (node.op_type == "Gemm" and attribute(node, "transB", 0))
    extent = None if weight is None or weight.shape is None else weight.shape[1 if straight else 0]
    groups = attribute(node, "group", 1) if node.op_type == "Conv" else 1
    return extent * groups if isinstance(extent, int) else None
