"""Images at other sizes, and images read at given places."""

from collections.abc import Sequence
from math import ceil, floor

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import Value, numbers


class _Axis:
    """How one axis is resized: a row of weights over the input for every place of the output.

    The standard's formulas; filters are widened by 1 / scale when a smaller image is to be smoothed.
    """

    def __init__(self, node: Node) -> None:
        self.mode = node.string("mode", "nearest")
        self.coordinates = node.string("coordinate_transformation_mode", "half_pixel")
        self.rounding = node.string("nearest_mode", "round_prefer_floor")
        self.cubic = node.real("cubic_coeff_a", -0.75)
        self.exclude = bool(node.integer("exclude_outside"))
        self.antialias = bool(node.integer("antialias"))
        self.outside = node.real("extrapolation_value", 0.0)

    def place(self, x: int, scale: float, size: int, target: int, roi: tuple[float, float]) -> float:
        """Where place `x` of the output lies in the input."""
        length = scale * size
        match self.coordinates:
            case "half_pixel":
                return (x + 0.5) / scale - 0.5
            case "half_pixel_symmetric":
                return size / 2 * (1 - target / length) + (x + 0.5) / scale - 0.5
            case "pytorch_half_pixel":
                return (x + 0.5) / scale - 0.5 if target > 1 else 0.0
            case "align_corners":
                return 0.0 if length <= 1 else x * (size - 1) / (length - 1)
            case "asymmetric":
                return x / scale
            case "tf_half_pixel_for_nn":
                return (x + 0.5) / scale
        start, end = roi
        if target > 1:
            return start * (size - 1) + x * (end - start) * (size - 1) / (target - 1)
        return 0.5 * (start + end) * (size - 1)

    def nearest(self, place: float) -> int:
        match self.rounding:
            case "floor":
                return floor(place)
            case "ceil":
                return ceil(place)
            case "round_prefer_ceil":
                return floor(place + 0.5)
        return ceil(place - 0.5)

    def filter(self, distance: float) -> float:
        d, a = abs(distance), self.cubic
        if self.mode == "linear":
            return max(1 - d, 0.0)
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    def row(self, place: float, scale: float, size: int) -> dict[int, float]:
        """Index of the input -> weight."""
        if self.mode == "nearest":
            return {min(max(self.nearest(place), 0), size - 1): 1.0}
        stretch = min(scale, 1.0) if self.antialias else 1.0
        reach = (1 if self.mode == "linear" else 2) / stretch
        found: dict[int, float] = {}
        for index in range(floor(place - reach) + 1, ceil(place + reach)):
            if self.exclude and not 0 <= index < size:
                continue
            inside = min(max(index, 0), size - 1)
            found[inside] = found.get(inside, 0.0) + self.filter((place - index) * stretch)
        total = sum(found.values())
        if (self.exclude or self.antialias) and total:
            found = {index: weight / total for index, weight in found.items()}
        return found

    def rows(
        self, size: int, target: int, scale: float, roi: tuple[float, float]
    ) -> tuple[list[dict[int, float]], list[bool]]:
        """The weights of every place, and whether it lies outside the image."""
        places = [self.place(x, scale, size, target, roi) for x in range(target)]
        cropping = self.coordinates == "tf_crop_and_resize"
        return [self.row(p, scale, size) for p in places], [cropping and not 0 <= p <= size - 1 for p in places]


def _along(x: Tensor, axis: int, rows: Sequence[dict[int, float]]) -> Tensor:
    """Every place of `axis` made of the places that its row names."""
    if all(len(row) == 1 for row in rows):
        return x.index_select(axis, torch.tensor([next(iter(row)) for row in rows]))
    matrix = torch.zeros(len(rows), x.shape[axis], dtype=x.dtype if x.dtype.is_floating_point else torch.float32)
    for place, row in enumerate(rows):
        for index, weight in row.items():
            matrix[place, index] = weight
    made = torch.matmul(x.movedim(axis, -1).to(matrix.dtype), matrix.T).movedim(-1, axis)
    return made if x.dtype.is_floating_point else torch.round(made).to(x.dtype)


def _target(size: int, scale: float) -> int:
    if float(scale).is_integer():  # exact, and possible for a size that is being traced
        return size * int(scale)
    return floor(size * scale + 1e-6) if abs(size * scale - round(size * scale)) < 1e-6 else floor(size * scale)


def _scales_and_targets(
    x: Tensor, along: Sequence[int], scales: list[float], sizes: list[int], policy: str
) -> tuple[list[float], list[int]]:
    if not sizes:
        return scales, [_target(x.shape[a], s) for a, s in zip(along, scales, strict=True)]
    ratios = [target / x.shape[a] for a, target in zip(along, sizes, strict=True)]
    if policy == "stretch":
        return ratios, sizes
    one = min(ratios) if policy == "not_larger" else max(ratios)
    return [one] * len(ratios), [floor(one * x.shape[a] + 0.5) for a in along]


@operator("Resize", numbers=(1, 2, 3))
def _resize(node: Node) -> Run:
    axis_of, axes, policy = _Axis(node), node.ints("axes"), node.string("keep_aspect_ratio_policy", "stretch")
    shifted = node.opset < 11

    def resize(x: Tensor, roi: Value = None, scales: Value = None, sizes: Value = None) -> Tensor:
        if shifted:
            roi, scales = None, roi
        along = [a % x.dim() for a in axes] if axes is not None else list(range(x.dim()))
        ratios, targets = _scales_and_targets(x, along, numbers(scales), numbers(sizes), policy)
        quick = _quick(axis_of, x, along, ratios, targets)
        if quick is not None:
            return quick
        ends = numbers(roi) or [0.0] * len(along) + [1.0] * len(along)
        outside = torch.zeros((), dtype=torch.bool)
        for i, axis in enumerate(along):
            crop = (ends[i], ends[i + len(along)])
            if targets[i] == x.shape[axis] and ratios[i] == 1 and crop == (0, 1):
                continue
            rows, missing = axis_of.rows(x.shape[axis], targets[i], ratios[i], crop)
            x = _along(x, axis, rows)
            outside = outside | torch.tensor(missing).reshape([-1] + [1] * (x.dim() - 1 - axis))
        return (
            torch.where(outside, torch.full_like(x, axis_of.outside), x)
            if axis_of.coordinates == "tf_crop_and_resize"
            else x
        )

    return resize


def _quick(
    axis: _Axis, x: Tensor, along: Sequence[int], scales: Sequence[float], targets: Sequence[int]
) -> Tensor | None:
    """torch's own kernels, for what they do alike: the last axes of a float image."""
    spatial = [i for i, a in enumerate(along) if a >= 2]
    still = all(s == 1 for i, s in enumerate(scales) if i not in spatial)
    if not still or len(spatial) != x.dim() - 2 or axis.antialias or axis.exclude or not x.dtype.is_floating_point:
        return None
    exact = all(s * x.shape[along[i]] == targets[i] for i, s in enumerate(scales))
    sizes = [targets[i] for i in spatial]
    if axis.mode == "nearest" and axis.coordinates == "asymmetric" and axis.rounding == "floor" and exact:
        return F.interpolate(x, sizes, mode="nearest")
    mode = {("linear", 1): "linear", ("linear", 2): "bilinear", ("linear", 3): "trilinear"}.get((axis.mode, len(sizes)))
    if mode and exact and axis.coordinates in ("half_pixel", "align_corners"):
        return F.interpolate(x, sizes, mode=mode, align_corners=axis.coordinates == "align_corners")
    return None


@operator("Upsample", numbers=(1,))
def _upsample(node: Node) -> Run:
    axis_of, fixed = _Axis(node), node.floats("scales")
    axis_of.coordinates, axis_of.rounding = "asymmetric", "floor"

    def upsample(x: Tensor, scales: Value = None) -> Tensor:
        for axis, scale in enumerate(numbers(scales) or fixed or []):
            if scale != 1:
                rows, _ = axis_of.rows(x.shape[axis], _target(x.shape[axis], scale), scale, (0.0, 1.0))
                x = _along(x, axis, rows)
        return x

    return upsample


_SAMPLED = {"linear": "bilinear", "cubic": "bicubic"}


@operator("GridSample")
def _grid_sample(node: Node) -> Run:
    mode, edge, corners = (
        node.string("mode", "linear"),
        node.string("padding_mode", "zeros"),
        bool(node.integer("align_corners")),
    )
    kind = _SAMPLED.get(mode, mode)
    return lambda x, grid: F.grid_sample(x, grid.to(x.dtype), kind, edge, corners)


@operator("AffineGrid", numbers=(1,))
def _affine_grid(node: Node) -> Run:
    corners = bool(node.integer("align_corners"))
    return lambda theta, size: F.affine_grid(theta, [int(n) for n in numbers(size)], corners)


@operator("RoiAlign")
def _roi_align(node: Node) -> Run:
    """Every bin is the mean, or the largest, of bilinear readings on a regular grid inside it."""
    height, width, ratio = (
        node.integer("output_height", 1),
        node.integer("output_width", 1),
        node.integer("sampling_ratio"),
    )
    scale, mode = node.real("spatial_scale", 1.0), node.string("mode", "avg")
    default = "half_pixel" if node.opset >= 16 else "output_half_pixel"
    half = node.string("coordinate_transformation_mode", default) == "half_pixel"

    def align(x: Tensor, rois: Tensor, batch: Tensor) -> Tensor:
        made = [
            _bins(x[int(image)], roi * scale - (0.5 if half else 0.0), (height, width), ratio, half, mode)
            for roi, image in zip(rois, batch.tolist(), strict=True)
        ]
        return torch.stack(made) if made else x.new_zeros(0, x.shape[1], height, width)

    return align


def _bins(image: Tensor, roi: Tensor, size: tuple[int, int], ratio: int, half: bool, mode: str) -> Tensor:
    left, top, right, bottom = roi.unbind()
    spans = (bottom - top, right - left)
    spans = spans if half else (spans[0].clamp(min=1.0), spans[1].clamp(min=1.0))
    steps = [s / n for s, n in zip(spans, size, strict=True)]
    counts = [ratio if ratio > 0 else max(ceil(float(s)), 1) for s in steps]
    places = [
        (start + (torch.arange(n * c) // c) * step + ((torch.arange(n * c) % c) + 0.5) * step / c)
        for start, step, n, c in zip((top, left), steps, size, counts, strict=True)
    ]
    corners = _corners(image, *places)
    split = corners.reshape(4, image.shape[0], size[0], counts[0], size[1], counts[1])
    if mode == "max":
        return split.amax((0, 3, 5))
    return split.sum(0).mean((2, 4))


def _corners(image: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """(4, C, rows, columns): the four weighted neighbours of every place; zero outside the image."""
    sizes = image.shape[1:]
    inside, low, high, part = [], [], [], []
    for place, size in zip((down, right), sizes, strict=True):
        inside.append((place >= -1) & (place <= size))
        held = place.clamp(min=0)
        first = held.floor().long().clamp(max=size - 1)
        low.append(first)
        high.append((first + 1).clamp(max=size - 1))
        part.append(torch.where(first >= size - 1, torch.zeros_like(held), held - first))
    mask = (inside[0].unsqueeze(1) & inside[1]).to(image.dtype)
    y, x = part[0].unsqueeze(1), part[1]

    def read(rows: Tensor, columns: Tensor) -> Tensor:
        return image[:, rows.unsqueeze(1), columns]

    return torch.stack(
        [
            read(low[0], low[1]) * ((1 - y) * (1 - x) * mask),
            read(low[0], high[1]) * ((1 - y) * x * mask),
            read(high[0], low[1]) * (y * (1 - x) * mask),
            read(high[0], high[1]) * (y * x * mask),
        ]
    )


@operator("NonMaxSuppression", numbers=(2, 3, 4))
def _non_max_suppression(node: Node) -> Run:
    """Greedy: the best box stays, what overlaps it goes."""
    centred = node.integer("center_point_box")

    def suppress(
        boxes: Tensor, scores: Tensor, most: Value = None, overlap: Value = None, least: Value = None
    ) -> Tensor:
        limit, iou = int((numbers(most) or [0])[0]), float((numbers(overlap) or [0.0])[0])
        floor_score = numbers(least)
        kept = []
        for image in range(scores.shape[0]):
            corners = _as_corners(boxes[image], bool(centred))
            for label in range(scores.shape[1]):
                chosen = _survivors(corners, scores[image, label], limit, iou, floor_score)
                kept += [[image, label, place] for place in chosen]
        return torch.tensor(kept, dtype=torch.int64).reshape(-1, 3)

    return suppress


def _as_corners(boxes: Tensor, centred: bool) -> Tensor:
    if centred:
        x, y, width, height = boxes.unbind(-1)
        return torch.stack([y - height / 2, x - width / 2, y + height / 2, x + width / 2], -1)
    top, left, bottom, right = boxes.unbind(-1)
    return torch.stack(
        [
            torch.minimum(top, bottom),
            torch.minimum(left, right),
            torch.maximum(top, bottom),
            torch.maximum(left, right),
        ],
        -1,
    )


def _survivors(boxes: Tensor, scores: Tensor, limit: int, iou: float, least: list[float]) -> list[int]:
    order = torch.argsort(scores, descending=True, stable=True).tolist()
    order = [i for i in order if not least or scores[i] > least[0]]
    kept: list[int] = []
    for place in order:
        if len(kept) == limit:
            break
        if all(_overlap(boxes[place], boxes[other]) <= iou for other in kept):
            kept.append(place)
    return kept


def _overlap(one: Tensor, other: Tensor) -> float:
    low, high = torch.maximum(one[:2], other[:2]), torch.minimum(one[2:], other[2:])
    shared = float((high - low).clamp(min=0).prod())
    areas = float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod())
    return shared / (areas - shared) if shared > 0 else 0.0
