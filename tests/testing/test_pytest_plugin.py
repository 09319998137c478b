"""The pytest plugin, in a run of its own."""

from __future__ import annotations

from typing import Any

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from unitwork import Database

class Base(DeclarativeBase):
    pass

class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)

db = Database("sqlite:///test.db")
Base.metadata.create_all(db.engine)

@pytest.fixture(scope="session")
def unitwork_databases():
    yield db
    db.dispose()

@pytest.fixture(scope="session")
def unitwork_schema():
    return Base.metadata

def add():
    with db.transaction() as session:
        session.add(Item())

def count():
    with db.transaction() as session:
        return session.query(Item).count()
"""


@pytest.fixture
def run(pytester: pytest.Pytester) -> Any:
    def run(*tests: str, **options: str) -> pytest.RunResult:
        pytester.makeconftest(CONFTEST)
        pytester.makepyfile(
            "from conftest import *\nimport pytest\n" + "\n".join(tests)
        )
        arguments = [f"--{name.replace('_', '-')}={x}" for name, x in options.items()]
        return pytester.runpytest_subprocess(
            "-p", "unitwork.pytest_plugin", "-p", "no:cacheprovider", *arguments
        )

    return run


ALONE = "def test_{0}(sandbox):\n    add()\n    assert count() == 1\n"


def test_each_test_has_a_sandbox(run: Any) -> None:
    result = run(ALONE.format("one"), ALONE.format("two"))

    result.assert_outcomes(passed=2)


def test_nothing_happens_without_the_fixture(run: Any) -> None:
    result = run(
        "def test_one():\n    add()\ndef test_two():\n    assert count() == 1\n"
    )

    result.assert_outcomes(passed=2)


def test_an_escape_fails_the_test_itself(run: Any) -> None:
    result = run(
        "def test_one(sandbox):",
        "    try:",
        "        with db.transaction() as session:",
        "            session.connection().connection.driver_connection.commit()",
        "    except Exception:",
        "        pass",
    )

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines("*has ended the transaction of the sandbox*")


def test_an_escape_that_the_test_raises_is_reported_once(run: Any) -> None:
    result = run(
        "def test_one(sandbox):",
        "    with db.transaction() as session:",
        "        session.connection().connection.driver_connection.commit()",
    )

    result.assert_outcomes(failed=1, errors=0)


def test_a_thread_belongs_to_the_sandbox_of_the_test(run: Any) -> None:
    result = run(
        "from threading import Thread",
        "def test_one(sandbox):",
        "    thread = Thread(target=add)",
        "    thread.start()",
        "    thread.join()",
        "    assert count() == 1",
    )

    result.assert_outcomes(passed=1)


MODULE = """
pytestmark = pytest.mark.anyio

@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"

@pytest.fixture(scope="module")
async def client():
    yield add

@pytest.fixture
def late(sandbox, request):
    return request.getfixturevalue("client")

@pytest.fixture
async def prepared(sandbox):
    add()

async def test_one(late):
    late()
    assert count() == 1

async def test_two(sandbox, client, prepared):
    client()
    assert count() == 2
"""


def test_a_fixture_of_the_module_that_a_sandbox_has_set_up_lasts(run: Any) -> None:
    run(MODULE).assert_outcomes(passed=2)


def test_a_task_that_outlives_its_test_is_refused(run: Any) -> None:
    result = run(
        MODULE,
        "import asyncio",
        "tasks = []",
        "async def late_add(event):",
        "    await event.wait()",
        "    add()",
        "async def test_three(sandbox, client):",
        "    event = asyncio.Event()",
        "    tasks[:] = event, asyncio.create_task(late_add(event))",
        "async def test_four(sandbox, client):",
        "    tasks[0].set()",
        "    with pytest.raises(Exception, match='its test is over'):",
        "        await tasks[1]",
        "    assert count() == 0",
    )

    result.assert_outcomes(passed=4)


def test_an_async_test_belongs_to_the_sandbox(run: Any) -> None:
    result = run(
        "@pytest.mark.anyio",
        "async def test_one(sandbox, anyio_backend_name):",
        "    add()",
        "    assert count() == 1",
        "@pytest.fixture",
        "def anyio_backend():",
        "    return 'asyncio'",
    )

    result.assert_outcomes(passed=1)


def test_the_databases_have_to_be_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_one(sandbox):\n    pass\n")
    result = pytester.runpytest_subprocess("-p", "unitwork.pytest_plugin")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*def unitwork_databases(): return db*")


def test_a_mark_is_checked(run: Any) -> None:
    result = run("@pytest.mark.unitwork(reel=True)", ALONE.format("one"))

    result.stdout.fnmatch_lines("*write @pytest.mark.unitwork(real=True)*")


def test_the_import_of_unitwork_imports_no_pytest(pytester: pytest.Pytester) -> None:
    script = pytester.makepyfile(
        "import sys, unitwork; assert 'pytest' not in sys.modules"
    )

    assert pytester.runpython(script).ret == 0


DIFFERS = """
def test_differs(sandbox, unitwork_mode):
    add()
    assert unitwork_mode == "sandbox"
"""


def test_the_mark_gives_a_test_a_real_database(run: Any) -> None:
    result = run(
        "@pytest.mark.unitwork(real=True)",
        "def test_one(sandbox, unitwork_mode):",
        "    add()",
        "    assert (count(), unitwork_mode) == (1, 'real')",
    )

    result.assert_outcomes(passed=1)


def test_the_whole_run_in_both_modes_names_the_tests_that_differ(run: Any) -> None:
    result = run(ALONE.format("one"), DIFFERS, unitwork_mode="both")

    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines("*::test_differs  sandbox: passed, real: failed")
    result.stdout.no_fnmatch_line("*::test_one  *")
