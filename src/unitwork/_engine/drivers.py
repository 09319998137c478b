"""What to write, and to install, for the databases that unitwork knows."""

from __future__ import annotations

__all__ = ["ASYNC_DRIVERS", "missing_driver", "remedy_for_name", "two_slashes"]

ASYNC_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgresql": "postgresql+asyncpg or postgresql+psycopg",
    "mysql": "mysql+asyncmy",
    "mariadb": "mariadb+asyncmy",
}
_EXTRAS = {
    "aiosqlite": "sqlite",
    "asyncpg": "postgresql",
    "psycopg": "postgresql",
    "asyncmy": "mysql",
    "pymysql": "mysql",
}
_DEFAULTS = {
    "psycopg2": ("psycopg2-binary", "postgresql+psycopg", "postgresql"),
    "MySQLdb": ("mysqlclient", "mysql+pymysql", "mysql"),
}
"""Drivers that SQLAlchemy takes where the URL names none: the package, and others."""
_ALIASES = {"postgres": "postgresql", "pgsql": "postgresql", "sqlite3": "sqlite"}


def missing_driver(name: str, module: str) -> str:
    """The message for a URL whose driver, a *module*, is not installed."""
    found = f"{name!r} needs the package {module!r}, which is not installed: "
    if module in _EXTRAS:
        return f"{found}pip install 'unitwork[{_EXTRAS[module]}]'"
    if module not in _DEFAULTS:
        return f"{found}pip install {module}"
    package, other, extra = _DEFAULTS[module]
    return (
        f"{found}pip install {package}, or write {other}:// and "
        f"pip install 'unitwork[{extra}]'"
    )


def remedy_for_name(name: str, *, is_async: bool) -> str:
    """What to write in place of *name*, of an unknown database or driver."""
    named = name.partition("+")[0]
    backend = _ALIASES.get(named, named)
    if backend not in ASYNC_DRIVERS:
        return ""
    known = ASYNC_DRIVERS[backend] if is_async else backend
    return f"; write {known}"


def two_slashes(name: str) -> str:
    """The message for a URL of SQLite with a host in it: it lacks a slash."""
    return (
        f"the database URL can't be used: after {name}: come three slashes and a file "
        f"({name}:///items.db), or four and an absolute path ({name}:////var/items.db)"
    )
