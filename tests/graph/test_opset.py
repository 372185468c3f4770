"""Models of old opsets compute the same at the working one."""

from pathlib import Path

import numpy as np
import pytest

from compressor.errors import ModelError
from tests.models import array, floats, graph, load, outputs, run

RNG = np.random.default_rng(1)

OLD = {
    "softmax flattens": (12, "float[2,3,4] x => float[2,3,4] y", "y = Softmax<axis=1>(x)"),
    "log softmax flattens": (11, "float[2,3,4] x => float[2,3,4] y", "y = LogSoftmax<axis=1>(x)"),
    "clip": (7, "float[2,3,4] x => float[2,3,4] y", "y = Clip<min=-0.5, max=0.25>(x)"),
    "clip one side": (9, "float[2,3,4] x => float[2,3,4] y", "y = Clip<min=-0.5>(x)"),
    "pad": (7, "float[2,3,4] x => float[2,4,5] y", "y = Pad<pads=[0,1,0,0,0,1], value=2.0>(x)"),
    "slice": (7, "float[2,3,4] x => float[2,1,2] y", "y = Slice<axes=[1,2], starts=[1,0], ends=[2,-2]>(x)"),
    "squeeze": (7, "float[2,3,4] x => float[2,3,4] y", "u = Unsqueeze<axes=[0]>(x)  y = Squeeze<axes=[0]>(u)"),
    "reduce": (7, "float[2,3,4] x => float[2,4] y", "y = ReduceSum<axes=[1], keepdims=0>(x)"),
    "reduce mean": (7, "float[2,3,4] x => float[2,1,4] y", "y = ReduceMean<axes=[1]>(x)"),
    "reduce max": (11, "float[2,3,4] x => float[2,1,1] y", "y = ReduceMax<axes=[1,-1]>(x)"),
    "split": (7, "float[2,3,4] x => float[2,1,4] y, float[2,2,4] z", "y, z = Split<axis=1, split=[1,2]>(x)"),
    "dropout": (7, "float[2,3,4] x => float[2,3,4] y", "y = Dropout<ratio=0.9>(x)"),
    "batch normalization": (8, "float[2,3,4] x => float[2,3,4] y", "y = BatchNormalization(x, p, q, p, v)"),
    "top": (7, "float[2,3,4] x => float[2,3,2] y, int64[2,3,2] i", "y, i = TopK<axis=-1, k=2>(x)"),
    "arg max": (7, "float[2,3,4] x => int64[2,1,4] y", "y = ArgMax<axis=1>(x)"),
    "cast": (8, "float[2,3,4] x => float[2,3,4] y", "i = Cast<to=7>(x)  y = Cast<to=1>(i)"),
    "leaky relu": (7, "float[2,3,4] x => float[2,3,4] y", "y = LeakyRelu<alpha=0.3>(x)"),
    "sum": (7, "float[2,3,4] x => float[2,3,4] y", "y = Sum(x, x, x)"),
    "max": (7, "float[2,3,4] x => float[2,3,4] y", "n = Neg(x)  y = Max(x, n)"),
    "flatten": (7, "float[2,3,4] x => float[2,12] y", "y = Flatten(x)"),
    "gemm": (7, "float[2,4] x => float[2,4] y", "y = Gemm<alpha=0.5, beta=2.0, transB=1>(x, w, b)"),
    "average pool": (
        7,
        "float[1,1,5,5] x => float[1,1,3,3] y",
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], strides=[2,2]>(x)",
    ),
    "upsample": (9, "float[1,1,3,3] x => float[1,1,6,6] y", 'y = Upsample<mode="nearest">(x, s)'),
    "upsample 7": (
        7,
        "float[1,1,3,3] x => float[1,1,6,6] y",
        'y = Upsample<mode="nearest", scales=[1.0,1.0,2.0,2.0]>(x)',
    ),
    "resize linear": (10, "float[1,1,3,3] x => float[1,1,6,6] y", 'y = Resize<mode="linear">(x, s)'),
    "resize 11": (
        11,
        "float[1,1,3,3] x => float[1,1,6,6] y",
        'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, r, s)',
    ),
    "instance normalization": (7, "float[2,3,4] x => float[2,3,4] y", "y = InstanceNormalization(x, p, q)"),
    "prelu": (7, "float[2,3,4] x => float[2,3,4] y", "y = PRelu(x, m)"),
    "expand": (8, "float[2,3,4] x => float[2,3,4] y", "k = Shape(x)  e = Expand(h, k)  y = Add(x, e)"),
    "layer normalization": (17, "float[2,3,4] x => float[2,3,4] y", "y = LayerNormalization(x, w4, w4)"),
    "reduce l2": (13, "float[2,3,4] x => float[2,3,1] y", "y = ReduceL2<axes=[-1]>(x)"),
    "scatter": (9, "float[2,4] x => float[2,4] y", "y = Scatter<axis=1>(x, i21, u21)"),
    "softmax without axis": (11, "float[2,3,4] x => float[2,3,4] y", "y = Softmax(x)"),
    "split evenly": (11, "float[2,4] x => float[2,2] y, float[2,2] z", "y, z = Split<axis=1>(x)"),
    "split evenly later": (13, "float[2,4] x => float[2,2] y, float[2,2] z", "y, z = Split<axis=1>(x)"),
    "grid sample": (16, "float[1,1,4,4] x => float[1,1,4,2] y", 'y = GridSample<mode="bilinear">(x, grid)'),
    "grid sample cubic": (16, "float[1,1,4,4] x => float[1,1,4,2] y", 'y = GridSample<mode="bicubic">(x, grid)'),
    "group normalization of what is computed": (
        18,
        "float[2,4,3] x => float[2,4,3] y",
        "some = Relu(x)  y = GroupNormalization<num_groups=2>(some, g2, h2)",
    ),
    "group normalization": (18, "float[2,4,3] x => float[2,4,3] y", "y = GroupNormalization<num_groups=2>(x, g2, h2)"),
    "resize nearest": (10, "float[1,1,3,3] x => float[1,1,6,6] y", 'y = Resize<mode="nearest">(x, s)'),
    "resize nearest down": (10, "float[1,1,5,5] x => float[1,1,2,2] y", 'y = Resize<mode="nearest">(x, s05)'),
    "resize 13": (13, "float[1,1,3,3] x => float[1,1,6,6] y", 'y = Resize<mode="cubic">(x, , s)'),
    "upsample linear": (9, "float[1,1,3,3] x => float[1,1,6,6] y", 'y = Upsample<mode="linear">(x, s)'),
    "upsample nearest down": (9, "float[1,1,3,3] x => float[1,1,4,4] y", 'y = Upsample<mode="nearest">(x, s15)'),
    "reduce product": (13, "float[2,3,4] x => float[2,1,4] y", "y = ReduceProd<axes=[1]>(x)"),
    "reduce all": (11, "float[2,3,4] x => float[1,1,1] y", "y = ReduceMean(x)"),
    "lstm": (7, "float[2,3,4] x => float[2,1,3,2] y", "y = LSTM<hidden_size=2>(x, lw, lr)"),
    "average of padding": (
        7,
        "float[1,1,5,5] x => float[1,1,5,5] y",
        "y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)",
    ),
    "quantize": (
        10,
        "float[2,3,4] x => float[2,3,4] y",
        "steps = QuantizeLinear(x, tenth, z8)  y = DequantizeLinear(steps, tenth, z8)",
    ),
    "inside a branch": (
        11,
        "float[2,3,4] x => float[2,3,4] y",
        """y = If(yes) <then_branch = t () => (float[2,3,4] one) { one = Softmax<axis=1>(x) },
                        else_branch = e () => (float[2,3,4] other) { other = Neg(x) }>""",
    ),
    "squeeze inside a branch": (
        11,
        "float[2,1,4] x => float[2,4] y",
        """y = If(yes) <then_branch = t () => (float[2,4] one) { one = Squeeze<axes=[1]>(x) },
                        else_branch = e () => (float[2,4] other) { other = ReduceSum<axes=[1], keepdims=0>(x) }>""",
    ),
}
CONSTANTS = {
    "p": np.abs(floats(RNG, 3)),
    "q": floats(RNG, 3),
    "v": np.abs(floats(RNG, 3)),
    "w": floats(RNG, 4, 4),
    "b": floats(RNG, 4),
    "s": array([1, 1, 2, 2]),
    "r": array([]),
    "m": floats(RNG, 3, 1),
    "h": array([1.5]),
    "w4": floats(RNG, 4),
    "i21": np.array([[1], [0]]),
    "u21": floats(RNG, 2, 1),
    "grid": floats(RNG, 1, 4, 2, 2),
    "g2": floats(RNG, 2),
    "h2": floats(RNG, 2),
    "s05": array([1, 1, 0.5, 0.5]),
    "s15": array([1, 1, 1.5, 1.5]),
    "lw": floats(RNG, 1, 8, 4),
    "lr": floats(RNG, 1, 8, 2),
    "tenth": array(0.1),
    "z8": np.array(3, np.uint8),
    "yes": np.array(True),
}


@pytest.mark.parametrize("name", OLD)
def test_raising_the_opset_does_not_change_what_is_computed(name: str, tmp_path: Path) -> None:
    opset, signature, body = OLD[name]
    tokens = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    arrays = {key: value for key, value in CONSTANTS.items() if key in tokens}
    proto = graph(signature, body, opset=opset, ir_version=4, **arrays)
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    feeds = {"x": floats(np.random.default_rng(3), *shape)}
    model = load(proto, tmp_path)
    found = outputs(model, feeds, tmp_path)
    assert model.opset == 21
    for output, values in run(proto, feeds).items():
        np.testing.assert_allclose(found[output], values, rtol=1e-6, atol=1e-6)


def test_hardmax_that_flattens_is_refused_because_the_converter_forgets_it(tmp_path: Path) -> None:
    proto = graph("float[2,3,4] x => float[2,3,4] y", "y = Hardmax<axis=1>(x)", opset=11)
    with pytest.raises(ModelError, match="Hardmax flattens its input"):
        load(proto, tmp_path)
