"""Where what a layer makes is best compared with the reference: behind everything that is only added to it."""

from dataclasses import dataclass

import onnx_ir as ir

from compressor.graph.weights import Weight, uses_of

_LINEAR = ("Conv", "Gemm", "MatMul")


Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Outlet:
    """The result of a layer, with its bias and with what a shortcut adds.

    Attributes:
        tensor: name of it.
        axis: of the channels, from the end.
        joined: whether it is a sum with another tensor, and not with constants alone.
    """

    tensor: str
    axis: int
    joined: bool


def outlet(weight: Weight, shapes: Shapes) -> Outlet | None:
    """Of a layer of the main graph; None where the layer is no single product with rows for outputs.

    A sum with another tensor is taken as the result only where that tensor is there before the layer runs:
    then the layer can make up for what is missing in it.

    Args:
        weight: of the layer.
        shapes: of all tensors in one execution; a sum must have the shape of what the layer makes.
    """
    node = weight.uses[0].node
    single = len(weight.uses) == 1 and weight.uses[0].idx == 1 and not weight.read_otherwise
    if not single or weight.in_subgraph or node.op_type not in _LINEAR or node.graph is None:
        return None
    if node.op_type == "MatMul" and len(weight.shape) != 2:
        return None
    places = {item: number for number, item in enumerate(node.graph)}
    value, joined = node.outputs[0], False
    while (other := _added(value, places, node, shapes)) is not None:
        joined = joined or not other.is_initializer()
        value = value.consumers()[0].outputs[0]
    return Outlet(value.name or "", 1 - len(weight.shape) if node.op_type == "Conv" else -1, joined)


def _added(value: ir.Value, places: dict[ir.Node, int], layer: ir.Node, shapes: Shapes) -> ir.Value | None:
    """What a tensor is added to, if it is there before the layer runs, and nothing else reads the tensor."""
    uses = uses_of(value)
    if len(uses) != 1 or value.is_graph_output() or uses[0].node.op_type != "Add" or uses[0].node.graph != layer.graph:
        return None
    node, idx = uses[0]
    other, shape = node.inputs[1 - idx], shapes.get(value.name or "")
    producer = None if other is None else other.producer()
    early = producer is None or places.get(producer, len(places)) < places[layer]
    same = shape is not None and shape == shapes.get(node.outputs[0].name or "")
    return other if early and same else None
