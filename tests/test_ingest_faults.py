"""Faults with the real parts: whatever dies, every accepted event ends exactly once, in the order of its booking."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import redis

from bridge.settings import ROOT
from core_api import local
from core_api.auth import Admin
from core_api.ingest import dead_letters, sweeper
from tests.ingest_parts import Parts, parts, until

SEED = int(os.environ.get("FAULT_SEED", "5"))


@pytest.fixture
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with parts(os.environ["TEST_PG_URL"], tmp_path_factory.mktemp("faults")) as made:
        yield made


def applied(real: Parts) -> int:
    return real.sql("select count(*) from phase2.stub_log")[0][0]


def untried(real: Parts) -> None:
    """No fault of the machinery used up a try of an event."""
    assert real.sql("select event_key from public.ingest_event_log where attempt_count > 0") == []
    assert real.sql("select event_key from public.ingest_dead_letter") == []


def test_a_worker_killed_at_any_moment(real: Parts) -> None:
    chance = random.Random(SEED)
    keys = real.accept([f"B-{chance.randrange(40)}" for _ in range(400)], sleep=0.01)
    real.add(*keys)
    for _ in range(4):
        with real.worker() as victim:
            before = applied(real)
            until(lambda before=before: applied(real) > before, 15)
            time.sleep(chance.random() / 4)
            victim.kill()
    assert len(real.pending()) > 50  # each was in the middle of something
    with real.worker():
        real.wait(30)
    real.check()
    untried(real)


def test_redis_stopped_flushed_and_killed(real: Parts) -> None:
    chance = random.Random(SEED)

    def more(number: int) -> list[UUID]:
        return real.accept([f"B-{chance.randrange(20)}" for _ in range(number)], sleep=0.01)

    first = more(100)
    real.add(*first)
    with real.worker() as worker:
        until(lambda: applied(real) > 10, 10)
        local.stop(real.home)
        lost = more(50)

        async def refused(_pool: object, queue: object) -> None:
            started = time.monotonic()
            assert not any(await asyncio.gather(*(queue.add(key) for key in lost)))  # type: ignore[attr-defined]
            assert time.monotonic() - started < 1.5

        real.call(refused)
        assert local.ensure(real.home) == (real.redis, True)
        with redis.Redis.from_url(real.redis) as client:
            until(lambda: applied(real) > 60, 20)
            client.flushall()
        real.add(*more(30))
        number = local.pid(real.home)
        assert number is not None
        os.kill(number, signal.SIGKILL)
        more(20)
        assert local.ensure(real.home) == (real.redis, True)
        real.wait(30)
        real.add(*more(1))  # and all is as it was, without the sweeper
        real.wait(1.5)
        assert worker.poll() is None
    real.check()
    untried(real)


def test_a_retry_survives_a_flush_in_time(real: Parts) -> None:
    (key,) = real.accept(["B-1"], fail=1)
    real.add(key)
    with real.worker(INGEST_RETRY_SECONDS="[4, 4]"):
        due = until(lambda: real.event(key)["next_retry_at"], 10)
        with redis.Redis.from_url(real.redis) as client:
            client.flushall()
        until(lambda: real.job(key)[0] == "delayed", 3)
        real.wait(10)
        ended = real.event(key)
        assert (ended["process_status"], ended["attempt_count"]) == ("DONE", 1)
        assert 0 <= (ended["processed_at"] - due).total_seconds() < 2


def test_a_trouble_of_the_server_uses_no_try_unless_the_event_makes_it(real: Parts) -> None:
    first, second, other = real.accept(["G-1", "G-1", "G-2"], fail=1, state="53200")  # out of memory
    real.sql("update public.ingest_event_log set raw_payload = '{}' where event_key = any(%s)", [second, other])
    real.add(first, second, other)
    with real.worker():
        real.wait(20)
    assert [real.event(key)["attempt_count"] for key in (first, second, other)] == [1, 0, 0]
    ended = [real.event(key)["processed_at"] for key in (first, second, other)]
    assert ended[2] == min(ended), "nobody else waits for it"
    assert (ended[0] - ended[2]).total_seconds() > 3


def test_a_worker_paused_beyond_its_lock_has_no_effect(real: Parts) -> None:
    chance = random.Random(SEED)
    keys = real.accept([f"B-{chance.randrange(20)}" for _ in range(300)], sleep=0.01)
    real.add(*keys)
    with real.worker() as paused:
        until(lambda: applied(real) > 20, 10)
        paused.send_signal(signal.SIGSTOP)
        held = applied(real)
        with real.worker() as other:
            until(lambda: applied(real) > held + 50, 20)
            real.wait(30)  # what the paused one held too, while it is still paused
            paused.send_signal(signal.SIGCONT)
            time.sleep(1)
            for worker in (paused, other):
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(10) == 0
    real.check()
    untried(real)


@pytest.mark.parametrize("off", [300, -300])
def test_a_worker_whose_clock_is_five_minutes_off(real: Parts, tmp_path: Path, off: int) -> None:
    """What others have put off it takes in time, and what it puts off comes in time at others."""
    (tmp_path / "sitecustomize.py").write_text(f"import time\nright = time.time\ntime.time = lambda: right() + {off}\n")
    own = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    (other,) = real.accept(["B-1"])
    started = time.monotonic()
    real.call(lambda _, queue: queue.add_all([(other, 3.0)]))
    with real.worker(**own):
        until(lambda: real.event(other)["process_status"] == "DONE", 6)
        assert time.monotonic() - started > 3
    first, behind = real.accept(["B-2", "B-2"], fail=1)
    real.sql("update public.ingest_event_log set raw_payload = '{}' where event_key = %s", behind)
    real.add(behind)
    with real.worker(**own, INGEST_RETRY_SECONDS="[4]", INGEST_RECOVER_SECONDS="60"):
        due = until(lambda: real.event(first)["next_retry_at"], 5)
        until(lambda: real.job(behind)[0] == "delayed", 2)
    with redis.Redis.from_url(real.redis) as client:
        at = client.zscore(f"bull:{real.queue}:delayed", str(behind)) / 0x1000 / 1000  # type: ignore[operator]
    assert abs(at - due.timestamp()) < 2
    with real.worker():
        real.wait(8)
    assert all(0 <= (real.event(key)["processed_at"] - due).total_seconds() < 2 for key in (first, behind))


def test_what_a_worker_holds_is_finished_at_sigterm(real: Parts) -> None:
    keys = real.accept([f"B-{number}" for number in range(3)], sleep=0.5)
    real.add(*keys)
    with real.worker() as worker:
        until(lambda: all(real.job(key)[0] in ("active", "completed") for key in keys), 10)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0
        assert real.pending() == []
        assert [real.job(key)[0] for key in keys] == ["completed"] * 3


def test_a_worker_ends_at_sigterm_while_redis_is_away(real: Parts) -> None:
    (key,) = real.accept(["B-1"])
    real.add(key)
    with real.worker() as worker:
        real.wait(10)
        local.stop(real.home)
        time.sleep(1)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0


def test_a_worker_that_starts_before_redis(real: Parts) -> None:
    local.stop(real.home)
    (key,) = real.accept(["B-1"])
    with real.worker() as worker:
        time.sleep(3)
        assert local.ensure(real.home) == (real.redis, True)
        real.wait(8)
        (key,) = real.accept(["B-2"])
        real.add(key)
        real.wait(1.5)
        assert worker.poll() is None


def test_without_the_sweeper_a_flush_loses_events(real: Parts) -> None:
    """The fault that the sweeper mends, planted: the tests above would see it."""
    keys = real.accept(["B-1"])
    real.add(*keys)
    with redis.Redis.from_url(real.redis) as client:
        client.flushall()
    with real.worker(INGEST_SWEEP_SECONDS="600", INGEST_RECOVER_SECONDS="600"):
        time.sleep(3)
        assert len(real.pending()) == 1


def test_what_is_lost_behind_what_is_queued_is_found(real: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many wait in the queue for a retry: the sweeper reads on."""
    keys = real.accept([f"B-{number}" for number in range(7)])
    real.sql(
        "update public.ingest_event_log set process_status = 'FAILED', next_retry_at = now() + interval '1 hour'"
        " where event_key = any(%s)",
        keys[:4],
    )
    real.add(*keys[:4], keys[5])
    monkeypatch.setattr(sweeper, "_MOST", 2)
    assert real.call(lambda pool, queue: sweeper.sweep(pool, queue, 0)) == 2
    assert [real.job(key)[0] for key in keys] == ["waiting"] * 7


def test_a_person_who_fails_what_a_worker_is_at(real: Parts) -> None:
    """Both take the booking's lock: nothing is applied after it went to the dead letters."""
    keys = real.accept([f"B-{number % 5}" for number in range(60)], sleep=0.02)
    real.add(*keys)

    async def work(pool: Any, _: object) -> None:
        for key in reversed(keys):
            await dead_letters.fail(pool, key, Admin("ADMIN", "dewi"))

    with real.worker():
        until(lambda: applied(real) > 5, 10)
        real.call(work)
        real.wait(10)
    assert real.sql("select distinct process_status from public.ingest_event_log") == [("FAILED",)]
    assert 5 < applied(real) < 60
    assert real.sql(
        "select s.event_key from phase2.stub_log as s join public.ingest_dead_letter as d on d.event_key = s.event_key"
        " join public.ingest_event_log as e on e.event_key = s.event_key where e.processed_at > d.first_failed_at"
    ) == []  # fmt: skip
