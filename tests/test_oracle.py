"""The oracle against the text of the mapping rules: small cases, expected values worked out by hand.

Each test names its paragraph. No database; the differential tests of the pipeline stand on these.
"""

import random
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tests.oracle import bridge, difference, histories
from tests.oracle import normalise as n
from tests.oracle import rows as r

AS_OF = date(2026, 6, 1)
BOOKING = uuid.UUID("1396788e-dfe4-558e-977f-cbac85111c4c")
PRODUCT = uuid.UUID("1b2c8dda-1d99-57f5-bdc1-b9fb772d8186")
VARIANT = uuid.UUID("6b647a19-b987-5dd4-8c1e-94bceb859370")
PAYMENT = uuid.UUID("2dfcb1f0-47c5-5823-9bc3-c281e0fd702f")

Row = dict[str, Any]
Tables = dict[str, list[Row]]


def run(before: Tables | None = None, as_of: date = AS_OF, freshness: Any = None, **tables: list[Row]) -> Tables:
    """The bridge of some source tables, named as in Postgres."""
    balisnap = {name: rows for name, rows in tables.items() if name[0].isupper()}
    bstadmin = {name: rows for name, rows in tables.items() if name[0].islower()}
    return bridge(balisnap, bstadmin, as_of, before, freshness)


def only(rows: list[Row]) -> Row:
    """The one row."""
    assert len(rows) == 1, rows
    return rows[0]


def queue(out: Tables, status: str | None = None) -> set[tuple[str, str, str, str]]:
    """The queue rows: type, table, pk, reason."""
    return {
        (q["queue_type"], q["source_table"], q["source_pk"], q["reason_code"])
        for q in out["unmapped_queue"]
        if status is None or q["status"] == status
    }


def core(out: Tables) -> Row:
    """The one booking."""
    return only(out["booking_core"])


def product_key(pid: int) -> uuid.UUID:
    """Key of a balisnap product."""
    return uuid.uuid5(PRODUCT, f"balisnap:TourProduct:{pid}")


def variant_key(vid: int) -> uuid.UUID:
    """Key of a balisnap variant."""
    return uuid.uuid5(VARIANT, f"balisnap:TourVariant:{vid}")


def utc(*parts: int) -> datetime:
    """An instant."""
    return datetime(*parts, tzinfo=UTC)


# 1. Normalisation


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        (None, None),
        ("", None),
        ("\u200b \u2060\ufeff", None),
        ("  two \u00a0\u3000 words\t", "two words"),
        ("zero\u200bwidth", "zerowidth"),
        ("a\u0085b\u2028c", "a b c"),
        ("join\u200der", "join\u200der"),
    ],
)
def test_text(raw: str | None, clean: str | None) -> None:
    """Mapping 1, text."""
    assert n.text(raw) == clean


def test_there_are_25_white_space_code_points() -> None:
    """Mapping 1, text."""
    assert len(n.WHITE_SPACE) == len(set(n.WHITE_SPACE)) == 25


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("\n \n", None),
        ("one\r\n\r\n\u200b\n two  words ", "one\n\ntwo words"),
        ("\n\nlead\ntail\n\n", "lead\ntail"),
    ],
)
def test_multi_line_text(raw: str, clean: str | None) -> None:
    """Mapping 1, multi-line text."""
    assert n.lines(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [(" r\u200b1\u200d ", "R1"), ("e\u0301-5", "\u00c9-5"), ("a  b", "A B"), ("\u200c", None), (None, None)],
)
def test_external_ref(raw: str | None, clean: str | None) -> None:
    """Mapping 1, external ref."""
    assert n.external_ref(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [("--Bali  T\u00f6ur!", "bali-tour"), ("\uff21\ufb01", "afi"), ("\u6771\u4eac", None), ("", None)],
)
def test_slug(raw: str, clean: str | None) -> None:
    """Mapping 1, slug."""
    assert n.slug(raw) == clean


def test_name_for_matching() -> None:
    """Mapping 1, name for matching: letters and decimal digits of any script, nothing else."""
    assert n.match_name("Ub\u00fad & \u6771\u4eac, \u0663\u2460!") == "ubud\u6771\u4eac\u06631"
    assert n.match_name(" !-_ ") is None


@pytest.mark.parametrize(
    ("raw", "code", "bad"),
    [(" usd", "USD", False), ("idr", "IDR", False), ("Rp", "USD", True), ("", "USD", True), ("U$D", "USD", True)],
)
def test_currency(raw: str, code: str, bad: bool) -> None:
    """Mapping 1, currency."""
    assert n.currency(raw) == (code, bad)


@pytest.mark.parametrize(
    ("raw", "amount", "bad"),
    [
        (None, "0", False),
        ("0.005", "0.01", False),
        ("-0.005", "-0.01", False),
        ("2.675", "2.68", False),
        ("NaN", "0", True),
        ("9999999999.994", "9999999999.99", False),
        ("9999999999.995", "0", True),
        ("-1e10", "0", True),
        ("1e34", "0", True),
    ],
)
def test_money(raw: str | None, amount: str, bad: bool) -> None:
    """Mapping 1, money: half away from zero, null is 0, NaN or too large is 0 and review."""
    assert n.money(None if raw is None else Decimal(raw)) == (Decimal(amount), bad)


def test_dates_are_bali_days_and_the_travel_day_is_noon_based() -> None:
    """Mapping 1, business dates: the travel day is right for every browser from UTC-11 to UTC+12."""
    assert n.bali_day(utc(2026, 5, 31, 16, 0)) == date(2026, 6, 1)
    assert n.bali_day(utc(2026, 5, 31, 15, 59, 59)) == date(2026, 5, 31)
    for offset in range(-11, 13):
        midnight = utc(2026, 6, 1) - timedelta(hours=offset)
        assert n.travel_day(midnight) == date(2026, 6, 1)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("0812-3456-7890", "+6281234567890"),
        ("0062 812 3456", "+628123456"),
        ("6281234567", "+6281234567"),
        ("620812345678", "+62812345678"),
        ("(+62) 0812345678", "+62812345678"),
        ("62812345", "62812345"),
        ("12 34+56 78", "12345678"),
        ("call me", "call me"),
        ("12", "12"),
        ("1234567890123456", "1234567890123456"),
        (" N/A ", None),
        ("-", None),
        ("\u0660812", "\u0660812"),
    ],
)
def test_phone(raw: str, clean: str | None) -> None:
    """Mapping 1, phone."""
    assert n.phone(raw) == clean


@pytest.mark.parametrize(
    ("raw", "clock"),
    [
        ("9:05", time(9, 5)),
        ("09.30", time(9, 30)),
        ("8:15:30", time(8, 15, 30)),
        ("8.15.30 pm", time(20, 15, 30)),
        ("12 AM", time(0)),
        ("12:30 p.m.", time(12, 30)),
        ("7pm", time(19)),
        ("00:00", time(0)),
        ("9", None),
        ("9:5", None),
        ("24:00", None),
        ("13:00 PM", None),
        ("9:00 pickup", None),
        ("8.15:30", time(8, 15, 30)),
        (None, None),
    ],
)
def test_tour_time(raw: str | None, clock: time | None) -> None:
    """Mapping 4.5, tour time of bstadmin."""
    assert n.tour_time(raw) == clock


# 2. Keys


def test_keys() -> None:
    """Mapping 2: names and namespaces of the deterministic keys."""
    out = run(
        TourProduct=[r.product(7)],
        TourVariant=[r.variant(8, 7)],
        VariantRatePlan=[r.plan(9, 8)],
        Booking=[r.web(3, booking_ref=" a1 ")],
        BookingItem=[r.item(4, 3, 8)],
        Payment=[r.payment(5, 3)],
        bookings=[r.ops(6, booking_ref="G1", source="GYG", assigned_driver_id=2)],
        booking_finances=[r.finance(11, 6)],
    )
    assert only(out["catalog_product"])["product_key"] == product_key(7)
    assert only(out["catalog_variant"])["variant_key"] == variant_key(8)
    rate = only(out["catalog_variant_rate"])
    assert rate["variant_rate_key"] == uuid.uuid5(VARIANT, "balisnap:VariantRatePlan:9")
    direct = uuid.uuid5(BOOKING, "canonical:booking_identity:DIRECT:A1")
    agency = uuid.uuid5(BOOKING, "canonical:booking_identity:GYG:G1")
    assert {b["booking_key"] for b in out["booking_core"]} == {direct, agency}
    items = {i["booking_key"]: i["booking_item_key"] for i in out["booking_item_snapshot"]}
    assert items == {
        direct: uuid.uuid5(BOOKING, "balisnap:BookingItem:4"),
        agency: uuid.uuid5(BOOKING, "canonical:booking_identity:GYG:G1:synthetic"),
    }
    assert only(out["payment_event"])["payment_key"] == uuid.uuid5(PAYMENT, "balisnap:Payment:5")
    assert only(out["ops_assignment"])["assignment_key"] == uuid.uuid5(BOOKING, "bstadmin:bookings:6:assignment:2")
    finance = only(out["ops_finance_bridge"])
    assert finance["finance_bridge_key"] == uuid.uuid5(PAYMENT, "bstadmin:booking_finances:11")
    refs = {(x["external_ref_kind"], x["external_ref"]): x for x in out["channel_external_refs"]}
    assert refs["BOOKING_REF", "A1"]["external_ref_key"] == uuid.uuid5(BOOKING, "BOOKING:DIRECT:BOOKING_REF:A1")
    assert refs["BOOKING_REF", "A1"]["source_table"] == "Booking"
    assert refs["BSTADMIN_BOOKING_ID", "6"]["channel_code"] == "GYG"
    assert refs["BALISNAP_PRODUCT_ID", "7"]["external_ref_key"] == uuid.uuid5(
        PRODUCT, "PRODUCT:DIRECT:BALISNAP_PRODUCT_ID:7"
    )
    assert refs["BALISNAP_VARIANT_ID", "8"]["entity_key"] == variant_key(8)


def test_made_up_refs() -> None:
    """Mapping 1, external ref: BS- and OPS-, and a suffix with review where a real ref has it already."""
    out = run(
        Booking=[r.web(1, booking_ref=None), r.web(2, booking_ref=" "), r.web(3, booking_ref="bs-1")],
        bookings=[r.ops(4, booking_ref="\u200b"), r.ops(5, booking_ref="OPS-4", source="GYG")],
    )
    refs = {(b["channel_code"], b["external_booking_ref"]) for b in out["booking_core"]}
    assert refs == {
        ("DIRECT", "BS-1-BALISNAP"),
        ("DIRECT", "BS-2"),
        ("DIRECT", "BS-1"),
        ("DIRECT", "OPS-4"),
        ("GYG", "OPS-4"),
    }
    assert queue(out) == {("BOOKING_REVIEW", "booking_identity", "DIRECT:BS-1-BALISNAP", "MULTI_MATCH")}
    identity = only(out["unmapped_queue"])
    assert identity["queue_key"] == uuid.uuid5(
        VARIANT, "unmapped:BOOKING_REVIEW:canonical:booking_identity:DIRECT:BS-1-BALISNAP:MULTI_MATCH"
    )


def test_values_that_do_not_fit() -> None:
    """Mapping 1: too long refs and unusable dates are queued, long texts cut with review."""
    out = run(
        Booking=[
            r.web(1, booking_ref="X" * 129),
            r.web(2, booking_date="infinity"),
            r.web(3, created_at=datetime(1899, 12, 31)),
            r.web(4, main_contact_name="N" * 200),
            r.web(5, updated_at="infinity"),
        ],
        bookings=[r.ops(6, tour_date=datetime(2199, 12, 31, 16)), r.ops(7, booking_date="infinity")],
    )
    assert {b["external_booking_ref"] for b in out["booking_core"]} == {"R4", "R5", "R7"}
    assert queue(out) == {
        ("BOOKING_REVIEW", "Booking", "1", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "Booking", "2", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "Booking", "3", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "Booking", "4", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "bookings", "6", "INVALID_SOURCE"),
    }
    by_ref = {b["external_booking_ref"]: b for b in out["booking_core"]}
    assert by_ref["R7"]["booking_date"] is None
    contacts = {c["booking_key"]: c for c in out["booking_contact"]}
    assert contacts[by_ref["R4"]["booking_key"]]["main_name"] == "N" * 191


def test_a_booking_first_seen_by_ingestion_keeps_its_key() -> None:
    """Mapping 2: found by identity, the child rows take its key."""
    before = run(Booking=[r.web(1)])
    other = uuid.UUID("01980000-0000-7000-8000-000000000001")
    for rows in before.values():
        for row in rows:
            for column in ("booking_key", "entity_key"):
                if column in row:
                    row[column] = other
    out = run(before, Booking=[r.web(1)])
    assert core(out)["booking_key"] == other
    assert only(out["booking_item_snapshot"])["booking_key"] == other
    assert difference(before, out) == []


def test_a_renamed_booking_keeps_its_key_and_a_deleted_one_its_row() -> None:
    """Mapping 2: a corrected ref is no new booking; without any candidate: review, refs gone."""
    before = run(Booking=[r.web(1, booking_ref="OLD"), r.web(2, booking_ref="LOST")])
    out = run(before, Booking=[r.web(1, booking_ref="NEW")])
    keys = {b["external_booking_ref"]: b["booking_key"] for b in out["booking_core"]}
    assert keys == {
        "NEW": uuid.uuid5(BOOKING, "canonical:booking_identity:DIRECT:OLD"),
        "LOST": uuid.uuid5(BOOKING, "canonical:booking_identity:DIRECT:LOST"),
    }
    refs = {(x["external_ref_kind"], x["external_ref"]) for x in out["channel_external_refs"]}
    assert refs == {("BOOKING_REF", "NEW"), ("BALISNAP_BOOKING_ID", "1")}
    assert queue(out) == {("BOOKING_REVIEW", "booking_identity", "DIRECT:LOST", "NO_MATCH")}
    items = {i["booking_item_key"] for i in out["booking_item_snapshot"]}
    assert items == {
        uuid.uuid5(BOOKING, "canonical:booking_identity:DIRECT:NEW:synthetic"),
        uuid.uuid5(BOOKING, "canonical:booking_identity:DIRECT:LOST:synthetic"),
    }
    events = {**before, "ingest_event_log": [{"channel_code": "DIRECT", "external_booking_ref": "LOST"}]}
    assert queue(run(events, Booking=[r.web(1, booking_ref="NEW")])) == set()
    # Who comes with the old ref later is another booking and needs another key.
    later = run(out, Booking=[r.web(1, booking_ref="NEW"), r.web(3, booking_ref="OLD")])
    assert len({b["booking_key"] for b in later["booking_core"]}) == 3


def test_an_old_identity_still_held_is_not_taken_over() -> None:
    """Mapping 2: when another candidate holds the old identity, the renamed one is a booking of its own."""
    both = [r.web(1, booking_ref="OLD")]
    before = run(Booking=both, bookings=[r.ops(1, booking_ref="OLD")])
    out = run(before, Booking=both, bookings=[r.ops(1, booking_ref="NEW")])
    keys = {b["external_booking_ref"]: b["booking_key"] for b in out["booking_core"]}
    assert keys == {name: uuid.uuid5(BOOKING, f"canonical:booking_identity:DIRECT:{name}") for name in ("OLD", "NEW")}


# 3. Catalog


def matches(**tables: list[Row]) -> tuple[set[tuple[str, uuid.UUID]], set[tuple[str, str, str, str]]]:
    """Where package 1 maps to (entity type and key), and the queue."""
    out = run(**tables)
    refs = [x for x in out["channel_external_refs"] if x["external_ref_kind"] == "BSTADMIN_PACKAGE_ID"]
    mine = {(x["entity_type"], x["entity_key"]) for x in refs if x["external_ref"] == "1"}
    return mine, {q for q in queue(out) if q[0] == "PRODUCT_MAPPING"}


def test_match_levels() -> None:
    """Mapping 3.2: legacy id, then slug, then name; more than one product or none goes to the queue."""
    package = [r.tour_package(1, slug="ubud", package_name="Bali Tour")]
    legacy = {"TourPackage": [r.package(1)], "tour_packages": package}
    one = {("PRODUCT", product_key(1))}
    assert matches(TourProduct=[r.product(1, legacy_package_id=1)], **legacy) == (one, set())
    assert matches(TourProduct=[r.product(1, slug="UBUD"), r.product(2, product_name="bali tour")], **legacy) == (
        one,
        set(),
    )
    assert matches(TourProduct=[r.product(1, product_name="B\u00e1li-Tour", is_active=False)], **legacy) == (one, set())
    several = {("PRODUCT_MAPPING", "tour_packages", "1", "MULTI_MATCH")}
    twice = [r.product(1, product_name="Bali Tour"), r.product(2, product_name="BALI TOUR")]
    assert matches(TourProduct=twice, **legacy) == (set(), several)
    none = {("PRODUCT_MAPPING", "tour_packages", "1", "NO_MATCH")}
    mapped, queued = matches(TourProduct=[r.product(1)], **legacy)
    assert queued == none
    assert mapped == {
        ("PRODUCT", uuid.uuid5(PRODUCT, "bstadmin:tour_packages:1")),
        ("VARIANT", uuid.uuid5(VARIANT, "bstadmin:tour_packages:1")),
    }


def test_the_legacy_id_is_not_trusted_against_the_evidence() -> None:
    """Mapping 3.2: id says one product, slug or name another: MULTI_MATCH; unless slug or name agrees with the id."""
    package = {
        "TourPackage": [r.package(1)],
        "tour_packages": [r.tour_package(1, slug="ubud", package_name="Bali Tour")],
    }
    by_id, by_slug = r.product(1, legacy_package_id=1), r.product(2, slug="ubud")
    several = {("PRODUCT_MAPPING", "tour_packages", "1", "MULTI_MATCH")}
    assert matches(TourProduct=[by_id, by_slug], **package) == (set(), several)
    agreeing = {**by_id, "product_name": "bali tour"}
    assert matches(TourProduct=[agreeing, by_slug], **package) == ({("PRODUCT", product_key(1))}, set())


def test_variant_of_a_matched_package() -> None:
    """Mapping 3.3: by legacy id, else the default (active first, lowest id), else the only one, else none."""
    base = {"TourProduct": [r.product(1, slug="ubud")], "tour_packages": [r.tour_package(1, slug="ubud")]}
    own = r.variant(5, 1, legacy_package_id=1)
    sleeping = r.variant(2, 1, is_default=True, is_active=False)
    default, plain = r.variant(3, 1, is_default=True), r.variant(1, 1)

    def target(*variants: Row) -> uuid.UUID | None:
        found, _ = matches(TourPackage=[r.package(1)], TourVariant=list(variants), **base)
        return next((key for entity, key in found if entity == "VARIANT"), None)

    assert target(plain, sleeping, default, own) == variant_key(5)
    assert target(plain, sleeping, default) == variant_key(3)
    assert target(plain, sleeping) == variant_key(2)
    assert target(plain) == variant_key(1)
    assert target(plain, r.variant(4, 1)) is None


def test_a_package_without_match_becomes_a_product() -> None:
    """Mapping 3.4: its own product and variant, priced by itself, active as its tour is."""
    out = run(
        tours=[r.tour(9, is_active=False)],
        tour_packages=[
            r.tour_package(
                1,
                tour_id=9,
                package_name=" Own  Trip ",
                slug="",
                price_per_person=Decimal("80"),
                price_per_child=Decimal("40"),
                base_currency="idr",
                min_booking=2,
                max_booking=6,
                duration_days=3,
            )
        ],
    )
    product, variant = only(out["catalog_product"]), only(out["catalog_variant"])
    assert (product["name"], product["slug"], product["country_code"]) == ("Own Trip", "own-trip", "ID")
    assert product["is_active"] is False
    assert variant == {
        "variant_key": uuid.uuid5(VARIANT, "bstadmin:tour_packages:1"),
        "product_key": uuid.uuid5(PRODUCT, "bstadmin:tour_packages:1"),
        "code": "PKG-1",
        "name": "Own Trip",
        "service_type": "PRIVATE",
        "duration_days": 3,
        "duration_nights": None,
        "min_pax": 2,
        "max_pax": 6,
        "currency_code": "IDR",
        "is_default": True,
        "is_active": False,
        "booking_cutoff_hours": 24,
        "cancellation_policy": None,
    }
    rates = {(x["traveler_type"], x["price"], x["currency_code"]) for x in out["catalog_variant_rate"]}
    assert rates == {("ADULT", Decimal(80), "IDR"), ("CHILD", Decimal(40), "IDR")}
    name = f"bstadmin:tour_packages:1:fallback:{variant['variant_key']}:CHILD"
    assert uuid.uuid5(VARIANT, name) in {x["variant_rate_key"] for x in out["catalog_variant_rate"]}
    tour = [x for x in out["channel_external_refs"] if x["external_ref_kind"] == "BSTADMIN_TOUR_ID"]
    assert only(tour)["entity_key"] == product["product_key"]


def test_invalid_catalog_rows() -> None:
    """Mapping 3.1: no name and no slug, no product, no price; 0 is a price."""
    out = run(
        TourProduct=[r.product(1, product_name=" ", slug="!"), r.product(2, product_name="", slug="Only Slug")],
        TourVariant=[r.variant(1, 1), r.variant(2, 2)],
        VariantRatePlan=[
            r.plan(1, 2, None),
            r.plan(2, 2, Decimal("NaN")),
            r.plan(3, 2, -1),
            r.plan(4, 2, 0),
            r.plan(5, 1),
        ],
        tour_packages=[r.tour_package(3, package_name="\u200b", slug="--")],
    )
    assert queue(out) == {
        ("PRODUCT_MAPPING", "TourProduct", "1", "INVALID_SOURCE"),
        ("PRODUCT_MAPPING", "tour_packages", "3", "INVALID_SOURCE"),
        ("VARIANT_MAPPING", "TourVariant", "1", "INVALID_SOURCE"),
        ("CATALOG_EXTENDED_METADATA", "VariantRatePlan", "1", "INVALID_SOURCE"),
        ("CATALOG_EXTENDED_METADATA", "VariantRatePlan", "2", "INVALID_SOURCE"),
        ("CATALOG_EXTENDED_METADATA", "VariantRatePlan", "3", "INVALID_SOURCE"),
        ("CATALOG_EXTENDED_METADATA", "VariantRatePlan", "5", "NO_MATCH"),
    }
    product = only(out["catalog_product"])
    assert (product["name"], product["slug"]) == ("only-slug", "only-slug")
    assert only(out["catalog_variant_rate"])["price"] == 0


def test_slugs_and_codes_taken() -> None:
    """Mapping 1: the lower source id keeps it, the other gets its id appended."""
    out = run(
        TourProduct=[r.product(2, slug="Ubud"), r.product(10, slug="ubud ")],
        TourVariant=[r.variant(4, 2, variant_code="STD "), r.variant(30, 2, variant_code="STD"), r.variant(5, 10)],
        VariantRatePlan=[r.plan(1, 4), r.plan(2, 30), r.plan(3, 5)],
    )
    assert {p["product_key"]: p["slug"] for p in out["catalog_product"]} == {
        product_key(2): "ubud",
        product_key(10): "ubud-10",
    }
    assert {v["variant_key"]: v["code"] for v in out["catalog_variant"]} == {
        variant_key(4): "STD",
        variant_key(30): "STD-30",
        variant_key(5): "V5",
    }
    assert queue(out) == set()


def test_public_attributes() -> None:
    """Mapping 3.5: product, then its TourPackage, then the strongest bstadmin package; then the cover image."""
    out = run(
        TourPackage=[r.package(1, description="from the web", color_code=" ")],
        TourProduct=[r.product(1, slug="ubud", product_name="Ubud Trip", legacy_package_id=1, short_description="own")],
        TourVariant=[r.variant(1, 1)],
        VariantRatePlan=[r.plan(1, 1)],
        TourImage=[r.image(8, 1, "b.jpg"), r.image(7, 1, "a.jpg")],
        tour_packages=[
            r.tour_package(4, slug="other", package_name="ubud trip", priority=1, color_code="weak"),
            r.tour_package(9, slug="ubud", description="from ops", color_code="#fff", max_booking=7),
        ],
        tour_images=[r.image(1, 9, "ops.jpg")],
    )
    product = only(out["catalog_product"])
    assert product["short_description"] == "own"
    assert product["description"] == "from the web"
    assert product["color_code"] == "#fff"
    assert product["priority"] is None
    assert product["thumbnail_url"] == "a.jpg"
    assert only(out["catalog_variant"])["max_pax"] == 7


def test_fallback_rates() -> None:
    """Mapping 3.6: the first package with an adult price above 0, both prices from it; else the queue."""
    packages = [
        r.package(1, price_per_person=Decimal("30"), price_per_child=Decimal("20")),
        r.package(2, price_per_person=Decimal("0.004"), price_per_child=Decimal("20")),
    ]
    out = run(
        TourPackage=packages,
        TourProduct=[r.product(1, legacy_package_id=1)],
        TourVariant=[r.variant(1, 1, legacy_package_id=2, currency_code="EUR"), r.variant(2, 1)],
        VariantRatePlan=[r.plan(1, 2, is_active=False), r.plan(2, 2, 5)],
    )
    assert {
        (x["variant_key"], x["traveler_type"], x["price"], x["currency_code"]) for x in out["catalog_variant_rate"]
    } == {
        (variant_key(2), "ADULT", Decimal(10), "USD"),
        (variant_key(2), "ADULT", Decimal(5), "USD"),
        (variant_key(1), "ADULT", Decimal(30), "EUR"),
        (variant_key(1), "CHILD", Decimal(20), "EUR"),
    }
    bare = run(TourProduct=[r.product(1)], TourVariant=[r.variant(1, 1)])
    assert queue(bare) == {("CATALOG_EXTENDED_METADATA", "TourVariant", "1", "INVALID_SOURCE")}
    ops_first = run(
        TourPackage=packages,
        TourProduct=[r.product(1)],
        TourVariant=[r.variant(1, 1, legacy_package_id=1, currency_code="EUR")],
        tour_packages=[r.tour_package(1, price_per_person=Decimal(70), base_currency="IDR")],
    )
    rate = only([x for x in ops_first["catalog_variant_rate"] if x["variant_key"] == variant_key(1)])
    assert (rate["price"], rate["currency_code"], rate["traveler_type"]) == (Decimal(70), "IDR", "ADULT")


def test_limits() -> None:
    """Mapping 3.7."""
    out = run(
        TourProduct=[r.product(1)],
        TourVariant=[
            r.variant(1, 1, duration_days=0, duration_nights=-1, min_pax=0, max_pax=0, booking_cutoff_hours=-4),
            r.variant(2, 1, duration_nights=0, min_pax=3, max_pax=3),
        ],
        VariantRatePlan=[r.plan(1, 1), r.plan(2, 2)],
    )
    columns = ("duration_days", "duration_nights", "min_pax", "max_pax", "booking_cutoff_hours")
    found = {v["variant_key"]: tuple(v[c] for c in columns) for v in out["catalog_variant"]}
    assert found == {variant_key(1): (1, None, 1, None, 0), variant_key(2): (1, 0, 3, 3, 24)}


def test_source_ids_of_the_catalog() -> None:
    """Mapping 3.8: kinds, channels and source rows."""
    out = run(
        TourPackage=[r.package(3), r.package(4)],
        TourProduct=[r.product(1, legacy_package_id=3)],
        TourVariant=[r.variant(2, 1, legacy_package_id=4)],
        VariantRatePlan=[r.plan(1, 2)],
    )
    columns = ("entity_type", "channel_code", "external_ref_kind", "external_ref", "source_table", "source_pk")
    assert {tuple(x[c] for c in columns) for x in out["channel_external_refs"]} == {
        ("PRODUCT", "DIRECT", "BALISNAP_PRODUCT_ID", "1", "TourProduct", "1"),
        ("PRODUCT", "DIRECT", "LEGACY_PACKAGE_ID", "3", "TourProduct", "1"),
        ("VARIANT", "DIRECT", "BALISNAP_VARIANT_ID", "2", "TourVariant", "2"),
        ("VARIANT", "DIRECT", "LEGACY_PACKAGE_ID", "4", "TourVariant", "2"),
    }


def test_the_cover_image_may_be_bstadmins() -> None:
    """Mapping 3.5: the cover of the bstadmin package where balisnap's package has none."""
    out = run(
        TourProduct=[r.product(1, slug="a")],
        TourVariant=[r.variant(1, 1)],
        VariantRatePlan=[r.plan(1, 1)],
        tour_packages=[r.tour_package(9, slug="a")],
        tour_images=[r.image(2, 9, "second.jpg"), r.image(1, 9, " first.jpg ")],
    )
    assert only(out["catalog_product"])["thumbnail_url"] == "first.jpg"


def test_tour_ref_only_where_all_packages_map_to_one_product() -> None:
    """Mapping 3.8: `BSTADMIN_TOUR_ID`."""

    def tours(*packages: Row) -> set[tuple[str, uuid.UUID]]:
        out = run(
            TourProduct=[r.product(1, slug="a"), r.product(2, slug="b")], tours=[r.tour(5)], tour_packages=[*packages]
        )
        refs = [x for x in out["channel_external_refs"] if x["external_ref_kind"] == "BSTADMIN_TOUR_ID"]
        return {(x["external_ref"], x["entity_key"]) for x in refs}

    one = r.tour_package(1, tour_id=5, slug="a")
    same = r.tour_package(2, tour_id=5, slug="A!", package_name="x")
    assert tours(one, same) == {("5", product_key(1))}
    assert tours(one, r.tour_package(2, tour_id=5, slug="b")) == set()
    assert tours(one, r.tour_package(2, tour_id=5, slug="", package_name="")) == set()
    assert tours() == set()


def test_queue_life_cycle() -> None:
    """Mapping 3.9: what a person moved stays; what lost its cause is closed; what a run closed may open again."""
    sources = {"tour_packages": [r.tour_package(1, price_per_person=Decimal(1))]}
    first = run(**sources)
    assert only(first["unmapped_queue"])["status"] == "OPEN"
    matched = {**sources, "TourProduct": [r.product(1, slug="ops-package-1")]}
    closed = run(first, **matched)
    row = only(closed["unmapped_queue"])
    assert row["status"] == "CLOSED"
    assert row["resolved_by"] == "run"
    assert only(run(closed, **sources)["unmapped_queue"])["status"] == "OPEN"
    for status in ("IN_REVIEW", "RESOLVED", "CLOSED"):
        moved = {**first, "unmapped_queue": [{**first["unmapped_queue"][0], "status": status, "resolved_by": "made"}]}
        assert only(run(moved, **sources)["unmapped_queue"])["status"] == status
        assert only(run(moved, **matched)["unmapped_queue"])["status"] == status


@pytest.mark.parametrize(("entity", "key"), [("PRODUCT", product_key(2)), ("VARIANT", variant_key(6))])
def test_a_resolution_is_obeyed(entity: str, key: uuid.UUID) -> None:
    """Mapping 3.9: by every later run, against the evidence too; bookings follow (4.8)."""
    sources = {
        "TourProduct": [r.product(1, slug="a"), r.product(2, slug="b")],
        "TourVariant": [r.variant(6, 2, is_default=True), r.variant(7, 2)],
        "VariantRatePlan": [r.plan(1, 6), r.plan(2, 7)],
        "tour_packages": [r.tour_package(1, price_per_person=Decimal(1))],
        "bookings": [r.ops(1, package_id=1)],
    }
    first = run(**sources)
    asked = only(first["unmapped_queue"])
    answer = {"resolution": {"entity_type": entity, "entity_key": str(key)}}
    before = {**first, "unmapped_queue": [{**asked, "status": "RESOLVED", "payload": answer, "resolved_by": "made"}]}
    out = run(before, **sources)
    assert only(out["unmapped_queue"])["status"] == "RESOLVED"
    assert core(out)["package_ref_key"] == variant_key(6)
    refs = [x for x in out["channel_external_refs"] if x["external_ref_kind"] == "BSTADMIN_PACKAGE_ID"]
    assert {x["entity_key"] for x in refs} == {product_key(2), variant_key(6)}
    assert difference(out, run(out, **sources)) == []


# 4. Bookings


def test_channels() -> None:
    """Mapping 4.1: the registry's channels, others MANUAL; the enum value is kept."""
    out = run(bookings=[r.ops(1, source="VIATOR"), r.ops(2, source="KLOOK")], Booking=[r.web(3)])
    found = {(b["external_booking_ref"], b["channel_code"], b["source_enum_compat"]) for b in out["booking_core"]}
    assert found == {("R1", "VIATOR", "VIATOR"), ("R2", "MANUAL", "KLOOK"), ("R3", "DIRECT", "DIRECT")}


def test_one_identity_one_row() -> None:
    """Mapping 4.2: duplicates between and inside the sources; one id ref per candidate."""
    out = run(
        Booking=[r.web(1, booking_ref="a"), r.web(2, booking_ref="A ")], bookings=[r.ops(3, booking_ref="\u200ba")]
    )
    assert core(out)["external_booking_ref"] == "A"
    refs = {(x["external_ref_kind"], x["external_ref"]) for x in out["channel_external_refs"]}
    assert refs == {
        ("BOOKING_REF", "A"),
        ("BALISNAP_BOOKING_ID", "1"),
        ("BALISNAP_BOOKING_ID", "2"),
        ("BSTADMIN_BOOKING_ID", "3"),
    }


LATER = r.MADE + timedelta(days=1)
PAID = {"payment_status_v2": "COMPLETED"}


@pytest.mark.parametrize(
    ("ours", "payment", "theirs", "winner"),
    [
        # capture id over everything, though the other is newer
        ({}, {**PAID, "gateway_capture_id": "c"}, {"is_paid": True, "paid_at": r.MADE, "updated_at": LATER}, "Booking"),
        ({}, {**PAID}, {"is_paid": True, "paid_at": r.MADE, "updated_at": LATER}, "Booking"),
        # a pending payment with a capture id proves nothing
        ({}, {"gateway_capture_id": "c"}, {"is_paid": True}, "bookings"),
        ({"status_v2": "CONFIRMED"}, None, {"is_paid": True, "paid_at": r.MADE}, "bookings"),
        ({"status_v2": "DRAFT", "status": "paid"}, None, {"is_paid": True}, "bookings"),
        # ties: the later, then balisnap
        ({"status": "Paid "}, None, {"is_paid": True, "updated_at": LATER}, "bookings"),
        ({"status": "paid"}, None, {"is_paid": True}, "Booking"),
        ({"updated_at": "infinity"}, None, {}, "bookings"),
        ({}, None, {"is_paid": False, "paid_at": r.MADE}, "Booking"),
    ],
)
def test_winner(ours: Row, payment: Row | None, theirs: Row, winner: str) -> None:
    """Mapping 4.3: payment proof, then the later update, then balisnap."""
    payments = [] if payment is None else [r.payment(1, 1, **payment)]
    out = run(
        Booking=[r.web(1, booking_ref="A", **ours)], bookings=[r.ops(1, booking_ref="A", **theirs)], Payment=payments
    )
    ref = only([x for x in out["channel_external_refs"] if x["external_ref_kind"] == "BOOKING_REF"])
    assert ref["source_table"] == winner


def test_between_equal_rows_the_higher_id_wins() -> None:
    """Mapping 4.3, ties; a payment ref beats a capture without one."""
    same = [r.ops(1, booking_ref="a"), r.ops(2, booking_ref="A", total_price=Decimal(7))]
    assert core(run(bookings=same))["total_price"] == 7
    webs = [r.web(1, booking_ref="a", total_price=Decimal(1)), r.web(2, booking_ref="A", total_price=Decimal(2))]
    payments = [r.payment(1, 1, payment_ref="P", **PAID), r.payment(2, 2, **PAID)]
    assert core(run(Booking=webs, Payment=payments))["total_price"] == 1
    payments = [r.payment(1, 1, gateway_capture_id="c", **PAID), r.payment(2, 2, payment_ref="P", **PAID)]
    assert core(run(Booking=webs, Payment=payments))["total_price"] == 1


def test_fields_that_are_not_the_winners() -> None:
    """Mapping 4.4: created first, received day, notes of both, null fields filled."""
    out = run(
        Booking=[
            r.web(
                1,
                booking_ref="A",
                note=" from\u00a0web ",
                created_at=datetime(2026, 1, 5, 20),
                updated_at=LATER,
                package_id=None,
            )
        ],
        bookings=[
            r.ops(
                1,
                booking_ref="A",
                note="from ops",
                created_at=datetime(2026, 1, 7),
                booking_date=datetime(2026, 1, 6, 16),
                tour_time="9 AM",
                number_of_child=3,
                package_id=44,
                updated_at=r.MADE,
            ),
            r.ops(
                2,
                booking_ref="a",
                note="from web",
                tour_time="10 AM",
                tour_date=datetime(2026, 5, 1),
                updated_at=r.MADE,
            ),
        ],
    )
    row = core(out)
    assert row["booking_created_at"] == utc(2026, 1, 5, 20)
    assert row["booking_date"] == date(2026, 1, 6)
    assert row["note"] == "[balisnap] from web\n[bstadmin] from ops"
    # The next candidate is ops 2 (higher id), but its tour is on another day.
    assert row["tour_time"] == time(9)
    assert row["number_of_child"] == 3
    assert row["legacy_package_id"] == 44
    assert row["package_ref_type"] == "LEGACY_PACKAGE"


def test_one_note_stays_as_it_is() -> None:
    """Mapping 4.4: the distinct notes."""
    same = {
        "Booking": [r.web(1, booking_ref="A", note="Vegan")],
        "bookings": [r.ops(1, booking_ref="A", note=" Vegan ")],
    }
    assert core(run(**same))["note"] == "Vegan"


CATALOG: dict[str, list[Row]] = {
    "TourProduct": [r.product(1)],
    "TourVariant": [r.variant(1, 1)],
    "VariantRatePlan": [r.plan(1, 1)],
}


def test_tour_date_and_time_of_a_departure() -> None:
    """Mapping 4.5: the first carried item that has a departure, in Bali; midnight there means unknown."""
    tables = {
        **CATALOG,
        "Departure": [r.departure(1, 1, datetime(2026, 6, 2, 16, 30)), r.departure(2, 1, datetime(2026, 6, 4, 16))],
        "Booking": [r.web(1, booking_date=datetime(2026, 6, 9))],
    }
    items = [r.item(1, 1, 1), r.item(2, 1, 1, departure_id=1), r.item(3, 1, 1, departure_id=2)]
    row = core(run(**tables, BookingItem=items))
    assert (row["tour_date"], row["tour_time"]) == (date(2026, 6, 3), time(0, 30))
    row = core(run(**tables, BookingItem=[r.item(3, 1, 1, departure_id=2)]))
    assert (row["tour_date"], row["tour_time"]) == (date(2026, 6, 5), None)
    row = core(run(**tables))
    assert (row["tour_date"], row["tour_time"]) == (date(2026, 6, 9), None)


def test_total_of_items() -> None:
    """Mapping 4.5: the items' sum in the booking's currency, else the booking's total and review."""
    booking = [r.web(1, total_price=Decimal(70))]
    items = [r.item(1, 1, 1, total_amount=Decimal("33.335")), r.item(2, 1, 1, total_amount=Decimal("33.335"))]
    out = run(**CATALOG, Booking=booking, BookingItem=items)
    assert core(out)["total_price"] == Decimal("66.67")
    out = run(**CATALOG, Booking=booking, BookingItem=[items[0], r.item(2, 1, 1, currency_code="IDR")])
    assert core(out)["total_price"] == 70
    assert queue(out) == {("BOOKING_REVIEW", "Booking", "1", "MULTI_MATCH")}


def test_negative_and_unreadable_amounts() -> None:
    """Mapping 1, money: negative totals become 0 with review; prices and discounts keep their sign."""
    items = [r.item(1, 1, 1, total_amount=Decimal(-5), adult_unit_price=Decimal(-3), discount_amount=Decimal(-2))]
    out = run(**CATALOG, Booking=[r.web(1)], BookingItem=items, bookings=[r.ops(2, total_price=Decimal("NaN"))])
    totals = {b["external_booking_ref"]: b["total_price"] for b in out["booking_core"]}
    assert totals == {"R1": 0, "R2": 0}
    item = only([i for i in out["booking_item_snapshot"] if i["variant_key"]])
    assert (item["total_amount"], item["adult_unit_price"], item["discount_amount"]) == (0, -3, -2)
    assert queue(out) == {
        ("BOOKING_REVIEW", "Booking", "1", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "BookingItem", "1", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "bookings", "2", "INVALID_SOURCE"),
    }


def contact(*rows: Row, before: Tables | None = None) -> Row:
    """The contact of one booking; rows in the order of their age, the oldest first; `web` says balisnap."""
    webs, opses = [], []
    for age, row in enumerate(rows):
        given = {k: v for k, v in row.items() if k != "web"} | {"updated_at": r.MADE + timedelta(days=age)}
        if row.get("web"):
            webs.append(r.web(age + 1, booking_ref="A" + "\u200b" * age, **given))
        else:
            opses.append(r.ops(age + 1, booking_ref="A" + "\u200b" * age, **given))
    return only(run(before, Booking=webs, bookings=opses)["booking_contact"])


def test_contact_takes_the_latest_real_value() -> None:
    """Mapping 4.6: field by field."""
    found = contact(
        {"main_contact_name": "Ayu", "main_contact_email": "old@mail.test", "phone_number": "081234567"},
        {"main_contact_name": " Made ", "main_contact_email": "not a mail", "phone_number": "n/a", "web": True},
        {"main_contact_name": "GUEST", "main_contact_email": "x@Example.com", "phone_number": ""},
    )
    assert found["main_name"] == "Made"
    assert found["main_email"] == "old@mail.test"
    assert found["phone"] == "+6281234567"
    assert (found["is_placeholder_name"], found["is_placeholder_email"]) == (False, False)
    assert found["updated_from_source"] == "bstadmin"


def test_contact_falls_back_with_flags() -> None:
    """Mapping 4.6: invalid but real e-mail, then placeholder text, then null; flags set."""
    found = contact({"main_contact_email": "bad mail"}, {"main_contact_name": "Guest", "main_contact_email": "n/a"})
    assert (found["main_name"], found["is_placeholder_name"]) == ("Guest", True)
    assert (found["main_email"], found["is_placeholder_email"]) == ("bad mail", True)
    found = contact({"main_contact_email": "A@example.com"}, {"main_contact_email": "-"})
    assert (found["main_email"], found["is_placeholder_email"]) == ("-", True)
    found = contact({})
    assert (found["main_name"], found["main_email"], found["phone"]) == (None, None, None)
    assert (found["is_placeholder_name"], found["is_placeholder_email"]) == (True, True)


def test_a_placeholder_never_overwrites_a_contact() -> None:
    """Mapping 4.6, on a rerun."""
    before = run(bookings=[r.ops(1, booking_ref="A", main_contact_name="Ayu", main_contact_email="ayu@mail.test")])
    found = contact({"main_contact_name": "Guest", "main_contact_email": "broken"}, before=before)
    assert (found["main_name"], found["is_placeholder_name"]) == ("Ayu", False)
    assert (found["main_email"], found["is_placeholder_email"]) == ("ayu@mail.test", False)


def test_pickup_is_bstadmins_whatever_its_age() -> None:
    """Mapping 4.6: balisnap's meeting point fills it only when bstadmin's is null."""
    old, new = {"pickup_location": "Kuta"}, {"meeting_point": "Ubud", "web": True}
    found = contact(old, new)
    assert (found["pickup_location"], found["meeting_point"]) == ("Kuta", "Ubud")
    assert contact({"pickup_location": "Unknown"}, new)["pickup_location"] == "Ubud"
    assert contact({"pickup_location": "-", "meeting_point": "Sanur"})["pickup_location"] is None


TOMORROW = r.TRAVEL + timedelta(days=1)


@pytest.mark.parametrize(
    ("ops", "finance", "items", "status"),
    [
        ({"status": "CANCELLED"}, {}, [True], "CANCELLED"),
        ({"status": "NO_SHOW"}, {}, [True], "NO_SHOW"),
        ({"tour_date": TOMORROW}, {}, [True, True], "DONE"),
        ({"tour_date": TOMORROW}, {"validated_at": r.MADE}, [True, False], "COMPLETED"),
        ({"tour_date": TOMORROW}, {"validated_at": r.MADE}, [], "COMPLETED"),
        ({"tour_date": TOMORROW}, {"validated_at": "infinity"}, [], "NEW"),
        ({"status": "UPDATED"}, None, [], "ATTENTION"),
        ({"status": "UPDATED", "tour_date": TOMORROW}, None, [], "UPDATED"),
        ({"assigned_driver_id": 1, "tour_date": TOMORROW}, {"pattern_id": 1}, [], "READY"),
        ({"assigned_driver_id": 1, "tour_date": TOMORROW}, {}, [], "NEW"),
        ({"status": "DONE", "tour_date": TOMORROW}, None, [], "NEW"),
    ],
)
def test_fulfilment(ops: Row, finance: Row | None, items: list[bool], status: str) -> None:
    """Mapping 4.7: the engine, in its order; a stored status that differs loses."""
    out = run(
        bookings=[r.ops(1, **ops)],
        booking_finances=[] if finance is None else [r.finance(1, 1, **finance)],
        booking_finance_items=[r.finance_item(i, 1, paid) for i, paid in enumerate(items)],
    )
    assert core(out)["ops_fulfillment_status"] == status
    assert only(out["ops_booking_state"])["ops_fulfillment_status"] == status


@pytest.mark.parametrize(
    ("day", "given", "status"),
    [
        (1, {"status_v2": "EXPIRED"}, "CANCELLED"),
        (1, {"status": "refunded"}, "CANCELLED"),
        (1, {"status": "refunded", "status_v2": "PAID"}, "NEW"),
        (0, {"status_v2": "PAID"}, "ATTENTION"),
        (-1, {"status_v2": "PAID"}, "COMPLETED"),
        (-1, {}, "CANCELLED"),
    ],
)
def test_fulfilment_of_a_booking_that_only_balisnap_has(day: int, given: Row, status: str) -> None:
    """Mapping 4.7, second part."""
    booking = r.web(1, booking_date=datetime(2026, 6, 1) + timedelta(days=day), **given)
    assert core(run(Booking=[booking]))["ops_fulfillment_status"] == status


def test_no_driver_to_a_cancelled_tour() -> None:
    """Mapping 4.7: balisnap says cancelled, bstadmin does not: review."""
    webs = [r.web(1, booking_ref="A", status_v2="CANCELLED")]
    review = {("BOOKING_REVIEW", "booking_identity", "DIRECT:A", "MULTI_MATCH")}
    assert queue(run(Booking=webs, bookings=[r.ops(1, booking_ref="A")])) == review
    assert queue(run(Booking=webs, bookings=[r.ops(1, booking_ref="A", status="NO_SHOW")])) == set()
    expired = [r.web(1, booking_ref="A", status_v2="EXPIRED")]
    assert queue(run(Booking=expired, bookings=[r.ops(1, booking_ref="A")])) == set()


def test_package_ref() -> None:
    """Mapping 4.8: the first carried item's variant, else the package of the winner, else of the next."""
    shop = {
        "TourPackage": [r.package(1), r.package(2), r.package(3)],
        "TourProduct": [r.product(1, legacy_package_id=1, slug="a"), r.product(2, slug="c")],
        "TourVariant": [r.variant(1, 1, legacy_package_id=2), r.variant(2, 1), r.variant(3, 2), r.variant(4, 2)],
        "VariantRatePlan": [r.plan(i, i) for i in (1, 2, 3, 4)],
        "tour_packages": [
            r.tour_package(1, slug="a"),
            r.tour_package(2, slug="a", tour_id=None),
            r.tour_package(3, slug="c"),
        ],
    }

    def found(**tables: list[Row]) -> tuple[str, uuid.UUID | None, int | None]:
        row = core(run(**shop, **tables))
        return row["package_ref_type"], row["package_ref_key"], row["legacy_package_id"]

    booking = [r.web(1, booking_ref="A", package_id=1)]
    items = [r.item(9, 1, 4), r.item(8, 1, 2)]
    assert found(Booking=booking, BookingItem=items) == ("CATALOG_VARIANT", variant_key(2), 1)
    assert found(Booking=booking) == ("CATALOG_PRODUCT", product_key(1), 1)
    assert found(Booking=[r.web(1, package_id=2)]) == ("CATALOG_VARIANT", variant_key(1), 2)
    # No balisnap row has legacy id 3: as the bstadmin package 3, by slug the product 2, two plain variants.
    assert found(Booking=[r.web(1, package_id=3)]) == ("CATALOG_PRODUCT", product_key(2), 3)
    assert found(bookings=[r.ops(1, package_id=2)]) == ("CATALOG_VARIANT", variant_key(1), 2)
    next_one = {"Booking": [r.web(1, booking_ref="A")], "bookings": [r.ops(1, booking_ref="A", package_id=3)]}
    assert found(**next_one) == ("CATALOG_PRODUCT", product_key(2), 3)
    assert found(Booking=[r.web(1)]) == ("LEGACY_PACKAGE", None, None)


def test_items() -> None:
    """Mapping 4.9: those of the best-ranked balisnap candidate that has any, cancelled only when all are."""
    webs = [r.web(1, booking_ref="a"), r.web(2, booking_ref="A"), r.web(3, booking_ref="A ")]
    items = [
        r.item(1, 1, 1),
        r.item(2, 2, 1, item_status="CANCELLED"),
        r.item(3, 2, 1, departure_id=None, snapshot={"a": 1, "subtotal": "x"}, infant_unit_price=Decimal("1.005")),
    ]
    row = only(run(**CATALOG, Booking=webs, BookingItem=items)["booking_item_snapshot"])
    assert row["booking_item_key"] == uuid.uuid5(BOOKING, "balisnap:BookingItem:3")
    assert row["variant_key"] == variant_key(1)
    assert row["variant_external_id"] == "1"
    assert row["snapshot_json"] == {
        "a": 1,
        "item_status": "ACTIVE",
        "infant_unit_price": Decimal("1.01"),
        "subtotal": Decimal(100),
    }
    cancelled = [r.item(i, 1, 1, item_status="CANCELLED") for i in (1, 2)]
    assert len(run(**CATALOG, Booking=[r.web(1)], BookingItem=cancelled)["booking_item_snapshot"]) == 2


def test_synthetic_item() -> None:
    """Mapping 4.9: a booking without items gets one; 0 when nobody travels."""
    booking = r.ops(1, total_price=Decimal(100), number_of_adult=2, number_of_child=1, currency="idr")
    row = only(run(bookings=[booking])["booking_item_snapshot"])
    assert (row["adult_qty"], row["child_qty"], row["infant_qty"]) == (2, 1, 0)
    assert row["adult_unit_price"] == row["child_unit_price"] == Decimal("33.33")
    assert (row["total_amount"], row["currency_code"]) == (100, "IDR")
    assert row["snapshot_json"] == {"synthetic": True}
    row = only(run(bookings=[r.ops(1, number_of_adult=-1)])["booking_item_snapshot"])
    assert (row["adult_qty"], row["adult_unit_price"], row["total_amount"]) == (0, 0, 100)


def test_party() -> None:
    """Mapping 4.10: heads over the carried items, else the core's; travellers in order."""
    items = [r.item(1, 1, 1, adult_qty=2, child_qty=-1, infant_qty=1), r.item(2, 1, 1, adult_qty=1, child_qty=3)]
    travelers = [r.traveler(7, 2), r.traveler(3, 1, first_name="Wayan")]
    out = run(**CATALOG, Booking=[r.web(1, number_of_adult=9)], BookingItem=items, BookingTraveler=travelers)
    party = only(out["booking_party"])
    assert (party["adult_qty"], party["child_qty"], party["infant_qty"]) == (3, 3, 1)
    assert [t["traveler_id"] for t in party["traveler_rows"]] == [3, 7]
    assert set(party["traveler_rows"][0]) == set(r.traveler(1, 1))
    assert core(out)["number_of_adult"] == 9
    party = only(run(bookings=[r.ops(1, number_of_adult=4)])["booking_party"])
    assert (party["adult_qty"], party["traveler_rows"]) == (4, None)


def test_paid_at() -> None:
    """Mapping 4.11: on DIRECT the first capture, else bstadmin's; null when not paid."""
    webs, ops = [r.web(1, booking_ref="A")], [r.ops(1, booking_ref="A", is_paid=True, paid_at=datetime(2026, 2, 1))]
    captures = [r.payment(i, 1, payment_date=datetime(2026, 1, i), **PAID) for i in (9, 3)]
    state = only(run(Booking=webs, bookings=ops, Payment=captures)["ops_booking_state"])
    assert (state["is_paid_flag"], state["paid_at"]) == (True, utc(2026, 1, 3))
    state = only(run(Booking=webs, bookings=ops)["ops_booking_state"])
    assert (state["is_paid_flag"], state["paid_at"]) == (True, utc(2026, 2, 1))
    refused = [r.payment(1, 1, payment_status_v2="FAILED")]
    state = only(run(Booking=webs, bookings=ops, Payment=refused)["ops_booking_state"])
    assert (state["is_paid_flag"], state["paid_at"]) == (False, None)
    assert state["updated_from_source"] == "bstadmin"


def test_assignments() -> None:
    """Mapping 4.11: a changed driver closes the old row and adds one; who comes back is opened again."""
    since, changed = datetime(2026, 3, 1), datetime(2026, 3, 5)
    first = run(bookings=[r.ops(1, assigned_driver_id=1, assigned_at=since)])
    row = only(first["ops_assignment"])
    assert (row["driver_id"], row["assigned_at"], row["is_active"]) == (1, utc(2026, 3, 1), True)
    assert row["assignment_source"] == "BSTADMIN"
    second = run(first, bookings=[r.ops(1, assigned_driver_id=2, updated_at=changed)])
    rows = {a["driver_id"]: a for a in second["ops_assignment"]}
    assert (rows[1]["is_active"], rows[1]["unassigned_at"]) == (False, utc(2026, 3, 5))
    assert (rows[2]["is_active"], rows[2]["assigned_at"]) == (True, utc(2026, 3, 5))
    third = run(second, bookings=[r.ops(1, assigned_driver_id=1, assigned_at=since, updated_at=changed)])
    rows = {a["driver_id"]: a for a in third["ops_assignment"]}
    assert (rows[1]["is_active"], rows[1]["unassigned_at"]) == (True, None)
    assert rows[2]["is_active"] is False
    fourth = run(third, bookings=[r.ops(1, updated_at=changed)])
    assert not any(a["is_active"] for a in fourth["ops_assignment"])
    assert (
        difference(third, run(third, bookings=[r.ops(1, assigned_driver_id=1, assigned_at=since, updated_at=changed)]))
        == []
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "review"),
    [
        ({}, {}, False),
        ({"total_price": Decimal("100.01")}, {}, False),
        ({"total_price": Decimal("100.02")}, {}, True),
        ({"total_price": Decimal("500"), "currency_code": "IDR"}, {}, False),
        ({"booking_date": datetime(2026, 6, 2)}, {}, True),
        ({}, {"tour_date": datetime(2026, 6, 1, 15)}, False),
        ({}, {"tour_date": datetime(2026, 6, 1, 16)}, True),
    ],
)
def test_contradicting_candidates(ours: Row, theirs: Row, review: bool) -> None:
    """Mapping 4.12."""
    out = run(Booking=[r.web(1, booking_ref="A", **ours)], bookings=[r.ops(1, booking_ref="A", **theirs)])
    row = ("BOOKING_REVIEW", "booking_identity", "DIRECT:A", "MULTI_MATCH")
    assert queue(out) == ({row} if review else set())


def test_a_newer_bridge_is_only_filled() -> None:
    """Mapping 4.13: strictly newer than all candidates: only nulls; payments and finance are written."""
    before = run(Booking=[r.web(1)])
    key = core(before)["booking_key"]
    changed = {
        "Booking": [r.web(1, total_price=Decimal(7), note="new", main_contact_name="Ayu")],
        "Payment": [r.payment(1, 1, **PAID)],
    }
    for fresh in ((utc(2026, 1, 10, 8, 0, 1), None), (None, utc(2026, 1, 10, 8, 0, 1))):
        out = run(before, freshness={key: fresh}, **changed)
        assert (core(out)["total_price"], core(out)["note"]) == (100, "new")
        assert core(out)["customer_payment_status"] == "PENDING_PAYMENT"
        assert len(out["payment_event"]) == 1
        contact = only(out["booking_contact"])
        assert (contact["main_name"], contact["is_placeholder_name"]) == ("Ayu", False)
    equal = run(before, freshness={key: (utc(2026, 1, 10, 8), None)}, **changed)
    assert core(equal)["total_price"] == 7
    assert core(equal)["customer_payment_status"] == "PAID"


def test_what_hangs_on_a_kept_value_is_not_filled() -> None:
    """Mapping 4.13: times, drivers and packages only where what they hang on agrees; children by key."""
    shop = {**CATALOG, "tour_packages": [r.tour_package(1, slug="product-1")]}
    before = run(**shop, bookings=[r.ops(1, assigned_driver_id=1)])
    key = core(before)["booking_key"]
    fresh = {key: (utc(2027, 1, 1), None)}
    out = run(
        before,
        freshness=fresh,
        **shop,
        bookings=[
            r.ops(
                1,
                package_id=1,
                tour_time="9:00",
                tour_date=datetime(2026, 7, 1),
                assigned_driver_id=2,
                assigned_at=r.MADE,
                is_paid=True,
                paid_at=r.MADE,
            )
        ],
    )
    row, state, assignment = core(out), only(out["ops_booking_state"]), only(out["ops_assignment"])
    assert (row["tour_date"], row["tour_time"]) == (date(2026, 6, 1), None)
    assert (row["package_ref_type"], row["package_ref_key"]) == ("CATALOG_VARIANT", variant_key(1))
    assert (state["assigned_driver_id"], state["assigned_at"], state["paid_at"]) == (1, None, None)
    assert (assignment["driver_id"], assignment["is_active"]) == (1, True)
    again = run(out, freshness=fresh, **shop, bookings=[r.ops(1, assigned_driver_id=1, assigned_at=r.MADE)])
    assert core(again)["package_ref_key"] == variant_key(1)
    assert only(again["ops_booking_state"])["assigned_at"] == utc(2026, 1, 10, 8)
    missing = {**before, "ops_booking_state": [], "booking_contact": [], "booking_item_snapshot": []}
    assert difference(before, run(missing, freshness=fresh, **shop, bookings=[r.ops(1, assigned_driver_id=1)])) == []


# 5. Payments and finance


@pytest.mark.parametrize(
    ("v1", "v2", "raw", "status", "review"),
    [
        ("pending", "COMPLETED", "pending|COMPLETED", "PAID", False),
        (" Success ", None, "Success|", "PAID", False),
        ("Partially-Refunded", None, "Partially-Refunded|", "PARTIALLY_REFUNDED", False),
        ("reversed", None, "reversed|", "REFUNDED", False),
        ("authorized", None, "authorized|", "PENDING_PAYMENT", False),
        ("voided", None, "voided|", "FAILED", False),
        ("odd", None, "odd|", "PENDING_PAYMENT", True),
        ("", None, "|", "PENDING_PAYMENT", True),
    ],
)
def test_payment_status(v1: str, v2: str | None, raw: str, status: str, review: bool) -> None:
    """Mapping 5.1."""
    out = run(Booking=[r.web(1)], Payment=[r.payment(5, 1, payment_status=v1, payment_status_v2=v2)])
    row = only(out["payment_event"])
    assert (row["status_raw"], row["payment_status_v2"]) == (raw, status)
    assert queue(out) == ({("BOOKING_REVIEW", "Payment", "5", "INVALID_SOURCE")} if review else set())


def test_payments_that_do_not_link_or_fit() -> None:
    """Mapping 5.1, 1: no bridge row, equal refs, an id too long, no date; the sign is kept."""
    out = run(
        Booking=[r.web(1), r.web(2, booking_ref="X" * 129)],
        Payment=[
            r.payment(1, 2),
            r.payment(2, 1, payment_ref="P\u00a0 1", amount=Decimal("-7.005"), payment_method=" PayPal "),
            r.payment(3, 1, payment_ref="P 1"),
            r.payment(4, 1, gateway_order_id="o" * 129),
            r.payment(5, 1, payment_date="-infinity"),
            r.payment(6, 1, payment_method="m" * 33, currency_code="Rp"),
        ],
    )
    assert queue(out) == {
        ("BOOKING_REVIEW", "Booking", "2", "INVALID_SOURCE"),
        ("PAYMENT_LINK", "Payment", "1", "NO_MATCH"),
        ("BOOKING_REVIEW", "Payment", "3", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "Payment", "4", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "Payment", "5", "INVALID_SOURCE"),
        ("BOOKING_REVIEW", "Payment", "6", "INVALID_SOURCE"),
    }
    rows = {p["payment_key"]: p for p in out["payment_event"]}
    keys = {i: uuid.uuid5(PAYMENT, f"balisnap:Payment:{i}") for i in (2, 3, 6)}
    assert set(rows) == set(keys.values())
    assert (rows[keys[2]]["payment_ref"], rows[keys[3]]["payment_ref"]) == ("P 1", None)
    assert (rows[keys[2]]["amount"], rows[keys[2]]["method"]) == (Decimal("-7.01"), "PAYPAL")
    assert (rows[keys[6]]["currency_code"], rows[keys[6]]["method"]) == ("USD", "M" * 32)


def pays(*payments: tuple[str, int, int]) -> list[Row]:
    """Payments of booking 1: status, day, amount."""
    return [
        r.payment(i, 1, payment_status_v2=s, payment_date=datetime(2026, 1, day), amount=Decimal(amount))
        for i, (s, day, amount) in enumerate(payments, 1)
    ]


@pytest.mark.parametrize(
    ("payments", "status"),
    [
        ([("COMPLETED", 1, 100)], "PAID"),
        ([("COMPLETED", 1, 100), ("FAILED", 2, 100)], "PAID"),
        ([("COMPLETED", 1, 100), ("REFUNDED", 2, -100)], "REFUNDED"),
        ([("COMPLETED", 1, 100), ("REFUNDED", 1, 100)], "REFUNDED"),
        ([("COMPLETED", 1, 100), ("REFUNDED", 2, 99)], "PAID"),
        ([("REFUNDED", 1, 100), ("COMPLETED", 2, 100)], "PAID"),
        ([("REFUNDED", 1, 100)], "REFUNDED"),
        ([("PARTIALLY_REFUNDED", 1, 100)], "PAID"),
        ([("FAILED", 1, 100), ("AUTHORIZED", 2, 100)], "PENDING_PAYMENT"),
        ([("FAILED", 1, 100), ("CANCELLED", 2, 100)], "FAILED"),
    ],
)
def test_customer_status_of_payments(payments: list[tuple[str, int, int]], status: str) -> None:
    """Mapping 5.2, on DIRECT: payments decide, whatever the booking says."""
    out = run(Booking=[r.web(1, status_v2="DRAFT")], Payment=pays(*payments))
    assert core(out)["customer_payment_status"] == status


@pytest.mark.parametrize(
    ("ours", "theirs", "status"),
    [
        ({"status_v2": "CONFIRMED"}, {"is_paid": False}, "PAID"),
        ({"status_v2": "DRAFT", "status": "paid"}, {"is_paid": True}, "DRAFT"),
        ({"status": "refunded"}, {}, "REFUNDED"),
        ({"status": "Expired"}, {}, "FAILED"),
        ({"status": "odd"}, {}, "PENDING_PAYMENT"),
        ({"status": "odd"}, {"is_paid": True}, "PENDING_PAYMENT"),
        ({"status": "odd"}, {"is_paid": True, "paid_at": r.MADE}, "PAID"),
        (None, {"is_paid": True}, "PAID"),
        (None, {"is_paid": False, "paid_at": r.MADE}, "PENDING_PAYMENT"),
    ],
)
def test_customer_status_without_payments(ours: Row | None, theirs: Row, status: str) -> None:
    """Mapping 5.2: balisnap's status, a dated bstadmin payment beats it; without balisnap, `is_paid`."""
    webs = [] if ours is None else [r.web(1, booking_ref="A", **ours)]
    assert core(run(Booking=webs, bookings=[r.ops(1, booking_ref="A", **theirs)]))["customer_payment_status"] == status


def test_no_downgrade() -> None:
    """Mapping 5.3: PAID is left only with a reversal; what a source would have downgraded is listed."""
    before = run(bookings=[r.ops(1, source="GYG", is_paid=True, paid_at=r.MADE)])
    out = run(before, bookings=[r.ops(1, source="GYG")])
    assert core(out)["customer_payment_status"] == "PAID"
    assert only(out["ops_booking_state"])["is_paid_flag"] is True
    assert queue(out) == {("BOOKING_REVIEW", "booking_identity", "GYG:R1", "MULTI_MATCH")}
    before = run(Booking=[r.web(1)], Payment=pays(("COMPLETED", 1, 100)))
    for payments, status in (
        (pays(("CANCELLED", 1, 100)), "FAILED"),
        (pays(("FAILED", 1, 100)), "PAID"),
        (pays(("REFUNDED", 1, 100)), "REFUNDED"),
        ([], "PAID"),
    ):
        out = run(before, Booking=[r.web(1)], Payment=payments)
        assert core(out)["customer_payment_status"] == status


def test_finance() -> None:
    """Mapping 5.5: of the best-ranked bstadmin candidate that has one; others go to the queue."""
    out = run(
        bookings=[
            r.ops(1, booking_ref="A"),
            r.ops(2, booking_ref="a"),
            r.ops(3, booking_ref="A "),
            r.ops(4, tour_date="infinity"),
        ],
        booking_finances=[r.finance(10, 1), r.finance(20, 2, pattern_id=5, is_locked=True), r.finance(40, 4)],
        booking_finance_items=[r.finance_item(1, 20, True), r.finance_item(2, 20, True), r.finance_item(3, 10, False)],
    )
    row = only(out["ops_finance_bridge"])
    assert (row["booking_finance_id"], row["pattern_id"], row["is_locked"]) == (20, 5, True)
    assert row["settlement_status"] == "SETTLED"
    # Candidate 3 ranks first and has no finance of its own, so the engine does not say DONE.
    assert core(out)["ops_fulfillment_status"] == "ATTENTION"
    assert queue(out) == {
        ("PAYMENT_LINK", "booking_finances", "10", "MULTI_MATCH"),
        ("PAYMENT_LINK", "booking_finances", "40", "NO_MATCH"),
        ("BOOKING_REVIEW", "bookings", "4", "INVALID_SOURCE"),
    }
    pending = run(bookings=[r.ops(1)], booking_finances=[r.finance(1, 1)])
    assert only(pending["ops_finance_bridge"])["settlement_status"] == "PENDING"


# 6. What every batch promises, and what the target allows, over many messy histories

WIDTHS = {
    "catalog_product": {"slug": 191, "name": 255, "product_category": 128, "color_code": 32, "region": 128},
    "catalog_variant": {"code": 64, "name": 255},
    "booking_core": {"external_booking_ref": 128},
    "booking_contact": {"main_name": 191, "main_email": 191, "phone": 64},
    "payment_event": {"method": 32, "gateway": 64, "gateway_order_id": 128, "payment_ref": 128, "status_raw": 64},
    "unmapped_queue": {"source_pk": 128},
}
UNIQUE = {
    "catalog_product": ("slug",),
    "catalog_variant": ("product_key", "code"),
    "channel_external_refs": ("entity_type", "channel_code", "external_ref_kind", "external_ref"),
    "booking_core": ("channel_code", "external_booking_ref"),
    "payment_event": ("payment_ref",),
    "ops_finance_bridge": ("booking_key",),
}


def check_constraints(out: Tables) -> None:
    """The expected rows fit the target schema: widths, unique keys, foreign keys."""
    for table, columns in WIDTHS.items():
        for row in out[table]:
            assert all(row[c] is None or len(row[c]) <= width for c, width in columns.items()), (table, row)
    for table, columns in UNIQUE.items():
        values = [tuple(row[c] for c in columns) for row in out[table] if row[columns[-1]] is not None]
        assert len(values) == len(set(values)), table
    bookings = {b["booking_key"] for b in out["booking_core"]}
    variants = {v["variant_key"] for v in out["catalog_variant"]}
    assert all(row["variant_key"] in variants for row in out["catalog_variant_rate"])
    for table in ("booking_contact", "booking_item_snapshot", "payment_event", "ops_assignment", "ops_finance_bridge"):
        assert all(row["booking_key"] in bookings for row in out[table]), table
    active = [a["booking_key"] for a in out["ops_assignment"] if a["is_active"]]
    assert len(active) == len(set(active))


@pytest.mark.parametrize("seed", range(25))
def test_histories(seed: int) -> None:
    """Mapping 6: a rerun with unchanged sources changes nothing; row order does not matter; every row is allowed."""
    rng = random.Random(seed)
    balisnap, bstadmin = histories.make(rng)
    out = bridge(balisnap, bstadmin, AS_OF)
    for _ in range(3):
        check_constraints(out)
        assert difference(out, bridge(balisnap, bstadmin, AS_OF, out)) == []
        shuffled = {table: rng.sample(rows, len(rows)) for table, rows in balisnap.items()}
        assert difference(bridge(balisnap, bstadmin, AS_OF), bridge(shuffled, bstadmin, AS_OF)) == []
        moved = {row["queue_key"]: row for row in histories.people(rng, out)}
        out["unmapped_queue"] = [moved.get(row["queue_key"], row) for row in out["unmapped_queue"]]
        balisnap, bstadmin = histories.mutate(rng, balisnap, bstadmin)
        out = bridge(balisnap, bstadmin, AS_OF, out)


def test_difference_says_what_differs() -> None:
    """Equal by value is equal; everything else is named."""
    expected = run(**CATALOG, Booking=[r.web(1)], BookingItem=[r.item(1, 1, 1)], Payment=[r.payment(1, 1)])
    actual = {table: [dict(row) for row in rows] for table, rows in expected.items()}
    item, payment = actual["booking_item_snapshot"][0], actual["payment_event"][0]
    item["snapshot_json"] = {"subtotal": 100.00, "infant_unit_price": 0, "item_status": "ACTIVE"}
    item["total_amount"] = Decimal("100.000")
    payment["payment_time"] = payment["payment_time"].astimezone()
    assert difference(expected, actual) == []
    item["total_amount"] = Decimal("100.01")
    extra = {**payment, "payment_key": uuid.uuid4()}
    actual["payment_event"] = [extra]
    found = difference(expected, actual)
    assert len(found) == 3
    assert any("total_amount expected Decimal('1E+2'), actual Decimal('100.01')" in line for line in found)
    assert any("not expected" in line for line in found)
    assert any("missing" in line for line in found)
