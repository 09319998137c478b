"""The results, written down: the bars, and a table or more for each section."""

import json
import os
import platform
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .contestants import AUTOCOMMIT, CONTESTANTS
from .guarantees import PROBES
from .options import SYNC_DRIVERS, Options
from .workloads import WORKLOADS

Result = dict[str, Any]
VERSIONS = ("fastapi", "starlette", "sqlalchemy", "asyncpg", "psycopg")


def number(value: Any) -> str:
    """A cell: a median with its quartiles, a number, a text."""
    if isinstance(value, dict):
        digits = 3 if value["median"] < 3 else 1 if value["median"] < 1000 else 0
        median, low, high = (f"{each:,.{digits}f}" for each in value.values())
        return f"{median} ({low} to {high})"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 30 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else value


EACH = ("driver",)
CASE = ("driver", "at once")
NOTHING = "A request that leaves the database alone, in FastAPI"
TABLES: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "guarantees": ("What each leaves out", "", (), "driver"),
    "nothing": (NOTHING, "us of CPU; over no middleware", (), "case"),
    "cpu": ("CPU for each request", "CPU against the limit", CASE, "workload"),
    "calls": ("Function calls of one read", "", EACH, "of"),
    "throughput": ("Throughput", "", ("driver", "workload"), "what"),
    "overload": ("Overload", "", EACH, "what"),
    "roundtrips": ("Round trips to the database", "", EACH, "workload"),
    "idle": ("Idle connections", "", ("kind",), "count"),
    "scaling": ("What grows", "us of CPU", ("series",), "size"),
    "import": ("Starts of Python with an import", "", (), "case"),
}
"""By section: its title, a corner, what each table is of, and each column."""


def load(folder: Path) -> Result:
    file = folder / "results.json"
    return dict(json.loads(file.read_text())) if file.exists() else {}


def store(folder: Path, section: str, results: list[Result], options: Options) -> None:
    """Put the *results* into the file; other sections stay as they are."""
    about = [f"{time.strftime('%Y-%m-%d %H:%M %Z')}, a {options.length} run, Python"]
    about += [f"{platform.python_version()}, {platform.platform(terse=True)},"]
    about += [f"{os.cpu_count()} cores;"]
    about += [", ".join(f"{name} {version(name)}" for name in VERSIONS)]
    found = {"about": about, "results": results, "missing": options.missing}
    text = json.dumps({**load(folder), section: found}, indent=1)
    (folder / "results.json").write_text(text + "\n")


def write(folder: Path) -> None:
    """Write and print the tables of all sections that were measured."""
    found = load(folder)
    lines = ["# Benchmark tables", "", "## The bars", "", *bar_lines(found)]
    for section in (section for section in TABLES if section in found):
        lines += ["", *section_lines(section, **found[section])]
    text = "\n".join(lines) + "\n"
    (folder / "tables.md").write_text(text)
    print(text)


def section_lines(
    section: str, about: list[str], results: list[Result], missing: dict[str, str]
) -> Iterator[str]:
    title, corner, parts, columns = TABLES[section]
    yield from (f"## {title}", "", f"*{' '.join(about)}.*", "")
    for part in distinct(results, *parts):
        these = where(results, **dict(zip(parts, part, strict=True)))
        cells = {
            (each["contestant"], each[columns]): number(each["value"]) for each in these
        }
        heads = [head for (head,) in distinct(these, columns)]
        if part:
            yield from (f"**{', '.join(map(named, part))}**", "")
        yield f"| {corner} | {' | '.join(map(named, heads))} |"
        yield "|---|" + "--:|" * len(heads)
        for (name,) in distinct(these, "contestant"):
            row = " | ".join(cells.get((name, head), "") for head in heads)
            yield f"| {named(name)} | {row} |"
        yield ""
    if section == "guarantees":
        yield from (f"- *{name}*: {text}" for name, text in PROBES.items())
    for name, reason in missing.items():
        yield f"`{name}` was not measured: {reason}\n"


def named(name: str | int) -> str:
    if isinstance(name, int):
        return f"{name:,}"
    known = CONTESTANTS.get(name) or WORKLOADS.get(name)
    return known.title if known else name


def distinct(results: list[Result], *keys: str) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(tuple(each[key] for key in keys) for each in results))


def where(results: list[Result], **values: Any) -> list[Result]:
    """Those of *results* that have these *values*."""
    return [r for r in results if all(r.get(k) == v for k, v in values.items())]


def bar_lines(results: Result) -> Iterator[str]:
    yield from ("| Bar | Found | Held |", "|---|--:|--:|")
    for what, found, most in bars(results):
        held = "yes" if found <= most else "**no**"
        yield f"| {what} | {found:.3f}, at most {most:.3f} | {held} |"


def bars(results: Result) -> Iterator[tuple[str, float, float]]:
    """What is to hold, what was found, and how much it may be at most."""
    of = {section: measured["results"] for section, measured in results.items()}
    for each in where(of.get("nothing", []), contestant="unitwork"):
        yield f"us without a database, {each['case']}", each["value"]["median"], 2.0
    cpu = [r for r in of.get("cpu", []) if r["workload"] in ("read", "write")]
    for each in where(cpu, contestant="unitwork_current"):
        if "plain" in each:
            yield f"{case(each)}: db.current / plain", each["plain"]["median"], 1.05
        elif each["driver"] in SYNC_DRIVERS:
            yield f"{case(each)}: db.current / limit", each["value"]["median"], 1.15
    for each in where(cpu, contestant="unitwork"):
        same = {key: each[key] for key in ("driver", "workload", "at once")}
        for theirs in where(cpu, contestant="depends", **same):
            what = f"{case(each)}: Depends(db.session), not above Depends(get_db)"
            yield what, each["value"]["median"], theirs["value"]["median"]
    trips = of.get("roundtrips", [])
    for each in where(trips, contestant="unitwork"):
        same = {key: each[key] for key in ("driver", "workload")}
        (limit,) = where(trips, contestant="limit", **same)
        yield f"round trips, {case(each)}", each["value"], limit["value"]
    for each in where(trips, contestant=AUTOCOMMIT, workload="read"):
        yield f"round trips, AUTOCOMMIT, {case(each)}", each["value"], 1.0
    for each in where(of.get("scaling", []), contestant="unitwork", size="power"):
        yield f"{each['series']}: grows with the power", each["value"], 1.15
    for each in where(of.get("import", []), contestant="unitwork"):
        yield "import unitwork / import its parts of SQLAlchemy", each["value"], 1.15


def case(result: Result) -> str:
    at_once = f" x{result['at once']}" if "at once" in result else ""
    return f"{named(result['workload'])}{at_once}, {result['driver']}"
