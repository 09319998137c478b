"""Run the Python blocks of the pages that have no file in tests/docs/ yet."""

import gc
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from sybil import Document, Sybil
from sybil.parsers.myst import PythonCodeBlockParser

sys.path.insert(0, str(Path(__file__).parent / "tests"))

from support.manual import PAGES, ROOT, companion


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
    patterns=[
        str(page.relative_to(ROOT)) for page in PAGES if not companion(page).exists()
    ],
    document_types={".md": Page},
    setup=enter,
    teardown=leave,
).pytest()
