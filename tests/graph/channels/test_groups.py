"""Cutting channels out computes what setting them to zero does; what must stay, stays, with a reason."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from compressor.graph.channels import Channels, prepare
from compressor.graph.model import Model
from compressor.runtime.shapes import observe_shapes
from tests.graph.channels.graphs import CASES, Case
from tests.models import Array, floats, graph, load, outputs, run

COMPUTED_ANEW = settings(
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def _prepared(case: Case, folder: Path) -> tuple[Model, dict[str, tuple[int, ...]]]:
    model = load(case.proto, folder)
    prepare(model, observe_shapes(model, case.feeds, folder))
    return model, observe_shapes(model, case.feeds, folder)


def _case(name: str) -> Case:
    return CASES[name](np.random.default_rng(0))


@pytest.mark.parametrize("name", CASES)
def test_the_groups_are_these(tmp_path: Path, name: str) -> None:
    case = _case(name)
    channels = Channels.of(*_prepared(case, tmp_path))
    assert tuple(sorted(group.width for group in channels.groups)) == tuple(sorted(case.widths))
    for words in case.frozen:
        assert any(words in group.reason for group in channels.frozen)


@pytest.mark.parametrize("name", CASES)
@COMPUTED_ANEW
@given(data=st.data())
def test_cutting_channels_out_computes_what_setting_them_to_zero_does(
    tmp_path: Path, name: str, data: st.DataObject
) -> None:
    case = _case(name)
    model, shapes = _prepared(case, tmp_path)
    channels, masked = Channels.of(model, shapes), model.copy()
    dropped: list[int] = []
    for group in channels.groups:
        gone = st.sets(st.sampled_from(group.units), max_size=group.width - 1)
        dropped += sorted(data.draw(gone, label=group.name))
    channels.mask(masked, dropped)
    channels.drop(dropped)
    expected, found = (outputs(m, case.feeds, tmp_path) for m in (masked, model))
    onnx.checker.check_model(str(tmp_path / "written.onnx"), full_check=True)
    _same(expected, found)


@pytest.mark.parametrize("name", CASES)
def test_every_unit_that_goes_takes_numbers_with_it(tmp_path: Path, name: str) -> None:
    case = _case(name)
    model, shapes = _prepared(case, tmp_path)
    for number, group in enumerate(group for group in Channels.of(model, shapes).groups if group.width > 1):
        copy = model.copy()
        channels = Channels.of(copy, shapes)
        expected = channels.costs.parameters(group.units[:1])
        channels.drop(group.units[:1])
        assert copy.parameters() == expected < model.parameters(), number


@pytest.mark.parametrize("name", CASES)
def test_preparing_changes_nothing_that_is_computed(tmp_path: Path, name: str) -> None:
    case = _case(name)
    model, _ = _prepared(case, tmp_path)
    _same(run(case.proto, case.feeds), outputs(model, case.feeds, tmp_path))


def _same(expected: dict[str, Array], found: dict[str, Array]) -> None:
    assert expected.keys() == found.keys()
    for name, wanted in expected.items():
        assert wanted.shape == found[name].shape
        scale = float(np.abs(wanted).max()) + 1e-6
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize(("activation", "noted"), [("Sigmoid", True), ("Exp", True), ("Relu", False), ("Tanh", False)])
def test_sums_of_products_that_zeros_do_not_leave_out_are_noted(
    tmp_path: Path, activation: str, noted: bool, rng: np.random.Generator
) -> None:
    body = f"""[q] q = MatMul(x, w1)  [k] k = MatMul(x, w2)  p = {activation}(q)  m = {activation}(k)
    t = Transpose<perm=[0,2,1]>(m)  y = MatMul(p, t)"""
    proto = graph("float[N,4,5] x => float[N,4,4] y", body, w1=floats(rng, 5, 6), w2=floats(rng, 5, 6))
    model = load(proto, tmp_path)
    (group,) = Channels.of(model, observe_shapes(model, {"x": floats(rng, 2, 4, 5)}, tmp_path)).groups
    assert bool(group.relaxed) == noted
