"""Which connection of an engine is which line of the proxy."""

from __future__ import annotations

import os
import socket
from typing import Any


def port_of(driver_connection: Any) -> int:
    """The local port of a connection."""
    transport = getattr(driver_connection, "_transport", None)  # asyncpg, asyncmy
    if transport is not None:
        return int(transport.get_extra_info("sockname")[1])
    line = getattr(driver_connection, "_sock", driver_connection)  # pymysql, psycopg
    with socket.socket(fileno=os.dup(line.fileno())) as ours:
        return int(ours.getsockname()[1])


def backend_of(driver_connection: Any) -> int:
    """The number by which the server knows it."""
    if hasattr(driver_connection, "get_server_pid"):  # asyncpg
        return int(driver_connection.get_server_pid())
    if hasattr(driver_connection, "thread_id"):  # pymysql, asyncmy
        return int(driver_connection.thread_id())
    return int(driver_connection.info.backend_pid)  # psycopg
