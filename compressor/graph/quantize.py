"""Writing integers into a graph: Q/DQ pairs with fixed ranges, or products ranged at run time."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from compressor.graph.edit import (
    constant,
    graph_of,
    insert,
    new_initializer,
    new_node,
    redirect,
    remove_if_unused,
    replace,
    set_array,
    settle,
    take_over_output,
)
from compressor.graph.islands import keep_float
from compressor.graph.model import Model
from compressor.graph.packing import StoredWeight, store_in_place
from compressor.graph.regions import Region, grow
from compressor.graph.weights import Use, Weight, output_axis, uses_of
from compressor.numerics.affine import Floats, Grid, quantize_bias
from compressor.numerics.levels import Coded

_LARGEST_UINT8 = 255


@dataclass(frozen=True, slots=True, eq=False)
class Bias:
    """What a layer adds to each of its outputs.

    Attributes:
        use: where it is read: by the layer, or by the Add behind it.
        values: (outputs,).
        tensor: the one whose grid the layer's input is on.
    """

    use: Use
    values: Floats
    tensor: str


@dataclass(frozen=True, slots=True, eq=False)
class StaticPlan:
    """What will be quantized with fixed ranges.

    Attributes:
        weights: the weights whose layers shall run in int8.
        tensors: names of the activations that need a grid, each once per shared grid.
        region: where integers flow.
        merged: names of the arrays of those weights whose layer ONNX Runtime merges with the Add behind it.
    """

    weights: tuple[Weight, ...]
    tensors: tuple[str, ...]
    region: Region
    merged: frozenset[str]

    def members(self, tensor: str) -> tuple[str, ...]:
        """All activations that use the grid of `tensor`."""
        return tuple(v.name or "" for v in self.region.tensors if self.region.owner(v).name == tensor)

    def is_at_the_edge(self, tensor: str) -> bool:
        """Whether an input or output of the model is on the grid of `tensor`."""
        region = self.region
        found = (v for v in region.tensors if region.owner(v).name == tensor)
        return any(v.is_graph_input() or v.is_graph_output() for v in found)

    def read_by(self, weight: Weight) -> str:
        """The tensor whose grid the input of a layer is on."""
        return self.region.owner(_input(weight.uses[0].node)).name or ""

    def biases(self, weight: Weight) -> Iterator[Bias]:
        """Those that must be in int32 for the layers of a weight to run in int8."""
        outputs = len(weight.matrix())
        for use in weight.uses:
            read = added_bias(use, outputs) if weight.value.name in self.merged else Use(use.node, 2)
            values = None if read is None else bias_of(read, outputs)
            if read is not None and values is not None:
                yield Bias(read, values, self.region.owner(_input(use.node)).name or "")


def plan_static(weights: Collection[Weight], merged: Collection[str] = ()) -> StaticPlan:
    """Find what must be quantized so that the layers of `weights` run in int8.

    Args:
        weights: none with a `static_refusal`.
        merged: see `StaticPlan`.
    """
    region = grow([use.node for weight in weights for use in weight.uses])
    owners = dict.fromkeys(region.owner(v).name or "" for v in region.tensors)
    return StaticPlan(tuple(weights), tuple(owners), region, frozenset(merged))


def insert_activations(model: Model, plan: StaticPlan, grids: Mapping[str, Grid]) -> None:
    """Put a Q/DQ pair behind every planned activation, and Clip between the two where a grid ends below 255.

    Args:
        grids: a per-tensor grid for every name in `plan.tensors`.
    """
    graph, region = model.ir.graph, plan.region
    stored = {name: _store_grid(graph, name, grid) for name, grid in grids.items()}
    placed = [(v, region.readers(v), region.is_integer(v)) for v in region.tensors]
    for value, readers, is_integer in placed:
        scale, zero_point = stored[region.owner(value).name or ""]
        name = value.name
        quantize = new_node("QuantizeLinear", [value, scale, zero_point], f"{name}_quantized", ir.DataType.UINT8)
        nodes = [quantize]
        most = grids[region.owner(value).name or ""].high
        if most < _LARGEST_UINT8:
            end = new_initializer(graph, f"{name}_largest", np.asarray(most, np.uint8))
            nodes.append(new_node("Clip", [quantize.outputs[0], None, end], f"{name}_clipped", ir.DataType.UINT8))
        dequantize = new_node(
            "DequantizeLinear", [nodes[-1].outputs[0], scale, zero_point], f"{name}_dequantized", ir.DataType.FLOAT
        )
        result = dequantize.outputs[0]
        result.shape = value.shape
        redirect(readers, result)
        insert(graph, value, [*nodes, dequantize])
        if is_integer and value.is_graph_output():
            take_over_output(graph, value, result)
        for node in dict.fromkeys(node for node, idx in readers if idx == 0 and node not in region.integer):
            keep_float(node)
    settle(model.ir)


def insert_layer(model: Model, plan: StaticPlan, weight: Weight, coded: Coded, grids: Mapping[str, Grid]) -> None:
    """Put a weight's integers, and its biases at x_scale · w_scale, in front of its layers."""
    for bias in plan.biases(weight):
        x_scale = np.float32(grids[bias.tensor].scale)
        scale = np.broadcast_to(x_scale * coded.scale, bias.values.shape).astype(np.float32)
        insert_bias(bias.use, quantize_bias(bias.values, scale), scale)
    insert_weight(weight, store_in_place(model.ir, weight, coded))


def insert_weight(weight: Weight, stored: StoredWeight) -> None:
    """Let the layers read a weight from its integers, stored in place, through DequantizeLinear."""
    for use in weight.uses:
        node = use.node
        inputs = [stored.integers, stored.scale]
        if node.op_type != "Conv":  # QGemm is only fused when the zero point is written out
            inputs.append(stored.zero_point)
        axis = {"axis": output_axis(use, len(weight.shape))} if stored.per_channel else {}
        dequantize = new_node("DequantizeLinear", inputs, f"{node.name}_weight", ir.DataType.FLOAT, {**axis})
        graph_of(node).insert_before(node, dequantize)
        node.replace_input_with(use.idx, dequantize.outputs[0])
    remove_if_unused(weight.value)
    remove_if_unused(stored.zero_point)


def insert_bias(use: Use, quantized: NDArray[np.int32], scale: Floats) -> None:
    """Let a bias be read from int32 at `scale` = x_scale · w_scale, (outputs,)."""
    node, old = use.node, use.node.inputs[use.idx]
    graph = graph_of(node)
    stored = new_initializer(graph, f"{node.name}_bias_quantized", quantized)
    steps = new_initializer(graph, f"{node.name}_bias_scale", scale)
    dequantize = new_node("DequantizeLinear", [stored, steps], f"{node.name}_bias", ir.DataType.FLOAT, {"axis": 0})
    graph.insert_before(node, dequantize)
    node.replace_input_with(use.idx, dequantize.outputs[0])
    if old is not None:
        remove_if_unused(old)


def bias_of(use: Use, outputs: int) -> Floats | None:
    """The constant bias that is read there, (outputs,); None when there is none."""
    array = constant(use.node.inputs[use.idx]) if len(use.node.inputs) > use.idx else None
    return None if array is None else np.broadcast_to(array.reshape(-1), (outputs,)).astype(np.float32)


def added_bias(use: Use, outputs: int) -> Use | None:
    """Where the only reader of a product adds one number to each of its outputs; None where it does not."""
    result = use.node.outputs[0]
    readers = uses_of(result)
    if use.node.op_type != "MatMul" or result.is_graph_output() or len(readers) != 1:
        return None
    reader, idx = readers[0]
    array = constant(reader.inputs[1 - idx]) if reader.op_type == "Add" else None
    alone = array is not None and array.size == outputs and array.shape[-1:] == (outputs,)
    return Use(reader, 1 - idx) if alone else None


def insert_dynamic_product(weight: Weight, stored: StoredWeight) -> None:
    """Turn MatMul or Gemm by a constant into an integer product whose input is ranged at run time.

    DynamicQuantizeLinear → MatMulInteger → Cast → Mul(x_scale · w_scale) → Add(bias): the form that
    ONNX Runtime fuses into DynamicQuantizeMatMul.

    Args:
        weight: of products; their integers are stored as right factors.
        stored: the integers.
    """
    for node, _ in weight.uses:
        graph, stem = graph_of(node), node.name or ""
        x, x_scale, x_zero = _ranged_at_run_time(graph, _input(node))
        factors = [x, stored.integers, x_zero, stored.zero_point]
        product = new_node("MatMulInteger", factors, f"{stem}_product", ir.DataType.INT32)
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        nodes = [product, *_scaled(product.outputs[0], x_scale, stored.scale, bias, stem)]
        replace(node, nodes)
    remove_if_unused(weight.value)


def insert_dynamic_convolution(weight: Weight, stored: StoredWeight) -> None:
    """Turn Conv into an integer convolution whose input is ranged at run time: small, but slow on x86."""
    along_channels = (-1, *[1] * (len(weight.shape) - 2))
    if stored.per_channel:
        set_array(stored.scale, np.asarray(constant(stored.scale)).reshape(along_channels))
    for node, _ in weight.uses:
        graph, stem = graph_of(node), node.name or ""
        x, x_scale, x_zero = _ranged_at_run_time(graph, _input(node))
        product = new_node("ConvInteger", [x, stored.integers, x_zero], f"{stem}_product", ir.DataType.INT32)
        product.attributes.update({a.name: a for a in node.attributes.values()})
        bias, old = bias_of(Use(node, 2), weight.shape[0]), node.inputs[2:]
        added = None if bias is None else new_initializer(graph, f"{stem}_bias", bias.reshape(along_channels))
        nodes = [product, *_scaled(product.outputs[0], x_scale, stored.scale, added, stem)]
        replace(node, nodes)
        for value in filter(None, old):
            remove_if_unused(value)
    remove_if_unused(weight.value)
    remove_if_unused(stored.zero_point)


def insert_embedding(weight: Weight, stored: StoredWeight) -> None:
    """Look rows up in int8, stored in place, and multiply each by its own scale."""
    real, along_rows = ir.DataType.FLOAT, (-1, *[1] * (len(weight.shape) - 1))
    set_array(stored.scale, np.asarray(constant(stored.scale)).reshape(along_rows))
    for node, _ in weight.uses:
        indices, stem = node.inputs[1], node.name or ""
        rows = new_node("Gather", [stored.integers, indices], f"{stem}_rows", ir.DataType.INT8)
        steps = new_node("Gather", [stored.scale, indices], f"{stem}_steps", real)
        as_float = new_node("Cast", [rows.outputs[0]], f"{stem}_float", real, {"to": int(real)})
        scaled = new_node("Mul", [as_float.outputs[0], steps.outputs[0]], f"{stem}_scaled", real)
        nodes = [rows, steps, as_float, scaled]
        replace(node, nodes)
    remove_if_unused(weight.value)
    remove_if_unused(stored.zero_point)


def _scaled(product: ir.Value, x_scale: ir.Value, scale: ir.Value, bias: ir.Value | None, stem: str) -> list[ir.Node]:
    """From the integers of a product to real values: Cast → Mul(x_scale · w_scale) → Add(bias)."""
    real = ir.DataType.FLOAT
    as_float = new_node("Cast", [product], f"{stem}_float", real, {"to": int(real)})
    both = new_node("Mul", [x_scale, scale], f"{stem}_scale", real)
    scaled = new_node("Mul", [as_float.outputs[0], both.outputs[0]], f"{stem}_scaled", real)
    added = [] if bias is None else [new_node("Add", [scaled.outputs[0], bias], f"{stem}_biased", real)]
    return [as_float, both, scaled, *added]


def _ranged_at_run_time(graph: ir.Graph, source: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """Quantized form, scale and zero point of `source`; layers that read the same tensor share them."""
    for node, _ in source.uses():
        if node.op_type == "DynamicQuantizeLinear" and node.graph in (graph, source.graph):
            return node.outputs[0], node.outputs[1], node.outputs[2]
    node = ir.node("DynamicQuantizeLinear", [source], num_outputs=3, name=f"{source.name}_ranged")
    kinds = (ir.DataType.UINT8, ir.DataType.FLOAT, ir.DataType.UINT8)
    for output, suffix, dtype in zip(node.outputs, ("quantized", "scale", "zero_point"), kinds, strict=True):
        output.name, output.type = f"{source.name}_ranged_{suffix}", ir.TensorType(dtype)
    insert(source.graph or graph, source, [node])
    return node.outputs[0], node.outputs[1], node.outputs[2]


def _store_grid(graph: ir.Graph, name: str, grid: Grid) -> tuple[ir.Value, ir.Value]:
    return (
        new_initializer(graph, f"{name}_scale", grid.scale),
        new_initializer(graph, f"{name}_zero_point", grid.zero_point),
    )


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name} has no input")
    return value
