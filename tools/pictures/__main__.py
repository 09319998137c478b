"""Draw the pictures of the manual into docs/pictures, each from a real run.

python tools/postgres.py -- env PYTHONPATH=tools python -m pictures
"""

from __future__ import annotations

from pathlib import Path

from . import PICTURES

FOLDER = Path(__file__).parents[2] / "docs/pictures"

for name, draw in PICTURES.items():
    (FOLDER / f"{name}.svg").write_text(draw(), encoding="utf-8")
