"""The two tools, each run as a command in a process of its own."""

import sys
from collections.abc import Callable
from pathlib import Path

import yaml

from benchmarks import cost
from benchmarks.cost import Cost
from benchmarks.tasks import SEED, Entry, Task

Tool = Callable[[Task, Path, Path, int], Cost]
"""Task, folder of assets, file to write, calibration samples -> cost."""


def ours(task: Task, assets: Path, output: Path, samples: int) -> Cost:
    """`compressor run` with the passes' defaults; it also judges its result, on a few samples."""
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe(task, assets, output, samples), sort_keys=False))
    return cost.run([sys.executable, "-m", "compressor", "run", str(file), "--quiet", "--overwrite"])


def onnxruntimes(task: Task, assets: Path, output: Path, samples: int) -> Cost:
    """ONNX Runtime's own quantizer for the task's method."""
    arguments = [task.name, str(output), "--samples", str(samples), "--assets", str(assets)]
    return cost.run([sys.executable, "-m", "benchmarks.rivals", *arguments])


def recipe(task: Task, assets: Path, output: Path, samples: int) -> Entry:
    """What ours is asked to do, without the measurements that the rival does not make."""
    data: Entry = {"evaluation": task.glimpse(assets, output.parent)}
    calibration = task.calibration(assets, samples)
    if calibration is not None:
        data["calibration"] = calibration
    return {
        "version": 1,
        "model": str(task.model(assets)),
        "seed": SEED,
        "data": data,
        "passes": [{"type": "simplify"}, {"type": f"quantize_{task.method}"}],
        "runtime": {"latency": False, "memory": False},
        "output": {"model": str(output)},
    }
