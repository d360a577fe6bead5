"""The sweeper: what the log holds as accepted and the queue does not is queued again (ingest_contract, Behind it 1).

The queue may lose all it held, and an API that dies between its commit and the queue's answer has queued nothing.
Adding is idempotent, so that every worker may sweep.
"""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from core_api.database import Pool
from core_api.ingest.queue import IngestQueue

_PAGE = 1000

# A retry to come is looked for at once: it must be in time. Uses ix_ingest_event_process_retry.
_PENDING = """
select e.event_key, e.created_at, greatest(0, extract(epoch from e.next_retry_at - now()))::double precision
from public.ingest_event_log as e
where
    (
        (
            e.process_status in ('RECEIVED', 'PROCESSING')
            and e.request_received_at < now() - %(recover)s * interval '1 second'
        )
        or (e.process_status = 'FAILED' and e.next_retry_at is not null)
    )
    and (e.created_at, e.event_key) > (%(after)s::timestamptz, %(key)s::uuid)
order by e.created_at, e.event_key
limit %(page)s
"""


async def sweep(pool: Pool, queue: IngestQueue, recover_seconds: float) -> int:
    """Queue again what is lost, in the order in which it was accepted; how many. Raises RedisError, psycopg.Error."""
    found = 0
    after, key = datetime.min.replace(tzinfo=UTC), UUID(int=0)
    while True:
        values = {"recover": recover_seconds, "after": after, "key": key, "page": _PAGE}
        async with pool.connection() as conn:
            rows = await (await conn.execute(_PENDING, values)).fetchall()
        lost = set(await queue.not_at_work([row[0] for row in rows]))
        await queue.add_again([(row[0], row[2] or 0.0) for row in rows if row[0] in lost])
        found += len(lost)
        if len(rows) < _PAGE:
            return found
        key, after = rows[-1][:2]
