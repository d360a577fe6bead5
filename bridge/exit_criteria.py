"""The exit criteria of phase 2 (blueprint 11) as a checklist that is asked of the system as it stands; only reads."""

from __future__ import annotations

from datetime import timedelta

import psycopg

from bridge import flags, ledger, stop
from bridge.batches import BACKFILL
from bridge.flags import Flag
from bridge.policy import Criterion, policy
from bridge.runlog import utc_now

QUIET = timedelta(days=14)  # how long nothing may have stopped the migration
JUDGED = timedelta(days=2)  # how long a verdict counts: every batch that is in is judged each day
_PARAGRAPH = "blueprint 11"

_GATES = """
select g.gate_id, g.status, g.evaluated_at from phase2.gate_results as g
join (
    select l.batch, max(l.evaluated_at) as evaluated_at from phase2.gate_results as l
    where l.batch = %s group by l.batch
) as latest on g.batch = latest.batch and g.evaluated_at = latest.evaluated_at
"""


def criteria(conn: psycopg.Connection) -> list[Criterion]:
    """The five criteria of the blueprint, each with what of it does not hold yet."""
    return [
        _criterion("the bridge is stable in production", _stable(conn), "run A to E there; mend what stopped it"),
        _criterion("ingestion is on and measured", _ingestion(conn), "phase2 run --from F --to F, and widen its flags"),
        _criterion(
            "people monitor and replay by themselves", _by_themselves(conn), "make drill; switch the audited replay on"
        ),
        _criterion(
            "reads are served by the new model, the fallback is proven", _reads(conn), "batch G, its rollout to all"
        ),
        _criterion("writes go through the core, reconciled", _writes(conn), "batch H, its rollout to all"),
    ]


def _criterion(name: str, missing: list[str], todo: str) -> Criterion:
    evidence = "; ".join(missing) or "everything that is asked of it holds"
    return Criterion(name, "HOLD" if missing else "PASS", evidence, todo if missing else "", _PARAGRAPH, demanded=True)


def _stable(conn: psycopg.Connection) -> list[str]:
    states = dict(conn.execute("select b.batch, b.status from phase2.batch_state as b").fetchall())
    missing = [f"batch {code} is {states.get(code, 'PENDING')}" for code in BACKFILL if states.get(code) != "PASS"]
    missing += [str(one) for one in stop.standing(conn)]
    recent = [entry for entry in ledger.entries(conn, "stop") if entry.at > utc_now() - QUIET]
    if recent:
        missing.append(f"{len(recent)} stops in the last {QUIET.days} days")
    if policy().environment != "production":
        missing.append(f"this is {policy().environment}, not production")
    return missing


def _ingestion(conn: psycopg.Connection) -> list[str]:
    missing = _failing(conn, "F", ("F-01", "F-02", "F-02-P95", "F-03", "F-04"))
    for flag in ("INGEST_WEBHOOK_ENABLED", "INGEST_QUEUE_ENABLED", "WEB_EMIT_BOOKING_EVENT_ENABLED"):
        missing += _not_for_all(conn, flag)  # type: ignore[arg-type]
    if conn.execute("select to_regclass('public.ingest_event_log')").fetchone() == (None,):
        return [*missing, "there is no log of events: batch A makes it"]
    row = conn.execute(
        "select count(*) from public.ingest_event_log as e where e.created_at > now() - interval '1 day'"
    ).fetchone()
    return missing + ([] if row and row[0] else ["no event in a day"])


def _by_themselves(conn: psycopg.Connection) -> list[str]:
    return _failing(conn, "F", ("F-06",)) + _not_for_all(conn, "INGEST_REPLAY_ENABLED")


def _reads(conn: psycopg.Connection) -> list[str]:
    missing = _failing(conn, "G", ("BG-01", "BG-02", "BG-04")) + _not_for_all(conn, "OPS_READ_NEW_MODEL_ENABLED")
    return missing + _no_drill(conn, "G")


def _writes(conn: psycopg.Connection) -> list[str]:
    missing = _failing(conn, "H", ("H-01", "H-02", "H-03")) + _not_for_all(conn, "OPS_WRITE_CORE_ENABLED")
    return missing + _no_drill(conn, "H")


def _failing(conn: psycopg.Connection, batch: str, asked: tuple[str, ...]) -> list[str]:
    rows = conn.execute(_GATES, (batch,)).fetchall()
    found = {gate: status for gate, status, _ in rows}
    old = {f"{batch} was last judged on {at:%Y-%m-%d}" for *_, at in rows if at < utc_now() - JUDGED}
    return [*old] + [
        f"{gate} {'was not asked' if gate not in found else 'fails'}"
        for gate in asked
        if found.get(gate) not in ("PASS", "N/A")
    ]


def _not_for_all(conn: psycopg.Connection, flag: Flag) -> list[str]:
    row = flags.in_force(flag, flags.read(conn))
    to = row.rollout
    for_all = row.enabled and to.percentage >= 100 and not (to.channels or to.modules)
    return [] if for_all else [f"{flag} is {flags.words(row) or 'off'}"]


def _no_drill(conn: psycopg.Connection, batch: str) -> list[str]:
    """That the old path takes over again is shown by a rollback, rehearsed or real."""
    row = conn.execute(
        "select d.passed from phase2.drills as d where d.drill = 'rollback' and d.measured ->> 'batch' = %s"
        " order by d.ended_at desc limit 1",
        (batch,),
    ).fetchone()
    return [] if row and row[0] else [f"no rollback of {batch} has passed"]
