"""Latency of several models against one, in turn in one process.

One thread, and the clock counts the time this thread was on the processor: other programs do not
count. Every round runs each model once, in an order drawn anew, so that each follows each other one
about equally often, with the caches as that one left them.
"""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.order_statistics import median_interval
from compressor.runtime.latency import LatencyRatio
from compressor.runtime.ort import Feeds, Session

_WARM_UP = 5
_LEAST_ROUNDS, _MOST_ROUNDS = 21, 1001


def ratios(reference: Path, results: Sequence[Path], feeds: Feeds, seconds: float) -> list[LatencyRatio]:
    """Time of each result over time of the reference, round by round: the median and its 95 % interval.

    Args:
        reference: an ONNX file.
        results: others with the same inputs.
        feeds: one batch.
        seconds: how long to measure, about.
    """
    times = _in_turn([Session(path, threads=1) for path in (reference, *results)], feeds, seconds)
    return [LatencyRatio(float(np.median(r)), *median_interval(r)) for r in times[1:] / times[0]]


def _in_turn(sessions: Sequence[Session], feeds: Feeds, seconds: float) -> NDArray[np.float64]:
    """(sessions, rounds), in seconds."""
    for session in [*sessions] * _WARM_UP:
        session.run(feeds)
    rng = np.random.default_rng(0)
    rounds: list[NDArray[np.float64]] = []
    ends = time.perf_counter() + seconds
    while len(rounds) < _LEAST_ROUNDS or (time.perf_counter() < ends and len(rounds) < _MOST_ROUNDS):
        times = np.zeros(len(sessions))
        for index in rng.permutation(len(sessions)):
            before = time.thread_time()
            sessions[index].run(feeds)
            times[index] = time.thread_time() - before
        rounds.append(times)
    return np.array(rounds).T
