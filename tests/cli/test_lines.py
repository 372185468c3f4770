"""Where there is no terminal, a long loop leaves a line now and then, and a short one none."""

from io import StringIO

from rich.console import Console

from compressor.cli.terminal import Lines


class Clock:
    """Every item takes ten seconds."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def _lines(outer: int, inner: int) -> list[str]:
    written, clock = StringIO(), Clock()
    lines = Lines(Console(file=written), clock, seconds=30)
    for _ in lines.track(range(outer), "layers", outer):
        for number in lines.track(range(inner), "distill"):
            clock.now += 10
            lines.say(f"loss {number}")
    return written.getvalue().splitlines()


def test_a_short_loop_says_nothing() -> None:
    assert _lines(1, 3) == []


def test_a_long_one_says_where_it_is_and_what_around_it_runs() -> None:
    assert _lines(2, 5) == ["layers · loss 2: 3", "layers · loss 0: 1", "layers · loss 3: 4"]
