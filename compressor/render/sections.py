"""A report as titled tables of text, before anything is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.render import words
from compressor.report import Change, Measurement, PassRecord, Report, common_reason


@dataclass(frozen=True, slots=True)
class Section:
    """A table, with a line above it.

    Attributes:
        title: what it is about.
        headers: of the columns; the first is left-aligned, the others right-aligned.
        rows: cells.
        detail: whether it is only for readers who want everything.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    detail: bool = False


def sections(report: Report) -> Iterator[Section]:
    """The parts of a report, in reading order; empty ones are left out."""
    parts = (
        _cost(report),
        _fidelity(report),
        _accuracy(report),
        _passes(report),
        _widths(report),
        _bits(report),
        _layers(report),
        _skips(report),
        _gates(report),
    )
    return (part for part in parts if part.rows)


def kernels(measurement: Measurement) -> str:
    """What ONNX Runtime really runs."""
    found = (f"{integer} of {total} {family}" for family, (integer, total) in measurement.kernels.items())
    listed = ", ".join(found)
    return f"{listed} in int8" if listed else ""


def _cost(report: Report) -> Section:
    before, after = report.reference, report.result
    rows = [
        ("file", *_sizes(before.file_bytes, after.file_bytes)),
        ("parameters", words.count(before.parameters), words.count(after.parameters), ""),
        ("zero weights", _zeros(before), _zeros(after), ""),
    ]
    if before.deflated_bytes and after.deflated_bytes:
        rows.insert(1, ("file, deflated", *_sizes(before.deflated_bytes, after.deflated_bytes)))
    if before.macs is not None and after.macs is not None:
        rows.append(("MACs", words.count(before.macs), words.count(after.macs), ""))
    latency = report.latency
    if latency is not None:
        interval = f"ratio {latency.ratio:.3f} ({latency.low:.3f}–{latency.high:.3f})"
        rows.append(
            ("latency, median", words.milliseconds(before.latency_ms), words.milliseconds(after.latency_ms), interval)
        )
        p95 = words.milliseconds(before.latency_p95_ms), words.milliseconds(after.latency_p95_ms)
        rows.append(("latency, p95", *p95, f"batch {latency.batch}, {_plural(latency.threads, 'thread')}"))
    if before.peak_memory_bytes and after.peak_memory_bytes:
        rows.append(("peak memory", words.size(before.peak_memory_bytes), words.size(after.peak_memory_bytes), ""))
    return Section("Cost", ("", "reference", "result", ""), tuple(rows))


def _sizes(before: int, after: int) -> tuple[str, str, str]:
    return words.size(before), words.size(after), words.times_smaller(before / after)


def _zeros(measurement: Measurement) -> str:
    return words.percent(measurement.zeros / max(measurement.parameters, 1), 1)


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _fidelity(report: Report) -> Section:
    fidelity = report.fidelity
    rows = [
        (
            o.output,
            words.percent(o.agreement),
            words.number(o.cosine, 5),
            words.decibel(o.sqnr_db),
            words.number(o.kl, 3),
        )
        for o in fidelity.outputs
    ]
    rows += [(name, f"not compared: {reason}", "", "", "") for name, reason in fidelity.ignored.items()]
    title = f"Fidelity: agreement with the reference on {_plural(fidelity.samples, 'sample')} ({fidelity.data})"
    return Section(title, ("output", "agreement", "cosine", "SQNR", "KL"), tuple(rows))


def _accuracy(report: Report) -> Section:
    found = report.accuracy
    if found is None:
        return Section("Accuracy", (), ())
    values = (words.metric(found.metric, value) for value in (found.reference, found.result, found.drop))
    title = f"Accuracy: against labels on {_plural(found.samples, 'sample')}"
    return Section(title, ("metric", "reference", "result", "loss"), ((found.metric, *values),))


def _passes(report: Report) -> Section:
    rows = [
        (
            record.type,
            str(len(record.changes)),
            str(len(record.skips)),
            words.size(record.bytes_before),
            words.size(record.bytes_after),
            f"{record.seconds:.1f} s",
        )
        for record in report.passes
    ]
    return Section("Passes", ("pass", "changes", "skips", "before", "after", "time"), tuple(rows))


def _width(widths: tuple[int, int], mixed: bool) -> str:
    return f"{widths[0]} → {widths[1]}{' mixed' if mixed else ''}"


def _widths(report: Report) -> Section:
    """How wide groups of channels are now."""
    rows = tuple(
        (c.weight, c.layer.replace("_", " "), _width(c.widths, c.mixed), words.listed(c.tied, 2))
        for record in report.passes
        for c in record.changes
        if c.widths is not None
    )
    return Section("Widths", ("group", "units", "width", "layers"), rows)


def _bits(report: Report) -> Section:
    """How many bits the weights have now; nothing where they all have as many."""
    coded = [(change.bits, change) for record in report.passes for change in record.changes if change.bits is not None]
    widths = sorted({bits for bits, _ in coded}, key=lambda bits: (isinstance(bits, str), bits))
    rows = []
    for width in widths:
        changes = [change for bits, change in coded if bits == width]
        before, after = (sum(sizes) for sizes in zip(*((c.bytes_before, c.bytes_after) for c in changes), strict=True))
        rows.append((str(width), str(len(changes)), words.size(before), words.size(after)))
    return Section("Bits of weights", ("bits", "layers", "before", "after"), tuple(rows) if len(rows) > 1 else ())


def _layers(report: Report) -> Section:
    rows = [_layer(record, change) for record in report.passes for change in record.changes]
    return Section("Changes", ("layer", "pass", "what", "error", "before", "after"), tuple(rows), detail=True)


def _layer(record: PassRecord, change: Change) -> tuple[str, ...]:
    sizes = (words.size(n) if n else "" for n in (change.bytes_before, change.bytes_after))
    error = "" if change.relative_error is None else f"{change.relative_error:.3g}"
    return (change.weight, record.type, change.detail, error, *sizes)


def _skips(report: Report) -> Section:
    rows = []
    for record in report.passes:
        for skips in record.skip_groups():
            names = words.listed([skip.weight for skip in skips])
            rows.append((f"{len(skips)} × {skips[0].layer}", record.type, common_reason(skips), names))
    return Section("Left as they were", ("layers", "pass", "why", "which"), tuple(rows))


def _gates(report: Report) -> Section:
    rows = [
        (gate.gate, "not measured" if gate.value is None else f"{gate.value:.6g}", gate.bound, _verdict(gate.passed))
        for gate in report.gates
    ]
    return Section("Gates", ("gate", "value", "bound", ""), tuple(rows))


def _verdict(passed: bool) -> str:
    return "passed" if passed else "FAILED"
