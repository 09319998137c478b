"""Real databases for tests: how long they take, and how long a test waits for one.

    python tools/postgres.py -- python -m benchmarks.real_databases --workers 8

Prints figures in milliseconds. Not part of `make bench`: nothing is compared.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table, make_url
from sqlalchemy.engine import URL

from unitwork import AsyncDatabase, Database
from unitwork._real_databases.pools import close_pools, real_databases_for
from unitwork._unit.database_base import core_of

TABLES = 30


def schema() -> MetaData:
    metadata = MetaData()
    for number in range(TABLES):
        parent: list[Column[int]] = []
        if number:
            parent = [Column("parent", ForeignKey(f"t{number - 1}.id"))]
        key = Column("id", Integer, primary_key=True)
        Table(f"t{number}", metadata, key, Column("name", String(99)), *parent)
    return metadata


def milliseconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return (time.perf_counter() - begun) * 1000


def wait_for_databases(url: URL, tests: int, seconds: float) -> list[float]:
    """How long each of *tests* waits for its database, when it takes *seconds*."""
    kind = AsyncDatabase if url.get_dialect().is_async else Database
    pool = real_databases_for(core_of(kind(url)), schema())
    waits = []
    for _ in range(tests):
        begun = time.perf_counter()
        database = pool.take()
        waits.append((time.perf_counter() - begun) * 1000)
        time.sleep(seconds)
        database.give_back()
    close_pools()
    return waits


def start_workers(url: URL, count: int) -> list[float]:
    """Start *count* processes; how long each has waited for its first database."""
    rendered = url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "benchmarks.real_databases", "--ready", rendered]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdout=pipe, stdin=pipe) for _ in range(count)]
    waits = []
    for process in started:
        assert process.stdout is not None
        waits.append(float(process.stdout.readline()))
    for process in started:
        process.communicate()
    return waits


def _be_ready(url: URL) -> None:
    kind = AsyncDatabase if url.get_dialect().is_async else Database
    pool = real_databases_for(core_of(kind(url)), schema())
    print(milliseconds(pool.take), flush=True)
    sys.stdin.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=40)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--ready", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ready:
        _be_ready(make_url(given.ready))
        return
    server = make_url(os.environ["UNITWORK_TEST_POSTGRESQL"])
    url = server.set(drivername="postgresql+asyncpg")
    waits = start_workers(url, given.workers)
    print(
        f"{given.workers} workers, and no template yet: the last one has its database"
        f" after {max(waits):.0f} ms, half of them after {statistics.median(waits):.0f}"
    )
    for seconds in (0.0, 0.05, 0.2):
        first, *others = wait_for_databases(url, given.tests, seconds)
        others.sort()
        p90 = others[int(len(others) * 0.9)]
        print(
            f"tests of {seconds * 1000:.0f} ms each wait for their database: the first"
            f" {first:.0f} ms, median {statistics.median(others):.1f},"
            f" 90 % within {p90:.1f} ms"
        )


if __name__ == "__main__":
    main()
