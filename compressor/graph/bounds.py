"""Which integers a model's inputs may hold, as far as its lookups tell."""

import onnx_ir as ir

from compressor.graph.model import Model
from compressor.graph.weights import attribute, uses_of

_TRANSPARENT = ("Cast", "Identity", "Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Slice", "Clip")


def index_bounds(model: Model) -> dict[str, int]:
    """Largest index for every integer input that looks rows up in a constant table."""
    bounds = {}
    for value in model.ir.graph.inputs:
        if value.is_initializer() or value.dtype is None or not value.dtype.is_integer():
            continue
        rows = _rows_looked_up(value)
        if rows is not None:
            bounds[value.name or ""] = rows - 1
    return bounds


def _rows_looked_up(value: ir.Value) -> int | None:
    """Rows of the smallest table that `value`, or what only reshapes it, indexes."""
    found, waiting, seen = [], [value], {value}
    while waiting:
        for node, idx in uses_of(waiting.pop()):
            table = node.inputs[0]
            if (
                node.op_type in ("Gather", "OneHot")
                and idx == 1
                and table is not None
                and table.const_value is not None
            ):
                axis = attribute(node, "axis", 0) if node.op_type == "Gather" else 0
                found.append(int(table.const_value.shape.numpy()[axis]))
            elif node.op_type in _TRANSPARENT and idx == 0 and node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                waiting.append(node.outputs[0])
    return min(found, default=None)
