"""torchrun: several processes do a recipe together, one of them writes it."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compressor.graph.model import Model
from compressor.graph.reading import initializers
from compressor.runtime.launched import Launched, launched
from tests.cli.calling import write_recipe
from tests.models import Array, cnn, floats, load

pytest.importorskip("torch")

COMPLETE = {"RANK": "3", "WORLD_SIZE": "8", "MASTER_ADDR": "there", "MASTER_PORT": "1"}


def _environment(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> None:
    for name in (*COMPLETE, "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("missing", COMPLETE)
def test_half_an_environment_launches_nothing(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, {name: value for name, value in COMPLETE.items() if name != missing})
    assert launched() == Launched(0, 1, 1)
    assert not launched().follows


def test_a_whole_one_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _environment(monkeypatch, {**COMPLETE, "LOCAL_WORLD_SIZE": "4"})
    assert launched() == Launched(3, 8, 4)
    assert launched().follows


def _arrays(file: Path) -> dict[str, Array]:
    values = initializers(Model.load(file).ir)
    return {value.name or "": value.const_value.numpy() for value in values if value.const_value is not None}


@pytest.mark.slow
def test_two_launched_processes_write_what_one_writes(tmp_path: Path) -> None:
    load(cnn(np.random.default_rng(3)), tmp_path)
    np.savez(tmp_path / "x.npz", x=floats(np.random.default_rng(1), 64, 3, 8, 8))
    prune = {"type": "prune_magnitude", "sparsity": 0.5}
    learn = {"type": "distill", "steps": 10, "batch": 16, "learning_rate": 1e-3, "keep": "last"}
    written = {}
    for count in (1, 2):
        output = tmp_path / f"{count}.onnx"
        recipe = write_recipe(
            tmp_path,
            passes=[{"type": "simplify"}, prune, learn],
            data={"calibration": {"source": "arrays", "path": "x.npz"}},
            output={"model": str(output)},
        )
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
        command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "compressor", "run", str(recipe)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={**os.environ})
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("distill: 10 steps") == 1
        written[count] = _arrays(output)
    assert written[1].keys() == written[2].keys()
    for name, array in written[1].items():
        assert np.allclose(array, written[2][name], rtol=1e-3, atol=1e-5), name
