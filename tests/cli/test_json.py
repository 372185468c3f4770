"""--json: one document of strict JSON, alone on stdout, versioned where it is a report."""

import json
from pathlib import Path

import pytest

from tests.cli import tiny
from tests.cli.calling import Values, call, done, write_recipe

CHEAP = ("--set", "runtime.latency=false", "--set", "runtime.memory=false")
REPORTING: dict[str, tuple[str, ...]] = {
    "run": ("run", "recipe.yaml"),
    "compress": ("compress", "model.onnx", "-o", "small.onnx", "--preset", "int8-dynamic", *CHEAP),
    "inspect": ("inspect", "model.onnx"),
    "compare": ("compare", "model.onnx", "model.onnx"),
    "bench": ("bench", "model.onnx", "--seconds", "0.1"),
}
OTHER: dict[str, tuple[str, ...]] = {
    "explain": ("explain", "compressed.onnx"),
    "passes": ("passes",),
    "one pass": ("passes", "quantize_static"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.mlp(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, output={"model": "compressed.onnx"})
    done(tmp_path, "run", recipe, "-q")
    write_recipe(tmp_path, passes=[{"type": "quantize_dynamic"}], output={"model": "out.onnx"})
    return tmp_path


@pytest.mark.parametrize("command", [*REPORTING, *OTHER])
def test_json_is_alone_on_stdout(folder: Path, command: str) -> None:
    assert done(folder, *(REPORTING | OTHER)[command], "--json", "-").json


@pytest.mark.parametrize("command", REPORTING)
def test_a_report_says_which_version_its_shape_has(folder: Path, command: str) -> None:
    assert done(folder, *REPORTING[command], "--json", "-").record()["schema_version"] == 1


@pytest.mark.parametrize("command", [*REPORTING, *OTHER])
def test_json_into_a_file_is_what_stdout_would_have(folder: Path, command: str) -> None:
    shown = done(folder, *(REPORTING | OTHER)[command], "--json", "new.json").out
    assert json.loads((folder / "new.json").read_text())
    assert shown
    assert not shown.startswith(("{", "["))


def test_json_of_quiet_commands_is_still_written(folder: Path) -> None:
    finished = done(folder, "run", "recipe.yaml", "--json", "-", "-q")
    assert finished.json
    assert finished.err == ""


def test_a_report_has_the_same_shape_in_a_file_and_on_stdout(folder: Path) -> None:
    recipe = write_recipe(folder, output={"model": "out.onnx", "report": ["r.json"]})
    assert done(folder, "run", recipe, "--json", "-").json == json.loads((folder / "r.json").read_text())


FIELDS = {"schema_version", "reference", "result", "passes", "fidelity", "accuracy", "latency", "gates", "warnings"}
FIELDS |= {"environment", "receipt", "compression_ratio", "passed"}


@pytest.mark.parametrize("command", ["run", "compress", "compare"])
def test_a_report_has_the_documented_fields(folder: Path, command: str) -> None:
    assert set(done(folder, *REPORTING[command], "--json", "-").record()) >= FIELDS


def test_an_infinite_figure_is_null(folder: Path) -> None:
    fidelity = done(folder, "compare", "model.onnx", "model.onnx", "--json", "-").record()["fidelity"]
    assert isinstance(fidelity, dict)
    assert fidelity["outputs"][0]["sqnr_db"] is None


def test_names_beyond_ascii_survive(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx", first="première/слой/層")
    found = done(tmp_path, "inspect", "model.onnx", "--json", "-").record()
    assert isinstance(layers := found["layers"], list)
    assert layers[0]["name"] == "première/слой/層"


def test_inspection_lists_what_is_in_the_model(folder: Path) -> None:
    found: Values = done(folder, "inspect", "model.onnx", "--json", "-").record()
    assert found["nodes"] == {"Gemm": 1, "Relu": 1, "MatMul": 1}
    assert found["inputs"] == ["x: float32[batch, 8]"]
    assert found["outputs"] == ["y: float32[batch, 4]"]
    assert found["parameters"] == 16 * 8 + 16 + 16 * 4
    assert found["file_bytes"] == (folder / "model.onnx").stat().st_size


def test_the_schema_of_recipes_is_json(tmp_path: Path) -> None:
    schema = done(tmp_path, "schema").record()
    assert isinstance(properties := schema["properties"], dict)
    assert {"version", "model", "data", "passes", "gates", "output", "vars", "extends"} <= set(properties)


def test_an_error_leaves_stdout_empty_for_json_too(folder: Path) -> None:
    for command in (("inspect", "none.onnx"), ("compare", "model.onnx", "none.onnx"), ("explain", "model.onnx")):
        finished = call(folder, *command, "--json", "-")
        assert (finished.code, finished.out) == (3, "")
