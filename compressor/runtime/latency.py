"""How long one execution takes, of two models side by side.

Measured the way that noise cannot fake: both models live in this process with the same threads, run
in turn, warmed up; the ratio is formed pair by pair and its median is given with an interval. With
one thread the clock counts the time this thread was on the processor, so that other programs do
not count; with more it is the wall clock.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.numerics.order_statistics import median_interval
from compressor.runtime.ort import Feeds, Session

WARM_UP = 3
LEAST_RUNS, MOST_RUNS = 11, 301


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds of one execution."""

    median_ms: float
    p95_ms: float
    runs: int


@dataclass(frozen=True, slots=True)
class LatencyRatio:
    """Time of the result over time of the reference: below 1 is faster.

    Attributes:
        median: of the ratios pair by pair.
        low: lower end of the 95 % confidence interval of that median.
        high: its upper end.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Timing:
    """Two models timed in turn."""

    reference: Latency
    result: Latency
    ratio: LatencyRatio
    threads: int
    clock: str


def compare(reference: Path, result: Path, feeds: Feeds, threads: int = 1, seconds: float = 3.0) -> Timing:
    """Time both models on the same input.

    Args:
        reference: path of an ONNX file.
        result: path of another with the same inputs.
        feeds: one batch.
        threads: threads inside one operator.
        seconds: how long to measure, about; at least 11 pairs are run.
    """
    sessions = [Session(reference, threads), Session(result, threads)]
    times = _interleave(sessions, feeds, threads, seconds)
    ratios = times[1] / times[0]
    return Timing(
        _latency(times[0]),
        _latency(times[1]),
        LatencyRatio(float(np.median(ratios)), *median_interval(ratios)),
        threads,
        _clock_name(threads),
    )


def measure(path: Path, feeds: Feeds, threads: int = 1, seconds: float = 3.0) -> Latency:
    """Time one model."""
    return _latency(_interleave([Session(path, threads)], feeds, threads, seconds)[0])


def _interleave(sessions: list[Session], feeds: Feeds, threads: int, seconds: float) -> NDArray[np.float64]:
    """(sessions, runs) in seconds: each round runs every session once, in alternating order."""
    for session in sessions * WARM_UP:
        session.run(feeds)
    clock = time.thread_time if threads == 1 else time.perf_counter
    rounds: list[list[float]] = []
    started = time.perf_counter()
    while len(rounds) < LEAST_RUNS or (time.perf_counter() - started < seconds and len(rounds) < MOST_RUNS):
        order = range(len(sessions)) if len(rounds) % 2 == 0 else reversed(range(len(sessions)))
        times = [0.0] * len(sessions)
        for index in order:
            before = clock()
            sessions[index].run(feeds)
            times[index] = clock() - before
        rounds.append(times)
    return np.array(rounds).T


def _latency(seconds: NDArray[np.float64]) -> Latency:
    milliseconds = seconds * 1000
    return Latency(float(np.median(milliseconds)), float(np.percentile(milliseconds, 95)), len(seconds))


def _clock_name(threads: int) -> str:
    return "processor time of the running thread" if threads == 1 else "wall clock"
