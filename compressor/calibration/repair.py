"""Layers fitted anew, one after the other, so that a pruned model makes again what the reference makes.

A layer is fitted to what is missing in its result: in the sum with a shortcut, where there is one, so that it also
makes up for errors that came along the shortcut (He et al. 2017, "Channel Pruning for Accelerating Very Deep
Neural Networks"). Its inputs are those of the pruned model, whose earlier layers have been fitted already.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.calibration.coding import Surroundings
from compressor.data import Dataset
from compressor.errors import PassError
from compressor.graph.biases import bias_refusal, move_bias
from compressor.graph.edit import settle
from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.model import Model
from compressor.graph.observe import VALUE, with_tensors
from compressor.graph.outlets import Outlet, outlet
from compressor.graph.twins import Twins
from compressor.graph.weights import Weight
from compressor.numerics.affine import Floats
from compressor.numerics.regression import Regression
from compressor.runtime.ort import Array, Session

ROWS = 32768
"""Rows per layer, about: those of a batch are thinned out evenly when there are more."""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A layer to be fitted.

    Attributes:
        weight: of the pruned model.
        source: what it reads there.
        outlet: its result, in both models.
        kept: channels of that result in the reference that the pruned model still has.
    """

    weight: Weight
    source: LayerInput
    outlet: Outlet
    kept: NDArray[np.int64] | None


@dataclass(frozen=True, slots=True)
class Fitted:
    """What came of it.

    Attributes:
        name: of the layer.
        before: power of what its result erred by, over that of the result.
        after: the same with the new weights.
    """

    name: str
    before: float
    after: float


def fits(model: Model, kept: Mapping[str, Mapping[int, NDArray[np.int64]]]) -> list[list[Fit]]:
    """The layers of a pruned model that can be fitted, in order; those that read the same tensor together.

    Args:
        model: pruned.
        kept: by tensor and axis, the entries of the reference's axis that are left, where some are not.
    """
    found: list[list[Fit]] = []
    for weight in model.weights():
        source, result = layer_input(weight.uses[0]), outlet(weight)
        if source is None or result is None or weight.dtype == "float64":
            continue
        axes = kept.get(result.tensor, {})
        fit = Fit(weight, source, result, next((left for axis, left in axes.items() if axis == result.axis), None))
        if found and found[-1][0].source.tensor == source.tensor:
            found[-1].append(fit)
        else:
            found.append([fit])
    return found


def repair(model: Model, reference: Model, stages: Sequence[Sequence[Fit]], context: Surroundings, damping: float = 0.01
) -> Iterator[Fitted]:
    """Fit layers stage by stage, each on the model as fitted so far.

    Raises:
        PassError: there is no calibration data, or an activation is not finite.
    """
    if context.calibration is None:
        raise PassError("repair needs data.calibration")
    for stage in context.progress.track(stages, "repair", len(stages)):
        regressions = _collect(model, reference, stage, context.calibration, context.scratch, context.threads)
        for fit, regression in zip(stage, regressions, strict=True):
            yield _fitted(model, fit, regression, damping)


def _collect(
    model: Model, reference: Model, stage: Sequence[Fit], data: Dataset, scratch: Path, threads: int
) -> list[Regression]:
    names = tuple(dict.fromkeys(fit.outlet.tensor for fit in stage))
    files = scratch / "pruned.onnx", scratch / "reference.onnx"
    with_tensors(model, (*names, *{fit.source.tensor for fit in stage} - set(names))).save(files[0])
    with_tensors(reference, names).save(files[1])
    sessions = Session(files[0], threads), Session(files[1], threads)
    batches = -(-len(data) // data.batch)
    regressions = [Regression(fit.source.groups, *_sizes(fit)) for fit in stage]
    for batch in data.batches():
        found, wanted = (session.run(batch.feeds) for session in sessions)
        for fit, regression in zip(stage, regressions, strict=True):
            limit = -(-ROWS // batches)
            rows = fit.source.rows(found[VALUE + fit.source.tensor].astype(np.float32, copy=False), limit)
            missing = _missing(fit, found, wanted)
            regression.update(rows, _thinned(missing, fit.outlet.axis, rows.shape))
    for session, file in zip(sessions, files, strict=True):
        session.close()
        file.unlink()
    return regressions


def _missing(fit: Fit, found: Mapping[str, Array], wanted: Mapping[str, Array]) -> Floats:
    name = VALUE + fit.outlet.tensor
    whole = wanted[name].astype(np.float32, copy=False)
    if fit.kept is not None:
        whole = whole.take(fit.kept, fit.outlet.axis)
    missing: Floats = whole - found[name].astype(np.float32, copy=False)
    return missing


def _thinned(missing: Floats, axis: int, shape: tuple[int, ...]) -> Floats:
    """(groups, rows, outputs), at the same places as the rows of the layer's input, of this shape."""
    rows = np.moveaxis(missing, axis, -1).reshape(-1, missing.shape[axis])
    stride = -(-len(rows) // shape[1])
    return rows[::stride].reshape(shape[1], shape[0], -1).swapaxes(0, 1)


def _sizes(fit: Fit) -> tuple[int, int]:
    """Inputs and outputs of one group."""
    rows, columns = fit.weight.matrix().shape
    return columns, rows // fit.source.groups


def _fitted(model: Model, fit: Fit, regression: Regression, damping: float) -> Fitted:
    columns, rows = _sizes(fit)
    nothing = np.zeros((fit.source.groups, rows, columns)), np.zeros((fit.source.groups, rows))
    before = regression.error(*nothing)
    weights, bias = regression.solve(*nothing, damping)
    after = regression.error(weights, bias)
    change = weights.reshape(-1, columns)
    fit.weight.store((fit.weight.matrix() + change).astype(np.float32))
    place = Twins(fit.weight.name, fit.weight.layer, fit.outlet.tensor, fit.outlet.tensor, fit.outlet.axis, rows * fit.source.groups)
    if bias_refusal(model, place) is None:
        move_bias(model, place, bias.reshape(-1).astype(np.float32))
        settle(model.ir)
    return Fitted(fit.weight.name, before, after)
