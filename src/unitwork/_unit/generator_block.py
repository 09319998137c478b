"""A block inside a generator: its consumer, in the same context, is not inside it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any
from weakref import ref

from .._concurrency.worker import current_worker
from .frames import BETWEEN, is_generator

__all__ = ["GeneratorBlock", "generator_around"]


class GeneratorBlock:
    """Where the block was entered; `current` is set for the consumer as well."""

    __slots__ = ("_generator", "_worker")

    def __init__(self, generator: FrameType) -> None:
        self._generator: FrameType | None = generator
        self._worker = ref(current_worker())

    def contains_caller(self) -> bool:
        """Whether the caller is inside the block, or could be: in another task."""
        if self._worker() is not current_worker():
            return True
        generator = self._generator
        return generator is not None and any(x is generator for x in _call_stack())

    def end(self) -> None:
        """Let the generator go."""
        self._generator = None


def generator_around(frame: FrameType | None) -> GeneratorBlock | None:
    """The generator that *frame* is in, if a loop consumes it.

    With a generator that `contextlib` has made into a context manager the consumer is
    inside the block.
    """
    while frame is not None:
        if frame.f_globals.get("__name__") in BETWEEN:
            frame = frame.f_back
        elif not is_generator(frame):
            return None
        else:
            consumer = frame.f_back
            if consumer is None or consumer.f_globals.get("__name__") not in BETWEEN:
                return GeneratorBlock(frame)
            frame = consumer
    return None


def _call_stack() -> Iterator[FrameType]:
    """Yield the frames of the caller, across the greenlets of SQLAlchemy."""
    yield from _outwards(inspect.currentframe())
    greenlets: Any = sys.modules.get("greenlet")
    greenlet = None if greenlets is None else greenlets.getcurrent().parent
    while greenlet is not None:
        yield from _outwards(greenlet.gr_frame)
        greenlet = greenlet.parent


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
