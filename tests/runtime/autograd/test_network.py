"""A network: what it trains, how it behaves in training, and how it gets back into the model."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from compressor.errors import ModelError
from compressor.graph.model import Model
from compressor.runtime.autograd import Network, write_back
from tests.models import Array, graph, load, run

RNG = np.random.default_rng(3)


def _floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def _ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


TWICE = graph(
    "float[N,4] x => float[N,4] y",
    """a = LayerNormalization (x, one, zero)
       b = MatMul (a, w)
       c = LayerNormalization (b, one, zero)
       d = MatMul (c, w)
       y = Add (d, zero)""",
    one=_ones(4),
    zero=np.zeros(4, np.float32),
    w=_floats(4, 4),
)
"""Both normalizations read the same ones and zeros, and both products the same matrix."""


def test_merged_vectors_are_trained_apart_and_shared_matrices_together(tmp_path: Path) -> None:
    network = Network(load(TWICE, tmp_path))
    assert {name: tuple(p.shape) for name, p in network.trained.items()} == {
        "one": (4,),
        "one_untied": (4,),
        "zero": (4,),
        "zero_untied": (4,),
        "zero_untied_1": (4,),
        "w": (4, 4),
    }


def test_what_is_written_back_is_what_was_trained_and_nothing_else_changes(tmp_path: Path) -> None:
    model = load(TWICE, tmp_path)
    model.set_metadata("who", "me")
    model.save(tmp_path / "before.onnx")
    network = Network(model)
    optimizer = torch.optim.SGD([network.trained["one_untied"], network.trained["w"]], 0.1)
    x = torch.from_numpy(_floats(8, 4))
    for _ in range(3):
        optimizer.zero_grad()
        network(x)[0].square().mean().backward()
        optimizer.step()
    assert set(write_back(network, model)) == {"one_untied", "w"}
    model.save(tmp_path / "after.onnx")
    before, after = (onnx.load(tmp_path / name) for name in ("before.onnx", "after.onnx"))
    assert [n.name for n in after.graph.node] == [n.name for n in before.graph.node]
    assert {i.name for i in after.graph.initializer} == {"one", "one_untied", "zero", "w"}
    assert after.metadata_props == before.metadata_props
    assert (after.graph.input, after.graph.output) == (before.graph.input, before.graph.output)
    wanted = network(x)[0].detach().numpy()
    np.testing.assert_allclose(run(tmp_path / "after.onnx", {"x": x.numpy()})["y"], wanted, rtol=1e-5, atol=1e-6)


def test_an_untrained_network_changes_nothing(tmp_path: Path) -> None:
    model = load(TWICE, tmp_path)
    model.save(tmp_path / "before.onnx")
    assert write_back(Network(model), model) == ()
    model.save(tmp_path / "after.onnx")
    assert (tmp_path / "before.onnx").read_bytes() == (tmp_path / "after.onnx").read_bytes()


def test_another_model_is_refused(tmp_path: Path) -> None:
    other = graph("float[N,4] x => float[N,3] y", "y = MatMul (x, w)", w=_floats(4, 3))
    with pytest.raises(ValueError, match="is not an array of"):
        write_back(Network(load(other, tmp_path)), load(TWICE, tmp_path))


def test_masks_frequencies_and_numbers_of_the_arithmetic_are_not_trained(tmp_path: Path) -> None:
    proto = graph(
        "float[N,4,4] x, int64[N,4] places => float[N,4,4] y",
        """p = Cast <to = 1> (places)
           u = Unsqueeze (p, last)
           angles = Mul (u, frequencies)
           turned = Sin (angles)
           h = MatMul (x, w)
           scaled = Mul (h, half)
           masked = Add (scaled, mask)
           kept = Softmax (masked)
           mixed = Mul (kept, turned)
           y = Add (mixed, bias)""",
        last=np.array([-1]),
        frequencies=np.array([1, 0.1, 0.01, 0.001], np.float32),
        w=_floats(4, 4),
        half=np.float32(0.5),
        mask=np.triu(np.full((4, 4), -np.inf, np.float32), 1),
        bias=_floats(4),
    )
    assert set(Network(load(proto, tmp_path)).trained) == {"w", "bias"}


def test_statistics_follow_the_batches_in_training_only_and_are_written_back(tmp_path: Path) -> None:
    proto = graph(
        "float[N,2,3] x => float[N,2,3] y",
        "y = BatchNormalization <momentum = 0.5> (x, s, b, mean, variance)",
        s=_ones(2),
        b=np.zeros(2, np.float32),
        mean=np.zeros(2, np.float32),
        variance=_ones(2),
    )
    model = load(proto, tmp_path)
    network, x = Network(model), torch.from_numpy(_floats(16, 2, 3) + 1)
    np.testing.assert_allclose(network(x)[0].detach(), run(proto, {"x": x.numpy()})["y"], rtol=1e-5, atol=1e-6)
    assert write_back(network, model) == ()
    network.train()(x)
    assert set(write_back(network, model)) == {"mean", "variance"}
    written = {v.name: v.const_value.numpy() for v in model.ir.graph.initializers.values() if v.const_value}
    np.testing.assert_allclose(written["mean"], x.mean((0, 2)) * 0.5, rtol=1e-5)
    network.eval()
    np.testing.assert_allclose(
        network(x)[0].detach(), run(_saved(model, tmp_path), {"x": x.numpy()})["y"], rtol=1e-4, atol=1e-5
    )


def _saved(model: Model, folder: Path) -> Path:
    model.save(folder / "saved.onnx")
    return folder / "saved.onnx"


def test_dropout_drops_in_training_only(tmp_path: Path) -> None:
    proto = graph("float[1000] x => float[1000] y", "y = Dropout (x, share)", share=np.float32(0.25))
    network, x = Network(load(proto, tmp_path)), torch.ones(1000)
    assert torch.equal(network(x)[0], x)
    made = network.train()(x)[0]
    assert made.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert 180 < int((made == 0).sum()) < 320
    assert torch.equal(network.eval()(x)[0], x)


def test_every_operator_that_is_missing_is_named_at_once(tmp_path: Path) -> None:
    proto = graph(
        "float[N] x => float[N] y, string[M] z",
        "a = foreign.Twirl (x) y = foreign.Swirl (a) z = StringNormalizer (t)",
        domains=("foreign",),
        t=np.array(["a"], object),
    )
    with pytest.raises(ModelError) as caught:
        Network(load(proto, tmp_path))
    assert len(str(caught.value).splitlines()) == 1
    for name in ("Twirl of foreign", "Swirl of foreign", "StringNormalizer"):
        assert name in str(caught.value)


def test_parameters_keep_the_names_of_the_file(tmp_path: Path) -> None:
    proto = graph("float[N,4] x => float[N,4] y", "h = MatMul (x, w) y = Add (h, b)", w=_floats(4, 4), b=_floats(4))
    for initializer in proto.graph.initializer:
        initializer.name = {"w": "layer.0.weight", "b": "layer.0.bias"}[initializer.name]
    proto.graph.node[0].input[1], proto.graph.node[1].input[1] = "layer.0.weight", "layer.0.bias"
    network = Network(load(proto, tmp_path))
    assert set(dict(network.named_parameters())) == {"layer.0.weight", "layer.0.bias"}


def _integers(x_scale: float = 0.05) -> onnx.ModelProto:
    """One convolution on integers, as ONNX Runtime fuses it: int32 bias in units of input × weight scale."""
    w_scale = np.array([0.02, 0.03], np.float32)
    return graph(
        "float[N,3,5,5] x => float[N,2,5,5] y",
        """xq = QuantizeLinear (x, xs, xz)
           xd = DequantizeLinear (xq, xs, xz)
           wd = DequantizeLinear <axis = 0> (w, ws, wz)
           bd = DequantizeLinear <axis = 0> (b, bs)
           c = Conv <pads = [1, 1, 1, 1]> (xd, wd, bd)
           r = Relu (c)
           yq = QuantizeLinear (r, ys, yz)
           y = DequantizeLinear (yq, ys, yz)""",
        xs=np.float32(x_scale),
        xz=np.uint8(120),
        w=RNG.integers(-127, 128, (2, 3, 3, 3)).astype(np.int8),
        ws=w_scale,
        wz=np.zeros(2, np.int8),
        b=np.array([400, -300], np.int32),
        bs=(np.float32(x_scale) * w_scale).astype(np.float32),
        ys=np.float32(0.08),
        yz=np.uint8(0),
    )


def test_a_quantized_model_gives_what_the_integer_kernel_gives(tmp_path: Path) -> None:
    proto = _integers()
    network, x = Network(load(proto, tmp_path)), _floats(4, 3, 5, 5)
    got, want = network(torch.from_numpy(x))[0].detach().numpy(), run(proto, {"x": x})["y"]
    assert np.abs(got - want).max() <= 0.08 * 1.001
    assert (np.abs(got - want) > 1e-6).mean() < 0.01


def test_scales_are_trained_when_asked_and_the_integer_bias_follows_them(tmp_path: Path) -> None:
    model = load(_integers(), tmp_path)
    assert Network(model).trained == {}
    network = Network(model, scales=True)
    assert set(network.trained) == {"xs", "ws", "bs", "ys"}
    with torch.no_grad():
        network.trained["xs"].mul_(1.5)
        network.trained["ws"].mul_(0.9)
    x = _floats(4, 3, 5, 5)
    wanted = network(torch.from_numpy(x))[0].detach().numpy()
    assert {"xs", "ws"} <= set(write_back(network, model))
    got = run(_saved(model, tmp_path), {"x": x})["y"]
    assert np.abs(got - wanted).max() <= 0.08 * 1.001
    assert (np.abs(got - wanted) > 1e-6).mean() < 0.02
    stored = {v.name: v.const_value.numpy() for v in model.ir.graph.initializers.values() if v.const_value}
    np.testing.assert_array_equal(stored["bs"], (stored["xs"] * stored["ws"]).astype(np.float32))


def test_the_gradient_passes_a_quantizer_where_nothing_is_clipped(tmp_path: Path) -> None:
    """Against the formula of LSQ, equation 3: (round(x/s) - x/s) inside, the limit of the codes outside."""
    proto = graph(
        "float[6] x => float[6] y",
        "q = QuantizeLinear (x, s, z) y = DequantizeLinear (q, s, z)",
        s=np.float32(0.1),
        z=np.int8(0),
    )
    network = Network(load(proto, tmp_path), scales=True)
    x = torch.tensor([-20.0, -0.52, 0.0, 0.04, 0.26, 20.0], requires_grad=True)
    weights = torch.tensor([1.0, 2, 3, 4, 5, 6])
    (network(x)[0] * weights).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([0.0, 2, 3, 4, 5, 0]))
    ratio = x.detach() / 0.1
    slope = torch.where(ratio < -128, -128.0, torch.where(ratio > 127, 127.0, torch.round(ratio) - ratio))
    torch.testing.assert_close(network.trained["s"].grad, (slope * weights).sum(), rtol=1e-4, atol=1e-4)


def test_a_weight_behind_a_quantizer_is_trained_through_it(tmp_path: Path) -> None:
    proto = graph(
        "float[N,3] x => float[N,2] y",
        "q = QuantizeLinear (w, s, z) d = DequantizeLinear (q, s, z) y = MatMul (x, d)",
        w=_floats(3, 2),
        s=np.float32(0.05),
        z=np.int8(0),
    )
    network = Network(load(proto, tmp_path))
    network(torch.from_numpy(_floats(5, 3)))[0].sum().backward()
    assert set(network.trained) == {"w"}
    assert network.trained["w"].grad is not None


def test_packed_codes_are_read_and_not_trained(tmp_path: Path) -> None:
    codes = RNG.integers(0, 256, (4, 2, 8)).astype(np.uint8)
    proto = graph(
        "float[N,32] x => float[N,4] y",
        "y = com.microsoft.MatMulNBits <K = 32, N = 4, bits = 4, block_size = 16> (x, q, s)",
        domains=("com.microsoft",),
        q=codes,
        s=np.abs(_floats(8)),
    )
    network, x = Network(load(proto, tmp_path)), _floats(3, 32)
    np.testing.assert_allclose(network(torch.from_numpy(x))[0], run(proto, {"x": x})["y"], rtol=1e-4, atol=1e-4)
    assert network.trained == {}


def test_shapes_follow_the_input(tmp_path: Path) -> None:
    proto = graph(
        "float[N,S,6] x => float[N,S,2,3] y, int64[1] n",
        """s = Shape (x) a = Slice (s, zero, two) b = Concat <axis = 0> (a, tail) y = Reshape (x, b)
           n = ReduceProd <keepdims = 1> (s)""",
        zero=np.array([0]),
        two=np.array([2]),
        tail=np.array([2, 3]),
    )
    network = Network(load(proto, tmp_path))
    for shape in ((1, 4, 6), (3, 2, 6)):
        made, count = network(torch.zeros(shape))
        assert tuple(made.shape) == (*shape[:2], 2, 3)
        assert count.tolist() == [np.prod(shape)]


COMPILED = {
    "layers": TWICE,
    "lstm": graph(
        "float[N,T,3] x => float[N,T,4] y",
        """t = Transpose <perm = [1, 0, 2]> (x)
           o = LSTM <hidden_size = 4> (t, w, r)
           s = Squeeze (o, one)
           y = Transpose <perm = [1, 0, 2]> (s)""",
        w=_floats(1, 16, 3),
        r=_floats(1, 16, 4),
        one=np.array([1]),
    ),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COMPILED)
def test_torch_compile_takes_it_and_gives_the_same_gradients(name: str, tmp_path: Path) -> None:
    """With the backend that needs no C++ compiler: what it sees is what the others compile."""
    model = load(COMPILED[name], tmp_path)
    plain, compiled = Network(model), Network(model)
    compiled.compile(backend="aot_eager")
    shape = [3 if size == "N" else 5 if size == "T" else size for size in model.inputs()[0].shape or ()]
    x = torch.from_numpy(_floats(*[int(size or 1) for size in shape]))
    for network in (plain, compiled):
        network(x)[0].square().mean().backward()
    for array, parameter in plain.trained.items():
        torch.testing.assert_close(compiled.trained[array].grad, parameter.grad)
