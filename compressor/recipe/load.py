"""From a file to a Recipe, with every problem at once and its place."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from compressor.data import AnySource, ArraysSource, ImagesSource, PythonSource, RandomSource, Settings, TextSource
from compressor.data.base import FunctionName
from compressor.errors import RecipeError, UsageError
from compressor.passes import PASSES
from compressor.recipe.schema import Gates, Recipe
from compressor.recipe.tree import Dumper, Path_, Plain, Tree
from compressor.recipe.variables import override, resolve

_SOURCES: tuple[type[BaseModel], ...] = (ArraysSource, ImagesSource, PythonSource, RandomSource, TextSource)
_BY_TAG: dict[str, type[BaseModel]] = {
    **{str(p.model_fields["type"].default): p for p in PASSES},
    **{str(s.model_fields["source"].default): s for s in _SOURCES},
}


def load(path: Path, overrides: tuple[str, ...] = ()) -> tuple[Recipe, Tree]:
    """The recipe in a file, and where each of its values stands.

    Args:
        path: a YAML file.
        overrides: of the command line, see `variables.resolve`.

    Raises:
        RecipeError: all problems, one line each.
        UsageError: a wrong override.
    """
    tree = resolve(path, overrides)
    recipe = validate(tree)
    missing = list(_missing(recipe, tree))
    if missing:
        raise RecipeError(*missing)
    return recipe, tree


def validate(tree: Tree) -> Recipe:
    """The recipe that values describe.

    Raises:
        RecipeError: all problems, one line each.
    """
    try:
        return Recipe.model_validate(tree.value)
    except ValidationError as error:
        details = error.errors()
        lines = [_line(d, tree) for d in details if not _follows(d, details, tree)]
        raise RecipeError(*dict.fromkeys(lines)) from error


def judged(source: dict[str, Plain], overrides: tuple[str, ...]) -> tuple[AnySource, Gates]:
    """Evaluation data and gates from the command line.

    Args:
        source: entry for `data.evaluation`.
        overrides: fields of it, or of the gates as gates.name.min=value.

    Raises:
        RecipeError: a field is wrong.
        UsageError: a wrong override.
    """
    full = tuple(o if o.startswith("gates.") else f"data.evaluation.{o}" for o in overrides)
    needed: dict[str, Plain] = {
        "version": 1,
        "model": "-",
        "passes": [{"type": "simplify"}],
        "output": {"model": "-.onnx"},
    }
    recipe = validate(override(Tree({**needed, "data": {"evaluation": source}}, {}), full))
    evaluation = recipe.data.evaluation
    if evaluation is None:
        raise UsageError("--set data.evaluation: there must be some")
    return evaluation, recipe.gates


def dump(recipe: Recipe, folder: Path) -> str:
    """YAML that loads to the same recipe from a file in `folder`; defaults are left out."""
    return yaml.dump(plain(recipe, folder), Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)


def plain(recipe: Recipe, folder: Path) -> dict[str, Plain]:
    """The recipe as plain values, paths relative to `folder`, what was not said left out.

    A default that was said stays: in an override it differs from saying nothing.
    """
    values = recipe.model_dump(exclude_unset=True, exclude_none=True)
    found = _with_tags(_relative(values, folder.resolve()), recipe)
    return found if isinstance(found, dict) else {}


def _with_tags(values: Plain, recipe: Recipe) -> Plain:
    """Put back the `type:` and `source:` that are their class's default, in front."""
    if isinstance(values, dict):
        steps = values.get("passes")
        if isinstance(steps, list):
            values["passes"] = [
                {"type": step.type, **body}
                for step, body in zip(recipe.passes, steps, strict=True)
                if isinstance(body, dict)
            ]
        data = values.get("data")
        for name in type(recipe.data).model_fields:
            source = getattr(recipe.data, name)
            if source is not None and isinstance(data, dict):
                body = data.get(name)
                data[name] = {"source": source.source, **(body if isinstance(body, dict) else {})}
    return values


def _relative(value: object, folder: Path) -> Plain:
    match value:
        case dict():
            return {str(k): _relative(v, folder) for k, v in value.items()}
        case list() | tuple():
            return [_relative(v, folder) for v in value]
        case Path():
            return Path(os.path.relpath(value.resolve(), folder)).as_posix()
        case FunctionName() if value.file is not None:
            module = Path(os.path.relpath(value.file.resolve().with_suffix(""), folder)).as_posix()
            return f"{module}:{value.function}"
        case None | bool() | int() | float():
            return value
    return str(value)


def _missing(recipe: Recipe, tree: Tree) -> list[str]:
    """Files that the recipe names and that are not there."""
    named: list[tuple[Path_, Path]] = [(("model",), recipe.model)]
    for section, source in recipe.data:
        if source is not None:
            named += _paths(source, ("data", section))
    for number, step in enumerate(recipe.passes):
        named += _paths(step, ("passes", number))
    return [
        f"{tree.place(where)}: {'.'.join(map(str, where))}: {path} does not exist"
        for where, path in named
        if not os.path.exists(path)
    ]


def _paths(settings: Settings, where: Path_) -> Iterator[tuple[Path_, Path]]:
    """The files that settings name, alone or in a list, each with where it stands."""
    for name, value in settings:
        if isinstance(value, Path):
            yield (*where, name), value
        elif isinstance(value, tuple):
            yield from (((*where, name, i), entry) for i, entry in enumerate(value) if isinstance(entry, Path))


def _line(detail: ErrorDetails, tree: Tree) -> str:
    path = _path(detail["loc"], tree)
    place = tree.place(path)
    name = ".".join(map(str, path))
    return f"{place}: {name}: {_message(detail, path)}" if name else f"{place}: {_message(detail, path)}"


def _path(location: tuple[int | str, ...], tree: Tree) -> Path_:
    """The error's location without the class tags that pydantic puts in for unions."""
    path: Path_ = ()
    for index, key in enumerate(location):
        last = index == len(location) - 1
        is_tag = isinstance(key, str) and key in _BY_TAG and (*path, key) not in tree.places and not last
        if not is_tag and not str(key).startswith(
            ("function-", "tuple[", "constrained-", "lax-or", "is-", "literal[", "dict[")
        ):
            path = (*path, key)
    return path


def _message(detail: ErrorDetails, path: Path_) -> str:
    given = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return f"is no field here{_nearest(str(path[-1]), _fields(detail['loc']))}"
        case "union_tag_invalid":
            context = detail.get("ctx", {})
            known = [k.strip(" '") for k in str(context.get("expected_tags", "")).split(",")]
            wanted = str(context.get("tag", ""))
            tag = str(context.get("discriminator", "type")).strip("'")
            return f'{tag} "{wanted}" is unknown{_nearest(wanted, known)}'
        case "union_tag_not_found":
            tag = str(detail.get("ctx", {}).get("discriminator", "type")).strip("'")
            return f'write it as "- {tag}: {given}"' if isinstance(given, str) else f"{tag}: is missing; say what it is"
        case "missing":
            return "is missing"
        case "value_error":
            return str(detail["msg"]).removeprefix("Value error, ")
    shown = f" (given: {given!r})" if isinstance(given, (str, int, float, bool)) else ""
    return f"{detail['msg'][:1].lower()}{detail['msg'][1:]}{shown}"


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; there are {', '.join(known)}" if known else ""


def _fields(location: tuple[int | str, ...]) -> list[str]:
    """Fields of the part of a recipe in which something unknown was found."""
    tags = [_BY_TAG[k] for k in location[:-1] if isinstance(k, str) and k in _BY_TAG]
    if tags:
        return list(tags[-1].model_fields)
    owner: type[BaseModel] | None = Recipe
    for key in location[:-1]:
        field = owner.model_fields.get(str(key)) if owner is not None else None
        annotation = None if field is None else field.annotation
        owner = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else _Anything
    return list(owner.model_fields) if owner is not None else []


class _Anything(BaseModel):
    """A part whose fields are not known here."""


def _follows(detail: ErrorDetails, details: list[ErrorDetails], tree: Tree) -> bool:
    """Whether another detail says it better.

    pydantic adds "at least 1 item" when every item of a tuple failed for its own reason, and that a word is no
    dictionary or tuple where it is none of the words that may stand in place of one.
    """
    location, others = detail["loc"], [d for d in details if d is not detail]
    if detail["type"] in ("dict_type", "tuple_type"):
        path = _path(location, tree)
        return any(d["type"] == "literal_error" and _path(d["loc"], tree) == path for d in others)
    return detail["type"] == "too_short" and any(d["loc"][: len(location)] == location for d in others)
