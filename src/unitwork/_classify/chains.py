"""Chains of errors, by their causes and contexts."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import exc

from .._error_contexts import with_contexts

__all__ = ["chain", "chain_to"]


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield *error* and the errors behind it, one after the other."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        yield link
        seen.add(id(link))
        if isinstance(link, BaseExceptionGroup):
            link = link.exceptions[0] if len(link.exceptions) == 1 else None
        elif isinstance(link, exc.DBAPIError) and link.orig is not None:
            link = link.orig
        elif link.__cause__ is not None or link.__suppress_context__:
            link = link.__cause__
        else:
            link = link.__context__


def chain_to(error: BaseException, earlier: BaseException) -> None:
    """Make *earlier* the context of *error*, which is lost between greenlets.

    Not if that would form a circle, in which a reader of contexts has no end.
    """
    links = list(chain(error))
    if earlier in links or links[-1] in with_contexts(earlier):
        return
    links[-1].__context__ = earlier
