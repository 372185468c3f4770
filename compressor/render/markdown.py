"""A report as Markdown, for a pull request or a build summary."""

from compressor.render.sections import Section, kernels, sections
from compressor.report import Report


def markdown(report: Report) -> str:
    """The whole report, layers included."""
    verdict = "" if not report.gates else (" — gates passed" if report.passed else " — **gates failed**")
    lines = [f"# {report.result.path}{verdict}", "", f"Compressed from `{report.reference.path}`.", ""]
    lines += [line for section in sections(report) for line in _table(section)]
    executed = kernels(report.result)
    if executed:
        lines += [f"ONNX Runtime runs {executed}.", ""]
    if report.warnings:
        lines += ["## Warnings", "", *(f"- {warning}" for warning in report.warnings), ""]
    if report.notes:
        lines += ["## Notes", "", *(f"- {note}" for note in report.notes), ""]
    lines += ["## Measured on", "", *(f"- {key}: {value}" for key, value in report.environment.items()), ""]
    return "\n".join(lines)


def _table(section: Section) -> list[str]:
    align = [":--", *["--:"] * (len(section.headers) - 1)]
    rows = [section.headers, tuple(align), *section.rows]
    cells = ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in rows]
    return [f"## {section.title}", "", *cells, ""]


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|")
