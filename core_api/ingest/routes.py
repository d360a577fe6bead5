"""The HTTP side of ingestion. The order of checks is the contract's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from bridge import signature
from bridge.errors import plain
from bridge.runlog import uuid7
from core_api import auth
from core_api.app import Answer, Core, Queue, answer, body_of, documented, key_of, not_found, refusals
from core_api.errors import Refused
from core_api.ingest import events, log
from core_api.ingest.events import BookingIngestEventV1

PATH = "/v1/ingest/bookings/events"
WINDOW = timedelta(minutes=5)
QUEUE_SECONDS = 1.0  # the longest that an accepted event waits for Redis: the sweeper brings it there as well
_SIGNED = ("x-signature", "x-signature-algorithm", "x-timestamp", "x-nonce", "x-idempotency-key")

router = APIRouter(tags=["ingestion"])
_log = logging.getLogger("core_api.ingest")


class AcceptedEvent(BaseModel):
    """The answer to an event; the first one is given again for 35 days."""

    eventId: UUID
    processStatus: str
    idempotentReplay: bool
    queued: bool
    processedInline: bool


class EventView(BaseModel):
    """An event of the log. Without credentials: no payload, nonce, key and error."""

    eventId: UUID
    idempotencyKey: str | None = None
    processStatus: str
    attemptCount: int
    nextRetryAt: datetime | None
    replayCount: int
    source: str
    channelCode: str
    externalBookingRef: str
    eventType: str
    eventTime: datetime
    eventTimeNormalized: datetime
    nonce: str | None = None
    payloadHash: str
    payload: Any = None
    errorMessage: str | None = None
    createdAt: datetime
    updatedAt: datetime


_EMITTER: dict[str, Any] = {
    "security": [{"serviceToken": []}],
    "parameters": [
        {"name": name, "in": "header", "required": True, "schema": {"type": "string", **schema}}
        for name, schema in (
            ("x-signature", {"pattern": "^[0-9a-f]{64}$"}),
            ("x-signature-algorithm", {"enum": [signature.ALGORITHM]}),
            ("x-timestamp", {"format": "date-time"}),
            ("x-nonce", {"minLength": 1, "maxLength": events.LONGEST_KEY}),
            ("x-idempotency-key", {"minLength": 1, "maxLength": events.LONGEST_KEY}),
        )
    ],
    **documented(BookingIngestEventV1),
}


@router.post(
    PATH,
    status_code=202,
    response_model=None,
    responses={202: {"model": Answer[AcceptedEvent]}, **refusals(400, 401, 408, 413, 422, 503)},
    openapi_extra=_EMITTER,
    summary="Take an event",
)
async def take(request: Request) -> Response:
    """A signed event. 202 means that it is durable; what becomes of it, the event's own address tells."""
    core: Core = request.app.state.core
    try:
        outcome, response = await _take(request, core)
    except Refused as refused:
        core.metrics.events.labels(refused.code).inc()
        raise
    core.metrics.events.labels(outcome).inc()
    return response


async def _take(request: Request, core: Core) -> tuple[str, Response]:
    if not await core.flags.is_on("INGEST_WEBHOOK_ENABLED", core.pool):
        raise Refused(503, "INGEST_WEBHOOK_DISABLED", "ingestion is switched off", headers={"retry-after": "60"})
    headers = request.headers
    if not auth.emitter(headers, core.settings):
        raise auth.unauthorized()
    given = [headers.get(name, "") for name in _SIGNED]
    if missing := [name for name, value in zip(_SIGNED, given, strict=True) if not value.strip()]:
        raise Refused(400, "MISSING_HEADER", f"not there or empty: {', '.join(missing)}", missing)
    signed_as, algorithm, timestamp, nonce, key = given
    if algorithm != signature.ALGORITHM:
        raise Refused(401, "UNSUPPORTED_ALGORITHM", f"x-signature-algorithm must be {signature.ALGORITHM}")
    try:
        at = events.instant(timestamp)
    except ValueError as error:
        raise Refused(400, "INVALID_TIMESTAMP", f"x-timestamp {error}") from None
    if abs(datetime.now(UTC) - at) > WINDOW:
        raise Refused(401, "TIMESTAMP_OUT_OF_WINDOW", "x-timestamp is more than 5 minutes from our clock")
    body = await body_of(request)
    body_hash = signature.digest(body)
    secrets = auth.valid(core.settings.ingest_service_secret, core.settings.ingest_service_secret_previous)
    signed = (request.method, request.url.path, timestamp, nonce, key, body_hash)
    if not signature.matches(signed_as, secrets, *signed):
        raise Refused(401, "UNAUTHORIZED_SIGNATURE", "x-signature is not that of this request")

    faults = {
        name: f"longer than {events.LONGEST_KEY} characters"
        for name, value in (("x-nonce", nonce), ("x-idempotency-key", key))
        if len(value) > events.LONGEST_KEY
    }
    try:
        try:
            event = events.read(body)
            if faults:
                raise events.invalid(faults)
        except Refused as refused:
            # the nonce comes before the body, and is used up by a body that is refused
            if "x-nonce" not in faults and not await log.use_nonce(core.pool, nonce, key, body_hash):
                raise _nonce_reused() from None
            if faults and refused.code == "VALIDATION_ERROR":
                faults |= {fault["field"]: fault["message"] for fault in refused.details}
                raise events.invalid(faults) from None
            raise
        try:
            return await _accept(request, core, key, nonce, body_hash, body, event)
        except psycopg.DataError:  # which took back that the nonce is used up
            if not await log.use_nonce(core.pool, nonce, key, body_hash):
                raise _nonce_reused() from None
            raise events.invalid({"body": "holds a value that cannot be kept"}) from None
    except psycopg.Error as error:
        _log.error("not durable: %s", plain(error), extra={"said": {"requestId": request.scope["request_id"]}})
        raise Refused(
            503, "NOT_DURABLE", "the event could not be kept; send it again", headers={"retry-after": "5"}
        ) from None


async def _accept(
    request: Request, core: Core, key: str, nonce: str, body_hash: str, body: bytes, event: BookingIngestEventV1
) -> tuple[str, Response]:
    queue = core.queue if await core.flags.is_on("INGEST_QUEUE_ENABLED", core.pool) else None
    event_key = uuid7()
    outcome, data = await core.acceptor.accept(
        log.Event(
            event_key=event_key,
            idempotency_key=key,
            nonce=nonce,
            payload_hash=body_hash,
            source=event.source,
            ref=event.externalBookingRef,
            event_type=event.eventType,
            event_time=events.instant(event.eventTime),
            payload=body.decode(),
            queued=queue is not None,
        ),
    )
    if outcome == "NONCE_REUSED":
        raise _nonce_reused()
    if outcome == "KEY_REUSED":
        raise Refused(422, "IDEMPOTENCY_KEY_REUSED", "this x-idempotency-key came with another body before")
    if outcome == "REF_BLANK":
        raise events.invalid({"externalBookingRef": "is blank"})
    if outcome == "REF_TOO_LONG":
        raise events.invalid({"externalBookingRef": f"longer than {events.LONGEST_KEY} characters"})
    assert data is not None
    if outcome == "KNOWN":
        return outcome, answer(request, data | {"idempotentReplay": True}, 202)
    if queue is not None and not await _queued(queue, event_key):
        core.metrics.not_queued.inc()
        data["queued"] = False
        with contextlib.suppress(psycopg.Error):
            await log.was_not_queued(core.pool, key)
    return outcome, answer(request, data, 202)


async def _queued(queue: Queue, event_key: UUID) -> bool:
    """False when Redis is away or slow: the event is durable, and the sweeper brings it there."""
    try:
        async with asyncio.timeout(QUEUE_SECONDS):
            return await queue.add(event_key)
    except Exception as error:  # the library's own, in any of its moods: a durable event is never answered by an error
        _log.warning("not queued: %s", type(error).__name__)
        return False


def _nonce_reused() -> Refused:
    return Refused(401, "NONCE_REUSED", "this x-nonce was used within the last 10 minutes")


@router.get(
    PATH + "/{eventId}",
    response_model=None,
    responses={200: {"model": Answer[EventView]}, **refusals(401, 404, 503)},
    openapi_extra={"security": [{}, {"serviceToken": []}, {"adminToken": []}]},
    summary="What became of an event",
)
async def show(request: Request, eventId: str) -> Response:
    """The event. Without credentials only what holds no personal data; with wrong ones 401."""
    core: Core = request.app.state.core
    personal = "authorization" in request.headers
    if personal and not auth.emitter(request.headers, core.settings):
        auth.admin(request.headers, core.settings)
    found = await log.event(core.pool, key_of(eventId), personal=personal)
    if found is None:
        raise not_found()
    return answer(request, found)
