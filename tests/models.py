"""Tiny graphs in ONNX's own text form, and ONNX Runtime as the judge of what they compute."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
from numpy.typing import ArrayLike, NDArray
from onnx import numpy_helper

from compressor.graph.model import Model

Array = NDArray[Any]
Floats = NDArray[np.float32]


def graph(
    signature: str,
    body: str,
    /,
    *,
    opset: int = 21,
    ir_version: int = 10,
    domains: tuple[str, ...] = (),
    **arrays: Array,
) -> onnx.ModelProto:
    """A model: `signature` is "float[N,4] x => float[N,3] y", `body` its nodes, `arrays` its initializers."""
    inputs, outputs = (side.strip() for side in signature.split("=>"))
    imports = ", ".join([f'"" : {opset}', *(f'"{domain}" : 1' for domain in domains)])
    text = f"<ir_version: {ir_version}, opset_import: [{imports}]> g ({inputs}) => ({outputs}) {{ {body} }}"
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


def write(proto: onnx.ModelProto, path: Path) -> Path:
    """`path`, where the model now is."""
    path.write_bytes(proto.SerializeToString())
    return path


def load(proto: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Model:
    """The model as passes get it."""
    return Model.load(write(proto, folder / name))


def run(model: onnx.ModelProto | Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """All outputs by name, from ONNX Runtime itself."""
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def outputs(model: Model, feeds: Mapping[str, Array], folder: Path) -> dict[str, Array]:
    """What the model computes once it is written."""
    path = folder / "written.onnx"
    model.save(path)
    return run(path, feeds)


def floats(rng: np.random.Generator, *shape: int) -> Floats:
    """Standard normal float32."""
    return rng.standard_normal(shape).astype(np.float32)


def array(values: ArrayLike) -> Floats:
    """`values` as float32."""
    return np.asarray(values, np.float32)


def decibels(expected: Array, found: Array) -> float:
    """Signal-to-noise ratio of `found`."""
    noise = np.square(expected.astype(np.float64) - found).sum()
    return float(10 * np.log10(np.square(expected.astype(np.float64)).sum() / max(noise, 1e-300)))


def mlp(rng: np.random.Generator, inputs: int = 8, hidden: int = 16, classes: int = 4) -> onnx.ModelProto:
    """Gemm, Relu, Gemm over float[N, inputs] x -> y; layers `first` and `second`."""
    return graph(
        f"float[N,{inputs}] x => float[N,{classes}] y",
        "[first] h = Gemm<transB=1>(x, w1, b1)  [act] r = Relu(h)  [second] y = Gemm<transB=1>(r, w2, b2)",
        w1=floats(rng, hidden, inputs),
        b1=floats(rng, hidden),
        w2=floats(rng, classes, hidden),
        b2=floats(rng, classes),
    )


def cnn(rng: np.random.Generator, classes: int = 3) -> onnx.ModelProto:
    """Conv, Relu, Conv, mean over positions, Gemm over float[N,3,8,8] x -> y; layers conv1, conv2, head."""
    return graph(
        f"float[N,3,8,8] x => float[N,{classes}] y",
        """[conv1] a = Conv<pads=[1,1,1,1]>(x, w1, b1)  [act] r = Relu(a)  [conv2] c = Conv<pads=[1,1,1,1]>(r, w2, b2)
        [pool] p = GlobalAveragePool(c)  [flat] f = Flatten(p)  [head] y = Gemm<transB=1>(f, w3, b3)""",
        w1=floats(rng, 8, 3, 3, 3) / 5,
        b1=floats(rng, 8) / 5,
        w2=floats(rng, 8, 8, 3, 3) / 8,
        b2=floats(rng, 8) / 5,
        w3=floats(rng, classes, 8),
        b3=floats(rng, classes),
    )
