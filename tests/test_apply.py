"""What an event does to the bridge (sql/ingest/apply.sql), on a real server: any order, duplicates, two workers."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge import postgres, runlog, scripts, steps
from bridge.settings import SQL
from core_api.ingest.events import instant, read
from tests.booking_events import (
    DAY,
    START,
    Event,
    accept,
    apply,
    email_kind,
    events,
    folded,
    histories,
    name_kind,
    play,
    rows,
)
from tests.pipeline import fresh

Conn = psycopg.Connection[Any]
APPLY = (SQL / "ingest" / "apply.sql").read_text()
PRODUCT = UUID("1b2c8dda-1d99-57f5-bdc1-b9fb772d8186")
_numbers = itertools.count()


def new_ref() -> str:
    return f"R{next(_numbers)}"


@pytest.fixture(scope="module")
def ops() -> Iterator[str]:
    """An ops database after batches A and B: the tables, the channels, the rulebook."""
    with fresh(os.environ["TEST_PG_URL"]) as pipeline:
        pipeline.run("A", "B", datetime.now(UTC).date(), gates=False)
        yield pipeline.databases.ops


@pytest.fixture(scope="module")
def conn(ops: str) -> Iterator[Conn]:
    with postgres.connect(ops, autocommit=True) as opened:
        yield opened


def backfilled(conn: Conn, ref: str, base: Event, updated_at: datetime, channel: str = "GYG") -> UUID:
    """A booking as a backfill leaves it whose only candidate is a bstadmin row of that `updated_at`."""
    row = conn.execute(
        "insert into public.booking_core (booking_key, channel_code, source_enum_compat, external_booking_ref,"
        " booking_created_at, booking_date, tour_date, tour_time, currency_code, total_price, number_of_adult,"
        " number_of_child, customer_payment_status, ops_fulfillment_status, package_ref_type, package_ref_key,"
        " legacy_package_id, note)"
        " values (gen_random_uuid(), %(channel)s, %(channel)s, %(ref)s, '2026-01-01', '2026-01-01', %(date)s, %(time)s,"
        " 'EUR', 55, 9, 9, 'PAID', 'NEW', 'CATALOG_PRODUCT', %(product)s, 7, %(note)s) returning booking_key",
        {
            "channel": channel,
            "ref": ref,
            "date": base.tour_date,
            "time": base.time,
            "note": base.note,
            "product": PRODUCT,
        },
    ).fetchone()
    assert row is not None
    key: UUID = row[0]
    conn.execute(
        "insert into public.booking_contact (booking_key, main_name, main_email, phone, pickup_location,"
        " meeting_point, is_placeholder_name, is_placeholder_email, updated_from_source)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, 'bstadmin')",
        (key, base.name, base.email, base.phone, base.pickup, base.meeting_point, name_kind(base.name) > 1,
         email_kind(base.email) > 1),
    )  # fmt: skip
    conn.execute("insert into public.booking_party (booking_key, adult_qty, child_qty) values (%s, 9, 9)", (key,))
    conn.execute(
        "insert into public.booking_item_snapshot (booking_item_key, booking_key, currency_code, adult_qty, child_qty,"
        " adult_unit_price, child_unit_price, total_amount, snapshot_json)"
        " values (rulebook.synthetic_item_key(%s, %s), %s, 'EUR', 9, 9, 3.06, 3.06, 55, '{\"synthetic\": true}')",
        (channel, ref, key),
    )
    conn.execute(
        "insert into public.ops_booking_state (booking_key, ops_fulfillment_status, is_paid_flag, paid_at,"
        " assigned_driver_id, updated_from_source) values (%s, 'NEW', true, '2026-01-02', 4, 'bstadmin')",
        (key,),
    )
    conn.execute("insert into phase2.booking_source_times values (%s, %s)", (key, updated_at))
    return key


def expected(history: list[Event], channel: str) -> dict[str, Any]:
    """The rows of a booking that only these events know."""
    shown = folded(history)
    first = min(event.moment for event in history)
    cancelled = shown.kind == "CANCELLED"
    status = {"CREATED": "NEW", "UPDATED": "UPDATED", "CANCELLED": "CANCELLED"}[shown.kind]
    if channel == "DIRECT" and not cancelled:
        status = "NEW"  # balisnap has no word for a changed booking (mapping 4.7)
    heads = shown.adult + shown.child
    unit = round(shown.total / heads + 1e-9, 2) if heads else 0
    counts = {"adult_qty": shown.adult, "child_qty": shown.child, "infant_qty": 0}
    return {
        "booking_core": {
            "channel_code": channel, "source_enum_compat": channel, "booking_created_at": first.isoformat(),
            "booking_date": (first + timedelta(hours=8)).date().isoformat(),
            "tour_date": shown.tour_date.isoformat(), "tour_time": shown.time, "currency_code": shown.currency,
            "total_price": shown.total, "number_of_adult": shown.adult, "number_of_child": shown.child,
            "customer_payment_status": "FAILED" if channel == "DIRECT" and cancelled else "PENDING_PAYMENT",
            "ops_fulfillment_status": status, "package_ref_type": "LEGACY_PACKAGE", "package_ref_key": None,
            "legacy_package_id": None, "note": shown.note,
        },
        "booking_contact": {
            "main_name": shown.name, "main_email": shown.email, "phone": shown.phone,
            "pickup_location": shown.pickup or (shown.meeting_point if channel == "DIRECT" else None),
            "meeting_point": shown.meeting_point, "is_placeholder_name": name_kind(shown.name) > 1,
            "is_placeholder_email": email_kind(shown.email) > 1, "updated_from_source": "ingest",
        },
        "booking_party": counts | {"traveler_rows": None},
        "ops_booking_state": {
            "ops_fulfillment_status": status, "assigned_driver_id": None, "assigned_partner_id": None,
            "assigned_at": None, "is_paid_flag": False, "paid_at": None, "state_version": 1,
            "updated_from_source": "ingest",
        },
        "booking_item_snapshot": [
            counts | {
                "variant_key": None, "variant_external_id": None, "departure_external_id": None,
                "currency_code": shown.currency, "adult_unit_price": unit, "child_unit_price": unit,
                "discount_amount": 0, "tax_amount": 0, "total_amount": shown.total,
                "snapshot_json": {"synthetic": True},
            }
        ],
        "channel_external_refs": [True],
    }  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), channel=st.sampled_from(("GYG", "DIRECT")), data=st.data())
def test_events_in_any_order_end_in_the_rows_that_they_say(
    conn: Conn, history: list[Event], channel: str, data: st.DataObject
) -> None:
    again = data.draw(st.lists(st.sampled_from(history), max_size=3), label="come again")
    order = data.draw(st.permutations(history + again), label="order")
    ref = new_ref()
    play(conn, order, channel, ref)
    assert rows(conn, channel, ref) == expected(history, channel)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(base=events(), at=st.integers(-1, 6), history=histories(), data=st.data())
def test_events_on_a_backfilled_booking_end_in_the_same_rows_in_any_order(
    conn: Conn, base: Event, at: int, history: list[Event], data: st.DataObject
) -> None:
    updated_at = START + timedelta(seconds=at)
    channel = data.draw(st.sampled_from(("GYG", "DIRECT")), label="channel")
    ended = []
    for order in (history, data.draw(st.permutations(history), label="order")):
        ref = new_ref()
        backfilled(conn, ref, base, updated_at, channel)
        before = rows(conn, channel, ref)
        play(conn, order, channel, ref)
        ended.append(rows(conn, channel, ref))
    assert ended[0] == ended[1]
    after = ended[0]
    # what the backfill knows and no event can say is as it was
    for column in ("booking_created_at", "booking_date", "customer_payment_status", "package_ref_type"):
        assert after["booking_core"][column] == before["booking_core"][column]
    assert after["booking_core"]["legacy_package_id"] == 7
    assert after["ops_booking_state"]["assigned_driver_id"] == 4
    assert after["ops_booking_state"]["is_paid_flag"]
    if all(event.moment <= updated_at for event in history):
        # older than the sources: only what was null, or a placeholder, may differ
        for table in ("booking_core", "booking_contact", "ops_booking_state", "booking_party"):
            for column, value in before[table].items():
                known = value is not None and column not in ("is_placeholder_name", "is_placeholder_email")
                placeholder = column in ("main_name", "main_email") and before[table][f"is_placeholder_{column[5:]}"]
                stands_in = column == "pickup_location" and value == before[table]["meeting_point"]
                if known and not placeholder and not stands_in:
                    assert after[table][column] == value, (table, column)


def test_a_cancellation_is_undone_only_by_a_later_event(conn: Conn) -> None:
    ref = new_ref()
    status = []
    for kind, at in (("CREATED", 0), ("CANCELLED", 5), ("UPDATED", 3), ("UPDATED", 5), ("CREATED", 6)):
        play(conn, [Event(kind, at)], "VIATOR", ref)
        status.append(rows(conn, "VIATOR", ref)["ops_booking_state"]["ops_fulfillment_status"])
    assert status == ["NEW", "CANCELLED", "CANCELLED", "CANCELLED", "NEW"]


def test_what_bstadmin_has_follows_its_engine(conn: Conn) -> None:
    """A driver, the finance link, NO_SHOW and a source that is no channel: the ops' side, which no event takes away."""
    ref, web, gone = new_ref(), new_ref(), new_ref()
    keys = [backfilled(conn, booking, Event("CREATED", 0), START, "DIRECT") for booking in (ref, web, gone)]
    conn.execute(
        "insert into public.ops_finance_bridge (finance_bridge_key, booking_key, pattern_id)"
        " values (gen_random_uuid(), %s, 3)",
        (keys[0],),
    )
    conn.execute("update public.booking_core set source_enum_compat = 'KLOOK' where booking_key = %s", (keys[0],))
    conn.execute(
        "update public.ops_booking_state set updated_from_source = 'balisnap', assigned_driver_id = null"
        " where booking_key = %s",
        (keys[1],),
    )
    conn.execute(
        "update public.ops_booking_state set ops_fulfillment_status = 'NO_SHOW' where booking_key = %s", (keys[2],)
    )
    status: dict[str, list[str]] = {ref: [], web: [], gone: []}
    for at, kind in enumerate(("CREATED", "UPDATED", "CANCELLED"), start=1):
        for booking, seen in status.items():
            play(conn, [Event(kind, at)], "DIRECT", booking)
            seen.append(rows(conn, "DIRECT", booking)["booking_core"]["ops_fulfillment_status"])
    assert status == {
        ref: ["READY", "UPDATED", "CANCELLED"],
        web: ["NEW", "NEW", "CANCELLED"],
        gone: ["NO_SHOW"] * 3,
    }
    assert rows(conn, "DIRECT", ref)["booking_core"]["source_enum_compat"] == "KLOOK"


def test_an_event_that_was_forgotten_and_comes_again_changes_nothing(conn: Conn) -> None:
    """After 35 days the log no longer knows it: the booking does."""
    ref = new_ref()
    history = [Event("CREATED", 0, phone="+62812345678"), Event("UPDATED", 3, phone="+4915112345678")]
    play(conn, history, "GYG", ref)
    before = rows(conn, "GYG", ref)
    conn.execute("delete from public.ingest_event_log where external_booking_ref = %s", (ref,))
    play(conn, history, "GYG", ref)
    assert rows(conn, "GYG", ref) == before


# Each a rule taken away; some order must then end in other rows than the events say.
FAULTS = {
    "the last to come wins": ("event_at > coalesce(times.booking_at, base_at)", "true"),
    "a phone has no time": ("event_at > coalesce(times.phone_at, base_at)", "true"),
    "an older event never replaces": ("event_at > coalesce(times.note_at, base_at)", "false"),
    "a null overwrites": ("if fact.note is not null and (core.note is null or", "if ("),
    "placeholders are names": ("(fact.name_kind > 1) = contact.is_placeholder_name and", ""),
    "any e-mail is as good": ("fact.email_kind = held_email_kind and", ""),
    "a time outlives its date": (
        "core.tour_time := (times.tour_times -> core.tour_date::text ->> 'time')::time;",
        "core.tour_time := coalesce(fact.tour_time, core.tour_time);",
    ),
    "the first to come made it": ("least(times.first_event_at, event.event_time_normalized)", "times.first_event_at"),
    "events of a second are equal": ("when 'CANCELLED' then 2 when 'UPDATED' then 1", "when 'CANCELLED' then 0"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_property_finds_faults(conn: Conn, fault: str) -> None:
    history = [
        Event("UPDATED", 1, name="Ann Lee", email="no at sign", phone="+62812345678", time="08:30:00", note="one"),
        Event("UPDATED", 2, name="guest", email="ann@mail.test", phone="+4915112345678", note="two\nlines", adult=1),
        Event("UPDATED", 3, email="other", day=1, total=5),
        Event("CANCELLED", 3, day=1),
    ]
    sound, broken = FAULTS[fault]
    assert APPLY.count(sound) == 1
    wrong = 0
    with conn.transaction(force_rollback=True):
        conn.execute(APPLY.replace(sound, broken).encode())
        for order in itertools.permutations(history):
            ref = new_ref()
            play(conn, order, "GYG", ref)
            wrong += rows(conn, "GYG", ref) != expected(history, "GYG")
    assert wrong


def test_two_workers_never_apply_to_one_booking_at_once_nor_hold_up_another(ops: str, conn: Conn) -> None:
    ref, other = new_ref(), new_ref()
    first, second = accept(conn, Event("CREATED", 0), "GYG", ref), accept(conn, Event("UPDATED", 1), "GYG", ref)
    bad = Event("CREATED", 0, currency="Rp", name="N" * 200)
    elsewhere = accept(conn, bad, "GYG", other)
    mine = accept(conn, replace(bad, kind="UPDATED", at=9), "GYG", new_ref())
    with postgres.connect(ops) as holder:
        holder.execute("set lock_timeout = '1s'")
        assert [apply(holder, key) for key in (first, mine)] == ["APPLIED"] * 2  # not committed yet
        with postgres.connect(ops, autocommit=True) as worker:
            worker.execute("set lock_timeout = '1s'")
            assert [apply(worker, key) for key in (first, second, elsewhere)] == ["BUSY", "BUSY", "APPLIED"]
        holder.rollback()  # a worker that dies leaves nothing
    assert apply(conn, second) == "WAITS"
    assert [apply(conn, key) for key in (first, second, second)] == ["APPLIED", "APPLIED", "ALREADY"]


def work(conn: Conn, key: UUID) -> str:
    row = conn.execute("select w.outcome from phase2.work_events(array[%s::uuid], array[]::float[], 1) as w", (key,))
    return (row.fetchone() or ("",))[0]


@pytest.mark.parametrize("forgotten", [False, True], ids=["dead letter there", "dead letter retained away"])
def test_an_event_waits_for_the_one_before_it_unless_that_is_dead(ops: str, conn: Conn, forgotten: bool) -> None:
    """Also in the days after the retention took the dead letter, and before it takes the event."""
    ref = new_ref()
    dead = accept(conn, Event("CREATED", 0, day=55_000), "GYG", ref)  # in the year 2300
    late = accept(conn, Event("UPDATED", 1, total=7), "GYG", ref)
    assert apply(conn, late) == "WAITS"
    assert work(conn, dead) == "DEAD"
    if forgotten:
        conn.execute(
            "update public.ingest_dead_letter set status = 'RESOLVED', updated_at = now() - interval '31 days'"
            " where event_key = %s",
            (dead,),
        )
        scripts.run_script(ops, "091_retention_cleanup.sql")
    left = conn.execute("select count(*) from public.ingest_dead_letter where event_key = %s", (dead,)).fetchone()
    assert left == (0 if forgotten else 1,)
    assert work(conn, late) == "APPLIED"
    if not forgotten:  # mended and replayed: older now, it only fills
        conn.execute(
            "update public.ingest_event_log set raw_payload = %s, process_status = 'RECEIVED' where event_key = %s",
            (json.dumps(Event("CREATED", 0, note="one").payload("GYG", ref)), dead),
        )
        assert apply(conn, dead) == "APPLIED"
        assert rows(conn, "GYG", ref)["booking_core"]["note"] == "one"
    assert rows(conn, "GYG", ref)["booking_core"]["total_price"] == 7


def test_nothing_is_applied_while_a_backfill_writes(ops: str, conn: Conn) -> None:
    key = accept(conn, Event("CREATED", 0), "GYG", new_ref())
    conn.execute("insert into phase2.batch_state (batch, status) values ('D', 'RUNNING')")
    try:
        with postgres.connect(ops, autocommit=True) as runner:
            runner.execute("select pg_advisory_lock(%s)", (steps._RUNNER_LOCK,))  # apply.sql names it too
            assert apply(conn, key) == "BUSY"
            runner.execute("select pg_advisory_unlock_all()")
        assert apply(conn, key) == "APPLIED"  # the run is dead: nobody holds its lock
    finally:
        conn.execute("delete from phase2.batch_state where batch = 'D'")


def test_what_does_not_fit_is_made_to_fit_and_reviewed(conn: Conn) -> None:
    ref = new_ref()
    key = accept(conn, Event("CREATED", 0, name="N" * 200, currency="Rp", total=10**11), "GYG", ref)
    assert apply(conn, key) == "APPLIED"
    held = rows(conn, "GYG", ref)
    assert held["booking_contact"]["main_name"] == "N" * 191
    assert (held["booking_core"]["currency_code"], held["booking_core"]["total_price"]) == ("USD", 0)
    reviews = conn.execute(
        "select queue_type, reason_code, status, payload -> 'problems' from public.unmapped_queue where source_pk = %s",
        (str(key),),
    ).fetchall()
    assert [review[:3] for review in reviews] == [("BOOKING_REVIEW", "INVALID_SOURCE", "OPEN")]
    assert [(p["field"], p["raw"]) for p in reviews[0][3]] == [
        ("currency", "Rp"), ("main_contact_name", "N" * 200), ("total_price", "100000000000"),
    ]  # fmt: skip


def test_a_new_day_renews_the_status_of_bookings_that_only_events_know(ops: str, conn: Conn) -> None:
    """Batch D recomputes those of its sources; these it does not know, or keeps as the event left them (4.13)."""
    mail, web, gone, fresher, stale, later = (new_ref() for _ in range(6))
    play(conn, [Event("UPDATED", 5)], "GYG", mail)
    play(conn, [Event("CREATED", 5)], "DIRECT", web)
    play(conn, [Event("CANCELLED", 5)], "GYG", gone)
    play(conn, [Event("CREATED", 5, day=9)], "GYG", later)
    for ref, source_at in ((fresher, 4), (stale, 6)):
        backfilled(conn, ref, Event("CREATED", 0), START + timedelta(seconds=source_at), "VIATOR")
        play(conn, [Event("UPDATED", 5)], "VIATOR", ref)

    def status() -> list[str]:
        kept = []
        for ref, channel in ((mail, "GYG"), (web, "DIRECT"), (gone, "GYG"), (fresher, "VIATOR"), (stale, "VIATOR"),
                             (later, "GYG")):  # fmt: skip
            row = rows(conn, channel, ref)
            assert row["booking_core"]["ops_fulfillment_status"] == row["ops_booking_state"]["ops_fulfillment_status"]
            kept.append(row["booking_core"]["ops_fulfillment_status"])
        return kept

    def renew(day: int, most: int = 500) -> int:
        row = conn.execute("select phase2.renew_fulfilment(%s, %s)", (DAY + timedelta(days=day), most)).fetchone()
        assert row is not None
        return row[0]

    conn.execute("update public.booking_core set tour_date = '2199-01-01' where external_booking_ref <> all(%s)",
                 ([mail, web, gone, fresher, stale, later],))  # fmt: skip
    before = ["UPDATED", "NEW", "CANCELLED", "UPDATED", "NEW", "NEW"]
    assert (renew(-1), status()) == (0, before)
    with postgres.connect(ops, autocommit=True) as runner:
        runner.execute("select pg_advisory_lock(%s)", (steps._RUNNER_LOCK,))
        runner.execute("insert into phase2.batch_state (batch, status) values ('D', 'RUNNING')")
        assert renew(0) == 0
        runner.execute("delete from phase2.batch_state where batch = 'D'")
    with postgres.connect(ops) as worker:
        worker.execute("select pg_advisory_xact_lock(phase2.booking_lock('GYG', %s))", (mail,))
        assert renew(0) == 2
    assert [renew(0), renew(0)] == [1, 0]
    today = ["ATTENTION", "ATTENTION", "CANCELLED", "ATTENTION", "NEW", "NEW"]
    assert status() == today
    assert renew(1) == 1
    assert status() == [*today[:1], "CANCELLED", *today[2:]]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ('{"booking": {"tourDate": "1899-12-31"}}', "VALIDATION_ERROR"),
        ('{"booking": {"tourDate": "tomorrow"}}', "VALIDATION_ERROR"),
        ('{"booking": {"tourDate": "2027-02-30"}}', "VALIDATION_ERROR"),
        ('{"booking": {"tourDate": "2027-02-03", "adult": 3000000000}}', "VALIDATION_ERROR"),
        ('{"payloadVersion": "v2"}', "SCHEMA_MISMATCH"),
        ('{"booking": null}', "SCHEMA_MISMATCH"),
    ],
)
def test_what_can_never_be_applied_says_so_and_leaves_no_trace(conn: Conn, change: str, code: str) -> None:
    ref = new_ref()
    key = accept(conn, Event("CREATED", 0, name="Ann Lee"), "GYG", ref)
    conn.execute(
        "update public.ingest_event_log set raw_payload = raw_payload || %s::jsonb where event_key = %s", (change, key)
    )

    with pytest.raises(psycopg.Error) as refused:
        apply(conn, key)
    assert refused.value.sqlstate == {"VALIDATION_ERROR": "P2001", "SCHEMA_MISMATCH": "P2002"}[code]
    assert (refused.value.diag.message_primary or "").startswith(code)
    assert "Ann" not in str(refused.value)
    row = conn.execute(
        "select process_status, (select count(*) from public.booking_core where external_booking_ref = %s)"
        " from public.ingest_event_log where event_key = %s",
        (ref, key),
    ).fetchone()
    assert row == ("RECEIVED", 0)


_TEXTS = st.none() | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=300) | st.sampled_from(
    ("USD", "08:30", "25:99", "12:00 AM", "x" * 5000, "\u200b", "a@b.c", "+62 812", "\ud7ff", "\U0010ffff")
)  # fmt: skip
_HEADS = st.integers(0, 2**31 - 1) | st.sampled_from((0, 2.0, 2147483647, 2147483647.0, 1e2))
_DAYS = st.dates().map(str) | st.sampled_from(("0001-01-01", "1899-12-31", "2199-12-31", "2200-01-01", "9999-12-31"))
_BODIES = st.fixed_dictionaries(
    {
        "payloadVersion": st.just("v1"),
        "eventType": st.sampled_from(("CREATED", "UPDATED", "CANCELLED")),
        "eventTime": st.datetimes().map(lambda at: f"{at.isoformat(timespec='microseconds')}Z")
        | st.sampled_from(("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-11-22T08:30:00.123456789+14:00")),
        "source": st.sampled_from(("DIRECT", "GYG", "VIATOR", "TRIPDOTCOM", "BOKUN", "MANUAL")),
        "customer": st.fixed_dictionaries({}, optional=dict.fromkeys(("name", "email", "phone"), _TEXTS)),
        "booking": st.fixed_dictionaries(
            {
                "tourDate": _DAYS,
                "adult": _HEADS,
                "child": _HEADS,
                "currency": _TEXTS.filter(lambda text: text is not None),
                "totalPrice": st.floats(0, allow_infinity=False) | st.sampled_from((0, 2**80, 1e300, 9999999999.995)),
            },
            optional=dict.fromkeys(("tourTime", "pickupLocation", "meetingPoint", "note"), _TEXTS),
        ),
        "raw": st.just({"providerPayload": None}),
    }
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies=st.lists(_BODIES, min_size=1, max_size=3))
def test_whatever_the_schema_accepts_is_applied_or_dead_by_a_named_field(conn: Conn, bodies: list[Any]) -> None:
    ref = new_ref()
    for body in bodies:
        text = json.dumps(body | {"externalBookingRef": ref})
        event = read(text.encode())
        key = runlog.uuid7()
        values = (key, str(key), str(key), "", event.source, ref, event.eventType, instant(event.eventTime), text, True)
        taken = conn.execute(
            "select a.outcome from phase2.accept_event(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) as a", values
        ).fetchone()
        assert taken in (("ACCEPTED",), ("KNOWN",))
        done = conn.execute("select outcome, reason from phase2.work_events(array[%s], array[1.0])", (key,)).fetchone()
        if taken == ("KNOWN",) or done == ("APPLIED", None):
            continue
        assert done == ("DEAD", "VALIDATION_ERROR")
        said = conn.execute(
            "select reason_detail from public.ingest_dead_letter where event_key = %s", (key,)
        ).fetchone()
        assert said == ("VALIDATION_ERROR: tourDate is missing or outside 1900 to 2199",)
        assert not "1900" <= event.booking.tourDate < "2200"


_READ_WHOLE = """
select t.relname, t.seq_scan from pg_catalog.pg_stat_xact_user_tables as t
where t.schemaname = 'public' and t.seq_scan > 0
order by t.relname
"""


@pytest.mark.parametrize("sound", [True, False])
def test_no_plan_is_made_for_small_tables(ops: str, sound: bool) -> None:
    """A worker's session that starts on an empty bridge keeps its plans while the bridge grows."""
    with postgres.connect(ops) as worker:
        if not sound:
            worker.execute("alter function phase2.apply_event(uuid) reset all")
        worker.execute("truncate public.booking_core, public.ingest_event_log cascade")
        worker.execute("analyze public.booking_core, public.ingest_event_log")
        before = worker.execute(_READ_WHOLE).fetchall()
        for event in (Event("CREATED", 0), Event("UPDATED", 1)):
            assert apply(worker, accept(worker, event, "BOKUN", "PLANS")) == "APPLIED"
        after = worker.execute(_READ_WHOLE).fetchall()
        worker.rollback()
    assert (after == before) is sound


def test_keys_made_here_are_version_7_and_in_the_order_of_time(conn: Conn) -> None:
    before = datetime.now(UTC)
    keys = [row[0] for row in conn.execute("select phase2.uuid7(), pg_sleep(0.002) from generate_series(1, 50)")]
    assert all(key.version == 7 and key.variant == "specified in RFC 4122" for key in keys)
    assert keys == sorted(set(keys))
    made = datetime.fromtimestamp((keys[0].int >> 80) / 1000, UTC)
    assert abs(made - before) < timedelta(seconds=5)
