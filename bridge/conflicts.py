"""Conflicts of the dual write: found each hour, settled by the playbook or by a person (blueprint 6.10).

The rules are rows (`phase2.playbook_rules`), and what one would change is asked of one function by who simulates and by
who applies (`phase2.plan_conflict`). Only the core is written here; bstadmin's part goes there as any write does, by an
intent that the worker takes on (core_api/ops/sweeper.py), guarded by what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal, get_args
from uuid import UUID

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from bridge import bstadmin, flags, ledger, postgres
from bridge.errors import CouldNotRun
from bridge.runlog import uuid7
from bridge.settings import Databases

SETTLE = timedelta(minutes=5)  # what was written since is still on its way
LONGEST_OPEN = timedelta(hours=24)  # H-03
Keep = Literal["core", "legacy", "both"]

_WINDOW = """
select coalesce(max(c.window_to), %(to)s - interval '1 hour') from phase2.write_checks as c where c.window_to <= %(to)s
"""
# Bookings written in the window here, or changed there meanwhile; and those in conflict. Until the flag is on for all,
# others may still write to bstadmin alone: then of the changed ones those that the core API has ever written to. Of
# payments those that came after a later one, which is all that is asked of them: a batch that writes a booking's
# payments together, however many bookings it writes, brings none in.
_BOOKINGS = """
with bookings as (
    select i.booking_key from phase2.write_intents as i
    where i.touched_at >= %(from)s and i.accepted_at < %(to)s
    union
    select r.entity_key from public.channel_external_refs as r
    where
        r.entity_type = 'BOOKING' and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
        and r.external_ref = any(%(changed)s::text[])
        and (%(all)s or exists (select 1 from phase2.write_intents as i where i.booking_key = r.entity_key))
    union
    select p.booking_key from public.payment_event as p
    where
        p.created_at >= %(from)s and p.created_at < %(to)s
        and exists (
            select 1 from public.payment_event as o
            where o.booking_key = p.booking_key and o.created_at < p.created_at and o.payment_time > p.payment_time
        )
    union
    select c.booking_key from phase2.conflicts as c where c.status = 'OPEN'
)
select b.booking_key, r.external_ref::integer
from bookings as b
left join public.channel_external_refs as r
    on r.entity_type = 'BOOKING' and r.entity_key = b.booking_key and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
"""
# A write that should have been there by now; one of a switched-off flag is not a dual one.
_NOT_ENDED = """
select distinct i.booking_key from phase2.write_intents as i
where
    i.accepted_at < %s
    and (i.legacy_status = 'PENDING' or i.core_status = 'PENDING' or (i.core_status = 'BEHIND' and i.mode = 'DUAL'))
    and not phase2.is_frozen(i.booking_key)
"""
_DIFFER = """
select
    d.rule,
    jsonb_agg(
        jsonb_build_object('field', d.field, 'core', d.core, 'legacy', d.theirs) order by d.field
    )
from phase2.compare_sides(%(key)s, %(legacy)s, %(today)s, %(settle)s) as d
group by d.rule
"""
# What a person has left as it is does not come back as long as it is that; what was settled on one side may.
_SETTLED = """
select exists (
    select 1 from phase2.conflicts as c
    where
        c.booking_key = %s and c.rule = %s and c.status = 'RESOLVED' and c.fields = %s
        and c.after = '{"core": {}, "legacy": {}}'
)
"""
_GONE = """
update phase2.conflicts as c
set status = 'GONE', ended_at = now(), ended_by = 'reconciliation', reason = 'both sides hold the same'
where
    c.booking_key = %s and c.status = 'OPEN' and not c.freezes and not c.rule = any(%s)
    and not exists (
        select 1 from phase2.write_intents as i where i.booking_key = c.booking_key and i.legacy_status = 'PENDING'
    )
"""
_LISTED = """
select
    c.conflict_id, c.booking_key, b.channel_code, b.external_booking_ref, c.rule, c.rule_version, c.module, r.winner,
    r.action, c.severity, c.freezes, c.status, c.fields, c.found_by, c.detected_at, c.due_at, c.escalated_at,
    b.currency_code, now() as at
from phase2.conflicts as c
join public.booking_core as b on b.booking_key = c.booking_key
join phase2.playbook_rules as r on r.rule = c.rule and r.version = c.rule_version
where
    (c.status = 'OPEN' or %(id)s::uuid is not null)
    and (%(id)s::uuid is null or c.conflict_id = %(id)s)
    and (%(rule)s::text is null or c.rule = %(rule)s)
order by c.severity, c.due_at, c.conflict_id
"""

# A request that is refused is told so within a moment.
_REFUSED = """
select
    i.intent_id, i.booking_key, b.channel_code, b.external_booking_ref, i.action,
    array(select k.name from jsonb_object_keys(i.target) as k (name) order by 1) as fields, i.actor, i.accepted_at,
    i.touched_at as refused_at, coalesce(i.core_error, i.legacy_error, 'bstadmin held something else') as error
from phase2.write_intents as i
left join public.booking_core as b on b.booking_key = i.booking_key
where i.core_status = 'REFUSED' and i.told_at is null and i.touched_at < now() - interval '5 seconds'
order by i.touched_at
"""


@dataclass(frozen=True)
class Conflict:
    """One conflict with its clock; `fields` may hold personal data (a note): mask before it is shown."""

    conflict_id: UUID
    booking_key: UUID
    channel_code: str
    external_booking_ref: str
    rule: str
    rule_version: int
    module: str
    winner: str
    action: str
    severity: str
    freezes: bool
    status: str
    fields: list[dict[str, Any]]
    found_by: str
    detected_at: datetime
    due_at: datetime
    escalated_at: datetime | None
    currency_code: str
    at: datetime

    @property
    def left(self) -> timedelta:
        """Until it has to be settled; below zero it is overdue."""
        return self.due_at - self.at

    @property
    def blocks(self) -> bool:
        """Open for more than 24 h: no next step of the rollout (H-03)."""
        return self.at - self.detected_at > LONGEST_OPEN

    @property
    def at_stake(self) -> Decimal:
        """The difference of the totals, in the booking's currency; of two currencies the core's whole total."""
        named = {f["field"]: f for f in self.fields}
        if "total_price" not in named:
            return Decimal(0)
        ours, theirs = (Decimal(str(named["total_price"][side])) for side in ("core", "legacy"))
        return ours if "currency_code" in named else abs(ours - theirs)


@dataclass(frozen=True)
class Plan:
    """What settling one conflict changes: on each side the values before and after. `stale`: somebody has written since
    it was compared, so that nothing is applied."""

    conflict: Conflict
    stale: bool
    core: dict[str, tuple[Any, Any]]
    legacy: dict[str, tuple[Any, Any]]
    legacy_row: dict[str, Any] | None = field(repr=False, compare=False)

    @property
    def rows(self) -> int:
        """Bookings whose row changes, each side counted."""
        return bool(self.core) + bool(self.legacy)

    @property
    def money(self) -> Decimal:
        """By how much totals change, both sides together, in the booking's currency."""
        if "currency_code" in self.core or "currency" in self.legacy:
            return self.conflict.at_stake
        changes = [side["total_price"] for side in (self.core, self.legacy) if "total_price" in side]
        return sum((abs(Decimal(str(after)) - Decimal(str(before))) for before, after in changes), Decimal(0))


@dataclass(frozen=True)
class Check:
    """One reconciliation of both sides."""

    window_from: datetime
    window_to: datetime
    checked: int
    mismatched: int
    conflicts: dict[str, int]

    @property
    def rate(self) -> float:
        return self.mismatched / self.checked if self.checked else 0.0


_WORDS = ("note", "meeting_point")  # a customer's, or about one


def shown(name: str, value: Any) -> Any:
    """A conflict's value as anybody may see it: of a person's words how long they are."""
    return f"{len(value)} characters" if name in _WORDS and isinstance(value, str) else value


def reconcile(databases: Databases, *, until: datetime | None = None, settle: timedelta = SETTLE) -> Check:
    """Compare both sides of every booking written since the last time (else an hour); open what the playbook knows.

    Of a booking that bstadmin does not hold there is no other side: only the order of its payments is looked at.

    A booking header that differs is frozen by that. What does not differ any more is closed, unless it is frozen.
    """
    to = (until or datetime.now(UTC)) - settle
    with (
        postgres.connect(databases.ops, application_name="phase2-conflicts", autocommit=True) as conn,
        postgres.connect(databases.bstadmin, application_name="phase2-conflicts", read_only=True) as legacy,
    ):
        if not _is_there(conn):
            raise CouldNotRun("there is nothing to compare yet", where="public.booking_core", todo="Run A to E first.")
        since = _one(conn, _WINDOW, {"to": to})
        rows = legacy.execute(
            bstadmin.CHANGED, (since.astimezone(UTC).replace(tzinfo=None), to.astimezone(UTC).replace(tzinfo=None))
        ).fetchall()
        flag = flags.in_force("OPS_WRITE_CORE_ENABLED", flags.read(conn))
        everyone = flag.enabled and flag.rollout.percentage >= 100 and not flag.rollout.modules
        asked = {"from": since, "to": to, "changed": [str(row[0]) for row in rows], "all": everyone}
        pairs = conn.execute(_BOOKINGS, asked).fetchall()
        theirs = _read(legacy, [pair for pair in pairs if pair[1] is not None])
        late = {row[0] for row in conn.execute(_NOT_ENDED, (to,)).fetchall()}
        found: dict[str, int] = {}
        mismatched = set(late)
        for key in sorted({key for key, _ in pairs}):
            for rule in _compare(conn, legacy, key, theirs.get(key), settle):
                found[rule] = found.get(rule, 0) + 1
                mismatched.add(key)
        checked = len({key for key, _ in pairs} | late)
        check = Check(since, to, checked, len(mismatched), found)
        conn.execute(
            "insert into phase2.write_checks (check_id, window_from, window_to, checked, mismatched, detail)"
            " values (%s, %s, %s, %s, %s, %s)",
            (
                *(uuid7(), since, to, checked, len(mismatched)),
                Jsonb({"rules": found, "not_ended": len(late), "bookings": sorted(map(str, mismatched))}),
            ),
        )
    return check


def _compare(
    conn: psycopg.Connection, theirs: psycopg.Connection, key: UUID, legacy: dict[str, Any] | None, settle: timedelta
) -> list[str]:
    """Open or refresh the conflicts of one booking, of which bstadmin had this row (or none more); their rules.

    Where it differs bstadmin is read again: a writer may have been at it until the lock was ours.
    """
    with conn.transaction():
        # nobody writes to it while it is compared, and a freeze is in force for whoever comes next
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"write:{key}",))
        asked = {"key": key, "legacy": Jsonb(legacy or {}), "today": _today(conn), "settle": settle}
        differ = conn.execute(_DIFFER, asked).fetchall()
        if differ:
            asked["legacy"] = Jsonb(_legacy_row(conn, theirs, key) or {})
            differ = conn.execute(_DIFFER, asked).fetchall()
        rules = []
        for rule, fields in differ:
            if _one(conn, _SETTLED, (key, rule, Jsonb(fields))):
                continue
            conn.execute(
                "update phase2.conflicts set fields = %s where booking_key = %s and rule = %s and status = 'OPEN'",
                (Jsonb(fields), key, rule),
            )
            conn.execute("select phase2.note_conflict(%s, %s, %s, 'reconciliation', null)", (key, rule, Jsonb(fields)))
            rules.append(rule)
        conn.execute(_GONE, (key, rules))
    return rules


def listed(conn: psycopg.Connection, *, rule: str | None = None, conflict_id: UUID | None = None) -> list[Conflict]:
    """Open conflicts, the most pressing first; or one by its id, whatever became of it. None before batch A."""
    if not _is_there(conn):
        return []
    return conn.cursor(row_factory=class_row(Conflict)).execute(_LISTED, {"rule": rule, "id": conflict_id}).fetchall()


def escalate(conn: psycopg.Connection) -> list[Conflict]:
    """The overdue ones, each told once in the ledger."""
    overdue = [one for one in listed(conn) if one.left < timedelta(0)]
    for one in overdue:
        if one.escalated_at is None:
            with conn.transaction():
                conn.execute(
                    "update phase2.conflicts set escalated_at = now() where conflict_id = %s", (one.conflict_id,)
                )
                ledger.append(conn, "escalation", subject=one.rule, body={"conflict": str(one.conflict_id),
                              "severity": one.severity, "due_at": one.due_at})  # fmt: skip
    return overdue


def watch(databases: Databases, check: Check) -> tuple[list[Conflict], list[str]]:
    """After a reconciliation: what is overdue, told once each, and the gates of H that it fails (H-01, H-03).

    H-01's limit is the registry's; where that is not there yet, nothing may differ.
    """
    with postgres.connect(databases.ops, application_name="phase2-conflicts", autocommit=True) as conn:
        there = _one(conn, "select to_regclass('dbt_seeds.gate_registry') is not null", ())
        limit = there and _one(
            conn, "select max(r.threshold) from dbt_seeds.gate_registry as r where r.gate_id = 'H-01'", ()
        )
        overdue = escalate(conn)
        old = [one for one in listed(conn) if one.blocks]
    return overdue, [*(["H-01"] if check.rate > float(limit or 0) else []), *(["H-03"] if old else [])]


@dataclass(frozen=True)
class Refused:
    """A write that was accepted (202) and refused later, as a whole: neither side has it, and nobody was told."""

    intent_id: UUID
    booking_key: UUID
    channel_code: str | None
    external_booking_ref: str | None
    action: str
    fields: list[str]
    actor: str
    accepted_at: datetime
    refused_at: datetime
    error: str | None


def refused(conn: psycopg.Connection) -> list[Refused]:
    """Those of whom nobody was told, the oldest first. None before batch A."""
    if not _is_there(conn):
        return []
    return conn.cursor(row_factory=class_row(Refused)).execute(_REFUSED).fetchall()


def told(conn: psycopg.Connection, intent_id: UUID, reason: str) -> None:
    """Its writer knows, or has entered it again; kept in the ledger. CouldNotRun: no such write, or no reason."""
    if not reason.strip():
        raise CouldNotRun("it needs a reason", todo='Say who was told: --reason "…"')
    with conn.transaction():
        row = conn.execute(
            "update phase2.write_intents as i set told_at = now()"
            " where i.intent_id = %s and i.core_status = 'REFUSED' and i.told_at is null returning i.action, i.actor",
            (intent_id,),
        ).fetchone()
        if row is None:
            raise CouldNotRun("no such refused write", where=str(intent_id), todo="phase2 conflicts refused")
        body = {"intent": str(intent_id), "action": row[0], "writer": row[1], "reason": reason}
        ledger.append(conn, "refused-write", subject="told", body=body)


def simulate(
    databases: Databases,
    *,
    rule: str | None = None,
    conflict_id: UUID | None = None,
    keep: Keep | None = None,
    settle: timedelta = SETTLE,
) -> list[Plan]:
    """What settling these would change, before anything is written: by the rule, or as a person keeps one side."""
    with (
        postgres.connect(databases.ops, application_name="phase2-conflicts", read_only=True) as conn,
        postgres.connect(databases.bstadmin, application_name="phase2-conflicts", read_only=True) as legacy,
    ):
        chosen = listed(conn, rule=rule, conflict_id=conflict_id)
        return [plan(conn, legacy, one, keep=keep, settle=settle) for one in chosen if one.status == "OPEN"]


def ways(databases: Databases, conflict: Conflict) -> list[tuple[Keep | None, Plan]]:
    """Each way to settle a conflict, and what it would change: by its rule (None), or as a person keeps one side."""
    with (
        postgres.connect(databases.ops, application_name="phase2-conflicts", read_only=True) as conn,
        postgres.connect(databases.bstadmin, application_name="phase2-conflicts", read_only=True) as legacy,
    ):
        return [(keep, plan(conn, legacy, conflict, keep=keep)) for keep in (None, *get_args(Keep))]


def plan(
    conn: psycopg.Connection,
    legacy: psycopg.Connection,
    conflict: Conflict,
    *,
    keep: Keep | None = None,
    settle: timedelta = SETTLE,
) -> Plan:
    """What settling one conflict changes, on both sides as they are now."""
    key = conflict.booking_key
    row = _legacy_row(conn, legacy, key)
    planned = conn.execute(
        "select p.is_stale, p.core_target, p.legacy_target, phase2.core_values(%s)"
        " from phase2.plan_conflict(%s, %s, %s, %s, %s) as p",
        (key, conflict.conflict_id, Jsonb(row or {}), keep, _today(conn), settle),
    ).fetchone()
    assert planned is not None
    stale, core, theirs, held = planned
    return Plan(
        conflict,
        stale,
        {name: (held.get(name), value) for name, value in core.items()},
        {name: ((row or {}).get(name), value) for name, value in theirs.items()},
        row,
    )


# what a person's choice of one side can write to the other
_KEPT = {"note", "meeting_point", "package_id", "assigned_driver_id", "tour_date", "total_price", "currency_code"}


def _ask_for_another_way(conflict: Conflict, keep: Keep) -> None:
    """CouldNotRun where keeping one side would write nothing of a field to the other, and end the conflict even so."""
    fields = sorted(field["field"] for field in conflict.fields if field["field"] not in _KEPT)
    if not fields:
        return
    if "channel_code" in fields:
        todo = (
            "The channel is part of a booking's identity, which a run of batch D alone writes, as bstadmin's `source`"
        )
        todo += " says: correct that there if it is wrong, run D, then --keep both."
    else:
        todo = f"phase2 conflicts apply --rule {conflict.rule}, or --keep both, which leaves both as they are."
    raise CouldNotRun(
        f"--keep {keep} cannot write {', '.join(fields)}", where=f"conflict {conflict.conflict_id}", todo=todo
    )


def apply(
    databases: Databases,
    *,
    reason: str,
    rule: str | None = None,
    conflict_id: UUID | None = None,
    keep: Keep | None = None,
    settle: timedelta = SETTLE,
) -> list[tuple[Plan, str]]:
    """Settle these, by the rule or as a person keeps one side; each with what became of it.

    APPLIED or RESOLVED; STALE (somebody wrote since it was compared: the next reconciliation looks again); WAITS (a
    person has to say which side stands); BUSY (a write of the booking has not ended); FROZEN (by another conflict of
    the booking). bstadmin's part is an intent, which the worker takes there within seconds. CouldNotRun: the side that
    is kept cannot be written to the other (its channel, a status, finance).
    """
    outcomes: list[tuple[Plan, str]] = []
    with (
        postgres.connect(databases.ops, application_name="phase2-conflicts", autocommit=True) as conn,
        postgres.connect(databases.bstadmin, application_name="phase2-conflicts", read_only=True) as legacy,
    ):
        for one in listed(conn, rule=rule, conflict_id=conflict_id):
            if one.status != "OPEN":
                continue
            with conn.transaction():
                conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"write:{one.booking_key}",))
                planned = plan(conn, legacy, one, keep=keep, settle=settle)
                if keep in ("core", "legacy") and planned.legacy_row:
                    _ask_for_another_way(one, keep)
                outcomes.append((planned, _settle(conn, planned, keep, reason)))
    return outcomes


def _settle(conn: psycopg.Connection, planned: Plan, keep: Keep | None, reason: str) -> str:
    one = planned.conflict
    if keep is None and not (planned.core or planned.legacy):
        return "STALE" if planned.stale and one.rule not in ("booking_header", "choice") else "WAITS"
    if planned.stale:
        return "STALE"
    status = "APPLIED" if keep is None else "RESOLVED"
    outcome = _write(conn, planned, status, reason)
    if outcome == "DONE" and one.rule == "finance" and keep is None:
        conn.execute(
            "insert into phase2.tickets (ticket_id, conflict_id, severity, title) values (%s, %s, %s, %s)"
            " on conflict (conflict_id) do update set opened_at = now(), closed_at = null, closed_by = null",
            (uuid7(), one.conflict_id, one.severity,
             f"finance of {one.channel_code} {one.external_booking_ref}: bstadmin's value was taken"),
        )  # fmt: skip
    return status if outcome == "DONE" else outcome


def _write(conn: psycopg.Connection, planned: Plan, status: str, reason: str) -> str:
    one, who = planned.conflict, ledger.who()
    core = {name: after for name, (_, after) in planned.core.items()}
    theirs = {name: after for name, (_, after) in planned.legacy.items()}
    try:
        outcome = _one(
            conn,
            "select phase2.settle_conflict(%s, %s, %s, %s, %s, %s, %s)",
            (one.conflict_id, status, Jsonb(core), Jsonb(theirs), Jsonb(planned.legacy_row or {}), who, reason),
        )
    except psycopg.Error as error:
        if error.sqlstate != "P2003":
            raise
        raise CouldNotRun(
            error.diag.message_primary or "", where=f"conflict {one.conflict_id}", todo="Try again in a moment."
        ) from None
    if outcome == "DONE":
        ledger.append(
            conn,
            "conflict",
            subject=one.rule,
            body={
                "conflict": str(one.conflict_id),
                "booking": f"{one.channel_code}:{one.external_booking_ref}",
                "rule": one.rule,
                "version": one.rule_version,
                "status": status,
                "core": sorted(planned.core),
                "legacy": sorted(planned.legacy),
                "money": {one.currency_code: str(planned.money)} if planned.money else {},
                "reason": reason,
            },
        )
    return str(outcome)


def undo(databases: Databases, conflict_id: UUID, *, reason: str) -> Plan:
    """Put both sides back to what they were before the conflict was settled; it is open again, with its old clock.

    CouldNotRun when it is open, or when somebody has written since: what they wrote is not taken back.
    """
    with (
        postgres.connect(databases.ops, application_name="phase2-conflicts", autocommit=True) as conn,
        postgres.connect(databases.bstadmin, application_name="phase2-conflicts", read_only=True) as legacy,
        conn.transaction(),
    ):
        found = listed(conn, conflict_id=conflict_id)
        if not found or found[0].status not in ("APPLIED", "RESOLVED"):
            raise CouldNotRun("nothing was settled there", where=f"conflict {conflict_id}", todo="phase2 conflicts")
        one = found[0]
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"write:{one.booking_key}",))
        theirs = _legacy_row(conn, legacy, one.booking_key)
        row = conn.execute(
            "select c.before, c.after, phase2.core_values(c.booking_key) from phase2.conflicts as c"
            " where c.conflict_id = %s",
            (conflict_id,),
        ).fetchone()
        assert row is not None
        before, after, held = row
        if (
            (theirs is None and one.rule != "payment")
            or any(held[n] != v for n, v in after["core"].items())
            or any((theirs or {}).get(n) != v for n, v in after["legacy"].items())
        ):
            raise CouldNotRun(
                "somebody has written there since, or bstadmin has not got it yet",
                where=f"conflict {conflict_id}",
                todo="Settle what there is now by a write, or wait for the worker.",
            )
        if any(other.booking_key == one.booking_key for other in listed(conn, rule=one.rule)):
            raise CouldNotRun(
                f"another conflict of this booking is open under {one.rule}",
                where=f"conflict {conflict_id}",
                todo="Settle that one first.",
            )
        planned = Plan(
            one,
            False,
            {name: (held[name], value) for name, value in before["core"].items()},
            {name: ((theirs or {}).get(name), value) for name, value in before["legacy"].items()},
            theirs,
        )
        if _write(conn, planned, "OPEN", reason) != "DONE":
            raise CouldNotRun(
                "the booking is frozen, or a write of it has not ended", where=f"conflict {conflict_id}", todo="Wait."
            )
        conn.execute(
            "update phase2.tickets set closed_at = now(), closed_by = %s, reason = 'undone' where conflict_id = %s",
            (ledger.who(), conflict_id),
        )
    return planned


def _legacy_row(conn: psycopg.Connection, legacy: psycopg.Connection, key: UUID) -> dict[str, Any] | None:
    ids = conn.execute(
        "select r.external_ref::integer from public.channel_external_refs as r where r.entity_type = 'BOOKING'"
        " and r.entity_key = %s and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'",
        (key,),
    ).fetchall()
    found = _read(legacy, [(key, row[0]) for row in ids])
    legacy.rollback()  # the next look sees what was committed meanwhile
    return found.get(key)


def _read(legacy: psycopg.Connection, pairs: list[tuple[UUID, int]]) -> dict[UUID, dict[str, Any]]:
    rows = legacy.execute(
        bstadmin.READ_ALL, {"keys": [key for key, _ in pairs], "ids": [id_ for _, id_ in pairs]}
    ).fetchall()
    return dict(rows)


def _is_there(conn: psycopg.Connection) -> bool:
    return bool(_one(conn, "select to_regclass('public.booking_core') is not null", ()))


def _today(conn: psycopg.Connection) -> Any:
    return _one(conn, "select rulebook.bali_date(now())", ())


def _one(conn: psycopg.Connection, statement: Any, values: Any) -> Any:
    row = conn.execute(statement, values).fetchone()
    assert row is not None
    return row[0]
