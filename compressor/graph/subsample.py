"""An evenly strided part of a tensor, taken inside the graph whatever shape the tensor has at run time.

Of the entries in memory order every k-th is taken. A stride with a factor in common with a dimension would
see some channels or columns of an image only; k is therefore a prime that does not divide the number
of entries, hence no dimension, so that every position along every axis is seen equally often.
"""

from functools import partial

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import new_initializer, new_node

_LONGEST = 1 << 20
_GROWTH = 1.25
_NO_DIVISOR = 1 << 62

INT64, BOOL = ir.DataType.INT64, ir.DataType.BOOL


class Subsampler:
    """Adds nodes that take parts of tensors.

    Args:
        graph: of the model; gets the table of strides.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        strides = np.array(_strides())
        divisors = np.where(strides == 1, _NO_DIVISOR, strides)  # 1 divides every size and may be taken all the same
        self._strides = self._constant("strides", strides)
        self._divisors = self._constant("divisors", divisors)
        self._longest = self._constant("longest", strides[-1:])
        self._zero, self._all = self._constant("zero", np.array([0])), self._constant("all", np.array([-1]))
        self._end = self._constant("end", np.array([np.iinfo(np.int64).max]))
        self._chosen: dict[tuple[ir.Graph, int, tuple[int | str, ...] | None], ir.Value] = {}

    def add(self, graph: ir.Graph, value: ir.Value, entries: int, names: tuple[str, str]) -> tuple[ir.Value, ir.Value]:
        """Take about `entries` entries of a tensor, or all when it has no more.

        The stride is the smallest fitting one of a table in which each is about a quarter longer than
        the one before.

        Args:
            graph: where the tensor is computed: that of the model, or one inside it.
            value: a tensor.
            entries: > 0.
            names: of what comes back: the entries taken, (taken,), and the stride, (1,), which is how
                many entries each of them stands for.
        """
        part, stride = names
        alike = graph, entries, _dimensions(value)
        if alike not in self._chosen or alike[-1] is None:
            self._chosen[alike] = self._choose(graph, value, entries, f"{stride}.chosen")
        node = partial(_append, graph)
        flat = node("Reshape", [value, self._all], f"{part}.flat", value.dtype)
        taken = node("Slice", [flat, self._zero, self._end, self._zero, self._chosen[alike]], part, value.dtype)
        chosen = node("Identity", [self._chosen[alike]], stride, INT64)
        taken.shape, chosen.shape = ir.Shape([None]), ir.Shape([1])
        return taken, chosen

    def _choose(self, graph: ir.Graph, value: ir.Value, entries: int, name: str) -> ir.Value:
        """The stride for a tensor, (1,), and for all of its shape."""
        wanted = self._constant(f"{name}.wanted", np.array(entries))
        node = partial(_append, graph)
        size = node("Size", [value], f"{name}.size", INT64)
        least = node("Div", [size, wanted], f"{name}.least", INT64)
        enough = node("GreaterOrEqual", [self._strides, least], f"{name}.enough", BOOL)
        remainder = node("Mod", [size, self._divisors], f"{name}.remainder", INT64)
        coprime = node("Cast", [remainder], f"{name}.coprime", BOOL, {"to": int(BOOL)})
        fits = node("And", [enough, coprime], f"{name}.fits", BOOL)
        fitting = node("Where", [fits, self._strides, self._longest], f"{name}.fitting", INT64)
        return node("ReduceMin", [fitting], name, INT64)

    def _constant(self, name: str, array: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> ir.Value:
        return new_initializer(self._graph, f"compressor.subsample.{name}", array)


def _dimensions(value: ir.Value) -> tuple[int | str, ...] | None:
    """Lengths and the names of open ones; None where one is neither."""
    lengths = [None] if value.shape is None else [d if isinstance(d, int) else d.value for d in value.shape]
    known = tuple(length for length in lengths if length is not None)
    return known if len(known) == len(lengths) else None


def _append(
    graph: ir.Graph,
    op_type: str,
    inputs: list[ir.Value],
    name: str,
    dtype: ir.DataType | None,
    attributes: dict[str, int | float] | None = None,
) -> ir.Value:
    """The result of a new node at the end of a graph."""
    node = new_node(op_type, inputs, name, dtype, attributes)
    graph.append(node)
    return node.outputs[0]


def _strides() -> list[int]:
    """1, and primes that are each about a quarter longer than the one before."""
    strides = [1, 2]
    while strides[-1] < _LONGEST:
        strides.append(_prime_from(max(strides[-1] + 1, int(strides[-1] * _GROWTH))))
    return strides


def _prime_from(number: int) -> int:
    """The first prime that is not below `number`."""
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
