"""What is to be measured, how thoroughly, and on which database."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psycopg
from sqlalchemy import make_url

from .registry import DIALECTS
from .schema import prepare
from .workloads import WORKLOADS, Workload

SERVER = "UNITWORK_TEST_POSTGRESQL"


class Options(NamedTuple):
    contestants: list[str]
    drivers: list[str]
    workloads: list[Workload]
    quick: bool
    smallest: bool = False
    """So little that the numbers mean nothing: to see that it runs."""

    def rounds(self, full: int) -> int:
        """How often to repeat what a full run repeats *full* times."""
        return 1 if self.smallest else max(full // 4, 3) if self.quick else full

    def some(self, full: int) -> int:
        """How many to make of what a full run makes *full* of."""
        return (
            max(full // 40, 4) if self.smallest else full // 2 if self.quick else full
        )

    def seconds(self, full: float) -> float:
        """How long to do what a full run does for *full* seconds."""
        return 0.2 if self.smallest else full / 4 if self.quick else full


def known(names: str, among: dict[str, object], what: str) -> list[str]:
    """The *names*, which stand between commas; all, if there are none.

    Raises `SystemExit` for one that is not *among* those known.
    """
    given = [name for name in names.split(",") if name] or list(among)
    for name in given:
        if name not in among:
            raise SystemExit(f"no {what} {name!r}; there are {', '.join(among)}")
    return given


def workloads(names: str) -> list[Workload]:
    return [WORKLOADS[name] for name in known(names, {**WORKLOADS}, "workload")]


@contextlib.contextmanager
def database(driver: str) -> Iterator[str]:
    """A database of our own for *driver*, prepared and empty; gives the URL.

    Raises `SystemExit` without a server.
    """
    if DIALECTS[driver].startswith("sqlite"):
        with tempfile.TemporaryDirectory(prefix="unitwork-bench-") as folder:
            url = f"sqlite:///{Path(folder, 'bench.db')}"
            prepare(url)
            yield url
        return
    server = os.environ.get(SERVER)
    if server is None:
        raise SystemExit(f"no PostgreSQL: run `make bench`, or set {SERVER}")
    name = f"unitwork_bench_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            url = make_url(server).set(database=name).render_as_string(False)
            prepare(url)
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
