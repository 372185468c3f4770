"""What is lost when one run of a graph is recorded, as tracing does."""

import onnx_ir as ir

_ROUNDED = ("QuantizeLinear", "DynamicQuantizeLinear", "MatMulNBits", "QLinearConv", "QLinearMatMul", "MatMulInteger")
_DECIDING = {"If": (0,), "Loop": (0, 1), "Scan": ()}


def decided_by_data(model: ir.Model) -> str | None:
    """The first node whose course depends on a value that is computed or fed: name and type, or None."""
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        deciding = _DECIDING.get(node.op_type, ())
        for index in deciding:
            value = node.inputs[index] if index < len(node.inputs) else None
            if value is not None and value.const_value is None:
                return f"{node.name} ({node.op_type})"
    return None


def rounds(model: ir.Model) -> bool:
    """Whether values are rounded to codes at run time, where two runtimes may differ by a step."""
    return any(node.op_type in _ROUNDED for graph in model.graphs() for node in graph)
