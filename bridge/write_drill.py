"""A stand-in for bstadmin beside a copy of the ops database, and the drill of the rollback of writes (gate H-04).

No drill and no rehearsal writes to the real bstadmin: the stand-in has its tables, without foreign keys, on the ops
server, and is dropped. In a drill both sides hold made-up bookings; in a rehearsal it holds bookings as landed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
from psycopg import conninfo, sql

from bridge import flags, postgres, write_rollback
from bridge.errors import CouldNotRun
from bridge.settings import SQL

if TYPE_CHECKING:  # drills calls this module
    from bridge.drills import Outcome, Service

WRITERS = 4  # people who write at once, each to a booking of his own
_SETTLED = 1.0  # seconds of one and the same path
_PATIENCE = 60.0
_LANDED = ("bookings", "booking_finances", "booking_finance_items")

# The last bookings of those that the bridge has from bstadmin; of a landed table the columns that bstadmin's has too.
_SAMPLE = """
create temporary table sample on commit drop as
select b.booking_id
from landing_bstadmin.bookings as b
join public.channel_external_refs as r
    on r.entity_type = 'BOOKING' and r.external_ref_kind = 'BSTADMIN_BOOKING_ID' and r.external_ref = b.booking_id::text
order by b.booking_id desc
limit 1000
"""
_OF_SAMPLE = {
    "bookings": "t.booking_id in (select s.booking_id from sample as s)",
    "booking_finances": "t.booking_id in (select s.booking_id from sample as s)",
    "booking_finance_items": "t.booking_finance_id in (select f.booking_finance_id"
    " from landing_bstadmin.booking_finances as f join sample as s on s.booking_id = f.booking_id)",
}
# What was written since the landing is not in it: the copy begins with nothing open, and compares from now on.
_BEGINS = """
update phase2.write_intents as i
set core_status = 'REFUSED', legacy_status = 'REFUSED'
where i.core_status in ('PENDING', 'BEHIND') or i.legacy_status = 'PENDING';
update phase2.conflicts as c
set status = 'GONE', ended_at = now(), ended_by = 'rehearsal', reason = 'of the ops database, not of its copy'
where c.status = 'OPEN';
insert into phase2.write_checks (check_id, window_from, window_to, checked, mismatched, detail)
values (gen_random_uuid(), now(), now(), 0, 0, '{}')
"""
# What bstadmin wants to know, and is not landed.
_FILLED = {
    "bookings": {"user_id": "u"},
    "booking_finance_items": {"name_snapshot": "as landed", "unit_type": "PER_BOOKING", "unit_price": "0"},
}


@contextmanager
def stand_in(copy_url: str) -> Iterator[str]:
    """An empty bstadmin beside this copy of the ops database, dropped in the end; its URL. Raises CouldNotRun."""
    name = postgres.database_name(copy_url)[:59] + "_bst"
    url = conninfo.make_conninfo(copy_url, dbname=name)
    ddl, constraints = (SQL / "sources" / "bstadmin.sql").read_text("utf-8").split("-- @constraints\n")
    with postgres.connect(copy_url, application_name="phase2 drill", autocommit=True) as conn:
        drop = postgres.statement("drop database if exists {} with (force)", name)
        try:
            if postgres.refuse_a_stranger(conn, name):
                conn.execute(drop)
            conn.execute(
                sql.SQL("create database {} template template0 {}").format(
                    sql.Identifier(name), postgres.MADE_TO_BE_DROPPED
                )
            )
        except psycopg.errors.InsufficientPrivilege:
            raise CouldNotRun(
                "this user may not make the database that stands in for bstadmin",
                where=postgres.describe(copy_url),
                todo="Have an administrator grant it: alter role … createdb.",
            ) from None
    try:
        with postgres.connect(url, application_name="phase2 drill", autocommit=True) as theirs:
            theirs.execute("set search_path = public")
            theirs.execute(ddl.encode())
            for statement in constraints.split(";"):
                if "foreign key" not in statement and statement.strip():
                    theirs.execute(statement.encode())
        yield url
    finally:
        with postgres.connect(copy_url, application_name="phase2 drill", autocommit=True) as conn:
            conn.execute(drop)


def fill(copy_url: str, stand_in_url: str) -> int:
    """Bookings of bstadmin, as they are landed, into the stand-in; how many. The copy forgets what is open."""
    with (
        postgres.connect(copy_url, application_name="phase2 drill") as ops,
        postgres.connect(stand_in_url, application_name="phase2 drill") as theirs,
    ):
        ops.execute(_BEGINS)
        ops.execute(_SAMPLE)
        for table in _LANDED:
            _fill(ops, theirs, table)
        (rows,) = theirs.execute("select count(*) from public.bookings").fetchone() or (0,)
    return rows


def _fill(ops: psycopg.Connection, theirs: psycopg.Connection, table: str) -> None:
    columns = "select a.attname from pg_catalog.pg_attribute as a where a.attrelid = %s::regclass and a.attnum > 0"
    landed = {name for (name,) in ops.execute(columns, (f"landing_bstadmin.{table}",)).fetchall()}
    known = [name for (name,) in theirs.execute(columns, (f"public.{table}",)).fetchall() if name in landed]
    more = _FILLED.get(table, {}) | ({"updated_at": "2000-01-01"} if "updated_at" not in landed else {})
    out = sql.SQL("copy (select {}{} from {} as t where {}) to stdout").format(
        sql.SQL(", ").join(sql.Identifier("t", name) for name in known),
        sql.SQL("").join(sql.SQL(", {}").format(sql.Literal(value)) for value in more.values()),
        sql.Identifier("landing_bstadmin", table),
        sql.SQL(_OF_SAMPLE[table]),  # type: ignore[arg-type]
    )
    into = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier("public", table), sql.SQL(", ").join(map(sql.Identifier, [*known, *more]))
    )
    with ops.cursor().copy(out) as rows, theirs.cursor().copy(into) as target:
        for chunk in rows:
            target.write(chunk)


# --- the drill -----------------------------------------------------------------------------------------------------

# The stand-in is empty, the copy is not: a number that no booking of the real bstadmin has there.
_FREE = """
select coalesce(max(r.external_ref::integer), 0) + 1
from public.channel_external_refs as r
where r.entity_type = 'BOOKING' and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
"""
_THEIRS = """
insert into public.bookings (
    booking_id, booking_ref, user_id, booking_date, tour_name, tour_date, total_price, number_of_adult, source,
    updated_at
)
values (%(id)s, %(ref)s, 'u', '2026-01-01', 'Drill', '2150-02-28 16:00', 100, 2, 'GYG', '2026-01-02')
"""
_OURS = """
with core as (
    insert into public.booking_core (
        booking_key, channel_code, source_enum_compat, external_booking_ref, booking_created_at, booking_date,
        tour_date, currency_code, total_price, number_of_adult, customer_payment_status, ops_fulfillment_status,
        package_ref_type
    )
    values (
        %(key)s, 'GYG', 'GYG', %(ref)s, '2026-01-01', '2026-01-01', '2150-03-01', 'USD', 100, 2, 'PAID', 'NEW',
        'LEGACY_PACKAGE'
    )
), contact as (
    insert into public.booking_contact (booking_key, updated_from_source) values (%(key)s, 'bstadmin')
), state as (
    insert into public.ops_booking_state (booking_key, ops_fulfillment_status, is_paid_flag, updated_from_source)
    values (%(key)s, 'NEW', true, 'bstadmin')
), ref as (
    insert into public.channel_external_refs (
        external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
        source_table, source_pk
    )
    values (gen_random_uuid(), 'BOOKING', %(key)s, 'GYG', 'BSTADMIN_BOOKING_ID', %(id)s, 'bstadmin', 'bookings', %(id)s)
)
insert into phase2.booking_source_times (booking_key, source_updated_at) values (%(key)s, '2026-01-02')
"""
_HELD = "select b.note from public.bookings as b where b.booking_id = %s"
_HERE = "select c.note from public.booking_core as c where c.booking_key = %s"
_MARKS = "select count(*) from public.audit_logs as l where l.id = any(%s) and l.action = 'UPDATE'"


@dataclass
class _Booking:
    """A made-up booking on both sides, and the note that was accepted last."""

    key: UUID
    id: int
    note: str | None = None


@dataclass
class _Traffic:
    """People of the back office who write notes, one after the other, and what they were answered."""

    service: Service
    bookings: list[_Booking]
    answers: list[tuple[float, int, str, str]] = field(default_factory=list)  # when, status, core, intent's id
    _end: threading.Event = field(default_factory=threading.Event)

    def write(self, booking: _Booking) -> None:
        version = 1
        while not self._end.wait(0.02):
            note = f"drill {version}"
            answer = self.service.admin(
                "PATCH",
                f"/v1/ops/bookings/{booking.key}",
                key=uuid4().hex,
                stateVersion=version,
                note=note,
            )
            said = answer.json().get("data", {})
            self.answers.append((time.monotonic(), answer.status_code, said.get("core", ""), said.get("intentId", "")))
            if answer.status_code not in (200, 202):
                return
            booking.note, version = note, said["state"]["stateVersion"]

    @contextmanager
    def flowing(self) -> Iterator[None]:
        with ThreadPoolExecutor(len(self.bookings)) as people:
            done = [people.submit(self.write, booking) for booking in self.bookings]
            try:
                yield
            finally:
                self._end.set()
                for one in done:
                    one.result()

    def takes(self, core: str) -> bool:
        """Whether every answer of the last second says this of the core, and there were some of each writer."""
        since = time.monotonic() - _SETTLED
        late = [said for at, _, said, _ in list(self.answers) if at >= since]
        return len(late) > len(self.bookings) and set(late) == {core}


def rollback(service: Service, out: Outcome) -> None:
    """The flag goes off while people write: no write fails, none is lost, and bstadmin has the last word of each."""
    from bridge import drills

    assert service.bstadmin is not None
    limit = drills.limits(service).get("G-04")
    with (
        service.connect() as conn,
        postgres.connect(service.bstadmin, application_name="phase2 drill", autocommit=True) as theirs,
    ):
        traffic = _Traffic(service, [_made_up(conn, theirs) for _ in range(WRITERS)])
        _switch(conn, True)
        try:
            with traffic.flowing():
                on = drills.until(lambda: traffic.takes("DONE"), _PATIENCE)
                service.ask()
                before = len(traffic.answers)
                rolled = write_rollback.roll_back(service.ops, reason="drill", wait_seconds=_PATIENCE)
                off = drills.until(lambda: traffic.takes("BEHIND"), limit or _PATIENCE)
            left = drills.until(lambda: not write_rollback.drained(conn, rolled.switched_at, 0).left, _PATIENCE)
            notes = [theirs.execute(_HELD, (one.id,)).fetchone() == (one.note,) for one in traffic.bookings]
            ids = [said for _, _, _, said in traffic.answers if said]
            (marks,) = theirs.execute(_MARKS, (ids,)).fetchone() or (0,)
            began = time.monotonic()
            _switch(conn, True)
            caught_up = drills.until(
                lambda: all(conn.execute(_HERE, (one.key,)).fetchone() == (one.note,) for one in traffic.bookings),
                _PATIENCE,
            )
            seconds_to_both = time.monotonic() - began
        finally:
            _switch(conn, False)
    failed = sorted({status for _, status, _, _ in traffic.answers} - {200, 202})
    seconds = rolled.seconds_to_old_path
    out.measured = {
        "batch": "H",
        "seconds_to_old_path": seconds,
        "seconds_to_both": round(seconds_to_both, 2),
        "writes": len(traffic.answers),
        "writes_before": before,
        "writes_after": len(traffic.answers) - before,
        "failed": sum(status not in (200, 202) for _, status, _, _ in traffic.answers),
        "in_bstadmin": marks,
        "left": rolled.left,
        "limit_seconds": limit,
    }
    out.check("both sides are written while the flag is on", on, f"{before} writes before")
    out.check("no write failed", not failed and len(traffic.answers) > before, ", ".join(map(str, failed)) or
              f"{len(traffic.answers)} writes, each 200 or 202")  # fmt: skip
    limit_words = "no limit in the registry" if limit is None else f"limit {limit:g} s"
    within = "nobody wrote" if seconds is None else f"{seconds:.1f} s, {limit_words}"
    out.check("the old path serves in time (G-04)", off and seconds is not None and limit is not None
              and seconds <= limit, within)  # fmt: skip
    out.check("nothing is left open", left and not rolled.left, f"{rolled.left} left")
    out.check("each write is in bstadmin, once", marks == len(ids) > 0, f"{marks} of {len(ids)}")
    out.check("bstadmin has the last word of each booking", all(notes), f"{sum(notes)} of {len(notes)}")
    out.check("on again, the core has it too", caught_up, f"{seconds_to_both:.1f} s")


def _made_up(conn: psycopg.Connection, theirs: psycopg.Connection) -> _Booking:
    ref = f"DRILL-{uuid4().hex[:12].upper()}"
    (number,) = conn.execute(_FREE).fetchone() or (1,)
    theirs.execute(_THEIRS, {"id": number, "ref": ref})
    made = _Booking(uuid4(), number)
    conn.execute(_OURS, {"key": made.key, "ref": ref, "id": str(number)})
    return made


def _switch(conn: psycopg.Connection, on: bool) -> None:
    flags.change(conn, write_rollback.FLAG, on, reason="drill", rollout=flags.Rollout(), actor="drill")
