"""Flags: the environment sets the default, a row of `phase2.flags` the state; a kill switch beats both.

One rule for every process (cutover.md, Flags; blueprint 5): `is_on`. Each process looks again after FRESH_SECONDS, so
that a change is in force in seconds without a restart.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import psycopg
from psycopg.types.json import Jsonb
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bridge import ledger, stop
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun

Flag = Literal[
    "INGEST_WEBHOOK_ENABLED",
    "INGEST_QUEUE_ENABLED",
    "INGEST_REPLAY_ENABLED",
    "OPS_READ_NEW_MODEL_ENABLED",
    "OPS_WRITE_CORE_ENABLED",
    "WEB_EMIT_BOOKING_EVENT_ENABLED",
    "EMAIL_PIPELINE_CORE_ENABLED",
]
FLAGS: tuple[Flag, ...] = get_args(Flag)
FRESH_SECONDS = 2.0


class Rollout(BaseModel):
    """For whom a flag that is on is on. An empty list limits nothing, but of people: those named are always in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    percentage: float = Field(100.0, ge=0, le=100, description="of the actors (or bookings), always the same ones")
    actors: tuple[str, ...] = Field((), description="in whatever the percentage says")
    emails: tuple[str, ...] = Field((), description="in whatever the percentage says; lower case")
    channels: tuple[str, ...] = Field((), description="only these channels; none named: all")
    modules: tuple[str, ...] = Field((), description="only these modules; none named: all")
    whole: tuple[str, ...] = Field((), description="of these modules everybody, whatever the percentage says")
    strict: bool = Field(False, description="no fallback to the old path")


def rollout_of(given: Mapping[str, Any]) -> Rollout:
    """What somebody has asked for; CouldNotRun names what of it cannot be."""
    try:
        return Rollout.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise CouldNotRun(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}", where="rollout") from None


@dataclass(frozen=True)
class Row:
    """The state of a flag as a person or a flow has set it."""

    enabled: bool
    rollout: Rollout = field(default_factory=Rollout)
    fault: str = ""  # what of the row as it is kept counts for nothing


def is_on(
    flag: Flag,
    rows: Mapping[str, Row],
    *,
    actor: str | None = None,
    email: str | None = None,
    channel: str | None = None,
    module: str | None = None,
) -> bool:
    """Whether a flag is on for somebody. `actor` is who (or which booking) stays on one side while the percentage
    stands, and on the new one as it grows; a part of the actors is nobody who does not say who he is."""
    row = in_force(flag, rows)
    if not row.enabled:
        return False
    to = row.rollout
    if (to.channels and channel not in to.channels) or (to.modules and module not in to.modules):
        return False
    if actor in to.actors or (email or "").lower() in to.emails:
        return True
    percentage = 100 if module in to.whole else to.percentage
    return percentage >= 100 or (actor is not None and _position(flag, actor) < percentage)


def in_force(flag: Flag, rows: Mapping[str, Row]) -> Row:
    """The state that holds: killed, as the row says, or the environment's default."""
    if flag in core_settings().killed:
        return Row(enabled=False)
    return rows.get(flag) or Row(enabled=bool(getattr(core_settings(), flag.lower())))


def opens_more(before: Row, after: Row) -> bool:
    """Whether a flag would be on for somebody for whom it was off."""
    old, new = before.rollout, after.rollout
    return after.enabled and (
        not before.enabled
        or new.percentage > old.percentage
        or not {*new.actors} <= {*old.actors}
        or not {*new.emails} <= {*old.emails}
        or _widens(old.channels, new.channels)
        or _widens(old.modules, new.modules)
        or (old.percentage < 100 and not {*new.whole} <= {*old.whole})
    )


def _widens(old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    return bool(old) and not (new and {*new} <= {*old})


def words(row: Row) -> str:
    """For whom it is on, in a line for people, and what of its row does not count; of e-mail addresses how many."""
    if not row.enabled:
        return row.fault
    to = row.rollout
    parts = ["all"] if to.percentage >= 100 else [f"{to.percentage:g} %"]
    parts += [f"always {', '.join(to.actors)}"] if to.actors else []
    parts += [f"always {len(to.emails)} e-mail addresses"] if to.emails else []
    parts += [f"channels {', '.join(to.channels)}"] if to.channels else []
    parts += [f"modules {', '.join(to.modules)}"] if to.modules else []
    parts += [f"all of {', '.join(to.whole)}"] if to.whole else []
    parts += ["no fallback"] if to.strict else []
    parts += [row.fault] if row.fault else []
    return "; ".join(parts)


def _position(flag: str, actor: str) -> float:
    """Where an actor stands between 0 and 100, for this flag; the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{flag}:{actor}".encode()).digest()[:7]) / (1 << 56) * 100


_ROWS = "select f.flag, f.enabled, f.rollout from phase2.flags as f"


def read(conn: psycopg.Connection) -> dict[str, Row]:
    """The rows of the table, as they are now."""
    return _rows(conn.execute(_ROWS).fetchall())


def _rows(found: list[tuple[str, bool, Any]]) -> dict[str, Row]:
    return {flag: _row(enabled, rollout) for flag, enabled, rollout in found}


def _row(enabled: bool, kept: Any) -> Row:
    """A row as somebody has left it, maybe by hand: it must not take down who reads it, nor open more than was meant.
    One that cannot be read, or has a part that we do not know, is off, and for nobody until somebody says for whom."""
    try:
        return Row(enabled, Rollout.model_validate(kept))
    except ValidationError as error:
        fields = sorted({str((*problem["loc"], "all of it")[0]) for problem in error.errors(include_input=False)})
        return Row(enabled=False, rollout=Rollout(percentage=0), fault=f"off: cannot be read: {', '.join(fields)}")


class Flags:
    """The flags as one process sees them, read again when they are older than FRESH_SECONDS."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._read_at = float("-inf")

    async def rows(self, pool: Any) -> dict[str, Row]:
        """`pool` is an async psycopg pool; when the database does not answer, what was read last holds."""
        if time.monotonic() - self._read_at > FRESH_SECONDS:
            self._read_at = time.monotonic()
            try:
                async with pool.connection() as conn:
                    self._rows = _rows(await (await conn.execute(_ROWS)).fetchall())
            except psycopg.Error:
                pass
        return self._rows

    async def is_on(self, flag: Flag, pool: Any, **who: str | None) -> bool:
        """`who` is what the function `is_on` takes."""
        return is_on(flag, await self.rows(pool), **who)


def change(
    conn: psycopg.Connection,
    flag: Flag,
    enabled: bool,
    *,
    reason: str,
    rollout: Rollout | None = None,
    actor: str | None = None,
) -> None:
    """Set a flag, and say so in the ledger: who, why, before, after. Without a rollout the one before stays.

    While the migration is stopped nothing is opened by it, for nobody; less and off are always possible. Raises
    CouldNotRun then, with what stops it.

    `changed_at` is since when it is on, or off: a reason or a rollout more does not move it, for gate F-02 counts what
    waited for the queue from there.
    """
    with conn.transaction():
        # two changes at once are one after the other, also of a flag that has no row yet
        conn.execute("lock table phase2.flags in share row exclusive mode")
        rows = read(conn)
        before = rows.get(flag)
        after = Row(enabled, rollout or (before.rollout if before else Rollout()))
        conn.execute(
            "insert into phase2.flags as f (flag, enabled, rollout, reason, changed_by) values (%s, %s, %s, %s, %s)"
            " on conflict (flag) do update set enabled = excluded.enabled, rollout = excluded.rollout,"
            " reason = excluded.reason, changed_by = excluded.changed_by,"
            " changed_at = case when %s then f.changed_at else now() end",
            (
                *(flag, after.enabled, Jsonb(after.rollout.model_dump()), reason, actor or ledger.who()),
                before is not None and before.enabled == after.enabled,
            ),
        )
        ledger.append(
            conn,
            "flag",
            subject=flag,
            actor=actor,
            body={"before": _told(before), "after": _told(after), "reason": reason},
        )
        # asked last, when the ledger is ours: a stop is in it by now, or comes after this and finds the flag on
        if opens_more(in_force(flag, rows), after) and (stops := stop.standing(conn)):
            raise CouldNotRun(
                f"nothing is switched on while the migration is stopped: {'; '.join(map(str, stops))}",
                where=flag,
                todo=f"{stop.HOW_TO_LIFT}. Off, or for fewer, is possible.",
            )


def _told(row: Row | None) -> dict[str, Any] | None:
    """What the ledger keeps of it; of the e-mail addresses how many there are."""
    if row is None:
        return None
    told = {"enabled": row.enabled, **row.rollout.model_dump(exclude_defaults=True, exclude={"emails"})}
    return told | ({"emails": len(row.rollout.emails)} if row.rollout.emails else {})
