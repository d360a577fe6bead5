"""The cutover as flows: a rung of a rollout, and what watches: both sides compared. prefect.yaml says when."""

from __future__ import annotations

from dataclasses import asdict
from typing import Literal

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from bridge import parity, rollout, steps, write_cutover
from bridge.errors import GateFailed
from bridge.settings import databases
from flows.migration import say


class Go(RunInput):
    """What the page asks for."""

    go: bool = Field(False, description="Take the next rung? Left as it is: no.")
    reason: str = Field("", description="Why, for the ledger.")


@flow(name="rollout step", flow_run_name="next rung of {code}")
async def rollout_step_flow(code: Literal["G", "H"] = "G", hours: float = 24.0) -> None:
    """Show what the next rung of a rollout asks, wait for a person, and take it. The default is no.

    Everything is asked again after the answer. Fails as long as something holds the rung, and after a no.

    Args:
        code: Whose rollout: G (reads) or H (writes).
        hours: How long to wait for an answer; none by then is a no.
    """
    run = steps.prepare(progress=say)
    seen = rollout.look(run, code)
    following = seen.next.name if seen.next else "none: it is at the top"
    await create_table_artifact(
        key=f"phase2-rollout-{code.lower()}",
        table=[asdict(line) | {"holds": line.holds} for line in seen.criteria],
        description=f"stands: {seen.now}; next: {following}; holding: {', '.join(seen.holding) or 'nothing'}",
    )
    if seen.holding:
        raise GateFailed(code, seen.holding)
    if seen.next is None:
        return
    try:
        said = await pause_flow_run(wait_for_input=Go, timeout=int(hours * 3600), poll_interval=2)
    except FlowPauseTimeout:
        said = Go(reason="nobody answered in time")
    if not said.go:
        raise GateFailed(code, [f"no go: {said.reason or 'nobody said yes'}"])
    entry = rollout.step_up(run, code, said.reason)
    say(f"{code}: from {entry.body['from']} to {entry.body['to']}, entry {entry.no}")


@flow(name="shadow reconciliation", retries=2, retry_delay_seconds=60)
async def shadow_flow() -> None:
    """Compare every booking of bstadmin, as landed, with the read model, while batch G is in; fail when one differs.

    The shadow reads watch the live pages beside it; `phase2 shadow` judges them.
    """
    if not any(line.batch == "G" and line.stands for line in steps.status(databases().ops)):
        say("batch G is not in: nothing is compared")
        return
    found = parity.compare(steps.prepare(progress=say))
    say(f"{found.counts['bookings']} bookings compared, {found.unexplained} differ unexplained")
    if found.unexplained:
        raise GateFailed("G", [f"BG-01: {found.unexplained} bookings differ unexplained"])


@flow(name="dual-write reconciliation", retries=2, retry_delay_seconds=60)
async def dual_write_flow() -> None:
    """Compare core and bstadmin for what was written since the last time, emitters and log; tell what is overdue.

    Fails when H-01, H-02 or H-03 does: the rollout waits until people have settled it.
    """
    check, overdue, failing = write_cutover.hourly(databases())
    say(f"{check.checked} bookings compared, {check.mismatched} differ")
    for one in overdue:
        booking = f"{one.channel_code} {one.external_booking_ref}"
        say(f"overdue: {one.severity} {one.rule} of {booking}, due {one.due_at:%Y-%m-%d %H:%M} UTC")
    if failing:
        raise GateFailed("H", failing)
