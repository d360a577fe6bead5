"""The routes of admins and operators against a real service and a real PostgreSQL."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from jsonschema import Draft202012Validator

from bridge import ledger
from bridge.settings import ROOT
from core_api.ingest import dead_letters
from tests import serving
from tests.serving import PATH, event, post, rows
from tests.test_ingest_http import SlowQueue, code

ADMIN = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "Admin", "x-actor": "ayu"}
STAFF = ADMIN | {"x-admin-role": "staff"}


@pytest.fixture(scope="module")
def ops() -> Iterator[str]:
    with serving.environment(), serving.ready(os.environ["TEST_PG_URL"]) as url:
        yield url


@pytest.fixture(scope="module")
def url(ops) -> Iterator[str]:
    with (
        serving.back_office(os.environ["TEST_PG_URL"]) as bstadmin,
        # a path of a booking needs one that writes
        serving.service(ops, bstadmin_url=bstadmin, bstadmin_write_url=ops) as url,
    ):
        yield url


def trail(client: httpx.Client, **asked: str) -> list[dict]:
    return client.get("/v1/audit/events", params=asked, headers=STAFF).json()["data"]["items"]


# -- who may what -----------------------------------------------------------------------------------------------------

READS = (
    "/v1/ingest/dead-letter",
    "/v1/ingest/metrics/queue",
    "/v1/ingest/metrics/processing",
    "/v1/channel-mappings",
    "/v1/channel-mappings/unmapped",
    "/v1/audit/events",
    "/v1/metrics/api",
    "/v1/metrics/reconciliation",
)
NOBODY = UUID("00000000-0000-4000-8000-000000000000")
WRITES = (
    ("POST", f"{PATH}/{NOBODY}/replay"),
    ("POST", f"{PATH}/{NOBODY}/fail"),
    ("POST", "/v1/ingest/replays"),
    ("PATCH", f"/v1/ingest/dead-letter/{NOBODY}/status/READY"),
    ("POST", "/v1/channel-mappings"),
    ("PATCH", f"/v1/channel-mappings/{NOBODY}"),
)


@pytest.mark.parametrize("path", [*READS, f"/v1/ingest/dead-letter/{NOBODY}"])
def test_who_reads(client, path):
    for headers, status in (
        ({}, 401),
        (ADMIN | {"authorization": f"Bearer {serving.TOKEN}"}, 401),
        (ADMIN | {"x-admin-role": "OWNER"}, 403),
        ({"authorization": ADMIN["authorization"]}, 403),
    ):
        answered = client.get(path, headers=headers, params={"limit": "many"})  # before what is asked for is looked at
        assert (answered.status_code, code(answered)) == (status, "UNAUTHORIZED" if status == 401 else "FORBIDDEN")
    assert client.get(path, headers=STAFF).status_code == (404 if str(NOBODY) in path else 200)


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_who_changes_something(client, method, path):
    assert client.request(method, path, json={}).status_code == 401
    assert client.request(method, path, json={}, headers=STAFF).status_code == 403
    for role in ("manager", "ADMIN"):
        answered = client.request(method, path, json={}, headers=ADMIN | {"x-admin-role": role})
        assert answered.status_code in (202, 404, 422), answered.text


@pytest.mark.parametrize("path", READS)
def test_odd_questions_get_plain_answers(client, path):
    for params in ({"limit": "x"}, {"cursor": "x"}, {"windowMinutes": "x"}, {"status": "\x00"}, {"eventType": "\x00"}):
        answered = client.get(path, params=params, headers=STAFF)
        assert answered.status_code in (200, 422), answered.text
    for limit in (-(10**30), 0, 10**30):
        assert client.get(path, params={"limit": limit, "windowMinutes": limit}, headers=STAFF).status_code == 200


def test_unknown_paths_and_methods_keep_the_envelope(client):
    assert code(client.get("/nowhere")) == "NOT_FOUND"
    refused = client.delete("/health")
    assert (refused.status_code, code(refused), refused.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "GET")


# -- mappings and the unmapped queue ----------------------------------------------------------------------------------


@pytest.fixture
def product(ops) -> str:
    key = str(uuid4())
    rows(
        ops,
        "insert into catalog_product (product_key, slug, name, country_code) values (%s, %s, 'Ubud', 'ID') returning 1",
        key,
        key,
    )
    return key


def unmapped(ops: str, status: str = "OPEN") -> str:
    key = str(uuid4())
    rows(
        ops,
        "insert into unmapped_queue (queue_key, queue_type, channel_code, source_system, source_table, source_pk,"
        " reason_code, status, payload) values (%s, 'PRODUCT_MAPPING', 'MANUAL', 'bstadmin', 'tour_packages', '1',"
        " 'NO_MATCH', %s, '{\"package_name\": \"Ubud\"}') returning 1",
        key,
        status,
    )
    return key


def test_a_mapping_is_made_once_and_told(client, ops, product):
    ref = f"gyg-{uuid4().hex}"
    new = {
        "entityType": "PRODUCT",
        "entityKey": product,
        "channelCode": "GYG",
        "externalRefKind": "GYG_PRODUCT_ID",
        "externalRef": f" {ref}\u00a0",
        "reason": "asked by the channel",
    }
    made = client.post("/v1/channel-mappings", json=new, headers=ADMIN)
    assert (made.status_code, made.json()["data"]["externalRef"]) == (201, ref)
    again = client.post("/v1/channel-mappings", json=new, headers=ADMIN)
    assert (again.status_code, again.json()["data"]) == (200, made.json()["data"])
    other = new | {"entityKey": str(uuid4())}
    assert client.post("/v1/channel-mappings", json=other, headers=ADMIN).status_code == 404
    [item] = trail(client, resourceId=made.json()["data"]["externalRefKey"])
    assert (item["eventType"], item["actor"]) == ("CHANNEL_MAPPING_CREATED", "ayu")
    assert item["metadata"]["role"] == "ADMIN"
    assert item["metadata"]["reason"] == "asked by the channel"
    found = client.get("/v1/channel-mappings", params={"externalRef": ref}, headers=STAFF).json()["data"]["items"]
    assert found == [made.json()["data"]]


def test_a_ref_of_another_entity_is_taken(client, ops, product):
    second = str(uuid4())
    rows(ops, "insert into catalog_product (product_key, slug, name) values (%s, %s, 'x') returning 1", second, second)
    new = {"entityType": "PRODUCT", "channelCode": "GYG", "externalRefKind": "K", "externalRef": uuid4().hex}
    made = client.post("/v1/channel-mappings", json=new | {"entityKey": product}, headers=ADMIN).json()["data"]
    taken = client.post("/v1/channel-mappings", json=new | {"entityKey": second}, headers=ADMIN)
    assert (taken.status_code, code(taken)) == (409, "MAPPING_TAKEN")
    path = f"/v1/channel-mappings/{made['externalRefKey']}"
    assert client.patch(path, json={"entityKey": second}, headers=ADMIN).json()["data"]["entityKey"] == second
    [given, _] = trail(client, resourceId=made["externalRefKey"])
    assert (given["metadata"]["before"]["entityKey"], given["metadata"]["after"]["entityKey"]) == (product, second)


def test_a_queue_row_is_reviewed_resolved_and_closed(client, ops, product):
    key = unmapped(ops)
    path = f"/v1/channel-mappings/{key}"
    assert client.patch(path, json={"status": "IN_REVIEW"}, headers=ADMIN).json()["data"]["resolvedBy"] is None
    resolution = {"entityType": "PRODUCT", "entityKey": product}
    resolved = client.patch(path, json={"status": "RESOLVED", "resolution": resolution}, headers=ADMIN).json()["data"]
    # as the runs read it (mapping 3.9)
    assert resolved["payload"] == {
        "package_name": "Ubud",
        "resolution": {"entity_type": "PRODUCT", "entity_key": product},
    }
    assert (resolved["status"], resolved["resolvedBy"]) == ("RESOLVED", "ayu")
    back = client.patch(path, json={"status": "OPEN"}, headers=ADMIN)
    assert (back.status_code, code(back)) == (409, "INVALID_TRANSITION")
    closed = client.patch(path, json={"status": "CLOSED"}, headers=ADMIN | {"x-actor": "made"}).json()["data"]
    assert (closed["status"], closed["resolvedBy"], closed["resolvedAt"]) == ("CLOSED", "ayu", resolved["resolvedAt"])
    assert [item["metadata"]["after"]["status"] for item in trail(client, resourceId=key)] == [
        "CLOSED",
        "RESOLVED",
        "IN_REVIEW",
    ]


def test_no_decision_for_what_is_not_there(client, ops):
    path = f"/v1/channel-mappings/{unmapped(ops)}"
    nothing = {"entityType": "PRODUCT", "entityKey": str(uuid4())}
    before = len(trail(client))
    for body in ({}, {"status": "DONE"}, {"status": "CLOSED", "resolution": nothing}, {"status": 1}, [], "x"):
        assert client.patch(path, json=body, headers=ADMIN).status_code == 422
    gone = client.patch(path, json={"status": "RESOLVED", "resolution": nothing}, headers=ADMIN)
    assert gone.status_code == 404
    assert client.patch(path, content=b"{", headers=ADMIN).status_code == 400
    assert client.patch(path, content=b" " * 1_048_577, headers=ADMIN).status_code == 413
    assert client.patch(path, json={"status": "CLOSED", "reason": "\x00"}, headers=ADMIN).status_code == 422
    assert client.patch("/v1/channel-mappings/1", json={"status": "CLOSED"}, headers=ADMIN).status_code == 404
    assert len(trail(client)) == before


def test_pages_follow_each_other_without_gap(client, ops):
    keys = {unmapped(ops) for _ in range(5)}
    found: list[str] = []
    asked = {"limit": 2, "status": "OPEN"}
    while True:
        page = client.get("/v1/channel-mappings/unmapped", params=asked, headers=STAFF).json()["data"]
        found += [item["queueKey"] for item in page["items"]]
        if page["nextCursor"] is None:
            break
        asked["cursor"] = page["nextCursor"]
    assert len(found) == len(set(found))
    assert keys <= set(found)


# -- dead letters over HTTP -------------------------------------------------------------------------------------------


def test_an_event_goes_to_the_dead_letters_and_comes_back(ops):
    with serving.service(ops) as url, httpx.Client(base_url=url) as client:
        event_id = post(client, event()).json()["data"]["eventId"]
        path = f"{PATH}/{event_id}"
        failed = client.post(f"{path}/fail", headers=ADMIN, json={"poisonMessage": None})
        assert failed.status_code == 202, failed.text
        letter = failed.json()["data"]
        assert (letter["eventId"], letter["status"]) == (event_id, "OPEN")
        early = client.post(f"{path}/replay", headers=ADMIN)
        assert early.status_code == 409
        status = f"/v1/ingest/dead-letter/{letter['deadLetterKey']}/status"
        assert client.patch(f"{status}/SUCCEEDED", headers=ADMIN).status_code == 409
        assert client.patch(f"{status}/nonsense", headers=ADMIN).status_code == 422
        assert client.patch(f"{status}/READY", headers=ADMIN, json={"reason": "mended"}).status_code == 200
        listed = client.get("/v1/ingest/dead-letter", params={"status": "READY"}, headers=STAFF).json()["data"]["items"]
        assert letter["deadLetterKey"] in [item["deadLetterKey"] for item in listed]
        shown = client.post("/v1/ingest/replays", json={"preview": True, "reason": "mended"}, headers=ADMIN).json()[
            "data"
        ]
        assert shown["eventIds"] == [event_id]
        assert shown["changes"][0]["eventId"] == event_id
        replayed = client.post(f"{path}/replay", headers=ADMIN, json={"reason": "mended", "ticket": "OPS-1"})
        assert replayed.status_code == 202, replayed.text
        assert (replayed.json()["data"]["processStatus"], replayed.json()["data"]["replayCount"]) == ("RECEIVED", 1)
        told = {item["eventType"] for item in trail(client)}
        assert told >= {
            "INGEST_EVENT_MARKED_FAILED",
            "INGEST_DEAD_LETTER_STATUS_UPDATED",
            "INGEST_REPLAY_REQUESTED",
            "INGEST_REPLAY_REJECTED",
        }


# -- measures ---------------------------------------------------------------------------------------------------------


def test_measures_count_what_was_answered(client):
    before = client.get("/v1/metrics/api", headers=STAFF).json()["data"]["totals"]
    client.get("/nowhere")
    post(client, event())
    after = client.get("/v1/metrics/api", params={"windowMinutes": 5}, headers=STAFF).json()["data"]
    assert after["totals"]["requests"] == before["requests"] + 3
    assert after["totals"]["clientErrors"] == before["clientErrors"] + 1
    taken = next(route for route in after["routes"] if (route["method"], route["route"]) == ("POST", PATH))
    assert 0 < taken["latenciesMs"]["median"] <= taken["latenciesMs"]["max"]
    text = client.get("/metrics").text
    assert 'ingest_requests_total{outcome="ACCEPTED"}' in text
    assert f'core_api_requests_total{{method="POST",route="{PATH}",status="202"}}' in text
    # ids are no labels: they would be without end
    assert str(NOBODY) not in text


def test_prometheus_sees_the_queue(ops):
    for error, jobs, connected in ((None, "1.0", "1.0"), (ConnectionError("away"), None, "0.0")):
        queue = SlowQueue(error=error)
        with serving.service(ops, lambda: queue) as url, httpx.Client(base_url=url) as client:  # noqa: B023
            post(client, event())
            text = client.get("/metrics").text
        assert f"ingest_queue_connected {connected}" in text
        assert (f'ingest_queue_jobs{{state="waiting"}} {jobs}' in text) == (error is None)


def test_prometheus_sees_what_waits_and_what_is_dead(client, ops):
    def seen() -> dict[str, float]:
        lines = [line.split(" ") for line in client.get("/metrics").text.splitlines() if line.startswith("ingest_")]
        return {name: float(value) for name, value in lines}

    before = seen()
    waits, dead = (post(client, event()).json()["data"]["eventId"] for _ in range(2))
    assert client.post(f"{PATH}/{dead}/fail", headers=ADMIN).status_code == 202
    rows(ops, "update ingest_event_log set request_received_at = now() - interval '1 hour' where event_key = %s"
              " returning 1", waits)  # fmt: skip
    after = seen()
    changed = {name: after[name] - value for name, value in before.items() if name.startswith("ingest_dead_letters")}
    assert changed == {
        f'ingest_dead_letters{{status="{status}"}}': float(status == "OPEN") for status in dead_letters.STATUSES
    }
    assert after["ingest_events_pending"] == before["ingest_events_pending"] + 1
    assert 3600 <= after["ingest_oldest_pending_seconds"] < 3700


def test_the_gates_latest_measures_are_shown(client, ops):
    for value in (1, 0):
        [(result,)] = rows(
            ops,
            "insert into phase2.gate_results (run_id, evaluated_at, batch, gate_id, value, comparator, threshold,"
            " status) values (gen_random_uuid(), clock_timestamp(), 'D', 'D-01', %s, '=', 0, 'PASS')"
            " returning gate_result_id",
            value,
        )
        with psycopg.connect(ops) as conn:
            ledger.mirror(conn, "gate", [result])
    items = client.get("/v1/metrics/reconciliation", headers=STAFF).json()["data"]["items"]
    assert [(item["gateId"], item["value"]) for item in items] == [("D-01", 0)]


def test_health_tells_what_is_away(ops, client):
    assert client.get("/health/db").json()["data"] == {"status": "ok", "database": "ok", "redis": "not used"}
    away = SlowQueue(error=ConnectionError("away"))
    with serving.service(ops, lambda: away) as url, httpx.Client(base_url=url) as degraded:
        answered = degraded.get("/health/db")
        assert (answered.status_code, answered.json()["data"]["status"]) == (200, "degraded")


def test_the_audit_trail_is_the_ledger(client, ops):
    event_id = post(client, event()).json()["data"]["eventId"]
    why = {"reason": "made@balimail.id called from +62 812 3456 7890", "reasonDetail": "ask kadek@balimail.id"}
    assert client.post(f"{PATH}/{event_id}/fail", headers=ADMIN, json=why).status_code == 202
    assert trail(client, resourceId=event_id)[0]["metadata"]["reason"] == "m•••@b••• called from •••"
    with psycopg.connect(ops) as conn:
        assert ledger.verify(conn) == []


# -- OpenAPI ----------------------------------------------------------------------------------------------------------


def test_openapi_is_that_of_the_contract(client):
    document = client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    assert client.get("/docs").status_code == 200
    schemas = document["components"]["schemas"]
    sent = {"$ref": "#/components/schemas/BookingIngestEventV1", "components": document["components"]}
    validator = Draft202012Validator(sent)
    assert list(validator.iter_errors(event())) == []
    for changes in ({"source": "FAX"}, {"booking__totalPrice": -1}, {"externalBookingRef": "x" * 129}, {"raw": ...}):
        assert list(validator.iter_errors(event(**changes)))
    assert set(schemas["AcceptedEvent"]["required"]) == {
        "eventId",
        "processStatus",
        "idempotentReplay",
        "queued",
        "processedInline",
    }


def test_schemathesis_finds_nothing(url, ops, client, tmp_path):
    """Of every route: no 5xx, no answer that the document does not promise, nothing taken that it forbids."""
    event_id = post(client, event()).json()["data"]["eventId"]
    client.post(f"{PATH}/{event_id}/fail", headers=ADMIN)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            *("run", f"{url}/openapi.json", "--phases", "coverage,fuzzing", "--max-examples", "15", "--seed", "7"),
            *("-H", f"authorization: {ADMIN['authorization']}", "-H", "x-admin-role: ADMIN"),
            # the tokens are given above, not found; Postgres keeps no NUL wherever JSON may be anything
            *("--checks", "all", "--exclude-checks", "ignored_auth", "--generation-allow-x00", "false"),
            *("--suppress-health-check", "all", "--continue-on-failure", "--no-color"),
        ],
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.schemathesis_hooks", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "29 selected / 29 total" in done.stdout
    assert rows(ops, "select count(*) from ingest_event_log where raw_payload ->> 'payloadVersion' = 'v1'")[0][0] > 2
