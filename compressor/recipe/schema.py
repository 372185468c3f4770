"""What a recipe may say. Closed and typed: everything else is an error with its place."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from compressor.data import AnySource, RecipePath, Settings
from compressor.graph.opening import ModelSource
from compressor.graph.torchscript import parse
from compressor.passes import AnyPass

REPORT_SUFFIXES = (".json", ".md")


class DataSection(Settings):
    """Where samples come from."""

    calibration: AnySource | None = Field(default=None, description="samples that passes may learn from")
    training: AnySource | None = Field(
        default=None, description="samples for passes that train; those of calibration when left out"
    )
    evaluation: AnySource | None = Field(
        default=None, description="samples to judge the result on; held out of calibration when left out"
    )

    def paths(self) -> tuple[Path, ...]:
        """Files and folders that samples are read from."""
        sources = (self.calibration, self.training, self.evaluation)
        return tuple(path for source in sources if source for path in source.paths())


class RuntimeSection(Settings):
    """How cost is measured."""

    threads: Annotated[int, Field(ge=1, le=256)] = Field(default=1, description="threads inside one operator")
    latency: bool = Field(default=True, description="measure latency, reference and result in turn")
    memory: bool = Field(default=True, description="measure peak memory, each model in a process of its own")
    seconds: Annotated[float, Field(gt=0, le=600)] = Field(default=3.0, description="time spent on latency, about")


class VerifySection(Settings):
    """When a result is refused before it is written, whatever the gates say."""

    cosine: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.5, description="least cosine with the reference's outputs after every pass; -1 switches it off"
    )
    batches: Annotated[int, Field(ge=1)] = Field(default=4, description="batches compared after every pass")


class Bound(Settings):
    """A threshold; at least one end."""

    min: float | None = Field(default=None, description="least value that passes")
    max: float | None = Field(default=None, description="largest value that passes")

    @model_validator(mode="after")
    def _some_end(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("give min, max or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self

    def __str__(self) -> str:
        ends = [f"≥ {self.min:g}" if self.min is not None else "", f"≤ {self.max:g}" if self.max is not None else ""]
        return " and ".join(filter(None, ends))


class Gates(Settings):
    """Thresholds on the report: when one does not hold, the exit code is 1."""

    compression_ratio: Bound | None = Field(default=None, description="bytes before / bytes after")
    latency_ratio: Bound | None = Field(default=None, description="time after / time before")
    accuracy_drop: Bound | None = Field(default=None, description="loss of the metric, in its own unit")
    agreement: Bound | None = Field(default=None, description="share of samples with the reference's class")
    cosine: Bound | None = Field(default=None, description="mean cosine with the reference's outputs")
    sqnr_db: Bound | None = Field(default=None, description="signal-to-quantization-noise ratio, dB")
    file_bytes: Bound | None = Field(default=None, description="size of the model written")
    peak_memory_bytes: Bound | None = Field(default=None, description="of a process that loads and runs it once")

    def given(self) -> dict[str, Bound]:
        """The gates that the recipe sets."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: bound for name, bound in found.items() if bound is not None}


def _sequence(value: object) -> object:
    return (value,) if isinstance(value, (str, Path)) else value


Paths = Annotated[tuple[RecipePath, ...], BeforeValidator(_sequence, json_schema_input_type=str | tuple[str, ...])]
"""Paths, or a single one."""


Inputs = Annotated[tuple[str, ...], BeforeValidator(_sequence, json_schema_input_type=str | tuple[str, ...])]
"""Inputs in words, or a single one."""

Format = Literal["onnx", "torchscript", "pt2"]

SUFFIXES: dict[Format, tuple[str, ...]] = {"onnx": (".onnx",), "torchscript": (".pt", ".ts", ".jit"), "pt2": (".pt2",)}
"""What files of each format are called; the first is the usual one."""


class OutputSection(Settings):
    """What is written."""

    model: RecipePath = Field(description="the compressed model")
    format: Format | None = Field(
        default=None, description="onnx, torchscript (traced) or pt2 (torch.export); told by the model's suffix"
    )
    report: Paths = Field(default=(), description="report files: .json or .md")

    @field_validator("report")
    @classmethod
    def _known(cls, value: tuple[Path, ...]) -> tuple[Path, ...]:
        for path in value:
            if path.suffix not in REPORT_SUFFIXES:
                raise ValueError(f"{path.name}: reports are written as {' or '.join(REPORT_SUFFIXES)}")
        return value

    @field_validator("model")
    @classmethod
    def _known_format(cls, value: Path) -> Path:
        suffixes = [suffix for known in SUFFIXES.values() for suffix in known]
        if value.suffix not in suffixes:
            raise ValueError(f"{value.name}: the model is written as .onnx, or for torch as {', '.join(suffixes[1:])}")
        return value

    @model_validator(mode="after")
    def _suffix_fits(self) -> Self:
        if self.format is not None and self.model.suffix not in SUFFIXES[self.format]:
            raise ValueError(f"{self.model.name}: {self.format} is written as {' or '.join(SUFFIXES[self.format])}")
        return self

    @property
    def written_as(self) -> Format:
        """The format, as it was said or as the suffix tells."""
        if self.format is not None:
            return self.format
        return next(known for known, suffixes in SUFFIXES.items() if self.model.suffix in suffixes)


class Recipe(Settings):
    """A list of passes, and what is needed to run them and to judge the result."""

    version: Literal[1] = Field(description="of this format")
    model: RecipePath = Field(description="the trained model, ONNX or TorchScript")
    trust: bool = Field(default=False, description="whether a TorchScript model, which is code, may be loaded")
    inputs: Inputs = Field(
        default=(), description='of a TorchScript model that does not store them: "name:float32[1,3,224,224]"'
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="of every random choice")
    data: DataSection = Field(default=DataSection(), description="where samples come from")
    passes: Annotated[tuple[AnyPass, ...], Field(min_length=1)] = Field(description="in the order they run")
    verify: VerifySection = Field(default=VerifySection(), description="when a result is refused")
    runtime: RuntimeSection = Field(default=RuntimeSection(), description="how cost is measured")
    gates: Gates = Field(default=Gates(), description="thresholds that decide the exit code")
    output: OutputSection = Field(description="what is written")

    @property
    def source(self) -> ModelSource:
        """The trained model, and what is said about it."""
        return ModelSource(self.model, self.trust, self.inputs)

    @field_validator("inputs")
    @classmethod
    def _inputs_in_words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse(text)
        return value

    @model_validator(mode="after")
    def _gates_are_measured(self) -> Self:
        evaluation = self.data.evaluation
        if self.gates.accuracy_drop is not None and (evaluation is None or evaluation.metric is None):
            raise ValueError("gates.accuracy_drop needs data.evaluation with labels and a metric")
        if self.gates.latency_ratio is not None and not self.runtime.latency:
            raise ValueError("gates.latency_ratio needs runtime.latency")
        if self.gates.peak_memory_bytes is not None and not self.runtime.memory:
            raise ValueError("gates.peak_memory_bytes needs runtime.memory")
        for index, step in enumerate(self.passes):
            if step.needs_calibration and self.data.calibration is None:
                raise ValueError(f"passes.{index} ({step.type}) needs data.calibration; add it, or use another pass")
            if step.needs_training and self.data.calibration is None and self.data.training is None:
                raise ValueError(f"passes.{index} ({step.type}) needs data.training, or data.calibration; add one")
        return self
