"""Rows of a lookup table that stay packed at run time, by standard operators: for widths without a kernel.

Only the rows that are looked up are unpacked, as levels · multiplier · scale. It takes a few dozen small
operators, which is 2 to 4 % of a small encoder's time.
"""

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import new_initializer, remove_if_unused, replace
from compressor.graph.packing import DOMAIN, define, define_unpacking, packed
from compressor.graph.weights import Weight
from compressor.numerics.levels import Coded
from compressor.numerics.packing import pack_bits

_LOOK_UP = """(low, high, multipliers, scale, blocks, indices) => (rows) {
    packed = Gather (low, indices)
    packed_high = Gather (high, indices)
    where = Shape (indices)
    shape = Concat <axis = 0> (where, blocks)
    levels = compressor.Unpack3 (packed, packed_high, shape)
    bytes = Gather (multipliers, indices)
    last = Constant <value = int64[1] {-1}> ()
    pairs = Unsqueeze (bytes, last)
    places = Constant <value = uint8[2] {0, 4}> ()
    shifted = BitShift <direction = "RIGHT"> (pairs, places)
    mask = Constant <value = uint8 {15}> ()
    digits = BitwiseAnd (shifted, mask)
    start = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    count = Slice (blocks, start, one)
    one_by_one = Concat <axis = 0> (where, count, one)
    factors = Reshape (digits, one_by_one)
    real_levels = Cast <to = 1> (levels)
    real_factors = Cast <to = 1> (factors)
    products = Mul (real_levels, real_factors)
    width = ReduceProd <keepdims = 1> (blocks)
    flat = Concat <axis = 0> (where, width)
    integers = Reshape (products, flat)
    steps = Gather (scale, indices)
    rows = Mul (integers, steps)
}"""


def lookup_refusal(weight: Weight, block: int) -> str | None:
    """Why rows cannot be packed in 3 bits; None when they can."""
    if len(weight.shape) != 2 or weight.shape[1] % (2 * block) or block % 8:
        return f"rows of {weight.shape[-1]} are no even number of blocks of {block}"
    return None


def insert_packed_lookup(model: ir.Model, weight: Weight, coded: Coded) -> None:
    """Turn a lookup along the first axis of a constant table into one of packed rows.

    Args:
        model: gets the functions that unpacking needs.
        weight: a table, (rows, width); `lookup_refusal` is None.
        coded: of 3 bits on a two-level grid.

    Raises:
        ValueError: other codes.
    """
    graph, name = weight.value.graph, weight.value.name or ""
    if graph is None or coded.multipliers is None or coded.levels.name != 3:
        raise ValueError(f"{name}: only two-level codes of 3 bits are looked up packed")
    rows, blocks = coded.multipliers.shape
    counted = (coded.codes - coded.levels.low).astype(np.uint8)
    low, high = (array.reshape(rows, -1) for array in packed(3, counted))
    arrays: dict[str, NDArray[np.generic]] = {
        "packed": low,
        "packed_high": high,
        "multipliers": pack_bits(coded.multipliers, 4).reshape(rows, -1),
        "scale": coded.scale[:, None],
        "blocks": np.array([blocks, coded.block], np.int64),
    }
    stored = [new_initializer(graph, f"{name}_{suffix}", array) for suffix, array in arrays.items()]
    define_unpacking(model, 3)
    define(model, "LookUp3", _LOOK_UP)
    for node, _ in weight.uses:
        look_up = ir.node("LookUp3", [*stored, node.inputs[1]], domain=DOMAIN)
        look_up.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        replace(node, [look_up])
    remove_if_unused(weight.value)
