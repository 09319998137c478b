"""What `make demo` runs, as a process of its own and over real HTTP."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from threading import Timer

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from support.forks import forks

Refusal = Callable[..., str]
ROOT = Path(__file__).parents[2]
PATIENCE = 60  # seconds for whatever the demo does

CURL = ArgumentParser()
CURL.add_argument("url")
CURL.add_argument("-X", default="GET")
CURL.add_argument("-H", default="Accept: */*")
CURL.add_argument("-d")


@contextmanager
def demo(home: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in the folder *home*; kill it if it is still there at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.items"],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PORT": "0", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = Timer(PATIENCE, process.kill)
    watch.start()
    with process:
        try:
            yield process
        finally:
            watch.cancel()
            process.kill()


def welcome(process: subprocess.Popen[str]) -> list[str]:
    """Wait for the message that the demo begins with, to its end."""
    assert process.stdout is not None
    lines = iter(process.stdout.readline, "")
    about, commands = takewhile(str.strip, lines), takewhile(str.strip, lines)
    return [*about, *commands]


def files(home: Path) -> list[str]:
    return sorted(path.name for path in home.iterdir())


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str]:
    """Send a signal; give the exit code and what was said on stderr."""
    process.send_signal(number)
    said = process.communicate(timeout=PATIENCE)[1]
    return process.returncode, said


def curl(line: str) -> httpx.Response:
    """Do what curl would do, were it called like that."""
    said = CURL.parse_args(shlex.split(line, comments=True)[1:])
    method = said.X if said.d is None or said.X != "GET" else "POST"
    headers = dict([said.H.split(": ")])
    return httpx.request(method, said.url, headers=headers, content=said.d)


def address(lines: list[str]) -> str:
    assert "http://127.0.0.1:" in lines[0]
    return next(word for word in lines[0].split() if word.startswith("http"))


@pytest.mark.parametrize("driver", ["sqlite", "postgresql", "postgresql+asyncpg"])
def test_what_it_suggests_works(tmp_path: Path, postgresql: str, driver: str) -> None:
    with psycopg.connect(postgresql) as connection:
        connection.execute("DROP TABLE IF EXISTS items, owners")
    server = postgresql.replace("postgresql", driver)
    urls = {"sqlite": "sqlite:///items.db"}

    with demo(tmp_path, DATABASE_URL=urls.get(driver, server)) as process:
        lines = welcome(process)
        replies = [curl(line) for line in lines if "curl" in line]
        documentation = httpx.get(address(lines) + "/docs")
        outcomes = httpx.get(address(lines) + "/units/outcomes.json").json()
        code, said = end(process, signal.SIGINT)

    assert [reply.status_code for reply in replies] == [201, 200, 201, 409]
    assert replies[1].json() == [replies[0].json()]
    assert documentation.status_code == 200
    assert sum(each["units"] for each in outcomes["routes"]) == len(replies)
    assert (code, "Traceback" in said) == (0, False)


def test_without_an_address_it_makes_a_file_that_the_next_run_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)

    with demo(tmp_path) as process:
        replies = [curl(line) for line in welcome(process) if "curl" in line]
        end(process, signal.SIGINT)
    left = files(tmp_path)
    with demo(tmp_path) as process:
        lines = welcome(process)
        again = httpx.get(address(lines) + "/items/")
        first = curl(next(line for line in lines if "curl" in line))
        end(process, signal.SIGINT)

    assert left == ["items.db"]
    assert again.json() == replies[1].json()
    assert first.status_code == 201


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_though_a_client_holds_its_connection(
    tmp_path: Path, number: int
) -> None:
    with demo(tmp_path, DATABASE_URL="sqlite:///items.db") as process:
        url = address(welcome(process))
        with httpx.Client() as client:
            assert client.get(url + "/items/").json() == []
            code, said = end(process, number)
        with pytest.raises(httpx.ConnectError):
            httpx.get(url)

    assert code == 0
    assert said.splitlines()[1:] == []  # the one is of the access log
    assert files(tmp_path) == ["items.db"]


# A try at TLS that is cancelled makes asyncpg complain to the event loop.
@pytest.mark.parametrize(
    ("driver", "query"), [("asyncpg", "?ssl=disable"), ("psycopg", "")]
)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_waits_for_the_database(
    tmp_path: Path, driver: str, query: str, number: int
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        url = f"postgresql+{driver}://ada@{at}/items{query}"
        with demo(tmp_path, DATABASE_URL=url) as process, silent.accept()[0]:
            ending = end(process, number)

    assert ending == (0, "")


@pytest.fixture(scope="module")
def refusal() -> Iterator[Refusal]:
    """Runs the demo where it can't be run; gives its one line on stderr."""
    imports = ["uvicorn", "psycopg", "asyncpg", "aiosqlite", "unitwork.fastapi"]
    with forks(imports, {**os.environ, "PYTHONPATH": str(ROOT)}) as started:

        def refusal(home: Path, **environment: str) -> str:
            ended = started.run("examples.items", home, {"PORT": "0", **environment})
            assert (ended.code, ended.output) == (1, "")
            assert ended.errors.endswith("\n")
            [line] = ended.errors.splitlines()
            return line

        yield refusal


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "can't be parsed"),
        ("items.db", "can't be parsed"),
        ("mysql+pymysql://h/items", "use mysql+asyncmy"),
        ("mysql+aiomysql://h/items", "needs the package 'aiomysql'"),
        ("postgresql://ada:secret@h:port/items", "can't be parsed"),
        ("sqlite:////no/such/folder/items.db", "unable to open database file"),
        ("sqlite:///.", "unable to open database file"),
        (f"sqlite:///{__file__}", "file is not a database"),
        ("postgresql+asyncpg://ada:secret@127.0.0.1:1/items", "Connect call failed"),
        ("postgresql+psycopg://ada:secret@127.0.0.1:1/items", "Connection refused"),
        ("postgresql+asyncpg://ada:secret@host.invalid/items", "not known"),
        ("postgresql+psycopg://ada:secret@host.invalid/items", "not known"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(
    tmp_path: Path, refusal: Refusal, url: str, reason: str
) -> None:
    line = refusal(tmp_path, DATABASE_URL=url)

    assert reason in line
    assert "secret" not in line


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
@pytest.mark.parametrize("wrong", ["role", "database"])
def test_a_server_that_turns_it_away_is_one_line(
    tmp_path: Path, refusal: Refusal, postgresql: str, driver: str, wrong: str
) -> None:
    url = make_url(postgresql).set(drivername=f"postgresql+{driver}")
    urls = {"role": url.set(username="nobody"), "database": url.set(database="nobody")}

    line = refusal(tmp_path, DATABASE_URL=urls[wrong].render_as_string(False))

    assert f'{wrong} "nobody" does not exist' in line


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"PORT": "eighty"}, "'eighty'"),
        ({"PORT": "65536"}, "0-65535"),
        ({"HOST": "host.invalid"}, "not known"),
        ({"HOST": "::ffff:0:0:1"}, "assign"),
    ],
    ids=str,
)
def test_a_place_where_it_can_not_listen_is_one_line(
    tmp_path: Path, refusal: Refusal, environment: dict[str, str], reason: str
) -> None:
    line = refusal(tmp_path, **environment)

    assert reason in line
    assert files(tmp_path) == []


def test_a_port_that_is_taken_is_one_line(tmp_path: Path, refusal: Refusal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        line = refusal(tmp_path, PORT=str(taken.getsockname()[1]))

    assert "Address already in use" in line
    assert files(tmp_path) == []
