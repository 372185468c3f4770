"""Rows of a packed table, as ONNX Runtime unpacks them, against the codes themselves."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.edit import settle
from compressor.graph.lookup import insert_packed_lookup, lookup_refusal
from compressor.graph.model import Model
from compressor.graph.packing import DOMAIN
from compressor.graph.verify import check_file
from compressor.numerics.levels import Coded
from compressor.numerics.schemes import Scheme, encode
from tests.models import Floats, array, floats, graph, load, outputs

ROWS = 30
INDICES = {
    "scalar": (np.array(17), "int64 x => float[64] y"),
    "one": (np.array([4]), "int64[1] x => float[1,64] y"),
    "line": (np.array([3, 0, 29, 3]), "int64[N] x => float[N,64] y"),
    "matrix": (np.arange(6).reshape(2, 3), "int64[N,M] x => float[N,M,64] y"),
    "from the end": (np.array([-1, -30]), "int64[N] x => float[N,64] y"),
}


def _table(folder: Path, table: Floats, signature: str, body: str = "[l] y = Gather(w, x)") -> Model:
    return load(graph(signature, body, w=table), folder)


def _packed(model: Model, block: int) -> Coded:
    (weight,) = model.weights()
    assert lookup_refusal(weight, block) is None
    coded = encode(weight.matrix(), Scheme(3, "per_block", block))
    insert_packed_lookup(model.ir, weight, coded)
    settle(model.ir)
    return coded


@pytest.mark.parametrize("kind", INDICES)
def test_rows_are_those_of_the_codes_whatever_the_indices(kind: str, tmp_path: Path, rng: np.random.Generator) -> None:
    indices, signature = INDICES[kind]
    table = floats(rng, ROWS, 64)
    model = _table(tmp_path, table, signature)
    coded = _packed(model, 16)
    found = outputs(model, {"x": indices}, tmp_path)["y"]
    assert found.shape == (*indices.shape, 64)
    np.testing.assert_allclose(found, coded.dequantize()[indices], rtol=1e-6)
    check_file(tmp_path / "written.onnx")


@pytest.mark.parametrize(("width", "block"), [(16, 8), (64, 8), (64, 32), (96, 16), (256, 128)])
def test_rows_are_those_of_the_codes_whatever_the_blocks(
    width: int, block: int, tmp_path: Path, rng: np.random.Generator
) -> None:
    table = floats(rng, ROWS, width) * np.exp(floats(rng, ROWS, 1))
    model = _table(tmp_path, table, f"int64[N] x => float[N,{width}] y")
    coded = _packed(model, block)
    found = outputs(model, {"x": np.arange(ROWS)}, tmp_path)["y"]
    np.testing.assert_allclose(found, coded.dequantize(), rtol=1e-6)
    assert np.square(found - table).sum() < 0.06 * np.square(table).sum()


def test_indices_of_32_bits_will_do(tmp_path: Path, rng: np.random.Generator) -> None:
    model = _table(tmp_path, floats(rng, ROWS, 64), "int32[N] x => float[N,64] y")
    coded = _packed(model, 16)
    indices = np.array([5, 6], np.int32)
    np.testing.assert_allclose(outputs(model, {"x": indices}, tmp_path)["y"], coded.dequantize()[indices], rtol=1e-6)


def test_a_table_that_is_read_twice_is_stored_once(tmp_path: Path, rng: np.random.Generator) -> None:
    body = "[a] p = Gather(w, x)  [b] q = Gather(w, z)  y = Add(p, q)"
    model = _table(tmp_path, floats(rng, ROWS, 64), "int64[N] x, int64[N] z => float[N,64] y", body)
    coded = _packed(model, 16).dequantize()
    x, z = np.array([1, 2]), np.array([7, 29])
    found = outputs(model, {"x": x, "z": z}, tmp_path)["y"]
    np.testing.assert_allclose(found, coded[x] + coded[z], rtol=1e-5, atol=1e-6)
    assert sum(node.op_type == "LookUp3" and node.domain == DOMAIN for node in model.ir.graph) == 2
    assert sum(value.name == "w_packed" for value in model.ir.graph.initializers.values()) == 1


def test_nothing_is_stored_but_codes_multipliers_and_scales(tmp_path: Path, rng: np.random.Generator) -> None:
    model = _table(tmp_path, floats(rng, ROWS, 64), "int64[N] x => float[N,64] y")
    coded = _packed(model, 16)
    described = 2 * 8 + 32  # the shape of a row, and constants of the functions
    assert coded.nbytes == ROWS * (64 * 3 + 4 * 4 + 32) / 8
    assert coded.nbytes <= model.nbytes() <= coded.nbytes + described


@pytest.mark.parametrize(("width", "block"), [(64, 12), (64, 64), (48, 16), (60, 16), (64, 4)])
def test_rows_that_cannot_be_packed_are_refused(width: int, block: int, tmp_path: Path) -> None:
    model = _table(tmp_path, np.ones((ROWS, width), np.float32), f"int64[N] x => float[N,{width}] y")
    (weight,) = model.weights()
    assert lookup_refusal(weight, block) == f"rows of {width} are no even number of blocks of {block}"


def test_tables_of_more_axes_are_refused(tmp_path: Path) -> None:
    model = _table(tmp_path, np.ones((4, 2, 64), np.float32), "int64[N] x => float[N,2,64] y")
    (weight,) = model.weights()
    assert lookup_refusal(weight, 16) is not None


OTHERS = {
    "another width": Scheme(4, "per_block", 16),
    "no blocks": Scheme(3),
    "real steps": Scheme(8, "per_block", 16, "float"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_other_codes_are_an_error(kind: str, tmp_path: Path) -> None:
    model = _table(tmp_path, array(np.arange(ROWS * 64).reshape(ROWS, 64)), "int64[N] x => float[N,64] y")
    (weight,) = model.weights()
    with pytest.raises(ValueError, match="only two-level codes of 3 bits are looked up packed"):
        insert_packed_lookup(model.ir, weight, encode(weight.matrix(), OTHERS[kind]))
