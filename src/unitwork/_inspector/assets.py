"""The files of the page: one HTML shell, a style sheet, a script and an icon."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from .response import Response

__all__ = ["asset", "shell"]

_FOLDER = Path(__file__).parent / "static"
_KINDS = {
    "icon.svg": "image/svg+xml",
    "inspector.css": "text/css; charset=utf-8",
    "charts.js": "text/javascript; charset=utf-8",
    "dom.js": "text/javascript; charset=utf-8",
    "inspector.js": "text/javascript; charset=utf-8",
}
_KEPT = {"cache-control": "no-cache"}


@cache
def asset(name: str) -> Response | None:
    """The file *name*, which is one of a few; `None` for any other."""
    if name not in _KINDS:
        return None
    return Response((_FOLDER / name).read_bytes(), _KINDS[name], headers=_KEPT)


@cache
def shell(view: str, depth: int) -> Response:
    """The page of *view*, which is *depth* folders below the root."""
    text = (_FOLDER / "page.html").read_text(encoding="utf-8")
    body = text.replace("{up}", "../" * depth).replace("{view}", view)
    return Response(body.encode(), "text/html; charset=utf-8")
