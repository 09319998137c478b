"""The functions of other libraries that wait for something outside of the database.

The tops of the libraries: what a test puts in place of their network is a call as well.
Private methods are named here where a library has no public one that all calls pass.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

__all__ = ["WATCHED", "WatchedFunction"]

_IN_PROCESS = {"ASGITransport", "WSGITransport", "_TestClientTransport"}
"""The transports of httpx that call an application of this process."""


_POSITIONAL = ("self", "method", "url")


class WatchedFunction(NamedTuple):
    """One function: `owner` is a class, or empty for a function of the module."""

    library: str
    module: str
    owner: str
    function: str
    describe: Callable[[tuple[Any, ...], dict[str, Any]], str | None]
    """What a call with these arguments does; `None`: nothing that is waited for."""


def _httpx(args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    client = next(iter(args), None)
    if type(getattr(client, "_transport", None)).__name__ in _IN_PROCESS:
        return None
    return _prepared(args, options)


def _prepared(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    request = args[1] if len(args) > 1 else options.get("request")
    return _request(getattr(request, "method", ""), getattr(request, "url", ""))


def _method_and_url(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    given: dict[str, Any] = {**dict(zip(_POSITIONAL, args, strict=False)), **options}
    return _request(given.get("method", ""), given.get("url", ""))


def _pool_of_urllib3(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    given: dict[str, Any] = {**dict(zip(_POSITIONAL, args, strict=False)), **options}
    host = getattr(given["self"], "host", "a server")
    return f"{given.get('method', '')} to {host}"


def _request(method: object, url: object) -> str:
    """Without the path and the query, which may have secrets in them."""
    return f"{method} to {urlsplit(str(url)).hostname or 'a server'}"


def _first_argument(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    return str(args[1]) if len(args) > 1 else "a call"


def _pipeline(args: tuple[Any, ...], options: dict[str, Any]) -> str:
    return "a pipeline"


def _sleep(args: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    seconds: Any = args[0] if args else next(iter(options.values()), 0)
    return f"{seconds:g} seconds" if seconds > 0 else None


WATCHED = [
    WatchedFunction("httpx", "httpx", "Client", "send", _httpx),
    WatchedFunction("httpx", "httpx", "AsyncClient", "send", _httpx),
    WatchedFunction("httpx2", "httpx2", "Client", "send", _httpx),
    WatchedFunction("httpx2", "httpx2", "AsyncClient", "send", _httpx),
    WatchedFunction("aiohttp", "aiohttp", "ClientSession", "_request", _method_and_url),
    WatchedFunction("requests", "requests", "Session", "send", _prepared),
    WatchedFunction(
        "urllib3",
        "urllib3.connectionpool",
        "HTTPConnectionPool",
        "urlopen",
        _pool_of_urllib3,
    ),
    WatchedFunction("redis", "redis", "Redis", "execute_command", _first_argument),
    WatchedFunction("redis", "redis.client", "Pipeline", "execute", _pipeline),
    WatchedFunction(
        "redis", "redis.asyncio", "Redis", "execute_command", _first_argument
    ),
    WatchedFunction("redis", "redis.asyncio.client", "Pipeline", "execute", _pipeline),
    WatchedFunction(
        "boto3", "botocore.client", "BaseClient", "_make_api_call", _first_argument
    ),
    WatchedFunction("asyncio.sleep", "asyncio", "", "sleep", _sleep),
    WatchedFunction("time.sleep", "time", "", "sleep", _sleep),
]
