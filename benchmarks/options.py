"""What to measure, how thoroughly, and on which database."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from .workloads import Workload, prepare

ROOT = Path(__file__).parents[1]
BUILD = ROOT / "build" / "benchmarks"
SERVER = "UNITWORK_TEST_POSTGRESQL"
DIALECTS = {
    "asyncpg": "postgresql+asyncpg",
    "psycopg-async": "postgresql+psycopg_async",
    "psycopg": "postgresql+psycopg",
}
SYNC_DRIVERS = ("psycopg", "pymysql")
POPULAR = ("asyncpg", "psycopg")


@dataclass
class Options:
    contestants: list[str]
    drivers: list[str]
    workloads: list[Workload]
    length: str  # `full`, `quick`, or `smallest`, which only shows that all of it runs
    before: str | None = None  # the folder with an earlier unitwork
    missing: dict[str, str] = field(default_factory=dict)  # contestants, and why

    @property
    def start_method(self) -> str:
        """Of the workers: from nothing, or quickly, with all modules imported."""
        return "forkserver" if self.length == "smallest" else "spawn"

    def rounds(self, full: int) -> int:
        """How often to repeat what a full run repeats *full* times."""
        return {"full": full, "quick": max(full // 4, 3), "smallest": 1}[self.length]

    def seconds(self, full: float) -> float:
        """How long to do what a full run does for *full* seconds."""
        return {"full": full, "quick": full / 4, "smallest": 0.2}[self.length]


@contextlib.contextmanager
def source_of(revision: str | None) -> Iterator[str | None]:
    """Unpack src/ of *revision* of this repository; give the folder."""
    with tempfile.TemporaryDirectory(prefix="unitwork-before-") as folder:
        if revision:
            git = ["git", "archive", f"--output={folder}/src.tar", revision, "src"]
            subprocess.run(git, cwd=ROOT, check=True)
            shutil.unpack_archive(f"{folder}/src.tar", folder, filter="data")
        yield f"{folder}/src" if revision else None


@contextlib.contextmanager
def database(driver: str) -> Iterator[str]:
    """Give the URL by which *driver* reaches a new database with tables and rows."""
    server, name = os.environ.get(SERVER), f"unitwork_bench_{os.getpid()}"
    if server is None:
        raise SystemExit(f"no PostgreSQL: run `make bench`, or set {SERVER}")
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            known = make_url(server).set(drivername=DIALECTS[driver], database=name)
            url = known.render_as_string(hide_password=False)
            prepare(url)
            yield url
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
