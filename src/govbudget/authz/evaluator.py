"""Ask Casbin every question of the closed domain, and record its answers as a decision table."""

from __future__ import annotations

import base64
import csv
import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

import casbin
from casbin.persist.adapters.string_adapter import StringAdapter

from govbudget.authz.files import LINES_FILE, PolicyFiles
from govbudget.authz.model import PINNED_MODEL
from govbudget.authz.reader import Effect, Line, read_policy
from govbudget.authz.table import CELLS, DecisionTable
from govbudget.errors import Finding, PolicyError
from govbudget.identity import EXAMPLES, Action, ObjectType, Scope

# The domains that a request names, in the model's order.
_SCOPES_ASKED = (Scope.ORGANIZATION, Scope.GROUP, Scope.USER)
# What an object lacks is a domain that nobody can hold: no scope is written like this.
NOWHERE = "nowhere"
# Makes another organization, group and user of the example's.
ELSEWHERE = "-elsewhere"

# CPython 3.11 can raise SystemError when two threads parse at once, and Casbin parses its matcher.
_ONE_AT_A_TIME = threading.Lock()

_CASBIN_LOGGERS = ("casbin", "casbin.policy", "casbin.enforcer", "casbin.role")


def read_table(files: PolicyFiles) -> DecisionTable:
    """Make the table of a policy's files; raise PolicyError with every finding of the reader."""
    lines, findings = read_policy(files)
    if findings:
        raise PolicyError(findings)
    return build_table(files, lines)


def build_table(
    files: PolicyFiles, lines: tuple[Line, ...], *, compare: bool = True
) -> DecisionTable:
    """Build the table of a policy that passed the reader; raise PolicyError where Casbin disagrees.

    Each role is put, for Casbin, into the domain that its scope names and asked about every object
    and action, against all lines of the role; and each line alone about its own object and action.
    (The lines of other roles can't match; with them the questions would grow as roles times lines.)
    Without `compare`, each line alone is asked about and nothing else: enough for a table that is
    only looked at.
    """
    with _ONE_AT_A_TIME, _quiet_casbin():
        try:
            evaluator = _Evaluator(lines)
            table = DecisionTable(files.digest, lines, _find_matching(evaluator, lines))
            disagreements = list(_compare_with_casbin(evaluator, files, table)) if compare else []
        except Exception as error:
            sentence = f"Casbin failed: {type(error).__name__}: {error}; report it to us"
            raise PolicyError([Finding(LINES_FILE, 0, "casbin-failed", sentence)]) from error
    if disagreements:
        raise PolicyError(disagreements)
    return table


def _find_matching(evaluator: _Evaluator, lines: tuple[Line, ...]) -> list[Line]:
    """Ask Casbin which lines match the cell that they name.

    A line is asked about with its effect set to allow, since Casbin answers no to a deny line in
    any case.
    """

    def matches(line: Line) -> bool:
        row = [*line.fields[:-1], str(Effect.ALLOW)]
        return bool(evaluator.list_allowed(line.role, [row], [(line.object, line.action)]))

    return [line for line in lines if matches(line)]


def list_reached_elsewhere(lines: tuple[Line, ...]) -> dict[str, list[tuple[ObjectType, Action]]]:
    """Ask Casbin what each role, held in one organization, may do to another's objects."""
    with _ONE_AT_A_TIME, _quiet_casbin():
        evaluator = _Evaluator(lines)
        return {
            role: evaluator.list_allowed(role, rows, suffix=ELSEWHERE)
            for role, rows in _group_by_role(lines).items()
        }


def _compare_with_casbin(
    evaluator: _Evaluator, files: PolicyFiles, table: DecisionTable
) -> Iterator[Finding]:
    """Compare with the lines that Casbin reads in the file, and with its answers from all lines."""
    rows = (row.strip() for row in files.lines.decode("ascii").split("\n"))
    if _start_casbin("\n".join(rows)).get_policy() != [line.fields for line in table.lines]:
        sentence = "Casbin reads other lines here than the strict reader does; report it to us"
        yield Finding(LINES_FILE, 0, "casbin-disagrees", sentence)
    for role, own in _group_by_role(table.lines).items():
        allowed = evaluator.list_allowed(role, own)
        for obj, action in CELLS:
            if ((obj, action) in allowed) != table.decide((role,), obj, action).allowed:
                cell = f"{role}, {obj}, {action}"
                sentence = f"Casbin and the file's lines disagree on {cell}; report it to us"
                yield Finding(LINES_FILE, 0, "casbin-disagrees", sentence)


def _group_by_role(lines: tuple[Line, ...]) -> dict[str, list[list[str]]]:
    """Give the rows of each role, each row once."""
    roles: dict[str, list[list[str]]] = {}
    for line in lines:
        rows = roles.setdefault(line.role, [])
        if line.fields not in rows:
            rows.append(line.fields)
    return roles


def _start_casbin(text: str) -> casbin.Enforcer:
    enforcer = casbin.Enforcer(casbin.Enforcer.new_model(text=PINNED_MODEL), StringAdapter(text))
    enforcer.enable_auto_save(False)  # noqa: FBT003 - Casbin's signature
    return enforcer


class _Evaluator:
    """A stock Casbin enforcer in which each role of some lines is held by one subject.

    A role name has no colon, so no subject is called as a role.
    """

    def __init__(self, lines: tuple[Line, ...]) -> None:
        scopes = {line.role: line.scope for line in lines}
        domains = {
            scope: domain
            for scope in Scope
            for example in EXAMPLES.values()
            if (domain := example.domain(scope)) is not None
        }
        held = (f"g, holder:{role}, {role}, {domains[scope]}" for role, scope in scopes.items())
        self._enforcer = _start_casbin("\n".join(held))

    def list_allowed(
        self,
        role: str,
        rows: list[list[str]],
        cells: Iterable[tuple[ObjectType, Action]] = CELLS,
        suffix: str = "",
    ) -> list[tuple[ObjectType, Action]]:
        """Ask Casbin which cells the holder of the role is allowed by these lines.

        With a suffix, the objects are other ones, of another organization and user.
        """
        if not self._enforcer.add_policies(rows):
            raise RuntimeError(f"Casbin did not take the lines of {role}")
        allowed = []
        try:
            for obj, action in cells:
                example = EXAMPLES[obj]
                domains = [f"{example.domain(s) or NOWHERE}{suffix}" for s in _SCOPES_ASKED]
                asked = (f"holder:{role}", *domains, str(obj), str(action))
                if self._enforcer.enforce(*asked) is True:
                    allowed.append((obj, action))
        finally:
            self._enforcer.remove_policies(rows)
        return allowed


@contextmanager
def _quiet_casbin() -> Iterator[None]:
    """Keep Casbin from logging, and its loggers as the host had them.

    Making an enforcer disables those loggers for the whole process; a host that uses Casbin for
    something else keeps its log.
    """
    loggers = [logging.getLogger(name) for name in _CASBIN_LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def ensure_one_casbin() -> None:
    """Make sure that the import package `casbin` is pycasbin's, unchanged; else raise PolicyError.

    `casbin` on the package index is the frozen predecessor with the same import name: whichever was
    installed last overwrites the other, and the package list still shows both.
    """
    sentence = _find_wrong_casbin()
    if sentence is not None:
        raise PolicyError([Finding("pycasbin", 0, "wrong-casbin", sentence)])


def _find_wrong_casbin() -> str | None:
    if any(metadata.distributions(name="casbin")):
        return (
            "the distribution `casbin` is installed beside `pycasbin` and overwrites it; uninstall "
            "both, then install pycasbin again"
        )
    pycasbin = next(iter(metadata.distributions(name="pycasbin")), None)
    if pycasbin is None:
        return "the distribution `pycasbin` is not installed; install it"
    imported, installed = Path(casbin.__file__), Path(str(pycasbin.locate_file("casbin")))
    if imported.resolve().parent != installed.resolve():
        return (
            f"`{imported}` is imported as `casbin`, not what pycasbin installed in `{installed}`; "
            "take it off the path"
        )
    # Not `pycasbin.files`: since Python 3.12 that omits what is gone.
    record = pycasbin.read_text("RECORD") or ""
    return _find_overwritten(record, Path(str(pycasbin.locate_file(""))))


@cache  # this process has imported the files; what overwrites them later does not run in it
def _find_overwritten(record: str, folder: Path) -> str | None:
    for path, recorded, *_ in csv.reader(record.splitlines()):
        # Some releases record files beside the package, which are nothing to us.
        is_code = path.startswith("casbin/") and path.endswith(".py")
        if is_code and recorded.startswith("sha256="):
            try:
                digest = hashlib.sha256((folder / path).read_bytes()).digest()
            except OSError:
                digest = b""
            found = base64.urlsafe_b64encode(digest).decode().rstrip("=")
            if recorded != f"sha256={found}":
                return (
                    f"`{path}` is not the file that pycasbin installed (another package that "
                    "brings `casbin` has overwritten it); uninstall that one, then reinstall "
                    "pycasbin"
                )
    return None
