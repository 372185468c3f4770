"""A graph for every operator that channels go through, with the groups that must be found in it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx

from tests.models import Array, floats, graph

Rng = np.random.Generator


@dataclass(frozen=True)
class Case:
    """A graph, what it is fed, and how many units each group has that may be pruned.

    Attributes:
        proto: the model.
        feeds: its inputs.
        widths: of the groups, in graph order.
        frozen: words of the reasons why others must stay.
    """

    proto: onnx.ModelProto
    feeds: dict[str, Array]
    widths: tuple[int, ...]
    frozen: tuple[str, ...] = field(default=("output of the model",))


def _image(rng: Rng, body: str, last: int = 6, *, opset: int = 21, size: int = 6, **arrays: Array) -> onnx.ModelProto:
    """x [N,3,size,size] → conv `a` of 6 channels → body from a to b → conv over `last` channels → y."""
    text = f"[first] a = Conv<pads=[1,1,1,1]>(x, w1, b1)  {body}  [last] y = Conv<pads=[1,1,1,1]>(b, w9, b9)"
    return graph(
        f"float[N,3,{size},{size}] x => float[N,2,p,q] y",
        text,
        opset=opset,
        w1=floats(rng, 6, 3, 3, 3),
        b1=floats(rng, 6),
        w9=floats(rng, 2, last, 3, 3),
        b9=floats(rng, 2),
        **arrays,
    )


def _images(rng: Rng, size: int = 6) -> dict[str, Array]:
    return {"x": floats(rng, 2, 3, size, size)}


def _through(
    body: str, widths: tuple[int, ...] = (6,), last: int = 6, **sizes: tuple[int, ...]
) -> Callable[[Rng], Case]:
    """A case of convolution, body, convolution; `sizes` are those of further float constants."""

    def case(rng: Rng) -> Case:
        arrays = {name: floats(rng, *shape) for name, shape in sizes.items()}
        return Case(_image(rng, body, last, **arrays), _images(rng), widths)

    return case


def _with_integers(
    body: str, widths: tuple[int, ...], last: int, integers: dict[str, list[int]], **sizes: tuple[int, ...]
) -> Callable[[Rng], Case]:
    def case(rng: Rng) -> Case:
        arrays: dict[str, Array] = {name: floats(rng, *shape) for name, shape in sizes.items()}
        arrays |= {name: np.array(values, np.int64) for name, values in integers.items()}
        return Case(_image(rng, body, last, **arrays), _images(rng), widths)

    return case


def _tokens(rng: Rng, body: str, inputs: int = 5, outputs: int = 3, **arrays: Array) -> Case:
    """x [N,4,inputs] → body → y [N,4,outputs]; the widths are filled in by the caller."""
    return Case(
        graph(f"float[N,4,{inputs}] x => float[N,4,{outputs}] y", body, **arrays), {"x": floats(rng, 2, 4, inputs)}, ()
    )


def _normalization(rng: Rng) -> Case:
    vectors = {name: floats(rng, 6) for name in ("s", "o", "m")} | {"v": rng.uniform(0.5, 2, 6).astype(np.float32)}
    return Case(_image(rng, "[norm] b = BatchNormalization(a, s, o, m, v)", **vectors), _images(rng), (6,))


def _grouped(rng: Rng) -> Case:
    body = "[mid] c = Conv<group=2, pads=[1,1,1,1]>(a, wg, bg)  b = Relu(c)"
    return Case(_image(rng, body, 8, wg=floats(rng, 8, 3, 3, 3), bg=floats(rng, 8)), _images(rng), (2, 3, 4))


def _depthwise(rng: Rng) -> Case:
    body = "[mid] c = Conv<group=6, pads=[1,1,1,1]>(a, wg)  b = Relu(c)"
    return Case(_image(rng, body, wg=floats(rng, 6, 1, 3, 3)), _images(rng), (6,))


def _multiplied(rng: Rng) -> Case:
    body = "[mid] b = Conv<group=6, pads=[1,1,1,1]>(a, wg, bg)"
    return Case(_image(rng, body, 12, wg=floats(rng, 12, 1, 3, 3), bg=floats(rng, 12)), _images(rng), (6, 2))


def _residual(rng: Rng) -> Case:
    body = "[one] c = Conv<pads=[1,1,1,1]>(a, wc)  d = Relu(c)  [two] e = Conv(d, we)  b = Add(a, e)"
    return Case(_image(rng, body, wc=floats(rng, 5, 6, 3, 3), we=floats(rng, 6, 5, 1, 1)), _images(rng), (6, 5))


def _dense(rng: Rng) -> Case:
    body = "[one] c = Conv(a, wc)  d = Concat<axis=1>(a, c)  [two] e = Conv(d, we)  b = Concat<axis=1>(d, e)"
    arrays = {"wc": floats(rng, 4, 6, 1, 1), "we": floats(rng, 3, 10, 1, 1)}
    return Case(_image(rng, body, 13, **arrays), _images(rng), (6, 4, 3))


def _concat_added(rng: Rng) -> Case:
    body = "[one] c = Conv(a, wc)  d = Concat<axis=1>(a, c)  [two] e = Conv(a, we)  b = Add(d, e)"
    arrays = {"wc": floats(rng, 4, 6, 1, 1), "we": floats(rng, 10, 6, 1, 1)}
    return Case(_image(rng, body, 10, **arrays), _images(rng), (6, 4))


def _shuffled(rng: Rng) -> Case:
    """Two groups of three channels, dealt out in turn."""
    body = "r = Reshape(a, to)  t = Transpose<perm=[0,2,1,3,4]>(r)  b = Reshape(t, back)"
    integers = {"to": np.array([0, 2, 3, 6, 6]), "back": np.array([0, 6, 6, 6])}
    return Case(_image(rng, body, **integers), _images(rng), (2, 3))


def _shuffled_and_split(rng: Rng) -> Case:
    """As in ShuffleNet: halves of a shuffled tensor go different ways."""
    body = """r = Reshape(a, to)  t = Transpose<perm=[0,2,1,3,4]>(r)  s = Reshape(t, back)
    u, v = Split<axis=1>(s, halves)  [mid] c = Conv(u, wc)  b = Concat<axis=1>(v, c)"""
    integers = {"to": np.array([0, 2, 3, 6, 6]), "back": np.array([0, 6, 6, 6]), "halves": np.array([3, 3])}
    return Case(_image(rng, body, 7, wc=floats(rng, 4, 3, 1, 1), **integers), _images(rng), (2, 1, 1, 1, 4))


def _squeeze_excite(rng: Rng) -> Case:
    body = """p = GlobalAveragePool(a)  [down] d = Conv(p, wd)  e = Relu(d)  [up] f = Conv(e, wu)  g = Sigmoid(f)
    b = Mul(a, g)"""
    return Case(_image(rng, body, wd=floats(rng, 4, 6, 1, 1), wu=floats(rng, 6, 4, 1, 1)), _images(rng), (6, 4))


def _padded_shortcut(rng: Rng) -> Case:
    """A shortcut that fills up channels with zeros."""
    body = "[mid] c = Conv(a, wc)  d = Pad(a, more)  b = Add(c, d)"
    arrays = {"wc": floats(rng, 9, 6, 1, 1), "more": np.array([0, 1, 0, 0, 0, 2, 0, 0])}
    return Case(_image(rng, body, 9, **arrays), _images(rng), (6, 3))


def _pixel_shuffle(mode: str) -> Callable[[Rng], Case]:
    def case(rng: Rng) -> Case:
        body = f'[mid] c = Conv(a, wc)  b = DepthToSpace<blocksize=2, mode="{mode}">(c)'
        return Case(_image(rng, body, 3, wc=floats(rng, 12, 6, 1, 1)), _images(rng), (6, 3))

    return case


def _transposed(groups: int) -> Callable[[Rng], Case]:
    def case(rng: Rng) -> Case:
        body = f"[mid] c = ConvTranspose<group={groups}, strides=[2,2]>(a, wt, bt)  b = Relu(c)"
        arrays = {"wt": floats(rng, 6, 4 // groups, 2, 2), "bt": floats(rng, 4)}
        return Case(_image(rng, body, 4, **arrays), _images(rng), (6, 4) if groups == 1 else (2, 3, 2))

    return case


def _flattened(rng: Rng) -> Case:
    proto = graph(
        "float[N,3,4,4] x => float[N,2] y",
        "[first] a = Conv(x, w1)  r = Relu(a)  f = Flatten(r)  [head] y = Gemm<transB=1>(f, w2, b2)",
        w1=floats(rng, 6, 3, 3, 3),
        w2=floats(rng, 2, 24),
        b2=floats(rng, 2),
    )
    return Case(proto, {"x": floats(rng, 2, 3, 4, 4)}, (6,))


def _gemm(transposed: bool) -> Callable[[Rng], Case]:
    def case(rng: Rng) -> Case:
        first, second = floats(rng, 7, 5), floats(rng, 3, 7)
        flag = int(transposed)
        proto = graph(
            "float[N,5] x => float[N,3] y",
            f"[first] a = Gemm<transB={flag}>(x, w1, b1)  r = Gelu(a)  [second] y = Gemm<transB={flag}>(r, w2, b2)",
            w1=first if transposed else np.ascontiguousarray(first.T),
            w2=second if transposed else np.ascontiguousarray(second.T),
            b1=floats(rng, 7),
            b2=floats(rng, 1, 3),
        )
        return Case(proto, {"x": floats(rng, 2, 5)}, (7,))

    return case


def _gated(rng: Rng) -> Case:
    body = (
        """[gate] g = MatMul(x, wg)  s = Sigmoid(g)  [up] u = MatMul(x, wu)  h = Mul(s, u)  [down] y = MatMul(h, wd)"""
    )
    arrays = {"wg": floats(rng, 5, 7), "wu": floats(rng, 5, 7), "wd": floats(rng, 7, 3)}
    found = _tokens(rng, body, **arrays)
    return Case(found.proto, found.feeds, (7,))


def _embedded(rng: Rng) -> Case:
    proto = graph(
        "int64[N,4] x => float[N,4,3] y",
        "[words] e = Gather(table, x)  p = Add(e, place)  [out] y = MatMul(p, w)",
        table=floats(rng, 11, 7),
        place=floats(rng, 1, 4, 7),
        w=floats(rng, 7, 3),
    )
    return Case(proto, {"x": rng.integers(0, 11, (2, 4))}, (7,))


_HEADS = """[q] q = MatMul(x, wq)  q1 = Add(q, bq)  q2 = Reshape(q1, split)  q3 = Transpose<perm=[0,2,1,3]>(q2)
[k] k = MatMul(x, wk)  k2 = Reshape(k, split)  k3 = Transpose<perm=[0,2,3,1]>(k2)
[v] v = MatMul(x, wv)  v2 = Reshape(v, split)  v3 = Transpose<perm=[0,2,1,3]>(v2)
s = MatMul(q3, k3)  d = Div(s, root)  p = Softmax(d)  o = MatMul(p, v3)
o1 = Transpose<perm=[0,2,1,3]>(o)  o2 = Reshape(o1, join)  [out] y = MatMul(o2, wo)"""


def _attention(rng: Rng) -> Case:
    """Three heads of two."""
    arrays: dict[str, Array] = {name: floats(rng, 5, 6) for name in ("wq", "wk", "wv")}
    arrays |= {"wo": floats(rng, 6, 3), "bq": floats(rng, 6), "root": np.array(1.4, np.float32)}
    arrays |= {"split": np.array([0, 0, 3, 2]), "join": np.array([0, 0, 6])}
    found = _tokens(rng, _HEADS, **arrays)
    return Case(found.proto, found.feeds, (2, 3, 2))


def _attention_with_sizes(rng: Rng) -> Case:
    """The same with every size asked for at run time."""
    asked = """z = Shape(x)  n = Gather(z, i0)  l = Gather(z, i1)  w = Shape(q)  c = Gather(w, i2)  h = Div(c, three)
    n1 = Unsqueeze(n, i0v)  l1 = Unsqueeze(l, i0v)  h1 = Unsqueeze(h, i0v)  split = Concat<axis=0>(n1, l1, three1, h1)
    c1 = Unsqueeze(c, i0v)  join = Concat<axis=0>(n1, l1, c1)  hf = Cast<to=1>(h)  root = Sqrt(hf)"""
    first, rest = _HEADS.split("q1 = Add", 1)
    body = f"{first} {asked} q1 = Add{rest}"
    arrays: dict[str, Array] = {name: floats(rng, 5, 6) for name in ("wq", "wk", "wv")}
    arrays |= {"wo": floats(rng, 6, 3), "bq": floats(rng, 6), "i0": np.array(0), "i1": np.array(1), "i2": np.array(2)}
    arrays |= {"three": np.array(3), "three1": np.array([3]), "i0v": np.array([0])}
    found = _tokens(rng, body, **arrays)
    return Case(found.proto, found.feeds, (2, 3, 2))


def _attention_fused(rng: Rng) -> Case:
    """One product makes queries, keys and values, which are picked from an axis of three."""
    body = """[qkv] a = MatMul(x, w)  b = Add(a, bias)  r = Reshape(b, split)  t = Transpose<perm=[2,0,3,1,4]>(r)
    q = Gather<axis=0>(t, zero)  k = Gather<axis=0>(t, one)  v = Gather<axis=0>(t, two)
    k1 = Transpose<perm=[0,1,3,2]>(k)  s = MatMul(q, k1)  p = Softmax(s)  o = MatMul(p, v)
    o1 = Transpose<perm=[0,2,1,3]>(o)  o2 = Reshape(o1, join)  [out] y = MatMul(o2, wo)"""
    arrays: dict[str, Array] = {"w": floats(rng, 5, 18), "bias": floats(rng, 18), "wo": floats(rng, 6, 3)}
    arrays |= {"split": np.array([0, 0, 3, 3, 2]), "join": np.array([0, 0, -1])}
    arrays |= {"zero": np.array(0), "one": np.array(1), "two": np.array(2)}
    found = _tokens(rng, body, **arrays)
    return Case(found.proto, found.feeds, (2, 3), ("output of the model", "singles it out"))


def _grouped_queries(rng: Rng) -> Case:
    """Four heads of queries share two of keys and values."""
    body = """[q] q = MatMul(x, wq)  q2 = Reshape(q, four)  q3 = Transpose<perm=[0,2,1,3]>(q2)
    [k] k = MatMul(x, wk)  k2 = Reshape(k, two)  k3 = Transpose<perm=[0,2,1,3]>(k2)  k4 = Unsqueeze(k3, axis)
    k5 = Expand(k4, wide)  k6 = Reshape(k5, flat)  k7 = Transpose<perm=[0,1,3,2]>(k6)
    s = MatMul(q3, k7)  p = Softmax(s)
    [v] v = MatMul(x, wv)  v2 = Reshape(v, two)  v3 = Transpose<perm=[0,2,1,3]>(v2)  v4 = Unsqueeze(v3, axis)
    v5 = Expand(v4, wide)  v6 = Reshape(v5, flat)  o = MatMul(p, v6)
    o1 = Transpose<perm=[0,2,1,3]>(o)  o2 = Reshape(o1, join)  [out] y = MatMul(o2, wo)"""
    arrays: dict[str, Array] = {"wq": floats(rng, 5, 12), "wk": floats(rng, 5, 6), "wv": floats(rng, 5, 6)}
    arrays |= {"four": np.array([0, 0, 4, 3]), "two": np.array([0, 0, 2, 3]), "axis": np.array([2])}
    arrays |= {"wide": np.array([1, 2, 2, 4, 3]), "flat": np.array([0, 4, 4, 3]), "join": np.array([0, 0, 12])}
    found = _tokens(rng, body, wo=floats(rng, 12, 3), **arrays)
    return Case(found.proto, found.feeds, (3, 2, 2, 3))


def _lstm(direction: str) -> Callable[[Rng], Case]:
    def case(rng: Rng) -> Case:
        ways = 2 if direction == "bidirectional" else 1
        body = f"""[first] a = MatMul(x, w1)  t = Transpose<perm=[1,0,2]>(a)
        [rnn] h, hn, cn = LSTM<hidden_size=3, direction="{direction}">(t, w, r, b)
        u = Transpose<perm=[2,0,1,3]>(h)  f = Reshape(u, flat)  [out] y = MatMul(f, wo)"""
        arrays: dict[str, Array] = {
            "w1": floats(rng, 5, 6),
            "w": floats(rng, ways, 12, 6),
            "r": floats(rng, ways, 12, 3),
        }
        arrays |= {"b": floats(rng, ways, 24), "wo": floats(rng, 3 * ways, 3), "flat": np.array([0, 0, -1])}
        found = _tokens(rng, body, **arrays)
        return Case(found.proto, found.feeds, (6, 3))

    return case


def _gru(rng: Rng) -> Case:
    body = """t = Transpose<perm=[1,0,2]>(x)  [rnn] h, hn = GRU<hidden_size=4, linear_before_reset=1>(t, w, r, b, , h0)
    u = Transpose<perm=[2,0,1,3]>(h)  f = Squeeze(u, last)  [out] y = MatMul(f, wo)"""
    arrays: dict[str, Array] = {"w": floats(rng, 1, 12, 5), "r": floats(rng, 1, 12, 4), "b": floats(rng, 1, 24)}
    arrays |= {"h0": floats(rng, 1, 2, 4), "wo": floats(rng, 4, 3), "last": np.array([2])}
    found = _tokens(rng, body, **arrays)
    return Case(found.proto, found.feeds, (4,))


def _einsum(rng: Rng) -> Case:
    body = '[one] a = Einsum<equation="nij,jk->nik">(x, w1)  r = Relu(a)  [two] y = MatMul(r, w2)'
    found = _tokens(rng, body, w1=floats(rng, 5, 7), w2=floats(rng, 7, 3))
    return Case(found.proto, found.feeds, ())


def _implicit_einsum(rng: Rng) -> Case:
    """The result has the letters that are there once, in the order of the alphabet."""
    body = '[zero] z = MatMul(x, w0)  [one] a = Einsum<equation="bij,jk">(z, w1)  r = Relu(a)  [two] y = MatMul(r, w2)'
    found = _tokens(rng, body, w0=floats(rng, 5, 6), w1=floats(rng, 6, 7), w2=floats(rng, 7, 3))
    return Case(found.proto, found.feeds, (6,))


def _class_token(rng: Rng) -> Case:
    """A vector in front of what patches give, as often as there are samples: -1 asks for what is there."""
    body = """[embed] e = MatMul(x, we)  z = Shape(x)  n = Gather(z, i0)  n1 = Unsqueeze(n, i0v)
    open = Concat<axis=0>(n1, minus, minus)  q = Equal(open, minus)
    ones = ConstantOfShape<value=int64[1]{1}>(three)  asked = Where(q, ones, open)  t = Expand(token, asked)
    c = Concat<axis=1>(t, e)  f = Gather<axis=1>(c, i0)  [head] y = MatMul(f, wo)"""
    arrays: dict[str, Array] = {"we": floats(rng, 5, 7), "wo": floats(rng, 7, 3), "token": floats(rng, 1, 1, 7)}
    arrays |= {"i0": np.array(0), "i0v": np.array([0]), "minus": np.array([-1]), "three": np.array([3])}
    proto = graph("float[N,4,5] x => float[N,3] y", body, **arrays)
    return Case(proto, {"x": floats(rng, 2, 4, 5)}, (7,))


def _shared(rng: Rng) -> Case:
    """One weight in two layers: both lose the same channels."""
    body = "[one] c = Conv<pads=[1,1,1,1]>(a, wc)  d = Relu(c)  [two] b = Conv<pads=[1,1,1,1]>(d, wc)"
    return Case(_image(rng, body, wc=floats(rng, 6, 6, 3, 3)), _images(rng), (6,))


def _one_repeated(body: str, integers: dict[str, list[int]], words: str) -> Callable[[Rng], Case]:
    """What one entry was made into as many as there are channels: these must stay."""

    def case(rng: Rng) -> Case:
        arrays: dict[str, Array] = {name: np.array(values, np.int64) for name, values in integers.items()}
        proto = _image(rng, f"{body}  b = Add(a, c)", one=floats(rng, 1, 1, 1, 1), **arrays)
        return Case(proto, _images(rng), (), (words,))

    return case


def _size_as_output(rng: Rng) -> Case:
    """How many channels there are is something that the model says."""
    proto = graph(
        "float[N,3,6,6] x => float[N,2,p,q] y, int64[1] s",
        "[first] a = Conv(x, w1)  z = Shape(a)  s = Gather(z, i1)  r = Relu(a)  [last] y = Conv(r, w9)",
        w1=floats(rng, 6, 3, 3, 3),
        w9=floats(rng, 2, 6, 3, 3),
        i1=np.array([1]),
    )
    return Case(proto, _images(rng), (), ("its size is s, an output of the model",))


def _size_in_branch(rng: Rng) -> Case:
    """How many channels there are is read inside a branch."""
    proto = graph(
        "float[N,3,6,6] x => float[N,2,p,q] y, float[1,1,1,1] t",
        """[first] a = Conv(x, w1)  z = Shape(a)  n = Size(x)  yes = Greater(n, i1)
        t = If(yes) <then_branch = one () => (float[1,1,1,1] u) { o = ConstantOfShape(z)  v = Cos(o)
        u = ReduceSum(v) }, else_branch = two () => (float[1,1,1,1] u2) { u2 = ConstantOfShape(four) }>
        r = Relu(a)  [last] y = Conv(r, w9)""",
        w1=floats(rng, 6, 3, 3, 3),
        w9=floats(rng, 2, 6, 3, 3),
        i1=np.array(1),
        four=np.ones(4, np.int64),
    )
    return Case(proto, _images(rng), (), ("reads its size in a branch",))


def _steps_computed(rng: Rng) -> Case:
    """A slice whose steps are an input of the model."""
    proto = graph(
        "float[N,3,6,6] x, int64[1] st => float[N,2,p,q] y",
        "[first] a = Conv<pads=[1,1,1,1]>(x, w1)  b = Slice(a, zero, six, one, st)  [last] y = Conv(b, w9)",
        w1=floats(rng, 6, 3, 3, 3),
        w9=floats(rng, 2, 3, 3, 3),
        zero=np.array([0]),
        six=np.array([6]),
        one=np.array([1]),
    )
    return Case(proto, _images(rng) | {"st": np.array([2])}, (), ("Slice",))


def _sampled(rng: Rng) -> Case:
    """Two channels that are places in an image, not channels."""
    proto = graph(
        "float[N,3,6,6] x => float[N,2,p,q] y",
        """[first] a = Conv<pads=[1,1,1,1]>(x, w1)  [places] g = Conv<pads=[1,1,1,1]>(x, w2)
        t = Transpose<perm=[0,2,3,1]>(g)  b = GridSample(a, t)  [last] y = Conv(b, w9)""",
        w1=floats(rng, 6, 3, 3, 3),
        w2=floats(rng, 2, 3, 3, 3) / 9,
        w9=floats(rng, 2, 6, 3, 3),
    )
    return Case(proto, _images(rng), (6,), ("GridSample",))


def _cumulative(rng: Rng) -> Case:
    """Sums along an axis that is an input of the model."""
    proto = graph(
        "float[N,3,6,6] x, int64 at => float[N,2,p,q] y",
        "[first] a = Conv<pads=[1,1,1,1]>(x, w1)  b = CumSum(a, at)  [last] y = Conv(b, w9)",
        w1=floats(rng, 6, 3, 3, 3),
        w9=floats(rng, 2, 6, 3, 3),
    )
    return Case(proto, _images(rng) | {"at": np.array(1)}, (), ("CumSum",))


_LEAST = -(2**63)

CASES: dict[str, Callable[[Rng], Case]] = {
    "divided per channel": _through("b = Div(a, s)", s=(1, 6, 1, 1)),
    "pieces of which one is only pooled": _with_integers(
        "c, d = Split<axis=1>(a, parts)  e = MaxPool<kernel_shape=[1,1]>(c)  b = Concat<axis=1>(e, d)",
        (2, 4),
        6,
        {"parts": [2, 4]},
    ),
    "one entry tiled": _one_repeated("c = Tile(one, times)", {"times": [1, 6, 1, 1]}, "Tile"),
    "one entry padded": _one_repeated("c = Pad(one, more)", {"more": [0, 0, 0, 0, 0, 5, 0, 0]}, "Pad"),
    "shape read backwards, twice": _with_integers(
        "z = Shape(a)  u = Slice(z, far, low, i0, back)  v = Slice(u, far, low, i0, back)  b = Reshape(a, v)",
        (6,),
        6,
        {"far": [2**63 - 1], "low": [_LEAST + 1], "i0": [0], "back": [-1]},
    ),
    "shape from far in front": _through("z = Shape<start=-10,end=10>(a)  b = Reshape(a, z)"),
    "size as output": _size_as_output,
    "size in a branch": _size_in_branch,
    "sliced in computed steps": _steps_computed,
    "sampled": _sampled,
    "added up along a computed axis": _cumulative,
    "relu": _through("b = Relu(a)"),
    "clip": _through("lo = Constant<value_float=0.0>()  b = Clip(a, lo)"),
    "scaled per channel": _through("b = Mul(a, s)", s=(1, 6, 1, 1)),
    "prelu": _through("b = PRelu(a, s)", s=(6, 1, 1)),
    "pooled": _through("c = MaxPool<kernel_shape=[2,2]>(a)  b = AveragePool<kernel_shape=[2,2]>(c)"),
    "instance normalization": _through("b = InstanceNormalization(a, s, o)", s=(6,), o=(6,)),
    "batch normalization": _normalization,
    "grouped": _grouped,
    "depthwise": _depthwise,
    "depthwise with a multiplier": _multiplied,
    "residual": _residual,
    "dense": _dense,
    "sum with a concatenation": _concat_added,
    "shuffled": _shuffled,
    "shuffled and split": _shuffled_and_split,
    "squeeze and excite": _squeeze_excite,
    "padded shortcut": _padded_shortcut,
    "pixel shuffle, depth first": _pixel_shuffle("DCR"),
    "pixel shuffle, columns first": _pixel_shuffle("CRD"),
    "space to depth": _through("b = SpaceToDepth<blocksize=2>(a)", last=24),
    "transposed convolution": _transposed(1),
    "transposed convolution in groups": _transposed(2),
    "flattened": _flattened,
    "split": _with_integers("c, d = Split<axis=1>(a, parts)  b = Mul(c, d)", (3,), 3, {"parts": [3, 3]}),
    "split without sizes": _with_integers("c, d = Split<axis=1, num_outputs=2>(a)  b = Sub(c, d)", (3,), 3, {}),
    "sliced": _with_integers("b = Slice(a, from, to, axis)", (2, 4), 4, {"from": [1], "to": [5], "axis": [1]}),
    "sliced from the end": _with_integers(
        "c = Slice(a, from, to, axis)  d = Slice(a, zero, from, axis)  b = Concat<axis=1>(c, d)",
        (2, 4),
        6,
        {"from": [-2], "to": [9223372036854775807], "axis": [1], "zero": [0]},
    ),
    "gathered": _with_integers("b = Gather<axis=1>(a, which)", (6,), 8, {"which": [5, 0, 1, 2, 3, 4, -1, 0]}),
    "tiled": _with_integers("b = Tile(a, times)", (6,), 12, {"times": [1, 2, 1, 1]}),
    "resized by sizes": _with_integers(
        's = Identity(to)  b = Resize<mode="nearest">(a, , , s)', (6,), 6, {"to": [2, 6, 9, 9]}
    ),
    "transposed twice": _through("c = Transpose<perm=[0,2,3,1]>(a)  d = Relu(c)  b = Transpose<perm=[0,3,1,2]>(d)"),
    "gemm": _gemm(False),
    "gemm, transposed": _gemm(True),
    "gated": _gated,
    "embedded": _embedded,
    "attention": _attention,
    "attention with sizes at run time": _attention_with_sizes,
    "attention in one product": _attention_fused,
    "attention with grouped queries": _grouped_queries,
    "class token": _class_token,
    "lstm": _lstm("forward"),
    "lstm, both ways": _lstm("bidirectional"),
    "gru with a given state": _gru,
    "einsum": _einsum,
    "einsum_without_arrow": _implicit_einsum,
    "shared weight": _shared,
}
