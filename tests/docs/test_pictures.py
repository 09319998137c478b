"""The pictures of the manual are what their script draws, from code and real runs."""

import re
from pathlib import Path

import pytest

from pictures import PICTURES
from pictures.screenshots import SCREENSHOTS

FOLDER = Path(__file__).parents[2] / "docs/pictures"
KINDS = {**dict.fromkeys(PICTURES, "svg"), **dict.fromkeys(SCREENSHOTS, "png")}


@pytest.mark.parametrize("name", PICTURES)
def test_is_what_the_script_draws(name: str, postgresql: str) -> None:
    committed = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")

    assert PICTURES[name]() == committed


def test_draws_every_picture_of_the_folder() -> None:
    assert {path.stem for path in FOLDER.glob("*.svg")} == set(PICTURES)


@pytest.mark.parametrize("name", PICTURES)
def test_is_light_and_dark_and_small(name: str) -> None:
    picture = (FOLDER / f"{name}.svg").read_text(encoding="utf-8")

    assert "prefers-color-scheme:dark" in picture
    assert len(picture) < 10_000


@pytest.mark.parametrize("name", SCREENSHOTS)
def test_a_picture_of_the_inspector_is_small(name: str) -> None:
    assert len((FOLDER / f"{name}.png").read_bytes()) < 60_000


@pytest.mark.parametrize("name", KINDS)
def test_is_shown_with_a_text_for_those_who_do_not_see_it(name: str) -> None:
    pages = [page.read_text(encoding="utf-8") for page in FOLDER.parent.glob("*.md")]
    shown = re.findall(
        rf"!\[([^]]{{40,}})\]\(pictures/{name}\.{KINDS[name]}\)", "\n".join(pages)
    )

    assert len(shown) == 1
