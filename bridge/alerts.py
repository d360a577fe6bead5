"""Alerts: told to people by log and by a signed webhook (PHASE2_ALERT_URL); the ledger holds what was told.

A receiver checks `x-signature` as the core API does an emitter's (docs/guardrails.md). What nobody took is told again
the next time that somebody looks; that a receiver is away never keeps a stop from happening.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import psycopg

from bridge import ledger, runlog, signature
from bridge.settings import settings

SECONDS = 10.0  # the longest that a receiver may take
_log = logging.getLogger("phase2.alerts")


def tell(conn: psycopg.Connection, event: str, subject: str, about: str, said: Mapping[str, Any]) -> bool:
    """Tell people of something, once: `about` is the occasion. Whether it was told now (not: before, or in vain).

    `said` is without personal data. The first try is an entry of the ledger, and so is the one that came through.
    """
    tries = [e for e in ledger.entries(conn, "alert", subject=subject) if e.body.get("about") == about]
    if any(e.body["delivered"] or not e.body["to"] for e in tries):
        return False
    if not tries:
        _log.error("%s: %s", event, said.get("words", ""), extra={"said": {"event": event, **said}})
    chosen = settings()
    url = chosen.phase2_alert_url.get_secret_value() if chosen.phase2_alert_url else ""
    error = _post(url, {"event": event, "subject": subject, "about": about, **said}) if url else None
    if not tries or (url and error is None):
        body = {
            "event": event,
            "about": about,
            "to": urlsplit(url).hostname or "",
            "delivered": bool(url) and error is None,
            "error": error,
        }
        ledger.append(conn, "alert", subject=subject, body=body)
    return not tries or error is None


def tell_unkept(event: str, subject: str, said: Mapping[str, Any]) -> None:
    """Tell of it while there is no ledger to remember that: each time, for a receiver the same one for an hour."""
    _log.error("%s: %s", event, said.get("words", ""), extra={"said": {"event": event, **said}})
    url = settings().phase2_alert_url
    if url:
        about = f"{datetime.now(UTC):%Y-%m-%d %H} h"
        if error := _post(url.get_secret_value(), {"event": event, "subject": subject, "about": about, **said}):
            _log.error("nobody was told: %s", error)


def _post(url: str, content: Mapping[str, Any]) -> str | None:
    """Send it, signed; what went wrong, in a word."""
    body = json.dumps(content, separators=(",", ":"), default=str).encode()
    lines = (
        datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        str(runlog.uuid7()),
        f"{content['subject']}:{content['about']}",
    )
    secret = settings().phase2_alert_secret
    if secret is None:
        return "PHASE2_ALERT_SECRET is not set: nothing is sent unsigned"
    path = urlsplit(url).path or "/"
    headers = {
        "content-type": "application/json",
        "x-timestamp": lines[0],
        "x-nonce": lines[1],
        "x-idempotency-key": lines[2],
        "x-signature-algorithm": signature.ALGORITHM,
        "x-signature": signature.sign(secret.get_secret_value(), "POST", path, *lines, signature.digest(body)),
    }
    try:
        answered = httpx.post(url, content=body, headers=headers, timeout=SECONDS, trust_env=False)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return type(error).__name__
    return None if answered.is_success else f"HTTP {answered.status_code}"
