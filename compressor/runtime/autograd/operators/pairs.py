"""Quantizers whose codes are read by nothing but what makes floats of them again, by the same numbers.

Between the two there may be a Clip of the codes, as activations of fewer than 8 bits have it.
"""

import onnx_ir as ir

from compressor.graph.edit import constant

LIMITS: dict[ir.DataType, tuple[int, int]] = {
    ir.DataType.INT2: (-2, 1),
    ir.DataType.UINT2: (0, 3),
    ir.DataType.INT4: (-8, 7),
    ir.DataType.UINT4: (0, 15),
    ir.DataType.INT8: (-128, 127),
    ir.DataType.UINT8: (0, 255),
    ir.DataType.INT16: (-32768, 32767),
    ir.DataType.UINT16: (0, 65535),
}
"""Smallest and largest code of each integer type."""


def type_of_codes(quantizer: ir.Node) -> ir.DataType:
    """That of the zero point, or what is stated, else 8 bits without a sign."""
    zero, stated = quantizer.inputs[2] if len(quantizer.inputs) > 2 else None, quantizer.attributes.get("output_dtype")
    if zero is not None and zero.dtype is not None:
        return zero.dtype
    if stated is not None and stated.as_int():
        return ir.DataType(stated.as_int())
    return quantizer.outputs[0].dtype or ir.DataType.UINT8


def undone(quantizer: ir.Node | None) -> tuple[int, int] | None:
    """The smallest and the largest code that a quantizer hands on to its dequantizers; None where it has other readers.

    Then the floats themselves are handed on where gradients are asked for.
    """
    if quantizer is None or quantizer.op_type != "QuantizeLinear" or quantizer.attributes.get("block_size"):
        return None
    limits, codes = LIMITS.get(type_of_codes(quantizer)), quantizer.outputs[0]
    readers = codes.consumers()
    if limits is not None and not codes.is_graph_output() and [node.op_type for node in readers] == ["Clip"]:
        limits, codes = _within(readers[0], limits), readers[0].outputs[0]
    plain = limits is not None and not codes.is_graph_output()
    return limits if plain and all(_undoes(node, quantizer) for node in codes.consumers()) else None


def quantizer_of(reader: ir.Node) -> ir.Node | None:
    """The quantizer whose codes a node reads, straight or through a Clip."""
    source = None if reader.inputs[0] is None else reader.inputs[0].producer()
    if source is not None and source.op_type == "Clip" and source.inputs[0] is not None:
        source = source.inputs[0].producer()
    return source if source is not None and source.op_type == "QuantizeLinear" else None


def _undoes(reader: ir.Node, quantizer: ir.Node) -> bool:
    return (
        reader.op_type == "DequantizeLinear"
        and tuple(reader.inputs[1:]) == tuple(quantizer.inputs[1:])
        and reader.attributes.get("axis") == quantizer.attributes.get("axis")
        and "output_dtype" not in reader.attributes
    )


def _within(clip: ir.Node, limits: tuple[int, int]) -> tuple[int, int] | None:
    """The limits that a Clip leaves; None where its ends are not constants."""
    ends = [*clip.inputs[1:], None, None][:2]
    arrays = [constant(end) for end in ends]
    if any(end is not None and (array is None or array.size != 1) for end, array in zip(ends, arrays, strict=True)):
        return None
    low, high = (limit if a is None else int(a.reshape(-1)[0]) for a, limit in zip(arrays, limits, strict=True))
    return max(low, limits[0]), min(high, limits[1])
