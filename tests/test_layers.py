"""Imports point down only, and heavy libraries stay where they belong: read from the source, lazy imports included."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "compressor"

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "progress"),
    ("numerics",),
    ("graph",),
    ("runtime",),
    ("report",),
    ("data",),
    ("evaluate", "calibration"),
    ("training",),
    ("passes",),
    ("recipe",),
    ("render", "gates", "cache"),
    ("pipeline", "search"),
    ("cli",),
)
"""From the bottom up; a layer imports those before it."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
TOPLEVEL = ("__init__", "__main__")

MODULES = sorted(PACKAGE.rglob("*.py"))


def _layer(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> Iterator[str]:
    """Full names of everything a module imports, anywhere in it, except for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(n) for block in ast.walk(tree) if _for_type_checkers(block) for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(level=0, module=str() as module):
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.ImportFrom():
                yield "relative"


def _for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _libraries(path: Path) -> set[str]:
    return {name.split(".")[0] for name in _imports(path)}


def _own(path: Path) -> set[str]:
    """Parts of this package that a module imports."""
    names = (name.split(".") for name in _imports(path))
    return {parts[1] for parts in names if parts[0] == "compressor" and len(parts) > 1 and parts[1] in RANK}


def _name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_every_module_belongs_to_a_layer(path: Path) -> None:
    assert _layer(path) in RANK or _layer(path) in TOPLEVEL


@pytest.mark.parametrize("path", [m for m in MODULES if _layer(m) in RANK], ids=_name)
def test_imports_point_down(path: Path) -> None:
    own = _layer(path)
    wrong = {name for name in _own(path) if name != own and RANK[name] >= RANK[own]}
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_nothing_is_imported_relatively(path: Path) -> None:
    assert "relative" not in _imports(path)


@pytest.mark.parametrize("path", sorted((PACKAGE / "passes").glob("*.py")), ids=_name)
def test_passes_never_import_passes(path: Path) -> None:
    if path.stem in ("__init__", "base"):
        return
    assert {n for n in _imports(path) if n.startswith("compressor.passes") and ".passes.base." not in n} == set()


LIBRARIES = {
    "typer": ("cli",),
    "rich": ("cli", "render"),
    "onnx": ("graph", "runtime"),
    "onnx_ir": ("graph", "runtime"),
    "onnxscript": ("graph",),
    "onnxruntime": ("graph", "runtime"),
    "torch": ("graph", "runtime", "training"),
    "google": ("graph",),
    "ml_dtypes": ("graph", "runtime"),
    "PIL": ("data",),
    "safetensors": ("data",),
    "tokenizers": ("data",),
    "yaml": ("recipe", "cli"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_to_its_layers_only(library: str) -> None:
    users = {_layer(path) for path in MODULES if library in _libraries(path)}
    assert users <= set(LIBRARIES[library])


def test_the_mathematics_knows_numpy_alone() -> None:
    allowed = {"numpy", "math", "dataclasses", "collections", "typing", "compressor", "enum", "functools", "itertools"}
    assert {name for p in (PACKAGE / "numerics").rglob("*.py") for name in _libraries(p)} <= allowed


def test_torch_is_known_to_three_packages_only() -> None:
    users = {_name(path.parent) for path in MODULES if "torch" in _libraries(path)}
    assert users <= {"runtime/autograd", "runtime/autograd/operators", "graph/torchscript", "training"}


def _executes_operators(path: Path) -> bool:
    return path.is_relative_to(PACKAGE / "runtime" / "autograd")


@pytest.mark.parametrize("path", [m for m in MODULES if _layer(m) != "graph" and not _executes_operators(m)], ids=_name)
def test_only_the_graph_layer_looks_at_operator_types(path: Path) -> None:
    attributes = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert "op_type" not in attributes


PROTOBUF = {"SerializeToString", "to_proto"}


@pytest.mark.parametrize("path", MODULES, ids=_name)
def test_the_model_becomes_protobuf_in_two_places_only(path: Path) -> None:
    called = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not called & PROTOBUF or _name(path) == "graph/model.py" or _layer(path) == "runtime"


EXITS = {"print", "exit", "quit", "input"}


@pytest.mark.parametrize("path", [m for m in MODULES if _layer(m) != "cli"], ids=_name)
def test_only_the_command_line_prints_and_exits(path: Path) -> None:
    calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    assert not EXITS & {func.id for func in calls if isinstance(func, ast.Name)}
    assert not any(isinstance(f, ast.Attribute) and ast.unparse(f) in ("sys.exit", "os._exit") for f in calls)


FOREIGN_CODE = ("data/python.py", "data/tokens.py", "graph/torchscript/child.py")
"""The user's own code and torch's exporters raise anything, the tokenizers library nothing but `Exception` itself."""


@pytest.mark.parametrize(
    "path", [m for m in MODULES if _layer(m) not in ("cli", "errors") and _name(m) not in FOREIGN_CODE], ids=_name
)
def test_only_the_command_line_swallows_every_error_of_the_user(path: Path) -> None:
    handlers = [n.type for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ExceptHandler)]
    assert None not in handlers
    assert not any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in handlers)
