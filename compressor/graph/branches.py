"""Values computed inside branches of If, seen from the main graph.

Such a value becomes one more output of its branch, of the If, and so on of every If around it. A
branch that computes no such value gives out a constant in its place.
"""

from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import new_initializer, new_node


class Branches:
    """The branches of all Ifs of a model.

    Args:
        model: the one that `lift` edits.

    Attributes:
        values: name -> result of a node in a branch; a name that several branches use is left out.
    """

    def __init__(self, model: ir.Model) -> None:
        self._main = model.graph
        self._owners = dict(_inside(model.graph))
        results = [output for branch in self._owners for node in branch for output in node.outputs if output.name]
        counts = Counter(result.name for result in results)
        self.values = {result.name or "": result for result in results if counts[result.name] == 1}

    def graph_of(self, value: ir.Value) -> ir.Graph:
        """The branch that computes a value, or the main graph."""
        producer = value.producer()
        graph = None if producer is None else producer.graph
        return graph if isinstance(graph, ir.Graph) and graph in self._owners else self._main

    def lift(self, value: ir.Value, otherwise: NDArray[np.generic]) -> ir.Value:
        """A value of the main graph under the name of `value`, which is renamed if it lies in a branch.

        Args:
            value: the result of a node.
            otherwise: what comes out when its branch does not run.
        """
        graph = self.graph_of(value)
        while graph is not self._main:
            node = self._owners[graph]
            name = value.name or ""
            value.name = f"{name}.{node.name}"
            for branch in _branches(node):
                branch.outputs.append(value if branch is graph else _constant(branch, value, otherwise))
            node.resize_outputs(len(node.outputs) + 1)
            lifted = node.outputs[-1]
            lifted.name, lifted.type, lifted.shape = name, value.type, value.shape
            value, graph = lifted, self.graph_of(lifted)
        return value


def _inside(graph: ir.Graph) -> Iterator[tuple[ir.Graph, ir.Node]]:
    """Every branch of an If, at any depth, with that If; bodies of loops are left out with all in them."""
    for node in graph:
        for branch in _branches(node):
            yield branch, node
            yield from _inside(branch)


def _branches(node: ir.Node) -> tuple[ir.Graph, ...]:
    if node.op_type != "If":
        return ()
    return tuple(node.attributes[name].as_graph() for name in ("then_branch", "else_branch"))


def _constant(branch: ir.Graph, instead_of: ir.Value, array: NDArray[np.generic]) -> ir.Value:
    """`array` as a result of a node of the branch."""
    name = f"{instead_of.name}.otherwise"
    node = new_node("Identity", [new_initializer(branch, f"{name}.constant", array)], name, instead_of.dtype)
    node.outputs[0].shape = instead_of.shape
    branch.append(node)
    return node.outputs[0]
