"""`extends`, `${name}` and `--set`: one recipe for several models and machines."""

import re
from pathlib import Path

from compressor.data.base import Placed
from compressor.errors import RecipeError, UsageError
from compressor.recipe.tree import Path_, Place, Plain, Tree, parse, read

_REFERENCE = re.compile(r"\$\{([^}]*)\}")
_MOST_BASES = 10


def resolve(path: Path, overrides: tuple[str, ...]) -> Tree:
    """A recipe file with its bases merged in, overrides applied and variables replaced.

    Args:
        path: of the recipe.
        overrides: `name=value` for a variable, `field.field=value` for anything else.

    Raises:
        RecipeError: a base is missing or circular, a variable unknown.
        UsageError: an override that is not `name=value`, or for a field that is not there.
    """
    return override(_extended(path, ()), overrides)


def override(tree: Tree, overrides: tuple[str, ...]) -> Tree:
    """A tree with overrides applied and variables replaced.

    Raises:
        RecipeError: a variable is unknown.
        UsageError: see `resolve`.
    """
    variables = tree.value.pop("vars", {})
    if variables is None:
        variables = {}
    if not isinstance(variables, dict):
        raise RecipeError(f"{tree.place(('vars',))}: vars: is a mapping of names to values")
    for entry in overrides:
        _override(tree, variables, entry)
    problems: list[str] = []
    value = _replace(tree.value, (), variables, tree, problems)
    if problems:
        raise RecipeError(*problems)
    return Tree(value if isinstance(value, dict) else {}, tree.places)


def _extended(path: Path, seen: tuple[Path, ...]) -> Tree:
    tree = read(path)
    base = tree.value.pop("extends", None)
    if base is None:
        return tree
    if not isinstance(base, str) or len(seen) >= _MOST_BASES or path.resolve() in seen:
        raise RecipeError(f"{tree.place(('extends',))}: extends: names one other recipe, and never itself")
    below_path = path.parent / str(base)
    if not below_path.is_file():
        raise RecipeError(f"{tree.place(('extends',))}: extends: {below_path} does not exist")
    below = _extended(below_path, (*seen, path.resolve()))
    places = dict(below.places)
    value = _merged(below.value, tree.value, (), tree.places, places)
    return Tree(value, places | {(): tree.places[()]})


def _merged(
    base: dict[str, Plain], over: dict[str, Plain], path: Path_, new: dict[Path_, Place], places: dict[Path_, Place]
) -> dict[str, Plain]:
    """Mappings are merged, everything else is replaced as a whole."""
    result = dict(base)
    for key, value in over.items():
        here, below = (*path, key), result.get(key)
        if isinstance(value, dict) and isinstance(below, dict):
            result[key] = _merged(below, value, here, new, places)
        else:
            result[key] = value
            places.update({p: place for p, place in new.items() if p[: len(here)] == here})
    return result


def _override(tree: Tree, variables: dict[str, Plain], override: str) -> None:
    target, equals, text = override.partition("=")
    if not equals or not target:
        raise UsageError(f'--set {override}: write it as name=value, for example "passes.0.sparsity=0.5"')
    parsed = parse(f"value: {text}" if text else "value: ''", f"--set {target}", Path.cwd())
    value = parsed.value["value"]
    if target in variables:
        variables[target] = value
        return
    keys = target.split(".")
    if len(keys) == 1 and keys[0] not in tree.value and not _is_field(keys[0]):
        known = ", ".join([*variables, *tree.value])
        raise UsageError(
            f"--set {override}: {target} is neither a variable nor a field of the recipe; there are {known}"
        )
    _put(tree, keys, value, override)
    path = tuple(int(k) if k.isdecimal() else k for k in keys)
    tree.places.update({(*path, *p[1:]): place for p, place in parsed.places.items() if p[:1] == ("value",)})


def _is_field(name: str) -> bool:
    from compressor.recipe.schema import Recipe

    return name in Recipe.model_fields


def _put(tree: Tree, keys: list[str], value: Plain, override: str) -> None:
    place: Plain = tree.value
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        match place:
            case dict():
                if last:
                    place[key] = value
                else:
                    place = place.setdefault(key, {})
            case list() if key.isdecimal() and int(key) < len(place):
                if last:
                    place[int(key)] = value
                else:
                    place = place[int(key)]
            case _:
                before = ".".join(keys[:depth])
                size = f"; it has {len(place)} entries, from 0" if isinstance(place, list) else ""
                raise UsageError(f"--set {override}: {before} has no entry {key}{size}")


def _replace(value: Plain, path: Path_, variables: dict[str, Plain], tree: Tree, problems: list[str]) -> Plain:
    match value:
        case dict():
            return {k: _replace(v, (*path, k), variables, tree, problems) for k, v in value.items()}
        case list():
            return [_replace(v, (*path, i), variables, tree, problems) for i, v in enumerate(value)]
        case str() if "${" in value:
            return _filled(value, path, variables, tree, problems)
    return value


def _filled(text: str, path: Path_, variables: dict[str, Plain], tree: Tree, problems: list[str]) -> Plain:
    """A text that is one reference becomes the variable's own value; otherwise its text is put in."""
    for name in _REFERENCE.findall(text):
        if name not in variables:
            known = ", ".join(variables) or "none"
            problems.append(f"{tree.place(path)}: ${{{name}}} is not in vars: (there: {known}); add it, or use --set")
            return text
    whole = _REFERENCE.fullmatch(text)
    if whole:
        return variables[whole[1]]
    filled = _REFERENCE.sub(lambda found: str(variables[found[1]]), text)
    return Placed(filled, text.folder) if isinstance(text, Placed) else filled
