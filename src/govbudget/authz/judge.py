"""Ask Casbin every question of the closed domain, and record its answers as a decision table."""

from __future__ import annotations

import base64
import hashlib
import logging
import threading
from contextlib import contextmanager
from importlib import metadata
from typing import TYPE_CHECKING

from govbudget.authz.files import LINES_FILE, PolicyFiles
from govbudget.authz.model import PINNED_MODEL
from govbudget.authz.reader import Effect, Line
from govbudget.authz.table import DecisionTable
from govbudget.errors import Finding, PolicyError
from govbudget.identity import Action, Group, Object, ObjectType, PriceBook, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

    import casbin

# What an object lacks is a domain that nobody can hold: no scope is written like this.
NOWHERE = "nowhere"

EXAMPLES: dict[ObjectType, Object] = {
    ObjectType.GROUP: Group("g", "o"),
    ObjectType.AI_MODEL_PRICE: PriceBook(),
}

# CPython 3.11 can raise SystemError when two threads parse at once, and Casbin parses its matcher.
_ONE_AT_A_TIME = threading.Lock()

_CASBIN_LOGGERS = ("casbin", "casbin.policy", "casbin.enforcer", "casbin.role")


def build_table(files: PolicyFiles, lines: tuple[Line, ...]) -> DecisionTable:
    """Build the table of a policy that passed the reader; raise PolicyError where Casbin disagrees.

    Each role is put, for Casbin, into the domain that its scope names and asked about every
    object and action: once against the whole policy, and once against each line alone. A line is
    asked about with its effect set to allow, since Casbin answers no to a deny line in any case.
    """
    ensure_one_casbin()
    speaking: dict[tuple[str, ObjectType, Action], tuple[Line, ...]] = {}
    findings = []
    with _ONE_AT_A_TIME, _quiet_casbin():
        try:
            whole = _Judge(files.lines.decode("ascii"), lines)
            if whole.policy != [line.fields for line in lines]:
                sentence = "Casbin reads other lines in this file than the strict reader does"
                raise PolicyError([Finding(LINES_FILE, 0, "casbin-disagrees", sentence)])
            alone: dict[tuple[str, ...], frozenset[tuple[ObjectType, Action]]] = {}
            for line in lines:
                key = tuple(line.fields[:4])
                if key not in alone:
                    judge = _Judge(", ".join(("p", *key, Effect.ALLOW)), (line,))
                    alone[key] = frozenset(
                        (obj, action)
                        for obj in ObjectType
                        for action in Action
                        if judge.allows(line.role, obj, action)
                    )
                for obj, action in alone[key]:
                    cell = (line.role, obj, action)
                    speaking[cell] = (*speaking.get(cell, ()), line)
            table = DecisionTable(files.digest, lines, speaking)
            for role in table.scopes:
                for obj in ObjectType:
                    for action in Action:
                        decision = table.decide({role}, obj, action)
                        if whole.allows(role, obj, action) != decision.allowed:
                            sentence = (
                                f"Casbin and its own lines disagree on {role}, {obj}, {action}"
                            )
                            findings.append(Finding(LINES_FILE, 0, "casbin-disagrees", sentence))
        except PolicyError:
            raise
        except Exception as error:
            sentence = f"Casbin failed: {type(error).__name__}: {error}"
            raise PolicyError([Finding(LINES_FILE, 0, "casbin-failed", sentence)]) from error
    if findings:
        raise PolicyError(findings)
    return table


class _Judge:
    """A stock Casbin enforcer over some lines, in which each role is held by one subject."""

    def __init__(self, text: str, lines: tuple[Line, ...]) -> None:
        import casbin
        from casbin.persist.adapters.string_adapter import StringAdapter

        model = casbin.Enforcer.new_model(text=PINNED_MODEL)
        scopes = {line.role: line.scope for line in lines}
        held = [
            f"g, {_holder(role)}, {role}, {_domain(EXAMPLES[ObjectType.GROUP], scope)}"
            for role, scope in scopes.items()
        ]
        rows = [row.strip() for row in text.split("\n")]
        self._enforcer: casbin.Enforcer = casbin.Enforcer(
            model, StringAdapter("\n".join([*rows, *held]))
        )

    @property
    def policy(self) -> list[list[str]]:
        """The lines as Casbin read them."""
        return [list(row) for row in self._enforcer.get_policy()]

    def allows(self, role: str, obj: ObjectType, action: Action) -> bool:
        """Ask Casbin whether the holder of the role may do this to the example object."""
        example = EXAMPLES[obj]
        organization = _domain(example, Scope.ORGANIZATION)
        group = _domain(example, Scope.GROUP)
        answer = self._enforcer.enforce(_holder(role), organization, group, str(obj), str(action))
        return answer is True


def _holder(role: str) -> str:
    """Name the subject that holds the role; a role name has no colon, so the two never meet."""
    return f"holder:{role}"


def _domain(obj: Object, scope: Scope) -> str:
    domain = obj.domain(scope)
    return NOWHERE if domain is None else str(domain)


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
    """Make sure that the import package `casbin` is pycasbin's, unchanged; raise PolicyError if not.

    `casbin` on the package index is the frozen predecessor with the same import name: whichever was
    installed last overwrites the other, and the package list still shows both.
    """
    if _is_installed("casbin"):
        raise _wrong_casbin(
            "the distribution `casbin` is installed beside `pycasbin` and overwrites it; uninstall "
            "both, then install pycasbin again"
        )
    if not _is_installed("pycasbin"):
        raise _wrong_casbin("the distribution `pycasbin` is not installed; install it")
    for path in metadata.distribution("pycasbin").files or ():
        if path.suffix != ".py" or path.hash is None or path.hash.mode != "sha256":
            continue
        try:
            digest = hashlib.sha256(path.locate().read_bytes()).digest()
        except OSError:
            digest = b""
        if base64.urlsafe_b64encode(digest).decode().rstrip("=") != path.hash.value:
            raise _wrong_casbin(
                f"`{path}` is not the file that pycasbin installed (another package that brings "
                "`casbin` has overwritten it); uninstall that one, then reinstall pycasbin"
            )


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _wrong_casbin(sentence: str) -> PolicyError:
    return PolicyError([Finding("pycasbin", 0, "wrong-casbin", sentence)])
