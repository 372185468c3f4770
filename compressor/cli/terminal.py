"""What Rich draws: data on stdout, progress on stderr."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from compressor.progress import Progress, Silent

T = TypeVar("T")


class _Bars:
    """One bar per running loop, gone when the loop is."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._running: list[TaskID] = []

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """The same items, drawn as they are taken."""
        task = self._bars.add_task(description, total=total)
        self._running.append(task)
        try:
            for item in items:
                yield item
                self._bars.advance(task)
        finally:
            self._running.remove(task)
            self._bars.remove_task(task)

    def say(self, description: str) -> None:
        """Another text in front of the last bar."""
        if self._running:
            self._bars.update(self._running[-1], description=description)


class Lines:
    """A line now and then, for logs: nothing about loops that are soon over.

    Args:
        console: to write on.
        clock: seconds.
        seconds: between two lines.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = monotonic, seconds: float = 30.0) -> None:
        self._console, self._clock, self._seconds = console, clock, seconds
        self._last = clock()
        self._said: list[str] = []

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
        """The same items; how many were taken, when it is time for a line."""
        self._said.append(description)
        whole = "" if total is None else f" of {total}"
        try:
            for number, item in enumerate(items):
                if self._clock() - self._last >= self._seconds:
                    self._last = self._clock()
                    self._console.print(f"{' · '.join(self._said)}: {number}{whole}", markup=False, highlight=False)
                yield item
        finally:
            self._said.pop()

    def say(self, description: str) -> None:
        """Another text for the innermost loop."""
        if self._said:
            self._said[-1] = description


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Bars on stderr where that is a terminal, lines where it is not."""
    console = Console(stderr=True, soft_wrap=True)
    if quiet:
        yield Silent()
        return
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


def stdout() -> Console:
    """For data; 80 columns where it is no terminal."""
    return Console(highlight=False, soft_wrap=False)
