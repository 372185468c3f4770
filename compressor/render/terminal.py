"""A report on the terminal, in 80 columns."""

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compressor.render import words
from compressor.render.sections import Section, kernels, sections
from compressor.report import Fidelity, LatencyComparison, Report

_FREE_TEXT = ("why", "which", "what", "layer", "layers", "output", "units", "")


def draw(report: Report, console: Console, verbose: bool) -> None:
    """Print the report; the table of every changed layer only when `verbose`."""
    console.print(_headline(report))
    for section in sections(report):
        if verbose or not section.detail:
            console.print(Group(Text(section.title, style="bold"), table(section), ""))
    for part in _closing(report):
        console.print(part)


def table(section: Section) -> RenderableType:
    """One table, indented."""
    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    free = [index for index, header in enumerate(section.headers) if header in _FREE_TEXT and index]
    for index, header in enumerate(section.headers):
        right = index > 0 and index not in free
        drawn.add_column(header, justify="right" if right else "left", overflow="fold")
    for row in section.rows:
        drawn.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return Padding(drawn, (0, 0, 0, 2))


def _style(cell: str) -> str:
    return {"passed": "green", "FAILED": "bold red"}.get(cell, "")


def _headline(report: Report) -> Text:
    text = Text()
    if report.result.path != report.reference.path:
        text.append(f"{words.path(report.reference.path)} → ", style="dim")
    text.append(words.path(report.result.path), style="bold")
    text.append(
        f"\n{words.times_smaller(report.compression_ratio)}", style="bold green" if report.compression_ratio > 1 else ""
    )
    if report.latency is not None:
        text.append(", ")
        text.append(_speed(report.latency), style=_judged(report.latency.high < 1, report.latency.low > 1))
    text.append(_fidelity(report.fidelity))
    return text.append("\n")


def _speed(latency: LatencyComparison) -> str:
    if latency.low <= 1 <= latency.high:
        return "as fast"
    return f"{1 / latency.ratio:.2f}x faster" if latency.ratio < 1 else f"{latency.ratio:.2f}x slower"


def _fidelity(fidelity: Fidelity) -> str:
    if fidelity.agreement is not None:
        return f", agrees on {100 * fidelity.agreement:.1f} % of samples"
    return "" if fidelity.cosine is None else f", cosine {fidelity.cosine:.4f}"


def _judged(good: bool, bad: bool) -> str:
    return "bold green" if good else "bold red" if bad else ""


def _closing(report: Report) -> Iterator[RenderableType]:
    executed = kernels(report.result)
    if executed:
        yield Text(f"ONNX Runtime runs {executed}.")
    environment = report.environment
    if report.latency is not None:
        yield Text(
            f"Measured on {environment['processor']} ({environment['int8_instructions']}), ONNX Runtime "
            f"{environment['onnxruntime']}, {report.latency.runs} pairs, {report.latency.clock}.",
            style="dim",
        )
    for note in report.notes:
        yield Text.assemble(("note: ", "cyan"), note)
    for warning in report.warnings:
        yield Text.assemble(("warning: ", "yellow"), warning)
