"""quantize_static: the integers, scales and zero points in the written file are those of the definition."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compressor.runtime import environment
from tests.cli import tiny
from tests.cli.calling import Values, refused, write_recipe
from tests.passes.findings import entries, passed, reasons

STATIC: Values = {"type": "quantize_static"}
COVERING: Values = STATIC | {"activations": {"observer": "min_max"}}


class Written:
    """A written model, looked at through the Q/DQ pairs in front of its layers."""

    def __init__(self, path: Path) -> None:
        self.arrays = tiny.arrays_of(path)
        self.nodes = {node.name: node for node in onnx.load(path).graph.node}
        self.made_by = {name: node for node in self.nodes.values() for name in node.output}

    def dequantized(self, layer: str, index: int) -> tuple[str, tiny.Array, tiny.Array | None]:
        """Source, scale and zero point of the DequantizeLinear that feeds an input of a layer."""
        node = self.made_by[self.nodes[layer].input[index]]
        assert node.op_type == "DequantizeLinear"
        zero = self.arrays[node.input[2]] if len(node.input) > 2 else None
        return node.input[0], self.arrays[node.input[1]], zero

    def integers(self, layer: str, index: int) -> tiny.Array:
        """The stored integers of a weight or a bias."""
        return self.arrays[self.dequantized(layer, index)[0]]


def _calibrate(folder: Path, model: str = "cnn", samples: tiny.Array | None = None) -> Values:
    getattr(tiny, model)(folder / "model.onnx")
    np.savez(folder / "data.npz", x=tiny.normal(20, 3, 8, 8, seed=5) if samples is None else samples)
    return {"calibration": {"source": "arrays", "path": "data.npz"}, "evaluation": {"source": "random", "samples": 4}}


LAYERS = ("stem", "body", "head")


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
def test_the_bias_is_int32_at_exactly_input_scale_times_weight_scale(tmp_path: Path, granularity: str) -> None:
    passed(tmp_path, STATIC | {"weights": {"granularity": granularity}}, data=_calibrate(tmp_path))
    written = Written(tmp_path / "out.onnx")
    for layer in LAYERS:
        _, x_scale, _ = written.dequantized(layer, 0)
        _, w_scale, _ = written.dequantized(layer, 1)
        _, b_scale, b_zero = written.dequantized(layer, 2)
        assert written.integers(layer, 2).dtype == np.int32
        assert b_zero is None or not b_zero.any()
        assert x_scale.dtype == w_scale.dtype == b_scale.dtype == np.float32
        assert np.array_equal(b_scale, np.broadcast_to(x_scale * w_scale, b_scale.shape))


def test_the_bias_integers_stand_for_the_bias(tmp_path: Path) -> None:
    passed(tmp_path, STATIC, data=_calibrate(tmp_path))
    written = Written(tmp_path / "out.onnx")
    bias = tiny.arrays_of(tmp_path / "model.onnx")["b2"]
    _, scale, _ = written.dequantized("body", 2)
    assert (np.abs(written.integers("body", 2) * scale - bias) <= scale / 2 * (1 + 1e-4)).all()


@pytest.mark.parametrize(("granularity", "scales"), [("per_channel", 8), ("per_tensor", 1)])
def test_weights_are_int8_around_zero_with_one_scale_per_grid(tmp_path: Path, granularity: str, scales: int) -> None:
    passed(tmp_path, STATIC | {"weights": {"granularity": granularity}}, data=_calibrate(tmp_path))
    written = Written(tmp_path / "out.onnx")
    integers, (_, scale, zero) = written.integers("body", 1), written.dequantized("body", 1)
    weight = tiny.arrays_of(tmp_path / "model.onnx")["w2"]
    assert integers.dtype == np.int8
    assert integers.shape == weight.shape
    assert scale.size == scales
    assert zero is None or not zero.any()
    step = scale.reshape(-1, 1, 1, 1)
    assert (np.abs(integers * step - weight) <= step / 2 * (1 + 1e-4)).all()


def test_activations_are_uint8_and_their_grid_spans_the_calibration_data(tmp_path: Path) -> None:
    samples = tiny.normal(20, 3, 8, 8, seed=5)
    samples[3, 0, 0, 0], samples[7, 1, 2, 3] = -6, 9
    passed(tmp_path, COVERING, data=_calibrate(tmp_path, samples=samples))
    _, scale, zero = Written(tmp_path / "out.onnx").dequantized("stem", 0)
    assert zero is not None
    assert zero.dtype == np.uint8
    assert scale == pytest.approx((9 - -6) / 255, rel=1e-6)
    assert int(zero) == round(6 / float(scale))


@pytest.mark.parametrize(("low", "high"), [(2, 5), (-5, -2)])
def test_zero_is_always_on_the_grid(tmp_path: Path, low: int, high: int) -> None:
    samples = np.random.default_rng(0).uniform(low, high, (20, 3, 8, 8)).astype(np.float32)
    samples.flat[0], samples.flat[-1] = low, high
    passed(tmp_path, COVERING, data=_calibrate(tmp_path, samples=samples), verify={"cosine": -1})
    _, scale, zero = Written(tmp_path / "out.onnx").dequantized("stem", 0)
    assert scale == pytest.approx(5 / 255, rel=1e-6)
    assert int(zero or 0) == (0 if low > 0 else 255)


def test_every_layer_runs_in_an_integer_kernel(tmp_path: Path) -> None:
    report = passed(tmp_path, {"type": "simplify"}, STATIC, data=_calibrate(tmp_path))
    assert isinstance(result := report["result"], dict)
    assert result["kernels"] == {"Conv": [2, 2], "MatMul": [1, 1]}
    assert set(entries(report, "changes")) == set(LAYERS)


def test_the_result_computes_nearly_the_same(tmp_path: Path) -> None:
    passed(tmp_path, STATIC, data=_calibrate(tmp_path))
    x = tiny.normal(8, 3, 8, 8, seed=6)
    expected, found = (tiny.execute(tmp_path / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
    assert np.linalg.norm(found - expected) < 0.1 * np.linalg.norm(expected)


def test_the_reported_error_is_that_of_the_stored_weight(tmp_path: Path) -> None:
    report = passed(tmp_path, STATIC, data=_calibrate(tmp_path))
    written = Written(tmp_path / "out.onnx")
    _, scale, _ = written.dequantized("body", 1)
    weight = tiny.arrays_of(tmp_path / "model.onnx")["w2"]
    error = np.linalg.norm(written.integers("body", 1) * scale.reshape(-1, 1, 1, 1) - weight) / np.linalg.norm(weight)
    assert entries(report, "changes")["body"]["relative_error"] == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "word"),
    [
        ("lstm.W", "recurrent"),
        ("lstm.R", "recurrent"),
        ("up", "ConvTranspose"),
        ("inside", "If"),
        ("embedding", "embedding"),
    ],
)
def test_what_cannot_run_in_int8_is_skipped_with_the_reason(tmp_path: Path, layer: str, word: str) -> None:
    tiny.mixed(tmp_path / "model.onnx")
    report = passed(tmp_path, STATIC, data={"calibration": {"source": "random"}}, verify={"cosine": -1})
    assert word in reasons(report)[layer]


def test_float16_is_skipped_with_the_reason(tmp_path: Path) -> None:
    half = TensorProto.FLOAT16
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "layer")]
    inputs, outputs = [tiny.value("x", [1, 4], half)], [tiny.value("y", [1, 4], half)]
    tiny.write(tmp_path / "model.onnx", nodes, inputs, outputs, {"w": tiny.normal(4, 4).astype(np.float16)})
    recipe = write_recipe(tmp_path, passes=[STATIC], data={"calibration": {"source": "random"}})
    refused(tmp_path, 4, "run", recipe, says=("1 × MatMul", "float16"))


def test_without_calibration_data_it_is_refused_before_the_work(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    recipe = write_recipe(tmp_path, passes=[STATIC])
    for command in ("check", "run"):
        refused(tmp_path, 2, command, recipe, says=("passes.0", "quantize_static", "data.calibration"))


@pytest.mark.parametrize("reduce_range", [False, True])
def test_weights_end_at_64_where_pairs_of_products_must_fit_into_16_bits(tmp_path: Path, reduce_range: bool) -> None:
    tiny.mlp(tmp_path / "model.onnx")
    data = {"calibration": {"source": "random"}}
    report = passed(tmp_path, {"type": "quantize_static", "reduce_range": reduce_range}, data=data)
    stored = [a for a in tiny.arrays_of(tmp_path / "out.onnx").values() if a.dtype == np.int8 and a.ndim == 2]
    assert [int(np.abs(array).max()) for array in stored] == [64 if reduce_range else 127] * 2
    assert entries(report, "changes").keys() == {"first", "second"}


@pytest.mark.parametrize(
    ("flags", "reduce_range", "warned"), [("avx2", False, 1), ("avx2", True, 0), ("avx_vnni", False, 0)]
)
def test_a_processor_whose_sums_saturate_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str, reduce_range: bool, warned: int
) -> None:
    (tmp_path / "cpuinfo").write_text(f"flags : {flags}\n")
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "cpuinfo")
    tiny.mlp(tmp_path / "model.onnx")
    step: Values = {"type": "quantize_static", "reduce_range": reduce_range}
    report = passed(tmp_path, step, data={"calibration": {"source": "random"}})
    assert isinstance(found := report["warnings"], list)
    assert sum("VNNI" in str(text) and "reduce_range" in str(text) for text in found) == warned


@pytest.mark.parametrize("observer", ["min_max", "mean_min_max", "percentile", "entropy", "mse"])
def test_every_observer_gives_finite_steps_no_wider_than_the_extremes_need(tmp_path: Path, observer: str) -> None:
    samples = tiny.normal(40, 3, 8, 8, seed=5)
    data = _calibrate(tmp_path, samples=samples)
    passed(tmp_path, STATIC | {"activations": {"observer": observer}}, data=data)
    _, scale, _ = Written(tmp_path / "out.onnx").dequantized("stem", 0)
    assert 0.5 < float(scale) * 255 / np.ptp(samples) <= 1 + 1e-6


def test_a_lower_percentile_gives_finer_steps(tmp_path: Path) -> None:
    data, scales = _calibrate(tmp_path, samples=tiny.normal(40, 3, 8, 8, seed=5)), []
    for percentile in (100, 99.9, 95):
        settings = {"observer": "percentile", "percentile": percentile}
        passed(tmp_path, STATIC | {"activations": settings}, data=data, verify={"cosine": -1})
        scales.append(float(Written(tmp_path / "out.onnx").dequantized("stem", 0)[1]))
        (tmp_path / "out.onnx").unlink()
    assert scales == sorted(scales, reverse=True)
    assert scales[-1] == pytest.approx(2 * 1.96 / 255, rel=0.1)


def test_a_percentile_for_another_observer_is_refused(tmp_path: Path) -> None:
    data = _calibrate(tmp_path)
    recipe = write_recipe(tmp_path, passes=[STATIC | {"activations": {"observer": "mse", "percentile": 99}}], data=data)
    refused(tmp_path, 2, "check", recipe, says=("percentile", "observer mse"))
