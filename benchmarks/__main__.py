"""Measure, and write down what came out: see README.md beside this file.

python -m benchmarks --quick --only cpu --contestants unitwork,depends
"""

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from . import (
    calls,
    cpu,
    guarantees,
    idle,
    report,
    roundtrips,
    scaling,
    traffic,
)
from .options import Options, known, source_of
from .registry import BEFORE, BUILD, CONTESTANTS, DRIVERS, STANDARDS
from .workloads import WORKLOADS

SECTIONS: dict[str, Callable[[Options], Awaitable[list[dict[str, Any]]]]] = {
    "guarantees": guarantees.measure,
    "roundtrips": roundtrips.measure,
    "import": cpu.imports,
    "idle": idle.measure,
    "scaling": scaling.measure,
    "overload": traffic.overload,
    "throughput": traffic.throughput,
    "calls": calls.measure,
    "nothing": cpu.without_database,
    "closely": cpu.closely,
    "cpu": cpu.measure,
}
NAMES = [name for name in CONTESTANTS if name not in BEFORE.values()]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="indicative numbers, soon")
    parser.add_argument("--smallest", action="store_true", help="only see that it runs")
    parser.add_argument("--only", default="", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--contestants", default="", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--drivers", default="", help=f"some of {', '.join(DRIVERS)}")
    parser.add_argument(
        "--workloads", default="", help=f"some of {', '.join(WORKLOADS)}"
    )
    parser.add_argument("--before", help="a revision of unitwork to compare with")
    parser.add_argument("--into", type=Path, default=BUILD, help="a folder for tables")
    return parser.parse_args()


async def main() -> int:
    given = parse()
    names = known(given.contestants, NAMES, "contestant")
    names = [*STANDARDS, *(name for name in names if name not in STANDARDS)]
    if given.before:
        names += [BEFORE[name] for name in names if name in BEFORE]
    loads = [WORKLOADS[n] for n in known(given.workloads, WORKLOADS, "workload")]
    drivers = known(given.drivers, DRIVERS, "driver")
    options = Options(names, drivers, loads, given.quick, given.smallest)
    for folder in (BUILD, given.into):
        folder.mkdir(parents=True, exist_ok=True)
    broken, file = 0, BUILD / "results.json"
    with source_of(given.before) as options.before:
        for section in known(given.only, SECTIONS, "section"):
            options.missing = {}
            try:
                results = await SECTIONS[section](options)
            except Exception:  # the others may have hours of work to show
                traceback.print_exc()
                broken += 1
                continue
            report.store(file, section, results, options)
            found = report.load(file)
            for shown in (
                section,
                *(["before"] if given.before and section == "cpu" else []),
            ):
                lines = report.section_lines(given.into, shown, found[shown])
                print("\n".join(lines), flush=True)
    found = report.load(file)
    if find_spec("matplotlib"):
        from .plot import draw

        draw(given.into, found)
    report.write(given.into, found)
    print("\n".join(["", *report.bar_lines(found)]))
    return broken


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
