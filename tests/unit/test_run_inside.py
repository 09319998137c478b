"""`db.run()` inside a request or another run, and wrong uses of it."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.responses import Response

from support.asgi import call
from support.conflicts import Conflict
from support.endpoints import serve_fastapi
from support.flavours import FEW, Flavour, Observer, only
from support.models import names
from support.runs import NOW, Failing, run
from unitwork import TransactionOptions, UsageError, current_unit

pytestmark = pytest.mark.anyio


# One inside the other


@FEW
async def test_inside_a_request_that_is_run_again_it_is_tried_once(
    flavour: Flavour,
) -> None:
    failing = Failing(99)

    async def endpoint() -> None:
        await run(flavour, failing, attempts=5)

    app = serve_endpoint(flavour, endpoint, attempts=3)

    assert type((await call(app, "POST", "/")).error) is Conflict
    assert failing.calls == [(1, True)] * 3


@FEW
async def test_inside_a_request_that_is_not_it_is_tried_as_often_as_it_asks(
    flavour: Flavour, observer: Observer
) -> None:
    failing = Failing(4)

    async def endpoint() -> int:
        return int(await run(flavour, failing, attempts=5))

    app = serve_endpoint(flavour, endpoint, attempts=1)

    assert (await call(app, "POST", "/")).json == 5
    assert observer.names() == ["attempt 5"]


@FEW
async def test_so_it_is_once_the_request_is_final(flavour: Flavour) -> None:
    failing = Failing(4)

    async def endpoint() -> int:
        current_unit().side_effect_done()
        return int(await run(flavour, failing, attempts=5))

    app = serve_endpoint(flavour, endpoint, attempts=3)

    assert (await call(app, "POST", "/")).json == 5


@FEW
async def test_so_it_is_in_a_background_task(flavour: Flavour) -> None:
    failing = Failing(4)

    async def endpoint() -> Response:
        work = partial(run, flavour, failing, attempts=5)
        return Response(background=BackgroundTask(work))

    app = serve_endpoint(flavour, endpoint, attempts=3)

    assert (await call(app, "POST", "/")).error is None
    assert len(failing.calls) == 5


@only("psycopg", "asyncpg")
async def test_inside_another_run_it_is_tried_once(
    flavour: Flavour, observer: Observer
) -> None:
    failing = Failing(2)

    if flavour.is_async:

        async def work(session: Any) -> int:
            return int(await run(flavour, failing, attempts=5))

        result = await flavour.db.run(work, attempts=3, retry=NOW)
    else:
        inner = partial(flavour.db.run, failing, attempts=5, retry=NOW)
        result = await run(flavour, lambda session: inner(), attempts=3)

    assert (result, failing.calls) == (1, [(1, True)] * 3)
    assert observer.names() == ["attempt 3"]


def serve_endpoint(flavour: Flavour, endpoint: Any, *, attempts: int) -> Any:
    options = TransactionOptions(attempts=attempts)
    app = serve_fastapi(flavour, names, options=options, retry=NOW)
    app.router.routes.clear()
    app.post("/")(endpoint)
    return app


# Wrong use


@only("aiosqlite")
async def test_the_work_of_an_async_database_has_to_be_a_coroutine_function(
    flavour: Flavour, observer: Observer
) -> None:
    def work(session: Any) -> str:
        session.sync_session.begin()
        return "done"

    with pytest.raises(UsageError, match=r"work.* is no coroutine function"):
        await flavour.db.run(work, attempts=3)


@only("aiosqlite")
async def test_whatever_gives_an_awaitable_will_do(flavour: Flavour) -> None:
    async def work(session: Any) -> str:
        return "done"

    assert await flavour.db.run(lambda session: work(session)) == "done"
    assert await flavour.db.run(partial(work)) == "done"


@only("sqlite3")
async def test_the_work_of_a_sync_database_must_not_be_one(flavour: Flavour) -> None:
    async def work(session: Session) -> None: ...

    assert inspect.iscoroutinefunction(work)
    with pytest.raises(UsageError, match=r"work.* is a coroutine function"):
        await run(flavour, work, attempts=3)


@FEW
@pytest.mark.parametrize("attempts", [0, "yes"])
async def test_a_number_of_attempts_is_one_or_more(
    flavour: Flavour, attempts: Any
) -> None:
    with pytest.raises(UsageError, match="give 1 or more"):
        await run(flavour, names, attempts=attempts)
