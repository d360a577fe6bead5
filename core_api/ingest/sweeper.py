"""The sweeper: what the log holds as accepted and the queue does not is queued again (ingest_contract, Behind it 1).

The queue may lose all it held, and an API that dies between its commit and the queue's answer has queued nothing.
Adding is idempotent, so that every worker may sweep.
"""

from __future__ import annotations

from uuid import UUID

from core_api.database import Pool
from core_api.ingest.queue import IngestQueue

_MOST = 20_000  # read at once, the oldest first
_PAGE = 500  # asked of Redis at once

# A retry to come is looked for at once: it must be in time. What is pending is found by its status, never by walking
# the whole log in its order.
_PENDING = """
with pending as materialized (
    select e.event_key, e.created_at, e.next_retry_at
    from public.ingest_event_log as e
    where
        phase2.is_pending(e.process_status, e.next_retry_at)
        and (e.process_status = 'FAILED' or e.request_received_at < now() - %(recover)s * interval '1 second')
)

select p.event_key, greatest(0, extract(epoch from p.next_retry_at - now()))::double precision, p.created_at
from pending as p
where (p.created_at, p.event_key) > (%(at)s::timestamptz, %(key)s::uuid)
order by p.created_at, p.event_key
limit %(most)s
"""


async def sweep(pool: Pool, queue: IngestQueue, recover_seconds: float) -> int:
    """Queue again what is lost, in the order in which it was accepted; how many. Raises RedisError, psycopg.Error.

    It also forgets old jobs, and on a new day renews the status of bookings that only events know.
    """
    await queue.set_clock()
    found = 0
    asked = {"recover": recover_seconds, "most": _MOST, "at": "-infinity", "key": UUID(int=0)}
    while True:
        async with pool.connection() as conn:
            rows = await (await conn.execute(_PENDING, asked)).fetchall()
        for start in range(0, len(rows), _PAGE):
            page = {key: seconds for key, seconds, _ in rows[start : start + _PAGE]}
            lost = await queue.not_at_work(list(page))
            await queue.add_again([(key, page[key] or 0.0) for key in lost])
            found += len(lost)
        if len(rows) < _MOST:
            break
        asked |= {"at": rows[-1][2], "key": rows[-1][0]}
    await queue.forget_old()
    async with pool.connection() as conn:
        await conn.execute("select phase2.renew_fulfilment()")
    return found
