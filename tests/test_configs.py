"""Every example recipe checks, runs, holds its gates, and writes a valid model that runs on its own data."""

from pathlib import Path

import onnx
import pytest
import yaml

from compressor.passes import PASSES
from compressor.recipe import load
from tests.cli import tiny
from tests.cli.calling import call, done

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = sorted(CONFIGS.glob("*.yaml"))


def _stem(path: Path) -> str:
    return path.stem


def test_there_are_examples() -> None:
    assert RECIPES
    assert {path.suffix for path in CONFIGS.iterdir()} == {".yaml"}


@pytest.mark.parametrize("path", RECIPES, ids=_stem)
def test_an_example_checks(tmp_path: Path, path: Path) -> None:
    assert done(tmp_path, "check", path).err.endswith("ok\n")


@pytest.mark.parametrize("path", RECIPES, ids=_stem)
def test_an_example_says_in_its_first_line_what_it_is_for(path: Path) -> None:
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", RECIPES, ids=_stem)
def test_an_example_writes_below_out_under_its_own_name(path: Path) -> None:
    output = load(path)[0].output
    written = {file.resolve() for file in (output.model, *output.report)}
    assert {file.parent for file in written} == {CONFIGS.parent / "out"}
    assert {file.stem for file in written} == {path.stem}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.parametrize("path", RECIPES, ids=_stem)
def test_an_example_runs_and_its_result_is_a_valid_model(tmp_path: Path, path: Path) -> None:
    sets = ("output.model=out.onnx", "output.report=[]", "runtime.seconds=1")
    finished = call(tmp_path, "run", path, *(part for entry in sets for part in ("--set", entry)), "--json", "-")
    assert finished.code == 0, finished.err
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    model = load(path)[0].model
    assert tiny.signature(tmp_path / "out.onnx") == tiny.signature(model)
    report = finished.record()
    assert isinstance(fidelity := report["fidelity"], dict)
    assert fidelity["samples"] > 0


def test_every_pass_is_shown_by_an_example() -> None:
    shown = {step["type"] for path in RECIPES for step in yaml.safe_load(path.read_text()).get("passes", [])}
    assert shown == {step.model_fields["type"].default for step in PASSES}
