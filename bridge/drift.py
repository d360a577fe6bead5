"""Drift: whether a database's catalog is still the one that somebody has accepted (an entry "baseline").

Of the ops database schema `public` is looked at: the rest is ours, and made anew as the project changes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import psycopg

from bridge import fingerprint, ledger, postgres
from bridge.errors import CouldNotRun
from bridge.fingerprint import Fingerprint

_SCHEMAS: dict[str, list[str] | None] = {"ops": ["public"], "balisnap": None, "bstadmin": None}


@dataclass(frozen=True)
class Drift:
    """What was compared. Without a `baseline` nothing can be said, which is no pass."""

    database: str
    digest: str
    baseline: ledger.Entry | None
    lines: tuple[str, ...]
    changes: tuple[dict[str, Any], ...]  # object, was, is: in full

    @property
    def none(self) -> bool:
        return self.baseline is not None and not self.changes


def check(conn: psycopg.Connection, url: str, database: str) -> Drift:
    """Compare with the accepted baseline, as the ledger (`conn`) has it."""
    return _compare(database, _catalog(url, database), ledger.latest(conn, "baseline", subject=database))


def accept(conn: psycopg.Connection, url: str, database: str, reason: str) -> Drift:
    """Accept the catalog as it is; what it changes against the baseline before is kept with the reason."""
    if not reason.strip():
        raise CouldNotRun("a baseline is accepted with a reason", todo='Say it: --reason "…"')
    found = _catalog(url, database)
    drift = _compare(database, found, ledger.latest(conn, "baseline", subject=database))
    body = {"digest": drift.digest, "reason": reason, "catalog": found, "differences": drift.lines}
    return _compare(database, found, ledger.append(conn, "baseline", subject=database, body=body))


def _catalog(url: str, database: str) -> dict[str, str]:
    with postgres.connect(url, application_name="phase2-drift", read_only=True) as conn:
        return fingerprint.catalog(conn, schemas=_SCHEMAS[database])


def _compare(database: str, now: dict[str, str], baseline: ledger.Entry | None) -> Drift:
    digest = hashlib.sha256(json.dumps(now, sort_keys=True).encode()).hexdigest()
    was: dict[str, str] = baseline.body["catalog"] if baseline else now
    changes = tuple(
        {"object": name, "was": was.get(name), "is": now.get(name)}
        for name in sorted(was.keys() | now.keys())
        if was.get(name) != now.get(name)
    )
    lines = tuple(fingerprint.difference(Fingerprint(was, {}), Fingerprint(now, {})))
    return Drift(database, digest, baseline, lines, changes)
