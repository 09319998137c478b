"""Where the database of an engine is, for messages: never with a password."""

from __future__ import annotations

from sqlalchemy.engine import URL

__all__ = ["address_of"]


def address_of(url: URL) -> str:
    """The driver, host, port and database of *url*, as far as it has them."""
    if url.get_backend_name() == "sqlite":
        return f"{url.drivername}, {url.database or 'in memory'}"
    host = url.host or url.query.get("host") or url.query.get("unix_socket") or ""
    where = host if isinstance(host, str) else ", ".join(host)
    if where and url.port is not None:
        where = f"{where}:{url.port}"
    parts = [url.drivername, where and f"at {where}"]
    named = f", database {url.database!r}" if url.database else ""
    return " ".join(part for part in parts if part) + named
