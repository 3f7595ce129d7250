"""Signals (blinker, which Flask brings) for a host's metrics and alerts.

The sender is the Flask application. A signal is sent once what it reports is done, on a connection
of our own, and that is given back; nothing is sent of what is done on a host's connection. So a
receiver may take its time or a connection of its own. One that raises changes nothing: its error is
logged, the others are called, and the answer stays as it was.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from blinker import NamedSignal, Namespace

if TYPE_CHECKING:
    from flask import Flask

logger = logging.getLogger("govbudget")

_signals = Namespace()

budget_changed = _signals.signal(
    "govbudget.budget-changed",
    doc="A budget was set or cleared: `subject`, `group`, `budget` (None: cleared), `request_id`.",
)
override_changed = _signals.signal(
    "govbudget.override-changed",
    doc="A member's own limit was set or cleared: `subject`, `organization_id`, `user_id`, "
    "`override` (None: cleared), `request_id`.",
)
threshold_crossed = _signals.signal(
    "govbudget.threshold-crossed",
    doc="A member's spend has crossed a threshold of the limit, by usage or as a sweep found: "
    "`subject` (whose act it was), `notice`, `request_id`.",
)
access_denied = _signals.signal(
    "govbudget.access-denied",
    doc="The policy said no: `caller`, `action`, `object`, `id`, `code`, `would_allow` (lines), "
    "`policy_digest`, `request_id`.",
)
call_refused = _signals.signal(
    "govbudget.call-refused",
    doc="A call of a model was refused, over HTTP or in Python: `caller` (the service), `call` "
    "(None where the body does not describe one), `refusal` (the error, with its code; a "
    "BudgetExceeded has the figures as well), `request_id`.",
)
policy_reloaded = _signals.signal(
    "govbudget.policy-reloaded", doc="The policy's files were read anew: `policy`."
)


def send(signal: NamedSignal, app: Flask, **facts: Any) -> None:  # noqa: ANN401 - what it reports
    """Call the receivers, each one whatever the others do; log the error of one that raises."""
    if signal.is_muted:
        return
    for receiver in signal.receivers_for(app):
        try:
            app.ensure_sync(receiver)(app, **facts)
        except Exception:
            logger.exception("a receiver of the signal `%s` failed", signal.name)
