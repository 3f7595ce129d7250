"""Why was this call refused? Each line of the log and each command of the page is as it says."""

from __future__ import annotations

import json
import logging

import pytest
from tests.commands import as_text, run  # noqa: F401 - a fixture
from tests.docs.support import ROOT, read_blocks
from tests.docs.test_how_tos import run_shell
from tests.docs.test_tutorial import BLOCK, mask

from govbudget.db.connection import normalize_url
from govbudget.server.app import JsonLines, create_app, make_engine

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "why-was-this-call-refused.md"
ACME, RESEARCH = (f"a0000000-0000-4000-8000-00000000000{n}" for n in (0, 1))
OLIVIA, ADAM, GRACE, GATEWAY = (f"00000000-0000-4000-8000-00000000000{n}" for n in (1, 2, 3, 4))


@pytest.fixture(scope="module")
def acme(make_database, template):
    return make_database(template=template)


@pytest.fixture
def send(acme, run, caplog):  # noqa: F811 - a fixture
    """A function that sends a call as somebody of the quick start, once that was done."""
    url = as_text(acme)
    for command in (
        ("directory", "load", ROOT / "docs" / "directory.json"),
        ("prices", "load", "--shipped"),
        ("budget", "set", RESEARCH, "--usd", 20),
    ):
        assert run(*command, database_url=url).status == 0
    engine = make_engine(normalize_url(url), 2)
    client = create_app(engine, {}).test_client()
    caplog.set_level(logging.INFO, logger="govbudget")

    def send(person, method, path, body=None):
        token = run("token", "create", person, database_url=url).out.strip()
        headers = {"Authorization": f"Bearer {token}"}
        return client.open(f"/api/v2{path}", method=method, headers=headers, json=body)

    yield send
    engine.dispose()


def ask(send, person=GATEWAY, **changes):
    call = {"organization_id": ACME, "user_id": GRACE, "provider": "anthropic"}
    call |= {"model": "claude-sonnet-4-5", "tokens": {"input": 1000, "output": 2_000_000}}
    return send(person, "POST", "/ai/holds", call | changes)


def test_each_refusal_has_the_line_and_the_code_of_the_page(send, caplog, tmp_path):
    answers = [ask(send), ask(send, model="claude-sonnet-99"), ask(send, ADAM)]
    answers += [ask(send, user_id=ADAM), send(GRACE, "GET", f"/groups/{GRACE}/ai/budget")]
    logged = [JsonLines().format(record) for record in caplog.records]
    shown = [json.loads(block) for block in read_blocks(PAGE, "json")]
    assert len(shown) == 3
    for expected, answer in zip(shown, answers, strict=False):
        (line,) = [line for line in logged if answer.headers["X-Request-Id"] in line]
        found = json.loads(line) | {"period_end": shown[0]["period_end"]}
        assert {key: found[key] for key in expected} == expected
    by_id, denied, *_ = read_blocks(PAGE, "sh")
    export = f"request_id={answers[0].headers['X-Request-Id']}\n"
    in_a_host = [record.getMessage() for record in caplog.records]
    for lines in (logged, in_a_host):
        (tmp_path / "server.log").write_text("\n".join(lines) + "\n")
        for script, count in ((export + by_id, 1), (denied, len(answers))):
            done = run_shell(script, "postgresql://", tmp_path)
            assert (done.returncode, len(done.stdout.splitlines())) == (0, count)
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    table = {row[0].split("`")[1]: int(row[1]) for row in rows[1:]}
    for answer in answers:
        assert table[answer.json["code"]] == answer.status_code


def test_each_command_of_the_page_prints_what_it_shows(send, acme, tmp_path):
    """A policy's lines come with their numbers; what is not in the page is not compared."""
    assert ask(send).status_code == 403
    blocks = [(language, text) for _, language, text in BLOCK.findall(PAGE.read_text())]
    pairs = zip(blocks, [*blocks[1:], ("", "")], strict=True)
    steps = [(text, shown) for (kind, text), shown in pairs if kind == "sh"]
    commands = [step for step in steps if step[0].startswith("govbudget ")]
    assert len(commands) == 7
    printed_all = 0
    for script, (language, shown) in commands:
        done = run_shell(
            script.replace("\\\n", " ").replace("\n", " || true\n"), as_text(acme), tmp_path
        )
        assert "Traceback" not in done.stderr
        assert "Usage" not in done.stderr
        assert "See `" not in done.stderr
        printed = mask(done.stdout + done.stderr)
        for line in mask(shown).splitlines() if language == "text" else ():
            assert line in printed, script
            printed_all += 1
    assert printed_all >= 12
    audit = run_shell(commands[0][0].splitlines()[-1], as_text(acme), tmp_path)
    assert audit.returncode == 0
    assert RESEARCH in audit.stdout
