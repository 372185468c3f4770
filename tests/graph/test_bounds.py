"""Which indices a lookup can take."""

from pathlib import Path

import numpy as np
import pytest

from compressor.graph.bounds import index_bounds
from tests.models import Array, floats, graph, load

RNG = np.random.default_rng(0)
TABLES: dict[str, Array] = {"w": floats(RNG, 7, 3), "small": floats(RNG, 5, 3), "wide": floats(RNG, 3, 9)}


@pytest.mark.parametrize(
    ("body", "bounds"),
    [
        ("y = Gather(w, i)", {"i": 6}),
        ("y = Gather<axis=1>(wide, i)", {"i": 8}),
        ("y = Gather<axis=-1>(wide, i)", {"i": 8}),
        ("a = Gather(w, i)  b = Gather(small, i)  y = Add(a, b)", {"i": 4}),
        ("c = Cast<to=6>(i)  f = Flatten(c)  y = Gather(w, f)", {"i": 6}),
        ("y = Gather(x, i)", {}),
        ("p = Add(i, i)  y = Gather(w, p)", {}),
        ("y = Cast<to=1>(i)", {}),
    ],
)
def test_the_smallest_table_that_an_input_indexes_bounds_it(body: str, bounds: dict[str, int], tmp_path: Path) -> None:
    arrays = {name: table for name, table in TABLES.items() if f"({name}," in body}
    assert index_bounds(load(graph("int64[2,3] i, float[4,4] x => float y", body, **arrays), tmp_path)) == bounds
