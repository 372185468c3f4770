"""Ctrl-C and a polite kill: exit 130, and nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli import tiny
from tests.cli.calling import listing, write_recipe

FEEDS = """\
import itertools, sys, time
import numpy as np

calls = itertools.count(1)


def samples():
    stuck = next(calls) == {call}
    for i in range(8):
        if stuck and i == 3:
            print("stuck", file=sys.stderr, flush=True)
            time.sleep(60)
        yield np.full((1, 8), i, np.float32)
"""


def _stuck_run(folder: Path, recipe: Path) -> subprocess.Popen[str]:
    """A run that waits for data, as soon as it does."""
    program = Path(sys.executable).with_name("compressor")
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    running = subprocess.Popen(
        [program, "run", recipe], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stderr is not None
    assert running.stderr.readline() == "stuck\n"
    return running


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("call", [1, 2, 4])
def test_an_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: int, call: int) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    (tmp_path / "feeds.py").write_text(FEEDS.format(call=call))
    data = {"calibration": {"source": "python", "function": "feeds:samples"}}
    output = {"model": "sub/out.onnx", "report": ["r.json"]}
    recipe = write_recipe(tmp_path, data=data, passes=[{"type": "quantize_static"}], output=output)
    before = listing(tmp_path)
    running = _stuck_run(tmp_path, recipe)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (130, "")
    assert "interrupted" in err
    assert "Traceback" not in err
    assert listing(tmp_path) == before
