"""Databases of tests, and the protocol of what provides them."""

from __future__ import annotations

import datetime
import hashlib
import secrets
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.engine import URL

from .admin import Admin
from .schema import Schema

if TYPE_CHECKING:
    import sqlite3

__all__ = [
    "PREFIX",
    "ProvisionedDatabase",
    "Provisioner",
    "Provisioning",
    "is_kept_elsewhere",
    "is_old",
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


def is_kept_elsewhere(mark: Mapping[str, str]) -> bool:
    """Whether a database with this *mark* is kept for the tests of another project."""
    if mark["unitwork"] != "kept" or mark["project"] == project():
        return False
    return not is_old(mark["used"])


@dataclass(frozen=True, slots=True)
class ProvisionedDatabase:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """What a provisioner makes its databases from.

    *url* is that of the application; *redirected_to* sends its engine to another
    database in a block; *key* is in the names; *run* is the same for all processes of
    one run of pytest-xdist.
    """

    url: URL
    schema: Schema
    redirected_to: Callable[[URL], AbstractContextManager[None]]
    key: str = field(default_factory=new_key)
    run: str | None = None

    def fill(self, url: URL) -> None:
        """Create the content of the empty database at *url*."""
        with self.redirected_to(url.set(drivername=self.url.drivername)):
            self.schema.migrate(url.set(drivername=self.url.drivername))
        admin = Admin(url, autocommit=False)
        try:
            admin.run(self.schema.create)
            admin.run(lambda connection: connection.commit())
        finally:
            admin.close()


class Provisioner(Protocol):
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

    def make(self) -> ProvisionedDatabase:
        """Make a new database."""
        ...

    def recycle(self, database: ProvisionedDatabase) -> bool:
        """Make *database* as good as new, or remove it; return whether it is new."""
        ...

    def remove(self, database: ProvisionedDatabase) -> None: ...

    def keep(self, database: ProvisionedDatabase) -> None:
        """Leave it to the user: neither this run nor a parallel one removes it."""
        ...

    def close(self) -> None: ...
