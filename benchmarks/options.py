"""What to measure, how thoroughly, and on which database."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

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
    length: str
    """`full`, `quick`, or `smallest`, which only shows that all of it runs."""
    before: str | None = None
    """The folder with an earlier unitwork, which takes part, too."""
    missing: dict[str, str] = field(default_factory=dict)
    """Why a contestant does not take part."""

    def rounds(self, full: int) -> int:
        """How often to repeat what a full run repeats *full* times."""
        return {"full": full, "quick": max(full // 3, 4), "smallest": 1}[self.length]

    def some(self, full: int) -> int:
        """How many to make of what a full run makes *full* of."""
        return max(full // {"full": 1, "quick": 2, "smallest": 40}[self.length], 4)

    def seconds(self, full: float) -> float:
        """How long to do what a full run does for *full* seconds."""
        return {"full": full, "quick": full / 4, "smallest": 0.2}[self.length]


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def source_of(revision: str | None) -> Iterator[str | None]:
    """Unpack src/ of *revision* of this repository; give the folder.

    Raises `SystemExit` if there is no such revision.
    """
    if revision is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="before-", dir=BUILD) as folder:
        archive = ["git", "archive", f"--output={folder}/src.tar", revision, "src"]
        if subprocess.run(archive, cwd=ROOT, check=False).returncode:
            raise SystemExit(f"no revision {revision!r}")
        shutil.unpack_archive(f"{folder}/src.tar", folder, filter="data")
        yield f"{folder}/src"


@contextlib.contextmanager
def database(driver: str) -> Iterator[str]:
    """Give the URL of a new database for *driver*, with tables and their rows.

    Raises `SystemExit` without a server.
    """
    if DIALECTS[driver].startswith("sqlite"):
        with tempfile.TemporaryDirectory(prefix="unitwork-bench-") as folder:
            url = f"sqlite:///{folder}/bench.db"
            prepare(url)
            yield url
        return
    server, name = os.environ.get(SERVER), f"unitwork_bench_{os.getpid()}"
    if server is None:
        raise SystemExit(f"no PostgreSQL: run `make bench`, or set {SERVER}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            url = make_url(server).set(database=name).render_as_string(False)
            prepare(url)
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
