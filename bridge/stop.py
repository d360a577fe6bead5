"""Stop and resume (blueprint 12, hard stops): a file, a command, or a row of the ledger holds the whole migration.

None of the three goes through Prefect. A run asks before each step, and between the tables of a landing. A stop file
that a run has seen becomes an entry of the ledger, so that taking the file away does not lift it: only a person does,
with a reason that is kept (`lift`). Rollback and recon stay possible: they are what a stop is for.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from bridge import ledger, postgres
from bridge.batches import Batch
from bridge.errors import CouldNotRun, Stopped
from bridge.policy import Criterion, Policy
from bridge.reports.mask import mask_text
from bridge.settings import settings

HOW_TO_LIFT = 'A person lifts it: phase2 resume --reason "…"'

# Entries since the last lifting; one without a reason lifts nothing.
_SINCE = """
select coalesce(max(l.entry_no), 0) from phase2.ledger as l
where l.kind = 'resume' and trim(coalesce(l.body ->> 'reason', '')) <> ''
"""


@dataclass(frozen=True)
class Stop:
    """One stop that stands: who wants it, since when (UTC), why, and where it is written.

    Of a guardrail's: its name, and the batch in question.
    """

    by: str
    at: datetime
    reason: str
    where: str
    entry: int | None = None
    subject: str | None = None
    batch: str | None = None

    def __str__(self) -> str:
        return f"stopped by {self.by} on {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.reason} ({self.where})"


def file() -> Path:
    """The stop file: PHASE2_STOP_FILE, else `stop` below PHASE2_HOME. Its first line is the reason."""
    return settings().phase2_stop_file or settings().phase2_home / "stop"


def standing(conn: psycopg.Connection) -> tuple[Stop, ...]:
    """The stops that nobody has lifted, the oldest first; only reads."""
    noted = _noted(conn)
    stops = tuple(
        Stop(
            by=entry.actor or "somebody",
            at=entry.at,
            reason=_one_line(str(_said(entry).get("reason") or "")),
            where=f"entry {entry.no} of the ledger",
            entry=entry.no,
            subject=entry.subject,
            batch=entry.batch,
        )
        for entry in noted
    )
    asked = _asked_by_file()
    return stops if asked is None or _is_noted(asked, noted) else (*stops, asked)


def ask(
    conn: psycopg.Connection,
    reason: str,
    *,
    subject: str | None = None,
    batch: str | None = None,
    actor: str | None = None,
) -> ledger.Entry:
    """Hold the migration at its next safe point; a guardrail names itself (`subject`) and the batch in question."""
    return ledger.append(conn, "stop", subject=subject, batch=batch, actor=actor, body={"reason": _needed(reason)})


def lift(conn: psycopg.Connection, reason: str, *, seen: int | None = None) -> tuple[Stop, ...]:
    """Take away the stop file and lift every stop that stands; returns them. CouldNotRun when there is none, or when
    one came after entry `seen` of the ledger, the last that the person has looked at (0: only a file)."""
    words = _needed(reason)
    _note_the_file(conn)
    with conn.transaction():
        ledger.lock(conn)  # none comes between those that are named and the entry that lifts all before it
        stops = standing(conn)
        if not stops:
            raise CouldNotRun(
                "nothing is stopped", where="phase2.ledger", todo="`phase2 status` shows where each batch is."
            )
        unseen = [str(one) for one in stops if seen is not None and one.subject != "file" and (one.entry or 0) > seen]
        if unseen:
            raise CouldNotRun(
                f"another stop has come since you looked: {'; '.join(unseen)}",
                where="phase2.ledger",
                todo="Look at it too, then lift them.",
            )
        ledger.append(conn, "resume", body={"reason": words, "lifted": [str(stop) for stop in stops]})
        try:
            file().unlink(missing_ok=True)
        except OSError as error:
            raise CouldNotRun(
                f"the stop file cannot be removed: {error.strerror}", where=str(file()), todo="Remove it, then resume."
            ) from None
    return stops


def raise_if_asked(ops_url: str, batch: str) -> None:
    """Stopped, with who, when, why and how to lift it, when somebody has asked for it."""
    with postgres.connect(ops_url, application_name="phase2-stop", autocommit=True) as conn:
        _note_the_file(conn)
        stops = standing(conn)
        if stops:
            _note_the_file(conn)  # one that came only now: who is stopped by it leaves its entry
    if stops:
        raise Stopped(batch, "; ".join(map(str, stops)), HOW_TO_LIFT)


def criteria(conn: psycopg.Connection, batch: Batch, policy: Policy) -> list[Criterion]:
    """One line of the go / no-go, demanded everywhere: nobody has stopped the migration."""
    stops = standing(conn)
    return [
        Criterion(
            name="no stop",
            state="HOLD" if stops else "PASS",
            evidence="; ".join(map(str, stops)) or "nobody has stopped the migration",
            todo=HOW_TO_LIFT if stops else "",
            paragraph="gates.md, hard stops",
            demanded=True,
        )
    ]


def _noted(conn: psycopg.Connection) -> list[ledger.Entry]:
    row = conn.execute(_SINCE).fetchone()
    return ledger.entries(conn, "stop", after=row[0] if row else 0)


def _note_the_file(conn: psycopg.Connection) -> None:
    """The stop file as an entry, once a file."""
    asked = _asked_by_file()
    if asked is None:
        return
    with conn.transaction():
        # the landing asks from two threads
        conn.execute("select pg_advisory_xact_lock(hashtextextended('phase2.stop', 0))")
        if not _is_noted(asked, _noted(conn)):
            ledger.append(
                conn,
                "stop",
                subject="file",
                actor=asked.by,
                body={"reason": asked.reason, "host": platform.node(), "written": asked.at.isoformat()},
            )


def _asked_by_file() -> Stop | None:
    path = file()
    try:
        written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
    try:
        reason = path.read_text(encoding="utf-8", errors="replace").strip().split("\n")[0]
    except OSError as error:  # that it is there is enough
        reason = f"its file cannot be read: {error.strerror}"
    try:
        owner = path.owner()
    except (KeyError, NotImplementedError, OSError):  # no name: of another container, or a system without owners
        owner = "somebody"
    return Stop(owner, written, _one_line(reason), f"the file {path.name}")


def _is_noted(asked: Stop, noted: list[ledger.Entry]) -> bool:
    mark = (platform.node(), asked.at.isoformat())
    return any((_said(e).get("host"), _said(e).get("written")) == mark for e in noted if e.subject == "file")


def _said(entry: ledger.Entry) -> dict[str, Any]:
    """Its body, if it is one: a stop by plain SQL counts whatever else it says."""
    return entry.body if isinstance(entry.body, dict) else {}


def _needed(reason: str) -> str:
    if not reason.strip():
        raise CouldNotRun("a reason is missing", todo='Say why: --reason "…"')
    return _one_line(reason)


def _one_line(text: str) -> str:
    """As the ledger and everybody may see it: a person's reason may quote a guest's mail or phone."""
    return mask_text(" ".join(text.split())[:300]) or "no reason was given"
