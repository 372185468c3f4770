"""Weights in codes as floats for as long as they are trained, and the way back into the codes.

In a copy of the model every weight that layers read through DequantizeLinear, or through Cast and Mul, becomes a
plain float array, and so does every int32 bias. An integer product whose input is ranged at run time becomes a
product of floats, of the input as it was rounded. What rounds them while they are trained is not in the graph. In the
model itself the codes are replaced afterwards, packed as they were.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.composed import CODES
from compressor.graph.edit import constant, new_initializer, new_node, redirect, replace, set_array
from compressor.graph.learned import learned
from compressor.graph.model import Model
from compressor.graph.packing import DOMAIN, packed, unpacked
from compressor.graph.trainable import IntegerBias, integer_biases
from compressor.graph.weights import attribute, uses_of
from compressor.numerics.affine import Floats
from compressor.numerics.levels import LEVELS, REDUCED, Bits, Codes, Levels

_OF_CODES = "_of_codes"
_BITS: dict[str, Bits] = {"Unpack3": 3, "Unpack2": 2, "UnpackTernary": "ternary", "UnpackBinary": "binary"}


@dataclass(frozen=True, slots=True)
class Stored:
    """Where codes lie in a graph.

    Attributes:
        arrays: the initializers that hold them.
        levels: what they stand for.
        shape: of the codes.
    """

    arrays: tuple[ir.Value, ...]
    levels: Levels
    shape: tuple[int, ...]

    def read(self) -> Codes:
        """The codes."""
        found = [np.asarray(constant(array)) for array in self.arrays]
        if self.levels.name in (8, 4):
            return found[0].astype(np.int8)
        counted = unpacked(self.levels.name, [array.astype(np.uint8) for array in found], int(np.prod(self.shape)))
        return (counted.astype(np.int8) + self.levels.low).astype(np.int8).reshape(self.shape)

    def write(self, codes: Codes) -> None:
        """Others in their place."""
        if self.levels.name in (8, 4):
            set_array(self.arrays[0], codes.astype(np.asarray(constant(self.arrays[0])).dtype))
            return
        counted = (codes - self.levels.low).astype(np.uint8)
        for array, made in zip(self.arrays, packed(self.levels.name, counted), strict=True):
            set_array(array, made)


@dataclass(frozen=True, slots=True)
class Latent:
    """A weight in codes.

    Attributes:
        name: of the float array that stands for it in the copy.
        layer: name of the first layer that reads it.
        levels: of the codes.
        scale: name of the array of scales in the model.
        scales: that array.
        steps: shape that the scales take to be spread over the weight.
        multipliers: of every entry on a two-level grid, () elsewhere.
    """

    name: str
    layer: str
    levels: Levels
    scale: str
    scales: Floats
    steps: tuple[int, ...]
    multipliers: Floats


@dataclass(frozen=True, slots=True)
class LatentBias:
    """An int32 bias, whose step is the product of two scales.

    Attributes:
        name: of the float array that stands for it in the copy.
        parts: names of the arrays of scales, of the layer's input and of its weight.
        scales: these arrays.
    """

    name: str
    parts: tuple[str, str]
    scales: tuple[Floats, Floats]


@dataclass(frozen=True, slots=True)
class Freed:
    """A model with floats in place of its codes.

    Attributes:
        model: the copy; everything that is no code is as it was, under its name.
        weights: what was in codes.
        biases: what was int32.
    """

    model: Model
    weights: tuple[Latent, ...]
    biases: tuple[LatentBias, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all float arrays that stand for codes."""
        return (*(weight.name for weight in self.weights), *(bias.name for bias in self.biases))


def free(model: Model) -> Freed:
    """A copy with floats in place of all codes that can be trained, named like the values that layers read."""
    from onnx_ir.passes import common  # slow to import

    copy = model.copy()
    biases = integer_biases(copy.ir)
    places = list(_places(copy.ir))
    shifts = [_freed_bias(bias) for bias in biases]
    weights = [_freed(place) for place in places]
    if weights or shifts:
        common.RemoveUnusedNodesPass()(copy.ir)
    return Freed(copy, tuple(weights), tuple(shifts))


def settle(model: Model, freed: Freed, arrays: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """Round what was learned to codes, and put these into the model; its scales must be the new ones already.

    Args:
        model: that `free` was called with.
        freed: what that found.
        arrays: name of a float array of the copy -> what became of it.

    Returns:
        The names of the arrays whose codes changed.
    """
    changed = []
    known = {weight.name: weight for weight in freed.weights}
    biases = integer_biases(model.ir)
    for place in _places(model.ir):
        entry = known[place.output.name or ""]
        scale = np.asarray(constant(place.scale), np.float32).reshape(entry.steps)
        if place.store(arrays[entry.name].astype(np.float32) / scale):
            changed.append(entry.name)
    for bias in biases:
        name = _output(bias).name or ""
        if bias.store(arrays[name].astype(np.float64)):
            changed.append(name)
    return tuple(changed)


def _output(bias: IntegerBias) -> ir.Value:
    """What the codes of a bias are turned into."""
    return next(use.node for use in uses_of(bias.codes) if use.node.op_type == "DequantizeLinear").outputs[0]


@dataclass(frozen=True, slots=True)
class _Place:
    """A weight in codes in a graph: `output` is integers · scale, or the integer product that `scaled` makes real.

    `others` are further places where the same codes are read.
    """

    output: ir.Value
    stored: Stored
    multipliers: Codes | None
    shape: tuple[int, ...]
    scale: ir.Value
    steps: tuple[int, ...]
    scaled: ir.Node | None = None
    others: "tuple[_Place, ...]" = ()

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for places that read the same weight in the same way."""
        return (*self.stored.arrays, self.scale, self.shape, self.steps)

    @property
    def layer(self) -> str:
        """Name of the first layer that multiplies by it."""
        if self.scaled is not None:
            return _product_name(self.output)
        return next((use.node.name for use in uses_of(self.output)), "") or ""

    def spread(self) -> NDArray[np.int8]:
        """Multiplier of every code, in the shape of the codes."""
        made = np.ones(self.stored.shape, np.int8) if self.multipliers is None else self.multipliers.astype(np.int8)
        return np.broadcast_to(made, self.stored.shape)

    def integers(self) -> NDArray[np.int32]:
        """What the scale is multiplied by."""
        levels = self.stored.levels.of(self.stored.read()).astype(np.int32)
        return (levels * self.spread()).reshape(self.shape)

    def store(self, wanted: Floats) -> bool:
        """The nearest codes to integers that need not be whole; whether they are others than before."""
        multipliers = self.spread().astype(np.float32)
        steps = wanted.reshape(self.stored.shape)
        levels = np.divide(steps, multipliers, out=np.zeros_like(steps), where=multipliers > 0)
        codes = self.stored.levels.nearest(levels)
        if np.array_equal(codes, self.stored.read()):
            return False
        self.stored.write(codes)
        return True


def _freed(place: _Place) -> Latent:
    scale = np.asarray(constant(place.scale), np.float32)
    value = (place.integers() * scale.reshape(place.steps)).astype(np.float32)
    multipliers = place.spread().reshape(place.shape).astype(np.float32)
    layer = place.layer
    made = _initializer(place.output, value)
    for reading in (place, *place.others):
        if reading.scaled is None:
            redirect(uses_of(reading.output), made)
        else:
            _multiply(reading.output, reading.scaled, made)
    whole = multipliers if place.multipliers is not None else np.ones((), np.float32)
    return Latent(made.name or "", layer, place.stored.levels, place.scale.name or "", scale, place.steps, whole)


def _freed_bias(bias: IntegerBias) -> LatentBias:
    output = _output(bias)
    made = _initializer(output, bias.real.astype(np.float32))
    redirect(uses_of(output), made)
    x, weight = (np.asarray(constant(part), np.float32) for part in bias.parts)
    return LatentBias(made.name or "", (bias.parts[0].name or "", bias.parts[1].name or ""), (x, weight))


def _initializer(output: ir.Value, array: Floats) -> ir.Value:
    """An array under the name of what a node makes."""
    graph, name = output.graph, output.name or ""
    if not isinstance(graph, ir.Graph):
        raise ValueError(f"{name} is in no graph")
    output.name = f"{name}{_OF_CODES}"
    return new_initializer(graph, name, array)


def _multiply(product: ir.Value, scaled: ir.Node, made: ir.Value) -> None:
    """Let the input of an integer product, as it was rounded, be multiplied by an array in floats."""
    node, name = product.producer(), (product.name or "").removesuffix(_OF_CODES)
    ranged = None if node is None or node.inputs[0] is None else node.inputs[0].producer()
    if ranged is None:
        raise ValueError(f"{name} is no product of a ranged input")
    layer = _product_name(product)
    real = new_node("DequantizeLinear", ranged.outputs, f"{name}_input", ir.DataType.FLOAT)
    multiplied = new_node("MatMul", [real.outputs[0], made], f"{name}_real", ir.DataType.FLOAT)
    replace(scaled, [real, multiplied])
    for use in uses_of(multiplied.outputs[0]):
        if use.node.name == layer:
            use.node.name = f"{layer}_biased"
    multiplied.name = layer


def _product_name(product: ir.Value) -> str:
    node = product.producer()
    return ((node.name if node is not None else "") or "").removesuffix("_product")


def _places(model: ir.Model) -> Iterator[_Place]:
    """Every weight that is read from codes we know, but for those that are read in different ways."""
    found: dict[tuple[ir.Value, ...], list[_Place]] = {}
    for place in _readings(model):
        found.setdefault(place.stored.arrays, []).append(place)
    for first, *others in found.values():
        if all(other.key == first.key for other in others):
            yield dataclasses.replace(first, others=tuple(others))


def _readings(model: ir.Model) -> Iterator[_Place]:
    """Every place where a weight is read through DequantizeLinear, or through Cast and Mul, from codes we know."""
    for node in list(model.graph):
        found = None
        if node.op_type == "DequantizeLinear" and not attribute(node, "block_size", 0):
            found = _dequantized(node)
        elif node.op_type == "Mul":
            found = _scaled(node)
        elif node.op_type == "MatMulInteger":
            found = _ranged(node)
        if found is not None and uses_of(found.output):
            yield found


def _dequantized(node: ir.Node) -> _Place | None:
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    scale = node.inputs[1]
    if constant(scale) is None or scale is None or (zero is not None and zero.any()):
        return None
    integers = _integers(node.inputs[0])
    if integers is None:
        return None
    stored, multipliers, shape = integers
    entries = np.asarray(constant(scale))
    axis = attribute(node, "axis", 1) % max(len(shape), 1)
    steps = tuple(entries.size if i == axis and entries.size > 1 else 1 for i in range(len(shape)))
    return _Place(node.outputs[0], stored, multipliers, shape, scale, steps)


def _scaled(node: ir.Node) -> _Place | None:
    for number in (0, 1):
        cast, scale = node.inputs[number], node.inputs[1 - number]
        producer = None if cast is None else cast.producer()
        if producer is None or producer.op_type != "Cast" or scale is None or constant(scale) is None:
            continue
        integers = _integers(producer.inputs[0])
        if integers is not None:
            stored, multipliers, shape = integers
            steps = np.asarray(constant(scale)).shape
            return _Place(node.outputs[0], stored, multipliers, shape, scale, steps)
    return None


def _ranged(node: ir.Node) -> _Place | None:
    """MatMulInteger of an input that is ranged at run time, whose result is cast and multiplied by both scales."""
    source = None if node.inputs[0] is None else node.inputs[0].producer()
    zero = constant(node.inputs[3]) if len(node.inputs) > 3 else None
    integers = _integers(node.inputs[1])
    if source is None or source.op_type != "DynamicQuantizeLinear" or (zero is not None and zero.any()):
        return None
    cast = _only_reader(node, "Cast")
    scaled = None if cast is None else _only_reader(cast, "Mul")
    if integers is None or cast is None or scaled is None:
        return None
    both = _other_factor(scaled, cast.outputs[0])
    parts = None if both is None else both.producer()
    scale = None if parts is None or parts.op_type != "Mul" else _other_factor(parts, source.outputs[1])
    array = constant(scale)
    if array is None or scale is None:
        return None
    stored, multipliers, shape = integers
    return _Place(node.outputs[0], stored, multipliers, shape, scale, (1, array.size), scaled)


def _other_factor(product: ir.Node, one: ir.Value) -> ir.Value | None:
    """What a Mul multiplies a value by; None where it does not read it."""
    first, second = product.inputs
    return second if first is one else first if second is one else None


def _only_reader(node: ir.Node, op_type: str) -> ir.Node | None:
    """What reads the result of a node, if nothing else does and it is of this type."""
    uses = uses_of(node.outputs[0])
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type == op_type else None


def _integers(value: ir.Value | None) -> tuple[Stored, Codes | None, tuple[int, ...]] | None:
    """Codes, multipliers and the shape of what both make, where `value` is made of constants in a way we know."""
    if value is None:
        return None
    producer = value.producer()
    if producer is not None and producer.domain == DOMAIN and producer.op_type == "Multiply":
        stored, shape = _codes(producer.inputs[0]), constant(producer.inputs[2])
        multipliers = constant(producer.inputs[1])
        if stored is None or shape is None or multipliers is None:
            return None
        return stored, multipliers.astype(np.int8), tuple(int(n) for n in shape)
    stored = _codes(value)
    return None if stored is None else (stored, None, stored.shape)


def _codes(value: ir.Value | None) -> Stored | None:
    """Codes of a constant, of int4 cast to int8, or unpacked by one of our functions."""
    array, producer = constant(value), None if value is None else value.producer()
    if array is not None and value is not None:
        if value.dtype != ir.DataType.INT8 or array.ndim < 2:
            return None
        levels = REDUCED if np.abs(array.astype(np.int16)).max(initial=0) <= REDUCED.high else LEVELS[8]
        return Stored((value,), levels, array.shape)
    if producer is not None and producer.op_type == "Cast":
        source, codes = producer.inputs[0], constant(producer.inputs[0])
        if source is not None and codes is not None and source.dtype == ir.DataType.INT4:
            return Stored((source,), LEVELS[4], codes.shape)
    return None if producer is None else _unpacked(producer)


def _unpacked(function: ir.Node) -> Stored | None:
    """The codes that a function of ours unpacks; None for every other node."""
    bits = _BITS.get(function.op_type) if function.domain == DOMAIN else None
    if bits is None:
        return None
    *arrays, shape = [v for v in function.inputs if v is not None]
    sizes = constant(shape)
    if sizes is None or any(constant(array) is None for array in arrays):
        return None
    return Stored(tuple(arrays), LEVELS[bits], tuple(int(n) for n in sizes))


def is_quantized(model: Model) -> bool:
    """Whether values are rounded to codes as the model runs."""
    return any(node.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for node in model.ir.graph)


def unreached(model: Model) -> list[tuple[str, str]]:
    """Layers whose codes cannot be trained: name and operator type of what reads them."""
    reached = {array for place in _places(model.ir) for array in place.stored.arrays}
    reached |= {bias.codes for bias in integer_biases(model.ir)}
    found = {}
    for array in learned(model.ir):
        codes = array.value.dtype in CODES and array.value not in reached
        readers = [use.node for use in uses_of(array.value)]
        if codes and readers:
            found[readers[0].name or array.value.name or ""] = readers[0].op_type
    return list(found.items())
