"""Draw the pictures of the manual into docs/pictures, each from a real run.

python tools/postgres.py -- env PYTHONPATH=tools python -m pictures
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from . import PICTURES
from .chromium import executable

FOLDER = Path(__file__).parents[2] / "docs/pictures"

for name, draw in PICTURES.items():
    (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")

if executable() is not None:  # else those of the inspector stay as they are
    from .screenshots import take

    asyncio.run(take(FOLDER))
