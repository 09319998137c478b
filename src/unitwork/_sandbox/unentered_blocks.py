"""Context managers of the test kit that were called without `with`."""

from __future__ import annotations

import warnings

from .failure import SandboxError
from .membership import targets_here

__all__ = ["report_unentered"]


def report_unentered(call: str) -> None:
    """Fail the test around the caller, or warn where there is no sandbox."""
    message = f"{call} does nothing without `with`: write `with {call}:`"
    target = next(targets_here(), None)
    if target is None:
        warnings.warn(message, RuntimeWarning, stacklevel=3)
    else:
        target.fail(SandboxError(message))
