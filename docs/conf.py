"""The manual: MyST pages, autodoc for the reference, and nothing from the network."""

import re
from pathlib import Path

from sphinx.application import Sphinx

from unitwork import __version__

DOCS = Path(__file__).parent

project = "unitwork"
author = "the unitwork authors"
copyright = f"2026, {author}"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
default_role = "py:obj"  # `name` in a docstring: code, and a link if there is a target

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"

html_theme = "furo"
html_title = f"unitwork {release}"
html_copy_source = False


def setup(app: Sphinx) -> None:
    app.connect("source-read", complete)
    app.connect("build-finished", publish_sources)


def complete(app: Sphinx, name: str, source: list[str]) -> None:
    """Add what only the built site shows: pages are plain Markdown for code hosts.

    The text of `_site/<page>.txt` is added to the end of that page.
    """
    if name == "changelog":
        source[0] = (DOCS.parent / "CHANGELOG.md").read_text(encoding="utf-8")
    elif name == "index":
        source[0] += "".join(navigation(source[0]))
    addition = DOCS / "_site" / f"{name}.txt"
    if addition.exists():
        source[0] += "\n" + addition.read_text(encoding="utf-8")


def navigation(index: str) -> list[str]:
    """A toctree for each section of the index, of the pages in its list."""
    sections = re.split(r"(?m)^## ", index)[1:]
    return [
        f"\n```{{toctree}}\n:caption: {section.partition(chr(10))[0]}\n:hidden:\n\n"
        + "".join(
            f"{page}\n"
            for page in re.findall(r"(?m)^- .*?\]\(([\w/-]+)\.md\)", section)
        )
        + "```\n"
        for section in sections
    ]


def publish_sources(app: Sphinx, error: Exception | None) -> None:
    """Put the pages as they are beside the built ones: llms.txt links them."""
    for page in [DOCS / "llms.txt", *DOCS.rglob("*.md")]:
        target = Path(app.outdir) / page.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(page.read_bytes())
