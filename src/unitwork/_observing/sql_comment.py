"""The comment that each statement of a unit ends with, in the form of sqlcommenter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from .subjects import UnitInfo

__all__ = ["ApplicationName", "SQLTags", "comment_of"]

SQLTags = Callable[[UnitInfo], Mapping[str, str]]
ApplicationName = Callable[[UnitInfo], str]

_UNSAFE = re.compile(r"[^\w/{}.,@ -]", re.ASCII)


def comment_of(tags: Mapping[str, str]) -> str:
    """Make a comment of *tags*, in the order of their names.

    Characters that could end the comment, or mean something to a driver, become `_`.
    """
    pairs = [
        f"{_UNSAFE.sub('_', key)}='{_UNSAFE.sub('_', value)}'"
        for key, value in sorted(tags.items())
    ]
    return f" /*{','.join(pairs)}*/" if pairs else ""
