"""Both tools on the variants of a task: run one after the other, then judged side by side."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.cost import Cost
from benchmarks.scoring import scores
from benchmarks.table import Judgement, Row
from benchmarks.tasks import SEED, Places, Task, typical_sample
from benchmarks.timing import ratios
from benchmarks.tools import TOOLS, Job, jobs
from compressor.errors import ModelError
from compressor.runtime.ort import Session


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure.

    Attributes:
        samples: tool -> calibration samples; as many as the task says, when None.
        seconds: time spent on latency per result, about.
        runs: of each tool; the quickest counts.
        seed: of ours.
    """

    samples: Mapping[str, int | None]
    seconds: float
    runs: int
    seed: int = SEED


def compare(task: Task, places: Places, effort: Effort) -> list[Row]:
    """A row per variant and tool."""
    if task.make is not None:
        task.make(places)
    asked = list(jobs(task, places, effort.samples, effort.seed))
    costs = _costs([job for job in asked if job.absent is None], effort.runs)
    written = [output for output, cost in costs.items() if not cost.code and _loads(output)]
    judgements = dict(zip(written, _judge(task, places, written, effort.seconds), strict=True))
    return [_row(job, costs.get(job.output), judgements.get(job.output)) for job in asked]


def say(text: str) -> None:
    """A line for who is waiting."""
    Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


def _costs(asked: Sequence[Job], runs: int) -> dict[Path, Cost]:
    """Output -> cost of the quickest run that worked."""
    best: dict[Path, Cost] = {}
    for job in [*asked] * runs:
        cost = TOOLS[job.tool](job)
        outcome = f"failed: {cost.complaint}" if cost.code else f"{cost.seconds:.1f} s"
        say(f"{job.task.name} {job.variant.name}, {job.tool}: {outcome}")
        best[job.output] = min(best.get(job.output, cost), cost, key=_preference)
    return best


def _loads(result: Path) -> bool:
    """Whether a tool that reports success has written something that runs."""
    try:
        Session(result).close()
    except ModelError as error:
        say(str(error))
        return False
    return True


def _preference(cost: Cost) -> tuple[bool, float]:
    """The least is a run that worked, and of those the quickest."""
    return cost.code != 0, cost.seconds


def _judge(task: Task, places: Places, results: Sequence[Path], seconds: float) -> list[Judgement]:
    """Metric, bytes, latency and kernels of every result."""
    from compressor.graph.model import Model
    from compressor.pipeline.measuring import kernels

    reference = places.path(task.model)
    size = Model.read(reference).source_bytes
    timed = ratios(reference, results, typical_sample(task, places), seconds * len(results))
    before, *after = scores(places.entry(task.evaluation), [reference, *results], os.cpu_count() or 1)
    return [
        Judgement(before, score, size, Model.read(result).source_bytes, ratio, kernels(result, size, places.made))
        for result, score, ratio in zip(results, after, timed, strict=True)
    ]


def _row(job: Job, cost: Cost | None, judgement: Judgement | None) -> Row:
    samples = None if job.calibration is None else job.calibration.get("samples")
    count = samples if isinstance(samples, int) else None
    outcome = cost or job.absent or ""
    return Row(job.task.name, job.variant.name, job.tool, job.task.metric, count, outcome, judgement)
