"""One of several processes of a training: `python -m compressor.training.worker JOB RANK SIZE MEETING`."""

import pickle
import sys
from pathlib import Path

from compressor.progress import Silent
from compressor.training.job import work
from compressor.training.world import Gang


def main() -> None:
    """Do the job, and leave the result to the first process."""
    job_file, rank, size, meeting = sys.argv[1:]
    job = pickle.loads(Path(job_file).read_bytes())  # written a moment ago by the process that started this one
    world = Gang(Path(meeting), int(rank), int(size))
    work(job, world, Silent())
    world.close()


if __name__ == "__main__":
    main()
