"""Measure, and write down what came out: see README.md beside this file.

python -m benchmarks --quick --only cpu --contestants unitwork,depends
"""

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import (
    counts,
    cpu,
    guarantees,
    idle,
    report,
    scaling,
    traffic,
)
from .options import Options, source_of
from .registry import BEFORE, BUILD, CONTESTANTS, DRIVERS, STANDARDS
from .workloads import WORKLOADS

SECTIONS: dict[str, Callable[[Options], Awaitable[list[dict[str, Any]]]]] = {
    "guarantees": guarantees.measure,
    "roundtrips": counts.round_trips,
    "idle": idle.measure,
    "scaling": scaling.measure,
    "overload": traffic.overload,
    "throughput": traffic.throughput,
    "calls": counts.calls,
    "nothing": cpu.without_database,
    "cpu": cpu.measure,
}


SOME = {
    "only": [*SECTIONS],
    "contestants": [name for name in CONTESTANTS if name not in BEFORE.values()],
    "drivers": [*DRIVERS],
    "workloads": [*WORKLOADS],
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="indicative numbers, soon")
    parser.add_argument("--smallest", action="store_true", help="only see that it runs")
    for name, among in SOME.items():
        some, kind = f"some of {', '.join(among)}", partial(known, among)
        parser.add_argument(f"--{name}", type=kind, default=among, help=some)
    parser.add_argument("--before", help="a revision of unitwork to compare with")
    parser.add_argument("--into", type=Path, default=BUILD, help="a folder for tables")
    parser.add_argument("--raw", type=Path, default=BUILD, help="one for results.json")
    return parser.parse_args()


def known(among: list[str], names: str) -> list[str]:
    """Split *names* at commas; refuse one that is not *among* those known."""
    for name in names.split(","):
        if name not in among:
            raise argparse.ArgumentTypeError(f"no {name!r}; of {', '.join(among)}")
    return names.split(",")


async def main() -> int:
    given = parse()
    names = [name for name in given.contestants if name not in STANDARDS]
    names = [*STANDARDS, *names]
    if given.before:
        names += [BEFORE[name] for name in names if name in BEFORE]
    loads = [WORKLOADS[name] for name in given.workloads]
    length = "smallest" if given.smallest else "quick" if given.quick else "full"
    options = Options(names, given.drivers, loads, length)
    for folder in (BUILD, given.raw, given.into):
        folder.mkdir(parents=True, exist_ok=True)
    broken, file = 0, given.raw / "results.json"
    with source_of(given.before) as options.before:
        for section in given.only:
            options.missing = {}
            try:
                results = await SECTIONS[section](options)
            except Exception:  # the others may have hours of work to show
                traceback.print_exc()
                broken += 1
                continue
            report.store(file, section, results, options)
            lines = report.section_lines(given.into, section, report.load(file))
            print("\n".join(lines), flush=True)
    found = report.load(file)
    if "cpu" in found and find_spec("matplotlib"):
        report.draw(given.into, found["cpu"]["results"])
    report.write(given.into, found)
    return broken


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
