"""A COMMIT that was made directly, before the plan that goes on after it."""

from __future__ import annotations

from typing import NamedTuple

from .._session.unit_session import UnitSession

__all__ = ["Made"]


class Made(NamedTuple):
    """A COMMIT of *session* that was made directly, before the plan."""

    session: UnitSession
    sent: bool
    error: BaseException | None
    """What it has raised."""

    def take(self) -> bool:
        if self.error is not None:
            raise self.error
        return self.sent
