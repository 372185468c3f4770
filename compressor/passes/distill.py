"""Knowledge distillation: what a model lost by becoming smaller is learned back from what the reference says.

Hinton et al. 2015, "Distilling the Knowledge in a Neural Network". The teacher is the model as it was loaded,
the student is the model as it is at this point of the recipe, and no labels are needed: the samples are what
both are given. The graph is trained as it is (`runtime/autograd`): what is written is what was trained.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from compressor.data import RecipePath
from compressor.errors import PassError, UsageError
from compressor.graph.aligning import align
from compressor.graph.latent import unreached
from compressor.graph.model import Model
from compressor.graph.opening import ModelSource, opened
from compressor.graph.reading import initializers
from compressor.passes.base import Context, Pass
from compressor.report import Change, Finding, Note, Skip
from compressor.training.settings import TrainingSettings

if TYPE_CHECKING:
    from compressor.training.loop import History
    from compressor.training.student import Learning


def _sequence(value: object) -> object:
    return (value,) if isinstance(value, str) else value


class Distill(Pass, TrainingSettings):
    """Train on unlabelled samples until the outputs are those of the reference again. Goes after pruning."""

    may_do_nothing: ClassVar[bool] = True

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
        moved = trained.student.store(model)
        yield Note(_told(trained.history, trained.followed, self))
        yield from (Note(text, warning=True) for text in trained.warnings)
        if not trained.history.best_step:
            yield Note(f"distill: the model is what it was: {_unmoved(trained.history)}", warning=True)
        yield from _findings(trained.student.arrays, moved, model, _unmoved(trained.history))

    def _opened(self, path: Path, context: Context, strict: bool) -> Model:
        """A model with the inputs and outputs of the reference, called as they are there."""
        with opened(ModelSource(path, self.trust)) as given:
            other = given.load()
            for value in initializers(other.ir):
                if value.const_value is not None:
                    value.const_value.numpy()  # a converted file is gone in a moment; what is mapped stays
        align(other, context.reference, self.outputs, strict)
        return other


def _told(history: "History", followed: Mapping[str, str], settings: TrainingSettings) -> str:
    resumed = f", continued at step {history.resumed}" if history.resumed else ""
    stopped = f", stopped early: {history.stopped}" if history.stopped else ""
    kept = "" if history.best_step == history.step else f" of step {history.best_step}"
    losses = ", ".join(f"{name} by {loss}" for name, loss in followed.items())
    return (
        f"distill: {history.step} steps of {settings.batch} samples at learning rate {history.learning_rate:.1g} in "
        f"{history.seconds:.0f} s{resumed}{stopped}; from the teacher on held-out samples: {history.before:.3g} → "
        f"{history.best:.3g}{kept} ({losses})"
    )


def _unmoved(history: "History") -> str:
    """Why an array is what it was."""
    if history.best_step:
        return "what it was gives the best result"
    rate = history.learning_rate
    way_out = f"a smaller one, such as {rate / 5:.2g}" if history.last > history.before else "a larger one"
    return (
        f"no state in {history.step} steps at learning rate {rate:.1g} was nearer to the teacher on held-out samples; "
        f"give {way_out}"
    )


def _findings(
    arrays: Sequence["Learning"], moved: Mapping[str, float], model: Model, unmoved: str
) -> Iterator[Finding]:
    """What became of every array that a layer learns, and which codes could not be learned."""
    sizes = {value.name: value.const_value.nbytes for value in initializers(model.ir) if value.const_value is not None}
    for entry in arrays:
        share, layer = moved.get(entry.name, 0.0), entry.layer
        if entry.refusal:
            yield Skip(entry.name, layer.type, entry.refusal)
        elif not share and entry.name in moved:
            yield Skip(entry.name, layer.type, unmoved)
        elif entry.name in moved:
            nbytes, said = sizes.get(entry.name, 0), f"learned: moved by {share:.1%}"
            yield Change(entry.name, layer.type, said, bytes_before=nbytes, bytes_after=nbytes)
    for name, reader in unreached(model):
        yield Skip(name, reader, f"its codes are read by {reader}, through which nothing is learned")
