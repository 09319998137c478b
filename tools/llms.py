"""Write docs/llms.txt, the index of the manual for language models: see llmstxt.org.

    python tools/llms.py

It has what docs/index.md has: each page with its title and one line about it.
"""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
SUMMARY = (
    "A SQLAlchemy session for each request of a FastAPI, Starlette or ASGI application:"
    " committed before a success response starts, rolled back otherwise, always closed."
)
NOTE = (
    "The wheel has a skill for coding agents, in site-packages: "
    "`unitwork/.agents/skills/unitwork/SKILL.md`."
)


def build() -> str:
    """Build the text from the sections of the index."""
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    sections = index[index.index("## ") :].strip()
    plain = re.sub(r"`([^`\n]*)`(?=[^\[\]\n]*\]\()", r"\1", sections)
    return f"# unitwork\n\n> {SUMMARY}\n\n{NOTE}\n\n{plain}\n"


def main() -> None:
    (DOCS / "llms.txt").write_text(build(), encoding="utf-8")


if __name__ == "__main__":
    main()
