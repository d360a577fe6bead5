"""The emitter's side of the ingest contract: an event, signed and sent (ingest_contract, HTTP).

What every emitter of ours and every check of the service uses; the applications have their own, in their languages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from bridge import runlog, signature
from bridge.core_settings import CoreSettings
from bridge.errors import CouldNotRun

PATH = "/v1/ingest/bookings/events"


@dataclass(frozen=True)
class Request:
    """A signed request, good for 5 minutes. It holds the token: never print it but for local use."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def __repr__(self) -> str:
        return f"Request({self.url})"


def signed(chosen: CoreSettings, event: Mapping[str, Any], idempotency_key: str) -> Request:
    """The request for an event (BookingIngestEventV1), as an emitter sends it now."""
    if chosen.ingest_service_token is None or chosen.ingest_service_secret is None:
        raise CouldNotRun(
            "INGEST_SERVICE_TOKEN or INGEST_SERVICE_SECRET is not set", where="environment", todo="See .env.example."
        )
    body = json.dumps(event, separators=(",", ":"), default=str).encode()
    lines = (
        datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        str(runlog.uuid7()),
        idempotency_key,
    )
    secret = chosen.ingest_service_secret.get_secret_value()
    headers = {
        "authorization": f"Bearer {chosen.ingest_service_token.get_secret_value()}",
        "content-type": "application/json",
        "x-timestamp": lines[0],
        "x-nonce": lines[1],
        "x-idempotency-key": lines[2],
        "x-signature-algorithm": signature.ALGORITHM,
        "x-signature": signature.sign(secret, "POST", PATH, *lines, signature.digest(body)),
    }
    return Request(chosen.url + PATH, headers, body)


def send(client: httpx.Client, request: Request) -> httpx.Response:
    """Send it; CouldNotRun when nobody answers there. What the answer says is for the caller."""
    try:
        return client.post(request.url, headers=dict(request.headers), content=request.body)
    except httpx.TransportError as error:
        raise CouldNotRun(
            f"the core API does not answer: {type(error).__name__}",
            where=request.url,
            todo="Start it (make serve), or set CORE_API_URL.",
        ) from None
