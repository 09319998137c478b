"""The manual: MyST pages, autodoc for the reference, and nothing from the network."""

from unitwork import __version__

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
