"""Health, measures and the audit trail: what an operator looks at."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import psycopg
from fastapi import APIRouter, Depends, Query, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from psycopg.rows import dict_row
from pydantic import BaseModel

from bridge import flags
from core_api import audit
from core_api.app import Answer, Core, Limit, Page, answer, as_admin, most, refusals
from core_api.auth import Admin
from core_api.ingest import dead_letters
from core_api.metrics import LONGEST_WINDOW

router = APIRouter(tags=["operations"])
PROBE_SECONDS = 2.0

_STATES = ("waiting", "active", "delayed", "completed", "failed", "paused")
# an evaluation without a gate of the batch has it no more
_GATES = """
select
    g.gate_id as "gateId", g.batch, g.status, g.value::float8 as value, g.numerator::float8 as numerator,
    g.denominator::float8 as denominator, g.comparator, g.threshold::float8 as threshold, g.note, g.run_id as "runId",
    g.evaluated_at as "evaluatedAt"
from phase2.gate_results as g
join (
    select l.batch, max(l.evaluated_at) as evaluated_at from phase2.gate_results as l group by l.batch
) as latest on g.batch = latest.batch and g.evaluated_at = latest.evaluated_at
order by g.batch, g.gate_id
"""


# entries since the last lifting, as bridge/stop.py counts them; a stop file that no run has seen is not here
_STOPS = """
select count(*) from phase2.ledger as l
where
    l.kind = 'stop' and l.entry_no > (
        select coalesce(max(r.entry_no), 0) from phase2.ledger as r
        where r.kind = 'resume' and trim(coalesce(r.body ->> 'reason', '')) <> ''
    )
"""
_UNTOLD = "select count(*) from phase2.write_intents as i where i.core_status = 'REFUSED' and i.told_at is null"
_FAILED = """
select g.batch, count(*) filter (where g.status = 'FAIL')
from phase2.gate_results as g
join (
    select l.batch, max(l.evaluated_at) as evaluated_at from phase2.gate_results as l group by l.batch
) as latest on g.batch = latest.batch and g.evaluated_at = latest.evaluated_at
group by g.batch
"""
# a status of a while ago says nothing of now: after a stop the flags are off, and nothing is measured
_GUARDRAILS = """
select distinct on (l.guardrail)
    l.guardrail, case when l.at > now() - interval '15 minutes' then l.status end, l.value::float8,
    l.threshold::float8, extract(epoch from l.at)::float8
from phase2.guardrail_log as l
where l.at > now() - interval '1 day'
order by l.guardrail, l.at desc
"""


class Health(BaseModel):
    """`status` is ok, degraded (Redis is away: events wait in the log) or down."""

    status: str


class Dependencies(Health):
    """What stands behind the service."""

    database: str
    redis: str


class AuditItem(BaseModel):
    """Who changed what: `metadata` holds role, before, after and reason."""

    eventId: UUID
    eventType: str
    actor: str
    createdAt: datetime
    resourceType: str
    resourceId: str
    metadata: dict[str, Any]


class Latencies(BaseModel):
    """Milliseconds."""

    sampleCount: int
    median: float | None
    p95: float | None
    max: float | None


class Measured(BaseModel):
    """Answers of this process."""

    requests: int
    clientErrors: int
    serverErrors: int
    errorRate: float
    latenciesMs: Latencies


class MeasuredRoute(Measured):
    """Answers of one route."""

    method: str
    route: str


class ApiMetrics(BaseModel):
    """Answers within a window."""

    windowMinutes: int
    totals: Measured
    routes: list[MeasuredRoute]


class GateMeasure(BaseModel):
    """A gate as it was last measured."""

    gateId: str
    batch: str
    status: str
    value: float | None
    numerator: float | None
    denominator: float | None
    comparator: str
    threshold: float | None
    note: str | None
    runId: UUID
    evaluatedAt: datetime


class Gates(BaseModel):
    """Of each batch its latest evaluation."""

    items: list[GateMeasure]


@router.get("/health", response_model=None, responses={200: {"model": Answer[Health]}})
async def health(request: Request) -> Response:
    """The process answers."""
    return answer(request, {"status": "ok"})


@router.get(
    "/health/db",
    response_model=None,
    responses={200: {"model": Answer[Dependencies]}, 503: {"model": Answer[Dependencies], "description": "Down"}},
)
async def dependencies(request: Request) -> Response:
    """Database and Redis answer. 503 only without the database: without Redis events are taken and wait."""
    core: Core = request.app.state.core
    database, redis = await asyncio.gather(_database(core), _redis(core))
    status = "down" if database != "ok" else "ok" if redis in ("ok", "not used") else "degraded"
    return answer(request, {"status": status, "database": database, "redis": redis}, 503 if status == "down" else 200)


async def _database(core: Core) -> str:
    try:
        async with asyncio.timeout(PROBE_SECONDS), core.pool.connection(timeout=PROBE_SECONDS) as conn:
            await conn.execute("select 1")
    except (psycopg.Error, TimeoutError):
        return "away"
    return "ok"


async def _redis(core: Core) -> str:
    if core.queue is None:
        return "not used"
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            return "ok" if await core.queue.is_connected() else "away"
    except TimeoutError:
        return "away"


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def prometheus(request: Request) -> Response:
    """For Prometheus: of this process; and of all together the queue, the log and the dead letters."""
    core: Core = request.app.state.core
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await _migration(core)  # first: before batch A there are no dead letters to be counted
            by_status, (pending, oldest) = await dead_letters.depths(core.pool)
        for status in dead_letters.STATUSES:
            core.metrics.dead_letters.labels(status).set(by_status.get(status, 0))
        core.metrics.pending.set(pending)
        core.metrics.oldest.set(oldest)
    except (psycopg.Error, TimeoutError):
        pass  # the last that was seen
    if core.queue:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                counts = await core.queue.counts()
        except TimeoutError:
            counts = {}
        core.metrics.queue_connected.set(bool(counts.get("connected")))
        for state in _STATES if counts.get("connected") else ():  # else the last that was seen
            core.metrics.queue_jobs.labels(state).set(counts[state])
    return Response(generate_latest(core.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _migration(core: Core) -> None:
    """Flags, stops, gates and guardrails, as they stand."""
    rows = await core.flags.rows(core.pool)
    async with core.pool.connection() as conn:
        stops = await (await conn.execute(_STOPS)).fetchone()
        refused = await (await conn.execute(_UNTOLD)).fetchone()
        gates = await (await conn.execute(_FAILED)).fetchall()
        guardrails = await (await conn.execute(_GUARDRAILS)).fetchall()
    core.metrics.show(
        {flag: flags.in_force(flag, rows).enabled for flag in flags.FLAGS},
        stops[0] if stops else 0,
        refused[0] if refused else 0,
        dict(gates),
        guardrails,
    )


@router.get(
    "/v1/metrics/api", response_model=None, responses={200: {"model": Answer[ApiMetrics]}, **refusals(401, 403, 422)}
)
async def api(
    request: Request, admin: Annotated[Admin, Depends(as_admin)], windowMinutes: Annotated[int, Query()] = 60
) -> Response:
    """Requests, errors and latency of this process in the last 1 to 1440 minutes."""
    core: Core = request.app.state.core
    return answer(request, core.metrics.window(min(max(windowMinutes, 1), LONGEST_WINDOW)))


@router.get(
    "/v1/metrics/reconciliation",
    response_model=None,
    responses={200: {"model": Answer[Gates]}, **refusals(401, 403, 503)},
)
async def reconciliation(request: Request, admin: Annotated[Admin, Depends(as_admin)]) -> Response:
    """The gates' latest measures."""
    core: Core = request.app.state.core
    async with core.pool.connection() as conn:
        rows = await (await conn.cursor(row_factory=dict_row).execute(_GATES)).fetchall()
    return answer(request, {"items": rows})


@router.get(
    "/v1/audit/events",
    response_model=None,
    responses={200: {"model": Answer[Page[AuditItem]]}, **refusals(401, 403, 422, 503)},
)
async def trail(
    request: Request,
    admin: Annotated[Admin, Depends(as_admin)],
    eventType: str | None = None,
    resourceType: str | None = None,
    resourceId: str | None = None,
    limit: Limit = 50,
    cursor: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> Response:
    """What admins changed, the newest first."""
    core: Core = request.app.state.core
    items, following = await audit.trail(
        core.pool,
        event_type=eventType,
        resource_type=resourceType,
        resource_id=resourceId,
        before=cursor,
        limit=most(limit),
    )
    return answer(request, {"items": items, "nextCursor": None if following is None else str(following)})
