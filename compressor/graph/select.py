"""Which layers a pass works on: plain names, operator types, globs and regular expressions.

A plain string is a layer's name, the name of its weight, or an operator type; `*`, `?` make it a
glob; `re:` starts a regular expression that must match the whole name.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from compressor.errors import RecipeError


@dataclass(frozen=True, slots=True)
class Selectors:
    """Layers in `targets` (all, when empty) that are not in `ignore`."""

    targets: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def match(self, names: tuple[str, ...], layer: str) -> bool:
        """Whether a layer of these names and this operator type is selected."""
        known = (*names, layer)
        return (not self.targets or _any(self.targets, known)) and not _any(self.ignore, known)


def matcher(selector: str) -> Callable[[str], bool]:
    """The test that `selector` stands for.

    Raises:
        RecipeError: not a regular expression after `re:`.
    """
    if selector.startswith("re:"):
        try:
            pattern = re.compile(selector[3:])
        except re.error as error:
            raise RecipeError(f'"{selector}" is not a regular expression: {error}') from error
        return lambda name: pattern.fullmatch(name) is not None
    if "*" in selector or "?" in selector:
        return lambda name: fnmatchcase(name, selector.replace("[", "[[]"))
    return lambda name: name == selector


def unmatched(selectors: Iterable[str], layers: Iterable[tuple[tuple[str, ...], str]]) -> dict[str, list[str]]:
    """Selectors that match no layer, each with the nearest names there are.

    Args:
        selectors: as written in the recipe.
        layers: names and operator type of every layer of the model.
    """
    known = list(dict.fromkeys(name for names, layer in layers for name in (*names, layer)))
    return {s: _nearest(s, known) for s in selectors if not any(map(matcher(s), known))}


def _any(selectors: tuple[str, ...], names: tuple[str, ...]) -> bool:
    return any(test(name) for test in map(matcher, selectors) for name in names)


def _nearest(selector: str, known: list[str]) -> list[str]:
    plain = selector.removeprefix("re:").replace(".*", "").strip("*^$")
    near = difflib.get_close_matches(plain, known, n=3, cutoff=0.4)
    return near or [name for name in known if plain and plain.lower() in name.lower()][:3] or known[:3]
