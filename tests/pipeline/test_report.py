"""The figures of the report, each recomputed in another way."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from compressor.report import PassRecord, Skip, common_reason
from compressor.runtime import environment
from tests.cli import tiny
from tests.cli.calling import Values, done, ran, write_recipe

STATIC = [{"type": "simplify"}, {"type": "quantize_static"}]
RANDOM = {"calibration": {"source": "random"}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny.cnn(tmp_path / "model.onnx")
    np.savez(
        tmp_path / "data.npz", x=tiny.normal(50, 3, 8, 8), labels=np.arange(50) % 4, wanted=tiny.normal(50, 4, seed=9)
    )
    return tmp_path


def _part(report: Values, name: str) -> Values:
    found = report[name]
    assert isinstance(found, dict)
    return found


def test_sizes_and_their_ratio_are_those_of_the_files(folder: Path) -> None:
    report = ran(folder, passes=STATIC, data=RANDOM)
    before, after = ((folder / name).stat().st_size for name in ("model.onnx", "out.onnx"))
    assert (_part(report, "reference")["file_bytes"], _part(report, "result")["file_bytes"]) == (before, after)
    assert report["compression_ratio"] == before / after


def test_sizes_go_on_from_pass_to_pass(folder: Path) -> None:
    report = ran(folder, passes=STATIC, data=RANDOM)
    assert isinstance(passes := report["passes"], list)
    assert passes[0]["bytes_before"] == (folder / "model.onnx").stat().st_size
    assert passes[0]["bytes_after"] == passes[1]["bytes_before"]
    assert all(entry["seconds"] >= 0 for entry in passes)


def _labelled(metric: str, labels: str) -> Values:
    source = {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}, "labels": labels, "metric": metric}
    return {"evaluation": source, "calibration": {"source": "random"}}


def _by_numpy(metric: str, scores: tiny.Array, data: Values) -> float:
    labels, wanted = np.asarray(data["labels"]), np.asarray(data["wanted"])
    match metric:
        case "top1":
            return float(np.mean(scores.argmax(axis=1) == labels))
        case "mse":
            return float(np.mean((scores - wanted) ** 2))
    return float(np.mean(np.abs(scores - wanted)))


@pytest.mark.parametrize(("metric", "labels"), [("top1", "labels"), ("mse", "wanted"), ("mae", "wanted")])
def test_accuracy_is_that_of_numpy(folder: Path, metric: str, labels: str) -> None:
    found = _part(ran(folder, passes=STATIC, data=_labelled(metric, labels)), "accuracy")
    data = dict(np.load(folder / "data.npz"))
    for side, name in (("reference", "model.onnx"), ("result", "out.onnx")):
        scores = tiny.execute(folder / name, {"x": data["x"]})[0]
        assert found[side] == pytest.approx(_by_numpy(metric, scores, data), rel=1e-5)
    assert found["samples"] == 50
    difference = float(str(found["reference"])) - float(str(found["result"]))
    assert found["drop"] == pytest.approx(difference if metric == "top1" else -difference)


def test_fidelity_is_that_of_numpy(folder: Path) -> None:
    report = ran(folder, passes=STATIC, data=_labelled("top1", "labels"))
    x = np.load(folder / "data.npz")["x"]
    one, other = (tiny.execute(folder / name, {"x": x})[0].astype(np.float64) for name in ("model.onnx", "out.onnx"))
    assert isinstance(outputs := _part(report, "fidelity")["outputs"], list)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert outputs[0]["agreement"] == pytest.approx(np.mean(one.argmax(axis=1) == other.argmax(axis=1)))
    assert outputs[0]["cosine"] == pytest.approx(np.mean((one * other).sum(axis=1) / norms), abs=1e-5)
    assert outputs[0]["sqnr_db"] == pytest.approx(10 * np.log10((one**2).sum() / ((one - other) ** 2).sum()), abs=0.05)


def test_accuracy_of_a_model_with_a_fixed_batch_counts_every_sample_once(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
    x, labels = tiny.normal(10, 8, seed=3), np.arange(10) % 4
    tiny.write(
        tmp_path / "model.onnx", nodes, [tiny.value("x", [4, 8])], [tiny.value("y", [4, 4])], {"w": tiny.normal(8, 4)}
    )
    np.savez(tmp_path / "data.npz", x=x, labels=labels)
    found = _part(ran(tmp_path, data={"evaluation": _labelled("top1", "labels")["evaluation"]}), "accuracy")
    expected = np.mean((x @ tiny.normal(8, 4)).argmax(axis=1) == labels)
    assert found["reference"] == pytest.approx(expected)
    assert found["samples"] == 10


def _optimized(path: Path) -> list[str]:
    """Operator types of the graph as ONNX Runtime will run it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(path.with_suffix(".optimized")).graph.node]


@pytest.mark.parametrize(("ignore", "integer"), [([], 2), (["body"], 1), (["stem", "head"], 1)])
def test_kernels_are_counted_in_the_graph_that_really_runs(folder: Path, ignore: list[str], integer: int) -> None:
    passes: list[Values] = [{"type": "simplify"}, {"type": "quantize_static", "ignore": ignore}]
    recipe = write_recipe(folder, passes=passes, data=RANDOM)
    finished = done(folder, "run", recipe)
    types = _optimized(folder / "out.onnx")
    assert sum("QLinearConv" in kind for kind in types) == integer
    assert f"{integer} of 2 Conv" in " ".join(finished.out.split())


def test_macs_are_those_of_the_formula(folder: Path) -> None:
    report = ran(folder, passes=STATIC, data=RANDOM)
    macs = 8 * 8 * 8 * 3 * 9 + 8 * 8 * 8 * 8 * 9 + 8 * 4
    assert _part(report, "reference")["macs"] == _part(report, "result")["macs"] == macs


@pytest.mark.parametrize("model", ["cnn", "recurrent", "mixed"])
def test_inspect_and_run_count_the_same_macs(tmp_path: Path, model: str) -> None:
    getattr(tiny, model)(tmp_path / "model.onnx")
    found = done(tmp_path, "inspect", "model.onnx", "--json", "-").record()
    assert isinstance(layers := found["layers"], list)
    assert sum(layer["macs"] or 0 for layer in layers) == _part(ran(tmp_path), "reference")["macs"]


def test_parameters_are_the_entries_of_learned_arrays(folder: Path) -> None:
    arrays = tiny.arrays_of(folder / "model.onnx")
    assert _part(ran(folder), "reference")["parameters"] == sum(array.size for array in arrays.values())


@pytest.mark.parametrize("step", ["quantize_dynamic", "quantize_static"])
def test_scales_and_zero_points_are_no_parameters(folder: Path, step: str) -> None:
    tiny.mlp(folder / "model.onnx")
    report = ran(folder, passes=[{"type": step}], data=RANDOM)
    assert _part(report, "result")["parameters"] == _part(report, "reference")["parameters"]


WARNING = "calibrated on random inputs"


def test_random_calibration_is_warned_of_everywhere(folder: Path) -> None:
    recipe = write_recipe(
        folder, passes=STATIC, data=RANDOM, output={"model": "out.onnx", "report": ["r.md", "r.json"]}
    )
    shown = " ".join(done(folder, "run", recipe).out.split())
    assert f"warning: {WARNING}" in shown
    assert WARNING in (folder / "r.md").read_text()
    assert WARNING in (folder / "r.json").read_text()


def test_real_calibration_is_not_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_CPUINFO", folder / "a processor of which nothing is known")
    report = ran(
        folder, passes=STATIC, data={"calibration": {"source": "arrays", "path": "data.npz", "inputs": {"x": "x"}}}
    )
    assert report["warnings"] == []


def test_fidelity_on_made_up_data_is_warned_of(folder: Path) -> None:
    assert isinstance(warnings := ran(folder)["warnings"], list)
    assert any("random inputs" in str(warning) for warning in warnings)


def test_a_model_that_grows_is_not_called_smaller(folder: Path) -> None:
    tiny.mlp(folder / "model.onnx")
    finished = done(folder, "run", write_recipe(folder))
    assert (folder / "out.onnx").stat().st_size > (folder / "model.onnx").stat().st_size
    assert "smaller" not in finished.out


def test_the_environment_is_that_of_this_machine(folder: Path) -> None:
    environment = _part(ran(folder), "environment")
    assert environment["onnxruntime"] == onnxruntime.__version__
    assert {"processor", "int8_instructions"} <= environment.keys()


def test_an_output_of_random_operators_is_not_compared_and_said_to_be_so(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "layer"),
        helper.make_node("RandomNormalLike", ["y"], ["noise"], "dice"),
    ]
    outputs = [tiny.value("y", [1, 4]), tiny.value("noise", [1, 4])]
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", [1, 8])], outputs, {"w": tiny.normal(8, 4)})
    fidelity = _part(ran(tmp_path), "fidelity")
    assert isinstance(ignored := fidelity["ignored"], dict)
    assert set(ignored) == {"noise"}
    assert isinstance(compared := fidelity["outputs"], list)
    assert [output["output"] for output in compared] == ["y"]


def test_reasons_that_differ_in_their_numbers_are_told_once() -> None:
    rank = "worth more whole: rank {} would lose {}% of its output"
    lost = [(8, 1.5), (16, 0.25)]
    skips = [Skip(f"conv{i}", "Conv", rank.format(*numbers)) for i, numbers in enumerate(lost)]
    skips += [Skip("other", "Conv", "depthwise"), Skip("head", "Gemm", rank.format(8, 1.5))]
    groups = PassRecord("factorize", {}, 0.0, 0, 0, tuple(skips), None).skip_groups()
    assert [[skip.weight for skip in group] for group in groups] == [["conv0", "conv1"], ["other"], ["head"]]
    assert common_reason(groups[0]) == f"{rank.format(8, 1.5)}; the others alike"
    assert common_reason(groups[1]) == "depthwise"
