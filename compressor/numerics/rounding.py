"""From real weights to codes: each to its nearest level, or so that the layer's output errs least.

With H = E[xxᵀ] over the inputs x of a layer, the error of its output is tr((Q - W) H (Q - W)ᵀ).
Rounding to nearest sees only the diagonal of H. Second-order rounding (Frantar et al. 2022, "GPTQ",
after Hassibi & Stork 1993, "Optimal Brain Surgeon") rounds input by input and moves the weights of
the inputs still to come so that they make up for the error made: with U upper and UᵀU = H⁻¹,

    e = (w_j - q_j) / U_jj,    w_k ← w_k - e U_jk    for k > j.

What this greedy order leaves is taken by cyclic coordinate descent (Behdin et al. 2023, "QuantEase"):
with the steps held, each code in turn is set to the level that is best given all the others.

All functions take the weights of a layer as (groups, rows, inputs): grouped convolutions have one H
per group, all other layers are one group.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.affine import SMALLEST_SCALE, Doubles, Floats
from compressor.numerics.grids import Covering, Grid, Steps, Symmetric, TwoLevel
from compressor.numerics.levels import Coded
from compressor.numerics.second_order import compensate, damped_moments
from compressor.numerics.sparsity import Mask, kept_of

SWEEPS = 3
"""Rounds of coordinate descent; further ones change little."""

_AT_ONCE = 128
"""Inputs between two updates of all that are still to come."""


def nearest(weights: Floats, grid: Grid, importance: Floats | None = None) -> Coded:
    """Every weight to the nearest level of its step.

    Args:
        weights: (groups, rows, inputs).
        grid: of the steps.
        importance: mean square of each input, (groups, inputs); all alike when None.
    """
    groups, _, inputs = weights.shape
    seen = np.ones((groups, inputs), np.float32) if importance is None else importance
    codes, chosen = np.empty(weights.shape, np.int8), []
    for part in _parts(inputs, grid.block or inputs):
        steps = grid.fit(weights[..., part], seen[:, part])
        codes[..., part] = steps.wide().nearest(weights[..., part], grid.levels)
        chosen.append(steps)
    return _coded(codes.reshape(-1, inputs), chosen, grid)


def second_order(weights: Floats, moments: Doubles, grid: Grid) -> Coded:
    """Every weight to the nearest level after it has made up for the errors of those before.

    Inputs go in descending order of their moment when a row has one step, which is finally fitted in
    the metric of H; in their own order when blocks have steps, which are then chosen for the weights
    as they are when their turn comes. Weights that were pruned stay zero, where the grid has one.

    Args:
        weights: (groups, rows, inputs).
        moments: H, (groups, inputs, inputs).
        grid: of the steps.
    """
    damped, live = damped_moments(moments)
    columns = np.where(live[..., None], weights.swapaxes(1, 2), 0).astype(np.float64)
    kept = None if grid.levels.odd else kept_of(weights)
    mask = np.ones(columns.shape, np.bool_) if kept is None else kept.swapaxes(1, 2)
    importance = np.einsum("gii->gi", damped)
    inputs = importance.shape[1]
    order = np.argsort(-importance, axis=1, kind="stable") if grid.block is None else np.arange(inputs)[None]
    permuted = np.take_along_axis(np.take_along_axis(damped, order[:, :, None], 1), order[:, None, :], 2)
    columns, mask = np.take_along_axis(columns, order[..., None], 1), np.take_along_axis(mask, order[..., None], 1)
    codes, chosen = _recursion(columns, mask, permuted, grid)
    restored = np.take_along_axis(codes, np.argsort(order, axis=1)[..., None], 1)
    coded = _coded(np.ascontiguousarray(restored.swapaxes(1, 2)).reshape(-1, inputs), chosen, grid)
    real = np.ascontiguousarray(weights, np.float64)
    for _ in range(SWEEPS):
        coded = _descended(_refitted(coded, real, damped, grid), real, kept, damped)
    return coded


def output_error(weights: Floats, rounded: Floats, moments: Doubles) -> float:
    """tr((Q - W) H (Q - W)ᵀ) / tr(W H Wᵀ): noise power of the layer's output over its signal power.

    Args:
        weights: W, (groups, rows, inputs).
        rounded: Q, the same shape.
        moments: H, (groups, inputs, inputs).
    """
    difference, real = rounded.astype(np.float64) - weights, weights.astype(np.float64)
    noise, signal = float(((difference @ moments) * difference).sum()), float(((real @ moments) * real).sum())
    if not np.isfinite(signal):
        return float("inf")
    return max(noise, 0.0) / signal if signal > 0 else 0.0


def _recursion(columns: Doubles, kept: Mask, moments: Doubles, grid: Grid) -> tuple[NDArray[np.int8], list[Steps]]:
    """Codes, (groups, inputs, rows), and the steps of each block, of `columns`, (groups, inputs, rows), where kept."""
    inputs = columns.shape[1]
    width = grid.block or inputs
    importance = np.einsum("gii->gi", moments).astype(np.float32)
    codes, chosen = np.empty(columns.shape, np.int8), list[Steps]()

    def settle(j: int) -> Doubles:
        if j % width == 0:
            ahead = slice(j, j + width)
            weights = np.where(kept[:, ahead], columns[:, ahead], 0).swapaxes(1, 2).astype(np.float32)
            chosen.append(grid.fit(weights, importance[:, ahead]))
        codes[:, j] = chosen[-1].nearest(np.where(kept[:, j], columns[:, j], 0).astype(np.float32), grid.levels)
        return chosen[-1].dequantize(codes[:, j], grid.levels).astype(np.float64)

    compensate(columns, moments, settle, max(_AT_ONCE // width, 1) * width if grid.block else _AT_ONCE)
    return codes, chosen


def _refitted(coded: Coded, weights: Doubles, moments: Doubles, grid: Grid) -> Coded:
    """With one step per row: the scales that lose least in the metric of H, (w H qᵀ) / (q H qᵀ)."""
    if grid.block is not None:
        return coded
    levels = coded.levels.of(coded.codes).reshape(weights.shape).astype(np.float64)
    if coded.zero_points is not None:
        levels -= coded.zero_points.reshape(*weights.shape[:2], 1)
    projected = levels @ moments
    cross, own = np.einsum("gri,gri->gr", weights, projected), np.einsum("gri,gri->gr", levels, projected)
    old = coded.scale.reshape(cross.shape)
    scale = np.divide(cross, own, out=old.astype(np.float64), where=(own > 0) & (cross > 0))
    least = grid.least if isinstance(grid, (Covering, Symmetric)) else SMALLEST_SCALE
    floored = np.maximum(scale, np.maximum(least, SMALLEST_SCALE)).astype(np.float32)
    return replace(coded, scale=floored.reshape(-1))


def _descended(coded: Coded, weights: Doubles, kept: Mask | None, moments: Doubles) -> Coded:
    """Each code once set to the best level, given all others; the error in the metric of H only falls."""
    groups, rows, inputs = weights.shape
    steps, zeros = (a.reshape(groups, rows, inputs) for a in coded.per_weight())
    codes, rounded = (
        coded.codes.reshape(weights.shape).copy(),
        coded.dequantize().reshape(weights.shape).astype(np.float64),
    )
    gradient = (weights - rounded) @ moments
    for g in range(groups):
        for i in range(inputs):
            step, zero = steps[g, :, i], zeros[g, :, i]
            wanted = rounded[g, :, i] + gradient[g, :, i] / moments[g, i, i]
            if kept is not None:
                wanted *= kept[g, :, i]
            in_steps = np.divide(wanted, step, out=np.zeros_like(wanted), where=step > 0)
            found = coded.levels.nearest((in_steps + zero).astype(np.float32))
            moved = np.flatnonzero(found != codes[g, :, i])
            values = (coded.levels.of(found[moved]) - zero[moved]) * step[moved]
            gradient[g, moved] -= (values - rounded[g, moved, i])[:, None] * moments[g, i]
            codes[g, moved, i], rounded[g, moved, i] = found[moved], values
    return replace(coded, codes=codes.reshape(coded.codes.shape))


def _coded(codes: NDArray[np.int8], chosen: list[Steps], grid: Grid) -> Coded:
    steps = np.stack([s.step.reshape(-1) for s in chosen], axis=1)
    zeros = np.stack([s.zero.reshape(-1) for s in chosen], axis=1).astype(np.int8)
    if isinstance(grid, TwoLevel):
        scale = grid.scale.reshape(-1)
        return Coded(codes, grid.levels, scale, np.rint(steps / scale[:, None]).astype(np.uint8))
    if grid.block is None:
        steps, zeros = steps[:, 0], zeros[:, 0]
    return Coded(codes, grid.levels, steps, None, zeros if zeros.any() else None)


def _parts(inputs: int, width: int) -> list[slice]:
    return [slice(start, min(start + width, inputs)) for start in range(0, inputs, width)]
