"""Follow a page of the manual as a reader does, who types what it says, in order.

    python tools/follow.py docs/tutorial.md --python python3.13 --wheels dist

In a temporary folder, write the files (a block that begins with `# name.py`), run the
lines that begin with `$ ` in one bash, and look for the other lines of a ```console
block in its output. `pip install` finds unitwork in the folder of wheels.
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
PATIENCE = 240.0  # seconds for one command; pip needs most
PORT = "8000"  # of the pages: replaced by a free one
END = "the command has ended with"


class Step(NamedTuple):
    """A file to write, or a command to run with the output that the page shows."""

    what: str
    file: str = ""
    output: str = ""


class FollowError(Exception):
    """The page says something else than what happens."""


def steps(text: str) -> Iterator[Step]:
    """Yield what there is to do in a page, in order."""
    for token in MarkdownIt("commonmark").parse(text):
        named = re.match(r"# ([\w/]+\.py)\n", token.content)
        if token.type == "fence" and token.info == "python" and named:
            yield Step(token.content, file=named[1])
        elif token.type == "fence" and token.info == "console":
            for part in re.split(r"(?m)^\$ ", token.content)[1:]:
                lines = re.match(r"(?s)((?:[^\n]*\\\n)*[^\n]*\n)(.*)", part)
                assert lines is not None
                yield Step(lines[1], output=lines[2])


class Shell:
    """One bash, and all that it has written."""

    def __init__(self, home: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=home,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[bytes] = self.process.stdin
        self.written = ""
        self.changed = threading.Condition()
        self.stdout: IO[bytes] = self.process.stdout
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        while chunk := os.read(self.stdout.fileno(), 65536):
            with self.changed:
                self.written += chunk.decode(errors="replace")
                self.changed.notify_all()

    def run(self, command: str) -> str:
        """Run a command; give all that was written meanwhile, also by servers."""
        start = len(self.written)
        self.stdin.write(f"{command}\nstatus=$?; echo; echo {END} $status\n".encode())
        self.stdin.flush()
        with self.changed:
            ended = self.changed.wait_for(
                lambda: re.search(rf"{END} (\d+)\n", self.written[start:]), PATIENCE
            )
            output = self.written[start:]
        if ended is None or ended[1] != "0":
            raise FollowError(f"$ {command}{output}")
        return output[: ended.start()]

    def end(self) -> None:
        """End the shell and the servers that it has started."""
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait()
        self.reader.join()
        self.stdin.close()
        self.stdout.close()


@contextmanager
def open_shell(home: Path, environment: dict[str, str]) -> Iterator[Shell]:
    shell = Shell(home, environment)
    try:
        yield shell
    finally:
        shell.end()


def check(step: Step, output: str) -> None:
    """Find the lines that the page shows in *output*, in their order."""
    place, shown = 0, " ".join(output.split())
    for line in step.output.splitlines():
        expected = " ".join(line.split())
        found = shown.find(expected, place)
        if found < 0:
            raise FollowError(f"$ {step.what}shows\n{output}and not\n{line}")
        place = found + len(expected)


def follow(page: Path, home: Path, environment: dict[str, str]) -> str:
    """Do all steps of *page* in the folder *home*; give all that was written.

    Raises `FollowError` where a command fails, or shows what the page does not say.
    """
    port = environment["UVICORN_PORT"] = str(free_port())
    with open_shell(home, environment) as shell:
        for step in steps(page.read_text(encoding="utf-8")):
            if step.file:
                folder = shell.run("pwd").strip()
                Path(folder, step.file).write_text(step.what, encoding="utf-8")
            else:
                command = step.what.replace(f"localhost:{PORT}", f"localhost:{port}")
                check(step, shell.run(command))
        return shell.written


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@contextmanager
def fresh_environment(
    python: str, wheels: Path
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Give a folder with a fresh virtual environment of *python*, which is active.

    The environment variables of this process go on, but not those that are about Python
    or a database.
    """
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        subprocess.run([python, "-m", "venv", home / ".python"], check=True)
        about = re.compile("PYTHON|VIRTUAL_ENV|DATABASE_URL|COVERAGE|PYTEST|UVICORN")
        environment = {k: v for k, v in os.environ.items() if not about.search(k)}
        links = f"{wheels.resolve()} {environment.get('PIP_FIND_LINKS', '')}"
        yield (
            home,
            environment
            | {
                "PATH": f"{home}/.python/bin:{environment['PATH']}",
                "PIP_CONSTRAINT": str(ROOT / "constraints.txt"),
                "PIP_DISABLE_PIP_VERSION_CHECK": "1",
                "PIP_FIND_LINKS": links.strip(),
                "PYTHONUNBUFFERED": "1",
            },
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("page", type=Path)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--wheels", type=Path, required=True)
    given = parser.parse_args()
    with fresh_environment(given.python, given.wheels) as (home, environment):
        try:
            follow(given.page, home, environment)
        except FollowError as error:
            sys.exit(f"{given.page}: {error}")


if __name__ == "__main__":
    main()
