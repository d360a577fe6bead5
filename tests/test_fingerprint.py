"""The fingerprint: equal exactly when catalog and rows are, whatever the order, the layout or the session."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge import fingerprint, postgres, scripts
from bridge.fingerprint import Content, Fingerprint, difference, take
from bridge.settings import SQL

SHOP = """
create schema shop;
create type shop.kind as enum ('TOUR', 'TRANSFER');
create domain shop.money as numeric(12, 2) check (value >= 0);
create table shop.guide (guide_id serial primary key, name text not null default 'nobody');
create table shop.trip (
    trip_id bigint generated always as identity primary key, code text not null unique, kind shop.kind,
    price shop.money, guide_id integer references shop.guide, at timestamptz default now(), rating double precision,
    photo bytea, lasts interval, extra jsonb, constraint ck_trip_price check (price < 1000)
);
create index ix_trip_at on shop.trip (at desc) where kind = 'TOUR';
create view shop.cheap as select t.code, t.price from shop.trip as t where t.price < 10;
create materialized view shop.count_by_kind as select t.kind, count(*) from shop.trip as t group by t.kind;
create function shop.twice(value integer) returns integer language sql immutable return value * 2;
create function shop.refuse() returns trigger language plpgsql as 'begin return new; end';
create trigger on_trip before insert on shop.trip for each row execute function shop.refuse();
insert into shop.guide (name) values ('Wayan'), ('Made');
insert into shop.trip (code, kind, price, guide_id, at, rating, photo, lasts, extra) values
    ('a', 'TOUR', 10.5, 1, '2026-01-01 00:30+00', 0.1, '\\x00ff', '1 day 2 hours', '{"b": 1, "a": null}'),
    ('b', 'TRANSFER', 20, 2, '2026-06-01 12:00+08', 1e-20, null, '-3 mons', '[]'),
    ('c', null, null, null, null, 'nan', '', null, null);
refresh materialized view shop.count_by_kind;
"""


@pytest.fixture
def shop(database: str) -> Iterator[psycopg.Connection]:
    with postgres.connect(database, autocommit=True) as conn:
        make_anew(conn)
        yield conn


def make_anew(conn: psycopg.Connection) -> None:
    conn.execute("set client_min_messages = error")
    conn.execute(
        "drop extension if exists pgcrypto; drop schema if exists elsewhere; drop schema if exists shop cascade"
    )
    conn.execute(SHOP)


# What it sees --------------------------------------------------------------------------------------------------------

CHANGES = [
    ("alter table shop.trip add column note text", "new: column shop.trip.note: text"),
    ("alter table shop.guide alter column name type varchar(99)", "changed: column shop.guide.name: was text"),
    ("alter table shop.trip alter column code drop not null", "changed: column shop.trip.code"),
    ("alter table shop.guide alter column name set default 'Ketut'", "changed: column shop.guide.name"),
    ("alter table shop.guide alter column name drop default", "changed: column shop.guide.name"),
    ("alter table shop.trip alter column trip_id drop identity", "changed: column shop.trip.trip_id"),
    ('alter table shop.guide alter column name type text collate "C"', "changed: column shop.guide.name"),
    ("alter table shop.trip rename column rating to stars", "new: column shop.trip.stars"),
    ("alter table shop.trip drop constraint ck_trip_price", "gone: constraint shop.trip.ck_trip_price"),
    ("alter table shop.trip drop constraint trip_guide_id_fkey", "gone: constraint shop.trip.trip_guide_id_fkey"),
    ("alter table shop.trip set unlogged", "changed: table shop.trip"),
    ("alter table shop.trip enable row level security", "changed: table shop.trip"),
    ("create policy own on shop.trip using (code = 'a')", "new: policy shop.trip.own"),
    ("drop index shop.ix_trip_at", "gone: index shop.trip.ix_trip_at"),
    ("create unique index on shop.trip (code, kind)", "new: index shop.trip.trip_code_kind_idx"),
    ("create table shop.other (x integer)", "new: table shop.other"),
    ("create schema elsewhere", "new: schema elsewhere"),
    ("create or replace view shop.cheap as select t.code, t.price from shop.trip as t", "changed: view shop.cheap"),
    ("drop materialized view shop.count_by_kind", "gone: materialized view shop.count_by_kind"),
    ("create rule r as on delete to shop.trip do instead nothing", "new: rule shop.trip.r"),
    ("drop trigger on_trip on shop.trip", "gone: trigger shop.trip.on_trip"),
    ("alter table shop.trip disable trigger on_trip", "changed: trigger shop.trip.on_trip"),
    (
        "create or replace function shop.twice(value integer) returns integer language sql immutable return value * 3",
        "changed: function shop.twice(value integer)",
    ),
    ("alter function shop.twice(integer) volatile", "changed: function shop.twice(value integer)"),
    ("alter function shop.twice(integer) security definer", "changed: function shop.twice(value integer)"),
    ("alter type shop.kind add value 'BOAT' before 'TOUR'", "changed: type shop.kind"),
    ("alter domain shop.money set default 5", "changed: type shop.money"),
    ("create extension pgcrypto schema shop", "new: extension pgcrypto"),
    ("alter sequence shop.guide_guide_id_seq increment 5", "changed: sequence shop.guide.guide_id"),
    ("create statistics shop.s on code, kind from shop.trip", "new: statistics shop.s"),
    ("grant select on shop.trip to public", "new: grant table shop.trip to public: select"),
    ("grant update (code) on shop.trip to public", "new: grant column shop.trip.code to public: update"),
    ("grant usage on schema shop to public", "new: grant schema shop to public: usage"),
    ("revoke all on function shop.twice from public", "gone: grant function shop.twice(value integer) to public"),
    ("revoke delete on shop.trip from current_user", "new: grant table shop.trip to its owner: taken away: delete"),
    ("alter table shop.trip owner to pg_monitor", "changed: table shop.trip: was owner"),
    ("alter default privileges in schema shop grant select on tables to public", "new: default grant of"),
    ("insert into shop.guide (guide_id, name) values (9, 'Nyoman')", "rows of shop.guide: 2, now 3"),
    ("update shop.guide set name = 'Nyoman' where name = 'Made'", "rows of shop.guide: still 2, but not the same"),
    ("update shop.trip set price = 10.51 where code = 'a'", "rows of shop.trip: still 3, but not the same"),
    ("update shop.trip set photo = null where code = 'c'", "rows of shop.trip: still 3, but not the same"),
    ("update shop.trip set at = at + interval '1 day'", "rows of shop.trip: still 3, but not the same"),
    ("update shop.trip set at = at + interval '1 us'", "rows of shop.trip: still 3, but not the same"),
    (
        "update shop.trip set price = case code when 'a' then 20 else 10.5 end where code in ('a', 'b')",
        "rows of shop.trip: still 3, but not the same",
    ),
    ("select nextval('shop.guide_guide_id_seq')", "moved: sequence shop.guide.guide_id: at 2, now 3"),
    ("drop view shop.cheap; drop materialized view shop.count_by_kind; drop table shop.trip", "gone: table shop.trip"),
    ("refresh materialized view shop.count_by_kind with no data", "rows of shop.count_by_kind: 3, now none"),
]  # fmt: skip


def test_each_change_is_seen_and_said(shop: psycopg.Connection) -> None:
    before = take(shop)
    for statement, words in CHANGES:
        make_anew(shop)
        assert difference(before, take(shop)) == []
        shop.execute(statement)
        lines = difference(before, take(shop))
        assert any(words in line for line in lines), (statement, lines)


def test_a_grant_that_was_taken_back_is_none(shop: psycopg.Connection) -> None:
    """The list of rights is null before, and written out after: the rights are the same."""
    before = take(shop)
    shop.execute("grant select on shop.trip to public; revoke select on shop.trip from public")
    assert take(shop) == before


def test_a_table_speaks_for_its_columns_and_keys(shop: psycopg.Connection) -> None:
    before = take(shop)
    shop.execute("create table shop.other (x integer primary key, y text)")
    owner = shop.info.user
    assert difference(before, take(shop)) == [
        f"new: table shop.other: owner {owner}",
        "rows of shop.other: 0 in a new table",
    ]


def test_no_value_of_a_row_is_told(shop: psycopg.Connection) -> None:
    before = take(shop)
    shop.execute("update shop.guide set name = 'Somebody Real'; delete from shop.trip")
    text = json.dumps([difference(before, take(shop)), take(shop).document()])
    assert "Somebody" not in text
    assert "Wayan" not in text


# What makes no difference --------------------------------------------------------------------------------------------

_TEXT = st.one_of(st.none(), st.sampled_from(["", "a", "b", ",", "(", '"', "\\", "a,b", '","', " ", "NULL", "é"]))
_ROWS = st.lists(
    st.tuples(_TEXT, _TEXT, st.one_of(st.none(), st.sampled_from([0, 1, -1, 10.5, 0.1]))), min_size=0, max_size=5
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(first=_ROWS, second=_ROWS, same=st.booleans(), seed=st.randoms(use_true_random=False))
def test_equal_exactly_when_the_rows_are_in_any_order(
    database: str, first: list, second: list, same: bool, seed: random.Random
) -> None:
    """Duplicates count; an empty text is no null; a separator in a value is no separator."""
    if same:
        second = seed.sample(first, len(first))
    taken = []
    with postgres.connect(database, autocommit=True) as conn:
        for rows, columns in ((first, ["a text", "b text", "n float8"]), (second, ["n float8", "b text", "a text"])):
            conn.execute("drop table if exists public.t")
            conn.execute(f"create table public.t ({', '.join(columns)})".encode())
            conn.cursor().executemany("insert into public.t (a, b, n) values (%s, %s, %s)", rows)
            taken.append(take(conn))
    assert (taken[0] == taken[1]) == (Counter(first) == Counter(second))
    assert (difference(*taken) == []) == (Counter(first) == Counter(second))


HOSTILE = (
    "set timezone = 'America/St_Johns'",
    "set datestyle = 'German'",
    "set intervalstyle = 'sql_standard'",
    "set bytea_output = 'escape'",
    "set extra_float_digits = -3",
    "set search_path = shop, public",
    "set default_transaction_isolation = 'serializable'",
    "set quote_all_identifiers = on",
    "set row_security = off",
    "set max_parallel_workers_per_gather = 0",
)


def test_session_layout_and_history_make_no_difference(shop: psycopg.Connection) -> None:
    before = take(shop)
    for setting in HOSTILE:
        shop.execute(setting)
        assert take(shop) == before, setting
    shop.execute("reset all")
    shop.execute(
        "update shop.guide set name = name; delete from shop.guide where false; cluster shop.trip using trip_pkey"
    )
    shop.execute("vacuum full analyze shop.guide")
    shop.execute(
        "alter table shop.guide add column x integer; alter table shop.guide drop column x"
    )  # a hole in the columns' numbers
    shop.execute("alter sequence shop.guide_guide_id_seq rename to another_name")
    assert difference(before, take(shop)) == []


def test_columns_made_in_another_order_are_the_same_columns(database: str) -> None:
    taken = []
    with postgres.connect(database, autocommit=True) as conn:
        for columns in ("a integer not null, b text default 'x'", "b text default 'x', a integer not null"):
            conn.execute(f"drop table if exists public.t; create table public.t ({columns})".encode())
            conn.execute("insert into public.t (a, b) values (1, 'x'), (2, null)")
            taken.append(take(conn))
    assert taken[0] == taken[1]


@pytest.mark.skipif("TEST_PG15_URL" not in os.environ, reason="one PostgreSQL only")
def test_two_versions_of_postgres_say_the_same() -> None:
    """The 17 tables with their dictionaries, filled ones too; and every kind of value that the sources have."""
    taken = []
    for variable in ("TEST_PG_URL", "TEST_PG15_URL"):
        name = f"t_fingerprint_{os.getpid()}"
        with postgres.connect(os.environ[variable], autocommit=True) as server:
            server.execute(postgres.statement("create database {}", name))
            try:
                url = postgres.with_database(os.environ[variable], name)
                for script in sorted(path.name for path in scripts.FOLDER.glob("0[01][1-9]*.sql")) + [
                    "010_seed_channel_registry.sql"
                ]:
                    scripts.run_script(url, script)
                with postgres.connect(url, autocommit=True) as conn:
                    conn.execute(SHOP)
                    conn.execute("drop view shop.cheap; drop materialized view shop.count_by_kind")  # text by version
                    taken.append(owned_by_one(take(conn)))
            finally:
                server.execute(postgres.statement("drop database if exists {} with (force)", name))
    assert difference(*taken) == []
    assert len(taken[0].content) > 22


def owned_by_one(taken: Fingerprint) -> Fingerprint:
    """The two servers' superusers may have two names."""
    owners = {text.split(" ")[1].rstrip(",") for name, text in taken.catalog.items() if name.startswith("table ")}
    (owner,) = owners
    catalog = {name: text.replace(f"owner {owner}", "owner x") for name, text in taken.catalog.items()}
    return Fingerprint(catalog, taken.content)


# What is left out ----------------------------------------------------------------------------------------------------


def test_times_of_writing_are_left_out_of_our_tables_and_kept_in_a_sources(database: str) -> None:
    with postgres.connect(database, autocommit=True) as conn:
        for script in ("001_create_core_bridge_tables.sql", "010_seed_channel_registry.sql"):
            scripts.run_script(database, script)
        conn.execute((SQL / "state.sql").read_bytes())
        conn.execute("create table public.bookings (id integer, created_at timestamptz)")
        conn.execute("insert into public.bookings values (1, '2026-01-01')")
        before = take(conn)
        conn.execute("update public.channel_registry set created_at = '2020-01-01', updated_at = '2020-01-02'")
        conn.execute("insert into phase2.warehouse_state (part, digest) values ('x', 'y')")
        conn.execute(
            "insert into public.migration_run_log (run_key, batch_code, script_name, script_checksum, run_status,"
            " started_at) values (gen_random_uuid(), 'A', 's', 'c', 'SUCCEEDED', now())"
        )
        assert difference(before, take(conn)) == []
        conn.execute("update public.bookings set created_at = '2026-01-02'")
        assert difference(before, take(conn)) == ["rows of public.bookings: still 1, but not the same"]


def test_every_table_of_ours_is_known_to_be_content_or_log(database: str) -> None:
    """A new table of schema phase2 is content unless it is named as a log; its times and row numbers are named."""
    with postgres.connect(database, autocommit=True) as conn:
        conn.execute((SQL / "state.sql").read_bytes())
        columns = conn.execute(
            "select table_schema || '.' || table_name, column_name::text from information_schema.columns"
            " where table_schema = 'phase2' and (is_identity = 'YES' or column_default like '%now()%'"
            " or column_default like '%clock_timestamp()%' or column_name = 'run_id')"
        ).fetchall()
        content = take(conn, schemas=["phase2"]).content
    unknown = [
        (table, column)
        for table, column in columns
        if table in content and column not in fingerprint._BOOKKEEPING.get(table, ())
    ]
    assert unknown == []
    assert "phase2.status_snapshot" in content
    assert "phase2.gate_results" not in content


def test_only_the_schemas_that_are_asked(shop: psycopg.Connection) -> None:
    shop.execute("create schema elsewhere; create table elsewhere.t (x integer)")
    assert set(take(shop, schemas=["elsewhere"]).content) == {"elsewhere.t"}
    assert take(shop, schemas=[]) == Fingerprint({}, {})
    assert "elsewhere.t" in take(shop).content


# How it is taken -----------------------------------------------------------------------------------------------------


def test_it_reads_one_snapshot_and_cannot_write(
    shop: psycopg.Connection, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that comes while it is at work is not in it, nor is what it would write."""
    digest = fingerprint._digest
    before = take(shop)

    def write_elsewhere(cursor: psycopg.Cursor, *arguments: object) -> Content:
        with postgres.connect(database, autocommit=True) as other:
            other.execute("insert into shop.guide (name) values ('late')")
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), cursor.connection.transaction():
            cursor.execute("insert into shop.guide (name) values ('own')")
        return digest(cursor, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fingerprint, "_digest", write_elsewhere)
    assert take(shop).content["shop.guide"] == before.content["shop.guide"]


def test_it_needs_a_transaction_of_its_own(database: str) -> None:
    with postgres.connect(database) as conn:
        conn.execute("select 1")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction):
            take(conn)


def test_what_may_not_be_read_is_told(shop: psycopg.Connection) -> None:
    role = f"t_reader_{os.getpid()}"
    shop.execute(
        f"create role {role}; grant usage on schema shop to {role}; grant select on shop.guide to {role}".encode()
    )
    try:
        shop.execute(f"set role {role}".encode())
        taken = take(shop)
        assert set(taken.unread) >= {"shop.trip", "shop.count_by_kind"}
        assert taken.content["shop.guide"].rows == 2
        assert taken.content["shop.trip"] == Content(-1, "not readable")
    finally:
        shop.execute(f"reset role; drop owned by {role}; drop role {role}".encode())


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_keeps_one_and_compares(shop: psycopg.Connection, database: str, tmp_path: Path) -> None:
    def phase2(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "phase2"), "fingerprint", *words]
        nowhere = "postgresql://reader@127.0.0.1:1/"
        urls = {"OPS_DB_URL": f"{nowhere}a", "BALISNAP_DB_URL": database, "BSTADMIN_DB_URL": f"{nowhere}b"}
        return subprocess.run(command, env=os.environ | urls, text=True, capture_output=True, timeout=120)

    kept = phase2("-d", "balisnap", "--json")
    assert kept.returncode == 0
    assert fingerprint.read(json.loads(kept.stdout)) == take(shop)
    file = tmp_path / "before.json"
    file.write_text(kept.stdout)
    same = phase2("-d", "balisnap", "--against", str(file))
    assert (same.returncode, same.stdout) == (0, "balisnap: no difference\n")
    shop.execute("delete from shop.trip where code = 'b'")
    other = phase2("-d", "balisnap", "--against", str(file))
    assert other.returncode == 1
    assert "rows of shop.trip: 3, now 2" in other.stdout
    file.write_text("{}")
    wrong = phase2("-d", "balisnap", "--against", str(file))
    assert wrong.returncode == 2
    assert "no fingerprint" in wrong.stderr
    assert phase2("-d", "channel").returncode == 2
