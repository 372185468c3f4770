"""Weights in few bits in the file and in float at run time: what runs is the layer as it was.

integers → Cast → Mul(scale) → layer. ONNX Runtime folds this into a plain float array when it loads
the model, so that it costs bytes of the file but neither time nor a kernel of its own.
"""

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import insert, new_node, redirect, remove_if_unused, set_array
from compressor.graph.packing import store_in_place
from compressor.graph.weights import Weight, layout_of, uses_of
from compressor.numerics.affine import Floats
from compressor.numerics.levels import Coded


def insert_storage(model: ir.Model, weight: Weight, coded: Coded) -> None:
    """Let all readers of a weight read it from codes instead, in the layout of the array.

    Args:
        model: gets the functions that unpacking needs.
        weight: of any layer; one per row of its matrix, or per row and block.
        coded: its codes, folding to integers with one scale per row.
    """
    stored = store_in_place(model, weight, coded)
    real, name = ir.DataType.FLOAT, stored.name
    set_array(stored.scale, _broadcastable(weight, coded.scale))
    as_float = new_node("Cast", [stored.integers], f"{name}_float", real, {"to": int(real)})
    scaled = new_node("Mul", [as_float.outputs[0], stored.scale], f"{name}_scaled", real)
    scaled.outputs[0].shape = ir.Shape(weight.shape)
    redirect(uses_of(weight.value), scaled.outputs[0])
    if weight.value.graph is not None:
        insert(weight.value.graph, stored.integers, [as_float, scaled])
    remove_if_unused(weight.value)
    remove_if_unused(stored.zero_point)


def _broadcastable(weight: Weight, scale: Floats) -> Floats:
    """The scales in the layout of the array, with axes along which they do not vary cut to one entry."""
    spread = np.broadcast_to(scale.reshape(-1, 1), weight.matrix().shape)
    whole = layout_of(weight.uses[0], weight.shape).from_matrix(spread, weight.shape)
    for axis in range(whole.ndim):
        first = whole.take([0], axis)
        whole = first if (whole == first).all() else whole
    return np.ascontiguousarray(whole)
