"""The sample sources: the same rows every time, every rule of the mapping exercised, nothing foreign overwritten."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from bridge import legacy, postgres, sources
from tests import oracle

AS_OF = date(2026, 11, 22)
Pair = tuple[str, str]

pytestmark = pytest.mark.skipif("TEST_PG_URL" not in os.environ, reason="needs a server: set TEST_PG_URL")


@contextmanager
def two_databases(server: str) -> Iterator[Pair]:
    names = [f"t_{kind}_{uuid4().hex[:10]}" for kind in ("balisnap", "bstadmin")]
    with postgres.connect(server, autocommit=True) as conn:
        for name in names:
            conn.execute(postgres.statement("create database {}", name))
    try:
        yield postgres.with_database(server, names[0]), postgres.with_database(server, names[1])
    finally:
        with postgres.connect(server, autocommit=True) as conn:
            for name in names:
                conn.execute(postgres.statement("drop database if exists {} with (force)", name))


@pytest.fixture
def pair() -> Iterator[Pair]:
    with two_databases(os.environ["TEST_PG_URL"]) as urls:
        yield urls


@pytest.fixture(scope="module")
def large() -> Iterator[tuple[Pair, dict[str, dict[str, int]]]]:
    """20,000 healthy bookings, which hold every rare case."""
    with two_databases(os.environ["TEST_PG_URL"]) as urls:
        yield urls, sources.create(*urls, bookings=20_000, seed=7, as_of=AS_OF)


def make(urls: Pair, **given: Any) -> dict[str, dict[str, int]]:
    return sources.create(*urls, **{"bookings": 300, "seed": 7, "as_of": AS_OF, **given})


def one(url: str, query: str, *parameters: object) -> Any:
    with postgres.connect(url) as conn:
        row = conn.execute(query.encode(), parameters or None).fetchone()
    return row[0] if row else None


def digests(urls: Pair) -> dict[str, str]:
    """Per table, a digest of all its rows, whatever their order."""
    found = {}
    for url in urls:
        with postgres.connect(url) as conn:
            conn.execute("set timezone = 'UTC'")
            for (table,) in conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall():
                query = postgres.statement(
                    """select md5(string_agg(t::text, E'\\n' order by t::text collate "C")) from public.{} t""", table
                )
                found[table] = conn.execute(query).fetchone()[0]
    return found


# ---- the same sample every time ----


def test_two_fills_are_equal_and_other_parameters_are_not(pair: Pair) -> None:
    make(pair)
    first = digests(pair)
    make(pair)
    assert digests(pair) == first
    make(pair, seed=8)
    changed = {table for table, digest in digests(pair).items() if digest != first[table]}
    assert {"Booking", "Payment", "bookings", "email_inbox"} <= changed
    make(pair, as_of=date(2026, 3, 1))
    assert digests(pair)["bookings"] != first["bookings"]


def test_content_does_not_depend_on_server_time_zone_or_search_path(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(pair, bookings=2500)
    here = digests(pair)

    def elsewhere(url: str, **given: Any) -> psycopg.Connection:
        conn = postgres.connect(url, **given)
        conn.execute("set timezone = 'Pacific/Honolulu'")
        conn.execute("set datestyle = 'SQL, DMY'")
        conn.execute("set search_path = information_schema, public")
        conn.commit()
        return conn

    monkeypatch.setattr(sources, "connect", elsewhere)
    make(pair, bookings=2500)
    assert digests(pair) == here
    if "TEST_PG15_URL" in os.environ:
        with two_databases(os.environ["TEST_PG15_URL"]) as urls:
            make(urls, bookings=2500)
            assert digests(urls) == here


def test_a_second_demo_reuses_what_is_there(pair: Pair) -> None:
    assert sources.is_current(*pair, bookings=300, seed=7, as_of=AS_OF) is None
    rows = make(pair)
    assert sources.is_current(*pair, bookings=300, seed=7, as_of=AS_OF) == rows
    assert sources.is_current(*pair, bookings=300, seed=7, as_of=AS_OF, scenario="duplicate-pax") is None
    assert sources.is_current(*pair, bookings=301, seed=7, as_of=AS_OF) is None
    assert sources.is_current(*reversed(pair), bookings=300, seed=7, as_of=AS_OF) is None

    written = one(pair[0], 'select max(xmin::text::bigint) from public."Booking"')
    said: list[str] = []
    assert make(pair, reuse=True, progress=said.append) == rows
    assert one(pair[0], 'select max(xmin::text::bigint) from public."Booking"') == written
    assert said == ["this sample is already there"]
    assert make(pair, reuse=True, seed=9) != rows


# ---- nothing of somebody else's is overwritten ----


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "foreign",
    [
        "create table public.bookings (booking_id int)",
        "create view public.v as select 1 as one",
        "create schema shop create table orders (id int)",
        "create schema sample",
        "create schema sample create table phase2_sample (source text)",
    ],
)
def test_a_foreign_database_is_refused_and_neither_is_touched(pair: Pair, which: int, foreign: str) -> None:
    with postgres.connect(pair[which], autocommit=True) as conn:
        conn.execute(foreign.encode())
    before = [one(url, "select count(*) from pg_class") for url in pair]
    with pytest.raises(sources.SourceError, match="refusing to write") as refused:
        make(pair)
    assert postgres.describe(pair[which]) in str(refused.value)
    assert "empty database" in str(refused.value)
    assert [one(url, "select count(*) from pg_class") for url in pair] == before


def test_tables_beside_ours_are_left_alone(pair: Pair) -> None:
    make(pair)
    with postgres.connect(pair[1], autocommit=True) as conn:
        conn.execute("create table public.my_notes as select 1 as id")
    make(pair, seed=8)
    assert one(pair[1], "select count(*) from public.my_notes") == 1


def test_one_failing_source_leaves_both_as_they_were(pair: Pair) -> None:
    make(pair)
    before = digests(pair)
    with postgres.connect(pair[1], autocommit=True) as conn:
        conn.execute("create view public.report as select booking_id from public.bookings")
    with pytest.raises(sources.SourceError, match="Nothing was written"):
        make(pair, seed=8)
    assert {t: d for t, d in digests(pair).items() if t in before} == before


def test_bad_parameters_are_refused_before_anything_is_opened() -> None:
    nowhere = ("postgresql://postgres@127.0.0.1:1/a", "postgresql://postgres@127.0.0.1:1/b")
    with pytest.raises(sources.SourceError, match="no scenario is called 'hopeful'.*healthy"):
        make(nowhere, scenario="hopeful")
    with pytest.raises(sources.SourceError, match="bookings=0"):
        make(nowhere, bookings=0)
    with pytest.raises(sources.SourceError, match="seed=-1"):
        make(nowhere, seed=-1)


def test_one_database_for_both_is_refused(pair: Pair) -> None:
    with pytest.raises(sources.SourceError, match="same database"):
        make((pair[0], pair[0]))


# ---- what is in it ----


def test_the_schemas_are_the_sources_own(large: tuple[Pair, Any]) -> None:
    urls, rows = large
    for url, source in zip(urls, sources.SOURCES, strict=True):
        ddl = (sources.SQL / "sources" / f"{source}.sql").read_text()
        unique_or_index = ddl.count("\ncreate unique index ") + ddl.count("\ncreate index ")
        keys = ddl.count(" primary key ")
        assert one(url, "select count(*) from pg_indexes where schemaname = 'public'") == unique_or_index + keys
        assert one(url, "select count(*) from pg_constraint where contype = 'f' and convalidated") == ddl.count(
            "foreign key ("
        )
        assert one(url, "select count(*) from pg_tables where schemaname = 'public'") == len(rows[source])
        assert all(rows[source].values()), "no table is empty"


def test_shares_of_the_two_sources(large: tuple[Pair, dict[str, dict[str, int]]]) -> None:
    (balisnap, bstadmin), rows = large
    assert 7_000 <= rows["balisnap"]["Booking"] <= 7_010
    assert 14_000 <= rows["bstadmin"]["bookings"] <= 14_020
    assert rows["balisnap"]["Booking"] == one(balisnap, 'select count(*) from public."Booking"')
    direct = one(bstadmin, "select array_agg(upper(btrim(booking_ref))) from public.bookings where source = 'DIRECT'")
    both = one(balisnap, 'select count(*) from public."Booking" where upper(btrim(booking_ref)) = any(%s)', direct)
    assert 950 <= both <= 1_000  # one in twenty, but for those whose ref hides invisible characters


def test_ids_go_on_after_the_sample(large: tuple[Pair, Any]) -> None:
    (balisnap, bstadmin), _ = large
    largest = one(bstadmin, "select max(booking_id) from public.bookings")
    assert one(bstadmin, "select nextval('public.bookings_booking_id_seq')") == largest + 1
    largest = one(balisnap, 'select max(payment_id) from public."Payment"')
    assert one(balisnap, """select nextval('public."Payment_payment_id_seq"')""") == largest + 1


def test_every_time_lies_before_as_of_but_travel_does_not(large: tuple[Pair, Any]) -> None:
    (balisnap, bstadmin), _ = large
    for column in ("received_at", "created_at"):
        assert one(bstadmin, f"select max({column})::date from public.email_inbox") <= AS_OF  # noqa: S608
    finite = "filter (where created_at <> 'infinity')"
    assert one(balisnap, f'select max(created_at) {finite} <= %s from public."Booking"', AS_OF)  # noqa: S608
    ahead = one(bstadmin, "select count(*) from public.bookings where tour_date between %s and 'infinity'", AS_OF)
    assert 400 < ahead < 1_000


@pytest.mark.parametrize("rule", sources.rules(), ids=lambda r: f"{r.paragraph} {r.source} {r.title}")
def test_every_rule_has_rows(large: tuple[Pair, Any], rule: sources.Rule) -> None:
    urls, _ = large
    assert one(urls[sources.SOURCES.index(rule.source)], rule.query) > 0


def test_every_planted_case_is_used() -> None:
    """A name in common.sql that no statement acts on would be a case that is not there."""
    common = (sources.SQL / "sample" / "common.sql").read_text()
    listed = common.split("unnest(array[")[1].split("]) with ordinality")[0]
    names = [name.strip().strip("'") for name in listed.split(",")]
    assert len(names) == len(set(names)) > 80
    sql = {s: (sources.SQL / "sample" / f"quirks_{s}.sql").read_text() for s in sources.SOURCES}
    for entry in names:
        kind, name = entry.split(":")
        where = {"B": ["balisnap"], "O": ["bstadmin"], "X": list(sources.SOURCES)}[kind]
        assert any(f"'{name}'" in sql[source] for source in where), entry


# ---- gates, by the reference implementation of the mapping ----

_LANDED = {
    "balisnap": "TourPackage TourImage TourProduct TourVariant VariantRatePlan VariantItinerary Departure Booking"
    " BookingItem BookingTraveler Payment",
    "bstadmin": "tours tour_packages tour_images tour_itineraries bookings booking_finances booking_finance_items",
}


def measures(urls: Pair) -> dict[str, float]:
    """The gates that the sources can break, measured plainly on what the bridge would hold."""
    landed = []
    for url, source in zip(urls, sources.SOURCES, strict=True):
        with postgres.connect(url) as conn:
            landed.append(oracle.load(conn, "public", _LANDED[source].split()))
    made = oracle.bridge(*landed, AS_OF)
    queue = [row for row in made["unmapped_queue"] if row["status"] in ("OPEN", "IN_REVIEW")]
    cores, catalog = made["booking_core"], len(made["catalog_product"]) + len(made["catalog_variant"])
    sold = {row["product_key"] for row in made["catalog_variant"]}
    priced = {row["variant_key"] for row in made["catalog_variant_rate"] if row["is_active"]}
    travellers: Counter[Any] = Counter()
    for item in made["booking_item_snapshot"]:
        travellers[item["booking_key"]] += item["adult_qty"] + item["child_qty"]
    pax = sum(r["number_of_adult"] + r["number_of_child"] != travellers[r["booking_key"]] for r in cores)
    done = [row for row in cores if row["ops_fulfillment_status"] == "DONE"]
    unpaid = sum(row["customer_payment_status"] not in ("PAID", "REFUNDED") for row in done)
    orphans = sum(row["product_key"] not in sold for row in made["catalog_product"])
    # rates are reviewed too, but are no bridge rows of G-02
    catalog_reviews = len(
        {
            (row["source_table"], row["source_pk"])
            for row in queue
            if row["queue_type"] == "CATALOG_EXTENDED_METADATA" and row["source_table"] != "VariantRatePlan"
        }
    )
    reviews = len({(r["source_table"], r["source_pk"]) for r in queue if r["queue_type"] == "BOOKING_REVIEW"})
    on_captures = [
        (captures[0], row)
        for row in made["payment_event"]
        if (captures := _captures(row["raw_payload"])) and row["payment_status_v2"] != "REFUNDED"
    ]
    return {
        "A-03": float(_failing_pages(urls)),
        "C-01": orphans / catalog,
        "C-02": sum(r["queue_type"] not in ("BOOKING_REVIEW", "PAYMENT_LINK") for r in queue) / catalog,
        "C-03": float(len({row["variant_key"] for row in made["catalog_variant"]} - priced)),
        "D-03": pax / len(cores),
        "E-02": unpaid / max(1, len(done)),
        "E-03": float(
            sum(
                (float(capture["amount"]["value"]), capture["amount"]["currency_code"], capture["id"])
                != (float(row["amount"]), row["currency_code"], row["gateway_capture_id"])
                for capture, row in on_captures
            )
        ),
        "G-02": (catalog_reviews + orphans + pax + reviews) / (catalog + len(cores) + len(made["payment_event"])),
        "G-02 after batch C": (catalog_reviews + orphans) / catalog,
        "captures": len(on_captures),
    }


def _failing_pages(urls: Pair) -> int:
    """The legacy applications' own statements that fail on these sources."""
    failing = 0
    for url, source in zip(urls, sources.SOURCES, strict=True):
        with postgres.connect(url, read_only=True) as conn:
            asked = [legacy.ask(conn, statement) for statement in legacy.statements() if statement.source == source]
        assert asked
        failing += sum(outcome.error is not None for outcome in asked)
    return failing


def _captures(payload: Any) -> list[dict[str, Any]]:
    if not isinstance(payload, dict) or "purchase_units" not in payload:
        return []
    return payload["purchase_units"][0]["payments"]["captures"]


# spec/gates.md; written out here so that a change of the registry does not move what "healthy" means
LIMITS = {
    "A-03": 0,
    "C-01": 0.005,
    "C-02": 0.05,
    "C-03": 0,
    "D-03": 0.01,
    "E-02": 0.003,
    "E-03": 0,
    "G-02": 0.01,
    "G-02 after batch C": 0.01,
}


def broken(measured: dict[str, float]) -> set[str]:
    return {gate for gate, limit in LIMITS.items() if measured[gate] > limit}


@pytest.mark.parametrize(("bookings", "seed"), [(20, 1), (200, 7), (200, 11), (1_000, 3), (2_500, 5), (10_000, 2)])
def test_a_healthy_shop_of_any_size_passes(pair: Pair, bookings: int, seed: int) -> None:
    make(pair, bookings=bookings, seed=seed)
    assert broken(measures(pair)) == set()


def test_the_large_healthy_shop_passes_and_is_messy(large: tuple[Pair, Any]) -> None:
    measured = measures(large[0])
    assert broken(measured) == set()
    assert measured["captures"] > 4_000
    assert min(measured["C-02"], measured["D-03"], measured["E-02"], measured["G-02"]) > 0.0005


@pytest.mark.parametrize("scenario", [s for s in sources.SCENARIOS.values() if s.gate], ids=lambda s: s.name)
def test_a_scenario_breaks_its_gate(pair: Pair, scenario: sources.Scenario) -> None:
    make(pair, bookings=400, scenario=scenario.name)
    found = broken(measures(pair))
    assert scenario.gate in found
    # a head count that differs is an unexplained difference too, so D-03 takes G-02 along; the others stand alone
    assert found - {scenario.gate, "G-02" if scenario.gate == "D-03" else ""} == set()


def test_scenarios_cover_the_gates_that_sources_can_break() -> None:
    gates = {scenario.gate for scenario in sources.SCENARIOS.values()}
    assert gates == {None, "A-03", "C-01", "C-02", "C-03", "D-03", "E-02", "E-03", "G-02"}
    for scenario in sources.SCENARIOS.values():
        assert scenario.title.endswith(".")
        assert (scenario.gate is None) == (not scenario.statements)


# ---- what needs both sources to see ----


@pytest.fixture(scope="module")
def twins(large: tuple[Pair, Any]) -> list[dict[str, Any]]:
    """Bookings of both sources, joined by their refs without invisible characters."""
    (balisnap, bstadmin), _ = large
    plain = "upper(regexp_replace(booking_ref, E'[\\u200b\\u2060\\ufeff\\u00a0 ]', '', 'g'))"
    day = "(tour_date + interval '8 hours')::date"
    with ExitStack() as stack:
        web, ops = (stack.enter_context(postgres.connect(url)) for url in (balisnap, bstadmin))
        mine = {
            row[0]: row
            for row in web.execute(
                f"""select {plain}, booking_id, total_price, currency_code, coalesce(status_v2::text, status),
                    updated_at, note from public."Booking"
                    where booking_ref is not null and updated_at <> 'infinity'""".encode()  # noqa: S608
            ).fetchall()
        }
        theirs = ops.execute(
            f"""select {plain}, {day}, total_price, currency, status::text, updated_at, note, booking_id
                from public.bookings
                where source = 'DIRECT' and booking_ref is not null
                    and 'infinity' not in (tour_date, updated_at)""".encode()  # noqa: S608
        ).fetchall()
    return [{"web": mine[row[0]], "ops": row} for row in theirs if row[0] in mine]


def test_twins_agree_but_for_the_planted_ones(twins: list[dict[str, Any]]) -> None:
    assert 990 <= len(twins) <= 1_010
    other_total = [t for t in twins if abs(t["web"][2] - t["ops"][2]) > Decimal("0.01")]
    other_currency = [t for t in other_total if t["web"][3].upper() != t["ops"][3].upper()]
    assert 1 <= len(other_currency) < len(other_total) < 15, "another total, in one currency and in two"
    assert any(abs(t["web"][2] - t["ops"][2]) == Decimal("0.01") for t in twins), "a cent is no conflict"


def test_twins_tie_and_contradict(twins: list[dict[str, Any]]) -> None:
    assert any(t["web"][5] == t["ops"][5] for t in twins), "equal updated_at: balisnap is ranked first"
    assert any(t["web"][5] > t["ops"][5] for t in twins)
    assert any(t["web"][5] < t["ops"][5] for t in twins)
    gone = [t for t in twins if t["web"][4] in ("CANCELLED", "REFUNDED")]
    assert any(t["ops"][4] not in ("CANCELLED", "NO_SHOW") for t in gone), "cancelled there, alive here"
    assert any(t["web"][4].upper() in ("CANCELLED", "REFUNDED") and t["ops"][4] == "CANCELLED" for t in twins)
    assert any(t["web"][6] and t["ops"][6] and t["web"][6] != t["ops"][6] for t in twins), "two notes"
    same = [t for t in twins if t["web"][6] and t["ops"][6] and t["web"][6].strip() == t["ops"][6].strip()]
    assert same, "one note, twice"
    assert any(n > 1 for n in Counter(t["ops"][0] for t in twins).values()), "three candidates of one identity"
