"""A result must be a valid file with the signature of the reference."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from compressor.errors import VerificationError
from compressor.graph.verify import check_file, check_signature
from tests.models import cnn, graph, load, write

REFERENCE = "float[N,4] x, float[2,4] z => float[N,4] y"


def test_a_valid_file_passes(tmp_path: Path, rng: np.random.Generator) -> None:
    check_file(write(cnn(rng), tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    "broken",
    [
        graph("float[2,4] x => float[2,4] y", "y = Relu(nothing)"),
        graph("float[2,4] x => float[2,4] y", "y = NoSuchOperator(x)"),
        graph("float[2,4] x => float[3,4] y", "y = Relu(x)"),
        graph("float[2,4] x => int64[2,4] y", "y = Relu(x)"),
        graph("float[2,4] x => float[2,4] y", "h = Relu(x)  h = Neg(x)  y = Add(h, h)"),
    ],
)
def test_a_broken_file_is_refused_in_one_line(broken: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(VerificationError, match=r"^refused by onnx.checker: .+$") as refused:
        check_file(write(broken, tmp_path / "model.onnx"))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("signature", "part"),
    [
        ("float[N,4] x, float[2,4] zz => float[N,4] y", "inputs"),
        ("float[2,4] z, float[N,4] x => float[N,4] y", "inputs"),
        ("float16[N,4] x, float[2,4] z => float[N,4] y", "inputs"),
        ("float[N,4] x => float[N,4] y", "inputs"),
        ("float[N,4] x, float[3,4] z => float[N,4] y", "inputs"),
        ("float[M,4] x, float[2,4] z => float[N,4] y", "inputs"),
        ("float[N,4] x, float[2,4] z => float[N,5] y", "outputs"),
        ("float[N,4] x, float[2,4] z => float[N,4] y, float[N,4] more", "outputs"),
    ],
)
def test_another_name_order_type_or_dimension_is_refused(signature: str, part: str, tmp_path: Path) -> None:
    reference = load(graph(REFERENCE, "y = Relu(x)"), tmp_path, "reference.onnx")
    result = load(graph(signature, "y = Relu(x)  more = Neg(x)"), tmp_path, "result.onnx")
    check_signature(reference, reference)
    with pytest.raises(VerificationError, match=f"^{part} changed from .+ to "):
        check_signature(reference, result)


def test_dimensions_may_be_left_out_of_the_comparison(tmp_path: Path) -> None:
    reference = load(graph(REFERENCE, "y = Relu(x)"), tmp_path, "reference.onnx")
    other = load(graph("float[9,8] x, float[1] z => float[9,8] y", "y = Relu(x)"), tmp_path, "result.onnx")
    check_signature(reference, other, dimensions=False)
    renamed = load(graph("float[9,8] v, float[1] z => float[9,8] y", "y = Relu(v)"), tmp_path, "renamed.onnx")
    with pytest.raises(VerificationError):
        check_signature(reference, renamed, dimensions=False)
