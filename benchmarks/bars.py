"""The bars that unitwork is to hold, and whether it does by the numbers at hand."""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

from .numbers import exponent
from .registry import CONTESTANTS, DRIVERS, PEERS
from .scaling import SERIES
from .tables import distinct, load_title, where

Results = dict[str, Any]
BY_HAND = ("depends", "depends_function", "article")
OTHERS = (*BY_HAND, *(peer.name for peer in PEERS.values()))
OURS = {False: "unitwork", True: "unitwork_current"}
"""By whether the endpoint fetches its session: like is compared with like."""
MOST = {"async": 1.03, "sync": 1.10}
MOST_OVER_US = 2.0
MOST_IMPORT = 1.15
MOST_POWER = 1.15
"""Linear, and what noise may add to it."""
NOISE = {"cpu_ratio": 0.04, "cpu_over_us": 1.0}
"""What a median of `cpu` may be off by: its rounds differ by more, as a table shows."""


class Bar(NamedTuple):
    what: str
    found: str
    held: bool


def bars(results: Results) -> Iterator[Bar]:
    """Judge what was measured; nothing is said of what was not."""
    if "closely" in results:
        yield from of_cpu(results["closely"]["results"])
    if "cpu" in results:
        yield from of_rivals(results)
    if "roundtrips" in results:
        yield from of_roundtrips(results["roundtrips"]["results"])
    if "scaling" in results:
        yield from of_scaling(results["scaling"]["results"])
    if "import" in results:
        yield from of_import(results["import"]["results"])


def of_cpu(results: list[dict[str, Any]]) -> Iterator[Bar]:
    nothing = {"workload": "nothing", "driver": "asyncpg"}
    for result in where(results, contestant=OURS[False], **nothing):
        over = result["cpu_over_us"]["median"]
        what = f"no database: at most {MOST_OVER_US:g} us over no middleware"
        yield Bar(what, f"{over:.1f} us", over <= MOST_OVER_US)
    for driver, workload, name in product(
        ("asyncpg", "psycopg"), ("read", "write"), OURS.values()
    ):
        most = MOST[DRIVERS[driver]]
        load, title = load_title(workload), CONTESTANTS[name].title
        case = {"driver": driver, "workload": workload}
        for result in where(results, contestant=name, **case):
            ratio = result["cpu_ratio"]["median"]
            what = f"{load}, {driver}, {title}: at most {most:.2f}x"
            yield Bar(what, f"{ratio:.3f}x", ratio <= most)
            for by_hand in where(results, contestant="depends", **case):
                theirs = by_hand["cpu_ratio"]["median"]
                what = f"{load}, {driver}, {title}: below Depends(get_db)"
                found = f"{ratio:.3f}x; it takes {theirs:.3f}x"
                yield Bar(what, found, ratio < theirs)


def of_rivals(results: Results) -> Iterator[Bar]:
    """Who is faster anywhere, and what they leave out that we do not."""
    measured = results["cpu"]["results"]
    for name in OTHERS:
        for driver in distinct(where(measured, contestant=name), "driver"):
            faster = list(faster_than_ours(measured, name, driver))
            if not faster:
                continue
            left_out = leaves_out(results, name, driver)
            yield Bar(
                f"ahead of {CONTESTANTS[name].title}, {driver}",
                f"it is faster at {', '.join(faster)}; "
                f"it leaves out: {', '.join(left_out) or 'nothing that we know of'}",
                bool(left_out),
            )


def faster_than_ours(
    measured: list[dict[str, Any]], name: str, driver: str
) -> Iterator[str]:
    for rival in where(measured, contestant=name, driver=driver, failed=0):
        workload, concurrency = rival["workload"], rival["concurrency"]
        same = {"driver": driver, "workload": workload, "concurrency": concurrency}
        for ours in where(measured, contestant=OURS[CONTESTANTS[name].fetched], **same):
            key = "cpu_over_us" if workload == "nothing" else "cpu_ratio"
            if rival[key]["median"] < ours[key]["median"] - NOISE[key]:
                yield f"{load_title(workload)} x{concurrency}"


def leaves_out(results: Results, name: str, driver: str) -> list[str]:
    """What was found out about it, on PostgreSQL; with us it is nothing."""
    known = results.get("guarantees", {}).get("results", [])
    kind = DRIVERS[driver]
    found = [r for r in where(known, contestant=name) if DRIVERS[r["driver"]] == kind]
    return list(dict.fromkeys(fault for r in found for fault in r["faults"]))


def of_roundtrips(results: list[dict[str, Any]]) -> Iterator[Bar]:
    for driver in distinct(results, "driver"):
        of_driver = where(results, driver=driver)
        for limit in where(of_driver, contestant="limit"):
            for ours in where(of_driver, contestant=OURS[False]):
                counts = ours["round_trips"]
                more = [
                    f"{load_title(load)}: {counts[load]:g}, not {count:g}"
                    for load, count in limit["round_trips"].items()
                    if counts[load] > count
                ]
                what = f"round trips, {driver}: no more than the limit"
                yield Bar(what, "; ".join(more) or "the same", not more)
                single = counts.get("autocommit", 0)
                what = f"round trips, {driver}: one for an AUTOCOMMIT read"
                yield Bar(what, f"{single:g}", single == 1)


def of_scaling(results: list[dict[str, Any]]) -> Iterator[Bar]:
    for series, (title, _) in SERIES.items():
        ours = where(results, series=series, contestant=OURS[False])
        if len(ours) > 2:
            costs = [result["cpu_us"]["median"] for result in ours]
            power = exponent([result["size"] for result in ours], costs)
            what = f"{title}: at most linear"
            yield Bar(what, f"power {power:.2f}", power <= MOST_POWER)


def of_import(results: list[dict[str, Any]]) -> Iterator[Bar]:
    for result in where(results, statement="import unitwork"):
        ratio = result["ratio"]["median"]
        what = f"`import unitwork`: at most {MOST_IMPORT:.2f}x of what it needs"
        yield Bar(what, f"{ratio:.2f}x", ratio <= MOST_IMPORT)
