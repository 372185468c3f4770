"""What a confined process can no longer do; each is tried in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import json, os, socket, subprocess, sys, threading
from pathlib import Path
from compressor.graph.torchscript.confine import confine
scratch, outside = Path(sys.argv[1]), Path(sys.argv[2])
(outside / "old").write_text("kept")
missing = confine(scratch, 4 << 30, 60, 1 << 20)
def tried(action):
    try:
        action()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"
threads = []
thread = threading.Thread(target=lambda: threads.append(1)); thread.start(); thread.join()
print(json.dumps({
    "missing": missing,
    "inside": tried(lambda: (scratch / "new").write_text("x")),
    "folder inside": tried(lambda: (scratch / "folder").mkdir()),
    "read": tried(lambda: (outside / "old").read_text()),
    "thread": "done" if threads else "none",
    "outside": tried(lambda: (outside / "new").write_text("x")),
    "over": tried(lambda: (outside / "old").write_text("x")),
    "remove": tried(lambda: (outside / "old").unlink()),
    "move": tried(lambda: (outside / "old").rename(scratch / "moved")),
    "link": tried(lambda: ((scratch / "link").symlink_to(outside / "old"), (scratch / "link").write_text("x"))),
    "socket": tried(lambda: socket.socket()),
    "fork": tried(lambda: os.fork() or os._exit(0)),
    "program": tried(lambda: subprocess.run(["true"])),
    "memory": tried(lambda: bytearray(5 << 30)),
    "file size": tried(lambda: (scratch / "large").write_bytes(bytes(2 << 20))),
}))
"""

ALLOWED = ("inside", "folder inside", "read", "thread")
REFUSED = {
    "no writing elsewhere": ("outside", "over", "remove", "move", "link"),
    "no network": ("socket",),
    "no other programs": ("fork", "program"),
    "limits of memory and time": ("memory", "file size"),
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    scratch, outside = tmp_path_factory.mktemp("scratch"), tmp_path_factory.mktemp("outside")
    command = [sys.executable, "-c", _SCRIPT, str(scratch), str(outside)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    results: dict[str, str] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize("what", ALLOWED)
def test_what_stays_possible(what: str, found: dict[str, str]) -> None:
    assert found[what] == "done"


@pytest.mark.parametrize(("rule", "what"), [(rule, what) for rule, all_ in REFUSED.items() for what in all_])
def test_what_is_refused(rule: str, what: str, found: dict[str, str]) -> None:
    if rule in found["missing"]:
        pytest.skip(f"this system cannot enforce it: {rule}")
    assert found[what] in ("PermissionError", "MemoryError", "OSError")
