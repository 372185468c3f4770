"""distill and what it may be given: fixed batches, shared codes, labels, masks, selections, other data than before."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource, RandomSource
from compressor.errors import PassError
from compressor.graph.edit import set_array
from compressor.graph.model import Model
from compressor.passes import Context, Distill, PruneMagnitude, QuantizeStatic, QuantizeWeights
from compressor.progress import Silent
from compressor.report import Finding, Note, Skip
from tests.models import Array, cnn, floats, graph, load, outputs

torch = pytest.importorskip("torch")

QUICK = {"steps": 40, "batch": 16, "learning_rate": 3e-3}
RNG = np.random.default_rng(5)


def _context(model: Model, folder: Path, labels: Array | None = None, **arrays: Array) -> Context:
    given = arrays if labels is None else {**arrays, "labels": labels}
    np.savez(folder / "data.npz", allow_pickle=False, **given)
    inputs = {name: name for name in arrays}
    fields = {
        "path": folder / "data.npz",
        "inputs": inputs,
        "labels": None if labels is None else "labels",
    }
    data = ArraysSource.model_validate(fields).open(model, "data", 0)
    return Context(model.copy(), data, 0, folder, Silent(), 1, data, folder / "checkpoints")


def _distilled(model: Model, context: Context, **settings: object) -> list[Finding | Note]:
    return list(Distill.model_validate({"type": "distill", **QUICK, **settings}).apply(model, context))


def _said(found: list[Finding | Note]) -> str:
    return next(entry.text for entry in found if isinstance(entry, Note))


def _product(folder: Path, **arrays: Array) -> Model:
    """y = x w + b, eight numbers to four."""
    stored = {"w": floats(np.random.default_rng(0), 8, 4), "b": np.zeros(4, np.float32), **arrays}
    return load(graph("float[N,8] x => float[N,4] y", "[one] y = Gemm(x, w, b)", **stored), folder)


def _shifted(model: Model, name: str, by: float) -> None:
    array = _array(model, name)
    set_array(model.ir.graph.initializers[name], (array + by).astype(array.dtype))


def _array(model: Model, name: str) -> Array:
    value = model.ir.graph.initializers[name].const_value
    assert value is not None
    return np.array(value.numpy())


def test_a_checkpoint_of_other_samples_is_not_continued(tmp_path: Path) -> None:
    said = []
    for shift in (0, 3):
        model = _product(tmp_path)
        context = _context(model, tmp_path, x=floats(np.random.default_rng(shift), 48, 8))
        _shifted(model, "w", 0.3)
        said.append(_said(_distilled(model, context)))
    assert "continued" not in said[1]


def test_a_training_that_was_stopped_early_ends_there_again(tmp_path: Path) -> None:
    steps = []
    for _ in range(2):
        model = _product(tmp_path)
        context = _context(model, tmp_path, x=floats(np.random.default_rng(1), 48, 8))
        _shifted(model, "w", 0.3)
        steps.append(_said(_distilled(model, context, optimizer="sgd", learning_rate=1e-12, patience=2)).split()[1])
    assert steps[0] == steps[1]


def test_codes_that_two_products_share_are_learned_as_one(tmp_path: Path) -> None:
    body = "[one] g = MatMul(x, w) h = Relu(g) [two] y = MatMul(h, w)"
    arrays, x = {"w": floats(RNG, 24, 24) / 5}, floats(RNG, 256, 24)
    model = load(graph("float[N,24] x => float[N,24] y", body, **arrays), tmp_path)
    context = _context(model, tmp_path, x=x)
    list(QuantizeWeights.model_validate({"bits": 2, "block": 8, "rounding": "nearest"}).apply(model, context))
    said = _said(_distilled(model, context, loss="mse", steps=150, learning_rate=1e-3))
    promised = float(said.split("→ ")[1].split()[0])
    wanted, found = (outputs(m, {"x": x}, tmp_path)["y"] for m in (context.reference, model))
    assert np.square(found - wanted).mean() / np.square(wanted).mean() < 1.3 * promised


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_of_one_size_of_batch_learns_in_steps_of_many(tmp_path: Path, batch: int) -> None:
    stored = {"w": floats(RNG, 8, 4), "b": np.zeros(4, np.float32)}
    proto = graph(f"float[{batch},8] x => float[{batch},4] y", "[one] y = Gemm(x, w, b)", **stored)
    model, x = load(proto, tmp_path), floats(RNG, 48, 8)
    context = _context(model, tmp_path, x=x)
    _shifted(model, "b", 0.5)
    _distilled(model, context, loss="mse")
    assert np.abs(_array(model, "b")).max() < 0.45


def test_rounding_is_learned_for_a_batch_of_one(tmp_path: Path) -> None:
    body = """[one] g = Conv<pads=[1,1,1,1]>(x, k) h = Relu(g) f = Reshape(h, shape) [two] y = MatMul(f, w)"""
    arrays = {"k": floats(RNG, 4, 2, 3, 3), "shape": np.int64([1, 64]), "w": floats(RNG, 64, 3)}
    model = load(graph("float[1,2,4,4] x => float[1,3] y", body, **arrays), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 32, 2, 4, 4))
    weights, learning = {"bits": 2, "rounding": "learned"}, {"steps": 8}
    list(QuantizeStatic.model_validate({"weights": weights, "learning": learning}).apply(model, context))
    assert np.isfinite(outputs(model, {"x": np.ones((1, 2, 4, 4), np.float32)}, tmp_path)["y"]).all()


def test_layers_that_are_not_selected_stay_as_they_are_also_with_normalization(tmp_path: Path) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    context = _context(model, tmp_path, x=np.abs(floats(RNG, 96, 3, 8, 8)))
    list(PruneMagnitude(sparsity=0.6).apply(model, context))
    first = next(iter(model.weights()))
    before = {name: _array(model, name) for name in model.ir.graph.initializers}
    found = _distilled(model, context, ignore=[first.name], batch_norm="restore")
    assert first.value.name in {entry.weight for entry in found if isinstance(entry, Skip)}
    assert np.array_equal(_array(model, first.value.name or ""), before[first.value.name or ""])


def test_scales_in_front_of_layers_that_are_not_selected_stay(tmp_path: Path) -> None:
    model = load(cnn(np.random.default_rng(3)), tmp_path)
    context = _context(model, tmp_path, x=np.abs(floats(RNG, 96, 3, 8, 8)))
    list(QuantizeStatic(scheme="w4a8").apply(model, context))
    first, *_ = [node for node in model.ir.graph if node.op_type == "Conv"]
    scales = {name: _array(model, name) for name in model.ir.graph.initializers if name.endswith("scale")}
    _distilled(model, context, targets=[first.name], keep="last")
    moved = {name for name in scales if not np.array_equal(scales[name], _array(model, name))}
    assert moved
    assert len(moved) <= 3  # input, weight and, folded into them, the bias of one layer


def test_what_the_loss_sees_is_what_is_judged(tmp_path: Path) -> None:
    """Scores of classes may be moved as one; numbers that are no scores may not."""
    model = _product(tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 96, 8))
    _shifted(model, "b", 0.5)
    said = _said(_distilled(model, context, loss="mse", steps=200, learning_rate=1e-2))
    assert "y by mse" in said
    assert np.abs(_array(model, "b")).max() < 0.1


def test_labels_alone_can_teach(tmp_path: Path) -> None:
    model, x = _product(tmp_path), floats(RNG, 192, 8)
    labels = (floats(np.random.default_rng(8), 8, 4).T @ x.T).argmax(0)
    context = _context(model, tmp_path, labels, x=x)
    _distilled(model, context, alpha=0.0, steps=300, learning_rate=3e-2)
    assert (outputs(model, {"x": x}, tmp_path)["y"].argmax(1) == labels).mean() > 0.8


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.full(48, 255), "labels of the training data go up to 255, and output y has classes 0 to 3"),
        (np.eye(4, dtype=np.int64)[np.zeros(48, int)], "not one class number for each row"),
        (np.zeros(48, np.float32), "not one class number for each row"),
    ],
    ids=["unknown class", "one-hot", "floats"],
)
def test_labels_that_are_no_classes_are_refused_by_one_line(tmp_path: Path, labels: Array, says: str) -> None:
    model = _product(tmp_path)
    context = _context(model, tmp_path, labels, x=floats(RNG, 48, 8))
    with pytest.raises(PassError, match=says):
        _distilled(model, context, alpha=0.5)


@pytest.mark.parametrize("name", ["src_key_padding_mask", "attention_mask"])
def test_a_mask_that_hides_everything_is_no_mask(tmp_path: Path, name: str) -> None:
    """torch's masks are true where nothing is, those of transformers where something is."""
    body = f"m = Cast<to=1>({name}) e = Unsqueeze(m, last) z = Mul(e, nothing) g = Add(x, z) [one] y = MatMul(g, w)"
    arrays = {"w": floats(RNG, 6, 6), "last": np.int64([2]), "nothing": np.float32([0])}
    model = load(graph(f"float[N,T,6] x, bool[N,T] {name} => float[N,T,6] y", body, **arrays), tmp_path)
    masks = {name: np.zeros((48, 5), bool)}
    context = _context(model, tmp_path, x=floats(RNG, 48, 5, 6), **masks)
    _shifted(model, "w", 0.2)
    before, after = (
        float(part.split()[-1 if i == 0 else 0])
        for i, part in enumerate(_said(_distilled(model, context)).split(" → "))
    )
    assert after < before


def test_integers_inside_are_no_features(tmp_path: Path) -> None:
    body = """i = Shape(x) one = Add(i, i) two = Add(one, i) s = Cast<to=1>(two) n = ReduceMin(s)
    [in] a = MatMul(x, w) b = Relu(a) c = Add(a, b) d = Mul(c, n) [out] y = MatMul(d, v)"""
    arrays = {"w": floats(RNG, 6, 6), "v": floats(RNG, 6, 4)}
    model = load(graph("float[N,6] x => float[N,4] y", body, **arrays), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 48, 6))
    _shifted(model, "w", 0.2)
    assert "by kl" in _said(_distilled(model, context, features="auto"))
    with pytest.raises(PassError, match="one holds no floats"):
        _distilled(model, context, features=[{"student": "one", "teacher": "one"}])


def test_normalization_bears_a_step_of_one_sample_on_one_pixel(tmp_path: Path) -> None:
    body = """[one] a = Conv(x, k, b) r = Relu(a) p = GlobalAveragePool(r) [two] q = Conv(p, l, c) f = Flatten(q)
    [head] y = Gemm(f, w)"""
    arrays = {"k": floats(RNG, 6, 3, 3, 3), "b": floats(RNG, 6), "l": floats(RNG, 8, 6, 1, 1), "c": floats(RNG, 8)}
    model = load(graph("float[N,3,8,8] x => float[N,4] y", body, **arrays, w=floats(RNG, 8, 4)), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 19, 3, 8, 8))
    _distilled(model, context, batch_norm="restore", batch=17, steps=4, keep="last")
    model.save(tmp_path / "out.onnx")
    onnx.checker.check_model(str(tmp_path / "out.onnx"), full_check=True)


def test_float16_is_learned_in_finer_steps(tmp_path: Path) -> None:
    stored = {"w": floats(RNG, 8, 4).astype(np.float16), "b": np.zeros(4, np.float16)}
    model = load(graph("float16[N,8] x => float16[N,4] y", "[one] y = Gemm(x, w, b)", **stored), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 96, 8).astype(np.float16))
    _shifted(model, "b", 0.5)
    _distilled(model, context, loss="mse", steps=200, learning_rate=1e-2)
    after = _array(model, "b")
    assert after.dtype == np.float16
    assert np.abs(after).max() < 0.1


def test_normalization_by_batches_is_for_one_process(tmp_path: Path) -> None:
    model = _product(tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 48, 8))
    with pytest.raises(PassError, match="batch_norm: restore is for one process"):
        _distilled(model, context, workers=2, batch_norm="restore")


def test_augmentation_that_can_do_nothing_is_called_out(tmp_path: Path) -> None:
    body = "s = Add(x, offset) [one] y = Gemm(s, w)"
    model = load(graph("float[N,8] x, float[8] offset => float[N,4] y", body, w=floats(RNG, 8, 4)), tmp_path)
    data = RandomSource.model_validate({"samples": 48}).open(model, "data", 0)
    context = Context(model.copy(), data, 0, tmp_path, Silent(), 1, data, tmp_path / "checkpoints")
    found = _distilled(model, context, augment={"mixup": 1.0})
    assert any(isinstance(note, Note) and note.warning and "augment does nothing" in note.text for note in found)


def test_float16_may_be_scaled_alone(tmp_path: Path) -> None:
    stored = {"w": floats(RNG, 8, 4).astype(np.float16), "b": np.zeros(4, np.float16)}
    model = load(graph("float16[N,8] x => float16[N,4] y", "[one] y = Gemm(x, w, b)", **stored), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 96, 8).astype(np.float16))
    before = _array(model, "w")
    _shifted(model, "b", 0.5)
    _distilled(model, context, loss="mse", only="scales", steps=100, learning_rate=1e-2)
    assert _array(model, "w").dtype == np.float16
    assert np.corrcoef(_array(model, "w")[:, 0], before[:, 0])[0, 1] > 0.999
    assert np.abs(_array(model, "b")).max() < 0.3


def test_an_output_that_does_not_count_samples_is_never_taken_for_one_that_does(tmp_path: Path) -> None:
    """Of a single sample it has one row as well."""
    body = "[one] y = Gemm(x, w, b) total = ReduceMean<keepdims=1>(y, rows)"
    arrays = {"w": floats(RNG, 8, 4), "b": np.zeros(4, np.float32), "rows": np.int64([0])}
    model = load(graph("float[N,8] x => float[N,4] y, float[1,4] total", body, **arrays), tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 17, 8))
    _shifted(model, "b", 0.5)
    said = _said(_distilled(model, context, loss="mse", steps=None, epochs=4, batch=15))
    assert "y by mse, total by mse" in said


def test_a_short_warm_up_does_not_begin_above_the_peak(tmp_path: Path) -> None:
    model = _product(tmp_path)
    context = _context(model, tmp_path, x=floats(RNG, 48, 8))
    before = _array(model, "w")
    settings = {"optimizer": "adamw", "steps": 1, "warmup": 1e-4, "learning_rate": 1e-3, "keep": "last"}
    _shifted(model, "w", 0.3)
    _distilled(model, context, loss="mse", **settings)
    moved = np.abs(_array(model, "w") - (before + np.float32(0.3))).max()
    assert 0 < moved <= 1.01e-3  # one step of Adam is as long as its rate
