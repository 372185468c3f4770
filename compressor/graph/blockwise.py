"""Weights in blocks of few bits that stay so at run time: the block-wise operators of ONNX Runtime and of ONNX.

MatMulNBits multiplies a float input by packed weights, GatherBlockQuantized looks packed rows up; both
are of the domain com.microsoft. DequantizeLinear with a block size is ONNX's own, and ONNX Runtime
turns it into MatMulNBits where a MatMul follows whose weight is (inputs, outputs).
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import constant, new_initializer, new_node, remove_if_unused, replace
from compressor.graph.weights import Weight
from compressor.numerics.levels import Coded
from compressor.numerics.packing import pack_bits

_DOMAIN = "com.microsoft"
_INT8_ACTIVATIONS = 4
"""The accuracy level that multiplies in int8; others have no fast kernel for 2 and 8 bits."""

_TYPES = {8: ir.DataType.INT8, 4: ir.DataType.INT4}


def insert_block_product(weight: Weight, coded: Coded) -> None:
    """Turn MatMul or Gemm by a constant into MatMulNBits.

    Args:
        weight: (outputs, inputs) as a matrix.
        coded: with a step per block; inputs filled up to whole blocks.
    """
    graph, name = _home(weight), weight.value.name or ""
    outputs, inputs = weight.matrix().shape
    bits, blocks = int(coded.levels.bits), coded.scale.shape[1]
    stored = new_initializer(graph, f"{name}_packed", _packed(coded.codes, bits).reshape(outputs, blocks, -1))
    scales = new_initializer(graph, f"{name}_scale", coded.scale)
    zeros = _zero_points(graph, name, coded)
    attributes = {"K": inputs, "N": outputs, "bits": bits, "block_size": coded.block}
    attributes["accuracy_level"] = _INT8_ACTIVATIONS
    for node, _ in weight.uses:
        old = node.inputs[2] if len(node.inputs) > 2 else None
        bias = constant(old)
        whole = None if bias is None else np.broadcast_to(bias.reshape(-1), (outputs,)).astype(np.float32)
        added = None if whole is None else new_initializer(graph, f"{node.name}_bias", whole)
        operands = [node.inputs[0], stored, scales, zeros, None, added]
        replace(node, [_node("MatMulNBits", operands, attributes, _DOMAIN)])
        if old is not None:
            remove_if_unused(old)
    remove_if_unused(weight.value)


def insert_block_dequantization(weight: Weight, coded: Coded) -> None:
    """Let MatMul read its weight, (inputs, outputs), through DequantizeLinear; Gemm becomes MatMul and Add.

    Args:
        weight: (outputs, inputs) as a matrix.
        coded: of 8 or 4 bits with a step per block.
    """
    graph, name = _home(weight), weight.value.name or ""
    inputs = weight.matrix().shape[1]
    dtype = _TYPES[int(coded.levels.bits)]
    codes = np.ascontiguousarray(coded.codes[:, :inputs].T).astype(dtype.numpy())
    operands = [
        new_initializer(graph, f"{name}_quantized", codes),
        new_initializer(graph, f"{name}_scale", np.ascontiguousarray(coded.scale.T)),
    ]
    if coded.zero_points is not None:
        zeros = np.ascontiguousarray(coded.zero_points.T).astype(dtype.numpy())
        operands.append(new_initializer(graph, f"{name}_zero_point", zeros))
    for node, _ in weight.uses:
        stem, attributes = node.name or "", {"axis": 0, "block_size": coded.block}
        dequantize = new_node("DequantizeLinear", operands, f"{stem}_weight", ir.DataType.FLOAT, {**attributes})
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        product = _node("MatMul", [node.inputs[0], dequantize.outputs[0]], {})
        added = [] if bias is None else [_node("Add", [product.outputs[0], bias], {})]
        product.name = f"{stem}_product" if added else stem
        replace(node, [dequantize, product, *added])
    remove_if_unused(weight.value)


def insert_block_embedding(weight: Weight, coded: Coded) -> None:
    """Turn a lookup along the first axis of a constant table into GatherBlockQuantized.

    Args:
        weight: a table, (rows, width), whose rows take whole bytes.
        coded: with a step per block of a row; the last one may be cut short.
    """
    graph, name = _home(weight), weight.value.name or ""
    bits = int(coded.levels.bits)
    rows = len(coded.codes)
    codes = coded.codes[:, : weight.shape[1]]
    stored = new_initializer(graph, f"{name}_packed", _packed(codes, bits).reshape(rows, -1))
    scales = new_initializer(graph, f"{name}_scale", coded.scale)
    zeros = _zero_points(graph, name, coded)
    attributes = {"gather_axis": 0, "quantize_axis": 1, "bits": bits, "block_size": coded.block}
    for node, _ in weight.uses:
        operands = [stored, node.inputs[1], scales, zeros]
        replace(node, [_node("GatherBlockQuantized", operands, attributes, _DOMAIN)])
    remove_if_unused(weight.value)


def _packed(codes: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Unsigned codes, the first in the lowest bits."""
    unsigned = (codes.astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    return unsigned if bits == 8 else pack_bits(unsigned, bits)


def _zero_points(graph: ir.Graph, name: str, coded: Coded) -> ir.Value | None:
    """Packed along the blocks of each row; None when they are in the middle, which is the default."""
    if coded.zero_points is None:
        return None
    bits, outputs = int(coded.levels.bits), len(coded.codes)
    filled = np.pad(coded.zero_points, ((0, 0), (0, -coded.zero_points.shape[1] % (8 // bits))))
    return new_initializer(graph, f"{name}_zero_point", _packed(filled, bits).reshape(outputs, -1))


def _home(weight: Weight) -> ir.Graph:
    graph = weight.value.graph
    if graph is None:
        raise ValueError(f"{weight.value.name} is in no graph")
    return graph


def _node(op_type: str, inputs: list[ir.Value | None], attributes: dict[str, int], domain: str = "") -> ir.Node:
    """A node of one float output, without the inputs that are missing at the end."""
    while inputs[-1] is None:
        inputs = inputs[:-1]
    node = ir.node(op_type, inputs, {**attributes}, domain=domain)
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return node
