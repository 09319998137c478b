"""A COMMIT that fails is answered by the exception handlers of Litestar."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from litestar import Litestar, Request, Response, post
from litestar.background_tasks import BackgroundTask
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware
from sqlalchemy.exc import IntegrityError

from support.asgi import Reply, call
from support.flavours import FEW, Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware, PoolTimeoutError, current_unit
from unitwork.testing import commit_faults

pytestmark = pytest.mark.anyio

REFUSED = IntegrityError("COMMIT", None, Exception("deferred"))


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[str]:
    return Response(f"{request.method} {type(error).__name__}", status_code=409)


def wrapped(flavour: Flavour, *handlers: Any, **options: Any) -> Any:
    return DBSessionMiddleware(Litestar([*handlers], **options), db=flavour.db)


def inside(flavour: Flavour, *handlers: Any, **options: Any) -> Any:
    middleware = DefineMiddleware(DBSessionMiddleware, db=flavour.db)
    return Litestar([*handlers], middleware=[middleware], **options)


FORMS = pytest.mark.parametrize("form", [wrapped, inside])
Form = Callable[..., Any]


def creating(flavour: Flavour, ran: list[str], **options: Any) -> Any:
    @post("/", **options)
    async def create() -> Response[str]:
        await flavour.do(flavour.db.current, add_item)
        return Response("made", background=BackgroundTask(ran.append, "task"))

    return create


async def refused(flavour: Flavour, app: Any, error: Exception = REFUSED) -> Reply:
    with commit_faults(flavour.db, error):
        return await call(app, "POST", "/")


@FORMS
@pytest.mark.parametrize("key", [IntegrityError, Exception, 500])
@FEW
async def test_those_of_the_application(
    flavour: Flavour, observer: Observer, form: Form, key: Any
) -> None:
    ran: list[str] = []
    app = form(flavour, creating(flavour, ran), exception_handlers={key: answer})

    reply = await refused(flavour, app)

    assert (reply.status, reply.body) == (409, b"POST IntegrityError")
    assert (reply.complete, reply.error) == (True, None)
    assert (ran, observer.names()) == ([], [])


@FORMS
@FEW
async def test_those_of_the_route_come_first(flavour: Flavour, form: Form) -> None:
    def of_all(request: Any, error: Exception) -> Response[str]:
        return Response("of all", status_code=418)

    create = creating(flavour, [], exception_handlers={IntegrityError: answer})
    app = form(flavour, create, exception_handlers={IntegrityError: of_all})

    assert (await refused(flavour, app)).status == 409


@FORMS
@FEW
async def test_the_hooks_of_the_application_see_the_error(
    flavour: Flavour, form: Form
) -> None:
    seen: list[Exception] = []

    async def note(error: Exception, scope: Any) -> None:
        seen.append(error)

    handlers: Any = {IntegrityError: answer}
    app = form(
        flavour,
        creating(flavour, []),
        exception_handlers=handlers,
        after_exception=[note],
    )
    await refused(flavour, app)

    assert seen == [REFUSED]


@FORMS
@FEW
async def test_by_status_where_a_hook_raises_an_http_exception(
    flavour: Flavour, form: Form
) -> None:
    def check() -> None:
        raise HTTPException("too many", status_code=429)

    @post("/")
    async def create() -> None:
        await flavour.do(flavour.db.current, add_item)
        current_unit().before_commit(check)

    handlers: Any = {429: answer, 500: lambda *_: Response("other")}
    app = form(flavour, create, exception_handlers=handlers)

    assert (await call(app, "POST", "/")).body == b"POST HTTPException"


@FORMS
@FEW
async def test_without_one_it_is_no_success(
    flavour: Flavour, observer: Observer, form: Form
) -> None:
    app = form(flavour, creating(flavour, []), exception_handlers={LookupError: answer})

    reply = await refused(flavour, app)

    assert reply.status in (None, 500)
    assert observer.names() == []


@FORMS
@FEW
async def test_an_error_of_unitwork_answers_for_itself(
    flavour: Flavour, form: Form
) -> None:
    app = form(flavour, creating(flavour, []))

    reply = await refused(flavour, app, PoolTimeoutError("none is free"))

    assert reply.status == 503
