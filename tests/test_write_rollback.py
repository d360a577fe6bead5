"""Rollback of H under live traffic, many writers at once, and how fast a dual write is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from uuid import uuid4

import httpx
import pytest

from bridge import write_rollback
from core_api import database
from core_api.ops import sweeper
from tests import serving
from tests.ingest_parts import until
from tests.write_parts import Booking, Sides

ADMIN = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "MANAGER", "x-actor": "ayu"}
OLD_PATH_SECONDS = 5.0


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


@contextmanager
def swept(sides: Sides) -> Iterator[None]:
    """The sweeper of a worker's process."""
    stopped = threading.Event()

    async def run() -> None:
        pool = database.pool(sides.ops, size=2, application_name="phase2-test-sweeper")
        await pool.open()
        sweeping = asyncio.create_task(sweeper.run(pool, sides.bstadmin))
        while not stopped.is_set():
            await asyncio.sleep(0.05)
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await pool.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    yield
    stopped.set()
    thread.join()


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


def test_rolled_back_under_live_traffic(sides, client):
    """No request fails; from the change on bstadmin alone is written within seconds, and it has every write."""
    bookings = [sides.booking() for _ in range(4)]
    stop, answers, last = threading.Event(), [], {}

    def write(booking: Booking) -> None:
        version = 1
        while not stop.is_set():
            answered = patch(client, booking, version, f"note {version}")
            answers.append((answered.status_code, answered.json().get("data", {}).get("core"), answered.text))
            if answered.status_code != 200:
                return
            version = answered.json()["data"]["state"]["stateVersion"]
            last[booking.key] = f"note {version - 1}"
            time.sleep(0.02)

    with swept(sides), ThreadPoolExecutor(4) as people:
        done = [people.submit(write, booking) for booking in bookings]
        time.sleep(1.0)
        rolled = write_rollback.roll_back(sides.ops, reason="rehearsal")
        time.sleep(0.5)
        stop.set()
        for one in done:
            one.result()
        assert {status for status, *_ in answers} == {200}, answers[-1]
        assert {core for _, core, _ in answers} == {"DONE", "BEHIND"}
        print(f"{len(answers)} writes, none failed; {rolled.seconds_to_old_path} s to the old path")
        assert rolled.seconds_to_old_path < OLD_PATH_SECONDS
        assert (rolled.left, rolled.frozen) == (0, 0)
        for booking in bookings:
            assert sides.theirs(booking)["note"] == last[booking.key]
        sides.flag(True)  # and forward again: the core has it all
        until(lambda: all(sides.ours(b) == sides.theirs(b) for b in bookings), 15)
