"""The queue, the worker and the dead letters, with one worker's process, a real Valkey and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import pytest
import redis

from bridge.core_settings import CoreSettings
from bridge.runlog import uuid7
from bridge.settings import ROOT
from core_api import audit, local
from core_api.__main__ import _CONNECTIONS
from core_api.auth import Admin
from core_api.errors import Refused
from core_api.ingest import dead_letters
from core_api.ingest.queue import JOB_OPTIONS, IngestQueue
from core_api.ingest.worker import Stepper
from tests.ingest_parts import Parts, parts, until

PHASE2 = str(Path(sys.executable).with_name("phase2"))
MANAGER = Admin("MANAGER", "dewi")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """Everything running; every test has bookings of its own."""
    with parts(os.environ["TEST_PG_URL"], tmp_path_factory.mktemp("queue")) as made, made.worker() as worker:
        yield made
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(10) == 0, "the worker ends cleanly"
        made.check()
        made.quiet()


def test_events_that_are_added_are_applied_once(real: Parts) -> None:
    keys = real.accept(["A-1", "A-2"])
    real.add(*keys, *keys)
    real.wait()
    assert {real.event(key)["process_status"] for key in keys} == {"DONE"}
    assert [real.job(key)[0] for key in keys] == ["completed"] * 2
    assert real.sql("select count(*) from phase2.stub_log where event_key = any(%s)", keys) == [(2,)]


def test_a_job_keeps_14_days_when_it_succeeded_and_30_when_it_failed(real: Parts) -> None:
    (key,) = real.accept(["K-1"])
    real.add(key)
    real.wait()
    options = json.loads(real.job(key)[1]["opts"])
    assert options["removeOnComplete"] == {"age": 14 * 86_400}
    assert options["removeOnFail"] == {"age": 30 * 86_400}
    assert options["attempts"] == JOB_OPTIONS["attempts"] == 6


def test_finished_jobs_are_kept_as_long_whoever_added_them(real: Parts) -> None:
    """A client of Node's may add jobs that are to go at once, or to stay for ever: neither."""
    good = {number: real.accept([f"K-{number}"])[0] for number in range(2, 5)}
    bad = [f"kept-{number}" for number in range(3)]

    async def added(_pool: Any, queue: Any, number: int) -> None:
        key = str(good[number + 2])
        await queue._queue.add("booking-event", {"eventId": key}, {"jobId": key, "removeOnComplete": True})
        await queue._queue.add("booking-event", {}, {"jobId": bad[number], "removeOnFail": 5})

    def finished(number: int) -> bool:
        return (real.job(good[number + 2])[0], real.job(bad[number])[0]) == ("completed", "failed")

    for number, days in enumerate(((14.01, 30.01), (13.99, 29.99))):
        real.call(lambda pool, queue, number=number: added(pool, queue, number))
        until(lambda number=number: finished(number), 5)
        with redis.Redis.from_url(real.redis) as client:
            for state, name, age in zip(
                ("completed", "failed"), (str(good[number + 2]), bad[number]), days, strict=True
            ):
                set_of = f"bull:{real.queue}:{state}"
                assert client.zadd(set_of, {name: (time.time() - age * 86_400) * 1000}, ch=True)
    real.call(lambda pool, queue: added(pool, queue, 2))
    until(lambda: finished(2), 5)
    assert finished(1)
    assert (real.job(good[2])[0], real.job(bad[0])[0]) == ("unknown", "unknown")


def test_the_oldest_jobs_are_measured_and_old_ones_go_though_no_other_ends(real: Parts) -> None:
    async def asked(_pool: Any, queue: Any) -> tuple[Any, Any, Any]:
        name = f"old-{uuid4()}"
        other = IngestQueue(real.redis, name)
        now = time.time() * 1000
        try:
            before = (await other.counts())["oldestDays"]
            for state, days in (("completed", 14.5), ("completed", 3), ("failed", 31), ("failed", 29)):
                await other._client.zadd(f"bull:{name}:{state}", {f"{state}-{days}": now - days * 86_400_000})
            planted = (await other.counts())["oldestDays"]
            await other.forget_old()
            return before, planted, (await other.counts())["oldestDays"]
        finally:
            await other.close()

    before, planted, after = real.call(asked)
    assert before == {"completed": None, "failed": None}
    assert planted == pytest.approx({"completed": 14.5, "failed": 31}, abs=0.02)
    assert after == pytest.approx({"completed": 3, "failed": 29}, abs=0.02)


def test_the_delays_are_those_of_the_contract() -> None:
    assert CoreSettings(_env_file=None).ingest_retry_seconds == (30, 120, 600, 1800, 7200)


def test_a_retry_is_counted_and_its_time_told(real: Parts) -> None:
    (key,) = real.accept(["R-1"], fail=2)
    real.add(key)
    waiting = until(lambda: (e := real.event(key))["attempt_count"] == 1 and e, 5)
    assert waiting["process_status"] == "FAILED"
    assert abs(waiting["next_retry_at"] - datetime.now(UTC)) < timedelta(seconds=2)
    real.wait()
    ended = real.event(key)
    assert (ended["process_status"], ended["attempt_count"], ended["next_retry_at"]) == ("DONE", 2, None)


def test_after_five_retries_it_is_a_poison_message(real: Parts) -> None:
    """And what the server says of a row, which may be a customer's, is kept nowhere."""
    (key,) = real.accept(["X-1"], fail=99)
    real.add(key)
    real.wait()
    ended = real.event(key)
    assert (ended["process_status"], ended["attempt_count"], ended["next_retry_at"]) == ("FAILED", 6, None)
    assert letter(real, key)[:3] == ("OPEN", "RETRIES_EXHAUSTED", True)
    assert until(lambda: real.job(key)[0] == "failed", 5)
    said = json.dumps([ended["error_message"], letter(real, key), real.job(key)], default=str)
    assert "P0001" in said
    assert "somebody@example.com" not in said
    assert not any("somebody@example.com" in log.read_text() for log in real.home.glob("worker-*.log"))


@pytest.mark.parametrize(("state", "code"), [("P2001", "VALIDATION_ERROR"), ("P2002", "SCHEMA_MISMATCH")])
def test_what_cannot_get_better_is_not_tried_again(real: Parts, state: str, code: str) -> None:
    (key,) = real.accept([f"P-{state}"], fail=99, state=state)
    real.add(key)
    real.wait()
    assert real.event(key)["attempt_count"] == 1
    assert letter(real, key)[:3] == ("OPEN", code, True)
    assert until(lambda: real.job(key)[0] == "failed", 5)


def test_a_dead_event_lets_those_behind_it_by(real: Parts) -> None:
    first, second = real.accept(["P-1", "P-1"], fail=1, state="P2001")
    real.sql("update public.ingest_event_log set raw_payload = '{}' where event_key = %s", second)
    real.add(second)
    until(lambda: real.event(second)["process_status"] == "DONE", 5)
    real.add(first)  # whose work the job of the second has done
    assert until(lambda: real.job(first)[0] == "failed", 5)


def test_a_failing_event_holds_up_its_own_booking_only(real: Parts) -> None:
    first, second, third = real.accept(["H-1", "H-1", "H-1"], fail=2)
    real.sql("update public.ingest_event_log set raw_payload = '{}' where event_key = any(%s)", [second, third])
    (other,) = real.accept(["H-2"])
    real.add(third, second, first, other)
    until(lambda: real.event(other)["process_status"] == "DONE", 5)
    assert real.event(first)["process_status"] == "FAILED"
    assert [real.event(key)["process_status"] for key in (second, third)] == ["RECEIVED"] * 2
    real.wait()
    assert [real.event(key)["attempt_count"] for key in (first, second, third)] == [2, 0, 0]
    done = [row[0] for row in real.sql("select event_key from phase2.stub_log where ref = 'H-1' order by started")]
    assert done == [first, second, third]


def test_the_next_of_a_booking_is_woken_at_once(real: Parts) -> None:
    keys = real.accept(["W-1"] * 4)
    real.sql("""update public.ingest_event_log set raw_payload = '{"fail": 1}' where event_key = %s""", keys[0])
    real.add(*reversed(keys))
    real.wait()
    ends = [real.event(key)["processed_at"] for key in keys]
    assert ends == sorted(ends)
    assert ends[-1] - ends[0] < timedelta(seconds=0.5)


def test_what_was_never_queued_is_found_in_the_log(real: Parts) -> None:
    keys = real.accept(["L-1", "L-1", "L-2"])
    real.wait(10)
    assert all(real.event(key)["process_status"] == "DONE" for key in keys)


def test_a_job_that_is_due_in_more_than_5_seconds_comes(real: Parts) -> None:
    """redis-py 8 gives up a blocking call after 5 s unless told otherwise, BullMQ blocks for 10: it never came."""
    (key,) = real.accept(["D-1"])
    real.sql("update public.ingest_event_log set request_received_at = now() + interval '1 day'")  # not the sweeper's
    started = time.monotonic()

    async def work(_pool: Any, queue: Any) -> None:
        await queue.add_all([(key, 6.0)])

    real.call(work)
    real.wait(9)
    assert time.monotonic() - started > 6


def test_a_job_that_is_no_event_is_refused(real: Parts) -> None:
    async def work(_pool: Any, queue: Any) -> None:
        await queue._queue.add("booking-event", {"eventId": "no uuid"}, {"jobId": "nonsense"})
        await queue._queue.add("booking-event", {"eventId": str(uuid4())}, {"jobId": "unknown"})

    real.call(work)
    for name in ("nonsense", "unknown"):
        assert until(lambda name=name: real.job(name)[0] == "failed", 5)


def test_the_flag_is_in_force_within_seconds(real: Parts) -> None:
    real.sql(
        "insert into phase2.flags (flag, enabled, reason, changed_by) values ('INGEST_QUEUE_ENABLED', false, '', '')"
    )
    (log,) = real.home.glob("worker-*.log")
    until(lambda: "finishing what is held" in log.read_text(), 4)
    (key,) = real.accept(["F-1"])
    real.add(key)
    time.sleep(1)
    assert real.event(key)["process_status"] == "RECEIVED"
    real.sql("delete from phase2.flags")
    real.wait(6)


def test_a_job_that_is_cancelled_holds_up_no_other(real: Parts) -> None:
    """Those that come together share a call; who asked for one of them may be gone when it answers."""
    gone, other = real.accept(["C-1", "C-2"], sleep=0.3)

    async def work(pool: Any, _: Any) -> str:
        stepper = Stepper(pool, (1.0,), 10)
        asked = [asyncio.create_task(stepper.step(key)) for key in (gone, other)]
        await asyncio.sleep(0.1)
        asked[0].cancel()
        step = await asyncio.wait_for(asked[1], 5)
        await stepper.close()
        return step.outcome

    assert real.call(work) == "APPLIED"


def test_an_error_that_nobody_knows_of_is_no_end_of_a_job(real: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a step gets an answer whatever breaks; the job is put off, and is taken again."""
    (key,) = real.accept(["U-1"])

    async def work(pool: Any, _: Any) -> list[str]:
        stepper = Stepper(pool, (1.0,), 10)
        steps = stepper._steps
        broken = iter([RuntimeError("File descriptor 7 is used by transport")])

        async def once(keys: list[UUID]) -> Any:
            for error in broken:
                raise error
            return await steps(keys)

        monkeypatch.setattr(stepper, "_steps", once)
        outcomes = [(await asyncio.wait_for(stepper.step(key), 5)).outcome for _ in range(2)]
        await stepper.close()
        return outcomes

    assert real.call(work) == ["AWAY", "APPLIED"]


# -- dead letters -----------------------------------------------------------------------------------------------------


def letter(real: Parts, event_key: UUID) -> tuple[Any, ...]:
    rows = real.sql(
        "select status, reason_code, poison_message, reason_detail, replay_count, dead_letter_key"
        " from public.ingest_dead_letter where event_key = %s",
        event_key,
    )
    assert len(rows) == 1
    return rows[0]


def dead(real: Parts, ref: str, tries: int = 1) -> tuple[UUID, UUID]:
    """An event among the dead letters (the next `tries` would not fail), and its dead letter."""
    (key,) = real.accept([ref], fail=tries, state="P2001")
    real.add(key)
    real.wait()
    return key, letter(real, key)[5]


def refused(real: Parts, work: Any) -> str:
    with pytest.raises(Refused) as caught:
        real.call(work)
    return f"{caught.value.status} {caught.value.code}"


def move(real: Parts, key: UUID, status: str) -> dict[str, Any]:
    return real.call(lambda pool, _: dead_letters.transition(pool, key, status, MANAGER, reason="looked at it"))


def test_only_allowed_transitions(real: Parts) -> None:
    _, key = dead(real, "T-1")
    for start in dead_letters.STATUSES:
        for end in dead_letters.STATUSES:
            real.sql("update public.ingest_dead_letter set status = %s where dead_letter_key = %s", start, key)
            if end in dead_letters.TRANSITIONS.get(start, ()):
                assert move(real, key, end)["status"] == end
            else:
                assert refused(real, lambda pool, _, end=end: dead_letters.transition(pool, key, end, MANAGER)) == (
                    "409 INVALID_TRANSITION"
                )
    assert refused(real, lambda pool, _: dead_letters.transition(pool, uuid4(), "READY", MANAGER)) == "404 NOT_FOUND"
    real.sql("update public.ingest_dead_letter set status = 'CLOSED' where dead_letter_key = %s", key)
    items, _ = real.call(lambda pool, _: audit.trail(pool, resource_id=str(key), limit=200))
    assert len(items) == sum(map(len, dead_letters.TRANSITIONS.values()))
    assert items[0]["metadata"]["reason"] == "looked at it"


def test_a_replay_takes_an_event_to_its_end_and_is_audited(real: Parts) -> None:
    event, key = dead(real, "Y-1")
    again = lambda pool, queue: dead_letters.replay_event(pool, queue, event, MANAGER, enabled=True, reason="mended")  # noqa: E731
    assert refused(real, again) == "409 DEAD_LETTER_NOT_READY"
    move(real, key, "READY")
    off = lambda pool, queue: dead_letters.replay_event(pool, queue, event, MANAGER, enabled=False)  # noqa: E731
    assert refused(real, off) == "503 INGEST_REPLAY_DISABLED"
    real.sql("update public.ingest_event_log set raw_payload = '{}' where event_key = %s", event)
    assert real.call(again) is True
    real.wait()
    assert real.event(event)["process_status"] == "DONE"
    assert letter(real, event)[0] == "SUCCEEDED"
    assert letter(real, event)[4] == 1
    items, _ = real.call(lambda pool, _: audit.trail(pool, resource_id=str(event)))
    assert [item["eventType"] for item in items] == [
        "INGEST_REPLAY_REQUESTED", "INGEST_REPLAY_REJECTED", "INGEST_REPLAY_REJECTED"
    ]  # fmt: skip


def test_a_replay_that_fails_again(real: Parts) -> None:
    event, key = dead(real, "Y-2", tries=99)
    move(real, key, "READY")
    real.call(lambda pool, queue: dead_letters.replay_event(pool, queue, event, MANAGER, enabled=True))
    real.wait()
    assert letter(real, event)[:3] == ("FAILED", "VALIDATION_ERROR", True)
    assert letter(real, event)[4] == 1


def test_a_replay_of_many_keeps_their_order_and_its_limit(real: Parts) -> None:
    events = [dead(real, "Z-1")[0] for _ in range(4)]
    real.sql("update public.ingest_dead_letter set status = 'READY' where event_key = any(%s)", events)
    real.sql("update public.ingest_event_log set raw_payload = '{}' where event_key = any(%s)", events)
    off = lambda pool, queue: dead_letters.replay(pool, queue, MANAGER, enabled=False, reason="all", channel="GYG")  # noqa: E731
    assert refused(real, off) == "503 INGEST_REPLAY_DISABLED"
    (said, *_), _ = real.call(lambda pool, _: audit.trail(pool, event_type="INGEST_REPLAY_REJECTED"))
    assert (said["resourceId"], said["metadata"]["channel"], said["metadata"]["reason"]) == ("READY", "GYG", "all")
    keys, queued = real.call(
        lambda pool, queue: dead_letters.replay(
            pool, queue, MANAGER, enabled=True, reason="all", limit=3, channel="GYG"
        )
    )
    assert (keys, queued) == (events[:3], True)
    real.wait()
    done = [row[0] for row in real.sql("select event_key from phase2.stub_log where ref = 'Z-1' order by started")]
    assert done == events[:3]
    assert letter(real, events[3])[0] == "READY"


def test_a_replay_taken_back_is_not_applied(real: Parts) -> None:
    """Who began anew what a worker was about to take has the last word."""
    event, key = dead(real, "Y-3")
    move(real, key, "READY")
    real.call(lambda pool, _: dead_letters.replay_event(pool, None, event, MANAGER, enabled=True))
    move(real, key, "READY")
    real.add(event)
    time.sleep(0.5)
    assert real.event(event)["process_status"] == "FAILED"
    assert letter(real, event)[0] == "READY"


def test_a_person_fails_an_event(real: Parts) -> None:
    (event,) = real.accept(["M-1"])
    real.add(event)
    real.wait()
    failed = real.call(
        lambda pool, _: dead_letters.fail(pool, event, MANAGER, reason_code="wrong_booking", reason_detail="see mail")
    )
    assert (failed["status"], failed["reasonCode"], failed["poisonMessage"]) == ("OPEN", "WRONG_BOOKING", False)
    assert real.event(event)["process_status"] == "FAILED"
    again = real.call(lambda pool, _: dead_letters.fail(pool, event, MANAGER))
    assert again["deadLetterKey"] == failed["deadLetterKey"]
    assert refused(real, lambda pool, _: dead_letters.fail(pool, uuid7(), MANAGER)) == "404 NOT_FOUND"
    real.sql("delete from phase2.stub_log where event_key = %s", event)  # it ended twice, as asked


def test_a_preview_tells_fields_and_changes_nothing(real: Parts) -> None:
    (first,) = real.accept(["V-1"], adults=2)
    real.add(first)
    event, key = dead(real, "V-1")

    def previewed(**payload: object) -> dead_letters.Preview:
        real.sql("update public.ingest_event_log set raw_payload = %s where event_key = %s", json.dumps(payload), event)
        before = [real.sql(f"select * from {table} order by 1") for table in tables]  # noqa: S608
        (found,) = real.call(lambda pool, _: dead_letters.preview(pool, [event]))
        assert [real.sql(f"select * from {table} order by 1") for table in tables] == before  # noqa: S608
        return found

    tables = ("public.booking_core", "public.ingest_dead_letter", "public.ingest_event_log", "phase2.stub_log",
              "phase2.ledger")  # fmt: skip
    found = previewed(adults=3)
    assert found.outcome == "APPLIED"
    assert [(c.table, c.field, c.before, c.after) for c in found.changes] == [
        ("booking_core", "note", None, None),
        ("booking_core", "number_of_adult", 2, 3),
    ]
    found = previewed(fail=1, state="P2001")
    assert (found.outcome, found.reason, found.changes) == ("DEAD", "VALIDATION_ERROR", [])
    assert refused(real, lambda pool, _: dead_letters.preview(pool, [uuid7()])) == "404 NOT_FOUND"


def test_changes_are_told_by_field_and_personal_ones_without_their_values() -> None:
    before = {("booking_contact", "k"): {"phone": "1", "updated_from_source": "x", "updated_at": 1}}
    after = {
        ("booking_contact", "k"): {"phone": "2", "updated_from_source": "y", "updated_at": 2},
        ("booking_party", "k"): {"adult_qty": 2},
    }
    told = [(c.table, c.field, c.before, c.after) for c in dead_letters._changes(before, after)]
    assert told == [
        ("booking_contact", "phone", None, None),
        ("booking_contact", "updated_from_source", "x", "y"),
        ("booking_party", "adult_qty", None, 2),
    ]


def test_times_of_a_preview_are_as_in_every_answer() -> None:
    before = {("booking_core", "k"): {"booking_created_at": "2026-11-22T16:30:00.25+08:00", "tour_time": "08:00:00"}}
    after = {("booking_core", "k"): {"booking_created_at": None, "tour_time": "09:00:00"}}
    (found,) = dead_letters.document(
        [dead_letters.Preview(uuid4(), "APPLIED", None, dead_letters._changes(before, after))]
    )
    told = orjson.loads(orjson.dumps(found, option=orjson.OPT_UTC_Z))["changes"]
    assert [(change["before"], change["after"]) for change in told] == [
        ("2026-11-22T08:30:00.250000Z", None),
        ("08:00:00", "09:00:00"),
    ]


def test_lists_have_pages(real: Parts) -> None:
    for number in range(3):
        dead(real, f"N-{number}")
    seen: list[UUID] = []
    cursor: UUID | None = None
    while True:
        rows, cursor = real.call(
            lambda pool, _, at=cursor: dead_letters.listed(pool, status="OPEN", limit=2, cursor=at)
        )
        seen += [row["deadLetterKey"] for row in rows]
        if cursor is None:
            break
    assert (
        len(seen)
        == len(set(seen))
        == real.sql("select count(*) from public.ingest_dead_letter where status = 'OPEN'")[0][0]
    )
    assert refused(real, lambda pool, _: dead_letters.listed(pool, status="LOST")) == "422 VALIDATION_ERROR"


def test_measures_have_the_shapes_of_the_contract(real: Parts) -> None:
    dead(real, "Q-1")
    queue = real.call(lambda pool, queue: dead_letters.queue_metrics(pool, queue, enabled=True))
    assert queue["queue"].keys() == {
        "queueName", "enabled", "connected", "waiting", "active", "delayed", "completed", "failed", "paused",
        "lastError", "oldestDays",
    }  # fmt: skip
    assert queue["queue"]["connected"] is True
    without = real.call(lambda pool, _: dead_letters.queue_metrics(pool, None, enabled=False))
    assert without["queue"].keys() == queue["queue"].keys()
    assert without["queue"]["connected"] is False
    assert queue["queue"]["failed"] > 0
    assert queue["deadLetter"]["byStatus"].keys() == set(dead_letters.STATUSES)
    assert queue["deadLetter"]["total"] == sum(queue["deadLetter"]["byStatus"].values()) > 0
    assert queue["retry"]["policy"] == {"maxAttempts": 6, "retryDelaysSeconds": [30, 120, 600, 1800, 7200]}
    assert queue["retry"]["totals"].keys() == {
        "pendingRetry", "dueRetry", "processingRetry", "queuedRetry", "exhausted", "withAttempt"
    }  # fmt: skip
    assert (
        sum(queue["retry"]["attemptHistogram"].values())
        == real.sql("select count(*) from public.ingest_event_log")[0][0]
    )
    assert queue["retry"]["totals"]["withAttempt"] == real.sql(
        "select count(*) from public.ingest_event_log where attempt_count > 0"
    )[0][0]  # fmt: skip
    processing = real.call(lambda pool, _: dead_letters.processing_metrics(pool, 0))
    assert processing["windowMinutes"] == 1
    processing = real.call(lambda pool, _: dead_letters.processing_metrics(pool, 60))
    totals = processing["totals"]
    assert totals["received"] == totals["terminal"] + totals["pending"]
    assert processing["successRate"] + processing["failureRate"] == pytest.approx(1)
    latencies = processing["latenciesMs"]
    assert latencies["sampleCount"] == totals["done"]
    assert latencies["median"] <= latencies["p95"] <= latencies["max"]


# -- the service ------------------------------------------------------------------------------------------------------


def test_the_service_takes_its_own_example_and_ends_cleanly(tmp_path: Path) -> None:
    with parts(os.environ["TEST_PG_URL"], tmp_path) as alone, socket.socket() as probe:
        local.stop(tmp_path)
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
        probe.close()
        environment = alone.environment(CORE_API_PORT=port)
        for name in [name for name in environment if name == "INGEST_REDIS_URL" or re.match("INGEST_.*_ENABLED", name)]:
            del environment[name]
        with (tmp_path / "said").open("w") as said:
            served = subprocess.Popen([PHASE2, "serve"], env=environment, stdout=said, stderr=subprocess.STDOUT)
        try:
            text = until(lambda: "--data-binary" in (t := (tmp_path / "said").read_text()) and t, 60)
            assert "for local use on: INGEST_WEBHOOK_ENABLED, INGEST_QUEUE_ENABLED, INGEST_REPLAY_ENABLED" in text
            sent = subprocess.run(["sh"], input=text[text.index("curl ") :].split("'\n")[0] + "'", text=True,
                                  capture_output=True, check=True)  # fmt: skip
            answer = json.loads(sent.stdout)["data"]
            assert answer["queued"] is True
            until(lambda: alone.event(UUID(answer["eventId"]))["process_status"] == "DONE", 5)
            told = subprocess.run([PHASE2, "env"], env=environment, text=True, capture_output=True, check=True).stdout
            assert f"export CORE_API_URL=http://127.0.0.1:{port}\n" in told
            for name in ("INGEST_SERVICE_TOKEN", "INGEST_SERVICE_SECRET", "CORE_API_ADMIN_TOKEN"):
                assert re.search(rf"^export {name}=[0-9a-f]{{64}}$", told, re.M)
        finally:
            served.terminate()
            assert served.wait(20) == 0
        assert local.pid(tmp_path) is None, "the Valkey that it started is stopped"


def test_connections_have_a_limit(real: Parts) -> None:
    with real.api(), httpx.Client(base_url=f"http://127.0.0.1:{real.port}") as client, ExitStack() as held:
        assert client.get("/health").status_code == 200  # and keeps its connection
        for _ in range(_CONNECTIONS - 1):
            held.enter_context(socket.create_connection(("127.0.0.1", real.port)))
        until(lambda: client.get("/health").status_code == 503, 5)
        held.close()
        until(lambda: client.get("/health").status_code == 200, 5)


def test_a_worker_loads_no_web_framework() -> None:
    code = "import sys, core_api.__main__; sys.exit(bool({'fastapi', 'starlette'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# -- Node -------------------------------------------------------------------------------------------------------------

_NODE = """
const { Queue } = require('bullmq');
const [url, name, theirs, ours] = process.argv.slice(2);
const IORedis = require('ioredis');
(async () => {
  const connection = new IORedis(url, { maxRetriesPerRequest: null });
  const queue = new Queue(name, { connection });
  await queue.add('booking-event', { eventId: theirs }, { jobId: theirs });
  const job = await queue.getJob(ours);
  console.log(JSON.stringify({ data: job.data, state: await job.getState(), opts: job.opts, name: job.name }));
  await queue.close();
  connection.disconnect();
})();
"""


def test_a_client_of_nodes_bullmq_adds_and_reads_jobs(real: Parts, tmp_path: Path) -> None:
    if not shutil.which("npm"):
        pytest.skip("no npm here")
    installed = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "bullmq", "ioredis"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip("npm cannot install bullmq: no registry")
    ours, theirs = real.accept(["NODE-1", "NODE-2"])
    real.add(ours)
    until(lambda: real.event(ours)["process_status"] == "DONE", 5)
    (tmp_path / "run.js").write_text(_NODE)
    ran = subprocess.run(
        ["node", "run.js", real.redis, real.queue, str(theirs), str(ours)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    read = json.loads(ran.stdout)
    assert (read["data"], read["state"], read["name"]) == ({"eventId": str(ours)}, "completed", "booking-event")
    assert read["opts"]["attempts"] == 6
    until(lambda: real.event(theirs)["process_status"] == "DONE", 1.5)  # before the sweeper could
