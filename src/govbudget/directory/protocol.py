"""What govbudget asks of a directory of people and groups, whosever tables it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, FromClause

    from govbudget.identity import Group, Id, Member, Organization, Subject


class Directory(Protocol):
    """Where subjects and groups are loaded from. It reports assignments and decides nothing.

    Requests ask the selectables and the `load_*`; `list_subjects` is for commands about everybody.
    Each `load_*` sends one statement on the connection that it is given, names no budget, price or
    spend table in it, and never commits. A subject that it does not know has no assignments; None
    is the operator of a command, who has none, and for whom the object alone is loaded.
    """

    @property
    def groups(self) -> FromClause:
        """The groups as the database has them: a selectable with `id` and `organization_id`.

        A boolean `is_everyone`, where there is one, marks groups that hold all members of their
        organization, who are not listed in `group_members`.
        """

    @property
    def group_members(self) -> FromClause:
        """Who is in which group: a selectable with `group_id` and `user_id`."""

    @property
    def organization_members(self) -> FromClause:
        """Who is in which organization: a selectable with `organization_id` and `user_id`."""

    def load_subject(self, connection: Connection, subject_id: Id) -> Subject:
        """Load the caller with the roles held on the site. Never asked for the operator."""

    def load_group(
        self, connection: Connection, subject_id: Id | None, group_id: Id
    ) -> tuple[Subject, Group | None]:
        """Load the group, and the caller's roles on the site, in its organization and in it."""

    def load_organization(
        self, connection: Connection, subject_id: Id | None, organization_id: Id
    ) -> tuple[Subject, Organization | None]:
        """Load the organization, and the caller's roles on the site, in it and in its groups."""

    def load_member(
        self, connection: Connection, subject_id: Id | None, organization_id: Id, user_id: Id
    ) -> tuple[Subject, Member | None]:
        """Load a member of an organization, and the caller's roles on the site and in it.

        There is none where the user is not a member, or the organization has no group (is deleted).
        """

    def list_subjects(self, connection: Connection) -> Iterator[Subject]:
        """List everyone who holds a role anywhere, each once, with all of their roles.

        They come one by one, so that nobody holds 100,000 of them in memory: rows that are ordered
        by user are enough, on a connection that reads them in portions. Never commits.
        """
