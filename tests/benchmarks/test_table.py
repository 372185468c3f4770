"""What the table says of a result, of a failure, and of what there is no call for."""

import io

import pytest
from rich.console import Console

from benchmarks.cost import Cost
from benchmarks.table import Judgement, Row, draw
from compressor.runtime.latency import LatencyRatio

JUDGEMENT = Judgement(0.82, 0.8, 13_970_000, 3_640_000, LatencyRatio(0.54, 0.53, 0.55), {"Conv": (52, 53)})


def _drawn(*rows: Row) -> list[list[str]]:
    """The cells of every line below the head."""
    text = io.StringIO()
    Console(file=text, width=300).print(draw(rows))
    lines = [line for line in text.getvalue().splitlines() if line.strip()]
    return [[cell.strip() for cell in line.strip().split("|")[1:-1]] for line in lines[2:]]


def _row(cost: Cost | str, judgement: Judgement | None, samples: int | None = None) -> Row:
    return Row("net", "w8a8", "compressor", "top-1", samples, cost, judgement)


def test_a_result_shows_all_its_figures() -> None:
    assert _drawn(_row(Cost(0, 10.04, 290.4, ""), JUDGEMENT, 500)) == [
        [
            "net",
            "w8a8",
            "compressor, 500",
            "top-1 0.8200 → 0.8000",
            "13.97 → 3.64",
            "0.540 (0.530–0.550)",
            "10.0",
            "290",
            "52 of 53 Conv",
        ]
    ]


@pytest.mark.parametrize(("code", "says"), [(3, "failed with code 3"), (0, "wrote what cannot be loaded")])
def test_a_failure_still_shows_what_it_cost(code: int, says: str) -> None:
    ((*named, outcome, _, _, seconds, memory, _),) = _drawn(_row(Cost(code, 2.0, 100.0, "no"), None))
    assert named == ["net", "w8a8", "compressor"]
    assert (outcome, seconds, memory) == (says, "2.0", "100")


def test_what_a_tool_has_no_call_for_is_a_dash_with_the_reason() -> None:
    ((*_, outcome, size, latency, seconds, memory, kernels),) = _drawn(_row("no 4-bit Conv", None))
    assert outcome == "– (no 4-bit Conv)"
    assert {size, latency, seconds, memory, kernels} == {"–"}
