"""Landing: what arrives is what the sources hold, and whatever goes wrong leaves the landing before it whole."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import conninfo, sql

from bridge import changes, landing, postgres
from bridge.landing import LandingError
from bridge.settings import ROOT, SQL

SOURCES = {"balisnap": SQL / "sources" / "balisnap.sql", "bstadmin": SQL / "sources" / "bstadmin.sql"}


@dataclass(frozen=True)
class Trio:
    """Three databases of one server."""

    ops: str
    balisnap: str
    bstadmin: str

    def land(self, **changed: str) -> landing.LandingResult:
        urls = {"ops": self.ops, "balisnap": self.balisnap, "bstadmin": self.bstadmin} | changed
        return landing.land(urls["ops"], urls["balisnap"], urls["bstadmin"], whole=True)

    def follow(self) -> landing.LandingResult:
        """Land what has changed, as a run does."""
        return landing.land(self.ops, self.balisnap, self.bstadmin)

    def fails(self, *says: str, **changed: str) -> str:
        """Land, which must fail and say all this; the words, which must hold no data and no password."""
        before = landed(self.ops)
        with pytest.raises(LandingError) as caught:
            self.land(**changed)
        words = str(caught.value)
        for part in says:
            assert part in words
        assert caught.value.what
        assert caught.value.where
        assert caught.value.todo
        for secret in ("Wayan", "wayan@", "s3cret", *passwords(self)):
            assert secret not in words
        assert caught.value.__cause__ is None
        assert landed(self.ops) == before
        return words


def passwords(trio: Trio) -> list[str]:
    return [p for url in (trio.ops, trio.balisnap) if (p := conninfo.conninfo_to_dict(url).get("password"))]


def execute(url: str, *statements: str) -> None:
    with postgres.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def query(url: str, statement: str) -> list[tuple]:
    with postgres.connect(url, autocommit=True) as conn:
        return conn.execute(statement.encode()).fetchall()


def landed(ops: str) -> dict[str, object]:
    """All that a landing writes: rows, records and the shape of its tables."""
    found: dict[str, object] = {}
    for schema, table in query(
        ops, "select schemaname, tablename from pg_catalog.pg_tables where schemaname like 'landing\\_%' order by 1, 2"
    ):
        found[f"{schema}.{table}"] = query(
            ops,
            f"select count(*), md5(string_agg(t::text, ',' order by t::text)) from {schema}.\"{table}\" as t",  # noqa: S608 (names of this file)
        )
    found["runs"] = query(ops, "select landing_id, source, row_count from phase2.landing_runs order by landing_no")
    return found


def problems(ops: str) -> list[str]:
    with postgres.connect(ops, autocommit=True) as conn:
        return landing.landing_problems(conn)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Trio]]:
    """Three databases a server, used by one test after the other: to make and drop them costs more than most tests."""
    trios: dict[str, Trio] = {}
    yield trios
    for server, trio in trios.items():
        with postgres.connect(server, autocommit=True) as conn:
            for url in (trio.ops, trio.balisnap, trio.bstadmin):
                name = postgres.database_name(url)
                conn.execute(postgres.statement("drop database {} with (force)", name))


@pytest.fixture
def trio(server: str, made: dict[str, Trio]) -> Trio:
    """Empty sources with their schemas, and an ops database with our own state."""
    if server not in made:
        names = {name: f"t_{name}_{uuid4().hex[:8]}" for name in ("ops", "balisnap", "bstadmin")}
        with postgres.connect(server, autocommit=True) as conn:
            for name in names.values():
                conn.execute(postgres.statement("create database {}", name))
        made[server] = Trio(**{name: postgres.with_database(server, names[name]) for name in names})
    trio = made[server]
    for url in (trio.ops, trio.balisnap, trio.bstadmin):
        execute(
            url,
            "set client_min_messages = error",
            "drop schema if exists public, phase2, landing_balisnap, landing_bstadmin cascade",
            "create schema public",
            "grant usage on schema public to public",
        )
    execute(trio.ops, (SQL / "state.sql").read_text())
    for name, file in SOURCES.items():
        with psycopg.connect(getattr(trio, name), autocommit=True) as conn:
            conn.execute(file.read_bytes())
    return trio


@pytest.fixture
def full(trio: Trio) -> Trio:
    """Sources with rows, landed once; afterwards the sources have changed, so that a landing would show."""
    fill(trio)
    return trio


def fill(trio: Trio) -> None:
    execute(
        trio.balisnap,
        """
        insert into public."TourPackage" (package_name, price_per_person, updated_at, slug)
        select 'p' || i, i, now() at time zone 'UTC', 's' || i from generate_series(1, 3000) as i;
        insert into public."TourProduct" (product_name, updated_at, slug) values ('Wayan', now(), 'wayan');
        """,
    )
    execute(
        trio.bstadmin,
        """
        insert into public.users (id, updated_at) values ('u', now());
        insert into public.bookings (user_id, booking_date, tour_date, total_price, number_of_adult, updated_at,
            main_contact_name, main_contact_email)
        select 'u', now(), now(), i, 1, now(), 'Wayan', 'wayan@real.org' from generate_series(1, 2000) as i;
        """,
    )
    trio.land()
    assert problems(trio.ops) == []
    execute(trio.balisnap, "update public.\"TourPackage\" set package_name = 'changed'")
    execute(trio.bstadmin, "update public.bookings set total_price = 0")


# What arrives --------------------------------------------------------------------------------------------------------


def test_every_value_arrives_as_it_is(trio: Trio) -> None:
    odd = "a\u200b\u2060\ufeff\u00a0b\tc\nd\\N 'q' \"Q\" {1,2} é e\u0301 日本 🛕"
    with psycopg.connect(trio.balisnap, autocommit=True) as conn:
        conn.execute(
            """
            insert into "TourPackage" (package_id, package_name, short_description, price_per_person, price_per_child,
                updated_at, slug, priority)
            values (1, %(odd)s, '', 'NaN', -0.005, 'infinity', 's', -32768),
                (2, 'x', null, 99999999999999999999999999999999999.999999999999999999999999999999, null,
                '-infinity', 't', 32767)
            """,
            {"odd": odd},
        )
        conn.execute(
            """
            insert into "TourImage" (image_id, url, tour_id) values (1, 'http://x/é?q=%20', 1);
            insert into "TourProduct" (product_id, product_name, slug, country_code, updated_at)
                values (2147483647, 'p', 'p', 'id', '2024-02-29 23:59:59.999');
            insert into "TourVariant" (variant_id, product_id, variant_code, variant_name, service_type, duration_days,
                updated_at) values (1, 2147483647, 'v', 'v', 'CUSTOM', 1, now());
            insert into "VariantRatePlan" (rate_plan_id, variant_id, traveler_type, price, season_start, season_end,
                valid_from, updated_at)
                values (1, 1, 'INFANT', 0, 'infinity', '0044-03-15 BC', '-infinity', now());
            insert into "VariantItinerary" (itinerary_id, variant_id, day, title, start_time, end_time, updated_at)
                values (1, 1, 1, 't', '00:00:00.000001', '24:00', now());
            insert into "Departure" (departure_id, variant_id, start_date, end_date, capacity_total, updated_at)
                values (1, 1, '2026-03-01 16:00:00.123', now(), 1, now());
            insert into "User" (id, "updatedAt") values ('u', now());
            insert into "Booking" (booking_id, user_id, booking_date, total_price, number_of_adult, status_v2,
                updated_at, booking_ref) values (1, 'u', now(), -1.5, -3, 'EXPIRED', now(), E'r\\u200c1');
            """
        )
        conn.execute(
            """
            insert into "BookingItem" (booking_item_id, booking_id, variant_id, item_status, updated_at, snapshot)
            values (1, 1, 1, 'CANCELLED', now(), %s)
            """,
            ('{"b": [1.10, 1e400, null, "\\u00e9"], "a": {"": " "}, "n": 123456789012345678901234567890}',),
        )
        conn.execute(
            """
            insert into "BookingTraveler" (traveler_id, booking_item_id, traveler_type, first_name, birth_date,
                updated_at) values (1, 1, 'CHILD', 'é', '1999-12-31', now());
            insert into "Payment" (payment_id, booking_id, user_id, amount, payment_method, payment_status_v2,
                updated_at, raw_payload) values (1, 1, 'u', 'NaN', 'paypal', 'PARTIALLY_REFUNDED', now(), 'null');
            """
        )
    with psycopg.connect(trio.bstadmin, autocommit=True) as conn:
        conn.execute(
            """
            insert into users (id, updated_at) values ('u', now());
            insert into tours (tour_id, tour_name, slug, updated_at) values (1, 't', 't', now());
            insert into tour_packages (package_id, tour_id, package_name, slug, price_per_person, updated_at)
                values (1, 1, 'p', 'p', 'NaN', now());
            insert into tour_images (image_id, url, tour_id) values (1, 'u', 1);
            insert into activities (activity_id, activity_name, updated_at) values (1, 'a', now());
            insert into tour_itineraries (itinerary_id, package_id, activity_id, start_time) values (1, 1, 1, '8:00');
            insert into bookings (booking_id, user_id, booking_date, tour_date, total_price, number_of_adult, status,
                source, updated_at) values (1, 'u', 'infinity', now(), 1.25, 2, 'NO_SHOW', 'TRIPDOTCOM', now());
            insert into booking_finances (booking_finance_id, booking_id, updated_at) values (1, 1, now());
            insert into booking_finance_items (finance_item_id, booking_finance_id, name_snapshot, unit_type,
                unit_price, amount, updated_at) values (1, 1, 'n', 'PER_PAX', 1, 2, now());
            """
        )
    result = trio.land()
    assert result.rows == 19
    compared = 0
    for source, url in (("balisnap", trio.balisnap), ("bstadmin", trio.bstadmin)):
        for table in [t.table for t in result.tables if t.source == source]:
            columns = [
                row[0]
                for row in query(
                    trio.ops,
                    "select a.attname from pg_catalog.pg_attribute as a where a.attnum > 0"  # noqa: S608
                    f" and a.attrelid = 'landing_{source}.\"{table}\"'::regclass",
                )
            ]
            texts = ", ".join(f'"{column}"::text' for column in columns)
            there = query(url, f'select {texts} from public."{table}" order by 1')  # noqa: S608
            here = query(trio.ops, f'select {texts} from landing_{source}."{table}" order by 1')  # noqa: S608
            assert len(there) >= 1
            assert here == there, table
            compared += len(here) * len(columns)
    assert compared > 200
    assert problems(trio.ops) == []


def test_landing_types_are_the_sources_but_enums_and_varchars_are_text(trio: Trio) -> None:
    trio.land()
    types = {
        row[0]
        for row in query(
            trio.ops,
            "select distinct pg_catalog.format_type(a.atttypid, a.atttypmod) from pg_catalog.pg_attribute as a"
            " join pg_catalog.pg_class as c on c.oid = a.attrelid"
            " where c.relnamespace::regnamespace::text like 'landing\\_%' and a.attnum > 0",
        )
    }
    assert types == {
        "text",
        "integer",
        "smallint",
        "numeric",
        "boolean",
        "date",
        "time without time zone",
        "timestamp without time zone",
        "jsonb",
    }


def test_what_is_landed_is_named_in_the_source_and_holds_no_more_than_is_needed(trio: Trio) -> None:
    """Names and nullability of every landing column are the source's; people and mails stay where they are."""
    trio.land()
    shape = (
        "select c.relname, a.attname, a.attnotnull from pg_catalog.pg_attribute as a"
        " join pg_catalog.pg_class as c on c.oid = a.attrelid"
        " where c.relnamespace = '{}'::regnamespace and c.relkind = 'r' and a.attnum > 0"
    )
    for source, url in (("balisnap", trio.balisnap), ("bstadmin", trio.bstadmin)):
        here = set(query(trio.ops, shape.format(f"landing_{source}")))
        assert here
        assert here <= set(query(url, shape.format("public")))
        assert not {column for _, column, _ in here} & {"user_id", "password", "raw_email_id", "body", "html_body"}
        assert not {table for table, _, _ in here} & {
            "User",
            "users",
            "drivers",
            "partners",
            "audit_logs",
            "email_inbox",
        }
    logged = query(
        trio.ops,
        "select relname from pg_catalog.pg_class where relkind = 'r' and relpersistence <> 'u'"
        " and relnamespace::regnamespace::text like 'landing\\_%'",
    )
    assert logged == []


def test_a_source_may_have_more_columns_in_any_order_and_wider_shapes(trio: Trio) -> None:
    """Dropped and added columns, a domain, a json for a jsonb, an integer for a numeric, a view for a table."""
    execute(
        trio.balisnap,
        "alter table public.\"TourImage\" drop column url, add column extra text default 'more',"
        " add column url varchar(300) not null default 'http://x'",
        "create domain public.short as varchar(40)",
        'alter table public."TourProduct" alter column region type public.short',
        'alter table public."BookingItem" alter column snapshot type json',
        'alter table public."TourPackage" alter column price_per_child type integer',
        'insert into public."TourPackage" (package_id, package_name, price_per_person, price_per_child, updated_at,'
        " slug) values (7, 'p', 1, 3, now(), 's')",
        'insert into public."TourImage" (image_id, tour_id) values (1, 7)',
    )
    execute(
        trio.bstadmin,
        "alter table public.tours rename to tours_2",
        "insert into public.tours_2 (tour_id, tour_name, slug, updated_at) values (5, 'Wayan', 's', now())",
        "create view public.tours as select * from public.tours_2",
    )
    trio.land()
    assert query(trio.ops, 'select image_id, url, tour_id from landing_balisnap."TourImage"') == [(1, "http://x", 7)]
    assert query(trio.ops, 'select price_per_child::text from landing_balisnap."TourPackage"') == [("3",)]
    assert query(trio.ops, "select tour_id, tour_name from landing_bstadmin.tours") == [(5, "Wayan")]


def test_a_landing_replaces_the_one_before_and_keeps_its_record(full: Trio) -> None:
    run_id = uuid4()
    lines: list[str] = []
    result = landing.land(full.ops, full.balisnap, full.bstadmin, run_id, lines.append, whole=True)
    assert query(full.ops, 'select distinct package_name from landing_balisnap."TourPackage"') == [("changed",)]
    assert query(full.ops, "select distinct total_price from landing_bstadmin.bookings") == [(0,)]
    runs = query(
        full.ops,
        "select source, run_id, landing_id, row_count, source_database, snapshot_at < landed_at, byte_count > 0,"
        " snapshot_txid ~ '^[0-9]+:[0-9]+:' from phase2.landing_runs order by landing_no desc limit 2",
    )
    assert {row[0] for row in runs} == {"balisnap", "bstadmin"}
    assert {row[1:3] for row in runs} == {(run_id, result.landing_id)}
    assert sum(row[3] for row in runs) == result.rows == 5001
    assert all(row[5:] == (True, True, True) for row in runs)
    assert {row[4] for row in runs} == {
        postgres.database_name(full.balisnap),
        postgres.database_name(full.bstadmin),
    }
    tables = query(
        full.ops,
        "select source || '.' || table_name, row_count from phase2.landing_tables"  # noqa: S608
        f" where landing_id = '{result.landing_id}'",
    )
    assert dict(tables) == {f"{t.source}.{t.table}": t.rows for t in result.tables}
    assert len(tables) == 18
    assert any(re.fullmatch(r"landed balisnap\.TourPackage: 3,000 rows, [\d,]+ rows/s", line) for line in lines)
    assert problems(full.ops) == []


def test_rows_are_counted_by_the_message(full: Trio) -> None:
    """The counter behind the progress lines agrees with what arrives, block by block."""
    with (
        closing(landing._open("bstadmin", full.bstadmin, (), read_only=True)) as source,
        postgres.connect(full.ops) as ops,
    ):
        side = landing._Side("bstadmin", source, ops, "")
        side.tables = landing.preflight.wanted_tables(ops, "landing_bstadmin")
        side.found, _ = landing.preflight.check(source, "bstadmin", side.tables)
        table = next(t for t in side.tables if t.name == "bookings")
        blocks = list(landing._blocks(side, table, landing.preflight.select(table, side.found[table.name])))
    assert len(blocks) > 1
    assert blocks[-1][0] == 2000


def test_sources_are_read_only_and_one_snapshot(full: Trio) -> None:
    with closing(landing._open("balisnap", full.balisnap, landing._SOURCE_SETTINGS, read_only=True)) as conn:
        first = conn.execute('select package_name from public."TourPackage" limit 1').fetchone()
        execute(full.balisnap, "update public.\"TourPackage\" set package_name = 'meanwhile'")
        assert conn.execute('select package_name from public."TourPackage" limit 1').fetchone() == first
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute('delete from public."TourPackage"')
        conn.rollback()
        conn.read_only = None  # even a client that forgets: the session's default says it too
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            conn.execute('delete from public."TourPackage"')


def test_a_landing_leaves_statistics_and_frozen_rows_behind(full: Trio) -> None:
    assert query(
        full.ops,
        "select relname, reltuples::integer, relallvisible > relpages / 2 from pg_catalog.pg_class"
        " where oid in ('landing_bstadmin.bookings'::regclass, 'landing_balisnap.\"TourPackage\"'::regclass)"
        " order by 1",
    ) == [("TourPackage", 3000, True), ("bookings", 2000, True)]


# A landing that follows changes -------------------------------------------------------------------------------------


def rows_landed(ops: str) -> dict[str, object]:
    return {name: rows for name, rows in landed(ops).items() if name != "runs"}


CHANGES = (
    # without a word in updated_at; a deleted row; new ones, also with a key below all others; a value's scale alone
    "update public.bookings set note = 'quiet' where booking_id % 500 = 3",
    "delete from public.bookings where booking_id in (1, 17, 1999)",
    "insert into public.bookings (booking_id, user_id, booking_date, tour_date, total_price, currency,"
    " number_of_adult, status, source, main_contact_name, main_contact_email, phone_number, pickup_location,"
    " meeting_point, updated_at) select n, 'u', now(), now(), 1, 'USD', 1, 'NEW', 'GYG', 'w', 'w', '1', '', '', now()"
    " from unnest(array[-5, 0, 5000]) as n",
    "update public.bookings set booking_id = 6000 where booking_id = 40",
    "update public.bookings set total_price = 0.00 where booking_id = 55",
    "delete from public.tours",
)


@pytest.mark.parametrize("few", [changes.FEW, 0], ids=["looked up", "in one scan"])
def test_following_leaves_what_copying_everything_would(full: Trio, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(changes, "FEW", few)
    full.land()
    assert full.follow().why_whole is None
    for statement in CHANGES:
        execute(full.bstadmin, statement)
        followed = full.follow()
        assert followed.why_whole is None
        assert problems(full.ops) == []
        after = rows_landed(full.ops)
        digests = query(full.ops, LATEST_DIGESTS)
        counts = {f"{t.source}.{t.table}": t.rows for t in followed.tables}
        copied = full.land()
        assert rows_landed(full.ops) == after, statement
        assert query(full.ops, LATEST_DIGESTS) == digests, statement
        assert {f"{t.source}.{t.table}": t.rows for t in copied.tables} == counts
    assert sum(t.changed or 0 for t in full.follow().tables) == 0


LATEST_DIGESTS = (
    "select distinct on (source) source, content_digest from phase2.landing_runs order by source, landing_no desc"
)


def test_rows_that_were_only_written_again_are_no_changes(full: Trio) -> None:
    full.land()
    execute(
        full.bstadmin, "update public.bookings set user_id = user_id where booking_id = 7", "vacuum full public.tours"
    )
    assert sum(t.changed or 0 for t in full.follow().tables) == 0
    execute(full.bstadmin, "update public.bookings set note = 'x' where booking_id in (7, 9)")
    assert {(t.table, t.changed) for t in full.follow().tables if t.changed} == {("bookings", 2)}
    assert query(full.ops, "select source, table_name, pk, kind, parent from phase2.landed_changes order by pk") == [
        ("bstadmin", "bookings", 7, "update", 7),
        ("bstadmin", "bookings", 9, "update", 9),
    ]


@pytest.mark.parametrize(
    ("where", "statement", "why"),
    [
        ("ops", "truncate landing_bstadmin.bookings", "holds 0 rows, 2000 were landed"),
        ("ops", "truncate phase2.landing_ranges", "what is known of its row versions was lost"),
        ("ops", "update phase2.landing_runs set versions_of = '1/1/1'", "another database, cluster, timeline or DDL"),
        ("ops", "update phase2.landing_runs set landed_at = landed_at - interval '25 hours'", "once in 24 hours"),
        (
            "bstadmin",
            "alter table public.tours rename to tours_2; create view public.tours as select * from public.tours_2",
            "bstadmin: tours is no plain table",
        ),
        (
            "bstadmin",
            "alter table public.booking_finance_items drop constraint booking_finance_items_pkey cascade",
            "primary key",
        ),
        # what rows say is another, and no row was written
        ("balisnap", "alter type public.\"TravelerType\" rename value 'INFANT' to 'BABY'", "DDL"),
        (
            "bstadmin",
            "alter table public.bookings drop column note; "
            "alter table public.bookings add column note text default 'n'",
            "DDL",
        ),
        (
            "bstadmin",
            "alter table public.bookings rename column pickup_location to spare;"
            "alter table public.bookings rename column meeting_point to pickup_location;"
            "alter table public.bookings rename column spare to meeting_point",
            "DDL",
        ),
    ],
)
def test_everything_is_copied_where_changes_cannot_be_followed(
    full: Trio, where: str, statement: str, why: str
) -> None:
    full.land()
    execute(getattr(full, where), statement)
    result = full.follow()
    assert why in (result.why_whole or "")
    assert problems(full.ops) == []
    after = rows_landed(full.ops)
    full.land()
    assert rows_landed(full.ops) == after


# What is wrong with a landing ----------------------------------------------------------------------------------------


def test_completeness(full: Trio) -> None:
    with postgres.connect(full.ops, autocommit=True) as conn:
        assert landing.landing_is_complete(conn)
        conn.execute("truncate landing_bstadmin.bookings")  # what a crash of the server does to unlogged tables
        assert not landing.landing_is_complete(conn)
        assert landing.landing_problems(conn) == ["landing_bstadmin.bookings holds 0 rows, 2000 were landed"]
    full.land()
    assert problems(full.ops) == []
    execute(
        full.ops,
        "insert into phase2.landing_runs (landing_id, source, source_database, source_version, snapshot_at,"
        " snapshot_txid, ddl_digest, row_count, byte_count, seconds)"
        " select gen_random_uuid(), source, source_database, source_version, snapshot_at, snapshot_txid, ddl_digest,"
        " row_count, byte_count, seconds from phase2.landing_runs where source = 'balisnap' limit 1",
    )
    assert any("half committed" in problem for problem in problems(full.ops))
    full.land()
    assert problems(full.ops) == []


def test_completeness_before_the_first_landing_and_without_a_table(trio: Trio) -> None:
    assert problems(trio.ops) == ["balisnap was never landed", "bstadmin was never landed"]
    trio.land()
    execute(trio.ops, "drop table landing_bstadmin.tours")
    assert problems(trio.ops) == ["landing_bstadmin.tours is missing"]


def test_a_changed_landing_file_is_noticed_and_followed(
    full: Trio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "landing").mkdir()
    for name in landing.SOURCES:
        text = (SQL / "landing" / f"{name}.sql").read_text()
        (tmp_path / "landing" / f"{name}.sql").write_text(text.replace("    description text,\n", "", 1))
    execute(full.ops, "create view public.stands_on_it as select description from landing_bstadmin.tours")
    monkeypatch.setattr(landing, "SQL", tmp_path)
    assert [problem for problem in problems(full.ops) if "has changed" in problem]
    full.land()
    assert problems(full.ops) == []
    columns = query(
        full.ops,
        "select attname from pg_catalog.pg_attribute"
        " where attrelid = 'landing_bstadmin.tours'::regclass and attnum > 0",
    )
    assert ("description",) not in columns


def test_schemas_made_by_hand_keep_their_tables_and_views(trio: Trio) -> None:
    """The landing files may be run as they are; a landing adopts what they made."""
    for name in landing.SOURCES:
        execute(trio.ops, (SQL / "landing" / f"{name}.sql").read_text())
    execute(trio.ops, "create view public.stands_on_it as select tour_name from landing_bstadmin.tours")
    oid = query(trio.ops, "select 'landing_bstadmin.tours'::regclass::oid")
    trio.land()
    trio.land()
    assert query(trio.ops, "select 'landing_bstadmin.tours'::regclass::oid") == oid
    assert query(trio.ops, "select * from public.stands_on_it") == []
    with postgres.connect(trio.ops) as conn:
        landing.ensure_tables(conn)
    assert query(trio.ops, "select 'landing_bstadmin.tours'::regclass::oid") == oid


# Before a row is copied ----------------------------------------------------------------------------------------------


def test_missing_tables_and_columns_and_wrong_types_are_all_named_at_once(full: Trio) -> None:
    execute(full.balisnap, 'drop table public."VariantItinerary"')
    execute(
        full.bstadmin,
        "alter table public.bookings rename column paid_at to paid_on",
        "alter table public.bookings alter column total_price type text",
        "alter table public.tours alter column created_at drop default, alter column created_at type timestamptz",
    )
    words = full.fails(
        'balisnap: table "VariantItinerary" is missing',
        'bstadmin: column "paid_at" of table "bookings" is missing',
        'bstadmin: column "total_price" of table "bookings" is text, not numeric',
        'column "created_at" of table "tours" is timestamp with time zone, not timestamp without time zone',
        "BALISNAP_DB_URL",
        "sql/landing/bstadmin.sql",
    )
    assert words.count("restore the column") == 1


def test_swapped_sources(full: Trio) -> None:
    full.fails(
        'tables "TourPackage"',
        "Check that BALISNAP_DB_URL points at the database of balisnap",
        balisnap=full.bstadmin,
        bstadmin=full.balisnap,
    )


def test_too_wide_an_integer_is_a_wrong_type(full: Trio) -> None:
    execute(full.bstadmin, "alter table public.tour_images alter column image_id type bigint")
    full.fails('column "image_id" of table "tour_images" is bigint, not integer')


def test_null_where_none_may_be_names_the_rows(full: Trio) -> None:
    execute(
        full.bstadmin,
        "alter table public.bookings alter column tour_date drop not null, alter column total_price drop not null",
        "update public.bookings set tour_date = null where booking_id in (7, 9)",
        "update public.bookings set total_price = null where booking_id > 100",
    )
    full.fails(
        'bstadmin: 2 rows have null in column "tour_date" of table "bookings", which may not be null (booking_id 7, 9)',
        '1900 rows have null in column "total_price" of table "bookings", which may not be null'
        " (booking_id 101, 102, 103, 104, 105, …)",
        "fill the column in these rows",
    )


def test_a_dropped_not_null_without_a_null_is_no_reason_to_stop(full: Trio) -> None:
    execute(full.bstadmin, "alter table public.bookings alter column tour_date drop not null")
    full.land()
    assert problems(full.ops) == []


# Permissions ---------------------------------------------------------------------------------------------------------


@contextmanager
def reader(url: str) -> Iterator[tuple[str, str]]:
    """A role that may connect and nothing else; its name, and `url` as that role."""
    name = f"r_{uuid4().hex[:10]}"
    execute(url, f"create role {name} login password 's3cret'")
    try:
        yield name, conninfo.make_conninfo(url, user=name, password="s3cret")
    finally:
        execute(url, f"drop owned by {name}", f"drop role {name}")


def test_a_reader_with_select_is_enough(full: Trio) -> None:
    with reader(full.bstadmin) as (name, url):
        execute(full.bstadmin, f"grant select on all tables in schema public to {name}")
        full.land(bstadmin=url)
    assert problems(full.ops) == []


def test_no_permission_on_tables_and_columns_and_schema(full: Trio) -> None:
    with reader(full.bstadmin) as (name, url):
        execute(
            full.bstadmin,
            f"grant select on all tables in schema public to {name}",
            f"revoke all on table public.tours, public.bookings from {name}",
            f"grant select (booking_id, booking_ref) on public.bookings to {name}",
        )
        full.fails(
            'bstadmin: table "tours" may not be read; ',
            'bstadmin: table "bookings" may not be read (columns package_id, booking_date',
            'grant usage on schema public and select on "tours" to the user of BSTADMIN_DB_URL',
            bstadmin=url,
        )
        execute(
            full.bstadmin,
            f"grant select on all tables in schema public to {name}",
            "revoke usage on schema public from public",
        )
        full.fails('table "tours" may not be read', bstadmin=url)


def test_row_level_security_fails_the_landing_instead_of_hiding_rows(full: Trio) -> None:
    with reader(full.bstadmin) as (name, url):
        execute(
            full.bstadmin,
            f"grant select on all tables in schema public to {name}",
            "alter table public.bookings enable row level security",
            "create policy few on public.bookings using (booking_id < 10)",
        )
        full.fails("no permission to read all rows", "row-level security", 'table "bookings"', bstadmin=url)


def test_ops_that_may_not_be_written(full: Trio) -> None:
    with reader(full.ops) as (name, url):
        execute(full.ops, f"grant usage on schema landing_balisnap, landing_bstadmin, phase2 to {name}")
        full.fails("ops: permission denied", ops=url)


# Connections ---------------------------------------------------------------------------------------------------------


def test_unreachable_host(full: Trio) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    full.fails(
        "balisnap: the server cannot be reached",
        f"127.0.0.1:{port}/shop",
        "BALISNAP_DB_URL",
        balisnap=f"postgresql://someone:s3cret@127.0.0.1:{port}/shop",
    )
    full.fails("ops: the server cannot be reached", "OPS_DB_URL", ops=f"postgresql://x:s3cret@127.0.0.1:{port}/ops")
    full.fails("bstadmin: the host's name is unknown", bstadmin="postgresql://x:s3cret@nowhere.invalid/shop")


def test_missing_database_and_unreadable_url(full: Trio) -> None:
    full.fails(
        "bstadmin: the database does not exist",
        "BSTADMIN_DB_URL",
        bstadmin=postgres.with_database(full.bstadmin, "t_no_such"),
    )
    for url in ("postgresql://x:s3cret@[::1/shop", "postgresql//x:s3cret@host/shop", "postgresql://x:s3cret%zz@h/d"):
        full.fails("balisnap: the connection URL cannot be read", "BALISNAP_DB_URL", balisnap=url)


@pytest.mark.parametrize(
    ("state", "message", "says"),
    [
        ("28P01", 'password authentication failed for user "app"', "the user or the password is wrong"),
        ("28000", 'no pg_hba.conf entry for host "10.0.0.9", user "app"', "the server refuses connections from here"),
        ("28000", 'role "app" does not exist', "the user does not exist"),
        ("42501", 'permission denied for database "shop"', "the user may not connect"),
        ("53300", "sorry, too many clients already", "the server has no connection free"),
        ("57P03", "the database system is starting up", "the server is not ready"),
        ("57P03", "the database system is in recovery mode", "the server is not ready"),
    ],
)
def test_each_refusal_of_the_server_is_told_apart(state: str, message: str, says: str) -> None:
    with refusing_server(state, message) as port:
        url = f"postgresql://app:s3cret@127.0.0.1:{port}/shop?sslmode=disable"
        with pytest.raises(LandingError) as caught:
            landing._open("balisnap", url, (), read_only=True)
    assert says in str(caught.value)
    assert caught.value.todo
    assert "s3cret" not in str(caught.value)


@contextmanager
def refusing_server(state: str, message: str) -> Iterator[int]:
    """A server that speaks just enough of Postgres' protocol to say no."""

    def serve(listener: socket.socket) -> None:
        try:
            while True:
                peer, _ = listener.accept()
                with peer:
                    peer.recv(4096)
                    fields = b"".join(
                        kind + text.encode() + b"\0" for kind, text in ((b"S", "FATAL"), (b"C", state), (b"M", message))
                    )
                    peer.sendall(b"E" + (len(fields) + 5).to_bytes(4) + fields + b"\0")
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


@contextmanager
def cut_line(url: str, after_bytes: int) -> Iterator[str]:
    """`url` through a proxy whose line breaks after so many bytes from the server."""
    parts = conninfo.conninfo_to_dict(url)

    def pump(source: socket.socket, target: socket.socket, left: Callable[[int], int]) -> None:
        try:
            while (chunk := source.recv(8192)) and left(len(chunk)) > 0:
                target.sendall(chunk)
        except OSError:
            pass
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def serve(listener: socket.socket) -> None:
        try:
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection((str(parts["host"]), int(str(parts["port"]))))
                remaining = [after_bytes]

                def count(size: int, remaining: list[int] = remaining) -> int:
                    remaining[0] -= size
                    return remaining[0]

                threading.Thread(target=pump, args=(upstream, client, count), daemon=True).start()
                threading.Thread(target=pump, args=(client, upstream, lambda _: 1), daemon=True).start()
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield conninfo.make_conninfo(url, host="127.0.0.1", port=str(listener.getsockname()[1]), sslmode="disable")
        listener.shutdown(socket.SHUT_RDWR)


def test_a_line_that_breaks_in_mid_copy(full: Trio) -> None:
    with cut_line(full.bstadmin, 100_000) as broken:
        full.fails('bstadmin: the connection was lost while copying table "bookings"', bstadmin=broken)
    full.land()
    assert problems(full.ops) == []


@pytest.mark.parametrize(("victim", "says"), [("balisnap", "balisnap: the connection was lost"), ("ops", "ops: ")])
def test_a_session_that_is_ended_in_mid_copy(
    full: Trio, victim: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server ends the session of a source, or of ops, while its rows are on their way."""
    monkeypatch.setattr(landing, "_BLOCK_BYTES", 4096)
    blocks, done = landing._blocks, threading.Event()

    def interrupted(side: landing._Side, table: landing.Table, query: sql.Composed) -> Iterator[tuple[int, bytes]]:
        for number, block in enumerate(blocks(side, table, query)):
            if side.name == "balisnap" and number == 3 and not done.is_set():
                done.set()
                session = side.source if victim == "balisnap" else side.ops
                execute(full.ops, f"select pg_terminate_backend({session.info.backend_pid}, 5000)")
            yield block

    monkeypatch.setattr(landing, "_blocks", interrupted)
    full.fails(says, "Nothing was changed")
    assert done.is_set()


def test_a_process_killed_in_mid_copy_leaves_the_landing_before_it(full: Trio) -> None:
    before = landed(full.ops)
    program = """
import json, os, signal, sys
from bridge import landing
urls = json.load(sys.stdin)
def kill(line):
    if line.startswith("landed balisnap.TourPackage"):
        os.kill(os.getpid(), signal.SIGKILL)
landing.land(*urls, None, kill)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps([full.ops, full.balisnap, full.bstadmin]),
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    deadline = 50
    while deadline and query(
        full.ops,
        "select 1 from pg_catalog.pg_stat_activity where application_name = 'phase2 landing'"
        " and datname = current_database()",
    ):
        threading.Event().wait(0.1)
        deadline -= 1
    assert landed(full.ops) == before
    assert problems(full.ops) == []


def test_one_source_that_fails_keeps_the_other_as_it_was(full: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = landing._blocks

    def failing(side: landing._Side, table: landing.Table, query: sql.Composed) -> Iterator[tuple[int, bytes]]:
        if side.name == "bstadmin" and table.name == "booking_finance_items":
            raise LandingError("bstadmin: something", where="there", todo="Do something.")
        yield from blocks(side, table, query)

    monkeypatch.setattr(landing, "_blocks", failing)
    full.fails("bstadmin: something")


def test_the_reason_is_raised_and_not_that_the_other_source_was_stopped(
    full: Trio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landing, "_BLOCK_BYTES", 1024)
    blocks, started, failed = landing._blocks, threading.Event(), threading.Event()

    def failing(side: landing._Side, table: landing.Table, query: sql.Composed) -> Iterator[tuple[int, bytes]]:
        if side.name == "bstadmin":
            started.wait(10)
            failed.set()
            raise LandingError("bstadmin: the reason", where="there", todo="Do something.")
        for block in blocks(side, table, query):
            started.set()
            failed.wait(10)
            yield block

    monkeypatch.setattr(landing, "_blocks", failing)
    full.fails("bstadmin: the reason")


def test_a_reader_of_the_landing_is_not_waited_for_without_end(full: Trio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_OPS_SETTINGS", ("set client_encoding = 'UTF8'", "set lock_timeout = '300ms'"))
    with postgres.connect(full.ops) as holder:
        holder.execute("select count(*) from landing_bstadmin.bookings")
        with pytest.raises(LandingError, match="a lock was not free in time.*landing_bstadmin.*pg_locks"):
            full.land()
    full.land()
    assert problems(full.ops) == []


def test_errors_never_carry_values() -> None:
    """Postgres' detail and context lines show rows; of class 22 and 23 even the primary message may."""
    error = psycopg.errors.InvalidTextRepresentation('invalid input: "Wayan"')
    assert landing._words(error) == "InvalidTextRepresentation (SQLSTATE 22P02)"
