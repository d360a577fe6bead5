"""A backfill and ingestion over the same facts end in the same rows (issue 5, "Apply"), and neither loses the other's.

The facts of a history stand in a source as its booking's final row: in bstadmin, on DIRECT in balisnap, which is where
DIRECT bookings are made. Compared are all columns of the six tables, but for

- keys, and the times at which rows were written: a booking first seen by ingestion has a key of its own (mapping 2);
- `updated_from_source`: it says which way a row came;
- the ids of source rows in `channel_external_refs`: no event carries one; the booking's own ref is compared.

What events cannot say is absent from the facts on both sides: payments, drivers, finance, packages, real items and
travellers, and on DIRECT the tour's time and pickup, which balisnap has only of departures, or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bridge import postgres
from tests.booking_events import START, Event, folded, histories, play, rows
from tests.pipeline import Pipeline, fresh

Conn = psycopg.Connection[Any]
Bookings = dict[tuple[str, str], list[Event]]

_BSTADMIN = """
insert into public.bookings (
    booking_ref, user_id, booking_date, tour_date, tour_time, total_price, currency, number_of_adult, number_of_child,
    status, source, main_contact_name, main_contact_email, phone_number, pickup_location, meeting_point, note, is_paid,
    created_at, updated_at
)
values (
    %(ref)s, '', %(first)s, %(tour_date)s, %(time)s, %(total)s, %(currency)s, %(adult)s, %(child)s, %(status)s,
    %(channel)s, %(name)s, %(email)s, %(phone)s, %(pickup)s, %(meeting_point)s, %(note)s, false, %(first)s, %(last)s
)
"""
_BALISNAP = """
insert into public."Booking" (
    booking_ref, user_id, booking_date, total_price, currency_code, number_of_adult, number_of_child, status, status_v2,
    main_contact_name, main_contact_email, phone_number, meeting_point, note, created_at, updated_at
)
values (
    %(ref)s, '', %(tour_date)s, %(total)s, %(currency)s, %(adult)s, %(child)s, %(status)s, null, %(name)s, %(email)s,
    %(phone)s, %(meeting_point)s, %(note)s, %(first)s, %(last)s
)
"""
_BRIDGE = """
truncate public.booking_core, public.booking_contact, public.booking_party, public.booking_item_snapshot,
public.ops_booking_state, public.ops_assignment, public.payment_event, public.ops_finance_bridge,
public.ingest_event_log, public.ingest_dead_letter, phase2.booking_freshness, phase2.booking_event_times,
phase2.booking_source_times, phase2.ingest_keys, phase2.ingest_nonces;
delete from public.channel_external_refs where entity_type = 'BOOKING';
delete from public.unmapped_queue where queue_type = 'BOOKING_REVIEW';
"""


def today() -> date:
    """The day in Bali, which an event's status is of: the backfill gets the same."""
    return (datetime.now(UTC) + timedelta(hours=8)).date()


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    with fresh(os.environ["TEST_PG_URL"]) as made:
        made.run("A", "C", today(), gates=False)
        yield made


def bookings() -> st.SearchStrategy[Bookings]:
    web = st.lists(histories(direct=True), min_size=15, max_size=15)
    mail = st.lists(histories(), min_size=25, max_size=25)
    return st.tuples(web, mail).map(
        lambda made: {
            (channel, f"{channel}{number}"): history
            for kinds, lists in zip((("DIRECT",), ("GYG", "VIATOR", "MANUAL")), made, strict=True)
            for number, history in enumerate(lists)
            for channel in (kinds[number % len(kinds)],)
        }
    )


def fill(pipeline: Pipeline, facts: Bookings, *, late: timedelta = timedelta(0)) -> None:
    """Each booking's final state as a row of its source, alone there; `late`: how much later it was changed."""
    with (
        postgres.connect(pipeline.databases.bstadmin) as bstadmin,
        postgres.connect(pipeline.databases.balisnap) as balisnap,
    ):
        for conn in (bstadmin, balisnap):
            conn.execute("set session_replication_role = replica")  # no users, no packages: nothing refers to them
        bstadmin.execute("delete from public.bookings")
        balisnap.execute('delete from public."Booking"')
        for (channel, ref), history in facts.items():
            shown = folded(history)
            direct = channel == "DIRECT"
            status = {"CREATED": "NEW", "UPDATED": "UPDATED", "CANCELLED": "CANCELLED"}[shown.kind]
            row = vars(shown) | {
                "ref": ref, "channel": channel, "tour_date": shown.tour_date,
                "status": {"CANCELLED": "cancelled"}.get(status, "pending") if direct else status,
                "first": min(event.moment for event in history).replace(tzinfo=None),
                "last": max(event.moment for event in history).replace(tzinfo=None) + late,
            }  # fmt: skip
            for text in ("name", "email", "phone", "pickup", "meeting_point"):
                row[text] = row[text] or ""  # the sources have no nulls there
            (balisnap if direct else bstadmin).execute(_BALISNAP if direct else _BSTADMIN, row)


def shown(conn: Conn, facts: Bookings) -> dict[tuple[str, str], Any]:
    found = {}
    for channel, ref in facts:
        held = rows(conn, channel, ref)
        for table in ("booking_contact", "ops_booking_state"):
            del held[table]["updated_from_source"]
        found[channel, ref] = held
    return found


def backfill(pipeline: Pipeline, *, gates: bool = False) -> None:
    for outcome in pipeline.run("D", "D", today(), gates=gates):
        said = {gate.gate_id: gate.status for gate in outcome.verdict.gates}
        assert [gate for gate, status in said.items() if status == "FAIL"] == []
        assert (said["D-01"], said["D-03"], said["D-06"], said["G-08"]) == ("PASS",) * 4


@settings(
    max_examples=1,  # of forty histories
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(facts=bookings(), rng=st.randoms(use_true_random=False))
def test_ingestion_and_backfill_end_in_the_same_rows(pipeline: Pipeline, facts: Bookings, rng: Any) -> None:
    with postgres.connect(pipeline.databases.ops, autocommit=True) as ops:
        ops.execute(_BRIDGE)
        for (channel, ref), history in facts.items():
            order = history + rng.sample(history, min(2, len(history)))
            rng.shuffle(order)
            play(ops, order, channel, ref)
        ingested = shown(ops, facts)
        refs = ops.execute("select external_ref_key, external_ref from public.channel_external_refs").fetchall()
        reviews = ops.execute("select count(*) from public.unmapped_queue").fetchone()
        ops.execute(_BRIDGE)
        fill(pipeline, facts)
        backfill(pipeline)
        backfilled = shown(ops, facts)
        kept = ops.execute(
            "select external_ref_key, external_ref from public.channel_external_refs"
            " where external_ref_kind = 'BOOKING_REF'"
        ).fetchall()
    different = {booking: (ingested[booking], backfilled[booking]) for booking in facts
                 if ingested[booking] != backfilled[booking]}  # fmt: skip
    assert not different
    assert sorted(refs) == sorted(kept)
    assert reviews == (0,)


def test_backfill_and_events_keep_what_the_other_knows(pipeline: Pipeline) -> None:
    """Mapping 4.13 both ways, through real runs of batch D and its gates."""
    facts: Bookings = {
        ("GYG", "EVENT-FIRST"): [Event("CREATED", 0, name="Ann Lee", phone="+62812345678", total=50)],
        ("GYG", "SOURCE-LATER"): [Event("CREATED", 0, name="Ann Lee", total=50)],
        ("GYG", "BACKFILL-FIRST"): [Event("CREATED", 0, name="Ann Lee", total=50)],
        ("VIATOR", "NO-SOURCE"): [Event("CREATED", 0, name="Bo")],
    }
    with postgres.connect(pipeline.databases.ops, autocommit=True) as ops:
        ops.execute(_BRIDGE)
        sourced = {booking: history for booking, history in facts.items() if booking[0] == "GYG"}
        fill(pipeline, sourced)
        # events before any backfill: one that the sources do not know yet, one that they have overtaken, one alone
        play(ops, [Event("UPDATED", 60, name="Bo", total=70)], "GYG", "EVENT-FIRST")
        play(ops, [Event("CREATED", -60, name="Bo", total=1, note="one")], "GYG", "SOURCE-LATER")
        play(ops, facts["VIATOR", "NO-SOURCE"], "VIATOR", "NO-SOURCE")
        keys = dict(ops.execute("select external_booking_ref, booking_key from public.booking_core").fetchall())
        alone = rows(ops, "VIATOR", "NO-SOURCE")
        backfill(pipeline)

        # a booking first seen by ingestion keeps its key; the later side has its values, nulls are filled
        assert (
            keys.items()
            <= dict(ops.execute("select external_booking_ref, booking_key from public.booking_core").fetchall()).items()
        )
        first = rows(ops, "GYG", "EVENT-FIRST")
        assert first["booking_core"]["total_price"] == 70
        assert (first["booking_contact"]["main_name"], first["booking_contact"]["phone"]) == ("Bo", "+62812345678")
        later = rows(ops, "GYG", "SOURCE-LATER")
        assert (later["booking_core"]["total_price"], later["booking_contact"]["main_name"]) == (50, "Ann Lee")
        assert rows(ops, "VIATOR", "NO-SOURCE") == alone

        # events after a backfill: older ones fill, also where an event had been before; later ones are shown
        for ref in ("SOURCE-LATER", "BACKFILL-FIRST"):
            play(ops, [Event("UPDATED", -30, name="Cy", phone="+62812345678", total=2)], "GYG", ref)
            held = rows(ops, "GYG", ref)
            assert (held["booking_core"]["total_price"], held["booking_contact"]["main_name"]) == (50, "Ann Lee")
            assert held["booking_contact"]["phone"] == "+62812345678"
        play(ops, [Event("CANCELLED", 90, name="Cancelled", total=50)], "GYG", "BACKFILL-FIRST")
        cancelled = rows(ops, "GYG", "BACKFILL-FIRST")
        assert cancelled["ops_booking_state"]["ops_fulfillment_status"] == "CANCELLED"
        assert cancelled["booking_contact"]["main_name"] == "Ann Lee"

        # and a backfill that has learned nothing since leaves it so
        before = shown(ops, facts)
        backfill(pipeline)
        after = shown(ops, facts)
        del before["GYG", "SOURCE-LATER"]["booking_contact"]["phone"]  # the sources are the later side, with no phone
        assert after["GYG", "SOURCE-LATER"]["booking_contact"].pop("phone") is None
        assert after == before

        # the sources have it too, in the end: theirs is the word again, whatever events said before
        fill(pipeline, {booking: [*history, Event("UPDATED", 120, total=9)] for booking, history in sourced.items()})
        backfill(pipeline, gates=True)
        for channel, ref in sourced:
            play(ops, [Event("UPDATED", 110, total=3)], channel, ref)
            assert rows(ops, channel, ref)["booking_core"]["total_price"] == 9
        moment = ops.execute(
            "select f.last_event_time, t.source_at, t.booking_at from phase2.booking_freshness as f"
            " join phase2.booking_event_times as t on f.booking_key = t.booking_key"
            " where f.booking_key = %s",
            (keys["EVENT-FIRST"],),
        ).fetchone()
        assert moment == (START + timedelta(seconds=110), START + timedelta(seconds=120), None)
