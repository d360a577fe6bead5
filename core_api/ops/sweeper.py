"""The sweeper of writes: what a crash, an outage or a switched-off flag has left open goes on, in its order."""

from __future__ import annotations

import asyncio
import logging
from uuid import UUID

import psycopg
from psycopg import errors

from bridge import flags
from bridge.errors import plain
from core_api import database
from core_api.database import Pool
from core_api.ops import intents

log = logging.getLogger("core_api.writes")
SECONDS = 2.0
_MOST = 200  # bookings of one round

# Not what a request is at this moment: that is alone with its booking, and this would wait for it.
_OPEN = """
select i.booking_key
from phase2.write_intents as i
where
    (i.legacy_status = 'PENDING' or i.core_status = 'PENDING' or (i.core_status = 'BEHIND' and %(core)s))
    and i.touched_at < now() - %(older)s * interval '1 second'
    and (i.action = 'playbook' or not phase2.is_frozen(i.booking_key))
group by i.booking_key
order by min(i.touched_at) -- each try touches it: what fails again and again holds nobody up
limit %(most)s
"""


async def sweep(pool: Pool, legacy: Pool, *, core: bool, older: float = SECONDS) -> int:
    """Take every booking with an open write on; how many there were. `core`: the flag is on. Raises psycopg.Error."""
    found = await _open(pool, core=core, older=older)
    for booking in found:
        await _take_on(pool, legacy, booking, core=core)
    return len(found)


async def _open(pool: Pool, *, core: bool, older: float) -> list[UUID]:
    async with pool.connection() as conn:
        rows = await (await conn.execute(_OPEN, {"core": core, "older": older, "most": _MOST})).fetchall()
    return [booking for (booking,) in rows]


async def _take_on(pool: Pool, legacy: Pool, booking: UUID, *, core: bool) -> None:
    try:
        async with intents.alone(pool, booking) as conn:
            await intents.finish(conn, legacy, booking, core=core)
    except errors.LockNotAvailable:
        pass  # somebody is at it
    except Exception as error:  # one that cannot go on holds up no other
        if isinstance(error, psycopg.Error) and database.is_away(error):
            raise
        log.warning("sweeper of writes, %s: %s", booking, _said(error))


def _said(error: Exception) -> str:
    return plain(error) if isinstance(error, psycopg.Error) else type(error).__name__


async def run(pool: Pool, legacy_url: str | None) -> None:
    """Sweep until it is cancelled; an error is told, and the next round looks again. Without a URL nothing is swept,
    and where nothing is open bstadmin is not asked."""
    if legacy_url is None:
        return
    known, legacy = flags.Flags(), database.pool(legacy_url, size=2, application_name="phase2-writes")
    try:
        while True:
            try:
                core = flags.in_force(intents.FLAG, await known.rows(pool)).enabled
                if await _open(pool, core=core, older=SECONDS):
                    await legacy.open()  # again is nothing
                    await sweep(pool, legacy, core=core)
            except Exception as error:  # whatever it was: writes that nobody takes on would wait for ever
                log.warning("sweeper of writes: %s", _said(error))
            await asyncio.sleep(SECONDS)
    finally:
        await legacy.close()
