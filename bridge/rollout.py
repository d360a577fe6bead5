"""The ladders of the cutover (blueprint 6.8, 6.9): reads (G) and writes (H), for the testers, then for more and more.

    look(run, code) -> Look         where its flags stand, what the next rung opens, and every criterion before it
    step_up(run, code, reason)      one rung, when a person says go and nothing holds it
    step_down(run, code, reason)    one rung back, whatever the criteria say
    by_hand(conn, flag, …)          any flag as a person sets it: no further than the ladder's last go

Where a ladder stands is read from its flags' rows (`phase2.flags`) and kept nowhere else. A step is an entry "rollout"
of the ledger, beside the one of the flag. What let the batch start must still hold at each step (bridge/door.py);
its gates are measured afresh, and the shadow reads judged since the last step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psycopg

from bridge import door, flags, ledger, parity, recon, runlog, shadow, stop, write_cutover
from bridge.batches import batch
from bridge.errors import CouldNotRun, GateFailed
from bridge.flags import Flag, Rollout, Row
from bridge.policy import POLICIES, Criterion, policy
from bridge.reads import READS, testers
from bridge.steps import Run

_WRITES: Flag = "OPS_WRITE_CORE_ENABLED"
_WEB: Flag = "WEB_EMIT_BOOKING_EVENT_ENABLED"
_LOW_RISK = ("note", "meeting_point")
_PARTS = {"testers": 0.0, "5 %": 5.0, "25 %": 25.0, "50 %": 50.0, "100 %": 100.0}


@dataclass(frozen=True)
class Rung:
    """One rung: what the flag's row says on it, beside the testers, who are always in."""

    name: str
    flag: Flag
    rollout: Rollout
    covers: tuple[str | None, ...] = (None,)  # the modules that it opens; None: of a flag that has none

    def is_open(self, rows: Mapping[str, Row]) -> bool:
        """Whether the flag's row opens at least what this rung does."""
        row = flags.in_force(self.flag, rows)
        return row.enabled and all(_part(row.rollout, one) >= _part(self.rollout, one) for one in self.covers)


@dataclass(frozen=True)
class Ladder:
    """The rungs of a batch, the lowest first."""

    code: str
    rungs: tuple[Rung, ...]

    def at(self, rows: Mapping[str, Row]) -> int:
        """The highest rung that is open with all below it; -1: none is."""
        return next((n for n, rung in enumerate(self.rungs) if not rung.is_open(rows)), len(self.rungs)) - 1


def _part(to: Rollout, module: str | None) -> float:
    if to.channels or (to.modules and module not in to.modules):
        return -1.0
    return 100.0 if module in to.whole else to.percentage


def _reads() -> tuple[Rung, ...]:
    return tuple(Rung(name, READS, Rollout(percentage=part)) for name, part in _PARTS.items())


def _writes() -> tuple[Rung, ...]:
    """Modules join one after another; those that are through stay whole. At the top no module is named: all of them."""
    through: tuple[str, ...] = ()
    rungs: list[Rung] = []
    for joining in (_LOW_RISK, ("assignment",), ("booking",)):
        every = through + joining
        for name, part in _PARTS.items():
            last = joining == ("booking",)
            whole = () if last and part == 100 else through
            to = Rollout(percentage=part, modules=() if last else every, whole=whole)
            rungs.append(Rung(f"{', '.join(joining)}: {name}", _WRITES, to, every))
        through = every
    return (*rungs, Rung("web events: 100 %", _WEB, Rollout()))


LADDERS: dict[str, Ladder] = {"G": Ladder("G", _reads()), "H": Ladder("H", _writes())}
# What a flag is on below its lowest rung here, where a batch before has opened a part of it.
_BELOW: dict[Flag, Rollout] = {_WEB: Rollout(percentage=5)}


@dataclass(frozen=True)
class Look:
    """Where a ladder stands, and what holds its next rung."""

    ladder: Ladder
    stands: int
    criteria: list[Criterion]

    @property
    def now(self) -> str:
        return self.ladder.rungs[self.stands].name if self.stands >= 0 else "off"

    @property
    def next(self) -> Rung | None:
        return next(iter(self.ladder.rungs[self.stands + 1 :]), None)

    @property
    def holding(self) -> list[str]:
        return [line.name for line in self.criteria if line.holds]


def of(code: str) -> Ladder:
    """The ladder of a batch; CouldNotRun when it has none."""
    found = LADDERS.get(code.strip().upper())
    if found is None:
        raise CouldNotRun(f"batch {code} has no rollout", todo=f"One of: {', '.join(LADDERS)}.")
    return found


def look(run: Run, code: str) -> Look:
    """Compare both sides and measure the gates anew (their verdict counts, as that of `make recon`), then ask the rest.

    Raises CouldNotRun when the batch is not in or its flag off: its run takes the first rung. At the top nothing is
    asked.
    """
    ladder, one = of(code), batch(code)
    with run.connect() as conn:
        stands = ladder.at(flags.read(conn))
        state = conn.execute("select b.status from phase2.batch_state as b where b.batch = %s", (one.code,)).fetchone()
    if state is None or state[0] in ("PENDING", "ROLLED_BACK") or stands < 0:
        raise CouldNotRun(
            f"batch {one.code} is not in, or its flag is off: its run takes the first rung",
            where=f"phase2.batch_state, {ladder.rungs[0].flag}",
            todo=f"make run BATCH={one.code}",
        )
    if stands + 1 == len(ladder.rungs):
        return Look(ladder, stands, [])
    _AFRESH[one.code](run)
    outcome = recon.evaluate(one.code, progress=run.progress)
    verdict = outcome.verdict
    found = "measured now, " + (f"blocked by {', '.join(verdict.blocked_by)}" if verdict.blocked_by else "all pass")
    gates = _line(f"gates of {one.code}", verdict.result == "PASS", f"{found} ({outcome.report.html.name})",
                  "Read the report, mend the cause")  # fmt: skip
    with run.connect() as conn:
        beside = _BESIDE[one.code](conn, ladder, stands)
        return Look(ladder, stands, [gates, *beside, *door.criteria(conn, one)])


def step_up(run: Run, code: str, reason: str) -> ledger.Entry:
    """The next rung. Raises GateFailed with what holds it, which is an entry "refused"; CouldNotRun at the top.

    Under a stop nothing is measured first: Stopped.
    """
    _refuse_without(reason)
    stop.raise_if_asked(run.databases.ops, of(code).code)
    seen = look(run, code)
    if seen.next is None:
        raise CouldNotRun(f"{code} is at the top: {seen.now}", todo="phase2 rollout shows the ladder.")
    if seen.holding:
        holding = [f"{line.name}: {line.evidence}. {line.todo}".strip() for line in seen.criteria if line.holds]
        with run.connect() as conn:
            body = {"rung": seen.next.name, "holding": holding, "reason": reason}
            ledger.append(conn, "refused", batch=seen.ladder.code, subject="rollout", run_id=run.run_id, body=body)
        raise GateFailed(seen.ladder.code, holding)
    return _move(run, seen, seen.stands + 1, reason)


def step_down(run: Run, code: str, reason: str) -> ledger.Entry:
    """One rung back, at once; below the lowest the flag is off. CouldNotRun when it is off already."""
    _refuse_without(reason)
    ladder = of(code)
    with run.connect() as conn:
        stands = ladder.at(flags.read(conn))
    if stands < 0:
        raise CouldNotRun(f"{code} stands on no rung: nothing to step down from", todo=f"phase2 rollout {code}")
    return _move(run, Look(ladder, stands, []), stands - 1, reason)


def _move(run: Run, seen: Look, to: int, reason: str) -> ledger.Entry:
    """Set the flag and say so, unless somebody has changed it since it was looked at."""
    ladder = seen.ladder
    with run.connect() as conn, conn.transaction():
        conn.execute("lock table phase2.flags in share row exclusive mode")
        rows = flags.read(conn)
        if ladder.at(rows) != seen.stands:
            raise CouldNotRun(
                "somebody has changed the flag meanwhile",
                where="phase2.flags",
                todo=f"Look again: phase2 rollout {ladder.code}",
            )
        rung = ladder.rungs[max(to, seen.stands)]  # whose flag moves
        below = [one for one in ladder.rungs[: to + 1] if one.flag == rung.flag]
        wanted = below[-1].rollout if below else _BELOW.get(rung.flag)
        after = ladder.rungs[to].name if to >= 0 else "off"
        words = f"rollout of {ladder.code}, {after}: {reason}"
        flags.change(conn, rung.flag, wanted is not None, reason=words,
                     rollout=_with_testers(rung.flag, rows, wanted))  # fmt: skip
        if to > seen.stands and ladder.at(flags.read(conn)) != to:
            raise CouldNotRun(
                f"{rung.flag} does not reach {after} here",
                where="PHASE2_KILL",
                todo="It names the flag, or the row names channels: phase2 flag shows it.",
            )
        return ledger.append(
            conn,
            "rollout",
            batch=ladder.code,
            subject=after,
            run_id=run.run_id,
            body={
                "from": seen.now,
                "to": after,
                "reason": reason,
                "criteria": [{"name": line.name, "state": line.state, "found": line.evidence}
                             for line in seen.criteria],
            },
        )  # fmt: skip


def _with_testers(flag: Flag, rows: Mapping[str, Row], wanted: Rollout | None) -> Rollout | None:
    """A rung's rollout beside what the row says of people and of strictness; the web's flag is of bookings."""
    if wanted is None:
        return None
    before = flags.in_force(flag, rows).rollout
    first = Rollout() if flag == _WEB else testers()
    return wanted.model_copy(
        update={
            "actors": tuple(dict.fromkeys((*before.actors, *first.actors))),
            "emails": tuple(dict.fromkeys((*before.emails, *first.emails))),
            "strict": before.strict,
        }
    )


def by_hand(conn: psycopg.Connection, flag: Flag, enabled: bool, *, reason: str, rollout: Rollout) -> None:
    """A flag as somebody sets it, by console or command: as `flags.change`, and not past its ladder.

    Where the environment's policy holds ladders, a flag of reads or writes is opened at most as far as the ladder's
    last go allows (what the ledger says of it since the last rollback; without a word there the first rung, which the
    batch's run takes). Less is always possible. Raises CouldNotRun.
    """
    with conn.transaction():
        conn.execute("lock table phase2.flags in share row exclusive mode")
        before, after = flags.in_force(flag, flags.read(conn)), Row(enabled, rollout)
        for ladder in LADDERS.values() if policy().ladder and flags.opens_more(before, after) else ():
            allowed = _allowed(conn, ladder)
            if _passes(ladder, allowed, flag, after):
                stands = ladder.rungs[allowed].name if allowed >= 0 else "off"
                raise CouldNotRun(
                    f"{flag} is opened by the ladder of {ladder.code}, whose last go is: {stands}",
                    where=f"PHASE2_ENV={policy().environment}",
                    todo=f'phase2 rollout {ladder.code} --go --reason "…" (on the console: Flags), or set less.',
                )
        flags.change(conn, flag, enabled, reason=reason, rollout=rollout)


def _allowed(conn: psycopg.Connection, ladder: Ladder) -> int:
    """The rung that the last step reached, up or down; after a rollback none."""
    said = ledger.latest(conn, "rollout", "rollback", batch=ladder.code)
    if said is not None and said.kind == "rollout":
        return next((n for n, rung in enumerate(ladder.rungs) if rung.name == said.subject), -1)
    state = conn.execute("select b.status from phase2.batch_state as b where b.batch = %s", (ladder.code,)).fetchone()
    return -1 if state is None or state[0] in ("PENDING", "ROLLED_BACK") else 0


def _passes(ladder: Ladder, allowed: int, flag: Flag, after: Row) -> bool:
    """Whether such a row would open more of a flag than the rungs up to this one do."""
    ours = [(n, rung) for n, rung in enumerate(ladder.rungs) if rung.flag == flag]
    if not ours:
        return False
    through = [rung for n, rung in ours if n <= allowed]
    if not through and flag in _BELOW:  # a batch before opens it in parts; the whole is the rung's
        return any(rung.is_open({flag: after}) for _, rung in ours)
    if not through:
        return True
    highest, modules = through[-1].rollout, {module for _, rung in ours for module in rung.covers}
    return any(_part(after.rollout, module) > _part(highest, module) for module in modules)


def _refuse_without(reason: str) -> None:
    if not reason.strip():
        raise CouldNotRun("a step needs a reason", todo='Say why: --reason "…"')


# --- what is asked beside the door ---------------------------------------------------------------------------------


def _judged(conn: psycopg.Connection, ladder: Ladder, stands: int) -> list[Criterion]:
    """The shadow reads since the last step: few samples hold it by themselves."""
    judged = shadow.judge(conn)
    least = min(line.compared for line in judged.lines)
    found = "; ".join(judged.reasons) or f"{least} of each compared or more, since {judged.since:%Y-%m-%d %H:%M} UTC"
    return [
        _line(
            "shadow reads",
            judged.may_step_up,
            found,
            "More reads (phase2 shadow --read makes them), or mend what differs",
        )
    ]


def _stood(conn: psycopg.Connection, ladder: Ladder, stands: int) -> list[Criterion]:
    """As long on the rung as the policy says, so that an hour's comparison is of it; and the reads still on for all."""
    asked, longest = policy(), POLICIES["production"].stands
    flag = ladder.rungs[max(stands, 0)].flag
    last = ledger.latest(conn, "flag", subject=flag)
    since = runlog.utc_now() - last.at if last else asked.stands
    found = f"since {last.at:%Y-%m-%d %H:%M} UTC" if last else "the flag was never changed"
    if asked.stands < longest:
        found += f"; {asked.environment} asks for {asked.stands}, production for {longest}"
    reads, rows = LADDERS["G"], flags.read(conn)
    now = reads.rungs[reads.at(rows)].name if reads.at(rows) >= 0 else "off"
    return [
        _line("time on this rung", since >= asked.stands, found, f"Wait until {asked.stands} have passed"),
        _line("reads", reads.at(rows) + 1 == len(reads.rungs), now, "Writes follow reads: phase2 rollout G"),
    ]


_BESIDE: dict[str, Callable[[psycopg.Connection, Ladder, int], list[Criterion]]] = {"G": _judged, "H": _stood}
_AFRESH: dict[str, Callable[[Run], object]] = {
    "G": parity.compare,
    "H": lambda run: write_cutover.hourly(run.databases),
}


def _line(name: str, holds: bool, found: str, todo: str) -> Criterion:
    return Criterion(name, "PASS" if holds else "HOLD", found, "" if holds else todo, "blueprint 6.8, 6.9", True)
