"""What Rich draws: data on stdout, progress on stderr."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def progress(quiet: bool) -> Iterator[Progress]:
    """Bars on stderr, where that is a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Silent()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


def stdout() -> Console:
    """For data; 80 columns where it is no terminal."""
    return Console(highlight=False, soft_wrap=False)
