"""What README.md says is so, and works when it is followed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from fastapi.testclient import TestClient

from follow import follow, fresh_environment
from support.manual import ROOT, Page
from support.pages import statements


def test_commits_before_it_answers(page: Page) -> None:
    main = page.run()

    with TestClient(main.app) as client, statements(main.db.engine) as sent:
        sent.clear()
        reply = client.post("/items/?name=lamp")
        listed = client.get("/items/")

    assert (reply.status_code, reply.json()) == (201, 1)
    assert listed.json() == ["lamp"]
    insert = "INSERT INTO item (name) VALUES (?)"
    assert sent[:3] == ["BEGIN IMMEDIATE", insert, "COMMIT"]


def test_its_application_is_typed(page: Page) -> None:
    page.run()
    page.write_files()
    command = [sys.executable, "-m", "mypy", "--strict", "main.py"]
    # With the options of `make lint`, or its cache would be of no use.
    command += ["--warn-unreachable", "--explicit-package-bases"]
    command += ["--cache-dir", str(ROOT / ".mypy_cache")]

    checked = subprocess.run(command, capture_output=True, text=True)

    assert checked.stdout == "Success: no issues found in 1 source file\n"


def test_its_commands_show_what_it_says(wheels: Path) -> None:
    with fresh_environment(sys.executable, wheels) as (home, environment):
        written = follow(ROOT / "README.md", home, environment)

    log = [line for line in written.splitlines() if "engine.Engine BEGIN IMM" in line]
    assert len(log) == 1
    assert statements_logged(written) == shown_log()


def statements_logged(written: str) -> list[str]:
    """The log of the first request, without times and parameters."""
    begun = written.index("BEGIN IMMEDIATE")
    first = written[written.rindex("BEGIN (implicit)", 0, begun) :]
    lines = re.sub(r"(?m)^.*(INFO sqlalchemy.engine.Engine|INFO:) +", "", first)
    lines = re.sub(r"127\.0\.0\.1:\d+ - ", "", lines)
    kept = [line for line in lines.splitlines() if not line.startswith("[")]
    return kept[:5]


def shown_log() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [block] = re.findall(r"(?s)```text\n(BEGIN.*?)```", text)
    return str(block).splitlines()
