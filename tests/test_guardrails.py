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


def core(conn: psycopg.Connection, count: int, *, paid: bool = False, ref: str = "X") -> None:
    """Bookings of the bridge, written now; `paid` contradicts their flag."""
    conn.execute(
        "with made as (insert into public.booking_core (booking_key, channel_code, external_booking_ref,"
        " booking_created_at, tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type)"
        " select gen_random_uuid(), 'GYG', %s || n, now(), current_date, %s, 'NEW', 'LEGACY_PACKAGE'"
        " from generate_series(1, %s) as n returning booking_key)"
        " insert into public.ops_booking_state (booking_key, ops_fulfillment_status, is_paid_flag, updated_from_source)"
        " select booking_key, 'NEW', false, 'test' from made",
        (ref, "PAID" if paid else "PENDING_PAYMENT", count),
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


def fewer_paid(conn: psycopg.Connection, dbs: Databases) -> None:
    booked(dbs, paid=0.9, per_hour=10, hours=(25, 190))
    booked(dbs, paid=0.5, per_hour=10, hours=(1, 6))


def duplicate(conn: psycopg.Connection, dbs: Databases) -> None:
    core(conn, 1, ref="GYG")
    core(conn, 1, ref="gyg")  # what normalising should have made one


def second_row(conn: psycopg.Connection, dbs: Databases) -> None:
    conn.execute("drop index if exists public.ux_ingest_event_secondary_dedup")
    event(conn)
    event(conn)


PLANTED: dict[str, tuple[str, Callable[[psycopg.Connection, Databases], None]]] = {
    "public-booking-success": ("H", fewer_paid),
    "api-5xx": ("G", lambda conn, dbs: answered(conn, 1000, 40)),
    "duplicate-bookings": ("F", duplicate),
    "dead-letter-growth": ("F", lambda conn, dbs: [dead(conn, 1, 900, "CLOSED", left=40), dead(conn, 102)]),
    "payment-mismatch": ("F", lambda conn, dbs: [core(conn, 198), core(conn, 2, paid=True, ref="P")]),
    "lost-events": ("F", lambda conn, dbs: event(conn, process_status="FAILED")),
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
    assert guardrails.watch(dbs).stops == ()
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


def test_a_flag_that_is_switched_on_under_a_stop_goes_off_again(ops: psycopg.Connection, dbs: Databases) -> None:
    """Also after a kill between the stop and what follows it: every look finishes what it finds."""
    stop.ask(ops, "5xx", subject="api-5xx", batch="G", actor="guardrails")
    assert "OPS_READ_NEW_MODEL_ENABLED is off" in guardrails.watch(dbs).done
    with pytest.raises(CouldNotRun, match="5xx"):
        flags.change(ops, "OPS_READ_NEW_MODEL_ENABLED", True, reason="impatient")
    ops.execute("update phase2.flags set enabled = true where flag = 'OPS_READ_NEW_MODEL_ENABLED'")  # past all of us
    assert guardrails.watch(dbs).done == ("OPS_READ_NEW_MODEL_ENABLED is off",)


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
    assert (
        found["api-5xx"].words
        == "reads: 1 of 30 answers in 15 minutes were server errors; too few to tell it from chance"
    )
    assert "99 bookings changed in a day, 100 are needed" in found["payment-mismatch"].words


def test_one_error_of_a_quiet_night_and_what_retention_took_stop_nothing(
    ops: psycopg.Connection, dbs: Databases
) -> None:
    event(ops, process_status="FAILED", created_at=str(datetime.now(UTC) - timedelta(days=31)))
    for requests, errors, said in (
        (1, 1, "TOO_LITTLE"),
        (19, 19, "TOO_LITTLE"),
        (20, 1, "TOO_LITTLE"),
        (20, 2, "BREACH"),
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

    def bookings(of: list[Any]) -> list[datetime]:
        judged = ops.execute(
            "select * from phase2.guardrail_bookings(%s, %s, %s)", (Jsonb(of), hourly, guardrails._LONG_AGO)
        ).fetchall()
        rail = ROWS["public-booking-success"]
        return sorted(
            at for at, *rest in judged if guardrails._status(rail, guardrails.booking_count(*rest)) == "BREACH"
        )

    assert bookings(groups) == []
    for group in groups:
        if bad <= datetime.fromisoformat(group["at"]) < bad + timedelta(hours=12):
            group["status"] = "expired"
    assert bad < bookings(groups)[0] <= bad + timedelta(hours=2)

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
        deadline = time.monotonic() + 10
        while not ops.execute("select 1 from phase2.api_minutes").fetchone():  # while it runs
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert counted == {"ingest": (1, 0), "reads": (1, 1), "writes": (0, 0)}
