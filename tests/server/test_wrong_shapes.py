"""A directory file of a wrong shape: the sentence shows the right one."""

from __future__ import annotations

import json

import pytest

from govbudget.server.directory_file import DirectoryFile

pytestmark = pytest.mark.slow

LISTS = list(DirectoryFile.model_fields)


def find_right(result):
    """What the first line shows, in backticks."""
    assert (result.status, result.out) == (2, "")
    first = result.err.splitlines()[0]
    text = first.partition("; the right shape is `")[2]
    assert text.endswith("`")
    return json.loads(text[:-1])


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize(
    "wrong", ["x", {"id": "x"}, ["x"], [["x"]], [{}], [{"email": "x"}]], ids=json.dumps
)
def test_a_wrong_list_is_shown_with_an_entry_of_it(here, name, wrong):
    """The list that is wrong, and no other; what is shown is a right file."""
    right = find_right(here("directory", "load", "-", stdin=json.dumps({name: wrong}).encode()))
    (entry,) = right[name]
    assert list(right) == [name]
    assert (
        entry.keys()
        == type(getattr(DirectoryFile.model_validate(right), name)[0]).model_fields.keys()
    )


def test_several_wrong_lists_are_all_shown_once(here):
    """In the order of the file format."""
    content = b'{"roles": [1, 2], "groups": {}, "users": []}'
    assert list(find_right(here("directory", "load", "-", stdin=content))) == ["groups", "roles"]


@pytest.mark.parametrize("content", [b"[]", b'"users"', b"null", b'{"people": []}', b'{"a/b": 1}'])
def test_a_wrong_whole_is_shown_with_each_of_its_lists(here, content):
    """Also where a list has a name that is not known."""
    right = find_right(here("directory", "load", "-", stdin=content))
    assert list(right) == LISTS
    DirectoryFile.model_validate(right)


@pytest.mark.parametrize("content", [b"users: []", b"", b"\xff"])
def test_what_is_not_json_says_so_and_shows_the_whole_shape(here, content):
    """A reader who sends YAML sees what is wanted."""
    assert list(find_right(here("directory", "load", "-", stdin=content))) == LISTS
