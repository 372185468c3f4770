"""Telling how far a long loop is, without knowing who listens."""

from collections.abc import Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Somebody who wants to know."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        """The same items, counted as they are taken."""
        ...

    def say(self, description: str) -> None:
        """Describe the innermost loop anew: how it stands."""
        ...


class Silent:
    """Nobody."""

    def track(self, items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
        """The same items."""
        return items

    def say(self, description: str) -> None:
        """Nothing."""
