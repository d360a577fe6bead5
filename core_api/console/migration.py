"""Pages of the migration itself: where it stands, its gates, who lets it go on, what is on, and the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timezone
from pathlib import Path
from typing import Any

import psycopg
from fastapi import Response

from bridge import (
    batches,
    conflicts,
    daily,
    door,
    exit_criteria,
    flags,
    gates,
    guardrails,
    ledger,
    readiness,
    rollout,
    runlog,
    signoff,
    steps,
    stop,
)
from bridge.batches import Batch
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.policy import policy
from bridge.reports.mask import mask_text
from bridge.settings import Databases, settings
from core_api.console.frame import BALI, Visit, act, page
from core_api.errors import Refused
from core_api.ingest import dead_letters

_RUNS = ("run", "verdict", "error", "hold", "rollback", "rehearsal", "sign-off", "revocation", "decision", "waiver")
_TYPES = {"json": "application/json", "md": "text/markdown", "html": "text/html"}
_PAGE = 50
_READINGS = 288  # of a guardrail: a day of them


# -- where it stands --------------------------------------------------------------------------------------------------


@page("/console")
async def overview(visit: Visit) -> Response:
    """Each batch: its status, what blocks it, and what is next."""
    lines = await visit.bridge(lambda: steps.status(visit.core.ops_url))
    following = next((line.batch for line in lines if line.status != "PASS"), None)

    def look(conn: psycopg.Connection) -> dict[str, Any]:
        return {
            "stops": stop.standing(conn),
            "door": door.criteria(conn, batches.batch(following)) if following else [],
            "conflicts": conflicts.listed(conn),
        }

    found = await visit.ops(look)
    try:
        letters, pending = await dead_letters.depths(visit.core.pool)
    except psycopg.errors.UndefinedTable:  # before batch A there is nothing to ingest into
        letters, pending = {}, (0, 0.0)
    return visit.page(
        "overview.html.j2",
        lines=lines,
        following=following,
        holding=[line for line in found["door"] if line.holds],
        stops=found["stops"],
        conflicts=found["conflicts"],
        letters=letters,
        pending=pending,
    )


@act("/console/stop", "stop")
async def stopped(visit: Visit) -> Response:
    """Hold the whole migration at its next safe point."""
    reason = visit.reason
    await visit.ops(lambda conn: stop.ask(conn, reason), write=True)
    return visit.to("/console", "stopped")


@act("/console/resume", "resume")
async def resumed(visit: Visit) -> Response:
    """Lift every stop that stands, when the page has shown all of them."""
    reason, seen = visit.reason, visit.form.get("seen", "")
    await visit.ops(lambda conn: stop.lift(conn, reason, seen=int(seen) if seen.isdecimal() else None), write=True)
    return visit.to("/console", "resumed")


@page("/console/guardrails")
async def guardrails_page(visit: Visit) -> Response:
    """What is measured every five minutes while a flag of F, G or H is on: a week of it."""

    def look(conn: psycopg.Connection) -> tuple[Any, ...]:
        return guardrails.history(conn), guardrails.active(conn), stop.standing(conn)

    kept, active, stops = await visit.ops(look)
    shown = [
        {"one": one, "limit": guardrails.limit_of(one), "readings": kept[name][-_READINGS:]}
        for name, one in guardrails.guardrails().items()
    ]
    return visit.page("guardrails.html.j2", shown=shown, active=active, stops=stops)


@page("/console/daily")
async def daily_page(visit: Visit) -> Response:
    """The latest report of the day: gates with two weeks drawn, exceptions, money at stake; and those before it."""

    def look(conn: psycopg.Connection) -> tuple[Any, ...]:
        told = ledger.newest(conn, "daily", limit=_PAGE)
        if not told:
            return None, {}, []
        by_day = {entry.body["day"]: entry for entry in reversed(told)}  # of one made again its last
        kept = daily.trends(conn)
        return daily.as_of(conn, told[0].body["day"], kept), kept, sorted(by_day.values(), key=_day, reverse=True)

    document, kept, days = await visit.ops(look, snapshot=True)
    return visit.page("daily.html.j2", document=document, trends=kept, days=days)


def _day(entry: ledger.Entry) -> str:
    return entry.body["day"]


@page("/console/exit-criteria")
async def exit_criteria_page(visit: Visit) -> Response:
    """What of blueprint 11 holds as the system stands, and what each criterion still lacks."""
    return visit.page("exit_criteria.html.j2", criteria=await visit.ops(exit_criteria.criteria))


# -- one batch --------------------------------------------------------------------------------------------------------


def _batch(visit: Visit) -> Batch:
    code = visit.request.path_params["code"]
    if code not in batches.ORDER:
        raise Refused(404, "NOT_FOUND", f"there is no such batch; there are {', '.join(batches.ORDER)}")
    return batches.batch(code)


@page("/console/batches/{code}")
async def batch(visit: Visit) -> Response:
    """Gates with their history, parity, exceptions, reports, runs."""
    one = _batch(visit)
    lines = await visit.bridge(lambda: steps.status(visit.core.ops_url))

    def look(conn: psycopg.Connection) -> tuple[Any, ...]:
        verdicts = ledger.newest(conn, "verdict", batch=one.code, limit=20)
        return (
            gates.history(conn, one.code),
            verdicts,
            ledger.newest(conn, *_RUNS, batch=one.code, limit=30),
            _report(verdicts[0]) if verdicts else None,
        )

    history, verdicts, runs, report = await visit.ops(look)
    drawn: dict[str, list[dict[str, Any]]] = {}
    for row in history:
        drawn.setdefault(row["gate_id"], []).append(row)
    return visit.page(
        "batch.html.j2",
        one=one,
        line=next(line for line in lines if line.batch == one.code),
        codes=batches.ORDER,
        history=drawn,
        verdicts=verdicts,
        runs=runs,
        report=report,
    )


def _report(verdict: ledger.Entry) -> dict[str, Any] | None:
    """The latest report's content, when its file is the one that the ledger tells of; personal data is masked in it."""
    content = next((_file(name, digest) for name, digest in _files(verdict).items() if name.endswith(".json")), None)
    return json.loads(content) if content else None


def _files(entry: ledger.Entry) -> dict[str, str]:
    return entry.body.get("files") or entry.body.get("digests") or {}


def _file(name: str, digest: str) -> bytes | None:
    """A file below the reports' folder; None when it is elsewhere, gone, or not the one of this digest."""
    root = settings().phase2_reports.resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root) or not path.is_file():
        return None
    content = path.read_bytes()
    return content if hashlib.sha256(content).hexdigest() == digest else None


@page("/console/reports/{entry:int}/{kind}")
async def download(visit: Visit) -> Response:
    """A report's file by the ledger's entry of its verdict, or of the day: no name of a file is ever asked for."""
    kind, number = visit.request.path_params["kind"], visit.request.path_params["entry"]
    if kind not in _TYPES or number >= 2**63:
        raise Refused(404, "NOT_FOUND", "a report is json, md or html")
    entries = await visit.ops(lambda conn: ledger.newest(conn, "verdict", "daily", before=number + 1, limit=1))
    if not entries or entries[0].no != number:
        raise Refused(404, "NOT_FOUND", "no report has this entry of the ledger")
    name, digest = next((i for i in _files(entries[0]).items() if i[0].endswith(f".{kind}")), ("", ""))
    content = await visit.bridge(lambda: _file(name, digest)) if name else None
    if content is None:
        raise Refused(
            409,
            "REPORT_NOT_THERE",
            "the report is not on this machine as the ledger tells of it: make recon, or phase2 daily, writes it anew",
        )
    of = entries[0].batch or entries[0].kind
    headers = {
        "content-disposition": f'attachment; filename="{of}-{number}-{Path(name).name}"',
        "content-security-policy": "sandbox; default-src 'none'",
    }
    return Response(content, headers=headers, media_type=_TYPES[kind])


# -- who lets it go on ------------------------------------------------------------------------------------------------


@page("/console/sign-offs/{code}")
async def sign_offs(visit: Visit) -> Response:
    """The door of a batch as a run would meet it, who has signed, who is missing."""
    one = _batch(visit)

    def look(conn: psycopg.Connection) -> tuple[Any, ...]:
        return door.criteria(conn, one), signoff.given(conn, one), readiness.windows(conn)

    lines, given, windows = await visit.ops(look)
    return visit.page(
        "sign_offs.html.j2",
        one=one,
        codes=batches.ORDER,
        lines=lines,
        holding=[line.name for line in lines if line.holds],
        given={held.role: held for held in given},
        needed=signoff.needed(one.code),
        items=[item for item in readiness.ITEMS.values() if visit.session.role in item.roles],
        windows=windows,
        policy=policy(),
    )


@act("/console/sign-offs/{code}/sign", "sign")
async def sign(visit: Visit) -> Response:
    """Sign a batch off as it is now, in the role of the session."""
    one, who = _batch(visit), visit.session
    note = visit.form.get("note", "").strip()[:2000]
    await visit.ops(lambda conn: signoff.sign(conn, one, who.role, who.name, note), write=True)
    return visit.to(f"/console/sign-offs/{one.code}", "signed")


@act("/console/sign-offs/{code}/revoke", "sign")
async def revoke(visit: Visit) -> Response:
    """Take the sign-off of the session's role back."""
    one, who, reason = _batch(visit), visit.session, visit.reason
    await visit.ops(lambda conn: signoff.revoke(conn, one, who.role, who.name, reason), write=True)
    return visit.to(f"/console/sign-offs/{one.code}", "revoked")


@act("/console/readiness", "sign")
async def ready(visit: Visit) -> Response:
    """Sign an item of the readiness, with evidence."""
    item, evidence, who = visit.needed("item", "the item"), visit.needed("evidence", "the evidence"), visit.session
    await visit.ops(lambda conn: readiness.sign(conn, item, who.role, who.name, evidence), write=True)
    return visit.to("/console/sign-offs/A", "signed")


@act("/console/windows", "freeze window")
async def approve_window(visit: Visit) -> Response:
    """Approve a freeze window, given in Bali time."""
    first, last = _bali(visit.needed("from", "the begin")), _bali(visit.needed("to", "the end"))
    who, note = visit.session, visit.form.get("note", "")[:2000]
    await visit.ops(lambda conn: readiness.approve_window(conn, first, last, who.role, who.name, note), write=True)
    return visit.to("/console/sign-offs/A", "window")


@act("/console/windows/{entry:int}/revoke", "freeze window")
async def revoke_window(visit: Visit) -> Response:
    """Take a freeze window back."""
    number, who, reason = visit.request.path_params["entry"], visit.session, visit.reason
    await visit.ops(lambda conn: readiness.revoke_window(conn, number, who.name, reason), write=True)
    return visit.to("/console/sign-offs/A", "revoked")


def _bali(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=timezone(BALI))
    except ValueError:
        raise Refused(422, "VALIDATION_ERROR", "a time is written as 2026-12-31T22:00, in Bali time") from None


# -- what is on -------------------------------------------------------------------------------------------------------


@page("/console/flags")
async def flags_page(visit: Visit) -> Response:
    """Each flag, for whom it is on, and what beats it."""
    rows, stops = await visit.ops(lambda conn: (flags.read(conn), stop.standing(conn)))
    shown = [
        {
            "flag": flag,
            "row": flags.in_force(flag, rows),
            "words": flags.words(flags.in_force(flag, rows)),
            "kept": rows.get(flag),
            "killed": flag in core_settings().killed,
        }
        for flag in flags.FLAGS
    ]
    changes = await visit.ops(lambda conn: ledger.newest(conn, "flag", "rollout", "refused", limit=15))
    return visit.page("flags.html.j2", shown=shown, changes=changes, ladders=_ladders(rows), asked=_asked, stops=stops)


def _ladders(rows: dict[str, flags.Row]) -> list[rollout.Look]:
    """Where each ladder stands; what holds its next rung is asked when a step is."""
    return [rollout.Look(ladder, ladder.at(rows), []) for ladder in rollout.LADDERS.values()]


@dataclass
class Asked:
    """A step up that somebody has asked this process for; `outcome` is None while it is looked at."""

    by: str
    role: str
    at: datetime
    outcome: int | None = None
    words: str = ""


_asked: dict[str, Asked] = {}
_running: set[asyncio.Task[None]] = set()


def _ladder(visit: Visit) -> str:
    code = visit.request.path_params["code"]
    if code not in rollout.LADDERS:
        raise Refused(404, "NOT_FOUND", f"there is no such ladder; there are {', '.join(rollout.LADDERS)}")
    return code


@act("/console/rollout/{code}/up", "rollout")
async def step_up(visit: Visit) -> Response:
    """The next rung, when nothing holds it. By the command itself, in a process of its own: it works with dbt."""
    code, reason = _ladder(visit), visit.reason
    if stops := await visit.ops(stop.standing):
        raise CouldNotRun(f"the migration is stopped: {stops[0]}", todo=f"{stop.HOW_TO_LIFT}, or on the overview.")
    if code in _asked and _asked[code].outcome is None:
        raise Refused(409, "STEP_UNDER_WAY", f"{_asked[code].by} has asked for a step already: see how it ends")
    asked = _asked[code] = Asked(visit.session.name, visit.session.role, datetime.now(UTC))
    task = asyncio.create_task(_step(asked, code, reason))
    _running.add(task)
    task.add_done_callback(_running.discard)
    return visit.to("/console/flags", "asked")


async def _step(asked: Asked, code: str, reason: str) -> None:
    try:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bridge.cli", "rollout", code, "--go", f"--reason={reason}"),
            env=os.environ
            | {"PHASE2_ACTOR": asked.by, "PHASE2_ACTOR_ROLE": asked.role, "NO_COLOR": "1", "COLUMNS": "200"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await child.communicate()
        asked.words = mask_text(said.decode(errors="replace")[-2000:])
        asked.outcome = child.returncode
    except OSError as error:
        asked.words, asked.outcome = str(error), 2


@act("/console/rollout/{code}/down", "rollout")
async def step_down(visit: Visit) -> Response:
    """One rung back, at once; nothing is asked."""
    code, reason, ops = _ladder(visit), visit.reason, visit.core.ops_url
    databases = Databases(ops=ops, balisnap="", bstadmin=visit.core.bstadmin_url or "", channel=None)
    run = steps.Run(runlog.uuid7(), databases, steps.today_in_bali())
    await visit.bridge(lambda: rollout.step_down(run, code, reason))
    return visit.to("/console/flags", "down")


@act("/console/flags/{flag}", "flag")
async def change_flag(visit: Visit) -> Response:
    """Switch a flag, for whom, with a reason; lists that are left blank stay as they are."""
    known = {name: name for name in flags.FLAGS}
    flag = known.get(visit.request.path_params["flag"])
    if flag is None:
        raise Refused(404, "NOT_FOUND", "there is no such flag")
    enabled, reason = visit.needed("enabled", "on or off"), visit.reason
    given: dict[str, Any] = {name: _words(visit, name) for name in ("actors", "channels", "modules")}
    if emails := _words(visit, "emails"):
        given["emails"] = [email.lower() for email in emails]
    elif visit.form.get("forget_emails"):
        given["emails"] = []
    given["strict"] = bool(visit.form.get("strict"))
    try:
        given["percentage"] = float(visit.needed("percentage", "the percentage"))
    except ValueError:
        raise Refused(422, "VALIDATION_ERROR", "the percentage is a number from 0 to 100") from None

    def change(conn: psycopg.Connection) -> None:
        before = flags.read(conn).get(flag)
        wanted = (before.rollout if before else flags.Rollout()).model_dump() | given
        rollout.by_hand(conn, flag, enabled == "on", reason=reason, rollout=flags.rollout_of(wanted))

    await visit.ops(change, write=True)
    return visit.to("/console/flags", "flag")


def _words(visit: Visit, name: str) -> list[str]:
    return [word.strip() for word in visit.form.get(name, "").replace("\n", ",").split(",") if word.strip()]


# -- the ledger -------------------------------------------------------------------------------------------------------


@page("/console/audit")
async def audit(visit: Visit) -> Response:
    """Who did what, when and why: the ledger, the newest entries first."""
    kind, code, actor, before = (visit.asked(name) for name in ("kind", "batch", "actor", "before"))

    def look(conn: psycopg.Connection) -> tuple[Any, ...]:
        number = int(before) if before and before.isdigit() and len(before) < 19 else None
        kinds = (kind,) if kind else ()
        found = ledger.newest(conn, *kinds, batch=code, actor=actor, before=number, limit=_PAGE + 1)
        return found, ledger.head(conn)

    found, head = await visit.ops(look)
    return visit.page(
        "audit.html.j2",
        entries=found[:_PAGE],
        following=found[_PAGE - 1].no if len(found) > _PAGE else None,
        head=head,
        problems=None,
        codes=batches.ORDER,
    )


@act("/console/audit/verify", "verify")
async def verify(visit: Visit) -> Response:
    """Recompute the chain, the rows beside it, and the files of every report."""
    head, problems = await visit.ops(lambda conn: (ledger.head(conn), ledger.verify(conn)))
    return visit.page("audit.html.j2", entries=[], following=None, head=head, problems=problems, codes=batches.ORDER)
