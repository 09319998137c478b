"""P10: nothing depends on the order in which a framework tears dependencies down."""

from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy.orm import Session
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response

from support.asgi import Message, Reply, call
from support.endpoints import Body, yielding
from support.flavours import ASYNC, FEW, SYNC, Flavour, Observer, everywhere, only
from support.models import add_item, names
from unitwork import SessionEndedError

pytestmark = pytest.mark.anyio


SCOPES = ["request", "function"]


def nothing(session: Session) -> None:
    pass


def adding(name: str) -> Body:
    def body(session: Session) -> None:
        add_item(session, name)

    return body


def refuse(session: Session) -> None:
    add_item(session, "lost")
    raise HTTPException(409)


async def post(app: FastAPI, observer: Observer) -> tuple[Reply, list[str]]:
    """Make a request; say what others could see when its response started."""
    seen: list[str] = []

    def look(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.extend(observer.names())

    return await call(app, "POST", "/", on_message=look), seen


@pytest.fixture(params=["first", "last"])
def depends(request: pytest.FixtureRequest, flavour: Flavour) -> Callable[..., Any]:
    """Order the dependencies of a route: the session comes first, or last."""
    session = Depends(flavour.db.session)

    def order(dependency: Callable[..., Any], scope: Any) -> list[Any]:
        ours = Depends(dependency, scope=scope)
        return [session, ours] if request.param == "first" else [ours, session]

    return order


# Whatever the order, the outcome is the same


@everywhere
@pytest.mark.parametrize("scope", SCOPES)
async def test_what_a_dependency_wrote_first_is_stored_when_the_response_starts(
    app: FastAPI, flavour: Flavour, observer: Observer, depends: Any, scope: Any
) -> None:
    dependency = yielding(flavour, adding("before"), nothing)
    route = depends(dependency, scope)
    app.post("/", dependencies=route)(flavour.endpoint(adding("in the endpoint")))

    reply, seen = await post(app, observer)

    assert (reply.status, reply.error) == (200, None)
    assert seen == ["before", "in the endpoint"]


@everywhere
@pytest.mark.parametrize("scope", SCOPES)
async def test_a_failure_takes_what_dependencies_wrote_with_it(
    app: FastAPI, flavour: Flavour, observer: Observer, depends: Any, scope: Any
) -> None:
    dependency = yielding(flavour, adding("before"), adding("after"))
    route = depends(dependency, scope)
    app.post("/", dependencies=route)(flavour.endpoint(refuse))

    reply, seen = await post(app, observer)

    assert (reply.status, reply.error) == (409, None)
    assert (seen, observer.names()) == ([], [])


async def test_what_a_teardown_writes_before_the_response_is_stored_with_the_rest(
    app: FastAPI, flavour: Flavour, observer: Observer, depends: Any
) -> None:
    dependency = yielding(flavour, nothing, adding("after"))
    route = depends(dependency, "function")
    app.post("/", dependencies=route)(flavour.endpoint(adding("in the endpoint")))

    reply, seen = await post(app, observer)

    assert (reply.status, reply.error) == (200, None)
    assert seen == ["in the endpoint", "after"]


@everywhere
async def test_a_teardown_that_comes_too_late_is_told_so(
    app: FastAPI, flavour: Flavour, observer: Observer, depends: Any
) -> None:
    dependency = yielding(flavour, nothing, adding("after"))
    route = depends(dependency, "request")
    app.post("/", dependencies=route)(flavour.endpoint(adding("in the endpoint")))

    reply, seen = await post(app, observer)

    assert (reply.status, reply.complete) == (200, True)
    assert isinstance(reply.error, SessionEndedError)
    assert "db.transaction()" in str(reply.error)
    assert seen == observer.names() == ["in the endpoint"]


@FEW
@pytest.mark.parametrize("use", [names, Session.connection, Session.commit, add_item])
async def test_a_late_teardown_is_refused_whatever_it_wants(
    app: FastAPI, flavour: Flavour, use: Body
) -> None:
    depends = [Depends(yielding(flavour, nothing, use), scope="request")]
    app.post("/", dependencies=depends)(flavour.endpoint(nothing))

    reply = await call(app, "POST", "/")

    assert (reply.status, type(reply.error)) == (200, SessionEndedError)


def close(session: Session) -> None:
    session.close()  # not `Session.close()`, which drops the work


@FEW
@pytest.mark.parametrize(
    ("scope", "use", "kept"),
    [
        ("function", Session.commit, ["one"]),
        ("function", Session.rollback, []),
        ("function", close, ["one"]),
        ("request", Session.rollback, ["one"]),
        ("request", close, ["one"]),
    ],
)
async def test_a_teardown_may_end_the_session_out_of_habit(
    app: FastAPI,
    flavour: Flavour,
    observer: Observer,
    scope: Any,
    use: Body,
    kept: list[str],
) -> None:
    depends = [Depends(yielding(flavour, nothing, use), scope=scope)]
    app.post("/", dependencies=depends)(flavour.endpoint(adding("one")))

    reply = await call(app, "POST", "/")

    assert (reply.status, reply.complete, reply.error) == (200, True, None)
    assert observer.names() == kept


async def test_a_late_teardown_may_open_a_unit_of_its_own(
    app: FastAPI, flavour: Flavour, observer: Observer
) -> None:
    async def dependency() -> AsyncIterator[None]:
        yield
        await flavour.work(adding("after"))

    app.post("/", dependencies=[Depends(dependency, scope="request")])(
        flavour.endpoint(adding("in the endpoint"))
    )

    reply, seen = await post(app, observer)

    assert (reply.status, reply.error, seen) == (200, None, ["in the endpoint"])
    assert observer.names() == ["in the endpoint", "after"]


# Every kind of dependency gets the one session


@only(*ASYNC)
async def test_nested_and_cached_async_dependencies_share_the_session(
    app: FastAPI, flavour: Flavour
) -> None:
    Injected = Annotated[Any, Depends(flavour.db.session)]

    async def inner(session: Injected) -> AsyncIterator[Any]:
        yield session

    async def outer(
        session: Annotated[Any, Depends(inner)], same: Injected
    ) -> AsyncIterator[Any]:
        yield [session, same]

    def threaded(session: Injected) -> Any:
        return session

    app.post("/")(sharing(flavour, inner, outer, threaded))

    assert (await call(app, "POST", "/")).json == 1


@only(*SYNC)
async def test_nested_and_cached_sync_dependencies_share_the_session(
    app: FastAPI, flavour: Flavour
) -> None:
    Injected = Annotated[Any, Depends(flavour.db.session)]

    def inner(session: Injected) -> Iterator[Any]:
        yield session

    def outer(session: Annotated[Any, Depends(inner)], same: Injected) -> Iterator[Any]:
        yield [session, same]

    async def on_the_loop(session: Injected) -> Any:
        return session

    app.post("/")(sharing(flavour, inner, outer, on_the_loop))

    assert (await call(app, "POST", "/")).json == 1


def sharing(flavour: Flavour, inner: Any, outer: Any, other: Any) -> Any:
    """An endpoint that counts the sessions that it is given."""

    def count(
        both: Annotated[Any, Depends(outer)],
        cached: Annotated[Any, Depends(inner)],
        fresh: Annotated[Any, Depends(inner, use_cache=False)],
        another: Annotated[Any, Depends(other)],
        own: Annotated[Any, Depends(flavour.db.session)],
    ) -> int:
        return len({*both, cached, fresh, another, own, flavour.db.current})

    return count


@pytest.mark.parametrize("outer", SCOPES)
async def test_nested_dependencies_are_torn_down_around_one_commit(
    app: FastAPI, flavour: Flavour, observer: Observer, outer: Any
) -> None:
    first = yielding(flavour, adding("1"), nothing)
    second = yielding(flavour, adding("2"), nothing)
    third = yielding(flavour, adding("3"), adding("4"))
    route = [
        Depends(first, scope="request"),
        Depends(second, scope=outer),
        Depends(third, scope="function"),
    ]
    app.post("/", dependencies=route)(flavour.endpoint(nothing))

    reply, seen = await post(app, observer)

    assert (reply.error, seen) == (None, ["1", "2", "3", "4"])


# What comes after the response


@everywhere
async def test_a_background_task_sees_the_work_but_can_not_use_the_session(
    app: FastAPI, flavour: Flavour
) -> None:
    noted: list[Any] = []

    async def task() -> None:
        noted.append(await flavour.work(names))
        with pytest.raises(SessionEndedError, match=r"db\.transaction\(\)"):
            await flavour.do(sessions[0], add_item)
        with pytest.raises(SessionEndedError, match=r"db\.transaction\(\)"):
            flavour.db.current.add(None)

    sessions: list[Any] = []

    @app.post("/")
    async def endpoint() -> Response:
        sessions.append(flavour.db.current)
        await flavour.do(flavour.db.current, add_item)
        return PlainTextResponse("ok", background=BackgroundTask(task))

    reply = await call(app, "POST", "/")

    assert (reply.error, noted) == (None, [["one"]])


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_stream_can_use_the_session_whichever_dependencies_are_gone(
    app: FastAPI, flavour: Flavour, observer: Observer, scope: Any
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        await flavour.do(flavour.db.current, adding("streamed"))
        yield b"b"

    def body(session: Session) -> Response:
        add_item(session)
        return StreamingResponse(chunks())

    depends = [Depends(yielding(flavour, nothing, nothing), scope=scope)]
    app.post("/", dependencies=depends)(flavour.endpoint(body))

    reply, seen = await post(app, observer)

    assert (reply.body, reply.error, seen) == (b"ab", None, ["one"])
    assert observer.names() == ["one", "streamed"]


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_generator_of_the_endpoint_can_use_the_session_that_was_injected(
    app: FastAPI, flavour: Flavour, observer: Observer, scope: Any
) -> None:
    dependency = yielding(flavour, adding("before"), nothing)

    @app.post("/", dependencies=[Depends(dependency, scope=scope)])
    async def endpoint(
        session: Annotated[Any, Depends(flavour.db.session)],
    ) -> AsyncIterator[int]:
        for number in range(3):
            await flavour.do(session, partial(add_item, name=f"chunk {number}"))
            yield number

    reply, _ = await post(app, observer)

    assert (reply.status, reply.error) == (200, None)
    assert observer.names() == ["before", "chunk 0", "chunk 1", "chunk 2"]
