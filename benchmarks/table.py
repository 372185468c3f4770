"""One row per model, variant and tool, and how it is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table

from benchmarks.cost import Cost
from compressor.runtime.latency import LatencyRatio

_COLUMNS = (
    "model",
    "variant",
    "tool",
    "metric, before → after",
    "MB, before → after",
    "latency ratio (95 %)",
    "seconds",
    "MiB",
    "integer kernels",
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a result is worth.

    Attributes:
        before: the metric, of the reference.
        after: of the result.
        bytes_before: of the reference's file.
        bytes_after: of the result's.
        latency: of the result, over the reference's.
        kernels: family -> (layers in integer kernels, layers), as ONNX Runtime runs the result.
    """

    before: float
    after: float
    bytes_before: int
    bytes_after: int
    latency: LatencyRatio
    kernels: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Row:
    """One tool on one variant.

    Attributes:
        task: name of the task.
        variant: name of the variant.
        tool: which.
        metric: what before and after count.
        samples: for calibration; None where none are used.
        cost: of the tool's own run; why there was none, in words.
        judgement: None when the tool failed, or has nothing for it.
    """

    task: str
    variant: str
    tool: str
    metric: str
    samples: int | None
    cost: Cost | str
    judgement: Judgement | None


def draw(rows: Sequence[Row]) -> Table:
    """A table that is valid Markdown too."""
    table = Table(box=box.MARKDOWN)
    for column in _COLUMNS:
        table.add_column(column, no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    return table


def _cells(row: Row) -> list[str]:
    tool = row.tool if row.samples is None else f"{row.tool}, {row.samples}"
    named = [row.task, row.variant, tool]
    if isinstance(row.cost, str):
        return [*named, f"– ({row.cost})", *["–"] * 5]
    spent = [f"{row.cost.seconds:.1f}", f"{row.cost.peak_mib:.0f}"]
    found = row.judgement
    if found is None:
        failure = f"failed with code {row.cost.code}" if row.cost.code else "wrote what cannot be loaded"
        return [*named, failure, "", "", *spent, ""]
    ratio = found.latency
    return [
        *named,
        f"{row.metric} {found.before:.4f} → {found.after:.4f}",
        f"{found.bytes_before / 1e6:.2f} → {found.bytes_after / 1e6:.2f}",
        f"{ratio.median:.3f} ({ratio.low:.3f}–{ratio.high:.3f})",
        *spent,
        ", ".join(f"{integer} of {total} {family}" for family, (integer, total) in found.kernels.items()),
    ]
