"""No background task follows lost work; a cancelled request ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from support.asgi import ASGIApp, Reply, call
from support.conflicts import Conflict
from support.failed_commits import PassOn
from support.flavours import ASYNC, Flavour, Observer, only
from support.models import add_item
from unitwork import (
    DBSessionMiddleware,
    RetryPolicy,
    TransactionOptions,
    current_unit,
)
from unitwork.testing import no_waits

pytestmark = [pytest.mark.anyio, only(*ASYNC)]

SPECS = pytest.mark.parametrize("spec", ["2.3", "2.4"])
BETWEEN = pytest.mark.parametrize("between", [(), (PassOn,), (PassOn, PassOn)])
Endpoint = Callable[[Request], Awaitable[Response]]


def serve(
    flavour: Flavour, endpoint: Endpoint, between: Any, **options: Any
) -> ASGIApp:
    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    for middleware in between:
        app.add_middleware(middleware)
    app.add_middleware(DBSessionMiddleware, db=flavour.db, **options)
    return app


class Leaving:
    """A request whose client leaves when its work is about to be committed."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.gone = asyncio.Event()
        self.mails: list[str] = []

    async def work(self, request: Request, name: str = "one") -> BackgroundTask:
        session = await self.flavour.db.session(request)
        await self.flavour.do(session, lambda s: add_item(s, name).id)
        return BackgroundTask(self.mails.append, "your order is on its way")

    async def leave(self) -> None:
        self.gone.set()
        for _ in range(20):
            await asyncio.sleep(0)

    async def request(self, endpoint: Endpoint, between: Any, spec: str) -> Reply:
        app = serve(self.flavour, endpoint, between)
        asgi = {"version": "3.0", "spec_version": spec}
        async with asyncio.timeout(10):
            return await call(app, "POST", "/", gone=self.gone, asgi=asgi)


async def chunks() -> AsyncIterator[str]:
    yield "one"


@SPECS
@BETWEEN
async def test_mail_is_sent_only_for_what_was_stored(
    flavour: Flavour, observer: Observer, between: Any, spec: str
) -> None:
    leaving = Leaving(flavour)

    async def endpoint(request: Request) -> Response:
        task = await leaving.work(request)
        current_unit().before_commit(leaving.leave)
        return StreamingResponse(chunks(), background=task)

    await leaving.request(endpoint, between, spec)

    assert len(leaving.mails) == len(observer.names())


@SPECS
@BETWEEN
async def test_no_mail_if_the_commit_fails_while_the_client_leaves(
    flavour: Flavour, observer: Observer, between: Any, spec: str
) -> None:
    leaving = Leaving(flavour)

    async def veto() -> None:
        await leaving.leave()
        raise LookupError

    async def endpoint(request: Request) -> Response:
        task = await leaving.work(request)
        current_unit().before_commit(veto)
        return StreamingResponse(chunks(), background=task)

    await leaving.request(endpoint, between, spec)

    assert (leaving.mails, observer.names()) == ([], [])


@SPECS
@BETWEEN
async def test_nor_if_a_listener_fails_beside_commit_while_the_client_leaves(
    flavour: Flavour, observer: Observer, between: Any, spec: str
) -> None:
    leaving = Leaving(flavour)

    def veto(session: Session) -> None:
        await_only(leaving.leave())
        raise LookupError

    async def endpoint(request: Request) -> Response:
        task = await leaving.work(request)
        session = await flavour.db.session(request)
        event.listen(session.sync_session, "before_commit", veto)
        return StreamingResponse(chunks(), background=task)

    await leaving.request(endpoint, between, spec)

    assert (leaving.mails, observer.names()) == ([], [])


@BETWEEN
async def test_no_mail_if_the_client_leaves_while_its_retry_is_prepared(
    flavour: Flavour, observer: Observer, between: Any
) -> None:
    leaving = Leaving(flavour)

    async def conflict() -> None:
        await leaving.leave()
        raise Conflict

    async def endpoint(request: Request) -> Response:
        task = await leaving.work(request)
        current_unit().before_commit(conflict)
        return StreamingResponse(chunks(), background=task)

    options = TransactionOptions(attempts=2)
    app = serve(flavour, endpoint, between, options=options)
    with no_waits():
        await call(app, "POST", "/", gone=leaving.gone)

    assert (leaving.mails, observer.names()) == ([], [])


@pytest.mark.parametrize("between", [(), (PassOn,)])
async def test_no_mail_if_the_work_of_a_stream_is_rolled_back(
    flavour: Flavour, observer: Observer, between: Any
) -> None:
    leaving = Leaving(flavour)

    async def endpoint(request: Request) -> Response:
        task = await leaving.work(request, "before")

        async def body() -> AsyncIterator[str]:
            yield "one"
            await leaving.work(request, "lost")
            await leaving.leave()
            await asyncio.Event().wait()

        return StreamingResponse(body(), background=task)

    reply = await leaving.request(endpoint, between, "2.3")

    assert (reply.complete, reply.error) == (False, None)
    assert (leaving.mails, observer.names()) == ([], ["before"])


@SPECS
@BETWEEN
async def test_a_plain_response_commits_and_then_mails(
    flavour: Flavour, observer: Observer, between: Any, spec: str
) -> None:
    leaving = Leaving(flavour)

    async def endpoint(request: Request) -> Response:
        task = await leaving.work(request)
        current_unit().before_commit(leaving.leave)
        return PlainTextResponse("one", background=task)

    await leaving.request(endpoint, between, spec)

    assert (len(leaving.mails), observer.names()) == (1, ["one"])


# Cancelled while an attempt unwinds


class Cancelled:
    """A request that is cancelled while it is decided that it is run again."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.attempts: list[int] = []
        self.tasks: list[asyncio.Task[Any]] = []

    def cancel(self, found: object) -> None:
        self.tasks[0].cancel()

    async def endpoint(self, request: Request) -> Response:
        self.attempts.append(current_unit().attempt)
        session = await self.flavour.db.session(request)
        await self.flavour.do(session, lambda s: add_item(s).id)

        async def conflict() -> None:
            raise Conflict

        current_unit().before_commit(conflict)
        return StreamingResponse(chunks())

    async def request(self, spec: str) -> Reply:
        self.tasks.append(asyncio.current_task())  # type: ignore[arg-type]
        options = TransactionOptions(attempts=3)
        retry = RetryPolicy(rules=[self.cancel])  # type: ignore[list-item]
        app = serve(self.flavour, self.endpoint, (), options=options, retry=retry)
        with no_waits():
            asgi = {"version": "3.0", "spec_version": spec}
            return await call(app, "POST", "/", asgi=asgi)


@SPECS
async def test_a_cancelled_request_is_not_run_again(
    flavour: Flavour, observer: Observer, spec: str
) -> None:
    cancelled = Cancelled(flavour)
    task = asyncio.create_task(cancelled.request(spec))

    await asyncio.wait((task,), timeout=10)

    assert task.cancelled()
    assert (cancelled.attempts, observer.names()) == ([1], [])


@SPECS
async def test_a_time_limit_around_it_is_heard(flavour: Flavour, spec: str) -> None:
    cancelled = Cancelled(flavour)

    async def limited() -> Reply:
        async with asyncio.timeout(60) as limit:
            cancelled.cancel = lambda found: limit.reschedule(0)  # type: ignore[method-assign]
            return await cancelled.request(spec)

    with pytest.raises(TimeoutError):
        await limited()

    assert cancelled.attempts == [1]
