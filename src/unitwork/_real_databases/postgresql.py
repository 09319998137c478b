"""Databases of tests on PostgreSQL: clones of a template.

Sources: PostgreSQL, "CREATE DATABASE", "Template Databases", "Advisory Lock Functions".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy.exc import DBAPIError

from ..errors import UsageError
from .admin import Admin
from .provisioning import (
    PREFIX,
    ProvisionedDatabase,
    Provisioning,
    is_kept_elsewhere,
    is_old,
    project,
    today,
)

__all__ = ["PostgreSQLProvisioner"]

_TEMPLATE = f"{PREFIX}template_"
_MAY_NOT = (
    "{role!r} may not create databases on {server}, and each test with a real database "
    'needs one: ALTER ROLE "{role}" CREATEDB'
)
_FILE_COPY = 15
"""The version from which on CREATE DATABASE has strategies."""


class PostgreSQLProvisioner:
    """Clones a template that is made once for each content, and used by all runs.

    Names begin with `unitwork_test_`, and a comment of the database holds the key of
    its run, which has an advisory lock on it for as long as it lives. A database of
    that name whose comment is not ours is left alone.
    """

    ahead = 3
    recycles = False

    def __init__(self, provisioning: Provisioning) -> None:
        self._provisioning = provisioning
        self._url, self._key = provisioning.url, provisioning.key
        content = (
            provisioning.schema.fingerprint or f"of_run_{provisioning.run or self._key}"
        )
        self._template = _TEMPLATE + content
        self._count = 0
        self._admin, self._version = self._connected()

    def _connected(self) -> tuple[Admin, int]:
        """Connect to a database that is there: advisory locks belong to that one."""
        failure: Exception | None = None
        for name in ("postgres", self._url.database, "template1"):
            try:
                admin = Admin(self._url.set(database=name))
            except Exception as error:
                failure = failure or error
                continue
            [(version,)] = admin.rows("SELECT current_setting('server_version_num')")
            return admin, int(version) // 10_000
        assert failure is not None
        raise failure

    def prepare(self) -> None:
        self._check_role()
        self._admin.rows(f"SELECT pg_advisory_lock({_lock_of(self._key)})")
        self._remove_stale()
        self._get_template()

    def _check_role(self) -> None:
        [(role, may)] = self._admin.rows(
            "SELECT current_user, rolcreatedb OR rolsuper FROM pg_roles"
            " WHERE rolname = current_user"
        )
        if not may:
            server = self._url.set(database="").render_as_string(hide_password=True)
            raise UsageError(_MAY_NOT.format(role=role, server=server))

    # Clones

    def make(self) -> ProvisionedDatabase:
        name = f"{PREFIX}{self._key}_{self._count}"
        self._count += 1
        try:
            self._clone(name)
        except DBAPIError:
            self._get_template()  # another run may have dropped it
            self._clone(name)
        return ProvisionedDatabase(self._url.set(database=name))

    def _clone(self, name: str) -> None:
        strategy = " STRATEGY FILE_COPY" if self._version >= _FILE_COPY else ""
        self._admin.rows(f"CREATE DATABASE {name} TEMPLATE {self._template}{strategy}")
        self._mark(name, "clone", key=self._key)

    def recycle(self, database: ProvisionedDatabase) -> bool:
        self.remove(database)
        return False

    def remove(self, database: ProvisionedDatabase) -> None:
        force = " WITH (FORCE)" if self._version >= 13 else ""
        self._admin.rows(f"DROP DATABASE IF EXISTS {database.url.database}{force}")

    def keep(self, database: ProvisionedDatabase) -> None:
        assert database.url.database is not None
        more = {"used": today(), "project": project()}
        self._mark(database.url.database, "kept", key=self._key, **more)

    def close(self) -> None:
        self._admin.rows("SELECT pg_advisory_unlock_all()")  # now, and not a bit later
        self._admin.close()

    # The template

    def _get_template(self) -> None:
        with self._locked(self._template):
            mark = self._marks().get(self._template)
            if mark is None or mark["unitwork"] != "template":
                self._make_template()
            if mark is None or mark.get("used") != today():
                self._mark(self._template, "template", used=today(), key=self._of_run)

    @property
    def _of_run(self) -> str:
        """The key of the run that the template ends with; none if it is for all."""
        return "" if self._provisioning.schema.fingerprint else self._key

    def _make_template(self) -> None:
        name = self._template
        self._drop_template(name)
        self._admin.rows(f"CREATE DATABASE {name}")
        self._mark(name, "unfinished", key=self._key)
        url = self._url.set(database=name)
        self._provisioning.fill(url)
        # Nothing can connect to it: that would keep it from being cloned.
        self._admin.rows(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")

    def _drop_template(self, name: str) -> None:
        self._admin.rows(f"DROP DATABASE IF EXISTS {name}")

    # Marks, and what crashed runs have left

    def _mark(self, name: str, kind: str, **more: str) -> None:
        mark = json.dumps({"unitwork": kind, **more})
        self._admin.rows(f"COMMENT ON DATABASE {name} IS '{mark}'")

    def _marks(self) -> dict[str, dict[str, str]]:
        """The marks of the databases that are ours, by their names."""
        found = self._admin.rows(
            "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
            f" WHERE left(datname, {len(PREFIX)}) = '{PREFIX}'"
        )
        marks = {}
        for name, comment in found:
            with suppress(ValueError, TypeError):
                mark = json.loads(comment)
                if isinstance(mark, dict) and "unitwork" in mark:
                    marks[str(name)] = mark
        return marks

    def _remove_stale(self) -> None:
        for name, mark in self._marks().items():
            # Another run removes it, or a user looks at it.
            with suppress(DBAPIError, KeyError, ValueError):
                self._remove_if_stale(name, mark)

    def _remove_if_stale(self, name: str, mark: dict[str, str]) -> None:
        if mark["unitwork"] == "template" and not mark.get("key"):
            if name != self._template and is_old(mark["used"]):
                with self._locked(name):
                    self._drop_template(name)
            return
        if is_kept_elsewhere(mark):
            return
        lock = _lock_of(mark["key"])
        [(is_over,)] = self._admin.rows(f"SELECT pg_try_advisory_lock({lock})")
        if not is_over:
            return
        try:
            if mark["key"] != self._key:
                self._admin.rows(f"DROP DATABASE IF EXISTS {name}")
        finally:
            self._admin.rows(f"SELECT pg_advisory_unlock({lock})")

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        lock = _lock_of(name)
        self._admin.rows(f"SELECT pg_advisory_lock({lock})")
        try:
            yield
        finally:
            self._admin.rows(f"SELECT pg_advisory_unlock({lock})")


def _lock_of(name: str) -> int:
    digest = hashlib.sha256(f"unitwork {name}".encode()).digest()
    return int.from_bytes(digest[:8], signed=True)
