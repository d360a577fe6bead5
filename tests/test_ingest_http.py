"""POST /v1/ingest/bookings/events against a real service and a real PostgreSQL: the contract, line by line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from core_api.settings import core_settings
from tests import serving
from tests.serving import event, post, rows


@pytest.fixture(scope="module")
def settled() -> Iterator[None]:
    """The service's environment, for as long as this module's tests run."""
    before = {name: os.environ.get(name) for name in serving.ENVIRONMENT}
    os.environ.update(serving.ENVIRONMENT)
    core_settings.cache_clear()
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)
    core_settings.cache_clear()


@pytest.fixture(scope="module")
def ops(settled) -> Iterator[str]:
    with serving.ready(os.environ["TEST_PG_URL"]) as url:
        yield url


@pytest.fixture(scope="module")
def url(ops) -> Iterator[str]:
    with serving.service(ops) as url:
        yield url


@pytest.fixture
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


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
