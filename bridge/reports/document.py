"""The content of a report as one plain document: what JSON holds, and what Markdown and HTML are drawn from."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import metadata
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from bridge import door, gates, ledger, reversibility, waivers
from bridge.batches import BATCHES, Batch
from bridge.policy import policy
from bridge.reports.mask import mask, mask_text

MOST_EXCEPTIONS = 100

_STEPS = """
select s.run_id, s.step, s.kind, s.checksum, s.status, s.started_at, s.rows, s.detail, s.error_message,
    round(extract(epoch from s.ended_at - s.started_at), 3) as seconds
from phase2.step_log as s
where
    s.batch = %(batch)s
    and s.run_id = (
        select l.run_id from phase2.step_log as l
        where l.batch = %(batch)s and l.kind <> 'rollback'
        order by l.run_id = %(run_id)s desc, l.step_log_id desc
        limit 1
    )
order by s.step_log_id
"""

_CHANGES = """
select m.model, m.target, sum(m.inserted)::bigint as inserted, sum(m.updated)::bigint as updated,
    sum(m.removed)::bigint as removed
from phase2.model_changes as m
where m.run_id = %(run_id)s and m.model = any(%(models)s)
group by m.model, m.target
order by min(m.model_change_id)
"""

_LANDINGS = """
select distinct on (r.source) r.source, r.source_database as database, r.source_version as server,
    r.snapshot_at, r.row_count as rows, r.byte_count as bytes, r.seconds
from phase2.landing_runs as r
order by r.source, r.landing_no desc
"""


def document(conn: psycopg.Connection, verdict: gates.Verdict) -> dict[str, Any]:
    """The report of `verdict` with the facts of the run that made it; personal data masked.

    `conn` is read from only. A verdict of a batch that was not run now (recon) shows the steps of its last run.
    """
    batch = BATCHES[verdict.batch]
    with conn.cursor(row_factory=dict_row) as cursor:
        steps = cursor.execute(_STEPS, {"batch": verdict.batch, "run_id": verdict.run_id}).fetchall()
        run_id = steps[0]["run_id"] if steps else verdict.run_id
        models = [node["name"] for step in steps for node in step["detail"].get("nodes", [])]
        changes = cursor.execute(_CHANGES, {"run_id": run_id, "models": models}).fetchall()
        landings = cursor.execute(_LANDINGS).fetchall() if verdict.batch >= "C" else []
        server = cursor.execute("select current_setting('server_version') as version").fetchone()
    rows = sum(line.source for line in verdict.parity if line.unit == "rows" and line.entity != "landed tables")
    content = {
        "unaccounted": verdict.unaccounted_rows,
        "schema": "report.schema.json#1",
        "batch": verdict.batch,
        "focus": batch.focus,
        "result": verdict.result,
        "blocked_by": verdict.blocked_by,
        "evaluated_at": verdict.evaluated_at,
        "evaluated_at_bali": (verdict.evaluated_at.astimezone(UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M"),
        "as_of": verdict.as_of,
        "run_id": verdict.run_id,
        "conservation": {
            "unaccounted_rows": verdict.unaccounted_rows,
            "source_rows": rows,
            "lines": [_line(line) for line in verdict.parity],
        },
        "gates": [_gate(gate) for gate in verdict.gates],
        "queries": [
            {
                "name": query.name,
                "title": query.title,
                "rows": query.rows,
                "findings": [
                    {"entity": f.entity, "key": mask_text(f.key), "status": f.status, "detail": mask(f.detail)}
                    for f in query.findings[:MOST_EXCEPTIONS]
                ],
            }
            for query in verdict.queries
        ],
        "exceptions": [_exceptions(gate, verdict) for gate in verdict.gates if gate.exceptions or gate.listed_apart],
        "ran": {
            "run_id": run_id,
            "steps": [_step(step) for step in steps],
            "seconds": sum(step["seconds"] or 0 for step in steps),
            "changes": changes,
            "rows_changed": sum(c["inserted"] + c["updated"] + c["removed"] for c in changes),
        },
        "sources": landings,
        "evaluation_seconds": dict(verdict.seconds),
        "versions": {
            "postgres": server["version"] if server else "",
            "database": f"{conn.info.host}:{conn.info.port}/{conn.info.dbname}",
            "python": platform.python_version(),
            **{name: _version(name) for name in ("phase2-bridge", "dbt-core", "dbt-postgres", "prefect", "psycopg")},
        },
        "waivers": [_waiver(waiver, verdict) for waiver in verdict.waivers],
        "reversibility": _reversibility(conn),
        "door": _door(conn, batch),
        "ledger": _head(conn),
        "signoffs": {"policy": _policy(), "given": _signed(conn, batch)},
    }
    return plain_json(content)


def _signed(conn: psycopg.Connection, one: Batch) -> list[dict[str, Any]]:
    """Who has signed the batch off, as far as it was not taken back, and why that does not count now (empty: it does).

    Whether it counted when the batch began, its door has asked.
    """
    from bridge import signoff  # it looks at steps, which write reports

    return [
        {
            "role": held.role,
            "who": held.who,
            "at": held.entry.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "void": held.void,
        }
        for held in signoff.given(conn, one)
    ]


def _gate(gate: gates.Gate) -> dict[str, Any]:
    return {
        "id": gate.gate_id,
        "title": gate.title,
        "measure": gate.measure,
        "status": gate.status,
        "numerator": gate.numerator,
        "denominator": gate.denominator,
        "value": gate.value,
        "unit": gate.unit,
        "comparator": gate.comparator,
        "threshold": gate.threshold,
        "margin": gate.margin,
        "severity": gate.severity,
        "exceptions": gate.exceptions,
        "listed_apart": gate.listed_apart,
        "waived": mask_text(str(gate.waiver)) if gate.waiver else None,
        "note": gate.note,
        "detail": mask(gate.detail),
    }


def _waiver(waiver: waivers.Waiver, verdict: gates.Verdict) -> dict[str, Any]:
    used = any(gate.waiver == waiver for gate in verdict.gates)
    return {
        "batch": waiver.batch,
        "gate": waiver.gate,
        "by": waiver.by,
        "reason": mask_text(waiver.reason),
        "scope": waiver.scope,
        "expires": waiver.expires,
        "entry": waiver.entry,
        "used": used,
    }


def _door(conn: psycopg.Connection, batch: Batch) -> list[dict[str, Any]]:
    """The go / no-go before this batch as it stands now; what the policy does not demand is in it as well."""
    return [
        {
            "name": line.name,
            "state": line.state,
            "evidence": mask_text(line.evidence),
            "todo": line.todo,
            "paragraph": line.paragraph,
            "demanded": line.demanded,
        }
        for line in door.criteria(conn, batch)
    ]


def _reversibility(conn: psycopg.Connection) -> dict[str, Any]:
    """What a rollback to bstadmin alone would owe it now, until when that can be paid, and the point of no return."""
    read = reversibility.measure(conn)
    return {
        "owed": [asdict(one) for one in read.owed],
        "until": read.until,
        "passed": read.passed,
        "point_of_no_return": read.point_of_no_return,
        "steps": [{"step": step, "stands": stands, "way_back": way} for step, stands, way in read.steps],
    }


def _head(conn: psycopg.Connection) -> dict[str, Any]:
    """The end of the ledger before this report: pinned outside the database, it shows a chain that was cut."""
    entries, digest = ledger.head(conn)
    return {"entries": entries, "head": digest}


def _policy() -> str:
    chosen = policy()
    demands = {
        "rehearsals": chosen.rehearsal,
        "readiness": chosen.readiness,
        "sign-offs": chosen.sign_offs,
        "a freeze window": chosen.freeze_window,
    }
    asked = [name for name, demanded in demands.items() if demanded]
    left = [name for name, demanded in demands.items() if not demanded]
    words = f"policy {chosen.environment} demands {', '.join(asked) or 'none of them'}"
    return words + (f"; production would demand {', '.join(left)}" if left else "")


def _exceptions(gate: gates.Gate, verdict: gates.Verdict) -> dict[str, Any]:
    every = verdict.exceptions_of(gate.gate_id)
    return {
        "gate": gate.gate_id,
        "counted": gate.exceptions,
        "listed_apart": gate.listed_apart,
        "shown": [
            {
                "entity": e.entity,
                "key": mask_text(e.key),
                "status": e.status,
                "counted": e.is_counted,
                "detail": mask(e.detail),
            }
            for e in every[:MOST_EXCEPTIONS]
        ],
    }


def _line(line: gates.ParityLine) -> dict[str, Any]:
    return {
        "entity": line.entity,
        "unit": line.unit,
        "source": line.source,
        "bridged": line.bridged,
        "merged": line.merged,
        "queued": line.queued,
        "excluded": line.excluded,
        "unaccounted": line.unaccounted,
        "unaccounted_rows": line.unaccounted_rows,
        "target": line.target,
        "reasons": dict(line.reasons),
    }


def _step(step: dict[str, Any]) -> dict[str, Any]:
    detail = step["detail"] or {}
    return {
        "name": step["step"],
        "kind": step["kind"],
        "status": step["status"],
        "checksum": step["checksum"],
        "started_at": step["started_at"],
        "seconds": step["seconds"],
        "rows": step["rows"],
        "error": mask_text(step["error_message"]) if step["error_message"] else None,
        "told": [
            *(mask_text(line) for line in detail.get("told", [])),
            *(f"backed off: {mask_text(reason)}" for reason in detail.get("backed_off", [])),
        ],
        "nodes": [
            {
                "name": node.get("name", ""),
                "kind": node.get("kind", ""),
                "status": node.get("status", ""),
                "rows": node.get("rows"),
                "seconds": node.get("seconds"),
                "sha256": node.get("sha256") or None,
            }
            for node in detail.get("nodes", [])
        ],
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def plain_json(value: Any) -> Any:
    """JSON's own types: times in UTC with Z, whole numbers as integers."""
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain_json(item) for item in value]
    return value
