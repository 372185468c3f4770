"""What a pass is: its settings, and one verb that edits a model and says what it did to each weight."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from compressor.data import Dataset, Settings
from compressor.errors import PassError, RecipeError
from compressor.evaluate.judge import Judge
from compressor.graph.model import Model
from compressor.graph.select import Selectors, matcher
from compressor.progress import Progress
from compressor.report import Finding


@dataclass(frozen=True)
class Context:
    """What a run gives its passes.

    Attributes:
        reference: the model as loaded: teacher and yardstick; not to be edited.
        calibration: sample data; None when the recipe has none.
        seed: of every random choice.
        scratch: folder for temporary files, gone after the run.
        progress: told about long loops.
        threads: threads for calibration.
    """

    reference: Model
    calibration: Dataset | None
    seed: int
    scratch: Path
    progress: Progress
    threads: int

    @cached_property
    def judge(self) -> Judge:
        """Says how far a model has drifted from the reference on the calibration data.

        Raises:
            PassError: there is no calibration data, or no output to judge by.
        """
        if self.calibration is None:
            raise PassError("this pass judges its changes on sample data; give data.calibration")
        return Judge(self.reference, self.calibration, self.scratch, self.threads)


def _sequence(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _readable(value: tuple[str, ...]) -> tuple[str, ...]:
    for selector in value:
        try:
            matcher(selector)
        except RecipeError as error:
            raise ValueError(str(error)) from error
    return value


Names = Annotated[
    tuple[str, ...],
    BeforeValidator(_sequence, json_schema_input_type=str | tuple[str, ...]),
    AfterValidator(_readable),
]
"""Selectors, or a single one."""


class Pass(Settings):
    """One step of a recipe.

    A subclass adds `type`, its fields, and `apply`. The contract of `apply`:

    1. It edits the model in place; names of layers, inputs and outputs stay.
    2. It yields a Change or a Skip for every weight it looked at, and is always consumed whole.
    3. Arrays are replaced through `Weight.store` or the edits of `compressor.graph`, never written to.

    Attributes:
        targets: selectors of the layers to work on; all, when empty.
        ignore: selectors of layers to leave alone.
        needs_calibration: whether `Context.calibration` must be there.
        may_do_nothing: whether a run may go on when the pass found nothing to change.
    """

    needs_calibration: ClassVar[bool] = False
    may_do_nothing: ClassVar[bool] = False

    type: str
    targets: Names = Field(default=(), description="layers to work on: name, operator type, glob or re:…")
    ignore: Names = Field(default=(), description="layers to leave alone, written the same way")

    @property
    def selectors(self) -> Selectors:
        """`targets` and `ignore` as a test."""
        return Selectors(self.targets, self.ignore)

    def warnings(self) -> Iterator[str]:
        """What the reader of the report should know about these settings."""
        yield from ()

    def apply(self, model: Model, context: Context) -> Iterator[Finding]:
        """Edit `model` and say what was done.

        Raises:
            PassError: what was asked cannot be done.
        """
        raise NotImplementedError
