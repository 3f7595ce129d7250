"""A model of the ledger in plain integers, which shares nothing with govbudget but its words.

What is spent is the sum of all events as they were last corrected; what is held is the sum of all
holds that have not ended or expired. There is no counter that could be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tests.spend.costs import cost_of

MICRO = 10**6
FOUR = ("input_price", "output_price", "cache_read_price", "cache_write_price")


def fill(old, new):
    """Give the price of a correction: the old one, and today's of what that had none for."""
    if not any(old.get(name) is not None for name in (*FOUR, "further", "tiers")):
        return new
    rows = (old, new)
    base, *tiers = sorted({0, *(t["input_above"] for row in rows for t in row.get("tiers", []))})
    filled = [{**fill_at(old, new, above), "input_above": above} for above in tiers]
    return {**fill_at(old, new, base), "tiers": filled}


def fill_at(old, new, above):
    """Give the price of a call of just more input than this."""
    was, is_now = (
        [row, *(t for t in row.get("tiers", []) if t["input_above"] <= above)][-1]
        for row in (old, new)
    )
    four = {name: is_now.get(name) if was.get(name) is None else was[name] for name in FOUR}
    return {**four, "further": {**is_now.get("further", {}), **was.get("further", {})}}


@dataclass
class Ledger:
    """Members who share a limit (in micros; None: none), and the prices of models."""

    clock: object
    prices: dict
    limit: int | None = None
    holds: dict = field(default_factory=dict)
    events: dict = field(default_factory=dict)

    def copy(self):
        """Give another ledger of the same state: no act changes what a hold or an event holds."""
        holds, events = (
            {name: dict(one) for name, one in these.items()} for these in (self.holds, self.events)
        )
        return replace(self, holds=holds, events=events)

    @property
    def now(self):
        return self.clock()

    @property
    def period(self):
        return self.now.year, self.now.month

    def price_of(self, model):
        return self.prices.get(model) or {}

    def spent(self, member, period):
        mine = (e for e in self.events.values() if (e["member"], e["period"]) == (member, period))
        return sum(event["cost"] or 0 for event in mine if event["corrected_by"] is None)

    def held(self, member, period):
        mine = (h for h in self.holds.values() if (h["member"], h["period"]) == (member, period))
        return sum(hold["cost"] or 0 for hold in mine if self.state(hold) == "open")

    def state(self, hold):
        return hold["ended"] or ("open" if hold["expires"] > self.now else "expired")

    def refuse(self, member, period, cost, lacks):
        """Say why a call is not admitted, or None."""
        if self.limit is None or (cost == 0 and not lacks):
            return None
        if lacks:
            return "unpriced-model"
        used = self.spent(member, period) + self.held(member, period)
        return "budget-exceeded" if used + cost > self.limit * MICRO else None

    def show(self, its_id):
        hold = self.holds[its_id]
        return self.state(hold), hold["cost"], hold["lacks"], hold["expires"]

    def hold(self, its_id, member, model, counts, ttl):
        body = (member, model, counts, ttl)
        if its_id in self.holds:
            same = self.holds[its_id]["body"] == body
            return self.show(its_id) if same else "hold-conflict"
        price = self.price_of(model)
        cost, lacks = cost_of(counts, price)
        refusal = self.refuse(member, self.period, cost, lacks)
        if refusal is None:
            self.holds[its_id] = {
                "body": body, "member": member, "model": model, "period": self.period,
                "price": price, "cost": cost, "lacks": set(lacks), "ended": None,
                "expires": self.now + ttl,
            }  # fmt: skip
        return refusal or self.show(its_id)

    def find(self, its_id):
        return self.show(its_id) if its_id in self.holds else "hold-not-found"

    def extend(self, its_id, ttl):
        hold = self.holds.get(its_id)
        if hold is None:
            return "hold-not-found"
        if hold["ended"]:
            return "hold-closed"
        if self.state(hold) == "expired":
            refusal = self.refuse(hold["member"], hold["period"], hold["cost"], hold["lacks"])
            if refusal is not None:
                return refusal
        hold["expires"] = max(hold["expires"], self.now + ttl)
        return self.show(its_id)

    def release(self, its_id):
        hold = self.holds.get(its_id)
        if hold is None:
            return "hold-not-found"
        hold["ended"] = hold["ended"] or "released"
        return None

    def take(self, event_id, body, **facts):
        """Store an event, or give the one that is known."""
        if event_id not in self.events:
            self.events[event_id] = {"body": body, "corrected_by": None, **facts}
        event = self.events[event_id]
        return (event["cost"], event["lacks"]) if event["body"] == body else "event-conflict"

    def settle(self, its_id, event_id, counts, model):
        hold = self.holds.get(its_id)
        if hold is None:
            return "hold-not-found"
        model = model or hold["model"]
        body = ("settle", its_id, counts, model)
        settled_by = hold.get("settled_by")
        if settled_by not in {None, event_id}:
            return "event-conflict"
        is_held = model == hold["model"]
        price = hold["price"] if is_held else self.price_of(model)
        cost, lacks = cost_of(counts, price)
        if lacks and not hold["lacks"]:
            cost = max(cost or 0, hold["cost"])
        if event_id not in self.events:
            hold["ended"], hold["settled_by"] = "settled", event_id
        facts = {"member": hold["member"], "period": hold["period"], "price": price}
        return self.take(event_id, body, cost=cost, lacks=set(lacks), **facts)

    def record(self, event_id, member, model, counts):
        price = self.price_of(model)
        cost, lacks = cost_of(counts, price)
        body = ("record", member, model, counts)
        facts = {"member": member, "period": self.period, "price": price}
        return self.take(event_id, body, cost=cost, lacks=set(lacks), **facts)

    def correct(self, event_id, corrects, counts):
        original = self.events.get(corrects)
        if original is None:
            return "event-not-found"
        by = original["corrected_by"]
        if event_id not in self.events and by is not None:
            return "event-corrected"
        today = self.price_of(self.model_of(corrects))
        price = fill(original["price"], today)
        cost, lacks = cost_of(counts, price)
        if event_id not in self.events:
            original["corrected_by"] = event_id
        facts = {"member": original["member"], "period": original["period"], "price": price}
        body = ("correct", corrects, counts)
        return self.take(event_id, body, cost=cost, lacks=set(lacks), **facts)

    def model_of(self, event_id):
        kind, *said = self.events[event_id]["body"]
        if kind == "correct":
            return self.model_of(said[0])
        return said[2] if kind == "settle" else said[1]
