"""Two models over the same data."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource, Dataset
from compressor.errors import DataError, VerificationError
from compressor.evaluate import compare_outputs, evaluate
from compressor.evaluate.compare import OTHER_SHAPE, RANDOM_OUTPUT
from compressor.progress import Silent
from compressor.runtime.ort import Session
from tests.models import Array, decibels, floats, graph, load, run, write

RNG = np.random.default_rng(6)
X, W = floats(RNG, 10, 4), floats(RNG, 4, 3)
MODEL = graph("float[N,4] x => float[N,3] y", "y = MatMul(x, w)", w=W)
ROUNDED = graph("float[N,4] x => float[N,3] y", "y = MatMul(x, w)", w=np.round(4 * W) / np.float32(4))


def _session(proto: onnx.ModelProto, folder: Path, name: str) -> Session:
    return Session(write(proto, folder / f"{name}.onnx"))


def _data(folder: Path, proto: onnx.ModelProto = MODEL, batch: int | None = 3, **more: Array) -> Dataset:
    np.savez(folder / "data.npz", allow_pickle=True, x=X, **more)
    settings = {"path": folder / "data.npz", "batch": batch, "labels": next(iter(more), None)}
    return ArraysSource.model_validate(settings).open(load(proto, folder), "data", 0)


def test_fidelity_and_accuracy_are_those_of_all_samples(tmp_path: Path) -> None:
    labels = RNG.integers(0, 3, 10)
    sessions = _session(MODEL, tmp_path, "a"), _session(ROUNDED, tmp_path, "b")
    fidelity, accuracy = evaluate(*sessions, _data(tmp_path, t=labels), ", seen", "top1", Silent())
    before, after = (run(proto, {"x": X})["y"] for proto in (MODEL, ROUNDED))
    assert accuracy is not None
    assert accuracy.reference == pytest.approx((before.argmax(1) == labels).mean())
    assert accuracy.result == pytest.approx((after.argmax(1) == labels).mean())
    (output,) = fidelity.outputs
    assert output.agreement == pytest.approx((before.argmax(1) == after.argmax(1)).mean())
    assert output.sqnr_db == pytest.approx(decibels(before, after), abs=1e-3)
    assert (fidelity.samples, fidelity.data) == (10, "data.npz, seen")


def test_a_fixed_batch_that_is_filled_up_gives_the_figures_of_the_samples_alone(tmp_path: Path) -> None:
    labels = RNG.integers(0, 3, 10)
    fixed = graph("float[8,4] x => float[8,3] y", "y = MatMul(x, w)", w=W)
    rounded = graph("float[8,4] x => float[8,3] y", "y = MatMul(x, w)", w=np.round(W))
    sessions = _session(fixed, tmp_path, "a"), _session(rounded, tmp_path, "b")
    fidelity, accuracy = evaluate(*sessions, _data(tmp_path, fixed, None, t=labels), "", "top1", Silent())
    scores = run(MODEL, {"x": X})["y"]
    assert accuracy is not None
    assert accuracy.reference == pytest.approx((scores.argmax(1) == labels).mean())
    assert fidelity.samples == accuracy.samples == 10


def test_the_first_batches_may_be_compared_alone(tmp_path: Path) -> None:
    sessions = _session(MODEL, tmp_path, "a"), _session(ROUNDED, tmp_path, "b")
    fidelity = compare_outputs(*sessions, _data(tmp_path), 2, "")
    before, after = (run(proto, {"x": X[:6]})["y"] for proto in (MODEL, ROUNDED))
    assert fidelity.samples == 6
    assert fidelity.outputs[0].sqnr_db == pytest.approx(decibels(before, after), abs=1e-3)


def test_random_outputs_and_outputs_of_another_shape_are_left_out_with_a_reason(tmp_path: Path) -> None:
    signature = "float[N,4] x => float[N,4] y, float[N,4] noise, int64[2,found] shaped"
    body = "y = Relu(x)  noise = RandomNormalLike(x)  z = Relu(x)  shaped = NonZero(z)"
    reference = graph(signature, body)
    result = graph(signature, body.replace("z = Relu(x)", "n = Neg(x)  z = Relu(n)"))
    sessions = _session(reference, tmp_path, "a"), _session(result, tmp_path, "b")
    fidelity = compare_outputs(*sessions, _data(tmp_path, reference), 9, "")
    assert [output.output for output in fidelity.outputs] == ["y"]
    assert fidelity.ignored == {"noise": RANDOM_OUTPUT, "shaped": OTHER_SHAPE}


@pytest.mark.parametrize(("before", "after"), [("Identity(x)", "Unsqueeze(x, zero)"), ("Identity(x)", "MatMul(x, w)")])
def test_another_shape_than_the_model_says_is_no_result(tmp_path: Path, before: str, after: str) -> None:
    one, other = (
        graph(f"float[N,4] x => float[{shape}] y", f"y = {body}", w=W, zero=np.array([0]))
        for body, shape in ((before, "N,4"), (after, "?,?,?" if "Unsqueeze" in after else "?,?"))
    )
    with pytest.raises(VerificationError, match=r"y: the result makes \[.*\] where the reference makes \[3, 4\]"):
        compare_outputs(_session(one, tmp_path, "a"), _session(other, tmp_path, "b"), _data(tmp_path), 9, "")


def test_a_metric_without_labels_is_an_error(tmp_path: Path) -> None:
    sessions = _session(MODEL, tmp_path, "a"), _session(ROUNDED, tmp_path, "b")
    with pytest.raises(DataError, match="metric top1 needs labels"):
        evaluate(*sessions, _data(tmp_path), "", "top1", Silent())


def test_a_model_that_breaks_down_is_flagged(tmp_path: Path) -> None:
    broken = graph("float[N,4] x => float[N,3] y", "h = MatMul(x, w)  y = Log(h)", w=W)
    fidelity = compare_outputs(_session(MODEL, tmp_path, "a"), _session(broken, tmp_path, "b"), _data(tmp_path), 9, "")
    assert not fidelity.outputs[0].finite
    assert not np.isfinite(run(broken, {"x": X})["y"]).all()
