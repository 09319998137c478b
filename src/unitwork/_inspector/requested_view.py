"""Which view an address below the inspector's root means. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

__all__ = ["RequestedView", "path_below", "requested_view"]

_PATH = re.compile(
    r"(?P<view>live|timeline|outcomes|unit/(?P<number>[0-9]{1,15}))(?P<json>\.json)?"
)


class RequestedView(NamedTuple):
    """A view; *number* is that of a unit. As JSON, or as a page."""

    view: str
    number: int
    is_json: bool
    depth: int
    """In how many folders its page is."""


def requested_view(path: str, accept: str) -> RequestedView | None:
    """The view at *path*, which begins without a slash; `None`: there is none."""
    prefers_json = "application/json" in accept and "text/html" not in accept
    if not path:
        return RequestedView("live", 0, prefers_json, 0)
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    number = found["number"]
    view = "unit" if number else found["view"]
    is_json = bool(found["json"]) or prefers_json
    return RequestedView(view, int(number or 0), is_json, 1 if number else 0)


def path_below(scope: Mapping[str, Any]) -> tuple[str, str]:
    """The path at which the inspector is mounted, and the rest of the request's path.

    The rest has no slash at its beginning, unless it is all that there is.
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        return root, path[len(root) :]
    return root, path
