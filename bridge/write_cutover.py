"""What batch H does (blueprint 6.9): its flag on for the testers and what is low in risk, one write seen on both sides,
both sides compared, and off again; and what is compared each hour while it is on.

The write that is seen changes nothing: a note as it stands, on the oldest booking that both sides have alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from bridge import bstadmin, conflicts, emitters, flags, gates, ledger, postgres, runlog, write_rollback
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.flags import FRESH_SECONDS, Flag
from bridge.ingestion import Service, Unfit, client, data_of, words_of
from bridge.reads import testers
from bridge.scripts import ScriptResult
from bridge.settings import Databases

if TYPE_CHECKING:  # steps dispatches to this module
    from bridge.steps import Run

WRITES: Flag = write_rollback.FLAG
LATEST = timedelta(seconds=5)  # a write of this batch's own has ended by then; live ones are given conflicts.SETTLE
TRIES = 5
_LOW_RISK, _OTHERS = "note", ("assignment", "booking")

# The oldest bookings, which nobody looks at any more: of one row in bstadmin, with nothing open.
_QUIET = """
select c.booking_key, min(r.external_ref)::integer, c.note
from public.booking_core as c
join public.channel_external_refs as r
    on r.entity_type = 'BOOKING' and r.entity_key = c.booking_key and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
where
    c.note is not distinct from rulebook.norm_lines(c.note)
    and not phase2.is_frozen(c.booking_key)
    and not exists (
        select 1 from phase2.write_intents as i
        where
            i.booking_key = c.booking_key and (i.legacy_status = 'PENDING' or i.core_status in ('PENDING', 'BEHIND'))
    )
group by c.booking_key
having count(*) = 1
order by c.tour_date, c.booking_key
limit 200
"""
_INTENT = "select i.mode, i.core_status, i.legacy_status from phase2.write_intents as i where i.intent_id = %s"
# As sql/roles/writer_bstadmin.sql grants it.
_MAY_WRITE = """
select
    current_setting('transaction_read_only') = 'off',
    (
        select bool_and(has_column_privilege('public.bookings', c.name, 'update'))
        from unnest(array[
            'updated_at', 'note', 'meeting_point', 'package_id', 'assigned_driver_id', 'assigned_at', 'status',
            'tour_date', 'total_price', 'currency'
        ]) as c (name)
    )
    and has_column_privilege('public.audit_logs', 'id', 'insert')
    and has_column_privilege('public.drivers', 'id', 'select')
"""
_LOST = "select h.numerator::integer from dbt_recon.recon_h as h where h.kind = 'measure' and h.gate_id = 'H-02'"


# --- what the steps do ---------------------------------------------------------------------------------------------


def switch_on(run: Run, flag: Flag) -> dict[str, Any]:
    """The first rung: on for the testers, note and meeting point alone; a flag that is on stays as it is.

    Raises CouldNotRun: nobody is named (OPS_TESTERS); Unfit: it is killed here.
    """
    from bridge import rollout  # which stands on steps

    with run.connect() as conn:
        row = flags.read(conn).get(flag)
        if row is None or not row.enabled:
            first, people = rollout.LADDERS["H"].rungs[0], testers()
            wanted = first.rollout.model_copy(update={"actors": people.actors, "emails": people.emails})
            flags.change(conn, flag, True, reason=f"batch H: {first.name}", rollout=wanted)
        standing = flags.in_force(flag, flags.read(conn))
    if not standing.enabled:
        raise Unfit(f"{flag} is killed here: PHASE2_KILL names it")
    return {"on": flags.words(standing)}


def look(run: Run, what: str) -> dict[str, Any]:
    """One look: `ladder`, `writer` (before), `write`, `compare` (after).

    Raises CouldNotRun: nobody answers, or it works on another ops database; Unfit: something is not as it must be.
    """
    return _LOOKS[what](run)


def switch_off(run: Run, script: Callable[[], ScriptResult]) -> tuple[ScriptResult, dict[str, Any]]:
    """The flag off by `script`, then every process, open writes and due events waited for, and H-02 counted.

    Where somebody wrote it is evidence for H-04 and G-04 (`phase2.drills`). Raises CouldNotRun when a write does not
    reach bstadmin in time, or something is lost; the flag is off then too.
    """
    with run.connect() as conn:
        began, at = time.monotonic(), write_rollback.now(conn)
        result = script()
        rolled = write_rollback.drained(conn, at)
        found: dict[str, Any] = {"batch": "H", **asdict(rolled)}
        found["switched_at"] = rolled.switched_at.isoformat()
        found["lost"], problem = _lost(run, conn)
        if problem:
            found["not compared"] = problem
        if rolled.seconds_to_old_path is not None:
            _keep(
                conn, run, found, not rolled.left and not rolled.events and found["lost"] == 0, time.monotonic() - began
            )
    seconds = "nobody wrote" if rolled.seconds_to_old_path is None else f"{rolled.seconds_to_old_path:g} s"
    run.progress(
        f"H  the last write by the new path: {seconds} after the flag; {rolled.left} writes open, {rolled.frozen} wait"
        f" for a person, {rolled.behind} for the core; {rolled.events} events due; lost: {found['lost']}"
    )
    if rolled.left:
        raise CouldNotRun(
            f"the flag is off, and {rolled.left} writes have not reached bstadmin",
            where=core_settings().url,
            todo="Look whether the worker is up and bstadmin can be written; then roll back again.",
        )
    if found["lost"]:
        raise CouldNotRun(f"{found['lost']} events or writes are lost (H-02)", where="make recon BATCH=H lists them")
    return result, found


def hourly(dbs: Databases) -> tuple[conflicts.Check, list[conflicts.Conflict], list[str]]:
    """Both sides of what was written since the last time, and the emitters against the log: the comparison, what is
    overdue, and the gates of H that fail by it (H-01 to H-03): as long as one does, the rollout goes no step up."""
    check = conflicts.reconcile(dbs)
    lost = count_losses(runlog.uuid7(), dbs)
    overdue, failing = conflicts.watch(dbs, check)
    return check, overdue, sorted({*failing, *(["H-02"] if lost else [])})


def count_losses(run_id: UUID, dbs: Databases) -> int:
    """Inputs of gate H-02: each change that an emitter has left behind without an event; how many there are."""
    looked = emitters.unlogged(dbs)
    items: list[tuple[str, bool, dict[str, object] | None]] = [("the emitters", True, {"begun": len(looked)})]
    for one in looked:
        items.append((f"{one.emitter} emitter", True, {"compared": one.compared}))
        items += [(f"{table} {key}", False, {"emitter": one.emitter}) for table, key in one.missing]
    with postgres.connect(dbs.ops, application_name="phase2-conflicts", autocommit=True) as conn:
        gates.record_inputs(conn, run_id, "H-02", items)
    return sum(len(one.missing) for one in looked)


# --- looks ---------------------------------------------------------------------------------------------------------


def _ladder(run: Run) -> dict[str, Any]:
    """Writes follow reads: batch G stands at the top of its ladder."""
    from bridge import rollout

    with run.connect() as conn:
        rows = flags.read(conn)
    rungs, stands = rollout.LADDERS["G"].rungs, rollout.LADDERS["G"].at(rows)
    if stands + 1 < len(rungs):
        now = rungs[stands].name if stands >= 0 else "nobody"
        raise Unfit(f"the reads are on for {now}, and writes wait until they are for all: phase2 rollout G")
    return {"reads": rungs[-1].name}


def _writer(run: Run) -> dict[str, Any]:
    """The writer's connection has its rights, on the bstadmin that we read; the service takes our token."""
    if WRITES in core_settings().killed:
        raise Unfit(f"{WRITES} is killed here: PHASE2_KILL names it")
    url = bstadmin.write_url()
    if url is None:
        raise Unfit("BSTADMIN_WRITE_DB_URL is not set: the service could not write to bstadmin")
    read = run.databases.bstadmin
    if postgres.identity(url) != postgres.identity(read):
        if postgres.lineage(url) != postgres.lineage(read):
            raise Unfit("BSTADMIN_WRITE_DB_URL is another database than BSTADMIN_DB_URL")
        raise Unfit(
            "BSTADMIN_WRITE_DB_URL and BSTADMIN_DB_URL are a server and its replica: what is written is not there at"
            " once, and would be taken for a conflict. Name the primary in both"
        )
    with postgres.connect(url, application_name="phase2-writes", autocommit=True) as conn:
        writable, may_write = conn.execute(_MAY_WRITE).fetchone() or (False, False)
    if not writable:
        raise Unfit("BSTADMIN_WRITE_DB_URL takes no writes: it is a replica, or its user or server is set to read only")
    if not may_write:
        raise Unfit("the writer of bstadmin lacks rights: sql/roles/writer_bstadmin.sql")
    with client() as http:
        answer = Service(run, core_settings(), http).get("/v1/ops/bookings", limit=1)
    if answer.status_code != 200:
        raise Unfit(f"the booking list answers {words_of(answer)}")
    return {"writer": postgres.describe(url)}


def _write(run: Run) -> dict[str, Any]:
    """A note as it stands: a tester's on both sides, somebody else's on bstadmin alone; nothing else is open yet."""
    with run.connect() as conn, client() as http:
        service = Service(run, core_settings(), http)
        rows = flags.read(conn)
        key, note = _quiet(conn, run.databases.bstadmin)
        inside, outside = _somebody(rows, True), _somebody(rows, False)
        if inside is None:
            raise Unfit(f"{WRITES} is on for nobody who is named")
        time.sleep(FRESH_SECONDS)  # by then each process has seen the flag
        found: dict[str, Any] = {}
        for actor, mode, core in ((inside, "DUAL", "DONE"), (outside, "LEGACY", "BEHIND")):
            if actor is None:
                continue  # it is on for all
            said = _written(service, conn, key, note, actor)
            if (said["mode"], said["core"], said["legacy"]) not in ((mode, core, "DONE"), (mode, "DONE", "DONE")):
                raise Unfit(
                    f"a write of {actor} is {said['mode']}, core {said['core']}, bstadmin {said['legacy']}:"
                    f" not {mode}, {core}, DONE"
                )
            found[actor] = f"{mode}: {'both sides' if mode == 'DUAL' else 'bstadmin first'}"
        opened = [name for name in _OTHERS if flags.is_on(WRITES, rows, actor=inside, module=name)]
        found["old path still"] = [name for name in _OTHERS if name not in opened]
        found["booking"] = str(key)
        return found


def _written(service: Service, conn: psycopg.Connection, key: UUID, note: str | None, actor: str) -> dict[str, Any]:
    """One write of this note by this person, and what became of it, as our own databases have it."""
    path = f"/v1/ops/bookings/{key}"
    for number in range(TRIES):
        state = data_of(service.get(f"{path}/state", actor=actor))
        body = {"stateVersion": state.get("stateVersion", 0), "note": note, "reason": "batch H: a write as it stands"}
        answer = service.patch(path, body, actor=actor, key=f"check-{runlog.uuid7()}")
        if answer.status_code != 409 or number + 1 == TRIES:  # somebody has written meanwhile
            break
    said = data_of(answer)
    if answer.status_code != 200:
        raise Unfit(f"a write of {actor} answers {words_of(answer)}")
    row = conn.execute(_INTENT, (said["intentId"],)).fetchone()
    if row is None:
        raise CouldNotRun(
            "the service has written, and our ops database knows nothing of it",
            where=service.settings.url,
            todo="It works on another ops database: compare its OPS_DB_URL with ours.",
        )
    url = bstadmin.write_url()
    assert url is not None  # the writer was looked at before
    with postgres.connect(url, application_name="phase2-writes", autocommit=True) as theirs:
        done = theirs.execute(bstadmin.DONE, (said["intentId"],)).fetchone()
    if done != (bstadmin.WRITTEN,):
        raise CouldNotRun(
            "the service has written, and our bstadmin knows nothing of it",
            where=service.settings.url,
            todo="Its BSTADMIN_WRITE_DB_URL names another database than ours.",
        )
    return {"mode": row[0], "core": row[1], "legacy": row[2]}


def _quiet(conn: psycopg.Connection, bstadmin_url: str) -> tuple[UUID, str | None]:
    """A booking whose note is the same on both sides, and the note. Unfit: there is none."""
    found = conn.execute(_QUIET).fetchall()
    with postgres.connect(bstadmin_url, application_name="phase2-conflicts", read_only=True) as theirs:
        rows = dict(
            theirs.execute(
                bstadmin.READ_ALL, {"keys": [key for key, _, _ in found], "ids": [id_ for _, id_, _ in found]}
            ).fetchall()
        )
    for key, _, note in found:
        if key in rows and rows[key]["note"] == note:
            return key, note
    raise Unfit("no booking has the same note on both sides: nothing can be written as it stands")


def _compare(run: Run) -> dict[str, Any]:
    """Both sides of what was written until now, and the emitters: what gates H-01 and H-02 ask for."""
    time.sleep(LATEST.total_seconds())
    check = conflicts.reconcile(run.databases, settle=LATEST)
    lost = count_losses(run.run_id, run.databases)
    return {"compared": check.checked, "differ": check.mismatched, "lost": lost}


_LOOKS: dict[str, Callable[[Run], dict[str, Any]]] = {
    "ladder": _ladder,
    "writer": _writer,
    "write": _write,
    "compare": _compare,
}


# --- parts ---------------------------------------------------------------------------------------------------------


def _somebody(rows: dict[str, flags.Row], inside: bool) -> str | None:
    """Somebody for whom notes go the new way, or the old one; those whom the flag names come first."""
    to = flags.in_force(WRITES, rows).rollout
    names = (*to.actors, *to.emails, *(f"check-{number}" for number in range(1000)))
    return next(
        (
            name
            for name in names
            if flags.is_on(WRITES, rows, actor=name, email=name, module=_LOW_RISK) is inside
            and (inside or name.startswith("check-"))
        ),
        None,
    )


def _lost(run: Run, conn: psycopg.Connection) -> tuple[int | None, str | None]:
    """What gate H-02 counts now, and why that cannot be said: an incident does not wait for it."""
    try:
        count_losses(run.run_id, run.databases)
        row = conn.execute(_LOST).fetchone()
        return (row[0] if row else None), None
    except CouldNotRun as away:
        return None, str(away)
    except psycopg.errors.UndefinedTable:
        return None, "the gates' views are not there"


def _keep(conn: psycopg.Connection, run: Run, found: dict[str, Any], passed: bool, seconds: float) -> None:
    drill_id = runlog.uuid7()
    with conn.transaction():
        conn.execute(
            "insert into phase2.drills (drill_id, drill, passed, measured, started_at, run_id)"
            " values (%s, 'rollback', %s, %s, now() - %s * interval '1 second', %s)",
            (drill_id, passed, Jsonb(found), seconds, run.run_id),
        )
        ledger.mirror(conn, "drill", [drill_id])
