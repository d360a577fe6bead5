"""Waivers: a known failure of one gate of one batch, borne by a named person, with a reason, a scope and an end.

A waiver is an entry of the ledger, as is its end by a person; nothing else holds one. A failing gate within the scope
of a standing waiver still says FAIL, and holds nothing up. Gates of severity `stop` (the registry's word) cannot be
waived, nor can a failure that is not one of the measured value: a gate that was not measured, or not to be trusted.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import psycopg

from bridge import ledger
from bridge.batches import BATCHES, GLOBAL_GATES
from bridge.errors import CouldNotRun
from bridge.settings import DBT_PROJECT

REGISTRY = DBT_PROJECT / "seeds" / "gate_registry.csv"

STOP = "stop"  # severity of a hard stop: never waived
HARD = (STOP, "critical")  # severities whose failure taints the batch

# What nobody may waive at once: a longer time, more exceptions, a value further beyond its threshold (by unit).
LONGEST = timedelta(days=90)
MOST_EXCEPTIONS = 1_000
FURTHEST = {"count": Decimal(1_000), "ratio": Decimal("0.1"), "seconds": Decimal(60)}


@dataclass(frozen=True)
class Waiver:
    """One waiver that stands. The scope is at most so many exceptions, a value that is no worse, or both."""

    entry: int
    batch: str
    gate: str
    by: str
    reason: str
    at_most: int | None
    value: Decimal | None
    expires: date  # the last day, in Bali

    def covers(self, *, exceptions: int, value: Decimal | None, threshold: Decimal | None) -> bool:
        """Whether a failure of this size is within the scope."""
        if self.at_most is None and self.value is None:
            return False
        if self.at_most is not None and exceptions > self.at_most:
            return False
        if self.value is None:
            return True
        if value is None or threshold is None:
            return False
        room = self.value - threshold  # a value on the other side of the threshold is another failure, or none
        return 0 <= value - threshold <= room if room > 0 else room <= value - threshold <= 0

    @property
    def scope(self) -> str:
        """The scope in words."""
        parts = [f"at most {self.at_most} exceptions"] if self.at_most is not None else []
        return ", ".join(parts + ([f"a value no worse than {self.value}"] if self.value is not None else []))

    def __str__(self) -> str:
        return f"waived by {self.by} until {self.expires} (entry {self.entry}; {self.scope}): {self.reason}"


def standing(conn: psycopg.Connection, batch: str | None = None) -> tuple[Waiver, ...]:
    """The waivers that nobody has revoked and that have not expired, of one batch or of all; only reads."""
    latest: dict[tuple[str, str], ledger.Entry] = {}
    for entry in ledger.entries(conn, "waiver", "waiver revoked", batch=batch):
        if entry.batch and entry.subject:
            latest[entry.batch, entry.subject] = entry
    found = (_read(entry) for entry in latest.values() if entry.kind == "waiver")
    return tuple(waiver for waiver in found if waiver and waiver.expires >= today())


def covering(conn: psycopg.Connection, batch: str, failed: Mapping[str, Mapping[str, Any]]) -> dict[str, Waiver]:
    """Of these failures of a batch (a verdict's `failed`, as its entry keeps them) those that a waiver bears today."""
    mine = {waiver.gate: waiver for waiver in standing(conn, batch)}
    return {
        gate: mine[gate]
        for gate, said in failed.items()
        if gate in mine
        and said["waivable"]
        and mine[gate].covers(
            exceptions=said["exceptions"], value=_number(said["value"]), threshold=_number(said["threshold"])
        )
    }


def waive(
    conn: psycopg.Connection,
    *,
    batch: str,
    gate: str,
    reason: str,
    expires: date,
    at_most: int | None = None,
    value: Decimal | None = None,
) -> Waiver:
    """Write a waiver; without a scope it is what the latest verdict counted. CouldNotRun when it may not be.

    It holds from the next verdict on: of a run, or of `make recon`.
    """
    code, gate = batch.upper(), gate.strip().upper()
    _require_known(code, gate)
    row = registered(gate)
    if row is None or row["severity"] == STOP:
        raise CouldNotRun(
            f"{gate} cannot be waived: it is a hard stop" if row else f"{gate} is not in the registry",
            where="dbt_project/seeds/gate_registry.csv",
            todo="Mend the cause, and run the batch again.",
        )
    if not reason.strip():
        raise CouldNotRun("a waiver needs a reason", todo='Say why it can be borne: --reason "…"')
    if expires < today():
        raise CouldNotRun(f"{expires} is past", todo="Give --expires a day to come (in Bali).")
    if expires > today() + LONGEST:
        last = today() + LONGEST
        raise CouldNotRun(
            f"{expires} is too far", todo=f"At most {LONGEST.days} days: --expires {last}; then look anew."
        )
    if (at_most is not None and at_most < 0) or (value is not None and not value.is_finite()):
        raise CouldNotRun("that scope holds nothing", todo="Give --at-most a count, or --value a number.")
    if at_most is None and value is None:
        failed = failed_by(ledger.latest(conn, "verdict", batch=code)).get(gate)
        if failed is None:
            raise CouldNotRun(
                f"{gate} did not fail in the latest verdict of batch {code}: there is nothing to take the scope from",
                todo="Give the scope: --at-most 12, or --value 0.01.",
            )
        at_most = int(failed["exceptions"])
    _require_a_modest_scope(row, at_most, value)
    entry = ledger.append(
        conn,
        "waiver",
        batch=code,
        subject=gate,
        body={"reason": " ".join(reason.split()), "at_most": at_most, "value": value, "expires": expires},
    )
    waiver = _read(entry)
    assert waiver is not None
    return waiver


def revoke(conn: psycopg.Connection, *, batch: str, gate: str, reason: str) -> Waiver:
    """End a waiver before its day; CouldNotRun when none stands."""
    code, gate = batch.upper(), gate.strip().upper()
    waiver = next((waiver for waiver in standing(conn, code) if waiver.gate == gate), None)
    if waiver is None:
        raise CouldNotRun(
            f"no waiver of {gate} stands for batch {code}",
            where="phase2.ledger",
            todo="`phase2 waivers` lists those that stand.",
        )
    if not reason.strip():
        raise CouldNotRun("a reason is missing", todo='Say why: --reason "…"')
    body = {"reason": " ".join(reason.split()), "waiver": waiver.entry}
    ledger.append(conn, "waiver revoked", batch=code, subject=gate, body=body)
    return waiver


def failed_by(verdict: ledger.Entry | None) -> Mapping[str, Mapping[str, Any]]:
    """The gates that a verdict's entry tells to have failed, with their numbers."""
    return (verdict.body.get("failed") or {}) if verdict else {}


def registered(gate: str) -> dict[str, str] | None:
    """The row of a gate in the registry's file."""
    return next((row for row in registry() if row["gate_id"] == gate), None)


def registry() -> list[dict[str, str]]:
    """The registry as its file says it."""
    with REGISTRY.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def today() -> date:
    """The day that it is in Bali: waivers end with one."""
    return in_bali(datetime.now(UTC))


def in_bali(at: datetime) -> date:
    """The day that it was in Bali (UTC+8, no daylight saving)."""
    return (at.astimezone(UTC) + timedelta(hours=8)).date()


def _require_known(code: str, gate: str) -> None:
    if code not in BATCHES:
        raise CouldNotRun(f"there is no batch {code!r}", todo=f"Name one of them: {', '.join(BATCHES)}.")
    asked = (*BATCHES[code].gates, *GLOBAL_GATES)
    if gate not in asked:
        raise CouldNotRun(f"batch {code} does not ask gate {gate!r}", todo=f"Its gates: {', '.join(asked)}.")


def _require_a_modest_scope(row: Mapping[str, str], at_most: int | None, value: Decimal | None) -> None:
    """A --value must be one that fails the gate, and no scope may be without end; CouldNotRun."""
    limit, unit = Decimal(row["threshold"]), row["unit"]
    if at_most is not None and at_most > MOST_EXCEPTIONS:
        raise CouldNotRun(
            f"{at_most} exceptions are too many to be borne",
            todo=f"At most {MOST_EXCEPTIONS}; or bear a value: --value 0.01.",
        )
    if value is None:
        return
    beyond = {"<=": value - limit, ">=": limit - value}.get(row["comparator"], abs(value - limit))
    if beyond <= 0:
        raise CouldNotRun(
            f"a value of {value} passes {row['gate_id']} ({row['comparator']} {row['threshold']}): nothing to waive",
            todo="Give the worst value that you answer for.",
        )
    if beyond > FURTHEST[unit]:
        raise CouldNotRun(
            f"{value} is too far from the threshold {row['threshold']} to be borne",
            todo=f"At most {FURTHEST[unit]} beyond it.",
        )


def _read(entry: ledger.Entry) -> Waiver | None:
    """The waiver that an entry tells of; None when it lacks what makes one (whoever wrote it, it waives nothing)."""
    said = entry.body if isinstance(entry.body, dict) else {}
    try:
        if date.fromisoformat(said["expires"]) > entry.at.date() + LONGEST + timedelta(days=1):  # Bali's day is ahead
            return None
        return Waiver(
            entry=entry.no,
            batch=entry.batch or "",
            gate=entry.subject or "",
            by=entry.actor,
            reason=str(said["reason"]),
            at_most=None if said.get("at_most") is None else int(said["at_most"]),
            value=_number(said.get("value")),
            expires=date.fromisoformat(said["expires"]),
        )
    except (KeyError, TypeError, ValueError, InvalidOperation):
        return None


def _number(value: Any) -> Decimal | None:
    number = None if value is None else Decimal(str(value))
    if number is not None and not number.is_finite():
        raise ValueError(f"{value} is no number to compare with")
    return number
