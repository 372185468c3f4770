"""Calibration batches, made in a process of their own.

    python -m benchmarks.feed TASK --samples N --assets FOLDER

A rival takes its batches from here, so that it does not carry our libraries, some 50 MiB, on its account.
"""

import argparse
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tasks import TASKS, Task
from compressor.runtime.ort import Feeds


def batches(task: Task, assets: Path, samples: int) -> Iterator[Feeds]:
    """What `Task.calibration_batches` yields, out of another process; it works ahead while its reader does."""
    command = [sys.executable, "-m", "benchmarks.feed", task.name, "--samples", str(samples), "--assets", str(assets)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as feeder:
        if feeder.stdout is None:
            return
        while (batch := pickle.load(feeder.stdout)) is not None:
            yield batch


def main() -> None:
    """Write every batch to stdout, then None."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feed", description="Calibration batches, pickled.")
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--assets", type=Path, required=True)
    given = parser.parse_args()
    for batch in TASKS[given.task].calibration_batches(given.assets, given.samples):
        pickle.dump(dict(batch), sys.stdout.buffer)
    pickle.dump(None, sys.stdout.buffer)


if __name__ == "__main__":
    main()
