"""The databases of tests, and what makes them."""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.engine import URL

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "PREFIX",
    "MadeDatabase",
    "Maker",
    "is_old",
    "is_spared",
    "new_key",
    "project",
    "today",
]

PREFIX = "unitwork_test_"
"""What the names of databases begin with that the test kit may drop."""
_OLD = 7  # days without use, after which what another project has left is dropped


def new_key() -> str:
    """A name for one process of one run, in the names of its databases."""
    return secrets.token_hex(5)


def project() -> str:
    """What distinguishes the tests of this project from others on the same server."""
    return hashlib.sha256(str(Path.cwd()).encode()).hexdigest()[:10]


def today() -> str:
    return datetime.date.today().isoformat()


def is_old(day: str) -> bool:
    age = datetime.date.today() - datetime.date.fromisoformat(day)
    return age.days > _OLD


def is_spared(mark: Mapping[str, str]) -> bool:
    """Whether a database with this *mark* is kept for the tests of another project."""
    if mark["unitwork"] != "kept" or mark["project"] == project():
        return False
    return not is_old(mark["used"])


@dataclass(frozen=True, slots=True)
class MadeDatabase:
    """A database that has been made for tests.

    *held* keeps one in memory alive; *kept_as* is what is left of it, if it is kept.
    """

    url: URL
    held: sqlite3.Connection | None = None
    kept_as: URL | None = None

    @property
    def address(self) -> str:
        """Where to find it once it is kept: a URL, without the password."""
        return (self.kept_as or self.url).render_as_string(hide_password=True)


class Maker(Protocol):
    """Makes databases with the same content. Used in one thread."""

    @property
    def ahead(self) -> int:
        """How many databases to make before they are needed."""
        ...

    @property
    def recycles(self) -> bool:
        """Whether a used database is made new more quickly than another one."""
        ...

    def prepare(self) -> None:
        """Connect, remove what runs that have crashed left, and get a template."""
        ...

    def make(self) -> MadeDatabase:
        """Make a new database."""
        ...

    def recycle(self, made: MadeDatabase) -> bool:
        """Make *made* as good as new, or remove it; return whether it is new."""
        ...

    def remove(self, made: MadeDatabase) -> None: ...

    def keep(self, made: MadeDatabase) -> None:
        """Leave *made* to the user: neither this run nor a parallel one removes it."""
        ...

    def close(self) -> None: ...
