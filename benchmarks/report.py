"""The results, written down: a table or more for each section, in Markdown."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .bars import bars
from .results import load
from .tables import TABLES, rows

TITLES = {
    "guarantees": "What each leaves out",
    "closely": "CPU for each request, side by side in one process",
    "cpu": "CPU for each request, with all contestants",
    "calls": "Function calls of one read",
    "throughput": "Throughput and tail latency",
    "overload": "Overload",
    "roundtrips": "Round trips to the database",
    "idle": "Idle connections",
    "scaling": "What grows",
    "memory": "Memory for each open request",
    "import": "Import time",
}
PLOTTED = ("cpu", "throughput", "overload", "scaling", "idle")


def tell(section: str, measured: dict[str, Any]) -> Iterator[str]:
    """The lines of a section."""
    yield ""
    yield from TABLES[section](measured)
    for name, reason in measured.get("missing", {}).items():
        yield f"\n`{name}` did not take part: {reason}"


def write(folder: Path) -> None:
    """Write the tables of all sections that were measured into *folder*."""
    results = load(folder)
    lines = ["## The bars", "", *bar_lines(results)]
    for section, title in TITLES.items():
        if (measured := results.get(section)) is None:
            continue
        lines += ["", f"## {title}", "", when(measured["about"])]
        if section in PLOTTED and (folder / f"{section}.svg").exists():
            lines += ["", f"![{title}]({folder.name}/{section}.svg)"]
        lines += tell(section, measured)
    (folder / "tables.txt").write_text("\n".join(lines) + "\n")


def when(about: dict[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {number}" for name, number in about["versions"].items()
    )
    return (
        f"*{about['date']}, a {about['length']} run, Python {about['python']},"
        f" {about['machine']}; {versions}.*"
    )


def bar_lines(results: dict[str, Any]) -> Iterator[str]:
    yield from rows(
        ["Bar", "Found", "Held"],
        (
            [bar.what, bar.found, "yes" if bar.held else "**no**"]
            for bar in bars(results)
        ),
    )
