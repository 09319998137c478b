"""Every page reads right on a code host, as GitHub-flavoured Markdown."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.manual import PAGES, ROOT
from support.rendering import Rendered, find_dead_links, render

PAGE = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: str(page.relative_to(ROOT))
)


@PAGE
def test_shows_no_markup(page: Path) -> None:
    assert render(page).leaks == []


@PAGE
def test_has_no_empty_link(page: Path) -> None:
    assert [link for link in render(page).links if not all(link)] == []


@PAGE
def test_has_no_dead_link(page: Path) -> None:
    assert find_dead_links(page) == []


@PAGE
def test_describes_its_pictures(page: Path) -> None:
    assert [source for source, alt in render(page).images if not alt] == []


@pytest.mark.parametrize(
    "markup",
    [
        "% a comment of MyST",
        "<!-- a comment -->",
        "see {ref}`there`",
        "see {doc}`there` for more",
        "```{toctree}\npage\n```",
        "::::{note}\ntext\n::::",
        "<details>\n\n% inside\n\n</details>",
    ],
)
def test_finds_markup_that_leaks(markup: str) -> None:
    assert Rendered(f"# A page\n\n{markup}\n").leaks


@pytest.mark.parametrize(
    "text",
    [
        "A dict `{ref}` and 5 % of it",
        "```python\n% not python\n```",
        '<p align="center"><img src="a.svg" alt="a"></p>',
    ],
)
def test_lets_other_text_be(text: str) -> None:
    assert Rendered(text).leaks == []


def test_finds_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# A `b`, c?\n\n## A `b`, c?\n")
    page = tmp_path / "page.md"
    page.write_text("""# Here
[1](there.md) [2](there.md#a-b-c) [3](there.md#a-b-c-1) [4](#here) [5](https://x.org)
[6](away.md) [7](there.md#away) [8](#away) ![9](away.svg)
""")

    dead = ["away.md", "there.md#away", "#away", "away.svg"]
    assert find_dead_links(page) == dead
