"""The exceptions that were being handled when another one was raised."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["with_contexts"]


def with_contexts(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and the contexts behind it, each once: they may form a circle."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__context__
