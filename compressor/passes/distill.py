"""Knowledge distillation: what a model lost by becoming smaller is learned back from what the reference says.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network". The teacher is the model as it was loaded,
the student is the model as it is at this point of the recipe, and no labels are needed: the samples are what
both are given. The graph is trained as it is (`runtime/autograd`): what is written is what was trained.
"""

import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field

from compressor.data import RecipePath
from compressor.errors import PassError, UsageError
from compressor.graph.aligning import align
from compressor.graph.model import Model
from compressor.graph.opening import ModelSource, opened
from compressor.graph.reading import initializers
from compressor.graph.trainable import Layer, layers_of
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Note, Skip
from compressor.runtime.ort import Array
from compressor.training.settings import TrainingSettings

if TYPE_CHECKING:
    from compressor.training.loop import History


def _sequence(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Distill(Pass, TrainingSettings):
    """Train on unlabelled samples until the outputs are those of the reference again. Goes after pruning."""

    type: Literal["distill"] = "distill"
    teacher: Annotated[
        tuple[RecipePath, ...], BeforeValidator(_sequence, json_schema_input_type=str | tuple[str, ...])
    ] = Field(default=(), description="models to learn from, ONNX or TorchScript, averaged; the reference by default")
    student: RecipePath | None = Field(
        default=None, description="a model to train and go on with, in place of the one at this point"
    )
    outputs: dict[str, str] = Field(
        default={}, description="output of the reference: output of the teacher or student that stands for it"
    )
    trust: bool = Field(default=False, description="whether teacher and student may be TorchScript, which is code")

    @property
    def needs_training(self) -> bool:
        """Always."""
        return True

    def apply(self, model: Model, context: Context) -> Iterator[Finding | Note]:
        """Train, and put what was learned into the graph."""
        if context.training is None:
            raise PassError("needs data.training, or data.calibration")
        try:
            from compressor.training import distilling  # imports torch
        except ModuleNotFoundError as error:
            raise UsageError("distill needs torch: pip install 'compressor[torch]'") from error
        if self.student is not None:
            model.ir = self._opened(self.student, context, strict=True).ir
        teachers = [self._opened(path, context, strict=False) for path in self.teacher] or [context.reference]
        folder = context.checkpoints or context.scratch
        place = distilling.Place(context.scratch, folder, context.threads, context.progress)
        trained = distilling.distill(model, teachers, context.training, self, self.selectors, context.seed, place)
        before = model.copy()
        changed = trained.student.store(model)
        yield Note(_told(trained.history, self))
        yield from (Note(text, warning=True) for text in trained.warnings)
        yield from _findings(
            before, model, set(changed), {entry.name: entry.layer for entry in trained.student.learning}
        )

    def _opened(self, path: Path, context: Context, strict: bool) -> Model:
        """A model with the inputs and outputs of the reference, called as they are there."""
        with opened(ModelSource(path, self.trust)) as given:
            other = given.load()
            for value in initializers(other.ir):
                if value.const_value is not None:
                    value.const_value.numpy()  # a converted file is gone in a moment; what is mapped stays
        align(other, context.reference, self.outputs, strict)
        return other


def _told(history: "History", settings: TrainingSettings) -> str:
    resumed = f", continued at step {history.resumed}" if history.resumed else ""
    stopped = f", stopped early: {history.stopped}" if history.stopped else ""
    kept = "" if history.best_step == history.step else f" of step {history.best_step}"
    return (
        f"distill: {history.step} steps of {settings.batch} samples at learning rate {history.learning_rate:.1g} in "
        f"{history.seconds:.0f} s{resumed}{stopped}; from the teacher on held-out samples: {history.before:.3g} → "
        f"{history.best:.3g}{kept}"
    )


def _findings(before: Model, after: Model, changed: Collection[str], layers: Mapping[str, Layer]) -> Iterator[Finding]:
    """What became of every array that a layer learns."""
    old = {value.name: value.const_value for value in initializers(before.ir)}
    new = {value.name: value.const_value for value in initializers(after.ir)}
    for name, (layer, *_) in layers_of(before).items():
        if name not in layers:
            yield Skip(name, layer.type, "not among what learns: see targets, ignore and only")
        elif name not in changed:
            yield Skip(name, layer.type, "what it was is what gives the best result")
        else:
            one, other = old.get(name), new.get(name)
            moved = "" if one is None or other is None else f" by {_moved(one.numpy(), other.numpy()):.1%}"
            nbytes = 0 if other is None else other.nbytes
            yield Change(name, layer.type, f"learned: moved{moved}", bytes_before=nbytes, bytes_after=nbytes)


def _moved(before: Array, after: Array) -> float:
    """Norm of the difference beside the norm of what was there."""
    power = float(np.square(before, dtype=np.float64).sum())
    moved = float(np.square(after.astype(np.float64) - before.astype(np.float64)).sum())
    return math.sqrt(moved / power) if power else math.inf
