"""Times, read in a form that no setting of the session changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# How a time is read: as microseconds since then. The text of a time depends on the DateStyle and
# the time zone of the session, which may be a host's.
IN_MICROSECONDS = "CAST(extract(epoch FROM {}) * 1000000 AS bigint)"


def find_time(microseconds: int) -> datetime:
    """Give the time, in UTC, that was read as microseconds."""
    return EPOCH + timedelta(microseconds=microseconds)


class Time(sa.TypeDecorator[datetime]):
    """A time with its zone, which is read in UTC, whatever the settings of the session are."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def column_expression(self, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
        """Select the time in microseconds."""
        micros = sa.extract("epoch", column) * sa.literal_column("1000000")
        return sa.type_coerce(sa.cast(micros, sa.BigInteger), self)

    def coerce_compared_value(self, op: Any, value: Any) -> Any:  # noqa: ANN401 - as overridden
        """Take what a plain time is added to or compared with for what it is."""
        return self.impl_instance.coerce_compared_value(op, value)

    def process_result_value(self, value: Any, dialect: object) -> datetime | None:  # noqa: ANN401, ARG002 - as overridden
        """Make a time of the microseconds that were selected."""
        return None if value is None else find_time(value)
