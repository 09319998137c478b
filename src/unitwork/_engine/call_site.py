"""Where the application called unitwork or SQLAlchemy, for warnings."""

from __future__ import annotations

import inspect

__all__ = ["level_of_the_caller"]


def level_of_the_caller() -> int:
    """The `stacklevel` of the first frame outside unitwork and SQLAlchemy."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and _is_machinery(frame.f_globals["__name__"]):
        level, frame = level + 1, frame.f_back
    return level


def _is_machinery(module: str) -> bool:
    return module.partition(".")[0] in ("unitwork", "sqlalchemy")
