"""An LSTM in integers computes nearly what it did, whatever it is made of; what cannot be one says why."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.graph.edit import settle
from compressor.graph.model import Model
from compressor.graph.recurrent import insert_recurrent, is_alone, lstm_refusal, partner, slower_lstm
from compressor.graph.refusals import already_quantized, dynamic_refusal
from compressor.graph.verify import check_file, check_signature
from compressor.graph.weights import Weight
from compressor.numerics.affine import Granularity, PerChannel, PerTensor, symmetric_grid
from tests.models import Array, Floats, decibels, floats, graph, load, outputs, run

RNG = np.random.default_rng(0)
STEPS, BATCH, INPUTS, HIDDEN = 7, 3, 10, 6
BODY = "[rnn] y, h, c = LSTM<{attributes}>(x, w, r{others})"


def _lstm(attributes: str = "", others: str = "", directions: int = 1, **arrays: Array) -> onnx.ModelProto:
    """All three outputs of an LSTM of 6 hidden entries over float[7, 3, 10] x."""
    dims = f"float[{STEPS},{directions},{BATCH},{HIDDEN}] y", f"float[{directions},{BATCH},{HIDDEN}]"
    body = BODY.format(attributes=f"hidden_size={HIDDEN}{attributes}", others=others)
    weights = {"w": _uniform(directions, 4 * HIDDEN, INPUTS), "r": _uniform(directions, 4 * HIDDEN, HIDDEN)}
    signature = f"float[{STEPS},{BATCH},{INPUTS}] x => {dims[0]}, {dims[1]} h, {dims[1]} c"
    return graph(signature, body, **weights, **arrays)


def _uniform(*shape: int) -> Floats:
    return RNG.uniform(-0.6, 0.6, shape).astype(np.float32)


def _quantize(model: Model, granularity: Granularity) -> None:
    for weight in [w for w in model.weights() if w.layer == "LSTM"]:
        matrix = weight.matrix()
        grid = symmetric_grid(matrix, granularity)
        insert_recurrent(weight, grid.quantize(matrix), grid.scale)
    settle(model.ir)


STATES = {"h0": floats(RNG, 1, BATCH, HIDDEN), "c0": floats(RNG, 1, BATCH, HIDDEN)}
LENGTHS = {"lengths": np.array([7, 2, 4], np.int32)}
CASES: dict[str, onnx.ModelProto] = {
    "plain": _lstm(),
    "bias": _lstm(others=", b", b=_uniform(1, 8 * HIDDEN)),
    "backwards": _lstm(', direction="reverse"'),
    "both ways": _lstm(', direction="bidirectional"', ", b", 2, b=_uniform(2, 8 * HIDDEN)),
    "initial states": _lstm(others=", , , h0, c0", **STATES),
    "lengths": _lstm(others=", , lengths", **LENGTHS),
    "lengths backwards": _lstm(', direction="reverse"', ", , lengths", **LENGTHS),
    "peepholes": _lstm(others=", , , , , p", p=_uniform(1, 3 * HIDDEN)),
    "everything": _lstm(
        others=", b, lengths, h0, c0, p", b=_uniform(1, 8 * HIDDEN), p=_uniform(1, 18), **STATES, **LENGTHS
    ),
    "other activations": _lstm(', activations=["HardSigmoid", "Softsign", "Relu"]'),
    "clipped": _lstm(", clip=0.5"),
    "coupled gates": _lstm(", input_forget=1"),
    "layout given": _lstm(", layout=0"),
}


@pytest.mark.parametrize("granularity", [PerChannel(0), PerTensor()], ids=["per_channel", "per_tensor"])
@pytest.mark.parametrize("case", CASES)
def test_the_integer_operator_computes_nearly_the_same(case: str, granularity: Granularity, tmp_path: Path) -> None:
    model = load(CASES[case], tmp_path)
    x = {"x": floats(RNG, STEPS, BATCH, INPUTS)}
    _quantize(model, granularity)
    found = outputs(model, x, tmp_path)
    assert [(n.op_type, n.domain, n.name) for n in model.ir.graph] == [("DynamicQuantizeLSTM", "com.microsoft", "rnn")]
    for name, expected in run(CASES[case], x).items():
        assert decibels(expected, found[name]) > 30


def test_the_file_is_valid_and_keeps_its_signature(tmp_path: Path) -> None:
    body = """y, h = LSTM<hidden_size=6>(x, w, r)  s = Squeeze(h, axes)  z = MatMul(s, v)"""
    arrays = {"w": _uniform(1, 24, 10), "r": _uniform(1, 24, 6), "v": _uniform(6, 2), "axes": np.array([0])}
    model = load(graph("float[S,B,10] x => float[B,2] z", body, **arrays), tmp_path)
    reference = model.copy()
    _quantize(model, PerChannel(0))
    model.save(tmp_path / "out.onnx")
    check_file(tmp_path / "out.onnx")
    check_signature(reference, Model.load(tmp_path / "out.onnx"))


def test_weights_are_stored_transposed_with_one_scale_per_output_channel(tmp_path: Path) -> None:
    proto = _lstm(', direction="bidirectional"', directions=2)
    model = load(proto, tmp_path)
    _quantize(model, PerChannel(0))
    model.save(tmp_path / "out.onnx")
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(tmp_path / "out.onnx").graph.initializer}
    for name, inputs in (("w", INPUTS), ("r", HIDDEN)):
        before = onnx.numpy_helper.to_array(next(i for i in proto.graph.initializer if i.name == name))
        integers, scale = stored[f"{name}_quantized"], stored[f"{name}_scale"]
        assert integers.shape == (2, inputs, 4 * HIDDEN)
        assert scale.shape == stored[f"{name}_zero_point"].shape == (2, 4 * HIDDEN)
        real = integers.transpose(0, 2, 1) * scale[..., np.newaxis]
        assert (np.abs(real - before) <= scale[..., np.newaxis] / 2 * (1 + 1e-5)).all()
    assert not {"w", "r"} & stored.keys()


SHARED = '[a] y = LSTM<hidden_size=6>(x, w, r)  [b] z = LSTM<hidden_size=6, direction="reverse">(x, w, r)'


def test_two_layers_that_share_both_weights_share_their_integers(tmp_path: Path) -> None:
    arrays = {"w": _uniform(1, 24, 10), "r": _uniform(1, 24, 6)}
    proto = graph("float[4,1,10] x => float[4,1,1,6] y, float[4,1,1,6] z", SHARED, **arrays)
    model, x = load(proto, tmp_path), {"x": floats(RNG, 4, 1, 10)}
    _quantize(model, PerChannel(0))
    found = outputs(model, x, tmp_path)
    assert sorted(model.ir.graph.initializers) == sorted(
        f"{name}_{part}" for name in "wr" for part in ("quantized", "scale", "zero_point")
    )
    assert all(decibels(expected, found[name]) > 30 for name, expected in run(proto, x).items())


def test_what_was_quantized_is_counted_as_such(tmp_path: Path) -> None:
    model = load(_lstm(), tmp_path)
    before = model.parameters()
    _quantize(model, PerChannel(0))
    assert model.parameters() == before
    assert list(already_quantized(model)) == [("rnn", "DynamicQuantizeLSTM")]
    assert not list(model.weights())


LAYERS: dict[str, tuple[str, str]] = {
    "computed": ("s = Neg(r)  y = LSTM<hidden_size=6>(x, w, s)", "computed or shared"),
    "W with another R": (
        "t = LSTM<hidden_size=6>(x, w, r)  u = LSTM<hidden_size=6>(x, w, q)  y = Add(t, u)",
        "computed or shared",
    ),
    "R read elsewhere": ("t = LSTM<hidden_size=6>(x, w, r)  n = ReduceMax(r)  y = Add(t, n)", "computed or shared"),
    "layout": ("t = LSTM<hidden_size=6, layout=1>(x, w, r)  y = Transpose(t)", "layout 1"),
}


@pytest.mark.parametrize("case", LAYERS)
def test_both_weights_are_refused_or_none(case: str, tmp_path: Path) -> None:
    body, reason = LAYERS[case]
    arrays = {"w": _uniform(1, 24, 10), "r": _uniform(1, 24, 6), "q": _uniform(1, 24, 6)}
    found = list(load(graph("float[4,1,10] x => float[4,1,1,6] y", body, **arrays), tmp_path).weights())
    assert found
    assert all(reason in str(dynamic_refusal(weight)) for weight in found)


def _pair(folder: Path, inputs: int, hidden: int, steps: int | str = "S") -> list[Weight]:
    arrays = {"w": _uniform(1, 4 * hidden, inputs), "r": _uniform(1, 4 * hidden, hidden)}
    body = f"y = LSTM<hidden_size={hidden}>(x, w, r)"
    signature = f"float[{steps},1,{inputs}] x => float[{steps},1,1,{hidden}] y"
    return list(load(graph(signature, body, **arrays), folder).weights())


def test_the_partner_of_each_weight_is_the_other(tmp_path: Path) -> None:
    w, r = _pair(tmp_path, 10, 6)
    assert partner(w) is r.value
    assert partner(r) is w.value
    assert lstm_refusal(w) is lstm_refusal(r) is None
    assert is_alone(w, [w])
    assert not is_alone(w, [w, r])


@pytest.mark.parametrize(
    ("inputs", "hidden", "steps", "faster"),
    [(64, 64, "S", True), (32, 32, "S", False), (64, 64, 16, True), (64, 64, 1, False), (128, 128, 1, True)],
)
def test_an_lstm_gets_faster_from_a_size_on(
    inputs: int, hidden: int, steps: int | str, faster: bool, tmp_path: Path
) -> None:
    reasons = [slower_lstm(weight) for weight in _pair(tmp_path, inputs, hidden, steps)]
    assert (reasons == [None, None]) == faster
    assert faster or all(str(4 * hidden * (inputs + hidden)) in str(reason) for reason in reasons)
