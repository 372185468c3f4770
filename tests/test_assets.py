"""Real models of other people: looked at, compressed, or refused in one clear line."""

from pathlib import Path

import onnx
import pytest

from tests.cli import tiny
from tests.cli.calling import Values, call, done, refused, write_recipe

ASSETS = Path(__file__).resolve().parents[2] / "shared" / "assets" / "models"
REFUSED = "refuse"
FOREIGN = (".pt", ".jit", ".ptl")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ASSETS.is_dir(), reason=f"{ASSETS} is not there: these models are not part of the project"),
]

EVERY = sorted(path for path in ASSETS.rglob("*") if path.is_file()) if ASSETS.is_dir() else []
MODELS = [path for path in EVERY if path.suffix == ".onnx" and path.parent.name != REFUSED]
UNUSABLE = [path for path in EVERY if path.suffix in FOREIGN or path.parent.name == REFUSED]
CHEAP = ("--set", "runtime.latency=false", "--set", "runtime.memory=false")


def _stem(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", MODELS, ids=_stem)
def test_every_real_model_can_be_inspected(tmp_path: Path, path: Path) -> None:
    found = done(tmp_path, "inspect", path, "--json", "-").record()
    assert found["file_bytes"] == path.stat().st_size
    assert isinstance(nodes := found["nodes"], dict)
    assert sum(nodes.values()) >= len(onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.parametrize("path", MODELS, ids=_stem)
def test_every_real_model_is_compressed_or_refused_in_one_clear_line(tmp_path: Path, path: Path) -> None:
    finished = call(tmp_path, "compress", path, "-o", "small.onnx", "--preset", "int8-dynamic", *CHEAP, "-q")
    if finished.code:
        assert finished.code in (3, 4)
        assert len(finished.err.splitlines()) == 1
        assert finished.err.startswith("error: ")
        assert not list(tmp_path.iterdir())
        return
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)
    assert tiny.signature(tmp_path / "small.onnx") == tiny.signature(path)


@pytest.mark.parametrize("path", UNUSABLE, ids=_stem)
@pytest.mark.parametrize("command", ["inspect", "compress"])
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, path: Path, command: str) -> None:
    options = ("-o", "small.onnx", "--preset", "int8-dynamic") if command == "compress" else ()
    assert len(refused(tmp_path, 3, command, path, *options, says=(path.name,))) == 1


STRUCTURED: list[Values] = [
    {"type": "prune_channels", "parameters": 0.8, "importance": "magnitude", "repair": False},
    {"type": "reduce_resolution", "sides": 0.75},
]


@pytest.mark.parametrize("path", MODELS, ids=_stem)
@pytest.mark.parametrize("step", STRUCTURED, ids=lambda step: step["type"])
def test_every_real_model_is_made_cheaper_or_says_what_is_in_the_way(tmp_path: Path, path: Path, step: Values) -> None:
    recipe = write_recipe(tmp_path, model=str(path), passes=[{"type": "simplify"}, step], verify={"cosine": -1})
    finished = call(tmp_path, "run", recipe, *CHEAP, "-q")
    if finished.code:
        assert finished.code == 4
        assert finished.err.startswith(f"error: passes.1 ({step['type']})")
        assert len(finished.err.splitlines()) == 1
        return
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    assert tiny.signature(tmp_path / "out.onnx") == tiny.signature(path)
