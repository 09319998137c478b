"""What a test leaves in the databases that it shares with the tests after it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from .observations import observed

__all__ = ["warning_of_leftovers"]


@contextmanager
def warning_of_leftovers(test: str) -> Iterator[None]:
    """Warn if a unit of work stores something in the block, outside of any sandbox."""
    with observed(()) as observation:
        yield
    if observation.writers:
        warnings.warn(
            f"{test} has no sandbox, and {observation.writers[0]} has stored something "
            "that the tests after it will find: give it the fixture `sandbox`",
            RuntimeWarning,
            stacklevel=2,
        )
