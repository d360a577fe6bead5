"""Rollback of one batch, as the blueprint says for each (chapter 6): a verb of its own, run by the same runner."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import psycopg

from bridge import backup, ingestion, ledger, postgres, reads, runlog, scripts, write_cutover
from bridge.batches import Batch, after
from bridge.errors import CouldNotRun
from bridge.steps import Run, Step, forget_what_is_settled, mark_error, set_state


def check(conn: psycopg.Connection, batch: Batch) -> None:
    """Refuse (CouldNotRun) when a later batch is in, or when this one is not."""
    states = dict(conn.execute("select batch, status from phase2.batch_state").fetchall())
    standing = [code for code in after(batch.code) if states.get(code, "PENDING") not in ("PENDING", "ROLLED_BACK")]
    if standing:
        raise CouldNotRun(
            f"batch {batch.code} cannot be rolled back: {', '.join(standing)} stand on it",
            where="phase2.batch_state",
            todo=f"Roll back in reverse order, first: make rollback BATCH={standing[-1]}",
        )
    if states.get(batch.code, "PENDING") in ("PENDING", "ROLLED_BACK"):
        raise CouldNotRun(
            f"batch {batch.code} is not in: nothing to roll back",
            where="phase2.batch_state",
            todo="`phase2 status` shows which batches are in.",
        )


def plan(conn: psycopg.Connection, batch: Batch) -> list[str]:
    """What a rollback of this batch will do, in words, with the rows that it touches."""
    lines = list(batch.rollback)
    for table in scripts.rollback_tables(batch.code):
        if conn.execute("select to_regclass(%s) is not null", (f"public.{table}",)).fetchone() == (True,):
            count = conn.execute(postgres.statement("select count(*) from public.{}", table)).fetchone()
            lines.append(f"public.{table}: {count[0] if count else 0} rows there now")
    return lines


def roll_back(run: Run, batch: Batch, *, on_a_copy: bool = False) -> None:
    """Check, copy, then undo the batch in one transaction; the log says ROLLED_BACK.

    From before that transaction the batch is no PASS any more: killed after it, no door stands open on rows that are
    gone; killed before it, nothing has happened but that. Roll back again, or run the batch again. Raises CouldNotRun,
    and removes nothing, when the copy of what stands is not proven complete. A database that is itself a copy, to
    rehearse on (`on_a_copy`), is not copied once more.
    """
    with run.connect() as conn:
        check(conn, batch)
        # one that removes nothing needs no copy first, and an incident does not wait for one
        copy = None if on_a_copy or batch.switches else _copied(conn, run, batch)
        step = Step("script", scripts.rollback_script(batch.code), f"Roll back batch {batch.code}")
        run.progress(f"{batch.code}  {step.title}")
        with runlog.step(conn, run_id=run.run_id, batch=batch.code, name=step.name, kind="rollback") as entry:
            if copy:
                backup.still_as_copied(run.databases.ops, copy)
            conn.execute("delete from phase2.warehouse_state where part = 'work of batch_d'")  # its tables go
            forget_what_is_settled(conn)
            if batch.code == "A":  # it drops dbt's schemas: forgotten first, so that a kill in between costs a rebuild
                conn.execute("delete from phase2.warehouse_state where part <> 'state'")
            set_state(conn, run, batch.code, "RUNNING")
            try:
                # looked at once more in the script's own transaction, where nobody can write any more
                hold = partial(backup.hold_as_copied, copy=copy) if copy else None
                script = partial(scripts.run_script, run.databases.ops, step.target, first=hold)
                result, found = _OFF[batch.code](run, script) if batch.switches else (script(), {})
                entry.detail |= found
            except CouldNotRun as refused:
                mark_error(run, batch, refused)
                raise
            entry.checksum, entry.rows = result.checksum, result.rows
        with conn.transaction():
            set_state(conn, run, batch.code, "ROLLED_BACK")
            body = {"rows": entry.rows, "copy": copy.no if copy else None}
            ledger.append(conn, "rollback", batch=batch.code, run_id=run.run_id, body=body)


Script = Callable[[], scripts.ScriptResult]


def _ingestion_off(run: Run, script: Script) -> tuple[scripts.ScriptResult, dict[str, Any]]:
    with run.connect() as conn:
        events, began = ingestion.events_by_status(conn), time.monotonic()
    return script(), ingestion.switched_off(run, began, events)


# Of a batch that switches flags: how its script runs, with what proves that the old path serves; what that measured.
_OFF: dict[str, Callable[[Run, Script], tuple[scripts.ScriptResult, dict[str, Any]]]] = {
    "F": _ingestion_off,
    "G": reads.switch_off,
    "H": write_cutover.switch_off,
}


def _copied(conn: psycopg.Connection, run: Run, batch: Batch) -> ledger.Entry:
    """A proven copy of what stands, as a step of its own."""
    run.progress(f"{batch.code}  Copy what stands, and prove the copy")
    with runlog.step(conn, run_id=run.run_id, batch=batch.code, name="backup ops", kind="rollback") as entry:
        why = f"before the rollback of batch {batch.code}"
        copy = backup.take(run.databases, "ops", why=why, batch=batch.code, run_id=run.run_id, indexes=False)
        entry.rows, entry.detail["file"] = sum(copy.body["rows"].values()), copy.body["file"]
    return copy
