"""The benchmarks run, from beginning to end; so little that no number means much."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import counts
from benchmarks.numbers import exponent

ROOT = Path(__file__).parents[2]
SECTIONS = [
    "guarantees,roundtrips,import,nothing,cpu" + ",calls" * counts.AVAILABLE,
    "idle,overload,scaling,throughput",
]


def bench(into: Path, only: str) -> dict[str, Any]:
    """Run the sections *only*, for unitwork and the limit; give the results."""
    command = [sys.executable, "-m", "benchmarks", "--smallest", "--only", only]
    command += ["--contestants", "unitwork", "--workloads", "nothing,write"]
    command += ["--drivers", "asyncpg,psycopg", "--into", str(into)]
    path = os.pathsep.join([str(ROOT / "tests"), *sys.path])
    env = {**os.environ, "PYTHONPATH": path}
    run = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    results: dict[str, Any] = json.loads((into / "results.json").read_text())
    return results


def test_need_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import benchmarks.__main__"
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path]),
    }

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True)


@pytest.mark.usefixtures("postgresql")
@pytest.mark.parametrize("only", SECTIONS)
def test_runs_from_beginning_to_end(tmp_path: Path, only: str) -> None:
    results = bench(tmp_path, only)

    assert list(results) == only.split(",")
    for section, measured in results.items():
        assert measured["missing"] == {}, section
        contestants = {result["contestant"] for result in measured["results"]}
        standards = set() if section in ("import", "nothing") else {"limit"}
        assert contestants >= {"unitwork", *standards}, section
        assert not any(result.get("failed") for result in measured["results"])
    headings = (tmp_path / "tables.md").read_text().count("\n## ")
    assert headings == len(["The bars", *results])


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
