"""Booking events for tests: histories at random, accepted and applied on a real server, and what must come of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import strategies as st

from bridge import runlog

DAY = date(2150, 3, 1)  # no tour of these histories is near, so that no status depends on the day of the test
START = datetime(2026, 11, 1, 20, 30, tzinfo=UTC)  # the next day in Bali
RANK = {"CREATED": 0, "UPDATED": 1, "CANCELLED": 2}

# Values in the form that the rulebook gives them, so that what is expected needs no second rulebook; how it reads the
# raw ones has tests of its own (test_rulebook).
NAMES = (None, "Ann Lee", "Bo", "guest", "Cancelled", "N" * 191)
EMAILS = (None, "ann@mail.test", "bo@mail.test", "no at sign", "other", "no-email@getyourguide.com", "cancelled@x.com")
PHONES = (None, "+62812345678", "+4915112345678")
PLACES = (None, "Ubud", "Lobby")
TIMES = (None, "08:30:00", "20:15:00")
NOTES = (None, "one", "two\nlines")


@dataclass(frozen=True)
class Event:
    """One event; `at` in seconds after START."""

    kind: str
    at: int
    name: str | None = None
    email: str | None = None
    phone: str | None = None
    day: int = 0
    time: str | None = None
    adult: int = 2
    child: int = 1
    currency: str = "USD"
    total: int = 100
    pickup: str | None = None
    meeting_point: str | None = None
    note: str | None = None

    @property
    def moment(self) -> datetime:
        return START + timedelta(seconds=self.at)

    @property
    def place(self) -> tuple[int, int]:
        """Among the events of its booking: a cancellation is the last of its second."""
        return self.at, RANK[self.kind]

    @property
    def tour_date(self) -> date:
        return DAY + timedelta(days=self.day)

    def payload(self, source: str, ref: str) -> dict[str, Any]:
        booking = {
            "tourDate": self.tour_date.isoformat(),
            "tourTime": self.time,
            "adult": self.adult,
            "child": self.child,
            "currency": self.currency,
            "totalPrice": self.total,
            "pickupLocation": self.pickup,
            "meetingPoint": self.meeting_point,
            "note": self.note,
        }
        return {
            "payloadVersion": "v1",
            "eventType": self.kind,
            "eventTime": self.moment.isoformat(),
            "source": source,
            "externalBookingRef": ref,
            "customer": {"name": self.name, "email": self.email, "phone": self.phone},
            "booking": {key: value for key, value in booking.items() if value is not None},
            "raw": {"providerPayload": {}},
        }


def events(direct: bool = False) -> st.SearchStrategy[Event]:
    """`direct`: only what a balisnap booking without items can say."""
    nothing = st.none()
    return st.builds(
        Event,
        kind=st.sampled_from(sorted(RANK)),
        at=st.integers(0, 5),
        name=st.sampled_from(NAMES),
        email=st.sampled_from(EMAILS),
        phone=st.sampled_from(PHONES),
        day=st.integers(0, 1),
        time=nothing if direct else st.sampled_from(TIMES),
        adult=st.integers(0, 2),
        child=st.integers(0, 1),
        currency=st.sampled_from(("USD", "IDR")),
        total=st.integers(0, 100),
        pickup=nothing if direct else st.sampled_from(PLACES),
        meeting_point=st.sampled_from(PLACES),
        note=st.sampled_from(NOTES),
    )


def histories(direct: bool = False) -> st.SearchStrategy[list[Event]]:
    """Events of one booking: of a kind one a second, as the log's second key has it."""
    return st.lists(events(direct), min_size=1, max_size=6, unique_by=lambda event: event.place)


def accept(conn: psycopg.Connection[Any], event: Event, source: str, ref: str) -> UUID:
    """Write the event to the log as the service does; the key under which it is known there."""
    key = runlog.uuid7()
    body = json.dumps(event.payload(source, ref))
    row = conn.execute(
        "select (a.answer ->> 'eventId')::uuid from phase2.accept_event("
        "%s, %s, %s, %s, %s, %s, %s, %s, %s, true) as a",
        (
            key, str(key), str(key), sha256(body.encode()).hexdigest(), source, ref, event.kind, event.moment, body,
        ),
    ).fetchone()  # fmt: skip
    assert row is not None
    return row[0]


def apply(conn: psycopg.Connection[Any], key: UUID) -> str:
    row = conn.execute("select phase2.apply_event(%s)", (key,)).fetchone()
    assert row is not None
    return row[0]


def play(conn: psycopg.Connection[Any], history: Iterable[Event], source: str, ref: str) -> None:
    """Accept and apply one after the other; an event that comes twice does nothing the second time."""
    seen = set()
    for event in history:
        assert apply(conn, accept(conn, event, source, ref)) == ("ALREADY" if event in seen else "APPLIED")
        seen.add(event)


# Left out of every comparison: keys (a booking first seen by ingestion has a random one), refs that tell bookings of a
# test apart, and the times at which rows were written.
_ROWS = """
select
    to_jsonb(c) - array['booking_key', 'external_booking_ref', 'created_at', 'updated_at'] as booking_core,
    to_jsonb(t) - array['booking_key', 'created_at', 'updated_at'] as booking_contact,
    to_jsonb(p) - array['booking_key', 'created_at', 'updated_at'] as booking_party,
    to_jsonb(s) - array['booking_key', 'created_at', 'updated_at'] as ops_booking_state,
    (
        select jsonb_agg(to_jsonb(i) - array['booking_item_key', 'booking_key', 'created_at', 'updated_at'])
        from public.booking_item_snapshot as i where i.booking_key = c.booking_key
    ) as booking_item_snapshot,
    (
        select jsonb_agg(r.external_ref = c.external_booking_ref and r.channel_code = c.channel_code)
        from public.channel_external_refs as r
        where r.entity_key = c.booking_key and r.external_ref_kind = 'BOOKING_REF' and r.entity_type = 'BOOKING'
    ) as channel_external_refs
from public.booking_core as c
left join public.booking_contact as t on c.booking_key = t.booking_key
left join public.booking_party as p on c.booking_key = p.booking_key
left join public.ops_booking_state as s on c.booking_key = s.booking_key
where c.channel_code = %s and c.external_booking_ref = %s
"""


def rows(conn: psycopg.Connection[Any], channel: str, ref: str) -> dict[str, Any]:
    """All that the bridge holds of a booking, by table."""
    cursor = conn.execute(_ROWS, (channel, ref))
    found = cursor.fetchall()
    assert len(found) == 1, f"{len(found)} bookings {channel} {ref}"
    return {column.name: value for column, value in zip(cursor.description or (), found[0], strict=True)}


def name_kind(name: str | None) -> int:
    return 3 if name is None or name in ("guest", "Cancelled") else 1


def email_kind(email: str | None) -> int:
    if email is None or email == "no-email@getyourguide.com":
        return 3
    return 1 if "@" in email else 2


def folded(history: Iterable[Event]) -> Event:
    """What a booking shows in the end, as one event: of each field the latest value, of contacts the best kind first.

    A second, plain statement of the rule that sql/ingest/apply.sql keeps step by step.
    """
    late = sorted(set(history), key=lambda event: event.place, reverse=True)
    last = late[0]
    there = [event for event in late if event.day == last.day]  # a time goes with its date

    def latest(field: str, among: list[Event] = late) -> Any:
        return next((value for event in among if (value := getattr(event, field)) is not None), None)

    return replace(
        last,
        name=latest("name", sorted(late, key=lambda event: name_kind(event.name))),
        email=latest("email", sorted(late, key=lambda event: email_kind(event.email))),
        phone=latest("phone"),
        time=latest("time", there),
        pickup=latest("pickup"),
        meeting_point=latest("meeting_point"),
        note=latest("note"),
    )
