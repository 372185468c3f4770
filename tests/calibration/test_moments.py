"""Second moments against sums over every row, gathered by explicit loops."""

from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from compressor.calibration import moments
from compressor.calibration.moments import Doubles, collect_moments
from compressor.data import ArraysSource, Dataset
from compressor.errors import DataError, PassError
from compressor.graph.inputs import LayerInput, layer_input
from compressor.graph.model import Model
from compressor.progress import Progress, Silent
from tests.models import Floats, array, floats, graph, load

T = TypeVar("T")
RNG = np.random.default_rng(7)


def _data(x: Floats, model: Model, folder: Path, batch: int) -> Dataset:
    np.savez(folder / "data.npz", x=x)
    return ArraysSource.model_validate({"path": folder / "data.npz", "batch": batch}).open(model, "data", 0)


def _wanted(model: Model) -> list[tuple[LayerInput, int]]:
    found = {}
    for weight in model.weights():
        key = layer_input(weight.uses[0])
        if key is not None:
            found[key] = weight.matrix().shape[1]
    return list(found.items())


def _collect(model: Model, data: Dataset, folder: Path, progress: Progress | None = None) -> dict[LayerInput, Doubles]:
    return dict(collect_moments(model, _wanted(model), data, folder, progress or Silent(), 1))


Case = tuple[str, str, tuple[int, ...], tuple[int, ...]]
CASES: dict[str, Case] = {
    "plain": ("group=1", "4,3,3,2", (3, 7, 6), (3, 2)),
    "strides": ("strides=[2,3]", "4,3,3,2", (3, 7, 6), (3, 2)),
    "pads": ("pads=[1,0,2,1]", "4,3,3,2", (3, 7, 6), (3, 2)),
    "dilations": ("dilations=[2,3]", "4,3,3,2", (3, 9, 8), (3, 2)),
    "everything": ("strides=[2,1], pads=[0,2,1,1], dilations=[1,2]", "4,3,3,2", (3, 7, 6), (3, 2)),
    "groups": ("group=2, pads=[1,1,1,1]", "6,2,3,3", (4, 5, 5), (3, 3)),
    "depthwise": ("group=4, strides=[2,2]", "4,1,3,3", (4, 6, 7), (3, 3)),
    "line": ("strides=[2], pads=[3,0]", "4,3,4", (3, 11), (4,)),
    "volume": ("pads=[0,1,1,1,0,0]", "4,3,2,3,2", (3, 4, 5, 4), (2, 3, 2)),
    "same upper": ('auto_pad="SAME_UPPER", strides=[2,3]', "4,3,3,2", (3, 7, 6), (3, 2)),
    "same lower": ('auto_pad="SAME_LOWER", strides=[2,2]', "4,3,3,2", (3, 7, 6), (3, 2)),
}
"""Attributes, shape of the weight, shape of a sample, kernel."""


def _model(case: str, folder: Path) -> Model:
    attributes, weight, sample, kernel = CASES[case]
    inputs, outputs = (",".join(["N", *names]) for names in (map(str, sample), "cdhw"[: 1 + len(kernel)]))
    w = floats(RNG, *map(int, weight.split(",")))
    return load(graph(f"float[{inputs}] x => float[{outputs}] y", f"[l] y = Conv<{attributes}>(x, w)", w=w), folder)


def _padding(case: str, kernel: tuple[int, ...], sizes: Iterable[int], strides: list[int]) -> list[tuple[int, int]]:
    """By the definition in the operator's documentation."""
    attributes = CASES[case][0]
    if "SAME" not in attributes:
        given = _given("pads", attributes, 0, 2 * len(kernel))
        return list(zip(given[: len(kernel)], given[len(kernel) :], strict=True))
    total = [max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(sizes, strides, kernel, strict=True)]
    less = [(t // 2, t - t // 2) for t in total]
    return less if "UPPER" in attributes else [(high, low) for low, high in less]


def _given(name: str, attributes: str, default: int, count: int) -> list[int]:
    found = attributes.partition(f"{name}=[")[2].partition("]")[0]
    return [int(n) for n in found.split(",")] if found else [default] * count


def _rows(case: str, x: Floats) -> Iterator[Floats]:
    """What one output position of one group sees, channel by channel: (groups, inputs)."""
    attributes, weight, _, kernel = CASES[case]
    strides, dilations = (_given(name, attributes, 1, len(kernel)) for name in ("strides", "dilations"))
    pads = _padding(case, kernel, x.shape[2:], strides)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    reaches = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    counts = [(n - r) // s + 1 for n, r, s in zip(padded.shape[2:], reaches, strides, strict=True)]
    per_group = int(weight.split(",")[1])
    for sample in padded:
        for place in product(*map(range, counts)):
            starts = [p * s for p, s in zip(place, strides, strict=True)]
            window = tuple(slice(a, a + r, d) for a, r, d in zip(starts, reaches, dilations, strict=True))
            yield sample[(slice(None), *window)].reshape(len(sample) // per_group, -1)


@pytest.mark.parametrize("case", CASES)
def test_moments_of_a_convolution_are_the_mean_over_all_it_sees(case: str, tmp_path: Path) -> None:
    model = _model(case, tmp_path)
    x = floats(RNG, 5, *CASES[case][2]) + np.float32(0.5)
    ((_, found),) = _collect(model, _data(x, model, tmp_path, 2), tmp_path).items()
    rows = np.array(list(_rows(case, x)), np.float64)
    expected = np.stack([group.T @ group / len(group) for group in rows.swapaxes(0, 1)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)], ids=str)
def test_moments_of_a_product_are_the_mean_over_all_rows(shape: tuple[int, ...], tmp_path: Path) -> None:
    dims = ",".join(["N", *map(str, shape)])
    made = ",".join(["N", *map(str, shape[:-1]), "5"])
    model = load(graph(f"float[{dims}] x => float[{made}] y", "y = MatMul(x, w)", w=floats(RNG, 4, 5)), tmp_path)
    x = floats(RNG, 6, *shape)
    ((key, found),) = _collect(model, _data(x, model, tmp_path, 4), tmp_path).items()
    rows = x.reshape(-1, 4).astype(np.float64)
    expected = sum(np.outer(row, row) for row in rows) / len(rows)
    assert key == LayerInput("x")
    np.testing.assert_allclose(found, expected[None], rtol=1e-5)


def _two(folder: Path) -> Model:
    body = """[a] h = Conv<pads=[1,1,1,1]>(x, u)  r = Relu(h)  [b] c = Conv<strides=[2,2]>(r, v)
    p = GlobalAveragePool(c)  f = Flatten(p)  [d] y = Gemm<transB=1>(f, w)"""
    arrays = {"u": floats(RNG, 6, 3, 3, 3), "v": floats(RNG, 5, 6, 2, 2), "w": floats(RNG, 4, 5)}
    return load(graph("float[N,3,6,6] x => float[N,4] y", body, **arrays), folder)


@pytest.mark.parametrize("batch", [1, 2, 4, 9])
def test_moments_do_not_depend_on_the_size_of_batches(batch: int, tmp_path: Path) -> None:
    model, x = _two(tmp_path), floats(RNG, 9, 3, 6, 6)
    whole, parts = (_collect(model, _data(x, model, tmp_path, size), tmp_path) for size in (9, batch))
    assert whole.keys() == parts.keys()
    for key in whole:
        np.testing.assert_allclose(parts[key], whole[key], rtol=1e-4, atol=1e-6)


class Counting(Silent):
    """How often the model was executed over all of the data."""

    def __init__(self) -> None:
        self.rounds = 0

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """Count, and pass on."""
        self.rounds += 1
        yield from items


@pytest.mark.parametrize(("limit", "rounds"), [(1, 3), (5 * 5 * 8 + 27 * 27 * 8, 2), (10**9, 1)])
def test_what_does_not_fit_into_memory_is_collected_later(
    limit: int, rounds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _two(tmp_path)
    data = _data(floats(RNG, 6, 3, 6, 6), model, tmp_path, 2)
    whole = _collect(model, data, tmp_path)
    monkeypatch.setattr(moments, "BYTES_AT_ONCE", limit)
    counting = Counting()
    parts = _collect(model, data, tmp_path, counting)
    assert counting.rounds == rounds
    assert list(parts) == list(whole)
    assert all(np.array_equal(parts[key], whole[key]) for key in whole)


def test_moments_are_symmetric_and_positive(tmp_path: Path) -> None:
    model = _two(tmp_path)
    for found in _collect(model, _data(floats(RNG, 20, 3, 6, 6), model, tmp_path, 4), tmp_path).values():
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, found.swapaxes(1, 2), rtol=1e-6, atol=1e-9)
        assert np.linalg.eigvalsh(found).min() > -1e-5 * np.linalg.eigvalsh(found).max()


def test_many_rows_are_thinned_out_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(graph("float[N,1,40,40] x => float[N,c,h,w] y", "y = Conv(x, u)", u=floats(RNG, 1, 1, 1, 2)), tmp_path)
    data = _data(floats(RNG, 8, 1, 40, 40) + 1, model, tmp_path, 2)
    ((key, whole),) = _collect(model, data, tmp_path).items()
    monkeypatch.setattr(moments, "ROWS", 4000)
    thinned = _collect(model, data, tmp_path)[key]
    np.testing.assert_allclose(thinned, whole, rtol=0.1)
    assert not np.array_equal(thinned, whole)


def test_the_model_is_not_changed_and_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    model, scratch = _two(tmp_path), tmp_path / "scratch"
    scratch.mkdir()
    data, before = _data(floats(RNG, 2, 3, 6, 6), model, tmp_path, 1), (model.node_counts(), model.outputs())
    _collect(model, data, scratch)
    assert (model.node_counts(), model.outputs()) == before
    assert not list(scratch.iterdir())


def test_an_input_that_overflows_is_named(tmp_path: Path) -> None:
    body = "e = Exp(x)  y = MatMul(e, w)"
    model = load(graph("float[N,2] x => float[N,2] y", body, w=floats(RNG, 2, 2)), tmp_path)
    data = _data(array([[0, 1], [4, 500]]), model, tmp_path, 1)
    with pytest.raises(PassError, match=r"^e: is NaN or infinite"):
        _collect(model, data, tmp_path)


def test_no_samples_is_an_error(tmp_path: Path) -> None:
    model = _two(tmp_path)
    nothing, _ = _data(floats(RNG, 2, 3, 6, 6), model, tmp_path, 1).split(0)
    with pytest.raises(DataError, match="no samples to calibrate with"):
        _collect(model, nothing, tmp_path)


def test_large_inputs_are_no_overflow(tmp_path: Path) -> None:
    model = load(graph("float[N,2] x => float[N,2] y", "y = MatMul(x, w)", w=floats(RNG, 2, 2)), tmp_path)
    x = floats(RNG, 16, 2)
    (found,) = _collect(model, _data(x * np.float32(1e30), model, tmp_path, 4), tmp_path).values()
    np.testing.assert_allclose(found[0] / 1e60, x.T.astype(float) @ x / 16, rtol=1e-5)
