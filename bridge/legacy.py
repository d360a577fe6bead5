"""Gate A-03: the legacy applications' own statements, run before and after the schema is made; none may fail.

The statements are data (legacy_queries.sql); each runs in a read-only transaction of its own source.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psycopg

from bridge import postgres
from bridge.errors import CouldNotRun
from bridge.settings import Databases

QUERIES = Path(__file__).with_name("legacy_queries.sql")

_KEEP = """
insert into phase2.legacy_query_results (
    run_id, phase, source, query_name, succeeded, row_count, seconds, error_message
)
values (%s, %s, %s, %s, %s, %s, %s, %s)
"""


@dataclass(frozen=True)
class Statement:
    """One statement of an application: on which source, for which page."""

    source: str
    name: str
    text: str


@dataclass(frozen=True)
class Outcome:
    """How one statement went; `error` is the server's first line."""

    statement: Statement
    rows: int | None
    seconds: float
    error: str | None


def statements(text: str | None = None) -> list[Statement]:
    """The statements of legacy_queries.sql (or of `text`), in the order of the file."""
    found = []
    for part in re.split(r"^-- @source ", text or QUERIES.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        source, _, rest = part.partition("\n")
        for block in re.split(r"^-- @name ", rest, flags=re.MULTILINE)[1:]:
            name, _, statement = block.partition("\n")
            found.append(Statement(source.strip(), name.strip(), statement.strip().rstrip(";")))
    return found


def ask(conn: psycopg.Connection, statement: Statement) -> Outcome:
    """Run one statement and read all its rows, in a read-only transaction that is rolled back.

    Raises CouldNotRun when the connection is lost meanwhile.
    """
    start = time.perf_counter()
    error: str | None = None
    rows: int | None = None
    try:
        with conn.transaction(force_rollback=True):
            conn.execute("set local statement_timeout = '60s'")
            # all rows are here now; Python's types are not asked, which know no infinite times
            rows = conn.execute(statement.text.encode()).rowcount
    except psycopg.Error as raised:
        if conn.closed:  # it says something of the connection, nothing of the statement
            raise CouldNotRun(
                "the connection was lost while the legacy statements ran",
                where=f"{statement.source}: {statement.name}",
                todo="Run it again once the server and the line are well.",
            ) from None
        error = (raised.diag.message_primary or str(raised)).splitlines()[0]
    return Outcome(statement, rows, round(time.perf_counter() - start, 4), error)


def run(conn: psycopg.Connection, databases: Databases, *, phase: str, run_id: UUID) -> int:
    """Run all statements on both sources and keep how each went; the number that ran.

    `phase` is BEFORE or AFTER. A failed statement is a finding for the gate, not an error here; a source that cannot
    be reached raises CouldNotRun.
    """
    urls = {"balisnap": databases.balisnap, "bstadmin": databases.bstadmin}
    every = statements()
    outcomes: list[Outcome] = []
    for source, url in urls.items():
        with postgres.connect(url, application_name="phase2-legacy", read_only=True) as source_conn:
            outcomes += [ask(source_conn, statement) for statement in every if statement.source == source]
    with conn.cursor() as cursor:
        cursor.executemany(
            _KEEP,
            [
                (
                    run_id,
                    phase,
                    outcome.statement.source,
                    outcome.statement.name,
                    outcome.error is None,
                    outcome.rows,
                    outcome.seconds,
                    outcome.error,
                )
                for outcome in outcomes
            ],
        )
    return len(outcomes)
