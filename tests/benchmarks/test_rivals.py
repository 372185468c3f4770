"""Every method of onnxruntime's does what its name says, on a model small enough to see it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import feed, rivals
from benchmarks.tasks import Entry, Rival, Variant
from benchmarks.tools import Job, order
from compressor.runtime.ort import Feeds
from tests.benchmarks import tiny
from tests.models import decibels, floats, graph, run, write

pytestmark = pytest.mark.filterwarnings("ignore")


def _order(folder: Path, model: Path, rival: Rival) -> dict[str, Any]:
    job = Job(tiny.classes(folder), Variant("x", (), rival), "onnxruntime", tiny.places(folder))
    return {**order(job), "model": str(model)}


def _operators(file: str) -> dict[str, int]:
    found = [node.op_type for node in onnx.load(file).graph.node]
    return {name: found.count(name) for name in found}


def _nothing() -> Iterator[Feeds]:
    raise AssertionError("no data is to be read")
    yield {}


def test_static_quantizes_convolutions_on_the_batches_it_is_given(tmp_path: Path, rng: np.random.Generator) -> None:
    asked = _order(tmp_path, tiny.places(tmp_path).assets / "model.onnx", Rival("static"))
    batches = [{"x": floats(rng, 8, 3, 8, 8)} for _ in range(4)]
    rivals.static(asked, iter(batches), tmp_path)
    assert _operators(asked["output"])["QuantizeLinear"] >= 3
    expected, found = (run(Path(asked[name]), batches[0])["y"] for name in ("model", "output"))
    assert decibels(expected, found) > 20


def test_static_takes_the_calibration_method_that_is_named(tmp_path: Path, rng: np.random.Generator) -> None:
    model = tiny.places(tmp_path).assets / "model.onnx"
    batches = [{"x": floats(rng, 8, 3, 8, 8) ** 3} for _ in range(4)]
    written = []
    for method in ("MinMax", "Percentile"):
        asked = _order(tmp_path, model, Rival("static", {"calibrate_method": method}))
        rivals.static(asked, iter(batches), tmp_path)
        written.append(Path(asked["output"]).read_bytes())
    assert written[0] != written[1]


def _products(folder: Path, rng: np.random.Generator, opset: int) -> Path:
    """A lookup and a product, with an operator whose attributes become inputs at opset 18."""
    proto = graph(
        "int64[N] i => float[N,1] y",
        "e = Gather(table, i)  p = MatMul(e, w)  y = ReduceMean<axes=[1]>(p)",
        opset=opset,
        table=floats(rng, 20, 64),
        w=floats(rng, 64, 32),
    )
    return write(proto, folder / "products.onnx")


def test_dynamic_needs_no_data(tmp_path: Path, rng: np.random.Generator) -> None:
    asked = _order(tmp_path, _products(tmp_path, rng, 17), Rival("dynamic"))
    rivals.dynamic(asked, _nothing(), tmp_path)
    assert _operators(asked["output"])["MatMulInteger"] == 1


@pytest.mark.parametrize(("bits", "lookups"), [(4, 1), (8, 0)])
def test_blocks_raises_the_opset_first_and_needs_no_data(
    tmp_path: Path, rng: np.random.Generator, bits: int, lookups: int
) -> None:
    asked = _order(tmp_path, _products(tmp_path, rng, 17), Rival("blocks", {"bits": bits, "block_size": 32}))
    rivals.blocks(asked, _nothing(), tmp_path)
    operators = _operators(asked["output"])
    assert operators["MatMulNBits"] == 1
    assert operators.get("GatherBlockQuantized", 0) == lookups
    assert run(Path(asked["output"]), {"i": np.arange(3)})["y"].shape == (3, 1)


@pytest.mark.slow
def test_the_feed_yields_what_the_recipes_source_yields(tmp_path: Path) -> None:
    places, task = tiny.places(tmp_path), tiny.classes(tmp_path)
    job = Job(task, task.variants[0], "onnxruntime", places, samples=10)
    file = tmp_path / "order.json"
    file.write_text(json.dumps(order(job)))
    fed = np.concatenate([batch["x"] for batch in feed.batches(file)])
    with np.load(places.assets / "data.npz") as stored:
        images = stored["x"]
    rows = np.random.default_rng(0).permutation(len(images))[:10]
    np.testing.assert_array_equal(fed, images[rows])


def test_every_method_that_a_rival_may_name_exists() -> None:
    entry: Entry = {}
    assert {Rival(name, entry).method for name in ("static", "dynamic", "blocks")} == set(rivals.METHODS)
