"""Regular expressions that are compiled when they are first used.

To compile those of unitwork took a fifth of the time of its import.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from re import Pattern

__all__ = ["pattern"]

_METHODS = ("findall", "finditer", "fullmatch", "match", "search", "sub")


class _Pattern:
    """Stands for a compiled one, whose methods it has from the first use on."""

    __slots__ = ("_flags", "_text", *_METHODS)

    def __init__(self, text: str, flags: int) -> None:
        self._text = text
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        compiled = re.compile(self._text, self._flags)
        for each in _METHODS:
            setattr(self, each, getattr(compiled, each))
        return getattr(compiled, name)


def pattern(text: str, flags: int = 0) -> Pattern[str]:
    """The regular expression *text*, compiled at its first use; any thread may."""
    return cast("Pattern[str]", _Pattern(text, flags))
