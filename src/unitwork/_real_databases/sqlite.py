"""Databases of tests in SQLite: copies of a file, or of a database in memory."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sqlalchemy.engine import URL

from .._engine.sqlite import in_memory
from .provisioning import PREFIX, ProvisionedDatabase, Provisioning

__all__ = ["SQLiteProvisioner"]


class SQLiteProvisioner:
    """Copies a template: a file of this process, in a folder that it removes."""

    ahead = 2
    recycles = False

    def __init__(self, provisioning: Provisioning) -> None:
        self._provisioning = provisioning
        self._url, self._key = provisioning.url, provisioning.key
        self._count = 0
        self._has_kept = False
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._template = self._folder / "template.db"
        self._memory: sqlite3.Connection | None = None

    def prepare(self) -> None:
        # With sqlite3, which is always there; the driver of the URL may be async.
        url = URL.create("sqlite", database=str(self._template))
        self._provisioning.fill(url)
        with closing(sqlite3.connect(self._template)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # all in one file
        if in_memory(self._url):
            self._memory = sqlite3.connect(":memory:", check_same_thread=False)
            with closing(sqlite3.connect(self._template)) as connection:
                connection.backup(self._memory)

    def make(self) -> ProvisionedDatabase:
        name = f"{PREFIX}{self._key}_{self._count}"
        self._count += 1
        if self._memory is None:
            path = self._folder / f"{name}.db"
            shutil.copyfile(self._template, path)
            return ProvisionedDatabase(self._url.set(database=str(path)))
        # The URI of SQLite's memdb: all connections of this process have one database.
        held = sqlite3.connect(
            f"file:/{name}?vfs=memdb", uri=True, check_same_thread=False
        )
        self._memory.backup(held)
        options = {"uri": "true", "check_same_thread": "false"}
        query = {**self._url.query, **options, "vfs": "memdb"}
        query = {k: v for k, v in query.items() if k not in ("mode", "cache")}
        url = self._url.set(database=f"file:/{name}", query=query)
        kept_as = URL.create("sqlite", database=str(self._folder / f"{name}.db"))
        return ProvisionedDatabase(url, held, kept_as)

    def recycle(self, database: ProvisionedDatabase) -> bool:
        self.remove(database)
        return False

    def remove(self, database: ProvisionedDatabase) -> None:
        if database.held is not None:
            database.held.close()
        else:
            for end in ("", "-wal", "-shm", "-journal"):
                Path(f"{database.url.database}{end}").unlink(missing_ok=True)

    def keep(self, database: ProvisionedDatabase) -> None:
        """Leave its file; a database in memory is written into one."""
        self._has_kept = True
        if database.held is not None:
            path = "" if database.kept_as is None else database.kept_as.database
            with closing(sqlite3.connect(path or "")) as connection:
                database.held.backup(connection)
            database.held.close()

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()
        self._template.unlink(missing_ok=True)
        if not self._has_kept:
            shutil.rmtree(self._folder, ignore_errors=True)
