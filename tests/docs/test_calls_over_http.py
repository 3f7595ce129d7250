"""The client of the page about calls over HTTP loses nothing, whatever answers get lost."""

from __future__ import annotations

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from types import ModuleType
from urllib.error import HTTPError

import pytest
import sqlalchemy as sa
from tests.docs.support import ROOT, read_blocks
from tests.spend.test_store import Spender
from tests.spend.test_verify import verify
from tests.support import TABLES, make_app
from werkzeug.serving import WSGIRequestHandler, make_server

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs" / "how-to" / "calls-over-http.md"


class Dropping:
    """Does what is asked, and then drops some answers; or drops the request before it is done."""

    def __init__(self, app, seed):
        self.app, self.dice, self.lock = app, random.Random(seed), threading.Lock()
        self.dropped = 0

    def __call__(self, environ, start_response):
        with self.lock:
            fate = self.dice.choice(["answer", "answer", "before", "after"])
            self.dropped += fate != "answer"
        if fate == "before":
            return self.drop(environ, start_response)
        content = list(self.app(environ, start_response))
        return self.drop(environ, start_response) if fate == "after" else content

    @staticmethod
    def drop(environ, start_response):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        start_response("200 OK", [])
        return []


class Quiet(WSGIRequestHandler):
    def log(self, *_):
        """Say nothing."""


@contextmanager
def serve(app):
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/api/v2"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def page():
    (block,) = read_blocks(PAGE, "python")
    module = ModuleType(PAGE.stem)
    exec(compile(block, PAGE.name, "exec"), vars(module))
    module.PAUSES = (0.001,) * 40
    return module


@pytest.mark.parametrize("seed", [1, 2])
def test_dropped_answers_lose_no_money_and_count_nothing_twice(page, world, seed):
    spender = Spender(world)
    spender.limit(world.a1, 1000)
    call = {"organization_id": str(world.a), "user_id": str(world.member)}
    call |= {"provider": "acme", "model": spender.model}
    dropping = Dropping(make_app(world.engine), seed)
    with serve(dropping) as url:
        budget = page.Budget(url, {"X-User": str(world.nobody)})

        def make(number):
            def ask_model():
                if number % 5 == 0:
                    raise ConnectionError("the model is away")
                return "text", {"input": number}

            try:
                return budget.call(call, {"input": 50}, ask_model)
            except ConnectionError:
                return None

        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(make, range(40)))
        answered = [number for number, text in enumerate(answers) if text]
        with pytest.raises(HTTPError, match="403"):
            budget.call(call, {"input": 5000}, lambda: ("", {}))
    assert dropping.dropped > 20
    assert answered == [number for number in range(40) if number % 5]
    counters = spender.read("ai_spend_counters", "spent_picos", "held_picos")
    assert counters == [(sum(answered) * 10**12, 0)]
    assert verify(world, world.a) == (1, len(answered), [])
    holds = sa.select(sa.func.count()).where(TABLES.ai_holds.c.organization_id == world.a)
    with world.engine.connect() as connection:
        assert connection.scalar(holds) == 40
