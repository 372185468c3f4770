"""Stretches of a model between two places where all that is known is one tensor."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from compressor.graph.observe import reads

_SIZES = ("Shape", "Size")


@dataclass(frozen=True, slots=True)
class Span:
    """Neighbouring layers that no result of earlier layers gets around.

    A residual block is one, and so is each layer of a chain; branches that never meet in one tensor are one
    together.

    Attributes:
        ends: names of the tensors in which everything that the span computes arrives.
        arrays: names of the arrays that are first read in it, in order.
    """

    ends: tuple[str, ...]
    arrays: tuple[str, ...]


def spans(model: ir.Model, arrays: Collection[str]) -> list[Span]:
    """The main graph in as many stretches as it has, in order, those without one of the arrays left out.

    What does not come from any of the arrays, as masks and sizes, may go around.

    Args:
        model: any; it is not changed.
        arrays: names of the initializers that matter.
    """
    outputs = set(model.graph.outputs)
    last = {value: number for number, node in enumerate(model.graph) for value in reads(node)}
    live: set[ir.Value] = set()
    found: list[Span] = []
    inside, given, ends = list[str](), list[str](), list[str]()
    for number, (node, first) in enumerate(_derived(model, arrays)):
        if first and inside and ends:
            found.append(Span(tuple(ends), tuple(inside)))
            inside, given, ends = [], [], []
        if first is not None:
            inside += first
            live |= set(node.outputs)
            given += [value.name for value in node.outputs if value in outputs and value.name]
        live = {value for value in live if last.get(value, -1) > number}
        if inside and len(live) <= 1:
            ends = list(dict.fromkeys([*given, *(value.name or "" for value in live)]))
    return [*found, Span(tuple(ends), tuple(inside))] if ends else found


def _derived(model: ir.Model, arrays: Collection[str]) -> Iterator[tuple[ir.Node, list[str] | None]]:
    """Every node, and the names of those arrays that it is the first to read; None where it has nothing of any."""
    derived: set[ir.Value] = set()
    waiting = set(arrays)
    for node in model.graph:
        first = [value.name for value in reads(node) if value.name and value.name in waiting]
        waiting -= set(first)
        if first or (node.op_type not in _SIZES and not derived.isdisjoint(reads(node))):
            derived |= set(node.outputs)
            yield node, first
        else:
            yield node, None
