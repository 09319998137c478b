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
    closely,
    cpu,
    guarantees,
    idle,
    imports,
    memory,
    overload,
    roundtrips,
    scaling,
    throughput,
)
from .options import Options, known, workloads
from .registry import CONTESTANTS, DRIVERS, STANDARDS
from .report import bar_lines, tell, write
from .results import load, store

Section = Callable[[Options], Awaitable[dict[str, Any]]]
SECTIONS: dict[str, Section] = {
    "guarantees": guarantees.measure,
    "roundtrips": roundtrips.measure,
    "import": imports.measure,
    "memory": memory.measure,
    "idle": idle.measure,
    "scaling": scaling.measure,
    "overload": overload.measure,
    "throughput": throughput.measure,
    "calls": calls.measure,
    "closely": closely.measure,
    "cpu": cpu.measure,
}
INTO = Path(__file__).parents[1] / "build" / "benchmarks"


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="indicative numbers, soon")
    parser.add_argument("--smallest", action="store_true", help="only see that it runs")
    for name, among in (
        ("only", SECTIONS),
        ("contestants", CONTESTANTS),
        ("drivers", DRIVERS),
        ("workloads", None),
    ):
        some = f" of {', '.join(among)}" if among is not None else ""
        parser.add_argument(f"--{name}", default="", help=f"some{some}")
    parser.add_argument("--into", type=Path, default=INTO, help="a folder for results")
    return parser.parse_args()


async def main() -> int:
    asked = parse()
    contestants = known(asked.contestants, {**CONTESTANTS}, "contestant")
    standards = [name for name in STANDARDS if name not in contestants]
    options = Options(
        contestants=standards + contestants,
        drivers=known(asked.drivers, {**DRIVERS}, "driver"),
        workloads=workloads(asked.workloads),
        quick=asked.quick,
        smallest=asked.smallest,
    )
    broken = 0
    for section in known(asked.only, {**SECTIONS}, "section"):
        try:
            measured = await SECTIONS[section](options)
        except Exception:  # the others may have hours of work to show
            traceback.print_exc()
            broken += 1
            continue
        store(asked.into, section, measured, options)
        print("\n".join(tell(section, measured)), flush=True)
    if find_spec("matplotlib"):
        from .plot import draw

        draw(asked.into)
    write(asked.into)
    print("\n".join(["", *bar_lines(load(asked.into))]))
    return broken


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
