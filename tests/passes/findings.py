"""Reading findings out of the JSON report."""

from pathlib import Path

from tests.cli.calling import Values, ran

Entries = dict[str, Values]


def record(report: Values, index: int = -1) -> Values:
    """What one pass did."""
    passes = report["passes"]
    assert isinstance(passes, list)
    found = passes[index]
    assert isinstance(found, dict)
    return found


def entries(report: Values, kind: str, index: int = -1) -> Entries:
    """`changes` or `skips` of a pass by the weight's name, of which each comes once."""
    listed = record(report, index)[kind]
    assert isinstance(listed, list)
    found = {str(entry["weight"]): entry for entry in listed}
    assert len(found) == len(listed)
    return found


def reasons(report: Values, index: int = -1) -> dict[str, str]:
    """Why each skipped weight was left as it was."""
    return {name: str(entry["reason"]) for name, entry in entries(report, "skips", index).items()}


def passed(folder: Path, *steps: Values, **sections: object) -> Values:
    """The report of a recipe with these passes."""
    return ran(folder, passes=list(steps), **sections)
