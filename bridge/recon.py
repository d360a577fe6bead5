"""`make recon BATCH=D`: the gates of one batch on the state as it is, without Prefect and without running the batch.

The measures are views, so they need no run of dbt unless the project has changed since the views were made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg

from bridge import postgres, steps, warehouse
from bridge.batches import Batch, batch
from bridge.errors import CouldNotRun


def evaluate(code: str, *, progress: Callable[[str], None] = lambda _: None) -> steps.Outcome:
    """Verdict and report of a batch as things stand; CouldNotRun when the batch has never run here."""
    one = batch(code)
    run = steps.prepare(progress=progress)
    with run.connect() as conn:
        state = conn.execute("select status, as_of from phase2.batch_state where batch = %s", (one.code,)).fetchone()
        if not state or state[0] in ("PENDING", "ROLLED_BACK"):
            raise CouldNotRun(
                f"batch {one.code} is not in: nothing to reconcile",
                where=postgres.describe(run.databases.ops),
                todo=f"Run it first: make run BATCH={one.code}",
            )
        refresh_views(run, conn, one)
    run = replace(run, as_of=state[1] or run.as_of)
    return steps.conclude(run, one, opens_door=state[0] in ("PASS", "FAIL", "HOLD"))


def refresh_views(run: steps.Run, conn: psycopg.Connection, one: Batch) -> None:
    """Rebuild the batch's recon views when the dbt project is not the one that made them."""
    selector = f"recon_{one.code.lower()}"
    digest = warehouse.digest()
    row = conn.execute("select digest from phase2.warehouse_state where part = %s", (selector,)).fetchone()
    if row and row[0] == digest:
        return
    run.progress("the dbt project has changed: making the recon views again")
    warehouse.build(run.databases.ops, selector, progress=run.progress)
    steps.remember_views(conn, selector, digest)
