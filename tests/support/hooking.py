"""What the tests of hooks share."""

from __future__ import annotations

from collections.abc import Callable

from unitwork import current_unit


class OurError(Exception):
    pass


def on_commit(hook: Callable[..., object], *args: object) -> None:
    current_unit().on_commit(hook, *args)
