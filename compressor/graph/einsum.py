"""Einsum of two factors written as the matrix product that it is.

What compresses products then finds it: `MatMul` is quantized, pruned and factorized, `Einsum` is not, and ONNX Runtime
itself computes it as transpositions around a product. In `abc,cd->abd` the letters fall into four kinds: in both
factors and the result (batch), in the first and the result, in the second and the result, and in both alone (summed).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import (
    constant,
    graph_of,
    new_initializer,
    new_node,
    remove_if_unused,
    replace,
    set_array,
    settle,
)
from compressor.graph.equations import equation_of


@dataclass(frozen=True, slots=True)
class Expanded:
    """An Einsum that became a product.

    Attributes:
        layer: its name.
        layer_type: Einsum.
        detail: what it is now.
    """

    layer: str
    layer_type: str
    detail: str


@dataclass(frozen=True, slots=True)
class _Kinds:
    """The letters of an equation of two factors, each kind in the order of the factor that it comes from first."""

    first: str
    second: str
    result: str

    @property
    def batch(self) -> str:
        return "".join(c for c in self.first if c in self.second and c in self.result)

    @property
    def summed(self) -> str:
        return "".join(c for c in self.first if c in self.second and c not in self.result)

    @property
    def rows(self) -> str:
        return "".join(c for c in self.first if c not in self.second)

    @property
    def columns(self) -> str:
        return "".join(c for c in self.second if c not in self.first)

    @property
    def swapped(self) -> "_Kinds":
        return _Kinds(self.second, self.first, self.result)


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """Rows of x by a constant.

    Attributes:
        kinds: of the letters, those of x first.
        x: what is multiplied.
        weight: the constant.
        array: its entries.
    """

    kinds: _Kinds
    x: ir.Value
    weight: ir.Value
    array: NDArray[np.generic]


def expand_einsums(model: ir.Model) -> Iterator[Expanded]:
    """Write every Einsum as MatMul that multiplies by a constant, or a matrix by a matrix; the others stay.

    Left alone are those with more than two factors, with a letter twice in one factor, with one that is only summed
    up, and with lengths that are not known to agree: Einsum stretches an axis of length 1, MatMul does not.
    """
    einsums = [node for graph in model.graphs() for node in graph if node.op_type == "Einsum" and not node.domain]
    expanded = [found for node in einsums if (found := _expanded(node)) is not None]
    if expanded:
        settle(model)
    yield from expanded


def _expanded(node: ir.Node) -> Expanded | None:
    nodes, factors = _product(node), [value for value in node.inputs if value is not None]
    if nodes is None:
        return None
    name, equation = node.name or "", node.attributes["equation"].as_string()
    replace(node, nodes)
    nodes[-1].name = f"{name}_ordered"
    next(made for made in nodes if made.op_type == "MatMul").name = name
    for factor in factors:
        remove_if_unused(factor)
    return Expanded(name, "Einsum", f"{equation.replace(' ', '')} is written as MatMul")


def multiplies_by_constant(node: ir.Node) -> bool:
    """Whether an Einsum is rows times a matrix that is there from the start."""
    kinds = _kinds(node)
    return kinds is not None and _constant_factor(node, kinds) is not None


def _constant_factor(node: ir.Node, kinds: _Kinds) -> _Product | None:
    for x, weight, letters in _orders(node, kinds):
        array = constant(weight)
        if array is not None and not letters.batch and letters.rows and not _stretches(x, letters, array.shape):
            return _Product(letters, x, weight, array)
    return None


def _orders(node: ir.Node, kinds: _Kinds) -> Iterator[tuple[ir.Value, ir.Value, _Kinds]]:
    """Both factors, either of them as the first."""
    first, second = node.inputs
    if first is not None and second is not None:
        yield first, second, kinds
        yield second, first, kinds.swapped


def _stretches(x: ir.Value, kinds: _Kinds, shape: Sequence[int]) -> bool:
    """Whether an axis that is summed has another length here and there, or might have."""
    for letter in kinds.summed:
        length, other = _length(x, kinds.first, letter), shape[kinds.second.index(letter)]
        if length != other and (isinstance(length, int) or other == 1):
            return True
    return False


def _product(node: ir.Node) -> list[ir.Node] | None:
    """MatMul and what is needed around it; None where it is none."""
    kinds = _kinds(node)
    if kinds is None:
        return None
    product = _constant_factor(node, kinds)
    if product is not None:
        return _by_constant(node, product)
    if any(len(kind) != 1 for kind in (kinds.rows, kinds.columns, kinds.summed)):
        return None
    first, second = (value for value in node.inputs if value is not None)
    lengths = _length(first, kinds.first, kinds.summed), _length(second, kinds.second, kinds.summed)
    if lengths[0] is None or lengths[0] != lengths[1]:
        return None
    left = _ordered(first, kinds.first, kinds.batch + kinds.rows + kinds.summed, f"{node.name}_left")
    right = _ordered(second, kinds.second, kinds.batch + kinds.summed + kinds.columns, f"{node.name}_right")
    made = new_node("MatMul", [left[-1], right[-1]], f"{node.name}_product", first.dtype)
    after = _ordered(made.outputs[0], kinds.batch + kinds.rows + kinds.columns, kinds.result, f"{node.name}_result")
    return [*_makers(left), *_makers(right), made, *_makers(after)]


def _by_constant(node: ir.Node, product: _Product) -> list[ir.Node]:
    """Rows of x by a matrix (summed, columns); axes that are taken together are reshaped before and after."""
    kinds, x, array = product.kinds, product.x, product.array
    sizes = dict(zip(kinds.second, array.shape, strict=True))
    matrix = np.transpose(array, [kinds.second.index(c) for c in kinds.summed + kinds.columns])
    inner, outer = prod(sizes[c] for c in kinds.summed), prod(sizes[c] for c in kinds.columns)
    stored = _stored(node, product.weight, np.ascontiguousarray(matrix.reshape(inner, outer)))
    taken, kept = _ordered(x, kinds.first, kinds.rows + kinds.summed, f"{node.name}_input"), [0] * len(kinds.rows)
    if len(kinds.summed) != 1:
        taken.append(_reshaped(node, taken[-1], [*kept, inner], f"{node.name}_rows"))
    made = new_node("MatMul", [taken[-1], stored], f"{node.name}_product", x.dtype)
    result = [made.outputs[0]]
    if len(kinds.columns) != 1:
        result.append(_reshaped(node, result[-1], [*kept, *(sizes[c] for c in kinds.columns)], f"{node.name}_axes"))
    result += _ordered(result[-1], kinds.rows + kinds.columns, kinds.result, f"{node.name}_result")[1:]
    return [*_makers(taken), made, *_makers(result)]


def _kinds(node: ir.Node) -> _Kinds | None:
    """The letters of an equation that a product can stand for."""
    equation = equation_of(node)
    if equation is None or len(equation.terms) != 2 or equation.repeats:
        return None
    kinds = _Kinds(*equation.terms, equation.result)
    return kinds if set(kinds.rows + kinds.columns) <= set(kinds.result) else None


def _stored(node: ir.Node, weight: ir.Value, matrix: NDArray[np.generic]) -> ir.Value:
    """The matrix under the name of the weight, or under one of its own where something else reads that."""
    if len(weight.uses()) == 1 and weight.graph is node.graph and not weight.is_graph_output():
        set_array(weight, matrix)
        return weight
    return new_initializer(graph_of(node), f"{weight.name}_matrix", matrix)


def _ordered(value: ir.Value, letters: str, wanted: str, name: str) -> list[ir.Value]:
    """The value, and behind it what has its axes in another order, if that differs."""
    if letters == wanted:
        return [value]
    order = [letters.index(c) for c in wanted]
    node = ir.node("Transpose", [value], {"perm": order}, name=name)
    node.outputs[0].name, node.outputs[0].type = name, value.type
    return [value, node.outputs[0]]


def _reshaped(node: ir.Node, value: ir.Value, shape: Sequence[int], name: str) -> ir.Value:
    """With 0 for what stays as long as it is."""
    sizes = new_initializer(graph_of(node), f"{name}_shape", np.array(shape, np.int64))
    return new_node("Reshape", [value, sizes], name, value.dtype).outputs[0]


def _makers(values: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes that make all but the first."""
    return [node for value in values[1:] if (node := value.producer()) is not None]


def _length(value: ir.Value, letters: str, letter: str) -> int | str | None:
    """Of an axis: a number, the name of an open one, or None where neither is known."""
    if value.shape is None:
        return None
    length = value.shape[letters.index(letter)]
    return length if isinstance(length, int) else length.value
