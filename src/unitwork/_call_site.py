"""Where the application called unitwork or SQLAlchemy, for warnings."""

from __future__ import annotations

import inspect
import os
import sys
import sysconfig
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import sqlalchemy

from ._observing import subjects as observed

_greenlet: Any = None
with suppress(ImportError):  # sync sessions need none
    _greenlet = import_module("greenlet")

__all__ = [
    "CallSite",
    "called_by_machinery",
    "calling_frame",
    "find_call_site",
    "format_call_site",
    "level_of_the_caller",
]

CallSite = tuple[CodeType, int]
"""A code object, and the index of an instruction in it: cheaper than a line."""

_UNITWORK = str(Path(__file__).parent) + os.sep
_OUTERMOST = tuple(
    _UNITWORK + each.replace("/", os.sep)
    for each in ("_asgi/", "_concurrency/shield.py", "_concurrency/worker_threads.py")
)
"""What is around these frames is a server or an event loop, not the application."""

_SQLALCHEMY = str(Path(sqlalchemy.__file__).parent) + os.sep
_GENERATED = ("<sqlalchemy ", "<string>")  # by SQLAlchemy
_MACHINERY = (_UNITWORK, _SQLALCHEMY, *_GENERATED)
_FOLDERS = {sysconfig.get_path(key) for key in ("purelib", "platlib", "stdlib")}
_INSTALLED = (*(folder + os.sep for folder in _FOLDERS), *_MACHINERY, "<frozen ")
"""How the names of files begin that are no part of an application, as a rule."""


def level_of_the_caller() -> int:
    """The `stacklevel` of the first frame outside unitwork and SQLAlchemy."""
    level, frame = 0, inspect.currentframe()
    while frame is not None and _is_machinery(frame.f_globals["__name__"]):
        level, frame = level + 1, frame.f_back
    return level


def _is_machinery(module: str) -> bool:
    return module.partition(".")[0] in ("unitwork", "sqlalchemy")


def find_call_site() -> CallSite | None:
    """The innermost line of the application around the caller.

    Of an application that is installed itself it is the innermost line outside unitwork
    and SQLAlchemy. `None` if the application has returned already: what it has not
    flushed is flushed before COMMIT. Some microseconds, so call it once for each
    checkout at most.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # it is documented
    if _greenlet is not None and (outer := _greenlet.getcurrent().parent) is not None:
        frame = outer.gr_frame  # as `calling_frame()`, without a call of it
    outside: CallSite | None = None
    while frame is not None:
        name = (code := frame.f_code).co_filename
        if name.startswith(_SQLALCHEMY):  # most are; the checks below skip them, too
            frame = frame.f_back
            continue
        if not name.startswith(_INSTALLED):
            return code, frame.f_lasti
        if name.startswith(_OUTERMOST):
            return outside
        if outside is None and not name.startswith(_MACHINERY):
            outside = code, frame.f_lasti
        frame = frame.f_back
    return outside


def calling_frame() -> FrameType | None:
    """The caller's frame, or the one around the greenlet of SQLAlchemy's it is in.

    The frames of the greenlet are all SQLAlchemy's own.
    """
    if _greenlet is not None and (outer := _greenlet.getcurrent().parent) is not None:
        frame: FrameType | None = outer.gr_frame
        return frame
    return sys._getframe(1)  # pyright: ignore[reportPrivateUsage]  # it is documented


def called_by_machinery(frame: FrameType | None) -> bool:
    """Whether *frame* was called by unitwork or SQLAlchemy."""
    caller = None if frame is None else frame.f_back
    return caller is not None and caller.f_code.co_filename.startswith(_MACHINERY)


def format_call_site(call_site: CallSite | None) -> str:
    """Its file, below the working folder if it is there, its line and its function."""
    return "" if call_site is None else str(observed.CallSite(*call_site))
