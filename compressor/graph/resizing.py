"""A model that is given an image and works on a smaller one: everything behind its first convolutions follows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from compressor.errors import PassError
from compressor.graph.edit import (
    constant,
    graph_of,
    insert,
    new_initializer,
    redirect,
    replace,
    set_array,
    settle,
    take_over_output,
)
from compressor.graph.model import Model
from compressor.graph.observe import reads, values_by_name
from compressor.graph.weights import RESAMPLES, uses_of
from compressor.numerics.cubic import filters

Shapes = Mapping[str, tuple[int, ...]]
Size = tuple[int, int]
"""Height and width."""

_POOLS = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}
_LEAST_SIDE = 8
_STORED = {"Reshape": 1, "Resize": 3}


@dataclass(frozen=True, slots=True)
class Image:
    """What convolutions are the first to read.

    Attributes:
        tensor: its name, (samples, channels, height, width).
        channels: of it.
        size: it has.
        stride: the sides of the smallest map behind it fit into its own so many times; 1 where they do not.
        fixed: whether the model takes no other size.
        readers: the convolutions, by name and operator type.
    """

    tensor: str
    channels: int
    size: Size
    stride: int
    fixed: bool
    readers: tuple[tuple[str, str], ...]


def find_images(model: Model, shapes: Shapes) -> list[Image]:
    """The images of a model, each in front of all others that are made of it.

    Args:
        model: it is not changed.
        shapes: of its tensors in one execution.
    """
    first: dict[ir.Value, list[ir.Node]] = {}
    behind: set[ir.Value] = set()
    least: dict[int, int] = {}
    for node in model.ir.graph:
        source = _convolved(node, shapes)
        if source is not None and source not in behind:
            first.setdefault(source, []).append(node)
        if source is not None or not behind.isdisjoint(reads(node)):
            behind.update(node.outputs)
        made = shapes.get(node.outputs[0].name or "", ()) if source is not None else ()
        for axis, side in enumerate(made[2:]):
            least[axis] = min(least.get(axis, side), side) if side > 1 else least.get(axis, side)
    own = [value for value in first if first.keys().isdisjoint(_ancestors(value))]
    return [_image(value, first[value], shapes, least, _is_fixed(model, value)) for value in own]


def shrink(model: Model, images: Sequence[tuple[Image, Size]]) -> None:
    """Resize images right where they are read first; what is stored about sizes behind them does not follow yet.

    By a cubic kernel, as convolutions: the Resize of ONNX Runtime takes forty times as long for that.

    Args:
        model: edited in place.
        images: of fixed size, each with the size it is to have.
    """
    values = values_by_name(model.ir)
    for image, size in images:
        value = values[image.tensor]
        uses = uses_of(value)
        nodes = _resampled(model.ir.graph, value, image, size)
        insert(model.ir.graph, value, nodes)
        redirect(uses, nodes[-1].outputs[0])
    for node in model.ir.graph:
        for value in node.outputs:
            value.shape = value.shape if value.is_graph_output() else None
    settle(model.ir)


def pool_globally(model: Model, shapes: Shapes) -> None:
    """Pools that take whole maps do so at any size.

    Args:
        model: edited in place.
        shapes: of its tensors, which are the same in every execution.
    """
    for node in list(model.ir.graph):
        shape = shapes.get(node.inputs[0].name or "", ()) if node.inputs and node.inputs[0] is not None else ()
        made = shapes.get(node.outputs[0].name or "", ())
        if node.op_type in _POOLS and len(node.outputs) == 1 and made[2:] == (1, 1) and _whole(node, shape[2:]):
            pool = ir.node(_POOLS[node.op_type], [node.inputs[0]])
            pool.outputs[0].type = node.outputs[0].type
            replace(node, [pool])


def sized(model: Model) -> list[ir.Node]:
    """Reshape and Resize nodes of the main graph to constant sizes, in order."""
    return [node for node in model.ir.graph if constant(_sizes(node)) is not None]


def follow(node: ir.Node, before: Shapes, now: tuple[int, ...], shares: tuple[float, float]) -> None:
    """Let the sizes that a node has stored follow those of what it reads.

    Args:
        node: of `sized`.
        before: shapes in the model as it was.
        now: shape of what it reads.
        shares: of height and width that the image has left.

    Raises:
        PassError: they cannot: it splits an axis that became shorter.
    """
    sizes, source, result = _sizes(node), node.inputs[0], node.outputs[0]
    was, made = before.get(source.name or "" if source else ""), before.get(result.name or "")
    stored = constant(sizes)
    if sizes is None or stored is None or was is None or made is None or was == now:
        return
    if node.op_type == "Resize":
        sides = [max(1, round(m * n / w)) for m, n, w in zip(made, now, was, strict=True)]
        axes = node.attributes.get("axes")
        wanted: Sequence[int] | None = sides if axes is None else [sides[axis] for axis in axes.as_ints()]
    else:
        wanted = regrouped(was, made, now, shares)
    if wanted is None or len(wanted) != stored.size:
        raise PassError(f"{node.op_type} {node.name} makes {list(made)} of {list(was)}, and nothing of {list(now)}")
    kept = stored.astype(np.int64).reshape(-1)
    array = np.where(kept > 0, np.array(wanted, np.int64), kept)
    if len(uses_of(sizes)) > 1:
        own = new_initializer(graph_of(node), f"{sizes.name}_of_{node.name}", array)
        node.replace_input_with(_STORED[node.op_type], own)
    else:
        set_array(sizes, array)


def regrouped(
    was: Sequence[int], made: Sequence[int], now: Sequence[int], shares: tuple[float, float]
) -> list[int] | None:
    """What a Reshape from `was` to `made` should make of `now`.

    Axes are matched in runs of equal size. A run that changes may be joined, and split into height and width.

    Args:
        was: the shape before.
        made: what was made of it.
        now: the shape there is.
        shares: of height and width that the image has left.

    Returns:
        None where it is split in another way.
    """
    found: list[int] = []
    i = j = 0
    while i < len(was) or j < len(made):
        start, first = i, j
        i, j = min(i + 1, len(was)), min(j + 1, len(made))
        while prod(was[start:i]) != prod(made[first:j]):
            if prod(was[start:i]) < prod(made[first:j]) and i < len(was):
                i += 1
            elif j < len(made):
                j += 1
            else:
                return None
        part, size = list(made[first:j]), prod(now[start:i])
        if list(was[start:i]) != list(now[start:i]):
            sides = [round(side * share) for side, share in zip(part, shares, strict=False)]
            part = [size] if len(part) == 1 else sides
        if prod(part) != size or len(part) != j - first:
            return None
        found += part
    return found


def grow_back(model: Model, name: str, sides: Size) -> None:
    """Resize an output, (samples, channels, height, width), to the sides that it had."""
    graph = model.ir.graph
    value = next(output for output in graph.outputs if output.name == name)
    sizes = new_initializer(graph, f"{name}_sides", np.array(sides, np.int64))
    node = ir.node("Resize", [value, None, None, sizes], {"mode": "linear", "axes": [2, 3]})
    _named(node, f"{name}_grown", value)
    insert(graph, value, [node])
    take_over_output(graph, value, node.outputs[0])


def _image(value: ir.Value, readers: Sequence[ir.Node], shapes: Shapes, least: Mapping[int, int], fixed: bool) -> Image:
    name = value.name or ""
    channels, height, width = shapes[name][1:]
    sides = [(side, least[axis]) for axis, side in enumerate((height, width))]
    strides = {side // small if side % small == 0 else 1 for side, small in sides}
    layers = tuple((node.name or "", node.op_type) for node in readers)
    return Image(name, channels, (height, width), max(strides) if len(strides) == 1 else 1, fixed, layers)


def _convolved(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """The image that a layer convolves."""
    if node.op_type != "Conv" or RESAMPLES in node.metadata_props:
        return None
    source = node.inputs[0]
    return source if source is not None and _is_image(shapes.get(source.name or "", ())) else None


def _is_image(shape: Sequence[int]) -> bool:
    """Not a sequence that is convolved as an image one pixel high."""
    return len(shape) == 4 and min(shape[2:]) >= _LEAST_SIDE


def _is_fixed(model: Model, value: ir.Value) -> bool:
    """Whether all that a tensor is computed from has sizes given, but for the samples."""
    sources = {value, *_ancestors(value)}
    shapes = [entry.shape for entry in model.ir.graph.inputs if entry in sources]
    return all(shape is not None and all(isinstance(dim, int) for dim in list(shape)[1:]) for shape in shapes)


def _ancestors(value: ir.Value) -> set[ir.Value]:
    """Everything that a tensor is computed from."""
    found: set[ir.Value] = set()
    waiting = [value.producer()]
    while waiting:
        node = waiting.pop()
        for source in reads(node) if node is not None else ():
            if source not in found:
                found.add(source)
                waiting.append(source.producer())
    return found


def _resampled(graph: ir.Graph, value: ir.Value, image: Image, wanted: Size) -> list[ir.Node]:
    """By a cubic kernel, first the width, then the height; what lies outside is like the border.

    Every channel is an image of its own. One filter makes every so many-th row: their results are channels, to be
    laid among each other.
    """
    name, sides = f"{image.tensor}_small", list(image.size)
    kernels = [filters(to, side) for to, side in zip(wanted, sides, strict=True)]
    ahead, behind = [before for _, _, before, _ in kernels], [after for *_, after in kernels]
    pads = new_initializer(graph, f"{name}_pads", np.array([0, 0, *ahead, 0, 0, *behind], np.int64))
    nodes: list[ir.Node] = []

    def add(op_type: str, constants: Sequence[ir.Value], **attributes: str | int | list[int]) -> ir.Node:
        node = ir.node(op_type, [nodes[-1].outputs[0] if nodes else value, *constants], attributes)
        nodes.append(_named(node, f"{name}_{len(nodes)}", value))
        return node

    def reshape(*shape: int) -> None:
        add("Reshape", [new_initializer(graph, f"{name}_shape", np.array(shape, np.int64))])

    add("Pad", [pads], mode="edge")
    padded = [side + before + after for side, (_, _, before, after) in zip(sides, kernels, strict=True)]
    reshape(-1, 1, *padded)
    for axis in (1, 0):
        weights, stride, _, _ = kernels[axis]
        across = np.expand_dims(weights, (1, 3 - axis)).astype(_dtype(value).numpy())
        stored = new_initializer(graph, f"{name}_filters", across)
        convolution = add("Conv", [stored], strides=[1, stride] if axis else [stride, 1])
        convolution.metadata_props[RESAMPLES] = "cubic"
        add("Transpose", [], perm=[0, 2, 3, 1] if axis else [0, 2, 1, 3])
        padded[axis] = wanted[axis]
        reshape(-1, 1 if axis else image.channels, *padded)
    _named(nodes[-1], name, value)
    return nodes


def _dtype(value: ir.Value) -> ir.DataType:
    """Of an image, as the convolutions that read it have it."""
    weights = [use.node.inputs[1] for use in uses_of(value) if use.node.op_type == "Conv"]
    return next((w.dtype for w in weights if w is not None and w.dtype is not None), value.dtype or ir.DataType.FLOAT)


def _named(node: ir.Node, name: str, like: ir.Value) -> ir.Node:
    node.name = node.outputs[0].name = name
    node.outputs[0].type = like.type
    return node


def _whole(node: ir.Node, sides: Sequence[int]) -> bool:
    """Whether the kernel of a pool that makes one pixel is as large as the map, and lies on it."""
    kernel, pads = node.attributes.get("kernel_shape"), node.attributes.get("pads")
    return kernel is not None and tuple(kernel.as_ints()) == tuple(sides) and not (pads and any(pads.as_ints()))


def _sizes(node: ir.Node) -> ir.Value | None:
    """Where a node has stored sizes, if it is one that may."""
    at = _STORED.get(node.op_type)
    return node.inputs[at] if at is not None and len(node.inputs) > at else None
