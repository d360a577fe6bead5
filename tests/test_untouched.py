"""Sources stay untouched: by the role's rights, by the session's setting, by what the servers counted, by fingerprint.

One story on one server: with production's roles, A and B, a landing that breaks off, C to E, then all rollbacks.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date

import psycopg
import pytest
from psycopg import conninfo

from bridge import legacy, postgres, rollback, runlog, sources, steps
from bridge.batches import BACKFILL, BATCHES
from bridge.fingerprint import Fingerprint, difference, take
from bridge.landing import SOURCES
from bridge.settings import SQL
from tests.pipeline import Pipeline, fresh

AS_OF = date(2026, 2, 19)
ROLES = SQL / "roles"

# What was ever written in this database, even what was taken back. Not the server's own upkeep of its statistics, nor
# the catalogs that all databases share.
_WRITES = """
select
    s.schemaname || '.' || s.relname,
    s.n_tup_ins + s.n_tup_del + case when s.relname = 'pg_class' then 0 else s.n_tup_upd end
from pg_catalog.pg_stat_all_tables as s
join pg_catalog.pg_class as c on c.oid = s.relid
where s.schemaname <> 'pg_toast' and s.relname <> 'pg_statistic' and not c.relisshared
"""
_OTHERS = """
select count(*) from pg_catalog.pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""


@dataclass
class Seen:
    """A source at one time."""

    fingerprint: Fingerprint
    writes: dict[str, int]


@dataclass
class Story:
    """The databases as administrator and as production's roles, and the sources before all of it and after."""

    admin: Pipeline
    roles: Pipeline
    before: dict[str, Seen]
    after: dict[str, Seen]
    statuses: list[str]


def look(url: str) -> Seen:
    """Take a fingerprint, and what was written, once every other session has ended and told its numbers."""
    with postgres.connect(url, autocommit=True) as conn:
        for _ in range(100):
            if conn.execute(_OTHERS).fetchone() == (0,):
                break
            time.sleep(0.05)
        else:
            raise AssertionError("a session has not ended: what it wrote may not be counted yet")
        fingerprint = take(conn)
        conn.execute("select pg_stat_force_next_flush()")
        return Seen(fingerprint, dict(conn.execute(_WRITES).fetchall()))


# fixed names, as the databases': dbt's partial parse is bound to them
NAMES = {role: f"t_{role}{os.environ.get('PYTEST_XDIST_WORKER', '')}" for role in ("phase2_reader", "phase2_runner")}


def as_roles(pipeline: Pipeline) -> Pipeline:
    """The pipeline's databases as production's roles, which the scripts of sql/roles make (twice: idempotent)."""
    urls = {}
    for script, place in (("reader_balisnap", "balisnap"), ("reader_bstadmin", "bstadmin"), ("runner_ops", "ops")):
        url = getattr(pipeline.databases, place)
        role = "phase2_runner" if place == "ops" else "phase2_reader"
        text = (ROLES / f"{script}.sql").read_text().replace(role, NAMES[role])
        with postgres.connect(url, autocommit=True) as conn:
            conn.execute(text.encode())
            conn.execute(text.encode())
            conn.execute(postgres.statement("alter role {} password 's3cret'", NAMES[role]))
        urls[place] = conninfo.make_conninfo(url, user=NAMES[role], password="s3cret")
    return Pipeline(replace(pipeline.databases, **urls))


def drop_roles(server: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        for name in NAMES.values():
            conn.execute(postgres.statement("drop role if exists {}", name))


@pytest.fixture(scope="module")
def story() -> Iterator[Story]:
    server = os.environ["TEST_PG_URL"]
    with ExitStack() as stack:
        stack.callback(drop_roles, server)  # after the databases, where they own things
        admin = stack.enter_context(fresh(server, empty=True))
        drop_roles(server)
        urls = {name: getattr(admin.databases, name) for name in SOURCES}
        sources.create(*urls.values(), bookings=200, seed=7, as_of=AS_OF)
        with postgres.connect(admin.databases.ops, autocommit=True) as conn:  # the runner makes its own
            conn.execute(
                "set client_min_messages = error; drop schema phase2, landing_balisnap, landing_bstadmin cascade"
            )
        roles = as_roles(admin)
        before = {name: look(url) for name, url in urls.items()}

        steps.bootstrap(roles.databases.ops)
        outcomes = roles.run("A", "B", AS_OF)
        break_off_a_landing(roles)
        outcomes += roles.run("C", "E", AS_OF)
        run = steps.Run(run_id=runlog.uuid7(), databases=roles.databases, as_of=AS_OF)
        for code in reversed(BACKFILL):
            rollback.roll_back(run, BATCHES[code])

        after = {name: look(url) for name, url in urls.items()}
        yield Story(admin, roles, before, after, [f"{o.verdict.batch} {o.verdict.result}" for o in outcomes])


class _Stop(Exception):
    """The runner ends here."""


def break_off_a_landing(pipeline: Pipeline) -> None:
    def stop(line: str) -> None:
        if line.startswith("landed "):
            raise _Stop

    run = steps.Run(run_id=runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF, progress=stop)
    with pytest.raises(_Stop):
        steps.execute(run, BATCHES["C"], BATCHES["C"].prechecks[0])


def test_production_roles_are_enough_for_the_whole_run(story: Story) -> None:
    assert story.statuses == [f"{code} PASS" for code in "ABCDE"], story.statuses
    for url in vars(story.roles.databases).values():
        if url:
            with postgres.connect(url) as conn:
                assert conn.execute("select rolsuper from pg_roles where rolname = current_user").fetchone() == (False,)


@pytest.mark.parametrize("source", SOURCES)
def test_sources_are_as_they_were(story: Story, source: str) -> None:
    assert story.before[source].fingerprint.unread == ()
    assert sum(content.rows for content in story.before[source].fingerprint.content.values()) > 500
    assert difference(story.before[source].fingerprint, story.after[source].fingerprint) == []


@pytest.mark.parametrize("source", SOURCES)
def test_the_server_counted_no_write(story: Story, source: str) -> None:
    before, after = story.before[source].writes, story.after[source].writes
    assert sum(count for name, count in before.items() if name.startswith("public.")) > 500
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name, 0)} == {}


# What would be found -------------------------------------------------------------------------------------------------

TABLES = {"balisnap": ('public."Booking"', "booking_id"), "bstadmin": ("public.bookings", "booking_id")}


@pytest.mark.parametrize("source", SOURCES)
def test_a_planted_write_is_found(story: Story, source: str) -> None:
    """A change by the fingerprint; rows that were written without a change, by the server's count alone."""
    url, (table, key) = getattr(story.admin.databases, source), TABLES[source]
    first = look(url)
    execute(url, f"update {table} set {key} = {key} where {key} = (select min({key}) from {table})")  # noqa: S608
    second = look(url)
    assert difference(first.fingerprint, second.fingerprint) == []
    name = table.replace('"', "")
    assert second.writes[name] == first.writes[name] + 1
    execute(url, f"update {table} set {key} = {key} + 100000 where {key} = (select max({key}) from {table})")  # noqa: S608
    assert any(f"rows of {table}: still" in line for line in difference(second.fingerprint, look(url).fingerprint))
    execute(
        url, "create index planted on public.tour_planted (x)", before="create table public.tour_planted (x integer)"
    )
    assert "new: table public.tour_planted" in difference(second.fingerprint, look(url).fingerprint)[0]
    execute(url, "drop table public.tour_planted")


def execute(url: str, statement: str, before: str = "") -> None:
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute(f"{before}; {statement}".encode())


WRITES = (
    "insert into {} default values",
    "update {} set {} = 1",
    "delete from {}",
    "truncate {}",
    "alter table {} add column planted integer",
    "create table public.planted (x integer)",
    "create table planted_of_{1} as select 1",
)


@pytest.mark.parametrize("source", SOURCES)
def test_the_reader_cannot_write(story: Story, source: str) -> None:
    """By the role's setting, and by its rights when a session has switched that off."""
    with postgres.connect(getattr(story.roles.databases, source), autocommit=True) as conn:
        for write in WRITES:
            statement = write.format(*TABLES[source]).encode()
            conn.execute("set search_path = public; reset default_transaction_read_only")
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                conn.execute(statement)
            conn.execute("set default_transaction_read_only = off")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


@pytest.mark.parametrize("source", SOURCES)
def test_our_own_connections_are_read_only_whoever_the_user_is(story: Story, source: str) -> None:
    with (
        postgres.connect(getattr(story.admin.databases, source), read_only=True) as conn,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        conn.execute(f"delete from {TABLES[source][0]}".encode())  # noqa: S608


@pytest.mark.parametrize("source", SOURCES)
def test_the_reader_reads_what_is_needed_and_no_more(story: Story, source: str) -> None:
    """The tables that are landed, and those that gate A-03 asks, of which it sees only some columns."""
    landed = set(re.findall(rf'landing_{source}\.("?\w+"?) \(', (SQL / "landing" / f"{source}.sql").read_text()))
    asked = {
        table
        for statement in legacy.statements()
        if statement.source == source
        for table in re.findall(r'public\.("?\w+"?)', statement.text)
    }
    with postgres.connect(getattr(story.roles.databases, source)) as conn:
        rows = conn.execute(
            "select quote_ident(c.relname), has_table_privilege(c.oid, 'select'),"
            " has_any_column_privilege(c.oid, 'select')"
            " from pg_catalog.pg_class as c join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
            " where n.nspname = 'public' and c.relkind = 'r'"
        ).fetchall()
    assert {name for name, whole, _ in rows if whole} == landed
    assert {name for name, _, some in rows if some} == landed | asked
