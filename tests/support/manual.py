"""The pages of the manual: their Python blocks run, in order, as one real module.

Code that is to be shown and not run stands in a ```py block.
"""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests" / "docs"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_PARSER = MarkdownIt("commonmark")


class Block(NamedTuple):
    """A fenced block: its language, its code and where it begins."""

    language: str
    source: str
    line: int
    headings: int
    """How many headings stand before it."""


class Manuscript(NamedTuple):
    """What there is to run or to look at in the text of a page."""

    headings: list[str]
    blocks: list[Block]


def read(text: str) -> Manuscript:
    headings: list[str] = []
    blocks: list[Block] = []
    tokens = _PARSER.parse(text)
    for token, following in zip(tokens, [*tokens[1:], None], strict=True):
        if token.type == "heading_open" and following is not None:
            headings.append(following.content)
        elif token.type == "fence" and token.map is not None:
            language, line = token.info.strip(), token.map[0] + 2
            blocks.append(Block(language, token.content, line, len(headings)))
    return Manuscript(headings, blocks)


def companion(page: Path) -> Path:
    """The file with the tests of *page*: docs/a/b-c.md has tests/docs/test_a_b_c.py."""
    parts = page.relative_to(ROOT).with_suffix("").parts
    name = "_".join(parts[1:] or parts).replace("-", "_").lower()
    return TESTS / f"test_{name}.py"


def page_of(tests: Path) -> Path:
    """The page whose tests stand in the file *tests*."""
    [page] = [page for page in PAGES if companion(page).name == tests.name]
    return page


class Page:
    """A page whose Python blocks are run: `run()`, or `run(up_to="A heading")`.

    They share one module, which `run()` returns, so that assertions can look at what
    they have defined. Made by `opened()`, or by the fixture `page`.
    """

    def __init__(self, path: Path, module: ModuleType) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.module = module
        self._headings, blocks = read(self.text)
        self._blocks = [block for block in blocks if block.language == "python"]
        self._ran = 0
        self._written: set[int] = set()

    def run(self, up_to: str | None = None) -> ModuleType:
        """Run the blocks that have not been run yet, those before *up_to* or all."""
        last = len(self._headings) if up_to is None else self._headings.index(up_to)
        for block in self._blocks[self._ran :]:
            if block.headings > last:
                break
            self._ran += 1
            source = "\n" * (block.line - 1) + block.source
            code = compile(source, self.path, "exec", dont_inherit=True)
            exec(code, vars(self.module))
        return self.module

    def check_complete(self) -> None:
        left = {block.line for block in self._blocks[self._ran :]} - self._written
        assert not left, (
            f"{self.path}: the blocks of lines {sorted(left)} have not been used"
        )

    def write_files(self, *names: str) -> None:
        """Write each block that begins with `# <path>.py` below the current folder.

        With *names*, only the files of these names.
        """
        for block in self._blocks:
            first = block.source.partition("\n")[0]
            name = first.removeprefix("# ")
            if name != first and name.endswith(".py") and name in (names or [name]):
                path = Path(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.source, encoding="utf-8")
                self._written.add(block.line)


@contextmanager
def opened(path: Path) -> Iterator[Page]:
    """Open a page in a temporary working directory of its own."""
    name = path.stem.replace("-", "_").lower() + "_page"
    module = sys.modules[name] = ModuleType(name)
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as home:
        os.chdir(home)
        try:
            yield Page(path, module)
        finally:
            os.chdir(before)
            del sys.modules[name]
            vars(module).clear()
            gc.collect()  # what the page has not closed is reported in its own test
