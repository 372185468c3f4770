"""Numbers in the unit that people give them in."""

from typing import get_args

import pytest

from compressor.data.base import KnownMetric
from compressor.render.words import metric


@pytest.mark.parametrize("name", [*get_args(KnownMetric), "scoring:Misses"])
def test_shares_of_samples_are_percents_and_everything_else_is_a_plain_number(name: str) -> None:
    assert metric(name, 0.8203) == ("82.03 %" if name in ("top1", "top5") else "0.8203")
