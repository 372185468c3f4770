"""What happened, as data: frozen, without a word on how it is drawn.

`Report.to_dict` is the JSON report; its shape is versioned by `SCHEMA_VERSION` and described in
docs/report.md. A field is only added, never given another meaning, within one version.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite

SCHEMA_VERSION = 1

_NUMBER = re.compile(r"\d+(?:\.\d+)?")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


@dataclass(frozen=True, slots=True)
class Change:
    """A pass replaced a weight, or did away with a node.

    Attributes:
        weight: name of the layer; of a group of channels, of the first layer that makes it.
        layer: its operator type; of a group, what its units are.
        detail: what was done, in a few words.
        relative_error: of the weight, Frobenius; None where the weight's values are not approximated.
        bytes_before: of the array.
        bytes_after: of what stands for it now, scales included.
        zeros: share of entries that are zero now; None where the pass does not prune.
        bits: of a weight now: a number, ternary or binary; None where the pass does not quantize.
        widths: units of a group before and after; None where the pass drops none.
        tied: the layers that make or read the group.
        mixed: whether the units are mixtures of those there were.
    """

    weight: str
    layer: str
    detail: str
    relative_error: float | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    zeros: float | None = None
    bits: int | str | None = None
    widths: tuple[int, int] | None = None
    tied: tuple[str, ...] = ()
    mixed: bool = False


@dataclass(frozen=True, slots=True)
class Skip:
    """A pass left a weight as it was.

    Attributes:
        weight: name of the layer.
        layer: its operator type.
        reason: why, naming what would have to be different.
    """

    weight: str
    layer: str
    reason: str

    @property
    def kind(self) -> str:
        """The reason without its numbers."""
        return _NUMBER.sub("…", self.reason)


def common_reason(skips: Sequence[Skip]) -> str:
    """The reason of skips of one kind, with the numbers of the first."""
    reasons = {skip.reason for skip in skips}
    return skips[0].reason if len(reasons) == 1 else f"{skips[0].reason}; the others alike"


Finding = Change | Skip


@dataclass(frozen=True, slots=True)
class Note:
    """What a pass has to say of its work as a whole.

    Attributes:
        text: a line for the reader of the report.
        warning: whether it is something to be put right.
    """

    text: str
    warning: bool = False


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """How well one output agrees with the reference, over all samples seen.

    Attributes:
        output: its name.
        finite: False when the result holds NaN or infinity where the reference does not.
        agreement: share of samples on which both pick the same class (outputs of shape (samples,
            classes)), or of equal entries (integer outputs); None for other outputs, and for
            normalized embeddings.
        cosine: mean over samples; None for integer outputs.
        sqnr_db: signal-to-quantization-noise ratio, dB; None for integer outputs.
        kl: mean KL divergence of the softmax, nats; None where there are no classes.
    """

    output: str
    finite: bool
    agreement: float | None
    cosine: float | None
    sqnr_db: float | None
    kl: float | None


@dataclass(frozen=True, slots=True)
class Fidelity:
    """Agreement with the reference, no labels needed.

    Attributes:
        samples: how many were compared.
        data: where they came from, and whether a pass had seen them.
        outputs: one entry per compared output.
        ignored: outputs that are not compared, with the reason.
    """

    samples: int
    data: str
    outputs: tuple[OutputFidelity, ...]
    ignored: Mapping[str, str]

    @property
    def agreement(self) -> float | None:
        """Of the output that agrees least."""
        return min((o.agreement for o in self.outputs if o.agreement is not None), default=None)

    @property
    def cosine(self) -> float | None:
        """Of the output that agrees least."""
        return min((o.cosine for o in self.outputs if o.cosine is not None), default=None)

    @property
    def sqnr_db(self) -> float | None:
        """Of the output that agrees least, dB."""
        return min((o.sqnr_db for o in self.outputs if o.sqnr_db is not None), default=None)


@dataclass(frozen=True, slots=True)
class PassRecord:
    """One pass of the run.

    Attributes:
        type: its name in the recipe.
        settings: its fields as resolved.
        seconds: wall clock.
        bytes_before: size of the model file before it.
        bytes_after: size of the model file after it.
        findings: what it did to each weight, or why not.
        fidelity: against the reference, on a few samples, right after the pass.
    """

    type: str
    settings: Mapping[str, Json]
    seconds: float
    bytes_before: int
    bytes_after: int
    findings: tuple[Finding, ...]
    fidelity: Fidelity | None

    @property
    def changes(self) -> tuple[Change, ...]:
        """What was done."""
        return tuple(f for f in self.findings if isinstance(f, Change))

    @property
    def skips(self) -> tuple[Skip, ...]:
        """What was left alone."""
        return tuple(f for f in self.findings if isinstance(f, Skip))

    def skip_groups(self) -> list[list[Skip]]:
        """Skipped weights of one layer type and one kind of reason together, most frequent first."""
        groups: dict[tuple[str, str], list[Skip]] = {}
        for skip in self.skips:
            groups.setdefault((skip.layer, skip.kind), []).append(skip)
        return sorted(groups.values(), key=len, reverse=True)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One model file, measured.

    Attributes:
        path: where it is.
        file_bytes: on disk, external data included.
        deflated_bytes: the same through zlib (level 6), as most channels ship it: here zeros save
            something; None above 64 MB.
        parameters: entries of the learned arrays.
        zeros: entries of the weights that are zero.
        macs: multiply-accumulates for one batch of the evaluation data, If and Loop left out;
            None when it could not be counted.
        latency_ms: median of one execution; None when not measured.
        latency_p95_ms: 95th percentile.
        peak_memory_bytes: of a process of its own that loads and runs it once.
        kernels: family -> (layers in integer kernels, layers), after ONNX Runtime's own fusion.
    """

    path: str
    file_bytes: int
    deflated_bytes: int | None
    parameters: int
    zeros: int
    macs: int | None
    latency_ms: float | None
    latency_p95_ms: float | None
    peak_memory_bytes: int | None
    kernels: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class LatencyComparison:
    """Result over reference, measured in turn in one process; below 1 is faster.

    Attributes:
        ratio: median of the ratios of paired executions.
        low: lower end of its 95 % confidence interval.
        high: upper end.
        batch: samples in one execution.
        threads: threads inside one operator.
        runs: pairs.
        clock: what was counted.
    """

    ratio: float
    low: float
    high: float
    batch: int
    threads: int
    runs: int
    clock: str


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A metric against labels; not the same as fidelity.

    Attributes:
        metric: its name.
        reference: of the model as loaded.
        result: of the compressed model.
        higher_is_better: whether a drop is a loss.
        samples: how many.
    """

    metric: str
    reference: float
    result: float
    higher_is_better: bool
    samples: int

    @property
    def drop(self) -> float:
        """How much worse the result is, in the metric's own unit; negative when it is better."""
        difference = self.reference - self.result
        return difference if self.higher_is_better else -difference


@dataclass(frozen=True, slots=True)
class GateResult:
    """One threshold of the recipe.

    Attributes:
        gate: its name.
        value: what was measured; None when it was not.
        bound: the threshold in words.
        passed: whether it holds; a value that was not measured does not pass.
    """

    gate: str
    value: float | None
    bound: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a run or a comparison found out.

    Attributes:
        reference: the model as loaded.
        result: the compressed model.
        passes: in the order they ran; empty for a comparison of two files.
        fidelity: of the result.
        accuracy: None without labels.
        latency: None when not measured.
        gates: one per threshold.
        warnings: what the reader must know before trusting the figures.
        notes: what else was tried.
        environment: processor, versions.
        receipt: resolved recipe, versions and hash of the source, as stored in the model.
    """

    reference: Measurement
    result: Measurement
    passes: tuple[PassRecord, ...]
    fidelity: Fidelity
    accuracy: Accuracy | None
    latency: LatencyComparison | None
    gates: tuple[GateResult, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    environment: Mapping[str, str]
    receipt: Mapping[str, Json]

    @property
    def compression_ratio(self) -> float:
        """Bytes before over bytes after: above 1 is smaller."""
        return self.reference.file_bytes / self.result.file_bytes

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate.passed for gate in self.gates)

    def to_dict(self) -> dict[str, Json]:
        """The JSON report: plain types only; infinities become null."""
        body = asdict(self)
        for record, entry in zip(self.passes, body["passes"], strict=True):
            entry["changes"] = [asdict(c) for c in record.changes]
            entry["skips"] = [asdict(s) for s in record.skips]
            del entry["findings"]
        body["compression_ratio"] = self.compression_ratio
        body["passed"] = self.passed
        if self.accuracy is not None:
            body["accuracy"]["drop"] = self.accuracy.drop
        return {"schema_version": SCHEMA_VERSION, **{key: _plain(value) for key, value in body.items()}}


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One weight.

    Attributes:
        name: of the layer.
        layer: its operator type.
        shape: of the array.
        dtype: of the array.
        nbytes: of the array.
        macs: multiply-accumulates of the layers that use it; None when not counted.
    """

    name: str
    layer: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class GroupInfo:
    """Units that go together, or must stay.

    Attributes:
        name: of the first layer that makes them.
        kind: what a unit is: channels, neurons, heads, head_channels, hidden_units.
        width: how many.
        makers: layers whose outputs they are.
        readers: layers whose inputs they are.
        parameters: that go with one unit.
        reason: why they must stay; empty where they may go.
    """

    name: str
    kind: str
    width: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    parameters: int
    reason: str


@dataclass(frozen=True, slots=True)
class SpectrumInfo:
    """How near a layer's weight is to one of low rank.

    Attributes:
        name: of the layer.
        layer: operator type.
        rank: the rank that loses nothing.
        kept: share of the power of the weights that is kept at a quarter, a half and three quarters of it.
        even: the rank from which two factors take as many parameters as the weight.
    """

    name: str
    layer: str
    rank: int
    kept: tuple[float, float, float]
    even: int


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model, looked at.

    Attributes:
        path: of the file.
        file_bytes: with external data.
        opset: of the standard operators, as in the file.
        producer: what wrote the file.
        inputs: name, type and shape of each.
        outputs: the same.
        nodes: operator type -> count, as in the file.
        parameters: entries of learned arrays.
        layers: one entry per weight.
        macs: multiply-accumulates of all layers, for one sample, If and Loop left out; None when not counted.
        kernels: family -> (layers in integer kernels, layers).
        quantized: layers that are quantized already.
        groups: of channels that go together; empty when they were not asked for.
        spectrum: of layers that could become two; empty when it was not asked for.
        note: why something could not be counted; empty when all could.
        notes: what became of the file when it was opened.
    """

    path: str
    file_bytes: int
    opset: int
    producer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: Mapping[str, int]
    parameters: int
    layers: tuple[LayerInfo, ...]
    macs: int | None
    kernels: Mapping[str, tuple[int, int]]
    quantized: int
    groups: tuple[GroupInfo, ...]
    spectrum: tuple[SpectrumInfo, ...]
    note: str
    notes: tuple[str, ...] = ()


def _plain(value: object) -> Json:
    match value:
        case float():
            return value if isfinite(value) else None
        case None | bool() | int() | str():
            return value
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no place in a JSON report")
