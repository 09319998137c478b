"""A picture of the CPU of all contestants, for the manual. Needs matplotlib."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from .report import case, named, where


def draw(folder: Path, results: list[dict[str, Any]]) -> None:
    """A point for each contestant, with the quartiles around it."""
    shown = [r for r in where(results, **{"at once": 1}) if r["workload"] != "nothing"]
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
