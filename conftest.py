"""Run the Python blocks of README.md and docs/: a page is one module.

Each page runs in a temporary working directory of its own. Code that is to be shown
and not run stands in a ```py block, and tests/public/test_docs.py counts those.
"""

import gc
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from sybil import Document, Sybil
from sybil.parsers.myst import PythonCodeBlockParser


class Page(Document):
    """A page as a real module, so that its classes and annotations can be looked up."""

    def __init__(self, text: str, path: str) -> None:
        super().__init__(text, path)
        name = f"page:{path}"
        sys.modules[name] = ModuleType(name)
        self.namespace = vars(sys.modules[name])


def enter(namespace: dict[str, Any]) -> None:
    namespace["_home"] = home = tempfile.TemporaryDirectory()
    namespace["_before"] = Path.cwd()
    os.chdir(home.name)


def leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    namespace["_home"].cleanup()
    del sys.modules[namespace["__name__"]]
    namespace.clear()
    gc.collect()  # what the page forgot to close is reported here, not in a later test


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    document_types={".md": Page},
    setup=enter,
    teardown=leave,
).pytest()
