"""Lists that documents keep by hand: the public names, the words, the decision records."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from blinker import NamedSignal
from tests.docs.support import ROOT, read_blocks

DOCS = ROOT / "docs"
DOCUMENTS = [path.relative_to(ROOT) for path in sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])]
MAY_CHANGE = (DOCS / "what-may-change.md").read_text()
PUBLIC = {
    module: re.findall(r"`(\w+)`", names)
    for module, names in re.findall(
        r"^\| `(govbudget[\w.]*)` \| (.*) \|$", MAY_CHANGE, re.MULTILINE
    )
}
WORDS = re.findall(
    r"^\| ([^|]+) \| ([^|]+) \| `([\w.]+)` \|$", (DOCS / "glossary.md").read_text(), re.MULTILINE
)
IMPORT = re.compile(
    r"^ *from (govbudget[\w.]*) import (?:\(([^)]*)\)|(.*?)(?:  #.*)?$)", re.MULTILINE
)


def read_all(module):
    """The `__all__` in the source; a plugin that was imported is not one that pytest can load."""
    path = ROOT.joinpath("src", *module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = re.search(r"^__all__ = (\[.*?\])", source.read_text(), re.MULTILINE | re.DOTALL)
    return ast.literal_eval(found[1]) if found else None


def list_names(module):
    """The names of a module without `__all__` in its source: all signals, or what it defines."""
    loaded = import_module(module)
    names = {name: value for name, value in vars(loaded).items() if not name.startswith("_")}
    signals = {name for name, value in names.items() if isinstance(value, NamedSignal)}
    defined = {n for n, value in names.items() if getattr(value, "__module__", None) == module}
    return getattr(loaded, "__all__", None) or signals or defined


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_has_the_names_that_are_listed_and_no_others(module):
    assert PUBLIC[module] == sorted(read_all(module) or list_names(module))


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_the_code_of_a_document_imports_public_names_only(document):
    code = "\n".join(
        block for indent in (0, 2, 3) for block in read_blocks(ROOT / document, "python", indent)
    )
    for module, several, line in IMPORT.findall(code):
        names = {name.split(" as ")[0].strip() for name in (several or line).split(",")} - {""}
        inner = {name for name in names if f"{module}.{name}" in PUBLIC}
        assert names - inner <= set(PUBLIC.get(module, ())), module


@pytest.mark.parametrize(("word", "_meaning", "place"), WORDS)
def test_a_word_of_the_glossary_has_its_name_in_the_code(word, _meaning, place):
    parts = place.split(".")
    path = ROOT.joinpath("src", "govbudget", *parts)
    if path.is_dir() or path.with_suffix(".py").is_file():
        return
    assert hasattr(import_module(f"govbudget.{'.'.join(parts[:-1])}"), parts[-1]), word


def test_each_word_of_the_glossary_stands_there_once():
    words = [word for word, _, _ in WORDS]
    assert len(words) == len(set(words)) > 30


def test_the_index_of_the_decision_records_has_each_of_them_once_in_order():
    numbers = [path.name for path in sorted((DOCS / "adr").glob("0*.md"))]
    index = (DOCS / "adr" / "index.md").read_text()
    listed = re.findall(r"^\| \[(\d+)\]\((\d+-[\w-]+\.md)\) \|", index, re.MULTILINE)
    assert [name for _, name in listed] == [n for n in numbers if not n.startswith("0000-")]
    assert [int(number) for number, _ in listed] == [int(name[:4]) for _, name in listed]
