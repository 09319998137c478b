"""A database for each process of tests: real runs of pytest, with workers of xdist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import make_url

from support.manual import ROOT
from support.real_databases import on_postgresql

APP = """
import os
from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"])  # read when it is imported

class Base(DeclarativeBase):
    pass

class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
"""
CONFTEST = """
import pytest
from app import Base, engine
from unitwork import Database

@pytest.fixture(scope="session")
def unitwork_databases():
    db = Database(engine)
    yield db
    db.dispose()

@pytest.fixture(scope="session")
def unitwork_schema():
    return Base.metadata
"""
WITHOUT_UNITS = """
import os, pathlib, pytest
from app import Item, Session, engine

@pytest.mark.parametrize("number", range(4))
def test_commits(unitwork_worker, number):
    with Session(engine) as session:
        session.add(Item(name=str(number)))
        session.commit()
        name = str(engine.url.database)
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    pathlib.Path(f"{worker}.txt").write_text(name)
"""
FAILING = """
from app import Item
from unitwork import Database

def test_fails(sandbox, unitwork_databases):
    with unitwork_databases.transaction() as session:
        session.add(Item(name="left"))
    assert False
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "conftest.py").write_text(CONFTEST)
    ini = "[pytest]\nunitwork_database_env = DATABASE_URL\n"
    (tmp_path / "pytest.ini").write_text(ini)
    return tmp_path


FORGETS_THE_SANDBOX = """
from app import Item
def test_{}(unitwork_worker, unitwork_databases{}):
    with unitwork_databases.transaction() as session:
        session.add(Item(name="lamp"))
"""

OPENS_A_SANDBOX = """
import pytest
from app import Item
from unitwork.testing import sandbox as open_sandbox

@pytest.mark.parametrize("real", [False, True])
def test_it(unitwork_worker, unitwork_databases, unitwork_schema, real):
    db = unitwork_databases
    with open_sandbox(db, real=real, schema=unitwork_schema):
        with db.transaction() as session:
            session.add(Item(name="lamp"))
"""


@pytest.fixture
def url(postgresql: str) -> str:
    made = make_url(postgresql).set(drivername="postgresql+psycopg", database="none")
    return made.render_as_string(hide_password=False)


def run(folder: Path, test: str, *arguments: str, **environment: str) -> str:
    """Run pytest on *test* in a process of its own; return what it prints."""
    (folder / "test_it.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-p", "unitwork.pytest_plugin", "-q"]
    path = os.pathsep.join([str(ROOT / "src"), str(folder)])
    ended = subprocess.run(
        [*command, "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    return ended.stdout + ended.stderr


def used(folder: Path) -> set[str]:
    return {path.read_text() for path in folder.glob("*.txt")}


def test_each_worker_has_its_own(folder: Path, url: str) -> None:
    output = run(folder, WITHOUT_UNITS, "-n", "2", DATABASE_URL=url)

    assert "4 passed" in output
    assert len(used(folder)) == 2
    assert all(name.startswith("unitwork_test_") for name in used(folder))
    for name in used(folder):
        assert not on_postgresql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")


def test_one_process_has_its_own(folder: Path, url: str) -> None:
    assert "4 passed" in run(folder, WITHOUT_UNITS, DATABASE_URL=url)
    assert "4 passed" in run(folder, WITHOUT_UNITS, DATABASE_URL=url)


def test_on_sqlite_it_is_a_copy(folder: Path) -> None:
    url = f"sqlite:///{folder}/own.db"

    assert "4 passed" in run(folder, WITHOUT_UNITS, "-n", "2", DATABASE_URL=url)
    assert not (folder / "own.db").exists()


def test_without_a_url_the_run_says_what_to_set(folder: Path) -> None:
    output = run(folder, WITHOUT_UNITS, DATABASE_URL="")

    assert "unitwork_database_env names DATABASE_URL, which is not set" in output


def test_a_test_that_fails_keeps_its_database(folder: Path, url: str) -> None:
    keep = ["--unitwork-keep", "--unitwork-mode", "real"]
    output = run(folder, FAILING, *keep, DATABASE_URL=url)

    assert "1 failed" in output
    [address] = re.findall(r"postgresql\+psycopg://\S+/unitwork_test_\w+", output)
    name = make_url(address).database
    assert on_postgresql(f"SELECT 1 FROM pg_database WHERE datname = '{name}'")
    on_postgresql(f"DROP DATABASE {name} WITH (FORCE)")


def test_otherwise_it_does_not(folder: Path, url: str) -> None:
    output = run(folder, FAILING, "--unitwork-mode", "real", DATABASE_URL=url)

    assert "1 failed" in output
    assert "kept" not in output


def test_other_databases_in_a_subfolder_are_refused(folder: Path) -> None:
    """The databases of the process are made once, so theirs would not be replaced."""
    other = folder / "other"
    other.mkdir()
    made = CONFTEST.replace("Database(engine)", "Database('sqlite:///other.db')")
    (other / "conftest.py").write_text(made)
    (other / "test_other.py").write_text("def test_other(sandbox): pass\n")

    output = run(folder, WITHOUT_UNITS, DATABASE_URL="sqlite:///own.db")

    assert "1 passed, 4 errors" in output
    assert "unitwork_databases is another one in this folder" in output


def test_a_test_that_stores_something_without_a_sandbox_is_named(
    folder: Path, url: str
) -> None:
    forgets = FORGETS_THE_SANDBOX.format("one", "")
    keeps_to_it = FORGETS_THE_SANDBOX.format("two", ", sandbox")

    output = run(folder, keeps_to_it + forgets, DATABASE_URL=url)

    assert "2 passed, 1 warning" in output
    assert "test_it.py::test_one has no sandbox, and a transaction() block" in output


def test_a_test_with_a_sandbox_of_its_own_is_not(folder: Path, url: str) -> None:
    output = run(folder, OPENS_A_SANDBOX, DATABASE_URL=url)

    assert "2 passed in" in output
