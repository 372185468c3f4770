"""Laws of flushing subnormals."""

import numpy as np

from compressor.numerics.floating import flush_subnormals


def test_subnormals_become_zero_and_nothing_else_changes() -> None:
    tiny = float(np.finfo(np.float32).tiny)
    values = np.array([0, tiny, -tiny, tiny / 2, -tiny / 1000, 1, np.inf], np.float32)
    assert flush_subnormals(values).tolist() == [0, values[1], values[2], 0, 0, 1, np.inf]


def test_the_input_is_not_written_to() -> None:
    values = np.array([1e-40, 1], np.float32)
    before = values.copy()
    flush_subnormals(values)
    assert np.array_equal(values, before)
    assert values[0] != 0


def test_the_limit_is_that_of_the_type() -> None:
    smallest_normal_half = np.float16(6.1035e-05)
    values = np.array([smallest_normal_half, 3e-05], np.float16)
    assert flush_subnormals(values).tolist() == [smallest_normal_half, 0]
    assert flush_subnormals(values.astype(np.float32))[1] != 0
