"""What watches the cutover of writes: each hour both sides are compared. prefect.yaml says when."""

from __future__ import annotations

from prefect import flow

from bridge import write_cutover
from bridge.errors import GateFailed
from bridge.settings import databases
from flows.migration import say


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
