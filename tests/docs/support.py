"""Reading the documents."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def read_blocks(document, language, indent=0):
    """The fenced code blocks of a language, in order; those of a list are indented."""
    space = " " * indent
    text = "\n".join(line.removeprefix(space) for line in document.read_text().splitlines())
    blocks = re.findall(r"^```([^`\n]*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block for info, block in blocks if info == language]
