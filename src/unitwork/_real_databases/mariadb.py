"""Databases of tests on MariaDB: made once, and emptied after each use.

MariaDB can't clone, and to create a table takes as long as hundreds of statements. So
a used database is emptied, and gets back the rows that it began with. Where a test has
changed its tables themselves, it is dropped, and another one is made.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from ..errors import UsageError
from .admin import Admin
from .provisioning import (
    PREFIX,
    ProvisionedDatabase,
    Provisioning,
    is_kept_elsewhere,
    project,
    today,
)

__all__ = ["MariaDBProvisioner"]

_AUTO_INCREMENT = re.compile(r" AUTO_INCREMENT=\d+")
_MAY_NOT = (
    "{user!r} may not create databases on this server, and tests with a real database "
    "need them: GRANT ALL ON `unitwork\\_test\\_%`.* TO {user!r}"
)
_NO_MYSQL = (
    "MySQL keeps no comment of a database, by which the test kit knows its own; tests "
    "with a real database need MariaDB, PostgreSQL or SQLite"
)
_DENIED = {1044, 1142, 1227}


class _Content(NamedTuple):
    """What makes a database new: its definitions, and the tables with rows."""

    definitions: tuple[str, ...]
    tables: dict[str, list[str]]
    """The columns of each table that can be written."""
    filled: frozenset[str]


class MariaDBProvisioner:
    """Makes databases, and empties them.

    Names begin with `unitwork_test_`, and the comment of a database holds the key of
    its run, which has a lock of that name for as long as it lives.
    """

    ahead = 2
    recycles = True

    def __init__(self, provisioning: Provisioning) -> None:
        self._provisioning = provisioning
        self._url, self._key = provisioning.url, provisioning.key
        self._count = 0
        self._pristine = ""
        """A database with the rows that a new one has, if it has any."""
        self._content = _Content((), {}, frozenset())
        self._admin = Admin(self._url.set(database=""))

    def prepare(self) -> None:
        if not self._admin.run(lambda c: getattr(c.dialect, "is_mariadb", False)):
            raise UsageError(_NO_MYSQL)
        self._admin.rows(f"SELECT GET_LOCK('{PREFIX}{self._key}', 10)")
        self._remove_stale()

    # Databases

    def make(self) -> ProvisionedDatabase:
        database = self._make()
        if not self._content.definitions:
            self._content = self._content_of(str(database.url.database))
            if self._content.filled:
                self._pristine = str(database.url.database)
                database = self._make()
        return database

    def _make(self) -> ProvisionedDatabase:
        name = f"{PREFIX}{self._key}_{self._count}"
        self._count += 1
        try:
            self._admin.rows(f"CREATE DATABASE {name} COMMENT '{self._mark('used')}'")
        except DBAPIError as error:
            if next(iter(getattr(error.orig, "args", ())), None) in _DENIED:
                raise UsageError(_MAY_NOT.format(user=self._url.username)) from error
            raise
        url = self._url.set(database=name)
        self._provisioning.fill(url)
        return ProvisionedDatabase(url)

    def recycle(self, database: ProvisionedDatabase) -> bool:
        name = str(database.url.database)
        now = self._content_of(name)
        if now.definitions != self._content.definitions:
            self.remove(database)
            return False
        rows = self._admin.rows
        rows(f"USE {name}")
        rows("SET SESSION foreign_key_checks = 0, lock_wait_timeout = 10")
        for table in now.filled | self._content.filled:
            rows(f"DELETE FROM `{table}`")
        for table in self._content.filled:
            columns = ", ".join(f"`{column}`" for column in now.tables[table])
            source = f"`{self._pristine}`.`{table}`"
            rows(f"INSERT INTO `{table}` ({columns}) SELECT {columns} FROM {source}")
        for table in self._advanced(name):
            rows(f"ALTER TABLE `{table}` AUTO_INCREMENT = 1")
        rows("SET SESSION foreign_key_checks = 1")
        return True

    def remove(self, database: ProvisionedDatabase) -> None:
        self._admin.rows(f"DROP DATABASE IF EXISTS {database.url.database}")

    def keep(self, database: ProvisionedDatabase) -> None:
        comment = self._mark("kept")
        self._admin.rows(f"ALTER DATABASE {database.url.database} COMMENT '{comment}'")

    def close(self) -> None:
        if self._pristine:
            self._admin.rows(f"DROP DATABASE IF EXISTS {self._pristine}")
        self._admin.close()

    # What a database contains

    def _content_of(self, name: str) -> _Content:
        rows = self._admin.rows
        kinds = rows(f"SHOW FULL TABLES FROM {name}")
        tables: dict[str, list[str]] = {
            str(table): [] for table, kind in kinds if kind == "BASE TABLE"
        }
        shown = [rows(f"SHOW CREATE TABLE {name}.`{table}`") for table, _ in kinds]
        definitions = [_AUTO_INCREMENT.sub("", str(row[1])) for [row] in shown]
        of_it = f"= '{name}'"
        definitions += [
            str(row)
            for row in rows(
                "SELECT trigger_name, action_statement FROM information_schema.triggers"
                f" WHERE trigger_schema {of_it} UNION ALL SELECT routine_name,"
                " routine_definition FROM information_schema.routines"
                f" WHERE routine_schema {of_it} ORDER BY 1"
            )
        ]
        for table, column in rows(
            "SELECT table_name, column_name FROM information_schema.columns"
            f" WHERE table_schema {of_it} AND generation_expression IS NULL"
        ):
            if table in tables:
                tables[str(table)].append(str(column))
        return _Content(tuple(definitions), tables, self._filled(name, tables))

    def _filled(self, name: str, tables: dict[str, list[str]]) -> frozenset[str]:
        if not tables:
            return frozenset()
        selects = [
            f"SELECT '{table}' FROM DUAL WHERE EXISTS (SELECT 1 FROM {name}.`{table}`)"
            for table in tables
        ]
        return frozenset(
            str(row[0]) for row in self._admin.rows(" UNION ".join(selects))
        )

    def _advanced(self, name: str) -> list[str]:
        """The tables whose next number is not that of a new database."""
        found = self._admin.rows(
            "SELECT table_name, auto_increment FROM information_schema.tables"
            f" WHERE table_schema = '{name}' AND auto_increment > 1"
        )
        return [str(table) for table, _ in found]

    # Marks, and what crashed runs have left

    def _mark(self, kind: str) -> str:
        mark = {"key": self._key, "used": today(), "project": project()}
        return json.dumps({"unitwork": kind, **mark})

    def _remove_stale(self) -> None:
        found = self._admin.rows(
            "SELECT schema_name, schema_comment FROM information_schema.schemata"
            f" WHERE left(schema_name, {len(PREFIX)}) = '{PREFIX}'"
        )
        for name, comment in found:
            with suppress(DBAPIError, ValueError, KeyError, TypeError):
                self._remove_if_stale(str(name), json.loads(comment))

    def _remove_if_stale(self, name: str, mark: dict[str, str]) -> None:
        if is_kept_elsewhere(mark):
            return
        lock = f"'{PREFIX}{mark['key']}'"
        [(is_free,)] = self._admin.rows(f"SELECT IS_FREE_LOCK({lock})")
        if is_free:
            self._admin.rows(f"DROP DATABASE IF EXISTS {name}")
