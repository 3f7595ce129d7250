"""The documents are true: their code runs, their lists are the code's, their links resolve."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import runpy
import shutil
import sys

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from flask import Flask, request
from flask.cli import FlaskGroup
from tests.docs.support import ROOT, read_blocks
from tests.spend.test_store import Spender
from tests.support import ROUTES, budget_path, make_app

import govbudget
from govbudget import BudgetExceeded, IdType, Layout, Policy, PolicyError
from govbudget.authz.reader import MAX_ROLES, Effect
from govbudget.authz.table import CELLS
from govbudget.cli import cli
from govbudget.db.governed import Governed
from govbudget.errors import CATALOGUE, GovBudgetError
from govbudget.identity import Action, ObjectType, Scope
from govbudget.migrations import upgrade
from govbudget.money import PRICES
from govbudget.prices.price import Price
from govbudget.review.check import check_policy
from govbudget.settings import COMMAND_KEYS, PREFIX, Settings, read_settings
from govbudget.web.blueprint import DOCUMENT
from govbudget.web.call import MIB
from govbudget.web.openapi import find_codes, write_path
from govbudget.web.paging import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE

PACKAGE = ROOT / "src" / "govbudget"
README, REFERENCE = ROOT / "README.md", ROOT / "docs" / "reference.md"
POLICY_README, FLOW = ROOT / "policy" / "README.md", ROOT / "docs" / "security-flow.md"
DOCUMENTS = sorted([*ROOT.glob("*.md"), POLICY_README, *(ROOT / "docs").rglob("*.md")])

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)


def read_rows(document, heading):
    """The cells of all table rows under a heading of the second level, table headers left out."""
    section = document.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    bars = re.sub(r"`[^`\n]*`", lambda code: code[0].replace("|", "\0"), section)
    rows = [
        [cell.strip().replace("\0", "|") for cell in line.strip("|").split("|")]
        for line in bars.splitlines()
        if line.startswith("|")
    ]
    return [
        row
        for row, following in zip(rows, [*rows[1:], [""]], strict=True)
        if not row[0].startswith("---") and not following[0].startswith("---")
    ]


def read_code(text):
    """The code spans of a text."""
    return re.findall(r"`([^`\n]+)`", text)


# -- the README's code --


@pytest.fixture
def readme():
    """The names that the README's blocks define."""
    names = {"__name__": "an_application"}
    for block in read_blocks(README, "python"):
        exec(compile(block, str(README), "exec"), names)
    return names


@pytest.fixture
def readme_app(readme, world, database_url):
    app = readme["create_app"](database_url.render_as_string(hide_password=False), "a secret")
    yield app
    app.extensions["govbudget"].find_engine(None).dispose()


def send(app, person, method, path, **options):
    client = app.test_client()
    with client.session_transaction() as session:
        session["user_id"] = str(person)
    return client.open("/api/v2" + path, method=method, **options)


def test_ten_lines_of_the_readme_embed_it(readme_app, world):
    first = read_blocks(README, "python")[0]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
    body = {"spend_limit_micros": 5_000_000}
    path = budget_path(world.a1)
    assert send(readme_app, world.member, "GET", path).json["code"] == "budget-not-set"
    assert send(readme_app, world.org_admin, "PUT", path, json=body).status_code == 200
    assert send(readme_app, world.member, "GET", path).json["spend_limit_micros"] == 5_000_000
    assert send(readme_app, world.member, "PUT", path, json=body).status_code == 403
    assert send(readme_app, world.b_admin, "PUT", path, json=body).status_code == 404
    assert readme_app.test_client().get("/api/v2" + path).status_code == 401


def test_the_readmes_second_block_asks_before_a_call_and_records_it(readme, readme_app, world):
    """A call that does not fit is not made."""
    made = []

    def make_call(max_tokens):
        made.append(max_tokens)
        return "an answer", {"input": 900, "output": 100}

    def ask():
        return readme["ask_model"](readme_app, world.gateway, world.a, world.member, make_call)

    assert ask() == "an answer"
    path, body = budget_path(world.a1), {"spend_limit_micros": 0}
    assert send(readme_app, world.org_admin, "PUT", path, json=body).status_code == 200
    price = {"provider": "anthropic", "model": "claude-sonnet-4-5", "input_price": 1}
    price |= {"output_price": 1, "cache_read_price": None, "cache_write_price": None}
    path = "/ai/prices?allow_jumps=true"
    assert send(readme_app, world.owner, "PUT", path, json=[price]).status_code == 200
    with pytest.raises(BudgetExceeded):
        ask()
    assert made == [500]


@pytest.mark.slow
def test_the_readmes_third_block_serves_groups_of_the_hosts_own(readme, make_database):
    engine = sa.create_engine(make_database())
    tables = sa.MetaData()
    number = sa.BigInteger
    team = sa.Table(
        "team",
        tables,
        sa.Column("id", number, primary_key=True, autoincrement=False),
        sa.Column("company_id", number),
    )
    team_user = sa.Table(
        "team_user", tables, sa.Column("team_id", number), sa.Column("user_id", number)
    )
    company_user = sa.Table(
        "company_user", tables, sa.Column("company_id", number), sa.Column("user_id", number)
    )
    staff = sa.Table(
        "staff",
        tables,
        sa.Column("user_id", number),
        sa.Column("role", sa.Text),
        sa.Column("company_id", number),
    )
    with engine.begin() as connection:
        tables.create_all(connection)
        connection.execute(team.insert(), [{"id": 7, "company_id": 1}, {"id": 8, "company_id": 2}])
        connection.execute(team_user.insert(), [{"team_id": 7, "user_id": 100}])
        connection.execute(company_user.insert(), [{"company_id": 1, "user_id": 100}])
        connection.execute(staff.insert(), [{"user_id": 200, "role": "org-admin", "company_id": 1}])
        upgrade(connection, Layout(IdType.BIGINT, groups="public.team.id"))
    app = Flask(__name__)
    readme["add_budgets"](
        app,
        engine,
        lambda: request.headers.get("X-User"),
        team,
        team_user,
        company_user,
        staff,
    )

    def ask(user, method, group, **options):
        path = f"/api/v2/groups/{group}/ai/budget"
        return app.test_client().open(path, method=method, headers={"X-User": user}, **options)

    body = {"spend_limit_micros": 9}
    assert ask("200", "PUT", 7, json=body).json["group_id"] == 7
    assert ask("100", "GET", 7).json["spend_limit_micros"] == 9
    assert ask("100", "DELETE", 7).status_code == 403
    assert ask("200", "PUT", 8, json=body).status_code == 404
    with engine.begin() as connection:
        connection.execute(team.delete())
        left = connection.scalar(sa.text("SELECT count(*) FROM govbudget.group_ai_budgets"))
    assert left == 0
    engine.dispose()


def run_flask(app, *arguments):
    """Run `flask govbudget ...` for an application."""
    flask = FlaskGroup(create_app=lambda: app, load_dotenv=False, set_debug_flag=False)
    return CliRunner().invoke(flask, ["govbudget", *arguments], prog_name="flask")


@pytest.mark.slow
def test_the_commands_stand_under_flask_as_the_readme_says(readme_app):
    result = run_flask(readme_app, "db", "check")
    assert result.exit_code == 0, result.output
    assert "as it should be" in result.output


def test_a_policy_command_under_flask_is_about_the_hosts_own_policy(engine, tmp_path):
    folder = tmp_path / "host-policy"
    shutil.copytree(ROOT / "policy", folder)
    (folder / "matrix.csv").unlink()
    app = make_app(engine, policy=str(folder))
    result = run_flask(app, "policy", "check")
    assert result.exit_code == 1, result.output
    assert "not-reviewed" in result.stdout
    assert result.stdout.startswith(f"policy: {folder} sha256:")


# -- the README's lists --


def test_a_default_of_the_reference_is_written_as_one_sets_it():
    text = (ROOT / "docs" / "reference.md").read_text()
    shown = dict(re.findall(r"^\| `(GOVBUDGET_\w+)` \| `(.*?)` \|", text, re.MULTILINE))
    assert len(shown) > 10
    assert read_settings(shown) == Settings()


def test_the_findings_count_the_lines_of_the_closed_domain():
    lines = f"{MAX_ROLES * len(CELLS) * len(Effect):,} different lines"
    assert lines in (ROOT / "docs" / "findings.md").read_text()


def test_the_readme_stays_short():
    assert len(README.read_text().splitlines()) <= 160


def test_each_call_that_the_readme_names_is_there():
    named = re.findall(r"`((?:GET|PUT|POST|DELETE) /[^`]*)`", README.read_text())
    assert named
    routes = {f"{route.method} {write_path(route)}" for route in ROUTES}
    assert set(named) <= {*routes, f"GET {DOCUMENT}"}


# -- the reference --


def test_the_reference_is_what_its_tool_writes_from_the_code():
    tool = runpy.run_path(str(ROOT / "tools" / "write_reference.py"))
    assert REFERENCE.read_text() == tool["write"](REFERENCE.read_text())


def test_no_setting_command_option_code_call_word_or_signal_is_missing_in_the_reference():
    options = {
        f"{name} {option.opts[0]}"
        for name, command in COMMANDS.items()
        for option in command.params
        if isinstance(option, click.Option)
    }
    known = {
        *(f"{PREFIX}{field.name.upper()}" for field in dataclasses.fields(Settings)),
        *COMMAND_KEYS,
        *CATALOGUE,
        *(f"{route.method} {write_path(route)}" for route in ROUTES),
        *Scope,
        *ObjectType,
        *Action,
        *("access_denied", "budget_changed", "policy_reloaded"),
    }
    assert known <= set(read_code(REFERENCE.read_text()))
    commands = REFERENCE.read_text().split("\n## Commands\n")[1].split("\n## ")[0]
    found, name = set(), ""
    for line in commands.splitlines():
        if line.startswith("###"):
            name = re.match(r"`(govbudget(?: [a-z]+)*)", line.lstrip("# "))[1]
            found.add(name)
        elif line.startswith("- `--"):
            found.add(f"{name} {re.match(r'- `(--[a-z-]+)', line)[1]}")
    assert COMMANDS.keys() | options <= found


def test_what_the_reference_says_of_every_call_is_so():
    text = REFERENCE.read_text().split("\n## HTTP\n")[1].split("\n## ")[0]
    limits = sorted({route.max_body // MIB for route in ROUTES})
    assert "over {} MiB, prices: {} MiB".format(*limits) in text
    assert f"`page_size` is\n  {DEFAULT_PAGE_SIZE}, at most {MAX_PAGE_SIZE}" in text
    shared = [set(find_codes(route)) for route in ROUTES]
    with_body = [set(find_codes(route)) for route in ROUTES if route.body is not None]
    said = set(read_code(text.split("- **Every call**")[1].split("\n- ")[0]))
    numbers = {"unauthenticated", "internal-error", "unavailable"}  # named by their status
    assert said | numbers == set.intersection(*shared) | set.intersection(*with_body)


@pytest.fixture
def calls():
    """The functions of the reference's Python."""
    names = {}
    section = REFERENCE.read_text().split("\n## Python\n")[1].split("\n## ")[0]
    (block,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    exec(compile(block, str(REFERENCE), "exec"), names)
    return names


def test_the_python_of_the_reference_runs(calls, engine, world):
    gov = make_app(engine).extensions["govbudget"]
    with engine.begin() as connection:
        world.assign(connection, "nobody", "gateway", None)
        calls["set_limit"](gov, world.org_admin, world.a1, 5_000_000, connection)
    assert calls["show_limit"](gov, world.member, world.a1).spend_limit_micros == 5_000_000
    with gov.unit(world.owner) as unit:
        price = dict.fromkeys(PRICES, 1_000_000)
        batch = [Price(provider="anthropic", model="claude-sonnet-4-5", **price)]
        gov.prices.upsert(unit.authorize("update", prices=True), batch, allow_jumps=True)
    usage = calls["make_call"](gov, world.nobody, world.a, world.member)
    assert usage.cost_picos == 1020 * 10**6


def test_the_reference_says_of_each_function_of_a_store_which_grant_it_takes():
    """By the type of its grant, and by the statements that it runs."""
    nouns = {"group": "Group", "organization": "Organization", "member": "Member"}
    nouns |= {"prices": "PriceBook", "ledger": "Ledger"}
    said = {}
    for functions, right in read_rows(REFERENCE, "Python"):
        action, noun = re.match(r'`"(\w+)", (\w+)=', right).groups()
        said |= dict.fromkeys(read_code(functions), (action, f"Grant[{nouns[noun]}]"))
    stores = {n: s for n, s in find_stores() if isinstance(s, type) and not n.startswith("_")}
    found = {
        f"{name}.{function}": getattr(store, function)
        for name, store in stores.items()
        for function in vars(store)
        if not function.startswith("_")
    }
    assert found.keys() == said.keys()
    for name, function in found.items():
        action, kind = said[name]
        assert inspect.get_annotations(function)["grant"] == kind, name
        room = vars(sys.modules[function.__module__])
        room = {**room, **vars(room.get("statements", inspect))}
        named = re.findall(r"\b[A-Z_]+\b", inspect.getsource(function))
        run = {room[word].action for word in named if isinstance(room.get(word), Governed)}
        assert run <= {action}, name


def find_stores():
    """The stores of an installation, by the name that they have there."""
    for kind in govbudget.Installation.__mro__:
        yield from vars(kind).items()


def test_what_the_reference_keeps_from_http_becomes_an_internal_error(engine):
    text = REFERENCE.read_text().split("These don't reach HTTP")[1].split("\n## ")[0]
    hidden = [code for code in CATALOGUE if f"| `{code}` | 500 |" in text]
    assert hidden
    for code in hidden:

        def fail(code=code):
            raise GovBudgetError(code, "a secret of the host")

        answer = make_app(engine, identify=fail).test_client().put("/api/v2/ai/prices", json=[])
        assert (answer.status_code, answer.json["code"]) == (500, "internal-error")
        assert b"secret" not in answer.data


def list_commands(command=cli, path=("govbudget",)):
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from list_commands(command.get_command(context, name), (*path, name))
    else:
        yield " ".join(path), command


COMMANDS = dict(list_commands())


@every_document
def test_a_command_that_a_document_names_is_there(document):
    named = re.findall(
        r"(?:^|bin/|flask )govbudget((?: [a-z][a-z-]*)+)", as_code(document), re.MULTILINE
    )
    for words in named:
        command = cli
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            command = command.get_command(click.Context(command), word)
            assert command is not None, f"govbudget{words}"


def as_code(document):
    """All code of a document: its blocks and its spans (which may go on in the next line)."""
    text = document.read_text()
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return "\n".join(
        [*blocks, *(code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose))]
    )


def test_every_key_of_the_request_log_is_in_the_reference_and_nothing_else_is(
    readme_app, world, caplog
):
    caplog.set_level("INFO", logger="govbudget.request")
    for person in (world.org_admin, world.outsider):
        send(readme_app, person, "GET", budget_path(world.a1))
        send(readme_app, person, "GET", f"/organizations/{world.a}/members/me/ai/spend")
        send(readme_app, person, "DELETE", f"/ai/holds/{world.a}")
    spender = Spender(world)
    spender.limit(world.a1, 3)
    ids = {"organization_id": str(world.a), "user_id": str(world.member)}
    call = {**ids, "provider": "acme", "model": spender.model, "tokens": {"input": 4}}
    refused = send(readme_app, world.gateway, "POST", "/ai/holds", json=call)
    assert refused.json["code"] == "budget-exceeded"
    logged = {key for record in caplog.records for key in record.govbudget}
    rows = read_rows(REFERENCE, "The request log")
    assert {code for row in rows for code in read_code(row[0])} == logged


# -- the way of a request --


def find_definitions(path):
    """The names of functions, classes, methods (`Class.method`) and statements of a file."""
    kinds = ast.FunctionDef | ast.ClassDef
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id
        if isinstance(node, kinds):
            yield node.name
            if isinstance(node, ast.ClassDef):
                yield from (f"{node.name}.{n.name}" for n in node.body if isinstance(n, kinds))


def test_each_step_of_the_security_flow_is_where_the_document_says():
    rows = read_steps()
    assert len(rows) >= 15
    for step, file, function, *_ in rows:
        assert read_code(function)[0] in set(find_definitions(PACKAGE / read_code(file)[0])), step


def test_each_function_that_the_other_calls_take_is_there():
    rows = read_rows(FLOW, "The other calls")
    named = [code for *_, statements in rows for code in read_code(statements)]
    named = [code for code in named if re.fullmatch(r"[A-Z_]+", code)]
    assert len(named) > 12
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    known = {name for text in texts for name in re.findall(r"^([A-Z_]+) = ", text, re.MULTILINE)}
    assert set(named) <= known


def read_steps():
    table = FLOW.read_text().split("\n## ")[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if re.match(r"\| \d", line)
    ]


def test_each_error_code_of_the_security_flow_is_known_with_its_status():
    for step, *_, answer in read_steps():
        for status, code in re.findall(r"(\d{3}) `([a-z-]+)`", answer):
            assert int(CATALOGUE[code][0]) == int(status), step


# -- the policy, for its reviewer --


def read_policy_rights():
    lines = (ROOT / "policy" / "policy.csv").read_text().splitlines()
    return [line for line in lines if line.startswith("p,")]


def test_the_lines_that_may_change_a_budget_are_those_that_the_reviewer_is_shown():
    shown = read_blocks(POLICY_README, "")[0].splitlines()
    assert shown == [line for line in read_policy_rights() if ", group, update, allow" in line]
    assert "It has sixteen rights, the rest are comments." in POLICY_README.read_text()
    assert len(read_policy_rights()) == 16


def test_the_lines_that_show_a_members_spend_are_those_that_the_reviewer_is_shown():
    shown = read_blocks(POLICY_README, "")[1].splitlines()
    assert shown == [line for line in read_policy_rights() if ", ai_member_spend, " in line]


def test_the_worked_example_adds_a_role_by_two_lines(tmp_path):
    _, _, line, cell, _ = read_blocks(POLICY_README, "")
    folder = tmp_path / "policy"
    shutil.copytree(ROOT / "policy", folder)
    with (folder / "policy.csv").open("a") as file:
        file.write(line)
    with pytest.raises(PolicyError) as refused:
        Policy.load(folder)
    assert [finding.code for finding in refused.value.findings] == ["matrix-differs"]
    with (folder / "matrix.csv").open("a") as file:
        file.write(cell)
    assert check_policy(folder).findings == ()
    policy = Policy.load(folder)
    assert policy.decide({"budget-viewer"}, "group", "read").allowed
    assert not policy.decide({"budget-viewer"}, "group", "update").allowed
    assert not policy.decide({"budget-viewer"}, "ai_model_price", "read").allowed


def test_the_model_is_explained_in_its_own_words():
    model = (ROOT / "policy" / "model.conf").read_text()
    rows = read_rows(POLICY_README, "What the model says, word by word")
    quoted = [read_code(row[0])[0] for row in rows]
    assert [quote for quote in quoted if quote not in model] == []
    left = " ".join(line for line in model.splitlines() if line and line[0] not in "#[")
    for quote in quoted:
        left = left.replace(quote, "")
    assert re.sub(r"[ ()]|&&|\|\|", "", left) == "m="


# -- files, targets, links --


@every_document
def test_the_files_that_a_document_names_are_there(document):
    code = as_code(document)
    written = set(re.findall(r"^`([\w./-]+)`:\n\n```", document.read_text(), re.MULTILINE))
    spans = re.findall(r"`([\w./-]+(?:\.(?:py|md|csv|conf|json|toml)|/))`", document.read_text())
    paths = re.findall(r"(?<![\w./-])(?:src|tests|docs|policy|tools|\.ci)/[\w./-]*[\w/]", code)
    homes = (ROOT, document.parent, PACKAGE, ROOT / "policy")
    missing = [
        name for name in [*spans, *paths] if not any((home / name).exists() for home in homes)
    ]
    assert set(missing) <= written  # what the document itself tells to write


def test_no_document_has_a_merge_conflict_in_it():
    conflict = re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE)
    assert [path for path in DOCUMENTS if conflict.search(path.read_text())] == []


def test_the_idea_counts_the_questions_right():
    roles = Policy.load().table.scopes
    words = {6: "six", 3: "three"}
    counted = (words[len(roles)], words[len(ObjectType)], words[len(Action)])
    text = " ".join((ROOT / "docs" / "idea.md").read_text().split())
    assert (
        "{} roles, {} objects and {} actions: a hundred and eight questions".format(*counted)
        in text
    )


@every_document
def test_the_make_targets_that_a_document_names_are_there(document):
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", as_code(document), re.MULTILINE))
    assert named <= targets


def test_every_target_of_the_makefile_that_works_is_in_contributing():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"^make ([a-z-]+)", as_code(ROOT / "CONTRIBUTING.md"), re.MULTILINE)
    assert targets - {"bench"} == set(named) - {"bench"}


@every_document
def test_the_links_of_a_document_lead_somewhere(document):
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
            assert anchor in slugs, link


@pytest.mark.parametrize(
    "record", sorted((ROOT / "docs" / "adr").glob("0*.md")), ids=lambda p: p.stem
)
def test_a_decision_record_ends_with_what_violates_it(record):
    text = record.read_text()
    parts = [
        "**Context.**",
        "**Decision.**",
        "**Consequences.**",
        "**A change violates this decision when**",
    ]
    places = [text.find(part) for part in parts]
    assert places == sorted(places)
    assert places[0] > 0
    assert "\n\n" not in text[places[-1] :].rstrip()


def test_the_public_names_are_few_and_each_is_used_in_a_document():
    """In its code: a name that no document needs is not public."""
    texts = "\n".join(document.read_text() for document in DOCUMENTS)
    code = " ".join(re.findall(r"```.*?```|`[^`\n]+`", texts, re.DOTALL))
    names = set(govbudget.__all__)
    assert len(names) <= 35
    assert names - set(re.findall(r"\w+", code)) == set()
    assert all(getattr(govbudget, name) is not None for name in names)
