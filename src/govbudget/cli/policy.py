"""Commands that work on policy files; those that are about people ask a database, too."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import click

from govbudget.authz.files import LINES_FILE, MATRIX_FILE, packaged_policy_dir, show_path
from govbudget.authz.reader import Line
from govbudget.authz.table import DecisionTable
from govbudget.cli import NOT_SO, OK, WRONG
from govbudget.cli.each_database import each_database, in_database_of
from govbudget.cli.formats import format_option, print_answer, wrong_usage
from govbudget.cli.host import find_policy_dir, find_settings
from govbudget.errors import PolicyError
from govbudget.identity import Action, ObjectType, Scope
from govbudget.review.check import check_policy
from govbudget.review.diff import Change, Right, diff_roles, diff_tables, read_approvals
from govbudget.review.explain import Explanation, explain_decision, require_asked
from govbudget.review.remarks import WRITERS, Remark, remark_changes, remark_findings
from govbudget.review.render import RENDERERS, describe_cells, select_cells
from govbudget.review.sides import Side, find_folder, load_side

FORMAT = format_option("text", "json")
REMARK_FORMAT = format_option("text", "json", *WRITERS)


@click.group()
def policy() -> None:
    """Check, print, explain and compare policies.

    The folder is DIR, else the host's, else GOVBUDGET_POLICY_DIR, else `./policy` if that exists,
    else the packaged policy. The first line of an answer is the folder's path, with links resolved,
    and its digest. With a --format other than `text` that line goes to stderr; `json` has both as
    fields.
    """


def _find_folder(_ctx: click.Context, _argument: click.Parameter, text: str | None) -> Path:
    if text is not None and not text.strip():
        raise click.UsageError("DIR is empty; name a folder, or leave it out")
    here = Path("policy")
    # A file or a dangling link is found too, and refused: nobody meant the packaged policy.
    default = here if os.path.lexists(here) else packaged_policy_dir()
    return find_policy_dir(text) or default


FOLDER = click.argument("folder", metavar="[DIR]", required=False, callback=_find_folder)


def _resolve(folder: Path) -> str:
    return show_path(Path(os.path.realpath(folder)))


def _name(folder: Path, digest: str | None, form: str) -> str:
    """Say what the answer is about: its first line, or on stderr where a program reads it."""
    line = f"policy: {_resolve(folder)} {digest or '(unreadable)'}"
    click.echo(line, err=form != "text")
    return line


def _open_table(folder: Path) -> DecisionTable:
    review = check_policy(folder, find_settings().policy_digest)
    if review.table is None:
        _name(folder, review.digest, "error")
        raise PolicyError(review.findings)
    if not review.starts:
        line = f"policy: `serve` would not start with it: {MATRIX_FILE} differs or is missing"
        click.echo(line, err=True)
    return review.table


def _print_remarks(form: str, remarks: Iterable[Remark], *about: str) -> None:
    docs = os.environ.get("GOVBUDGET_DOCS_URL", "urn:govbudget:docs")
    for line in WRITERS[form](list(remarks), about, docs):
        click.echo(line)


@policy.command("check")
@FOLDER
@REMARK_FORMAT
def policy_check(folder: Path, form: str) -> int:
    """Print every finding as `file:line: code: sentence`; status 1 on any.

    `sarif` (2.1.0), `github` (annotations of a workflow) and `md` name files by their path in the
    repository.
    """
    review = check_policy(folder, find_settings().policy_digest)
    name = _name(folder, review.digest, form)
    if form in WRITERS:
        _print_remarks(form, remark_findings(review.findings, folder), "check", name)
        return NOT_SO if review.findings else OK
    findings = [asdict(finding) for finding in review.findings]
    text = list(map(str, review.findings))
    if not findings and review.table is not None:
        count = f"{len(review.table.lines)} lines, {len(review.table.scopes)} roles"
        text = [f"no findings: {count}, and every decision is as reviewed"]
    which = {"policy_dir": _resolve(folder), "policy_digest": review.digest}
    print_answer(form, {**which, "findings": findings}, text)
    return NOT_SO if review.findings else OK


@policy.command("matrix")
@FOLDER
@click.option("--role", multiple=True, help="Only this role; may be repeated.")
@click.option("--object", "obj", multiple=True, help="Only this object type; may be repeated.")
@click.option("--action", multiple=True, help="Only this action; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Also what nothing asks about.")
@format_option("text", *sorted({"json", *RENDERERS} - {"text"}))
def policy_matrix(folder: Path, form: str, *, everything: bool, **named: tuple[str, ...]) -> None:
    """Print every decision that is ever asked for, with the lines that decide it.

    `--format csv` prints a `matrix.csv`.
    """
    table = _open_table(folder)
    with wrong_usage():
        cells = select_cells(table, everything=everything, **named)
    _name(folder, table.digest, form)
    if form == "json":
        print_answer(form, {"policy_dir": _resolve(folder), **describe_cells(table, cells)})
    else:
        click.echo(RENDERERS[form](table, cells), nl=False)


@policy.command("explain")
@FOLDER
@click.option("--role", "roles", multiple=True, help="An effective role; may be repeated.")
@click.option("--user", help="Instead of --role: the id of a user in the database ...")
@click.option("--group", help="... and the id of the group that is asked about ...")
@click.option("--member", help="... and, for their spend, of a member of its organization.")
@click.option(
    "--object", "obj", help="The object type; by default a budget, or what a member spends."
)
@click.option("--action", required=True, help="The action asked about, such as `read`.")
@FORMAT
def policy_explain(
    folder: Path, roles: tuple[str, ...], obj: str | None, action: str, form: str, **ids: str | None
) -> int:
    """Say whether it is allowed (status 0) or denied (1), by which lines, and what was lacking.

    It also says why a line never applies, and names the nearest lines if none matches. With
    --user, it says whether each role that the user holds counts toward the group or the member,
    and why not. A question that nothing asks is wrong usage. If a server would not start with the
    folder, stderr says so.
    """
    user = ids["user"]
    if bool(roles) == bool(user) or (roles and any(ids.values())):
        raise click.UsageError("give either --role (once or more), or --user with --group")
    table = _open_table(folder)
    obj = obj or (ObjectType.AI_MEMBER_SPEND if ids["member"] else table.budget_object)
    held = []
    with wrong_usage():
        require_asked(table, obj, action)
        if user:
            # What asks the database is imported for that alone.
            from govbudget.cli.people import explain_held

            with in_database_of(group=ids["group"]):
                held = explain_held(table, ObjectType(obj), user, ids["group"], ids["member"])
            roles = tuple(dict.fromkeys(item["role"] for item in held if item["counts"]))
        explanation = explain_decision(table, roles, obj, action)
    _name(folder, table.digest, form)
    asked = f": {', '.join(roles) or 'no role'}, {obj}, {action}"
    if not user and explanation.own is not explanation.decision.allowed:
        asked = f", but for what is their own{asked}"
    about = {"policy_dir": _resolve(folder), "policy_digest": table.digest, "object": obj}
    about["budgets_decided_as"] = table.budget_object
    who = {"held": held} if user else {"own": "allow" if explanation.own else "deny"}
    answer = about | _describe_explanation(roles, explanation) | who
    text = (_show_held(user, held), _show_explanation(asked, explanation))
    print_answer(form, answer, chain(_show_budgets(table, obj), *text))
    return OK if explanation.decision.allowed else NOT_SO


def _show_budgets(table: DecisionTable, obj: str) -> Iterator[str]:
    if obj in {ObjectType.GROUP, ObjectType.GROUP_AI_BUDGET}:
        other = "" if obj == table.budget_object else "; this is about a group, not its budget"
        yield f"budgets are decided as `{table.budget_object}` by this policy{other}"


def _describe_explanation(roles: tuple[str, ...], explanation: Explanation) -> dict[str, Any]:
    decision = explanation.decision
    return {
        "decision": "allow" if decision.allowed else "deny",
        "roles": roles,
        "lines": decision.lines,
        "matching": [_describe(line) for line in explanation.matching],
        "never_applies": [_describe(line) | {"why": why} for line, why in explanation.dead],
        "nearest": [_describe(line) | {"lacks": why} for line, why in explanation.nearest],
        "nearest_left_out": explanation.left_out,
    }


def _show_held(user: str | None, held: list[dict[str, Any]]) -> Iterator[str]:
    for item in held:
        counts = "counts" if item["counts"] else f"does not count: {item['why']}"
        yield f"holds {item['role']} in {item['domain']}: {counts}"
    if user and all(item["domain"] == f"{Scope.USER}:{user}" for item in held):
        yield f"{user} holds no role anywhere (or there is no such user)"


def _show_explanation(asked: str, explanation: Explanation) -> Iterator[str]:
    decision = explanation.decision
    yield f"{'allowed' if decision.allowed else 'denied'}{asked}"
    for line in explanation.matching:
        decides = ", which decides" if line.name in decision.lines else ""
        yield f"  {line.name} matches: {line.effect}{decides}: {line.text}"
    yield from (f"  {line.name} {why}: {line.text}" for line, why in explanation.dead)
    if not explanation.matching:
        nearest = "; the nearest lines:" if explanation.nearest else ""
        yield f"  no line matches, so it is denied{nearest}"
    yield from (f"  {line.name} {why}: {line.text}" for line, why in explanation.nearest)
    if explanation.left_out:
        yield f"  and {explanation.left_out} more as near; `policy matrix` shows all"


def _describe(line: Line) -> dict[str, str]:
    return {"line": line.name, "text": line.text, "effect": line.effect}


@policy.command("who")
@click.argument("action", metavar="ACTION", type=click.Choice(list(map(str, Action))))
@click.argument("obj", metavar="OBJECT", type=click.Choice(list(map(str, ObjectType))))
@FOLDER
@click.option("--organization", help="Only in this organization (an id).")
@click.option("--group", help="Only on this group (an id).")
@click.option("--user", help="Only on what this member of the organization spends (an id).")
@FORMAT
def policy_who(action: str, obj: str, folder: Path, form: str, **ids: str | None) -> int | None:
    """List everybody in the directory who may do ACTION on OBJECT, where, and by which roles.

    OBJECT is an object type of the policy; `group` asks about the budgets of groups. `group` takes
    --group or --organization. `ai_member_spend` takes --organization, and --user for one member.
    Without them it lists the whole site. Each line is a person, the widest domain in which they
    have the right, the exceptions in it, and every role that gives it, with its domain and the line
    of the policy. Inside a host it asks the host's directory. It reads one snapshot.
    """
    table = _open_table(folder)
    kind = ObjectType.GROUP if obj == ObjectType.GROUP_AI_BUDGET else ObjectType(obj)
    with wrong_usage():
        require_asked(table, table.asked_as(kind), action)
    from govbudget.cli.people import open_reached, show_people

    @each_database
    def show(form: str, **ids: str | None) -> None:
        with open_reached(table, kind, Action(action), ids) as rows:
            _name(folder, table.digest, form)
            which = {"policy_dir": _resolve(folder), "policy_digest": table.digest}
            answer = which | {"action": action, "object": table.asked_as(kind)}
            lines = show_people(rows, f"people who may {action} `{answer['object']}`")
            print_answer(form, answer | {"people": rows}, lines)

    return show(form=form, **ids)


@policy.command("diff")
@click.argument("old")
@click.argument("new")
@click.option(
    "--allow",
    "allowed",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Approved gains: a file with the header of `matrix.csv` and rows of the new one. A row "
    "that the file has in OLD does not count.",
)
@click.option(
    "--merge-base",
    "parted",
    is_flag=True,
    help="Compare with the commit at which OLD and NEW part; a folder counts as HEAD.",
)
@click.option("--people", is_flag=True, help="Also list who gains or loses, and where.")
@REMARK_FORMAT
def policy_diff(
    old: str, new: str, allowed: Path | None, form: str, *, parted: bool, people: bool
) -> int:
    """Say who gains and who loses what from OLD to NEW.

    Each is a folder, or a git revision of one: `HEAD~1`, `main:policy`. The answer starts with
    path, revision and digest of both. Status 1 if somebody gains what is not approved, or if
    nobody gains what is approved. A revision is looked up in the repository of the working
    directory, at the path as it is written from there. A path through a symbolic link or a
    submodule is refused, and so is a name that is there in two letter cases; replaced objects do
    not count. The answer also names roles that are new or gone and change no right. If nobody
    reviewed the new side, stderr says so.
    """
    if people and form in WRITERS:
        raise click.UsageError("--people is printed as `text` or `json`")
    old_side = _load_side("old", old, new, form, parts_from=new if parted else None)
    new_side = _load_side("new", new, old, form)
    before, after = old_side.table, new_side.table
    changes = diff_tables(before, after)
    approvals = read_approvals(allowed, old_side)
    approved, gains = approvals.added, {change.right for change in changes if change.is_gain}
    status, unused = NOT_SO if gains != approved else OK, sorted(approved - gains)
    names = [f"{which}: {side}" for which, side in (("old", old_side), ("new", new_side))]
    warnings = list(_list_warnings(new_side, unused, approvals.earlier & gains - approved))
    if form in WRITERS:
        others = (*_show_tables(before, after, changes), *warnings)
        remarks = remark_changes(changes, approved, others, str(new_side.within / LINES_FILE))
        _print_remarks(form, remarks, "diff", *names)
        return status
    for line in warnings if form == "text" else ():
        click.echo(line, err=True)
    answer = {
        **_describe_sides(old_side, new_side),
        "changes": [_describe_change(change, approved) for change in changes],
        "unused_approvals": unused,
        "earlier_approvals": sorted(approvals.earlier),
    }
    text = [*names, *_show_tables(before, after, changes), *_show_changes(changes, approved)]
    return max(status, _print_diff(form, answer, text, (before, after) if people else ()))


def _print_diff(
    form: str, answer: Mapping[str, object], text: Iterable[str], tables: Sequence[DecisionTable]
) -> int:
    """Print the answer, and where people gain or lose by the tables, if given; give a status."""
    if tables:
        return _print_people(answer, text, *tables, form=form) or OK
    print_answer(form, answer, text)
    return OK


@each_database
def _print_people(
    answer: Mapping[str, object], text: Iterable[str], *tables: DecisionTable, form: str
) -> None:
    """Print the answer, and where people of the directory gain or lose by the tables."""
    from govbudget.cli.people import open_changes, show_people

    with open_changes(*tables) as rows:
        lines = chain(text, show_people(rows, "people who gain or lose"))
        print_answer(form, {**answer, "people": rows}, lines)


def _list_warnings(new: Side, unused: Iterable[Right], spent: Iterable[Right]) -> Iterator[str]:
    if new.unreviewed:
        yield f"new: {new.unreviewed}"
    yield from (f"approved, but nobody gains it: {', '.join(right)}" for right in unused)
    advice = "to approve it again, write the row once more"
    yield from (
        f"approved by an older row: {', '.join(right)}; {advice}" for right in sorted(spent)
    )


def _load_side(
    which: str, name: str, other: str, form: str, *, parts_from: str | None = None
) -> Side:
    """Load one side; findings are printed under the name of the side that has them."""
    default = find_folder(other) or find_policy_dir() or Path("policy")
    try:
        return load_side(name, default, parts_from)
    except PolicyError as error:
        line = f"{which}: {name} can't be read as a policy"
        click.echo(line, err=True)
        if form not in WRITERS:
            raise
        # On stderr, where a workflow looks for commands too, a sentence would not be escaped.
        _print_remarks(form, remark_findings(error.findings, Path(name)), "diff", line)
        raise click.exceptions.Exit(WRONG) from None


def _describe_change(change: Change, approved: frozenset[Right]) -> dict[str, Any]:
    kind = "gain" if change.is_gain else "loss"
    return {**asdict(change), "kind": kind, "approved": change.right in approved}


def _describe_sides(old: Side, new: Side) -> dict[str, Any]:
    added, removed = (
        [{"role": role, "scope": scope} for role, scope in roles]
        for roles in diff_roles(old.table, new.table)
    )
    return {
        "old": old.describe(),
        "new": new.describe(),
        "new_unreviewed": new.unreviewed,
        "roles_added": added,
        "roles_removed": removed,
    }


def _show_tables(
    before: DecisionTable, after: DecisionTable, changes: list[Change]
) -> Iterator[str]:
    """Write what differs beside the rights of roles."""
    if before.budget_object is not after.budget_object:
        yield (
            f"budgets are decided as `{before.budget_object}` by the old policy and as "
            f"`{after.budget_object}` by the new one\n"
        )
    rights = {(change.role, change.scope) for change in changes}
    verbs = (("+", "is new"), ("-", "is gone"))
    for (sign, verb), roles in zip(verbs, diff_roles(before, after), strict=True):
        for role, scope in roles:
            if (role, scope) not in rights:
                yield (
                    f"{role} (held in scope {scope})\n  {sign} {verb}, without a right: "
                    "a list answers whoever holds a role, with nothing in it"
                )


def _show_changes(changes: list[Change], approved: frozenset[Right]) -> Iterator[str]:
    """Write the changes by role: gains with `+`, losses with `-`."""
    if not changes:
        yield "no decision differs"
        return
    for (role, scope), its_changes in groupby(changes, key=lambda c: (c.role, c.scope)):
        yield f"{role} (held in scope {scope})"
        for change in its_changes:
            sign = "+" if change.is_gain else "-"
            note = " [approved]" if change.is_gain and change.right in approved else ""
            yield f"  {sign} {change}{note}"
    gains = sum(change.is_gain for change in changes)
    yield f"{gains} gained, {len(changes) - gains} lost"
