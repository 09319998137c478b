"""To which test the caller belongs."""

from __future__ import annotations

from contextvars import ContextVar

__all__ = ["current_scope", "scope_in_context"]

scope_in_context: ContextVar[object | None] = ContextVar("unitwork_test", default=None)
"""What tells one test from others: its sandbox."""


def current_scope() -> object | None:
    return scope_in_context.get()
