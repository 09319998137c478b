"""Reports the several messages of a two-phase commit as one COMMIT."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from .unit_events import CommitAnswered, CommitSent
from .unit_report import UnitReport

__all__ = ["CommitReport"]


class CommitReport:
    """Reports the COMMIT of one *database*, whose duration is that of its messages.

    So the time of other databases in between is not counted, and no time twice.
    Without a *report* it does nothing.
    """

    __slots__ = ("_database", "_duration", "_is_under_way", "_report")

    def __init__(self, report: UnitReport | None, database: str) -> None:
        self._report = report
        self._database = database
        self._duration = 0.0
        self._is_under_way = False

    @contextmanager
    def message(self) -> Iterator[None]:
        """Report that COMMIT is sent, if this is its first message; time the block.

        What the block raises is the answer.
        """
        if self._report is None:
            yield
            return
        if not self._is_under_way:
            self._is_under_way, self._duration = True, 0.0
            self._report.emit(CommitSent, self._database)
        began, failure = time.monotonic(), None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            seconds = time.monotonic() - began
            self._duration += seconds
            self._report.commit_time += seconds
            if failure is not None:
                self.answered(failure)
            del failure

    def answered(self, error: BaseException | None = None) -> None:
        """Report the answer, unless there was one, or nothing was sent."""
        if self._report is not None and self._is_under_way:
            self._is_under_way = False
            self._report.emit(CommitAnswered, self._database, self._duration, error)
