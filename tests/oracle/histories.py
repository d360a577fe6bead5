"""Small random messy source databases, and changes to them, for the differential tests.

`make` gives both sources as tables in memory which respect the sources' physical constraints; values come from
small pools, so that collisions, duplicates, ties and odd values happen in most of them. `mutate` gives what they
look like some time later, `people` what a person did to the review queue in between, `write` fills a database, and
`shrink` finds a smaller pair of sources with the same disagreement. Everything is a function of a `random.Random`.
"""

import copy
import random
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.oracle import rows as r

Row = dict[str, Any]
Tables = dict[str, list[Row]]
Random = random.Random

# Parents first. Each table: primary key, then (column, parent table, what happens to the child on delete).
BALISNAP: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "User": ("id", []),
    "TourPackage": ("package_id", []),
    "TourImage": ("image_id", [("tour_id", "TourPackage", "cascade")]),
    "TourProduct": ("product_id", [("legacy_package_id", "TourPackage", "null")]),
    "TourVariant": (
        "variant_id",
        [("product_id", "TourProduct", "cascade"), ("legacy_package_id", "TourPackage", "null")],
    ),
    "VariantRatePlan": ("rate_plan_id", [("variant_id", "TourVariant", "cascade")]),
    "VariantItinerary": ("itinerary_id", [("variant_id", "TourVariant", "cascade")]),
    "Departure": ("departure_id", [("variant_id", "TourVariant", "cascade")]),
    "Booking": ("booking_id", [("user_id", "User", "cascade"), ("package_id", "TourPackage", "null")]),
    "BookingItem": (
        "booking_item_id",
        [
            ("booking_id", "Booking", "cascade"),
            ("variant_id", "TourVariant", "cascade"),
            ("departure_id", "Departure", "null"),
        ],
    ),
    "BookingTraveler": ("traveler_id", [("booking_item_id", "BookingItem", "cascade")]),
    "Payment": ("payment_id", [("booking_id", "Booking", "cascade"), ("user_id", "User", "cascade")]),
}
BSTADMIN: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "users": ("id", []),
    "tours": ("tour_id", []),
    "tour_packages": ("package_id", [("tour_id", "tours", "null")]),
    "tour_images": ("image_id", [("tour_id", "tour_packages", "cascade")]),
    "drivers": ("id", []),
    "tour_cost_patterns": ("pattern_id", [("package_id", "tour_packages", "cascade")]),
    "bookings": (
        "booking_id",
        [
            ("user_id", "users", "cascade"),
            ("package_id", "tour_packages", "null"),
            ("assigned_driver_id", "drivers", "null"),
        ],
    ),
    "booking_finances": (
        "booking_finance_id",
        [("booking_id", "bookings", "cascade"), ("pattern_id", "tour_cost_patterns", "null")],
    ),
    "booking_finance_items": ("finance_item_id", [("booking_finance_id", "booking_finances", "cascade")]),
}
SCHEMAS = BALISNAP | BSTADMIN
UNIQUE: dict[str, list[tuple[str, ...]]] = {
    "TourPackage": [("slug",), ("priority",)],
    "TourProduct": [("slug",), ("legacy_package_id",)],
    "TourVariant": [("legacy_package_id",), ("product_id", "variant_code")],
    "Booking": [("booking_ref",)],
    "Payment": [("payment_ref",)],
    "tours": [("slug",)],
    "tour_packages": [("slug",), ("priority",)],
    "bookings": [("booking_ref",)],
    "booking_finances": [("booking_id",)],
}
JSON_COLUMNS = {"snapshot", "raw_payload"}

ZERO_WIDTH = "\u200b"
LONG = "Long " * 60
NAMES = ["Bali Tour", "bali  tour", "BALI TOUR!", "Ubud", "Ub\u00fad", "Nusa\u00a0Penida", "nusa-penida", "Lovina 2"]
ODD_NAMES = ["", " \u00a0 ", ZERO_WIDTH, "\u6771\u4eac", LONG, "-", "!!!", "Uluwatu\u0301\u0663"]
SLUGS = ["bali-tour", "Bali Tour", "bali_tour", "ubud", "Ubud ", "ub\u00fad", "nusa-penida", "NUSA PENIDA", "lovina"]
ODD_SLUGS = ["", " ", "--", "\u6771\u4eac", "u" * 200, f"ubud{ZERO_WIDTH}", "bali-tour-2", "ubud-1"]
TEXTS = [None, "", "  ", "plain", "two  spaces", f"zero{ZERO_WIDTH}width", "\ufeffbom\u2060", "tab\tand\u3000wide"]
LINES = [None, "", "\n \n", "one", "one\r\n\r\n\n two ", "\n\nlead\n", "a\u2028b", "tail \n\n\n", f"x\n{ZERO_WIDTH}\ny"]
REFS = [
    "R1",
    "r1",
    " R1 ",
    f"R{ZERO_WIDTH}1",
    "R\u200d1",
    "R2",
    "r2",
    "R3",
    "R4",
    "E\u0301-5",
    "\u00c9-5",
    "A  B",
    "a b",
]
ODD_REFS = [None, None, "", " ", "BS-1", "BS-2", "bs-3", "OPS-1", "OPS-2", "ops-3", "X" * 128, "X" * 129]
PAYMENT_REFS = [None, None, "P1", " P1", f"P1{ZERO_WIDTH}", "p1", "P2", "P2 ", "P3", ""]
ODD_PAYMENT_REFS = ["Q" * 128, "Q" * 129, "Q" * 128 + " "]
CURRENCIES = ["USD", "USD", "USD", "usd", "IDR", "IDR", "EUR"]
ODD_CURRENCIES = ["Rp", "", "U$D", " us", "id", "\u00a0"]
CONTACT_NAMES = [
    "Ayu Lestari",
    "ayu lestari",
    "Guest",
    " GUEST ",
    "Customer",
    "",
    "-",
    "N/A",
    "John\u00a0Doe",
    "Cancelled",
]
EMAILS = [
    "ayu@mail.test",
    "AYU@Mail.Test",
    "no-email@getyourguide.com",
    "someone@example.com",
    "not an e-mail",
    "x@y",
    "",
    "-",
    "Test@Test.com",
    "a@b.c d",
]
PHONES = [
    "081234567890",
    "+6281234567890",
    "0062 812-3456-7890",
    "6281234567890",
    "620812345678",
    "+62 (0)812 345 678",
    "(+1) 555 123 4567",
    "12",
    "n/a",
    "-",
    "",
    "wa: 0812 3456 7890 / 2",
    "62812345",
    "\u0660\u0661812345678",
    "1" * 70,
]
PLACES = ["", "-", "N/A", "unknown", "Kuta", " Kuta ", "Hotel\u00a0 Santika", "na", "Sanur beach"]
TOUR_TIMES = [
    None,
    "",
    "9:00",
    "09.30",
    "9:00 AM",
    "12 am",
    "12:30 p.m.",
    "7pm",
    "13:00 PM",
    "24:00",
    "9:5",
    "8:15:30",
    "8.15.30 PM",
    "8.15:30",
    "00:00",
    "9",
    "soon",
    " 10:00 A.M. ",
    "0:15 am",
    "10:00 am pickup",
]
WEB_STATUSES = ["pending", "paid", "Confirmed ", "completed", "cancelled", "canceled", "expired", "refunded", "odd", ""]
WEB_STATUSES_V2 = ["DRAFT", "PENDING_PAYMENT", "PAID", "CONFIRMED", "CANCELLED", "COMPLETED", "EXPIRED", "REFUNDED"]
PAYMENT_STATUSES = ["pending", "Success", "captured", "paid", "partially refunded", "Partially-Refunded", "reversed"]
PAYMENT_STATUSES += ["voided", "canceled", "declined", "odd word", "", "w" * 70, " completed "]
PAYMENT_STATUSES_V2 = ["PENDING", "AUTHORIZED", "COMPLETED", "FAILED", "CANCELLED", "REFUNDED", "PARTIALLY_REFUNDED"]
OPS_STATUSES = ["NEW", "NEW", "READY", "ATTENTION", "COMPLETED", "DONE", "UPDATED", "CANCELLED", "NO_SHOW"]
OPS_SOURCES = ["DIRECT", "DIRECT", "DIRECT", "GYG", "VIATOR", "MANUAL", "BOKUN", "TRIPDOTCOM"]
SNAPSHOTS: list[Any] = [None, None, {}, {"title": "Ubud", "n": 1}, {"subtotal": "old"}, [1, 2], "text", 5, True]
PAYLOADS: list[Any] = [None, None, {}, {"id": "5O1", "amount": {"value": "10.00"}}, [1, {"a": None}], "raw", 0]

MONEY = ["0", "10", "50", "100", "100.004", "100.005", "100.01", "33.335", "99.99", "250000", "0.001"]
ODD_MONEY = ["NaN", "-5", "-0.004", "9999999999.994", "9999999999.995", "1e20", "-100"]
OPS_MONEY = ["0", "10", "50", "100", "100.01", "100.02", "99.99", "250000"]
ODD_OPS_MONEY = ["NaN", "-5", "-100"]

DAY = datetime(2026, 6, 1)
# The day to run with: tours lie on both sides of it and on it.
AS_OF = DAY.date()
# Around midnight in Bali (16:00 UTC), in browsers from UTC-11 to UTC+12, and plain instants.
CLOCKS = [
    timedelta(hours=-8),
    timedelta(hours=-8, milliseconds=-1),
    timedelta(hours=-8, milliseconds=1),
    timedelta(hours=-12),
    timedelta(hours=11),
    timedelta(hours=12),
    timedelta(0),
    timedelta(hours=1, minutes=30),
    timedelta(hours=2, minutes=15, seconds=7, milliseconds=120),
]
ODD_TIMES: list[Any] = [
    "infinity",
    "-infinity",
    datetime(1899, 12, 31, 15, 0),
    datetime(1899, 12, 31, 23, 30),
    datetime(2199, 12, 31, 20, 0),
    datetime(2200, 1, 2),
    datetime(1, 1, 2),
]


class Maker:
    """Draws values: usual ones from small pools, odd ones now and then."""

    def __init__(self, rng: Random, odd: float) -> None:
        self.rng, self.odd = rng, odd

    def one(self, usual: list[Any], odd: list[Any] | None = None) -> Any:
        """A value from the pool, sometimes from the odd one."""
        return self.rng.choice(odd if odd and self.rng.random() < self.odd else usual)

    def chance(self, share: float) -> bool:
        """Whether something with this probability happens."""
        return self.rng.random() < share

    def number(self, usual: list[str], odd: list[str]) -> Decimal:
        """An amount."""
        return Decimal(self.one(usual, odd))

    def time(self) -> Any:
        """An instant within some days of `DAY`, or an odd one."""
        if self.chance(self.odd / 4):
            return self.rng.choice(ODD_TIMES)
        return DAY + timedelta(days=self.rng.choice([-40, -2, -1, 0, 0, 1, 2, 30])) + self.rng.choice(CLOCKS)

    def changed(self) -> Any:
        """An `updated_at`: few values, so that ties happen."""
        if self.chance(self.odd / 8):
            return self.rng.choice(["infinity", "-infinity"])
        return r.MADE + timedelta(days=self.rng.choice([0, 0, 1, 2]))

    def maybe(self, ids: list[int], share: float = 0.6) -> int | None:
        """One of the ids, or null."""
        return self.rng.choice(ids) if ids and self.chance(share) else None

    def add(self, tables: Tables, table: str, row: Row) -> bool:
        """Add a row unless a unique index or a parent forbids it."""
        for columns in UNIQUE.get(table, []):
            value = tuple(row[c] for c in columns)
            taken = (tuple(other[c] for c in columns) for other in tables[table])
            if None not in value and value in taken:
                return False
        tables[table].append(row)
        return True

    def ids(self, tables: Tables, table: str) -> list[Any]:
        """The ids of a table."""
        return [row[SCHEMAS[table][0]] for row in tables[table]]


def make(rng: Random, size: int = 1, odd: float = 0.2) -> tuple[Tables, Tables]:
    """Both sources, a few dozen rows each at size 1; `odd` is the share of odd values."""
    m = Maker(rng, odd)
    balisnap: Tables = {table: [] for table in BALISNAP}
    bstadmin: Tables = {table: [] for table in BSTADMIN}
    balisnap["User"].append(r.user("u1"))
    bstadmin["users"].append(r.ops_user("a1"))
    make_catalog(m, balisnap, bstadmin, size)
    make_bookings(m, balisnap, bstadmin, size)
    for tables in (balisnap, bstadmin):
        for rows in tables.values():
            rng.shuffle(rows)
    return balisnap, bstadmin


def public(m: Maker) -> Row:
    """The columns that product and package share."""
    return {
        "short_description": m.one(LINES),
        "description": m.one(LINES),
        "thumbnail_url": m.one([None, None, "", "https://img.test/1.jpg", " https://img.test/2.jpg "]),
        "color_code": m.one([None, None, "#fff", "", " red "], ["c" * 40]),
        "priority": m.one([None, None, None, m.rng.randint(1, 99)]),
        "is_featured": m.chance(0.3),
    }


def size_columns(m: Maker) -> Row:
    """Duration and group size of a package."""
    return {
        "duration_days": m.one([None, 1, 2, 3], [0, -1]),
        "min_booking": m.one([None, 1, 2], [0, -2]),
        "max_booking": m.one([None, 4, 10], [0, 1]),
    }


def make_catalog(m: Maker, balisnap: Tables, bstadmin: Tables, size: int) -> None:
    """Products, variants, rates, packages and images of both sources."""
    for pid in range(1, 3 * size + 1):
        m.add(
            balisnap,
            "TourPackage",
            r.package(
                pid,
                slug=f"legacy-{pid}",
                price_per_person=m.number(MONEY, ODD_MONEY),
                price_per_child=m.one([None, m.number(MONEY, ODD_MONEY)]),
                **public(m),
                **size_columns(m),
            ),
        )
    packages = m.ids(balisnap, "TourPackage")
    for pid in range(1, 4 * size + 1):
        m.add(
            balisnap,
            "TourProduct",
            r.product(
                pid,
                legacy_package_id=m.maybe(packages, 0.4),
                product_name=m.one(NAMES, ODD_NAMES),
                slug=m.one(SLUGS, ODD_SLUGS),
                category=m.one(TEXTS, [LONG]),
                region=m.one(TEXTS, [LONG]),
                base_meeting_point=m.one([None, *PLACES]),
                country_code=m.one(["ID", "id", None, " I", "", "\u00a0s"]),
                is_active=m.chance(0.8),
                **public(m),
            ),
        )
    products = m.ids(balisnap, "TourProduct")
    for vid in range(1, 6 * size + 1):
        if products:
            m.add(
                balisnap,
                "TourVariant",
                r.variant(
                    vid,
                    m.rng.choice(products),
                    legacy_package_id=m.maybe(packages, 0.4),
                    variant_code=m.one(
                        ["STD", "STD ", " STD", "std", "VIP", "A B", "A  B"], ["", " ", "k" * 70, "STD-2"]
                    ),
                    variant_name=m.one(NAMES, ODD_NAMES),
                    service_type=m.one(["PRIVATE", "SHARED", "CUSTOM"]),
                    duration_days=m.one([1, 2], [0, -3]),
                    duration_nights=m.one([None, 0, 1], [-1]),
                    min_pax=m.one([1, 2], [0, -1]),
                    max_pax=m.one([None, None, 5, 10], [0, 1]),
                    currency_code=m.one(CURRENCIES, ODD_CURRENCIES),
                    is_default=m.chance(0.4),
                    is_active=m.chance(0.8),
                    booking_cutoff_hours=m.one([24, 0], [-5]),
                    cancellation_policy=m.one(LINES),
                ),
            )
    variants = m.ids(balisnap, "TourVariant")
    for rid in range(1, 6 * size + 1):
        if variants:
            m.add(balisnap, "VariantRatePlan", make_plan(m, rid, m.rng.choice(variants)))
    for did in range(1, 4 * size + 1):
        if variants:
            m.add(balisnap, "Departure", r.departure(did, m.rng.choice(variants), m.time()))
    for tid in range(1, 2 * size + 1):
        m.add(bstadmin, "tours", r.tour(tid, is_active=m.chance(0.6)))
    tours = m.ids(bstadmin, "tours")
    for pid in range(1, 5 * size + 1):
        m.add(
            bstadmin,
            "tour_packages",
            r.tour_package(
                pid,
                tour_id=m.maybe(tours, 0.7),
                package_name=m.one([*NAMES, f"Own {pid}"], ODD_NAMES),
                slug=m.one([*SLUGS, f"own-{pid}"], ODD_SLUGS),
                price_per_person=m.one([None, m.number(OPS_MONEY, ODD_OPS_MONEY)]),
                price_per_child=m.one([None, m.number(OPS_MONEY, ODD_OPS_MONEY)]),
                base_currency=m.one(CURRENCIES, ODD_CURRENCIES),
                **public(m),
                **size_columns(m),
            ),
        )
    for source, table, parent in ((balisnap, "TourImage", "TourPackage"), (bstadmin, "tour_images", "tour_packages")):
        for iid in range(1, 3 * size + 1):
            if m.ids(source, parent):
                url = m.one(["https://img.test/a.jpg", " https://img.test/b.jpg"], ["", " "])
                m.add(source, table, r.image(iid, m.rng.choice(m.ids(source, parent)), url))


def make_plan(m: Maker, rid: int, variant_id: int) -> Row:
    """A rate plan."""
    return r.plan(
        rid,
        variant_id,
        m.number(MONEY, ODD_MONEY),
        traveler_type=m.one(["ADULT", "CHILD", "INFANT"]),
        currency_code=m.one(CURRENCIES, ODD_CURRENCIES),
        min_quantity=m.one([None, 1]),
        max_quantity=m.one([None, 9]),
        valid_from=m.one([None, m.time()]),
        valid_to=m.one([None, m.time()]),
        is_active=m.chance(0.6),
    )


def contact(m: Maker) -> Row:
    """The contact columns that both sources have."""
    return {
        "main_contact_name": m.one(CONTACT_NAMES, [LONG, ZERO_WIDTH]),
        "main_contact_email": m.one(EMAILS, ["e" * 200 + "@mail.test", "e" * 200]),
        "phone_number": m.one(PHONES),
        "meeting_point": m.one(PLACES),
        "note": m.one([None, None, "Vegan", "vegan", " Vegan ", *LINES]),
    }


def make_bookings(m: Maker, balisnap: Tables, bstadmin: Tables, size: int) -> None:
    """Bookings of both sources with items, travellers, payments, drivers and finances."""
    refs, odd_refs = REFS * size, ODD_REFS
    if size > 1:
        refs = REFS + [f"R{i}" for i in range(6, 8 * size)]
    packages, variants = m.ids(balisnap, "TourPackage"), m.ids(balisnap, "TourVariant")
    departures = m.ids(balisnap, "Departure")
    for bid in range(1, 6 * size + 1):
        m.add(
            balisnap,
            "Booking",
            r.web(
                bid,
                booking_ref=m.one(refs, odd_refs),
                package_id=m.maybe(packages),
                booking_date=m.time(),
                total_price=m.number(MONEY, ODD_MONEY),
                number_of_adult=m.one([0, 1, 2, 3], [-1]),
                number_of_child=m.one([None, 0, 1], [-1]),
                status=m.one(WEB_STATUSES),
                status_v2=m.one([None, None, *WEB_STATUSES_V2]),
                currency_code=m.one(CURRENCIES, ODD_CURRENCIES),
                created_at=m.time() if m.chance(0.3) else r.MADE,
                updated_at=m.changed(),
                **contact(m),
            ),
        )
    webs = m.ids(balisnap, "Booking")
    for iid in range(1, 7 * size + 1):
        if webs and variants:
            m.add(
                balisnap,
                "BookingItem",
                r.item(
                    iid,
                    m.rng.choice(webs),
                    m.rng.choice(variants),
                    departure_id=m.maybe(departures, 0.5),
                    item_status=m.one(["ACTIVE", "ACTIVE", "COMPLETED", "CANCELLED"]),
                    currency_code=m.one(["USD", "USD", "IDR", "usd"], ODD_CURRENCIES),
                    adult_qty=m.one([0, 1, 2, 3], [-1]),
                    child_qty=m.one([0, 0, 1], [-2]),
                    infant_qty=m.one([0, 0, 1], [-2]),
                    snapshot=m.one(SNAPSHOTS),
                    **{
                        column: m.number(MONEY, ODD_MONEY)
                        for column in ("adult_unit_price", "child_unit_price", "infant_unit_price", "subtotal")
                    },
                    discount_amount=m.number(["0", "5"], ODD_MONEY),
                    tax_amount=m.number(["0", "5.555"], ODD_MONEY),
                    total_amount=m.number(MONEY, ODD_MONEY),
                ),
            )
    items = m.ids(balisnap, "BookingItem")
    for tid in range(1, 3 * size + 1):
        if items:
            row = r.traveler(tid, m.rng.choice(items), passport_number=m.one([None, "X123"]), title=m.one(TEXTS))
            m.add(balisnap, "BookingTraveler", row)
    for pid in range(1, 7 * size + 1):
        if webs:
            m.add(balisnap, "Payment", make_payment(m, pid, m.rng.choice(webs)))
    for did in range(1, 4):
        m.add(bstadmin, "drivers", r.driver(did))
    tour_packages = m.ids(bstadmin, "tour_packages")
    for pid in range(1, 3):
        if tour_packages:
            m.add(bstadmin, "tour_cost_patterns", r.pattern(pid, m.rng.choice(tour_packages)))
    for bid in range(1, 8 * size + 1):
        m.add(
            bstadmin,
            "bookings",
            r.ops(
                bid,
                booking_ref=m.one(refs, odd_refs),
                package_id=m.maybe(tour_packages),
                booking_date=m.time(),
                tour_date=m.time(),
                tour_time=m.one(TOUR_TIMES),
                total_price=m.number(OPS_MONEY, ODD_OPS_MONEY),
                currency=m.one(CURRENCIES, ODD_CURRENCIES),
                number_of_adult=m.one([0, 1, 2, 3], [-1]),
                number_of_child=m.one([None, 0, 1], [-1]),
                status=m.one(OPS_STATUSES),
                source=m.one(OPS_SOURCES),
                pickup_location=m.one(PLACES),
                assigned_driver_id=m.maybe([1, 2, 3], 0.5),
                assigned_at=m.one([None, m.time()]),
                is_paid=m.chance(0.6),
                paid_at=m.one([None, m.time()]),
                created_at=m.time() if m.chance(0.3) else r.MADE,
                updated_at=m.changed(),
                **contact(m),
            ),
        )
    bookings, patterns = m.ids(bstadmin, "bookings"), m.ids(bstadmin, "tour_cost_patterns")
    for fid in range(1, 5 * size + 1):
        row = r.finance(
            fid,
            m.rng.choice(bookings),
            pattern_id=m.maybe(patterns),
            validated_at=m.one([None, m.time()]),
            is_locked=m.chance(0.3),
        )
        m.add(bstadmin, "booking_finances", row)
    finances = m.ids(bstadmin, "booking_finances")
    for iid in range(1, 6 * size + 1):
        m.add(bstadmin, "booking_finance_items", r.finance_item(iid, m.rng.choice(finances), m.chance(0.6)))


def make_payment(m: Maker, pid: int, booking_id: int) -> Row:
    """A payment."""
    return r.payment(
        pid,
        booking_id,
        payment_date=m.time() if m.chance(0.5) else r.MADE,
        amount=m.number(MONEY, ODD_MONEY),
        payment_method=m.one(["paypal", " PayPal ", "bank  transfer", ""], ["m" * 40]),
        payment_status=m.one(PAYMENT_STATUSES),
        payment_status_v2=m.one([None, *PAYMENT_STATUSES_V2, "COMPLETED", "REFUNDED"]),
        currency_code=m.one(CURRENCIES, ODD_CURRENCIES),
        gateway=m.one([None, "paypal", " "], ["g" * 70]),
        gateway_order_id=m.one([None, "Order 1", ""], ["o" * 129, "o" * 128]),
        gateway_capture_id=m.one([None, None, "cap1", " cap1 ", ""], ["c" * 129]),
        raw_payload=m.one(PAYLOADS),
        payment_ref=m.one(PAYMENT_REFS, ODD_PAYMENT_REFS),
    )


def delete(tables: Tables, table: str, pk: Any) -> None:
    """Delete a row with all that hangs on it (restricted children too), as an application would."""
    key = SCHEMAS[table][0]
    tables[table] = [row for row in tables[table] if row[key] != pk]
    for child, (child_key, parents) in SCHEMAS.items():
        if child not in tables:
            continue
        for column, parent, action in parents:
            if parent != table:
                continue
            for row in [row for row in tables[child] if row[column] == pk]:
                if action == "null":
                    row[column] = None
                else:
                    delete(tables, child, row[child_key])


def mutate(rng: Random, balisnap: Tables, bstadmin: Tables, changes: int = 3) -> tuple[Tables, Tables]:
    """Both sources some time later: a few deletions, renamed refs, payments, refunds, changed drivers, statuses."""
    web, ops = copy.deepcopy(balisnap), copy.deepcopy(bstadmin)
    m = Maker(rng, 0.1)
    later = r.MADE + timedelta(days=3)

    def pick(tables: Tables, table: str) -> Row | None:
        return rng.choice(tables[table]) if tables[table] else None

    def change(tables: Tables, table: str, **given: Any) -> None:
        row = pick(tables, table)
        if row is None:
            return
        others = {**tables, table: [other for other in tables[table] if other is not row]}
        if m.add(others, table, {**row, **given}):
            row |= given
            if m.chance(0.8) and "updated_at" in row:
                row["updated_at"] = later

    def remove(tables: Tables, table: str) -> None:
        row = pick(tables, table)
        if row is not None:
            delete(tables, table, row[SCHEMAS[table][0]])

    def new_id(tables: Tables, table: str) -> int:
        return max([*m.ids(tables, table), 100]) + 1

    def new_payment() -> None:
        booking = pick(web, "Booking")
        if booking is not None:
            m.add(web, "Payment", make_payment(m, new_id(web, "Payment"), booking["booking_id"]))

    def refund() -> None:
        old = pick(web, "Payment")
        if old is not None:
            given = {"payment_status_v2": "REFUNDED", "payment_ref": None, "payment_date": DAY + timedelta(days=50)}
            m.add(web, "Payment", {**old, **given, "payment_id": new_id(web, "Payment")})

    def new_plan() -> None:
        variant = pick(web, "TourVariant")
        if variant is not None:
            m.add(web, "VariantRatePlan", make_plan(m, new_id(web, "VariantRatePlan"), variant["variant_id"]))

    def another_driver() -> None:
        change(ops, "bookings", assigned_driver_id=m.maybe([1, 2, 3], 0.8), assigned_at=m.one([None, m.time()]))

    actions: list[Callable[[], None]] = [
        lambda: remove(web, "Booking"),
        lambda: remove(ops, "bookings"),
        lambda: remove(web, "Payment"),
        lambda: remove(web, "BookingItem"),
        lambda: remove(web, "VariantRatePlan"),
        lambda: remove(web, "TourProduct"),
        lambda: remove(ops, "tour_packages"),
        lambda: remove(ops, "booking_finances"),
        lambda: change(web, "Booking", booking_ref=m.one([*REFS, "NEW-1", "NEW-2"], ODD_REFS)),
        lambda: change(ops, "bookings", booking_ref=m.one([*REFS, "NEW-1", "NEW-2"], ODD_REFS)),
        lambda: change(ops, "bookings", source=m.one(OPS_SOURCES)),
        lambda: change(web, "Payment", payment_status_v2="CANCELLED"),
        lambda: change(web, "Payment", payment_status_v2=m.one([None, *PAYMENT_STATUSES_V2])),
        lambda: change(web, "Booking", status_v2=m.one([None, *WEB_STATUSES_V2])),
        lambda: change(web, "Booking", **contact(m)),
        lambda: change(ops, "bookings", **contact(m)),
        lambda: change(ops, "bookings", is_paid=m.chance(0.3), paid_at=None),
        lambda: change(ops, "bookings", status=m.one(OPS_STATUSES)),
        lambda: change(ops, "bookings", tour_date=m.time(), tour_time=m.one(TOUR_TIMES)),
        lambda: change(web, "BookingItem", item_status=m.one(["ACTIVE", "CANCELLED"])),
        lambda: change(web, "TourProduct", slug=m.one(SLUGS, ODD_SLUGS), product_name=m.one(NAMES)),
        lambda: change(web, "TourVariant", is_default=True),
        lambda: change(ops, "tour_packages", package_name=m.one(NAMES), slug=m.one(SLUGS)),
        lambda: change(ops, "booking_finances", validated_at=m.one([None, DAY])),
        lambda: change(ops, "booking_finance_items", paid=True),
        another_driver,
        another_driver,
        new_payment,
        new_payment,
        refund,
        new_plan,
    ]
    for _ in range(changes):
        rng.choice(actions)()
    return web, ops


def people(rng: Random, after: Tables, changes: int = 2) -> list[Row]:
    """What people did to the queue after a run: some of its rows, changed (status, who, and often a resolution)."""
    touched: list[Row] = []
    open_rows = [row for row in after["unmapped_queue"] if row["status"] == "OPEN"]
    for row in rng.sample(open_rows, min(changes, len(open_rows))):
        row = dict(row, status=rng.choice(["IN_REVIEW", "RESOLVED", "RESOLVED", "CLOSED"]))
        if row["status"] != "IN_REVIEW":
            row |= {"resolved_by": "ketut@shop.test", "resolved_at": DAY}
        entity = rng.choice(["PRODUCT", "VARIANT"])
        rows = after["catalog_product" if entity == "PRODUCT" else "catalog_variant"]
        if row["queue_type"] == "PRODUCT_MAPPING" and row["source_table"] == "tour_packages" and rows:
            key = str(rng.choice(rows)[f"{entity.lower()}_key"])
            row["payload"] = {**(row["payload"] or {}), "resolution": {"entity_type": entity, "entity_key": key}}
        touched.append(row)
    return touched


def databases(size: int = 1, odd: float = 0.2) -> st.SearchStrategy[tuple[Tables, Tables]]:
    """A Hypothesis strategy for both sources."""
    return seeds().map(lambda seed: make(random.Random(seed), size, odd))


def seeds() -> st.SearchStrategy[int]:
    """Seeds for `make`: a failure is then one number, to be looked into with `shrink`."""
    return st.integers(min_value=0, max_value=2**32 - 1)


def write(conn: psycopg.Connection[Any], tables: Tables, schema: str = "public", replace: bool = False) -> None:
    """Fill a source database (schema as in the sources' DDL) in the caller's transaction.

    `replace` empties the tables first, for the next state of a history.
    """
    names = [name for name in SCHEMAS if name in tables]
    if replace:
        for name in reversed(names):
            conn.execute(sql.SQL("delete from {}").format(sql.Identifier(schema, name)))
    for name in names:
        # Rows of one table have the same columns, save for those that a test added.
        groups: dict[tuple[str, ...], list[list[Any]]] = {}
        for row in tables[name]:
            values = [Jsonb(v) if c in JSON_COLUMNS and v is not None else v for c, v in row.items()]
            groups.setdefault(tuple(row), []).append(values)
        for columns, rows in groups.items():
            insert = sql.SQL("insert into {} ({}) values ({})").format(
                sql.Identifier(schema, name),
                sql.SQL(", ").join(map(sql.Identifier, columns)),
                sql.SQL(", ").join(sql.Placeholder() * len(columns)),
            )
            with conn.cursor() as cursor:
                cursor.executemany(insert, rows)


def shrink(balisnap: Tables, bstadmin: Tables, still_fails: Callable[[Tables, Tables], bool]) -> tuple[Tables, Tables]:
    """Drop rows as long as `still_fails` holds: a smaller pair of sources with the same disagreement."""

    def smaller(pair: tuple[Tables, Tables]) -> Iterable[tuple[Tables, Tables]]:
        for side, tables in enumerate(pair):
            for table in tables:
                if table in ("User", "users"):
                    continue
                for row in list(tables[table]):
                    less = copy.deepcopy(pair)
                    delete(less[side], table, row[SCHEMAS[table][0]])
                    yield less

    pair = (balisnap, bstadmin)
    while True:
        found = next((less for less in smaller(pair) if still_fails(*less)), None)
        if found is None:
            return pair
        pair = found
