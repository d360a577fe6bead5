"""Incidents and complaints of the people of operations (gate BG-03): an open critical one holds the next step.

Rows of `phase2.incidents`; each opening and closing is an entry "incident" of the ledger, which `verify` holds them to.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from bridge import ledger, runlog
from bridge.errors import CouldNotRun
from bridge.reports.mask import mask_text

Severity = Literal["critical", "major", "minor"]
Kind = Literal["incident", "complaint"]
LONGEST_TITLE = 200

_LIST = """
select
    i.incident_id, i.kind, i.severity, i.title, i.opened_at, i.opened_by, i.closed_at, i.closed_by, i.close_reason
from phase2.incidents as i
where i.closed_at is null or %(all)s
order by i.closed_at is not null, i.severity = 'critical' desc, i.opened_at
"""


@dataclass(frozen=True)
class Incident:
    """One of them; open while `closed_at` is None. Mails and phones in its words are hidden."""

    incident_id: UUID
    kind: str
    severity: str
    title: str
    opened_at: datetime
    opened_by: str
    closed_at: datetime | None
    closed_by: str | None
    close_reason: str | None


def listed(conn: psycopg.Connection, *, closed: bool = False) -> list[Incident]:
    """The open ones, critical first; with `closed` all of them."""
    with conn.cursor(row_factory=class_row(Incident)) as cursor:
        return cursor.execute(_LIST, {"all": closed}).fetchall()


def opened(conn: psycopg.Connection, title: str, severity: Severity, kind: Kind = "incident") -> UUID:
    """Keep a new one. CouldNotRun: no title, or a severity or kind that there is not."""
    if severity not in get_args(Severity) or kind not in get_args(Kind):
        raise CouldNotRun(
            f"there is no {severity} {kind}",
            todo=f"Severities: {', '.join(get_args(Severity))}; kinds: {', '.join(get_args(Kind))}.",
        )
    incident = runlog.uuid7()
    with conn.transaction():
        conn.execute(
            "insert into phase2.incidents (incident_id, kind, severity, title, opened_by) values (%s, %s, %s, %s, %s)",
            (incident, kind, severity, _words(title, "a title"), ledger.who()),
        )
        ledger.mirror(conn, "incident", [incident])
    return incident


def close(conn: psycopg.Connection, incident: UUID, reason: str) -> None:
    """Close an open one, with a reason. CouldNotRun when it is not open."""
    with conn.transaction():
        found = conn.execute(
            "update phase2.incidents set closed_at = clock_timestamp(), closed_by = %s, close_reason = %s"
            " where incident_id = %s and closed_at is null",
            (ledger.who(), _words(reason, "a reason"), incident),
        )
        if not found.rowcount:
            raise CouldNotRun("there is no such open incident", where=str(incident), todo="phase2 incident list")
        ledger.mirror(conn, "incident", [incident])


def _words(text: str, what: str) -> str:
    """As the ledger and everybody may see them."""
    if not text.strip():
        raise CouldNotRun(f"{what} is missing", todo="Say it in a few words, without names of guests.")
    return mask_text(" ".join(text.split())[:LONGEST_TITLE])
