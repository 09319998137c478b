"""What to measure, how thoroughly, and on which database."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from .registry import BUILD, DIALECTS, ROOT
from .workloads import Workload, prepare

SERVER = "UNITWORK_TEST_POSTGRESQL"


@dataclass
class Options:
    contestants: list[str]
    drivers: list[str]
    workloads: list[Workload]
    quick: bool = False
    smallest: bool = False
    """So little that the numbers mean nothing: it shows that all of it runs."""
    before: str | None = None
    """An earlier revision of unitwork, which takes part, too."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a contestant does not take part."""

    @property
    def length(self) -> str:
        return "smallest" if self.smallest else "quick" if self.quick else "full"

    def rounds(self, full: int) -> int:
        """How often to repeat what a full run repeats *full* times."""
        return 1 if self.smallest else max(full // 4, 3) if self.quick else full

    def some(self, full: int) -> int:
        """How many to make of what a full run makes *full* of."""
        part = {"smallest": 40, "quick": 2, "full": 1}[self.length]
        return max(full // part, 4)

    def seconds(self, full: float) -> float:
        """How long to do what a full run does for *full* seconds."""
        return 0.2 if self.smallest else full / 4 if self.quick else full


def known(names: str, among: Collection[str], what: str) -> list[str]:
    """Split *names* at commas; all of them if there are none.

    Raises `SystemExit` for one that is not *among* those known.
    """
    given = [name for name in names.split(",") if name] or list(among)
    for name in given:
        if name not in among:
            raise SystemExit(f"no {what} {name!r}; there are {', '.join(among)}")
    return given


@contextlib.contextmanager
def source_of(revision: str | None) -> Iterator[str | None]:
    """Unpack src/ of *revision* of this repository; give the folder.

    Raises `SystemExit` if there is no such revision.
    """
    if revision is None:
        yield None
        return
    archive = ["git", "archive", f"--output={BUILD}/before.tar", revision, "src"]
    if subprocess.run(archive, cwd=ROOT, check=False).returncode:
        raise SystemExit(f"no revision {revision!r}")
    with tempfile.TemporaryDirectory(prefix="before-", dir=BUILD) as folder:
        shutil.unpack_archive(BUILD / "before.tar", folder, filter="data")
        yield f"{folder}/src"


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def database(driver: str) -> Iterator[str]:
    """Give the URL of a new database for *driver*, with tables and their rows.

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
