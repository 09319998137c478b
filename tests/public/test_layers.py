"""The rules of the source: imports, private names, sizes, front doors."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from support.source_code import (
    Sources,
    accessed,
    defined,
    imports,
    is_private,
    parse,
    read_sources,
)

Rule = Callable[[Sources], list[str]]

MAY_IMPORT = {
    "_redaction": "",
    "_patterns": "",
    "_error_contexts": "",
    "_concurrency": "_error_contexts",
    "errors": "",
    "_callables": "errors",
    "outcome": "_callables",
    "_classify": "_error_contexts errors _callables",
    "_observing": "_concurrency outcome _classify",
    "_call_site": "_observing",
    "_driver": "_patterns _concurrency errors _classify _observing",
    "_sql": "_patterns errors _driver",
    "_transaction": "_redaction _patterns _concurrency errors _callables _classify "
    "_observing _call_site _driver _sql",
    "_engine": "_redaction _concurrency errors _callables _classify _observing "
    "_call_site _driver _sql _transaction",
    "settings": "errors _callables _observing _transaction",
    "options": "errors _callables outcome _engine",
    "retry": "errors _callables _classify",
    "_replicas": "_redaction _concurrency errors _callables _driver _sql _transaction "
    "_engine",
    "_session": "_redaction _concurrency errors _callables _classify _observing "
    "_call_site _driver _sql _transaction _engine settings _replicas",
    "_execution": "_concurrency errors _callables _session",
    "_twophase": "errors _classify _observing _driver _transaction _engine _session "
    "_execution",
    "_commit": "errors outcome _classify _observing _transaction _session _execution "
    "_twophase",
    "_unit": "_redaction _concurrency errors _callables outcome _classify _observing "
    "_call_site _driver _transaction _engine settings options retry _replicas _session "
    "_execution _twophase _commit",
    "_asgi": "_redaction _error_contexts _concurrency errors _callables outcome "
    "_observing options retry _replicas _session _execution _twophase _unit",
    "_telemetry": "_concurrency errors outcome _classify _observing _session",
    "_real_databases": "_redaction _concurrency errors _driver _engine _session _unit",
    "_sandbox": "_redaction _concurrency errors _driver _sql _transaction _engine "
    "settings _session _unit _real_databases",
    "_testing": "_redaction _concurrency errors outcome _observing _call_site _sql "
    "_engine _session _commit _unit _real_databases _sandbox",
    "_inspector": "_concurrency errors outcome _observing _call_site _driver "
    "_transaction _engine _session _unit",
}
"""From the bottom up. A module that is not here is a door: it may import anything."""

FOREIGN = {
    # As the standard library renews its own locks; there is no public way.
    "_concurrency.fork": "_at_fork_reinit",
    # Before Python 3.13 nothing else tells which cancellations a task group has made.
    "_concurrency.cancellation": "_parent_cancel_requested _parent_task",
    # What a task awaits is public from Python 3.14 on.
    "_concurrency.worker": "_children _fut_waiter",
    # The standard library's own way to a frame; `inspect` adds a call to it.
    "_call_site": "_getframe",
    # All that is used of SQLAlchemy alone; pyright has a reason at each.
    "_driver.sqlalchemy_internals": "_ConnectionRecord _SessionCloseState _close_state "
    "_connection_record _connections _creator _current_fn _deleted _dialect "
    "_for_update_arg _is_autocommit_isolation _is_clean _loop _max_overflow "
    "_nested_transaction _new _parent _pool _pre_ping _prepare_impl _proxied _queue "
    "_recycle _reset_on_return _state _transaction",
    "_driver.savepoint_internals": "_connections _delete_impl _modified _savepoint "
    "_trans_subject",
    # httpx has no public way to what a client sends by.
    "_testing.outside_targets": "_transport",
    # The drivers' own BEGIN and COMMIT, whose answers they drop.
    "_driver.postgresql_begin": "_autocommit _connection _execute_mutex "
    "_get_tx_start_command _handle_exception _started _top_xact _transaction",
    "_driver.postgresql_end": "_connection _exec_command _pipeline _pool_release_ctr "
    "_top_xact _transaction",
    "_driver.asyncpg_commit": "_handle_exception _protocol _started _top_xact "
    "_transaction",
    "_driver.postgresql_messages": "_check_connection_ok _protocol",
    "_driver.script": "_execute_mutex _handle_exception",
    "_transaction.lost_work": "_transaction",
    # What every statement passes that is sent past SQLAlchemy.
    "_driver.driver_calls": "_exec_command _execute _protocol _read_query_result",
    # What begins a transaction, and what reads an answer.
    "_driver.driver_watch": "_execute _get_tx_start_command _read_query_result",
    # No event of SQLAlchemy's comes before a session begins by itself.
    "_session.fence": "_autobegin_t",
    # The drivers have no public way to a cursor's rows, a socket, a transport.
    "_driver.driver_connection": "_cursor _protocol _sock _transport _writer",
    # What MySQL's drivers know of the last answer.
    "_driver.mysql_status": "_result",
    # aiosqlite has no public way to make a call in its thread.
    "_driver.sqlite_connection": "_connection _execute",
    # What the transport's event loop would have called, had it not been closed.
    "_engine.event_loops": "_call_connection_lost",
    # The look-up of handlers in Starlette; FastAPI uses it as well.
    "_asgi.exception_handlers": "_exception_handler",
}
"""The private names of others that a module may use."""

OPTIONAL = {"fastapi", "opentelemetry", "pytest", "starlette"}
NEED_OPTIONAL = OPTIONAL | {
    "_telemetry.metrics",
    "_telemetry.traces",
    "_testing.worker_plugin",
    "demo",
    "pytest_plugin",
    "telemetry",
}
"""The modules that say so."""
MOST_LINES, LONGEST_BODY = 300, 40

SOURCES = read_sources()


# The rules


def imports_upwards(sources: Sources) -> list[str]:
    """A package imports only what the table lets it; only doors import doors."""
    found = []
    for module in sources:
        package = module.split(".")[0]
        if package not in MAY_IMPORT:
            continue
        allowed = {package, *MAY_IMPORT[package].split()}
        for other, _ in imports(sources, module):
            if other.split(".")[0] not in allowed:
                found.append(f"{module} imports {other}")
    return found


def imports_in_a_circle(sources: Sources) -> list[str]:
    """No module comes back to itself, by whatever imports."""
    direct = {each: {other for other, _ in imports(sources, each)} for each in sources}
    reached = {each: set(others) for each, others in direct.items()}
    for middle in sources:
        for others in reached.values():
            if middle in others:
                others |= reached[middle]
    return [
        f"{each} -> {other} -> {each}"
        for each, others in direct.items()
        for other in sorted(others)
        if each in reached.get(other, ())
    ]


def uses_private_names(sources: Sources) -> list[str]:
    """What one module of unitwork names with an underscore no other one uses."""
    own = {module: defined(parse(text)) for module, text in sources.items()}
    found = []
    for module, text in sources.items():
        others = set().union(*(own[each] for each in sources if each != module))
        foreign = FOREIGN.get(module, "").split()
        for value, name in accessed(parse(text)):
            if name in others and name not in own[module] and name not in foreign:
                found.append(f"{module}: {value}.{name}")
        for other, name in imports(sources, module):
            if is_private(name):
                found.append(f"{module}: {name} of {other}")
    return found


def uses_private_names_of_a_base(sources: Sources) -> list[str]:
    """Nor does a class whose base is in another module, nor does it redefine them."""
    classes = {
        node.name: (module, node)
        for module, text in sources.items()
        for node in ast.walk(parse(text))
        if isinstance(node, ast.ClassDef)
    }

    def bases(node: ast.ClassDef) -> Iterator[tuple[str, ast.ClassDef]]:
        for base in node.bases:
            name = ast.unparse(base).partition("[")[0].rpartition(".")[2]
            if name in classes and classes[name][1] is not node:
                yield classes[name]
                yield from bases(classes[name][1])

    found = []
    for module, node in classes.values():
        used = defined(node) | {
            name
            for value, name in accessed(node)
            if value in {"self", "cls", "super()"}
        }
        for where, base in bases(node):
            if where != module:
                names = sorted(used & defined(base))
                found += [f"{module}: {name} of {base.name}" for name in names]
    return found


def uses_private_names_of_others(sources: Sources) -> list[str]:
    """The private names of SQLAlchemy, asyncio and drivers: only those in the table."""
    own = set().union(*(defined(parse(text)) for text in sources.values()))
    found = []
    for module, text in sources.items():
        names = {name for _, name in accessed(parse(text))} - own
        for node in ast.walk(parse(text)):
            if isinstance(node, ast.Import):
                paths = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                paths = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            parts = {
                part
                for path in paths
                if path.split(".")[0] != "unitwork"
                for part in path.split(".")
            }
            names |= {part for part in parts if is_private(part)}
        names -= set(FOREIGN.get(module, "").split())
        found += [f"{module}: {name}" for name in sorted(names)]
    return found


def is_too_long(sources: Sources) -> list[str]:
    """No file over 300 lines, no function over 40, docstring not counted."""
    found = []
    for module, text in sources.items():
        if (lines := len(text.splitlines())) > MOST_LINES:
            found.append(f"{module}: {lines} lines")
        for node in ast.walk(parse(text)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if not body:
                continue
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            if lines > LONGEST_BODY:
                found.append(f"{module}.{node.name}: {lines} lines")
    return found


def has_code_in_an_init(sources: Sources) -> list[str]:
    """`unitwork/__init__.py` has imports and `__all__`; a package a docstring."""
    packages = {each.split(".")[0] for each in sources if "." in each}
    found = []
    for module in [*sorted(packages & sources.keys()), ""]:
        for node in parse(sources.get(module, "")).body:
            match node:
                case ast.Expr(value=ast.Constant(value=str())):
                    continue
                case ast.ImportFrom() if not module:
                    continue
                case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
                    continue
            found.append(f"{module or '__init__'}: {ast.unparse(node)}")
    return found


def imports_what_is_optional(sources: Sources) -> list[str]:
    """On import no module imports a web framework or test tool, but for its door."""

    def run_on_import(node: ast.AST) -> Iterator[ast.AST]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            yield child
            yield from run_on_import(child)

    found = []
    for module in sorted(sources.keys() - NEED_OPTIONAL):
        for node in run_on_import(parse(sources[module])):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names} & OPTIONAL
            found += [f"{module} imports {root}" for root in sorted(roots)]
    return found


LONG = "def f():\n    '''Docstring.'''\n" + "    g()\n" * (LONGEST_BODY + 1)
BASE = "class Base:\n    def _close(self): ..."
BROKEN: list[tuple[Rule, Sources, str]] = [
    (imports_upwards, {"_engine.x": "from .._session import y"}, "_engine.x imports"),
    (
        imports_upwards,
        {"_unit.x": "from ..testing import y"},
        "_unit.x imports testing",
    ),
    (imports_upwards, {"retry": "def f(): import unitwork._unit.x"}, "retry imports"),
    (
        imports_upwards,
        {"_engine.x": "if TYPE_CHECKING:\n from unitwork import settings"},
        "_engine.x imports",
    ),
    (
        imports_in_a_circle,
        {
            "_unit.a": "from . import b",
            "_unit.b": "if TYPE_CHECKING:\n from .c import C",
            "_unit.c": "def f():\n from .a import A",
        },
        "_unit.a -> _unit.b -> _unit.a",
    ),
    (
        uses_private_names,
        {"a": "class A:\n  __slots__ = ('_x',)", "b": "def f(a): return a._x"},
        "b: a._x",
    ),
    (uses_private_names, {"a": "def _f(): ...", "b": "import a\na._f()"}, "b: a._f"),
    (uses_private_names, {"a": "_x = 1", "b": "getattr(a, '_x')"}, "b: a._x"),
    (uses_private_names, {"a": "_x = 1", "b": "from .a import _x"}, "b: _x of a"),
    (
        uses_private_names_of_a_base,
        {"a": BASE, "b": "class B(Base[T]):\n  def f(self): self._close()"},
        "b: _close of Base",
    ),
    (
        uses_private_names_of_a_base,
        {"a": BASE, "b": "class B(a.Base):\n  def _close(self): ..."},
        "b: _close of Base",
    ),
    (uses_private_names_of_others, {"a": "pool._overflow"}, "a: _overflow"),
    (uses_private_names_of_others, {"a": "from sys import _getframe"}, "a: _getframe"),
    (uses_private_names_of_others, {"a": "import asyncio._x as x"}, "a: _x"),
    (is_too_long, {"a": "x = 1\n" * (MOST_LINES + 1)}, "a: 301 lines"),
    (is_too_long, {"a": LONG}, "a.f: 41 lines"),
    (has_code_in_an_init, {"": "from . import a\nprint(a)"}, "__init__: print(a)"),
    (
        has_code_in_an_init,
        {"_unit": "from .a import x", "_unit.a": "x = 1"},
        "_unit: from .a import x",
    ),
    (imports_what_is_optional, {"a": "import starlette.types"}, "a imports starlette"),
    (imports_what_is_optional, {"a": "from pytest import x"}, "a imports pytest"),
]


@pytest.mark.parametrize("rule", list(dict.fromkeys(each[0] for each in BROKEN)))
def test_no_module_breaks(rule: Rule) -> None:
    assert rule(SOURCES) == []


@pytest.mark.parametrize(("rule", "sources", "expected"), BROKEN)
def test_a_module_that_breaks_a_rule_is_found(
    rule: Rule, sources: Sources, expected: str
) -> None:
    assert any(found.startswith(expected) for found in rule(sources))


def test_the_table_goes_one_way() -> None:
    below: set[str] = set()
    for package, others in MAY_IMPORT.items():
        assert set(others.split()) <= below
        below.add(package)


def test_the_table_has_every_package() -> None:
    packages = {module.split(".")[0] for module in SOURCES if "." in module}

    assert packages <= MAY_IMPORT.keys()


@pytest.mark.parametrize("module", FOREIGN)
def test_no_private_name_is_listed_in_vain(module: str) -> None:
    assert all(name in SOURCES[module] for name in FOREIGN[module].split())


def test_leaves_the_optional_packages_alone() -> None:
    code = f"import sys, unitwork; print(*{OPTIONAL} & sys.modules.keys())"
    command = [sys.executable, "-c", code]

    assert subprocess.check_output(command, text=True).strip() == ""
