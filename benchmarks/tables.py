"""Each section's results as a table in Markdown."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .guarantees import PROBES
from .memory import ROUTES
from .numbers import Spread, exponent
from .registry import CONTESTANTS
from .roundtrips import AUTOCOMMIT
from .scaling import SERIES
from .workloads import WORKLOADS

Measured = dict[str, Any]
Result = dict[str, Any]


def rows(head: Iterable[str], body: Iterable[Iterable[str]]) -> Iterator[str]:
    """The lines of a table."""
    head = list(head)
    yield "| " + " | ".join(head) + " |"
    yield "|" + "|".join(["---"] + ["--:"] * (len(head) - 1)) + "|"
    for row in body:
        yield "| " + " | ".join(row) + " |"


def shown(spread: Spread, digits: int = 2) -> str:
    low, high = spread["low"], spread["high"]
    return f"{spread['median']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def distinct(results: list[Result], key: str) -> list[Any]:
    return list(dict.fromkeys(result[key] for result in results))


def where(results: list[Result], **values: Any) -> list[Result]:
    """Those of *results* that have these *values*."""
    return [r for r in results if all(r[key] == v for key, v in values.items())]


def by_contestant(
    results: list[Result], key: str, columns: list[Any], show: Callable[[Result], str]
) -> Iterator[list[str]]:
    """A row for each contestant, a cell for each of the *columns* of *key*."""
    found = {(r["contestant"], r[key]): show(r) for r in results}
    for name in CONTESTANTS:
        if name in {contestant for contestant, _ in found}:
            cells = (found.get((name, column), "") for column in columns)
            yield [CONTESTANTS[name].title, *cells]


def load_title(load: str) -> str:
    return WORKLOADS[load].title if load in WORKLOADS else AUTOCOMMIT.title


def guarantees(measured: Measured) -> Iterator[str]:
    results = measured["results"]
    drivers = distinct(results, "driver")

    def show(result: Result) -> str:
        return ", ".join(result["faults"]) or "nothing"

    yield from rows(["", *drivers], by_contestant(results, "driver", drivers, show))
    yield ""
    for name, words in PROBES.items():
        yield f"- *{name}*: {words}"


def roundtrips(measured: Measured) -> Iterator[str]:
    for driver in distinct(measured["results"], "driver"):
        these = where(measured["results"], driver=driver)
        loads = list(dict.fromkeys(load for r in these for load in r["round_trips"]))
        body = (
            [
                CONTESTANTS[r["contestant"]].title,
                *(trips(r["round_trips"].get(load)) for load in loads),
            ]
            for r in these
        )
        yield f"\n**{driver}**\n"
        yield from rows(["Round trips", *map(load_title, loads)], body)


def trips(count: float | None) -> str:
    return "" if count is None else f"{count:g}"


def cpu(measured: Measured) -> Iterator[str]:
    for driver in distinct(measured["results"], "driver"):
        of_driver = where(measured["results"], driver=driver)
        for concurrency in distinct(of_driver, "concurrency"):
            these = where(of_driver, concurrency=concurrency)
            yield f"\n**{driver}, concurrency {concurrency}**\n"
            yield from cpu_rows(these, cpu_cell)


def cpu_rows(these: list[Result], show: Callable[[Result], str]) -> Iterator[str]:
    loads = distinct(these, "workload")
    heads = [
        load_title(load) + ", us over no middleware" * (load == "nothing")
        for load in loads
    ]
    body = by_contestant(these, "workload", loads, show)
    yield from rows(["CPU against the limit", *heads], body)


def cpu_cell(result: Result) -> str:
    if result["failed"]:
        return f"{result['failed']:.0f} failed"
    if result["workload"] == "nothing":
        return shown(result["cpu_over_us"], 1)
    return shown(result["cpu_ratio"])


def closely(measured: Measured) -> Iterator[str]:
    for driver in distinct(measured["results"], "driver"):
        these = where(measured["results"], driver=driver)
        yield f"\n**{driver}**\n"
        yield from cpu_rows(these, closely_cell)


def closely_cell(result: Result) -> str:
    if result["workload"] == "nothing":
        return shown(result["cpu_over_us"], 1)
    return shown(result["cpu_ratio"], 3)


def calls(measured: Measured) -> Iterator[str]:
    for driver in distinct(measured["results"], "driver"):
        these = where(measured["results"], driver=driver)
        owners = list(these[0]["calls"])
        body = (
            [
                CONTESTANTS[result["contestant"]].title,
                f"{sum(result['calls'].values()):,.0f}",
                *(f"{result['calls'][owner]:,.0f}" for owner in owners),
            ]
            for result in these
        )
        yield f"\n**{driver}**\n"
        yield from rows(["Function calls", "all", *owners], body)


def throughput(measured: Measured) -> Iterator[str]:
    for driver in distinct(measured["results"], "driver"):
        these = where(measured["results"], driver=driver)
        loads = distinct(these, "workload")
        heads = map(load_title, loads)
        yield f"\n**{driver}: requests a second, and the p99 in ms**\n"
        yield from rows(
            ["", *heads], by_contestant(these, "workload", loads, throughput_cell)
        )


def throughput_cell(result: Result) -> str:
    if result["failed"]:
        return f"{result['failed']:.0f} failed"
    speed, p99 = result["per_second"]["median"], result["p99_ms"]["median"]
    ratio = result["speed_ratio"]["median"]
    return f"{speed:,.0f} ({ratio:.2f}x), {p99:.0f} ms"


def overload(measured: Measured) -> Iterator[str]:
    head = ["", "capacity, /s", "served, /s", "p99 of those, s", "503", "after, s"]
    head += ["Retry-After", "other errors", "no answer", "well again after, s"]
    for driver in distinct(measured["results"], "driver"):
        yield f"\n**{driver}**\n"
        yield from rows(
            head, map(overload_row, where(measured["results"], driver=driver))
        )


def overload_row(result: Result) -> list[str]:
    retry_after = "yes" if result["retry_after"] else "no"
    return [
        CONTESTANTS[result["contestant"]].title,
        f"{result['capacity']:.0f}",
        f"{result['per_second']:.0f}",
        seconds(result["p99_s"]),
        str(result["refused"]),
        seconds(result["refused_within_s"]),
        retry_after if result["refused"] else "",
        str(result["errors"]),
        str(result["unanswered"]),
        seconds(result["recovered"], "never"),
    ]


def seconds(value: float | None, otherwise: str = "") -> str:
    return otherwise if value is None else f"{value:.2f}"


def idle(measured: Measured) -> Iterator[str]:
    for kind, title in (("sse", "Server-sent events"), ("socket", "WebSockets")):
        these = where(measured["results"], kind=kind)
        counts = distinct(these, "count")
        heads = [f"{count:,}" for count in counts]
        yield f"\n**{title}**\n"
        yield from rows(["", *heads], by_contestant(these, "count", counts, idle_cell))


def idle_cell(result: Result) -> str:
    if "error" in result:
        return "fails"
    if not result["served"]:
        return "no session"
    served = "all" if result["served"] == result["count"] else f"{result['served']:,}"
    then = "" if result["others"] == 200 else f", then {result['others']}"
    return f"{served} served, {result['pinned']} pinned{then}"


def scaling(measured: Measured) -> Iterator[str]:
    for series, (title, _) in SERIES.items():
        these = where(measured["results"], series=series)
        sizes = distinct(these, "size")
        body: list[list[str]] = []
        for name in distinct(these, "contestant"):
            costs = [r["cpu_us"]["median"] for r in where(these, contestant=name)]
            power = f"{exponent(sizes, costs):.2f}" if len(sizes) > 2 else ""
            cells = (f"{cost:,.0f}" for cost in costs)
            body.append([CONTESTANTS[name].title, *cells, power])
        heads = [f"{size:,}" for size in sizes]
        yield f"\n**{title}: us of CPU for each request**\n"
        yield from rows(["", *heads, "grows with the power"], body)


def memory(measured: Measured) -> Iterator[str]:
    body: list[list[str]] = []
    for result in measured["results"]:
        cells = [
            f"{result[route]:,.0f}" if result.get(route) else "" for route in ROUTES
        ]
        body.append([CONTESTANTS[result["contestant"]].title, *cells])
    yield from rows(["Bytes", *ROUTES.values()], body)
    for result in measured["results"]:
        if "error" in result:
            yield f"\n{CONTESTANTS[result['contestant']].title}: {result['error']}"


def imports(measured: Measured) -> Iterator[str]:
    body = (
        [f"`{r['statement']}`", shown(r["ms"], 0), shown(r["ratio"])]
        for r in measured["results"]
    )
    yield from rows(["", "ms of CPU", "against the first"], body)


TABLES: dict[str, Callable[[Measured], Iterator[str]]] = {
    "guarantees": guarantees,
    "roundtrips": roundtrips,
    "closely": closely,
    "cpu": cpu,
    "calls": calls,
    "throughput": throughput,
    "overload": overload,
    "idle": idle,
    "scaling": scaling,
    "memory": memory,
    "import": imports,
}
