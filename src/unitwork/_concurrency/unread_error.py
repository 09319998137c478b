"""The exception of a task or future for whose result nothing waits."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["retrieve_exception"]


def retrieve_exception(future: asyncio.Future[Any]) -> None:
    """Retrieve it, or asyncio would log that it never was: a callback of *future*."""
    if not future.cancelled():
        future.exception()
