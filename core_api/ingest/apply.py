"""Applying an accepted event to its booking. What an event does stands in sql/ingest/apply.sql, as one function."""

from __future__ import annotations

from enum import StrEnum
from typing import Any
from uuid import UUID

import psycopg

_CODES = {"P2001": "VALIDATION_ERROR", "P2002": "SCHEMA_MISMATCH"}


class Applied(StrEnum):
    """What became of an event. BUSY and WAITS: nothing, try again; no attempt is used up."""

    APPLIED = "APPLIED"
    ALREADY = "ALREADY"
    BUSY = "BUSY"
    WAITS = "WAITS"


class NotRetryable(Exception):
    """The event can never be applied as it is: straight to the dead letters, under `code`."""

    def __init__(self, code: str, detail: str) -> None:
        self.code, self.detail = code, detail
        super().__init__(detail)


async def apply_event(conn: psycopg.AsyncConnection[Any], event_key: UUID) -> Applied:
    """Apply one event: one statement, in the caller's transaction or, on an autocommit connection, in its own.

    Raises NotRetryable; psycopg.Error for anything that may go better another time. Neither leaves a trace.
    """
    try:
        row = await (await conn.execute("select phase2.apply_event(%s)", (event_key,))).fetchone()
    except psycopg.Error as error:
        if error.sqlstate in _CODES:
            # the first line of our own words: no value of the payload stands in it
            raise NotRetryable(_CODES[error.sqlstate], error.diag.message_primary or "") from None
        raise
    assert row is not None  # a function returns one row
    return Applied(row[0])
