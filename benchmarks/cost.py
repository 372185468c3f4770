"""What a command costs: seconds and peak memory of a fresh process.

The kernel counts the memory of the process that starts a command as the command's own until it has
replaced its program. So the command is started by a process with next to nothing in it, this module:

    python -m benchmarks.cost COMMAND…
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

_MIB = 1 << 20
_UNIT = 1 if sys.platform == "darwin" else 1024
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one command.

    Attributes:
        code: exit code.
        seconds: wall clock, start of the interpreter included.
        peak_mib: largest resident memory, interpreter and libraries included.
        complaint: last line on stderr.
    """

    code: int
    seconds: float
    peak_mib: float
    complaint: str


def run(command: list[str]) -> Cost:
    """Run a command, from the root of the repository, and say what it cost."""
    launched = [sys.executable, "-m", "benchmarks.cost", *command]
    done = subprocess.run(launched, cwd=_ROOT, capture_output=True, text=True, check=True)
    return Cost(**json.loads(done.stdout))


def _wait(command: list[str]) -> Cost:
    started = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    complaints = child.stderr.read().strip() if child.stderr else ""
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    last = complaints.splitlines()[-1] if complaints else ""
    return Cost(child.returncode, seconds, usage.ru_maxrss * _UNIT / _MIB, last)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asdict(_wait(sys.argv[1:]))))
