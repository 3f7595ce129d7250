"""Bodies: one integer from 0 to 10^12 under one key, in UTF-8 JSON, and nothing else."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc

import pytest
import sqlalchemy as sa
from hypothesis import given, strategies as st
from tests.support import Client, budget_path, make_app
from tests.web.helpers import exchange, outcome, put_limit, read_problem, read_row, serve

MIB = 1024 * 1024
KEY = "spend_limit_micros"
INVALID = (400, "invalid-body")


@pytest.fixture(scope="module")
def put(send, town):
    """Sends bytes as the body of a PUT of a1's budget."""

    def put(body, content_type="application/json", **options):
        path = budget_path(town.a1)
        return send("PUT", path, town.owner, data=body, content_type=content_type, **options)

    return put


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 3)
    | st.integers(10**12 - 2, 10**12 + 2)
    | st.floats()
    | st.sampled_from([0.0, 1.0, -0.0, 1e12])
    | st.text(max_size=5)
    | st.integers(0, 99).map(str),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def is_limit(value):
    return type(value) is int and 0 <= value <= 10**12


@given(value=VALUES)
def test_only_an_integer_within_bounds_is_a_limit(engine, town, put, value):
    put(f'{{"{KEY}": 123}}')
    response = put(json.dumps({KEY: value}))
    if is_limit(value):
        assert response.json[KEY] == value
        assert read_row(engine, town.a1) == value
    else:
        assert outcome(response) == INVALID
        assert read_row(engine, town.a1) == 123


@given(value=VALUES)
def test_a_body_of_any_other_form_is_refused(put, value):
    """Whatever JSON it is, only an object with the one key passes."""
    response = put(json.dumps(value))
    if not (isinstance(value, dict) and set(value) == {KEY}):
        assert outcome(response) == INVALID


@given(body=st.binary(max_size=40))
def test_any_bytes_get_an_answer_and_never_a_500(put, body):
    assert put(body).status_code in {200, 400}


LITERALS = {
    "1": True,
    "0": True,
    "-0": True,
    "1000000000000": True,
    "1000000000001": False,
    "-1": False,
    "1.0": False,
    "1e3": False,
    "1E0": False,
    "0.1": False,
    "1e400": False,
    "-1e400": False,
    "NaN": False,
    "Infinity": False,
    "-Infinity": False,
    "01": False,
    "+1": False,
    "0x10": False,
    "1_000": False,
    "1.": False,
    ".5": False,
    "true": False,
    "false": False,
    "null": False,
    '"5"': False,
    '""': False,
    "[]": False,
    "[5]": False,
    "{}": False,
    "9223372036854775808": False,
    "9" * 4000: False,
    "9" * 5000: False,
    '"\\ud800"': False,
    '"\\u0000"': False,
    "5 5": False,
    "5,": False,
    "/* 5 */ 5": False,
    "\u0665": False,
    "[" * 900 + "]" * 900: False,
    "[" * 200_000 + "]" * 200_000: False,
    '{"a":' * 100_000 + "1" + "}" * 100_000: False,
}


@pytest.mark.parametrize(("literal", "passes"), list(LITERALS.items()), ids=lambda v: str(v)[:12])
def test_a_literal_is_taken_as_json_and_as_an_integer(put, literal, passes):
    response = put(f'{{"{KEY}": {literal}}}'.encode())
    assert (response.status_code == 200) == passes
    if not passes:
        assert outcome(response) == INVALID


BODIES = {
    "empty": b"",
    "spaces": b"   ",
    "null": b"null",
    "number": b"5",
    "list": b'[{"spend_limit_micros":1}]',
    "no key": b"{}",
    "unknown key": b'{"spend_limit_micros":1,"x":2}',
    "key in capitals": b'{"Spend_Limit_Micros":1}',
    "key with a space": b'{"spend_limit_micros ":1}',
    "escaped twice": b'{"spend_limit_micros":1,"spend_limit_micr\\u006fs":2}',
    "key twice": b'{"spend_limit_micros":1,"spend_limit_micros":1}',
    "inner key twice": b'{"spend_limit_micros":1,"x":{"a":1,"a":1}}',
    "surrogate key": b'{"spend_limit_micros":1,"\\ud800":2}',
    "zero key": b'{"spend_limit_micros":1,"\\u0000":2}',
    "two values": b'{"spend_limit_micros":1}{"spend_limit_micros":1}',
    "trailing comma": b'{"spend_limit_micros":1,}',
    "single quotes": b"{'spend_limit_micros':1}",
    "unended": b'{"spend_limit_micros":1',
    "byte-order mark": b'\xef\xbb\xbf{"spend_limit_micros":1}',
    "UTF-16": '{"spend_limit_micros":1}'.encode("utf-16"),
    "UTF-16 without mark": '{"spend_limit_micros":1}'.encode("utf-16-le"),
    "UTF-32": '{"spend_limit_micros":1}'.encode("utf-32"),
    "invalid UTF-8": b'{"spend_limit_micros":1,"\xff":1}',
    "raw surrogate": b'{"spend_limit_micros":1,"\xed\xa0\x80":1}',
    "overlong": b'{"spend_limit_micros\xc0\xba":1}',
    "form": b"spend_limit_micros=1",
    "gzip": gzip.compress(b'{"spend_limit_micros":1}'),
    "newline in a key": b'{"spend_limit_micros\n":1}',
}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_not_the_one_object_is_refused_and_writes_nothing(engine, town, put, name):
    put(f'{{"{KEY}": 123}}')
    assert outcome(put(BODIES[name])) == INVALID
    assert read_row(engine, town.a1) == 123


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        (b"{}", ["/spend_limit_micros"]),
        (b'{"spend_limit_micros":-1}', ["/spend_limit_micros"]),
        (b'{"spend_limit_micros":true}', ["/spend_limit_micros"]),
        (b'{"spend_limit_micros":1,"a/b~c":2}', ["/a~1b~0c"]),
        (b'{"x":1,"spend_limit_micros":"1"}', ["/spend_limit_micros", "/x"]),
        (b"[]", [""]),
        (b"{", []),
        (b"", []),
    ],
)
def test_errors_point_at_what_is_wrong(put, body, pointers):
    problem = read_problem(put(body))
    assert problem["code"] == "invalid-body"
    assert "input" not in str(problem["errors"]), "a sentence of pydantic's"
    assert sorted(item["pointer"] for item in problem["errors"]) == pointers


def keys(count, value="1"):
    return "{" + ",".join(f'"{index:06x}":{value}' for index in range(count)) + "}"


CROWDS = {
    "unknown keys": lambda: keys(90_000),
    "keys in a key": lambda: f'{{"{KEY}": {keys(80_000)}}}',
    "one key again and again": lambda: "{" + ",".join(['"a":1'] * 150_000) + "}",
    "numbers": lambda: f'{{"{KEY}": [{",".join("0" * 500_000)}]}}',
    "empty lists": lambda: f'{{"{KEY}": [{",".join(["[]"] * 300_000)}]}}',
    "depth": lambda: f'{{"{KEY}": {"[" * 500_000}',
    "a long integer": lambda: f'{{"{KEY}": {"9" * 1_000_000}}}',
    "a long fraction": lambda: f'{{"{KEY}": 0.{"9" * 1_000_000}}}',
    "a long name": lambda: f'{{"{"k" * 1_000_000}": 1}}',
    "a long value": lambda: f'{{"{KEY}": "{"k" * 1_000_000}"}}',
    "some keys": lambda: keys(99),
}
ROWS = {
    "a million zeros": lambda: f"[{','.join('0' * 1_000_000)}]",
    "zeros": lambda: f"[{','.join('0' * 150_000)}]",
    "empty rows": lambda: f"[{','.join(['{}'] * 10_000)}]",
    "rows of many keys": lambda: f"[{','.join([keys(99)] * 1000)}]",
    "a row of too many keys": lambda: f"[{keys(150_000)}]",
    "long names": lambda: f"[{','.join([keys(1).replace('000000', 'k' * 1000)] * 9000)}]",
}


def refuse_crowd(send, *request, body):
    """Send a body that must be refused; give the problem, and how much memory that took."""
    tracemalloc.start()
    response = send(*request, data=body, content_type="application/json")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert outcome(response) == INVALID
    assert len(response.data) < 20_000
    assert len(response.json["errors"]) <= 50
    return response.json, peak


@pytest.mark.slow
@pytest.mark.parametrize("name", CROWDS)
def test_a_crowded_body_is_refused_in_little_time_and_memory(send, town, name):
    body = CROWDS[name]()
    began = time.thread_time()
    _, peak = refuse_crowd(send, "PUT", budget_path(town.a1), town.owner, body=body)
    assert time.thread_time() - began < 0.2
    assert peak < 8 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_a_crowded_batch_of_prices_is_refused_in_little_memory(send, town, name):
    """Were more errors described than are listed, it would be twice that, and seconds."""
    _, peak = refuse_crowd(send, "PUT", "/ai/prices", town.owner, body=ROWS[name]())
    assert peak < 32 * MIB


def test_a_batch_of_too_many_values_is_refused_before_one_of_them_is_read(send, town):
    """They are counted in the text: that it is not JSON is not found out."""
    body = ROWS["a million zeros"]().removesuffix("]")
    problem, peak = refuse_crowd(send, "PUT", "/ai/prices", town.owner, body=body)
    assert problem["detail"] == "the JSON holds more than 200000 values; send fewer"
    assert problem["errors"] == []
    assert peak < 8 * MIB


def test_the_first_errors_of_many_are_listed_wherever_they_begin(send, town):
    good = {"provider": "acme", "input_price": 1, "output_price": 1}
    good |= {"cache_read_price": None, "cache_write_price": None}
    rows = [{**good, "model": f"m{index}"} for index in range(3000)]
    for row in rows[1000:]:
        row["input_price"] = "1"
    problem = read_problem(send("PUT", "/ai/prices", town.owner, json=rows))
    pointers = [error["pointer"] for error in problem["errors"]]
    assert pointers == [f"/{index}/input_price" for index in range(1000, 1050)]
    assert "2000 errors (the first 50 are listed)" in problem["detail"]


def test_commas_within_values_are_no_crowd(put):
    assert put(f'{{"{KEY}": 1}}{" " * 9000}').status_code == 200
    problem = read_problem(put(json.dumps({KEY: "," * 1500})))
    assert [error["pointer"] for error in problem["errors"]] == [f"/{KEY}"]


def test_an_answer_does_not_repeat_a_value_that_was_sent(put):
    body = json.dumps({KEY: "sk-very-secret"})
    assert b"sk-very-secret" not in put(body).data


GOOD_TYPES = [
    "application/json",
    "APPLICATION/JSON",
    "application/json; charset=utf-8",
    "application/json;charset=UTF-8",
    'application/json; charset="utf-8"',
]
BAD_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/problem+json",
    "application/merge-patch+json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json; charset=latin-1",
    "application/json; charset=",
    "application/json; charset=utf-16",
    "application/jsonx",
    "*/*",
    "application/json, text/plain",
]


@pytest.mark.parametrize("content_type", GOOD_TYPES)
def test_json_in_utf8_is_taken(put, content_type):
    assert put(f'{{"{KEY}": 1}}', content_type).status_code == 200


@pytest.mark.parametrize("content_type", BAD_TYPES)
def test_any_other_media_type_is_415(put, content_type):
    response = put(f'{{"{KEY}": 1}}', content_type)
    assert outcome(response) == (415, "unsupported-media-type")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip", "GZIP"])
def test_a_compressed_body_is_415(put, encoding):
    body = gzip.compress(f'{{"{KEY}": 1}}'.encode())
    response = put(body, headers={"Content-Encoding": encoding})
    assert outcome(response) == (415, "unsupported-media-type")
    assert put(f'{{"{KEY}": 1}}', headers={"Content-Encoding": "identity"}).status_code == 200


def test_a_body_of_one_mebibyte_is_read_and_one_byte_more_is_413(put):
    good = f'{{"{KEY}": 1}}'.encode()
    assert put(good.ljust(MIB)).status_code == 200
    assert outcome(put(good.ljust(MIB + 1))) == (413, "body-too-large")


def test_a_batch_of_prices_may_have_sixteen(send, town):
    for size, expected in ((16 * MIB, (200, None)), (16 * MIB + 1, (413, "body-too-large"))):
        options = {"data": b"[]".ljust(size), "content_type": "application/json"}
        assert outcome(send("PUT", "/ai/prices", town.owner, **options)) == expected


def test_a_limit_holds_though_the_host_read_the_body_first(engine, policy, town):
    """A host's `before_request` that looks at bodies must not lift the limit."""
    from flask import request
    from tests.support import Client, make_app

    app = make_app(engine, policy=policy)
    app.before_request(lambda: request.get_data() and None)
    send = Client(app)
    assert put_limit(send, town.a1, town.owner, 5).json[KEY] == 5
    options = {"data": b"{}".ljust(MIB + 1), "content_type": "application/json"}
    response = send("PUT", budget_path(town.a1), town.owner, **options)
    assert outcome(response) == (413, "body-too-large")


def test_the_hosts_own_limit_does_not_change_the_contracts(engine, policy, town):
    from tests.support import Client, make_app

    app = make_app(engine, {"MAX_CONTENT_LENGTH": 10}, policy=policy)
    assert put_limit(Client(app), town.a1, town.owner, 123456).status_code == 200


def test_bodies_without_a_length_are_measured_as_they_come(app, engine, town):
    """Over a socket, in chunks: a small one is read, a large one is 413, an ended one is 400."""
    path = f"/api/v2{budget_path(town.a1)}"
    headers = {
        "X-User": str(town.owner),
        "Content-Type": "application/json",
        "Transfer-Encoding": "chunked",
    }

    def chunks(size):
        yield f'{{"{KEY}": 42}}'.encode()
        for _ in range(size // 65536):
            yield b" " * 65536

    with serve(app) as port:

        def put(body):
            return exchange(port, "PUT", path, headers=headers, body=body, chunked=True)

        assert put(chunks(0))[0] == 200
        assert read_row(engine, town.a1) == 42
        assert put(chunks(MIB // 2))[0] == 200
        status, answered, body = put(chunks(MIB + 65536))
        assert (status, json.loads(body)["code"]) == (413, "body-too-large")
        assert answered["Content-Type"] == "application/problem+json"
        status, _, body = put(iter([b'{"spend_limit', b'_micros": "']))
        assert (status, json.loads(body)["code"]) == (400, "invalid-body")


def test_a_length_that_lies_does_not_get_a_byte_stored(app, engine, town):
    """A body that ends before its `Content-Length` is a 400, not a shorter body."""
    import socket

    with serve(app) as port:
        request = (
            f"PUT /api/v2{budget_path(town.a1)} HTTP/1.1\r\nHost: x\r\nX-User: {town.owner}\r\n"
            "Content-Type: application/json\r\nContent-Length: 500\r\nConnection: close\r\n\r\n"
            f'{{"{KEY}": 987654}}'
        )
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request.encode())
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while received := connection.recv(4096):
                answer += received
    assert b" 400 " in answer.split(b"\r\n", 1)[0]
    assert b"application/problem+json" in answer
    assert read_row(engine, town.a1) != 987654


def test_a_get_or_delete_pays_no_heed_to_a_body(send, town):
    put_limit(send, town.a1, town.owner)
    options = {"data": b"x" * (MIB + 1), "content_type": "text/plain"}
    assert send("GET", budget_path(town.a1), town.owner, **options).status_code == 200
    assert send("DELETE", budget_path(town.a1), town.owner, **options).status_code == 204


def test_a_slow_body_holds_no_connection(database_url, policy, world):
    """Whoever sends it byte by byte keeps nobody else from the database."""
    engine = sa.create_engine(database_url)
    held = []

    class Slow(io.BytesIO):
        def readinto(self, buffer):
            held.append(engine.pool.checkedout())
            return super().readinto(buffer)

    content = b'{"spend_limit_micros": 5}'
    response = Client(make_app(engine, policy=policy))(
        "PUT",
        budget_path(world.a1),
        world.owner,
        input_stream=Slow(content),
        content_length=len(content),
        content_type="application/json",
    )
    engine.dispose()
    assert response.status_code == 200
    assert set(held) == {0}
