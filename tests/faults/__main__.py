"""The soak: many requests under faults, and a table of what became of them.

    make soak N=100000 DRIVERS="asyncpg psycopg" SEED=1

Prints Markdown. The exit code is 1 if anybody was lied to, hung, or leaked.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import make_url

from faults.history import Report, Told
from faults.plan import KINDS, Plan, for_backend
from faults.run import Run
from faults.stage import SETTINGS
from support.flavours import MARIADB, SERVERS, connect_mariadb
from unitwork import DatabaseSettings

PLAIN = "Depends(get_db)"
PATIENCE = 180.0
"""Seconds for the usual pattern, which sometimes hangs for ever."""
UNVERIFIED = DatabaseSettings(
    end_timeout=SETTINGS.end_timeout, commit_timeout=SETTINGS.commit_timeout
)
"""MariaDB does not remember what became of a transaction."""
COLUMNS: dict[str, Callable[[Report], int]] = {
    "requests": lambda report: report.requests,
    "faults": lambda report: report.faults.total(),
    **{
        told.value: lambda report, told=told: report.told[told]  # type: ignore[misc]
        for told in Told
    },
    "lies": lambda report: len(report.lies),
    "ghosts": lambda report: len(report.ghosts),
    "hung": lambda report: len(report.hung),
    "leaked": lambda report: len(report.leaked),
    "seconds": lambda report: round(report.seconds),
}


def main() -> int:
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # thousands of faults, each with its traceback
    print(f"seed {arguments.seed}\n", flush=True)
    reports: dict[str, Report] = {}
    wrong: list[str] = []
    drivers = arguments.drivers.split()
    for driver in drivers:
        report = _soak(driver, driver, arguments.requests, arguments)
        reports[driver] = report
        wrong += [f"{driver}: {each}" for each in report.wrong]
    for driver in drivers if arguments.plain else ():
        name = f"{driver}, {PLAIN}"
        with _unless_it_hangs(name, reports, wrong):
            reports[name] = _soak(driver, name, arguments.plain, arguments, plain=True)
    return _print(reports, wrong)


@contextmanager
def _unless_it_hangs(
    name: str, reports: dict[str, Report], wrong: list[str]
) -> Iterator[None]:
    """Give up on the usual pattern if it blocks its event loop, and with it all limits.

    It happens: the garbage collector rolls back what a cancelled request has left.
    """

    def give_up() -> None:
        print(f"\n{name}: hangs, its event loop is blocked\n")
        code = _print(reports, wrong)
        sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(PATIENCE, give_up)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _print(reports: dict[str, Report], wrong: list[str]) -> int:
    """Print the tables; give the exit code."""
    _print_table(["", *COLUMNS], [[name, *_row(reports[name])] for name in reports])
    kinds = [kind for kind in KINDS if any(r.faults[kind] for r in reports.values())]
    rows = [[kind, *(r.faults[kind] for r in reports.values())] for kind in kinds]
    _print_table(["faults by kind", *reports], rows)
    for name, report in reports.items():
        if report.needless:
            print(f"{name}: {len(report.needless)} of the unknown had nothing to store")
    print(*wrong[:50], sep="\n")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument(
        "--plain", type=int, default=2_000, help=f"requests to {PLAIN}, to compare"
    )
    parser.add_argument("--drivers", default="asyncpg psycopg psycopg-async")
    parser.add_argument("--rate", type=float, default=0.01, help="faults per request")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    for driver in arguments.drivers.split():
        if driver not in SERVERS:
            parser.error(f"no driver {driver!r}; there are {', '.join(SERVERS)}")
    return arguments


def _soak(
    driver: str,
    name: str,
    requests: int,
    arguments: argparse.Namespace,
    *,
    plain: bool = False,
) -> Report:
    with _database(driver) as url:
        kinds = for_backend(make_url(url).get_backend_name())
        run = Run(
            driver,
            url,
            Plan(arguments.seed, requests, arguments.rate, kinds),
            plain=plain,
            settings=UNVERIFIED if driver in MARIADB else SETTINGS,
            progress=_progress(name, requests),
        )
        report = asyncio.run(run.go())
        print("\r\033[K", end="", file=sys.stderr)
        return report


def _progress(name: str, requests: int) -> Callable[[Report], None]:
    started = time.monotonic()

    def show(report: Report) -> None:
        if report.requests % 200 and report.requests != requests:
            return
        done = report.requests / requests
        bar = "#" * int(30 * done)
        rate = report.requests / (time.monotonic() - started)
        print(
            f"\r{name} [{bar:<30}] {done:4.0%}, {rate:.0f} requests a second, "
            f"{report.faults.total()} faults ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    return show


@contextmanager
def _database(driver: str) -> Iterator[str]:
    """A database of its own on the server that the launcher has started."""
    mariadb = driver in MARIADB
    variable = "UNITWORK_TEST_MARIADB" if mariadb else "UNITWORK_TEST_POSTGRESQL"
    if variable not in os.environ:
        sys.exit(f"no server for {driver}: run `make soak`, or set {variable}")
    server, name = os.environ[variable], f"unitwork_soak_{os.getpid()}"
    _execute(server, f"CREATE DATABASE {name}", mariadb=mariadb)
    yield make_url(server).set(database=name).render_as_string(False)
    force = "" if mariadb else " WITH (FORCE)"
    _execute(server, f"DROP DATABASE {name}{force}", mariadb=mariadb)


def _execute(server: str, sql: str, *, mariadb: bool) -> None:
    if mariadb:
        with connect_mariadb(make_url(server)) as line:
            line.query(sql)
    else:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql)


def _row(report: Report) -> list[int]:
    return [column(report) for column in COLUMNS.values()]


def _print_table(heads: list[str], rows: list[list[object]]) -> None:
    print("| " + " | ".join(heads) + " |")
    print("|" + "|".join(["---", *["---:"] * (len(heads) - 1)]) + "|")
    for row in rows:
        print("| " + " | ".join(str(each) for each in row) + " |")
    print()


if __name__ == "__main__":
    sys.exit(main())
