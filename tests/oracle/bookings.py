"""Batch D: bookings and everything that hangs on one (mapping 2 keys, 4)."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from tests.oracle import normalise as n
from tests.oracle import payments as pay
from tests.oracle.catalog import Catalog, ref
from tests.oracle.unmapped import Queue

Row = dict[str, Any]
Tables = dict[str, list[Row]]
Identity = tuple[str, str]
# Largest event time applied, time of the last write of the core API (mapping 4.13); by booking key.
Freshness = dict[uuid.UUID, tuple[datetime | None, datetime | None]]

CHANNELS = {"DIRECT", "GYG", "VIATOR", "BOKUN", "TRIPDOTCOM", "MANUAL"}
NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass
class Candidate:
    """A source booking that fits (mapping 4.1)."""

    system: str
    id: int
    row: Row
    channel: str
    ref: str
    created: datetime
    updated: datetime
    strength: int
    payments: list[pay.Payment]
    made_up_collision: bool = False
    items: list[Row] = field(default_factory=list)

    @property
    def table(self) -> str:
        """Its table, as in Postgres."""
        return "Booking" if self.system == "balisnap" else "bookings"

    @property
    def source(self) -> tuple[str, str, int]:
        """Its source row."""
        return self.system, self.table, self.id

    @property
    def currency(self) -> str:
        """Its currency, normalised (mapping 1)."""
        return n.currency(self.row["currency_code" if self.system == "balisnap" else "currency"])[0]


@dataclass
class Booking:
    """One identity with its candidates, best-ranked first (mapping 4.2, 4.3)."""

    channel: str
    ref: str
    key: uuid.UUID
    candidates: list[Candidate]
    fill_only: bool = False
    core: Row = field(default_factory=dict)
    # The candidate whose items are carried, and those items (mapping 4.9).
    carrier: Candidate | None = None
    carried: list[Row] = field(default_factory=list)

    @property
    def winner(self) -> Candidate:
        """Mapping 4.3: the first of the ranked candidates."""
        return self.candidates[0]

    def of(self, system: str) -> list[Candidate]:
        """The candidates of one source, best-ranked first."""
        return [c for c in self.candidates if c.system == system]


def strength(system: str, row: Row, payments: list[pay.Payment]) -> int:
    """Mapping 4.3: the payment proof of a candidate."""
    if system == "bstadmin":
        if not row["is_paid"]:
            return 0
        return 2 if n.instant(row["paid_at"]) is not None else 1
    proven = pay.proof(payments)
    if proven:
        return proven
    return 1 if pay.balisnap_word(row) in ("PAID", "CONFIRMED", "COMPLETED") else 0


def rank(c: Candidate) -> tuple[Any, ...]:
    """Mapping 4.3: sort key, the best first: strength, later `updated_at`, balisnap, higher id."""
    return -c.strength, -c.updated.timestamp() if c.updated != NEVER else float("inf"), c.system != "balisnap", -c.id


def channel_of(system: str, row: Row) -> str:
    """Mapping 4.1: the channel of a source booking."""
    if system == "balisnap":
        return "DIRECT"
    source = n.enum_like(row["source"]) or ""
    return source if source in CHANNELS else "MANUAL"


def read_candidates(balisnap: Tables, bstadmin: Tables, payments: list[pay.Payment], queue: Queue) -> list[Candidate]:
    """Mapping 4.1 and 1 (external ref, values that do not fit): the candidates, and the rows that cannot be one."""
    rows = [("balisnap", row) for row in balisnap.get("Booking", [])]
    rows += [("bstadmin", row) for row in bstadmin.get("bookings", [])]
    real = {(channel_of(system, row), n.external_ref(row["booking_ref"])) for system, row in rows}
    paid: dict[int, list[pay.Payment]] = {}
    for payment in payments:
        paid.setdefault(payment.booking_id, []).append(payment)
    items: dict[int, list[Row]] = {}
    for item in sorted(balisnap.get("BookingItem", []), key=lambda r: r["booking_item_id"]):
        items.setdefault(item["booking_id"], []).append(item)

    found: list[Candidate] = []
    for system, row in rows:
        pk, channel = row["booking_id"], channel_of(system, row)
        booking_ref = n.external_ref(row["booking_ref"])
        collision = False
        if booking_ref is None:
            booking_ref = f"{'BS' if system == 'balisnap' else 'OPS'}-{pk}"
            if (channel, booking_ref) in real:
                booking_ref += f"-{system.upper()}"
                collision = True
        if system == "balisnap":
            day = n.travel_day(n.instant(row["booking_date"]))
        else:
            day = n.bali_day(n.instant(row["tour_date"]))
        created = n.instant(row["created_at"])
        if len(booking_ref) > 128 or not n.in_range(day) or not n.in_range(created):
            queue.booking(system, "Booking" if system == "balisnap" else "bookings", pk)
            continue
        assert created is not None
        mine = paid.get(pk, []) if system == "balisnap" else []
        found.append(
            Candidate(
                system=system,
                id=pk,
                row=row,
                channel=channel,
                ref=booking_ref,
                created=created,
                updated=n.instant(row["updated_at"]) or NEVER,
                strength=strength(system, row, mine),
                payments=mine,
                made_up_collision=collision,
                items=items.get(pk, []) if system == "balisnap" else [],
            )
        )
    return found


def computed_key(identity: Identity, taken: set[uuid.UUID]) -> uuid.UUID:
    """Mapping 2: the key of a booking that the backfill sees first.

    A renamed booking keeps the key of its first ref; who comes with that ref later needs another one.
    """
    name = f"canonical:booking_identity:{identity[0]}:{identity[1]}"
    while n.key(n.BOOKING_NAMESPACE, name) in taken:
        name += ":again"
    return n.key(n.BOOKING_NAMESPACE, name)


def assign_keys(groups: dict[Identity, list[Candidate]], before: Tables) -> dict[Identity, uuid.UUID]:
    """Mapping 2: a booking is found by identity, else by its id ref; otherwise it gets a computed key."""
    held = {(r["channel_code"], r["external_booking_ref"]): r["booking_key"] for r in before.get("booking_core", [])}
    identity_of = {key: identity for identity, key in held.items()}
    by_id_ref = {
        (r["external_ref_kind"], r["external_ref"]): r["entity_key"]
        for r in before.get("channel_external_refs", [])
        if r["entity_type"] == "BOOKING" and r["external_ref_kind"] in ("BALISNAP_BOOKING_ID", "BSTADMIN_BOOKING_ID")
    }
    keys: dict[Identity, uuid.UUID] = {}
    claimed: set[uuid.UUID] = set()
    for identity in sorted(groups):
        if identity in held:
            keys[identity] = held[identity]
            continue
        keys[identity] = computed_key(identity, set(identity_of))
        for c in groups[identity]:
            old = by_id_ref.get((f"{c.system.upper()}_BOOKING_ID", str(c.id)))
            if old in identity_of and identity_of[old] not in groups and old not in claimed:
                keys[identity] = old
                claimed.add(old)
                break
    return keys


def gather(candidates: list[Candidate], before: Tables, freshness: Freshness) -> list[Booking]:
    """Mapping 4.2, 4.3, 4.13: the identities with their ranked candidates and keys."""
    groups: dict[Identity, list[Candidate]] = {}
    for c in candidates:
        groups.setdefault((c.channel, c.ref), []).append(c)
    for group in groups.values():
        group.sort(key=rank)
    keys = assign_keys(groups, before)
    existing = {r["booking_key"] for r in before.get("booking_core", [])}
    bookings = []
    for identity, group in sorted(groups.items()):
        key = keys[identity]
        touched = [t for t in (n.instant(t) for t in freshness.get(key, ())) if t is not None]
        newest = max(c.updated for c in group)
        fill_only = key in existing and bool(touched) and max(touched) > newest
        bookings.append(Booking(identity[0], identity[1], key, group, fill_only))
    return bookings


def carry_items(booking: Booking) -> None:
    """Mapping 4.9: items of the best-ranked balisnap candidate that has any; cancelled ones only when all are."""
    for c in booking.of("balisnap"):
        if c.items:
            alive = [item for item in c.items if n.enum_like(item["item_status"]) != "CANCELLED"]
            booking.carrier, booking.carried = c, alive or c.items
            return


def departure_of(booking: Booking, c: Candidate, departures: dict[int, Row]) -> datetime | None:
    """Mapping 4.5: the departure of the first carried item that has one."""
    if c is booking.carrier:
        for item in booking.carried:
            departure = departures.get(item["departure_id"]) if item["departure_id"] is not None else None
            start = n.instant(departure["start_date"]) if departure is not None else None
            if n.in_range(n.bali_day(start)):
                return start
    return None


def tour_date(booking: Booking, c: Candidate, departures: dict[int, Row]) -> date:
    """Mapping 4.5: the tour date of one candidate."""
    if c.system == "bstadmin":
        day = n.bali_day(n.instant(c.row["tour_date"]))
    else:
        day = n.bali_day(departure_of(booking, c, departures)) or n.travel_day(n.instant(c.row["booking_date"]))
    assert day is not None
    return day


def tour_time(booking: Booking, c: Candidate, departures: dict[int, Row]) -> time | None:
    """Mapping 4.5: the tour time of one candidate; midnight of a departure means unknown."""
    if c.system == "bstadmin":
        return n.tour_time(c.row["tour_time"])
    start = departure_of(booking, c, departures)
    clock = n.bali(start).time() if start is not None else None
    return None if clock == time(0) else clock


def total(booking: Booking, c: Candidate, queue: Queue) -> Decimal:
    """Mapping 4.5: the total of one candidate, before a negative one is clamped in the core."""
    raw = c.row["total_price"]
    if c is booking.carrier:
        if all(n.currency(item["currency_code"])[0] == c.currency for item in booking.carried):
            raw = Decimal(0)
            for item in booking.carried:
                raw = n.EXACT.add(raw, item["total_amount"] if item["total_amount"] is not None else Decimal(0))
        else:
            queue.booking(*c.source, reason="MULTI_MATCH")
    amount, bad = n.money(raw)
    if bad:
        queue.booking(*c.source)
    return amount


def first_known(candidates: Iterable[Candidate], value: Callable[[Candidate], Any]) -> Any:
    """Mapping 4.4: the winner's field, where null the next candidate's."""
    return next((value(c) for c in candidates if value(c) is not None), None)


def note(booking: Booking) -> str | None:
    """Mapping 4.4: the distinct notes, balisnap's first, then by rank."""
    notes: list[tuple[str, str]] = []
    for c in booking.of("balisnap") + booking.of("bstadmin"):
        clean = n.lines(c.row["note"])
        if clean is not None and clean not in [known for _, known in notes]:
            notes.append((c.system, clean))
    if len(notes) == 1:
        return notes[0][1]
    return "\n".join(f"[{system}] {clean}" for system, clean in notes) or None


def received_day(c: Candidate) -> date | None:
    """Mapping 4.4: the Bali day on which a candidate's booking was received."""
    if c.system == "bstadmin":
        return n.bali_day(n.instant(c.row["booking_date"]))
    return n.bali_day(c.created)


def customer_status(booking: Booking) -> str:
    """Mapping 5.2: the customer's payment status as the sources say it."""
    web, ops = booking.of("balisnap"), booking.of("bstadmin")
    if booking.channel == "DIRECT" and web:
        payments = [p for c in web for p in c.payments]
        if payments:
            return pay.status_of_payments(payments)
        if any(c.strength == 2 for c in ops):
            return "PAID"
        return pay.status_of_booking(web[0].row)
    return "PAID" if ops and ops[0].row["is_paid"] else "PENDING_PAYMENT"


def is_reversed(booking: Booking, before: Tables) -> bool:
    """Mapping 5.3: a refund, or a payment that the bridge holds as captured and its source now as cancelled."""
    held = {r["payment_key"]: r["payment_status_v2"] for r in before.get("payment_event", [])}
    payments = [p for c in booking.of("balisnap") for p in c.payments]
    return any(p.status == "REFUNDED" or (p.cancelled and held.get(p.key) in pay.CAPTURES) for p in payments)


def fulfilment(booking: Booking, day: date, paid: bool, finances: dict[int, Row], as_of: date) -> str:
    """Mapping 4.7: the fulfilment engine."""
    ops = booking.of("bstadmin")
    if ops:
        row, finance = ops[0].row, finances.get(ops[0].id)
        stored = n.enum_like(row["status"])
        if stored in ("CANCELLED", "NO_SHOW"):
            return stored or ""
        if pay.is_settled(finance):
            return "DONE"
        if finance is not None and n.instant(finance["validated_at"]) is not None:
            return "COMPLETED"
        if day <= as_of:
            return "ATTENTION"
        if stored == "UPDATED":
            return "UPDATED"
        if row["assigned_driver_id"] is not None and finance is not None and finance["pattern_id"] is not None:
            return "READY"
        return "NEW"
    if pay.balisnap_word(booking.of("balisnap")[0].row) in ("CANCELLED", "REFUNDED", "EXPIRED"):
        return "CANCELLED"
    if day < as_of:
        return "COMPLETED" if paid else "CANCELLED"
    return "ATTENTION" if day == as_of else "NEW"


def package_ref(booking: Booking, catalog: Catalog) -> tuple[str, uuid.UUID | None, int | None]:
    """Mapping 4.8: type and key of what was booked, and the raw package number."""
    supplier = next((c for c in booking.candidates if c.row["package_id"] is not None), None)
    pid = supplier.row["package_id"] if supplier is not None else None
    if booking.carried and booking.carried[0]["variant_id"] in catalog.variant_keys:
        return "CATALOG_VARIANT", catalog.variant_keys[booking.carried[0]["variant_id"]], pid
    if supplier is not None and supplier.system == "balisnap":
        if pid in catalog.variant_of_legacy:
            return "CATALOG_VARIANT", catalog.variant_of_legacy[pid], pid
        if pid in catalog.product_of_legacy:
            return "CATALOG_PRODUCT", catalog.product_of_legacy[pid], pid
    target = catalog.packages.get(pid) if pid is not None else None
    if target is None:
        return "LEGACY_PACKAGE", None, pid
    if target.variant_key is not None:
        return "CATALOG_VARIANT", target.variant_key, pid
    return "CATALOG_PRODUCT", target.product_key, pid


def disagree(booking: Booking, days: list[date], totals: list[Decimal]) -> bool:
    """Mapping 4.12: any two candidates differ in tour date, or by more than 0.01 in one currency."""
    for i, one in enumerate(booking.candidates):
        for j, other in enumerate(booking.candidates):
            if days[i] != days[j]:
                return True
            if one.currency == other.currency and abs(totals[i] - totals[j]) > n.CENT:
                return True
    return False


def build_core(
    booking: Booking,
    catalog: Catalog,
    finances: dict[int, Row],
    departures: dict[int, Row],
    before: Tables,
    as_of: date,
    queue: Queue,
) -> Row:
    """Mapping 4.4, 4.5, 4.7, 4.8, 4.12, 5.2, 5.3: the row of `booking_core` as the sources alone would have it."""
    winner, ranked = booking.winner, booking.candidates
    days = [tour_date(booking, c, departures) for c in ranked]
    totals = [total(booking, c, queue) for c in ranked]
    for c in ranked:
        if n.currency(c.row["currency_code" if c.system == "balisnap" else "currency"])[1]:
            queue.booking(*c.source)
        if c.made_up_collision:
            queue.identity(booking.channel, booking.ref, "MULTI_MATCH")
    if totals[0] < 0:
        queue.booking(*winner.source)
    if disagree(booking, days, totals):
        queue.identity(booking.channel, booking.ref, "MULTI_MATCH")
    web, ops = booking.of("balisnap"), booking.of("bstadmin")
    called_off = bool(web) and pay.balisnap_word(web[0].row) in ("CANCELLED", "REFUNDED")
    if called_off and ops and n.enum_like(ops[0].row["status"]) not in ("CANCELLED", "NO_SHOW"):
        queue.identity(booking.channel, booking.ref, "MULTI_MATCH")

    status = customer_status(booking)
    held = next((r for r in before.get("booking_core", []) if r["booking_key"] == booking.key), None)
    was_paid = held is not None and held["customer_payment_status"] == "PAID"
    if was_paid and status != "PAID" and not is_reversed(booking, before):
        status = "PAID"
        if not booking.fill_only:
            queue.identity(booking.channel, booking.ref, "MULTI_MATCH")

    same_day = [c for c, day in zip(ranked, days, strict=True) if day == days[0]]
    ref_type, ref_key, package_id = package_ref(booking, catalog)
    received = [day for day in map(received_day, ranked) if day is not None]
    return {
        "booking_key": booking.key,
        "channel_code": booking.channel,
        "source_enum_compat": n.enum_like(ops[0].row["source"]) if ops else "DIRECT",
        "external_booking_ref": booking.ref,
        "booking_created_at": min(c.created for c in ranked),
        "booking_date": min(received, default=None),
        "tour_date": days[0],
        "tour_time": first_known(same_day, lambda c: tour_time(booking, c, departures)),
        "currency_code": winner.currency,
        "total_price": max(totals[0], Decimal("0.00")),
        "number_of_adult": n.count(first_known(ranked, lambda c: c.row["number_of_adult"])),
        "number_of_child": n.count(first_known(ranked, lambda c: c.row["number_of_child"])),
        "customer_payment_status": status,
        "ops_fulfillment_status": fulfilment(booking, days[0], status == "PAID", finances, as_of),
        "package_ref_type": ref_type,
        "package_ref_key": ref_key,
        "legacy_package_id": package_id,
        "note": note(booking),
    }


def build_contact(booking: Booking, before: Tables, queue: Queue) -> Row:
    """Mapping 4.6: the contact, field by field, the latest candidate first."""
    latest = sorted(booking.candidates, key=lambda c: c.updated, reverse=True)

    def pick(choices: list[list[tuple[Candidate, str]]], width: int | None) -> tuple[str | None, bool]:
        """The first value of the first kind that has one, cut to fit; and whether it is of the first kind."""
        for kind, values in enumerate(choices):
            for c, value in values:
                if width is not None and len(value) > width:
                    queue.booking(*c.source)
                return value[:width], kind == 0
        return None, False

    def values(
        column: str, of: list[Candidate], rule: Callable[[str | None], str | None]
    ) -> list[tuple[Candidate, str]]:
        return [(c, clean) for c in of if (clean := rule(c.row[column])) is not None]

    names = values("main_contact_name", latest, n.text)
    emails = values("main_contact_email", latest, n.text)
    real_emails = [(c, v) for c, v in emails if not n.is_placeholder_email(v)]
    name, good_name = pick([[(c, v) for c, v in names if not n.is_placeholder_name(v)], names], 191)
    email, good_email = pick(
        [
            [(c, v) for c, v in real_emails if n.is_valid_email(v)],
            [(c, v) for c, v in real_emails if not n.is_valid_email(v)],
            [(c, v) for c, v in emails if n.is_placeholder_email(v)],
        ],
        191,
    )
    web = [c for c in latest if c.system == "balisnap"]
    ops = [c for c in latest if c.system == "bstadmin"]
    contact = {
        "booking_key": booking.key,
        "main_name": name,
        "main_email": email,
        "phone": pick([values("phone_number", latest, n.phone)], 64)[0],
        "pickup_location": pick([values("pickup_location", ops, n.place), values("meeting_point", web, n.place)], None)[
            0
        ],
        "meeting_point": pick([values("meeting_point", latest, n.place)], None)[0],
        "is_placeholder_name": not good_name,
        "is_placeholder_email": not good_email,
        "updated_from_source": booking.winner.system,
    }
    held = next((r for r in before.get("booking_contact", []) if r["booking_key"] == booking.key), None)
    if held is not None:
        for value, flag in (("main_name", "is_placeholder_name"), ("main_email", "is_placeholder_email")):
            if contact[flag] and not held[flag]:
                contact[value], contact[flag] = held[value], False
    return contact


def build_items(booking: Booking, catalog: Catalog, queue: Queue) -> list[Row]:
    """Mapping 4.9: the carried items, or one synthetic item."""
    rows: list[Row] = []
    for item in booking.carried:
        source = ("balisnap", "BookingItem", item["booking_item_id"])
        currency, bad = n.currency(item["currency_code"])
        amounts: dict[str, Decimal] = {}
        for column in (
            "adult_unit_price",
            "child_unit_price",
            "infant_unit_price",
            "subtotal",
            "discount_amount",
            "tax_amount",
            "total_amount",
        ):
            amounts[column], bad_amount = n.money(item[column])
            bad = bad or bad_amount
        if amounts["total_amount"] < 0:
            amounts["total_amount"], bad = Decimal("0.00"), True
        if bad:
            queue.booking(*source)
        snapshot = item["snapshot"]
        if snapshot is None:
            snapshot = {}
        elif not isinstance(snapshot, dict):
            snapshot = {"snapshot": snapshot}
        departure = item["departure_id"]
        rows.append(
            {
                "booking_item_key": item_key(item),
                "booking_key": booking.key,
                "variant_key": catalog.variant_keys.get(item["variant_id"]),
                "variant_external_id": str(item["variant_id"]),
                "departure_external_id": str(departure) if departure is not None else None,
                "currency_code": currency,
                "adult_qty": n.count(item["adult_qty"]),
                "child_qty": n.count(item["child_qty"]),
                "infant_qty": n.count(item["infant_qty"]),
                "adult_unit_price": amounts["adult_unit_price"],
                "child_unit_price": amounts["child_unit_price"],
                "discount_amount": amounts["discount_amount"],
                "tax_amount": amounts["tax_amount"],
                "total_amount": amounts["total_amount"],
                "snapshot_json": {
                    **snapshot,
                    "item_status": n.enum_like(item["item_status"]),
                    "infant_unit_price": amounts["infant_unit_price"],
                    "subtotal": amounts["subtotal"],
                },
            }
        )
    if rows:
        return rows
    core = booking.core
    heads = core["number_of_adult"] + core["number_of_child"]
    unit = n.money(n.EXACT.divide(core["total_price"], Decimal(heads)))[0] if heads else Decimal("0.00")
    name = f"canonical:booking_identity:{booking.channel}:{booking.ref}:synthetic"
    return [
        {
            "booking_item_key": n.key(n.BOOKING_NAMESPACE, name),
            "booking_key": booking.key,
            "variant_key": None,
            "variant_external_id": None,
            "departure_external_id": None,
            "currency_code": core["currency_code"],
            "adult_qty": core["number_of_adult"],
            "child_qty": core["number_of_child"],
            "infant_qty": 0,
            "adult_unit_price": unit,
            "child_unit_price": unit,
            "discount_amount": Decimal("0.00"),
            "tax_amount": Decimal("0.00"),
            "total_amount": core["total_price"],
            "snapshot_json": {"synthetic": True},
        }
    ]


def build_party(booking: Booking, travelers: list[Row]) -> Row:
    """Mapping 4.10: heads over the carried items, else the core's; the travellers of those items."""
    core = booking.core
    party = {
        "booking_key": booking.key,
        "adult_qty": core["number_of_adult"],
        "child_qty": core["number_of_child"],
        "infant_qty": 0,
        "traveler_rows": None,
    }
    if booking.carried:
        for column in ("adult_qty", "child_qty", "infant_qty"):
            party[column] = sum(n.count(item[column]) for item in booking.carried)
        ids = {item["booking_item_id"] for item in booking.carried}
        mine = [row for row in travelers if row["booking_item_id"] in ids]
        party["traveler_rows"] = sorted(mine, key=lambda row: row["traveler_id"]) or None
    return party


def build_state(booking: Booking, before: Tables) -> Row:
    """Mapping 4.11: the ops state, with the one rule for `paid_at`."""
    ops = booking.of("bstadmin")
    best = ops[0].row if ops else None
    paid = booking.core["customer_payment_status"] == "PAID"
    paid_at = None
    if paid:
        captures = [p.time for c in booking.of("balisnap") for p in c.payments if p.status in pay.CAPTURES]
        if booking.channel == "DIRECT" and captures:
            paid_at = min(captures)
        elif best is not None:
            paid_at = n.instant(best["paid_at"])
    held = next((r for r in before.get("ops_booking_state", []) if r["booking_key"] == booking.key), None)
    return {
        "booking_key": booking.key,
        "ops_fulfillment_status": booking.core["ops_fulfillment_status"],
        "assigned_driver_id": best["assigned_driver_id"] if best is not None else None,
        "assigned_partner_id": None,
        "assigned_at": n.instant(best["assigned_at"]) if best is not None else None,
        "is_paid_flag": paid,
        "paid_at": paid_at,
        "state_version": held["state_version"] if held is not None else 1,
        "updated_from_source": "bstadmin" if best is not None else "balisnap",
    }


def item_key(item: Row) -> uuid.UUID:
    """Mapping 2: key of a carried item."""
    return n.key(n.BOOKING_NAMESPACE, f"balisnap:BookingItem:{item['booking_item_id']}")


def assignment_key(booking: Booking) -> uuid.UUID | None:
    """Mapping 2, 4.11: key of the assignment that the best-ranked bstadmin candidate speaks of."""
    ops = booking.of("bstadmin")
    driver = ops[0].row["assigned_driver_id"] if ops else None
    if driver is None:
        return None
    return n.key(n.BOOKING_NAMESPACE, f"bstadmin:bookings:{ops[0].id}:assignment:{driver}")


def held_children(before: Tables, table: str, key: str, booking: Booking, owners: dict[Any, uuid.UUID]) -> list[Row]:
    """The rows of a booking before the run, without those that the sources now carry for another booking."""
    rows = (r for r in before.get(table, []) if r["booking_key"] == booking.key)
    return [dict(r) for r in rows if owners.get(r[key], booking.key) == booking.key]


def build_assignments(
    booking: Booking, before: Tables, owners: dict[Any, uuid.UUID], queue: Queue
) -> tuple[list[Row], list[Row]]:
    """Mapping 4.11: one active row with a driver; a changed driver closes the old row and adds one.

    Gives the rows that the sources speak of, and the older ones of the booking.
    """
    held = held_children(before, "ops_assignment", "assignment_key", booking, owners)
    ops = booking.of("bstadmin")
    wanted: list[Row] = []
    key = assignment_key(booking)
    if key is not None:
        since = n.instant(ops[0].row["assigned_at"]) or n.instant(ops[0].row["updated_at"])
        if n.in_range(since):
            wanted.append(
                {
                    "assignment_key": key,
                    "booking_key": booking.key,
                    "driver_id": ops[0].row["assigned_driver_id"],
                    "partner_id": None,
                    "assignment_source": "BSTADMIN",
                    "assigned_at": since,
                    "unassigned_at": None,
                    "is_active": True,
                    "notes": None,
                }
            )
        else:
            queue.booking(*ops[0].source)
    if booking.fill_only:
        return fill_children(held, wanted, "assignment_key")
    keys = {row["assignment_key"] for row in wanted}
    speaker = ops[0] if ops else booking.winner
    for row in held:
        if row["is_active"] and row["assignment_key"] not in keys:
            row |= {"is_active": False, "unassigned_at": n.instant(speaker.row["updated_at"])}
    return wanted, [row for row in held if row["assignment_key"] not in keys]


def fill(held: Row | None, computed: Row) -> Row:
    """Mapping 4.13: only nulls are filled; a missing row is all nulls."""
    if held is None:
        return computed
    return {column: computed[column] if held.get(column) is None else held[column] for column in computed}


def fill_children(held: list[Row], computed: list[Row], key: str) -> tuple[list[Row], list[Row]]:
    """Mapping 4.13 for items and assignments: none held, all are added; else only nulls of equal keys.

    Gives the rows that the sources speak of, and the other ones of the booking.
    """
    if not held:
        return computed, []
    found = {row[key]: row for row in computed}
    spoken = [fill(row, found[row[key]]) for row in held if row[key] in found]
    return spoken, [row for row in held if row[key] not in found]


def fill_core(held: Row, computed: Row) -> Row:
    """Mapping 4.13 for the core: identity is no fill; time and package only where what they hang on agrees."""
    row = fill(held, computed)
    row |= {"channel_code": computed["channel_code"], "external_booking_ref": computed["external_booking_ref"]}
    if held["tour_date"] != computed["tour_date"]:
        row["tour_time"] = held["tour_time"]
    kept = held if held["package_ref_type"] != "LEGACY_PACKAGE" else computed
    row |= {"package_ref_type": kept["package_ref_type"], "package_ref_key": kept["package_ref_key"]}
    return row


def fill_contact(held: Row | None, computed: Row) -> Row:
    """Mapping 4.13 for the contact: a filled name or e-mail brings its flag."""
    if held is None:
        return computed
    row = fill(held, computed)
    for value, flag in (("main_name", "is_placeholder_name"), ("main_email", "is_placeholder_email")):
        if held[value] is None and computed[value] is not None:
            row[flag] = computed[flag]
    return row


def fill_state(held: Row | None, computed: Row) -> Row:
    """Mapping 4.13 for the state: times only where what they hang on agrees."""
    if held is None:
        return computed
    row = fill(held, computed)
    if not held["is_paid_flag"]:
        row["paid_at"] = held["paid_at"]
    if held["assigned_driver_id"] is not None and held["assigned_driver_id"] != computed["assigned_driver_id"]:
        row["assigned_at"] = held["assigned_at"]
    return row


def build_refs(bookings: list[Booking]) -> list[Row]:
    """Mapping 4.2: one `BOOKING_REF` per identity, one id ref per candidate."""
    rows: list[Row] = []
    for b in bookings:
        rows.append(ref("BOOKING", b.key, b.channel, "BOOKING_REF", b.ref, b.winner.source))
        for c in b.candidates:
            rows.append(ref("BOOKING", b.key, b.channel, f"{c.system.upper()}_BOOKING_ID", c.id, c.source))
    return rows


def review_gone(bookings: list[Booking], before: Tables, freshness: Freshness, queue: Queue) -> set[uuid.UUID]:
    """Mapping 2: a bridge booking with no candidate left and no event is never deleted: review."""
    alive = {b.key for b in bookings}
    events = {(e["channel_code"], e["external_booking_ref"]) for e in before.get("ingest_event_log", [])}
    gone = set()
    for row in before.get("booking_core", []):
        if row["booking_key"] in alive:
            continue
        gone.add(row["booking_key"])
        identity = (row["channel_code"], row["external_booking_ref"])
        if identity not in events and freshness.get(row["booking_key"], (None, None))[0] is None:
            queue.identity(*identity, "NO_MATCH")
    return gone


def build(
    balisnap: Tables,
    bstadmin: Tables,
    catalog: Catalog,
    as_of: date,
    before: Tables,
    freshness: Freshness,
    queue: Queue,
) -> Tables:
    """Batches D and E as a whole (mapping 4, 5)."""
    payments = pay.read_payments(balisnap)
    finances = pay.finance_of(bstadmin)
    departures = {row["departure_id"]: row for row in balisnap.get("Departure", [])}
    travelers = balisnap.get("BookingTraveler", [])
    bookings = gather(read_candidates(balisnap, bstadmin, payments, queue), before, freshness)
    gone = review_gone(bookings, before, freshness, queue)

    def held(table: str, key: uuid.UUID) -> Row | None:
        return next((r for r in before.get(table, []) if r["booking_key"] == key), None)

    def stays(table: str, key: str, rows: list[Row]) -> list[Row]:
        """Rows of bookings that no source speaks of any more."""
        written = {row[key] for row in rows}
        return [dict(r) for r in before.get(table, []) if r["booking_key"] in gone and r[key] not in written]

    names = ("booking_core", "booking_contact", "booking_party", "booking_item_snapshot")
    result: Tables = {name: [] for name in (*names, "ops_booking_state", "ops_assignment")}
    older: Tables = {"booking_item_snapshot": [], "ops_assignment": []}
    for b in bookings:
        carry_items(b)
    item_owners = {item_key(item): b.key for b in bookings for item in b.carried}
    assignment_owners = {key: b.key for b in bookings if (key := assignment_key(b)) is not None}
    for b in bookings:
        b.core = build_core(b, catalog, finances, departures, before, as_of, queue)
        core, contact = b.core, build_contact(b, before, queue)
        party, items = build_party(b, travelers), build_items(b, catalog, queue)
        state = build_state(b, before)
        if b.fill_only:
            old_core = held("booking_core", b.key)
            assert old_core is not None
            core = fill_core(old_core, core)
            contact = fill_contact(held("booking_contact", b.key), contact)
            party = fill(held("booking_party", b.key), party)
            state = fill_state(held("ops_booking_state", b.key), state)
            old_items = held_children(before, "booking_item_snapshot", "booking_item_key", b, item_owners)
            items, kept_items = fill_children(old_items, items, "booking_item_key")
            older["booking_item_snapshot"] += kept_items
        result["booking_core"].append(core)
        result["booking_contact"].append(contact)
        result["booking_party"].append(party)
        result["booking_item_snapshot"] += items
        result["ops_booking_state"].append(state)
        assignments, kept_assignments = build_assignments(b, before, assignment_owners, queue)
        result["ops_assignment"] += assignments
        older["ops_assignment"] += kept_assignments
    # A row goes with its key: what moved to another identity takes its item and assignment along.
    for table, key in (("booking_item_snapshot", "booking_item_key"), ("ops_assignment", "assignment_key")):
        written = {row[key] for row in result[table]}
        result[table] += [row for row in older[table] if row[key] not in written]
    for table, key in (
        ("booking_core", "booking_key"),
        ("booking_contact", "booking_key"),
        ("booking_party", "booking_key"),
        ("ops_booking_state", "booking_key"),
        ("booking_item_snapshot", "booking_item_key"),
        ("ops_assignment", "assignment_key"),
    ):
        result[table] += stays(table, key, result[table])
    booking_keys = {c.id: b.key for b in bookings for c in b.of("balisnap")}
    result["payment_event"] = pay.build_events(payments, balisnap, booking_keys, before, queue)
    ranked = [(b.key, [c.id for c in b.of("bstadmin")]) for b in bookings]
    result["ops_finance_bridge"] = pay.build_finance(finances, ranked, before, queue)
    result["channel_external_refs"] = build_refs(bookings)
    return result
