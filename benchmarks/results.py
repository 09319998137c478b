"""The results of all sections in one JSON file; each section tells when it ran."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .options import Options

VERSIONS = ("unitwork", "fastapi", "starlette", "sqlalchemy", "asyncpg", "psycopg")


def load(folder: Path) -> dict[str, Any]:
    file = folder / "results.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def store(
    folder: Path, section: str, measured: dict[str, Any], options: Options
) -> None:
    """Put what was *measured* into the file; other sections stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = load(folder)
    kept[section] = {"about": about(options), **measured}
    (folder / "results.json").write_text(json.dumps(kept, indent=1) + "\n")


def about(options: Options) -> dict[str, Any]:
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "length": length(options),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version_of(name) for name in VERSIONS},
    }


def length(options: Options) -> str:
    return "smallest" if options.smallest else "quick" if options.quick else "full"


def version_of(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
