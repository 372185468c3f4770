"""The two tools, each run as a command in a process of its own."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from benchmarks import cost
from benchmarks.cost import Cost
from benchmarks.tasks import SEED, Entry, Places, Rival, Task, Variant

GLIMPSE = 16
"""Samples on which our own run judges its result."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What a tool is to do.

    Attributes:
        task: whose model.
        variant: how.
        tool: which; a name in `TOOLS`.
        places: folders that the task names.
        samples: for calibration; as many as the task says, when None.
        seed: of ours.
    """

    task: Task
    variant: Variant
    tool: str
    places: Places
    samples: int | None = None
    seed: int = SEED

    @property
    def output(self) -> Path:
        """The file to write."""
        return self.places.made / f"{self.task.name}_{self.variant.name}_{self.tool}.onnx"

    @property
    def rival(self) -> Rival | None:
        """The call, where it is not ours."""
        found = self.variant.rival
        return found if self.tool == "onnxruntime" and isinstance(found, Rival) else None

    @property
    def absent(self) -> str | None:
        """Why the tool has nothing for the variant."""
        found = self.variant.rival
        return found if self.tool == "onnxruntime" and isinstance(found, str) else None

    @property
    def calibration(self) -> Entry | None:
        """The source of calibration data; None where none is used."""
        rival = self.rival
        if self.task.calibration is None or self.absent or (rival and rival.method != "static"):
            return None
        samples = rival.samples if rival and rival.samples else self.samples
        return self.places.entry({**self.task.calibration, **({"samples": samples} if samples else {})})


def jobs(task: Task, places: Places, samples: Mapping[str, int | None], seed: int = SEED) -> Iterator[Job]:
    """Every variant with every tool that the question is asked of.

    Args:
        task: with the variants that are wanted.
        places: folders that it names.
        samples: tool -> calibration samples.
        seed: of ours.
    """
    for variant in task.variants:
        for tool in TOOLS:
            if tool != "onnxruntime" or variant.rival is not None:
                yield Job(task, variant, tool, places, samples[tool], seed)


def ours(job: Job) -> Cost:
    """`compressor run`; it also judges its result, on a few samples."""
    file = job.output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe(job), sort_keys=False))
    return cost.run([sys.executable, "-m", "compressor", "run", str(file), "--quiet", "--overwrite"])


def onnxruntimes(job: Job) -> Cost:
    """The call of onnxruntime's own that the variant names."""
    file = job.output.with_suffix(".json")
    file.write_text(json.dumps(order(job), indent=2) + "\n")
    return cost.run([sys.executable, "-m", "benchmarks.rivals", str(file)])


def recipe(job: Job) -> Entry:
    """What ours is asked to do, without the measurements that the rival does not make."""
    data: Entry = {"evaluation": job.places.entry({**job.task.evaluation, "samples": GLIMPSE})}
    if job.calibration is not None:
        data["calibration"] = job.calibration
    if job.task.training is not None and any(step["type"] == "distill" for step in job.variant.passes):
        data["training"] = job.places.entry(job.task.training)
    return {
        "version": 1,
        "model": str(job.places.path(job.task.model)),
        "seed": job.seed,
        "data": data,
        "passes": [job.places.entry(step) for step in job.variant.passes],
        "runtime": {"latency": False, "memory": False},
        **job.places.entry(job.variant.recipe),
        "output": {"model": str(job.output)},
    }


def order(job: Job) -> Entry:
    """What onnxruntime's is asked to do, for `benchmarks/rivals.py`.

    Raises:
        ValueError: there is no call for it.
    """
    if job.rival is None:
        raise ValueError(f"{job.task.name}, {job.variant.name}: {job.tool} has no call for it")
    model = str(job.places.path(job.task.model))
    return {**asdict(job.rival), "model": model, "output": str(job.output), "calibration": job.calibration}


TOOLS: dict[str, Callable[[Job], Cost]] = {"compressor": ours, "onnxruntime": onnxruntimes}
