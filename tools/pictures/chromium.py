"""How Debian's Chromium is started, for pictures and for tests."""

from __future__ import annotations

import os
import shutil

__all__ = ["ARGUMENTS", "executable"]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def executable() -> str | None:
    """The path of the browser; `None` if there is none."""
    return os.environ.get("CHROMIUM_BIN") or shutil.which("chromium")
