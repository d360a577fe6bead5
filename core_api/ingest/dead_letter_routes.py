"""The HTTP side of dead letters, replay and the queue's measures; what they do is in `dead_letters`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field

from core_api.app import (
    Answer,
    Core,
    Cursor,
    Limit,
    Page,
    answer,
    as_admin,
    as_writer,
    content_of,
    documented,
    key_of,
    most,
    not_found,
    refusals,
)
from core_api.audit import Why
from core_api.auth import Admin
from core_api.ingest import dead_letters, log
from core_api.ingest.events import whole
from core_api.ingest.routes import PATH, EventView

router = APIRouter(tags=["dead letters"])
Status = Literal["OPEN", "READY", "REPLAYING", "SUCCEEDED", "FAILED", "RESOLVED", "CLOSED"]
Id = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
AsAdmin = Annotated[Admin, Depends(as_admin)]
AsWriter = Annotated[Admin, Depends(as_writer)]
_CHANGES = refusals(400, 401, 403, 404, 408, 413, 422, 503)


class DeadLetter(BaseModel):
    """An event that could not be applied."""

    deadLetterKey: UUID
    eventId: UUID
    status: Status
    reasonCode: str
    reasonDetail: str | None
    poisonMessage: bool
    replayCount: int
    firstFailedAt: datetime
    lastFailedAt: datetime
    nextReplayAt: datetime | None
    source: str
    channelCode: str
    externalBookingRef: str
    eventType: str


class ReplayedEvent(EventView):
    """The event, and whether it is queued."""

    queued: bool
    processedInline: bool


class Failure(Why):
    """Why an event goes to the dead letters."""

    reasonCode: str | None = Field(None, max_length=64)
    reasonDetail: str | None = Field(None, max_length=2000)
    poisonMessage: bool | None = None


class ReplayRequest(BaseModel):
    """A change request: which dead letters that are READY, at most how many, and why. `preview` changes nothing."""

    reason: str = Field(min_length=1, max_length=2000)
    ticket: str | None = Field(None, max_length=200)
    preview: bool = True
    limit: whole(1, dead_letters.MOST) = 50  # type: ignore[valid-type]
    channelCode: str | None = None
    reasonCode: str | None = None


class Replays(BaseModel):
    """`changes` of a preview: of each event what it would end as, and the fields that it would change."""

    preview: bool
    eventIds: list[UUID]
    queued: bool
    changes: list[dict[str, Any]]


@router.post(
    PATH + "/{eventId}/replay",
    status_code=202,
    response_model=None,
    responses={202: {"model": Answer[ReplayedEvent]}, **_CHANGES, **refusals(409)},
    openapi_extra=documented(Why, required=False),
)
async def replay(request: Request, admin: AsWriter, eventId: Id) -> Response:
    """Bring an event back whose dead letter is READY."""
    core: Core = request.app.state.core
    key, why = key_of(eventId), await content_of(request, Why, required=False)
    enabled = await core.flags.is_on("INGEST_REPLAY_ENABLED", core.pool)
    queued = await dead_letters.replay_event(
        core.pool, core.queue, key, admin, enabled=enabled, reason=why.reason, ticket=why.ticket
    )
    found = await log.event(core.pool, key, personal=True)
    if found is None:
        raise not_found()
    return answer(request, found | {"queued": queued, "processedInline": False}, 202)


@router.post(
    PATH + "/{eventId}/fail",
    status_code=202,
    response_model=None,
    responses={202: {"model": Answer[DeadLetter]}, **_CHANGES},
    openapi_extra=documented(Failure, required=False),
)
async def fail(request: Request, admin: AsWriter, eventId: Id) -> Response:
    """Move an event to the dead letters, also one that is DONE."""
    core: Core = request.app.state.core
    key, why = key_of(eventId), await content_of(request, Failure, required=False)
    found = await dead_letters.fail(
        core.pool,
        key,
        admin,
        reason_code=why.reasonCode,
        reason_detail=why.reasonDetail,
        poison_message=why.poisonMessage,
        reason=why.reason,
        ticket=why.ticket,
    )
    return answer(request, found, 202)


@router.post(
    "/v1/ingest/replays",
    status_code=202,
    response_model=None,
    responses={202: {"model": Answer[Replays]}, **_CHANGES},
    openapi_extra=documented(ReplayRequest),
)
async def replays(request: Request, admin: AsWriter) -> Response:
    """Replay what is READY in the order of acceptance, or show what that would change (the default)."""
    core: Core = request.app.state.core
    asked = await content_of(request, ReplayRequest)
    chosen = {"channel": asked.channelCode, "reason_code": asked.reasonCode, "limit": asked.limit}
    if asked.preview:
        keys = await dead_letters.ready(core.pool, **chosen)
        previews = dead_letters.document(await dead_letters.preview(core.pool, keys))
        return answer(request, {"preview": True, "eventIds": keys, "queued": False, "changes": previews}, 202)
    enabled = await core.flags.is_on("INGEST_REPLAY_ENABLED", core.pool)
    keys, queued = await dead_letters.replay(
        core.pool, core.queue, admin, enabled=enabled, reason=asked.reason, ticket=asked.ticket, **chosen
    )
    return answer(request, {"preview": False, "eventIds": keys, "queued": queued, "changes": []}, 202)


@router.get(
    "/v1/ingest/dead-letter",
    response_model=None,
    responses={200: {"model": Answer[Page[DeadLetter]]}, **refusals(401, 403, 422, 503)},
)
async def listed(
    request: Request,
    admin: AsAdmin,
    status: Status | None = None,
    channelCode: str | None = None,
    reasonCode: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Dead letters, the newest first."""
    core: Core = request.app.state.core
    items, following = await dead_letters.listed(
        core.pool, status=status, channel=channelCode, reason_code=reasonCode, limit=most(limit), cursor=cursor
    )
    return answer(request, {"items": items, "nextCursor": following})


@router.get(
    "/v1/ingest/dead-letter/{key}",
    response_model=None,
    responses={200: {"model": Answer[DeadLetter]}, **refusals(401, 403, 404, 503)},
)
async def one(request: Request, admin: AsAdmin, key: Id) -> Response:
    """A dead letter."""
    core: Core = request.app.state.core
    return answer(request, await dead_letters.one(core.pool, key_of(key)))


@router.patch(
    "/v1/ingest/dead-letter/{key}/status/{status}",
    response_model=None,
    responses={200: {"model": Answer[DeadLetter]}, **_CHANGES, **refusals(409)},
    openapi_extra=documented(Why, required=False),
)
async def transition(request: Request, admin: AsWriter, key: Id, status: Status) -> Response:
    """Move a dead letter on, where its life allows it."""
    core: Core = request.app.state.core
    letter, why = key_of(key), await content_of(request, Why, required=False)
    moved = await dead_letters.transition(core.pool, letter, status, admin, reason=why.reason, ticket=why.ticket)
    return answer(request, moved)


@router.get(
    "/v1/ingest/metrics/queue",
    response_model=None,
    responses={200: {"model": Answer[dict[str, Any]]}, **refusals(401, 403, 503)},
)
async def queue_metrics(request: Request, admin: AsAdmin) -> Response:
    """Depth of the queue by state, dead letters by status, retries to come."""
    core: Core = request.app.state.core
    enabled = await core.flags.is_on("INGEST_QUEUE_ENABLED", core.pool)
    return answer(request, await dead_letters.queue_metrics(core.pool, core.queue, enabled=enabled))


@router.get(
    "/v1/ingest/metrics/processing",
    response_model=None,
    responses={200: {"model": Answer[dict[str, Any]]}, **refusals(401, 403, 422, 503)},
)
async def processing_metrics(request: Request, admin: AsAdmin, windowMinutes: int = 60) -> Response:
    """Success, failure and latency of what was accepted in the last 1 to 1440 minutes."""
    core: Core = request.app.state.core
    return answer(request, await dead_letters.processing_metrics(core.pool, windowMinutes))
