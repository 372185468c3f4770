"""Latency of several models against one, in turn in one process.

One thread, and the clock counts the time this thread was on the processor: other programs do not
count. Rounds alternate between A B C and A C B, so that each model follows each other one equally
often, with the caches as that one left them.
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
    forward = list(range(len(sessions)))
    orders = forward, [0, *reversed(forward[1:])]
    rounds: list[list[float]] = []
    ends = time.perf_counter() + seconds
    while len(rounds) < _LEAST_ROUNDS or (time.perf_counter() < ends and len(rounds) < _MOST_ROUNDS):
        times = [0.0] * len(sessions)
        for index in orders[len(rounds) % 2]:
            before = time.thread_time()
            sessions[index].run(feeds)
            times[index] = time.thread_time() - before
        rounds.append(times)
    return np.array(rounds).T
