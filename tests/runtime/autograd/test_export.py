"""Files for torch: run by torch as a user runs them, at sizes that the example did not have."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from compressor.errors import PassError, VerificationError
from compressor.graph.model import Model
from compressor.runtime.autograd import export
from tests.models import Array, graph, load, run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

RNG = np.random.default_rng(8)


def _floats(*shape: int) -> Array:
    return RNG.standard_normal(shape, dtype=np.float32)


CONVOLUTION = graph(
    "float[N,2,H,6] x => float[N,3] y",
    """c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
       r = Relu (c)
       p = GlobalAveragePool (r)
       s = Shape <start = 0, end = 1> (x)
       t = Concat <axis = 0> (s, three)
       y = Reshape (p, t)""",
    w=_floats(3, 2, 3, 3),
    b=_floats(3),
    three=np.array([3]),
)


def _recurrent(length: str) -> onnx.ModelProto:
    return graph(
        f"float[{length},N,3] x => float[{length},N,4] y, float[N,4] last",
        """o, h = LSTM <hidden_size = 4> (x, w, r)
           y = Squeeze (o, one)
           last = Squeeze (h, zero)""",
        w=_floats(1, 16, 3),
        r=_floats(1, 16, 4),
        one=np.array([1]),
        zero=np.array([0]),
    )


INTEGER = graph(
    "float[N,4] x => float[N,3] y",
    """q = QuantizeLinear (x, s, z)
       d = DequantizeLinear (q, s, z)
       w = DequantizeLinear (codes, t)
       y = MatMul (d, w)""",
    s=np.float32(0.02),
    z=np.uint8(128),
    codes=RNG.integers(-127, 128, (4, 3)).astype(np.int8),
    t=np.float32(0.01),
)

MODELS: dict[str, tuple[onnx.ModelProto, tuple[dict[str, Array], ...]]] = {
    "convolution": (CONVOLUTION, ({"x": _floats(2, 2, 5, 6)}, {"x": _floats(7, 2, 9, 6)})),
    "recurrent": (_recurrent("5"), ({"x": _floats(5, 2, 3)}, {"x": _floats(5, 6, 3)})),
    "integer": (INTEGER, ({"x": _floats(2, 4)}, {"x": _floats(9, 4)})),
}


def _loaded(path: Path, kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.load(str(path)) if kind == "torchscript" else torch.export.load(path).module()


def _written(proto: onnx.ModelProto, folder: Path, kind: export.Format, feeds: dict[str, Array]) -> Path:
    model = load(proto, folder)
    path = folder / ("out.pt" if kind == "torchscript" else "out.pt2")
    model.save(folder / "prepared.onnx")
    error = export.write(model, folder / "prepared.onnx", path, kind, feeds, {"note.json": "[1]"})
    assert 0 <= error < 0.02
    return path


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
@pytest.mark.parametrize("name", MODELS)
def test_torch_computes_what_onnx_runtime_computes(name: str, kind: export.Format, tmp_path: Path) -> None:
    proto, batches = MODELS[name]
    path = _written(proto, tmp_path, kind, batches[0])
    module = _loaded(path, kind)
    for feeds in batches:
        with torch.no_grad():
            found = module(*map(torch.from_numpy, feeds.values()))
        found = found if isinstance(found, (tuple, list)) else (found,)
        wanted = run(proto, feeds)
        for value, expected in zip(found, wanted.values(), strict=True):
            np.testing.assert_allclose(value.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_trace_keeps_the_length_of_a_series_open(tmp_path: Path) -> None:
    module = _loaded(_written(_recurrent("T"), tmp_path, "torchscript", {"x": _floats(5, 2, 3)}), "torchscript")
    assert module(torch.zeros(9, 3, 3))[0].shape == (9, 3, 4)


def test_a_size_that_was_baked_in_is_found_and_refused(tmp_path: Path) -> None:
    """torch.export fixes the length of a series that goes through its LSTM."""
    model = load(_recurrent("T"), tmp_path)
    with pytest.raises(VerificationError, match="does not run in a fresh process"):
        export.write(model, tmp_path / "model.onnx", tmp_path / "out.pt2", "pt2", {"x": _floats(5, 2, 3)}, {})


@pytest.mark.parametrize("kind", ["torchscript", "pt2"])
def test_the_file_says_what_its_inputs_are_called_and_stores_no_example(kind: export.Format, tmp_path: Path) -> None:
    feeds = {"x": _floats(300, 4)}
    path = _written(INTEGER, tmp_path, kind, feeds)
    with zipfile.ZipFile(path) as archive:
        records = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert json.loads(records["signature.json"]) == {"inputs": ["x"], "outputs": ["y"]}
        assert records["note.json"] == b"[1]"
        assert not any(feeds["x"].tobytes() in data for data in records.values())


def test_codes_stay_codes(tmp_path: Path) -> None:
    codes = RNG.integers(-127, 128, (64, 64)).astype(np.int8)
    proto = graph(
        "float[N,64] x => float[N,64] y",
        "w = DequantizeLinear (codes, t) y = MatMul (x, w)",
        codes=codes,
        t=np.float32(0.01),
    )
    path = _written(proto, tmp_path, "torchscript", {"x": _floats(2, 64)})
    with zipfile.ZipFile(path) as archive:
        assert any(archive.read(name) == codes.tobytes() for name in archive.namelist())


DECIDED = {
    "a branch": graph(
        "float[2] x => float[2] y",
        """s = ReduceSum <keepdims = 0> (x)
           c = Greater (s, zero)
           y = If (c) <then_branch = g () => (float[2] a) { a = Relu (x) },
                       else_branch = h () => (float[2] b) { b = Neg (x) }>""",
        zero=np.float32(0),
    ),
    "a size": graph(
        "float[4] x, int64[1] n => float[M] y",
        "y = Slice (x, zero, n)",
        zero=np.array([0]),
    ),
}


@pytest.mark.parametrize("what", DECIDED)
def test_what_the_data_decides_is_refused_by_name(what: str, tmp_path: Path) -> None:
    model = load(DECIDED[what], tmp_path)
    feeds = {
        spec.name: np.ones([d for d in spec.shape or () if isinstance(d, int)], spec.dtype) for spec in model.inputs()
    }
    with pytest.raises(PassError, match=r"(If|Slice)\) is decided by the data"):
        export.write(model, tmp_path / "model.onnx", tmp_path / "out.pt", "torchscript", feeds, {})
    assert not (tmp_path / "out.pt").exists()


def test_a_file_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    """The yardstick is what ONNX Runtime makes of the file, not of the model in memory."""
    model = load(CONVOLUTION, tmp_path)
    other = onnx.ModelProto()
    other.CopyFrom(CONVOLUTION)
    other.graph.initializer[1].raw_data = (_floats(3) + 1).tobytes()
    (tmp_path / "other.onnx").write_bytes(other.SerializeToString())
    with pytest.raises(VerificationError, match="differs from ONNX Runtime"):
        export.write(model, tmp_path / "other.onnx", tmp_path / "out.pt", "torchscript", {"x": _floats(2, 2, 5, 6)}, {})


def test_inputs_grow_along_every_open_dimension_together_by_name(tmp_path: Path) -> None:
    from compressor.runtime.ort import Session

    proto = graph(
        "float[N,S] a, float[N,2] b => float[N,S] y", "c = ReduceSum (b, one) y = Add (a, c)", one=np.array([1])
    )
    model = load(proto, tmp_path)
    feeds = {"a": _floats(1, 3), "b": _floats(1, 2)}
    shapes = [
        {n: a.shape for n, a in batch.items()} for batch in export.grown(model, Session(tmp_path / "model.onnx"), feeds)
    ]
    assert shapes == [
        {"a": (1, 3), "b": (1, 2)},
        {"a": (2, 3), "b": (2, 2)},
        {"a": (1, 9), "b": (1, 2)},
        {"a": (2, 9), "b": (2, 2)},
    ]


def test_a_model_read_again_is_the_same(tmp_path: Path) -> None:
    """Written for torch and converted back: one more proof that nothing was baked in."""
    from compressor.graph.torchscript import convert

    path = _written(CONVOLUTION, tmp_path, "torchscript", {"x": _floats(2, 2, 5, 6)})
    folder = tmp_path / "scratch"
    folder.mkdir()
    converted = convert(path, folder, trust=True)
    assert "batch" in converted.open
    (spec,) = Model.read(converted.file).inputs()
    feeds = _floats(3, 2, int(spec.shape[2]) if spec.shape and isinstance(spec.shape[2], int) else 5, 6)
    (found,) = run(converted.file, {spec.name: feeds}).values()
    np.testing.assert_allclose(found, run(CONVOLUTION, {"x": feeds})["y"], rtol=1e-4, atol=1e-5)
