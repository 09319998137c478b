"""The template of a request's path, as its framework has left it in the scope."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["route_of"]


def route_of(scope: Mapping[str, Any]) -> str | None:
    """The template of the path, with the prefixes of mounts and of included routers.

    `None` as long as the framework has not found the route: a mounted application may
    still look for its own.
    """
    route = scope.get("route")
    if route is None:
        return None
    root = scope.get("root_path", "").rstrip("/")
    if hasattr(route, "routes"):  # a mount: its path is a part of the root path
        return None if route.routes else _mount_template(root, "", scope) or None
    own = _own_template(route, scope)
    return own if not root or own is None else _mount_template(root, own, scope) + own


def _own_template(route: Any, scope: Mapping[str, Any]) -> str | None:
    """Without mounts. FastAPI keeps the prefixes of included routers elsewhere."""
    context: Any = None
    if extras := scope.get("fastapi"):
        context = extras.get("effective_route_context")
    if context is not None and getattr(context, "original_route", None) is route:
        route = getattr(context, "starlette_route", None) or context
    found: str | None = getattr(route, "path_format", None)
    return getattr(route, "path", None) if found is None else found


def _mount_template(root: str, own: str, scope: Mapping[str, Any]) -> str:
    """The root path, with the names of parameters of mounts in place of their values.

    Empty if a value is not found there: the values could be too many for metrics.
    """
    segments = root.split("/")
    for name, value in (scope.get("path_params") or {}).items():
        if f"{{{name}}}" in own:
            continue
        if str(value) not in segments:
            return ""
        last = len(segments) - 1 - segments[::-1].index(str(value))
        segments[last] = f"{{{name}}}"
    return "/".join(segments)
