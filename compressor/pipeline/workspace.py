"""What a run works with, open for as long as it lasts."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import OutputError
from compressor.graph.model import Model
from compressor.graph.opening import ModelSource, opened
from compressor.pipeline.samples import Samples, open_samples
from compressor.progress import Progress
from compressor.recipe.schema import DataSection
from compressor.runtime.environment import usable_cores
from compressor.runtime.ort import Session


@dataclass(frozen=True, slots=True)
class Workspace:
    """Model, data and scratch folder of a run.

    Attributes:
        reference: the model as loaded, ready for passes; copied, never edited.
        reference_file: its file: what the result is measured against.
        session: the reference, opened.
        samples: the data.
        scratch: a folder on the output's file system, gone after the run.
        progress: told about long loops.
        threads: for calibration and evaluation; latency has its own setting.
        notes: what became of the model when it was opened.
    """

    reference: Model
    reference_file: Path
    session: Session
    samples: Samples
    scratch: Path
    progress: Progress
    threads: int
    notes: tuple[str, ...]


@contextmanager
def open_workspace(
    model: ModelSource,
    data: DataSection,
    beside: Path,
    seed: int,
    progress: Progress,
) -> Iterator[Workspace]:
    """Load the model and the data; clean up afterwards, also after an interruption.

    Args:
        model: the reference.
        data: sources of samples.
        beside: folder near which scratch files go; need not exist yet.
        seed: of every random choice.
        progress: told about long loops.

    Raises:
        InputError: model or data cannot be used.
        OutputError: no scratch folder can be made there.
    """
    threads = usable_cores()
    with opened(model) as given, scratch_folder(beside) as scratch:
        reference = given.load()
        session = Session(given.file, threads)
        samples = open_samples(data.calibration, data.training, data.evaluation, reference, seed)
        yield Workspace(reference, given.file, session, samples, scratch, progress, threads, given.notes)


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder in the nearest existing parent of `beside`."""
    parent = beside.absolute()
    while not parent.exists():
        parent = parent.parent
    try:
        folder = Path(tempfile.mkdtemp(prefix=".compressor-", dir=parent))
    except OSError as error:
        raise OutputError(f"{parent}: cannot be written to: {error.strerror}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
