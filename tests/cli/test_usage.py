"""What a newcomer mistypes: one sentence on stderr, status 2, no traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
import sqlalchemy as sa

from govbudget.cli import cli

USER = "00000000-0000-4000-8000-000000000001"


@pytest.mark.slow
def test_at_its_end_python_looks_through_nothing_that_was_imported():
    """It would take half as long as to import it; a worker of `serve` would copy all of it."""
    script = """if True:
        import atexit, gc
        atexit.register(lambda: print("frozen", gc.get_freeze_count() > len(gc.get_objects())))
        from govbudget.cli import main
        main(["--version"])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == b"frozen True"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["polcy", "check"], "See `govbudget --help`"),
        (["polcy", "check"], "did you mean `policy`?"),
        (["help"], "`help` is not a command; known are: `audit`, `budget`, "),
        (["policy", "chek"], "See `govbudget policy --help`"),
        (["policy", "chek"], "No such command 'chek'"),
        (["--verbose"], "--verbose"),
        (["serve", "--prot", "1"], "--port"),
        (["serve", "--port", "http"], "'http' is not a valid integer"),
        (["serve", "--port", "65536"], "65536"),
        (["demo", "--port", "-1"], "-1"),
        (["demo", "extra"], "extra"),
        (["directory", "load"], "'FILE'"),
        (["prices", "show", "openai"], "'MODEL'"),
        (["token", "create"], "'USER'"),
        (["token", "create", "olivia"], "`olivia` is not an id; expected a UUID such as "),
        (["token", "create", "olivia"], "; `directory find` looks ids up by name"),
        (["token", "create", USER, "--days", "0"], "0 is not in the range"),
        (["token", "revoke", "7"], "'7' is not a valid UUID"),
        (["policy", "matrix", "--format", "xml"], "'xml' is not one of"),
    ],
    ids=str,
)
def test_a_mistyped_command_is_one_sentence_and_status_2(run, arguments, says):
    result = run(*arguments)
    assert result.status == 2
    assert says in result.sentence


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ([], ["db", "demo", "directory", "policy", "prices", "serve", "token"]),
        (["db"], ["check", "upgrade"]),
        (["budget"], ["clear", "list", "set", "show"]),
        (["directory"], ["load"]),
        (["policy"], ["check", "matrix"]),
        (["prices"], ["gaps", "load", "remove", "show"]),
        (["token"], ["create", "list", "revoke"]),
    ],
    ids=str,
)
def test_a_missing_command_lists_those_there_are_on_stderr_with_status_2(run, arguments, names):
    result = run(*arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith(" ".join(["Usage: govbudget", *arguments]))
    for name in names:
        assert f"\n  {name} " in result.err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_goes_to_stdout_with_status_0(run, option):
    result = run(option)
    assert (result.status, result.err) == (0, "")
    assert "Commands:" in result.out


def list_commands(command=cli, path=()):
    context = click.Context(command)
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        yield (*path, name), found
        if isinstance(found, click.Group):
            yield from list_commands(found, (*path, name))


@pytest.mark.parametrize(("path", "command"), list(list_commands()), ids=str)
def test_every_command_and_each_of_its_options_says_what_it_is_for(run, path, command):
    result = run(*path, "--help")
    assert (result.status, result.err) == (0, "")
    assert result.out.startswith(f"Usage: govbudget {' '.join(path)} ")
    assert len(command.help) > 20
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == []


def test_python_dash_m_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "govbudget", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"govbudget {version('govbudget')}\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "is not a database URL"),
        ("postgresql://u@host:abc/db", "is not a database URL"),
        ("mysql://u@host/db", "names `mysql`"),
        ("postgresql://u:s3cret@127.0.0.1:1/db", "Connection refused"),
        ("postgresql:///db?host=/nonexistent", "/nonexistent"),
        ("postgresql:///db?nosuchoption=1", "nosuchoption"),
    ],
)
@pytest.mark.parametrize("command", [["db", "check"], ["prices", "show", "a", "b"]], ids=" ".join)
def test_a_bad_database_url_is_one_sentence_that_names_the_variable(run, command, url, says):
    result = run(*command, database_url=url)
    assert result.status == 2
    assert says in result.sentence
    assert "GOVBUDGET_DATABASE_URL" in result.err
    assert "s3cret" not in result.err


@pytest.mark.parametrize(
    "command",
    [
        ["db", "upgrade"],
        ["db", "check"],
        ["token", "create", USER],
        ["token", "list"],
        ["token", "revoke", USER],
        ["prices", "show", "a", "b"],
        ["serve"],
    ],
    ids=" ".join,
)
def test_a_missing_database_url_is_one_sentence_that_names_the_variable(run, command):
    result = run(*command)
    assert result.status == 2
    assert "GOVBUDGET_DATABASE_URL" in result.sentence


@pytest.mark.parametrize("command", [["directory", "load", "-"], ["prices", "load", "-"]])
def test_loading_without_a_database_url_says_so_too(run, command):
    empty = b"{}" if command[0] == "directory" else b"[]"
    result = run(*command, stdin=empty)
    assert result.status == 2
    assert "GOVBUDGET_DATABASE_URL" in result.sentence


def test_a_mistyped_variable_is_found(run, url):
    result = run("db", "check", database_url=url, schemma="other")
    assert result.status == 2
    assert "did you mean `GOVBUDGET_SCHEMA`" in result.sentence


def test_a_mistyped_database_setting_is_guessed_too(run, url):
    result = run("db", "check", databse_url=url)
    assert "did you mean `GOVBUDGET_DATABASE_URL`" in result.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["token", "list"],
        ["token", "create", USER],
        ["token", "revoke", USER],
        ["prices", "show", "a", "b"],
    ],
    ids=" ".join,
)
def test_an_unmigrated_database_is_one_sentence(run, empty_url, command):
    result = run(*command, database_url=empty_url)
    assert result.status == 2
    assert "govbudget db upgrade" in result.sentence


@pytest.mark.slow
@pytest.mark.parametrize(
    ("groups", "id_type"),
    [
        ("public.team.id", "uuid"),
        ("public.team.name", "text"),
        ("public.shown.id", "bigint"),
        ("public.team.late", "bigint"),
        ("public.lost.id", "bigint"),
    ],
    ids=["of another type", "not unique", "a view", "deferrable", "unlogged"],
)
def test_an_upgrade_that_can_not_refer_to_the_groups_names_the_settings(
    run, empty_url, groups, id_type
):
    engine = sa.create_engine(empty_url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for made in (
            "TABLE team (id int PRIMARY KEY, name text, late int UNIQUE DEFERRABLE)",
            "VIEW shown AS SELECT id FROM team",
            "UNLOGGED TABLE lost (id int PRIMARY KEY)",
        ):
            connection.exec_driver_sql(f"CREATE {made}")
    result = run("db", "upgrade", database_url=empty_url, groups=groups, id_type=id_type)
    assert result.status == 2
    assert result.sentence.startswith(
        f"GOVBUDGET_GROUPS is `{groups}`, which can't be referred to ("
    )
    assert "a unique column of the type GOVBUDGET_ID_TYPE" in result.sentence


@pytest.mark.parametrize("noun", ["directory", "prices"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "No such file or directory"),
        ("folder", "Is a directory"),
        (b"{", "not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b'{"a": 1, "a": 2}', "is twice"),
        (b"[" * 200_000, "nested too deeply"),
        (b"", "not JSON"),
    ],
    ids=["missing", "folder", "not JSON", "not UTF-8", "twice", "deep", "empty"],
)
def test_an_unreadable_file_is_one_sentence(run, url, tmp_path, *, noun, content, says):
    path = tmp_path / "file.json"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    result = run(noun, "load", path, database_url=url)
    assert result.status == 2
    assert says in result.sentence


@pytest.mark.parametrize(("noun", "content"), [("directory", b"[1]"), ("prices", b'{"a": 1}')])
def test_json_of_another_shape_is_explained_by_pointer(run, url, noun, content):
    result = run(noun, "load", "-", stdin=content, database_url=url)
    assert (result.status, result.out) == (2, "")
    first, second = result.err.splitlines()
    assert first.startswith("govbudget: ")
    assert second.startswith("  /: ")


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_the_command_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "govbudget", "policy", "matrix", "--format", "json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert [line for line in done.stderr.splitlines() if not line.startswith("policy: ")] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("db sql >/dev/full", "input or output: no space left on device"),
        ("--help >/dev/full", "input or output: no space left on device"),
        ("directory load - <&-", "no database: set GOVBUDGET_DATABASE_URL"),
    ],
)
def test_an_output_without_room_or_no_input_at_all_is_one_sentence(command, says):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m govbudget {command}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"govbudget: {says}")
