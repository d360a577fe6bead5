"""The audit trail: what an admin changed. Rows are entries of kind `audit` in the ledger, which nobody can rewrite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field

from bridge import ledger
from bridge.runlog import uuid7
from core_api.auth import Admin
from core_api.database import Pool

_RECORD = "select l.entry_no from phase2.log('audit', null, %s::text, null, %s::text, %s::jsonb) as l"
_TRAIL = """
select
    l.entry_no, l.subject, l.actor, (l.entry::jsonb) ->> 'at' as at, l.body
from phase2.ledger as l
where
    l.kind = 'audit'
    and (%(event_type)s::text is null or l.subject = %(event_type)s)
    and (%(resource_type)s::text is null or l.body ->> 'resource_type' = %(resource_type)s)
    and (%(resource_id)s::text is null or l.body ->> 'resource_id' = %(resource_id)s)
    and (%(before)s::bigint is null or l.entry_no < %(before)s)
order by l.entry_no desc
limit %(limit)s
"""
_NAMED = ("event_id", "resource_type", "resource_id")


class Why(BaseModel):
    """Why an admin does this; for the audit trail."""

    model_config = ConfigDict(extra="ignore")

    reason: str | None = Field(None, max_length=2000)
    ticket: str | None = Field(None, max_length=200)


async def record(
    conn: AsyncConnection[Any],
    event_type: str,
    admin: Admin,
    *,
    resource_type: str,
    resource_id: UUID | str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str | None = None,
    **more: Any,
) -> UUID:
    """Write one row in the transaction of `conn`, as its last act: the ledger is locked until it ends.

    `before` and `after` are JSON without personal data; mails and phones in words of people are masked, as in every
    entry. Returns the row's id.
    """
    event_id = uuid7()
    body = {
        "event_id": str(event_id),
        "role": admin.role,
        "before": before,
        "after": after,
        "reason": reason,
        "resource_type": resource_type,
        "resource_id": str(resource_id),
        **more,
    }
    await conn.execute(_RECORD, (event_type, admin.actor, Jsonb(ledger.masked(body), dumps=_dumps)))
    return event_id


async def trail(
    pool: Pool,
    *,
    event_type: str | None = None,
    resource_type: str | None = None,
    resource_id: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> tuple[list[dict[str, Any]], int | None]:
    """The newest rows first, those before entry number `before`; and the number to go on from, if there are more."""
    asked = {
        "event_type": event_type,
        "resource_type": resource_type,
        "resource_id": resource_id,
        "before": before,
        "limit": limit + 1,
    }
    async with pool.connection() as conn:
        rows = await (await conn.cursor(row_factory=dict_row).execute(_TRAIL, asked)).fetchall()
    items = [
        {
            "eventId": row["body"].get("event_id"),
            "eventType": row["subject"],
            "actor": row["actor"],
            "createdAt": row["at"],
            "resourceType": row["body"].get("resource_type"),
            "resourceId": row["body"].get("resource_id"),
            "metadata": {name: value for name, value in row["body"].items() if name not in _NAMED},
        }
        for row in rows[:limit]
    ]
    return items, rows[limit - 1]["entry_no"] if len(rows) > limit else None


def _dumps(value: Any) -> bytes:
    return orjson.dumps(value, default=str)
