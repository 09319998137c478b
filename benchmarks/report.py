"""The results, written down: the bars, a table or more for each section, a picture."""

import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from .guarantees import PROBES
from .options import Options
from .registry import CONTESTANTS, DRIVERS
from .workloads import AUTOCOMMIT, WORKLOADS

Result = dict[str, Any]
Results = dict[str, Any]
VERSIONS = ("fastapi", "starlette", "sqlalchemy", "asyncpg", "psycopg")


def number(value: Any) -> str:
    """A cell: a median with its quartiles, a number, a text."""
    if isinstance(value, dict):
        digits = 3 if value["median"] < 3 else 1 if value["median"] < 1000 else 0
        median, low, high = (f"{each:,.{digits}f}" for each in value.values())
        return f"{median} ({low} to {high})"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 30 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if type(value) is int else f"{value}"


def cpu(result: Result) -> str:
    if result.get("failed"):
        return f"{result['failed']:.0f} failed"
    key = "over_us" if result["workload"] == "nothing" else "ratio"
    return number(result.get("now / before") or result[key])


def throughput(result: Result) -> str:
    if result["failed"]:
        return f"{result['failed']} failed"
    speed, p99 = result["per_second"]["median"], result["p99_s"]["median"]
    return f"{speed:,.0f} ({result['ratio']['median']:.2f}x), {p99 * 1000:.0f} ms"


def idle(result: Result) -> str:
    if not result.get("served"):
        return "no session" if "served" in result else "fails"
    served = "all" if result["served"] == result["count"] else f"{result['served']:,}"
    then = "" if result["others"] == 200 else f", then {result['others']}"
    return f"{served} served, {result['pinned']} pinned{then}"


def value(result: Result) -> str:
    return number(result["value"])


EACH = ("driver",)
CASE = ("driver", "at once")
NOTHING = "A request that leaves the database alone, in FastAPI"
TABLES: dict[str, tuple[str, str, tuple[str, ...], str, Callable[[Result], str]]] = {
    "guarantees": ("What each leaves out", "", (), "driver", value),
    "nothing": (NOTHING, "us of CPU; over no middleware", (), "case", value),
    "cpu": ("CPU for each request", "CPU against the limit", CASE, "workload", cpu),
    "calls": ("Function calls of one read", "", EACH, "of", value),
    "throughput": (
        "Throughput",
        "requests a second, p99",
        EACH,
        "workload",
        throughput,
    ),
    "overload": ("Overload", "", EACH, "what", value),
    "roundtrips": ("Round trips to the database", "", EACH, "workload", value),
    "idle": ("Idle connections", "", ("kind",), "count", idle),
    "scaling": ("What grows", "us of CPU", ("series",), "size", value),
}
"""By section: the title, the corner of a table, what each table is of, what each column
is of, and how a cell is shown."""


def load(file: Path) -> Results:
    return dict(json.loads(file.read_text())) if file.exists() else {}


def store(file: Path, section: str, results: list[Result], options: Options) -> None:
    """Put the *results* into the file; other sections stay as they are."""
    versions = {each.name.lower(): each.version for each in distributions()}
    about = f"*{time.strftime('%Y-%m-%d %H:%M %Z')}, a {options.length} run, Python"
    about += f" {platform.python_version()}, {platform.system()} {platform.machine()}, "
    known = (f"{name} {versions.get(name)}" for name in VERSIONS)
    about += f"{os.cpu_count()} cores; {', '.join(known)}.*"
    found = {"about": about, "results": results, "missing": options.missing}
    file.write_text(json.dumps({**load(file), section: found}, indent=1) + "\n")


def write(folder: Path, results: Results) -> None:
    """Write the tables of all sections that were measured into *folder*."""
    lines = ["## The bars", "", *bar_lines(results)]
    for section in (section for section in TABLES if section in results):
        lines += ["", *section_lines(folder, section, results)]
    (folder / "tables.txt").write_text("\n".join(lines) + "\n")
    print("\n".join(bar_lines(results)))


def section_lines(folder: Path, section: str, found: Results) -> Iterator[str]:
    title, corner, parts, columns, show = TABLES[section]
    measured, results = found[section], found[section]["results"]
    yield from (f"## {title}", "", measured["about"], "")
    if (folder / f"{section}.svg").exists():
        yield from (f"![{title}]({folder.name}/{section}.svg)", "")
    for part in distinct(results, *parts):
        these = where(results, **dict(zip(parts, part, strict=True)))
        cells = {(each["contestant"], each[columns]): show(each) for each in these}
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
    for name, reason in measured["missing"].items():
        yield f"`{name}` did not take part: {reason}\n"


def named(name: str | int) -> str:
    if isinstance(name, int):
        return f"{name:,}"
    if name == "nothing":
        return "no database, us over no middleware"
    known = CONTESTANTS.get(name) or {**WORKLOADS, "autocommit": AUTOCOMMIT}.get(name)
    return known.title if known else name


def distinct(results: list[Result], *keys: str) -> list[tuple[Any, ...]]:
    return list(dict.fromkeys(tuple(each[key] for key in keys) for each in results))


def where(results: list[Result], **values: Any) -> list[Result]:
    """Those of *results* that have these *values*."""
    return [r for r in results if all(r.get(k) == v for k, v in values.items())]


def bar_lines(results: Results) -> Iterator[str]:
    yield from ("| Bar | Found | Held |", "|---|--:|--:|")
    for what, found, most in bars(results):
        held = "yes" if found <= most else "**no**"
        yield f"| {what} | {found:.3f}, at most {most:.3f} | {held} |"


def bars(results: Results) -> Iterator[tuple[str, float, float]]:
    """What is to hold, what was found, and how much it may be at most."""
    of = {section: measured["results"] for section, measured in results.items()}
    for each in where(of.get("nothing", []), contestant="unitwork"):
        yield f"us without a database, {each['case']}", each["value"]["median"], 2.0
    cpu = [r for r in of.get("cpu", []) if r["workload"] in ("read", "write")]
    for each in where(cpu, contestant="unitwork_current"):
        if "plain" in each:
            yield f"{case(each)}: db.current / plain", each["plain"]["median"], 1.05
        elif DRIVERS[each["driver"]] == "sync":
            yield f"{case(each)}: db.current / limit", each["ratio"]["median"], 1.15
    for each in where(cpu, contestant="unitwork"):
        same = {key: each[key] for key in ("driver", "workload", "at once")}
        for theirs in where(cpu, contestant="depends", **same):
            what = f"{case(each)}: Depends(db.session), not above Depends(get_db)"
            yield what, each["ratio"]["median"], theirs["ratio"]["median"]
    for each in where(of.get("roundtrips", []), contestant="unitwork"):
        same = {key: each[key] for key in ("driver", "workload")}
        limit = where(of["roundtrips"], contestant="limit", **same)
        most = limit[0]["value"] if limit else 1.0  # the AUTOCOMMIT read
        yield f"round trips, {case(each)}", each["value"], most
    for each in where(of.get("scaling", []), contestant="unitwork", size="power"):
        yield f"{each['series']}: grows with the power", each["value"], 1.15


def case(result: Result) -> str:
    at_once = f" x{result['at once']}" if "at once" in result else ""
    return f"{named(result['workload'])}{at_once}, {result['driver']}"


def draw(folder: Path, results: list[dict[str, Any]]) -> None:
    """A point for each contestant, with the quartiles around it."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [r for r in results if r["at once"] == 1 and "now / before" not in r]
    shown = [result for result in shown if result["workload"] != "nothing"]
    cases = list(dict.fromkeys(map(case, shown)))[:8]
    figure = Figure(figsize=(10, 1 + 1.6 * len(cases)), layout="constrained")
    for number, title in enumerate(cases, 1):
        axes = figure.add_subplot((len(cases) + 1) // 2, 2, number)
        these = [each for each in reversed(shown) if case(each) == title]
        for row, each in enumerate(these):
            ours, ratio = each["contestant"].startswith("unitwork"), each["ratio"]
            color = "#c2410c" if ours else "#64748b"
            axes.hlines(row, ratio["low"], ratio["high"], color=color)
            axes.plot(ratio["median"], row, "o", color=color)
        axes.set_yticks(
            range(len(these)), [named(each["contestant"]) for each in these]
        )
        axes.set_title(f"{title}: CPU, times the limit")
    with rc_context({"svg.hashsalt": "unitwork", "svg.fonttype": "none"}):
        figure.savefig(folder / "cpu.svg", metadata={"Date": None})
