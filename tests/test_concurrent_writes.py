"""Many writers at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest

from tests import serving
from tests.ingest_parts import until
from tests.write_parts import Booking

ADMIN = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "MANAGER", "x-actor": "ayu"}


@pytest.fixture(scope="module")
def client(sides) -> Iterator[httpx.Client]:
    with (
        serving.environment(),
        serving.service(sides.ops, bstadmin_url=sides.bstadmin, bstadmin_write_url=sides.bstadmin) as url,
        httpx.Client(base_url=url, timeout=20, headers=ADMIN, limits=httpx.Limits(max_connections=8)) as made,
    ):
        sides.flag(True)
        until(lambda: patch(made, sides.booking(), 1, "x").json()["data"]["core"] == "DONE", 10)
        yield made


def patch(client: httpx.Client, booking: Booking, version: int, note: str, key: str | None = None) -> httpx.Response:
    return client.patch(
        f"/v1/ops/bookings/{booking.key}",
        json={"stateVersion": version, "note": note},
        headers={"x-idempotency-key": key or uuid4().hex},
    )


def test_of_many_with_one_version_one_writes(sides, client):
    booking = sides.booking()
    with ThreadPoolExecutor(8) as people:
        answers = list(people.map(lambda n: patch(client, booking, 1, f"by {n}"), range(8)))
    assert sorted(a.status_code for a in answers) == [200] + [409] * 7
    assert {a.json()["error"]["code"] for a in answers if a.status_code == 409} == {"STALE_VERSION"}
    assert sides.ours(booking) == sides.theirs(booking)


def test_one_request_sent_many_times_at_once_is_one_write(sides, client):
    booking, key = sides.booking(), uuid4().hex
    with ThreadPoolExecutor(8) as people:
        answers = list(people.map(lambda _: patch(client, booking, 1, "once", key), range(8)))
    assert {a.status_code for a in answers} == {200}
    assert len({str(a.json()["data"]) for a in answers}) == 1
    assert len(sides.intents(booking)) == 1
