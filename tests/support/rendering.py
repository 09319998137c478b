"""A page as a code host shows it: rendered as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import cmarkgfm
from cmarkgfm.cmark import Options

_VOID = {"br", "hr", "img", "input", "source"}
_DIRECTIVE = re.compile(r"^\s*(% |:::|\[\]\(|:[\w-]+: )|\{[\w:-]+\}$", re.MULTILINE)


class Link(NamedTuple):
    target: str
    label: str


class Rendered(HTMLParser):
    """What a reader sees of a page: `links`, `anchors`, `images`, and `leaks`."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[Link] = []
        self.images: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.leaks: list[str] = []
        self._open: list[str] = []
        self._heading = self._label = self._target = ""
        self._slugs: Counter[str] = Counter()
        options = Options.CMARK_OPT_UNSAFE | Options.CMARK_OPT_GITHUB_PRE_LANG
        self.feed(cmarkgfm.github_flavored_markdown_to_html(text, options))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "a":
            self._target, self._label = given.get("href", ""), ""
        elif tag == "img":
            self.images.append((given.get("src", ""), given.get("alt", "")))
            self._label += given.get("alt", "")
        elif tag == "pre" and not re.fullmatch(r"[\w-]*", given.get("lang", "")):
            self.leaks.append(given["lang"])
        elif re.fullmatch("h[1-6]", tag):
            self._heading = ""
        self.anchors.update(given[name] for name in ("id", "name") if name in given)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "a":
            self.links.append(Link(self._target, self._label.strip()))
        elif re.fullmatch("h[1-6]", tag):
            self._add_heading(self._heading)

    def handle_data(self, data: str) -> None:
        self._label += data
        self._heading += data
        if not {"pre", "code"} & set(self._open):
            self.leaks += [found[0] for found in _DIRECTIVE.finditer(data)]

    def handle_comment(self, data: str) -> None:
        self.leaks.append(f"<!--{data}-->")

    def _add_heading(self, text: str) -> None:
        slug = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")
        count = self._slugs[slug]
        self._slugs[slug] += 1
        self.anchors.add(f"{slug}-{count}" if count else slug)


def render(path: Path) -> Rendered:
    return Rendered(path.read_text(encoding="utf-8"))


def find_dead_links(path: Path) -> list[str]:
    """The links and pictures of the page at *path* that lead nowhere on this disk."""
    page = render(path)
    targets = [link.target for link in page.links] + [src for src, _ in page.images]
    return [target for target in targets if not _leads_somewhere(path, target)]


def _leads_somewhere(path: Path, target: str) -> bool:
    if re.match(r"https?://|mailto:", target):
        return True
    file, _, anchor = unquote(target).partition("#")
    found = path.parent / file if file else path
    if not found.exists():
        return False
    return not anchor or (found.suffix == ".md" and anchor in render(found).anchors)
