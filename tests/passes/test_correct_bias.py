"""correct_bias: quantized layers make on average what they made before, as far as the outputs gain by it."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource
from compressor.errors import PassError
from compressor.graph.kernels import count_kernels
from compressor.graph.model import Model
from compressor.graph.simplify import simplify
from compressor.passes import Context, CorrectBias, Equalize, Pass, PruneMagnitude, QuantizeStatic
from compressor.progress import Silent
from compressor.report import Change, Finding, Skip
from compressor.runtime.ort import Session
from tests.cli import tiny
from tests.cli.calling import refused, write_recipe
from tests.models import Array, cnn, floats, graph, load, outputs, run
from tests.passes.findings import entries, passed

RNG = np.random.default_rng(2)
X = np.abs(floats(RNG, 64, 3, 8, 8))
COARSE = QuantizeStatic.model_validate(
    {"type": "quantize_static", "weights": {"bits": 3, "rounding": "nearest"}, "activations": {"observer": "min_max"}}
)


def _context(model: Model, folder: Path, x: Array = X) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 16})
    return Context(model.copy(), source.open(model, "data", 0), 0, folder, Silent(), 1)


def _quantized(proto: onnx.ModelProto, folder: Path, *steps: Pass) -> tuple[Model, Context]:
    """What the passes make of a model, and what they were given."""
    model = load(proto, folder)
    context = _context(model, folder)
    list(simplify(model))
    for step in steps:
        list(step.apply(model, context))
    return model, context


def _corrected(model: Model, context: Context, **settings: object) -> dict[str, Finding]:
    step = CorrectBias.model_validate({"type": "correct_bias", **settings})
    return {finding.weight: finding for finding in step.apply(model, context)}


def _unseen() -> dict[str, Array]:
    return {"x": np.abs(floats(np.random.default_rng(77), 64, 3, 8, 8))}


def _divergence(proto: onnx.ModelProto, model: Model, folder: Path) -> float:
    """Of the classes on data that was not used, in nats."""
    p, q = (np.exp(y["y"].astype(np.float64)) for y in (run(proto, _unseen()), outputs(model, _unseen(), folder)))
    p, q = (scores / scores.sum(axis=1, keepdims=True) for scores in (p, q))
    return float((p * np.log(p / q)).sum(axis=1).mean())


BEFOREHAND: dict[str, tuple[Pass, ...]] = {
    "quantized": (COARSE,),
    "equalized and quantized": (Equalize(), COARSE),
    "pruned": (PruneMagnitude(sparsity=0.4),),
}


@pytest.mark.parametrize("case", BEFOREHAND)
def test_the_outputs_come_nearer_on_data_that_was_not_used(tmp_path: Path, rng: np.random.Generator, case: str) -> None:
    proto = cnn(rng)
    model, context = _quantized(proto, tmp_path, *BEFOREHAND[case])
    before = _divergence(proto, model, tmp_path)
    findings = _corrected(model, context)
    assert any(isinstance(finding, Change) for finding in findings.values())
    assert _divergence(proto, model, tmp_path) < 0.7 * before


def test_a_single_layer_makes_the_mean_it_made(tmp_path: Path, rng: np.random.Generator) -> None:
    proto = graph(
        "float[N,3,8,8] x => float[N,4,1,1] y",
        "[layer] c = Conv(x, w) y = GlobalAveragePool(c)",
        w=floats(rng, 4, 3, 3, 3),
    )
    model, context = _quantized(proto, tmp_path, COARSE)
    _corrected(model, context)
    expected, found = run(proto, {"x": X})["y"], outputs(model, {"x": X}, tmp_path)["y"]
    step = (expected.max() - expected.min()) / 100
    assert found.mean(axis=0) == pytest.approx(expected.mean(axis=0), abs=float(step))


def test_the_drift_never_grows(tmp_path: Path, rng: np.random.Generator) -> None:
    model, context = _quantized(cnn(rng), tmp_path, QuantizeStatic())
    before = context.judge.drift(model)
    _corrected(model, context)
    assert context.judge.drift(model) <= before


def test_what_does_not_help_is_taken_back_with_every_bit(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, context = _quantized(cnn(rng), tmp_path, COARSE)
    before = outputs(model, _unseen(), tmp_path)["y"]
    monkeypatch.setattr("compressor.passes.correct_bias._WORTH_IT", -1)
    findings = _corrected(model, context)
    assert all(isinstance(f, Skip) and "drift" in f.reason for f in findings.values())
    assert np.array_equal(outputs(model, _unseen(), tmp_path)["y"], before)


def test_no_layer_leaves_its_kernel(tmp_path: Path, rng: np.random.Generator) -> None:
    model, context = _quantized(cnn(rng), tmp_path, COARSE)
    counts = []
    for name in ("before", "after"):
        model.save(tmp_path / f"{name}.onnx")
        Session(tmp_path / f"{name}.onnx", optimized=tmp_path / "optimized.onnx")
        counts.append([str(kernels) for kernels in count_kernels(tmp_path / "optimized.onnx")])
        _corrected(model, context)
    assert counts[0] == counts[1] == ["2 of 2 Conv in int8", "1 of 1 MatMul in int8"]


def test_more_layers_than_stages_are_all_corrected(tmp_path: Path, rng: np.random.Generator) -> None:
    names = [f"l{number}" for number in range(20)]
    body = " ".join(f"[{n}] h{i + 1} = Conv<pads=[1,1,1,1]>(h{i}, w{i})" for i, n in enumerate(names))
    weights = {f"w{i}": floats(rng, 3, 3, 3, 3) / 5 for i in range(20)}
    proto = graph("float[N,3,8,8] x => float[N,3,8,8] y", f"h0 = Relu(x) {body} y = Relu(h20)", **weights)
    model, context = _quantized(proto, tmp_path, QuantizeStatic())
    assert _corrected(model, context).keys() == set(names)


def test_a_tensor_that_is_another_one_now_is_not_compared(tmp_path: Path, rng: np.random.Generator) -> None:
    model, context = _quantized(cnn(rng), tmp_path, COARSE)
    (weight,) = (w for w in context.reference.weights() if w.name == "conv1")
    weight.store(floats(rng, *weight.matrix().shape))
    finding = _corrected(model, context)["conv1"]
    assert isinstance(finding, Skip)
    assert "no longer follows" in finding.reason


def test_only_the_selected_layers_are_corrected(tmp_path: Path, rng: np.random.Generator) -> None:
    model, context = _quantized(cnn(rng), tmp_path, COARSE)
    assert _corrected(model, context, targets=["Conv"], ignore=["conv1"]).keys() == {"conv2"}


def test_on_a_model_that_is_not_quantized_it_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    data = {"calibration": {"source": "random"}}
    recipe = write_recipe(tmp_path, passes=[{"type": "correct_bias"}], data=data)
    refused(tmp_path, 4, "run", recipe, says=("passes.0", "correct_bias", "as they were"))


def test_every_weight_is_accounted_for_once_behind_a_quantization(tmp_path: Path) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    steps = ({"type": "quantize_dynamic"}, {"type": "correct_bias"})
    report = passed(tmp_path, *steps, data={"calibration": {"source": "random"}}, verify={"cosine": -1})
    changes, skips = entries(report, "changes"), entries(report, "skips")
    assert not changes.keys() & skips.keys()
    assert {name: entry["layer"] for name, entry in (changes | skips).items()} == tiny.MIXED


def test_without_sample_data_it_says_what_is_missing(tmp_path: Path, rng: np.random.Generator) -> None:
    model, context = _quantized(cnn(rng), tmp_path, COARSE)
    bare = Context(context.reference, None, 0, tmp_path, Silent(), 1)
    with pytest.raises(PassError, match=r"data\.calibration"):
        list(CorrectBias().apply(model, bare))
