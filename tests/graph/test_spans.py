"""Spans: what comes behind one is known from what it ends with."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_ir.passes import common

from compressor.graph.observe import frontier
from compressor.graph.spans import Span, spans
from tests.models import Array, floats, graph, load

RNG = np.random.default_rng(0)
SQUARE = {f"w{i}": floats(RNG, 4, 4) for i in range(4)}


def _spans(folder: Path, signature: str, body: str, **more: Array) -> list[Span]:
    arrays = {name: array for name, array in SQUARE.items() if name in body}
    return spans(load(graph(signature, body, **arrays, **more), folder).ir, list(arrays))


def test_each_layer_of_a_chain_is_one_up_to_what_the_next_reads(tmp_path: Path) -> None:
    body = "a = MatMul(x, w0) b = Relu(a) c = MatMul(b, w1) y = Sigmoid(c)"
    found = _spans(tmp_path, "float[N,4] x => float[N,4] y", body)
    assert found == [Span(("b",), ("w0",)), Span(("y",), ("w1",))]


def test_a_residual_block_is_one(tmp_path: Path) -> None:
    body = "a = MatMul(x, w0) b = MatMul(a, w1) c = Relu(b) d = MatMul(c, w2) s = Add(a, d) y = MatMul(s, w3)"
    found = _spans(tmp_path, "float[N,4] x => float[N,4] y", body)
    assert found == [Span(("a",), ("w0",)), Span(("s",), ("w1", "w2")), Span(("y",), ("w3",))]


def test_masks_and_sizes_may_go_around(tmp_path: Path) -> None:
    body = """half = Mul(mask, mask) a = MatMul(x, w0) size = Shape(a) b = MatMul(a, w1) c = Mul(b, half)
    y = Reshape(c, size)"""
    found = _spans(tmp_path, "float[N,4] x, float[N,1] mask => float[N,4] y", body)
    assert found == [Span(("a",), ("w0",)), Span(("y",), ("w1",))]


def test_branches_that_never_meet_are_one_together(tmp_path: Path) -> None:
    body = "a = MatMul(x, w0) y = MatMul(x, w1) b = MatMul(a, w2) z = Relu(b)"
    found = _spans(tmp_path, "float[N,4] x => float[N,4] y, float[N,4] z", body)
    assert [name for span in found for name in span.arrays] == ["w0", "w1", "w2"]
    assert {"y", "z"} <= {name for span in found for name in span.ends}


def test_an_output_on_the_way_is_an_end_too(tmp_path: Path) -> None:
    body = "a = MatMul(x, w0) y = MatMul(a, w1) b = Relu(a) z = MatMul(b, w2)"
    found = _spans(tmp_path, "float[N,4] x => float[N,4] y, float[N,4] z", body)
    assert found == [Span(("a",), ("w0",)), Span(("y", "b"), ("w1",)), Span(("z",), ("w2",))]


def test_an_array_counts_where_it_is_read_first(tmp_path: Path) -> None:
    found = _spans(tmp_path, "float[N,4] x => float[N,4] y", "a = MatMul(x, w0) y = MatMul(a, w0)")
    assert found == [Span(("y",), ("w0",))]


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=2, max_size=9))
def test_behind_a_span_nothing_else_is_needed(
    tmp_path_factory: pytest.TempPathFactory, nodes: list[tuple[int, int]]
) -> None:
    """In graphs of any shape: layers and sums of what there is so far."""
    made, body = ["x"], ""
    for number, (left, right) in enumerate(nodes):
        one, other = made[left % len(made)], made[right % len(made)]
        name = f"t{number}"
        body += f"{name} = MatMul({one}, v{number}) " if one == other else f"{name} = Add({one}, {other}) "
        made.append(name)
    body += f"y = MatMul({made[-1]}, v)"
    arrays = {f"v{number}": SQUARE["w0"] for number in range(len(nodes)) if f"v{number})" in body} | {"v": SQUARE["w1"]}
    model = load(graph("float[N,4] x => float[N,4] y", body, **arrays), tmp_path_factory.mktemp("graph"))
    common.RemoveUnusedNodesPass()(model.ir)
    found = spans(model.ir, list(arrays))
    read = {
        value.name for node in model.ir.graph for value in node.inputs if value is not None and value.name in arrays
    }
    assert {name for span in found for name in span.arrays} == read
    for span in found[:-1]:
        assert set(frontier(model, span.ends)) <= {*span.ends, "x"}
