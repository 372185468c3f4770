"""A run: what is written is a valid stand-in, carries its receipt, and can be made again bit by bit."""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from tests.cli import tiny
from tests.cli.calling import CHEAP, Values, call, done, listing, ran, refused, write_recipe

DYNAMIC = [{"type": "simplify"}, {"type": "quantize_dynamic"}]
STATIC = [{"type": "simplify"}, {"type": "quantize_static"}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.cnn(tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=tiny.normal(40, 3, 8, 8), labels=np.arange(40) % 4)
    return tmp_path


CALIBRATED: Values = {"calibration": {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}}}


def _receipt(path: Path) -> Values:
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    found = json.loads(stored["compressor.receipt"])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
@pytest.mark.parametrize("passes", [DYNAMIC, STATIC])
def test_the_result_is_valid_runs_and_has_the_same_signature(folder: Path, passes: list[Values], opset: int) -> None:
    model = onnx.load(folder / "model.onnx")
    model.opset_import[0].version = opset
    onnx.save(model, folder / "model.onnx")
    ran(folder, passes=passes, data=CALIBRATED)
    onnx.checker.check_model(str(folder / "out.onnx"), full_check=True)
    assert tiny.signature(folder / "out.onnx") == tiny.signature(folder / "model.onnx")
    assert tiny.execute(folder / "out.onnx", {"x": tiny.normal(5, 3, 8, 8)})[0].shape == (5, 4)


def test_names_types_and_dynamic_dimensions_of_several_inputs_stay(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], "embedding"),
        helper.make_node("MatMul", ["e", "w"], ["m"], "product"),
        helper.make_node("Add", ["m", "offset"], ["y"]),
        helper.make_node("ReduceSum", ["y"], ["total"], keepdims=0),
    ]
    inputs = [tiny.value("ids", ["batch", "tokens"], TensorProto.INT64), tiny.value("offset", ["batch", 1, 4])]
    outputs = [tiny.value("y", ["batch", "tokens", 4]), tiny.value("total", [])]
    tiny.write(tmp_path / "model.onnx", nodes, inputs, outputs, {"table": tiny.normal(9, 4), "w": tiny.normal(4, 4)})
    ran(tmp_path, passes=DYNAMIC)
    assert tiny.signature(tmp_path / "out.onnx") == tiny.signature(tmp_path / "model.onnx")


def test_the_source_is_not_touched(folder: Path) -> None:
    before = listing(folder)
    ran(folder, passes=STATIC, data=CALIBRATED, output={"model": "sub/out.onnx", "report": ["sub/r.json", "sub/r.md"]})
    after = listing(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"recipe.yaml", "sub", "sub/out.onnx", "sub/r.json", "sub/r.md"}


def test_the_receipt_holds_the_hash_of_the_source_and_the_recipe(folder: Path) -> None:
    report = ran(folder, passes=STATIC, data=CALIBRATED, seed=3)
    receipt = _receipt(folder / "out.onnx")
    content = (folder / "model.onnx").read_bytes()
    source = {"name": "model.onnx", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert receipt["source"] == source
    assert isinstance(recipe := receipt["recipe"], dict)
    assert recipe["seed"] == 3
    assert [step["type"] for step in recipe["passes"]] == ["simplify", "quantize_static"]
    assert report["receipt"] == receipt


def test_explain_shows_the_receipt(folder: Path) -> None:
    ran(folder, passes=DYNAMIC)
    receipt = _receipt(folder / "out.onnx")
    assert done(folder, "explain", "out.onnx", "--json", "-").json == receipt
    assert yaml.safe_load(done(folder, "explain", "out.onnx").out) == receipt


def test_explain_shows_a_long_path_whole(folder: Path) -> None:
    deep = "a" * 70 + "/" + "b" * 70
    (folder / deep).mkdir(parents=True)
    ran(folder, passes=DYNAMIC, output={"model": f"{deep}/out.onnx"})
    path = f"{deep}/out.onnx"
    assert yaml.safe_load(done(folder, "explain", path).out) == _receipt(folder / path)


def test_a_model_compressed_twice_carries_the_receipt_of_the_second_run(folder: Path) -> None:
    ran(folder)
    ran(folder, model="out.onnx", passes=DYNAMIC, output={"model": "twice.onnx"})
    assert isinstance(source := _receipt(folder / "twice.onnx")["source"], dict)
    assert source["sha256"] == hashlib.sha256((folder / "out.onnx").read_bytes()).hexdigest()


def test_other_metadata_of_the_model_stays(folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    model.metadata_props.add(key="author", value="somebody")
    onnx.save(model, folder / "model.onnx")
    ran(folder)
    assert {e.key: e.value for e in onnx.load(folder / "out.onnx").metadata_props}["author"] == "somebody"


@pytest.mark.parametrize("passes", [DYNAMIC, STATIC])
def test_the_recipe_in_the_receipt_makes_the_same_bytes_again(folder: Path, passes: list[Values]) -> None:
    ran(folder, passes=passes, data=CALIBRATED)
    first = (folder / "out.onnx").read_bytes()
    (folder / "again.yaml").write_text(yaml.safe_dump(_receipt(folder / "out.onnx")["recipe"]))
    done(folder, "run", "again.yaml", "--overwrite", "-q")
    assert (folder / "out.onnx").read_bytes() == first


FEEDS = """\
import numpy as np


def samples():
    rng = np.random.default_rng(0)
    for _ in range(12):
        yield rng.standard_normal((1, 3, 8, 8), dtype=np.float32)
"""


@pytest.mark.parametrize("preset", ["int8", "int8-dynamic", "int4", "auto"])
@pytest.mark.parametrize("data", ["data.npz", "random", "feeds:samples"])
def test_the_recipe_that_compress_writes_makes_the_same_bytes_again(folder: Path, preset: str, data: str) -> None:
    np.savez(folder / "data.npz", x=tiny.normal(40, 3, 8, 8))
    (folder / "feeds.py").write_text(FEEDS)
    cheap = ("--set", "runtime.latency=false", "--set", "runtime.memory=false")
    done(folder, "compress", "model.onnx", "-o", "sub/small.onnx", "--preset", preset, "--data", data, *cheap, "-q")
    first = (folder / "sub" / "small.onnx").read_bytes()
    done(folder, "run", "sub/small.yaml", "--overwrite", "-q")
    assert (folder / "sub" / "small.onnx").read_bytes() == first


def test_the_resolved_recipe_of_a_receipt_finds_its_python_source(folder: Path) -> None:
    (folder / "feeds.py").write_text(FEEDS)
    data = {"calibration": {"source": "python", "function": "feeds:samples"}}
    ran(folder, passes=STATIC, data=data, output={"model": "sub/out.onnx"})
    (folder / "sub" / "again.yaml").write_text(yaml.safe_dump(_receipt(folder / "sub" / "out.onnx")["recipe"]))
    done(folder, "run", "sub/again.yaml", "--overwrite", "-q")


@pytest.mark.parametrize("quantize", ["quantize_static", "quantize_weights"])
def test_what_a_budget_chose_is_in_the_receipt_and_makes_the_same_bytes_again(folder: Path, quantize: str) -> None:
    budget = {"bits_per_weight": 5, "widths": [8, 4, 2]}
    passes: list[Values] = [{"type": "simplify"}, {"type": quantize, "budget": budget}]
    ran(folder, passes=passes, data=CALIBRATED)
    first, recipe = (folder / "out.onnx").read_bytes(), _receipt(folder / "out.onnx")["recipe"]
    assert isinstance(recipe, dict)
    assert "budget" not in recipe["passes"][1]
    (folder / "again.yaml").write_text(yaml.safe_dump(recipe))
    done(folder, "run", "again.yaml", "--overwrite", "-q")
    assert (folder / "out.onnx").read_bytes() == first


def test_the_default_output_of_compress_is_named_after_model_and_preset(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    done(folder / "elsewhere", "compress", "../model.onnx", "--preset", "int8-dynamic", "-q")
    assert set(listing(folder / "elsewhere")) == {"model.int8-dynamic.onnx", "model.int8-dynamic.yaml"}


def test_auto_says_what_else_it_tried(folder: Path) -> None:
    command = ("compress", "model.onnx", "-o", "small.onnx", "--data", "random", "--set", "runtime.seconds=0.2")
    shown = " ".join(done(folder, *command).out.split())
    assert "int8 was tried: latency ratio" in shown or "int8-dynamic was tried: latency ratio" in shown
    assert "int4" not in shown


def test_set_of_the_output_moves_the_model_and_its_recipe(folder: Path) -> None:
    command = (
        "compress",
        "model.onnx",
        "-o",
        "a.onnx",
        "--preset",
        "int8-dynamic",
        "--set",
        "output.model=b.onnx",
        "-q",
    )
    done(folder, *command)
    made = {path.suffix: path.stem for path in folder.glob("[ab].*")}
    assert len(set(made.values())) == 1
    recipe = yaml.safe_load((folder / f"{made['.yaml']}.yaml").read_text())
    assert (folder / recipe["output"]["model"]).exists()


GATES: Values = {"compression_ratio": {"min": 1000}}


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_gate_that_fails_is_exit_1_named_and_everything_is_written(folder: Path, quiet: tuple[str, ...]) -> None:
    output = {"model": "out.onnx", "report": ["r.json", "r.md"]}
    recipe = write_recipe(folder, passes=DYNAMIC, gates=GATES | {"cosine": {"min": 0.5}}, output=output)
    finished = call(folder, "run", recipe, *quiet)
    assert finished.code == 1
    assert "compression_ratio" in finished.err
    assert "cosine" not in finished.err
    onnx.checker.check_model(str(folder / "out.onnx"))
    report = json.loads((folder / "r.json").read_text())
    assert report["passed"] is False
    assert {gate["gate"]: gate["passed"] for gate in report["gates"]} == {"compression_ratio": False, "cosine": True}
    assert "gates failed" in (folder / "r.md").read_text()


def test_a_failed_gate_leaves_json_on_stdout_alone(folder: Path) -> None:
    finished = call(folder, "run", write_recipe(folder, passes=DYNAMIC, gates=GATES), "--json", "-")
    assert finished.code == 1
    assert finished.record()["passed"] is False


@pytest.mark.parametrize(
    "gates",
    [
        {"compression_ratio": {"min": 0.01, "max": 100}},
        {"agreement": {"min": 0}},
        {"file_bytes": {"max": 10**9}},
        {"sqnr_db": {"min": -100}},
        {"accuracy_drop": {"max": 1}},
    ],
)
def test_gates_that_hold_are_exit_0(folder: Path, gates: Values) -> None:
    source = {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}, "labels": "labels", "metric": "top1"}
    assert ran(folder, passes=DYNAMIC, gates=gates, data={"evaluation": source})["passed"] is True


def test_a_gate_on_what_was_not_measured_fails(tmp_path: Path) -> None:
    tiny.lookup(tmp_path / "model.onnx")
    finished = call(tmp_path, "run", write_recipe(tmp_path, gates={"agreement": {"min": 0}}))
    assert finished.code == 1
    assert "agreement is not measured" in finished.err


def test_a_bound_is_inclusive(folder: Path) -> None:
    ends = ("--set", "gates.compression_ratio.min=1", "--set", "gates.compression_ratio.max=1")
    done(folder, "compare", "model.onnx", "model.onnx", *ends, "-q")


def test_gates_of_compare_decide_its_exit_code(folder: Path) -> None:
    command = ("compare", "model.onnx", "model.onnx", "--set")
    assert call(folder, *command, "gates.cosine.min=0.5").code == 0
    failed = call(folder, *command, "gates.compression_ratio.min=2")
    assert failed.code == 1
    assert "compression_ratio" in failed.err


def test_a_failing_pass_leaves_nothing_behind(folder: Path) -> None:
    passes: list[Values] = [{"type": "simplify"}, {"type": "prune_magnitude", "threshold": 1e-30}]
    recipe = write_recipe(folder, passes=passes, output={"model": "sub/out.onnx", "report": ["r.json"]})
    refused(folder, 4, "run", recipe, says=("passes.1", "prune_magnitude"))


def test_latency_and_memory_are_measured_when_asked_for(folder: Path) -> None:
    report = ran(folder, passes=DYNAMIC, runtime={"seconds": 0.2})
    assert isinstance(latency := report["latency"], dict)
    assert 0 < latency["low"] <= latency["ratio"] <= latency["high"]
    for side in ("reference", "result"):
        assert isinstance(found := report[side], dict)
        assert 0 < found["latency_ms"] <= found["latency_p95_ms"]
        assert found["peak_memory_bytes"] > 10**6


def test_latency_and_memory_are_left_out_when_not(folder: Path) -> None:
    report = ran(folder, passes=DYNAMIC, runtime=CHEAP)
    assert report["latency"] is None
    assert isinstance(found := report["result"], dict)
    assert (found["latency_ms"], found["peak_memory_bytes"]) == (None, None)


def test_a_training_that_gains_nothing_ends_in_a_warning_and_the_passes_beside_it_count(folder: Path) -> None:
    pytest.importorskip("torch")
    idle = {"type": "distill", "steps": 2, "batch": 8, "learning_rate": 1e-12, "optimizer": "sgd"}
    passes = [{"type": "prune_magnitude", "sparsity": 0.5}, idle, {"type": "quantize_dynamic"}]
    data = {"training": {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}}}
    ran(folder, passes=passes, data=data, output={"model": "out.onnx", "report": ["report.json"]})
    report = json.loads((folder / "report.json").read_text())
    assert [bool(step["changes"]) for step in report["passes"]] == [True, False, True]
    assert any("the model is what it was" in warning for warning in report["warnings"])
