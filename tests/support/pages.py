"""What the tests of the manual use: pytest itself, statements, a PostgreSQL server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

import psycopg
from sqlalchemy import event, make_url

PLUGIN = ["-p", "unitwork.pytest_plugin"]
"""As its entry point does, where this checkout is installed anew."""
if any(each.value == PLUGIN[1] for each in entry_points(group="pytest11")):
    PLUGIN = []


def run_tests(*arguments: str, **environment: str) -> str:
    """Run pytest on the files here, in a process of its own; give what it says."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q"]
    command += ["-p", "no:cacheprovider", "--rootdir", ".", *PLUGIN, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def statements(engine: Any) -> Iterator[list[str]]:
    """List what *engine* sends while the block runs, on one line each."""
    engine = getattr(engine, "sync_engine", engine)
    sent: list[str] = []

    def statement(connection: Any, cursor: Any, sql: str, *rest: Any) -> None:
        sent.append(" ".join(sql.split()))

    def begin(connection: Any) -> None:
        if connection.dialect.name != "sqlite":
            sent.append("BEGIN")

    listeners = {
        "before_cursor_execute": statement,
        "begin": begin,
        "commit": lambda connection: sent.append("COMMIT"),
        "rollback": lambda connection: sent.append("ROLLBACK"),
    }
    for name, listener in listeners.items():
        event.listen(engine, name, listener)
    try:
        yield sent
    finally:
        for name, listener in listeners.items():
            event.remove(engine, name, listener)


@contextmanager
def postgresql(driver: str) -> Iterator[str]:
    """The URL, for *driver*, of a database that lives as long as the block."""
    server = os.environ["UNITWORK_TEST_POSTGRESQL"]
    name = f"unitwork_page_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    url = make_url(server).set(database=name, drivername=f"postgresql+{driver}")
    try:
        yield url.render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
