"""A wanted time is approached by what was measured, not by what was modelled."""

import pytest

from compressor.calibration.timing import within_time
from compressor.errors import PassError


def test_a_model_that_is_too_hopeful_is_corrected() -> None:
    found = within_time(0.5, lambda share: share, lambda share: 0.3 + 0.6 * share)
    assert 0.97 * 0.5 <= 0.3 + 0.6 * found <= 0.5


def test_one_that_is_too_fearful_too() -> None:
    found = within_time(0.8, lambda share: share, lambda share: 0.8 * share)
    assert 0.97 * 0.8 <= 0.8 * found <= 0.8


def test_what_is_not_reached_is_said() -> None:
    with pytest.raises(PassError, match=r"latency 0.5 is not reached; the nearest was 0\.7"):
        within_time(0.5, lambda share: share, lambda share: 0.7 + 0.1 * share)


def test_shares_out_of_reach_that_were_only_tried_are_not_spoken_of() -> None:
    def within(share: float) -> float:
        if share < 0.4:
            raise PassError(f"{share:.0%} of the cost is asked for")
        return share

    with pytest.raises(PassError, match=r"latency 0.5 is not reached; the nearest was 0\.7"):
        within_time(0.5, within, lambda share: 0.5 + 0.5 * share)
    with pytest.raises(PassError, match="30% of the cost"):
        within_time(0.3, within, lambda share: share)
