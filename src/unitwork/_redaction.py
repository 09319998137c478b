"""Removes passwords from messages about arguments, and from errors of libraries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import isroutine
from typing import Any
from urllib.parse import quote, quote_plus

__all__ = ["described", "secrets_in", "without"]

_HARMLESS = (bool, int, float, type(None), type)
_MARKS_OF_A_DSN = ":/@="
_LONGEST = 40


def described(thing: object) -> str:
    """What *thing* is, by its type: its repr may have a password."""
    if isinstance(thing, _HARMLESS) or isroutine(thing):
        return repr(thing)
    if isinstance(thing, str):
        is_name = len(thing) <= _LONGEST and not set(_MARKS_OF_A_DSN) & set(thing)
        return repr(thing) if is_name else "a string, which is not shown"
    return f"an object of type {type(thing).__module__}.{type(thing).__qualname__}"


def without(secrets: Iterable[str], message: object) -> str:
    """The text of *message*, with each of the *secrets* replaced, also if quoted."""
    text = str(message)
    spellings = {
        spelling
        for secret in secrets
        for spelling in (secret, quote(secret, safe=""), quote_plus(secret))
    }
    for spelling in sorted(spellings, key=len, reverse=True):
        text = text.replace(spelling, "***")
    return text


def secrets_in(options: Mapping[str, Any]) -> list[str]:
    """The values among connection parameters whose names show that they are secret."""
    return [
        str(value)
        for key, value in options.items()
        if value and any(word in key.lower() for word in _SECRET)
    ]


_SECRET = ("pass", "pwd", "secret", "token")
