"""distill: what was lost is learned back; what is written is what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource
from compressor.errors import PassError
from compressor.evaluate.judge import Judge
from compressor.graph.model import Model
from compressor.graph.select import Selectors
from compressor.graph.simplify import simplify
from compressor.passes import Context, Distill, Pass, PruneMagnitude, QuantizeStatic, QuantizeWeights
from compressor.progress import Silent
from compressor.report import Finding, Note, Skip
from compressor.training.settings import TrainingSettings
from tests.models import Array, cnn, floats, graph, load, outputs

torch = pytest.importorskip("torch")

from compressor.training.distilling import Place, distill  # noqa: E402

RNG = np.random.default_rng(5)
X = np.abs(floats(RNG, 96, 3, 8, 8))
QUICK = {"steps": 40, "batch": 16, "learning_rate": 3e-3}


def _context(model: Model, folder: Path, x: Array = X) -> Context:
    np.savez(folder / "data.npz", allow_pickle=False, x=x)
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 16}).open(model, "data", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1, data, folder / "checkpoints")


def _lossy(folder: Path, *steps: Pass) -> tuple[Model, Context]:
    """A model that has lost something, and what it was made in."""
    model = load(cnn(np.random.default_rng(3)), folder)
    context = _context(model, folder)
    list(simplify(model))
    for step in steps:
        list(step.apply(model, context))
    return model, context


def _distilled(model: Model, context: Context, **settings: object) -> list[Finding | Note]:
    return list(Distill.model_validate({"type": "distill", **QUICK, **settings}).apply(model, context))


def _drift(model: Model, context: Context) -> float:
    assert context.calibration is not None
    return Judge(context.reference, context.calibration, context.scratch, 1).drift(model)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "sgd", "learning_rate": 1e-3}, {"batch_norm": "restore"}, {"loss": "mse"}, {"only": "scales"}],
    ids=["adamw", "sgd", "normalized", "mse", "scales"],
)
def test_what_pruning_lost_is_learned_back(tmp_path: Path, settings: dict[str, object]) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    before = _drift(model, context)
    _distilled(model, context, **settings)
    assert _drift(model, context) < 0.8 * before


def test_zeros_stay_zero(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    zeros = {w.name: w.matrix() == 0 for w in model.weights()}
    _distilled(model, context)
    assert all((w.matrix()[zeros[w.name]] == 0).all() for w in model.weights())


@pytest.mark.parametrize("rounding", ["nearest", "second_order", "learned"])
@pytest.mark.parametrize("scheme", ["w8a8", "w4a8"])
def test_zeros_stay_zero_as_codes_too(tmp_path: Path, scheme: str, rounding: str) -> None:
    asked = {"type": "quantize_static", "scheme": scheme, "weights": {"rounding": rounding}, "learning": {"steps": 20}}
    prune, quantize = PruneMagnitude(sparsity=0.6, scope="layer"), QuantizeStatic.model_validate(asked)
    model, context = _lossy(tmp_path, prune)
    zeros = [float((w.matrix() == 0).mean()) for w in model.weights()]
    list(quantize.apply(model, context))
    assert _shares_of_zeros(model) == pytest.approx(zeros, abs=0.05)
    before = _codes(model)
    _distilled(model, context, steps=60, learning_rate=1e-2, keep="last")
    after = _codes(model)
    assert any((a != b).any() for a, b in zip(after, before, strict=True))
    assert all((a[b == 0] == 0).all() for a, b in zip(after, before, strict=True))


def test_zero_codes_that_were_never_pruned_learn_too(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, QuantizeStatic.model_validate({"type": "quantize_static", "scheme": "w4a8"}))
    before = _codes(model)
    _distilled(model, context, steps=60, learning_rate=1e-2, keep="last")
    assert any((a[b == 0] != 0).any() for a, b in zip(_codes(model), before, strict=True))


def _shares_of_zeros(model: Model) -> list[float]:
    return [float((codes == 0).mean()) for codes in _codes(model)]


def _codes(model: Model) -> list[Array]:
    """Of the weights, in order: the integers behind those dequantizations that no quantization is in front of."""
    found = []
    for node in model.ir.graph:
        source = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        while source is not None and source.producer() is not None and source.producer().op_type == "Cast":
            source = source.producer().inputs[0]
        if source is not None and source.const_value is not None and len(source.const_value.shape) > 1:
            found.append(source.const_value.numpy().astype(np.int8))
    return found


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w4a4", "w3a8", "w2a8", "ternary", "binary"])
def test_codes_are_learned_and_packed_as_they_were(tmp_path: Path, scheme: str) -> None:
    model, context = _lossy(tmp_path, QuantizeStatic.model_validate({"type": "quantize_static", "scheme": scheme}))
    before, size = _drift(model, context), model.save(tmp_path / "before.onnx")
    _distilled(model, context, steps=100, learning_rate=1e-3)
    assert _drift(model, context) < 0.95 * before
    assert model.save(tmp_path / "after.onnx") == pytest.approx(size, rel=0.02)
    onnx.checker.check_model(str(tmp_path / "after.onnx"), full_check=True)


@pytest.mark.parametrize("scheme", ["w8a8", "w4a4", "w2a8", "binary"])
def test_what_onnx_runtime_says_is_what_was_trained_to_one_step_of_eight_bits(tmp_path: Path, scheme: str) -> None:
    model, context = _lossy(tmp_path, QuantizeStatic.model_validate({"type": "quantize_static", "scheme": scheme}))
    assert context.training is not None
    settings = TrainingSettings.model_validate({**QUICK, "keep": "last"})
    place = Place(tmp_path, tmp_path / "checkpoints", 1, Silent())
    trained = distill(model, [context.reference], context.training, settings, Selectors(), 0, place)
    assert any(trained.student.store(model).values())
    with torch.no_grad():
        wanted = trained.student.outputs({"x": torch.from_numpy(X)})["y"].numpy()
    found = outputs(model, {"x": X}, tmp_path)["y"]
    assert np.abs(found - wanted).max() <= np.abs(wanted).max() / 127


@pytest.mark.parametrize("bits", [8, 2, "ternary"])
def test_codes_of_products_that_are_ranged_at_run_time_are_learned(tmp_path: Path, bits: int | str) -> None:
    rng = np.random.default_rng(2)
    arrays = {"u": floats(rng, 24, 32) / 5, "a": floats(rng, 32), "v": floats(rng, 32, 16) / 5}
    body = "[one] g = Gemm(x, u, a) h = Relu(g) [two] y = MatMul(h, v)"
    model, x = load(graph("float[N,24] x => float[N,16] y", body, **arrays), tmp_path), floats(rng, 256, 24)
    context = _context(model, tmp_path, x)
    step = QuantizeWeights.model_validate({"bits": bits, "block": 8, "rounding": "nearest"})
    list(step.apply(model, context))
    before, codes = _drift(model, context), sorted(node.op_type for node in model.ir.graph)
    assert context.training is not None
    rate = 3e-4 if bits == 8 else 1e-3
    settings = TrainingSettings.model_validate({**QUICK, "steps": 150, "learning_rate": rate})
    place = Place(tmp_path, tmp_path / "checkpoints", 1, Silent())
    trained = distill(model, [context.reference], context.training, settings, Selectors(), 0, place)
    moved = trained.student.store(model)
    assert {entry.layer.names[0] for entry in trained.student.arrays if moved.get(entry.name)} >= {"one", "two"}
    assert sorted(node.op_type for node in model.ir.graph) == codes
    assert _drift(model, context) < (0.98 if bits == 8 else 0.9) * before
    with torch.no_grad():
        wanted = trained.student.outputs({"x": torch.from_numpy(x)})["y"].numpy()
    assert np.abs(outputs(model, {"x": x}, tmp_path)["y"] - wanted).max() <= np.abs(wanted).max() / 127


def test_targets_say_what_learns(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    first, *others = model.weights()
    before = {w.name: w.matrix().copy() for w in model.weights()}
    _distilled(model, context, targets=[first.name])
    after = {w.name: w.matrix() for w in model.weights()}
    assert not np.array_equal(before[first.name], after[first.name])
    assert all(np.array_equal(before[w.name], after[w.name]) for w in others)


def test_the_same_seed_gives_the_same_model_and_a_checkpoint_is_continued(tmp_path: Path) -> None:
    results, notes = [], []
    for _ in range(2):
        model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
        notes += [f.text for f in _distilled(model, context) if isinstance(f, Note)]
        results.append(outputs(model, {"x": X[:8]}, tmp_path))
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])
    assert "continued" not in notes[0]
    assert "continued at step 40" in notes[1]


@pytest.mark.slow
def test_several_processes_come_to_the_same_result(tmp_path: Path) -> None:
    found = []
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        model, context = _lossy(folder, PruneMagnitude(sparsity=0.6))
        _distilled(model, context, workers=workers, steps=10)
        found.append(outputs(model, {"x": X[:8]}, folder))
    for name, expected in found[0].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=1e-3, atol=1e-4)


def test_a_rate_that_ruins_the_model_is_an_error_with_a_smaller_one(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    with pytest.raises(PassError, match=r"not finite at step \d+; give a smaller learning_rate"):
        _distilled(model, context, optimizer="sgd", learning_rate=1e30, warmup=0)


def test_labels_are_wanted_only_where_there_are_some(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    with pytest.raises(PassError, match="the training data has none"):
        _distilled(model, context, alpha=0.5)


def test_tensors_inside_and_more_teachers_may_be_followed(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    before = _drift(model, context)
    context.reference.copy().save(tmp_path / "teacher.onnx")
    _distilled(model, context, features="auto", teacher=[str(tmp_path / "teacher.onnx")] * 2)
    assert _drift(model, context) < 0.8 * before


def test_another_model_may_be_trained_in_its_place(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.2))
    other = load(cnn(np.random.default_rng(9)), tmp_path, "student.onnx")
    before = _drift(other, context)
    _distilled(model, context, student=str(tmp_path / "student.onnx"), steps=80)
    assert _drift(model, context) < 0.8 * before


def test_a_limit_of_time_and_patience_end_it(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    said = _distilled(model, context, steps=None, minutes=0.03)
    assert isinstance(said[0], Note)
    assert int(said[0].text.split()[1]) > 1
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    stopped = _distilled(model, context, optimizer="sgd", learning_rate=1e-12, patience=2, steps=400)
    assert isinstance(stopped[0], Note)
    assert "stopped early: no gain in 2 looks" in stopped[0].text


def test_either_precision_leads_back_and_is_judged_alike(tmp_path: Path) -> None:
    reached = []
    for precision in ("float32", "bfloat16"):
        model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
        before = _drift(model, context)
        _distilled(model, context, precision=precision)
        reached.append(_drift(model, context) / before)
    assert max(reached) < 0.8
    assert reached[0] != reached[1]


def test_quantizers_are_not_trained_in_bfloat16(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path, QuantizeStatic(scheme="w8a8"))
    with pytest.raises(PassError, match="coarser than the steps"):
        _distilled(model, context, precision="bfloat16")


def test_a_teacher_that_knows_less_than_its_student_is_called_out(tmp_path: Path) -> None:
    model, context = _lossy(tmp_path)
    load(cnn(np.random.default_rng(9)), tmp_path, "teacher.onnx")
    labels = outputs(model, {"x": X}, tmp_path)["y"].argmax(1)
    np.savez(tmp_path / "labelled.npz", allow_pickle=False, x=X, labels=labels)
    source = ArraysSource.model_validate({"path": tmp_path / "labelled.npz", "labels": "labels", "batch": 16})
    context = replace(context, training=source.open(model, "data", 0))
    said = _distilled(model, context, teacher=str(tmp_path / "teacher.onnx"), steps=2)
    assert any(isinstance(note, Note) and note.warning and "the teacher is right on" in note.text for note in said)


@pytest.mark.parametrize(("rate", "way_out"), [(1e-12, "give a larger one"), (50.0, "give a smaller one, such as 10")])
def test_a_training_that_gains_nothing_says_which_rate_to_try(tmp_path: Path, rate: float, way_out: str) -> None:
    model, context = _lossy(tmp_path, PruneMagnitude(sparsity=0.6))
    weights = {weight.name: weight.matrix() for weight in model.weights()}
    found = _distilled(model, context, optimizer="sgd", learning_rate=rate, steps=3, warmup=0)
    reasons = {entry.reason for entry in found if isinstance(entry, Skip)}
    assert len(reasons) == 1
    assert reasons.pop().endswith(way_out)
    assert any(isinstance(note, Note) and note.warning and note.text.endswith(way_out) for note in found)
    assert all((weight.matrix() == weights[weight.name]).all() for weight in model.weights())
