"""Chains of errors never form a circle by what unitwork adds to them."""

from __future__ import annotations

from unitwork._classify.chains import chain, chain_to


def test_the_earlier_error_becomes_the_context() -> None:
    error, earlier = LookupError(), KeyError()

    chain_to(error, earlier)

    assert list(chain(error)) == [error, earlier]


def test_an_earlier_error_that_leads_back_is_not_added() -> None:
    error, cause, earlier = LookupError(), ValueError(), KeyError()
    error.__cause__ = cause
    earlier.__context__ = cause

    chain_to(error, earlier)

    assert cause.__context__ is None


def test_a_circle_of_others_is_followed_once() -> None:
    error, one, two = LookupError(), KeyError(), ValueError()
    one.__context__, two.__context__ = two, one

    chain_to(error, one)

    assert list(chain(error)) == [error, one, two]
