"""Measure, and write down what came out: see README.md beside this file."""

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from . import counts, cpu, guarantees, idle, imports, report, scaling, traffic
from .contestants import BEFORE, CONTESTANTS, STANDARDS
from .options import BUILD, DIALECTS, Options, source_of
from .workloads import WORKLOADS

SECTIONS: dict[str, Callable[[Options], Awaitable[list[dict[str, Any]]]]] = {
    "guarantees": guarantees.measure,
    "roundtrips": counts.round_trips,
    "idle": idle.measure,
    "scaling": scaling.measure,
    "overload": traffic.overload,
    "throughput": traffic.throughput,
    "import": imports.measure,
    "calls": counts.calls,
    "nothing": cpu.without_database,
    "cpu": cpu.measure,
}
CHOICES = {
    "only": [*SECTIONS],
    "contestants": [name for name in CONTESTANTS if name not in BEFORE.values()],
    "drivers": [*DIALECTS],
    "workloads": [*WORKLOADS],
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="indicative numbers, soon")
    parser.add_argument("--smallest", action="store_true", help="only see that it runs")
    for name, known in CHOICES.items():
        some, kind = f"some of {', '.join(known)}", partial(some_of, known)
        parser.add_argument(f"--{name}", type=kind, default=known, help=some)
    parser.add_argument("--before", help="a revision of unitwork to compare with")
    parser.add_argument("--into", type=Path, default=BUILD, help="a folder for results")
    return parser.parse_args()


def some_of(known: list[str], names: str) -> list[str]:
    """Split *names* at commas; refuse one that is not *known*."""
    for name in names.split(","):
        if name not in known:
            raise argparse.ArgumentTypeError(f"no {name!r}; of {', '.join(known)}")
    return names.split(",")


async def main() -> int:
    """Measure section by section; give the number of those that failed."""
    given, failed = parse(), 0
    names = list(dict.fromkeys([*STANDARDS, *given.contestants]))
    if given.before:
        names += [before for now, before in BEFORE.items() if now in names]
    workloads = [WORKLOADS[name] for name in given.workloads]
    length = "smallest" if given.smallest else "quick" if given.quick else "full"
    options = Options(names, given.drivers, workloads, length)
    given.into.mkdir(parents=True, exist_ok=True)
    with source_of(given.before) as options.before:
        for section in given.only:
            options.missing = {}
            try:
                results = await SECTIONS[section](options)
            except Exception:  # the others may have hours of work to show
                traceback.print_exc()
                failed += 1
            else:
                report.store(given.into, section, results, options)
    report.write(given.into)
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
