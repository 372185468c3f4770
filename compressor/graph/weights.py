"""One layout at the door: every weight as a matrix, (outputs, inputs), whatever its layer.

The table of operators, inputs and axes is here and nowhere else. A weight is described by how its
array turns into the matrix: split some axes, permute them, and let the first few be the outputs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.numerics.affine import Floats
from compressor.numerics.floating import flush_subnormals

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)


RESAMPLES = "compressor.resamples"
"""Key of the note on a convolution that resizes an image: there is nothing in it that was learned."""

T = TypeVar("T", bound=np.generic)


class Use(NamedTuple):
    """One place where a value is read: input number `idx` of `node`."""

    node: ir.Node
    idx: int


def uses_of(value: ir.Value) -> list[Use]:
    """All places where `value` is read, graph outputs not among them."""
    return [Use(node, idx) for node, idx in value.uses()]


@dataclass(frozen=True, slots=True)
class Layout:
    """How an array becomes a matrix: reshape to `split`, transpose by `order`, join the first
    `leading` axes to outputs and the others to inputs.
    """

    split: tuple[int, ...]
    order: tuple[int, ...]
    leading: int

    def to_matrix(self, array: NDArray[T]) -> NDArray[T]:
        """(outputs, inputs); a view where NumPy can give one."""
        permuted = array.reshape(self.split).transpose(self.order)
        return permuted.reshape(prod(permuted.shape[: self.leading]), prod(permuted.shape[self.leading :]))

    def from_matrix(self, matrix: NDArray[T], shape: tuple[int, ...]) -> NDArray[T]:
        """The array of `shape` that `to_matrix` would turn into `matrix`."""
        permuted = matrix.reshape([self.split[axis] for axis in self.order])
        return np.ascontiguousarray(permuted.transpose(np.argsort(self.order)).reshape(shape))


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """A constant float array that one layer multiplies its input by; shared ones come once.

    Attributes:
        value: the initializer.
        uses: the layers that multiply by it, each with the number of the input it is.
        in_subgraph: whether one of them sits in a branch of an If or the body of a Loop.
    """

    value: ir.Value
    uses: tuple[Use, ...]
    in_subgraph: bool

    @property
    def name(self) -> str:
        """The layer's name; a layer with two weights adds which one."""
        use = self.uses[0]
        suffix = f".{_RECURRENT_INPUTS[use.idx]}" if use.node.op_type in _RECURRENT else ""
        return f"{use.node.name}{suffix}"

    @property
    def names(self) -> tuple[str, ...]:
        """All names that a selector may use: of the layers and of the array."""
        return (self.name, *(use.node.name or "" for use in self.uses), self.value.name or "")

    @property
    def read_otherwise(self) -> bool:
        """Whether something that is no layer reads it too, as a Transpose in front of a tied output layer."""
        return len(self.value.uses()) > len(self.uses)

    @property
    def layer(self) -> str:
        """Operator type of the first layer that uses it: Conv, Gemm, MatMul, Gather, LSTM …"""
        return self.uses[0].node.op_type

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array, as it is stored."""
        return tuple(self._tensor().shape.numpy())

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self._tensor().nbytes

    @property
    def size(self) -> int:
        """Entries of the array."""
        return self._tensor().size

    @property
    def dtype(self) -> str:
        """NumPy's name of the stored type."""
        return np.dtype(self._tensor().dtype.numpy()).name

    def matrix(self) -> Floats:
        """(outputs, inputs) as float32, read-only; for a convolution the inputs are channel by
        channel, each with all its kernel positions.
        """
        array = self._tensor().numpy().astype(np.float32, copy=False)
        matrix = self._layout().to_matrix(array).view()
        matrix.flags.writeable = False
        return matrix

    def store(self, matrix: Floats) -> None:
        """Replace the array by the one that `matrix`, (outputs, inputs), stands for.

        It is stored in the type it had; subnormal entries become zero.

        Raises:
            TypeError: not float32: float32 minus int32 is float64 in NumPy, and doubles the file.
        """
        if matrix.dtype != np.float32:
            raise TypeError(f"{self.name}: a matrix of {matrix.dtype} was stored; float32 is wanted")
        tensor = self._tensor()
        array = self.as_stored(flush_subnormals(matrix))
        self.value.const_value = ir.tensor(array.astype(tensor.dtype.numpy()), dtype=tensor.dtype, name=self.value.name)

    def as_stored(self, matrix: NDArray[T]) -> NDArray[T]:
        """The array of `shape` that a matrix, (outputs, inputs), stands for."""
        return self._layout().from_matrix(matrix, self.shape)

    def as_stored_with_inputs(self, matrix: NDArray[T]) -> NDArray[T]:
        """An array in the same layout for a matrix of as many outputs and another number of inputs, one axis of it."""
        inputs = layout_of(self.uses[0], self.shape).order[-1]
        shape = tuple(matrix.shape[1] if axis == inputs else size for axis, size in enumerate(self.shape))
        return layout_of(self.uses[0], shape).from_matrix(matrix, shape)

    def as_matrix(self, array: NDArray[T]) -> NDArray[T]:
        """What `as_stored` was given, of what it made."""
        return self._layout().to_matrix(array)

    def _layout(self) -> Layout:
        return layout_of(self.uses[0], self.shape)

    def _tensor(self) -> ir.TensorProtocol:
        tensor = self.value.const_value
        if tensor is None:
            raise ValueError(f"{self.value.name} has no constant value")
        return tensor


def find_weights(model: ir.Model) -> Iterator[Weight]:
    """Every weight of the model once, in the order of the first layer that uses it."""
    seen: set[ir.Value] = set()
    for node in ir.traversal.RecursiveGraphIterator(model.graph):
        for index, value in enumerate(node.inputs):
            if value is None or value in seen or not is_weight(Use(node, index)):
                continue
            seen.add(value)
            uses = sorted(filter(is_weight, uses_of(value)), key=lambda u: u.node is not node)
            yield Weight(value, tuple(uses), any(u.node.graph is not model.graph for u in uses))


def is_weight(use: Use) -> bool:
    """Whether a layer multiplies by this input, and it is a constant float array of two or more axes."""
    value = use.node.inputs[use.idx]
    if value is None or value.const_value is None or not value.is_initializer():
        return False
    tensor = value.const_value
    is_array = tensor.dtype in FLOATS and len(tensor.shape) >= 2 and tensor.size > 0
    return takes_weight(use) and is_array and not is_scale(use)


def takes_weight(use: Use) -> bool:
    """Whether this input of this layer is where a weight belongs."""
    return (
        use.node.domain == ""
        and RESAMPLES not in use.node.metadata_props
        and use.idx in _WEIGHT_INPUTS.get(use.node.op_type, ())
    )


def is_scale(use: Use) -> bool:
    """Whether a product ranged at run time, or a row looked up in int8, is brought to its scale by this."""
    node = use.node
    if node.op_type == "Gather" and use.idx == 0:
        return any(is_scale(reader) for reader in uses_of(node.outputs[0]))
    other = node.inputs[1 - use.idx] if node.op_type == "Mul" else None
    producer = None if other is None else other.producer()
    if producer is None:
        return False
    source = producer.inputs[0].producer() if producer.op_type == "Cast" and producer.inputs[0] else None
    looked_up = source is not None and source.op_type == "Gather" and source.outputs[0].dtype == ir.DataType.INT8
    return producer.op_type == "DynamicQuantizeLinear" or looked_up


def layout_of(use: Use, shape: tuple[int, ...]) -> Layout:
    """The layout of an array of `shape` as this input of this layer."""
    return _LAYOUTS[use.node.op_type](use, shape)


def output_axis(use: Use, ndim: int) -> int:
    """The axis of the stored array that runs over output channels, for layers that have one such axis."""
    layout = layout_of(use, (1,) * ndim)
    return layout.order[layout.leading - 1]


def is_scaled(node: ir.Node) -> bool:
    """Whether a Gemm multiplies its product or its bias by a number."""
    return any(name in node.attributes and node.attributes[name].as_float() != 1 for name in ("alpha", "beta"))


def attribute(node: ir.Node, name: str, default: int) -> int:
    """An integer attribute."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


_RECURRENT = ("LSTM", "GRU", "RNN")
_RECURRENT_INPUTS = {1: "W", 2: "R"}
_WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "ConvTranspose": (1,),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "Gather": (0,),
    **dict.fromkeys(_RECURRENT, (1, 2)),
}


def _straight(leading: int) -> Callable[[Use, tuple[int, ...]], Layout]:
    return lambda use, shape: Layout(shape, tuple(range(len(shape))), leading)


def _conv_transpose(use: Use, shape: tuple[int, ...]) -> Layout:
    """Stored as (inputs, outputs per group, kernel …)."""
    groups = attribute(use.node, "group", 1)
    split = (groups, shape[0] // groups, *shape[1:])
    return Layout(split, (0, 2, 1, *range(3, len(split))), 2)


def _gemm(use: Use, shape: tuple[int, ...]) -> Layout:
    """A' is (rows, inputs), B' is (inputs, outputs), each transposed when its attribute says so."""
    name = "transB" if use.idx else "transA"
    as_stored = bool(attribute(use.node, name, 0)) == bool(use.idx)
    return Layout(shape, (0, 1) if as_stored else (1, 0), 1)


def _matmul(use: Use, shape: tuple[int, ...]) -> Layout:
    """(…, rows, inputs) on the left, (…, inputs, outputs) on the right."""
    axes = list(range(len(shape)))
    if use.idx == 1:
        axes[-2:] = reversed(axes[-2:])
    return Layout(shape, tuple(axes), len(shape) - 1)


_LAYOUTS: dict[str, Callable[[Use, tuple[int, ...]], Layout]] = {
    "Conv": _straight(1),
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Gather": _straight(1),
    **dict.fromkeys(_RECURRENT, _straight(2)),
}
