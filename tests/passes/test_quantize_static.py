"""quantize_static: the integers, scales and zero points in the written file are those of the definition."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.runtime import environment
from tests.cli import tiny
from tests.cli.calling import Values, done, refused, write_recipe
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


RANDOM = {"calibration": {"source": "random"}}
UNBOUND = {"cosine": -1}
"""`verify:` that lets everything finite through."""

LOW = {"w4a8": "4 bits", "w3a8": "3 bits", "w2a8": "2 bits", "ternary": "ternary", "binary": "binary"}


Low = tuple[Path, Values, str]
"""A folder with model.onnx and out.onnx, the report, and bits and granularity in words."""


def _computed(path: Path, layer: str) -> tiny.Array:
    """The int8 weight of a layer, as ONNX Runtime unpacks it."""
    model, (name, _, _) = onnx.load(path), Written(path).dequantized(layer, 1)
    stored = tiny.arrays_of(path)
    if name in stored:
        return stored[name]
    model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT8, None))
    onnx.save(model, path.with_name("looked_into.onnx"))
    return tiny.execute(path.with_name("looked_into.onnx"), {"x": tiny.normal(1, 3, 8, 8)})[-1]


@pytest.fixture(scope="module", params=[(s, g) for s in LOW for g in ("per_channel", "per_block")], ids=" ".join)
def low(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Low:
    """The same model in fewer bits, once for all tests."""
    scheme, granularity = request.param
    folder = tmp_path_factory.mktemp("low")
    step = STATIC | {"scheme": scheme, "weights": {"granularity": granularity, "block": 9}}
    report = passed(folder, {"type": "simplify"}, step, data=_calibrate(folder), verify=UNBOUND)
    return folder, report, f"{LOW[scheme]}, {'blocks of 9' if granularity == 'per_block' else granularity}"


def test_fewer_bits_run_in_the_same_kernels(low: Low) -> None:
    _, report, words = low
    result = report["result"]
    assert isinstance(result, dict)
    assert result["kernels"] == {"Conv": [2, 2], "MatMul": [1, 1]}
    details = {name: entry["detail"] for name, entry in entries(report, "changes").items()}
    assert details == dict.fromkeys(LAYERS, f"{words}, second_order; uint8 activations")


def test_the_packed_weight_is_the_one_that_is_reported(low: Low) -> None:
    folder, report, _ = low
    weight = tiny.arrays_of(folder / "model.onnx")["w2"]
    _, scale, _ = Written(folder / "out.onnx").dequantized("body", 1)
    integers = _computed(folder / "out.onnx", "body")
    assert (integers.dtype, integers.shape) == (np.int8, weight.shape)
    error = np.linalg.norm(integers * scale.reshape(-1, 1, 1, 1) - weight) / np.linalg.norm(weight)
    assert entries(report, "changes")["body"]["relative_error"] == pytest.approx(error, rel=1e-3)


def test_every_bias_is_on_the_grid_of_its_products_whatever_the_bits(low: Low) -> None:
    written = Written(low[0] / "out.onnx")
    for layer in LAYERS:
        (_, x_scale, _), (_, w_scale, _), (_, b_scale, _) = (written.dequantized(layer, i) for i in range(3))
        assert np.array_equal(b_scale, x_scale * w_scale)


@pytest.mark.parametrize("rounding", ["nearest", "second_order"])
@pytest.mark.parametrize("granularity", ["per_channel", "per_block"])
@pytest.mark.parametrize("scheme", ["w4a8", "w3a8", "binary"])
def test_a_bias_stands_out_from_weights_that_are_next_to_nothing(
    scheme: str, granularity: str, rounding: str, tmp_path: Path
) -> None:
    weight, bias = tiny.normal(8, 3, 3, 3) / 5, tiny.normal(8, seed=1)
    weight[::2] *= np.float32(1e-12)
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], "layer", pads=[1, 1, 1, 1])]
    inputs, results = [tiny.value("x", ["n", 3, 8, 8])], [tiny.value("y", ["n", 8, 8, 8])]
    tiny.write(tmp_path / "model.onnx", nodes, inputs, results, {"w": weight, "b": bias})
    np.savez(tmp_path / "data.npz", x=tiny.normal(20, 3, 8, 8, seed=5))
    data = {"calibration": {"source": "arrays", "path": "data.npz"}}
    weights = {"granularity": granularity, "rounding": rounding, "block": 9}
    passed(tmp_path, STATIC | {"scheme": scheme, "weights": weights}, data=data, verify=UNBOUND)
    found = tiny.execute(tmp_path / "out.onnx", {"x": tiny.normal(2, 3, 8, 8, seed=6)})[0]
    assert np.abs(found[:, ::2] - bias[::2, None, None]).max() < 0.05 * np.abs(found).max()


def test_blocks_err_less_where_inputs_differ(tmp_path: Path) -> None:
    tiny.cnn(tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    (stored,) = (i for i in model.graph.initializer if i.name == "w2")
    weight = numpy_helper.to_array(stored) * np.array([8, 4, 2, 1] * 2, np.float32).reshape(1, 8, 1, 1)
    stored.CopyFrom(numpy_helper.from_array(weight, "w2"))
    errors = []
    for granularity in ("per_channel", "per_block"):
        folder = tmp_path / granularity
        folder.mkdir()
        data = _calibrate(folder)
        onnx.save(model, folder / "model.onnx")
        step = STATIC | {"scheme": "w3a8", "weights": {"granularity": granularity, "block": 9, "rounding": "nearest"}}
        report = passed(folder, step, data=data, verify=UNBOUND)
        errors.append(float(str(entries(report, "changes")["body"]["relative_error"])))
    assert errors[1] < 0.8 * errors[0]


def test_second_order_makes_less_noise_than_nearest(tmp_path: Path) -> None:
    noise = {}
    for rounding in ("nearest", "second_order"):
        folder = tmp_path / rounding
        folder.mkdir()
        step = STATIC | {"scheme": "w3a8", "weights": {"rounding": rounding}}
        passed(folder, step, data=_calibrate(folder), verify=UNBOUND)
        x = tiny.normal(20, 3, 8, 8, seed=5)
        expected, found = (tiny.execute(folder / name, {"x": x})[0] for name in ("model.onnx", "out.onnx"))
        noise[rounding] = np.square(found - expected).sum()
    assert noise["second_order"] < 0.8 * noise["nearest"]


def test_inner_activations_of_four_bits_keep_to_sixteen_levels_in_the_same_kernels(tmp_path: Path) -> None:
    report = passed(tmp_path, STATIC | {"scheme": "w4a4"}, data=_calibrate(tmp_path), verify=UNBOUND)
    assert isinstance(result := report["result"], dict)
    assert result["kernels"] == {"Conv": [2, 2], "MatMul": [1, 1]}
    details = {name: str(entry["detail"]).rpartition("; ")[2] for name, entry in entries(report, "changes").items()}
    assert details == {"stem": "uint8 activations", **dict.fromkeys(("body", "head"), "activations of 4 bits")}
    model = onnx.load(tmp_path / "out.onnx")
    made_by = {name: node for node in model.graph.node for name in node.output}
    written = Written(tmp_path / "out.onnx")
    codes = {layer: written.dequantized(layer, 0)[0] for layer in LAYERS}
    for name in codes.values():
        model.graph.output.append(helper.make_tensor_value_info(name, TensorProto.UINT8, None))
    onnx.save(model, tmp_path / "looked_into.onnx")
    *_, stem, body, head = tiny.execute(tmp_path / "looked_into.onnx", {"x": 3 * tiny.normal(8, 3, 8, 8, seed=6)})
    assert made_by[codes["stem"]].op_type == "QuantizeLinear"
    assert stem.max() > 15
    assert body.max() <= head.max() == 15


def test_ranges_are_those_that_lose_least_at_sixteen_levels(tmp_path: Path) -> None:
    spans = {}
    for bits in (8, 4):
        (folder := tmp_path / str(bits)).mkdir()
        step = STATIC | {"activations": {"bits": bits}}
        passed(folder, step, data=_calibrate(folder), verify=UNBOUND)
        _, scale, _ = Written(folder / "out.onnx").dequantized("body", 0)
        spans[bits] = float(scale) * (2**bits - 1)
    assert spans[4] < 0.95 * spans[8]


@pytest.mark.parametrize("scheme", ["w3a8", "binary"])
def test_a_scheme_is_short_for_bits(scheme: str, tmp_path: Path) -> None:
    details = []
    tiny.mlp(tmp_path / "model.onnx")
    for step in ({"scheme": scheme}, {"weights": {"bits": 3 if scheme == "w3a8" else scheme}}):
        recipe = write_recipe(tmp_path, passes=[STATIC | step], data=RANDOM, verify=UNBOUND)
        report = done(tmp_path, "run", recipe, "--overwrite", "--json", "-").record()
        details.append({name: entry["detail"] for name, entry in entries(report, "changes").items()})
    assert details[0] == details[1]


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "w2a8"])
def test_reduced_integers_end_at_64_in_blocks_too(scheme: str, tmp_path: Path) -> None:
    granularity = "per_channel" if scheme == "w8a8" else "per_block"
    step = STATIC | {"scheme": scheme, "reduce_range": True, "weights": {"granularity": granularity, "block": 9}}
    passed(tmp_path, step, data=_calibrate(tmp_path), verify=UNBOUND)
    assert np.abs(_computed(tmp_path / "out.onnx", "body").astype(int)).max() <= 64


def test_the_first_override_that_selects_a_layer_counts_and_the_rest_is_as_for_all(tmp_path: Path) -> None:
    overrides = [{"targets": "stem", "bits": 8, "granularity": "per_channel"}, {"targets": ["s*", "head"], "bits": 2}]
    weights = {"bits": 4, "granularity": "per_block", "block": 9, "rounding": "nearest"}
    step = STATIC | {"weights": weights, "overrides": overrides}
    report = passed(tmp_path, step, data=_calibrate(tmp_path), verify=UNBOUND)
    details = {name: str(entry["detail"]).partition(";")[0] for name, entry in entries(report, "changes").items()}
    assert details == {
        "stem": "8 bits, per_channel, nearest",
        "body": "4 bits, blocks of 9, nearest",
        "head": "2 bits, blocks of 9, nearest",
    }


WRONG: dict[str, tuple[Values, tuple[str, ...]]] = {
    "two widths": ({"scheme": "w4a8", "weights": {"bits": 4}}, ("scheme or weights.bits, not both",)),
    "a scheme there is none of": ({"scheme": "w4a2"}, ("scheme", "w4a2")),
    "two widths of activations": (
        {"scheme": "w8a8", "activations": {"bits": 4}},
        ("scheme or activations.bits, not both",),
    ),
    "activations of 2 bits": ({"activations": {"bits": 2}}, ("activations.bits", "8 or 4")),
    "one step in 4 bits": ({"scheme": "w4a8", "weights": {"granularity": "per_tensor"}}, ("per_tensor", "per_channel")),
    "one step in second order": (
        {"weights": {"granularity": "per_tensor", "rounding": "second_order"}},
        ("per_tensor", "nearest"),
    ),
    "blocks of w8a8": ({"scheme": "w8a8", "weights": {"granularity": "per_block"}}, ("per_block", "less than 8 bits")),
    "blocks of 8 bits": ({"weights": {"bits": 8, "granularity": "per_block"}}, ("per_block", "less than 8 bits")),
    "an override of one step in 4 bits": (
        {"weights": {"granularity": "per_tensor"}, "overrides": [{"targets": "stem", "bits": 4}]},
        ("per_tensor",),
    ),
    "an override of nothing": ({"overrides": [{"bits": 4}]}, ("overrides.0.targets", "missing")),
    "half quadratic": ({"weights": {"rounding": "half_quadratic"}}, ("weights.rounding", "half_quadratic")),
    "bits there are none of": ({"weights": {"bits": 5}}, ("weights.bits", "5")),
    "a block too small": ({"weights": {"block": 3}}, ("weights.block", "greater than or equal to 4")),
    "a share nobody reads": ({"activations": {"observer": "mse", "percentile": 99}}, ("percentile", "mse")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_one_clear_line_before_anything_runs(case: str, tmp_path: Path) -> None:
    settings, says = WRONG[case]
    recipe = write_recipe(tmp_path, passes=[STATIC | settings], data=_calibrate(tmp_path))
    for command in ("check", "run"):
        assert len(refused(tmp_path, 2, command, recipe, says=("passes.0", *says))) == 1


@pytest.mark.parametrize("scheme", ["w8a8", "w4a8", "ternary"])
def test_what_is_quantized_is_not_quantized_again(scheme: str, tmp_path: Path) -> None:
    data = _calibrate(tmp_path)
    passed(tmp_path, STATIC | {"scheme": scheme}, data=data, verify=UNBOUND)
    (tmp_path / "out.onnx").replace(tmp_path / "model.onnx")
    for again in ("quantize_static", "quantize_weights"):
        recipe = write_recipe(tmp_path, passes=[{"type": again}], data=data)
        refused(tmp_path, 4, "run", recipe, says=("passes.0", "2 × Conv: quantized already"))


def test_what_libraries_say_to_their_authors_is_not_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], "layer", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Neg", ["r"], ["y"], "last"),
    ]
    shape = ["n", 3, 8, 8]
    arrays = {"w": tiny.normal(3, 3, 3, 3)}
    tiny.write(tmp_path / "model.onnx", nodes, [tiny.value("x", shape)], [tiny.value("y", shape)], arrays, opset=21)
    passed(tmp_path, STATIC, data=RANDOM)
    assert not caplog.records
