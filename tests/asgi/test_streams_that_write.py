"""Responses that start while a cursor is open, in a transaction that has written."""

from __future__ import annotations

from contextlib import suppress

import pytest
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from support.driver import INSERT, send
from support.flavours import POSTGRESQL, only
from support.streams import STREAMING, Streams, abandons_cursors
from unitwork import current_unit

pytestmark = pytest.mark.anyio


@abandons_cursors
@only(*STREAMING)
async def test_an_open_cursor_does_not_put_off_the_commit_of_an_error_response(
    streams: Streams,
) -> None:
    @streams.app.post("/")
    async def endpoint() -> None:
        streams.kept = await streams.open()
        await streams.write("d")
        current_unit().commit_anyway()
        raise HTTPException(409)

    reply = await streams.call()

    assert reply.status == 409
    assert streams.at_start == ["a", "b", "c", "d"]


@abandons_cursors
@only("asyncpg")
async def test_and_is_no_reason_to_hide_that_it_was_lost(streams: Streams) -> None:
    @streams.app.post("/")
    async def endpoint() -> None:
        streams.kept = await streams.open()
        await streams.write("d")
        current_unit().commit_anyway()
        with suppress(DBAPIError):
            await streams.flavour.do(streams.flavour.db.current, fail)
        raise HTTPException(409)

    reply = await streams.call()

    assert (reply.status, streams.observer.names()) == (500, ["a", "b", "c"])


def fail(session: Session) -> None:
    session.execute(text("SELECT no_such_thing"))


@abandons_cursors
@only(*POSTGRESQL)
async def test_a_transaction_that_the_driver_has_replaced_is_not_streamed_from(
    streams: Streams,
) -> None:
    def replace(session: Session) -> None:
        send(session, INSERT)
        send(session, "ROLLBACK; BEGIN")

    @streams.app.post("/")
    async def endpoint() -> StreamingResponse:
        rows = streams.kept = await streams.open()
        await streams.flavour.do(streams.flavour.db.current, replace)
        del rows
        return StreamingResponse(iter("done"))

    reply = await streams.call()

    assert (reply.status, streams.observer.names()) == (500, ["a", "b", "c"])
