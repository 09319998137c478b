"""Connections to PostgreSQL from outside, which this process keeps.

To connect takes longer than most of what tests look at through them.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import Any

import psycopg

Kept = psycopg.Connection[Any]

_kept: dict[tuple[int, str], Kept] = {}
"""By process and URL: a fork must not use those of its parent."""
_lock = Lock()


def _take_another_lock() -> None:
    global _lock
    _lock = Lock()


os.register_at_fork(after_in_child=_take_another_lock)


def query(url: str, sql: str) -> list[tuple[Any, ...]]:
    """Execute *sql* at once, by itself; connects again if the server has ended it."""
    with _lock:
        connection = _connection(url)
        try:
            return _execute(connection, sql)
        except psycopg.OperationalError:
            if not connection.closed:
                raise
            return _execute(_connection(url), sql)


def disconnect() -> None:
    """Close what this process keeps."""
    with _lock:
        for key in [key for key in _kept if key[0] == os.getpid()]:
            _kept.pop(key).close()


def _connection(url: str) -> Kept:
    key = (os.getpid(), url)
    if key not in _kept or _kept[key].closed:
        _kept[key] = psycopg.connect(url, autocommit=True)
    return _kept[key]


def _execute(connection: Kept, sql: str) -> list[tuple[Any, ...]]:
    cursor = connection.execute(sql)
    return cursor.fetchall() if cursor.description else []
