"""Pictures of the CPU and of the throughput, for the manual. Needs matplotlib."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .registry import CONTESTANTS, POPULAR
from .report import where
from .workloads import WORKLOADS

SECTIONS = {"cpu": "CPU, times the limit", "throughput": "speed, times the limit"}


def draw(folder: Path, found: dict[str, Any]) -> None:
    """A point for each contestant, with the quartiles around it."""
    mpl.rcParams.update({"svg.hashsalt": "unitwork", "svg.fonttype": "none"})
    for section, label in SECTIONS.items():
        results = found.get(section, {}).get("results", [])
        drivers = [each for each in POPULAR if where(results, driver=each)]
        figure = Figure(figsize=(10, 3.6 * len(drivers)), layout="constrained")
        cells = [(driver, load) for driver in drivers for load in ("read", "write")]
        for number, (driver, load) in enumerate(cells):
            axes = figure.add_subplot(len(drivers), 2, number + 1)
            these = where(results, driver=driver, workload=load)
            these = [each for each in reversed(these) if each.get("at_once", 1) == 1]
            for row, each in enumerate(these):
                ours = each["contestant"].startswith("unitwork")
                spread, color = each["ratio"], "#c2410c" if ours else "#64748b"
                axes.hlines(row, spread["low"], spread["high"], color=color)
                axes.plot(spread["median"], row, "o", color=color)
            names = [CONTESTANTS[each["contestant"]].title for each in these]
            axes.set_yticks(range(len(names)), names)
            axes.axvline(1.0, color="#0f172a", linewidth=0.7, linestyle=":")
            axes.set_xlabel(label)
            axes.set_title(f"{WORKLOADS[load].title}, {driver}")
        if cells:
            figure.savefig(folder / f"{section}.svg", metadata={"Date": None})
