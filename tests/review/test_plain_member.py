"""What policy/README.md says that a plain member of an organization sees is so, over HTTP."""

from __future__ import annotations

import pytest
from tests.support import Client, budget_path, make_app
from tests.web.helpers import put_limit

pytestmark = pytest.mark.slow


def test_a_plain_member_sees_the_everyone_group_and_themselves_and_changes_nothing(engine, world):
    send = Client(make_app(engine))
    for group in (world.a, world.a1):
        put_limit(send, group, world.org_admin)
    for user in (world.joined, world.org_admin):  # both by the Everyone group
        call = {
            "organization_id": str(world.a),
            "user_id": str(user),
            "provider": "p",
            "model": "m",
        }
        call |= {"event_id": str(user), "tokens": {"input": 1}}
        answer = send("POST", "/ai/usage", world.gateway, json=call)
        assert answer.status_code == 201, answer.json
    who, organization = world.joined, f"/organizations/{world.a}"

    def see(path, status=200):
        answer = send("GET", path, who)
        assert answer.status_code == status, (path, answer.json)
        return answer.json

    assert see(budget_path(world.a))["group_id"] == str(world.a)
    assert see(f"/groups/{world.a}/ai/spend")["group_id"] == str(world.a)
    budgets = see(f"{organization}/ai/budgets")["budgets"]
    groups = see(f"{organization}/groups/ai/spend")["groups"]
    for listed in (budgets, groups):
        assert [item["group_id"] for item in listed] == [str(world.a)]
    spenders = see(f"/groups/{world.a}/members/ai/spend")["members"]
    assert [item["user_id"] for item in spenders] == [str(who)]
    see(f"{organization}/members/{who}/ai/spend")
    see(f"{organization}/members/{world.member}/ai/spend", 404)
    see(budget_path(world.a1), 404)
    see("/ai/prices/anthropic/x", 403)
    see(f"{organization}/ai/audit", 403)
    assert put_limit(send, world.a, who).status_code == 403
