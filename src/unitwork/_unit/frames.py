"""Which code of a framework or generator is around a call, by its stack."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from types import FrameType

from .._concurrency.worker import current_worker

__all__ = [
    "BETWEEN",
    "is_generator",
    "is_held_by_dependency",
    "is_in_middleware",
    "is_in_request",
]

BETWEEN = ("contextlib", "unitwork._unit.block")
_GENERATOR = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_SOLVES_DEPENDENCIES = "fastapi.dependencies.utils"
_RUNS_THREADS = "anyio._backends._asyncio"
_CALLS_ENDPOINTS = ("fastapi.routing", "starlette.routing")
_CALLS_APPLICATIONS = "starlette.middleware."
_BEGINS_SAVEPOINTS = (
    "sqlalchemy.",
    "unitwork._driver.",
    "unitwork._session.",
    "unitwork._transaction.",
    "unitwork._unit.inner_blocks",
)


def is_generator(frame: FrameType) -> bool:
    return bool(frame.f_code.co_flags & _GENERATOR)


def is_held_by_dependency(frame: FrameType | None) -> bool:
    """Whether a dependency with `yield` enters a block, in *frame* or by what it calls.

    FastAPI runs an async one, up to the `yield`, from its own module; a sync one in a
    thread of anyio, which calls nothing else; or only enters the block.
    """
    in_generator, outermost = False, True
    for each in _frames_of_worker(frame):
        module = str(each.f_globals.get("__name__"))
        if module == _SOLVES_DEPENDENCIES:
            return in_generator
        if module == _RUNS_THREADS:
            return outermost
        if module not in BETWEEN and not module.startswith(_BEGINS_SAVEPOINTS):
            outermost = is_generator(each)
            in_generator = in_generator or outermost
    return False


def is_in_request(frame: FrameType | None) -> bool:
    """Whether FastAPI or Starlette calls an endpoint, or its dependencies, in *frame*.

    Not in a task of the application's own, nor in a thread.
    """
    return any(
        (module := str(each.f_globals.get("__name__"))) in _CALLS_ENDPOINTS
        or module.startswith(_CALLS_APPLICATIONS)
        for each in _frames_of_worker(frame)
    )


def is_in_middleware(frame: FrameType | None) -> bool:
    """Whether what Starlette calls in *frame* is a middleware, and no endpoint."""
    for each in _frames_of_worker(frame):
        module = str(each.f_globals.get("__name__"))
        if module in _CALLS_ENDPOINTS:
            return False
        if module.startswith(_CALLS_APPLICATIONS):
            return True
    return False


def _frames_of_worker(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield *frame* and those around it, up to the first one of the current task.

    An eager task begins on the stack of the code that creates it.
    """
    worker, first = current_worker(), None
    if isinstance(worker, asyncio.Task):
        first = getattr(worker.get_coro(), "cr_frame", None)
    while frame is not None:
        yield frame
        frame = None if frame is first else frame.f_back
