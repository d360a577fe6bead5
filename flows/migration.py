"""The flows: which step comes when. Straight lines of named steps; what a step does is in `bridge`."""

from __future__ import annotations

import sys
from datetime import date
from typing import Literal

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from bridge import readiness, recon, rehearsal, rollback, steps, stop
from bridge.batches import Batch, Step, batch, between
from bridge.errors import CouldNotRun, GateFailed, Stopped, Tainted

Code = Literal["A", "B", "C", "D", "E", "F", "G", "H"]
OnFail = Literal["hold", "rollback"]


def say(line: str) -> None:
    """One line of progress, for whoever watches the process."""
    print(line, file=sys.stderr, flush=True)


@task(task_run_name="{batch.code} {step.name}")
def run_step(run: steps.Run, batch: Batch, step: Step) -> None:
    """One step of the plan."""
    steps.still_the_only_runner(run)
    stop.raise_if_asked(run.databases.ops, batch.code)
    readiness.raise_if_outside(run.databases.ops, batch.code)
    steps.execute(run, batch, step)


@task(task_run_name="{batch.code} gates and report")
def conclude(run: steps.Run, batch: Batch) -> steps.Outcome:
    """Ask the gates, write the report."""
    return steps.conclude(run, batch)


@task
async def publish(outcome: steps.Outcome) -> None:
    """The verdict as Prefect artifacts: the report as markdown, the gates as a table."""
    verdict = outcome.verdict
    key = f"phase2-batch-{verdict.batch.lower()}"
    await create_markdown_artifact(key=key, markdown=outcome.report.md.read_text(), description=verdict.result)
    await create_table_artifact(key=f"{key}-gates", table=outcome.table(), description=", ".join(verdict.blocked_by))


@flow(name="rollback", flow_run_name="rollback {code}")
async def rollback_flow(code: Code) -> None:
    """Roll one batch back, as the blueprint says; refuses when a later batch is in.

    Args:
        code: Which batch. Roll back in reverse order: H before G.
    """
    run = steps.prepare(progress=say)
    with steps.only_runner(run):
        rollback.roll_back(run, batch(code))


@flow(name="batch", flow_run_name="batch {code}")
async def batch_flow(code: Code, as_of: date | None = None, on_fail: OnFail = "hold", full: bool = False) -> None:
    """Run one batch through its gates.

    Args:
        code: Which batch; every batch before it must have passed.
        as_of: The day, in Bali, that statuses are computed for; empty: today.
        on_fail: When a gate fails: `hold` leaves the batch as it is, to be looked at; `rollback` undoes it at once.
        full: Compare every row, also where nothing that the batch reads or wrote has changed.
    """
    run = steps.prepare(as_of, say, full=full)
    with steps.only_runner(run):
        await _one(run, batch(code), on_fail)


@flow(name="migration", flow_run_name="migration {from_batch} to {to_batch}")
async def migration_flow(
    from_batch: Code = "A",
    to_batch: Code = "E",
    as_of: date | None = None,
    on_fail: OnFail = "hold",
    full: bool = False,
) -> None:
    """Run batches in their order; the next one does not start unless this one is PASS.

    Args:
        from_batch: The first batch; every batch before it must have passed.
        to_batch: The last batch; F and later need the core API to be up.
        as_of: The day, in Bali, that statuses are computed for; empty: today.
        on_fail: When a gate fails: `hold` leaves the batch as it is, to be looked at; `rollback` undoes it at once.
        full: Compare every row, also where nothing that the batch reads or wrote has changed.
    """
    run = steps.prepare(as_of, say, full=full)
    with steps.only_runner(run):
        for one in between(from_batch, to_batch):
            await _one(run, one, on_fail)


@flow(name="recon", flow_run_name="recon {code}")
async def recon_flow(code: Code, full: bool = False) -> None:
    """Evaluate the gates of a batch on the state as it is.

    Args:
        code: Which batch; it must be in.
        full: Ask every row, whatever was measured before.
    """
    outcome = recon.evaluate(code, full=full, progress=say)
    await publish(outcome)
    steps.raise_unless_passed(outcome)


@flow(name="rehearsal", flow_run_name="rehearsal {from_batch} to {to_batch}")
async def rehearsal_flow(from_batch: Code = "A", to_batch: Code = "E", as_of: date | None = None) -> None:
    """Rehearse batches on a copy of the ops database: run, gates, rollback, run again. The copy is dropped.

    Args:
        from_batch: The first batch that is rehearsed.
        to_batch: The last one.
        as_of: The day in Bali that statuses are computed for; empty is today.
    """
    run = steps.prepare(as_of, say)
    rehearsal.raise_unless_passed(rehearsal.perform(run, between(from_batch, to_batch)))


async def _one(run: steps.Run, one: Batch, on_fail: OnFail) -> None:
    steps.begin(run, one)
    try:
        for step in one.prechecks:
            run_step(run, one, step)
        steps.refuse_if_unfit(run, one)
        steps.refuse_if_tainted(run, one)
        for step in one.steps + one.postchecks:
            run_step(run, one, step)
        steps.tell_what_arrived(run, one)
        outcome = conclude(run, one)
    except Stopped as stopped:
        steps.mark_stopped(run, one, stopped)
        raise
    except Tainted as failed:
        if on_fail == "rollback":
            await _try_to_roll_back(run, one, failed)
        raise
    except GateFailed as failed:  # before its verdict: only flags may be on
        if on_fail == "rollback" and one.switches:
            await _try_to_roll_back(run, one, failed)
        raise
    except BaseException as error:  # a cancelled run too: its state must not stay RUNNING
        steps.mark_error(run, one, error)
        raise
    await publish(outcome)
    try:
        steps.raise_unless_passed(outcome)
    except GateFailed as failed:
        if on_fail == "rollback":
            await _try_to_roll_back(run, one, failed)
        raise


async def _try_to_roll_back(run: steps.Run, one: Batch, failed: GateFailed) -> None:
    get_run_logger().warning("%s: rolling it back", failed)
    try:
        await rolled_back(one.code)
    except CouldNotRun as refused:  # the failed gate is the news, this is why the batch still stands
        run.progress(f"not rolled back: {refused}")


@flow(name="rollback of a failed batch", flow_run_name="rollback {code}")
async def rolled_back(code: Code) -> None:
    """The rollback subflow of a batch whose gates said no; its caller holds the runner's lock."""
    rollback.roll_back(steps.prepare(progress=say), batch(code))
