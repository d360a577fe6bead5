"""The fault catalogue as data: what is planted where, and which gate has to name it.

Faults of schema, seeds, landing and bridge are in `faults.sql`, to be planted in a copy of a healthy shop; those of
the sources are the scenarios of the samples, which go through landing and batches.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

PLACES = ("source", "landing", "bridge", "schema", "seed", "run")


@dataclass(frozen=True)
class Fault:
    """One way to break a gate; `batch` is the one whose verdict has to fail of it."""

    gate: str
    place: str
    title: str
    batch: str
    rows: str
    plant: str
    names: str

    @property
    def id(self) -> str:
        after = f", after {self.batch}" if self.gate.startswith("G") else ""
        return f"{self.gate}{after}, {self.place}: {self.title}"

    def apply(self, conn: psycopg.Connection) -> set[str]:
        """Plant it; returns the keys that the gate has to name (none: there is no row to name)."""
        if self.rows:
            conn.execute(b"create temporary table planted as " + self.rows.encode())
        conn.execute(self.plant.encode())
        names = self.names or ("select key::text from planted" if self.rows else "")
        keys = {row[0] for row in conn.execute(names.encode()).fetchall()} if names else set()
        if names and not keys:
            raise ValueError(f"{self.id}: the shop has no row to plant it in")
        return keys


def _read() -> dict[str, Fault]:
    faults: dict[str, Fault] = {}
    text = Path(__file__).with_name("faults.sql").read_text(encoding="utf-8")
    for block in text.split("\n-- @fault ")[1:]:
        head, body = block.split("\n", 1)
        gate, place, title, *after = (part.strip() for part in head.split("|"))
        parts = re.split(r"^-- @(rows|plant|names)\n", body, flags=re.M)
        given = {name: statement.strip() for name, statement in zip(parts[1::2], parts[2::2], strict=True)}
        fault = Fault(
            gate,
            place,
            title,
            after[0] if after else gate[0],
            _one(given.get("rows", "")),
            given["plant"],
            _one(given.get("names", "")),
        )
        if fault.id in faults or place not in PLACES:
            raise ValueError(f"there is another {fault.id}, or no such place")
        faults[fault.id] = fault
    return faults


def _one(statement: str) -> str:
    """A single statement, without its end and the comments after it."""
    return statement.split(";", 1)[0]


FAULTS = _read()
