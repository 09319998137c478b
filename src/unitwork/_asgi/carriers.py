"""Carry the token of a client's writes to its next requests: by cookie or header."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from typing import Any, Literal, Protocol, runtime_checkable

from .._replicas.position import NO_POSITIONS, Positions, decode, encode, merged
from ..errors import UsageError

__all__ = ["SignedCookie", "SignedHeader", "TokenCarrier"]

Headers = Iterable[tuple[bytes, bytes]]
_SIGNATURE = 22  # characters: 128 bits
_SHORTEST_SECRET = 16
_FORBIDDEN = set('()<>@,;:\\"/[]?={} \t')


@runtime_checkable
class TokenCarrier(Protocol):
    """Brings the token of a client's writes back with its next requests.

    Both methods are called in the task or thread of the request, so they must not
    block; several requests may call them at once. What `write()` raises is logged, and
    the response is sent without a token: the work is stored already.

    .. versionadded:: 0.2
    """

    def read(self, scope: Mapping[str, Any]) -> str | None:
        """Return the token that came with the request of this ASGI scope, if any.

        One that is not what `write()` was given must not be returned.
        """

    def write(self, scope: Mapping[str, Any], token: str) -> Headers:
        """Keep *token* for the client; return the headers that the response needs."""
        ...


class _Signed:
    """Signs tokens, and checks their signatures."""

    def __init__(self, secret: str | bytes | Sequence[str | bytes], name: str) -> None:
        secrets = [secret] if isinstance(secret, str | bytes) else list(secret)
        self._secrets = [x.encode() if isinstance(x, str) else x for x in secrets]
        if not secrets or any(len(each) < _SHORTEST_SECRET for each in self._secrets):
            raise UsageError(
                f"secret is too short; give {_SHORTEST_SECRET} random bytes or more, "
                "such as secrets.token_hex(32), the same in all processes"
            )
        if not name or not name.isascii() or set(name) & _FORBIDDEN:
            raise UsageError(f"name is {name!r}; give letters, digits and '-' or '_'")
        self._name, self._wanted = name, name.encode()

    def _signed(self, token: str) -> str:
        return f"{token}.{self._signature(self._secrets[0], token)}"

    def _signature(self, secret: bytes, token: str) -> str:
        digest = hmac.digest(secret, f"{self._name}={token}".encode(), sha256)
        return urlsafe_b64encode(digest).decode()[:_SIGNATURE]

    def _checked(self, value: bytes) -> str | None:
        """The token in *value*; `None` if this was not signed by us."""
        token, _, signature = value.decode("latin-1").strip().rpartition(".")
        if not token or not signature.isascii():
            return None
        for secret in self._secrets:
            if hmac.compare_digest(self._signature(secret, token), signature):
                return token
        return None

    def _together(self, values: Iterable[bytes]) -> str | None:
        """The token that covers those in *values* which we have signed."""
        tokens = [x for value in values if (x := self._checked(value)) is not None]
        if len(tokens) < 2:
            return tokens[0] if tokens else None
        found = NO_POSITIONS
        for token in tokens:
            with suppress(UsageError):  # of another version of unitwork
                found = merged(found, decode(token))
        return encode(found) or None


class SignedCookie(_Signed):
    """Carries the token in a cookie, signed with *secret*: the default for browsers.

    The *secret* is the same in all processes that serve the client; of several the
    first one signs and all are valid, so that it can be replaced. A cookie that was
    forged or changed is ignored. *secure*: send it by HTTPS only; `None`: if the
    request came so. It expires by itself once all replicas must have the writes.

    Of parallel requests of one browser the last response sets the cookie. A client
    whose parallel writes matter to each other needs a `TokenCarrier` of your own.

    Several applications of one host need a *name* or *path* each, or one secret.

    Raises `UsageError` for a secret that is too short, and for `samesite="none"` with
    `secure=False`.

    .. versionadded:: 0.2
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        name: str = "unitwork-token",
        path: str = "/",
        domain: str | None = None,
        secure: bool | None = None,
        samesite: Literal["lax", "strict", "none"] = "lax",
    ) -> None:
        super().__init__(secret, name)
        if secure is False and samesite == "none":
            raise UsageError("samesite='none' needs HTTPS: browsers drop other cookies")
        self._secure, self._must_be_secure = secure, samesite == "none"
        end = "" if domain is None else f"; Domain={domain}"
        self._attributes = f"; Path={path}; HttpOnly; SameSite={samesite}{end}"

    def read(self, scope: Mapping[str, Any]) -> str | None:
        """Return the token of the cookie, if its signature is right.

        Of several cookies, such as those of two paths, it covers all.
        """
        values = []
        for key, cookies in scope.get("headers", ()):
            if self._wanted not in cookies or key.lower() != b"cookie":
                continue
            for cookie in cookies.split(b";"):
                name, _, value = cookie.strip().partition(b"=")
                if name == self._wanted:
                    values.append(value)
        return self._together(values) if values else None

    def write(self, scope: Mapping[str, Any], token: str) -> Headers:
        """Return the header that sets the cookie."""
        seconds = _lifetime(decode(token))
        secure = self._secure
        if secure is None:
            secure = self._must_be_secure or scope.get("scheme") in ("https", "wss")
        cookie = f"{self._name}={self._signed(token)}; Max-Age={seconds}"
        cookie += self._attributes + ("; Secure" if secure else "")
        return [(b"set-cookie", cookie.encode("latin-1"))]


class SignedHeader(_Signed):
    """Carries the token in a header, which the client sends back: for API clients.

    Responses to writes have it, and the client repeats it in its requests. *secret* is
    as that of `SignedCookie`.

    .. versionadded:: 0.2
    """

    def __init__(
        self,
        secret: str | bytes | Sequence[str | bytes],
        *,
        name: str = "X-Database-Token",
    ) -> None:
        super().__init__(secret, name)

    def read(self, scope: Mapping[str, Any]) -> str | None:
        """Return the token of the header, if its signature is right."""
        wanted = self._name.lower().encode()
        headers = scope.get("headers", ())
        values = [value for key, value in headers if key.lower() == wanted]
        return self._together(b",".join(values).split(b","))

    def write(self, scope: Mapping[str, Any], token: str) -> Headers:
        """Return the header with the token."""
        return [(self._name.lower().encode(), self._signed(token).encode())]


def _lifetime(positions: Positions) -> int:
    last = max((each.until for each in positions.values()), default=0.0)
    return max(1, int(last - time.time()) + 1)
