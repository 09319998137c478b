"""Requests that wait for one of two connections, as real ones were traced."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Annotated

from anyio import to_thread
from fastapi import Depends, FastAPI
from httpx2 import ASGITransport, AsyncClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from unitwork import Database, DBSessionMiddleware

from .svg import Picture

__all__ = ["draw"]

_REQUESTS, _POOL = 6, 2
_LEFT, _TOP, _ROW = 92, 92, 28


class _Moment:
    """What each request did, and what was in use, after one step."""

    def __init__(self, doing: list[str], threads: int, connections: int) -> None:
        self.doing = doing
        self.threads = threads
        self.connections = connections


def draw() -> str:
    moments = asyncio.run(_Crowd().traced())
    picture = Picture(
        "The admission gate of a pool with two connections",
        "; ".join(f"step {n}: {', '.join(m.doing)}" for n, m in enumerate(moments, 1)),
    )
    picture.text(12, 24, f"{_REQUESTS} requests, a pool of {_POOL} connections", "b")
    picture.rect(12, 37, 22, 14, "box thin", 3)
    picture.text(42, 49, "waits on the event loop: no thread, no connection", "soft")
    picture.rect(12, 59, 22, 14, "greens", 3)
    picture.text(42, 71, "has a permit: a thread and a connection", "soft")
    step = (388 - _LEFT) / len(moments)
    for n in range(_REQUESTS):
        y = _TOP + _ROW * n
        picture.text(12, y + 15, f"request {n + 1}")
        doing = [moment.doing[n] for moment in moments]
        for kind, look in (("waits", "box thin"), ("works", "greens")):
            if kind in doing:
                x = _LEFT + step * doing.index(kind)
                picture.rect(x, y, step * doing.count(kind) - 2, 20, look, 4)
    y = _TOP + _ROW * _REQUESTS + 18
    for name, counts in (
        ("threads", [moment.threads for moment in moments]),
        ("connections", [moment.connections for moment in moments]),
    ):
        picture.text(12, y, name, "soft")
        for n, count in enumerate(counts):
            picture.text(_LEFT + step * (n + 0.5), y, str(count), "soft", "middle")
        y += 20
    picture.path([(_LEFT, y - 6), (388, y - 6)])
    picture.text(388, y + 10, "time", "soft", "end")
    return picture.render(y + 20)


class _Crowd:
    """Starts the requests one by one, then lets each end, and notes what happens."""

    def __init__(self) -> None:
        self.working: set[int] = set()
        self.done: set[int] = set()
        self.may_end = [Event() for _ in range(_REQUESTS)]
        self.moments: list[_Moment] = []

    async def traced(self) -> list[_Moment]:
        with TemporaryDirectory() as folder:
            url = f"sqlite:///{Path(folder, 'items.db')}"
            self.db = Database(url, pool_size=_POOL, max_overflow=0)
            transport = ASGITransport(self._application())
            async with AsyncClient(
                transport=transport, base_url="http://gate"
            ) as client:
                await self._run(client)
            self.db.dispose()
        return self.moments

    async def _run(self, client: AsyncClient) -> None:
        tasks = []
        for n in range(_REQUESTS):
            tasks.append(asyncio.create_task(client.get(f"/{n}")))
            await self._until(lambda: self._in_hand == len(tasks))
            self._note(len(tasks))
        for n, task in enumerate(tasks):
            self.may_end[n].set()
            (await task).raise_for_status()
            self.done.add(n)
            await self._until(lambda: len(self.working) == min(self._left, _POOL))
            if self._left:
                self._note(_REQUESTS)

    @property
    def _left(self) -> int:
        return _REQUESTS - len(self.done)

    @property
    def _in_hand(self) -> int:
        return len(self.working) + self.db.pool_status().waiting

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110  # of threads, and of the pool
                await asyncio.sleep(0.001)

    def _note(self, begun: int) -> None:
        doing = [
            "is done" if n in self.done else "works" if n in self.working else "waits"
            for n in range(begun)
        ]
        doing += ["has not begun"] * (_REQUESTS - begun)
        threads = to_thread.current_default_thread_limiter().borrowed_tokens
        connections = self.db.pool_status().checked_out
        self.moments.append(_Moment(doing, threads, connections))

    def _application(self) -> FastAPI:
        app = FastAPI()
        app.add_middleware(DBSessionMiddleware, db=self.db)

        @app.get("/{n}")
        def endpoint(
            n: int, session: Annotated[Session, Depends(self.db.session)]
        ) -> None:
            session.execute(text("SELECT 1"))
            self.working.add(n)
            self.may_end[n].wait(10)
            self.working.remove(n)

        return app
