"""The daily retention (ingest contract 7): `sql/phase2/091_retention_cleanup.sql` and what ingestion remembers beside
the canonical tables, the console's sign-ins and the pictures of old UI checks; logged like a step."""

from __future__ import annotations

from collections.abc import Callable

import psycopg

from bridge import postgres, runlog, scripts, steps, stop, ui_gate

SCRIPT = "091_retention_cleanup.sql"
BATCH = "F"  # whose gate F-05 it serves


def clean(*, progress: Callable[[str], None] = lambda _: None) -> dict[str, int]:
    """Rows removed by rule; empty before batch A has made the tables. Stopped while the migration is stopped."""
    run = steps.prepare(progress=progress)
    stop.raise_if_asked(run.databases.ops, "retention")
    with steps.only_runner(run), run.connect() as conn:
        if conn.execute("select to_regclass('public.unmapped_queue') is null").fetchone() == (True,):
            return {}
        step = runlog.step(conn, run_id=run.run_id, batch=BATCH, name="script 091_retention_cleanup", kind="script")
        try:
            with step as entry:
                return work(run, entry)
        finally:
            runlog.record_scripts(conn, run.run_id)


def work(run: steps.Run, entry: runlog.Entry) -> dict[str, int]:
    """What a step of the retention does: rows removed by rule, noted with its entry (gate F-05 looks for it)."""
    entry.detail["script"] = SCRIPT
    entry.checksum = scripts.checksum(scripts.FOLDER / SCRIPT)
    removed = scripts.run_retention(run.databases.ops)
    with run.connect() as conn:
        removed |= {rule: _forget(conn, function) for rule, function in _OURS.items()}
    removed["ui pictures"] = ui_gate.forget()
    entry.detail["removed"] = removed
    entry.rows = sum(removed.values())
    return removed


# rule -> its function (sql/ingest/accept.sql, sql/ops/console.sql)
_OURS = {"nonces": "forget_nonces", "answers": "forget_answers", "console sign-ins": "forget_console"}
_ROWS_EACH = 10_000  # of one transaction


def _forget(conn: psycopg.Connection, function: str) -> int:
    """Rows removed, in small transactions."""
    statement = postgres.statement("select {}.{}(%s)", "phase2", function)
    removed = 0
    while True:
        row = conn.execute(statement, (_ROWS_EACH,)).fetchone()
        assert row is not None
        removed += row[0]
        if row[0] < _ROWS_EACH:
            return removed
