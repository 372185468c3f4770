"""What it takes to execute a model in a test."""

from dataclasses import dataclass
from pathlib import Path

from compressor.data import Dataset
from compressor.progress import Progress, Silent


@dataclass
class Around:
    """Samples and a folder; one thread, and nobody listens."""

    calibration: Dataset | None
    scratch: Path
    progress: Progress = Silent()  # noqa: RUF009
    threads: int = 1
