"""`make recon BATCH=D`: the gates of one batch on the state as it is, without Prefect and without running the batch.

The measures are views, so they need no run of dbt unless the project has changed since the views were made. Those of
batches C to E are brought up to date where something was written since they were measured last (bridge/measure.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date

import psycopg

from bridge import guardrails, landing, postgres, steps, ui_gate, warehouse
from bridge.batches import Batch, batch
from bridge.errors import CouldNotRun
from bridge.settings import databases

_JUDGED = ("PASS", "FAIL")


def standing(*, progress: Callable[[str], None] = lambda _: None) -> list[str]:
    """The batches whose verdict can be renewed, in their order; none while a run is under way: it makes its own."""
    lines = steps.status(databases().ops)
    if any(line.status == "RUNNING" for line in lines):
        progress("a run is under way: nothing is renewed beside it")
        return []
    return [line.batch for line in lines if line.stands]


def evaluate(code: str, *, full: bool = False, progress: Callable[[str], None] = lambda _: None) -> steps.Outcome:
    """Verdict and report of a batch as things stand; CouldNotRun when the batch has never run here. `full`: every row
    is asked, whatever was measured before.

    The verdict counts: a PASS that no longer holds shuts the doors after it. A batch that is running, or whose run was
    killed, is looked at without touching its state.
    """
    return look(steps.prepare(progress=progress, full=full), batch(code))


def look(run: steps.Run, one: Batch) -> steps.Outcome:
    """As `evaluate`, as this run."""
    with run.connect() as conn:
        state = _state(conn, one.code)
        if not state or state[0] in ("PENDING", "ROLLED_BACK"):
            raise CouldNotRun(
                f"batch {one.code} is not in: nothing to reconcile",
                where=postgres.describe(run.databases.ops),
                todo=f"Run it first: make run BATCH={one.code}",
            )
        if one.code >= "C" and (problems := landing.landing_problems(conn)):
            raise CouldNotRun(
                "; ".join(problems), where="the landed rows", todo=f"Land them again: make run BATCH={one.code}"
            )
    run = replace(run, as_of=state[1] or run.as_of)
    if state[0] not in _JUDGED:
        _measure(run, one)
        return steps.conclude(run, one, opens_door=False)
    with steps.only_runner(run):
        with run.connect() as conn:
            now = _state(conn, one.code)
            if not now or now[0] not in _JUDGED:  # it was waited for another run, or a rollback
                raise CouldNotRun(
                    f"batch {one.code} is {now[0] if now else 'out'} since a moment ago",
                    where=postgres.describe(run.databases.ops),
                    todo="`phase2 status` shows where each batch is.",
                )
            run = replace(run, as_of=now[1] or run.as_of)
            digest = warehouse.digest()
            steps.refresh(run, conn, "ground", digest)
            steps.refresh(run, conn, "recon", digest)
            steps.measure_again(run, conn, one, digest)
        _measure(run, one)
        return steps.conclude(run, one)


def _measure(run: steps.Run, one: Batch) -> None:
    """The guardrails and the UI check, where gates of the batch read them too."""
    if any(step.kind == "guardrails" for step in one.plan):
        guardrails.measure(run.databases)
    if "G-07" in one.gates:
        with run.connect() as conn:
            ui_gate.confirm(conn)


def _state(conn: psycopg.Connection, code: str) -> tuple[str, date | None] | None:
    """What the batch is, and as of which day."""
    row = conn.execute("select status, as_of from phase2.batch_state where batch = %s", (code,)).fetchone()
    return (row[0], row[1]) if row else None
