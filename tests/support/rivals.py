"""Another client of MariaDB, and how to lose against it: the errors are real."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pymysql
from sqlalchemy import make_url, text
from sqlalchemy.orm import Session

from support.flavours import Flavour, connect_mariadb
from support.models import names
from unitwork import SessionStateWarning

Rival = pymysql.Connection
Lose = Callable[[Session, Rival], None]

MANY = ", ".join(f"('theirs {number}')" for number in range(100))


@contextmanager
def rival(flavour: Flavour) -> Iterator[Rival]:
    """Another client, with two items that were not changed yet."""
    with connect_mariadb(make_url(flavour.url)) as other:
        other.query("SET innodb_lock_wait_timeout = 5")  # and not without end
        other.query("INSERT INTO item (name) VALUES ('red'), ('blue')")
        yield other


def write(session: Session, name: str) -> None:
    """Change a row that the rival wants to change, or has changed."""
    session.execute(text(f"UPDATE item SET name = 'my {name}' WHERE name = '{name}'"))


def lose_deadlock(session: Session, other: Rival) -> None:
    """1213. InnoDB spares the one that has written more."""
    write(session, "red")
    other.begin()
    other.query(f"INSERT INTO item (name) VALUES {MANY}")
    other.query("UPDATE item SET name = 'theirs' WHERE name = 'blue'")
    with ThreadPoolExecutor() as thread:
        waits = "UPDATE item SET name = 'theirs as well' WHERE name = 'red'"
        waiting = thread.submit(other.query, waits)
        try:
            write(session, "blue")
        finally:
            waiting.result()
            other.rollback()


def lose_race(session: Session, other: Rival) -> None:
    """1020: the row is not what it was in this transaction's snapshot."""
    set_for_this_connection(session, "innodb_snapshot_isolation = ON")
    names(session)
    other.query("UPDATE item SET name = 'theirs' WHERE name = 'red'")
    write(session, "red")
    session.execute(text("UPDATE item SET name = 'mine' WHERE name = 'theirs'"))


def lose_patience(session: Session, other: Rival) -> None:
    """1205: the row is locked, and not to be had in time."""
    set_for_this_connection(session, "innodb_lock_wait_timeout = 0")
    other.begin()
    other.query("UPDATE item SET name = 'theirs' WHERE name = 'red'")
    try:
        write(session, "red")
    finally:
        other.rollback()


def set_for_this_connection(session: Session, setting: str) -> None:
    """Change a setting of MariaDB; its connection is dropped after the unit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SessionStateWarning)
        session.execute(text(f"SET {setting}"))
