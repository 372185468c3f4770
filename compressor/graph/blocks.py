"""Whole parts that a model still runs without: what is computed beside a shortcut, and added to it."""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from compressor.graph.edit import bypass
from compressor.graph.model import Model
from compressor.graph.observe import reads
from compressor.graph.weights import Weight

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """A residual block or a sublayer of a transformer: y = x + f(x).

    Attributes:
        sum: the addition.
        shortcut: x.
        weights: of the layers of f, in order.
    """

    sum: ir.Node
    shortcut: ir.Value
    weights: tuple[Weight, ...]

    @property
    def key(self) -> str:
        """Which it is, as long as its addition is there: one may begin with the same layer as another inside of it."""
        return self.sum.name or ""

    @property
    def name(self) -> str:
        """Of its first layer."""
        return self.weights[0].name


def find_blocks(model: Model, shapes: Shapes) -> Iterator[Block]:
    """All blocks of the main graph whose layers nothing else reads, in order; one may lie in another.

    Args:
        model: any; it is not changed.
        shapes: of all its tensors in one execution.
    """
    weights = list(model.weights())
    for node in model.ir.graph:
        if node.op_type != "Add" or node.outputs[0].is_graph_output():
            continue
        for idx in (0, 1):
            shortcut, branch = node.inputs[idx], node.inputs[1 - idx]
            if shortcut is None or branch is None or shortcut.is_initializer() or branch.is_initializer():
                continue
            inside = _between(shortcut, branch)
            found = tuple(w for w in weights if any(use.node in inside for use in w.uses))
            same = shapes.get(shortcut.name or "") == shapes.get(node.outputs[0].name or "-")
            if found and same and _is_closed(inside, node):
                yield Block(node, shortcut, found)


def remove_block(model: Model, key: str, shapes: Shapes) -> None:
    """Let what follows a block read its shortcut.

    Raises:
        ValueError: there is no such block.
    """
    from onnx_ir.passes import common  # slow to import

    block = next((block for block in find_blocks(model, shapes) if block.key == key), None)
    if block is None:
        raise ValueError(f"{key}: no such block")
    bypass(block.sum, block.shortcut)
    common.RemoveUnusedNodesPass()(model.ir)


def _between(source: ir.Value, result: ir.Value) -> set[ir.Node]:
    """Nodes that lie on a way from one value to another."""
    before: set[ir.Node] = set()
    waiting = [result.producer()]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in before and node is not source.producer():
            before.add(node)
            waiting += [value.producer() for value in reads(node)]
    after: set[ir.Node] = set()
    reached = [use_node for use_node, _ in source.uses()]
    while reached:
        node = reached.pop()
        if node in before and node not in after:
            after.add(node)
            reached += [reader for output in node.outputs for reader, _ in output.uses()]
    return after


def _is_closed(inside: set[ir.Node], end: ir.Node) -> bool:
    """Whether what these nodes make is read by themselves and by one node behind them only."""
    outputs = [output for node in inside for output in node.outputs]
    readers = {reader for output in outputs for reader, _ in output.uses()}
    return (
        bool(inside)
        and end not in inside
        and readers <= inside | {end}
        and not any(o.is_graph_output() for o in outputs)
    )
