"""The go / no-go as a flow: it shows every criterion, and waits for a person. Whatever is not a yes is a no."""

from __future__ import annotations

from dataclasses import asdict

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from pydantic import Field

from bridge import signoff, steps
from bridge.batches import batch
from bridge.errors import GateFailed
from bridge.policy import Criterion
from flows.migration import Code, say


class Decision(RunInput):
    """What the page asks for."""

    go: bool = Field(False, description="May the batch start? Left as it is: no.")
    role: str = Field("", description=f"Who decides, as one of: {', '.join(signoff.ROLES)}.")
    name: str = Field("", description="Your name, as the ledger keeps it.")
    note: str = Field("", description="Kept with it.")


@flow(name="go-no-go", flow_run_name="go / no-go {code}")
async def go_no_go_flow(code: Code, hours: float = 24.0) -> None:
    """Show every criterion before a batch, wait for a decision, and keep it in the ledger. The default is no.

    A yes is the sign-off of a role, as `phase2 sign` gives it. The flow fails after a no, without an answer, and as
    long as anything holds the batch: an automation can tell people.

    Args:
        code: The batch that is to start.
        hours: How long to wait for an answer; none by then is a no.
    """
    one, run = batch(code), steps.prepare(progress=say)
    await _show(code, signoff.ask(run, one))
    try:
        said = await pause_flow_run(wait_for_input=Decision, timeout=int(hours * 3600), poll_interval=2)
    except FlowPauseTimeout:
        said = Decision(note="nobody answered in time")
    decision = signoff.decide(run, one, go=said.go, role=said.role, who=said.name, note=said.note)
    await _show(code, signoff.ask(run, one))
    if decision.subject != "go":
        raise GateFailed(code, [f"no go: {decision.body['refused'] or said.note or 'nobody said yes'}"])
    if decision.body["holding"]:
        raise GateFailed(code, decision.body["holding"])


async def _show(code: str, lines: list[Criterion]) -> None:
    holding = [line.name for line in lines if line.holds]
    await create_table_artifact(
        key=f"phase2-go-no-go-{code.lower()}",
        table=[asdict(line) | {"holds": line.holds} for line in lines],
        description=f"NO GO: {', '.join(holding)}" if holding else "GO",
    )
