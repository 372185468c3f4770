"""If, Loop and Scan: graphs inside graphs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from compressor.runtime.autograd.node import Closure, Node
from compressor.runtime.autograd.program import Program
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import Host, Value, as_tensor, number

Inner = Callable[[Sequence[Value], Sequence[Value]], list[Value]]


def _closed(
    programs: Sequence[Program], run: Callable[[Sequence[Inner], Sequence[Value], Sequence[Value]], Any], count: int
) -> Closure:
    """Programs as one closure: what each reads from outside comes after the node's own `count` inputs."""
    externals = tuple(dict.fromkeys(value for program in programs for value in program.externals))
    places = [[externals.index(value) for value in program.externals] for program in programs]

    def inner(program: Program, own: list[int]) -> Inner:
        return lambda inputs, given: program.run(inputs, [given[place] for place in own])

    inners = [inner(program, own) for program, own in zip(programs, places, strict=True)]

    def whole(*values: Value) -> tuple[Value, ...]:
        return tuple(run(inners, values[:count], values[count:]))

    return Closure(whole, externals)


@operator("If", numbers=None)
def _if(node: Node) -> Closure:
    def run(branches: Sequence[Inner], inputs: Sequence[Value], given: Sequence[Value]) -> list[Value]:
        return branches[0 if number(inputs[0]) else 1]([], given)

    return _closed([node.graph("then_branch"), node.graph("else_branch")], run, 1)


@operator("Loop", numbers=None)
def _loop(node: Node) -> Closure:
    """Carried values first, then what every turn has made, stacked."""
    carried = len(node.ir.inputs) - 2

    def run(bodies: Sequence[Inner], inputs: Sequence[Value], given: Sequence[Value]) -> list[Value]:
        trips, condition, state = inputs[0], inputs[1], list(inputs[2:])
        going = condition is None or bool(number(condition))
        limit = None if trips is None else number(trips)
        turn, made = 0, []
        while going and (limit is None or turn < limit):
            flag, *results = bodies[0]([Host([turn], (), torch.int64), Host([True], (), torch.bool), *state], given)
            state, extra = results[:carried], results[carried:]
            made.append(extra)
            going, turn = bool(number(flag)), turn + 1
        return state + [_stacked(parts) for parts in zip(*made, strict=True)]

    return _closed([node.graph("body")], run, len(node.ir.inputs))


def _stacked(parts: Sequence[Value], axis: int = 0) -> Value:
    return torch.stack([as_tensor(part) for part in parts], axis)


@operator("Scan", numbers=None)
def _scan(node: Node) -> Closure:
    """States first, then one slice of every scanned input; version 8 has a batch around it."""
    scanned = node.integer("num_scan_inputs")
    states = len(node.ir.inputs) - scanned
    made_count = len(node.ir.outputs) - states
    axes, out_axes = node.ints("scan_input_axes") or [0] * scanned, node.ints("scan_output_axes") or [0] * made_count
    back, out_back = (
        node.ints("scan_input_directions") or [0] * scanned,
        node.ints("scan_output_directions") or [0] * made_count,
    )
    if node.opset < 9:
        raise node.unsupported("of opset 8 cannot be executed by torch here")

    def run(bodies: Sequence[Inner], inputs: Sequence[Value], given: Sequence[Value]) -> list[Value]:
        state = list(inputs[:states])
        rows = [list(as_tensor(x).unbind(axis)) for x, axis in zip(inputs[states:], axes, strict=True)]
        rows = [r[::-1] if turned else r for r, turned in zip(rows, back, strict=True)]
        made = []
        for slices in zip(*rows, strict=True):
            results = bodies[0]([*state, *slices], given)
            state = results[:states]
            made.append(results[states:])
        columns = [list(parts) for parts in zip(*made, strict=True)]
        ordered = [c[::-1] if turned else c for c, turned in zip(columns, out_back, strict=True)]
        return state + [_stacked(c, axis) for c, axis in zip(ordered, out_axes, strict=True)]

    return _closed([node.graph("body")], run, len(node.ir.inputs))


@operator("SequenceMap", numbers=None)
def _sequence_map(node: Node) -> Closure:
    def run(bodies: Sequence[Inner], inputs: Sequence[Value], given: Sequence[Value]) -> list[Value]:
        length = len(inputs[0])
        rows = [[x[i] if isinstance(x, list) else x for x in inputs] for i in range(length)]
        made = [bodies[0](row, given) for row in rows]
        return [list(parts) for parts in zip(*made, strict=True)] or [[] for _ in node.ir.outputs]

    return _closed([node.graph("body")], run, len(node.ir.inputs))
