"""Small edits that keep a graph valid."""

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.weights import Use


def new_initializer(graph: ir.Graph, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Add a constant array under `name`, or under `name` with a number when that is taken."""
    name = _free(graph, name)
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def set_array(value: ir.Value, array: NDArray[np.generic]) -> None:
    """Replace the array of an initializer; its type and shape follow."""
    tensor = ir.tensor(array, name=value.name)
    value.const_value = tensor
    value.shape = ir.Shape(array.shape)
    value.type = ir.TensorType(tensor.dtype)


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """The array of an initializer, None for anything that is computed."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def new_node(
    op_type: str,
    inputs: Sequence[ir.Value | None],
    output: str,
    dtype: ir.DataType | None,
    attributes: dict[str, int | float] | None = None,
) -> ir.Node:
    """A node of one output, called `output` like its value; the output's type is `dtype`."""
    node = ir.node(op_type, list(inputs), attributes or {}, name=output)
    node.outputs[0].name = output
    if dtype is not None:
        node.outputs[0].type = ir.TensorType(dtype)
    return node


def insert(graph: ir.Graph, after: ir.Value, nodes: Iterable[ir.Node]) -> None:
    """Put nodes right behind the producer of `after`, or first when it is an input."""
    producer = after.producer()
    if producer is not None and producer.graph is graph:
        graph.insert_after(producer, list(nodes))
    elif len(graph):
        graph.insert_before(graph[0], list(nodes))
    else:
        graph.extend(list(nodes))


def redirect(uses: Iterable[Use], value: ir.Value) -> None:
    """Let these inputs read `value` instead."""
    for node, idx in uses:
        node.replace_input_with(idx, value)


def take_over_output(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let `new` be the graph output that `old` was, under its name, type and shape."""
    name = old.name
    old.name = _free(graph, f"{name}_before")
    new.name, new.type, new.shape = name, old.type, old.shape
    for index, output in enumerate(graph.outputs):
        if output is old:
            graph.outputs[index] = new


def bypass(node: ir.Node, value: ir.Value) -> None:
    """Remove a node of one output: whatever read it reads `value`, graph outputs keep their name."""
    graph, old = node.graph, node.outputs[0]
    if graph is None:
        raise ValueError(f"{node.name} is in no graph")
    redirect([Use(*use) for use in old.uses()], value)
    if old.is_graph_output():
        take_over_output(graph, old, value)
    graph.remove(node, safe=True)


def replace(node: ir.Node, nodes: Sequence[ir.Node]) -> None:
    """Put nodes where `node` is; the last one, of one output, takes its name, and its output's, and stands for it."""
    graph, old, last = graph_of(node), node.outputs[0], nodes[-1]
    new = last.outputs[0]
    graph.insert_before(node, list(nodes))
    new.shape, new.type = old.shape, new.type or old.type
    redirect([Use(*use) for use in old.uses()], new)
    if old.is_graph_output():
        take_over_output(graph, old, new)
    else:
        new.name = old.name
    graph.remove(node, safe=True)
    last.name = node.name


def graph_of(node: ir.Node) -> ir.Graph:
    """The graph that a node is in."""
    if node.graph is None:
        raise ValueError(f"{node.name} is in no graph")
    return node.graph


def remove_if_unused(value: ir.Value) -> None:
    """Drop an initializer that nothing reads any more."""
    if value.is_initializer() and not value.uses() and not value.is_graph_output() and value.graph is not None:
        value.graph.initializers.pop(value.name or "", None)


def settle(model: ir.Model) -> None:
    """After edits: order nodes, import their domains, and rename what was added under a name in use elsewhere."""
    from onnx_ir.passes import common

    for graph in model.graphs():
        graph.sort()
        for node in graph:
            model.graph.opset_imports.setdefault(node.domain, 1)
    common.NameFixPass()(model)


def _free(graph: ir.Graph, name: str) -> str:
    if name not in graph.initializers:
        return name
    number = 1
    while f"{name}_{number}" in graph.initializers:
        number += 1
    return f"{name}_{number}"
