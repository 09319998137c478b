"""Random programs against real databases: is any client told a lie?

    make soak N=100000 DRIVERS="asyncpg psycopg psycopg-async aiosqlite" SEED=1
    make soak SEED=1 PROGRAM=4711 DRIVERS=asyncpg       # one of them, made smaller
    make soak ONLY="savepoint hook" WITHOUT="cancel"    # kinds: see generate.py
    make soak PATIENCE=5                                # on a busy machine

A program is one request, WebSocket, block or `db.run()`, made of random operations.
`model.py` keeps the books of what may be stored; after each batch of programs the table
is compared with them. A violation is printed with its program, which is made smaller
if the violation happens again when the program runs alone. The exit code is then 1.

lie: success was reported, and a row is missing. ghost: a failure was reported, and a
row is stored. double: work was done twice. half: a part of a unit is stored. hook: one
was called although its work was rolled back, or was not called. refused: a failure
without a reason. hang. leak: a connection or a task is left. protocol: two responses.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path

import psycopg
from sqlalchemy import make_url

from soak.generate import Generator, left_out
from soak.ledger import Ledger
from soak.run import Report, Run, Violation, run_alone, shrink
from soak.tables import Outsider

KINDS = (
    "lie",
    "ghost",
    "double",
    "half",
    "hook",
    "refused",
    "protocol",
    "hang",
    "leak",
)
DRIVERS = ("asyncpg", "psycopg", "psycopg-async", "aiosqlite")
SHRUNK = 10
"""How many of the violations are made smaller, at most."""


def main() -> int:
    arguments = _arguments()
    logging.disable(logging.CRITICAL)  # thousands of faults, each with its traceback
    warnings.simplefilter("ignore")
    print(f"seed {arguments.seed}", flush=True)
    reports = {driver: _soak(driver, arguments) for driver in arguments.drivers.split()}
    _print_table(reports)
    return 1 if any(report.violations for report in reports.values()) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--programs", type=int, default=100_000)
    parser.add_argument("--drivers", default=" ".join(DRIVERS))
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    parser.add_argument("--program", type=int, help="only this one")
    parser.add_argument("--only", default="", help="kinds, beside plain writes")
    parser.add_argument("--without", default="", help="kinds to leave out")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="longer limits, on a busy machine"
    )
    parser.add_argument(
        "--observed", action="store_true", help="compare events and metrics, too"
    )
    parser.add_argument("--release", default="transaction", help="the release mode")
    return parser.parse_args()


def _soak(driver: str, arguments: argparse.Namespace) -> Report:
    kinds = left_out(driver, arguments.only.split(), arguments.without.split())
    generator = Generator(arguments.seed, driver, kinds)
    with database(driver) as url:
        if arguments.program is not None:
            return _one(generator, url, arguments.program)
        numbers = range(arguments.programs)
        show = _progress(driver, arguments.programs)
        has_uvloop = find_spec("uvloop") is not None
        run = Run(generator, url, progress=show, uvloop=has_uvloop)
        run.patience, run.release = arguments.patience, arguments.release
        run.ledger = ledger = Ledger() if arguments.observed else None
        with nullcontext() if ledger is None else ledger.counting():
            report = run.go(numbers)
        print("\r\033[K", end="", file=sys.stderr)
        for number, violation in enumerate(report.violations[:50]):
            smaller = None
            if number < SHRUNK:
                smaller = shrink(generator, url, violation)
            _print_violation(driver, violation, smaller)
        if ledger is not None:
            _check(driver, ledger, report, generator)
    return report


def _check(driver: str, ledger: Ledger, report: Report, generator: Generator) -> None:
    """What does not add up is a violation, of no program in particular."""
    print(f"\n{driver}, units by their outcome: {dict(ledger.outcomes)}")
    if wrong := [f"events: {each}" for each in ledger.wrong()]:
        print(*wrong, sep="\n", flush=True)
        report.violations.append(Violation(generator.program(0), wrong))


def _one(generator: Generator, url: str, number: int) -> Report:
    program, report = generator.program(number), Report(programs=1)
    print(program)
    Outsider(url).create()
    violation = run_alone(generator, url, program)
    if violation is not None:
        report.violations.append(violation)
        _print_violation(generator.driver, violation, shrink(generator, url, violation))
    return report


def _print_violation(driver: str, found: Violation, smaller: Violation | None) -> None:
    shown = smaller or found
    again = "shrunk" if smaller else "not shrunk"
    print(f"\n{driver}, program {found.program.number}, {again}: {shown.story}")
    print(
        *(f"    {each}" for each in shown.what[:5]), shown.program, sep="\n", flush=True
    )


def _progress(driver: str, programs: int) -> Callable[[Report], None]:
    started = time.monotonic()
    shown: list[Violation] = []

    def show(report: Report) -> None:
        for found in report.violations[len(shown) :]:
            shown.append(found)
            what = "; ".join(found.what)[:300]
            print(f"\n{driver}, program {found.program.number}: {what}", flush=True)
        rate = report.programs / (time.monotonic() - started)
        _, megabytes = report.memory[-1]
        print(
            f"\r{driver}: {report.programs} of {programs}, {rate:.0f} a second, "
            f"{len(report.violations)} violations, {megabytes:.1f} MB ",
            end="",
            file=sys.stderr,
            flush=True,
        )

    return show


@contextmanager
def database(driver: str) -> Iterator[str]:
    """A database of its own, on the server that the launcher has started."""
    if "sqlite" in driver:
        with tempfile.TemporaryDirectory() as folder:
            yield f"sqlite:///{Path(folder, 'soak.db')}"
        return
    if (server := os.environ.get("UNITWORK_TEST_POSTGRESQL")) is None:
        sys.exit("no PostgreSQL: run `make soak`, or set UNITWORK_TEST_POSTGRESQL")
    name = f"unitwork_soak_{os.getpid()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield make_url(server).set(database=name).render_as_string(False)
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _print_table(reports: dict[str, Report]) -> None:
    reported = ("success", "failure", "unknown", "nothing")
    print(
        "\n| | programs | rows | " + " | ".join([*reported, "struck", *KINDS]), end=""
    )
    print(" | seconds | MB |\n|" + "---|" * (len(reported) + len(KINDS) + 6))
    for name, report in reports.items():
        counts = [
            report.programs,
            report.rows,
            *(report.reported[each] for each in reported),
        ]
        counts += [report.struck, *(report.of_kind(kind) for kind in KINDS)]
        memory = [f"{each:.0f}" for _, each in _some(report.memory)]
        shown = [*map(str, counts), f"{report.seconds:.0f}", " ".join(memory)]
        print(f"| {name} | " + " | ".join(shown) + " |")


def _some(memory: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """The first, the last, and four between."""
    step = max(1, len(memory) // 5)
    return [*memory[:-1:step], *memory[-1:]]


if __name__ == "__main__":
    sys.exit(main())
