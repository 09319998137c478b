"""The benchmarks run, from beginning to end; so little that no number means much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import calls
from benchmarks.bars import bars
from benchmarks.load import complete
from benchmarks.numbers import exponent

ROOT = Path(__file__).parents[2]
SECTIONS = [
    "guarantees,roundtrips,closely,cpu,import" + ",calls" * calls.AVAILABLE,
    "idle,memory,overload,scaling,throughput",
]


def bench(into: Path, only: str) -> dict[str, Any]:
    """Run the sections *only*, for unitwork and the limit; give the results."""
    command = [sys.executable, "-m", "benchmarks", "--smallest", "--only", only]
    command += ["--contestants", "unitwork", "--workloads", "nothing,write"]
    command += ["--drivers", "asyncpg,sqlite3", "--into", str(into)]
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    results: dict[str, Any] = json.loads((into / "results.json").read_text())
    return results


@pytest.mark.usefixtures("postgresql")
@pytest.mark.parametrize("only", SECTIONS)
def test_runs_from_beginning_to_end(tmp_path: Path, only: str) -> None:
    results = bench(tmp_path, only)

    assert list(results) == only.split(",")
    for section, measured in results.items():
        assert measured["missing"] == {}, section
        who = {result.get("contestant") for result in measured["results"]}
        assert section == "import" or who >= {"limit", "unitwork"}, section
        assert not any(result.get("failed") for result in measured["results"])
    assert (tmp_path / "tables.txt").read_text().count("\n## ") == len(results)


def faster(name: str, faults: list[str], ratio: float = 0.95) -> dict[str, Any]:
    """Results in which *name* is ahead of us, and has these *faults*."""
    case = {"driver": "asyncpg", "workload": "read", "concurrency": 32, "failed": 0}
    given = {"contestant": "unitwork", "cpu_ratio": {"median": 1.02}, **case}
    fetched = {"contestant": "unitwork_current", "cpu_ratio": {"median": 0.97}, **case}
    theirs = {"contestant": name, "cpu_ratio": {"median": ratio}, **case}
    found = {"driver": "asyncpg", "contestant": name, "faults": faults}
    return {
        "cpu": {"results": [given, fetched, theirs]},
        "guarantees": {"results": [found]},
    }


def test_a_rival_that_is_faster_and_leaves_nothing_out_breaks_a_bar() -> None:
    (bar,) = bars(faster("fastsqla", []))

    assert not bar.held
    assert bar.found.startswith("it is faster at one read x32")


def test_a_rival_that_is_faster_because_it_does_less_breaks_none() -> None:
    (bar,) = bars(faster("fastsqla", ["late"]))

    assert bar.held
    assert bar.found.endswith("it leaves out: late")


def test_a_rival_that_is_ahead_by_no_more_than_noise_is_not() -> None:
    assert not list(bars(faster("fastsqla", [], ratio=1.01)))


def test_a_rival_that_fetches_its_session_is_compared_with_our_way_to_do_so() -> None:
    assert not list(bars(faster("context_async_sqlalchemy", [])))


@pytest.mark.parametrize("power", [1, 2])
def test_tells_how_fast_a_cost_grows(power: int) -> None:
    sizes = [1, 10, 100, 1_000]

    costs = [500.0 + (size - 1) ** power for size in sizes]

    assert exponent(sizes, costs) == pytest.approx(power)


def test_a_cost_that_grows_in_small_steps_is_looked_at_over_large_ones() -> None:
    assert exponent([1, 2, 3, 4], [800.0, 1600.0, 2300.0, 3300.0]) == pytest.approx(
        1.04, abs=0.01
    )


def test_a_cost_that_does_not_grow_has_no_power() -> None:
    assert exponent([1, 10, 100], [500.0, 505.0, 490.0]) == 0.0


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
def test_knows_where_an_answer_ends(answer: bytes) -> None:
    assert complete(answer)
    assert not any(complete(answer[:end]) for end in range(len(answer)))
