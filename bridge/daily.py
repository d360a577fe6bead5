"""The reconciliation report of the day: each gate's trend, exceptions that are new and that have gone, money at stake.

One a day in Bali, as JSON and as a page; made again it replaces that day's. It reads what verdicts have kept, and asks
no gate itself: the deployment `recon-daily` does that before it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bridge import ledger, stop, waivers
from bridge.reports import draw
from bridge.reports.write import daily as write
from bridge.settings import settings
from bridge.steps import today_in_bali

DAYS = 14  # of the trend

_TREND = """
select g.batch, g.gate_id, g.evaluated_at, g.status, g.value::float8 as value, g.threshold::float8 as threshold
from phase2.gate_results as g
where g.evaluated_at > now() - %s
order by g.batch, g.gate_id, g.evaluated_at
"""
_OPEN = """
select
    (select count(*) from phase2.conflicts as c where c.status = 'OPEN') as conflicts,
    (select count(*) from public.ingest_dead_letter as d where d.status in ('OPEN', 'READY', 'FAILED')) as dead_letters,
    (select count(*) from public.unmapped_queue as q where q.status in ('OPEN', 'IN_REVIEW')) as unmapped
"""


@dataclass(frozen=True)
class Report:
    """What was written, and what it says."""

    document: dict[str, Any]
    json: Path
    html: Path


def make(conn: psycopg.Connection) -> Report:
    """Note the exceptions of today, and write the report. `conn` is autocommit."""
    today = today_in_bali()
    with conn.transaction():
        conn.execute("select phase2.keep_exception_days(%s)", (today,))
        document = as_of(conn, today.isoformat(), trends(conn))
        written = write(document, settings().phase2_reports)
        # by another name than `files`: the day's report may be made again
        body = {"day": today.isoformat(), "digests": ledger.files(*written)}
        said = ledger.latest(conn, "daily")
        if said is None or said.body != body:
            ledger.append(conn, "daily", body=body)
    return Report(document, *written)


Trends = dict[tuple[str, str], list[dict[str, Any]]]


def trends(conn: psycopg.Connection) -> Trends:
    """Of each gate (batch, id) what it said in the last two weeks, in order."""
    kept: Trends = defaultdict(list)
    for row in conn.cursor(row_factory=dict_row).execute(_TREND, (timedelta(days=DAYS),)):
        kept[row["batch"], row["gate_id"]].append(row)
    return kept


def as_of(conn: psycopg.Connection, today: str, kept: Trends) -> dict[str, Any]:
    """The report's content: gates as they stand, exceptions as they were noted on that day (a date). Only reads."""
    rows = conn.cursor(row_factory=dict_row)
    exceptions = rows.execute("select * from phase2.exceptions_of_the_day(%s)", (today,)).fetchall()
    counted = {(row["batch"], row["gate_id"]): row for row in exceptions}
    gates = []
    for (batch, gate), history in kept.items():
        known = waivers.registered(gate) or {}
        last = history[-1]
        day_ago = [one for one in history if one["evaluated_at"] < datetime.now(UTC) - timedelta(days=1)]
        number = counted.get((batch, gate), {})
        gates.append(
            {
                "batch": batch,
                "id": gate,
                "title": known.get("title", ""),
                "unit": known.get("unit", "count"),
                "comparator": known.get("comparator", "="),
                "threshold": last["threshold"],
                "status": last["status"],
                "value": last["value"],
                "day_before": day_ago[-1]["value"] if day_ago else None,
                "trend": draw.line(
                    [(h["evaluated_at"], "", h["value"]) for h in history], last["threshold"] or 0
                ).points,
                "open": number.get("is_open", 0),
                "new": number.get("is_new", 0),
                "closed": number.get("has_closed", 0),
            }
        )
    money = rows.execute("select * from phase2.money_at_stake(%s)", (today,)).fetchall()
    return {
        "day": today,
        "failed": [f"{one['id']} of {one['batch']}" for one in gates if one["status"] == "FAIL"],
        "stops": [str(one) for one in stop.standing(conn)],
        "gates": gates,
        "new": sum(row["is_new"] for row in exceptions),
        "closed": sum(row["has_closed"] for row in exceptions),
        "open": sum(row["is_open"] for row in exceptions),
        "money": [{"currency": m["currency"], "bookings": m["bookings"], "amount": str(m["amount"])} for m in money],
        "waiting": rows.execute(_OPEN).fetchone(),
    }
