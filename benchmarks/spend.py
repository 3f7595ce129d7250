"""Hold and settle, beside the same statements on raw psycopg. Comes with spend itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.measure import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

    import sqlalchemy as sa

    from benchmarks.measure import Effort


def measure_spend(_effort: Effort, _server: sa.URL) -> Iterator[Row]:
    """Say that there is nothing to measure."""
    yield Row("spend", "hold + settle", "govbudget", target="not there yet")
