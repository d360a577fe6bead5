"""What runs on a schedule: reconciliation of what stands, retention, the nightly rehearsal. prefect.yaml says when."""

from __future__ import annotations

from typing import Literal

from prefect import flow
from prefect.artifacts import create_table_artifact

from bridge import daily, postgres, recon, retention, steps
from bridge.errors import GateFailed
from bridge.policy import policy
from bridge.settings import databases
from flows.migration import publish, rehearsal_flow, say

Which = Literal["latest", "all"]


@flow(name="reconciliation", flow_run_name="recon of {which}")
async def reconciliation_flow(which: Which = "all") -> None:
    """Renew the verdicts of what is in, and fail when one does not pass. Leaves a run that is under way alone.

    Args:
        which: `latest` asks the gates of the last batch that is in, with the global ones (hourly); `all` asks those of
            every batch, of every row (daily).
    """
    failed: list[GateFailed] = []
    for code in recon.standing(progress=say)[-1 if which == "latest" else 0 :]:
        outcome = recon.evaluate(code, full=which == "all", progress=say)
        await publish(outcome)
        if outcome.verdict.result != "PASS":
            failed.append(GateFailed(code, list(outcome.verdict.blocked_by), str(outcome.report.html)))
    if failed:  # the first in the plan's order: those after it are often its consequence
        raise failed[0]


@flow(name="report of the day")
async def daily_flow() -> None:
    """Write the reconciliation report of the day, and show it as an artifact."""
    dbs = databases()
    steps.bootstrap(dbs.ops)
    with postgres.connect(dbs.ops, application_name="phase2-daily", autocommit=True) as conn:
        made = daily.make(conn)
    said = made.document
    say(f"{made.html}: {said['new']} new exceptions, {said['closed']} gone, {len(said['failed'])} gates fail")
    names = ("batch", "id", "status", "value", "day_before", "new", "closed", "open")
    table = [{name: gate[name] for name in names} for gate in said["gates"]]
    await create_table_artifact(key="phase2-daily", table=table, description=said["day"])


@flow(name="retention", retries=3, retry_delay_seconds=600)
async def retention_flow() -> None:
    """Forget what has served its time (091), until nothing more goes. Waits its turn behind a run."""
    for rule, rows in retention.clean(progress=say).items():
        say(f"{rule}: {rows} rows removed")


@flow(name="nightly rehearsal")
async def nightly_rehearsal_flow() -> None:
    """Rehearse every batch where the policy is staging's; elsewhere nothing is copied and nothing runs."""
    if (here := policy().environment) == "staging":
        await rehearsal_flow("A", "E")
    else:
        say(f"nothing is rehearsed: this is {here}, not staging (PHASE2_ENV)")
