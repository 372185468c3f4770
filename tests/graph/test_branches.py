"""What a branch of If computes can be seen from outside, whichever branch runs."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.branches import Branches
from compressor.graph.observe import ENTRIES, RANGE_HIGH, RANGE_LOW, with_ranges
from tests.models import Array, array, graph, load, run

NESTED = """
y = If (outer) <
  then_branch = one () => (float[N] t) { double = Add(x, x)  t = Neg(double) },
  else_branch = two () => (float[N] e) {
    e = If (inner) <
      then_branch = three () => (float[N] u) { square = Mul(x, x)  u = Exp(square) },
      else_branch = four () => (float[N] v) { v = Identity(x) }
    >
  }
>
"""
SIGNATURE = "bool outer, bool inner, float[N] x => float[N] y"
X = array([1, -3, 2])


def _observed(folder: Path, entries: dict[str, int], outer: bool, inner: bool) -> dict[str, Array]:
    model = load(graph(SIGNATURE, NESTED), folder)
    with_ranges(model, entries).save(folder / "observed.onnx")
    return run(folder / "observed.onnx", {"outer": np.array(outer), "inner": np.array(inner), "x": X})


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_a_branch_that_runs_shows_its_tensors_and_one_that_does_not_shows_nothing(
    tmp_path: Path, outer: bool, inner: bool
) -> None:
    found = _observed(tmp_path, {"double": 10, "square": 10, "x": 10}, outer, inner)
    runs = {"double": outer, "square": not outer and inner, "x": True}
    values = {"double": 2 * X, "square": X * X, "x": X}
    for name, here in runs.items():
        seen = values[name] if here else array([])
        assert found[RANGE_LOW + name] == seen.min(initial=np.inf)
        assert found[RANGE_HIGH + name] == seen.max(initial=-np.inf)
        assert np.array_equal(found[ENTRIES + name], seen)


def test_the_model_observed_is_not_changed(tmp_path: Path) -> None:
    model = load(graph(SIGNATURE, NESTED), tmp_path)
    before = model.node_counts(), [len(inside.outputs) for inside in model.ir.graphs()]
    with_ranges(model, {"square": 5})
    assert (model.node_counts(), [len(inside.outputs) for inside in model.ir.graphs()]) == before


def test_a_name_that_two_branches_use_and_the_inside_of_loops_are_left_out(tmp_path: Path) -> None:
    body = """
    z = If (c) <
      then_branch = one () => (float[N] t) { same = Neg(x)  t = Neg(same) },
      else_branch = two () => (float[N] e) { same = Abs(x)  e = Neg(same) }
    >
    y = Loop (n, c, z) <
      body = three (int64 i, bool keep, float[N] before) => (bool on, float[N] after) {
        on = Identity(keep)  inside = Neg(before)  after = Neg(inside)
      }
    >
    """
    model = load(graph("bool c, int64 n, float[N] x => float[N] y", body), tmp_path)
    assert set(Branches(model.ir).values) == {"t", "e"}
