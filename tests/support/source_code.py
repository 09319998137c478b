"""The source of unitwork: its modules, what they import, their private names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import unitwork

__all__ = [
    "Sources",
    "accessed",
    "defined",
    "imports",
    "is_private",
    "parse",
    "read_sources",
]

Sources = dict[str, str]
"""The text of each module, by its name below `unitwork`."""
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}  # public all the same
_PACKAGE = Path(unitwork.__file__).parent


def read_sources() -> Sources:
    found = {}
    for path in sorted(_PACKAGE.rglob("*.py")):
        *packages, name = path.relative_to(_PACKAGE).with_suffix("").parts
        parts = packages if name == "__init__" else [*packages, name]
        found[".".join(parts)] = path.read_text(encoding="utf-8")
    return found


parse = cache(ast.parse)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in NAMED_TUPLE


def imports(sources: Sources, module: str) -> Iterator[tuple[str, str]]:
    """Yield which modules of unitwork it imports, and which of their names.

    Wherever the import stands: in a function, under `TYPE_CHECKING`.
    """
    is_package = not module or any(each.startswith(f"{module}.") for each in sources)
    parts = ["unitwork", *module.split(".")] if module else ["unitwork"]
    here = parts if is_package else parts[:-1]
    for node in ast.walk(parse(sources[module])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "unitwork":
                    yield alias.name.partition(".")[2], ""
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) + 1 - node.level] if node.level else []
            full = [*base, *(node.module or "").split(".")]
            if full[0] != "unitwork":
                continue
            for alias in node.names:
                inner = ".".join(part for part in [*full[1:], alias.name] if part)
                if inner in sources:
                    yield inner, ""
                else:
                    yield ".".join(part for part in full[1:] if part), alias.name


def defined(node: ast.AST) -> set[str]:
    """The private names that a module or a class defines, for itself or for `self`."""
    found: set[str] = set()
    for each in ast.walk(node):
        match each:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Name(id=name, ctx=ast.Store())
                | ast.Attribute(
                    value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()
                )
            ):
                found.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                slots = [
                    x.value for x in ast.walk(value) if isinstance(x, ast.Constant)
                ]
                found.update(slot for slot in slots if isinstance(slot, str))
    return {name for name in found if is_private(name)}


def accessed(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the private attributes that are used, each after what it is used of."""
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=value, attr=name) if is_private(name):
                yield ast.unparse(value), name
            case ast.Call(
                func=ast.Name(id="getattr" | "setattr" | "hasattr" | "delattr"),
                args=[value, ast.Constant(value=str(name)), *_],
            ) if is_private(name):
                yield ast.unparse(value), name
