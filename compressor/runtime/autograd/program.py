"""A graph as a list of steps over numbered slots: resolved once, then run many times."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from compressor.runtime.autograd.node import Closure, Mode, Node, Run, UnsupportedError
from compressor.runtime.autograd.registry import find
from compressor.runtime.autograd.values import Host, Value, as_tensor, numbers_or_tensor


@dataclass(frozen=True, slots=True)
class Step:
    """One node: `run` on the values of `inputs` (slot, or None where left out), its results into `outputs`.

    Attributes:
        run: the operator.
        inputs: slots read.
        outputs: slots written; None for results that nobody reads.
        frees: slots that nobody reads after this step.
        label: name and type of the node, for messages.
    """

    run: Run
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    frees: tuple[int, ...]
    label: str


class Program:
    """The nodes of one graph in order.

    Args:
        graph: sorted so that producers come first.
        opset: version of the standard operators.
        mode: whether the network is in training.

    Attributes:
        inputs: values to be fed.
        externals: initializers, and values of outer graphs, that it reads; they are given after the inputs.

    Raises:
        UnsupportedError: all operators that cannot be executed, one line each.
    """

    def __init__(self, graph: ir.Graph, opset: int, mode: Mode) -> None:
        self.inputs = [value for value in graph.inputs if not value.is_initializer()]
        self.externals: list[ir.Value] = []
        self._slots: dict[ir.Value, int] = {}
        self._own = {output for node in graph for output in node.outputs} | set(self.inputs)
        self._input_slots = [self._slot(value) for value in self.inputs]
        steps = self._resolved(graph, opset, mode)
        self._output_slots = [self._slot(value) for value in graph.outputs]
        self._external_slots = [self._slots[value] for value in self.externals]
        self._steps = _freeing(steps, set(self._output_slots))

    def run(self, inputs: Sequence[Value], externals: Sequence[Value]) -> list[Value]:
        """The graph's outputs, for one value for each of `self.inputs` and `self.externals`."""
        values: list[Value] = [None] * len(self._slots)
        for slots, given in ((self._input_slots, inputs), (self._external_slots, externals)):
            for slot, value in zip(slots, given, strict=True):
                values[slot] = value
        for step in self._steps:
            results = step.run(*[None if slot is None else values[slot] for slot in step.inputs])
            if not isinstance(results, tuple):
                results = (results,)
            for written, result in zip(step.outputs, results, strict=False):
                if written is not None:
                    values[written] = result
            for freed in step.frees:
                values[freed] = None
        return [values[slot] for slot in self._output_slots]

    def _slot(self, value: ir.Value) -> int:
        if value not in self._slots:
            self._slots[value] = len(self._slots)
            if value not in self._own:
                self.externals.append(value)
        return self._slots[value]

    def _resolved(self, graph: ir.Graph, opset: int, mode: Mode) -> list[Step]:
        steps, problems = [], []
        for node in graph:
            try:
                steps.append(self._step(Node(node, opset, lambda inner: Program(inner, opset, mode), mode)))
            except UnsupportedError as error:
                problems += str(error).split("\n")
        if problems:
            raise UnsupportedError("\n".join(dict.fromkeys(problems)))
        return steps

    def _step(self, node: Node) -> Step:
        found = find(node)
        if found is None:
            raise node.unsupported(f"of {node.ir.domain or 'this name'} cannot be executed by torch here")
        run = found.build(node)
        host = None if found.host is None else found.host(node)
        inputs = [None if value is None else self._slot(value) for value in node.ir.inputs]
        if isinstance(run, Closure):
            inputs += [self._slot(value) for value in run.externals]
            run = run.run
        outputs = [self._slot(value) if value.name else None for value in node.ir.outputs]
        label = f"{node.ir.name or '(no name)'} ({node.ir.op_type})"
        return Step(_prepared(run, host, found.numbers), tuple(inputs), tuple(outputs), (), label)


def constant(value: ir.Value) -> Value:
    """An initializer that is not trained: see `numbers_or_tensor`."""
    if value.const_value is None:
        raise ValueError(f"{value.name} has no constant value")
    return numbers_or_tensor(value.const_value)


def _freeing(steps: list[Step], kept: set[int]) -> list[Step]:
    """The steps, each with the slots that are read there for the last time."""
    found: list[Step] = []
    for step in reversed(steps):
        last = {slot for slot in (*step.inputs, *step.outputs) if slot is not None} - kept
        kept |= last
        found.append(replace(step, frees=tuple(last)))
    return found[::-1]


def _prepared(run: Run, host: Run | None, numbers: frozenset[int] | None) -> Run:
    """`run` with its inputs as it wants them, or `host` when all of them are numbers."""

    def step(*inputs: Value) -> Value:
        for value in inputs:
            if isinstance(value, Host):
                break
        else:
            return run(*inputs)
        if host is not None and all(isinstance(value, Host) or value is None for value in inputs):
            result = host(*inputs)
            if result is not None:
                return result
        if numbers is None:
            return run(*inputs)
        return run(*[value if index in numbers else as_tensor(value) for index, value in enumerate(inputs)])

    return step
