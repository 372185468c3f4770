"""Peak memory of loading a model and running it once, in a process of its own."""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from compressor.errors import ModelError
from compressor.runtime.ort import Feeds, Session


def peak_bytes(path: Path, feeds: Feeds) -> int:
    """Highest resident memory of a fresh process that opens the model and runs it once.

    The interpreter and ONNX Runtime themselves, some 60 MB, are part of it.

    Raises:
        ModelError: the process died, for example for want of memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "feeds.npz"
        np.savez(file, **{f"input {i}": array for i, array in enumerate(feeds.values())})  # type: ignore[arg-type]
        command = [sys.executable, "-m", "compressor.runtime.memory", str(path), str(file), *feeds]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ModelError(f"{path}: cannot be run in a process of its own: {reason}")
    return int(done.stdout)


def own_peak() -> int:
    """Highest resident memory of this process so far, bytes.

    VmHWM where Linux tells it: it starts anew with the process, which ru_maxrss does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _main(model: str, arrays: str, *names: str) -> None:
    with np.load(arrays) as stored:
        feeds = {name: stored[f"input {i}"] for i, name in enumerate(names)}
    Session(Path(model)).run(feeds)
    sys.stdout.write(str(own_peak()))


if __name__ == "__main__":
    _main(*sys.argv[1:])
