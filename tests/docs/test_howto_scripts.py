"""Scripts and command-line programs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from support.manual import Page


def shown(page: Page) -> list[tuple[list[str], str]]:
    """The commands of the page, with what they print."""
    console = page.text.partition("```console\n")[2].partition("```")[0]
    _, *commands = console.split("$ python manage.py ")
    parts = (command.partition("\n") for command in commands)
    return [(arguments.split(), output) for arguments, _, output in parts]


def test_prints_what_the_page_shows(page: Page) -> None:
    cli = page.run().cli

    for arguments, output in shown(page):
        result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
        assert (result.exit_code, result.output) == (0, output)
    page.module.db.dispose()


def test_runs_as_a_program(page: Page) -> None:
    page.write_files()
    arguments, output = shown(page)[0]
    command = [sys.executable, "-W", "error", "manage.py", *arguments]

    assert subprocess.check_output(command, text=True) == output
    page.run()


def names(page: Page) -> list[str]:
    with page.module.db.transaction() as session:
        return list(session.scalars(select(page.module.Item.name)))


def test_a_command_that_fails_stores_nothing(page: Page) -> None:
    cli = page.run().cli
    CliRunner().invoke(cli, ["create-tables"])

    with pytest.raises(IntegrityError):
        CliRunner().invoke(cli, ["add", "one", "one"], catch_exceptions=False)

    assert names(page) == []
    page.module.db.dispose()


def test_async_commands_run_one_after_another(page: Page) -> None:
    cli = page.run().cli
    for command in ["create-tables", "add a", "rename a b", "rename b c"]:
        assert CliRunner().invoke(cli, command.split()).exit_code == 0

    assert names(page) == ["c"]
    page.module.db.dispose()
