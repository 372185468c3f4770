"""Two linear layers with nothing between them as one, where that is cheaper: what factorizing does, undone.

MatMul · MatMul, Gemm · Gemm, and mixtures of them; Conv · Conv of 1 × 1.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import new_initializer, remove_if_unused
from compressor.graph.fold import Folded, layer_bias
from compressor.graph.weights import Weight, attribute, find_weights, is_scaled

_PRODUCTS = ("MatMul", "Gemm")


def merge_layers(model: ir.Model) -> Iterator[Folded]:
    """Merge what is cheaper merged, until nothing is left; the second layer of two stays, under its name."""
    while (found := _merge_one(model)) is not None:
        yield found


def _merge_one(model: ir.Model) -> Folded | None:
    alone = {w.uses[0].node: w for w in find_weights(model) if len(w.uses) == 1 and not w.read_otherwise}
    for node, second in alone.items():
        source = node.inputs[0]
        producer = None if source is None else source.producer()
        first = None if producer is None else alone.get(producer)
        if first is None or source is None or source.is_graph_output() or len(source.uses()) != 1:
            continue
        if _fit_together(first, second) and _is_cheaper(first, second):
            return _merged(first, second)
    return None


def _fit_together(first: Weight, second: Weight) -> bool:
    nodes = first.uses[0].node, second.uses[0].node
    if nodes[0].graph is not nodes[1].graph or first.uses[0].idx != 1 or second.uses[0].idx != 1:
        return False
    if any(layer_bias(weight) is None for weight in (first, second)) or first.dtype != second.dtype:
        return False
    if first.dtype == "float64":  # what is multiplied here is rounded to float32
        return False
    if all(node.op_type == "Conv" for node in nodes):
        return attribute(nodes[0], "group", 1) == 1 and _at_one_place(second)
    return all(_is_plain_product(weight) for weight in (first, second))


def _is_plain_product(weight: Weight) -> bool:
    node = weight.uses[0].node
    return (
        node.op_type in _PRODUCTS
        and len(weight.shape) == 2
        and not is_scaled(node)
        and not attribute(node, "transA", 0)
    )


def _at_one_place(weight: Weight) -> bool:
    """Whether a convolution looks at single places, all of them, and nothing else."""
    node = weight.uses[0].node
    lists = [(name, node.attributes[name].as_ints()) for name in ("strides", "pads") if name in node.attributes]
    moves = any(value != (1 if name == "strides" else 0) for name, values in lists for value in values)
    return set(weight.shape[2:]) <= {1} and attribute(node, "group", 1) == 1 and not moves


def _is_cheaper(first: Weight, second: Weight) -> bool:
    inner, inputs = first.matrix().shape
    outputs = len(second.matrix())
    return bool(outputs * inputs <= inner * (inputs + outputs))


def _merged(first: Weight, second: Weight) -> Folded:
    """The second layer reads what the first one read, and does what both did."""
    before, node = first.uses[0].node, second.uses[0].node
    matrix = (second.matrix() @ first.matrix()).astype(second.dtype)
    added = _added(first, second)
    graph, name = node.graph, second.value.name or ""
    if graph is None:
        raise ValueError(f"{node.name} is in no graph")
    array = (
        matrix.reshape(len(matrix), *first.shape[1:])
        if node.op_type == "Conv"
        else second.as_stored_with_inputs(matrix)
    )
    old = [value for value in (*before.inputs[1:], *node.inputs[1:]) if value is not None]
    node.replace_input_with(0, before.inputs[0])
    node.replace_input_with(1, new_initializer(graph, f"{name}_merged", array))
    if added.any():
        if node.op_type == "MatMul":
            node.op_type = "Gemm"
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, new_initializer(graph, f"{name}_merged_bias", added))
    if node.op_type == "Conv":
        node.attributes.clear()
        node.attributes.update(before.attributes)
    graph.remove(before, safe=True)
    for value in old:
        remove_if_unused(value)
    return Folded(node.name or "", node.op_type, before.op_type)


def _added(first: Weight, second: Weight) -> NDArray[np.generic]:
    """The bias of both together, (outputs,)."""
    one, other = layer_bias(first), layer_bias(second)
    if one is None or other is None:
        raise ValueError(f"{second.name}: a bias is computed")
    return (second.matrix() @ one + other).astype(second.dtype)
