"""Pictures of the results, for the manual. Imports matplotlib, as nothing else does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .registry import CONTESTANTS, STANDARDS
from .results import load
from .scaling import SERIES
from .tables import distinct, load_title, where

OURS, THEIRS, LIMIT = "#c2410c", "#64748b", "#0f172a"
Results = list[dict[str, Any]]


def draw(folder: Path) -> None:
    """Draw what was measured into *folder*."""
    mpl.rcParams.update(
        {"svg.hashsalt": "unitwork", "svg.fonttype": "none", "font.size": 9}
    )
    for section, results in load(folder).items():
        if section not in PLOTS or not results["results"]:
            continue
        about = results["about"]
        figure = PLOTS[section](results["results"])
        note = f"{about['date']}, a {about['length']} run, Python {about['python']}"
        figure.text(0.99, 0.005, note, ha="right", fontsize=7, color=THEIRS)
        figure.savefig(folder / f"{section}.svg", metadata={"Date": None})


def color(name: str) -> str:
    if name.startswith("unitwork"):
        return OURS
    return LIMIT if name in STANDARDS else THEIRS


def panels(across: int, down: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.6 * across, height * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    return figure, list(grid.flat)


def names_in(results: Results) -> list[str]:
    """The contestants, the last one first: a plot begins at the bottom."""
    found = {result["contestant"] for result in results}
    return [name for name in reversed(CONTESTANTS) if name in found]


def spreads(axes: Axes, results: Results, key: str, standard: float) -> None:
    """A point for each contestant, with the quartiles around it."""
    names = names_in(results)
    for row, name in enumerate(names):
        (result,) = where(results, contestant=name)
        at = result[key]
        axes.hlines(row, at["low"], at["high"], color=color(name), linewidth=1.5)
        axes.plot(at["median"], row, "o", color=color(name), markersize=5)
    axes.axvline(standard, color=LIMIT, linewidth=0.7, linestyle=":")
    axes.set_yticks(range(len(names)), [CONTESTANTS[name].title for name in names])
    axes.spines[["top", "right"]].set_visible(False)


def cpu(results: Results) -> Figure:
    drivers = distinct(results, "driver")
    loads = [
        name
        for name in ("nothing", "read", "mixed")
        if all(where(results, driver=each, workload=name) for each in drivers)
    ]
    figure, axes = panels(len(loads), len(drivers), 3.2)
    cells = ((driver, name) for driver in drivers for name in loads)
    for plot, (driver, name) in zip(axes, cells, strict=True):
        these = where(results, driver=driver, workload=name, concurrency=1)
        if name == "nothing":
            spreads(plot, these, "cpu_over_us", 0.0)
            plot.set_xscale("symlog", linthresh=10)
            plot.set_xlabel("us of CPU over no middleware")
        else:
            spreads(plot, these, "cpu_ratio", 1.0)
            plot.set_xlabel("CPU, times the limit")
        plot.set_title(f"{load_title(name)}, {driver}")
    return figure


def throughput(results: Results) -> Figure:
    drivers, loads = distinct(results, "driver"), distinct(results, "workload")
    figure, axes = panels(len(loads), len(drivers), 3.2)
    cells = ((driver, name) for driver in drivers for name in loads)
    for plot, (driver, name) in zip(axes, cells, strict=True):
        these = where(results, driver=driver, workload=name)
        standard = "bare" if name == "nothing" else "limit"
        (limit,) = where(these, contestant=standard)
        spreads(plot, these, "per_second", limit["per_second"]["median"])
        plot.set_xlim(left=0)
        plot.set_xlabel("requests a second")
        plot.set_title(f"{load_title(name)}, {driver}")
    return figure


OUTCOMES = {
    "accepted": ("served", "#15803d"),
    "refused": ("503", "#ca8a04"),
    "errors": ("another error", "#b91c1c"),
    "unanswered": ("no answer", "#0f172a"),
}


def overload(results: Results) -> Figure:
    drivers = distinct(results, "driver")
    figure, axes = panels(len(drivers), 1, 4.0)
    for plot, driver in zip(axes, drivers, strict=True):
        these = where(results, driver=driver)
        names = names_in(these)
        for row, name in enumerate(names):
            (result,) = where(these, contestant=name)
            left = 0.0
            for key, (label, shade) in OUTCOMES.items():
                part = 100 * result[key] / max(result["arrived"], 1)
                plot.barh(row, part, left=left, color=shade, label=label)
                left += part
        plot.set_yticks(range(len(names)), [CONTESTANTS[name].title for name in names])
        plot.set_xlabel("% of the requests, which are twice what the pool can serve")
        plot.set_title(driver)
        plot.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    some = dict(zip(labels, handles, strict=True))
    figure.legend(some.values(), some.keys(), loc="outside upper center", ncols=4)
    return figure


def scaling(results: Results) -> Figure:
    series = [name for name in SERIES if where(results, series=name)]
    figure, axes = panels(3, -(-len(series) // 3), 3.0)
    for plot, name in zip(axes, series, strict=False):
        for contestant in ("limit", "unitwork"):
            these = where(results, series=name, contestant=contestant)
            sizes = [result["size"] for result in these]
            costs = [result["cpu_us"]["median"] for result in these]
            label = CONTESTANTS[contestant].title
            plot.plot(sizes, costs, "o-", color=color(contestant), label=label)
        plot.set_xscale("symlog", linthresh=1)
        plot.set_yscale("log")
        plot.set_title(SERIES[name][0])
        plot.set_ylabel("us of CPU for each request")
        plot.spines[["top", "right"]].set_visible(False)
    for plot in axes[len(series) :]:
        plot.set_axis_off()
    axes[0].legend()
    return figure


def idle(results: Results) -> Figure:
    kinds = {"sse": "server-sent events", "socket": "WebSockets"}
    figure, axes = panels(len(kinds), 1, 4.0)
    for plot, (kind, title) in zip(axes, kinds.items(), strict=True):
        these = where(results, kind=kind)
        most = max(distinct(these, "count"))
        largest = [r for r in where(these, count=most) if "error" not in r]
        names = names_in(largest)
        for row, name in enumerate(names):
            (result,) = where(largest, contestant=name)
            plot.barh(row, result["served"], color=color(name))
            words = f" {result['served']:,} served, {result['pinned']} pinned"
            plot.text(max(result["served"], 1), row, words, va="center", fontsize=7)
        plot.set_xscale("log")
        plot.set_xlim(1, most * 60)
        plot.set_yticks(range(len(names)), [CONTESTANTS[name].title for name in names])
        plot.set_xlabel(f"of {most:,} that stay open, with a pool of 5")
        plot.set_title(title)
        plot.spines[["top", "right"]].set_visible(False)
    return figure


PLOTS: dict[str, Callable[[Results], Figure]] = {
    "cpu": cpu,
    "throughput": throughput,
    "overload": overload,
    "scaling": scaling,
    "idle": idle,
}
