"""Copies of a model that also give out what passes want to know about its insides."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from compressor.graph.branches import Branches
from compressor.graph.edit import new_initializer, new_node
from compressor.graph.model import Model
from compressor.graph.subsample import Subsampler

RANGE_LOW, RANGE_HIGH, SHAPE = "compressor.low.", "compressor.high.", "compressor.shape."
VALUE = "compressor.value."
ENTRIES, STRIDE = "compressor.entries.", "compressor.stride."


def with_ranges(model: Model, entries: Mapping[str, int]) -> Model:
    """A copy whose only outputs are the smallest and largest entry of each float tensor, and some of its entries.

    All are computed inside the graph, so that no activation has to leave it. A tensor of a branch of If
    that does not run is like an empty one: its smallest entry is infinity, its largest minus infinity.

    Args:
        model: any; it is not changed.
        entries: name of a tensor -> about how many of its entries to give out, evenly strided, under
            ENTRIES and its name; how many entries each stands for comes under STRIDE. None for 0.
    """
    copy = model.copy()
    branches, subsampler = Branches(copy.ir), Subsampler(copy.ir.graph)
    values = branches.values | values_by_name(copy.ir)
    outputs = []
    for name, wanted in entries.items():
        value = values[name]
        graph, dtype = branches.graph_of(value), (value.dtype or ir.DataType.FLOAT).numpy()
        for prefix, op_type, unseen in ((RANGE_LOW, "ReduceMin", np.inf), (RANGE_HIGH, "ReduceMax", -np.inf)):
            node = new_node(op_type, [value], prefix + name, value.dtype, {"keepdims": 0})
            node.outputs[0].shape = ir.Shape([])
            graph.append(node)
            outputs.append(branches.lift(node.outputs[0], np.array(unseen, dtype)))
        if wanted:
            part, stride = subsampler.add(graph, value, wanted, (ENTRIES + name, STRIDE + name))
            outputs.append(branches.lift(part, np.empty(0, dtype)))
            outputs.append(branches.lift(stride, np.ones(1, np.int64)))
    _replace_outputs(copy.ir.graph, outputs)
    return copy


def with_tensors(model: Model, names: tuple[str, ...], given: Mapping[str, np.dtype[Any]] | None = None) -> Model:
    """A copy that makes nothing but the named tensors, each under VALUE and its name.

    Args:
        model: any; it is not changed.
        names: of tensors of its main graph.
        given: tensors that are fed instead of being computed, under their own names, with their types; the
            inputs of the model are then among them, or not needed.
    """
    from onnx_ir.passes import common  # slow to import

    copy = model.copy()
    graph, values = copy.ir.graph, values_by_name(copy.ir)
    if given is not None:
        _feed(graph, values, given)
    outputs = []
    for name in names:
        node = new_node("Identity", [values[name]], VALUE + name, values[name].dtype)
        node.outputs[0].shape = values[name].shape
        graph.append(node)
        outputs.append(node.outputs[0])
    _replace_outputs(graph, outputs)
    common.RemoveUnusedNodesPass()(copy.ir)
    return copy


def with_more_outputs(model: Model, names: Sequence[str]) -> Model:
    """A copy that also gives out the named tensors of its main graph, each under VALUE and its name."""
    copy = model.copy()
    graph, values = copy.ir.graph, values_by_name(copy.ir)
    for name in dict.fromkeys(names):
        node = new_node("Identity", [values[name]], VALUE + name, values[name].dtype)
        node.outputs[0].shape = values[name].shape
        graph.append(node)
        graph.outputs.append(node.outputs[0])
    return copy


def frontier(model: Model, names: Collection[str]) -> tuple[str, ...]:
    """What has to be known, once the named tensors and all before them are, to compute everything else."""
    values = values_by_name(model.ir)
    done: set[ir.Node] = set()
    waiting = [values[name].producer() for name in names]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in done and node.graph is model.ir.graph:
            done.add(node)
            waiting += [value.producer() for value in reads(node)]
    rest = (value for node in model.ir.graph if node not in done for value in reads(node))
    needed = [v for v in rest if not v.is_initializer() and (v.producer() is None or v.producer() in done)]
    kept = dict.fromkeys(v.name for v in (*needed, *(values[name] for name in names)) if v.name)
    return tuple(name for name in kept if name in values)


def reads(node: ir.Node) -> list[ir.Value]:
    """What a node reads, what its branches and loops take from around it included."""
    graphs = [a.as_graph() for a in node.attributes.values() if a.type == ir.AttributeType.GRAPH]
    inside = [value for graph in graphs for inner in graph.all_nodes() for value in inner.inputs]
    inside += [value for graph in graphs for value in graph.outputs]
    return [v for v in (*node.inputs, *(v for v in inside if v is not None and v.graph is node.graph)) if v is not None]


def _feed(graph: ir.Graph, values: dict[str, ir.Value], given: Mapping[str, np.dtype[Any]]) -> None:
    """Let tensors be inputs, and nothing else."""
    graph.inputs.clear()
    for name, dtype in given.items():
        old = values[name]
        if old.producer() is not None:
            fed = ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(dtype)))
            old.name = f"{name}_computed"
            old.replace_all_uses_with(fed)
            values[name] = fed
        graph.inputs.append(values[name])


def with_shapes(model: Model, names: tuple[str, ...]) -> Model:
    """A copy whose only outputs are the shapes of the named tensors."""
    copy = model.copy()
    graph, values = copy.ir.graph, values_by_name(copy.ir)
    outputs = []
    for name in names:
        node = new_node("Shape", [values[name]], SHAPE + name, ir.DataType.INT64)
        graph.append(node)
        outputs.append(node.outputs[0])
    _replace_outputs(graph, outputs)
    return copy


def shaped(model: Model) -> list[str]:
    """Names of the inputs and results of the main graph that are tensors."""
    constants = {v.name for v in model.ir.graph.initializers.values()}
    tensors = (ir.TensorType, type(None))
    return [n for n, v in values_by_name(model.ir).items() if n not in constants and isinstance(v.type, tensors)]


def values_by_name(model: ir.Model) -> dict[str, ir.Value]:
    """Everything that is an input, a constant or a result in the main graph."""
    graph = model.graph
    produced = [output for node in graph for output in node.outputs]
    return {v.name: v for v in (*graph.inputs, *graph.initializers.values(), *produced) if v.name}


def _replace_outputs(graph: ir.Graph, outputs: list[ir.Value]) -> None:
    if not outputs:
        nothing = new_initializer(graph, SHAPE, np.zeros(1, np.int64))
        outputs = [nothing]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
