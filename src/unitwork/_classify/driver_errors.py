"""Reads a driver's exception: the kind of database, the code, a lost connection.

No driver is imported: each is known by the module of its exceptions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .error_codes import SQLITE_MESSAGES

__all__ = ["ErrorContents", "read"]

_FAMILIES = {
    **dict.fromkeys(("asyncpg", "pg8000", "psycopg", "psycopg2"), "postgresql"),
    **dict.fromkeys(("MySQLdb", "aiomysql", "asyncmy", "pymysql"), "mysql"),
    **dict.fromkeys(("mariadb", "mysql"), "mysql"),
    **dict.fromkeys(("aiosqlite", "sqlite3"), "sqlite"),
}
_LIBPQ = {"psycopg", "psycopg2"}
_FATAL = {"FATAL", "PANIC"}


class ErrorContents(NamedTuple):
    """The contents of *error*, an exception of a driver."""

    error: BaseException
    family: str | None = None
    code: str | int | None = None
    text: str = ""
    """The message, and the server's function that it came from."""
    disconnected: bool = False
    """Whether the driver knows that the connection has ended."""
    from_server: bool = True


def read(error: BaseException) -> ErrorContents | None:
    """Read *error*; `None` if it is no error of a driver."""
    family = _family(error)
    match family:
        case "postgresql":
            return _postgresql(error)
        case "mysql":
            return ErrorContents(error, family, _mysql_code(error), str(error))
        case "sqlite":
            return ErrorContents(error, family, _sqlite_code(error), str(error))
    state = _sqlstate(error)
    return None if state is None else ErrorContents(error, None, state)


def _family(error: BaseException | None) -> str | None:
    for base in type(error).__mro__:
        root, _, rest = base.__module__.partition(".")
        if root == "sqlalchemy" and rest.startswith("dialects."):  # its async adapters
            return rest.split(".")[1]
        if root in _FAMILIES:
            return _FAMILIES[root]
    return None


def _first(error: BaseException) -> Any:
    return error.args[0] if error.args else None


def _sqlstate(error: BaseException) -> str | None:
    for name in ("sqlstate", "pgcode"):
        state = getattr(error, name, None)
        if isinstance(state, str) and len(state) == 5:
            return state
    return None


def _postgresql(error: BaseException) -> ErrorContents:
    """Read *error*, the driver's own behind it, and the server's behind that."""
    state, severity, text = _sqlstate(error), None, str(error)
    while True:
        fields = _server_fields(error)
        state = _sqlstate(error) or fields.state or state
        severity = fields.severity or severity
        text = f"{text}\n{error}\n{fields.routine}"
        if error.__cause__ is None or _family(error.__cause__) != "postgresql":
            break
        error = error.__cause__
    driver = type(error).__module__.partition(".")[0]
    return ErrorContents(
        error,
        "postgresql",
        state,
        text,
        disconnected=severity in _FATAL
        or (state is None and _is_of_libpq(error, driver)),
        from_server=state is not None and (severity is not None or driver != "asyncpg"),
    )


class _Fields(NamedTuple):
    """What the server has sent along with its message."""

    state: str | None = None
    severity: str | None = None
    routine: str | None = None


def _server_fields(error: BaseException) -> _Fields:
    diag = getattr(error, "diag", None)
    if diag is not None:  # psycopg, psycopg2
        severity = getattr(diag, "severity_nonlocalized", None)
        severity = severity or getattr(diag, "severity", None)
        return _Fields(None, severity, getattr(diag, "source_function", None))
    first = _first(error)
    if isinstance(first, dict):  # pg8000: by the letters of the protocol
        return _Fields(first.get("C"), first.get("V", first.get("S")), first.get("R"))
    severity = getattr(error, "severity_en", None) or getattr(error, "severity", None)
    return _Fields(None, severity, getattr(error, "server_source_function", None))


def _is_of_libpq(error: BaseException, driver: str) -> bool:
    """Whether libpq made this error, not the server: then the connection is lost."""
    name = type(error).__name__
    return driver in _LIBPQ and name in {"OperationalError", "ConnectionTimeout"}


def _mysql_code(error: BaseException) -> int | None:
    first = _first(error)
    if isinstance(first, BaseException):  # pymysql wraps errors of its reader
        first = _first(first)
    code = first if isinstance(first, int) else getattr(error, "errno", None)
    return code if isinstance(code, int) else None


def _sqlite_code(error: BaseException) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int):
        return code
    text = str(error)
    return next(
        (SQLITE_MESSAGES[each] for each in SQLITE_MESSAGES if each in text), None
    )
