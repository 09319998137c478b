"""What is done to two databases that commit together."""

from __future__ import annotations

import asyncio

import psycopg
import pymysql
import pytest
from sqlalchemy import make_url
from sqlalchemy.orm import Session

from support.models import add_item
from support.pairs import Pair, Side
from unitwork import arecover

NOTHING: tuple[list[str], list[str]] = ([], [])
ALL = (["one"], ["one"])
SOME = (("psycopg", "psycopg"), ("asyncpg", "asyncmy"), ("pymysql", "asyncmy"))


def only_pairs(*pairs: tuple[str, str]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("pair", pairs, indirect=True, ids="+".join)


def add(session: Session) -> None:
    add_item(session)


async def recover_all(pair: Pair) -> list[str]:
    """Recover until nothing is left; the server may notice a lost client late."""
    done: list[str] = []

    async def look() -> None:
        while pair.prepared():
            found = await arecover(*pair.databases, min_age=0)
            done.extend(f"{f.database} {f.action}" for f in found if f.action != "left")

    async with asyncio.timeout(10):
        await look()
    return done


def back_in_reach(side: Side) -> None:
    side.proxy.refusing = 0


def end_what_is_left(pair: Pair) -> None:
    """Roll back what *pair* has prepared; MariaDB lists what others have as well."""
    ours = set(pair.prepared())
    for side in pair.sides:
        for name in ours & set(side.prepared()):
            end_by_hand(side, name)


def end_by_hand(side: Side, name: str) -> bool:
    try:
        if side.is_mariadb:
            side.observer._query(f"XA ROLLBACK '{name}'")
        else:
            plain = make_url(side.direct).set(drivername="postgresql")
            url = plain.render_as_string(False)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(f"ROLLBACK PREPARED '{name}'")
    except pymysql.err.OperationalError:  # its connection has yet to end
        return False
    return True
