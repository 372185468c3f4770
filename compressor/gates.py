"""Thresholds on a report."""

from compressor.recipe import Gates
from compressor.report import GateResult, Report


def check(gates: Gates, report: Report) -> tuple[GateResult, ...]:
    """Every gate that is set, with what was measured; a value that was not measured does not pass."""
    measured = values(report)
    results = []
    for name, bound in gates.given().items():
        value = measured[name]
        low = bound.min is None or (value is not None and value >= bound.min)
        high = bound.max is None or (value is not None and value <= bound.max)
        results.append(GateResult(name, value, str(bound), low and high))
    return tuple(results)


def values(report: Report) -> dict[str, float | None]:
    """What each gate looks at."""
    return {
        "compression_ratio": report.compression_ratio,
        "latency_ratio": None if report.latency is None else report.latency.ratio,
        "accuracy_drop": None if report.accuracy is None else report.accuracy.drop,
        "agreement": report.fidelity.agreement,
        "cosine": report.fidelity.cosine,
        "sqnr_db": report.fidelity.sqnr_db,
        "file_bytes": report.result.file_bytes,
        "peak_memory_bytes": report.result.peak_memory_bytes,
    }
