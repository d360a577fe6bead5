"""Readiness (blueprint 4; gates.md): what has to be there before batch A, and the window in which anything may run.

Each item is looked at where that is possible: copies in the ledger, settings and flags in the environment, the scripts
of the rollbacks. What nobody can see from here is signed, with evidence: an entry "readiness", which expires, and is
bound to the files that it speaks of, where there are such. Freeze windows are entries "freeze-window": within one the
shop and the back office are not deployed, and the migration runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from dotenv import dotenv_values

from bridge import backup, flags, ledger, postgres, runlog, scripts
from bridge.batches import ORDER, Batch
from bridge.errors import CouldNotRun, Stopped
from bridge.policy import Criterion, Policy, State, policy
from bridge.settings import ROOT, settings
from bridge.signoff import name_of, role_of

BACKUP_DAYS = 2  # a proven copy of a source is the latest one for that long
SIGNED_DAYS = 30  # what was signed is asked again after that

_PARAGRAPH = "blueprint 4"

# What a run reads of its environment; outside of the embedded server none of them has a default that is right: a
# worker's user of the system is many people.
SETTINGS = (
    "OPS_DB_URL",
    "BALISNAP_DB_URL",
    "BSTADMIN_DB_URL",
    "PHASE2_ENV",
    "PHASE2_ACTOR",
    "PHASE2_DISK_TOTAL_BYTES",
    "PHASE2_DISK_USED_BYTES",
)

# Blueprint 5: every flag is off unless somebody has switched it on.
_OFF = frozenset({"", "0", "false", "no", "off"})


@dataclass(frozen=True)
class Item:
    """Something that is signed: by each of these roles, as the files `of` are."""

    name: str
    roles: tuple[str, ...]
    asks: str
    of: Callable[[], tuple[Path, ...]] = tuple


def _rollbacks() -> tuple[Path, ...]:
    return tuple(scripts.FOLDER / scripts.rollback_script(code) for code in ORDER)


ITEMS: dict[str, Item] = {
    item.name: item
    for item in (
        Item("secrets", ("DevOps",), "secrets of ingest, signature and schedules are set in staging and production"),
        Item(
            "dashboards",
            ("Backend Lead", "Ops Lead"),
            "dashboards of error rate, queue lag, dead letters and payment mismatch are there",
        ),
        Item("rollbacks", ("Tech Lead",), "the rollback procedure of each batch is approved", _rollbacks),
        Item(
            "deployment path",
            ("DevOps",),
            "the way to staging and production is locked",
            lambda: (ROOT / "prefect.yaml", ROOT / "requirements.lock"),
        ),
    )
}


@dataclass(frozen=True)
class Window:
    """An approved window, in UTC: from its first moment to before its last."""

    entry: ledger.Entry
    first: datetime
    last: datetime

    def __str__(self) -> str:
        bali = timedelta(hours=8)
        return (
            f"{self.first + bali:%Y-%m-%d %H:%M} to {self.last + bali:%Y-%m-%d %H:%M} in Bali,"
            f" approved by {self.entry.actor} ({self.entry.body['role']}), entry {self.entry.no}"
        )


def criteria(conn: psycopg.Connection, one: Batch, policy: Policy) -> list[Criterion]:
    """The freeze window before any batch; before A the whole list of the blueprint. Only reads."""
    window = _in_window(conn, policy)
    if one.code != "A":
        return [window]
    return [
        *(_backup(conn, source, policy) for source in ("balisnap", "bstadmin")),
        _settings(policy),
        _flags(conn, policy),
        *(_signed(conn, item, role, policy) for item in ITEMS.values() for role in item.roles),
        window,
    ]


def sign(conn: psycopg.Connection, item: str, role: str, who: str, evidence: str) -> ledger.Entry:
    """Sign an item, with evidence (a link, a ticket). CouldNotRun: no such item, not this role's, or no evidence."""
    role, who = role_of(role), name_of(who)
    if item not in ITEMS:
        raise CouldNotRun(f"there is no item {item!r}", todo=f"Items: {', '.join(ITEMS)}.")
    if role not in ITEMS[item].roles:
        raise CouldNotRun(f"{item} is not signed by {role}", todo=f"By: {', '.join(ITEMS[item].roles)}.")
    if not evidence.strip():
        raise CouldNotRun(f"{item} is signed with evidence", todo='Say where it can be seen: --note "https://…"')
    body = {"role": role, "evidence": evidence, "digest": _digest(ITEMS[item]), "entered_by": ledger.who()}
    return ledger.append(conn, "readiness", subject=item, actor=who, body=body)


def approve_window(
    conn: psycopg.Connection, first: datetime, last: datetime, role: str, who: str, note: str = ""
) -> Window:
    """Approve a freeze window (PM or Owner); times with their zone. CouldNotRun when it ends before it begins."""
    role, who = role_of(role), name_of(who)
    if role not in ("PM", "Owner"):
        raise CouldNotRun(f"a freeze window is not approved by {role}", todo="By: PM, Owner.")
    first, last = first.astimezone(UTC), last.astimezone(UTC)
    if last <= max(first, runlog.utc_now()):
        raise CouldNotRun("the window ends before it begins, or is over", todo="Give --from and --to, in Bali time.")
    body = {"from": first.isoformat(), "to": last.isoformat(), "role": role, "note": note, "entered_by": ledger.who()}
    return _window(ledger.append(conn, "freeze-window", actor=who, body=body))


def revoke_window(conn: psycopg.Connection, entry: int, who: str, reason: str) -> Window:
    """Take a window back. CouldNotRun when there is no such window, or no reason."""
    found = next((window for window in windows(conn) if window.entry.no == entry), None)
    if found is None or not reason.strip():
        raise CouldNotRun(
            f"no freeze window is entry {entry}" if found is None else "a revocation needs a reason",
            todo="`phase2 freeze-window` lists those that stand; give --reason.",
        )
    body = {"revokes": entry, "reason": reason, "entered_by": ledger.who()}
    ledger.append(conn, "revocation", subject="freeze-window", actor=name_of(who), body=body)
    return found


def windows(conn: psycopg.Connection) -> list[Window]:
    """The windows that are not over and not taken back, the earliest first."""
    revoked = {entry.body.get("revokes") for entry in ledger.entries(conn, "revocation", subject="freeze-window")}
    found = [_window(entry) for entry in ledger.entries(conn, "freeze-window") if entry.no not in revoked]
    return sorted((w for w in found if w.last > runlog.utc_now()), key=lambda window: window.first)


def _window(entry: ledger.Entry) -> Window:
    return Window(entry, datetime.fromisoformat(entry.body["from"]), datetime.fromisoformat(entry.body["to"]))


def raise_if_outside(ops_url: str, batch: str) -> None:
    """Stopped when now lies in no freeze window, where the policy demands one: asked before each step of a run."""
    chosen = policy()
    if not chosen.freeze_window:
        return
    with postgres.connect(ops_url, application_name="phase2-window", read_only=True) as conn:
        line = _in_window(conn, chosen)
    if line.holds:
        raise Stopped(batch, f"outside of a freeze window, {line.evidence}", line.todo, by=line.name)


def _in_window(conn: psycopg.Connection, policy: Policy) -> Criterion:
    known, now = windows(conn), runlog.utc_now()
    state: State = "HOLD"
    if known and known[0].first <= now:
        state, found, todo = "PASS", str(known[0]), ""
    elif known:
        found, todo = f"it has not begun: {known[0]}", "Wait for it, or have an earlier one approved."
    else:
        found = "no window is approved"
        todo = 'phase2 freeze-window --from "…" --to "…" --role Owner --as NAME'
    return Criterion("freeze window", state, found, todo, _PARAGRAPH, policy.freeze_window)


def _backup(conn: psycopg.Connection, source: str, policy: Policy) -> Criterion:
    """A copy of the database that is named here, restored and compared (DBA), young enough, and still whole."""
    name, todo = f"backup of {source}", f"As DBA: phase2 backup --database {source}"
    copy = ledger.latest(conn, "backup", subject=source)
    if copy is None:
        return _line(name, "HOLD", "never taken", todo, policy)
    rows, age = sum(copy.body["rows"].values()), runlog.utc_now() - copy.at
    found = f"{rows:,} rows {copy.body['proof']}, {copy.at:%Y-%m-%d %H:%M} UTC, entry {copy.no}"
    if age > timedelta(days=BACKUP_DAYS):
        return _line(name, "HOLD", f"older than {BACKUP_DAYS} days: {found}", todo, policy)
    url = getattr(settings(), f"{source}_db_url")  # none: the embedded server's, of the home that the copy is in
    if url and postgres.describe(url.get_secret_value()) != copy.body["of"]:
        return _line(name, "HOLD", f"of another database, {copy.body['of']}: {found}", todo, policy)
    if not backup.is_whole(copy):
        return _line(name, "HOLD", f"{copy.body['file']} is not there, or not whole: {found}", todo, policy)
    return _line(name, "PASS", found, "", policy)


def _settings(policy: Policy) -> Criterion:
    """Names only: what is set here, never to what."""
    here = _environment()
    missing = [name for name in SETTINGS if not here.get(name)]
    if missing:
        return _line("settings", "HOLD", f"not set here: {', '.join(missing)}", "See .env.example.", policy)
    return _line("settings", "PASS", f"set here: {', '.join(SETTINGS)}", "", policy)


def _flags(conn: psycopg.Connection, policy: Policy) -> Criterion:
    here = _environment()
    on = [name for name in flags.FLAGS if (here.get(name) or "").strip().lower() not in _OFF]
    if conn.execute("select to_regclass('phase2.flags') is not null").fetchone() == (True,):
        on += sorted(name for name, row in flags.read(conn).items() if row.enabled)
    if on:
        return _line("flags off", "HOLD", f"on: {', '.join(on)}", "Switch them off (blueprint 5).", policy)
    return _line("flags off", "PASS", f"all {len(flags.FLAGS)} are off", "", policy)


def _environment() -> dict[str, str | None]:
    return {**dotenv_values(ROOT / ".env"), **os.environ}


def _signed(conn: psycopg.Connection, item: Item, role: str, policy: Policy) -> Criterion:
    name = f"{item.name}, {role}"
    todo = f'phase2 sign --item "{item.name}" --role "{role}" --as NAME --note EVIDENCE'
    told = [entry for entry in ledger.entries(conn, "readiness", subject=item.name) if entry.body.get("role") == role]
    missing = [path.name for path in item.of() if not path.is_file()]
    if missing:
        return _line(name, "HOLD", f"missing: {', '.join(missing)}", "Without it there is nothing to approve.", policy)
    if not told:
        return _line(name, "HOLD", f"nobody has signed that {item.asks}", todo, policy)
    entry = told[-1]
    found = f"{entry.actor}, {entry.at:%Y-%m-%d %H:%M} UTC, entry {entry.no}: {entry.body['evidence']}"
    if entry.body["digest"] != _digest(item):
        return _line(name, "HOLD", f"void, what it speaks of has changed: {found}", todo, policy)
    if runlog.utc_now() - entry.at > timedelta(days=SIGNED_DAYS):
        return _line(name, "HOLD", f"older than {SIGNED_DAYS} days: {found}", todo, policy)
    return _line(name, "PASS", found, "", policy)


def _digest(item: Item) -> str:
    return scripts.checksum(*(path for path in item.of() if path.is_file()))


def _line(name: str, state: State, evidence: str, todo: str, policy: Policy) -> Criterion:
    return Criterion(name, state, evidence, todo, _PARAGRAPH, policy.readiness)
