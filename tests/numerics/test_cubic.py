"""Cubic resampling: the filters that are run at a stride do what the Resize of ONNX does, where that is defined."""

import numpy as np
import pytest

from compressor.numerics.cubic import filters
from tests.models import Floats, floats, graph, run


def _resized(x: Floats, made: int) -> Floats:
    """By ONNX Runtime."""
    body = 'y = Resize <mode = "cubic", axes = [3]> (x, , , sizes)'
    model = graph(f"float[1,1,1,{x.size}] x => float[A,B,C,D] y", body, sizes=np.int64([made]))
    return run(model, {"x": x.reshape(1, 1, 1, -1)})["y"].reshape(-1)


@pytest.mark.parametrize(("made", "side"), [(6, 7), (12, 14), (96, 112), (5, 8), (8, 16), (13, 29), (7, 7), (1, 2)])
def test_as_resize_does(made: int, side: int) -> None:
    x = floats(np.random.default_rng(made), side)
    weights, stride, ahead, behind = filters(made, side)
    padded = np.pad(x, (ahead, behind), mode="edge")
    places = range(0, side, stride)
    found = np.concatenate([weights @ padded[place : place + weights.shape[1]] for place in places])
    np.testing.assert_allclose(found, _resized(x, made), atol=1e-5)


@pytest.mark.parametrize(("made", "side"), [(192, 224), (160, 224), (223, 224), (3, 4)])
def test_a_constant_stays_what_it_is(made: int, side: int) -> None:
    weights, *_ = filters(made, side)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)


def test_filters_fill_registers_where_they_can() -> None:
    assert [filters(*sides)[0].shape[0] for sides in [(192, 224), (6, 7), (223, 224)]] == [24, 6, 223]
