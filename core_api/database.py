"""The pool of connections to the ops database that each process of the core API keeps."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolClosed

from bridge import postgres

Pool = AsyncConnectionPool[AsyncConnection[Any]]


def is_away(error: psycopg.Error) -> bool:
    """The connection is gone or none is to be had: what became of the statement is not known, and asking again at once
    would only wait. A statement that took too long (57014) is no outage: its database goes on answering."""
    if isinstance(error, PoolClosed):
        return True
    if isinstance(error, errors.QueryCanceled) or not isinstance(error, psycopg.OperationalError):
        return False
    return (error.sqlstate or "08")[:2] in ("08", "57")


# Beside what every session of ours asks for. No statement of the service may hold up what comes after it; a database's
# own default of a stricter isolation would turn waiting for a key into an error.
_SERVICE = (
    r" -c default_transaction_isolation=read\ committed -c statement_timeout=10s -c lock_timeout=5s"
    " -c idle_in_transaction_session_timeout=30s"
)


def pool(url: str, *, size: int, application_name: str, options: str = "", wait_seconds: float = 3.0) -> Pool:
    """A pool that is not open yet; every connection is autocommit and prepares each statement at its first use.

    It waits `wait_seconds` for a free connection, then raises PoolTimeout (an OperationalError); more than 20 waiting
    for each connection are refused at once (TooManyRequests). `options` are added to what every session asks for.
    """
    return AsyncConnectionPool(
        url,
        kwargs={
            **postgres.OPTIONS,
            "application_name": application_name,
            "options": postgres.SESSION + _SERVICE + options,
            "autocommit": True,
            "prepare_threshold": 0,
        },
        min_size=min(2, size),
        max_size=size,
        max_waiting=20 * size,
        timeout=wait_seconds,
        reconnect_timeout=10.0,
        open=False,
        name=application_name,
    )
