"""Flavours of a database with two replicas, and from which server a unit reads."""

from __future__ import annotations

from typing import Any

from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from servers.postgresql_replication import Replication
from support.flavours import FLAVOURS, Flavour, kind_of
from unitwork import DatabaseSettings

SECRET = "a secret of the tests, the same everywhere"


def with_driver(url: str, name: str) -> str:
    return make_url(url).set(drivername=FLAVOURS[name]).render_as_string(False)


def replicated_flavour(
    name: str, servers: Replication, *, replicas: Any = None, **options: Any
) -> Flavour:
    """A database of *servers*; the *options* are settings, or those of the engine."""
    known = DatabaseSettings.__dataclass_fields__
    settings = {key: options.pop(key) for key in list(options) if key in known}
    url = with_driver(servers.primary_url, name)
    if replicas is None:
        replicas = [with_driver(each, name) for each in servers.replica_urls]
    db = kind_of(name)(
        url, replicas=replicas, settings=DatabaseSettings(**settings), **options
    )
    return Flavour(name, url, db)


def port(session: Session) -> int:
    """That of the server from which *session* reads."""
    return int(session.scalar(text("SELECT inet_server_port()")) or 0)


def is_replica(session: Session) -> bool:
    return bool(session.scalar(text("SELECT pg_is_in_recovery()")))


def port_of(url: str) -> int:
    return make_url(url).port or 0


async def token_of_write(flavour: Flavour, name: str) -> str:
    """Write an item; the token of that."""
    from support.models import add_item
    from unitwork import current_unit

    units = []

    def write(session: Session) -> None:
        add_item(session, name)
        units.append(current_unit())

    await flavour.work(write)
    token = units[0].token
    assert token is not None
    return token
