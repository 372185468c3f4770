"""The float type of arrays and of whole models: narrow ones for the file, float32 for computing.

A Cast right behind an initializer is folded by ONNX Runtime when it loads the model, so that an array
stored in 16 bits costs no time in execution (and, once loaded, as much memory as before).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import (
    bypass,
    insert,
    new_initializer,
    new_node,
    redirect,
    remove_if_unused,
    set_array,
    settle,
    take_over_output,
)
from compressor.graph.learned import learned
from compressor.graph.model import Model
from compressor.graph.reading import initializers
from compressor.graph.select import Selectors
from compressor.graph.weights import FLOATS, uses_of
from compressor.numerics.affine import Floats
from compressor.numerics.floating import flush_subnormals

Narrow = Literal["float16", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Precision:
    """What a 16-bit float type can hold.

    Attributes:
        rounding: largest relative error of a number in range.
        smallest: magnitude below which digits are lost.
        largest: finite number.
    """

    rounding: float
    smallest: float
    largest: float


PRECISION: dict[Narrow, Precision] = {
    "float16": Precision(2**-11, 2**-14, 65504.0),
    "bfloat16": Precision(2**-8, 2**-126, (2 - 2**-7) * 2.0**127),
}

LEAST_ENTRIES = 64
"""Of an array that is no weight: with fewer, the Cast takes as much of the file as it saves."""

_REAL = ir.DataType.FLOAT
_OTHERS = tuple(dtype for dtype in FLOATS if dtype is not _REAL)
_TYPE_ATTRIBUTES = ("to", "dtype", "output_dtype", "output_datatype", "stash_type")


@dataclass(frozen=True, slots=True, eq=False)
class Constant:
    """A constant float array: a weight, or another array of some size.

    Attributes:
        value: the initializer.
        name: of the layer, for a weight; of the array itself, for any other.
        layer: operator type of the first node that reads it.
    """

    value: ir.Value
    name: str
    layer: str

    @property
    def dtype(self) -> str:
        """NumPy's name of the stored type."""
        return self.array().dtype.name

    def array(self) -> NDArray[np.generic]:
        """As stored."""
        if self.value.const_value is None:
            raise ValueError(f"{self.value.name} has no constant value")
        return self.value.const_value.numpy()


def constants(model: Model, selectors: Selectors) -> Iterator[Constant]:
    """The weights of the selected layers, then the other learned float32 arrays of these layers that are large
    enough: biases, position embeddings. Scales are not among them, nor what operators of other domains read.
    """
    weights = {weight.value: weight for weight in model.weights()}
    for weight in weights.values():
        if selectors.match(weight.names, weight.layer) and not weight.value.is_graph_output():
            yield Constant(weight.value, weight.name, weight.layer)
    for value in [array.value for array in learned(model.ir)]:
        nodes = [node for node, _ in value.uses()]
        names = (value.name or "", *(node.name or "" for node in nodes))
        if value not in weights and _is_worth_it(value, nodes) and selectors.match(names, nodes[0].op_type):
            yield Constant(value, names[0], nodes[0].op_type)


def _is_worth_it(value: ir.Value, readers: list[ir.Node]) -> bool:
    large = value.const_value is not None and value.const_value.size >= LEAST_ENTRIES
    standard = bool(readers) and not any(node.domain for node in readers)
    return large and standard and value.dtype is _REAL and not value.is_graph_output()


def narrowed(array: Floats, dtype: Narrow) -> NDArray[np.generic]:
    """`array` to nearest in 16 bits; what is beyond the type's range becomes infinite."""
    with np.errstate(over="ignore"):
        return array.astype(ir.DataType[dtype.upper()].numpy())


def store_narrow(value: ir.Value, array: NDArray[np.generic]) -> None:
    """Replace an initializer by `array`, its 16-bit form, and a Cast that gives out float32 under the old name."""
    graph, name = value.graph, value.name or ""
    if graph is None:
        raise ValueError(f"{name} is in no graph")
    stored = new_initializer(graph, f"{name}_{array.dtype.name}", array)
    cast = _cast(stored, _REAL, f"{name}_cast")
    redirect(uses_of(value), cast.outputs[0])
    remove_if_unused(value)
    cast.outputs[0].name = name
    graph.insert_before(graph[0], cast)


def widen(model: Model) -> dict[ir.Value, int]:
    """Let the whole model compute in float32; only its inputs and outputs keep their types, through Casts.

    Numbers beyond float32's range become its largest.

    Returns:
        The arrays that were of another float type, and the bytes they had.
    """
    border = {v: v.dtype for v in (*model.ir.graph.inputs, *model.ir.graph.outputs) if v.dtype in _OTHERS}
    arrays = {v: v.const_value.nbytes for v in initializers(model.ir) if v.dtype in _OTHERS and v.const_value}
    for value in arrays.keys() - border.keys():
        if value.const_value is not None:
            set_array(value, _as_float32(value.const_value.numpy()))
    for value in _values(model.ir):
        if value.dtype in _OTHERS and isinstance(value.type, ir.TensorType):
            value.type = ir.TensorType(_REAL)
    for node in (node for graph in model.ir.graphs() for node in graph if not node.domain):
        _widen_attributes(node)
    for value, dtype in border.items():
        _keep(model.ir.graph, value, dtype)
    _drop_casts(model.ir)
    settle(model.ir)
    return {value: nbytes for value, nbytes in arrays.items() if value not in border}


def _as_float32(array: NDArray[np.generic]) -> Floats:
    limits = np.finfo(np.float32)
    finite = np.isfinite(array)
    wide = array.astype(np.float64)
    return flush_subnormals(np.where(finite, np.clip(wide, limits.min, limits.max), wide).astype(np.float32))


def _values(model: ir.Model) -> Iterator[ir.Value]:
    """Everything that is computed, and what subgraphs are given."""
    for graph in model.graphs():
        if graph is not model.graph:
            yield from graph.inputs
        for node in graph:
            yield from node.outputs


def _widen_attributes(node: ir.Node) -> None:
    for name, attribute in list(node.attributes.items()):
        match attribute.type:
            case ir.AttributeType.INT if name in _TYPE_ATTRIBUTES and attribute.as_int() in _OTHERS:
                node.attributes[name] = ir.AttrInt64(name, int(_REAL))
            case ir.AttributeType.TENSOR if attribute.as_tensor().dtype in _OTHERS:
                node.attributes[name] = ir.AttrTensor(name, ir.tensor(_as_float32(attribute.as_tensor().numpy())))


def _keep(graph: ir.Graph, value: ir.Value, dtype: ir.DataType | None) -> None:
    """Let an input or output have its type: a Cast behind it, or in front of it."""
    if dtype is None:
        return
    if value.producer() is None:
        cast = _cast(value, _REAL, f"{value.name}_{_REAL.name.lower()}")
        redirect([use for use in uses_of(value) if use.node is not cast], cast.outputs[0])
        insert(graph, value, [cast])
        return
    cast = _cast(value, dtype, f"{value.name}_{dtype.name.lower()}")
    graph.append(cast)
    take_over_output(graph, value, cast.outputs[0])
    cast.outputs[0].type = ir.TensorType(dtype)


def _cast(value: ir.Value, dtype: ir.DataType, name: str) -> ir.Node:
    node = new_node("Cast", [value], name, dtype, {"to": int(dtype)})
    node.outputs[0].shape = value.shape
    return node


def _drop_casts(model: ir.Model) -> None:
    """Remove those that turn float32 into float32."""
    for graph in model.graphs():
        for node in [node for node in graph if node.op_type == "Cast" and not node.domain]:
            source, result = node.inputs[0], node.outputs[0]
            if source is not None and source.dtype is result.dtype is _REAL and not result.is_graph_output():
                bypass(node, source)
