"""Flags: the environment sets the default, a row of `phase2.flags` the state; a kill switch beats both.

One rule for every process (cutover.md, Flags); each looks again after `FRESH_SECONDS`.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import psycopg

from bridge import ledger
from core_api.settings import core_settings

Flag = Literal[
    "INGEST_WEBHOOK_ENABLED",
    "INGEST_QUEUE_ENABLED",
    "INGEST_REPLAY_ENABLED",
    "WEB_EMIT_BOOKING_EVENT_ENABLED",
    "EMAIL_PIPELINE_CORE_ENABLED",
]
FRESH_SECONDS = 2.0


def state(flag: Flag, rows: dict[str, bool]) -> bool:
    """Whether a flag is on, by the rows that are in force."""
    killed = {name.strip() for name in core_settings().phase2_kill.split(",")}
    if flag in killed or "all" in killed:
        return False
    return rows.get(flag, bool(getattr(core_settings(), flag.lower())))


class Flags:
    """The flags as one process sees them, read again when they are older than FRESH_SECONDS."""

    def __init__(self) -> None:
        self._rows: dict[str, bool] = {}
        self._read_at = float("-inf")

    async def is_on(self, flag: Flag, pool: Any) -> bool:
        """`pool` is an async psycopg pool; when the database does not answer, what was read last holds."""
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            self._read_at = time.monotonic()
            try:
                async with pool.connection() as conn:
                    rows = await (await conn.execute("select flag, enabled from phase2.flags")).fetchall()
                self._rows = dict(rows)
            except psycopg.Error:
                pass
        return state(flag, self._rows)


def change(conn: psycopg.Connection, flag: Flag, enabled: bool, *, reason: str, actor: str | None = None) -> None:
    """Set a flag, and say so in the ledger: who, why, before, after."""
    with conn.transaction():
        before = conn.execute("select enabled from phase2.flags where flag = %s for update", (flag,)).fetchone()
        conn.execute(
            "insert into phase2.flags (flag, enabled, reason, changed_by) values (%s, %s, %s, %s)"
            " on conflict (flag) do update set enabled = excluded.enabled, reason = excluded.reason,"
            " changed_by = excluded.changed_by, changed_at = now()",
            (flag, enabled, reason, actor or ledger.who()),
        )
        ledger.append(
            conn,
            "flag",
            subject=flag,
            actor=actor,
            body={"before": before[0] if before else None, "after": enabled, "reason": reason},
        )
