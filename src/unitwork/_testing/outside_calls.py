"""Finds calls of other services that are made while a unit holds a transaction."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from .._call_site import called_by_machinery, find_call_site, format_call_site
from .._session.unit_session import UnitSession
from .._unit.context import innermost
from .._unit.unit import Unit
from ..errors import OutsideCallWarning, UsageError
from .blocks import block
from .outside_targets import WATCHED, WatchedFunction

__all__ = ["OutsideCallMode", "detect_outside_calls"]

OutsideCallMode = Literal["raise", "warn", "record"]

_HEADER = "# Calls while a transaction is open, known to detect_outside_calls().\n"
_inside: ContextVar[bool] = ContextVar("unitwork_outside_call", default=False)
"""Whether a call that was looked at is under way: libraries call each other."""


class _Found(NamedTuple):
    """One call."""

    entry: str
    """What the baseline has of it: no line, which would change with the file."""
    message: str


class _Detector:
    """Looks at calls, and raises, warns or records."""

    def __init__(self, mode: OutsideCallMode, baseline: Path | None) -> None:
        self._mode = mode
        self._baseline = baseline
        self._known = set() if baseline is None else _read(baseline)
        self.found: dict[str, str] = {}

    def check(self, target: WatchedFunction, what: str) -> None:
        unit = innermost()
        session = None if unit is None else _holding(unit)
        if session is None:
            return
        found = _describe(target, what, session)
        if found.entry in self._known:
            return
        is_new = found.entry not in self.found
        self.found.setdefault(found.entry, found.message)
        if self._mode == "raise":
            raise UsageError(found.message)
        if self._mode == "warn" and is_new:
            warnings.warn(found.message, OutsideCallWarning, stacklevel=3)

    def write(self) -> None:
        if self._mode == "record" and self._baseline is not None:
            entries = sorted(self._known | set(self.found))
            text = _HEADER + "".join(f"{entry}\n" for entry in entries)
            self._baseline.write_text(text, encoding="utf-8")


@block
def detect_outside_calls(
    mode: OutsideCallMode = "raise",
    *,
    baseline: str | Path | None = None,
    ignore: Collection[str] = (),
) -> Iterator[list[str]]:
    """Find calls of other services that are made while a unit holds a transaction.

    Of httpx, aiohttp, requests, urllib3, redis and boto3 where they are installed, and
    of `asyncio.sleep()` and `time.sleep()`, unless their name is in *ignore*.
    *mode*: `"raise"` raises `UsageError`; `"warn"` warns of each place once, with
    `OutsideCallWarning`. Both name the call, file and line. *baseline* is a file with
    the calls that are known, and left alone; `"record"` adds those that are found to
    it. Gives a list of all messages, which is complete at the end of the block.

    Not detected: calls of an application in this process (TestClient, ASGITransport), a
    function that was imported by name before (`from time import sleep`), and the
    sessions of `db.override()`. Holds for all tasks and threads of the process, so open
    it once: around a test, or around the application.

    .. versionadded:: 0.2
    """
    if mode not in get_args(OutsideCallMode) or (mode == "record" and not baseline):
        raise UsageError(
            f"mode is {mode!r}; give 'raise' or 'warn', or 'record' with a baseline"
        )
    detector = _Detector(mode, None if baseline is None else Path(baseline))
    messages: list[str] = []
    with ExitStack() as stack:
        for target in WATCHED:
            if target.library not in ignore and _is_installed(target.module):
                stack.enter_context(_watched(target, detector))
        try:
            yield messages
        finally:
            messages += detector.found.values()
            detector.write()


@contextmanager
def _watched(target: WatchedFunction, detector: _Detector) -> Iterator[None]:
    module = importlib.import_module(target.module)
    owner: Any = getattr(module, target.owner) if target.owner else module
    original: Callable[..., Any] = getattr(owner, target.function)

    @functools.wraps(original)
    def call(*args: Any, **options: Any) -> Any:
        if _inside.get() or called_by_machinery(inspect.currentframe()):
            return original(*args, **options)
        what = target.describe(args, options)
        if what is None:
            return original(*args, **options)
        detector.check(target, what)
        token = _inside.set(True)
        try:
            return original(*args, **options)
        finally:
            _inside.reset(token)

    setattr(owner, target.function, call)
    try:
        yield
    finally:
        setattr(owner, target.function, original)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # nor is its package
        return False


def _holding(unit: Unit) -> UnitSession | None:
    """A session of *unit*, or of one around it, whose transaction is idle now."""
    for outer in unit.outwards():
        for session in outer.sessions:
            if session.connections and session.in_transaction:
                return None if session.in_statement else session
    return None


def _describe(target: WatchedFunction, what: str, session: UnitSession) -> _Found:
    place = format_call_site(find_call_site())
    held = next((x.hold for x in session.loans if x.hold is not None), None)
    since = "" if held is None else f", taken at {format_call_site(held.call_site)}"
    message = (
        f"{target.library} ({what}) is called at {place} while "
        f"{session.owner.owner.description} holds a transaction of database "
        f"{session.name!r}{since}. Call it inside `unit.outside({target.library!r})`, "
        "before the first statement, or in a hook after COMMIT"
    )
    file, _, rest = place.rpartition(":")
    function = rest.partition(" in ")[2]
    return _Found(f"{Path(file).as_posix()} {function} {target.library}", message)


def _read(baseline: Path) -> set[str]:
    if not baseline.exists():
        return set()
    lines = baseline.read_text(encoding="utf-8").splitlines()
    return {line.strip() for line in lines if line.strip() and line[0] != "#"}
