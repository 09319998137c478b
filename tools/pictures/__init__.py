"""The pictures of the manual, drawn from the code and from real runs."""

from __future__ import annotations

from collections.abc import Callable

from . import gate, nesting, request, states

__all__ = ["PICTURES"]

PICTURES: dict[str, Callable[[], str]] = {
    "request": request.draw,
    "states": states.draw,
    "gate": gate.draw,
    "nesting": nesting.draw,
}
"""By the names of their files in docs/pictures."""
