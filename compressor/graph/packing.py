"""Low-bit codes in a file of standard operators, as ONNX Runtime turns them into int8 at load.

Codes of four bits are an INT4 array and a Cast. The others have no type of their own before opset 25:
they are packed into bytes, and unpacked by a function of the model that only uses standard operators.
ONNX Runtime inlines the function and folds it, so that what runs is a plain int8 array, and the
fusions to integer kernels see just that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import insert, new_initializer, new_node
from compressor.graph.weights import Layout, Weight, layout_of
from compressor.numerics.levels import Bits, Coded
from compressor.numerics.packing import pack_bits, pack_ternary, unpack_bits, unpack_ternary

DOMAIN = "compressor"


_DIGITS = """(packed, shape) => (levels) {
        last = Constant <value = int64[1] {-1}> ()
        places = Constant <value = PLACES> ()
        mask = Constant <value = uint8 {MASK}> ()
        offset = Constant <value = int32 {MASK}> ()
        bytes = Unsqueeze (packed, last)
        shifted = BitShift <direction = "RIGHT"> (bytes, places)
        digits = BitwiseAnd (shifted, mask)
        values = Cast <to = 6> (digits)
        doubled = Add (values, values)
        centred = Sub (doubled, offset)
        SHAPED
    }"""
"""Codes of one or two bits, which stand for the odd levels 2c - mask."""

_SHAPED = """flat = Reshape (centred, last)
        start = Constant <value = int64[1] {0}> ()
        count = ReduceProd <keepdims = 1> (shape)
        cut = Slice (flat, start, count)
        narrow = Cast <to = 3> (cut)
        levels = Reshape (narrow, shape)"""
"""From int32 values in packed order, with what fills up the last byte, to int8 in shape."""

_FUNCTIONS = {
    "UnpackBinary": _DIGITS.replace("PLACES", "uint8[8] {0, 1, 2, 3, 4, 5, 6, 7}").replace("MASK", "1"),
    "Unpack2": _DIGITS.replace("PLACES", "uint8[4] {0, 2, 4, 6}").replace("MASK", "3"),
    "Unpack3": """(packed, packed_high, shape) => (levels) {
        last = Constant <value = int64[1] {-1}> ()
        zero = Constant <value = int64[1] {0}> ()
        places = Constant <value = uint8[4] {0, 2, 4, 6}> ()
        places_high = Constant <value = uint8[8] {0, 1, 2, 3, 4, 5, 6, 7}> ()
        mask = Constant <value = uint8 {3}> ()
        mask_high = Constant <value = uint8 {1}> ()
        two = Constant <value = uint8 {2}> ()
        offset = Constant <value = int32 {7}> ()
        bytes = Unsqueeze (packed, last)
        shifted = BitShift <direction = "RIGHT"> (bytes, places)
        digits = BitwiseAnd (shifted, mask)
        low = Reshape (digits, last)
        bytes_high = Unsqueeze (packed_high, last)
        shifted_high = BitShift <direction = "RIGHT"> (bytes_high, places_high)
        digits_high = BitwiseAnd (shifted_high, mask_high)
        long_high = Reshape (digits_high, last)
        length = Shape (low)
        high = Slice (long_high, zero, length)
        placed_high = BitShift <direction = "LEFT"> (high, two)
        joined = BitwiseOr (low, placed_high)
        values = Cast <to = 6> (joined)
        doubled = Add (values, values)
        centred = Sub (doubled, offset)
        SHAPED
    }""",
    "UnpackTernary": """(packed, shape) => (levels) {
        last = Constant <value = int64[1] {-1}> ()
        places = Constant <value = int32[5] {1, 3, 9, 27, 81}> ()
        three = Constant <value = int32 {3}> ()
        offset = Constant <value = int32 {1}> ()
        numbers = Cast <to = 6> (packed)
        bytes = Unsqueeze (numbers, last)
        shifted = Div (bytes, places)
        digits = Mod (shifted, three)
        centred = Sub (digits, offset)
        SHAPED
    }""",
    "Multiply": """(levels, multipliers, shape) => (integers) {
        wide = Cast <to = 6> (levels)
        factors = Cast <to = 6> (multipliers)
        products = Mul (wide, factors)
        narrow = Cast <to = 3> (products)
        integers = Reshape (narrow, shape)
    }""",
}
_UNPACK: dict[Bits, str] = {3: "Unpack3", 2: "Unpack2", "ternary": "UnpackTernary", "binary": "UnpackBinary"}


@dataclass(frozen=True, slots=True)
class StoredWeight:
    """A weight as integers in the graph.

    Attributes:
        name: stem of the names of what belongs to it.
        integers: int8, in the layout that was asked for.
        scale: float32, () or (outputs,).
        zero_point: int8 zeros of the same shape.
    """

    name: str
    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value

    @property
    def per_channel(self) -> bool:
        """Whether every output has a scale of its own."""
        return self.scale.shape is not None and len(self.scale.shape) == 1


def store_in_place(model: ir.Model, weight: Weight, coded: Coded) -> StoredWeight:
    """Integers in the layout of the array that they replace."""
    return _store(model, weight, coded, layout_of(weight.uses[0], weight.shape), weight.shape)


def store_product(model: ir.Model, weight: Weight, coded: Coded) -> StoredWeight:
    """Integers as the right factor of a product, (inputs, outputs)."""
    shape = coded.codes.shape[::-1]
    return _store(model, weight, coded, Layout(shape, (1, 0), 1), shape)


def has_blocks(weight: Weight) -> bool:
    """Whether blocks of inputs lie together in the array, so that a two-level grid can be stored in place."""
    layout = layout_of(weight.uses[0], weight.shape)
    return layout.order in ((1, 0), tuple(range(len(layout.order))))


def _store(model: ir.Model, weight: Weight, coded: Coded, layout: Layout, shape: tuple[int, ...]) -> StoredWeight:
    name, graph = weight.value.name or "", weight.value.graph
    if graph is None:
        raise ValueError(f"{name} is in no graph")
    return StoredWeight(
        name,
        store_integers(model, graph, name, coded, layout, shape),
        new_initializer(graph, f"{name}_scale", coded.scale),
        new_initializer(graph, f"{name}_zero_point", np.zeros(coded.scale.shape, np.int8)),
    )


def store_integers(
    model: ir.Model, graph: ir.Graph, name: str, coded: Coded, layout: Layout, shape: tuple[int, ...]
) -> ir.Value:
    """Store a matrix of codes so that level · multiplier can be read in int8.

    Args:
        model: gets the functions that unpacking needs.
        graph: gets the arrays and nodes.
        name: stem of theirs.
        coded: (outputs, inputs); symmetric. On a two-level grid the layout must be straight, or that of
            a transposed matrix.
        layout: how the array that is read becomes that matrix.
        shape: of the array that is read.

    Returns:
        int8, of `shape`.
    """
    if coded.multipliers is None:
        return _store_levels(model, graph, name, coded, layout.from_matrix(coded.codes, shape))
    codes = coded.codes.reshape(*coded.multipliers.shape, -1)
    multipliers = coded.multipliers[:, :, None]
    if layout.order == (1, 0):
        codes, multipliers = codes.transpose(1, 2, 0), multipliers.transpose(1, 2, 0)
    levels = _store_levels(model, graph, name, coded, codes)
    stored = _store_narrow(graph, f"{name}_multipliers", multipliers, ir.DataType.UINT4)
    return _call(model, graph, "Multiply", [levels, stored, _shape(graph, name, shape)], f"{name}_integers", shape)


def _store_levels(model: ir.Model, graph: ir.Graph, name: str, coded: Coded, codes: NDArray[np.int8]) -> ir.Value:
    """int8, shape of `codes`."""
    bits = coded.levels.name
    if bits == 8:
        return new_initializer(graph, f"{name}_quantized", codes)
    if bits == 4:
        stored = _store_narrow(graph, f"{name}_codes", codes, ir.DataType.INT4)
        cast = new_node("Cast", [stored], f"{name}_levels", ir.DataType.INT8, {"to": int(ir.DataType.INT8)})
        cast.outputs[0].shape = ir.Shape(codes.shape)
        insert(graph, stored, [cast])
        return cast.outputs[0]
    counted = (codes - coded.levels.low).astype(np.uint8)
    arrays = [new_initializer(graph, f"{name}_packed", packed) for packed in packed(bits, counted)]
    inputs = [*arrays, _shape(graph, name, codes.shape)]
    return _call(model, graph, _UNPACK[bits], inputs, f"{name}_levels", codes.shape)


def packed(bits: Bits, counted: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Codes counted from the lowest, as the arrays that the function for so many bits takes."""
    match bits:
        case 3:
            return [pack_bits(counted % 4, 2), pack_bits(counted // 4, 1)]
        case 2:
            return [pack_bits(counted, 2)]
        case "ternary":
            return [pack_ternary(counted)]
    return [pack_bits(counted, 1)]


def unpacked(bits: Bits, arrays: Sequence[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """The codes counted from the lowest, (count,), of the arrays that `packed` made."""
    match bits:
        case 3:
            return unpack_bits(arrays[0], 2, count) + 4 * unpack_bits(arrays[1], 1, count)
        case 2:
            return unpack_bits(arrays[0], 2, count)
        case "ternary":
            return unpack_ternary(arrays[0], count)
    return unpack_bits(arrays[0], 1, count)


def define(model: ir.Model, function: str, text: str) -> None:
    """Give the model one of our functions, if it has it not yet; `text` is in the syntax of onnx.parser."""
    if (DOMAIN, function, "") not in model.functions:
        opset = model.graph.opset_imports[""]
        header = f'<domain: "{DOMAIN}", opset_import: ["" : {opset}, "{DOMAIN}" : 1]>'
        proto = onnx.parser.parse_function(f"{header} {function} {text}")
        model.functions[(DOMAIN, function, "")] = ir.from_proto(proto)
        model.graph.opset_imports[DOMAIN] = 1


def define_unpacking(model: ir.Model, bits: Bits) -> None:
    """Give the model the function that unpacks codes of so many bits."""
    define(model, _UNPACK[bits], _FUNCTIONS[_UNPACK[bits]].replace("SHAPED", _SHAPED))


def _call(
    model: ir.Model, graph: ir.Graph, function: str, inputs: list[ir.Value], output: str, shape: tuple[int, ...]
) -> ir.Value:
    """A node that calls one of the functions, for constants."""
    define(model, function, _FUNCTIONS[function].replace("SHAPED", _SHAPED))
    node = ir.node(function, inputs, domain=DOMAIN, name=output)
    value = node.outputs[0]
    value.name, value.type, value.shape = output, ir.TensorType(ir.DataType.INT8), ir.Shape(shape)
    insert(graph, inputs[0], [node])
    return value


def _store_narrow(graph: ir.Graph, name: str, array: NDArray[np.generic], dtype: ir.DataType) -> ir.Value:
    """Of a type of four bits."""
    return new_initializer(graph, name, array.astype(dtype.numpy()))


def _shape(graph: ir.Graph, name: str, shape: tuple[int, ...]) -> ir.Value:
    return new_initializer(graph, f"{name}_shape", np.array(shape, np.int64))
