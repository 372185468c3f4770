"""What holds of every pass: each weight accounted for once, and nothing done is an error with reasons."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from tests.cli import tiny
from tests.cli.calling import Values, done, refused, write_recipe
from tests.passes.findings import entries, passed

RANDOM = {"calibration": {"source": "random"}}
STEPS: dict[str, Values] = {
    "prune_magnitude": {"type": "prune_magnitude", "sparsity": 0.25},
    "prune_magnitude global": {"type": "prune_magnitude", "sparsity": 0.25, "scope": "global"},
    "quantize_dynamic": {"type": "quantize_dynamic"},
    "quantize_dynamic everything": {"type": "quantize_dynamic", "convolutions": True},
    "quantize_static": {"type": "quantize_static"},
    "cast": {"type": "cast"},
    "cast bfloat16": {"type": "cast", "dtype": "bfloat16"},
}
UNBOUND = {"cosine": -1}
"""`verify:` that lets everything finite through; the model's weights and data are noise."""


@pytest.mark.parametrize("step", STEPS)
def test_every_weight_is_found_once(tmp_path: Path, step: str) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    report = passed(tmp_path, STEPS[step], data=RANDOM, verify=UNBOUND)
    changes, skips = entries(report, "changes"), entries(report, "skips")
    assert not changes.keys() & skips.keys()
    assert {n: e["layer"] for n, e in (changes | skips).items()} == tiny.MIXED
    assert all(entry["reason"] for entry in skips.values())


@pytest.mark.parametrize("step", STEPS)
def test_only_the_selected_weights_are_looked_at(tmp_path: Path, step: str) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    chosen = STEPS[step] | {"targets": ["g*", "MatMul"], "ignore": ["inside"]}
    report = passed(tmp_path, chosen, data=RANDOM, verify=UNBOUND)
    assert entries(report, "changes").keys() | entries(report, "skips").keys() == {"gemm", "twice_a"}


@pytest.mark.parametrize("step", STEPS)
def test_ignored_weights_keep_every_bit(tmp_path: Path, step: str) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    passed(tmp_path, STEPS[step] | {"ignore": ["gemm"]}, data=RANDOM, verify=UNBOUND)
    before, after = (tiny.arrays_of(tmp_path / name)["wg"] for name in ("model.onnx", "out.onnx"))
    assert np.array_equal(before, after)


@pytest.mark.parametrize("step", STEPS)
def test_inputs_and_outputs_stay(tmp_path: Path, step: str) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    passed(tmp_path, STEPS[step], data=RANDOM, verify=UNBOUND)
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)
    assert tiny.signature(tmp_path / "out.onnx") == tiny.signature(tmp_path / "model.onnx")


IDLE: dict[str, tuple[str, Values, tuple[str, ...]]] = {
    "nothing that small": (
        "mlp",
        {"type": "prune_magnitude", "threshold": 1e-30},
        ("threshold", "1 × MatMul"),
    ),
    "no convolution": ("cnn", {"type": "quantize_dynamic", "ignore": ["head"]}, ("2 × Conv", "times slower")),
    "recurrent": ("recurrent", {"type": "quantize_static"}, ("2 × LSTM", "recurrent")),
    "recurrent, dynamic": ("recurrent", {"type": "quantize_dynamic"}, ("2 × LSTM", "recurrent")),
    "embedding": ("lookup", {"type": "quantize_static"}, ("1 × Gather", "quantize_dynamic")),
    "everything ignored": ("mlp", {"type": "quantize_dynamic", "ignore": ["first", "second"]}, ("quantize_dynamic",)),
}


@pytest.mark.parametrize("case", IDLE)
def test_a_pass_that_changes_nothing_is_an_error_with_its_reasons(tmp_path: Path, case: str) -> None:
    model, step, says = IDLE[case]
    getattr(tiny, model)(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[step], data=RANDOM)
    assert len(refused(tmp_path, 4, "run", recipe, says=("passes.0", str(step["type"]), *says))) == 1


@pytest.mark.parametrize("step", ["quantize_dynamic", "quantize_static"])
def test_a_quantized_model_is_not_quantized_again(tmp_path: Path, step: str) -> None:
    tiny.mlp(tmp_path / "float.onnx")
    done(tmp_path, "run", write_recipe(tmp_path, model="float.onnx", passes=[STEPS[step]], data=RANDOM))
    (tmp_path / "out.onnx").rename(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[STEPS[step]], data=RANDOM)
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "quantized already"))


def test_a_result_that_no_longer_resembles_the_reference_is_refused(tmp_path: Path) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    strict = write_recipe(tmp_path, passes=[{"type": "prune_magnitude", "sparsity": 0.9}], verify={"cosine": 0.9999})
    refused(tmp_path, 4, "run", strict, says=("passes.0", "prune_magnitude", "output y", "cosine", "0.9999"))


def test_a_result_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], "layer"),
        helper.make_node("Reciprocal", ["h"], ["y"], "inverse"),
    ]
    arrays = {"w": np.eye(2, dtype=np.float32) * np.float32(0.5)}
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", [1, 2])], [tiny.value("y", [1, 2])], arrays)
    step: Values = {"type": "prune_magnitude", "threshold": 0.75}
    refused(tmp_path, 4, "run", write_recipe(tmp_path, passes=[step]), says=("output y", "NaN or infinite"))


@pytest.mark.parametrize("step", ["smooth", "equalize", "cast"])
def test_what_prepares_for_quantizing_says_when_that_was_done(tmp_path: Path, step: str) -> None:
    tiny.mlp(tmp_path / "float.onnx")
    done(tmp_path, "run", write_recipe(tmp_path, model="float.onnx", passes=[STEPS["quantize_static"]], data=RANDOM))
    (tmp_path / "out.onnx").rename(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[{"type": step}], data=RANDOM)
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "quantized already"))
