"""The drills of batch F: each passes on a healthy service and fails on a broken one; what they leave behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from bridge import clone, drills, ledger, postgres, runlog, steps, stop, warehouse, write_drill
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.drills import Check, Outcome, Service
from bridge.errors import CouldNotRun, GateFailed, Stopped
from bridge.settings import ROOT, Databases, settings
from tests import serving

FEW = 40  # events of a burst
DRILLS: dict[str, Callable[[Service], Outcome]] = drills.DRILLS | {"burst": lambda one: drills.burst(one, events=FEW)}
OURS = "alter database {} connection limit 7062"  # the mark of a database that was made to be dropped

KNOWN = """
insert into public.channel_external_refs (
    external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
    source_table, source_pk
)
values (gen_random_uuid(), 'BOOKING', gen_random_uuid(), 'GYG', 'BSTADMIN_BOOKING_ID', '1', 'bstadmin', 'bookings', '1')
"""  # the bridge has bookings of bstadmin, what stands in for it has none


@pytest.fixture(scope="module")
def ops() -> Iterator[str]:
    """What batches A and B make, in a database that counts as a copy."""
    server = os.environ["TEST_PG_URL"]
    with serving.ready(server) as url:
        with postgres.connect(server, autocommit=True) as admin:
            admin.execute(postgres.statement(OURS, postgres.database_name(url)))
        warehouse.build(url, "ops_read")
        with postgres.connect(url, autocommit=True) as conn:
            conn.execute(KNOWN)
        yield url


@pytest.fixture(scope="module")
def service(ops: str) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drills, "_SETTLED", 0.4)
        patch.setattr(write_drill, "_SETTLED", 0.4)
        patch.setattr(drills, "LEAST_PEAK", 20)  # whatever else this machine does meanwhile
        patch.setenv("INGEST_SWEEP_SECONDS", "0.3")
        patch.setenv("INGEST_RECOVER_SECONDS", "0.5")
        core_settings.cache_clear()
        with write_drill.stand_in(ops) as bstadmin, drills.served(ops, bstadmin_url=bstadmin, writes=True) as one:
            yield one
    core_settings.cache_clear()


def failed(outcome: Outcome) -> set[str]:
    return {check.name for check in outcome.checks if not check.passed}


# --- healthy -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRILLS)
def test_a_healthy_service_passes(service: Service, name: str) -> None:
    outcome = DRILLS[name](service)
    assert failed(outcome) == set()
    assert outcome.passed
    assert outcome.measured


# --- broken --------------------------------------------------------------------------------------------------------

INDEX = (
    "create unique index ux_ingest_event_secondary_dedup"
    " on public.ingest_event_log (source_enum, external_booking_ref, event_type, event_time_normalized)"
)
ONE_OF_EACH = """
delete from public.ingest_event_log as e using public.ingest_event_log as f
where
    (e.source_enum, e.external_booking_ref, e.event_type, e.event_time_normalized)
    = (f.source_enum, f.external_booking_ref, f.event_type, f.event_time_normalized)
    and e.event_key > f.event_key
"""
TRIGGER = """
create function public.fault() returns trigger language plpgsql as $$ begin {} end $$;
create trigger fault {} for each row execute function public.fault()
"""
MENDED = "drop function if exists public.fault() cascade"


@contextmanager
def planted(service: Service, body: str, when: str) -> Iterator[None]:
    """A trigger of ours while this lasts."""
    with service.connect() as conn:
        conn.execute(TRIGGER.format(body, when).encode())
        try:
            yield
        finally:
            conn.execute(MENDED)


@contextmanager
def replaced(service: Service, function: str, old: str, new: str) -> Iterator[None]:
    """A function with other words in it."""
    with service.connect() as conn:
        (text,) = conn.execute("select pg_get_functiondef(%s::regproc)", (function,)).fetchone() or ("",)
        assert old in text
        conn.execute(text.replace(old, new).encode())
        try:
            yield
        finally:
            conn.execute(text.encode())


@contextmanager
def limited(service: Service, gate: str, limit: float) -> Iterator[None]:
    """Another limit in the registry of the copy."""
    change = "update dbt_seeds.gate_registry as g set threshold = %s where g.gate_id = %s returning (%s)"
    with service.connect() as conn:
        before = conn.execute("select threshold from dbt_seeds.gate_registry where gate_id = %s", (gate,)).fetchone()
        assert before
        conn.execute(change, (limit, gate, 1))
        try:
            yield
        finally:
            conn.execute(change, (before[0], gate, 1))


def test_duplicate_sees_a_second_row(service: Service) -> None:
    with service.connect() as conn:
        conn.execute("drop index public.ux_ingest_event_secondary_dedup")
        try:
            outcome = drills.duplicate(service)
        finally:
            drills.until(lambda: not service.one(PENDING), 10)
            conn.execute(ONE_OF_EACH)
            conn.execute(INDEX)
    assert {
        "same event under another key: the first answer",
        "same event under other keys in parallel: one event",
        "one row in the log for each event",
    } <= failed(outcome)
    assert outcome.measured["second_rows"] > 0


PENDING = "select count(*) from public.ingest_event_log as e where phase2.is_pending(e.process_status, e.next_retry_at)"


def test_duplicate_sees_another_answer(service: Service) -> None:
    falsified = 'new.answer := new.answer || \'{"processStatus": "DONE"}\'; return new;'
    with planted(service, falsified, "before insert on phase2.ingest_keys"):
        outcome = drills.duplicate(service)
    assert "same key again: the first answer" in failed(outcome)


def test_out_of_order_sees_that_an_older_event_wins(service: Service) -> None:
    with replaced(service, "phase2.apply_event", "event_at > coalesce(times.booking_at, base_at)", "true"):
        outcome = drills.out_of_order(service)
    assert {f"{name}: as in their order" for name in drills._DISORDERS} <= failed(outcome)
    assert {f"{name}: the latest event stands" for name in drills._DISORDERS} <= failed(outcome)


def test_burst_sees_that_applying_is_slow(service: Service) -> None:
    with (
        limited(service, "F-02", 0.5),
        planted(service, "perform pg_sleep(0.05); return new;", "before insert on public.booking_core"),
    ):
        outcome = DRILLS["burst"](service)
    assert failed(outcome) == {"accepted to done, median (F-02)"}
    assert outcome.measured["median_seconds"] > 0.5


def test_burst_sees_that_it_was_none(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drills, "LEAST_PEAK", 10**6)
    outcome = DRILLS["burst"](service)
    assert failed(outcome) == {"sent at 10 times the peak or faster"}


def test_burst_sees_events_that_fail(service: Service) -> None:
    every_fourth = (
        "if ascii(right(new.external_booking_ref, 1)) % 4 = 0 then"
        " raise exception 'VALIDATION_ERROR: planted' using errcode = 'P2001'; end if; return new;"
    )
    with planted(service, every_fourth, "before insert on public.booking_core"):
        outcome = DRILLS["burst"](service)
    assert failed(outcome) == {"success rate (F-01)"}
    assert outcome.measured["done"] < outcome.measured["accepted"] == FEW


def test_replay_sees_that_an_audit_row_is_missing(service: Service) -> None:
    lost = (
        "new.entry := replace(new.entry, 'INGEST_REPLAY_REQUESTED', 'NOTHING');"
        " new.digest := encode(sha256(convert_to(new.entry, 'UTF8')), 'hex'); return new;"
    )
    with planted(service, lost, "before insert on phase2.ledger"):
        outcome = drills.replay(service)
    assert failed(outcome) == {"audited: INGEST_REPLAY_REQUESTED"}


def test_replay_sees_an_event_that_fails_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    mend = drills._MEND
    monkeypatch.setattr(drills, "_MEND", "select 1")
    outcome = drills.replay(service)
    with service.connect() as conn:
        conn.execute(mend)
    assert {"it is DONE", "its dead letter has SUCCEEDED"} <= failed(outcome)


def test_rollback_sees_what_is_lost(service: Service) -> None:
    lost = (
        "delete from public.ingest_dead_letter;"
        " delete from public.ingest_event_log where event_key = (select max(event_key::text)::uuid"
        " from public.ingest_event_log); return new;"
    )
    with planted(service, lost, "before update on phase2.flags"):
        outcome = drills.rollback(service)
    assert {
        "everything accepted before is in the log",
        "on again, everything is applied",
        "what had failed is kept, to be replayed",
    } <= failed(outcome)


def test_rollback_sees_that_it_takes_too_long(service: Service) -> None:
    with limited(service, "G-04", 0.2):
        outcome = drills.rollback(service)
    assert "the old path serves in time (G-04)" in failed(outcome)


def test_rollback_of_writes_sees_what_bstadmin_never_got(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_drill, "_PATIENCE", 1.0)
    with planted(
        replace(service, ops=service.bstadmin or ""),
        "if new.note = 'drill 2' then raise exception 'planted'; end if; return new;",
        "before update on public.bookings",
    ):
        outcome = drills.write_rollback(service)
    assert {
        "nothing is left open",
        "each write is in bstadmin, once",
        "bstadmin has the last word of each booking",
    } <= failed(outcome)
    assert outcome.measured["left"]


@pytest.mark.parametrize("name", DRILLS)
def test_a_stop_is_heard_inside_a_drill(service: Service, name: str) -> None:
    def ask() -> None:
        raise Stopped("F", "look", "")

    with pytest.raises(Stopped):
        DRILLS[name](replace(service, ask=ask))


def test_nothing_checked_is_no_pass() -> None:
    assert not Outcome().passed


# --- what it leaves behind -----------------------------------------------------------------------------------------


@pytest.fixture
def run(ops: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[steps.Run]:
    """A run on that database as if it were the ops database; reports below `tmp_path`."""
    server = os.environ["TEST_PG_URL"]
    sources = {role: postgres.with_database(server, f"none_{role}") for role in ("balisnap", "bstadmin")}
    monkeypatch.setenv("OPS_DB_URL", ops)
    for role, url in sources.items():
        monkeypatch.setenv(f"{role.upper()}_DB_URL", url)
    monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("PHASE2_HOME", str(tmp_path))
    settings.cache_clear()
    told: list[str] = []
    yield steps.Run(
        run_id=runlog.uuid7(),
        databases=Databases(ops=ops, channel=None, **sources),
        as_of=date(2026, 11, 23),
        progress=told.append,
    )
    monkeypatch.undo()
    settings.cache_clear()


def copies(ops: str) -> list[str]:
    with postgres.connect(ops) as conn:
        rows = conn.execute(
            "select datname from pg_catalog.pg_database where starts_with(datname, %s)",
            (postgres.database_name(ops) + "__",),
        ).fetchall()
    return [name for (name,) in rows]


def kept(ops: str) -> tuple[Any, ...]:
    with postgres.connect(ops) as conn:
        return conn.execute("select count(*) from public.ingest_event_log").fetchone() or ()


def test_the_command_leaves_evidence_that_verifies_and_nothing_else(
    run: steps.Run, ops: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = kept(ops)
    monkeypatch.setenv("PHASE2_ENV", "production")  # with secrets of its own, and the flags of the copy
    monkeypatch.setenv("PHASE2_KILL", "all")
    settings.cache_clear()
    with steps.only_runner(run):  # a batch is at work meanwhile: neither waits for the other
        done = CliRunner().invoke(app, ["drill", "out-of-order", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert kept(ops) == before
    assert copies(ops) == []
    with postgres.connect(ops, autocommit=True) as conn:
        entry = ledger.latest(conn, "drill", subject="out_of_order")
        assert entry
        row = conn.execute(
            "select drill, passed, (measured ->> 'pairs_alike')::integer, run_id, ended_at > started_at"
            " from phase2.drills where drill_id = %s",
            (entry.body["row"]["drill_id"],),
        ).fetchone()
        assert row == ("out_of_order", True, len(drills._DISORDERS), entry.run_id, True)
        assert ledger.verify(conn) == []
        with conn.transaction(force_rollback=True):
            conn.execute("update phase2.drills set passed = false")
            assert [problem.what for problem in ledger.verify(conn)] == [f"is not what entry {entry.no} says"]
        reports = settings().phase2_reports
        files = [reports / name for name in entry.body["files"]]
        assert sorted(file.suffix for file in files) == [".html", ".json", ".md"]
        for file in files:
            text = file.read_text()
            assert "out_of_order" in text
            assert "the latest event stands" in text
            assert [word for word in ("example.com", "Drill Example", "Ubud") if word in text] == []
        files[0].write_text("changed")
        assert [problem.where for problem in ledger.verify(conn)] == [next(iter(entry.body["files"]))]


def test_a_drill_that_fails_or_breaks_is_evidence(run: steps.Run, ops: str) -> None:
    def breaks(_: Service) -> Outcome:
        raise psycopg.OperationalError("the server is gone")

    with drills.ground(run) as there:
        with steps.only_runner(run):  # a batch may begin while drills are under way
            pass
        with pytest.raises(CouldNotRun, match="another drill is under way"), clone.to_drill_on(run):
            pass
        assert len(copies(ops)) == 2, "of the ops database, and what stands in for bstadmin"
        written = drills.drill(there, "write_rollback")
        entries = [
            drills.drill(there, "burst", lambda _: Outcome([Check("planted", False, "no"), Check("held", True, "")])),
            drills.drill(there, "replay", breaks),
        ]
        stop_entry(ops, "stop", "look")
        with pytest.raises(Stopped):
            drills.drill(there, "duplicate")
        stop_entry(ops, "resume", "looked")
    assert copies(ops) == []
    assert [drills.failures(entry) for entry in entries] == [
        ["drill burst: planted: no"],
        ["drill replay: it comes to its end: the server is gone"],
    ]
    with pytest.raises(GateFailed, match="planted"):
        drills.raise_unless_passed(entries)
    with postgres.connect(ops) as conn:
        rows = conn.execute("select drill, passed from phase2.drills where run_id = %s", (run.run_id,)).fetchall()
    assert sorted(rows) == [("burst", False), ("replay", False), ("rollback", True)]
    assert written.body["title"] == drills.TITLES["write_rollback"]  # by which it is shown
    assert (written.batch, written.subject, written.body["row"]["measured"]["batch"]) == ("H", "rollback", "H")


def stop_entry(ops: str, kind: str, reason: str) -> None:
    with postgres.connect(ops, autocommit=True) as conn:
        if kind == "stop":
            stop.ask(conn, reason)
        else:
            stop.lift(conn, reason)


def test_a_stop_holds_drills_before_anything_is_copied(run: steps.Run, ops: str) -> None:
    stop_entry(ops, "stop", "look")
    try:
        with pytest.raises(Stopped, match="look"):
            drills.perform(run, ["duplicate"])
    finally:
        stop_entry(ops, "resume", "looked")


def test_what_a_killed_drill_left_is_removed_and_a_strangers_database_is_not(run: steps.Run, ops: str) -> None:
    left = clone.name_of(postgres.database_name(ops), "__drill_0badcafe")
    with postgres.connect(ops, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {}", left))
        with pytest.raises(CouldNotRun, match="not made to be dropped"), clone.to_drill_on(run):
            pass
        conn.execute(postgres.statement(OURS, left))
        with clone.to_drill_on(run):
            assert left not in copies(ops)
    assert copies(ops) == []


def test_a_service_is_refused_on_a_database_that_is_no_copy() -> None:
    with (
        serving.empty(os.environ["TEST_PG_URL"]) as url,
        pytest.raises(CouldNotRun, match="not made to be dropped"),
        drills.served(url),
    ):
        pass


KILLED = """
import time
from bridge import drills
with drills.served({ops!r}) as one:
    print(one.settings.url, flush=True)
    time.sleep(60)
"""


def test_a_service_ends_with_the_process_that_started_it(ops: str, tmp_path: Path) -> None:
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", KILLED.format(ops=ops)], env=environment, stdout=subprocess.PIPE)
    assert child.stdout
    url = child.stdout.readline().decode().strip()
    assert httpx.get(f"{url}/health").status_code == 200
    (home,) = tmp_path.iterdir()
    valkey = int((home / "valkey" / "port").read_text())
    child.send_signal(signal.SIGKILL)
    child.wait()
    deadline = time.monotonic() + 30
    while home.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", valkey)) != 0
