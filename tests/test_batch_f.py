"""Batch F against a real service: forward to PASS, each gate by the fault that fails it, rollback with nothing lost.

Its gates look at traffic and at a service, which the shop of the fault matrix does not have: their faults are here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import redis

from bridge import flags, gates, ingestion, ledger, postgres, rehearsal, rollback, scripts, steps
from bridge.batches import BATCHES
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun, GateFailed
from bridge.ingest_client import send, signed
from bridge.settings import ROOT, settings
from core_api import local
from core_api.ingest.queue import IngestQueue
from tests.faults import Fault, read
from tests.serving import ADMIN, PATH, SECRET, TOKEN, event
from tests.serving import service as api_alone
from tests.shop import Shop

F = BATCHES["F"]
FLAGS = {"INGEST_WEBHOOK_ENABLED", "INGEST_QUEUE_ENABLED", "INGEST_REPLAY_ENABLED", "WEB_EMIT_BOOKING_EVENT_ENABLED",
         "EMAIL_PIPELINE_CORE_ENABLED"}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shop(written: Path) -> Iterator[Shop]:
    with Shop(os.environ["TEST_PG_URL"], bookings=120).open(written) as made:
        yield made


@contextmanager
def serving(ops: str, home: Path, **more: str) -> Iterator[str]:
    """`core_api serve` on this database, with a Valkey and a port of its own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "OPS_DB_URL": ops,
        "BALISNAP_DB_URL": postgres.with_database(ops, "balisnap"),
        "BSTADMIN_DB_URL": postgres.with_database(ops, "bstadmin"),
        "PHASE2_HOME": str(home),
        "CORE_API_PORT": str(port),
        "INGEST_SERVICE_TOKEN": TOKEN,
        "INGEST_SERVICE_SECRET": SECRET,
        "CORE_API_ADMIN_TOKEN": ADMIN,
        "INGEST_SWEEP_SECONDS": "0.5",
        "INGEST_RECOVER_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        **more,
    }
    with (home / "service.log").open("ab") as said:
        process = subprocess.Popen([sys.executable, "-m", "core_api", "serve"], env=environment, stderr=said)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or _answers(url), 30)
        assert process.poll() is None, (home / "service.log").read_text()
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


@contextmanager
def told(url: str, **more: str) -> Iterator[None]:
    """The environment of who calls the service there."""
    ours = {
        "CORE_API_URL": url,
        "INGEST_SERVICE_TOKEN": TOKEN,
        "INGEST_SERVICE_SECRET": SECRET,
        "CORE_API_ADMIN_TOKEN": ADMIN,
        **more,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        core_settings.cache_clear()
        yield
    core_settings.cache_clear()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health/db", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def service(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # as `make serve`: the environment says on, so that F has to shut it first
    on = {name: "true" for name in FLAGS if name.startswith("INGEST")}
    with serving(shop.url(), tmp_path_factory.mktemp("service"), **on) as url, told(url):
        yield url


def drilled(conn: psycopg.Connection) -> None:
    """What the required drills leave behind when they pass."""
    conn.execute(
        "insert into phase2.drills (drill_id, drill, passed, measured, started_at)"
        ' select gen_random_uuid(), d, true, \'{"audit_rows": 3, "seconds_to_old_path": 3}\', now()'
        " from unnest(array['duplicate', 'out_of_order', 'burst', 'replay', 'rollback']) as d"
    )


def accept(**changes: Any) -> str:
    with httpx.Client(trust_env=False) as client:
        answer = send(client, signed(core_settings(), event(**changes), uuid4().hex))
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]["eventId"]


def pending(run: steps.Run) -> int:
    with run.connect() as conn:
        row = conn.execute(
            "select count(*) from public.ingest_event_log where phase2.is_pending(process_status, next_retry_at)"
        ).fetchone()
    assert row
    return row[0]


@pytest.fixture(scope="module")
def forward(shop: Shop, service: str, written: Path) -> gates.Verdict:
    """F, as it is run: some traffic was there before it."""
    run = shop.run()
    for _ in range(5):
        accept()
    until(lambda: not pending(run), 15)
    with run.connect() as conn:
        drilled(conn)
    return shop.migrate(run, F, written)


def test_f_switches_everything_on_and_passes(shop: Shop, service: str, forward: gates.Verdict) -> None:
    # a shop that sells three bookings a day says little of its public web
    other = {g.gate_id: g.status for g in forward.gates if g.status != "PASS"}
    assert set(other.values()) <= {"N/A"}, other
    assert other.keys() <= {"F-03", "G-03", "G-05", "G-06"}
    assert {g.gate_id for g in forward.gates} >= set(F.gates)
    with shop.run().connect() as conn:
        rows = flags.read(conn)
        assert {flag for flag, row in rows.items() if row.enabled} == FLAGS
        assert rows["WEB_EMIT_BOOKING_EVENT_ENABLED"].rollout.percentage < 100
        assert rows["EMAIL_PIPELINE_CORE_ENABLED"].rollout.channels
        seen = conn.execute("select item from phase2.gate_inputs where gate_id = 'F-00'").fetchall()
    assert {("token and secret are the emitters'",), ("a worker is there",), ("INGEST_QUEUE_ENABLED",)} <= set(seen)


@pytest.fixture(scope="module")
def stands(shop: Shop, forward: gates.Verdict) -> Iterator[psycopg.Connection]:
    """The ops database behind F, to plant faults in: each is rolled back."""
    with postgres.connect(shop.url(), autocommit=True) as conn:
        yield conn


# --- the gates, each by the fault that fails it --------------------------------------------------------------------

FAULTS = read("faults_f.sql")


def judged(conn: psycopg.Connection) -> dict[str, gates.Gate]:
    """The gates of F as the views measure them now, within the transaction of `conn`."""
    conn.execute("delete from dbt_recon.recon_f_reading")
    return {g.gate_id: g for g in gates._read(conn, "F", uuid4()).gates}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda f: f.id)
def test_a_fault_fails_its_gate_which_names_it(stands: psycopg.Connection, fault: Fault) -> None:
    with stands.transaction(force_rollback=True):
        stands.execute("set local session_replication_role = replica")
        keys = fault.apply(stands)
        stands.execute("delete from dbt_recon.recon_f_reading")
        verdict = gates._read(stands, "F", uuid4())
    gate = next(g for g in verdict.gates if g.gate_id == fault.gate)
    assert (gate.status, fault.gate in verdict.blocked_by) == ("FAIL", True)
    assert not gate.note.startswith(("not measured", "no limit", "the measure counts"))
    assert keys <= {e.key for e in verdict.exceptions_of(fault.gate) if e.is_counted}
    assert keys or gate.note.startswith("nothing was measured")


def test_each_gate_of_f_has_a_fault() -> None:
    assert {fault.gate for fault in FAULTS.values()} == set(F.gates)


def test_a_quiet_night_and_what_came_before_the_switch_are_no_faults(stands: psycopg.Connection) -> None:
    """The hour is the one up to the newest event; an event from before the queue was on waited for nobody."""
    with stands.transaction(force_rollback=True):
        stands.execute(
            "update public.ingest_event_log set request_received_at = request_received_at - interval '9 hours',"
            " processed_at = processed_at - interval '9 hours'"
        )
        assert judged(stands)["F-02-P95"].status == "PASS"
        stands.execute(
            "update public.ingest_event_log set processed_at = processed_at + interval '9 hours';"
            " update phase2.flags set changed_at = (select min(processed_at) - interval '20 seconds'"
            " from public.ingest_event_log) where flag = 'INGEST_QUEUE_ENABLED'"
        )
        found = judged(stands)["F-02-P95"]
        assert (found.status, found.denominator) == ("PASS", 5)
        stands.execute(  # the worker takes one, and then no more
            "update public.ingest_event_log set processed_at = null, process_status = 'RECEIVED' where event_key <>"
            " (select event_key from public.ingest_event_log order by processed_at limit 1)"
        )
        assert judged(stands)["F-02-P95"].status == "FAIL"
        stands.execute("update public.ingest_event_log set processed_at = now(), process_status = 'DONE'")
        stands.execute("update phase2.flags set enabled = false where flag = 'INGEST_QUEUE_ENABLED'")
        assert judged(stands)["F-02-P95"].status == "FAIL"


@pytest.mark.long
def test_a_rehearsal_of_f_has_a_service_of_its_own_and_keeps_its_flags_apart(
    shop: Shop, service: str, forward: gates.Verdict, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHASE2_REPORTS", str(written))
    settings.cache_clear()
    execute = steps.execute
    # what dbt does in a rehearsal is test_rehearsal's; here it would be a minute
    monkeypatch.setattr(steps, "execute", lambda *of: execute(*of) if of[2].kind in ("service", "flag") else None)
    monkeypatch.setattr(rehearsal, "_print_views_anew", lambda run: None)
    [entry] = rehearsal.perform(shop.run(), [F])
    settings.cache_clear()
    assert rehearsal.failures(entry.body) == []
    assert entry.body["made_ready"] == ["F rolled back"]
    assert not shut(service)  # of the real one nothing was touched
    with shop.run().connect() as conn:
        assert all(row.enabled for row in flags.read(conn).values())


# --- off, and on again ---------------------------------------------------------------------------------------------

# What the bridge holds, by the bookings' identities: a booking that only events made has another key the second time.
_BRIDGE = """
select
    concat_ws(
        '|', c.channel_code, c.external_booking_ref, x.what,
        x.row - '{booking_key,created_at,updated_at,last_reconciled_at}'::text[]
    )
from public.booking_core as c
cross join lateral (
    select 'core' as what, to_jsonb(c) as row
    union all
    select 'contact', to_jsonb(t) from public.booking_contact as t where t.booking_key = c.booking_key
    union all
    select 'party', to_jsonb(t) from public.booking_party as t where t.booking_key = c.booking_key
    union all
    select 'state', to_jsonb(t) from public.ops_booking_state as t where t.booking_key = c.booking_key
    union all
    select 'item', to_jsonb(t) from public.booking_item_snapshot as t where t.booking_key = c.booking_key
    union all
    select 'payment', to_jsonb(t) from public.payment_event as t where t.booking_key = c.booking_key
    union all
    select 'finance', to_jsonb(t) from public.ops_finance_bridge as t where t.booking_key = c.booking_key
    union all
    select 'assignment', to_jsonb(t) from public.ops_assignment as t where t.booking_key = c.booking_key
    union all
    select 'ref', to_jsonb(t) - '{entity_key}'::text[] from public.channel_external_refs as t
    where t.entity_key = c.booking_key
    union all
    select 'remembered', to_jsonb(t) from phase2.booking_event_times as t where t.booking_key = c.booking_key
) as x
order by 1
"""


def bridge(run: steps.Run) -> list[str]:
    with run.connect() as conn:
        return [row for (row,) in conn.execute(_BRIDGE).fetchall()]


def test_off_and_on_again_loses_nothing_and_all_the_way_back_ends_in_the_same_rows(
    shop: Shop, service: str, forward: gates.Verdict, written: Path
) -> None:
    run = shop.run()
    with run.connect() as conn:
        known = conn.execute(
            "select c.source_enum_compat, c.external_booking_ref from public.booking_core as c"
            " where c.source_enum_compat = 'GYG' and c.ops_fulfillment_status not in ('DONE', 'CANCELLED') limit 2"
        ).fetchall()
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    for kind, (source, ref) in zip(("CANCELLED", "UPDATED"), known, strict=True):
        accept(source=source, externalBookingRef=ref, eventType=kind, eventTime=at, customer__name="Later Word")
    accept(externalBookingRef="ONLY-EVENTS", booking__currency="a word")  # which opens a review
    until(lambda: not pending(run), 15)
    before = bridge(run)
    assert all(any(word in row for row in before) for word in ("ONLY-EVENTS", "Later Word"))
    with run.connect() as conn:
        events = ingestion.events_by_status(conn)
        conn.execute("update public.ingest_event_log set attempt_count = 3, error_message = 'a retry was needed'")

    rollback.roll_back(run, F)
    with run.connect() as conn:
        assert not any(row.enabled for row in flags.read(conn).values())
        drill = conn.execute(
            "select passed, measured from phase2.drills where drill = 'rollback' order by ended_at desc limit 1"
        ).fetchone()
        assert drill is not None
        assert drill[0]
        assert 0 < drill[1]["seconds_to_old_path"] < 30
        assert drill[1]["before"] == drill[1]["after"] == events == ingestion.events_by_status(conn)
        assert ledger.latest(conn, "backup", batch="F") is None  # it removes nothing
        with pytest.raises(CouldNotRun, match="nothing to roll back"):
            rollback.check(conn, F)
    with httpx.Client(trust_env=False) as client:
        answer = send(client, signed(core_settings(), event(), uuid4().hex))
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "INGEST_WEBHOOK_DISABLED")
    assert bridge(run) == before

    for code in ("E", "D"):
        rollback.roll_back(shop.run(), BATCHES[code], on_a_copy=True)
        with run.connect() as conn:
            counted = ingestion.events_by_status(conn)
        assert sum(counted.values()) == sum(events.values())
        cancelled = [row for row in bridge(run) if '"CANCELLED"' in row and f"|{known[0][1]}|core" in row]
        assert len(cancelled) == (code == "E")  # an event's word stands until its booking goes
    assert counted == {"RECEIVED": events["DONE"]}
    with run.connect() as conn:
        tried = conn.execute("select distinct attempt_count, error_message from public.ingest_event_log").fetchall()
    assert tried == [(0, None)]
    assert bridge(run) == []
    again = shop.run()
    for code in ("D", "E", "F"):
        verdict = shop.migrate(again, BATCHES[code], written)
        # how soon a machine that is busy with other tests takes in what waited is no matter here
        assert set(verdict.blocked_by) <= ({"F-02", "F-02-P95"} if code == "F" else set()), code
    until(lambda: not pending(run), 15)
    assert bridge(run) == before
    with run.connect() as conn:
        assert ingestion.events_by_status(conn) == events


_OFF = "update phase2.batch_state set status = 'ROLLED_BACK' where batch = 'F'; update phase2.flags set enabled = false"
_REMEMBERS = "update phase2.booking_event_times set tour_times = jsonb_build_object('2020-01-01', jsonb_build_object("


@pytest.mark.parametrize(
    ("damages", "says"),
    [
        ([], "roll back batch F, or"),
        (["update phase2.batch_state set status = 'ROLLED_BACK' where batch = 'F'"], "roll back batch F, or"),
        ([_OFF, "delete from phase2.flags"], "set INGEST_QUEUE_ENABLED off"),
        (
            [_OFF, "delete from phase2.flags", "truncate public.ingest_event_log cascade"],
            "set INGEST_QUEUE_ENABLED off",
        ),
        (
            [_OFF, "delete from public.ingest_event_log where external_booking_ref = 'ONLY-EVENTS'"],
            "the retention has removed",
        ),
        ([_OFF, _REMEMBERS + "'at', timestamptz '2020-01-01 08:00:00.000001Z'))"], "the retention has removed"),
        ([_OFF, _REMEMBERS + "'at', source_at + interval '2 us')) where source_at is not null"], None),
        ([_OFF, _REMEMBERS + "'at', '-infinity'))"], None),
    ],
)
def test_d_stays_while_ingestion_is_on_and_where_events_are_forgotten(
    stands: psycopg.Connection, damages: list[str], says: str | None
) -> None:
    """A worker is connected, whose environment says on."""
    script = (scripts.FOLDER / "rollback" / "D.sql").read_text().replace("begin;", "", 1).replace("commit;", "")
    refused = pytest.raises(psycopg.errors.RaiseException, match=says) if says else nullcontext()
    with stands.transaction(force_rollback=True):
        stands.execute("truncate public.payment_event, public.ops_finance_bridge")
        for damage in damages:
            assert stands.execute(damage.encode()).rowcount
        with refused:
            stands.execute(script.encode())


# --- what may be wrong with the service ------------------------------------------------------------------------------


@pytest.fixture
def other(shop: Shop, service: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[steps.Run]:
    """A run of F on a copy of the shop from before it, while the service that answers works on the shop's own."""
    monkeypatch.setattr(ingestion, "FOLLOWS_SECONDS", 1.0)
    with shop.clone() as conn:
        databases = replace(shop.run().databases, ops=postgres.with_database(shop.server, conn.info.dbname))
        run = replace(shop.run(), databases=databases)
        steps.start(run, F)
        yield run


def step(run: steps.Run, name: str) -> None:
    steps.execute(run, F, next(one for one in F.plan if one.name == name))


def switch(run: steps.Run, on: bool) -> None:
    with run.connect() as conn:
        flags.change(conn, "INGEST_WEBHOOK_ENABLED", on, reason="test")


def shut(service: str) -> bool:
    return httpx.post(service + PATH, trust_env=False).status_code == 503


def webhook(run: steps.Run) -> bool:
    with run.connect() as conn:
        return flags.read(conn)["INGEST_WEBHOOK_ENABLED"].enabled


def test_a_service_that_is_away_or_another_one(other: steps.Run, shop: Shop, service: str) -> None:
    with told("http://127.0.0.1:9"), pytest.raises(CouldNotRun, match=r"does not answer.*make serve"):
        step(other, "service keys")
    switch(shop.run(), True)
    with pytest.raises(CouldNotRun, match=r"answered 4\d\d, not 503.*another ops database"):
        step(other, "service closed")
    switch(other, True)
    with pytest.raises(CouldNotRun, match=r"works on another ops database"):
        step(other, "service smoke")
    assert not webhook(other)
    switch(shop.run(), False)
    until(lambda: shut(service), 15)
    with pytest.raises(CouldNotRun, match=r"does not follow INGEST_WEBHOOK_ENABLED"):
        step(other, "flag INGEST_WEBHOOK_ENABLED")


def test_another_secret_or_token_is_f_00_and_the_webhook_is_shut(
    shop: Shop, service: str, forward: gates.Verdict
) -> None:
    run = shop.run()
    for damage, says in (
        ({"INGEST_SERVICE_SECRET": "x" * 40}, "token and secret are the emitters'"),
        ({"INGEST_SERVICE_TOKEN": "x" * 40}, "token and secret are the emitters'"),
    ):
        steps.start(run, F)
        switch(run, True)
        until(lambda: not shut(service), 15)
        with told(service, **damage), pytest.raises(GateFailed, match=says):
            step(run, "service smoke")
        assert not webhook(run)
    line = next(line for line in steps.status(shop.url()) if line.batch == "F")
    assert (line.status, line.blocked_by) == ("FAIL", ("F-00",))
    with told(service, CORE_API_ADMIN_TOKEN="x" * 40), pytest.raises(GateFailed, match="admin token"):
        step(run, "service worker")
    with told(service, PHASE2_KILL="INGEST_WEBHOOK_ENABLED"), pytest.raises(GateFailed, match="PHASE2_KILL"):
        step(run, "service keys")


def test_no_worker_is_f_00(other: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy has an API without a queue, and nobody who works."""
    with api_alone(other.databases.ops) as url, told(url), pytest.raises(GateFailed) as raised:
        step(other, "service worker")
    assert "the queue is connected, a worker is there" in str(raised.value)


def kept(run: steps.Run, item: str) -> tuple[bool, dict[str, Any]]:
    """What the latest look has found of this item of F-05."""
    with run.connect() as conn:
        found = conn.execute(
            "select passed, detail from phase2.gate_inputs where gate_id = 'F-05' and item = %s"
            " order by gate_input_id desc limit 1",
            (item,),
        ).fetchone()
    assert found
    return found


def test_a_finished_job_that_nobody_forgets_is_f_05(other: steps.Run, tmp_path: Path) -> None:
    """The copy has a queue and nobody who works, so that nobody forgets."""
    url, _ = local.ensure(tmp_path)
    try:
        with (
            redis.Redis.from_url(url) as client,
            api_alone(other.databases.ops, lambda: IngestQueue(url, "kept")) as at,
            told(at),
        ):
            for days, passed in (({"completed": 13, "failed": 29}, True), ({"completed": 16, "failed": 32}, False)):
                for state, age in days.items():
                    client.zadd(f"bull:kept:{state}", {f"a {state} job": (time.time() - age * 86_400) * 1000})
                with pytest.raises(GateFailed, match="a worker is there"):
                    step(other, "service worker")
                for state, age in days.items():
                    found, detail = kept(other, f"{state} jobs")
                    assert (found, round(detail["oldest_days"])) == (passed, age)
    finally:
        local.stop(tmp_path)
    with api_alone(other.databases.ops) as at, told(at), pytest.raises(GateFailed):
        step(other, "service worker")
    assert not kept(other, "completed jobs")[0]  # without a queue nothing is known


@pytest.mark.parametrize(
    ("schedule", "passed"),
    [("{cron: '0 19 * * *'}", True), ("{cron: '0 19 * * 0'}", False), ("{cron: '0 19 * * *', active: false}", False)],
)
def test_a_retention_that_is_not_daily_is_f_05(
    other: steps.Run, service: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, schedule: str, passed: bool
) -> None:
    deployment = f"deployments: [{{entrypoint: 'flows/x.py:retention_flow', schedules: [{schedule}]}}]"
    (tmp_path / "prefect.yaml").write_text(deployment)
    monkeypatch.setattr(ingestion, "ROOT", tmp_path)
    step(other, "service keys")
    assert kept(other, "daily")[0] is passed


def test_a_run_again_does_not_shut_what_is_open_and_a_rollback_needs_no_service(
    other: steps.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingestion, "FOLLOWS_SECONDS", 15.0)
    with api_alone(other.databases.ops) as url, told(url):
        step(other, "flag INGEST_WEBHOOK_ENABLED")
        with other.connect() as conn:
            flags.change(
                conn, "WEB_EMIT_BOOKING_EVENT_ENABLED", True, reason="more", rollout=flags.Rollout(percentage=50)
            )
        step(other, "service closed")
        step(other, "flag WEB_EMIT_BOOKING_EVENT_ENABLED")
        assert webhook(other)
    with other.connect() as conn:
        assert flags.read(conn)["WEB_EMIT_BOOKING_EVENT_ENABLED"].rollout.percentage == 50
        steps.set_state(conn, other, "F", "PASS")
    with told("http://127.0.0.1:9"):
        with pytest.raises(CouldNotRun, match="3 events are gone"):
            ingestion.switched_off(other, time.monotonic(), {"DONE": 3})
        rollback.roll_back(other, F)
    with other.connect() as conn:
        assert not any(row.enabled for row in flags.read(conn).values())
        assert conn.execute("select count(*) from phase2.drills").fetchone() == (0,)  # nothing was measured
