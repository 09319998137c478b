"""The promises hold through PgBouncer: a part of what `make promises-pooled` runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.manual import ROOT
from support.pgbouncer import pgbouncer
from support.through import POOLED

__all__ = ["pgbouncer"]

PARTS = [
    "p01_commit_before_start",
    "p02_failures_leave_nothing",
    "p02_late_rollback",
    "p03_failed_commit",
    "p04_ended_by_text",
    "p05_verifiers",
    "p06_left_running",
    "p07_clean_connections",
    "p07_clients_that_leave",
    "p08_costs_nothing",
]
OPTIONS = ["-qpno:cacheprovider", "-pno:xdist", "-k", "psycopg or asyncpg"]


@pytest.mark.usefixtures("pgbouncer")  # skips where there is none
def test_the_promises_hold_through_pgbouncer() -> None:
    python = sys.executable
    run = subprocess.run(
        [python, "tools/pgbouncer.py", "--", python, "-m", "pytest", *OPTIONS]
        + [f"tests/promises/test_{part}.py" for part in PARTS],
        cwd=ROOT,
        env={**os.environ, **POOLED},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
