"""What is lost when one run of a graph is recorded, as tracing does."""

import onnx_ir as ir

_ROUNDED = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulNBits",
    "QLinearConv",
    "QLinearMatMul",
    "MatMulInteger",
)
_COURSE = {"If": (0,), "Loop": (0, 1)}
_NUMBERS = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "NonMaxSuppression": (0, 1, 2, 3, 4),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
}
"""Operator -> inputs that become constants of the recorded run; sizes of tensors among them are followed."""

_SIZES = ("Shape", "Size")


def decided_by_data(model: ir.Model) -> str | None:
    """The first node whose course, or the size of whose result, is decided by the data: name and type, or None.

    What depends on the sizes of the inputs alone decides a course too, but no size: sizes are recorded as they
    were computed.
    """
    return _decided(model.graph, set(model.graph.inputs) - set(model.graph.initializers.values()))


def _decided(graph: ir.Graph, fed: set[ir.Value]) -> str | None:
    """`fed` grows by the values of this graph that depend on the data."""
    for node in graph:
        course = [_input(node, index) for index in _COURSE.get(node.op_type, ())]
        if any(value is not None and value.const_value is None for value in course):
            return f"{node.name} ({node.op_type})"
        if any(_input(node, index) in fed for index in _NUMBERS.get(node.op_type, ())):
            return f"{node.name} ({node.op_type})"
        inner = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
        for subgraph in inner:
            found = _decided(subgraph, fed | set(subgraph.inputs))
            if found:
                return found
        if inner or (node.op_type not in _SIZES and not fed.isdisjoint(node.inputs)):
            fed.update(node.outputs)
    return None


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def rounds(model: ir.Model) -> bool:
    """Whether values are rounded to codes at run time, where two runtimes may differ by a step."""
    return any(node.op_type in _ROUNDED for graph in model.graphs() for node in graph)
