"""Operators that move, pick, repeat and join entries."""

from functools import partial

import numpy as np
import onnx_ir as ir

from compressor.graph.channels.coupling import Alive, Axis, Coupling
from compressor.graph.channels.sizes import Number, Size, follow, put, source, write
from compressor.graph.channels.tags import Labels
from compressor.graph.edit import constant, graph_of, new_initializer
from compressor.graph.weights import Use, attribute

_FAR = 1 << 30
"""An end of a slice beyond this stands for the end of the axis."""


def transpose(c: Coupling, node: ir.Node) -> None:
    """Axes in another order."""
    axes = c.axes(_first(node))
    found = node.attributes.get("perm")
    order = range(len(axes))[::-1] if found is None else found.as_ints()
    c.set_axes(node.outputs[0], [axes[axis] for axis in order])


def reshape(c: Coupling, node: ir.Node) -> None:
    """Neighbouring axes joined and split; the numbers that say how follow. Also Flatten, Squeeze, Unsqueeze."""
    before, sizes = c.axes(_first(node)), c.sizes(node.outputs[0])
    why = f"{node.op_type} {node.name} mixes channels with other axes"
    if sizes is None or 0 in sizes or any(axis.size == 0 for axis in before):
        c.freeze_all(node, why)
        return
    after: list[Axis] = []
    for old, new in _blocks([axis.size for axis in before], sizes):
        same = len(old) == len(new) == 1
        after += [before[old[0]]] if same else c.regroup([before[i] for i in old], [sizes[i] for i in new], why)
    c.set_axes(node.outputs[0], after)
    if node.op_type == "Reshape":
        for position, axis in enumerate(after):
            asked = source(c, node.inputs[1], position)
            if isinstance(asked, Number) and asked.value == 0 and not attribute(node, "allowzero", 0):
                c.tie(axis, before[position])
            follow(c, node, 1, position, axis)


def expand(c: Coupling, node: ir.Node) -> None:
    """Axes of one entry repeated, others as they are; the sizes asked for follow."""
    before, sizes = c.axes(_first(node)), c.sizes(node.outputs[0]) or ()
    padded = [*(Axis(1) for _ in range(len(sizes) - len(before))), *before]
    asked = (c.sizes(node.inputs[1]) or (0,))[0] if node.inputs[1] is not None else 0
    after = []
    for number, (axis, size) in enumerate(zip(padded, sizes, strict=True)):
        position = number - (len(sizes) - asked)
        axis = axis if size == axis.size else _asked_for(c, node, 1, position, size)
        match source(c, node.inputs[1], position) if position >= 0 else None:
            case Number(1):
                pass
            case _ if position >= 0:
                follow(c, node, 1, position, axis)
        after.append(axis)
    c.set_axes(node.outputs[0], after)


def constant_of_shape(c: Coupling, node: ir.Node) -> None:
    """As many equal entries as are asked for."""
    sizes = c.sizes(node.outputs[0]) or ()
    after = [_asked_for(c, node, 0, position, size) for position, size in enumerate(sizes)]
    for position, axis in enumerate(after):
        follow(c, node, 0, position, axis)
    c.set_axes(node.outputs[0], after)


def concat(c: Coupling, node: ir.Node) -> None:
    """Entries of one axis one after the other; all other axes meet."""
    parts = [list(c.axes(value)) for value in node.inputs if value is not None]
    axis = attribute(node, "axis", 0) % max(len(parts[0]), 1)
    after = parts[0]
    for part in parts[1:]:
        after = [c.tie(a, b) if i != axis else a for i, (a, b) in enumerate(zip(after, part, strict=True))]
    joined = [part[axis] for part in parts]
    size = sum(item.size for item in joined)
    if all(item.labels is None for item in joined):
        after[axis] = Axis(size, None, joined[0].why or f"Concat {node.name} lays whole tensors side by side")
    else:
        after[axis] = Axis(size, np.concatenate([c.labels(item) for item in joined]))
    c.set_axes(node.outputs[0], after)


def split(c: Coupling, node: ir.Node) -> None:
    """One axis in pieces, whose sizes follow."""
    axes = list(c.axes(_first(node)))
    axis = attribute(node, "axis", 0) % len(axes)
    labels = axes[axis].labels
    start, pieces = 0, []
    for output in node.outputs:
        size = (c.sizes(output) or (0,) * len(axes))[axis]
        piece = None if labels is None else labels[start : start + size]
        pieces.append(piece)
        found = _part(c, node, size, piece, axes[axis].why)
        c.set_axes(output, [found if i == axis else other for i, other in enumerate(axes)])
        start += size
    if labels is not None:
        c.rewrites.append(partial(_write_pieces, node, [piece for piece in pieces if piece is not None]))


def slice_(c: Coupling, node: ir.Node) -> None:
    """A stretch of some axes; its ends follow."""
    bounds, before = [*node.inputs[1:], *[None] * 4][:4], list(c.axes(_first(node)))
    sizes = c.sizes(node.outputs[0]) or ()
    starts, ends, axes, steps = map(constant, bounds)
    count = 0 if bounds[0] is None else (c.sizes(bounds[0]) or (0,))[0]
    listed = range(count) if bounds[2] is None else axes
    if listed is None:
        c.freeze_all(node, f"Slice {node.name} works along an axis that is computed")
        return
    for position, number in enumerate(listed):
        axis = int(number) % len(before)
        whole = bounds[3] is None or (steps is not None and int(steps.reshape(-1)[position]) == 1)
        stretch = None
        if whole and starts is not None and ends is not None:
            stretch = int(starts[position]), int(ends[position])
        before[axis] = _sliced(c, node, before[axis], sizes[axis], position, stretch)
    c.set_axes(node.outputs[0], before)


def gather(c: Coupling, node: ir.Node) -> None:
    """Entries of an axis, picked by constants, which follow, or by what is computed."""
    data, indices = _first(node), node.inputs[1]
    axes = list(c.axes(data))
    axis = attribute(node, "axis", 0) % len(axes)
    picked = constant(indices)
    sizes = c.sizes(node.outputs[0]) or ()
    places = len(sizes) - len(axes) + 1
    why = f"{node.op_type} {node.name} picks from it by number"
    labels = axes[axis].labels
    if picked is None or labels is None or places > 1:
        c.freeze(axes[axis], why)
        new = list(c.axes(indices)) if indices is not None and picked is None else []
        new = new if len(new) == places else [Axis(n, None, why) for n in sizes[axis : axis + places]]
    else:
        chosen = labels[picked.reshape(-1).astype(np.int64)]
        new = [_part(c, node, len(chosen), chosen, "")]
        if places == 0:
            c.tags.freeze(chosen, why)
            new = []
        c.rewrites.append(partial(_write_indices, node, labels, picked))
    c.set_axes(node.outputs[0], [*axes[:axis], *new, *axes[axis + 1 :]])


def pad(c: Coupling, node: ir.Node) -> None:
    """Entries added in front of and behind those there are; how many follows."""
    before, amounts = list(c.axes(_first(node))), constant(node.inputs[1])
    sizes, why = c.sizes(node.outputs[0]) or (), f"Pad {node.name} adds to it"
    listed = constant(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else np.arange(len(before))
    mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "constant"
    after = [
        axis if axis.size == size else Axis(size, None, axis.why or why)
        for axis, size in zip(before, sizes, strict=True)
    ]
    if amounts is None or listed is None:
        c.freeze_all(node, f"Pad {node.name} adds as much as is computed")
        return
    for axis in (a for a, b in zip(before, after, strict=True) if a is not b):
        if mode != "constant":
            c.freeze(axis, why)
    if mode == "constant":
        for position, number in enumerate(listed.reshape(-1).tolist()):
            ends = int(amounts[position]), int(amounts[position + len(listed)])
            after[number] = _padded(c, node, before[number], position, ends, len(listed))
    c.set_axes(node.outputs[0], after)


def tile(c: Coupling, node: ir.Node) -> None:
    """Axes repeated as a whole."""
    sizes, why = c.sizes(node.outputs[0]) or (), f"Tile {node.name} repeats one entry"
    after = [
        Axis(size, None if axis.labels is None else np.tile(axis.labels, size // max(axis.size, 1)), axis.why or why)
        for axis, size in zip(c.axes(_first(node)), sizes, strict=True)
    ]
    c.set_axes(node.outputs[0], after)


def depth_to_space(c: Coupling, node: ir.Node) -> None:
    """Channels are blocks of positions times what comes out, in either order."""
    before, sizes = c.axes(_first(node)), c.sizes(node.outputs[0]) or ()
    blocks = attribute(node, "blocksize", 1) ** 2
    first = "mode" in node.attributes and node.attributes["mode"].as_string() == "CRD"
    why = f"{node.op_type} {node.name} turns it into positions"
    inner = before[1].size // blocks
    parts = c.regroup([before[1]], (inner, blocks) if first else (blocks, inner), why)
    c.freeze(parts[1 if first else 0], why)
    positions = [Axis(n, None, why) for n in sizes[2:]]
    c.set_axes(node.outputs[0], [before[0], parts[0 if first else 1], *positions])


def space_to_depth(c: Coupling, node: ir.Node) -> None:
    """Every channel in as many pieces as a block has positions."""
    before, sizes = c.axes(_first(node)), c.sizes(node.outputs[0]) or ()
    blocks = attribute(node, "blocksize", 1) ** 2
    why = f"{node.op_type} {node.name} makes it of positions"
    (made,) = c.regroup([Axis(blocks, None, why), before[1]], (blocks * before[1].size,), why)
    c.set_axes(node.outputs[0], [before[0], made, *(Axis(n, None, why) for n in sizes[2:])])


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    if value is None:
        raise ValueError(f"{node.name} reads nothing")
    return value


def _blocks(before: list[int], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of axes on either side that have the same number of entries."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        old, new = [i], [j]
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if left < right:
                old.append(i)
                left *= before[i]
                i += 1
            else:
                new.append(j)
                right *= after[j]
                j += 1
        found.append((old, new))
    rest = list(range(i, len(before))), list(range(j, len(after)))
    if found and any(rest):
        found[-1] = found[-1][0] + rest[0], found[-1][1] + rest[1]
    elif any(rest):
        found.append(rest)
    return found


def _asked_for(c: Coupling, node: ir.Node, idx: int, position: int, size: int) -> Axis:
    """An axis whose entries are all alike, so that any can go: as many as an entry of an input asks for."""
    match source(c, node.inputs[idx], position) if position >= 0 else None:
        case Number() if size > 1:
            return Axis(size, c.tags.fresh(size))
        case Size(tensor, number):
            axis = c.axes(tensor)[number]
            return axis if axis.size == size else Axis(size, None, axis.why)
    return Axis(size, None, f"{node.op_type} {node.name} repeats something as often as is computed")


def _sliced(c: Coupling, node: ir.Node, axis: Axis, size: int, position: int, ends: tuple[int, int] | None) -> Axis:
    """What a slice leaves of an axis; `ends` as written, None where they are computed or entries are left out."""
    if axis.labels is None:
        return Axis(size, None, axis.why)
    if ends is None:
        return Axis(size, None, c.freeze(axis, f"Slice {node.name} picks from it").why or f"Slice {node.name}")
    start, stop, _ = slice(*ends).indices(axis.size)
    if (start, stop) != (0, axis.size) or abs(ends[1]) < _FAR:
        c.rewrites.append(partial(_write_ends, c, node, position, axis.labels, (start, stop)))
    return _part(c, node, size, axis.labels[start:stop], "")


def _part(c: Coupling, node: ir.Node, size: int, labels: Labels | None, why: str) -> Axis:
    """Some entries of an axis; a single one must stay, since it need not meet any other to be made use of."""
    if labels is not None and size == 1:
        why = f"{node.op_type} {node.name} singles it out"
        c.tags.freeze(labels, why)
        labels = None
    if labels is not None:
        c.parts.append(labels)
    return Axis(size, labels, why)


def _padded(c: Coupling, node: ir.Node, axis: Axis, position: int, ends: tuple[int, int], count: int) -> Axis:
    front, back = ends
    size = axis.size + front + back
    if axis.labels is None or not any(ends):
        return Axis(size, axis.labels, axis.why or f"Pad {node.name} adds to it")
    if min(ends) < 0:
        c.freeze(axis, f"Pad {node.name} cuts it")
        return Axis(size, None, f"Pad {node.name} cuts it")
    added = c.tags.fresh(front), c.tags.fresh(back)
    for place, labels in ((position, added[0]), (position + count, added[1])):
        if len(labels):
            c.rewrites.append(partial(write, c, Use(node, 1), place, labels))
    return Axis(size, np.concatenate([added[0], axis.labels, added[1]]))


def _write_ends(c: Coupling, node: ir.Node, position: int, labels: Labels, ends: tuple[int, int], alive: Alive) -> None:
    left = alive(labels)
    if not left.all():
        start, stop = (int(left[:end].sum()) for end in ends)
        put(c, Use(node, 1), position, start)
        put(c, Use(node, 2), position, stop)


def _write_pieces(node: ir.Node, pieces: list[Labels], alive: Alive) -> None:
    left = [alive(piece) for piece in pieces]
    if all(mask.all() for mask in left):
        return
    sizes = np.array([mask.sum() for mask in left], np.int64)
    node.attributes.pop("num_outputs", None)
    node.resize_inputs(2)
    node.replace_input_with(1, new_initializer(graph_of(node), f"{node.name}_sizes", sizes))


def _write_indices(
    node: ir.Node, labels: Labels, picked: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", alive: Alive
) -> None:
    left = alive(labels)
    if left.all():
        return
    positions = picked.astype(np.int64) % len(labels)
    renumbered = (np.cumsum(left) - 1)[positions][left[positions]] if picked.ndim else (np.cumsum(left) - 1)[positions]
    stored = new_initializer(graph_of(node), f"{node.name}_indices", np.asarray(renumbered, picked.dtype))
    node.replace_input_with(1, stored)
