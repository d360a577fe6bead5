"""A write of the back office, step by step: its intent, then the core, then legacy (blueprint 6.9).

Each step is committed before the next one begins, and each does nothing when it comes a second time: in the core by the
intent's own status (`phase2.write_core`), in legacy by the row that goes into `audit_logs` with it. So whoever finds an
intent that has not ended (the same request again, the next write of that booking, the sweeper) may go on with it.
One at a time is at a booking, by a lock of the ops database that dies with its session; should two believe that they
have it, each step is still done once.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from bridge import bstadmin
from bridge.errors import plain
from bridge.flags import Flag
from core_api import audit, database
from core_api.auth import Admin
from core_api.database import Pool
from core_api.errors import Refused

Conn = AsyncConnection[Any]
log = logging.getLogger("core_api.writes")
FLAG: Flag = "OPS_WRITE_CORE_ENABLED"

_INTENT = "select i.* from phase2.write_intents as i where i.intent_id = %s"
_OPEN = """
select i.* from phase2.write_intents as i
where
    i.booking_key = %(booking)s and (%(upto)s::bigint is null or i.place <= %(upto)s)
    and (i.core_status in ('PENDING', 'BEHIND') or i.legacy_status = 'PENDING')
order by i.place
"""
_BEHIND = """
update phase2.write_intents as i
set core_status = 'BEHIND', core_error = %(why)s, fallback = true, touched_at = clock_timestamp()
where i.intent_id = %(id)s and i.core_status = 'PENDING'
"""
_TOUCHED = """
update phase2.write_intents as i set core_error = %(why)s, touched_at = clock_timestamp() where i.intent_id = %(id)s
"""
_FAILED = """
update phase2.write_intents as i set legacy_error = %(why)s, touched_at = clock_timestamp() where i.intent_id = %(id)s
"""
_RECORD = "select phase2.record_legacy(%s, %s, %s, %s, %s)"
_LATE = "select phase2.legacy_expected(%s, %s, %s, %s, %s)"


class Writing:
    """The pools of who writes: a booking's connection is held while bstadmin is written, which may take its time. So it
    is none of those that everything else of the process shares."""

    def __init__(self, ops_url: str, bstadmin_url: str, *, size: int = 4) -> None:
        self.ops = database.pool(ops_url, size=size, application_name="phase2-writes")
        self.bstadmin = database.pool(bstadmin_url, size=size, application_name="phase2-writes", wait_seconds=1.0)

    async def open(self) -> None:
        await self.ops.open()
        await self.bstadmin.open()

    async def close(self) -> None:
        await self.ops.close()
        await self.bstadmin.close()


async def reached(point: str) -> None:
    """Between the steps of a write (`intent`, `core`, `legacy`, `ended`); tests stop here."""


@asynccontextmanager
async def alone(pool: Pool, booking: UUID) -> AsyncIterator[Conn]:
    """A connection that holds the booking's lock of writers. Raises LockNotAvailable after 5 s."""
    lock = f"write:{booking}"
    async with pool.connection() as conn:
        held = False
        try:
            await conn.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (lock,))
            held = True
            yield conn
        except BaseException as error:
            if not held or not isinstance(error, Refused):
                await conn.close()  # the lock goes with it
            raise
        finally:
            if not conn.closed:
                await conn.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (lock,))


async def read_legacy(pool: Pool, ids: list[int], driver: int | None) -> tuple[dict[str, Any] | None, bool]:
    """The row of bstadmin that stands for a booking, and whether there is such a driver. Raises psycopg.Error."""
    async with pool.connection() as conn:
        row = await (await conn.execute(bstadmin.READ, {"ids": ids, "driver": driver})).fetchone()
    assert row is not None
    return row[0], row[1]


async def one(conn: Conn, intent_id: UUID) -> dict[str, Any]:
    found = await (await conn.cursor(row_factory=dict_row).execute(_INTENT, (intent_id,))).fetchone()
    assert found is not None
    return found


async def finish(
    conn: Conn, legacy: Pool | None, booking: UUID, *, core: bool, behind: bool = True, upto: int | None = None
) -> None:
    """Take every write of this booking that has not ended on as far as it goes, in their order. The caller is alone.

    `core`: whether the core is written (the flag, whoever calls: a write that came before goes the way that it was
    accepted for, strict or not). `behind`: also what the core has yet to catch up with. `upto`: the place of the last
    one. `legacy` is None when bstadmin is known to be away. Raises psycopg.Error when the ops database is away: then
    nothing more is known here.
    """
    found = await (
        await conn.cursor(row_factory=dict_row).execute(_OPEN, {"booking": booking, "upto": upto})
    ).fetchall()
    stuck = False
    for intent in found:
        if intent["core_status"] == "PENDING" or (intent["core_status"] == "BEHIND" and core and behind):
            await _core(conn, intent, core=core)
            intent = await one(conn, intent["intent_id"])
        await reached("core")
        if intent["legacy_status"] == "PENDING" and legacy and not stuck:
            # what comes after it must not be there before it
            stuck = not await _legacy(conn, legacy, intent)
            await reached("legacy")


async def _core(conn: Conn, intent: dict[str, Any], *, core: bool) -> None:
    """The core's part. What the core does not take legacy gets alone, unless the flag says strict."""
    key = intent["intent_id"]
    why = "the flag is off"
    if core:
        try:
            row = await (await conn.execute("select phase2.write_core(%s)", (key,))).fetchone()
            assert row is not None
            if row[0] in ("DONE", "ALREADY"):
                return
            why = row[0]
        except psycopg.Error as error:
            if database.is_away(error) or conn.closed:
                raise
            why = f"SQLSTATE {error.sqlstate}"
            log.warning("the core did not take a write: %s", plain(error))
    if intent["core_status"] == "BEHIND":
        await conn.execute(_TOUCHED, {"id": key, "why": why})
        return
    if why == "FROZEN" or (core and intent["strict"]):
        await conn.execute("select phase2.refuse_write(%s, %s)", (key, why))
        return
    async with conn.transaction():
        await conn.execute(_BEHIND, {"id": key, "why": why})
        await audit.record(
            conn, "ops.write.fallback", Admin(intent["role"], intent["actor"]), resource_type="booking",
            resource_id=intent["booking_key"], intent_id=str(key), why=why,
        )  # fmt: skip


async def _legacy(conn: Conn, pool: Pool, intent: dict[str, Any]) -> bool:
    """The legacy side's part; whether it has ended. Its errors are kept with the intent, the sweeper tries again."""
    key = intent["intent_id"]
    if intent["action"] != "playbook":
        frozen = await (await conn.execute("select phase2.is_frozen(%s)", (intent["booking_key"],))).fetchone()
        if frozen == (True,):
            return False
    try:
        result, found, written_at = await _write_legacy(conn, pool, intent)
        error = None
    except psycopg.IntegrityError as refused:  # a driver or package that is no more: it would never go in
        result, found, written_at, error = (
            "CONFLICT",
            intent["legacy_found"] or {},
            None,
            f"SQLSTATE {refused.sqlstate}",
        )
    except psycopg.Error as failed:
        if conn.closed:
            raise
        log.warning("bstadmin did not take a write: %s", plain(failed))
        await conn.execute(_FAILED, {"id": key, "why": f"SQLSTATE {failed.sqlstate or '08006'}"})
        return False
    await reached("written")
    await conn.execute(_RECORD, (key, result, None if found is None else Jsonb(found), written_at, error))
    return True


async def _write_legacy(
    conn: Conn, pool: Pool, intent: dict[str, Any]
) -> tuple[str, dict[str, Any] | None, datetime | None]:
    """One transaction of bstadmin: DONE with the row before and its new updated_at, or CONFLICT with the row."""
    key = str(intent["intent_id"])
    target, expected = intent["legacy_target"], intent["legacy_expected"]
    async with pool.connection() as legacy, legacy.transaction():
        held = await (await legacy.execute(bstadmin.HOLD, {"ids": intent["legacy_ids"]})).fetchone()
        if held is None:
            return "CONFLICT", {}, None  # the booking is gone
        found = held[0]
        done = await (await legacy.execute(bstadmin.DONE, (key,))).fetchone()
        if done:
            written_at = datetime.fromisoformat(found["updated_at"] + "+00:00")
            return ("DONE", None, written_at) if done[0] == bstadmin.WRITTEN else ("CONFLICT", found, None)
        if any(name in target and name not in expected for name in bstadmin.GUARDED):  # it was away before
            asked = (
                intent["booking_key"], Jsonb(target), Jsonb(found), Jsonb(intent["before"]), intent["place"]
            )  # fmt: skip
            row = await (await conn.execute(_LATE, asked)).fetchone()
            assert row is not None
            expected = row[0]
        if found["status"] in ("CANCELLED", "NO_SHOW") and intent["action"] != "playbook":
            # cancelled there meanwhile: that stays, and the next comparison tells
            target = {name: value for name, value in target.items() if name != "status"}
        agrees = bstadmin.agrees(found, expected)
        written_at = None
        if agrees:
            row = await (
                await legacy.execute(bstadmin.WRITE, {"target": Jsonb(target), "booking_id": found["booking_id"]})
            ).fetchone()
            assert row is not None
            written_at = row[0]
        mark = {
            "id": key,
            "action": bstadmin.WRITTEN if agrees else bstadmin.REFUSED,
            "booking_id": found["booking_id"],
            "before": Jsonb({name: found[name] for name in target}),
            "after": Jsonb({**target, "actor": intent["actor"]}),
        }
        await legacy.execute(bstadmin.MARK, mark)
    return ("DONE" if agrees else "CONFLICT"), found, written_at
