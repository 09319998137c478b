"""Messages of every kind that an application may send."""

from __future__ import annotations

from typing import Any

import pytest

from support.asgi import Message, call
from support.flavours import Flavour, Observer
from support.models import add_item
from unitwork import DBSessionMiddleware

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}
HINT = {"type": "http.response.early_hint", "links": []}
DEBUG = {"type": "http.response.debug", "info": {}}
TRAILERS = {"type": "http.response.trailers", "headers": [], "more_trailers": False}
PATH = {"type": "http.response.pathsend", "path": "/etc/hostname"}


def chunk(more: bool) -> Message:
    return {"type": "http.response.body", "body": b"x", "more_body": more}


def zero_copy(more: bool) -> Message:
    return {"type": "http.response.zerocopysend", "file": 0, "more_body": more}


EXCHANGES: dict[str, tuple[list[Message], int, int]] = {
    # What is sent, which of it must wait for the first COMMIT, which for the second.
    "early hints": ([HINT, HINT, START, chunk(True), chunk(False)], 2, 4),
    "debug": ([DEBUG, START, chunk(False)], 1, 2),
    "trailers": ([{**START, "trailers": True}, chunk(False), TRAILERS], 0, 1),
    "pathsend": ([START, PATH], 0, 1),
    "zerocopysend": ([START, zero_copy(True), zero_copy(False)], 0, 2),
}


@pytest.mark.parametrize(
    ("messages", "start", "last"), EXCHANGES.values(), ids=EXCHANGES
)
async def test_messages_of_every_kind_pass_in_order(
    flavour: Flavour,
    observer: Observer,
    messages: list[Message],
    start: int,
    last: int,
) -> None:
    seen: list[list[str]] = []

    async def app(scope: Message, receive: Any, send: Any) -> None:
        session = await flavour.db.session(scope)
        await flavour.do(session, lambda s: add_item(s, "before").id)
        for number, message in enumerate(messages):
            if number == last:
                await flavour.do(session, lambda s: add_item(s, "within").id)
            await send(message)

    reply = await call(
        DBSessionMiddleware(app, flavour.db),
        "POST",
        "/",
        on_message=lambda message: seen.append(observer.names()),
    )

    assert reply.error is None
    assert reply.messages == messages
    stored = [[], ["before"], ["before", "within"]]
    assert seen == [stored[(n >= start) + (n >= last)] for n in range(len(messages))]
