"""What a pass is: its settings, and one verb that edits a model and says what it did to each weight."""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from compressor.calibration.assignment import ExecutedProbe, Goal, Probe, assign
from compressor.calibration.coding import Order
from compressor.data import Dataset, RandomSource, Settings
from compressor.errors import PassError, RecipeError
from compressor.evaluate.judge import Judge
from compressor.graph.model import Model
from compressor.graph.refusals import set_aside
from compressor.graph.select import Selectors, matcher
from compressor.graph.weights import Weight
from compressor.numerics.levels import Bits
from compressor.numerics.sparsity import Blocks, Pattern, Unstructured, read_n_of_m
from compressor.progress import Progress
from compressor.report import Change, Finding, Note, Skip
from compressor.runtime.ort import Feeds
from compressor.training.sensitivity import GradientProbe


@dataclass(frozen=True)
class Context:
    """What a run gives its passes.

    Attributes:
        reference: the model as loaded: teacher and yardstick; not to be edited.
        calibration: sample data; None when the recipe has none.
        training: sample data for passes that learn in steps, the calibration data where the recipe has no other;
            None when it has neither.
        seed: of every random choice.
        scratch: folder for temporary files, gone after the run.
        progress: told about long loops.
        threads: threads for calibration.
        checkpoints: folder for unfinished work, gone once the run has succeeded.
    """

    reference: Model
    calibration: Dataset | None
    seed: int
    scratch: Path
    progress: Progress
    threads: int
    training: Dataset | None = None
    checkpoints: Path | None = None

    def feeds(self) -> Feeds:
        """One sample to try things on: of the calibration data, or made up."""
        data = self.calibration or RandomSource(samples=1).open(self.reference, "random input", self.seed)
        return data.split(1)[0].first().feeds

    @cached_property
    def judge(self) -> Judge:
        """Says how far a model has drifted from the reference on the calibration data.

        Raises:
            PassError: there is no calibration data, or no output to judge by.
        """
        return Judge(self.reference, self._samples(), self.scratch, self.threads)

    def judge_from(self, model: Model, data: Dataset | None = None) -> Judge:
        """Says how far changes move the outputs from where those of this model are, on these or the calibration data.

        Raises:
            PassError: there is no data, or no output to judge by.
        """
        return Judge(self.reference, data or self._samples(), self.scratch, self.threads, start=model)

    def _samples(self) -> Dataset:
        if self.calibration is None:
            raise PassError("this pass judges its changes on sample data; give data.calibration")
        return self.calibration


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


def _is_pattern(value: str) -> str:
    read_n_of_m(value)
    return value


def _is_block(value: tuple[int, int]) -> tuple[int, int]:
    if min(value) < 1 or value == (1, 1):
        raise ValueError("a block is [rows, columns], at least two weights, for example [4, 1]")
    return value


_WIDEST_FIRST: tuple[Bits, ...] = (8, 4, 3, 2, "ternary", "binary")


class Budget(Settings):
    """How many bits there are to give out; how many each weight gets is measured."""

    bits_per_weight: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="mean bits of a weight, what belongs to the codes included"
    )
    bytes: Annotated[int, Field(gt=0)] | None = Field(default=None, description="of all quantized weights together")
    drift: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="of the outputs on the calibration data, at most: KL divergence of class scores, else the share "
        "of noise in the power of the outputs; the fewest bytes within it are taken",
    )
    sensitivity: Literal["executed", "gradient"] = Field(
        default="executed",
        description="how it is found what the bits of a weight do to the outputs: by executing the model with each of "
        "them, or for all at once by gradients of the outputs (needs torch; quicker where there are many layers)",
    )
    widths: Annotated[tuple[Bits, ...], Field(min_length=2)] | None = Field(
        default=None,
        description="bits that a weight may get, the most first; when left out, 8, 4, 3, 2 and ternary, as far as "
        "there are kernels",
    )

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if sum(goal is not None for goal in (self.bits_per_weight, self.bytes, self.drift)) != 1:
            raise ValueError("give one of bits_per_weight, bytes and drift")
        order = [_WIDEST_FIRST.index(bits) for bits in self.widths or ()]
        if order != sorted(set(order)):
            raise ValueError("widths: each once, the most bits first")
        return self

    def choose(self, model: Model, candidates: Sequence[Sequence[Order]], context: Context) -> list[Order]:
        """One of the candidates for every weight.

        Raises:
            PassError: the budget cannot be kept, or there is nothing to measure on.
        """
        entries = sum(orders[0].weight.size for orders in candidates)
        nbytes = self.bytes if self.bits_per_weight is None else self.bits_per_weight * entries / 8
        drift = context.judge.drift
        return assign(model, candidates, Goal(nbytes, self.drift), drift, context, self._probe(model, context))

    def _probe(self, model: Model, context: Context) -> Probe:
        if self.sensitivity == "gradient":
            return GradientProbe(model, context.seed, context)
        return ExecutedProbe(model, context.judge_from(model).drift)


def chosen_bits(findings: Sequence[Finding]) -> Iterator[tuple[Change, str]]:
    """The weights that were quantized, each with a selector of it alone."""
    changes = [c for c in findings if isinstance(c, Change) and c.bits is not None]
    types = {change.layer for change in changes}
    for change in changes:
        yield change, selector_of(change, types)


def selector_of(finding: Finding, types: Collection[str]) -> str:
    """What selects the weight of a finding and no other one, in a model with layers of these types."""
    name = finding.weight
    plain = name not in types and not name.startswith("re:") and not {"*", "?"} & set(name)
    return name if plain else f"re:{re.escape(name)}"


class Pass(Settings):
    """One step of a recipe.

    A subclass adds `type`, its fields, and `apply`. The contract of `apply`:

    1. It edits the model in place; names of layers, inputs and outputs stay.
    2. It yields a Change or a Skip for every weight it looked at, and is always consumed whole.
    3. Arrays are replaced through `Weight.store` or the edits of `compressor.graph`, never written to.

    Attributes:
        targets: selectors of the layers to work on; all, when empty.
        ignore: selectors of layers to leave alone.
        may_do_nothing: whether a run may go on when the pass found nothing to change.
    """

    may_do_nothing: ClassVar[bool] = False

    type: str
    targets: Names = Field(default=(), description="layers to work on: name, operator type, glob or re:…")
    ignore: Names = Field(default=(), description="layers to leave alone, written the same way")

    @property
    def selectors(self) -> Selectors:
        """`targets` and `ignore` as a test."""
        return Selectors(self.targets, self.ignore)

    @property
    def needs_calibration(self) -> bool:
        """Whether `Context.calibration` must be there."""
        return False

    @property
    def needs_training(self) -> bool:
        """Whether `Context.training` must be there."""
        return False

    def warnings(self) -> Iterator[str]:
        """What the reader of the report should know about these settings."""
        yield from ()

    def settled(self, findings: Sequence[Finding]) -> "Pass":
        """The same pass with everything that it chose by itself written down, so that it need not choose again."""
        return self

    def apply(self, model: Model, context: Context) -> Iterator[Finding | Note]:
        """Edit `model` and say what was done.

        Raises:
            PassError: what was asked cannot be done.
        """
        raise NotImplementedError


class SparsePass(Pass):
    """What passes that set single weights to zero have in common: how many, and in which pattern."""

    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="share of weights to set to zero, those that are zero already included; 0.5 when left out",
    )
    pattern: Annotated[str, AfterValidator(_is_pattern)] | None = Field(
        default=None, description='instead: how many of so many neighbouring inputs are kept, for example "2:4"'
    )
    block: Annotated[tuple[int, int], AfterValidator(_is_block)] | None = Field(
        default=None, description="rows and columns of blocks of the weight, (outputs, inputs), that go as a whole"
    )

    @model_validator(mode="after")
    def _one_pattern(self) -> Self:
        if self.pattern is not None and (self.sparsity is not None or self.block is not None):
            raise ValueError("a pattern says how many weights are kept, and where; leave sparsity and block out")
        return self

    @property
    def share(self) -> float:
        """Of the weights that are to be zero, without a pattern."""
        return 0.5 if self.sparsity is None else self.sparsity

    def sorted_out(self, model: Model) -> tuple[list[Weight], list[Skip]]:
        """The selected weights that can have such zeros, and those that cannot, each with the reason."""
        able: list[Weight] = []
        skips = [Skip(*found) for found in set_aside(model)]
        for weight in model.weights(self.selectors):
            reason = self.refusal(weight)
            if reason is None:
                able.append(weight)
            else:
                skips.append(Skip(weight.name, weight.layer, reason))
        return able, skips

    def refusal(self, weight: Weight) -> str | None:
        """Why a weight cannot have such zeros; None when it can."""
        if weight.dtype == "float64":
            return "its weights are float64, which this would round"
        return self.zeros().refusal(weight.matrix().shape[1])

    def zeros(self) -> Pattern:
        """Which weights are to be zero."""
        if self.pattern is not None:
            return read_n_of_m(self.pattern)
        return Unstructured(self.share) if self.block is None else Blocks(self.share, *self.block)
