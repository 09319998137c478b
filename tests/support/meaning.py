"""Errors that are made for real, and what they mean."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy.orm import Session

from support.flavours import Flavour
from unitwork import Classification, Phase, classify

Body = Callable[[Session], object]


async def error_of(flavour: Flavour, body: Body) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011  # that is the question
        await flavour.work(body)
    return caught.value


async def meaning(
    flavour: Flavour, body: Body, phase: Phase = Phase.STATEMENT
) -> Classification:
    return classify(await error_of(flavour, body), phase=phase)
