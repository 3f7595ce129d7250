"""The Dockerfile and compose.yaml: what they name is there. No image is built here."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from tests.docs.support import ROOT, read_blocks
from tests.server.support import serving

from govbudget.cli import cli
from govbudget.settings import COMMAND_KEYS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICES = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
PAGE = ROOT / "docs" / "how-to" / "run-in-containers.md"


def read_instructions():
    """Each instruction of the Dockerfile and its arguments, on one line."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and line[0] != "#"]
    return [tuple(line.split(maxsplit=1)) for line in lines]


INSTRUCTIONS = read_instructions()


def find(name):
    """The arguments of the last instruction of that name."""
    return [arguments for instruction, arguments in INSTRUCTIONS if instruction == name][-1]


def parse(words):
    """Parse the words of a command without running it; give the command and its options."""
    context = click.Context(cli)
    command = cli
    while isinstance(command, click.Group):
        context = command.make_context(words[0], [], parent=context, resilient_parsing=True)
        command, words = command.get_command(context, words[0]), words[1:]
    return command, command.make_context(command.name, list(words), parent=context).params


def test_the_image_is_slim_and_its_process_is_not_root():
    """The last user counts, and a number is what an orchestrator can check."""
    images = {arguments.split()[0] for name, arguments in INSTRUCTIONS if name == "FROM"}
    (image,) = images
    version = re.fullmatch(r"python:(3\.\d+)-slim", image)[1]
    assert tuple(map(int, version.split("."))) >= (3, 11), PROJECT["project"]["requires-python"]
    names = [name for name, _ in INSTRUCTIONS]
    assert names.index("USER") > len(names) - names[::-1].index("FROM") - 1
    user, group = map(int, find("USER").split(":"))
    assert min(user, group) > 0


def test_what_is_copied_is_there_and_is_all_that_a_build_reads():
    """The package, its policy, and the files that pyproject.toml names."""
    copied = [
        word
        for name, arguments in INSTRUCTIONS
        if name == "COPY" and not arguments.startswith("--from")
        for word in arguments.split()[:-1]
    ]
    assert [path for path in copied if not (ROOT / path).exists()] == []
    project, wheel = PROJECT["project"], PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = ["pyproject.toml", project["readme"], *project["license-files"]]
    needed += wheel["only-include"]
    assert {path.split("/")[0] for path in needed} == set(copied)
    assert re.search(r"/checkout\[(\w+)\]", find("RUN"))[1] in project["optional-dependencies"]


def test_the_image_serves_where_other_containers_reach_it():
    """The command is one that there is, on the port that is exposed."""
    words = json.loads(find("CMD"))
    assert json.loads(find("ENTRYPOINT")) == list(PROJECT["project"]["scripts"])
    command, options = parse(words)
    assert (command.name, options["host"]) == ("serve", "0.0.0.0")
    assert str(options["port"]) == find("EXPOSE")


@pytest.mark.slow
def test_the_health_check_tells_a_server_that_answers_from_one_that_does_not():
    """Its command is run as it stands, but for the port; the database is away all the time."""
    check = json.loads(find("HEALTHCHECK").partition("CMD ")[2])
    assert check[0] == "python"

    def run(port):
        code = check[2].replace(f":{find('EXPOSE')}/", f":{port}/")
        assert code != check[2]
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
        return done.returncode

    with serving(database_url="postgresql://nobody@127.0.0.1:1/none") as server:
        assert run(server.port) == 0
    assert run(server.port) != 0


def test_the_server_beside_postgresql_may_do_little():
    """A role of its own, a read-only file system, no capability; nobody outside reaches it."""
    server, operator = SERVICES["server"], SERVICES["operator"]
    assert (server["read_only"], server["cap_drop"]) == (True, ["ALL"])
    assert "no-new-privileges:true" in server["security_opt"]
    assert server["ports"] == ["127.0.0.1:8080:8080"]
    urls = [service["environment"]["GOVBUDGET_DATABASE_URL"] for service in (server, operator)]
    users = [re.match(r"postgresql://(\w+):\$\{\w+:\?\}@database/govbudget$", u)[1] for u in urls]
    assert users == ["server", "postgres"]
    for service in (server, operator):
        assert service["environment"].keys() <= set(COMMAND_KEYS)
        assert service["depends_on"]["database"]["condition"] == "service_healthy"


def test_the_commands_of_the_page_are_commands():
    """Each of the operator's is one that there is, with its options; each service is there."""
    script = "".join(read_blocks(PAGE, "sh")).replace("|\n", "\n")
    words = [shlex.split(line) for line in script.splitlines() if "docker compose" in line]
    seen = set()
    for line in words:
        start = line.index("compose") + 1
        rest = [word for word in line[start:] if not word.startswith(("--rm", "-T", "--detach"))]
        if rest[0] == "build":
            continue
        assert rest[1] in SERVICES
        if rest[:2] == ["run", "operator"]:
            asked = rest[2 : rest.index("<") if "<" in rest else None]
            command, _ = parse([word for word in asked if word != "|"])
            seen.add(command.name)
    assert seen == {"upgrade", "grants", "load", "set", "create"}
    assert Path(ROOT / "docs" / "directory.json").exists()
