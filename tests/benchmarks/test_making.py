"""What the benchmark makes itself is the same every time, and is what it claims to be."""

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import making
from compressor.runtime.ort import Session
from tests.benchmarks import tiny
from tests.models import array, floats, graph, write


def _predicting(folder: Path, logits: list[list[float]]) -> Session:
    """A language model for which the next token depends on the last one alone: row i after token i."""
    proto = graph(
        "int64[N,T] input_ids => float[N,T,V] logits", "logits = Gather(table, input_ids)", table=array(logits)
    )
    return Session(write(proto, folder / "language.onnx"))


def test_text_begins_with_token_1_and_goes_on_as_the_model_predicts(tmp_path: Path) -> None:
    never = -1e9
    session = _predicting(tmp_path, [[never, 0, never], [never, never, 0], [0, never, never]])
    written = making.written(session, samples=3, tokens=6)
    np.testing.assert_array_equal(written, np.tile([1, 2, 0, 1, 2, 0], (3, 1)))


def test_tokens_are_drawn_with_the_probabilities_that_the_model_gives_them(tmp_path: Path) -> None:
    shares = np.array([0.2, 0.5, 0.3])
    session = _predicting(tmp_path, [np.log(shares).tolist()] * 3)
    drawn = making.written(session, samples=200, tokens=21)[:, 1:]
    found = np.bincount(drawn.ravel(), minlength=3) / drawn.size
    np.testing.assert_allclose(found, shares, atol=5 * (0.25 / drawn.size) ** 0.5)


@pytest.mark.slow
def test_the_decoder_layer_is_valid_runs_on_one_token_and_attends_to_the_past(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    places = tiny.places(tmp_path)
    making.decoder_layer(places)
    file = places.path(making.DECODER)
    onnx.checker.check_model(str(file), full_check=True)
    model = onnx.load(file)
    shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in model.graph.input}
    assert sum(tuple(i.dims) == (2048, 2048) for i in model.graph.initializer) == 7
    feeds = {name: floats(rng, *shape) for name, shape in shapes.items()}
    session = Session(file)
    (once,) = session.run(feeds).values()
    (other,) = session.run({**feeds, "values": feeds["values"] + 1}).values()
    assert once.shape == (1, 1, 2048)
    assert np.isfinite(once).all()
    assert not np.allclose(once, other)
