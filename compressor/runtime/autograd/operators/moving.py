"""Operators that move elements: reshape, slice, join, gather, scatter."""

from collections.abc import Sequence

import onnx_ir as ir
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import (
    DTYPES,
    NARROW,
    Host,
    Scalar,
    Value,
    from_numpy,
    number,
    numbers,
    numbers_or_tensor,
    size_of,
    to_numpy,
)


@operator("Reshape", numbers=(1,))
def _reshape(node: Node) -> Run:
    """0 copies a dimension unless zero is allowed."""
    literal, fixed = node.integer("allowzero"), node.ints("shape")

    def reshape(x: Tensor, shape: Value = None) -> Tensor:
        wanted = numbers(shape) if shape is not None else fixed or []
        return x.reshape([x.shape[i] if _is(n, 0) and not literal else n for i, n in enumerate(wanted)])

    return reshape


def _is(item: Scalar, value: int) -> bool:
    return isinstance(item, int) and item == value


@operator("Flatten")
def _flatten(node: Node) -> Run:
    axis = node.integer("axis", 1)

    def flatten(x: Tensor) -> Tensor:
        split = axis % x.dim() if axis < 0 else axis
        if split == 1 and x.dim() > 1:
            return x.flatten(1)
        return (
            x.reshape(size_of(x.shape[:split]), -1)
            if x.numel()
            else x.reshape(size_of(x.shape[:split]), size_of(x.shape[split:]))
        )

    return flatten


@operator("Squeeze", numbers=(1,))
def _squeeze(node: Node) -> Run:
    fixed = node.ints("axes")

    def squeeze(x: Tensor, axes: Value = None) -> Tensor:
        along = [int(a) for a in numbers(axes)] or fixed
        return x.squeeze() if along is None else x.squeeze(along)

    return squeeze


@operator("Unsqueeze", numbers=(1,))
def _unsqueeze(node: Node) -> Run:
    fixed = node.ints("axes") or []

    def unsqueeze(x: Tensor, axes: Value = None) -> Tensor:
        along = [int(a) for a in numbers(axes)] or fixed
        for axis in sorted(a % (x.dim() + len(along)) for a in along):
            x = x.unsqueeze(axis)
        return x

    return unsqueeze


@operator("Transpose")
def _transpose(node: Node) -> Run:
    order = node.ints("perm")
    return lambda x: x.permute(order if order is not None else list(range(x.dim()))[::-1])


@operator("Concat")
def _concat(node: Node) -> Run:
    axis = node.integer("axis", 1)
    return lambda *parts: torch.cat(parts, axis)


@operator("Split", numbers=(1,))
def _split(node: Node) -> Run:
    axis, fixed, count = node.integer("axis"), node.ints("split"), len(node.ir.outputs)
    parts = node.integer("num_outputs", count)

    def split(x: Tensor, sizes: Value = None) -> tuple[Tensor, ...]:
        wanted = numbers(sizes) or fixed
        if wanted:
            return torch.split(x, wanted, axis)
        step = -(-x.shape[axis] // parts)
        rest = x.shape[axis] - step * (parts - 1)
        return torch.split(x, [step] * (parts - 1) + [rest], axis)

    return split


@operator("Slice", numbers=(1, 2, 3, 4))
def _slice(node: Node) -> Run:
    fixed = node.ints("starts"), node.ints("ends"), node.ints("axes")

    def cut(x: Tensor, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None) -> Tensor:
        first = numbers(starts) if starts is not None else fixed[0] or []
        last = numbers(ends) if ends is not None else fixed[1] or []
        along = numbers(axes) or fixed[2] or list(range(len(first)))
        strides = numbers(steps) or [1] * len(first)
        for begin, end, axis, stride in zip(first, last, along, strides, strict=True):
            x = _cut(x, begin, end, int(axis), int(stride))
        return x

    return cut


def _cut(x: Tensor, begin: Scalar, end: Scalar, axis: int, stride: int) -> Tensor:
    where = [slice(None)] * (axis % x.dim())
    if stride > 0:
        return x[(*where, slice(begin, end, stride))]
    size = x.shape[axis]
    begin, end = (min(n, size - 1) if n >= 0 else n + size for n in (begin, end))
    flipped = x.flip(axis)
    return flipped[(*where, slice(max(size - 1 - begin, 0), max(size - 1 - max(end, -1), 0), -stride))]


@operator("Expand", numbers=(1,))
def _expand(node: Node) -> Run:
    def expand(x: Tensor, shape: Value) -> Tensor:
        wanted = numbers(shape)
        padded = x.reshape([1] * (len(wanted) - x.dim()) + list(x.shape)) if len(wanted) > x.dim() else x
        wanted = [1] * (padded.dim() - len(wanted)) + wanted
        return padded.expand([-1 if _is(n, 1) else n for n in wanted])

    return expand


@operator("Tile", numbers=(1,))
def _tile(node: Node) -> Run:
    return lambda x, repeats: x.repeat(numbers(repeats))


_MODES = {"reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@operator("Pad", numbers=(1, 2, 3))
def _pad(node: Node) -> Run:
    """Axes may be left out; a negative pad cuts."""
    mode, fixed, filling = node.string("mode", "constant"), node.ints("pads"), node.real("value", 0.0)

    def pad(x: Tensor, pads: Value = None, value: Value = None, axes: Value = None) -> Tensor:
        ends = numbers(pads) if pads is not None else fixed or []
        along = [int(a) % x.dim() for a in numbers(axes)] or list(range(x.dim()))
        before, after = [0] * x.dim(), [0] * x.dim()
        for place, axis in enumerate(along):
            before[axis], after[axis] = ends[place], ends[place + len(along)]
        if mode == "constant":
            filler = filling if value is None else number(value)
            return F.pad(x, [n for pair in zip(before[::-1], after[::-1], strict=True) for n in pair], value=filler)
        for axis in range(x.dim()):
            x = _extended(x, axis, before[axis], after[axis], mode)
        return x

    return pad


def _extended(x: Tensor, axis: int, before: Scalar, after: Scalar, mode: str) -> Tensor:
    """Rows looked up where the padded ones come from."""
    if _is(before, 0) and _is(after, 0):
        return x
    size = x.shape[axis]
    places = torch.arange(-before, size + after)
    if mode == "edge":
        places = places.clamp(0, size - 1)
    elif mode == "wrap":
        places = places.remainder(size)
    else:
        period = max(2 * (size - 1), 1)
        places = places.remainder(period)
        places = torch.where(places >= size, period - places, places)
    return x.index_select(axis, places)


@operator("Gather")
def _gather(node: Node) -> Run:
    axis = node.integer("axis")

    def gather(data: Tensor, indices: Tensor) -> Tensor:
        places = indices.long()
        if (
            axis == 0
            and data.dim() == 2
            and data.dtype.is_floating_point
            and node.ir.inputs[0] is not None
            and node.ir.inputs[0].is_initializer()
        ):
            return F.embedding(torch.where(places < 0, places + data.shape[0], places), data)
        along = axis % data.dim()
        places = torch.where(places < 0, places + data.shape[along], places)
        taken = data.index_select(along, places.reshape(-1))
        return taken.reshape((*data.shape[:along], *places.shape, *data.shape[along + 1 :]))

    return gather


@operator("GatherElements")
def _gather_elements(node: Node) -> Run:
    axis = node.integer("axis")

    def gather(data: Tensor, indices: Tensor) -> Tensor:
        places = indices.long()
        return data.gather(axis, torch.where(places < 0, places + data.shape[axis], places))

    return gather


@operator("GatherND")
def _gather_nd(node: Node) -> Run:
    batch = node.integer("batch_dims")

    def gather(data: Tensor, indices: Tensor) -> Tensor:
        if batch == 0:
            return data[tuple(indices.long().unbind(-1))]
        rows, lead = data.flatten(0, batch - 1), data.shape[:batch]
        places = indices.long().flatten(0, batch - 1)
        which = torch.arange(rows.shape[0]).reshape([-1] + [1] * (places.dim() - 2)).expand(places.shape[:-1])
        taken = rows[(which, *places.unbind(-1))]
        return taken.reshape((*lead, *taken.shape[1:]))

    return gather


_SCATTERED = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@operator("Scatter", "ScatterElements")
def _scatter(node: Node) -> Run:
    axis, reduction = node.integer("axis"), node.string("reduction", "none")

    def scatter(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        places = indices.long()
        places = torch.where(places < 0, places + data.shape[axis], places)
        if reduction == "none":
            return data.scatter(axis, places, updates)
        return data.scatter_reduce(axis, places, updates, _SCATTERED[reduction])

    return scatter


@operator("ScatterND")
def _scatter_nd(node: Node) -> Run:
    reduction = node.string("reduction", "none")

    def scatter(data: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
        depth = indices.shape[-1]
        sizes = list(data.shape[:depth])
        strides = [int(size_of(sizes[i + 1 :])) for i in range(depth)]
        parts = [
            torch.where(p < 0, p + n, p) * s for p, n, s in zip(indices.long().unbind(-1), sizes, strides, strict=True)
        ]
        rows = torch.stack(parts).sum(0).reshape(-1)
        flat, new = data.reshape(size_of(sizes), -1), updates.reshape(rows.shape[0], -1)
        if reduction == "none":
            return flat.index_put((rows,), new).reshape(data.shape)
        places = rows.unsqueeze(1).expand_as(new)
        return flat.scatter_reduce(0, places, new, _SCATTERED[reduction]).reshape(data.shape)

    return scatter


@operator("Trilu", numbers=(1,))
def _trilu(node: Node) -> Run:
    cut = torch.triu if node.integer("upper", 1) else torch.tril
    return lambda x, k=None: cut(x, 0 if k is None else int(number(k)))


@operator("DepthToSpace")
def _depth_to_space(node: Node) -> Run:
    size, mode = node.integer("blocksize"), node.string("mode", "DCR")

    def depth_to_space(x: Tensor) -> Tensor:
        if mode == "CRD":
            return F.pixel_shuffle(x, size)
        batch, channels, height, width = x.shape
        split = x.reshape(batch, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
        return split.reshape(batch, channels // size**2, height * size, width * size)

    return depth_to_space


@operator("SpaceToDepth")
def _space_to_depth(node: Node) -> Run:
    size = node.integer("blocksize")

    def space_to_depth(x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        split = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
        return split.reshape(batch, channels * size**2, height // size, width // size)

    return space_to_depth


@operator("Compress")
def _compress(node: Node) -> Run:
    axis = node.integer("axis") if node.has("axis") else None

    def compress(x: Tensor, condition: Tensor) -> Tensor:
        data, along = (x.reshape(-1), 0) if axis is None else (x, axis)
        return data.index_select(along, condition.nonzero().reshape(-1))

    return compress


@operator("ReverseSequence")
def _reverse_sequence(node: Node) -> Run:
    time, batch = node.integer("time_axis"), node.integer("batch_axis", 1)

    def reverse(x: Tensor, lengths: Tensor) -> Tensor:
        data = x.movedim((batch, time), (0, 1))
        steps, ends = torch.arange(data.shape[1]).unsqueeze(0), lengths.unsqueeze(1)
        places = torch.where(steps < ends, ends - 1 - steps, steps)
        rows = torch.arange(data.shape[0]).unsqueeze(1)
        return data[rows, places].movedim((0, 1), (batch, time))

    return reverse


@operator("NonZero")
def _non_zero(node: Node) -> Run:
    return lambda x: torch.nonzero(x).T if x.dim() else torch.nonzero(x.reshape(1)).T[:0]


@operator("OneHot", numbers=(1,))
def _one_hot(node: Node) -> Run:
    axis = node.integer("axis", -1)

    def one_hot(indices: Tensor, depth: Value, values: Tensor) -> Tensor:
        size = int(number(depth))
        places = indices.long()
        inside = (places >= -size) & (places < size)
        wrapped = torch.where(places < 0, places + size, places)
        hot = (wrapped.unsqueeze(-1) == torch.arange(size)) & inside.unsqueeze(-1)
        return torch.where(hot, values[1], values[0]).movedim(-1, axis)

    return one_hot


@operator("Unique")
def _unique(node: Node) -> Run:
    axis, ordered = node.integer("axis") if node.has("axis") else None, bool(node.integer("sorted", 1))

    def unique(x: Tensor) -> tuple[Tensor, ...]:
        values, places, counts = torch.unique(x, return_inverse=True, return_counts=True, dim=axis)
        inverse = places.reshape(-1)
        rows = torch.arange(inverse.shape[0])
        first = torch.full((counts.shape[0],), inverse.shape[0]).scatter_reduce(0, inverse, rows, "amin")
        if ordered:
            return values, first, inverse, counts
        order = torch.argsort(first)
        rank = torch.argsort(order)
        return values.index_select(axis or 0, order), first[order], rank[inverse], counts[order]

    return unique


@operator("EyeLike")
def _eye_like(node: Node) -> Run:
    dtype, shift = node.dtype("dtype"), node.integer("k")

    def eye(x: Tensor) -> Tensor:
        rows, columns = x.shape
        diagonal = torch.arange(columns).unsqueeze(0) == torch.arange(rows).unsqueeze(1) + shift
        return diagonal.to(dtype or x.dtype)

    return eye


@operator("Range", numbers=(0, 1, 2))
def _range(node: Node) -> Run:
    def between(start: Value, limit: Value, step: Value) -> Tensor:
        dtype = start.dtype
        return torch.arange(number(start), number(limit), number(step), dtype=dtype)

    return between


@operator("ConstantOfShape", numbers=(0,))
def _constant_of_shape(node: Node) -> Run:
    given = node.ir.attributes.get("value")
    filler = Host([0.0], (), torch.float32) if given is None else from_numpy(given.as_tensor().numpy())

    def full(shape: Value) -> Value:
        value, dtype = number(filler), filler.dtype
        sizes = numbers(shape)
        if len(sizes) == 1 and isinstance(sizes[0], int) and sizes[0] <= 8 and not dtype.is_floating_point:
            return Host([value] * sizes[0], (sizes[0],), dtype)
        return torch.full(sizes, value, dtype=dtype)

    return full


@operator("Shape", numbers=(0,))
def _shape(node: Node) -> Run:
    start, end = node.integer("start"), node.integer("end") if node.has("end") else None

    def shape(x: Value) -> Host:
        sizes = list(x.shape)[start:end]
        return Host(sizes, (len(sizes),), torch.int64)

    return shape


@operator("Size", numbers=(0,))
def _size(node: Node) -> Run:
    return lambda x: Host([size_of(x.shape)], (), torch.int64)


@operator("Constant")
def _constant(node: Node) -> Run:
    name, attribute = next(iter(node.ir.attributes.items()))
    if name == "value":
        made = numbers_or_tensor(attribute.as_tensor())
        return lambda: made
    if name.startswith("value_float"):
        items = attribute.as_floats() if name.endswith("s") else [attribute.as_float()]
        held = Host(items, (len(items),) if name.endswith("s") else (), torch.float32)
    elif name.startswith("value_int"):
        items = attribute.as_ints() if name.endswith("s") else [attribute.as_int()]
        held = Host(items, (len(items),) if name.endswith("s") else (), torch.int64)
    else:
        raise node.unsupported(f"with {name} cannot be executed by torch here")
    return lambda: held


_FLOAT8 = {dtype for dtype in NARROW if dtype.name.startswith("FLOAT8")}


def cast(x: Tensor, dtype: ir.DataType, saturate: bool = True) -> Tensor:
    """`x` in another type, as the standard converts: narrow floats saturate, narrow integers wrap."""
    carrier = DTYPES[dtype]
    if dtype in _FLOAT8:
        return _to_float8(x, dtype, saturate)
    if dtype == ir.DataType.FLOAT4E2M1:
        rounded = to_numpy(x.to(torch.float32)).astype(NARROW[dtype])
        return from_numpy(rounded)
    if dtype in NARROW and dtype != ir.DataType.BFLOAT16:
        bits = 4 if dtype.name.endswith("4") else 2
        low: Tensor = x.to(torch.int64) & (2**bits - 1)
        return (low - ((low >> (bits - 1)) << bits if dtype.name.startswith("INT") else 0)).to(carrier)
    if x.dtype.is_floating_point and not carrier.is_floating_point and carrier != torch.bool:
        return x.to(torch.int64).to(carrier)
    return x.to(carrier)


def _to_float8(x: Tensor, dtype: ir.DataType, saturate: bool) -> Tensor:
    array = to_numpy(x.to(torch.float32))
    if saturate:
        most = torch.finfo(DTYPES[dtype]).max
        array = array.clip(-most, most)
    return from_numpy(array.astype(NARROW[dtype]))


@operator("Cast")
def _cast(node: Node) -> Run:
    wanted, saturate = ir.DataType(node.integer("to")), bool(node.integer("saturate", 1))
    if wanted not in DTYPES:
        raise node.unsupported(f"to {wanted.name} cannot be executed by torch here")
    return lambda x: cast(x, wanted, saturate)


@operator("CastLike")
def _cast_like(node: Node) -> Run:
    wanted, saturate = node.input_dtype(1), bool(node.integer("saturate", 1))
    if wanted is not None and wanted not in DTYPES:
        raise node.unsupported(f"to {wanted.name} cannot be executed by torch here")
    return lambda x, like: x.to(like.dtype) if wanted is None else cast(x, wanted, saturate)


@operator("CenterCropPad", numbers=(1,))
def _center_crop_pad(node: Node) -> Run:
    axes = node.ints("axes")

    def crop_or_pad(x: Tensor, shape: Value) -> Tensor:
        along = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
        for axis, size in zip(along, numbers(shape), strict=True):
            have = x.shape[axis]
            if have > size:
                x = x.narrow(axis, (have - size) // 2, size)
            elif have < size:
                before = (size - have) // 2
                ends = [0, 0] * (x.dim() - 1 - axis) + [before, size - have - before]
                x = F.pad(x, ends)
        return x

    return crop_or_pad


@operator("Col2Im", numbers=(1, 2))
def _col2im(node: Node) -> Run:
    """Columns summed back to where they came from, in any number of dimensions."""
    dilations, pads, strides = node.ints("dilations"), node.ints("pads"), node.ints("strides")

    def fold(x: Tensor, image: Value, block: Value) -> Tensor:
        sizes, kernel = numbers(image), numbers(block)
        rank = len(sizes)
        steps, holes, ends = strides or [1] * rank, dilations or [1] * rank, pads or [0] * 2 * rank
        full = [n + ends[i] + ends[i + rank] for i, n in enumerate(sizes)]
        places = _places(full, kernel, steps, holes)
        batch, channels = x.shape[0], x.shape[1] // size_of(kernel)
        columns = x.reshape(batch, channels, -1)
        target = columns.new_zeros(batch, channels, size_of(full))
        summed = target.index_add(2, places, columns).reshape(batch, channels, *full)
        for i, n in enumerate(sizes):
            summed = summed.narrow(2 + i, ends[i], n)
        return summed

    return fold


def _places(full: Sequence[int], kernel: Sequence[int], steps: Sequence[int], holes: Sequence[int]) -> Tensor:
    """Flat place in the image of every entry of the columns, kernel positions first."""
    rank, flat = len(full), torch.zeros(1, dtype=torch.int64)
    offsets, starts = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    for i in range(rank):
        stride = int(size_of(full[i + 1 :]))
        count = (full[i] - holes[i] * (kernel[i] - 1) - 1) // steps[i] + 1
        offsets = (offsets.unsqueeze(1) + torch.arange(kernel[i]) * holes[i] * stride).reshape(-1)
        starts = (starts.unsqueeze(1) + torch.arange(count) * steps[i] * stride).reshape(-1)
    return (flat + offsets.unsqueeze(1) + starts).reshape(-1)
