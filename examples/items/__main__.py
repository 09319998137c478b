"""Serve the items over HTTP: `python -m examples.items`.

The environment may say where and what: `HOST`, `PORT`, `DATABASE_URL`. What is wrong
with that is said in one line, before anything is served.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import NoReturn

import uvicorn

DRIVERS = {
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "sqlite": "sqlite+aiosqlite",
}
"""For a URL that names none."""

PATIENCE = 10.0  # seconds that the database has for its first answer
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main() -> None:
    for number in SIGNALS:  # uvicorn raises it anew at its end
        signal.signal(number, stop)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    name_the_driver()
    with listen() as listener, suppress(asyncio.CancelledError):
        asyncio.run(serve(listener))


def stop(*_: object) -> NoReturn:
    sys.exit()


@contextmanager
def cancelled_by_signals() -> Iterator[None]:
    """Let signals cancel this task: raised anywhere, they may hit a driver half-way."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    for number in SIGNALS:
        loop.add_signal_handler(number, task.cancel)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, stop)


def name_the_driver() -> None:
    scheme, _, rest = os.environ.get("DATABASE_URL", "").partition("://")
    if scheme in DRIVERS:
        os.environ["DATABASE_URL"] = f"{DRIVERS[scheme]}://{rest}"


def listen() -> socket.socket:
    """Take the port now, before another program does."""
    host, port = os.environ.get("HOST", "127.0.0.1"), os.environ.get("PORT", "8000")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, int(port)), family=family)
    except (OSError, OverflowError, ValueError) as error:
        give_up(f"can't listen on HOST={host} PORT={port}", error)


async def serve(listener: socket.socket) -> None:
    try:
        from .app import app, lifespan
        from .database import db
    except Exception as error:  # a driver that is not installed, for one
        give_up("DATABASE_URL", error)
    database = db.engine.url.render_as_string()  # without the password
    try:
        with cancelled_by_signals():
            await reach(database, lifespan(app))
        print(welcome(listener, database), flush=True)
        config = uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=5)
        await uvicorn.Server(config).serve([listener])
    finally:
        await db.dispose()


async def reach(database: str, lifespan: AbstractAsyncContextManager[None]) -> None:
    """Start the application once before uvicorn does, which would show a traceback."""
    try:
        async with asyncio.timeout(PATIENCE), lifespan:
            pass
    except Exception as error:
        give_up(f"can't use the database {database}", error)


def welcome(listener: socket.socket, database: str) -> str:
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    send = "-H 'Content-Type: application/json' -d"
    lamp = '{"name": "Lamp", "price": 35.5}'
    return f"""\
Items are served at {url} and documented at {url}/docs.
They are stored in {database}. Ctrl-C ends it.
Every unit of work is shown at {url}/units/.
Try these; the last one breaks a rule of the database:

  curl {url}/items/ {send} '{lamp}'
  curl {url}/items/
  curl {url}/owners/ {send} '{{"name": "Ada"}}'  # a second Ada is a 409
  curl {url}/items/1 -X PATCH {send} '{{"tax": 99}}'
"""


def give_up(what: str, error: Exception) -> NoReturn:
    # A thread of aiosqlite may find the event loop closed by now, and say so at length.
    threading.excepthook = lambda _: None
    cause = getattr(error, "orig", None) or error  # the driver's own words
    sys.exit(f"{what}: {' '.join(str(cause).split()) or 'no answer in time'}")


if __name__ == "__main__":
    main()
