"""A PostgreSQL and its asynchronous standby, which is promoted in its place."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import create_engine, make_url

from servers.postgresql import INITDB, SETTINGS, find_binaries
from servers.private_server import Place, Recipe, private_server
from support.models import create_tables

_FULL = "SELECT pg_current_wal_lsn() <= replay_lsn FROM pg_stat_replication"


class Replicated:
    """A primary and its standby. Each method blocks the event loop until it is done."""

    def __init__(self, primary: str, standby: str, primary_data: Path) -> None:
        self.primary = primary
        self.standby = standby
        self._pid_file = primary_data / "postmaster.pid"

    def catch_up(self) -> None:
        """Wait until the standby has replayed all that there is."""
        with _connect(self.primary) as primary:
            _until(lambda: primary.execute(_FULL).fetchone() == (True,))

    def hold_back(self) -> None:
        """From now on the standby receives nothing from its primary."""
        self.catch_up()
        with _connect(self.standby) as standby:
            standby.execute("ALTER SYSTEM SET primary_conninfo = ''")
            standby.execute("SELECT pg_reload_conf()")
            receivers = "SELECT count(*) FROM pg_stat_wal_receiver"
            _until(lambda: standby.execute(receivers).fetchone() == (0,))

    def fail_over(self) -> None:
        """Kill the primary, and promote the standby."""
        os.kill(int(self._pid_file.read_text().split("\n")[0]), signal.SIGQUIT)
        _until(lambda: not _is_up(self.primary))
        with _connect(self.standby) as standby:
            assert standby.execute("SELECT pg_promote()").fetchone() == (True,)

    def assign_again(self, number: int) -> str:
        """Commit transactions until one has this *number*; gives its status."""
        with _connect(self.standby) as promoted:
            while _fetch(promoted, "SELECT txid_current()") < number:
                pass
            return str(_fetch(promoted, f"SELECT txid_status({number})"))


def _connect(url: str) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def _fetch(connection: psycopg.Connection[Any], sql: str) -> Any:
    row = connection.execute(sql).fetchone()
    assert row is not None
    return row[0]


def _is_up(url: str) -> bool:
    with suppress(psycopg.OperationalError), _connect(url):
        return True
    return False


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def replicated() -> Iterator[Replicated]:
    """Start both, with the tables of the tests, and remove them at the end."""
    data: list[Path] = []

    def primary(place: Place) -> Recipe:
        tools = find_binaries(place.account, place.home)
        data.append(place.home / "data")
        return _recipe(place, [tools / "initdb", "-D", data[-1], *INITDB], tools)

    with private_server("PostgreSQL", primary) as port:
        create = create_engine(make_url(_url(port)).set(drivername=_DRIVER))
        create_tables(create)
        create.dispose()

        def standby(place: Place) -> Recipe:
            tools = find_binaries(place.account, place.home)
            source = ["-h", "127.0.0.1", "-p", port, "-U", "postgres"]
            copy = [tools / "pg_basebackup", "-D", place.home / "data", *source]
            return _recipe(place, [*copy, "-R", "-c", "fast", "--no-sync"], tools)

        with private_server("PostgreSQL", standby) as standby_port:
            yield Replicated(_url(port), _url(standby_port), data[-1])


_DRIVER = "postgresql+psycopg"


def _url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _recipe(place: Place, prepare: list[object], tools: Path) -> Recipe:
    data = place.home / "data"
    return Recipe(
        prepare=prepare,
        serve=[tools / "postgres", "-D", data, f"--port={place.port}", *SETTINGS],
        signals="TERM QUIT",
        pid_file=data / "postmaster.pid",
        ready="ready",
    )
