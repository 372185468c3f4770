"""YAML into plain values, each with its place in the file.

Safe by construction: no tags, no aliases, no duplicate keys, bounded depth and size. Scalars follow
YAML 1.2 (`2:4` and `on` are text), unlike PyYAML's default.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from compressor.data.base import Placed
from compressor.errors import RecipeError

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]
Path_ = tuple[str | int, ...]

LARGEST_FILE = 1_000_000
_DEEPEST = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Tree:
    """Values of a recipe and the place of each, by its path of keys and positions."""

    value: dict[str, Plain]
    places: dict[Path_, Place]

    def place(self, path: Path_) -> Place:
        """Of the value at `path`, or of the nearest thing around it."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place("recipe", 0, 0))


class _Loader(yaml.SafeLoader):
    """SafeLoader without tags, aliases and the surprises of YAML 1.1."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuse what a recipe has no use for before it is built."""
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refused("anchors and aliases are not understood; use vars: and ${name}", event.start_mark)
        tag = getattr(event, "tag", None)
        if tag not in (None, "!"):
            raise _refused(f"tags are not understood: {tag}", event.start_mark)
        if self._depth == _DEEPEST:
            raise _refused(f"nested deeper than {_DEEPEST} levels", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _refused(problem: str, mark: object) -> yaml.MarkedYAMLError:
    error = yaml.MarkedYAMLError(problem=problem)
    error.problem_mark = mark  # type: ignore[assignment]
    return error


for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?(?:0|[1-9][0-9_]*)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$|^[-+]?\.(?:inf|Inf)$", "-+0123456789."),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class Dumper(yaml.SafeDumper):
    """SafeDumper that quotes all text that the loader here would take for something else, too."""


for _letter, _resolvers in _Loader.yaml_implicit_resolvers.items():
    for _name, _form in _resolvers:
        Dumper.add_implicit_resolver(f"{_name}#quoted", _form, [_letter])


def read(path: Path) -> Tree:
    """The values of a YAML file.

    Raises:
        RecipeError: missing, too large, or not a mapping in the subset of YAML understood here.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise RecipeError(f"{path}: is larger than {LARGEST_FILE // 1_000_000} MB; this is no recipe")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file; `compressor init MODEL` writes a recipe to start from") from error
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text: {error}") from error
    return parse(text, str(path), path.resolve().parent)


def parse(text: str, name: str, folder: Path) -> Tree:
    """The values of YAML text; relative paths in it start at `folder`."""
    places: dict[Path_, Place] = {}
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise RecipeError(f"{name}: is not a recipe: fields such as `version: 1` are expected")
        value = _build(loader, node, (), places, name, folder)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise RecipeError(f"{name}{place}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{name}: {str(error).splitlines()[0]}") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{name}: is not a recipe")
    return Tree(value, places)


def _build(loader: _Loader, node: yaml.Node, path: Path_, places: dict[Path_, Place], name: str, folder: Path) -> Plain:
    places[path] = Place(name, node.start_mark.line + 1, node.start_mark.column + 1)
    match node:
        case yaml.MappingNode():
            found: dict[str, Plain] = {}
            for key_node, value_node in node.value:
                if not isinstance(key_node, yaml.ScalarNode):
                    raise _refused("a field's name must be plain text", key_node.start_mark)
                key = str(key_node.value)
                if key in found:
                    raise _refused(f"{key} is given twice", key_node.start_mark)
                found[key] = _build(loader, value_node, (*path, key), places, name, folder)
                places[(*path, key)] = Place(name, key_node.start_mark.line + 1, key_node.start_mark.column + 1)
            return found
        case yaml.SequenceNode():
            return [_build(loader, item, (*path, i), places, name, folder) for i, item in enumerate(node.value)]
        case _:
            value = _scalar(loader, node, path)
            return Placed(value, folder) if isinstance(value, str) else value


def _scalar(loader: _Loader, node: yaml.Node, path: Path_) -> Plain:
    try:
        value: Plain = loader.construct_object(node)
    except ValueError as error:
        name = ".".join(map(str, path))
        raise _refused(f"{name}: is not a number that can be read", node.start_mark) from error
    return value
