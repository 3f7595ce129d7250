"""The four selectables of a directory, and the statements that load a caller from them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import sqlalchemy as sa

from govbudget.identity import Scope

_SITE, _ORGANIZATION, _GROUP = (
    sa.literal_column(f"'{scope}'", sa.Text())
    for scope in (Scope.SITE, Scope.ORGANIZATION, Scope.GROUP)
)


class Sources:
    """Where groups, members and roles are selected from.

    A statement gives roles as rows of `scope`, `domain_id` and `role`. Its parameters are `user`,
    the caller; `asked`, the group or organization; `whom`, another user. Where the object is there
    and the caller has no role toward it, it gives one row of NULLs. Its CTEs are named
    `govbudget_...`: a table of the host's may have any other name.
    """

    def __init__(
        self,
        groups: sa.FromClause,
        members: sa.FromClause,
        everybody: sa.FromClause,
        roles: sa.FromClause,
        member_role: str,
    ) -> None:
        self.groups, self.members = groups, members
        self.everybody, self.roles = everybody, roles
        self._user = sa.bindparam("user", type_=_widen(members.c.user_id.type))
        self._asked = sa.bindparam("asked", type_=_widen(groups.c.id.type))
        self._is_everyone = groups.c.get("is_everyone", sa.false())
        self._member = sa.literal(member_role, sa.Text())
        # What is stored may be an enumeration or a number.
        self._role = sa.cast(roles.c.role, sa.Text)
        of_asked = sa.select(groups.c.id).where(groups.c.organization_id == self._asked)
        self._has_group = sa.exists(of_asked)

    @cached_property
    def site_roles(self) -> sa.Select[Any]:
        """The roles held on the site."""
        roles, id_type = self.roles.c, _widen(self.groups.c.id.type)
        nowhere = sa.null() if isinstance(id_type, sa.types.NullType) else sa.null().cast(id_type)
        return sa.select(
            _SITE.label("scope"), nowhere.label("domain_id"), self._role.label("role")
        ).where(roles.user_id == self._user, roles.organization_id.is_(None))

    @cached_property
    def group(self) -> sa.Select[Any]:
        """The group, its organization, and the caller's roles toward it."""
        groups = self.groups.c
        target = (
            sa.select(groups.id, groups.organization_id, self._is_everyone.label("is_everyone"))
            .where(groups.id == self._asked)
            .cte("govbudget_target")
        )
        held = sa.union_all(
            self.site_roles,
            self._select_roles(self.roles.c.organization_id == target.c.organization_id),
            self._select_member_of(self.members.c.group_id == target.c.id),
            sa.select(_GROUP, target.c.id, self._member).where(
                target.c.is_everyone,
                self.everybody.c.user_id == self._user,
                self.everybody.c.organization_id == target.c.organization_id,
            ),
        ).lateral("held")
        return sa.select(
            held.c.scope, held.c.domain_id, held.c.role, target.c.id, target.c.organization_id
        ).select_from(target.outerjoin(held, sa.true()))

    @cached_property
    def organization(self) -> sa.Select[Any]:
        """The caller's roles on the site, in the organization and in its groups."""
        groups = self.groups.c
        here = groups.organization_id == self._asked
        return self._where(
            self._has_group,
            self.site_roles,
            self._select_roles(self.roles.c.organization_id == self._asked),
            self._select_member_of(here, groups.id == self.members.c.group_id),
            self._select_everyone(here),
        )

    @cached_property
    def member(self) -> sa.Select[Any]:
        """The caller's roles on the site and in the organization of a member."""
        everybody = self.everybody.c
        whom = sa.bindparam("whom", type_=_widen(everybody.user_id.type))
        is_member = sa.exists(
            sa.select(everybody.user_id).where(
                everybody.organization_id == self._asked, everybody.user_id == whom
            )
        )
        return self._where(
            sa.and_(self._has_group, is_member),
            self.site_roles,
            self._select_roles(self.roles.c.organization_id == self._asked),
        )

    @cached_property
    def assignments(self) -> sa.Select[Any]:
        """Every role that the caller holds anywhere."""
        user_id, *role = self._held
        return sa.select(*role).where(user_id == self._user)

    @cached_property
    def subjects(self) -> sa.Select[Any]:
        """Every role that anybody holds anywhere, behind their id; in a fixed order."""
        user_id, *role = self._held
        return sa.select(user_id, *role).where(user_id.is_not(None)).order_by(user_id, *role)

    @property
    def _held(self) -> Iterable[sa.ColumnElement[Any]]:
        """The columns of all roles that are held: the user's id, scope, domain and role."""
        roles, members = self.roles.c, self.members.c
        groups, everybody = self.groups, self.everybody
        scope = sa.case((roles.organization_id.is_(None), _SITE), else_=_ORGANIZATION)
        everyone = sa.select(everybody.c.user_id, _GROUP, groups.c.id, self._member).join_from(
            groups, everybody, everybody.c.organization_id == groups.c.organization_id
        )
        held = sa.union_all(
            sa.select(roles.user_id, scope, roles.organization_id, self._role),
            sa.select(members.user_id, _GROUP, members.group_id, self._member),
            everyone.where(self._is_everyone),
        )
        return held.subquery("held").c

    def _where(self, is_there: sa.ColumnElement[bool], *held: sa.Select[Any]) -> sa.Select[Any]:
        """Select what is held, where the object is there."""
        found = sa.select(sa.literal(1).label("found")).where(is_there).cte("govbudget_found")
        roles = sa.union_all(*held).subquery("held")
        return sa.select(roles.c.scope, roles.c.domain_id, roles.c.role).select_from(
            found.outerjoin(roles, sa.true())
        )

    def _select_roles(self, where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        roles = self.roles.c
        return sa.select(_ORGANIZATION, roles.organization_id, self._role).where(
            roles.user_id == self._user, where
        )

    def _select_member_of(self, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        members = self.members.c
        return sa.select(_GROUP, members.group_id, self._member).where(
            members.user_id == self._user, *where
        )

    def _select_everyone(self, *where: sa.ColumnElement[bool]) -> sa.Select[Any]:
        """Select the membership in Everyone groups, whose members are listed nowhere."""
        groups, everybody = self.groups, self.everybody
        return (
            sa.select(_GROUP, groups.c.id, self._member)
            .join_from(groups, everybody, everybody.c.organization_id == groups.c.organization_id)
            .where(self._is_everyone, everybody.c.user_id == self._user, *where)
        )


def _widen(id_type: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Give the type to ask with: any id can be asked for, and is then not found."""
    return sa.BigInteger() if isinstance(id_type, sa.Integer) else id_type
