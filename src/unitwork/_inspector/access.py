"""Who may look at the inspector. Pure, but for calling the application's `allow`."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from ..errors import UsageError

if TYPE_CHECKING:
    from starlette.requests import Request

__all__ = ["Allow", "is_allowed", "is_local", "is_of_another_site"]

log = logging.getLogger("unitwork")

Allow: TypeAlias = "Callable[[Request], bool | Awaitable[bool]]"

_OF_PROXIES = ("forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip")


async def is_allowed(scope: Mapping[str, Any], allow: Allow | None) -> bool:
    """Whether *allow* says `True`; without one, whether the client is on this machine.

    An *allow* that raises, or returns something else, is logged, and allows nothing.
    """
    if is_of_another_site(scope):
        return False
    if allow is None:
        return is_local(scope)
    try:
        return await _says(allow, scope)
    except Exception:
        log.exception("`allow` of the inspector has failed; the request is refused")
        return False


async def _says(allow: Allow, scope: Mapping[str, Any]) -> bool:
    from starlette.requests import Request

    said: object = allow(Request(dict(scope)))
    if isawaitable(said):
        said = await said
    if said is not True and said is not False:
        raise UsageError(f"`allow` has returned {type(said).__name__}; return a bool")
    return said


def is_local(scope: Mapping[str, Any]) -> bool:
    """Whether the client is on this machine, and no proxy stands between.

    Behind a proxy each client has the address of the proxy. And the `Host` must be one
    of this machine: a page of another site may let its own name lead to 127.0.0.1.
    """
    client = scope.get("client")
    if not client or not _is_loopback(client[0]):
        return False
    if scope.get("http_version") == "1.0":  # no browser's: nginx, by default
        return False
    headers = _headers(scope)
    if any(x in _OF_PROXIES or x.startswith("x-forwarded") for x in headers):
        return False
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host.endswith(".localhost") or _is_loopback(host)


def is_of_another_site(scope: Mapping[str, Any]) -> bool:
    """Whether a browser sends this for a page of another site, as browsers mark it."""
    headers = _headers(scope)
    site = headers.get("sec-fetch-site", "none")
    follows_a_link = headers.get("sec-fetch-mode") == "navigate"
    return site not in ("none", "same-origin") and not follows_a_link


def _headers(scope: Mapping[str, Any]) -> dict[str, str]:
    found = scope.get("headers", ())
    return {
        key.decode("latin-1").lower(): value.decode("latin-1") for key, value in found
    }


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
