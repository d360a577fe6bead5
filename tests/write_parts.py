"""Bookings on both sides for tests of writes: an ops database after A and B, a bstadmin, and what both hold."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psycopg

from bridge import flags, postgres
from bridge.flags import Rollout, Row
from bridge.settings import SQL
from core_api import database
from core_api.auth import Admin
from core_api.database import Pool
from core_api.ops import sweeper, writes
from core_api.ops.intents import FLAG
from tests import serving

T = TypeVar("T")
AYU = Admin("MANAGER", "ayu")
ON = {FLAG: Row(True)}
OFF = {FLAG: Row(False)}
STRICT = {FLAG: Row(True, Rollout(strict=True))}
_numbers = itertools.count(1)

_HISTORY = """
create table public.history (booking_id integer, who text);
create function public.keep() returns trigger language plpgsql security definer as $$ begin
    insert into public.history values (new.booking_id, current_setting('application_name'));
    return null;
end $$;
create trigger keep after update on public.bookings for each row execute function public.keep();
"""
_LEGACY = """
insert into public.bookings (
    booking_ref, user_id, booking_date, tour_name, tour_date, total_price, currency, number_of_adult, number_of_child,
    status, source, main_contact_name, main_contact_email, meeting_point, note, updated_at, package_id
)
values (%(ref)s, 'u', '2026-01-01', 'Tour', '2150-02-28 16:00', 100, 'USD', 2, 0, 'NEW', 'GYG', 'Ann', 'ann@mail.test',
    %(meeting_point)s, %(note)s, '2026-01-02', %(package)s)
returning booking_id
"""
# as a backfill of batch D and E leaves it
_CORE = """
with core as (
    insert into public.booking_core (
        booking_key, channel_code, source_enum_compat, external_booking_ref, booking_created_at, booking_date,
        tour_date, currency_code, total_price, number_of_adult, customer_payment_status, ops_fulfillment_status,
        package_ref_type, legacy_package_id, note
    )
    values (
        %(key)s, 'GYG', 'GYG', %(ref)s, '2026-01-01', '2026-01-01', '2150-03-01', 'USD', 100, 2, 'PAID', 'NEW',
        'LEGACY_PACKAGE', %(package)s, %(note)s
    )
), contact as (
    insert into public.booking_contact (booking_key, main_name, main_email, meeting_point, updated_from_source)
    values (%(key)s, 'Ann', 'ann@mail.test', nullif(%(meeting_point)s, ''), 'bstadmin')
), state as (
    insert into public.ops_booking_state (booking_key, ops_fulfillment_status, is_paid_flag, updated_from_source)
    values (%(key)s, 'NEW', true, 'bstadmin')
), ref as (
    insert into public.channel_external_refs (
        external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
        source_table, source_pk
    )
    select gen_random_uuid(), 'BOOKING', %(key)s, 'GYG', 'BSTADMIN_BOOKING_ID', i.id::text, 'bstadmin', 'bookings', i.id
    from (select %(id)s::integer) as i (id) where i.id is not null
)
insert into phase2.booking_source_times values (%(key)s, '2026-01-02')
"""
# of both sides what a write may change, in one form
_OURS = """
select jsonb_build_object(
    'note', c.note, 'meeting_point', t.meeting_point, 'package', c.legacy_package_id, 'driver', s.assigned_driver_id,
    'at', s.assigned_at at time zone 'UTC', 'status', s.ops_fulfillment_status
)
from public.booking_core as c
join public.booking_contact as t using (booking_key)
join public.ops_booking_state as s using (booking_key)
where c.booking_key = %s and s.ops_fulfillment_status = c.ops_fulfillment_status
"""
_THEIRS = """
select jsonb_build_object(
    'note', b.note, 'meeting_point', nullif(b.meeting_point, ''), 'package', b.package_id,
    'driver', b.assigned_driver_id, 'at', b.assigned_at, 'status', b.status
)
from public.bookings as b where b.booking_id = %s
"""


@dataclass
class Booking:
    """One booking on both sides; `id` is None when bstadmin has none."""

    key: UUID
    id: int | None


@dataclass
class Sides:
    """The two databases, and the pools of a service that writes to them."""

    ops: str
    bstadmin: str

    def sql(self, statement: str, *values: object, legacy: bool = False) -> list[tuple[Any, ...]]:
        conn = _connection(self.bstadmin if legacy else self.ops, os.getpid())
        done = conn.execute(statement.encode(), values or None)
        return done.fetchall() if done.description else []

    def booking(self, *, legacy: bool = True, note: str | None = "first", package: int | None = None) -> Booking:
        values: dict[str, Any] = {
            "ref": f"W{next(_numbers)}{uuid4().hex[:6]}".upper(),
            "note": note,
            "meeting_point": "Lobby",
            "package": package,
        }
        values |= {"key": uuid4(), "id": None}
        if legacy:
            row = _connection(self.bstadmin, os.getpid()).execute(_LEGACY, values).fetchone()
            assert row is not None
            values["id"] = row[0]
        _connection(self.ops, os.getpid()).execute(_CORE, values)
        return Booking(values["key"], values["id"])

    def ours(self, booking: Booking) -> dict[str, Any]:
        return self.sql(_OURS, booking.key)[0][0]

    def theirs(self, booking: Booking) -> dict[str, Any]:
        return self.sql(_THEIRS, booking.id, legacy=True)[0][0]

    def behind(self, booking: Booking, **columns: Any) -> None:
        """Somebody changes the row in bstadmin, as its application does."""
        for name, value in columns.items():
            statement = postgres.statement(
                "update public.bookings set {} = %s, updated_at ="
                " greatest((clock_timestamp() at time zone 'UTC')::timestamp(3), updated_at + interval '1 ms')"
                " where booking_id = %s",
                name,
            )
            _connection(self.bstadmin, os.getpid()).execute(statement, (value, booking.id))
        time.sleep(0.001)  # times there are rounded to milliseconds: who compares now finds it in the past

    def intents(self, booking: Booking) -> list[tuple[Any, ...]]:
        return self.sql(
            "select core_status, legacy_status, fallback from phase2.write_intents"
            " where booking_key = %s order by place",
            booking.key,
        )

    def conflicts(self, booking: Booking, status: str = "OPEN") -> list[tuple[str, list[dict[str, Any]]]]:
        return self.sql(
            "select rule, fields from phase2.conflicts where booking_key = %s and status = %s order by rule",
            booking.key, status,
        )  # fmt: skip

    def version(self, booking: Booking) -> int:
        return self.sql("select (phase2.write_view(%s) ->> 'state_version')::integer", booking.key)[0][0]

    def call(self, work: Callable[[Pool, Pool], Awaitable[T]], legacy: str | None = None) -> T:
        """`work` with the pools of a service; `legacy` stands in for bstadmin's URL."""

        async def run() -> T:
            pool = database.pool(self.ops, size=2, application_name="phase2-test-ops")
            theirs = database.pool(
                legacy or self.bstadmin, size=2, application_name="phase2-test-legacy", wait_seconds=0.5
            )
            await pool.open()
            await theirs.open()
            try:
                return await work(pool, theirs)
            finally:
                await pool.close()
                await theirs.close()

        return asyncio.run(run())

    def write(
        self,
        booking: Booking,
        action: str = "patch",
        *,
        rows: dict[Any, flags.Row] = ON,
        key: str | None = None,
        version: int | None = None,
        legacy: str | None = None,
        admin: Admin = AYU,
        **changes: Any,
    ) -> dict[str, Any]:
        """One write by the flag as given; the version is the one that stands unless it is said."""
        at = None if action == "sync" else self.version(booking) if version is None else version
        if action in ("assign", "unassign"):
            changes = {"assigned_driver_id": None, "assigned_partner_id": None} | changes

        async def work(pool: Pool, theirs: Pool) -> dict[str, Any]:
            said, status = await writes.perform(
                pool, theirs, rows, admin, booking.key,
                key=key or uuid4().hex, action=action, changes=changes, version=at,
            )  # fmt: skip
            return said | {"status": status}

        return self.call(work, legacy)

    def flag(self, enabled: bool) -> None:
        self.sql(
            "insert into phase2.flags (flag, enabled, reason, changed_by) values (%s, %s, 'x', 'x')"
            " on conflict (flag) do update set enabled = excluded.enabled",
            FLAG, enabled,
        )  # fmt: skip

    def sweep(self, *, core: bool = True, legacy: str | None = None) -> int:
        return self.call(lambda pool, theirs: sweeper.sweep(pool, theirs, core=core, older=-1), legacy)


@lru_cache(maxsize=8)
def _connection(url: str, _process: int) -> psycopg.Connection[Any]:
    return psycopg.connect(url, autocommit=True)


@contextmanager
def both_sides() -> Iterator[Sides]:
    """An ops database after A and B, and a bstadmin with two drivers and two packages; who updates its bookings is
    kept in a table of the test's own."""
    server, name = os.environ["TEST_PG_URL"], f"bstadmin_{uuid4().hex[:12]}"
    with serving.ready(server) as ops, postgres.connect(server, autocommit=True) as admin:
        admin.execute(postgres.statement("create database {}", name))
        sides = Sides(ops, postgres.with_database(server, name))
        with postgres.connect(sides.bstadmin, autocommit=True) as conn:
            conn.execute("set search_path = public")
            conn.execute((SQL / "sources" / "bstadmin.sql").read_bytes())
            conn.execute(_HISTORY)
        sides.sql(
            "insert into public.users (id, updated_at) values ('u', now());"
            " insert into public.drivers (name, phone, vehicle_type, updated_at) values ('D', '1', 'Car', now()),"
            " ('E', '2', 'Car', now());"
            " insert into public.tour_packages (package_name, slug, updated_at) values ('P', 'p', now()),"
            " ('Q', 'q', now())",
            legacy=True,
        )
        try:
            yield sides
        finally:
            _connection.cache_clear()
            admin.execute(postgres.statement("drop database {} with (force)", name))
