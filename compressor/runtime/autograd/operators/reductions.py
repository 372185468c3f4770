"""Operators that make one element of many: along axes, or the place of the largest."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.runtime.autograd.node import Node, Run
from compressor.runtime.autograd.registry import operator
from compressor.runtime.autograd.values import Value, numbers, widened

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return torch.sum(x, axes, keepdim=keep, dtype=x.dtype)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((a % x.dim() for a in axes), reverse=True):
        x = torch.prod(x, axis, keepdim=keep, dtype=x.dtype)
    return x


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.dtype.is_floating_point:
        return torch.mean(x, axes, keepdim=keep)
    return torch.mean(x.double(), axes, keepdim=keep).to(x.dtype)


def _extreme(reduce: Callable[..., Tensor], empty: float) -> Reduction:
    """The largest or smallest; of nothing, the worst that the type can hold."""

    def extreme(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        if any(x.shape[a] == 0 for a in axes):
            sizes = [1 if a in {b % x.dim() for b in axes} else n for a, n in enumerate(x.shape)]
            full = torch.full(sizes, _worst(x.dtype, empty), dtype=x.dtype)
            return full if keep else full.squeeze(axes)
        if x.dtype == torch.bool:
            return reduce(x.to(torch.uint8), axes, keepdim=keep).to(torch.bool)
        return reduce(x, axes, keepdim=keep)

    return extreme


def _worst(dtype: torch.dtype, end: float) -> float:
    if dtype.is_floating_point:
        return end
    if dtype == torch.bool:
        return end > 0
    return torch.iinfo(dtype).min if end < 0 else torch.iinfo(dtype).max


def _l2(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.dtype.is_floating_point:
        return torch.sqrt(_total((x * x).double(), axes, keep)).to(x.dtype)
    norm: Tensor = torch.linalg.vector_norm(x, 2, axes, keepdim=keep)
    return norm


def _log_sum_exp(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if not x.dtype.is_floating_point:
        return torch.logsumexp(x.double(), axes, keepdim=keep).to(x.dtype)
    return torch.logsumexp(x, axes, keepdim=keep)


_REDUCTIONS: dict[str, Reduction] = {
    "ReduceSum": _total,
    "ReduceMean": _mean,
    "ReduceProd": _product,
    "ReduceMax": _extreme(torch.amax, -float("inf")),
    "ReduceMin": _extreme(torch.amin, float("inf")),
    "ReduceL1": lambda x, axes, keep: _total(x.abs(), axes, keep),
    "ReduceL2": _l2,
    "ReduceLogSum": lambda x, axes, keep: torch.log(_total(x, axes, keep)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceSumSquare": lambda x, axes, keep: _total(x * x, axes, keep),
}


_OF_ONE: dict[str, Callable[[Tensor], Tensor]] = {
    "ReduceL1": torch.abs,
    "ReduceL2": torch.abs,
    "ReduceLogSum": torch.log,
    "ReduceSumSquare": torch.square,
}
"""What is left of a reduction over no axes."""


@operator(*_REDUCTIONS, numbers=(1,))
def _reduce(node: Node) -> Run:
    """Axes are an attribute in older versions and an input in newer ones; none means all, unless that is off."""
    name, given = node.ir.op_type, node.ints("axes")
    compute, keep = _REDUCTIONS[name], bool(node.integer("keepdims", 1))
    idle = bool(node.integer("noop_with_empty_axes"))
    of_one = _OF_ONE.get(name)

    def reduce(x: Tensor, axes: Value = None) -> Tensor:
        along = [int(a) for a in numbers(axes)] or given or []
        if not along and (idle or x.dim() == 0):
            return x if of_one is None else of_one(x)
        return compute(x, along or list(range(x.dim())), keep)

    return widened(reduce)


@operator("ArgMax", "ArgMin")
def _arg(node: Node) -> Run:
    axis, keep, last = node.integer("axis"), bool(node.integer("keepdims", 1)), node.integer("select_last_index")
    find = torch.argmax if node.ir.op_type == "ArgMax" else torch.argmin

    def place(x: Tensor) -> Tensor:
        if not last:
            return find(x, axis, keepdim=keep)
        return x.shape[axis] - 1 - find(x.flip(axis), axis, keepdim=keep)

    return widened(place)


@operator("Hardmax")
def _hardmax(node: Node) -> Run:
    axis = node.integer("axis", -1)

    def hardmax(x: Tensor) -> Tensor:
        return torch.zeros_like(x).scatter(axis, torch.argmax(x, axis, keepdim=True), 1.0)

    return hardmax


def _flattening(node: Node, compute: Callable[[Tensor, int], Tensor]) -> Run:
    """Before opset 13 everything from the axis on is one axis."""
    if node.opset >= 13:
        axis = node.integer("axis", -1)
        return lambda x: compute(x, axis)
    first = node.integer("axis", 1)

    def flattened(x: Tensor) -> Tensor:
        rows = x.flatten(first % max(x.dim(), 1)) if x.dim() > 1 else x
        return compute(rows, -1).reshape(x.shape)

    return flattened


@operator("Softmax")
def _softmax(node: Node) -> Run:
    return _flattening(node, lambda x, axis: torch.softmax(x, axis))


@operator("LogSoftmax")
def _log_softmax(node: Node) -> Run:
    return _flattening(node, lambda x, axis: torch.log_softmax(x, axis))


@operator("TopK", numbers=(1,))
def _top_k(node: Node) -> Run:
    axis, largest, fixed = node.integer("axis", -1), bool(node.integer("largest", 1)), node.integer("k")

    def top_k(x: Tensor, k: Value = None) -> tuple[Tensor, Tensor]:
        count = int(numbers(k)[0]) if k is not None else fixed
        ordered = torch.sort(x, dim=axis, descending=largest, stable=True)
        return ordered.values.narrow(axis, 0, count), ordered.indices.narrow(axis, 0, count)

    def whole(x: Tensor, k: Value = None) -> tuple[Tensor, Tensor]:
        if x.dtype in (torch.uint16, torch.uint32, torch.uint64):
            values, places = top_k(x.to(torch.int64), k)
            return values.to(x.dtype), places
        return top_k(x, k)

    return whole


@operator("LpNormalization")
def _lp_normalization(node: Node) -> Run:
    axis, order = node.integer("axis", -1), node.integer("p", 2)

    def normalize(x: Tensor) -> Tensor:
        norm = torch.linalg.vector_norm(x, order, axis, keepdim=True)
        return torch.where(norm == 0, torch.zeros_like(x), x / torch.where(norm == 0, torch.ones_like(norm), norm))

    return normalize


@operator("LpPool")
def _lp_pool(node: Node) -> Run:
    from compressor.runtime.autograd.operators.pooling import windows_of

    order, take = node.integer("p", 2), windows_of(node, 0.0)
    return lambda x: torch.linalg.vector_norm(take(x), order, -1)


@operator("GlobalAveragePool")
def _global_average_pool(node: Node) -> Run:
    return lambda x: torch.mean(x, list(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(node: Node) -> Run:
    return lambda x: torch.amax(x, list(range(2, x.dim())), keepdim=True)


@operator("GlobalLpPool")
def _global_lp_pool(node: Node) -> Run:
    order = node.integer("p", 2)
    return lambda x: torch.linalg.vector_norm(x, order, list(range(2, x.dim())), keepdim=True)


def _rows(scores: Tensor) -> Tensor:
    """Classes last."""
    return scores.movedim(1, -1)


def _reduced(loss: Tensor, weight: Tensor, how: str) -> Tensor:
    if how == "none":
        return loss
    return loss.sum() if how == "sum" else loss.sum() / weight.sum()


def _likelihood(log_scores: Tensor, target: Tensor, weight: Tensor | None, ignored: int | None, how: str) -> Tensor:
    chosen = target.long() if ignored is None else torch.where(target == ignored, 0, target).long()
    each = torch.ones_like(log_scores[:, 0]) if weight is None else weight[chosen].to(log_scores.dtype)
    if ignored is not None:
        each = torch.where(target == ignored, torch.zeros_like(each), each)
    loss = -_rows(log_scores).gather(-1, chosen.unsqueeze(-1)).squeeze(-1) * each
    return _reduced(loss, each, how)


@operator("NegativeLogLikelihoodLoss")
def _nll(node: Node) -> Run:
    how, ignored = node.string("reduction", "mean"), node.integer("ignore_index") if node.has("ignore_index") else None
    return lambda x, target, weight=None: _likelihood(x, target, weight, ignored, how)


@operator("SoftmaxCrossEntropyLoss")
def _cross_entropy(node: Node) -> Run:
    how, ignored = node.string("reduction", "mean"), node.integer("ignore_index") if node.has("ignore_index") else None

    def cross_entropy(scores: Tensor, target: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scores = F.log_softmax(scores, 1)
        return _likelihood(log_scores, target, weight, ignored, how), log_scores

    return cross_entropy


@operator("MeanVarianceNormalization")
def _mean_variance(node: Node) -> Run:
    axes = node.ints("axes") or [0, 2, 3]

    def normalize(x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
        return (x - mean) / (torch.sqrt(variance) + 1e-9)

    return normalize


@operator("Einsum")
def _einsum(node: Node) -> Run:
    equation = node.string("equation").replace(" ", "")
    return lambda *operands: torch.einsum(equation, *operands)
