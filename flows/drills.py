"""The drills of batches F and H as flows: on one copy, a task for each."""

from __future__ import annotations

from typing import Literal

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE

from bridge import drills, ledger, steps
from bridge.policy import policy
from flows.migration import say

Which = Literal["all", "duplicate", "out_of_order", "burst", "replay", "rollback", "read_rollback", "write_rollback"]


@task(task_run_name="drill {name}", cache_policy=NO_CACHE)
def drill(ground: drills.Ground, name: str) -> ledger.Entry:
    """One drill and its evidence."""
    return drills.drill(ground, name)


@flow(name="drill", flow_run_name="drill {which}")
def drill_flow(which: Which = "all") -> None:
    """Drill ingestion and writes on a copy of the ops database, which is dropped; fails when a drill does.

    Args:
        which: One drill, or all of them, one after the other.
    """
    run = steps.prepare(progress=say)
    with drills.ground(run) as ground:
        entries = [drill(ground, name) for name in (drills.DRILLS if which == "all" else (which,))]
    create_table_artifact(key="phase2-drills", table=drills.table(entries), description=drills.verdict(entries))
    drills.raise_unless_passed(entries)


@flow(name="weekly drill")
def weekly_drill_flow() -> None:
    """Drill everything where the policy is staging's; elsewhere nothing is copied and nothing runs."""
    if (here := policy().environment) == "staging":
        drill_flow("all")
    else:
        say(f"nothing is drilled: this is {here}, not staging (PHASE2_ENV)")
