"""The table of operators: how each is built from its node.

A builder takes a `Node` and returns the function that runs it: inputs in the order of the graph (None where
one is left out), results as a value or a tuple of them. `numbers` names the inputs that are wanted as they
come, because the operator needs their numbers; all others arrive as tensors. `host` is the same operator on
numbers alone: used when all inputs are numbers already.
"""

from collections.abc import Callable
from dataclasses import dataclass

from compressor.runtime.autograd.node import Build, Node, Run

Numeric = Callable[[Node], Run]
"""Makes the function that runs an operator on numbers."""


@dataclass(frozen=True, slots=True)
class Operator:
    """How a type of node is executed.

    Attributes:
        build: makes the function on tensors.
        numbers: inputs that are not turned into tensors; None for all.
        host: makes the function on numbers, where there is one; it may return None to say that it cannot.
    """

    build: Build
    numbers: frozenset[int] | None
    host: Numeric | None = None


OPERATORS: dict[tuple[str, str], Operator] = {}
"""(domain, operator type) -> how it is executed."""

_HOSTS: dict[str, Numeric] = {}


def operator(*names: str, numbers: tuple[int, ...] | None = (), domain: str = "") -> Callable[[Build], Build]:
    """Register a builder for one or more operator types."""

    def register(build: Build) -> Build:
        for name in names:
            OPERATORS[domain, name] = Operator(build, None if numbers is None else frozenset(numbers))
        return build

    return register


def function(name: str, run: Run) -> None:
    """Register an operator without attributes: the function itself runs it."""
    OPERATORS["", name] = Operator(lambda node: run, frozenset())


def on_numbers(*names: str) -> Callable[[Numeric], Numeric]:
    """Register how operator types run when all their inputs are numbers."""

    def register(build: Numeric) -> Numeric:
        _HOSTS.update(dict.fromkeys(names, build))
        return build

    return register


def find(node: Node) -> Operator | None:
    """The operator of a node, or None when there is none."""
    found = OPERATORS.get((node.ir.domain, node.ir.op_type))
    if found is None or node.ir.domain:
        return found
    return Operator(found.build, found.numbers, _HOSTS.get(node.ir.op_type))
