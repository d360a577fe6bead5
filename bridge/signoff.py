"""Sign-offs (blueprint 10; gates.md, go / no-go): who, in which role, lets a batch start, and what exactly was signed.

A sign-off is an entry "sign-off" of the ledger, bound to the digest of what was signed: the batch's plan and code, the
numbers by which the batch before it was judged with all that its verdict rests on, the waivers that stand before it,
and the certificate of its rehearsal. When one of these is another, the sign-off is void: it shows, and does not count.
The same numbers judged again are the same. A "revocation" takes one back.

Names are what people say of themselves (`--as`); who typed it is kept beside (`entered_by`), and who ran a batch is
none of the other eyes on it, whatever names they type. Nothing here proves who somebody is: the rights on the ops
database do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from bridge import door, ledger, waivers
from bridge.batches import Batch, batch, before
from bridge.errors import CouldNotRun
from bridge.policy import Criterion, Policy
from bridge.settings import settings
from bridge.steps import Run

ROLES = ("Tech Lead", "Backend Lead", "DevOps", "Ops Lead", "Owner", "DBA", "PM")

# gates.md: always these four, the Ops Lead when operations' pages and writes move
_ALWAYS = ("Tech Lead", "Backend Lead", "DevOps", "Owner")
_ALSO: dict[str, tuple[str, ...]] = {"G": ("Ops Lead",), "H": ("Ops Lead",)}

# Of these roles each is another person: four who look at a batch are four pairs of eyes, and the owner of the business
# is none of those who build or run it. A DBA may be the DevOps, a PM the Owner.
APART = frozenset({"Tech Lead", "Backend Lead", "DevOps", "Ops Lead", "Owner"})

_PARAGRAPH = "gates.md, go / no-go"

# The verdict's numbers and the keys of its exceptions: what somebody who signs has read.
_JUDGED = """
with latest as (
    select g.* from phase2.gate_results as g
    where
        g.batch = %(batch)s
        and g.evaluated_at = (select max(l.evaluated_at) from phase2.gate_results as l where l.batch = %(batch)s)
)

select
    l.gate_id, l.status, l.numerator::text, l.denominator::text, l.value::text, l.comparator, l.threshold::text,
    (
        select (count(*), sum(hashtextextended(concat_ws('|', e.entity, e.key, e.status), 0)))::text
        from phase2.exceptions as e
        where e.batch = l.batch and e.evaluated_at = l.evaluated_at and e.gate_id = l.gate_id
    )
from latest as l
order by l.gate_id
"""


@dataclass(frozen=True)
class SignOff:
    """One role's latest word on a batch; `void` says why it does not count (empty: it counts)."""

    role: str
    who: str
    entry: ledger.Entry
    void: str

    def __str__(self) -> str:
        note = f': "{self.entry.body["note"]}"' if self.entry.body.get("note") else ""
        typed = self.entry.body.get("entered_by")
        by = f" (entered by {typed})" if typed and not _same(typed, self.who) else ""
        return f"{self.who}{by}, {self.entry.at:%Y-%m-%d %H:%M} UTC, entry {self.entry.no}{note}"


def needed(code: str) -> tuple[str, ...]:
    """The roles without whose sign-off a batch does not start."""
    return _ALWAYS + _ALSO.get(code, ())


def what_is_signed(conn: psycopg.Connection, one: Batch) -> dict[str, Any]:
    """What a sign-off of this batch covers, part by part; only reads."""
    signed: dict[str, Any] = {"batch": one.code, "its plan and code": _digest(door.code_of(one))}
    for code in before(one.code)[-1:]:
        signed[f"verdict of {code}"] = _digest(conn.execute(_JUDGED, {"batch": code}).fetchall())
        signed[f"what {code} rests on"] = _digest(door.bound_to(conn, batch(code)))
    signed["waivers"] = sorted(waiver.entry for waiver in waivers.standing(conn) if waiver.batch in before(one.code))
    certificate = ledger.latest(conn, "rehearsal", batch=one.code)
    return signed | {"rehearsal": certificate.digest if certificate else None}


def sign(conn: psycopg.Connection, one: Batch, role: str, who: str, note: str = "") -> ledger.Entry:
    """Sign a batch off as it is now. CouldNotRun: no such role, no name, or the name has signed for another role."""
    role, who = role_of(role), name_of(who)
    for other in given(conn, one):
        if not other.void and other.role != role and {role, other.role} <= APART and _same(other.who, who):
            raise CouldNotRun(
                f"{who} has signed for {other.role} already: {role} must be another person",
                where=f"sign-offs of batch {one.code}, entry {other.entry.no}",
                todo="Let another person sign, or revoke the other sign-off first.",
            )
    signed = what_is_signed(conn, one)
    body = {"digest": _digest(signed), "signed": signed, "note": note, "entered_by": ledger.who()}
    return ledger.append(conn, "sign-off", batch=one.code, subject=role, actor=who, body=body)


def revoke(conn: psycopg.Connection, one: Batch, role: str, who: str, reason: str) -> ledger.Entry:
    """Take a role's sign-off back. CouldNotRun when there is none, or no reason."""
    role, who = role_of(role), name_of(who)
    if not reason.strip():
        raise CouldNotRun("a revocation needs a reason", todo='Say it: --reason "…"')
    standing = next((held for held in given(conn, one) if held.role == role), None)
    if standing is None:
        raise CouldNotRun(
            f"there is no sign-off of {role} for batch {one.code}",
            where="phase2.ledger",
            todo=f"`phase2 go-no-go --batch {one.code}` shows those there are.",
        )
    body = {"revokes": standing.entry.no, "reason": reason, "entered_by": ledger.who()}
    return ledger.append(conn, "revocation", batch=one.code, subject=role, actor=who, body=body)


def given(conn: psycopg.Connection, one: Batch) -> list[SignOff]:
    """The latest sign-off of each role, void ones too, none that was taken back; the first given first."""
    latest: dict[str, ledger.Entry] = {}
    for entry in ledger.entries(conn, "sign-off", "revocation", batch=one.code):
        if entry.subject in ROLES:
            latest.pop(entry.subject, None)
            if entry.kind == "sign-off":
                latest[entry.subject] = entry
    if not latest:
        return []
    now = what_is_signed(conn, one)
    found: list[SignOff] = []
    for role, entry in latest.items():
        void = "" if entry.body.get("digest") == _digest(now) else _changed(entry.body.get("signed") or {}, now)
        twice = [held for held in found if not held.void and _same(held.who, entry.actor) and held.role in APART]
        if not void and twice and role in APART:  # whoever wrote it past `sign`
            void = f"{entry.actor} has signed for {twice[0].role} too"
        found.append(SignOff(role, entry.actor, entry, void))
    return found


def ask(run: Run, one: Batch) -> list[Criterion]:
    """Every criterion before a batch, as it is now: what somebody who decides is shown."""
    with run.connect() as conn:
        return door.criteria(conn, one)


def decide(run: Run, one: Batch, *, go: bool, role: str, who: str, note: str = "") -> ledger.Entry:
    """Keep a decision: an entry "decision", whose subject is `go` or `no-go`. A yes signs in a role.

    A yes that cannot be signed (nobody's, in no role, of somebody who signed in another one) is a no.
    """
    with run.connect() as conn, conn.transaction():
        signed, refused = None, None
        if go is True:
            try:
                signed = sign(conn, one, role, who, note)
            except CouldNotRun as error:
                refused = str(error)
        return ledger.append(
            conn,
            "decision",
            batch=one.code,
            subject="go" if signed else "no-go",
            run_id=run.run_id,
            actor=signed.actor if signed else " ".join(who.split()) or None,
            body={
                "role": role,
                "note": note,
                "sign-off": signed.no if signed else None,
                "refused": refused,
                "holding": [line.name for line in door.criteria(conn, one) if line.holds],
                "entered_by": ledger.who(),
            },
        )


def criteria(conn: psycopg.Connection, one: Batch, policy: Policy) -> list[Criterion]:
    """Reports of the batch before, each needed role, and that whoever ran is not the only one who approves."""
    signed = {held.role: held for held in given(conn, one)}
    lines = [_reports(conn, code, policy) for code in before(one.code)[-1:]]
    for role in needed(one.code):
        held = signed.get(role)
        how = f'phase2 sign --batch {one.code} --role "{role}" --as NAME'
        if held is None:
            revoked = ledger.latest(conn, "revocation", batch=one.code, subject=role)
            found = f"revoked by {revoked.actor} (entry {revoked.no})" if revoked else "nobody has signed"
            lines.append(_line(f"sign-off {role}", "HOLD", found, how, policy))
        elif held.void:
            lines.append(_line(f"sign-off {role}", "HOLD", f"void, {held.void}: {held}", f"Sign anew: {how}", policy))
        else:
            lines.append(_line(f"sign-off {role}", "PASS", str(held), "", policy))
    return [*lines, _not_only_the_runner(conn, one, signed.values(), policy)]


def _not_only_the_runner(conn: psycopg.Connection, one: Batch, signed: Iterable[SignOff], policy: Policy) -> Criterion:
    """Four eyes: of those whose sign-offs count one has neither run the batch that they approve, nor typed for who has.

    Everybody has run it who did since it was last not in. Who typed is nobody's to choose with the name; an entry that
    does not tell it is nobody else's.
    """
    name = "approved by another than ran it"
    approved = before(one.code)[-1:]
    undone = ledger.latest(conn, "rollback", batch=approved[0]) if approved else None
    runs = ledger.entries(conn, "run", batch=approved[0], after=undone.no if undone else 0) if approved else []
    if not runs:
        return _line(name, "N/A", "nothing ran before it", "", policy)
    runners = list(dict.fromkeys(run.actor for run in runs))

    def ran(who: str | None) -> bool:
        return not who or any(_same(who, runner) for runner in runners)

    approvers = [(held.who, held.entry.body.get("entered_by")) for held in signed if not held.void]
    told = ", ".join(f"{who} (entered by {typed or 'nobody knows'})" for who, typed in approvers) or "nobody"
    found = f"{approved[0]} was run by {', '.join(runners)}; approved by {told}"
    if any(not ran(who) and not ran(typed) for who, typed in approvers):
        return _line(name, "PASS", found, "", policy)
    todo = "Let somebody sign who did not run it, as who they are (PHASE2_ACTOR, or a user of their own)."
    return _line(name, "HOLD", found, todo, policy)


def _reports(conn: psycopg.Connection, code: str, policy: Policy) -> Criterion:
    """Blueprint 10.2: the reports exist and are those that the ledger tells of. Demanded wherever there are some."""
    name, again = f"reports of {code}", f"Write them anew: make recon BATCH={code}"
    verdict = ledger.latest(conn, "verdict", batch=code)
    if verdict is None:
        return Criterion(name, "HOLD", "no verdict yet", again, _PARAGRAPH, policy.sign_offs)
    wrong = []
    for file, digest in (verdict.body.get("files") or {}).items():
        path = settings().phase2_reports / file
        if not path.exists():
            wrong.append(f"{file} is not there")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            wrong.append(f"{file} is not the one that was written")
    if wrong:
        return Criterion(name, "HOLD", f"{'; '.join(wrong)} (entry {verdict.no})", again, _PARAGRAPH, policy.sign_offs)
    found = f"{len(verdict.body.get('files') or {})} files, as entry {verdict.no} has them"
    return Criterion(name, "PASS", found, "", _PARAGRAPH, policy.sign_offs)


def role_of(role: str) -> str:
    """The role of that name, in any case; CouldNotRun names the ones there are."""
    found = next((known for known in ROLES if _same(known, role)), None)
    if found is None:
        raise CouldNotRun(f"there is no role {role!r}", todo=f"Roles: {', '.join(ROLES)}.")
    return found


def name_of(who: str) -> str:
    """A person's name without needless space; CouldNotRun when there is none."""
    if not who.strip():
        raise CouldNotRun("a name is missing", todo="Say who decides: --as NAME.")
    return " ".join(who.split())


def _same(one: str, other: str) -> bool:
    return " ".join(one.split()).casefold() == " ".join(other.split()).casefold()


def _changed(then: dict[str, Any], now: dict[str, Any]) -> str:
    parts = [part for part in {**then, **now} if then.get(part) != now.get(part)]
    return f"changed since it was signed: {', '.join(parts) or 'what was signed'}"


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def _line(name: str, state: Any, evidence: str, todo: str, policy: Policy) -> Criterion:
    return Criterion(name, state, evidence, todo, _PARAGRAPH, policy.sign_offs)
