"""The token of a client's writes: read when it is needed, sent with the response."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from .._callables import returned_plainly
from .._replicas.position import Positions, decode, encode, merged
from ..errors import UsageError
from .carriers import TokenCarrier
from .types import Message, Scope, Send

__all__ = ["carrying", "positions_of"]

log = logging.getLogger("unitwork")


class _Config(Protocol):
    @property
    def carrier(self) -> TokenCarrier | None: ...


class _Connection(Protocol):
    @property
    def config(self) -> _Config: ...

    @property
    def written(self) -> Positions: ...

    def given_positions(self) -> Positions: ...


def positions_of(carrier: TokenCarrier, scope: Mapping[str, Any]) -> Positions:
    """What the client of *scope* has to see; nothing if its token is none."""
    token = carrier.read(scope)
    if type(token) is not str:
        returned_plainly("read() of a TokenCarrier", token)
    if not token:
        return {}
    try:
        return decode(token)
    except UsageError:  # of another version of unitwork, or not ours
        return {}


def carrying(connection: _Connection, scope: Scope, send: Send) -> Send:
    """A `send` that adds the token of what was written to the start of a response."""
    carrier = connection.config.carrier
    assert carrier is not None

    async def send_with_token(message: Message) -> None:
        if message["type"] == "http.response.start" and connection.written:
            own = message.get("headers", ())
            message = {**message, "headers": [*own, *_headers(connection, scope)]}
        await send(message)

    return send_with_token


def _headers(connection: _Connection, scope: Scope) -> list[tuple[bytes, bytes]]:
    """Those with the token; none if the carrier fails: what it is for is stored."""
    carrier = connection.config.carrier
    assert carrier is not None
    try:
        positions = merged(connection.given_positions(), connection.written)
        headers = carrier.write(scope, encode(positions))
        return [(bytes(name), bytes(value)) for name, value in headers]
    except Exception:
        log.exception("the token of a client's write is lost: its carrier has failed")
        return []
