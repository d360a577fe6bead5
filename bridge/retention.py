"""The daily retention (ingest contract 7): `sql/phase2/091_retention_cleanup.sql`, logged like a step."""

from __future__ import annotations

from collections.abc import Callable

from bridge import runlog, scripts, steps, stop

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
    entry.detail["removed"] = removed = scripts.run_retention(run.databases.ops)
    entry.rows = sum(removed.values())
    return removed
