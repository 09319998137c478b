"""The names of the databases of an application: each is of one database."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from .._session.database_core import DatabaseCore
from ..errors import UsageError

__all__ = ["DatabasesOf", "check_mounted", "joined"]

DatabasesOf: TypeAlias = Callable[[object], Iterable[DatabaseCore]]
"""The databases of a middleware; none for other things."""


def joined(
    names: dict[str, DatabaseCore], databases: Iterable[DatabaseCore]
) -> dict[str, DatabaseCore]:
    """*names* and those of *databases*. Raises `UsageError` if two have one name."""
    found = dict(names)
    for database in databases:
        if found.setdefault(database.name, database) is not database:
            raise UsageError(
                f"two databases are named {database.name!r}; give each its own name, "
                'such as AsyncDatabase(url, name="reports"), or, if both are the same '
                "one, the same object"
            )
    return found


def check_mounted(
    app: object, names: dict[str, DatabaseCore], databases_of: DatabasesOf
) -> None:
    """Check the middlewares of the applications that are mounted in *app*.

    A lifespan does not reach them. Raises `UsageError`.
    """
    for route in getattr(app, "routes", None) or ():
        inner = getattr(route, "app", None)
        if inner is None or inner is app:
            continue
        below = joined(names, databases_of(inner))
        for middleware in getattr(inner, "user_middleware", None) or ():
            below = joined(below, databases_of(middleware))
        check_mounted(inner, below, databases_of)
