"""Codes as floats and back: the copy computes the same, and storing what was there changes nothing."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.latent import free, settle, unreached
from compressor.graph.model import Model
from compressor.numerics.levels import LEVELS, Bits
from compressor.numerics.packing import pack_bits, pack_ternary, unpack_bits, unpack_ternary
from compressor.passes import Context, QuantizeStatic, QuantizeWeights
from compressor.progress import Silent
from tests.models import cnn, floats, graph, load, outputs
from tests.passes.test_correct_bias import _context

RNG = np.random.default_rng(4)
X = {"x": np.abs(floats(RNG, 8, 3, 8, 8))}


@pytest.mark.parametrize("bits", LEVELS)
@pytest.mark.parametrize("storage", [False, True], ids=["int8", "float"])
def test_floats_stand_for_the_codes_and_come_back_as_them(tmp_path: Path, bits: Bits, storage: bool) -> None:
    model = load(cnn(np.random.default_rng(1)), tmp_path)
    settings = {"type": "quantize_weights"} if storage else {"type": "quantize_static"}
    fields = {"bits": bits} if storage else {"weights": {"bits": bits}}
    step = (QuantizeWeights if storage else QuantizeStatic).model_validate({**settings, **fields})
    list(step.apply(model, _context(model, tmp_path)))
    expected = outputs(model, X, tmp_path)["y"]
    freed = free(model)
    assert len(freed.weights) >= (1 if storage else 2)
    assert outputs(freed.model, X, tmp_path)["y"] == pytest.approx(expected, abs=0.05 * float(np.abs(expected).max()))
    values = freed.model.ir.graph.initializers
    arrays = {name: values[name].const_value.numpy() for name in freed.names}  # type: ignore[union-attr]
    assert settle(model, freed, arrays) == ()
    moved = {name: -array for name, array in arrays.items()}
    assert set(settle(model, freed, moved)) <= set(freed.names)
    assert not np.array_equal(outputs(model, X, tmp_path)["y"], expected)
    assert all(reader != "Conv" for _, reader in unreached(model))


@pytest.mark.parametrize("bits", LEVELS)
def test_products_ranged_at_run_time_become_products_of_floats(tmp_path: Path, bits: Bits) -> None:
    rng = np.random.default_rng(1)
    arrays = {"u": floats(rng, 24, 32), "a": floats(rng, 32), "v": floats(rng, 32, 16)}
    body = "[one] g = Gemm(x, u, a) h = Relu(g) [two] y = MatMul(h, v)"
    model, x = load(graph("float[N,24] x => float[N,16] y", body, **arrays), tmp_path), {"x": floats(rng, 8, 24)}
    list(QuantizeWeights(bits=bits, block=8).apply(model, _bare_context(model, tmp_path)))
    expected = outputs(model, x, tmp_path)["y"]
    freed = free(model)
    assert [weight.layer for weight in freed.weights] == ["one", "two"]
    assert {node.op_type for node in freed.model.ir.graph} >= {"MatMul", "DynamicQuantizeLinear"}
    np.testing.assert_allclose(outputs(freed.model, x, tmp_path)["y"], expected, atol=0.02 * np.abs(expected).max())
    values = freed.model.ir.graph.initializers
    held = {name: values[name].const_value.numpy() for name in freed.names}  # type: ignore[union-attr]
    assert settle(model, freed, held) == ()
    assert set(settle(model, freed, {name: -array for name, array in held.items()})) <= set(freed.names)
    assert not np.array_equal(outputs(model, x, tmp_path)["y"], expected)
    assert not unreached(model)


def _bare_context(model: Model, folder: Path) -> Context:
    return Context(model.copy(), None, 0, folder, Silent(), 1)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_unpacking_undoes_packing(bits: int) -> None:
    values = RNG.integers(0, 2**bits, 37).astype(np.uint8)
    assert np.array_equal(unpack_bits(pack_bits(values, bits), bits, 37), values)


def test_unpacking_undoes_packing_of_ternary_codes() -> None:
    values = RNG.integers(0, 3, 38).astype(np.uint8)
    assert np.array_equal(unpack_ternary(pack_ternary(values), 38), values)
