"""Alembic's command line, in this process."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import invalidate_caches

import pytest
from alembic.config import main

__all__ = ["alembic", "imported_anew"]


@contextmanager
def imported_anew(*packages: str) -> Iterator[pytest.MonkeyPatch]:
    """Let *packages* be imported again, and forget them at the end of the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        for name in [each for each in sys.modules if each.split(".")[0] in packages]:
            patch.delitem(sys.modules, name)
        before = set(sys.modules)
        invalidate_caches()
        yield patch
        for name in set(sys.modules) - before:
            if name.split(".")[0] in packages:
                del sys.modules[name]


def alembic(line: str, *packages: str) -> None:
    """Run the command *line*, with fresh *packages*."""
    with imported_anew(*packages):
        main(shlex.split(line.removeprefix("alembic ")))
