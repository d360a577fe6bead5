"""What stops the migration by itself: the guardrails, every 5 minutes. prefect.yaml says when."""

from __future__ import annotations

from prefect import flow
from prefect.events import emit_event

from bridge import guardrails
from bridge.errors import CouldNotRun, GateFailed
from bridge.settings import databases
from flows.migration import say


@flow(name="guardrails")
async def guardrails_flow() -> None:
    """Measure the guardrails while a flag of F, G or H is on; a breach stops the migration.

    Fails when a hard stop of theirs stands, or one cannot be measured. Emits `phase2.guardrail.stop` of each
    stop, `phase2.guardrail.blind` when it cannot measure, once an occasion.
    """
    try:
        dbs = databases()
        seen = guardrails.watch(dbs, progress=say)
    except CouldNotRun:
        _emit_blind("ops-database")
        raise
    for one in seen.unannounced:
        emit_event(
            event="phase2.guardrail.stop",
            resource={
                "prefect.resource.id": f"phase2.guardrail.{one.subject}",
                "prefect.resource.name": one.subject,
                "phase2.batch": one.batch or "",
            },
            payload={"reason": one.reason, "since": one.at.isoformat()},
        )
        guardrails.announced(dbs, one)
    for name in seen.told:
        _emit_blind(name)
    if seen.stops:
        raise GateFailed(seen.stops[0].batch or "F", [one.subject or "" for one in seen.stops])
    if seen.blind:
        words = [f"{one.guardrail}: {one.words}" for one in seen.readings if one.guardrail in seen.blind]
        raise CouldNotRun("a guardrail cannot be measured", where="; ".join(words), todo="docs/guardrails.md")


def _emit_blind(name: str) -> None:
    emit_event(event="phase2.guardrail.blind", resource={"prefect.resource.id": f"phase2.guardrail.{name}"})
