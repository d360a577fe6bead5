"""Emitters with real sources and the real service: nothing lost, nothing changed that did not change, nothing told."""

from __future__ import annotations

import itertools
import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from bridge import emitters, fingerprint, flags, ingest_client, ledger, postgres, sources
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.flags import Flag, Rollout
from bridge.settings import settings as bridge_settings
from tests import serving
from tests.pipeline import Pipeline, fresh
from tests.test_apply_equals_backfill import today

Ops = psycopg.Connection[Any]
TABLES = ("booking_core", "booking_contact", "booking_party", "booking_item_snapshot", "ops_booking_state",
          "ops_assignment", "payment_event", "ops_finance_bridge")  # fmt: skip
MAIL: Flag = "EMAIL_PIPELINE_CORE_ENABLED"
WEB: Flag = "WEB_EMIT_BOOKING_EVENT_ENABLED"


@pytest.fixture(scope="module")
def shop() -> Iterator[Pipeline]:
    """Sample sources, backfilled by A to E, and the core API in front."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as made, serving.environment():
        sources.create(made.databases.balisnap, made.databases.bstadmin, bookings=120, seed=7, as_of=today())
        made.run("A", "E", today(), gates=False)
        with serving.service(made.databases.ops) as url, pytest.MonkeyPatch.context() as patch:
            patch.setenv("CORE_API_URL", url)
            patch.setattr(flags, "FRESH_SECONDS", 0.0)
            core_settings.cache_clear()
            yield made


@pytest.fixture
def ops(shop: Pipeline) -> Iterator[Ops]:
    with postgres.connect(shop.databases.ops, autocommit=True) as conn:
        yield conn


def switch(ops: Ops, flag: Flag, **rollout: Any) -> None:
    flags.change(ops, flag, True, reason="test", rollout=Rollout(**rollout), actor="test")


def from_the_beginning(ops: Ops, name: str) -> None:
    ops.execute(
        "insert into phase2.watermarks (name, at) values (%s, '2000-01-01')"
        " on conflict (name) do update set at = excluded.at, detail = excluded.detail",
        (f"emit_{name}",),
    )


def drain(ops: Ops) -> None:
    """Apply what was accepted, in its order, as the worker does."""
    ops.execute(
        "select phase2.apply_event(e.event_key) from public.ingest_event_log as e"
        " where e.process_status = 'RECEIVED' order by e.created_at, e.event_key"
    )
    assert ops.execute("select count(*) from public.ingest_event_log where process_status <> 'DONE'").fetchone() == (0,)


def content(url: str) -> fingerprint.Fingerprint:
    with postgres.connect(url, autocommit=True) as conn:
        return fingerprint.take(conn, schemas=["public"])


def bookings(ops: Ops) -> dict[tuple[Any, str], Any]:
    """All that the bridge holds of its bookings: (key, field) -> value; not when rows were written."""
    found: dict[tuple[Any, str], Any] = {}
    for table in TABLES:
        for key, row in ops.execute(
            postgres.statement("select t.booking_key, to_jsonb(t) - array['created_at', 'updated_at'] from {}.{} as t",
                               "public", table)
        ).fetchall():  # fmt: skip
            part = row.get("booking_item_key") or row.get("assignment_key") or ""
            found |= {(key, f"{table}.{part}.{field}"): value for field, value in row.items()}
    return found


def is_open(before: dict[tuple[Any, str], Any], field: tuple[Any, str]) -> bool:
    """Whether the backfill knew no value: an event of any age fills nulls, and a placeholder counts as one."""
    key, name = field
    what = name.removeprefix("booking_contact..").removeprefix("is_placeholder_").removeprefix("main_")
    return before[field] is None or before.get((key, f"booking_contact..is_placeholder_{what}")) is True


_AS_CANDIDATES = """
select
    c.source_pk, e.external_booking_ref = c.external_booking_ref, b.event ->> 'tourDate' = c.tour_date::text,
    (b.event ->> 'tourTime')::time is not distinct from c.tour_time,
    (b.event ->> 'totalPrice')::numeric = greatest(c.total_price, 0),
    rulebook.norm_currency(b.event ->> 'currency') = c.currency_code
from dbt_intermediate.int_booking_candidates as c
join public.ingest_event_log as e on e.raw_payload #>> '{raw,providerPayload,id}' = c.source_pk
cross join lateral (select e.raw_payload -> 'booking' as event) as b
where c.source_system = 'balisnap' and e.source_enum = 'DIRECT'
"""


@pytest.mark.parametrize(
    ("flag", "name", "emit", "least"), [(WEB, "web", emitters.emit_web, 35), (MAIL, "mail", emitters.emit_mail, 60)]
)
def test_everything_emitted_over_a_backfill_changes_nothing(
    shop: Pipeline, ops: Ops, flag: Flag, name: str, emit: Callable[..., emitters.Emitted], least: int
) -> None:
    """But for what the sources have no value of: a mail has tour times and names that bstadmin's row does not."""
    switch(ops, flag)
    first = emit(shop.databases)
    assert (first.enabled, first.new) == (True, 0), "what batch D has read needs no event"
    untouched = (content(shop.databases.balisnap), content(shop.databases.bstadmin))
    before = bookings(ops)
    from_the_beginning(ops, name)
    done = emit(shop.databases)
    assert done.new == done.read > least
    if name == "web":  # what batch D takes from items and departures is in the events as it takes it
        told = shop.rows(_AS_CANDIDATES)
        assert len(told) == done.new
        assert [pk for pk, *facts in told if not all(facts)] == []
    drain(ops)
    after = bookings(ops)
    assert {field for field in after if before.get(field) != after[field] and not is_open(before, field)} == set()
    assert before.keys() == after.keys()
    assert (content(shop.databases.balisnap), content(shop.databases.bstadmin)) == untouched
    again = emit(shop.databases)
    assert (again.new, again.known) == (0, again.read)


# --- balisnap changes ----------------------------------------------------------------------------------------------

NOW = (datetime.now(UTC) - timedelta(hours=3)).replace(tzinfo=None, microsecond=0)  # as the sources write times


@pytest.fixture
def balisnap(shop: Pipeline, ops: Ops) -> Iterator[Ops]:
    """The shop's own connection, all that is in it emitted and applied; flag on for everybody."""
    switch(ops, WEB)
    switch(ops, MAIL)
    emitters.emit_web(shop.databases)
    drain(ops)
    with postgres.connect(shop.databases.balisnap, autocommit=True) as conn:
        yield conn


def alone(shop: Pipeline) -> list[int]:
    """Bookings that balisnap alone has, of one item at most."""
    with postgres.connect(shop.databases.balisnap) as conn:
        single = conn.execute(
            'select b.booking_id from public."Booking" as b left join public."BookingItem" as i'
            " on b.booking_id = i.booking_id group by 1 having count(*) = 1 order by 1"
        ).fetchall()
    twice = {
        int(booking)
        for (booking,) in shop.rows(
            "select r.external_ref from public.channel_external_refs as r join public.channel_external_refs as o"
            " on r.entity_key = o.entity_key and r.external_ref_key <> o.external_ref_key"
            " where r.external_ref_kind = 'BALISNAP_BOOKING_ID' and o.external_ref_kind like '%BOOKING_ID'"
        )
    }
    return [booking for (booking,) in single if booking not in twice]


def edit(conn: Ops, booking: int, at: datetime, **columns: Any) -> None:
    """The application changes a booking."""
    for column, value in {**columns, "updated_at": at}.items():
        conn.execute(
            postgres.statement('update public."Booking" set {} = %s where booking_id = %s', column), (value, booking)
        )
    if adults := columns.get("number_of_adult"):
        conn.execute('update public."BookingItem" set adult_qty = %s where booking_id = %s', (adults, booking))


def pay(conn: Ops, booking: int, at: datetime) -> None:
    conn.execute(
        'insert into public."Payment" (booking_id, user_id, amount, payment_method, payment_status, updated_at)'
        " select b.booking_id, b.user_id, 10, 'paypal', 'pending', %s from public.\"Booking\" as b"
        " where b.booking_id = %s",
        (at, booking),
    )


def shown(ops: Ops, booking: int, field: str = "number_of_adult") -> Any:
    """What the bridge shows of a booking of balisnap's."""
    row = ops.execute(
        postgres.statement(
            "select c.{} from public.booking_core as c join public.channel_external_refs as r"
            " on c.booking_key = r.entity_key where r.external_ref_kind = 'BALISNAP_BOOKING_ID'"
            " and r.external_ref = %s",
            field,
        ),
        (str(booking),),
    ).fetchone()
    return row and row[0]


def mark(ops: Ops, name: str = "web") -> Any:
    row = ops.execute("select at from phase2.watermarks where name = %s", (f"emit_{name}",)).fetchone()
    return row and row[0]


def test_a_change_in_the_second_of_the_one_before_is_not_lost(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    """To the log both are one event: the second would get the first one's answer."""
    one = alone(shop)[0]
    second = NOW - timedelta(minutes=50)
    for milliseconds, adults in ((100, 11), (700, 12), (701, 11)):
        edit(balisnap, one, second + timedelta(milliseconds=milliseconds), number_of_adult=adults)
        assert emitters.emit_web(shop.databases).new == 1
        drain(ops)
        assert shown(ops, one) == adults
    assert emitters.emit_web(shop.databases).new == 0


def test_bookings_of_one_ref_that_change_in_one_moment_are_all_told(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    one, other = alone(shop)[-2:]
    ref = shown(ops, one, "external_booking_ref")
    moment = NOW - timedelta(minutes=49)
    before = balisnap.execute('select booking_ref from public."Booking" where booking_id = %s', (other,)).fetchone()
    edit(balisnap, one, moment, booking_ref=ref)
    edit(balisnap, other, moment, booking_ref=f" {ref.lower()} ")
    done = emitters.emit_web(shop.databases)
    assert (done.read - done.known, done.new, done.sent, done.replays) == (2, 2, 3, 1)
    assert emitters.emit_web(shop.databases).new == 0
    drain(ops)
    edit(balisnap, other, moment + timedelta(seconds=5), booking_ref=before[0] if before else None)
    emitters.emit_web(shop.databases)
    drain(ops)


def test_what_commits_late_is_sent(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    late, other = alone(shop)[:2]
    with postgres.connect(shop.databases.balisnap) as slow:
        edit(slow, late, NOW - timedelta(minutes=48), number_of_adult=13)
        edit(balisnap, other, NOW - timedelta(minutes=5), number_of_adult=14)
        assert emitters.emit_web(shop.databases).new == 1
        assert mark(ops) >= (NOW - timedelta(minutes=5)).replace(tzinfo=UTC)
        slow.commit()
    assert emitters.emit_web(shop.databases).new == 1
    drain(ops)
    assert (shown(ops, late), shown(ops, other)) == (13, 14)


def test_a_payment_makes_an_event_that_is_no_later_word_on_the_booking(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    one = alone(shop)[3]
    edit(balisnap, one, NOW - timedelta(minutes=47), number_of_adult=15)
    emitters.emit_web(shop.databases)
    drain(ops)
    before = bookings(ops)
    for minutes in (46, 45):
        pay(balisnap, one, NOW - timedelta(minutes=minutes))
        assert emitters.emit_web(shop.databases).new == 1
    drain(ops)
    assert bookings(ops) == before
    times = ops.execute(
        "select event_time_normalized, jsonb_array_length(raw_payload #> '{raw,providerPayload,payments}')"
        " from public.ingest_event_log where raw_payload #>> '{raw,providerPayload,id}' = %s"
        " order by created_at desc limit 3",
        (str(one),),
    ).fetchall()
    assert max(time for time, _ in times) == (NOW - timedelta(minutes=47)).replace(tzinfo=UTC)
    assert [payments - times[2][1] for _, payments in times] == [2, 1, 0]


def test_a_run_that_is_killed_is_taken_up_by_the_next(
    shop: Pipeline, ops: Ops, balisnap: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitters, "_TOGETHER", 4)
    changed = alone(shop)[:11]
    for number, booking in enumerate(changed):
        edit(balisnap, booking, NOW - timedelta(minutes=4) + timedelta(seconds=number), number_of_adult=21)
    really, sent = ingest_client.send, []

    def dies(client: Any, request: ingest_client.Request) -> Any:
        if len(sent) == 6:
            raise KeyboardInterrupt
        sent.append(request)
        return really(client, request)

    monkeypatch.setattr(ingest_client, "send", dies)
    with pytest.raises(KeyboardInterrupt):
        emitters.emit_web(shop.databases)
    assert mark(ops) < (NOW - timedelta(minutes=4) + timedelta(seconds=6)).replace(tzinfo=UTC), "only what was answered"
    monkeypatch.setattr(ingest_client, "send", really)
    assert emitters.emit_web(shop.databases).new == 11 - len(sent)
    drain(ops)
    assert {shown(ops, booking) for booking in changed} == {21}


def test_nothing_moves_while_nobody_answers(
    shop: Pipeline, ops: Ops, balisnap: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(balisnap, alone(shop)[0], NOW - timedelta(minutes=3), number_of_adult=22)
    before = mark(ops)
    monkeypatch.setenv("CORE_API_URL", "http://127.0.0.1:9")
    core_settings.cache_clear()
    with pytest.raises(CouldNotRun, match="does not answer"):
        emitters.emit_web(shop.databases)
    monkeypatch.undo()
    core_settings.cache_clear()
    flags.change(ops, "INGEST_WEBHOOK_ENABLED", False, reason="test", actor="test")
    try:
        with pytest.raises(CouldNotRun, match="503 INGEST_WEBHOOK_DISABLED"):
            emitters.emit_web(shop.databases)
    finally:
        ops.execute("delete from phase2.flags where flag = 'INGEST_WEBHOOK_ENABLED'")
    assert mark(ops) == before
    assert emitters.emit_web(shop.databases).new == 1
    drain(ops)
    assert shown(ops, alone(shop)[0]) == 22


def test_somebody_else_answers(shop: Pipeline, ops: Ops, balisnap: Ops, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing counts as sent, or as refused, and a proxy of the environment has no say."""
    edit(balisnap, alone(shop)[9], NOW - timedelta(minutes=1), number_of_adult=24)
    before = mark(ops)
    for status, kind, body in (
        (202, "text/html", b"<p>accepted"),
        (202, "application/json", b'{"data": '),
        (202, "application/json", b'{"data": {"idempotentReplay": "no"}}'),
        (422, "application/json", b'{"error": "VALIDATION_ERROR"}'),
        (502, "application/json", b"["),
    ):
        told = httpx.Response(status, headers={"content-type": kind}, content=body)
        with monkeypatch.context() as patch:
            patch.setattr(ingest_client, "send", lambda *_, told=told: told)
            with pytest.raises(CouldNotRun, match=f"does not take events: {status} "):
                emitters.emit_web(shop.databases)
    assert mark(ops) == before
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert emitters.emit_web(shop.databases).new == 1
    drain(ops)


def test_what_is_refused_for_good_is_left_to_people_and_holds_up_nothing(
    shop: Pipeline, ops: Ops, balisnap: Ops
) -> None:
    bad, good = alone(shop)[4:6]
    day = balisnap.execute('select booking_date from public."Booking" where booking_id = %s', (bad,)).fetchone()
    balisnap.execute('update public."BookingItem" set departure_id = null where booking_id = %s', (bad,))
    edit(balisnap, bad, NOW - timedelta(minutes=2), booking_date="20000-01-01", main_contact_name="Ketut Sari")
    edit(balisnap, good, NOW - timedelta(minutes=2), number_of_adult=23)
    done = emitters.emit_web(shop.databases)
    assert (done.refused, done.new) == (1, 1)
    row = ops.execute(
        "select queue_type, status, reason_detail, payload::text from public.unmapped_queue"
        " where source_system = 'ingest' and source_table = 'Booking' and source_pk = %s",
        (str(bad),),
    ).fetchone()
    assert row is not None
    assert row[:3] == ("BOOKING_REVIEW", "OPEN", "no event can be made of it: VALIDATION_ERROR: booking.tourDate")
    assert "Ketut" not in row[3]
    again = emitters.emit_web(shop.databases)
    assert (again.refused, again.new, again.sent) == (0, 0, 0), "not sent again as it is"
    edit(balisnap, bad, NOW - timedelta(minutes=1), booking_date=day[0] if day else None)
    assert emitters.emit_web(shop.databases).new == 1


def test_a_percentage_keeps_its_bookings_and_brings_in_those_before_as_it_grows(
    shop: Pipeline, ops: Ops, balisnap: Ops
) -> None:
    changed = alone(shop)
    emitted: dict[float, set[int]] = {}
    for step, percentage in enumerate((30.0, 60.0, 30.0, 100.0)):
        if step < 2:  # the last two find what was left out long before
            for booking in changed:
                edit(balisnap, booking, NOW - timedelta(seconds=50 - step * 10), number_of_adult=31 + step)
        switch(ops, WEB, percentage=percentage)
        before = {booking: shown(ops, booking) for booking in changed}
        done = emitters.emit_web(shop.databases)
        drain(ops)
        emitted[step] = {booking for booking in changed if shown(ops, booking) != before[booking]}
        assert done.new == len(emitted[step])
    assert 0 < len(emitted[0]) < len(emitted[1]) < len(changed)
    assert emitted[0] < emitted[1]
    assert emitted[2] == set()
    assert emitted[3] == set(changed) - emitted[1]
    assert {shown(ops, booking) for booking in changed} == {32}


def test_keys_make_what_comes_twice_harmless(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    before, events = bookings(ops), ops.execute("select count(*) from public.ingest_event_log").fetchone()
    ops.execute("update phase2.watermarks set at = at - interval '5 hours'")
    done = emitters.emit_web(shop.databases)
    assert (done.known, done.new, done.sent) == (done.read, 0, 0)
    ops.execute("delete from phase2.ingest_keys")  # what remembers the answers is lost: the log still knows
    ops.execute("update phase2.watermarks set at = at - interval '5 hours'")
    assert emitters.emit_web(shop.databases).known == done.read
    drain(ops)
    assert bookings(ops) == before
    assert ops.execute("select count(*) from public.ingest_event_log").fetchone() == events


def test_what_was_emitted_and_is_not_in_the_log_is_found(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    """Gate H-02: of what the watermark has left behind for good; what the next run reads again may yet be sent."""
    one = alone(shop)[0]
    edit(balisnap, one, NOW - timedelta(minutes=40), number_of_adult=21)
    assert emitters.emit_web(shop.databases).new == 1
    drain(ops)
    begun = 'update phase2.watermarks set at = at + %s, detail = detail || \'{"since": "2000-01-01"}\''
    ops.execute(f"{begun} where name = 'emit_web'", (timedelta(hours=2),))
    [web] = [looked for looked in emitters.unlogged(shop.databases) if looked.emitter == "web"]
    assert web.compared > 0
    assert web.missing == ()
    key = ops.execute("select idempotency_key from public.ingest_event_log order by created_at desc limit 1").fetchone()
    ops.execute("create temporary table gone as select * from public.ingest_event_log where idempotency_key = %s", key)
    ops.execute("delete from phase2.ingest_keys where idempotency_key = %s", key)
    ops.execute("delete from public.ingest_event_log where idempotency_key = %s", key)
    [web] = [looked for looked in emitters.unlogged(shop.databases) if looked.emitter == "web"]
    assert web.missing == (("Booking", str(one)),)
    flags.change(ops, WEB, True, reason="test", rollout=Rollout(percentage=0), actor="test")  # of the mark's it was
    assert [looked.missing for looked in emitters.unlogged(shop.databases) if looked.emitter == "web"] == [web.missing]
    flags.change(ops, WEB, True, reason="test", rollout=Rollout(), actor="test")
    ops.execute("insert into public.ingest_event_log select * from gone; drop table gone")
    ops.execute("update phase2.watermarks set at = at - %s where name = 'emit_web'", (timedelta(hours=2),))


def test_one_at_a_time_and_nothing_while_the_flag_is_off(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    with postgres.connect(shop.databases.ops, autocommit=True) as other:
        other.execute("select pg_advisory_lock(hashtextextended('phase2 emit web', 0))")
        with pytest.raises(CouldNotRun, match="another web emitter is at work"):
            emitters.emit_web(shop.databases)
    flags.change(ops, WEB, False, reason="test", actor="test")
    off = emitters.emit_web(shop.databases)
    assert (off.enabled, off.read) == (False, 0)
    assert "WEB_EMIT_BOOKING_EVENT_ENABLED is off" in emitters.words(off)


# --- mails ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def inbox(shop: Pipeline, ops: Ops) -> Iterator[Ops]:
    switch(ops, MAIL)
    emitters.emit_mail(shop.databases)
    drain(ops)
    with postgres.connect(shop.databases.bstadmin, autocommit=True) as conn:
        yield conn


def mail(conn: Ops, parsed: Any, *, channel: str = "GYG", name: str | None = None, minutes: int = 30) -> str:
    """A mail comes in; its message id."""
    name = name or f"<{uuid4().hex}@mail.test>"
    at = NOW - timedelta(minutes=minutes)
    conn.execute(
        'insert into public.email_inbox (id, message_id, subject, "from", "to", received_at, body, is_booking_email,'
        " source, parsed_data, created_at) values (%s, %s, '', '', '', %s, '', true, %s, %s, %s)",
        (uuid4().hex, name, at, channel, Jsonb(parsed), at),
    )
    return name


def parsed(ref: str, status: str = "CREATED", **more: Any) -> dict[str, Any]:
    """What the parser makes of a mail."""
    return {
        "bookingRef": ref, "status": status, "tourDate": "2150-03-01", "tourTime": "08:30", "numberOfAdult": 2,
        "numberOfChild": 1, "totalPrice": 120.5, "currency": "USD", "customerName": "Ketut Sari",
        "customerEmail": "ketut@mail.test", "customerPhone": "+6281234567", **more,
    }  # fmt: skip


def core(ops: Ops, ref: str) -> Any:
    return ops.execute(
        "select tour_date::text, number_of_adult, total_price, ops_fulfillment_status from public.booking_core"
        " where external_booking_ref = %s",
        (ref,),
    ).fetchone()


def test_a_mail_is_an_event_under_its_message_id(shop: Pipeline, ops: Ops, inbox: Ops) -> None:
    name = mail(inbox, parsed("gyg-new-1 "))
    odd = mail(
        inbox, parsed("GYG-NEW-2", tourDate="2150-02-28T16:00:00.000Z", numberOfAdult="3"), name="Ünder way " * 20
    )
    assert emitters.emit_mail(shop.databases).new == 2
    drain(ops)
    assert core(ops, "GYG-NEW-1") == ("2150-03-01", 2, 120.5, "NEW")
    assert core(ops, "GYG-NEW-2") == ("2150-03-01", 3, 120.5, "NEW")
    keys = {key for (key,) in ops.execute("select idempotency_key from public.ingest_event_log").fetchall()}
    assert name in keys
    assert "mail:" + sha256(odd.encode()).hexdigest() in keys
    # a cancellation that says no more than that
    mail(inbox, {"bookingRef": "GYG-NEW-1", "status": "CANCELLED"}, minutes=20)
    assert emitters.emit_mail(shop.databases).new == 1
    drain(ops)
    assert core(ops, "GYG-NEW-1") == ("2150-03-01", 2, 120.5, "CANCELLED")


def test_a_mail_finds_the_booking_that_bstadmin_has_under_another_ref(shop: Pipeline, ops: Ops, inbox: Ops) -> None:
    booking, ref = shop.rows(
        "select r.external_ref::integer, c.external_booking_ref from public.channel_external_refs as r"
        " join public.booking_core as c on r.entity_key = c.booking_key"
        " where r.external_ref_kind = 'BSTADMIN_BOOKING_ID' and c.channel_code = 'GYG' order by 1 limit 1"
    )[0]
    for written in ("GYG-TYPING-ERROR", None):
        name = mail(inbox, parsed(written))  # type: ignore[arg-type]
        inbox.execute(
            "insert into public.booking_emails (booking_id, email_id, relation_type)"
            " select %s, m.id, 'UPDATED' from public.email_inbox as m where m.message_id = %s",
            (booking, name),
        )
        assert emitters.emit_mail(shop.databases).new == 1
        assert shop.rows(
            "select external_booking_ref from public.ingest_event_log where idempotency_key = %s", name
        ) == [(ref,)]
    ops.execute("delete from public.ingest_event_log where process_status = 'RECEIVED'")  # no word on the booking


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        (None, "parsed_data: no object"),
        ([1], "parsed_data: no object"),
        ({"bookingRef": " "}, "bookingRef: none"),
        (parsed("GYG-BAD", status="PENDING"), "status: no type of event"),
        (parsed("GYG-BAD", tourDate="2026-02-31"), "tourDate: no day"),
        (parsed("GYG-BAD", tourDate="2026-02-31T00:00:00Z"), "tourDate: no day"),
        ({"bookingRef": "GYG-BAD", "status": "CANCELLED"}, "tourDate: no day, numberOfAdult: no number"),
        (parsed("GYG-BAD", numberOfAdult="two"), "numberOfAdult: no number"),
        (parsed("GYG-BAD", numberOfAdult=99_999_999_999), "numberOfAdult: no number"),
        (parsed("GYG-BAD", totalPrice="1.200,00"), "totalPrice: no amount"),
        (parsed("G" * 129), "VALIDATION_ERROR: externalBookingRef"),
    ],
)
def test_a_mail_that_is_no_event_is_told_and_holds_up_nothing(
    shop: Pipeline, ops: Ops, inbox: Ops, what: Any, fields: str
) -> None:
    mail(inbox, what)
    good = mail(inbox, parsed(f"GYG-GOOD-{uuid4().hex[:6]}"))
    done = emitters.emit_mail(shop.databases)
    assert (done.refused, done.new) == (1, 1)
    assert ops.execute("select 1 from public.ingest_event_log where idempotency_key = %s", (good,)).fetchone()
    told = ops.execute(
        "select reason_detail, payload::text from public.unmapped_queue where source_table = 'email_inbox'"
        " and source_system = 'ingest' order by updated_at desc limit 1"
    ).fetchone()
    assert told is not None
    assert fields in told[0]
    assert "Ketut" not in repr(told)
    assert emitters.emit_mail(shop.databases).refused == 0


def test_a_mail_that_only_postgres_can_read_holds_up_nothing(shop: Pipeline, ops: Ops, inbox: Ops) -> None:
    for deep in ("repeat('[', 1500) || repeat(']', 1500)", "repeat('9', 5000)"):
        name = mail(inbox, parsed("GYG-DEEP"))
        inbox.execute(
            f"update public.email_inbox set parsed_data = jsonb_set(parsed_data, '{{deep}}', ({deep})::jsonb)"  # noqa: S608
            " where message_id = %s",
            (name,),
        )
    mail(inbox, parsed(f"GYG-{uuid4().hex[:6]}"))
    done = emitters.emit_mail(shop.databases)
    assert (done.refused, done.new) == (2, 1)


def test_a_channel_that_joins_has_its_earlier_mails(shop: Pipeline, ops: Ops, inbox: Ops) -> None:
    switch(ops, MAIL, channels=("GYG",))
    names = {
        channel: mail(inbox, parsed(f"{channel}-SET"), channel=channel, minutes=15) for channel in ("GYG", "VIATOR")
    }
    done = emitters.emit_mail(shop.databases)
    assert (done.new, done.skipped) == (1, 1)
    late = mail(inbox, parsed("GYG-LATER"), minutes=5)
    assert emitters.emit_mail(shop.databases).new == 1
    switch(ops, MAIL, channels=("GYG", "VIATOR"))
    assert emitters.emit_mail(shop.databases).new == 1
    keys = [
        key
        for (key,) in ops.execute(
            "select idempotency_key from public.ingest_event_log order by created_at desc limit 3"
        )
    ]
    assert keys == [names["VIATOR"], late, names["GYG"]]
    drain(ops)


def test_a_mail_that_is_parsed_an_hour_later_is_not_lost(shop: Pipeline, ops: Ops, inbox: Ops) -> None:
    late = mail(inbox, None, minutes=90)
    inbox.execute("update public.email_inbox set parsed_data = null where message_id = %s", (late,))
    mail(inbox, parsed("GYG-AFTER"), minutes=1)
    assert emitters.emit_mail(shop.databases).new == 1
    inbox.execute(
        "update public.email_inbox set parsed_data = %s where message_id = %s", (Jsonb(parsed("GYG-LATE")), late)
    )
    assert emitters.emit_mail(shop.databases).new == 1
    drain(ops)


# --- all of it -----------------------------------------------------------------------------------------------------


@settings(
    max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_nothing_is_lost_over_a_random_history(shop: Pipeline, ops: Ops, balisnap: Ops, data: st.DataObject) -> None:
    """Changes, payments, late commits, rollouts and runs in any order: the bridge ends with the shop's."""
    switch(ops, WEB)
    changed = data.draw(st.lists(st.sampled_from(alone(shop)), min_size=3, max_size=3, unique=True))
    clock = NOW + timedelta(minutes=next(_HISTORIES))
    late: list[psycopg.Connection[Any]] = []
    for _ in range(data.draw(st.integers(5, 25))):
        clock += timedelta(milliseconds=data.draw(st.sampled_from((1, 300, 1000, 2500))))
        step = data.draw(st.sampled_from(("change", "change", "pay", "late", "commit", "emit", "rollout")))
        booking = data.draw(st.sampled_from(changed))
        if step == "change" and not late:  # who holds a row's lock lets nobody else change it
            edit(balisnap, booking, clock, number_of_adult=data.draw(st.integers(1, 60)))
        elif step == "pay":
            pay(balisnap, booking, clock)
        elif step == "late" and not late:
            late.append(postgres.connect(shop.databases.balisnap))
            edit(late[0], booking, clock, number_of_adult=data.draw(st.integers(1, 60)))
        elif step == "commit" and late:
            commit(late)
        elif step == "rollout":
            switch(ops, WEB, percentage=data.draw(st.sampled_from((0.0, 50.0, 100.0))))
        elif step == "emit":
            emitters.emit_web(shop.databases)
    commit(late)
    switch(ops, WEB)
    emitters.emit_web(shop.databases)
    drain(ops)
    source = dict(balisnap.execute('select booking_id, number_of_adult from public."Booking"').fetchall())
    assert {booking: shown(ops, booking) for booking in changed} == {booking: source[booking] for booking in changed}


_HISTORIES = itertools.count(10, 2)  # minutes: each history later than the one before


def commit(late: list[psycopg.Connection[Any]]) -> None:
    for conn in late:
        conn.commit()
        conn.close()
    late.clear()


def test_a_backfill_after_it_all_finds_nothing_to_change(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    """But for what is the sources' alone: items, and from then on who had the last word on a contact."""
    single = set(alone(shop)[:-2])  # the last two were one for a while
    before = bookings(ops)
    shop.run("C", "D", today(), gates=False)
    after = bookings(ops)
    keys = {
        key
        for key, pk in ops.execute(
            "select entity_key, external_ref from public.channel_external_refs"
            " where external_ref_kind = 'BALISNAP_BOOKING_ID'"
        ).fetchall()
        if int(pk) in single
    }
    assert len(keys) == len(single) > 10
    different = {
        (field[1], before.get(field), after.get(field))
        for field in before | after
        if field[0] in keys and before.get(field) != after.get(field)
    }
    assert {
        difference
        for difference in different
        if difference[0] != "booking_contact..updated_from_source" and "booking_item_snapshot" not in difference[0]
    } == set()


def test_a_corrected_ref_is_no_new_booking(shop: Pipeline, ops: Ops, balisnap: Ops) -> None:
    """Mapping 2, which the next backfill follows: until then its events go where it is."""
    one = alone(shop)[6]
    ref = shown(ops, one, "external_booking_ref")
    edit(balisnap, one, NOW + timedelta(minutes=100), booking_ref="CORRECTED-1", number_of_adult=41)
    assert emitters.emit_web(shop.databases).new == 1
    drain(ops)
    assert (shown(ops, one, "external_booking_ref"), shown(ops, one)) == (ref, 41)
    assert core(ops, "CORRECTED-1") is None


def test_the_command_says_what_came_of_it(
    shop: Pipeline, ops: Ops, balisnap: Ops, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ops", "balisnap", "bstadmin"):
        monkeypatch.setenv(f"{name.upper()}_DB_URL", getattr(shop.databases, name))
    bridge_settings.cache_clear()
    try:
        edit(balisnap, alone(shop)[7], NOW + timedelta(minutes=101), number_of_adult=42)
        told = CliRunner().invoke(app, ["emit", "web", "--json"])
        assert (told.exit_code, json.loads(told.stdout)["new"]) == (0, 1)
        assert "0 new events" in CliRunner().invoke(app, ["emit", "mail"]).stdout
        flags.change(ops, WEB, False, reason="test", actor="test")
        assert "is off, nothing was read" in CliRunner().invoke(app, ["emit", "web"]).stdout
        assert isinstance(CliRunner().invoke(app, ["emit", "fax"]).exception, CouldNotRun)
    finally:
        monkeypatch.undo()
        bridge_settings.cache_clear()
    drain(ops)


def test_no_personal_data_leaves_the_events(
    shop: Pipeline, ops: Ops, balisnap: Ops, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    one = alone(shop)[0]
    edit(balisnap, one, NOW + timedelta(hours=2), main_contact_name="Zebulon Quark", booking_date="20000-01-01",
         phone_number="+6281999888777", main_contact_email="zebulon@quark.test")  # fmt: skip
    lines: list[str] = []
    done = emitters.emit_web(shop.databases, progress=lines.append)
    assert done.refused == 1
    told = [*lines, emitters.words(done), caplog.text, *capfd.readouterr()]
    told += [repr(row) for row in ops.execute("select * from public.unmapped_queue where source_system = 'ingest'")]
    told += [repr(row) for row in ops.execute("select * from phase2.watermarks")]
    told += [repr(entry.body) for entry in ledger.entries(ops)]
    assert [text for text in told if "uark" in text or "999888" in text] == []
    assert any("read" in line for line in lines)
