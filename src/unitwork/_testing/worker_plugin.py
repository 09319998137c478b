"""The part of the pytest plugin that is about real databases."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pytest

from .._real_databases.worker import WorkerDatabases, choose_database
from .._sandbox.idle_connections import dispose_of_all
from ..errors import UsageError
from .leftovers import warning_of_leftovers

__all__ = ["unitwork_worker"]

_KEY = pytest.StashKey[str]()
_WORKER = pytest.StashKey[WorkerDatabases]()
_ANOTHER = (
    "unitwork_databases is another one in this folder than for the tests before. The "
    "databases of a run are made once: name all of them in one conftest.py, above the "
    "folders, or run pytest for each folder"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("unitwork")
    group.addoption(
        "--unitwork-keep",
        action="store_true",
        help="keep the real databases of tests that fail, and print their URLs",
    )
    parser.addini(
        "unitwork_database_env",
        "an environment variable with the URL of the application's database: each "
        "process of tests sets it to a database of its own, before conftest.py is read",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    variable = early_config.getini("unitwork_database_env")
    if variable:
        try:
            early_config.stash[_KEY] = choose_database(variable, os.environ)
        except UsageError as error:
            raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def unitwork_worker(
    request: pytest.FixtureRequest, unitwork_databases: Any, unitwork_schema: Any
) -> Iterator[None]:
    """Make the databases of this process, of `unitwork_schema`, in place of its own.

    What uses the engines of `unitwork_databases` uses these from now on, until the end
    of the run: sandboxes, and tests without any. Without a schema: nothing.

    .. versionadded:: 0.2
    """
    if unitwork_schema is None:
        yield
        return
    key = request.config.stash.get(_KEY, None)
    sources = _listed(unitwork_databases)
    with WorkerDatabases(sources, unitwork_schema, key) as worker:
        request.config.stash[_WORKER] = worker
        yield
        dispose_of_all()


def _listed(databases: Any) -> Sequence[Any]:
    return databases if isinstance(databases, list | tuple) else [databases]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Refuse a test whose databases have not been replaced: it would use its own."""
    result = yield
    given = getattr(item, "funcargs", {})
    if "unitwork_worker" in given and given["unitwork_schema"] is not None:
        worker = item.config.stash.get(_WORKER, None)
        sources = _listed(given["unitwork_databases"])
        if worker is None or not worker.has_all(sources):
            raise UsageError(_ANOTHER)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Warn of what a test without a sandbox leaves in the databases of the process."""
    given = getattr(item, "funcargs", {})
    if (
        "unitwork_worker" not in given
        or "sandbox" in given
        or _WORKER not in (item.config.stash)
    ):
        return (yield)
    with warning_of_leftovers(item.nodeid):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Keep the databases of a test that has failed, if that is wanted."""
    report: pytest.TestReport = yield
    if report.failed and item.config.getoption("--unitwork-keep"):
        for url in _kept_for(item):
            report.sections.append(("the database of the test, kept", url))
    return report


def _kept_for(item: pytest.Item) -> list[str]:
    box = getattr(item, "funcargs", {}).get("sandbox")
    if box is not None:
        urls: list[str] = box.keep()
        return urls
    worker = item.config.stash.get(_WORKER, None)
    return [] if worker is None else worker.keep()
