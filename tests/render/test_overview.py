"""The fields of a pass, as they are listed."""

from io import StringIO

import pytest
from rich.console import Console

from compressor.passes import Pass
from compressor.passes.quantize_static import QuantizeStatic
from compressor.passes.quantize_weights import QuantizeWeights
from compressor.render.overview import draw_fields


def _listed(step: type[Pass]) -> dict[str, str]:
    """Field -> default."""
    stream = StringIO()
    draw_fields(step, Console(file=stream, width=400))
    rows = [line.split("  ") for line in stream.getvalue().splitlines() if line.startswith("  ")]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {name: default for name, default, *_ in cells}


@pytest.mark.parametrize(
    ("step", "name", "default"),
    [
        (QuantizeStatic, "weights", "–"),
        (QuantizeStatic, "weights.granularity", "per_channel"),
        (QuantizeStatic, "activations.observer", "mse"),
        (QuantizeStatic, "reduce_range", "false"),
        (QuantizeWeights, "bits", "4"),
        (QuantizeWeights, "budget.widths", "–"),
        (QuantizeWeights, "budget.drift", "–"),
        (QuantizeWeights, "overrides.targets", "required"),
    ],
)
def test_fields_of_nested_settings_are_listed_behind_a_dot(step: type[Pass], name: str, default: str) -> None:
    assert _listed(step)[name] == default


@pytest.mark.parametrize("step", [QuantizeStatic, QuantizeWeights])
def test_what_an_override_repeats_is_listed_once(step: type[Pass]) -> None:
    listed = _listed(step)
    assert "overrides.bits" not in listed
    assert "type" not in listed
