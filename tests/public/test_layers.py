"""Imports point one way, and `import unitwork` brings no web framework along."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unitwork

# A module imports only from those before it.
LAYERS = [
    "errors",
    "_body",
    "_concurrency",
    "_classify",
    "_ending",
    "_hooks",
    "_engine",
    "_branch",
    "options",
    "_session",
    "_drive",
    "_twophase",
    "_plan",
    "retry",
    "_current",
    "_unit",
    "_ends",
    "_source",
    "_asking",
    "_transaction",
    "database",
    "testing",
    "recovery",
    "_handlers",
    "_lifespan",
    "_replay",
    "_routed",
    "_request",
    "_socket",
    "middleware",
    "fastapi",
]
OPTIONAL = {"fastapi", "pytest", "starlette"}

PACKAGE = Path(unitwork.__file__).parent
SOURCES = {path.stem: path for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes(node: ast.AST, *, called: bool) -> Iterator[ast.AST]:
    """Yield what runs on import and, if *called*, what runs in functions.

    What stands under `if TYPE_CHECKING` never runs.
    """
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not called:
            continue
        yield child
        yield from nodes(child, called=called)


def imports(path: Path, *, called: bool) -> Iterator[str]:
    """Yield the full names of the modules that *path* imports."""
    for node in nodes(parse(path), called=called):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = ["unitwork"] if node.level else []
            module = ".".join(package + ([node.module] if node.module else []))
            if module == "unitwork":  # from . import _session
                yield from (f"unitwork.{alias.name}" for alias in node.names)
            else:
                yield module


def test_knows_every_module() -> None:
    assert set(SOURCES) <= set(LAYERS)


@pytest.mark.parametrize("module", SOURCES)
def test_imports_only_what_lies_before_it(module: str) -> None:
    names = imports(SOURCES[module], called=True)
    own = {name.split(".")[1] for name in names if name.startswith("unitwork.")}

    assert own <= set(LAYERS[: LAYERS.index(module)])


@pytest.mark.parametrize("module", sorted(set(SOURCES) - OPTIONAL))
def test_imports_nothing_optional(module: str) -> None:
    roots = {name.split(".")[0] for name in imports(SOURCES[module], called=False)}

    assert not roots & OPTIONAL


def test_leaves_the_optional_packages_alone() -> None:
    code = f"import sys, unitwork; print(*{OPTIONAL} & sys.modules.keys())"
    command = [sys.executable, "-c", code]

    assert subprocess.check_output(command, text=True).strip() == ""


def test_keeps_the_front_door_bare() -> None:
    docstring, *rest = parse(PACKAGE / "__init__.py").body

    assert isinstance(docstring, ast.Expr)
    for node in rest:
        if not isinstance(node, ast.ImportFrom):
            assert isinstance(node, ast.Assign)
            assert ast.unparse(node.targets[0]) in {"__all__", "__version__"}
