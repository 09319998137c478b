"""P3: a listener that raises after COMMIT does not make a failure of it."""

from __future__ import annotations

import pytest
from sqlalchemy import event
from sqlalchemy.orm import Session

from support.flavours import Flavour, Observer, everywhere
from support.models import add_item
from support.swallowing import post_noting_unit
from unitwork import Outcome

pytestmark = pytest.mark.anyio


@everywhere
async def test_the_response_is_complete(flavour: Flavour, observer: Observer) -> None:
    def listener(session: Session) -> None:
        raise LookupError

    def body(session: Session) -> None:
        add_item(session)
        event.listen(session, "after_commit", listener)

    reply, unit = await post_noting_unit(flavour, body)

    assert (reply.status, reply.error, reply.complete) == (200, None, True)
    assert unit.outcome is Outcome.COMMITTED
    assert observer.names() == ["one"]
