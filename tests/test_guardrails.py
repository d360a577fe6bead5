"""Guardrails: each planted breach stops the migration at the next look, and a month of normal traffic never does."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from bridge import flags, guardrails, ledger, postgres, signature, stop, warehouse
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun, GateFailed, Stopped
from bridge.settings import SQL, Databases, settings
from flows import guardrails as flow
from tests import serving

SECRET = "a secret of the alerts, long enough"
VIEWS = ("recon_duplicate_bookings", "recon_second_rows", "recon_payment_linkage", "recon_booking_links",
         "recon_fresher_bookings", "recon_source_bookings")  # fmt: skip


@pytest.fixture(scope="module")
def dbs() -> Iterator[Databases]:
    """Empty databases with all that a guardrail reads."""
    server, name = os.environ["TEST_PG_URL"], f"balisnap_{uuid4().hex[:12]}"
    balisnap = postgres.with_database(server, name)
    with serving.environment(), serving.ready(server) as ops, serving.back_office(server) as bstadmin:
        with postgres.connect(server, autocommit=True) as conn:
            conn.execute(postgres.statement("create database {}", name))
        with postgres.connect(balisnap, autocommit=True) as conn:
            conn.execute("set search_path = public")
            conn.execute((SQL / "sources" / "balisnap.sql").read_bytes())
            conn.execute("insert into \"User\" (id, email, \"updatedAt\") values ('u', 'u@mail.test', now())")
        nodes = warehouse.invoke(ops, ["run", "--select", *VIEWS])
        assert [node.message for node in nodes if node.status != "success"] == []
        yield Databases(ops, balisnap, bstadmin, None)
        with postgres.connect(server, autocommit=True) as conn:
            conn.execute(postgres.statement("drop database {} with (force)", name))


class Receiver(HTTPServer):
    """Who gets the alerts; `status` is what it answers."""

    status = 204

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/hooks/phase2?token=hidden"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        lines = [self.headers[f"x-{name}"] for name in ("timestamp", "nonce", "idempotency-key")]
        signed = ("POST", "/hooks/phase2", *lines, signature.digest(body))
        assert signature.matches(self.headers["x-signature"], [SECRET], *signed)
        if self.server.status < 300:
            self.server.got.append(json.loads(body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def ops(
    dbs: Databases, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[psycopg.Connection]:
    """The ops database with the flags of F, G and H on, F, G and H in, healthy traffic; all of it gone afterwards."""
    for role in ("ops", "balisnap", "bstadmin"):
        monkeypatch.setenv(f"{role.upper()}_DB_URL", getattr(dbs, role))
    monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path / "reports"))
    monkeypatch.setenv("PHASE2_STOP_FILE", str(tmp_path / "stop"))
    monkeypatch.setenv("PHASE2_ALERT_URL", receiver.url)
    monkeypatch.setenv("PHASE2_ALERT_SECRET", SECRET)
    monkeypatch.setenv("CORE_API_URL", "http://127.0.0.1:9")  # nobody: what is off cannot be measured there
    settings.cache_clear()
    core_settings.cache_clear()
    with postgres.connect(dbs.ops, autocommit=True) as conn:
        before = ledger.head(conn)[0]
        since = guardrails._since  # of what other tests have lifted nothing is known
        monkeypatch.setattr(
            guardrails,
            "_since",
            lambda c: since(c) if ledger.entries(c, "resume", after=before) else guardrails._LONG_AGO,
        )
        for flag in flags.FLAGS:
            flags.change(conn, flag, True, reason="a test")
        conn.execute("insert into phase2.batch_state (batch, status) values ('F', 'PASS') on conflict (batch) do update"
                     " set status = 'PASS'")  # fmt: skip
        answered(conn, requests=1000)
        yield conn
        conn.execute("delete from phase2.guardrail_log")
        conn.execute("delete from phase2.api_minutes")
        conn.execute("truncate public.ingest_event_log, public.ingest_dead_letter, public.booking_core cascade")
        conn.execute("truncate phase2.ingest_keys, phase2.ingest_nonces")
        if stop.standing(conn):
            stop.lift(conn, "the test is over")
    with postgres.connect(dbs.balisnap, autocommit=True) as conn:
        conn.execute('truncate public."Booking" cascade')
    settings.cache_clear()
    core_settings.cache_clear()


# --- what happens in the databases ---------------------------------------------------------------------------------


def answered(conn: psycopg.Connection, requests: int = 1000, errors: int = 0, part: str = "reads") -> None:
    conn.execute(
        "insert into phase2.api_minutes select now(), gen_random_uuid(), %s, %s, %s",
        (part, requests, errors),
    )


def booked(dbs: Databases, paid: float, per_hour: int, hours: tuple[int, int]) -> None:
    """Bookings of the public web, some hours ago: so many an hour, of which this share was paid."""
    with postgres.connect(dbs.balisnap, autocommit=True) as conn:
        conn.execute(
            'insert into public."Booking" (user_id, booking_date, total_price, number_of_adult, status, created_at,'
            " updated_at) select 'u', now(), 1, 1, case when n <= %(paid)s then 'paid' else 'pending' end,"
            " now() - h * interval '1 hour' + n * interval '1 second', now()"
            " from generate_series(%(from)s::integer, %(to)s) as h cross join generate_series(1, %(n)s) as n",
            {"paid": paid * per_hour, "n": per_hour, "from": hours[0], "to": hours[1]},
        )


def core(conn: psycopg.Connection, count: int, *, paid: bool = False, ref: str = "X", days: int = 0) -> None:
    """Bookings of the bridge, written now, or evenly in the last days; `paid` contradicts their flag."""
    conn.execute(
        "with made as (insert into public.booking_core (booking_key, channel_code, external_booking_ref,"
        " booking_created_at, tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type, updated_at)"
        " select gen_random_uuid(), 'GYG', %s || n, now(), current_date, %s, 'NEW', 'LEGACY_PACKAGE',"
        " now() - %s * interval '1 day' * (n - 0.5) / %s from generate_series(1, %s) as n returning booking_key)"
        " insert into public.ops_booking_state (booking_key, ops_fulfillment_status, is_paid_flag, updated_from_source)"
        " select booking_key, 'NEW', false, 'test' from made",
        (ref, "PAID" if paid else "PENDING_PAYMENT", days, count, count),
    )


def event(conn: psycopg.Connection, **more: Any) -> None:
    values = {"event_key": str(uuid4()), "idempotency_key": uuid4().hex, "external_booking_ref": "R1"} | more
    conn.execute(
        "insert into public.ingest_event_log"
        " select r.* from jsonb_populate_record(null::public.ingest_event_log, %s) as r",
        (Jsonb({"nonce": uuid4().hex, "source_enum": "GYG", "channel_code": "GYG", "event_type": "CREATED",
                "event_time": "2026-11-22T08:00:00Z", "event_time_normalized": "2026-11-22T08:00:00Z",
                "payload_hash": "", "signature_verified": True, "process_status": "DONE", "raw_payload": {},
                "request_received_at": "2026-11-22T08:00:00Z", "attempt_count": 1, "created_at": "2026-11-22T08:00:00Z",
                "updated_at": "2026-11-22T08:00:00Z", "payload_version": "v1"} | values),),
    )  # fmt: skip


def dead(conn: psycopg.Connection, count: int, minutes: int = 20, status: str = "OPEN", left: int = 0) -> None:
    conn.execute("set session_replication_role = replica")  # of their events nothing is asked
    conn.execute(
        "insert into public.ingest_dead_letter (dead_letter_key, event_key, reason_code, status, first_failed_at,"
        " last_failed_at, raw_payload, updated_at) select gen_random_uuid(), gen_random_uuid(), 'VALIDATION_ERROR', %s,"
        " now() - %s * interval '1 minute', now(), '{}', now() - %s * interval '1 minute' from generate_series(1, %s)",
        (status, minutes, left, count),
    )
    conn.execute("reset session_replication_role")


def a_month(conn: psycopg.Connection, dbs: Databases) -> None:
    """What a healthy month leaves behind: events that came twice and under other keys, retries and dead letters, the
    same ref in three channels, bookings that change, and a payment that contradicts one now and then."""
    conn.execute("select setseed(0.42)")
    outcomes = conn.execute(
        """
        with told as materialized (
            select
                n, (array['GYG', 'VIATOR', 'DIRECT'])[1 + n % 3] as source, 'M' || n / 6 as ref,
                (array['CREATED', 'UPDATED'])[1 + (n / 3) % 2] as type, now() - n * interval '36 minutes' as at
            from generate_series(1, 1200) as n
        ),
        delivered as materialized (
            select *, n || case when n % 20 = 0 then 'k' else 'K' || again end as key
            from told cross join lateral generate_series(1, 1 + (n % 10 = 0)::integer) as again
            order by n, again
        )
        select distinct (phase2.accept_event(
            md5('e' || key)::uuid, key, n || '-' || again, 'h' || n, source, ref, type, at, '{}', true
        )).outcome from delivered
        """
    ).fetchall()
    assert {outcome for (outcome,) in outcomes} == {"ACCEPTED", "KNOWN"}
    conn.execute(
        """
        update public.ingest_event_log as e
        set
            created_at = e.event_time, attempt_count = 1,
            process_status = case when r.x > 0.04 then 'DONE' when r.x > 0.01 then 'FAILED' else 'RECEIVED' end,
            next_retry_at = case when r.x > 0.02 and r.x <= 0.04 then now() + interval '10 minutes' end
        from (select event_key, random() as x from public.ingest_event_log offset 0) as r
        where e.event_key = r.event_key;
        insert into public.ingest_dead_letter (dead_letter_key, event_key, reason_code, status, first_failed_at,
            last_failed_at, raw_payload, updated_at)
        select e.event_key, e.event_key, 'VALIDATION_ERROR', 'CLOSED', e.event_time, e.event_time, '{}',
            e.event_time + interval '1 hour'
        from public.ingest_event_log as e where e.process_status = 'FAILED' and e.next_retry_at is null
        """
    )
    core(conn, 4500, days=30)
    core(conn, 10, paid=True, ref="C", days=30)
    booked(dbs, paid=0.75, per_hour=4, hours=(1, 264))


def fewer_paid(conn: psycopg.Connection, dbs: Databases) -> None:
    booked(dbs, paid=0.9, per_hour=10, hours=(25, 190))
    booked(dbs, paid=0.5, per_hour=10, hours=(1, 6))


def duplicate(conn: psycopg.Connection, dbs: Databases) -> None:
    core(conn, 1, ref="DUP")
    core(conn, 1, ref="dup")  # what normalising should have made one


def second_row(conn: psycopg.Connection, dbs: Databases) -> None:
    conn.execute("drop index if exists public.ux_ingest_event_secondary_dedup")
    event(conn)
    event(conn)


PLANTED: dict[str, tuple[str, Callable[[psycopg.Connection, Databases], None]]] = {
    "public-booking-success": ("H", fewer_paid),
    "api-5xx": ("G", lambda conn, dbs: answered(conn, 1000, 40)),
    "duplicate-bookings": ("F", duplicate),
    "dead-letter-growth": ("F", lambda conn, dbs: [dead(conn, 1, 900, "CLOSED", left=40), dead(conn, 102)]),
    "payment-mismatch": ("F", lambda conn, dbs: [core(conn, 198, ref="N"), core(conn, 2, paid=True, ref="P")]),
    "lost-events": ("F", lambda conn, dbs: event(conn, process_status="FAILED", event_type="CANCELLED")),
    "idempotency": ("F", second_row),
}


# --- a breach ------------------------------------------------------------------------------------------------------


def test_every_guardrail_has_a_planted_breach() -> None:
    assert PLANTED.keys() == guardrails.guardrails().keys() == guardrails._MEASURES.keys()


@pytest.mark.parametrize("name", PLANTED)
def test_a_breach_stops_the_migration_at_the_next_look(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    batch, plant = PLANTED[name]
    a_month(ops, dbs)
    quiet = guardrails.watch(dbs)
    assert (quiet.stops, quiet.blind) == ((), ()), quiet.readings
    assert {one.status for one in quiet.readings} == {"OK"}, quiet.readings
    plant(ops, dbs)
    seen = guardrails.watch(dbs)
    assert seen.stopped == (name,), seen.readings

    [one] = stop.standing(ops)  # the whole migration, for everybody who asks, whatever was restarted
    assert (one.subject, one.batch, one.by) == (name, batch, "guardrails")
    with pytest.raises(Stopped, match=guardrails.guardrails()[name].title):
        stop.raise_if_asked(dbs.ops, "C")
    rows = flags.read(ops)
    off = {flag for flag in flags.FLAGS if not flags.in_force(flag, rows).enabled}
    assert off >= set(guardrails.FLAGS[batch])
    assert (state(ops, "F") == "ROLLED_BACK") is (batch == "F")
    [alert] = receiver.got
    assert (alert["event"], alert["subject"], alert["batch"]) == ("phase2.guardrail.stop", name, batch)
    assert alert["check"]
    page = seen.page.read_text()
    assert guardrails.guardrails()[name].title in page
    assert "<polyline" in page

    assert guardrails.watch(dbs).done == ()  # nothing is stopped, switched or told twice
    assert len(receiver.got) == 1
    with pytest.raises(CouldNotRun, match="reason"):
        stop.lift(ops, " ")
    assert [lifted.subject for lifted in stop.lift(ops, "mended, and looked at by two")] == [name]
    said = ledger.latest(ops, "resume")
    assert said is not None
    assert said.body["reason"] == "mended, and looked at by two"


def state(conn: psycopg.Connection, code: str) -> str | None:
    row = conn.execute("select status from phase2.batch_state where batch = %s", (code,)).fetchone()
    return row[0] if row else None


@pytest.mark.parametrize(
    ("part", "batch", "gone"),
    [
        ("reads", "G", {"H", "G"}),
        pytest.param("writes", "H", {"H"}, marks=pytest.mark.long),
    ],
)
def test_a_breach_of_reads_or_writes_leads_back_to_the_old_path_and_holds_after_a_restart(
    ops: psycopg.Connection,
    dbs: Databases,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    batch: str,
    gone: set[str],
) -> None:
    """With a service up: within one look the flags are off, bstadmin answers, and what stands on the batch goes first.
    A service that starts anew knows of the stop, and opens nothing."""
    admin = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "STAFF", "x-actor": "ayu"}

    def served(url: str) -> str | None:
        return httpx.get(f"{url}/v1/ops/bookings", headers=admin, trust_env=False).headers.get("x-served-by")

    def started() -> Any:
        return serving.service(dbs.ops, bstadmin_url=dbs.bstadmin, bstadmin_write_url=dbs.bstadmin)

    for code in "GH":
        ops.execute("insert into phase2.batch_state (batch, status) values (%s, 'PASS') on conflict (batch) do update"
                    " set status = 'PASS'", (code,))  # fmt: skip
    with started() as url:
        monkeypatch.setenv("CORE_API_URL", url)
        core_settings.cache_clear()
        assert served(url) != "legacy"  # of the new path, or in its place
        answered(ops, 1000, 40, part=part)
        seen = guardrails.watch(dbs)
        assert (seen.stopped, [one.batch for one in seen.stops]) == (("api-5xx",), [batch]), seen.readings
        assert {code for code in "FGH" if state(ops, code) == "ROLLED_BACK"} == gone, seen.done
        assert [line for line in seen.done if "rolled back" in line] == [
            f"batch {code} is rolled back" for code in sorted(gone, reverse=True)
        ]
        rows = flags.read(ops)
        assert not any(flags.in_force(flag, rows).enabled for code in gone for flag in guardrails.FLAGS[code])
        assert (served(url) == "legacy") is ("G" in gone)
    assert [(one["event"], one["batch"]) for one in receiver.got] == [("phase2.guardrail.stop", batch)]
    with started() as url:
        assert "phase2_stops 1.0" in httpx.get(f"{url}/metrics", trust_env=False).text
        with pytest.raises(CouldNotRun, match="API 5xx on the core path"):
            flags.change(ops, guardrails.FLAGS[batch][0], True, reason="it is a new process")
        assert (served(url) == "legacy") is ("G" in gone)
    assert guardrails.watch(dbs).done == ()
    ops.execute("delete from phase2.batch_state where batch in ('G', 'H')")


def test_what_was_before_a_person_lifted_it_is_not_held_against_us_again(
    ops: psycopg.Connection, dbs: Databases
) -> None:
    fewer_paid(ops, dbs)
    answered(ops, 1000, 40)
    dead(ops, 101)
    core(ops, 198)
    core(ops, 2, paid=True, ref="P")
    assert {*guardrails.watch(dbs).stopped} >= {"public-booking-success", "api-5xx", "dead-letter-growth"}
    ops.execute("update phase2.api_minutes set minute = minute - interval '2 minutes'")
    stop.lift(ops, "mended")
    for flag in flags.FLAGS:
        flags.change(ops, flag, True, reason="again")
    answered(ops)
    assert guardrails.watch(dbs).stops == ()
    duplicate(ops, dbs)
    event(ops, process_status="FAILED")
    assert guardrails.watch(dbs).stopped == ("duplicate-bookings", "lost-events")
    stop.lift(ops, "these are known, and will be mended")
    for flag in flags.FLAGS:
        flags.change(ops, flag, True, reason="again")
    assert guardrails.watch(dbs).stops == ()
    event(ops, process_status="FAILED", external_booking_ref="R2")  # another one
    [seen] = guardrails.watch(dbs).stops
    assert "event: 1 events are lost" in seen.reason


def test_only_what_a_stop_has_named_is_known_and_that_for_good(ops: psycopg.Connection, dbs: Databases) -> None:
    """Not what was measured without a stop before something else was lifted, nor what came while the stop stood."""

    def lifted() -> guardrails.Watch:
        stop.lift(ops, "mended")
        for flag in flags.FLAGS:
            flags.change(ops, flag, True, reason="again")
        return guardrails.watch(dbs)

    stop.ask(ops, "a hold of somebody's")
    duplicate(ops, dbs)
    guardrails.measure(dbs)  # as a run's step does
    assert lifted().stopped == ("duplicate-bookings",)
    core(ops, 1, ref="TWO")
    core(ops, 1, ref="two")
    flags_on = guardrails.watch(dbs)
    assert (flags_on.active, flags_on.stopped) == (("G", "H"), ())
    again = lifted()
    assert again.stopped == ("duplicate-bookings",)
    assert "1 bookings are there twice" in again.stops[0].reason
    ops.execute("update phase2.guardrail_log set at = at - interval '91 days'")
    assert lifted().stops == ()
    assert guardrails.watch(dbs).stops == ()
    old = ops.execute(
        "select distinct status, detail ? 'keys' from phase2.guardrail_log where at < now() - '1 day'::interval"
    )
    assert old.fetchall() == [("BREACH", True)]


def test_a_flag_that_is_switched_on_under_a_stop_goes_off_again(ops: psycopg.Connection, dbs: Databases) -> None:
    """Also after a kill between the stop and what follows it: every look finishes what it finds."""
    stop.ask(ops, "5xx", subject="api-5xx", batch="G", actor="guardrails")
    assert "OPS_READ_NEW_MODEL_ENABLED is off" in guardrails.watch(dbs).done
    with pytest.raises(CouldNotRun, match="5xx"):
        flags.change(ops, "OPS_READ_NEW_MODEL_ENABLED", True, reason="impatient")
    ops.execute("update phase2.flags set enabled = true where flag = 'OPS_READ_NEW_MODEL_ENABLED'")  # past all of us
    assert guardrails.watch(dbs).done == ("OPS_READ_NEW_MODEL_ENABLED is off",)


def test_a_flag_that_is_opened_while_a_stop_is_written_stays_off(
    ops: psycopg.Connection, dbs: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stop is written after the change was asked for, and before it ends."""
    flags.change(ops, "OPS_READ_NEW_MODEL_ENABLED", False, reason="a test")
    read = flags.read

    def slow(conn: psycopg.Connection) -> dict[str, flags.Row]:
        monkeypatch.setattr(flags, "read", read)
        stop.ask(ops, "5xx", subject="api-5xx", batch="G", actor="guardrails")
        return read(conn)

    monkeypatch.setattr(flags, "read", slow)
    with postgres.connect(dbs.ops, autocommit=True) as conn, pytest.raises(CouldNotRun, match="5xx"):
        flags.change(conn, "OPS_READ_NEW_MODEL_ENABLED", True, reason="at that moment")
    assert not flags.read(ops)["OPS_READ_NEW_MODEL_ENABLED"].enabled


def test_a_look_that_is_killed_is_finished_by_the_next(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the hold and the flags, the flags and the alert, the alert and the page, the page and the rollback."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    for number, point in enumerate(("_switch_off", "_tell", "write_page", "_roll_back"), 1):
        answered(ops, 1000, 40, part="ingest")
        with monkeypatch.context() as patch:
            patch.setattr(guardrails, point, killed)
            with pytest.raises(KeyboardInterrupt):
                guardrails.watch(dbs)
        assert len(stop.standing(ops)) == 1
        seen = guardrails.watch(dbs)
        assert (seen.page is not None) is (point != "_roll_back"), point  # that look had written it
        assert [flag for flag in guardrails.FLAGS["F"] if flags.in_force(flag, flags.read(ops)).enabled] == []
        assert len(receiver.got) == number
        assert state(ops, "F") == "ROLLED_BACK"
        ops.execute("delete from phase2.api_minutes")
        ops.execute("update phase2.batch_state set status = 'PASS' where batch = 'F'")
        stop.lift(ops, "again")
        for flag in flags.FLAGS:
            flags.change(ops, flag, True, reason="again")


def test_two_looks_at_once_make_one_stop(ops: psycopg.Connection, dbs: Databases, receiver: Receiver) -> None:
    dead(ops, 101)
    looks = [threading.Thread(target=guardrails.watch, args=(dbs,)) for _ in range(3)]
    for look in looks:
        look.start()
    for look in looks:
        look.join()
    assert len(stop.standing(ops)) == 1
    assert [one["event"] for one in receiver.got].count("phase2.guardrail.stop") == 1


def test_a_page_that_cannot_be_written_keeps_nobody_from_being_told(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver, tmp_path: Path
) -> None:
    (tmp_path / "reports").write_text("no folder")
    dead(ops, 101)
    seen = guardrails.watch(dbs)
    assert [one["event"] for one in receiver.got] == ["phase2.guardrail.stop"]
    assert any("the page cannot be written" in line for line in seen.done)
    assert state(ops, "F") == "ROLLED_BACK"


def test_a_rollback_that_is_refused_is_told_and_tried_again(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any) -> None:
        raise CouldNotRun("another run is under way")

    dead(ops, 101)
    with monkeypatch.context() as patch:
        patch.setattr(guardrails, "roll_back", refused)
        guardrails.watch(dbs)
        guardrails.watch(dbs)
    assert [one["event"] for one in receiver.got] == ["phase2.guardrail.stop", "phase2.guardrail.rollback"]
    assert state(ops, "F") == "PASS"
    assert "batch F is rolled back" in guardrails.watch(dbs).done
    assert state(ops, "F") == "ROLLED_BACK"


def test_whatever_goes_wrong_with_one_act_the_next_is_still_done(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("with a guest's name")

    stop.ask(ops, "lost", subject="lost-events", batch="F", actor="guardrails")
    dead(ops, 101)
    with monkeypatch.context() as patch:
        for point in ("_switch_off", "write_page", "roll_back"):
            patch.setattr(guardrails, point, broken)
        seen = guardrails.watch(dbs)
    assert [one["event"].split(".")[-1] for one in receiver.got] == ["stop", "stop", "rollback", "rollback"]
    assert [one.subject for one in seen.unannounced] == ["lost-events", "dead-letter-growth"]
    for failure in ("a flag cannot be switched off", "the page cannot be written"):
        assert any(line.startswith(f"{failure}: RuntimeError (test_guardrails.py:") for line in seen.done), seen.done
    assert "guest" not in str((seen.done, receiver.got))
    mended = guardrails.watch(dbs)
    assert mended.page is not None
    assert "batch F is rolled back" in mended.done
    assert guardrails.watch(dbs).done == ()

    stop.lift(ops, "mended")
    stop.ask(ops, "lost", subject="lost-events", batch="F", actor="guardrails")
    with monkeypatch.context() as patch:
        patch.setattr(guardrails.alerts, "tell", broken)
        assert guardrails.watch(dbs).page is not None


def test_an_alert_that_nobody_took_is_told_again_and_keeps_no_stop_from_happening(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver
) -> None:
    receiver.status = 500
    answered(ops, 1000, 40)
    assert guardrails.watch(dbs).stopped == ("api-5xx",)
    guardrails.watch(dbs)
    receiver.status = 204
    guardrails.watch(dbs)
    guardrails.watch(dbs)
    assert len(receiver.got) == 1
    about = receiver.got[0]["about"]
    tries = [e.body for e in ledger.entries(ops, "alert", subject="api-5xx") if e.body["about"] == about]
    assert [(one["delivered"], one["error"]) for one in tries] == [(False, "HTTP 500"), (True, None)]
    assert {one["to"] for one in tries} == {"127.0.0.1"}  # the URL may hold a token
    assert "hidden" not in json.dumps(tries)


# --- no breach -----------------------------------------------------------------------------------------------------


def test_without_a_flag_nothing_is_measured(ops: psycopg.Connection, dbs: Databases) -> None:
    for flag in flags.FLAGS:
        flags.change(ops, flag, False, reason="a test")
    answered(ops, 1000, 40)
    seen = guardrails.watch(dbs)
    assert (seen.active, seen.readings, seen.stops) == ((), (), ())
    assert phase2("guardrails").exit_code == 0


def test_too_little_is_said_and_stops_nothing(ops: psycopg.Connection, dbs: Databases) -> None:
    ops.execute("delete from phase2.api_minutes")
    answered(ops, 30, 1)
    booked(dbs, paid=0.9, per_hour=10, hours=(25, 190))
    booked(dbs, paid=0.75, per_hour=4, hours=(1, 2))
    core(ops, 98)
    core(ops, 1, paid=True, ref="P")
    dead(ops, 150, minutes=50)
    dead(ops, 30, minutes=900, status="RESOLVED")  # that left in the last quarter of an hour: it is falling
    found = {one.guardrail: one for one in guardrails.watch(dbs).readings}
    assert {name: one.status for name, one in found.items() if one.status != "OK"} == {
        "api-5xx": "TOO_LITTLE",
        "public-booking-success": "TOO_LITTLE",
        "payment-mismatch": "TOO_LITTLE",
    }
    assert found["api-5xx"].words == (
        "reads: 1 of 30 answers in 15 minutes were server errors; fewer than 5 may be one person's;"
        " ingest: no request in 15 minutes; writes: no request in 15 minutes"
    )
    assert "contradict 1 of 99 bookings that changed in a day; one alone" in found["payment-mismatch"].words


@pytest.mark.parametrize(("per_hour", "status"), [(4, "OK"), (20, "NOT_MEASURED")])
def test_an_hour_without_bookings_is_said_and_a_person_called_where_the_others_had_many(
    ops: psycopg.Connection, dbs: Databases, per_hour: int, status: str
) -> None:
    booked(dbs, paid=0.75, per_hour=per_hour, hours=(2, 264))
    [found] = [one for one in guardrails.watch(dbs).readings if one.guardrail == "public-booking-success"]
    assert found.status == status
    assert ("no booking in the last hour, where 4 are usual" in found.words) is (status == "OK")
    assert stop.standing(ops) == ()
    assert (guardrails.watch(dbs).blind == ("public-booking-success",)) is (status != "OK")


@pytest.mark.parametrize(
    ("hours", "status", "words"),
    [
        (5, "OK", "no booking in the last hour, where 5 are usual"),
        (25, "NOT_MEASURED", "no booking in the last day, where the seven days before had 120 or more"),
        (73, "NOT_MEASURED", "no booking in the last 3 days, where the seven days before had 360 or more"),
    ],
)
def test_a_small_shop_where_nobody_can_book_for_a_day_calls_a_person(
    ops: psycopg.Connection, dbs: Databases, hours: int, status: str, words: str
) -> None:
    """Five an hour: an hour without any says nothing, a day does, and so do three."""
    booked(dbs, paid=0.8, per_hour=5, hours=(hours, 264))
    rail, now = ROWS["public-booking-success"], datetime.now(UTC)
    found = guardrails._judged(rail, now, lambda: guardrails._bookings(ops, dbs, now, guardrails._LONG_AGO))
    assert found.status == status, found.words
    assert words in found.words


def test_payments_of_a_small_shop() -> None:
    """One contradiction of a few is said; two on a day of five are no chance."""
    rail = guardrails.guardrails()["payment-mismatch"]
    said = {
        (found, of): guardrails._status(rail, guardrails.payment_count(of, range(found)))
        for found, of in ((0, 5), (1, 5), (2, 5), (0, 100), (1, 150), (2, 200), (5, 1000), (6, 1000))
    }
    assert [of for of, status in said.items() if status == "BREACH"] == [(2, 5), (2, 200), (6, 1000)]
    assert [of for of, status in said.items() if status == "OK"] == [(0, 100), (5, 1000)]


def test_one_error_of_a_quiet_night_and_what_retention_took_stop_nothing(
    ops: psycopg.Connection, dbs: Databases
) -> None:
    event(ops, process_status="FAILED", created_at=str(datetime.now(UTC) - timedelta(days=31)))
    for requests, errors, said in (
        (1, 1, "TOO_LITTLE"),
        (4, 4, "TOO_LITTLE"),  # one person who tries again
        (5, 5, "BREACH"),  # whoever came at night got nothing
        (20, 2, "TOO_LITTLE"),
        (1000, 15, "OK"),
        (1000, 16, "BREACH"),
    ):
        ops.execute("delete from phase2.api_minutes")
        answered(ops, requests, errors)
        found = {one.guardrail: one.status for one in guardrails.watch(dbs).readings}
        assert (found["api-5xx"], found["lost-events"]) == (said, "OK")


def test_one_that_cannot_measure_is_an_alarm_when_it_lasts_and_stops_nothing(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver
) -> None:
    away = replace(dbs, balisnap=postgres.with_database(dbs.balisnap, "nowhere"))
    ops.execute("delete from phase2.api_minutes")
    first = guardrails.watch(away)
    assert {one.guardrail for one in first.readings if one.status == "NOT_MEASURED"} == {
        "public-booking-success",
        "api-5xx",
    }
    assert first.blind == ()
    assert set(guardrails.watch(away).blind) == {"public-booking-success", "api-5xx"}
    guardrails.watch(away)
    assert sorted(one["subject"] for one in receiver.got) == ["api-5xx", "public-booking-success"]  # once
    assert {one["event"] for one in receiver.got} == {"phase2.guardrail.blind"}
    assert stop.standing(ops) == ()
    assert phase2("guardrails").exit_code == 2  # the service is still unheard
    answered(ops)
    assert guardrails.watch(dbs).blind == ()


def test_without_the_ops_database_people_are_told(dbs: Databases, ops: psycopg.Connection, receiver: Receiver) -> None:
    away = replace(dbs, ops=postgres.with_database(dbs.ops, "nowhere"))
    for _ in range(2):  # what was told is kept there: said each time, for a receiver the same one
        with pytest.raises(CouldNotRun, match="no guardrail can be measured"):
            guardrails.watch(away)
    assert [(one["event"], one["subject"]) for one in receiver.got] == [("phase2.guardrail.blind", "ops-database")] * 2
    assert len({one["about"] for one in receiver.got}) == 1


def test_one_that_is_measured_now_and_then_is_one_alarm(
    ops: psycopg.Connection, dbs: Databases, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month of single failures says nothing; every second one is an alarm, once, until it has been well for a while;
    and whatever is wrong with one guardrail, another is measured."""

    def looks(pattern: str) -> int:
        for one in pattern:
            monkeypatch.setitem(guardrails._MEASURES, "api-5xx", _api if one == "." else lambda *_: {}["broken"])
            assert {r.status for r in guardrails.watch(dbs).readings if r.guardrail != "api-5xx"} != {"NOT_MEASURED"}
        return len([one for one in receiver.got if one["event"] == "phase2.guardrail.blind"])

    monkeypatch.setattr(guardrails, "_MEASURES", {name: guardrails._MEASURES[name] for name in FEW})
    assert looks("..x...x..x..") == 0
    assert looks("x.x.x.x") == 1
    assert looks("...x.x") == 2
    assert stop.standing(ops) == ()


def test_a_clock_that_ran_ahead_hides_no_breach(ops: psycopg.Connection, dbs: Databases) -> None:
    """What was measured then lies in the future for a day."""
    ops.execute(
        "insert into phase2.guardrail_log (guardrail, at, status, threshold, words)"
        " select 'api-5xx', now() + n * interval '1 hour', 'OK', 0.015, '' from generate_series(1, 24) as n"
    )
    answered(ops, 1000, 40)
    assert guardrails.watch(dbs).stopped == ("api-5xx",)


def test_so_many_of_so_many_measurements(
    ops: psycopg.Connection, dbs: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How often is a column of guardrails.csv: 2 of 3 forgives one measurement, and no second one."""
    patient = replace(guardrails.guardrails()["api-5xx"], stop=(2, 3))
    monkeypatch.setattr(guardrails, "guardrails", lambda: {**ROWS, "api-5xx": patient})
    answered(ops, 100, 40)
    assert guardrails.watch(dbs).stopped == ()
    ops.execute("delete from phase2.api_minutes")
    answered(ops)
    assert guardrails.watch(dbs).stopped == ()
    answered(ops, 100, 40)
    assert guardrails.watch(dbs).stopped == ("api-5xx",)


ROWS = guardrails.guardrails()
FEW = ("api-5xx", "dead-letter-growth")
_api = guardrails._MEASURES["api-5xx"]


def test_a_month_of_normal_traffic_stops_nothing_and_its_one_bad_hour_does(
    ops: psycopg.Connection, dbs: Databases
) -> None:
    """Every 5 minutes of a month for the API, every hour of it for what changes slowly; days and nights as they are."""
    end = datetime(2026, 10, 31, tzinfo=UTC)
    began = end - timedelta(days=30)
    ops.execute("select setseed(0.42)")
    ops.execute(
        "insert into phase2.api_minutes select m, gen_random_uuid(), p, r.requests,"
        " (select count(*) from generate_series(1, r.requests) where random() < 0.0005)"
        " from generate_series(%s::timestamptz, %s, interval '1 minute') as m"
        " cross join unnest(array['ingest', 'reads', 'writes']) as p cross join lateral"
        " (select floor(random() * random() * (20 - 16 * cos(extract(hour from m) / 12 * pi())))::integer)"
        " as r (requests)",
        (began, end),
    )
    ops.execute("analyze phase2.api_minutes")
    every5 = [began + n * timedelta(minutes=5) for n in range(3, 30 * 24 * 12)]
    hourly = every5[::12]

    def api(moments: list[datetime]) -> list[Any]:
        rows = ops.execute("select * from phase2.guardrail_api(%s, %s)", (moments, guardrails._LONG_AGO)).fetchall()
        return [
            (at, guardrails._status(ROWS["api-5xx"], guardrails.api_count(part, requests, errors)))
            for at, part, _, requests, errors in rows
        ]

    assert [at for at, status in api(every5) if status == "BREACH"] == []
    bad = began + timedelta(days=9, hours=12)
    ops.execute(
        "update phase2.api_minutes set server_errors = requests / 5"
        " where part = 'reads' and minute >= %s and minute < %s",
        (bad, bad + timedelta(hours=1)),
    )
    found = sorted(at for at, status in api(every5) if status == "BREACH")
    assert bad < found[0] <= bad + timedelta(minutes=10)

    rows = ops.execute(
        "select jsonb_agg(jsonb_build_object('at', h, 'v2', null, 'payments', '[]'::jsonb, 'status', s.status,"
        " 'bookings', s.n)) from generate_series(%s::timestamptz - interval '8 days', %s, interval '1 hour') as h"
        " cross join lateral (select case when random() < 0.92 then 'paid' else 'expired' end as status, count(*) as n"
        " from generate_series(1, (random() * (5 - 4 * cos(extract(hour from h) / 12 * pi())))::integer)"
        " group by 1) as s",
        (began, end),
    ).fetchone()
    assert rows is not None
    groups = rows[0]

    def bookings(of: list[Any], moments: list[datetime]) -> list[datetime]:
        judged = ops.execute(
            "select * from phase2.guardrail_bookings(%s, %s, %s)", (Jsonb(of), moments, guardrails._LONG_AGO)
        ).fetchall()
        rail = ROWS["public-booking-success"]
        return sorted(
            at for at, *rest in judged if guardrails._status(rail, guardrails.booking_count(*rest)) == "BREACH"
        )

    assert bookings(groups, hourly[::2]) == []
    for group in groups:
        if bad <= datetime.fromisoformat(group["at"]) < bad + timedelta(hours=12):
            group["status"] = "expired"
    hours = [at for at in hourly if at <= bad + timedelta(hours=2)]
    assert bad < bookings(groups, hours[-6:])[0]

    ops.execute("set session_replication_role = replica")
    ops.execute(
        "insert into public.ingest_dead_letter (dead_letter_key, event_key, reason_code, status, first_failed_at,"
        " last_failed_at, raw_payload, updated_at)"
        " select gen_random_uuid(), gen_random_uuid(), 'X', 'CLOSED', h, h, '{}', h + interval '3 hours'"
        " from generate_series(%s::timestamptz, %s, interval '20 minutes') as h",
        (began, end),
    )
    ops.execute("reset session_replication_role")
    letters = ops.execute(
        "select * from phase2.guardrail_dead_letters(%s, %s)", (hourly, guardrails._LONG_AGO)
    ).fetchall()
    counts = [guardrails.dead_letter_count(*rest) for _, *rest in letters]
    assert {guardrails._status(ROWS["dead-letter-growth"], one) for one in counts} == {"OK"}

    # 150 bookings change a day, and one in 2,000 contradicts its payments; then three in an hour
    core(ops, 4500, days=30)
    core(ops, 2, paid=True, ref="P", days=30)
    now = datetime.now(UTC)

    def payments() -> dict[datetime, str]:
        moments = [now - n * timedelta(hours=6) for n in range(116)]
        judged = ops.execute("select * from phase2.guardrail_payments(%s, %s)", (moments, guardrails._LONG_AGO))
        return {
            at: guardrails._status(ROWS["payment-mismatch"], guardrails.payment_count(*found)) for at, *found in judged
        }

    assert {*payments().values()} == {"OK", "TOO_LITTLE"}
    core(ops, 3, paid=True, ref="Q")
    ops.execute("update public.booking_core set updated_at = %s where external_booking_ref like 'Q%%'",
                (now - timedelta(days=9, hours=1),))  # fmt: skip
    assert min(at for at, status in payments().items() if status == "BREACH") == now - timedelta(days=9)


# --- command, flow, service ----------------------------------------------------------------------------------------


def phase2(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_the_command_says_what_it_found_and_ends_with_1_under_a_stop(ops: psycopg.Connection, dbs: Databases) -> None:
    quiet = phase2("guardrails", "--page")
    assert quiet.exit_code == 0, quiet.output
    assert "API 5xx on the core path" in quiet.output
    assert ".html" in quiet.output
    answered(ops, 1000, 40)
    loud = phase2("guardrails", "--json")
    assert loud.exit_code == 1
    said = json.loads(loud.stdout)
    assert said["stopped"] == ["api-5xx"]
    assert phase2("guardrails").exit_code == 1
    assert phase2("resume", "--reason", "it was a test").exit_code == 0


def test_the_flow_fails_and_emits_what_an_automation_waits_for(
    ops: psycopg.Connection, dbs: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    emitted: list[tuple[str, str]] = []
    monkeypatch.setattr(
        flow, "emit_event", lambda event, resource, **_: emitted.append((event, resource["prefect.resource.id"]))
    )
    asyncio.run(flow.guardrails_flow.fn())
    answered(ops, 1000, 40)
    for _ in range(2):
        with pytest.raises(GateFailed, match="api-5xx"):
            asyncio.run(flow.guardrails_flow.fn())
    assert emitted == [("phase2.guardrail.stop", "phase2.guardrail.api-5xx")]
    stop.ask(ops, "lost", subject="lost-events", batch="F", actor="guardrails")  # by one that was killed after it
    for _ in range(2):
        with pytest.raises(GateFailed, match="lost-events"):
            asyncio.run(flow.guardrails_flow.fn())
    assert emitted.pop() == ("phase2.guardrail.stop", "phase2.guardrail.lost-events")
    assert len(emitted) == 1
    stop.lift(ops, "mended")
    for flag in flags.FLAGS:
        flags.change(ops, flag, True, reason="again")
    ops.execute("delete from phase2.api_minutes")
    asyncio.run(flow.guardrails_flow.fn())  # once is no alarm
    for _ in range(2):
        with pytest.raises(CouldNotRun, match="API 5xx|cannot be measured"):
            asyncio.run(flow.guardrails_flow.fn())
    assert emitted[1:] == [("phase2.guardrail.blind", "phase2.guardrail.api-5xx")]
    monkeypatch.setattr(flow, "databases", lambda: replace(dbs, ops=postgres.with_database(dbs.ops, "nowhere")))
    with pytest.raises(CouldNotRun):
        asyncio.run(flow.guardrails_flow.fn())
    assert emitted[2:] == [("phase2.guardrail.blind", "phase2.guardrail.ops-database")]


@contextmanager
def minutes(conn: psycopg.Connection) -> Iterator[dict[str, tuple[int, int]]]:
    """What the service counted meanwhile, once it has ended."""
    conn.execute("delete from phase2.api_minutes")
    counted: dict[str, tuple[int, int]] = {}
    yield counted
    for part, *numbers in conn.execute(
        "select part, sum(requests), sum(server_errors) from phase2.api_minutes group by part"
    ):
        counted[part] = tuple(map(int, numbers))  # type: ignore[assignment]


def test_the_service_counts_its_answers_on_the_core_path(ops: psycopg.Connection, dbs: Databases) -> None:
    admin = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "STAFF", "x-actor": "ayu"}
    flags.change(ops, "INGEST_WEBHOOK_ENABLED", False, reason="a test")
    flags.change(ops, "OPS_READ_NEW_MODEL_ENABLED", False, reason="a test")
    with minutes(ops) as counted, serving.service(dbs.ops) as url, httpx.Client(base_url=url) as client:
        assert serving.post(client, serving.event()).status_code == 503  # a flag is off: no error
        assert client.get("/v1/ops/bookings", headers=admin).status_code == 503  # there is no bstadmin
        assert client.get("/v1/ops/nowhere", headers=admin).status_code == 404
        assert client.get("/health").status_code == 200
        shown = client.get("/metrics").text  # for the alert and the dashboard by the same rule
        for part, requests, errors in (("ingest", 1, 0), ("reads", 1, 1), ("writes", 0, 0)):
            assert f'core_api_path_requests_total{{part="{part}"}} {requests}.0' in shown
            assert f'core_api_path_errors_total{{part="{part}"}} {errors}.0' in shown
        deadline = time.monotonic() + 10
        while not ops.execute("select 1 from phase2.api_minutes").fetchone():  # while it runs
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert counted == {"ingest": (1, 0), "reads": (1, 1), "writes": (0, 0)}
