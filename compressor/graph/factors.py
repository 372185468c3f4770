"""A layer as several layers of the same kind, whose weights are its factors; the last one keeps its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from compressor.graph.edit import (
    graph_of,
    new_initializer,
    new_node,
    redirect,
    remove_if_unused,
    replace,
    take_over_output,
)
from compressor.graph.weights import FLOATS, Weight, attribute, layout_of, uses_of
from compressor.numerics.affine import Floats

_NAMES = ("first", "second", "third")


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """The weight of one of the convolutions that a convolution becomes.

    Attributes:
        array: (outputs, channels of a group, kernel …).
        axes: of the image, along which it strides, pads and dilates as the whole one does; not at all along others.
        depthwise: whether every channel has a kernel of its own.
    """

    array: Floats
    axes: tuple[int, ...]
    depthwise: bool = False


def factor_refusal(weight: Weight) -> str | None:
    """Why a layer cannot become several; None when it can."""
    if weight.in_subgraph:
        return "inside a branch of If or the body of Loop"
    if weight.read_otherwise:
        return "its weight is also read by something that is no layer"
    if len({layout_of(use, weight.shape) for use in weight.uses}) > 1 or len({use.idx for use in weight.uses}) > 1:
        return "its weights are shared by layers that read them in different ways"
    if len({attribute(use.node, "group", 1) for use in weight.uses}) > 1:
        return "its weights are shared by layers of different groups"
    if not prod(weight.shape):
        return "it has no entries"
    return _refusal_of_kind(weight)


def _refusal_of_kind(weight: Weight) -> str | None:
    """Why a layer of this type and shape cannot."""
    idx, axes = weight.uses[0].idx, len(weight.shape)
    match weight.layer:
        case "MatMul" | "Gemm":
            return None if idx == 1 and axes == 2 else "the weight is not one matrix on the right of the product"
        case "LSTM" | "GRU" | "RNN":
            hidden = "it multiplies the hidden state, step by step: two products in place of one are slower there"
            return None if idx == 1 else hidden
        case "Conv":
            alone = "depthwise: every channel has a kernel of its own, there is no product to factorize"
            return alone if is_depthwise(weight) else None
        case "Gather" if any(attribute(use.node, "axis", 0) for use in weight.uses):
            return "a lookup along another axis than the first"
        case "Gather":
            return None if axes == 2 else f"its rows are no vectors: the table has {axes} axes"
    return f"{weight.layer} has no form with factors"


def is_depthwise(weight: Weight) -> bool:
    """Whether every output of a convolution reads a single channel."""
    return weight.layer == "Conv" and weight.shape[1] == 1 and attribute(weight.uses[0].node, "group", 1) > 1


def insert_factors(weight: Weight, first: Floats, second: Floats) -> None:
    """Let a product, a table or the inputs of a recurrent layer be computed by two factors.

    Args:
        weight: of anything but a convolution.
        first: (rank, inputs).
        second: (outputs, rank). Of a table, whose rows are its outputs, what is looked up is a row of this.
    """
    graph, name, dtype = _home(weight), weight.value.name or "", weight.dtype
    if weight.layer == "Gather":
        table = new_initializer(graph, f"{name}_first", second.astype(dtype))
        wide = new_initializer(graph, f"{name}_second", first.astype(dtype))
    else:
        thin = new_initializer(graph, f"{name}_first", np.ascontiguousarray(first.T).astype(dtype))
        rest = new_initializer(graph, f"{name}_second", weight.as_stored_with_inputs(second).astype(dtype))
    for node, idx in weight.uses:
        kind, stem = weight.value.dtype, node.name or ""
        if node.op_type == "Gather":
            rows = new_node("Gather", [table, node.inputs[1]], f"{stem}_first", kind)
            replace(node, [rows, new_node("MatMul", [rows.outputs[0], wide], f"{stem}_second", kind)])
            continue
        product = _first_product(node, thin, f"{stem}_first", kind)
        node.replace_input_with(0, product.outputs[0])
        node.replace_input_with(idx, rest)
        if attribute(node, "transA", 0):
            node.attributes["transA"] = ir.AttrInt64("transA", 0)
    remove_if_unused(weight.value)


def insert_correction(weight: Weight, first: Floats, second: Floats) -> None:
    """Add to what a product makes what two thin products make of its input.

    Args:
        weight: of a product that is still as it was; it may be replaced afterwards.
        first: (rank, inputs).
        second: (outputs, rank).
    """
    graph, name, kind = _home(weight), weight.value.name or "", weight.value.dtype
    thin = new_initializer(graph, f"{name}_first", np.ascontiguousarray(first.T).astype(weight.dtype))
    wide = new_initializer(graph, f"{name}_second", np.ascontiguousarray(second.T).astype(weight.dtype))
    for node, _ in weight.uses:
        made, readers = node.outputs[0], uses_of(node.outputs[0])
        narrow = _first_product(node, thin, f"{node.name}_first", kind)
        missing = new_node("MatMul", [narrow.outputs[0], wide], f"{node.name}_missing", kind)
        whole = new_node("Add", [made, missing.outputs[0]], f"{node.name}_corrected", kind)
        whole.outputs[0].shape = made.shape
        graph_of(node).insert_after(node, [missing, whole])
        redirect(readers, whole.outputs[0])
        if made.is_graph_output():
            take_over_output(graph_of(node), made, whole.outputs[0])


def insert_convolutions(weight: Weight, kernels: Sequence[Kernel]) -> None:
    """Let a convolution be computed by several.

    Args:
        weight: of a convolution.
        kernels: of those, in order.
    """
    graph, name = _home(weight), weight.value.name or ""
    held = [
        new_initializer(graph, f"{name}_{order}", kernel.array.astype(weight.dtype))
        for order, kernel in zip(_NAMES, kernels, strict=False)
    ]
    for node, _ in weight.uses:
        x, made = node.inputs[0], []
        for order, kernel, array in zip(_NAMES, kernels, held, strict=False):
            groups = len(kernel.array) if kernel.depthwise else attribute(node, "group", 1)
            last = kernel is kernels[-1]
            operands = [x, array, *(node.inputs[2:] if last else ())]
            part = new_node("Conv", operands, f"{node.name}_{order}", weight.value.dtype)
            part.attributes.update(_along(node, kernel, groups))
            made.append(part)
            x = part.outputs[0]
        replace(node, made)
    remove_if_unused(weight.value)


def _first_product(node: ir.Node, thin: ir.Value, name: str, dtype: ir.DataType | None) -> ir.Node:
    """In front of a layer, its input times the first factor."""
    x = node.inputs[0]
    if attribute(node, "transA", 0):
        product = new_node("Gemm", [x, thin], name, dtype, {"transA": 1})
    else:
        product = new_node("MatMul", [x, thin], name, dtype)
    graph_of(node).insert_before(node, product)
    return product


def _along(node: ir.Node, kernel: Kernel, groups: int) -> dict[str, ir.Attr]:
    """The attributes of one of the convolutions."""
    sizes = kernel.array.shape[2:]
    count = len(sizes)

    def some(name: str, default: int) -> list[int]:
        found = node.attributes.get(name)
        whole = [default] * count if found is None else list(found.as_ints())
        return [value if axis in kernel.axes else default for axis, value in enumerate(whole)]

    made = [ir.AttrInt64("group", groups), ir.AttrInt64s("kernel_shape", list(sizes))]
    made += [ir.AttrInt64s("strides", some("strides", 1)), ir.AttrInt64s("dilations", some("dilations", 1))]
    padding = node.attributes.get("auto_pad")
    if padding is not None and padding.as_string() != "NOTSET":
        made.append(ir.AttrString("auto_pad", padding.as_string()))
    else:
        found = node.attributes.get("pads")
        pads = [0] * (2 * count) if found is None else list(found.as_ints())
        made.append(ir.AttrInt64s("pads", [p if i % count in kernel.axes else 0 for i, p in enumerate(pads)]))
    return {entry.name: entry for entry in made}


def _home(weight: Weight) -> ir.Graph:
    graph = weight.value.graph
    if graph is None or weight.value.dtype not in FLOATS:
        raise ValueError(f"{weight.value.name} is no float array of a graph")
    return graph
