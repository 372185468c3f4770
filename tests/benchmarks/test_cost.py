"""A command's own cost, whatever the process that asks has on its account."""

import sys

import pytest

from benchmarks import cost

pytestmark = pytest.mark.slow

MIB = 1 << 20


def _python(program: str) -> cost.Cost:
    return cost.run([sys.executable, "-c", program])


def test_a_command_that_works_has_code_0_and_nothing_to_complain_of() -> None:
    found = _python("pass")
    assert (found.code, found.complaint) == (0, "")
    assert found.seconds > 0


def test_a_command_that_fails_tells_its_code_and_its_last_words() -> None:
    found = _python("import sys; print('first', file=sys.stderr); sys.exit('the last')")
    assert (found.code, found.complaint) == (1, "the last")


def test_memory_that_a_command_fills_is_on_its_account() -> None:
    plain, filled = _python("pass"), _python(f"x = bytearray(200 * {MIB})")
    assert 190 < filled.peak_mib - plain.peak_mib < 230


def test_memory_of_the_process_that_asks_is_not() -> None:
    carried = bytearray(300 * MIB)
    assert _python("pass").peak_mib < 150
    assert len(carried) == 300 * MIB
