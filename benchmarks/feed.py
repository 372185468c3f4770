"""Calibration batches, made in a process of their own.

    python -m benchmarks.feed ORDER.json

A rival takes its batches from here, so that it does not carry our libraries, some 50 MiB, on its account.
"""

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.tasks import open_data
from compressor.runtime.ort import Feeds


def batches(order: Path) -> Iterator[Feeds]:
    """The calibration batches of an order, out of another process; it works ahead while its reader does."""
    with subprocess.Popen([sys.executable, "-m", "benchmarks.feed", str(order)], stdout=subprocess.PIPE) as feeder:
        if feeder.stdout is None:
            return
        while (batch := pickle.load(feeder.stdout)) is not None:
            yield batch


def main(order: str) -> None:
    """Write every batch to stdout, then None."""
    asked = json.loads(Path(order).read_text())
    for batch in open_data(asked["calibration"], Path(asked["model"])).batches():
        pickle.dump(dict(batch.feeds), sys.stdout.buffer)
    pickle.dump(None, sys.stdout.buffer)


if __name__ == "__main__":
    main(*sys.argv[1:])
