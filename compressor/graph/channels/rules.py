"""What every operator does to the axes of its tensors: it makes them meet, moves them, or fixes them.

An operator that is not here fixes all that it reads: nothing is dropped from what is not understood.
"""

from collections.abc import Callable

import onnx_ir as ir

from compressor.graph.channels import linear, moving, sizes
from compressor.graph.channels.coupling import Axis, Coupling, Shapes
from compressor.graph.channels.operators import BROADCASTING, UNARY
from compressor.graph.edit import constant
from compressor.graph.equations import equation_of
from compressor.graph.model import Model
from compressor.graph.observe import reads
from compressor.graph.weights import attribute

Rule = Callable[[Coupling, ir.Node], None]


def couple(model: Model, shapes: Shapes) -> Coupling:
    """Tie the axes of all tensors of the main graph.

    Args:
        model: is not changed until something is cut.
        shapes: of all its tensors, as they really occur.
    """
    coupling = _tied(model, shapes)
    for node in model.ir.graph:
        if node.op_type == "Shape" and not node.domain:
            sizes.freeze_escaping(coupling, node)
    for output in model.ir.graph.outputs:
        for axis in coupling.axes(output):
            coupling.freeze(axis, f"{output.name} is an output of the model")
    coupling.tags.settle()
    return coupling


def fix_sizes(model: Model, shapes: Shapes) -> bool:
    """Replace sizes that stem from weights by numbers; whether there were any."""
    return sizes.fix_known(_tied(model, shapes))


def _tied(model: Model, shapes: Shapes) -> Coupling:
    coupling = Coupling(model, shapes)
    for node in model.ir.graph:
        _apply(coupling, node)
    return coupling


def _apply(c: Coupling, node: ir.Node) -> None:
    for captured in set(reads(node)) - set(node.inputs):
        for axis in c.axes(captured):
            c.freeze(axis, f"{node.op_type} {node.name} reads it in a branch or loop")
    unseen = next(
        (v.name for v in (*node.inputs, *node.outputs) if v is not None and v.name and c.sizes(v) is None), ""
    )
    rule = None if node.domain or unseen else _RULES.get(node.op_type)
    if rule is None:
        c.freeze_all(node, f"{node.op_type} {node.name} is not understood")
    else:
        rule(c, node)


def _elementwise(c: Coupling, node: ir.Node) -> None:
    """Axes aligned from the last one meet."""
    after: list[Axis] = []
    for value in node.inputs:
        if value is not None:
            after = linear.broadcast(c, after, c.axes(value))
    c.set_axes(node.outputs[0], after)


def _as_first(c: Coupling, node: ir.Node) -> None:
    """All results look like the first input; what else is read are numbers."""
    for output in node.outputs:
        c.set_axes(output, c.axes(_source(node)))


def _across(c: Coupling, node: ir.Node) -> None:
    """Entries of one axis are compared or added up with one another: that axis is fixed."""
    axes = list(c.axes(_source(node)))
    at = constant(node.inputs[1]) if node.op_type == "CumSum" else None
    if node.op_type == "CumSum" and at is None:
        c.freeze_all(node, f"CumSum {node.name} works along an axis that is computed")
        return
    axis = (1 if node.op_type == "LRN" else attribute(node, "axis", -1) if at is None else int(at)) % len(axes)
    axes[axis] = c.freeze(axes[axis], f"{node.op_type} {node.name} works across it")
    for output in node.outputs:
        found = c.sizes(output) or ()
        if len(found) == len(axes):
            c.set_axes(output, [a if i != axis else Axis(found[i], None, a.why) for i, a in enumerate(axes)])
        else:
            c.set_axes(output, [a for i, a in enumerate(axes) if i != axis])


def _spatial(c: Coupling, node: ir.Node) -> None:
    """The first two axes go through, all others are positions; what else is read are places in these."""
    axes = c.axes(_source(node))
    why = f"{node.op_type} {node.name} works across positions"
    for value in node.inputs[1:]:
        for axis in c.axes(value) if value is not None else ():
            c.freeze(axis, why)
    for axis in axes[2:]:
        c.freeze(axis, why)
    for output in node.outputs:
        positions = [Axis(n, None, why) for n in (c.sizes(output) or ())[2:]]
        c.set_axes(output, [*axes[:2], *positions])


def _roi(c: Coupling, node: ir.Node) -> None:
    """Channels go through; regions take the place of samples."""
    _spatial(c, node)
    out = c.axes(node.outputs[0])
    c.set_axes(node.outputs[0], [Axis((c.sizes(node.outputs[0]) or (1,))[0]), *out[1:]])


def _resize(c: Coupling, node: ir.Node) -> None:
    """Axes that keep their size go through, and sizes asked for follow; all others are positions."""
    why = f"{node.op_type} {node.name} works across positions"
    axes, found = c.axes(_source(node)), c.sizes(node.outputs[0]) or ()
    after = []
    for axis, size in zip(axes, found, strict=True):
        after.append(axis if axis.size == size else Axis(size, None, c.freeze(axis, why).why or why))
    c.set_axes(node.outputs[0], after)
    if len(node.inputs) > 3 and node.inputs[3] is not None:
        listed = node.attributes["axes"].as_ints() if "axes" in node.attributes else range(len(axes))
        for position, number in enumerate(listed):
            sizes.follow(c, node, 3, position, after[number])


def _reduce(c: Coupling, node: ir.Node) -> None:
    """Sums and means are taken over what is left; whatever else is reduced is fixed."""
    axes = list(c.axes(_source(node)))
    reduced = _reduced(node, len(axes))
    if reduced is None:
        c.freeze_all(node, f"{node.op_type} {node.name} works along an axis that is computed")
        return
    if node.op_type in _ADDING:
        c.relax(node, [axes[i] for i in reduced])
    else:
        for i in reduced:
            c.freeze(axes[i], f"{node.op_type} {node.name} works across it")
    keep = bool(attribute(node, "keepdims", 1))
    after = [Axis(1) if i in reduced else axis for i, axis in enumerate(axes) if keep or i not in reduced]
    c.set_axes(node.outputs[0], after)


def _reduced(node: ir.Node, rank: int) -> set[int] | None:
    """The axes that a reduction takes together, by attribute or input; None where they are computed."""
    given = node.inputs[1] if len(node.inputs) > 1 else None
    listed = constant(given)
    if given is not None and listed is None:
        return None
    numbers = node.attributes["axes"].as_ints() if "axes" in node.attributes else () if listed is None else listed
    reduced = {int(n) % max(rank, 1) for n in numbers}
    if not reduced and not attribute(node, "noop_with_empty_axes", 0):
        return set(range(rank))
    return reduced


def _extreme(c: Coupling, node: ir.Node) -> None:
    """ArgMax, ArgMin: the axis is fixed."""
    axes = list(c.axes(_source(node)))
    axis = attribute(node, "axis", 0) % len(axes)
    c.freeze(axes[axis], f"{node.op_type} {node.name} works across it")
    keep = [Axis(1)] if attribute(node, "keepdims", 1) else []
    c.set_axes(node.outputs[0], [*axes[:axis], *keep, *axes[axis + 1 :]])


def _normalize(c: Coupling, node: ir.Node) -> None:
    """Lengths or means over some axes are taken over what is left of them."""
    c.relax(node, c.axes(_source(node)))
    _as_first(c, node)


def _einsum(c: Coupling, node: ir.Node) -> None:
    """Axes with the same letter meet."""
    equation = equation_of(node)
    if equation is None or equation.repeats:
        c.freeze_all(node, f"Einsum {node.name} is not understood")
        return
    met: dict[str, Axis] = {}
    fixed = any(value is not None and value.is_initializer() for value in node.inputs)
    for term, value in zip(equation.terms, node.inputs, strict=True):
        for letter, axis in zip(term, c.axes(value) if value is not None else (), strict=True):
            met[letter] = c.tie(met[letter], axis) if letter in met else axis
    for letter, axis in met.items():
        if letter not in equation.result and not fixed:
            linear.contract(c, node, axis)
    c.set_axes(node.outputs[0], [met[letter] for letter in equation.result])


def _shape(c: Coupling, node: ir.Node) -> None:
    """Sizes are no channels; what becomes of them is looked at when all is tied."""
    for output in node.outputs:
        c.set_axes(output, [Axis(n) for n in c.sizes(output) or ()])


def _source(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name} reads nothing")
    return value


_POOLING = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "GridSample")
_ADDING = ("ReduceMean", "ReduceSum", "ReduceSumSquare", "ReduceL1", "ReduceL2")
_REDUCING = (*_ADDING, "ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")

_RULES: dict[str, Rule] = {
    **dict.fromkeys(UNARY, _as_first),
    **dict.fromkeys(BROADCASTING, _elementwise),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "CumSum", "TopK", "LRN"), _across),
    **dict.fromkeys(
        ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), _spatial
    ),
    "GridSample": _spatial,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), _roi),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(_REDUCING, _reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), _extreme),
    **dict.fromkeys(("LpNormalization", "MeanVarianceNormalization"), _normalize),
    "Einsum": _einsum,
    "Shape": _shape,
    "MatMul": linear.matmul,
    "Gemm": linear.gemm,
    "Conv": linear.conv,
    "ConvTranspose": linear.conv_transpose,
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), linear.per_channel),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), linear.layer_normalization),
    "GroupNormalization": linear.group_normalization,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), linear.recurrent),
    "Transpose": moving.transpose,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), moving.reshape),
    "Expand": moving.expand,
    "ConstantOfShape": moving.constant_of_shape,
    "Concat": moving.concat,
    "Split": moving.split,
    "Slice": moving.slice_,
    "Gather": moving.gather,
    "Pad": moving.pad,
    "Tile": moving.tile,
    "DepthToSpace": moving.depth_to_space,
    "SpaceToDepth": moving.space_to_depth,
}
