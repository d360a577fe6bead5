"""POST /v1/ingest/bookings/events against a real service and a real PostgreSQL: the contract, line by line."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge import flags, signature
from bridge.core_settings import core_settings
from core_api import app, database
from core_api.ingest import log, routes
from tests import serving
from tests.serving import PATH, event, post, rows, signed


@pytest.fixture(scope="module")
def settled() -> Iterator[None]:
    with serving.environment():
        yield


@pytest.fixture(scope="module")
def ops(settled) -> Iterator[str]:
    with serving.ready(os.environ["TEST_PG_URL"]) as url:
        yield url


def test_an_event_is_durable_and_shown(client, ops):
    sent = event(externalBookingRef=" gyg\u200bAbc ", unknown="kept")
    answered = post(client, sent, x_idempotency_key="first-key")
    assert answered.status_code == 202, answered.text
    data = answered.json()["data"]
    assert data == {
        "eventId": data["eventId"],
        "processStatus": "RECEIVED",
        "idempotentReplay": False,
        "queued": False,
        "processedInline": False,
    }
    assert UUID(data["eventId"]).version == 7
    assert answered.headers["x-request-id"] == answered.json()["meta"]["requestId"]
    [row] = rows(
        ops,
        "select channel_code, external_booking_ref, event_time_normalized::text, signature_verified, raw_payload"
        " from ingest_event_log where event_key = %s",
        data["eventId"],
    )
    assert row == ("GYG", "GYGABC", "2026-11-22 08:30:00+00", True, sent)
    shown = client.get(f"{serving.PATH}/{data['eventId']}", headers={"authorization": f"Bearer {serving.TOKEN}"})
    assert shown.json()["data"]["payload"] == sent
    assert shown.json()["data"]["eventTime"] == "2026-11-22T08:30:00.250000Z"
    bare = client.get(f"{serving.PATH}/{data['eventId']}").json()["data"]
    assert not {"payload", "nonce", "idempotencyKey"} & bare.keys()
    assert json.dumps(sent["customer"]["email"]) not in json.dumps(bare)


def code(answered: httpx.Response) -> str:
    """The error's word; the envelope is checked on the way."""
    error = answered.json()["error"]
    assert error["message"].startswith(error["code"])
    assert UUID(error["requestId"])
    return error["code"]


def count(ops: str) -> int:
    return rows(ops, "select count(*) from ingest_event_log")[0][0]


# -- the order of checks ----------------------------------------------------------------------------------------------

LATE, EARLY = timedelta(minutes=-6), timedelta(minutes=6)


@pytest.mark.parametrize(
    ("headers", "body", "status", "word"),
    [
        # each request has this fault and every later one: the earliest check answers
        ({"authorization": None, "x_nonce": None, "at": LATE}, b"{", 401, "UNAUTHORIZED"),
        ({"authorization": "Bearer wrong"}, b"{}", 401, "UNAUTHORIZED"),
        ({"authorization": f"Basic {serving.TOKEN}"}, b"{}", 401, "UNAUTHORIZED"),
        ({"x_nonce": None, "x_signature_algorithm": "MD5", "at": LATE}, b"{", 400, "MISSING_HEADER"),
        ({"x_idempotency_key": "", "at": LATE}, b"{", 400, "MISSING_HEADER"),
        ({"x_signature": None}, b"{}", 400, "MISSING_HEADER"),
        ({"x_signature_algorithm": "HMAC-SHA1", "x_timestamp": "noon"}, b"{", 401, "UNSUPPORTED_ALGORITHM"),
        ({"x_timestamp": "noon", "x_signature": "0"}, b"{", 400, "INVALID_TIMESTAMP"),
        ({"x_timestamp": "1763800000", "x_signature": "0"}, b"{", 400, "INVALID_TIMESTAMP"),
        ({"x_timestamp": "2026-11-22T08:00:00"}, b"{", 400, "INVALID_TIMESTAMP"),
        ({"at": LATE, "x_signature": "0"}, b"{", 401, "TIMESTAMP_OUT_OF_WINDOW"),
        ({"at": EARLY}, b"{", 401, "TIMESTAMP_OUT_OF_WINDOW"),
        ({"x_signature": "0" * 64}, b"{", 401, "UNAUTHORIZED_SIGNATURE"),
        ({"x_signature": "\xe9"}, b"{", 401, "UNAUTHORIZED_SIGNATURE"),
        ({"secret": "another secret"}, b"{", 401, "UNAUTHORIZED_SIGNATURE"),
        ({"x_nonce": "used"}, b"{", 401, "NONCE_REUSED"),
        ({}, b"{", 400, "INVALID_JSON"),
        ({}, b"", 400, "INVALID_JSON"),
        ({}, b"{}", 422, "VALIDATION_ERROR"),
    ],
)
def test_the_earliest_check_answers(client, ops, headers, body, status, word):
    if headers.get("x_nonce") == "used":
        post(client, event(), x_nonce="used")
    if "at" in headers:
        headers = headers | {"at": datetime.now(UTC) + headers["at"]}
    before = count(ops)
    sent = {name: value.encode("latin-1") if value else value for name, value in signed(body, **headers).items()}
    answered = client.post(PATH, content=body, headers=sent)
    assert (answered.status_code, code(answered)) == (status, word)
    assert count(ops) == before


@pytest.mark.parametrize("ours", [timedelta(), LATE, EARLY])
def test_a_clock_may_be_five_minutes_off_and_no_more(client, ops, monkeypatch, ours):
    """The emitter's against ours, or ours against everybody's: to the edge either way, and not a thousandth beyond."""
    here = datetime.now(UTC).replace(microsecond=0) + ours

    class Standing(datetime):
        @classmethod
        def now(cls, tz=None):
            return here

    monkeypatch.setattr(routes, "datetime", Standing)
    edge, beyond = timedelta(minutes=5), timedelta(minutes=5, milliseconds=1)
    for off in (-edge, timedelta(), edge):
        assert post(client, event(), at=here + off).status_code == 202
    before = count(ops)
    for off in (-beyond, beyond):
        refused = post(client, event(), at=here + off)
        assert (refused.status_code, code(refused)) == (401, "TIMESTAMP_OUT_OF_WINDOW")
    assert count(ops) == before


def test_a_signature_covers_each_of_its_lines(client, ops):
    body = json.dumps(event()).encode()
    before = count(ops)
    headers = signed(body)
    later = (datetime.now(UTC) + timedelta(seconds=1)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for name, value in (("x-timestamp", later), ("x-nonce", "n"), ("x-idempotency-key", "k")):
        assert code(client.post(PATH, content=body, headers=headers | {name: value})) == "UNAUTHORIZED_SIGNATURE"
    assert code(client.post(PATH, content=body + b" ", headers=headers)) == "UNAUTHORIZED_SIGNATURE"
    assert code(client.post(PATH, content=body, headers=headers | {"x-signature": headers["x-signature"].upper()})) == (
        "UNAUTHORIZED_SIGNATURE"
    )
    assert count(ops) == before
    assert client.post(PATH, content=body, headers=headers).status_code == 202


def test_the_body_counts_as_received(client, ops):
    sent = event(customer__name="Kadék \U0001f334")
    body = json.dumps(dict(reversed(sent.items())), ensure_ascii=False, indent=3).encode() + b"\n\n"
    event_id = post(client, body).json()["data"]["eventId"]
    [row] = rows(ops, "select raw_payload, payload_hash from ingest_event_log where event_key = %s", event_id)
    assert row == (sent, signature.digest(body))


@pytest.mark.skipif(not shutil.which("node"), reason="Node.js is not installed")
def test_a_signature_made_by_node_is_accepted(client):
    body = json.dumps(event(), ensure_ascii=False)
    script = """
    const { createHmac, createHash, randomUUID } = require('node:crypto')
    const [secret, path, body] = process.argv.slice(1)
    const h = { 'x-timestamp': new Date().toISOString(), 'x-nonce': randomUUID(), 'x-idempotency-key': randomUUID() }
    const lines = ['POST', path, ...Object.values(h), createHash('sha256').update(body).digest('hex')].join('\\n')
    h['x-signature'] = createHmac('sha256', secret).update(lines).digest('hex')
    console.log(JSON.stringify(h))
    """
    made = subprocess.run(
        ["node", "-e", script, serving.SECRET, PATH, body], capture_output=True, text=True, check=True
    ).stdout
    headers = json.loads(made) | {"authorization": f"Bearer {serving.TOKEN}", "x-signature-algorithm": "HMAC-SHA256"}
    assert client.post(PATH, content=body.encode(), headers=headers).status_code == 202


# -- nonce, key, event ------------------------------------------------------------------------------------------------


def test_a_redelivery_gets_the_first_answer_and_a_reused_nonce_none(client, ops):
    body = json.dumps(event()).encode()
    headers = signed(body)
    first = client.post(PATH, content=body, headers=headers)
    again = client.post(PATH, content=body, headers=headers)
    assert (again.status_code, again.json()["data"]) == (202, first.json()["data"] | {"idempotentReplay": True})
    before = count(ops)
    for other in (
        {"x_idempotency_key": headers["x-idempotency-key"], "content": json.dumps(event()).encode()},
        {"x_idempotency_key": "another-" + uuid4().hex, "content": body},
    ):
        refused = post(client, other.pop("content"), x_nonce=headers["x-nonce"], **other)
        assert (refused.status_code, code(refused)) == (401, "NONCE_REUSED")
    assert count(ops) == before
    rows(ops, "update phase2.ingest_nonces set seen_at = now() - interval '601 seconds' returning 1")
    assert post(client, event(), x_nonce=headers["x-nonce"]).status_code == 202


@pytest.mark.parametrize(("change", "field"), [((b"GYG", b"FAX"), "source"), ((b'{"id": 1}', b"1e-20000"), "body")])
def test_a_refused_body_uses_its_nonce_up(client, change, field):
    """Also one that Postgres alone refuses."""
    body = json.dumps(event(externalBookingRef=uuid4().hex)).encode().replace(*change)
    headers = signed(body)
    for _ in range(2):
        answered = client.post(PATH, content=body, headers=headers)
        assert (answered.status_code, answered.json()["error"]["details"][0]["field"]) == (422, field)
    assert code(post(client, event(), x_nonce=headers["x-nonce"])) == "NONCE_REUSED"


def test_a_key_has_one_body_for_good(client, ops):
    sent, key = event(), uuid4().hex
    first = post(client, sent, x_idempotency_key=key).json()["data"]
    rows(ops, "update ingest_event_log set process_status = 'DONE' where event_key = %s returning 1", first["eventId"])
    again = post(client, sent, x_idempotency_key=key)
    assert (again.status_code, again.json()["data"]) == (202, first | {"idempotentReplay": True})
    before = count(ops)
    other = post(client, sent | {"eventType": "UPDATED"}, x_idempotency_key=key)
    assert (other.status_code, code(other)) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert count(ops) == before


def test_the_same_event_under_another_key_is_the_first_one(client, ops):
    ref = uuid4().hex.upper()
    first = post(client, event(externalBookingRef=ref)).json()["data"]
    before = count(ops)
    same = event(externalBookingRef=f"\u2060{ref.lower()} ", eventTime="2026-11-22T09:30:00.900+01:00")
    for _ in range(2):
        answered = post(client, same, x_idempotency_key=f"other-{ref}")
        assert answered.json()["data"] == first | {"idempotentReplay": True}
    assert count(ops) == before
    changed = same | {"eventType": "CANCELLED"}
    assert code(post(client, changed, x_idempotency_key=f"other-{ref}")) == "IDEMPOTENCY_KEY_REUSED"
    later = event(externalBookingRef=ref, eventTime="2026-11-22T08:30:01Z")
    assert post(client, later).json()["data"]["idempotentReplay"] is False
    assert count(ops) == before + 1


def test_what_was_remembered_of_a_key_may_be_lost(client, ops):
    sent, key = event(), uuid4().hex
    first = post(client, sent, x_idempotency_key=key).json()["data"]
    rows(ops, "delete from phase2.ingest_keys where idempotency_key = %s returning 1", key)
    assert code(post(client, sent | {"unknown": 1}, x_idempotency_key=key)) == "IDEMPOTENCY_KEY_REUSED"
    assert post(client, sent, x_idempotency_key=key).json()["data"] == first | {"idempotentReplay": True}


def at_once(url: str, requests: list[tuple[bytes, dict[str, str]]], connections: int = 32) -> list[httpx.Response]:
    """All of them in parallel, in a random order; the answers in the order given."""

    async def run() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=connections)
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client:
            tasks = [asyncio.create_task(client.post(PATH, content=b, headers=h)) for b, h in requests]
            return await asyncio.gather(*tasks)

    return asyncio.run(run())


def test_one_nonce_in_parallel_is_taken_once(url, ops):
    bodies = [json.dumps(event()).encode() for _ in range(24)]
    before = count(ops)
    answers = at_once(url, [(body, signed(body, x_nonce="parallel")) for body in bodies])
    assert sorted(answered.status_code for answered in answers) == [202] + [401] * 23
    assert count(ops) == before + 1


def test_one_request_in_parallel_is_answered_alike(url, ops):
    body = json.dumps(event()).encode()
    same = (body, signed(body))
    before = count(ops)
    answers = [answered.json()["data"] for answered in at_once(url, [same] * 24)]
    assert len({answer["eventId"] for answer in answers}) == 1
    assert sorted(answer["idempotentReplay"] for answer in answers) == [False] + [True] * 23
    assert count(ops) == before + 1


def test_keys_nonces_and_events_in_a_tangle(url, ops):
    """400 parallel requests over few keys, nonces and events, to two services: each is decided."""
    chance = random.Random(7)
    bodies = [
        json.dumps(event(externalBookingRef=f"TANGLE{number % 4}", booking__adult=number)).encode()
        for number in range(8)
    ]
    requests = []
    for _ in range(400):
        body = chance.choice(bodies)
        nonce = f"tangle-{chance.randrange(120)}"
        requests.append((body, signed(body, x_nonce=nonce, x_idempotency_key=f"tangle-{chance.randrange(12)}")))
    with serving.service(ops) as second, ThreadPoolExecutor() as both:
        halves = [(url, requests[:200]), (second, requests[200:])]
        answers = [answered for half in both.map(lambda half: at_once(*half), halves) for answered in half]
    bodies_of: dict[str, set[bytes]] = {}
    for (body, headers), answered in zip(requests, answers, strict=True):
        assert answered.status_code in (202, 401, 422), answered.text
        if answered.status_code == 202:
            bodies_of.setdefault(headers["x-idempotency-key"], set()).add(body)
    assert bodies_of
    assert all(len(found) == 1 for found in bodies_of.values())  # a key has one body
    assert rows(ops, "select count(*) from ingest_event_log where external_booking_ref like 'TANGLE%%'") == [(4,)]
    firsts = [a.json()["data"] for a in answers if a.status_code == 202 and not a.json()["data"]["idempotentReplay"]]
    assert len(firsts) == 4


def test_events_that_share_a_commit_wait_in_no_circle(ops):
    """What two services write together, by the same keys in any order, is no deadlock."""
    at, together = datetime(2026, 11, 22, tzinfo=UTC), threading.Barrier(4)

    def write(seed: int) -> int:
        chance, accepted = random.Random(seed), 0
        with psycopg.connect(ops, autocommit=True) as conn:
            for turn in range(20):
                together.wait(30)
                batch = [
                    (uuid4(), f"circle-{key}", uuid4().hex, "hash", "GYG", f"CIRCLE{key}", "CREATED", at, "{}", False)
                    for key in chance.sample(range(turn * 20, turn * 20 + 20), 20)
                ]
                answers = conn.execute(log.ACCEPT, [list(column) for column in zip(*batch, strict=True)]).fetchall()
                accepted += sum(outcome == "ACCEPTED" for outcome, _ in answers)
        return accepted

    with ThreadPoolExecutor(4) as writers:
        assert sum(writers.map(write, range(4))) == 20 * 20


def test_one_payload_that_postgres_cannot_hold_spoils_no_other(url, ops):
    """Events that come together share a commit, and nothing else."""
    bodies = [json.dumps(event()).encode() for _ in range(30)]
    bodies[7] = bodies[7].replace(b'{"id": 1}', b"1e-20000")
    before = count(ops)
    answers = at_once(url, [(body, signed(body)) for body in bodies])
    assert [answered.status_code for answered in answers] == [202] * 7 + [422] + [202] * 22
    assert count(ops) == before + 29


# -- hostile input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"payloadVersion": "v2", "eventType": "created"}, {"payloadVersion", "eventType"}),
        ({"source": "gyg"}, {"source"}),
        ({"externalBookingRef": "x" * 129}, {"externalBookingRef"}),
        ({"externalBookingRef": " \u200b\u00a0"}, {"externalBookingRef"}),
        ({"externalBookingRef": ""}, {"externalBookingRef"}),
        ({"eventTime": "2026-02-30T00:00:00Z"}, {"eventTime"}),
        ({"eventTime": "9999-12-31T23:59:59-10:00"}, {"eventTime"}),
        ({"eventTime": 1763800000}, {"eventTime"}),
        ({"booking__tourDate": "24/12/2026", "booking__totalPrice": -0.01}, {"booking.tourDate", "booking.totalPrice"}),
        ({"booking__adult": "2", "booking__child": 1.5}, {"booking.adult", "booking.child"}),
        ({"booking__adult": 2**31}, {"booking.adult"}),
        ({"booking__adult": True}, {"booking.adult"}),
        ({"booking__totalPrice": True}, {"booking.totalPrice"}),
        ({"booking__currency": None}, {"booking.currency"}),
        ({"customer": [], "raw": None, "booking": "x"}, {"customer", "raw", "booking"}),
        ({"booking": ...}, {"booking"}),
        ({"customer__name": "a\x00b", "booking__note": "\x00"}, {"customer.name", "booking.note"}),
        ({"raw__providerPayload": {"a": [1, {"b\x00": "c"}]}}, {"raw.providerPayload.a.1.b\\u0000"}),
        ({"anything\x00": 1}, {"anything\\u0000"}),
    ],
)
def test_each_fault_is_named(client, ops, changes, fields):
    before = count(ops)
    answered = post(client, event(**changes))
    assert (answered.status_code, code(answered)) == (422, "VALIDATION_ERROR")
    assert {fault["field"] for fault in answered.json()["error"]["details"]} == fields
    assert count(ops) == before


def test_long_headers_are_named_beside_the_body(client, ops):
    before = count(ops)
    answered = post(client, event(source="FAX"), x_nonce="n" * 129, x_idempotency_key="k" * 5000)
    fields = {fault["field"] for fault in answered.json()["error"]["details"]}
    assert (answered.status_code, fields) == (422, {"x-nonce", "x-idempotency-key", "source"})
    assert count(ops) == before
    assert post(client, event(), x_nonce="n" * 128, x_idempotency_key="k" * 128).status_code == 202


def test_a_nul_is_found_in_the_depth_and_in_the_breadth(client):
    deep: Any = ["\x00"]
    for _ in range(900):
        deep = [deep]
    wide = [0] * 300_000 + ["\x00"] * 30
    for payload, path, found in (
        (deep, "raw.providerPayload." + "0." * 900, 1),
        (wide, "raw.providerPayload.3000", 20),
    ):
        answered = post(client, event(raw__providerPayload=payload))
        details = answered.json()["error"]["details"]
        assert (answered.status_code, len(details)) == (422, found)
        assert details[0]["field"].startswith(path[:150])


def test_a_whole_number_may_be_written_as_a_fraction(client):
    assert post(client, event(booking__adult=2.0, booking__child=0.0)).status_code == 202


def test_an_escaped_backslash_is_no_nul(client):
    assert post(client, event(customer__name="\\u0000")).status_code == 202


@pytest.mark.parametrize(
    "payload",
    [
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"[" * 1000 + b"]" * 1000,
        b"1e400",
        b"1e-20000",
        b"9" * 200_000,
        b"NaN",
        b'"\\ud800"',
        b'"\xff"',
    ],
)
def test_hostile_json_is_taken_or_refused(client, ops, payload):
    body = json.dumps(event()).encode().replace(b'{"id": 1}', payload)
    before = count(ops)
    answered = post(client, body)
    assert answered.status_code in (202, 400, 422)
    assert count(ops) == before + (answered.status_code == 202)
    if answered.status_code == 202:
        event_id = answered.json()["data"]["eventId"]
        shown = client.get(f"{PATH}/{event_id}", headers={"authorization": f"Bearer {serving.TOKEN}"})
        assert shown.status_code == 200


def test_a_body_over_one_mebibyte_is_refused_chunked_or_not(client, ops):
    full = 1_048_576
    body = json.dumps(event()).encode()
    assert post(client, body + b" " * (full - len(body))).status_code == 202
    before = count(ops)
    big = body + b" " * (full - len(body) + 1)
    for content in (big, iter([big[:full], big[full:]])):
        answered = client.post(PATH, content=content, headers=signed(big))
        assert (answered.status_code, code(answered)) == (413, "PAYLOAD_TOO_LARGE")
    assert count(ops) == before
    chunked = json.dumps(event()).encode()
    assert client.post(PATH, content=iter([chunked[:9], chunked[9:]]), headers=signed(chunked)).status_code == 202


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.sampled_from(["\x00", "2026-11-22", "2026-11-22T00:00:00Z", "v1", "CREATED", "GYG", -1, 2**63, "x" * 200]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
paths = [
    *(f"booking__{name}" for name in event()["booking"]),
    *(f"customer__{name}" for name in event()["customer"]),
    *(name for name in event()),
    "raw__providerPayload",
    "unknown",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.dictionaries(st.sampled_from(paths), json_values | st.just(...), min_size=1, max_size=3))
def test_any_field_may_hold_anything(client, ops, changes):
    try:
        sent = event(**dict(sorted(changes.items(), reverse=True)))
    except (TypeError, KeyError):
        return  # a parent was replaced before its child
    before = count(ops)
    answered = post(client, sent)
    assert answered.status_code in (202, 400, 422), answered.text
    assert count(ops) == before + (answered.status_code == 202 and not answered.json()["data"]["idempotentReplay"])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(
        st.sampled_from(
            ["authorization", "x_signature", "x_signature_algorithm", "x_timestamp", "x_nonce", "x_idempotency_key"]
        ),
        # what a client library lets through
        st.binary(max_size=60).map(lambda value: bytes(b for b in value if 32 < b != 127)),
        max_size=2,
    ),
)
def test_any_bytes_may_come(client, ops, body, headers):
    before = count(ops)
    texts = {name: value.decode("latin-1") for name, value in headers.items()}
    sent = {name: value.encode("latin-1") for name, value in signed(body, **texts).items()}
    answered = client.post(PATH, content=body, headers=sent)
    assert 400 <= answered.status_code < 500, answered.text
    assert count(ops) == before


@pytest.mark.parametrize("name", ["1", "not-a-uuid", "%00", "00000000-0000-0000-0000-00000000000g", "x" * 5000])
def test_a_malformed_id_is_not_found(client, name):
    answered = client.get(f"{PATH}/{name}")
    assert (answered.status_code, code(answered)) == (404, "NOT_FOUND")
    assert client.get(f"{PATH}/{uuid4()}").status_code == 404


def test_wrong_credentials_see_less_than_none(client):
    event_id = post(client, event()).json()["data"]["eventId"]
    assert client.get(f"{PATH}/{event_id}", headers={"authorization": "Bearer x"}).status_code == 401
    staff = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "staff"}
    assert "payload" in client.get(f"{PATH}/{event_id}", headers=staff).json()["data"]


# -- switches, rotation, trouble --------------------------------------------------------------------------------------


def test_the_flag_closes_the_door_within_seconds(client, ops):
    with psycopg.connect(ops) as conn:
        flags.change(conn, "INGEST_WEBHOOK_ENABLED", False, reason="a test", actor="test")
    try:
        ends = time.monotonic() + 5
        while (answered := post(client, event())).status_code == 202 and time.monotonic() < ends:
            time.sleep(0.1)
        # before the token: whoever asks is told that it is closed
        assert (answered.status_code, code(answered)) == (503, "INGEST_WEBHOOK_DISABLED")
        assert client.post(PATH).status_code == 503
    finally:
        rows(ops, "delete from phase2.flags returning 1")
    ends = time.monotonic() + 5
    while post(client, event()).status_code == 503:
        assert time.monotonic() < ends
        time.sleep(0.1)


def test_a_row_that_nobody_can_read_shuts_the_door_and_takes_nothing_down(client, ops, monkeypatch):
    monkeypatch.setattr(flags, "FRESH_SECONDS", -1.0)
    left = "insert into phase2.flags values ('INGEST_WEBHOOK_ENABLED', true, %s::jsonb, '', '') returning 1"
    left_as = (('{"percentage": 100}', 202), ('{"percent": 5}', 503), ('{"percentage": "5 %"}', 503), ("null", 503))
    for rollout, status in left_as:
        rows(ops, left, rollout)
        try:
            assert post(client, event()).status_code == status
        finally:
            rows(ops, "delete from phase2.flags returning 1")
    assert post(client, event()).status_code == 202


def test_two_secrets_and_tokens_hold_at_a_time(ops, monkeypatch):
    monkeypatch.setenv("INGEST_SERVICE_TOKEN", "new token")
    monkeypatch.setenv("INGEST_SERVICE_SECRET", "new secret")
    monkeypatch.setenv("INGEST_SERVICE_TOKEN_PREVIOUS", serving.TOKEN)
    monkeypatch.setenv("INGEST_SERVICE_SECRET_PREVIOUS", serving.SECRET)
    core_settings.cache_clear()
    try:
        with serving.service(ops) as url, httpx.Client(base_url=url) as client:
            for token, secret, status in (
                (serving.TOKEN, serving.SECRET, 202),
                ("new token", "new secret", 202),
                (serving.TOKEN, "new secret", 202),
                ("old token", "new secret", 401),
                ("new token", "old secret", 401),
            ):
                answered = post(client, event(), authorization=f"Bearer {token}", secret=secret)
                assert answered.status_code == status
    finally:
        monkeypatch.undo()
        core_settings.cache_clear()


class SlowQueue:
    """A queue that takes its time, and may be away."""

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds, self.error = seconds, error
        self.added: list[UUID] = []

    async def add(self, event_key: UUID) -> bool:
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        self.added.append(event_key)
        return True

    async def is_connected(self) -> bool:
        return self.error is None

    async def counts(self) -> dict[str, Any]:
        states = ("waiting", "active", "delayed", "completed", "failed", "paused")
        return {"connected": not self.error, **dict.fromkeys(states, len(self.added))}

    async def close(self) -> None: ...


def test_an_accepted_event_is_queued(ops):
    queue = SlowQueue()
    with serving.service(ops, lambda: queue) as url, httpx.Client(base_url=url) as client:
        data = post(client, event()).json()["data"]
    assert data["queued"] is True
    assert queue.added == [UUID(data["eventId"])]


@pytest.mark.parametrize("queue", [SlowQueue(error=ConnectionError("away")), SlowQueue(seconds=60)])
def test_redis_away_fails_no_request(ops, queue):
    with serving.service(ops, lambda: queue) as url, httpx.Client(base_url=url, timeout=10) as client:
        sent, key = event(), uuid4().hex
        first = post(client, sent, x_idempotency_key=key)
        assert (first.status_code, first.json()["data"]["queued"]) == (202, False)
        again = post(client, sent, x_idempotency_key=key)
        assert again.json()["data"] == first.json()["data"] | {"idempotentReplay": True}
        assert client.get("/health").status_code == 200


def test_what_is_held_is_answered_before_the_service_stops(ops):
    got: list[httpx.Response] = []
    with serving.service(ops, lambda: SlowQueue(seconds=0.7)) as url:
        sender = threading.Thread(target=lambda: got.append(post(httpx.Client(base_url=url), event())))
        sender.start()
        time.sleep(0.3)
    sender.join()
    assert got[0].status_code == 202
    assert got[0].json()["data"]["queued"] is True


def test_without_a_database_nothing_is_promised(settled):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        nowhere = f"postgresql://nobody@127.0.0.1:{taken.getsockname()[1]}/nothing"
        with serving.service(nowhere) as url, httpx.Client(base_url=url, timeout=20) as client:
            answered = post(client, event())
            assert (answered.status_code, code(answered)) == (503, "NOT_DURABLE")
            assert client.get("/health").status_code == 200
            assert client.get("/health/db").json()["data"]["database"] == "away"
            assert client.get("/metrics").status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(url, monkeypatch):
    monkeypatch.setattr(app, "BODY_SECONDS", 0.2)
    body = json.dumps(event()).encode()
    head = [f"POST {PATH} HTTP/1.1", "host: here", f"content-length: {len(body)}"]
    head += [f"{name}: {value}" for name, value in signed(body).items()]
    with socket.create_connection(("127.0.0.1", int(url.rsplit(":")[-1]))) as slow:
        slow.settimeout(10)
        slow.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body[:10])
        assert slow.recv(65536).startswith(b"HTTP/1.1 408")


def test_nonces_that_matter_no_more_are_forgotten(client, ops, monkeypatch):
    monkeypatch.setattr(log, "_FORGOTTEN_AT_ONCE", 2)
    for number in range(5):
        post(client, event(), x_nonce=f"old-{number}-{uuid4()}")
    rows(ops, "update phase2.ingest_nonces set seen_at = now() - interval '601 seconds' returning 1")
    post(client, event(), x_nonce="of today")

    async def run() -> None:
        async with database.pool(ops, size=1, application_name="test") as pool:
            await log.forget(pool)

    asyncio.run(run())
    assert rows(ops, "select nonce from phase2.ingest_nonces") == [("of today",)]


def test_lost_connections_cost_no_request(client, ops):
    post(client, event())
    before = count(ops)
    for _ in range(2):
        rows(
            ops,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'phase2-core-api' and datname = current_database()",
        )
        bodies = [json.dumps(event()).encode() for _ in range(20)]
        answers = at_once(str(client.base_url), [(body, signed(body)) for body in bodies])
        assert [answered.status_code for answered in answers] == [202] * 20
    assert count(ops) == before + 40


def test_a_database_without_the_rulebook_is_unavailable(settled):
    with serving.empty(os.environ["TEST_PG_URL"]) as bare, serving.service(bare) as url:
        client = httpx.Client(base_url=url, timeout=20)
        answers = [post(client, event()), client.get(f"{PATH}/{uuid4()}")]
        client.close()
    assert [answered.status_code for answered in answers] == [503, 503]


def test_every_request_has_its_log_line(client, caplog):
    request_id = str(uuid4())
    with caplog.at_level("INFO", logger="core_api"):
        answered = post(client, event(source="FAX"), x_request_id=request_id)
    assert answered.json()["error"]["requestId"] == request_id == answered.headers["x-request-id"]

    def told() -> list[dict]:
        return [record.said for record in caplog.records if getattr(record, "said", {}).get("requestId") == request_id]

    deadline = time.monotonic() + 5  # the line follows the answer
    while not told() and time.monotonic() < deadline:
        time.sleep(0.01)
    [said] = told()
    assert (said["route"], said["status"], said["code"]) == (PATH, 422, "VALIDATION_ERROR")
    assert "made@" not in caplog.text
