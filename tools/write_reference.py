"""Writes the parts of docs/reference.md that the code says of itself.

A part stands between `<!-- from the code: NAME -->` and `<!-- end -->`. The rest of the page is
written by hand and stays as it is.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click
from blinker import NamedSignal

from govbudget.cli import cli
from govbudget.errors import CATALOGUE
from govbudget.identity import Action, ObjectType, Scope
from govbudget.server.directory_file import DirectoryFile
from govbudget.settings import COMMAND_KEYS, PREFIX, Settings
from govbudget.spend.tokens import Tokens
from govbudget.web import problems, signals
from govbudget.web.call import Target
from govbudget.web.openapi import ALWAYS, BODY_CODES, find_codes, write_path
from govbudget.web.routes import list_routes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
DIRECTORY_EXAMPLE = PAGE.with_name("directory.json")
PART = re.compile(r"(<!-- from the code: ([\w ]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LISTED = re.compile(r"^- `(\w+)`: (.*(?:\n  .*)*)", re.MULTILINE)
# What the policy is asked about for a route.
OBJECTS = {
    Target.GROUP: ObjectType.GROUP,
    Target.GROUPS_OF_ORGANIZATION: ObjectType.GROUP,
    Target.MEMBER: ObjectType.AI_MEMBER_SPEND,
    Target.PRICE_BOOK: ObjectType.AI_MODEL_PRICE,
    Target.LEDGER: ObjectType.AI_USAGE,
}
SHARED = {*ALWAYS, *BODY_CODES, "unavailable"}
ON_HTTP = {*problems.CODES.values()}.union(*map(find_codes, list_routes()))


def write(page: str) -> str:
    """Give the page with each of its parts made anew."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n\n{part[3]}", page)


def write_table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Write a table."""
    columns = tuple(head)
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def read_list(thing: object) -> dict[str, str]:
    """Read the list in a docstring: what is said of each name."""
    found = LISTED.findall(inspect.getdoc(thing) or "")
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


def write_settings() -> str:
    """Write the keys, with the defaults of the fields and what the docstring says of them."""
    meanings = read_list(Settings)
    rows = [
        (f"`{PREFIX}{field.name.upper()}`", show_default(field.default), meanings[field.name])
        for field in fields(Settings)
    ]
    rows += [(f"`{key}`", "none", meaning) for key, meaning in COMMAND_KEYS.items()]
    return write_table(("key", "default", "meaning"), rows)


def show_default(value: object) -> str:
    """Write a default as one sets it."""
    if value is None:
        return "none"
    text = ",".join(map(str, sorted(value))) if isinstance(value, frozenset | tuple) else str(value)
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def write_commands() -> str:
    """Write what `--help` says of each command."""
    context = click.Context(cli, info_name="govbudget", **cli.context_settings)
    return "\n\n".join(describe(cli, context))


def describe(command: click.Command, context: click.Context) -> Iterator[str]:
    """Describe a command; a group, with its commands after it."""
    arguments = [p for p in command.params if isinstance(p, click.Argument)]
    words = [context.command_path, *((a.metavar or (a.name or "").upper()) for a in arguments)]
    if context.parent:
        level = "####" if context.parent.parent else "###"
        yield f"{level} `{' '.join(words)}`\n\n{inspect.cleandoc(command.help or '')}"
    options = [p for p in command.params if isinstance(p, click.Option) and context.parent]
    if options:
        yield "\n".join(describe_option(option, context) for option in options)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from describe(inner, click.Context(inner, context, name))


def describe_option(option: click.Option, context: click.Context) -> str:
    """Describe an option: its value, what it does, its default."""
    name, value = option.opts[0], option.metavar or option.opts[0].strip("-").upper()
    if isinstance(option.type, click.Choice):
        value = "|".join(option.type.choices)
    shown = name if option.is_flag else f"{name} {value}"
    given = option.get_default(context)
    is_shown = isinstance(given, str | int) and not option.is_flag
    default = f" Default: `{given}`." if is_shown else ""
    return f"- `{shown}`: {option.help}{default}{' Required.' * option.required}"


def write_directory_file() -> str:
    """Write what an entry of each list of the directory's file is, and its fields."""
    return "\n".join(describe_entries())


def describe_entries() -> Iterator[str]:
    """Describe each list of the file: its entries, and the fields of one."""
    schemas = DirectoryFile.model_json_schema()["$defs"]
    for name, field in DirectoryFile.model_fields.items():
        (entry,) = get_args(field.annotation)
        about = (inspect.getdoc(entry) or "").partition("\n")[0]
        yield f"- `{name}`: {about[0].lower()}{about[1:]}"
        meanings, schema = read_list(entry), schemas[entry.__name__]
        for key, value in schema["properties"].items():
            given = (
                "" if key in schema["required"] else f", default `{json.dumps(value['default'])}`"
            )
            yield f"  - `{key}` ({show_type(value)}{given}): {meanings[key]}."


def show_type(schema: dict[str, Any]) -> str:
    """Write what a JSON schema takes, as people say it."""
    if "anyOf" in schema:
        return " or ".join(map(show_type, schema["anyOf"]))
    if "maxLength" in schema:
        return f"text of {schema['minLength']} to {schema['maxLength']} characters"
    kind = schema.get("format", schema["type"])
    return {"uuid": "a UUID", "string": "text", "boolean": "true or false"}.get(kind, kind)


def write_codes(codes: Collection[str]) -> str:
    """Write some of the codes of errors, by status."""
    rows = sorted((int(CATALOGUE[code][0]), code) for code in codes)
    cells = ((f"`{code}`", str(status), CATALOGUE[code][1]) for status, code in rows)
    return write_table(("code", "status", "when"), cells)


def write_http() -> str:
    """Write the calls: what they do, what they ask the policy for, which errors are theirs."""
    rows = [
        (
            f"`{route.method} {write_path(route)}`",
            (route.view.__doc__ or "").partition("\n")[0].rstrip("."),
            f"`{route.action}` on `{OBJECTS[route.target]}`",
            ", ".join(f"`{c}`" for c in find_codes(route) if c not in SHARED) or "none of its own",
        )
        for route in list_routes()
    ]
    return write_table(("call", "does", "asks the policy for", "its errors"), rows)


def write_tokens() -> str:
    """Write what is counted under each key of `tokens`."""
    rows = ((f"`{name}`", field.description or "") for name, field in Tokens.model_fields.items())
    return write_table(("key", "is"), rows)


def write_words() -> str:
    """Write the closed sets that a line of a policy is made of."""
    kinds = {"scope": Scope, "object": ObjectType, "action": Action}
    words = (
        (kind, word, read_list(words)[word]) for kind, words in kinds.items() for word in words
    )
    return write_table(("", "word", "is"), ((kind, f"`{w}`", text) for kind, w, text in words))


def write_signals() -> str:
    """Write the signals, and what each is sent with."""
    found = {n: s for n, s in vars(signals).items() if isinstance(s, NamedSignal)}
    return write_table(("signal", "says"), ((f"`{n}`", s.__doc__ or "") for n, s in found.items()))


PARTS = {
    "settings": write_settings,
    "commands": write_commands,
    "directory file": write_directory_file,
    "directory example": lambda: f"```json\n{DIRECTORY_EXAMPLE.read_text()}```",
    "http": write_http,
    "codes on http": lambda: write_codes(ON_HTTP),
    "other codes": lambda: write_codes(CATALOGUE.keys() - ON_HTTP),
    "tokens": write_tokens,
    "words": write_words,
    "signals": write_signals,
}

if __name__ == "__main__":
    PAGE.write_text(write(PAGE.read_text()))
