"""How `make docs` builds the site: Sphinx over the Markdown of the checkout, nothing generated.

The source folder is the top of the checkout, so that links between its documents resolve.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "govbudget"
copyright = "the govbudget maintainers"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/**.md", "policy/README.md"]
exclude_patterns = [".*", "build", "src", "tests"]  # which it would look through for documents
html_theme = "furo"
html_title = "govbudget"
html_extra_path = ["site"]
myst_heading_anchors = 3
suppress_warnings = ["misc.highlighting_failure"]  # Pygments knows no csv, conf or matrix


def add_navigation(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Make the navigation of the lists in docs/index.md: a heading, and the pages under it."""
    if docname != root_doc:
        return
    for section in source[0].split("\n## ")[1:]:
        pages = "\n".join(re.findall(r"^- \[.*?\]\(([^)]+\.md)\)", section, re.MULTILINE))
        caption = section.partition("\n")[0]
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    """Read docs/index.md with its navigation."""
    app.connect("source-read", add_navigation)
