"""A database whose source makes an option engine for each tenant."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from sqlalchemy import Engine

from support.engines import over
from support.flavours import Flavour
from support.models import names


def many_tenants(flavour: Flavour) -> Flavour:
    """The database of *flavour*, by another option engine for each call."""
    numbers = count()

    def source() -> Any:
        return flavour.db.engine.execution_options(tenant=next(numbers))

    return over(flavour, source)


def count_listeners(engine: Engine) -> int:
    """All listeners of the pool, the connections and the dialect of *engine*."""
    return sum(
        len(list(getattr(dispatch, name)))
        for dispatch in (engine.pool.dispatch, engine.dispatch, engine.dialect.dispatch)
        for name in _event_names(dispatch)
    )


def _event_names(dispatch: Any) -> Iterator[str]:
    return (each.name for each in dispatch._event_descriptors)


async def use(flavour: Flavour, times: int) -> None:
    for _ in range(times):
        await flavour.work(names)
