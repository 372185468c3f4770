"""Numbers as people read them."""

import os
from collections.abc import Sequence
from math import isinf
from pathlib import Path

_NEGLIGIBLE = 0.005


def size(nbytes: float) -> str:
    """Bytes, in decimal units as file listings have them."""
    for unit in ("B", "kB", "MB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} GB"


def times_smaller(ratio: float) -> str:
    """Bytes before over bytes after."""
    if abs(ratio - 1) < _NEGLIGIBLE:
        return "same size"
    return f"{ratio:.2f}x smaller" if ratio >= 1 else f"{1 / ratio:.2f}x larger"


def count(number: int) -> str:
    """A large count."""
    for unit, least in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if number >= least:
            return f"{number / least if unit != 'k' else number / 1000:.3g} {unit}"
    return str(number)


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 1."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def decibel(value: float | None) -> str:
    """A level."""
    if value is None:
        return "–"
    return "exact" if isinf(value) and value > 0 else f"{value:.1f} dB"


def milliseconds(value: float | None) -> str:
    """A time."""
    return "–" if value is None else f"{value:.3g} ms"


def number(value: float | None, digits: int = 4) -> str:
    """Anything else."""
    return "–" if value is None else f"{value:.{digits}g}"


def metric(name: str, value: float) -> str:
    """A metric in the unit people give it in."""
    return percent(value) if name in ("top1", "top5", "agreement") else f"{value:.4g}"


def path(text: str) -> str:
    """A path the shorter way: from here, or from the root."""
    return min(os.path.relpath(text), str(Path(text).absolute()), key=len)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
