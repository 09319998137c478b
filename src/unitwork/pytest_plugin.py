"""The pytest plugin: it registers fixtures, a mark and options, and nothing else.

Nothing happens to a test that does not use a fixture of this module.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Sandbox

__all__ = ["sandbox", "unitwork_databases", "unitwork_mode", "unitwork_schema"]

pytest_plugins = ("unitwork._testing.worker_plugin",)
_MODES = ("sandbox", "real")
_SANDBOX = pytest.StashKey["Sandbox"]()
_DATABASES = (
    "the fixture `sandbox` needs to know the databases: write in conftest.py "
    '`@pytest.fixture(scope="session")`, `def unitwork_databases(): return db`, with '
    "one Database or AsyncDatabase, or a list of them"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unitwork")
    group.addoption(
        "--unitwork-mode",
        choices=[*_MODES, "both"],
        default="sandbox",
        help="how the fixture `sandbox` isolates a test: by savepoints (sandbox), by a "
        "database of its own (real), or the test runs in both, and those that differ "
        "are listed",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "unitwork(real=True): the fixture `sandbox` gives this test a real database",
    )


# Fixtures


@pytest.fixture(scope="session")
def unitwork_databases() -> Any:
    """The databases of the tests, for the fixture `sandbox`; to be overridden.

    One `Database` or `AsyncDatabase`, or a sequence of them.

    .. versionadded:: 0.2
    """
    from .errors import UsageError

    raise UsageError(_DATABASES)


@pytest.fixture(scope="session")
def unitwork_schema() -> Any:
    """What the databases of the tests contain; to be overridden.

    A `MetaData` or several; a function that takes a `Connection`, also with a key,
    `(function, "key")`; Alembic's `Config`; or a mapping from databases to these.
    `None`: sandboxes are in the databases of `unitwork_databases` themselves, which
    have their tables already, and no test can have a real one.

    .. versionadded:: 0.2
    """
    return None


@pytest.fixture
def unitwork_mode(request: pytest.FixtureRequest) -> str:
    """How `sandbox` isolates this test: `"sandbox"` or `"real"`.

    .. versionadded:: 0.2
    """
    given: str | None = getattr(request, "param", None)
    return given or _mode_of(request.node)


@pytest.fixture
def sandbox(
    request: pytest.FixtureRequest,
    unitwork_databases: Any,
    unitwork_schema: Any,
    unitwork_worker: None,
    unitwork_mode: str,
) -> Iterator[Sandbox]:
    """Undo all that the test does with `unitwork_databases`; gives a `Sandbox`.

    As `unitwork.testing.sandbox()`. Tests of one process run one after the other, so
    what belongs to no sandbox belongs to this one: servers, threads, other fixtures.
    The test fails if the sandbox has noticed what it can't show.

    .. versionadded:: 0.2
    """
    from ._sandbox.opening import sandbox as open_sandbox
    from ._sandbox.opening import shared_sandbox

    databases = unitwork_databases
    if not isinstance(databases, list | tuple):
        databases = [databases]
    real = unitwork_mode == "real"
    opening = open_sandbox(*databases, real=real, schema=unitwork_schema)
    with shared_sandbox(opening) as box:
        request.node.stash[_SANDBOX] = box
        yield box


# Modes


def _mode_of(item: pytest.Item) -> str:
    """That of the test's mark, else of the whole run."""
    mark = item.get_closest_marker("unitwork")
    if mark is not None:
        unknown = mark.kwargs.keys() - {"real"}
        if mark.args or unknown or not isinstance(mark.kwargs.get("real"), bool):
            raise pytest.UsageError(
                f"{item.nodeid}: write @pytest.mark.unitwork(real=True), or real=False"
            )
        return "real" if mark.kwargs["real"] else "sandbox"
    mode = str(item.config.getoption("--unitwork-mode"))
    return mode


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "unitwork_mode" not in metafunc.fixturenames:
        return
    both = metafunc.config.getoption("--unitwork-mode") == "both"
    marks = [*metafunc.definition.iter_markers("unitwork")]
    if both and not marks:
        metafunc.parametrize("unitwork_mode", _MODES, indirect=True)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let the test belong to its sandbox, and fail itself if that has failed.

    Not the fixture: what it sets in a context is kept by all that is started meanwhile,
    such as an event loop for the fixtures of a whole module.
    """
    box = item.stash.get(_SANDBOX, None)
    if box is None or not isinstance(item, pytest.Function):
        return (yield)
    from ._sandbox.failure import report

    function = item.obj
    item.obj = box.bind(function)
    try:
        result = yield
    except Exception as error:
        report(box.check, error)
        raise
    finally:
        item.obj = function
    box.check()
    return result


# The tests whose outcome depends on the mode


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    callspec = getattr(item, "callspec", None)
    mode = None if callspec is None else callspec.params.get("unitwork_mode")
    if mode is not None:
        report.unitwork_mode = mode
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if terminalreporter.config.getoption("--unitwork-mode") != "both":
        return
    found: dict[str, dict[str, str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(outcome):
            mode = getattr(report, "unitwork_mode", None)
            if mode is not None:
                test = _without_mode(report.nodeid, mode)
                found.setdefault(test, {})[mode] = outcome
    differing = {test: by for test, by in found.items() if len(set(by.values())) > 1}
    terminalreporter.section("unitwork: both modes")
    if not differing:
        terminalreporter.write_line(f"{len(found)} tests, no difference")
    for test, by in differing.items():
        outcomes = ", ".join(f"{mode}: {by.get(mode, 'not run')}" for mode in _MODES)
        terminalreporter.write_line(f"{test}  {outcomes}")


def _without_mode(nodeid: str, mode: str) -> str:
    """The name of a test without the part of its id that says *mode*."""
    name, bracket, identity = nodeid.partition("[")
    parts = identity.removesuffix("]").split("-")
    if mode in parts:
        parts.remove(mode)
    return f"{name}[{'-'.join(parts)}]" if bracket and parts else name


def pytest_unconfigure() -> None:
    """Close the connections that sandboxes have kept."""
    import sys

    sources = sys.modules.get("unitwork._sandbox.idle_connections")
    if sources is not None:
        sources.dispose_of_all()
