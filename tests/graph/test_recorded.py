"""What a recorded run would lose, told from the graph."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.recorded import decided_by_data, rounds
from tests.models import graph, load

_BRANCH = "<then_branch = g () => (float[2] a) { a = Relu (x) }, else_branch = h () => (float[2] b) { b = Neg (x) }>"


@pytest.mark.parametrize(
    ("signature", "body", "decides"),
    [
        ("float[N,4] x => float[N,4] y", "s = Shape (x) r = Reshape (x, s) y = Relu (r)", None),
        ("float[4] x => float[M] y", "s = Cast <to = 7> (x) y = ConstantOfShape (s)", "ConstantOfShape"),
        ("int64[1] n => float[M] y", "m = Add (n, n) y = ConstantOfShape (m)", "ConstantOfShape"),
        ("float[N] x => float[N] y", "s = Shape (x) t = Add (s, s) c = ConstantOfShape (s) y = Add (x, c)", None),
        ("float[2] x, bool c => float[2] y", f"y = If (c) {_BRANCH}", "If"),
        ("float[N] x => float[M] y", "n = NonZero (x) m = Size (n) u = Unsqueeze (m, zero) y = Expand (f, u)", None),
        ("float[2] x => float[2] y", "y = Relu (x)", None),
    ],
)
def test_only_what_depends_on_values_is_decided_by_the_data(
    signature: str, body: str, decides: str | None, tmp_path: Path
) -> None:
    arrays = {name: value for name, value in (("zero", np.array([0])), ("f", np.float32(1))) if f" {name}" in body}
    found = decided_by_data(load(graph(signature, body, **arrays), tmp_path).ir)
    assert (found is None) == (decides is None)
    assert found is None or found.endswith(f"({decides})")


def test_rounding_is_seen_in_branches_too(tmp_path: Path) -> None:
    inside = """y = If (c) <
      then_branch = g () => (float[2] a) { q = QuantizeLinear (x, s) a = DequantizeLinear (q, s) },
      else_branch = h () => (float[2] b) { b = Neg (x) }>"""
    assert rounds(load(graph("float[2] x, bool c => float[2] y", inside, s=np.float32(1)), tmp_path).ir)
    assert not rounds(load(graph("float[2] x => float[2] y", "y = Neg (x)"), tmp_path).ir)
