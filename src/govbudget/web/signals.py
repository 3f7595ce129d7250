"""Signals (blinker, which Flask brings) for a host's metrics and alerts.

The sender is the Flask application. A receiver that raises fails the request that sent the signal;
a change that it reports is made by then.
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

# subject, group, budget (None: it was deleted), request_id
budget_changed = _signals.signal("govbudget.budget-changed")
# caller, action, object, id, code, would_allow, policy_digest, request_id
access_denied = _signals.signal("govbudget.access-denied")
# policy
policy_reloaded = _signals.signal("govbudget.policy-reloaded")
