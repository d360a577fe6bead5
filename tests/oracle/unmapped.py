"""The review queue: causes found by a run, and the life cycle of its rows (mapping 1 "Review", 3.9)."""

from datetime import datetime
from typing import Any

from tests.oracle import normalise as n

Rows = list[dict[str, Any]]
Cause = tuple[str, str, str, str, str]

# A run signs what it closes; a person signs with a name or an address.
RUN_SIGNATURES = ("run", "phase2", "batch", "backfill", "migration")
SOURCE_SYSTEMS = ("balisnap", "bstadmin", "canonical")


class Queue:
    """The causes for review that this run found: one row per (type, system, table, pk, reason)."""

    def __init__(self) -> None:
        self.causes: set[Cause] = set()

    def add(self, queue_type: str, system: str, table: str, pk: object, reason: str) -> None:
        """Note a cause; the same one again is the same row."""
        self.causes.add((queue_type, system, table, str(pk), reason))

    def catalog(self, system: str, table: str, pk: object, reason: str = "INVALID_SOURCE") -> None:
        """Mapping 1: review of catalog rows."""
        self.add("CATALOG_EXTENDED_METADATA", system, table, pk, reason)

    def booking(self, system: str, table: str, pk: object, reason: str = "INVALID_SOURCE") -> None:
        """Mapping 1: review of bookings, their items and the values of their payments."""
        self.add("BOOKING_REVIEW", system, table, pk, reason)

    def identity(self, channel: str, ref: str, reason: str) -> None:
        """Mapping 2: a queue row about an identity."""
        self.add("BOOKING_REVIEW", "canonical", "booking_identity", f"{channel}:{ref}", reason)


def closed_by_a_run(row: dict[str, Any]) -> bool:
    """Mapping 3.9: `resolved_by` says the run."""
    return (row.get("resolved_by") or "").lower().startswith(RUN_SIGNATURES)


def life_cycle(causes: set[Cause], before: Rows) -> Rows:
    """Mapping 3.9: a run adds rows, closes open ones whose cause is gone, reopens only what a run closed."""
    held = {row["queue_key"]: row for row in before}
    after: dict[Any, dict[str, Any]] = {}
    for queue_type, system, table, pk, reason in causes:
        key = n.queue_key(queue_type, system, table, pk, reason)
        after[key] = {
            "queue_key": key,
            "queue_type": queue_type,
            "source_system": system,
            "source_table": table,
            "source_pk": pk[:128],
            "reason_code": reason,
            "status": "OPEN",
            "payload": None,
            "resolved_by": None,
            "resolved_at": None,
        }
        old = held.get(key)
        if old is not None and not (old["status"] == "CLOSED" and closed_by_a_run(old)):
            after[key] = dict(old)
    for key, old in held.items():
        if key in after:
            continue
        after[key] = dict(old)
        if old["status"] == "OPEN" and old["source_system"] in SOURCE_SYSTEMS:
            after[key] |= {"status": "CLOSED", "resolved_by": "run", "resolved_at": datetime.max}
    return list(after.values())


def resolutions(before: Rows) -> dict[int, tuple[str, str]]:
    """Mapping 3.9: what people decided about bstadmin packages: package id to (entity type, key)."""
    decided: dict[int, tuple[str, str]] = {}
    rows = (r for r in before if r["queue_type"] == "PRODUCT_MAPPING" and r["source_table"] == "tour_packages")
    for row in sorted(rows, key=lambda r: (str(r.get("resolved_at") or ""), r["reason_code"])):
        payload = row.get("payload")
        choice = payload.get("resolution") if isinstance(payload, dict) else None
        if row["status"] in ("RESOLVED", "CLOSED") and isinstance(choice, dict):
            decided[int(row["source_pk"])] = (str(choice["entity_type"]).upper(), str(choice["entity_key"]).lower())
    return decided
