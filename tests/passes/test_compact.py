"""compact: a smaller file of the same model, known by the same names."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.cli import tiny
from tests.cli.calling import Values, done, write_recipe
from tests.passes.findings import entries, passed

COMPACT: Values = {"type": "compact"}
RANDOM = {"calibration": {"source": "random"}}
BEFORE: dict[str, list[Values]] = {
    "float": [],
    "static": [{"type": "quantize_static"}],
    "static in 2 bits": [{"type": "quantize_static", "scheme": "w2a8"}],
    "dynamic": [{"type": "quantize_dynamic"}],
    "weights": [{"type": "quantize_weights", "bits": "ternary", "block": 8}],
    "float16": [{"type": "cast"}],
}


def _written(folder: Path, name: str, passes: list[Values]) -> Path:
    recipe = write_recipe(folder, passes=passes, data=RANDOM, verify={"cosine": -1}, output={"model": name})
    done(folder, "run", recipe)
    return folder / name


@pytest.mark.parametrize("case", BEFORE)
def test_the_file_is_smaller_and_computes_the_same_to_the_last_bit(case: str, tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    steps: list[Values] = [{"type": "simplify"}, *BEFORE[case]]
    plain, short = _written(tmp_path, "plain.onnx", steps), _written(tmp_path, "short.onnx", [*steps, COMPACT])
    x = tiny.normal(4, 3, 8, 8, seed=3)
    assert np.array_equal(tiny.execute(plain, {"x": x})[0], tiny.execute(short, {"x": x})[0])
    assert short.stat().st_size < plain.stat().st_size
    assert tiny.signature(short) == tiny.signature(plain)
    onnx.checker.check_model(str(short), full_check=True)


@pytest.mark.parametrize("case", ["float", "static in 2 bits", "weights"])
def test_layers_keep_the_names_that_selectors_know(case: str, tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    steps: list[Values] = [*BEFORE[case]]
    if steps:
        steps[0] = steps[0] | {"targets": ["conv", "twice_a", "gemm"]}
    short = onnx.load(_written(tmp_path, "short.onnx", [*steps, COMPACT])).graph
    branch = next(a.g for node in short.node for a in node.attribute if a.name == "then_branch")
    kept = {node.name for node in (*short.node, *branch.node)}
    products = {"gemm", "twice_a", "twice_b"} if case != "weights" else set()
    assert {"conv", "up", "embedding", "lstm", "inside"} | products <= kept


def test_it_says_what_it_saved(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    report = passed(tmp_path, {"type": "simplify"}, {"type": "quantize_static"}, COMPACT, data=RANDOM)
    passes = report["passes"]
    assert isinstance(passes, list)
    details = [str(change["detail"]) for change in passes[-1]["changes"]]
    assert len(details) == 2
    assert "scales of biases" in details[0]
    assert "names" in details[1]
    assert passes[-1]["changes"][0]["bytes_before"] == 4 * (8 + 8 + 4)


def test_a_model_of_short_names_only_is_left_as_it_is(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    once = _written(tmp_path, "once.onnx", [COMPACT])
    recipe = write_recipe(tmp_path, model="once.onnx", passes=[COMPACT], output={"model": "twice.onnx"})
    done(tmp_path, "run", recipe)
    assert [node.name for node in onnx.load(tmp_path / "twice.onnx").graph.node] == [
        node.name for node in onnx.load(once).graph.node
    ]


def test_what_comes_after_it_still_finds_its_layers(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    report = passed(tmp_path, COMPACT, {"type": "quantize_static", "targets": ["stem", "head"]}, data=RANDOM)
    assert entries(report, "changes").keys() == {"stem", "head"}
