"""What an operator is told when it is built: its attributes, its version, and which results are wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir
import torch
from onnx_ir import DataType, Graph

from compressor.runtime.autograd.values import DTYPES

if TYPE_CHECKING:
    from compressor.runtime.autograd.program import Program


class UnsupportedError(Exception):
    """An operator, or one of its settings, that torch cannot execute here; the message says which and why."""


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A node of the graph as its operator sees it.

    Attributes:
        ir: the node.
        opset: version of the standard operators.
        program: makes a program of one of its graphs.
        network: what belongs to the whole network: whether it is in training.
    """

    ir: onnx_ir.Node
    opset: int
    program: Callable[[Graph], "Program"]
    network: "Mode"

    def integer(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self.ir.attributes.get(name)
        return default if found is None else found.as_int()

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        found = self.ir.attributes.get(name)
        return default if found is None else found.as_float()

    def string(self, name: str, default: str = "") -> str:
        """A string attribute."""
        found = self.ir.attributes.get(name)
        return default if found is None else found.as_string()

    def ints(self, name: str) -> list[int] | None:
        """A list of integers, or None where it is left out."""
        found = self.ir.attributes.get(name)
        return None if found is None else list(found.as_ints())

    def floats(self, name: str) -> list[float] | None:
        """A list of floats, or None where it is left out."""
        found = self.ir.attributes.get(name)
        return None if found is None else list(found.as_floats())

    def strings(self, name: str) -> list[str] | None:
        """A list of strings, or None where it is left out."""
        found = self.ir.attributes.get(name)
        return None if found is None else list(found.as_strings())

    def dtype(self, name: str, default: DataType | None = None) -> torch.dtype | None:
        """A type attribute as the torch type that carries it."""
        found = self.ir.attributes.get(name)
        if found is not None and found.as_int():
            return DTYPES[DataType(found.as_int())]
        return None if default is None else DTYPES[default]

    def has(self, name: str) -> bool:
        """Whether the attribute is given."""
        return name in self.ir.attributes

    def graph(self, name: str) -> "Program":
        """A graph attribute, ready to run."""
        return self.program(self.ir.attributes[name].as_graph())

    def wants(self, index: int) -> bool:
        """Whether somebody reads result number `index`."""
        outputs = self.ir.outputs
        return index < len(outputs) and bool(outputs[index].name)

    def input_dtype(self, index: int) -> DataType | None:
        """ONNX type of an input, where the graph tells."""
        value = self.ir.inputs[index] if index < len(self.ir.inputs) else None
        return None if value is None else value.dtype

    def unsupported(self, reason: str) -> UnsupportedError:
        """An error that names this node."""
        return UnsupportedError(f"{self.ir.name or self.ir.op_type}: {self.ir.op_type} {reason}")


class Mode:
    """How a network runs, shared by all its operators.

    Attributes:
        training: whether normalization goes by batches and dropout drops.
        unrounded: share of the entries that quantizers let pass as they are, each time others.
    """

    __slots__ = ("training", "unrounded")

    def __init__(self) -> None:
        self.training, self.unrounded = False, 0.0


Run = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Closure:
    """An operator with graphs of its own, which read values from outside.

    Attributes:
        run: its inputs, then the values of `externals`.
        externals: what its graphs read.
    """

    run: Run
    externals: tuple[onnx_ir.Value, ...]


Build = Callable[[Node], Run | Closure]
