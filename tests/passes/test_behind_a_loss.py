"""What earlier passes lost does not sway the next: each judges its changes from the model it is given."""

from pathlib import Path

import numpy as np
import pytest

from compressor.data import ArraysSource
from compressor.graph.model import Model
from compressor.passes import Context, Factorize, Pass, PruneChannels, QuantizeWeights
from compressor.progress import Silent
from compressor.report import Finding, Note
from tests.models import floats, graph, load

X = floats(np.random.default_rng(4), 256, 32)
PASSES = {
    "prune_channels": PruneChannels(type="prune_channels", parameters=0.6, round_to=1),
    "factorize": Factorize(type="factorize", parameters=0.6),
    "quantize_weights": QuantizeWeights.model_validate({"type": "quantize_weights", "budget": {"bits_per_weight": 5}}),
}


def _branches(folder: Path, first: float, second: float) -> Model:
    """Two hidden layers side by side; `first` and `second` scale what they add to the output."""
    rng = np.random.default_rng(3)
    body = """[one] a = MatMul(x, u0) b = Relu(a) [two] c = MatMul(b, u1)
    [three] d = MatMul(x, v0) e = Relu(d) [four] f = MatMul(e, v1) y = Add(c, f)"""
    arrays = {name: floats(rng, 32, 32) for name in ("u0", "u1", "v0", "v1")}
    arrays["u1"] *= np.float32(first)
    arrays["v1"] *= np.float32(second)
    return load(graph("float[N,32] x => float[N,32] y", body, **arrays), folder)


def _findings(step: Pass, reference: Model, model: Model, folder: Path) -> list[Finding | Note]:
    data = ArraysSource.model_validate({"path": folder / "data.npz", "batch": 32}).open(reference, "data", 0)
    return list(step.apply(model.copy(), Context(reference, data, 0, folder, Silent(), 1)))


@pytest.mark.parametrize("name", PASSES)
def test_a_change_that_comes_nearer_to_the_reference_by_chance_is_not_free(name: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", allow_pickle=False, x=X)
    reference, given = _branches(tmp_path, 1.0, 0.0), _branches(tmp_path, 0.5, 1.5)
    step = PASSES[name]
    assert _findings(step, reference, given, tmp_path) == _findings(step, given, given, tmp_path)
