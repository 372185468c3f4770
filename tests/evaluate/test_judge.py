"""How far a model has drifted: against NumPy over all outputs at once, and what it leaves behind."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.data import ArraysSource, Dataset
from compressor.errors import PassError, VerificationError
from compressor.evaluate import judge as judging
from compressor.evaluate.judge import Judge
from compressor.passes import Context
from compressor.progress import Silent
from tests.models import Array, Floats, array, floats, graph, load, run

RNG = np.random.default_rng(21)
X, W, NOISE = floats(RNG, 10, 4), floats(RNG, 4, 3), floats(RNG, 4, 3) / 5
SCORES = "float[N,4] x => float[N,3] y"


def _data(folder: Path, proto: onnx.ModelProto, batch: int | None = 3, **inputs: Array) -> Dataset:
    np.savez(folder / "data.npz", allow_pickle=True, **(inputs or {"x": X}))
    source = ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch})
    return source.open(load(proto, folder), "data", 0)


def _judge(folder: Path, proto: onnx.ModelProto, samples: int = 256, batch: int | None = 3, **inputs: Array) -> Judge:
    return Judge(load(proto, folder), _data(folder, proto, batch, **inputs), folder, 1, samples)


def _kl(reference: Array, other: Array) -> float:
    """Mean over all but the last axis, by the definition."""
    p, q = (np.exp(a.astype(np.float64)) for a in (reference, other))
    p, q = (a / a.sum(axis=-1, keepdims=True) for a in (p, q))
    return float((p * np.log(p / q)).sum(axis=-1).mean())


def _noise(reference: Array, other: Array) -> float:
    """Relative power of the difference."""
    return float(np.square(reference.astype(np.float64) - other).sum() / np.square(reference.astype(np.float64)).sum())


def _pair(signature: str, body: str, **arrays: Floats) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model with weights w, and the same one with other weights."""
    noisy = arrays | {"w": arrays["w"] + np.resize(NOISE, arrays["w"].shape)}
    return graph(signature, body, **arrays), graph(signature, body, **noisy)


@pytest.mark.parametrize("batch", [1, 3, 10])
def test_drift_of_class_scores_is_the_mean_divergence_however_samples_fall_into_batches(
    tmp_path: Path, batch: int
) -> None:
    reference, other = _pair(SCORES, "y = MatMul(x, w)", w=W)
    found = _judge(tmp_path, reference, batch=batch).drift(load(other, tmp_path))
    assert found == pytest.approx(_kl(run(reference, {"x": X})["y"], run(other, {"x": X})["y"]), rel=1e-5)


def test_drift_of_logits_is_the_mean_divergence_over_all_positions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_COMPARED_ENTRIES", 50)
    body = "h = Gather(table, ids)  y = MatMul(h, w)"
    reference, other = _pair("int64[N,5] ids => float[N,5,12] y", body, table=floats(RNG, 12, 4), w=floats(RNG, 4, 12))
    ids = RNG.integers(0, 12, (7, 5))
    found = _judge(tmp_path, reference, ids=ids).drift(load(other, tmp_path))
    assert found == pytest.approx(_kl(run(reference, {"ids": ids})["y"], run(other, {"ids": ids})["y"]), rel=1e-5)


NOT_SCORES = {
    "three axes that are no vocabulary": (
        "float[N,5,3] y",
        "h = Unsqueeze(x, at)  e = Expand(h, to)  y = MatMul(e, w)",
    ),
    "one column": ("float[N,1] y", "h = MatMul(x, w)  y = ReduceSum<keepdims=1>(h, at)"),
    "unit vectors": ("float[N,3] y", "h = MatMul(x, w)  n = ReduceL2<keepdims=1>(h, at)  y = Div(h, n)"),
}


@pytest.mark.parametrize("case", NOT_SCORES)
def test_drift_of_anything_else_is_the_relative_power_of_the_noise(tmp_path: Path, case: str) -> None:
    output, body = NOT_SCORES[case]
    reference, other = _pair(
        f"float[N,4] x => {output}", body, w=W, at=np.array([1], np.int64), to=np.array([1, 5, 1], np.int64)
    )
    found = _judge(tmp_path, reference).drift(load(other, tmp_path))
    assert found == pytest.approx(_noise(run(reference, {"x": X})["y"], run(other, {"x": X})["y"]), rel=1e-5)


def test_several_outputs_add_up_and_integers_count_the_differing_entries(tmp_path: Path) -> None:
    signature = "float[N,4] x => float[N,3] y, int64[N] best, float[N,3,1] z"
    body = "y = MatMul(x, w)  best = ArgMax<axis=1, keepdims=0>(y)  z = Unsqueeze(y, at)"
    reference, other = _pair(signature, body, w=W, at=np.array([2], np.int64))
    before, after = run(reference, {"x": X}), run(other, {"x": X})
    expected = _kl(before["y"], after["y"]) + (before["best"] != after["best"]).mean() + _noise(before["z"], after["z"])
    assert _judge(tmp_path, reference).drift(load(other, tmp_path)) == pytest.approx(expected, rel=1e-5)


def test_the_reference_has_not_drifted_and_more_noise_drifts_farther(tmp_path: Path) -> None:
    models = [graph(SCORES, "y = MatMul(x, w)", w=W + share * NOISE) for share in array([0, 0.25, 0.5, 1])]
    judge = _judge(tmp_path, models[0])
    drifts = [judge.drift(load(model, tmp_path)) for model in models]
    assert drifts[0] == 0
    assert drifts == sorted(set(drifts))


def test_the_same_question_gets_the_same_answer(tmp_path: Path) -> None:
    reference, other = _pair(SCORES, "y = MatMul(x, w)", w=W)
    judge = _judge(tmp_path, reference)
    assert judge.drift(load(other, tmp_path)) == judge.drift(load(other, tmp_path))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_has_drifted_infinitely(tmp_path: Path, bad: float) -> None:
    broken = W.copy()
    broken[0, 0] = bad
    reference, other = (graph(SCORES, "y = MatMul(x, w)", w=w) for w in (W, broken))
    assert _judge(tmp_path, reference).drift(load(other, tmp_path)) == np.inf


def test_random_outputs_are_left_out(tmp_path: Path) -> None:
    signature = "float[N,4] x => float[N,3] y, float[N,4] noise"
    reference = graph(signature, "y = MatMul(x, w)  noise = RandomNormalLike(x)", w=W)
    assert _judge(tmp_path, reference).drift(load(reference, tmp_path)) == 0


def test_a_model_with_nothing_to_judge_by_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="random or text"):
        _judge(tmp_path, graph("float[N,4] x => float[N,4] y", "y = RandomNormalLike(x)"))


def test_an_output_of_another_shape_counts_as_zeros(tmp_path: Path) -> None:
    reference, longer = (
        graph("float[N,4] x => float[N,M,1] y", "z = Unsqueeze(x, at)  y = Concat<axis=1>(" + parts, at=np.array([2]))
        for parts in ("z, z)", "z, z, z)")
    )
    assert _judge(tmp_path, reference).drift(load(longer, tmp_path)) == pytest.approx(1)


def test_a_model_that_does_not_run_is_named_as_the_fault(tmp_path: Path) -> None:
    reference = graph(SCORES, "y = MatMul(x, w)", w=W)
    other = graph(SCORES, "y = MatMul(x, w)", w=floats(RNG, 5, 3))
    with pytest.raises(VerificationError, match="where the reference does"):
        _judge(tmp_path, reference).drift(load(other, tmp_path))


def test_enough_samples_are_enough_in_whole_batches(tmp_path: Path) -> None:
    reference, other = _pair(SCORES, "y = MatMul(x, w)", w=W)
    judge = _judge(tmp_path, reference, samples=5)
    first_six = {"x": X[:6]}
    expected = _kl(run(reference, first_six)["y"], run(other, first_six)["y"])
    assert judge.drift(load(other, tmp_path)) == pytest.approx(expected, rel=1e-5)


def test_what_is_kept_on_disk_is_bounded_and_goes_with_the_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "_KEPT_BYTES", 1)
    reference = graph(SCORES, "y = MatMul(x, w)", w=W)
    judge = _judge(tmp_path, reference)
    assert [file.name for file in tmp_path.glob("judge-*/*")] == ["0.npz"]
    del judge
    assert not list(tmp_path.glob("judge-*"))


def test_a_question_leaves_no_model_behind(tmp_path: Path) -> None:
    reference, other = _pair(SCORES, "y = MatMul(x, w)", w=W)
    judge = _judge(tmp_path, reference)
    judge.drift(load(other, tmp_path))
    assert {file.suffix for file in tmp_path.glob("judge-*/*")} == {".npz"}


def test_passes_share_one_judge(tmp_path: Path) -> None:
    reference = graph(SCORES, "y = MatMul(x, w)", w=W)
    context = Context(load(reference, tmp_path), _data(tmp_path, reference), 0, tmp_path, Silent(), 1)
    assert context.judge is context.judge


def test_without_sample_data_there_is_no_judge(tmp_path: Path) -> None:
    reference = graph(SCORES, "y = MatMul(x, w)", w=W)
    context = Context(load(reference, tmp_path), None, 0, tmp_path, Silent(), 1)
    with pytest.raises(PassError, match=r"give data\.calibration"):
        _ = context.judge
