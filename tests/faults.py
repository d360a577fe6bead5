"""The fault catalogue as data: what is planted where, and which gate has to name it.

Faults of schema, seeds, landing and bridge are in `faults.sql`, to be planted in a copy of a healthy shop. Those of
the sources are the scenarios of the samples (`sql/sample/scenarios.sql`), which go through landing and batches; here
is only where their rows are to be found again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

LANDED = (
    *(
        f'landing_balisnap."{name}"'
        for name in (
            *("TourPackage", "TourImage", "TourProduct", "TourVariant", "VariantRatePlan", "VariantItinerary"),
            *("Departure", "Booking", "BookingItem", "BookingTraveler", "Payment"),
        )
    ),
    *(
        f"landing_bstadmin.{name}"
        for name in (
            *("tours", "tour_packages", "tour_images", "tour_itineraries"),
            *("bookings", "booking_finances", "booking_finance_items"),
        )
    ),
)

PLACES = ("source", "landing", "bridge", "schema", "seed", "run", "log", "drill")


@dataclass(frozen=True)
class Fault:
    """One way to break a gate; `batch` is the one whose verdict has to fail of it."""

    gate: str
    place: str
    title: str
    batch: str
    rows: str
    plant: str
    names: str

    @property
    def id(self) -> str:
        after = f", after {self.batch}" if self.gate.startswith("G") else ""
        return f"{self.gate}{after}, {self.place}: {self.title}"

    def apply(self, conn: psycopg.Connection) -> set[str]:
        """Plant it; returns the keys that the gate has to name (none: there is no row to name)."""
        if self.rows:
            conn.execute(b"create temporary table planted as " + self.rows.encode())
        conn.execute(self.plant.encode())
        names = self.names or ("select key::text from planted" if self.rows else "")
        keys = {row[0] for row in conn.execute(names.encode()).fetchall()} if names else set()
        if names and not keys:
            raise ValueError(f"{self.id}: the shop has no row to plant it in")
        return keys


def read(name: str) -> dict[str, Fault]:
    """The faults of a file beside this one, by their ids."""
    faults: dict[str, Fault] = {}
    text = Path(__file__).with_name(name).read_text(encoding="utf-8")
    for block in text.split("\n-- @fault ")[1:]:
        head, body = block.split("\n", 1)
        gate, place, title, *after = (part.strip() for part in head.split("|"))
        parts = re.split(r"^-- @(rows|plant|names)\n", body, flags=re.M)
        given = {name: statement.strip() for name, statement in zip(parts[1::2], parts[2::2], strict=True)}
        fault = Fault(
            gate,
            place,
            title,
            after[0] if after else gate[0],
            _one(given.get("rows", "")),
            given["plant"],
            _one(given.get("names", "")),
        )
        if fault.id in faults or place not in PLACES:
            raise ValueError(f"there is another {fault.id}, or no such place")
        faults[fault.id] = fault
    return faults


def _one(statement: str) -> str:
    """A single statement, without its end and the comments after it."""
    return statement.split(";", 1)[0]


FAULTS = read("faults.sql")

_BOOKINGS = """
select distinct r.entity_key::text from public.channel_external_refs as r
where r.external_ref_kind = %s and r.external_ref = any(%s)
"""
_CAPTURES = """
select 'payload:' || e.payment_key || ':' || (l.raw_payload #>> '{purchase_units,0,payments,captures,0,id}')
from landing_balisnap."Payment" as l
inner join public.payment_event as e
    on e.payment_key = rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)
where %s::text is null and l.payment_id::text = any(%s)
"""


@dataclass(frozen=True)
class Changed:
    """A source table that a scenario changes, and how its gate names the rows: a query on the ops database.

    Its parameters: `kind`, and the texts of the changed rows' primary keys (or of their column `by`).
    """

    source: str
    table: str
    names: str
    kind: str | None = None
    by: str | None = None  # another column than the primary key


_SHOP = Changed("balisnap", "Booking", _BOOKINGS, "BALISNAP_BOOKING_ID")
_OFFICE = Changed("bstadmin", "bookings", _BOOKINGS, "BSTADMIN_BOOKING_ID")

CHANGED: dict[str, Changed] = {
    "broken-page": Changed(
        "bstadmin", "audit_logs", "select 'audit: last changes' where %s::text is null and %s::text[] is not null"
    ),
    "orphan-products": Changed(
        "balisnap",
        "TourProduct",
        "select rulebook.row_key('product', 'balisnap', 'TourProduct', i)::text"
        " from unnest(%s::text[] || %s::text[]) as i",
    ),
    "unmatched-packages": Changed(
        "bstadmin",
        "tour_packages",
        "select 'bstadmin:tour_packages:' || i || ':NO_MATCH' from unnest(%s::text[] || %s::text[]) as i",
    ),
    "rateless-variants": Changed(
        "balisnap",
        "VariantRatePlan",
        "select rulebook.row_key('variant', 'balisnap', 'TourVariant', i)::text"
        " from unnest(%s::text[] || %s::text[]) as i",
        by="variant_id",
    ),
    "duplicate-pax": _SHOP,
    "conflicting-dates": _OFFICE,
    "unreadable-currency": _SHOP,
    "cancelled-on-the-web": _SHOP,
    "done-unpaid": _OFFICE,
    "audit-mismatch": Changed("balisnap", "Payment", _CAPTURES),
    "swapped-captures": Changed("balisnap", "Payment", _CAPTURES),
}
