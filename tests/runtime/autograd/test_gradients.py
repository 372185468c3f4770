"""Gradients: against torch's own modules, and against finite differences."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compressor.runtime.autograd import Network
from tests.models import Array, graph, load

RNG = np.random.default_rng(0)


def _floats(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


def _compare(network: Network, module: nn.Module, x: Tensor, pairs: dict[str, Tensor]) -> None:
    """Outputs and the gradients of a loss with respect to the input and to every parameter."""
    mine, theirs = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
    made, wanted = network(mine)[0], module(theirs)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
    direction = torch.linspace(-1, 1, made.numel()).reshape(made.shape)
    (made * direction).sum().backward()
    (wanted * direction).sum().backward()
    torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5)
    for name, parameter in pairs.items():
        torch.testing.assert_close(network.trained[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)


def _arrays(**tensors: Tensor) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def test_convolution_with_normalization_and_a_layer_behind(tmp_path: Path) -> None:
    conv, norm, head = nn.Conv2d(3, 6, 3, 2, 1, groups=3), nn.BatchNorm2d(6), nn.Linear(6, 4)
    nn.init.normal_(norm.weight)
    module = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).train()
    arrays = _arrays(w=conv.weight, b=conv.bias, s=norm.weight, t=norm.bias, u=head.weight, v=head.bias)
    proto = graph(
        "float[N,3,8,8] x => float[N,4] y",
        """c = Conv <strides = [2, 2], pads = [1, 1, 1, 1], group = 3> (x, w, b)
           n = BatchNormalization (c, s, t, mean, variance)
           r = Relu (n)
           p = GlobalAveragePool (r)
           f = Flatten (p)
           y = Gemm <transB = 1> (f, u, v)""",
        mean=np.zeros(6, np.float32),
        variance=np.ones(6, np.float32),
        **arrays,
    )
    network = Network(load(proto, tmp_path)).train()
    pairs = {"w": conv.weight, "s": norm.weight, "t": norm.bias, "u": head.weight, "v": head.bias}
    _compare(network, module, torch.from_numpy(_floats(5, 3, 8, 8)), pairs)
    torch.testing.assert_close(network.statistics["mean"], norm.running_mean)
    torch.testing.assert_close(network.statistics["variance"], norm.running_var)


GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
"""Where each gate of ONNX lies among those of torch."""


class _Last(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """The outputs, without the states."""
        made: Tensor = self.inner(x)[0]
        return made


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional", "reverse"])
def test_recurrent_layers(tmp_path: Path, kind: str, direction: str) -> None:
    both = direction == "bidirectional"
    inner = getattr(nn, kind)(5, 7, bidirectional=both)
    suffixes = ["", "_reverse"] if both else [""]

    def stacked(name: str) -> Array:
        parts = []
        for suffix in suffixes:
            gates = getattr(inner, f"{name}_l0{suffix}").detach().chunk(len(GATES[kind]))
            parts.append(torch.cat([gates[i] for i in GATES[kind]]))
        return torch.stack(parts).numpy()

    arrays = {"w": stacked("weight_ih"), "r": stacked("weight_hh")}
    arrays["b"] = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    reset = ", linear_before_reset = 1" if kind == "GRU" else ""
    proto = graph(
        f"float[T,N,5] x => float[T,N,{14 if both else 7}] y",
        f"""o = {kind} <hidden_size = 7, direction = "{direction}"{reset}> (x, w, r, b)
            t = Transpose <perm = [0, 2, 1, 3]> (o)
            y = Reshape (t, shape)""",
        shape=np.array([0, 0, -1]),
        **arrays,
    )
    network = Network(load(proto, tmp_path))

    class Turned(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            made: Tensor = inner(x.flip(0))[0].flip(0) if direction == "reverse" else inner(x)[0]
            return made

    x = torch.from_numpy(_floats(6, 2, 5))
    _compare(network, Turned(), x, {})
    mine = network.trained["w"].grad
    wanted = torch.stack([getattr(inner, f"weight_ih_l0{s}").grad for s in suffixes])
    assert mine is not None
    ordered = [torch.cat([m.chunk(len(GATES[kind]))[i] for i in GATES[kind]]) for m in wanted]
    torch.testing.assert_close(mine, torch.stack(ordered), rtol=1e-4, atol=1e-5)


def test_attention_with_normalization_gelu_and_an_embedding(tmp_path: Path) -> None:
    table, query, key, value = nn.Embedding(11, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.weight)

    class Block(nn.Module):
        def forward(self, ids: Tensor) -> Tensor:
            x = table(ids)
            heads = [f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (query, key, value)]
            weights = torch.softmax(heads[0] @ heads[1].transpose(-1, -2) * 0.5, -1)
            mixed: Tensor = (weights @ heads[2]).transpose(1, 2).flatten(2)
            made: Tensor = nn.functional.gelu(norm(x + mixed))
            return made

    arrays = _arrays(t=table.weight, g=norm.weight, h=norm.bias)
    for name, layer in (("q", query), ("k", key), ("v", value)):
        arrays |= _arrays(**{f"{name}w": layer.weight.T, f"{name}b": layer.bias})
    heads = "".join(
        f"{n}1 = MatMul (x, {n}w) {n}2 = Add ({n}1, {n}b) {n}3 = Reshape ({n}2, split) "
        f"{n}4 = Transpose <perm = [{'0, 2, 3, 1' if n == 'k' else '0, 2, 1, 3'}]> ({n}3) "
        for n in "qkv"
    )
    body = f"""x = Gather (t, ids) {heads}
        s = MatMul (q4, k4) c = Mul (s, half) p = Softmax <axis = -1> (c) m = MatMul (p, v4)
        u = Transpose <perm = [0, 2, 1, 3]> (m) j = Reshape (u, join) a = Add (x, j)
        n = LayerNormalization <axis = -1> (a, g, h) y = Gelu (n)"""
    proto = graph(
        "int64[N,S] ids => float[N,S,8] y",
        body,
        split=np.array([0, 0, 2, 4]),
        join=np.array([0, 0, 8]),
        half=np.float32(0.5),
        **arrays,
    )
    network = Network(load(proto, tmp_path))
    ids = torch.tensor([[1, 2, 3], [4, 10, 1]])
    made, wanted = network(ids)[0], Block()(ids)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)
    direction = torch.linspace(-1, 1, made.numel()).reshape(made.shape)
    (made * direction).sum().backward()
    (wanted * direction).sum().backward()
    for name, parameter in {"t": table.weight, "g": norm.weight, "h": norm.bias, "qb": query.bias}.items():
        torch.testing.assert_close(network.trained[name].grad, parameter.grad, rtol=1e-4, atol=1e-5)
    assert "half" not in network.trained


SMOOTH = {
    "AveragePool <kernel_shape = [2, 2], ceil_mode = 1> (x)": (1, 2, 5, 5),
    'Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)': (1, 2, 5, 5),
    "ConvTranspose <strides = [2, 2], pads = [0, 1, 1, 0]> (x, w)": (1, 2, 3, 3),
    "CumSum <exclusive = 1> (x, one)": (2, 4),
    "DepthToSpace <blocksize = 2> (x)": (1, 8, 2, 2),
    'Einsum <equation = "ij,kj->ik"> (x, x)': (3, 4),
    "Elu (x)": (2, 5),
    "Erf (x)": (2, 5),
    "GatherElements <axis = 1> (x, places)": (2, 4),
    'Gelu <approximate = "tanh"> (x)': (2, 5),
    "GridSample (x, grid)": (1, 2, 4, 4),
    "HardSwish (x)": (2, 5),
    "InstanceNormalization (x, two, two)": (2, 2, 5),
    "LRN <size = 3> (x)": (1, 4, 2, 2),
    "LayerNormalization <axis = 1> (x, wide)": (2, 4),
    "LogSoftmax (x)": (2, 5),
    "LpNormalization (x)": (2, 5),
    "LpPool <kernel_shape = [2]> (x)": (1, 2, 5),
    "MatMul (x, x)": (2, 3, 3),
    "MaxPool <kernel_shape = [2, 2], pads = [1, 0, 0, 1]> (x)": (1, 1, 4, 4),
    "Mish (x)": (2, 5),
    "Mod <fmod = 1> (x, big)": (2, 5),
    "PRelu (x, two)": (3, 2),
    'Pad <mode = "reflect"> (x, ends)': (1, 1, 4, 4),
    "Pow (x, three)": (2, 5),
    "ReduceL2 <keepdims = 0> (x, last)": (3, 4),
    "ReduceLogSumExp (x, last)": (3, 4),
    "ReduceProd (x, last)": (3, 4),
    'Resize <mode = "cubic"> (x, , half)': (1, 1, 6, 6),
    'Resize <mode = "linear", antialias = 1> (x, , half)': (1, 1, 6, 6),
    'ScatterElements <axis = 1, reduction = "add"> (x, places, x)': (2, 4),
    "Slice (x, from, to, last, back)": (3, 4),
    "Softplus (x)": (2, 5),
    "Softsign (x)": (2, 5),
    "TopK <axis = 1> (x, k)": (2, 4),
    "Trilu (x)": (3, 3),
}
CONSTANTS = {
    "w": RNG.normal(size=(2, 2, 3, 3)),
    "one": np.array(1),
    "two": np.array([0.7, -0.4]),
    "three": np.array(3.0),
    "big": np.array(10.0),
    "wide": RNG.normal(size=4),
    "places": np.array([[0, 2, 1, 3], [3, 1, 0, 2]]),
    "grid": RNG.uniform(-0.9, 0.9, size=(1, 3, 3, 2)),
    "ends": np.array([0, 0, 1, 2, 0, 0, 2, 1]),
    "half": np.array([1, 1, 0.5, 0.5], np.float32),
    "last": np.array([-1]),
    "from": np.array([3]),
    "to": np.array([0]),
    "back": np.array([-2]),
    "k": np.array([2]),
}


@pytest.mark.parametrize("node", SMOOTH)
def test_finite_differences(tmp_path: Path, node: str) -> None:
    names = {name for name in CONSTANTS if f" {name}" in node.replace("(", " ").replace(",", " ")}
    outputs = "y, places_of" if node.startswith("TopK") else "y"
    shape = ",".join(map(str, SMOOTH[node]))
    proto = graph(f"double[{shape}] x => double y", f"{outputs} = {node}", **{name: CONSTANTS[name] for name in names})
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    network = Network(load(proto, tmp_path))
    x = torch.from_numpy(np.random.default_rng(1).permutation(np.prod(SMOOTH[node])).reshape(SMOOTH[node]) * 0.13 - 0.7)
    assert torch.autograd.gradcheck(lambda t: network(t)[0], x.requires_grad_(True), atol=1e-5)


def test_a_branch_that_is_not_taken_gets_no_gradient(tmp_path: Path) -> None:
    proto = graph(
        "float[N,3] x, bool c => float[N,2] y",
        """y = If (c) <
             then_branch = t () => (float[N,2] a) { a = MatMul (x, left) },
             else_branch = e () => (float[N,2] b) { b = MatMul (x, right) }
           >""",
        left=_floats(3, 2),
        right=_floats(3, 2),
    )
    network = Network(load(proto, tmp_path))
    network(torch.from_numpy(_floats(4, 3)), torch.tensor(True))[0].sum().backward()
    assert network.trained["left"].grad is not None
    assert network.trained["right"].grad is None


def test_a_loop_is_differentiated_turn_by_turn(tmp_path: Path) -> None:
    proto = graph(
        "float[2,2] x, int64 turns => float[2,2] y",
        """go = Constant <value_int = 1> ()
           more = Cast <to = 9> (go)
           y = Loop (turns, more, x) <
             body = b (int64 i, bool c, float[2,2] h) => (bool d, float[2,2] m) { d = Identity (c) m = MatMul (h, w) }
           >""",
        w=_floats(2, 2),
    )
    network = Network(load(proto, tmp_path))
    x = torch.from_numpy(_floats(2, 2))
    network(x, torch.tensor(3))[0].sum().backward()
    w = network.trained["w"].detach().clone().requires_grad_(True)
    (x @ w @ w @ w).sum().backward()
    torch.testing.assert_close(network.trained["w"].grad, w.grad)


@pytest.mark.parametrize("share", [0.0, 0.4])
def test_quantizers_let_a_share_of_the_entries_pass(share: float, tmp_path: Path) -> None:
    body = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
    arrays = {"s": np.float32(0.5).reshape(()), "z": np.uint8(128).reshape(())}
    network = Network(load(graph("float[N] x => float[N] y", body, **arrays), tmp_path))
    x = torch.linspace(-3, 3, 1001).requires_grad_()
    network.let_pass(share)
    (y,) = network(x)
    rounded = torch.round(x / 0.5) * 0.5
    stays, passes = (y - rounded).abs() < 1e-4, (y - x).abs() < 1e-4
    assert bool((stays | passes).all())
    passed = passes & ~stays
    assert float(passed.float().mean()) == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("zero", [np.int8(0), np.int8(-20), np.uint8(0), np.uint8(130)], ids=repr)
@pytest.mark.parametrize("last", [False, True], ids=["rows", "channels last"])
@pytest.mark.parametrize("ends", [None, (None, 25), (3, 25)], ids=["whole", "clipped above", "clipped"])
def test_quantizing_and_back_has_the_slopes_of_learned_step_sizes(
    tmp_path: Path, zero: Array, last: bool, ends: tuple[int | None, int] | None
) -> None:
    """Esser et al. 2020: of x where nothing is clipped, of the scale code - x / scale there and the code beyond."""
    body = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"
    arrays = {"s": np.array(0.05, np.float32), "z": np.array(zero)}
    limits = np.iinfo(zero.dtype)
    least, most = limits.min, limits.max
    if ends is not None:
        low_end, most = ends[0], int(zero) + ends[1]
        least = limits.min if low_end is None else int(zero) + low_end
        arrays["high"] = np.array(min(most, limits.max), zero.dtype)
        if low_end is not None:
            arrays["low"] = np.array(least, zero.dtype)
        body = f"q = QuantizeLinear(x, s, z) c = Clip(q, {'low' if 'low' in arrays else ''}, high)"
        body += " y = DequantizeLinear(c, s, z)"
    network = Network(load(graph("float[2,3,4,5] x => float[2,3,4,5] y", body, **arrays), tmp_path), scales=True)
    x = torch.from_numpy(4 * _floats(2, 3, 4, 5))
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    x.requires_grad_(True)
    direction = torch.from_numpy(_floats(2, 3, 4, 5))
    made = network(x)[0]
    (made * direction).sum().backward()
    low, high = max(least, limits.min) - int(zero), min(most, limits.max) - int(zero)
    ratio = x.detach().numpy() / np.float32(0.05)
    codes = np.clip(np.round(ratio), low, high)
    inside = (ratio > low - 0.5) & (ratio < high + 0.5)
    assert 0 < inside.mean() < 1
    np.testing.assert_allclose(made.detach().numpy(), codes * np.float32(0.05), rtol=1e-6)
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.where(inside, direction.numpy(), 0))
    slope = (direction.numpy() * np.where(inside, codes - ratio, codes)).sum()
    np.testing.assert_allclose(network.trained["s"].grad, slope, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("end", [np.uint8(140), np.uint8(255)], ids=repr)
def test_clipped_codes_that_are_read_as_codes_stay_codes(tmp_path: Path, end: Array) -> None:
    body = "q = QuantizeLinear(x, s, z) c = Clip(q, , end) y = DequantizeLinear(c, s, z) w = Cast<to = 1>(c)"
    arrays = {"s": np.array(0.05, np.float32), "z": np.array(128, np.uint8), "end": np.array(end)}
    network = Network(load(graph("float[6] x => float[6] y, float[6] w", body, **arrays), tmp_path))
    x = torch.linspace(-1, 1, 6).requires_grad_(True)
    y, w = network(x)
    torch.testing.assert_close(w, torch.round(x.detach() / 0.05).clamp(max=float(end) - 128) + 128)
    torch.testing.assert_close(y.detach(), (w - 128) * 0.05)


def test_codes_that_are_read_as_codes_stay_codes(tmp_path: Path) -> None:
    body = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) w = DequantizeLinear(q, t, z)"
    arrays = {"s": np.float32(0.05), "t": np.float32(0.1), "z": np.int8(0)}
    network = Network(load(graph("float[6] x => float[6] y, float[6] w", body, **arrays), tmp_path))
    x = torch.linspace(-1, 1, 6).requires_grad_(True)
    y, w = network(x)
    torch.testing.assert_close(w, 2 * y)
