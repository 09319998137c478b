"""The alarm clock that all units share."""

from __future__ import annotations

import os
import threading
from threading import Event

import pytest

from unitwork._concurrency import watchdog
from unitwork._concurrency.watchdog import Scheduler, Watchdog

PATIENCE = 30.0  # seconds


class Bell(Watchdog):
    """Tells when it has rung; fails at it, if it has an *error*."""

    __slots__ = ("error", "rung")

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        super().__init__(seconds)
        self.rung = Event()
        self.error = error

    def expired(self) -> None:
        self.rung.set()
        if self.error is not None:
            raise self.error


def test_rings_when_a_block_takes_too_long() -> None:
    bell = Bell(0.001)

    with bell:
        assert bell.rung.wait(PATIENCE)


def test_is_forgotten_when_its_block_is_over() -> None:
    bell = Bell(PATIENCE)

    with bell:
        assert bell in watchdog.scheduler.due

    assert bell not in watchdog.scheduler.due
    assert not bell.rung.is_set()


def test_an_earlier_one_that_is_set_later_rings_first() -> None:
    late, early = Bell(PATIENCE), Bell(0.001)

    with late, early:
        assert early.rung.wait(PATIENCE / 2)
        assert not late.rung.is_set()


def test_one_that_fails_is_logged_and_the_next_one_rings(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken, sound = Bell(0.001, LookupError("bell")), Bell(0.002)

    with broken:
        assert broken.rung.wait(PATIENCE)
        with sound:
            assert sound.rung.wait(PATIENCE)

    assert "LookupError: bell" in caplog.text


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    """A clock of the test's own, which has no thread yet."""
    clock = Scheduler()
    monkeypatch.setattr(watchdog, "scheduler", clock)
    return clock


def test_one_that_finds_no_thread_does_not_stop_the_clock_for_good(
    clock: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError), Bell(PATIENCE):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(watchdog, "scheduler", clock)
    bell = Bell(0.001)

    with bell:
        assert bell.rung.wait(PATIENCE)
    assert not clock.due


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_clock_whose_thread_has_died_gets_another(clock: Scheduler) -> None:
    class Deadly(Bell):
        def expired(self) -> None:
            super().expired()
            raise SystemExit

    deadly, next_one = Deadly(0.001), Bell(0.001)
    with deadly:
        thread = clock.thread
        assert thread is not None
        thread.join(PATIENCE)

    with next_one:
        assert next_one.rung.wait(PATIENCE)


def test_may_be_set_where_the_clock_is_held_by_the_same_thread(
    clock: Scheduler,
) -> None:
    with clock.lock, Bell(PATIENCE) as _:
        assert len(clock.due) == 1


def test_one_without_an_end_never_rings(clock: Scheduler) -> None:
    endless, bell = Bell(1e300), Bell(0.001)

    with endless, bell:
        assert bell.rung.wait(PATIENCE)
        assert not endless.rung.is_set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_rings_in_a_fork() -> None:
    with Bell(PATIENCE):  # so that there is a thread, which a fork does not have
        child = os.fork()
        if child == 0:
            bell = Bell(0.001)
            with bell:
                os._exit(0 if bell.rung.wait(PATIENCE) else 1)
        _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
