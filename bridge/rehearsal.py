"""Rehearsal: a batch on a copy of the ops database (run, gates, rollback, run again), and the certificate of it.

    fp0 → run → fp1 → roll back → fp2 → run → fp3        fp2 = fp0 and fp3 = fp1 are required

The sources are the real ones, copied once, read-only: the second run takes the rows that the first one landed, so that
a shop that goes on selling meanwhile makes no difference. Batch F switches a service on: it has one of its own on the
copy, and as its rollback keeps every event, its flags alone are compared.

Nothing of the copy stays but the certificate: an entry "rehearsal" in the ledger of the ops database, and a JSON file
beside the reports. A failed rehearsal is an entry too, and the latest entry counts.

After a live run `hold_if_astray` compares it with the certificate. How far it may differ, and how long a certificate
counts, are rows of the seed rehearsal_tolerance.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from bridge import core_settings, fingerprint, flags, gates, ledger, lockwatch, runlog, scripts, stop
from bridge.batches import BATCHES, GLOBAL_GATES, Batch, after, before
from bridge.errors import CouldNotRun, GateFailed, Stopped, plain
from bridge.fingerprint import Fingerprint
from bridge.policy import Criterion, Policy, policy
from bridge.reads import READS
from bridge.settings import settings

if TYPE_CHECKING:  # steps opens its door by this module's criteria: what rehearses imports it when it does
    from bridge.clone import Clone
    from bridge.steps import Run

MOST_DIFFERENCES = 50  # listed in the ledger; their number is what counts, the file has them all
RUN, BACK, AGAIN = "run", "roll back", "run again"
REQUIRED = (("fp2", "fp0"), ("fp3", "fp1"))

# Working copies, made anew by each run: a rollback drops them.
_WORKING = ("dbt_intermediate", "phase2_rehearsal")
_FLAGS = "phase2.flags"

# What a batch's runs have written, table by table; its scripts by their names.
_ROWS = """
select m.target, sum(m.inserted + m.updated + m.removed)::bigint
from phase2.model_changes as m
where
    m.run_id = any(%(runs)s)
    and exists (
        select 1 from phase2.step_log as s
        where
            s.run_id = m.run_id and s.batch = %(batch)s
            and m.at between s.started_at and coalesce(s.ended_at, 'infinity')
    )
group by m.target
union all
select s.step, sum(s.rows)::bigint
from phase2.step_log as s
where s.run_id = any(%(runs)s) and s.batch = %(batch)s and s.kind = 'script' and s.rows > 0
group by s.step
order by 1
"""

_SOURCES = """
select distinct on (r.source) r.source, r.content_digest, r.snapshot_at, r.row_count as rows
from phase2.landing_runs as r
order by r.source, r.landing_no desc
"""

_LANDED = "select schemaname, tablename from pg_catalog.pg_tables where schemaname like 'landing\\_%%'"

_TAKE_OVER = """
update phase2.landing_runs as r
set run_id = %s
where r.landing_id = (select l.landing_id from phase2.landing_runs as l order by l.landing_no desc limit 1)
"""


# --- the rehearsal -------------------------------------------------------------------------------------------------


def perform(run: Run, planned: Sequence[Batch]) -> list[ledger.Entry]:
    """Rehearse these batches, one after another on one copy; their certificates, as far as it came.

    What stands of them, and after them, is rolled back in the copy first; what must stand before them and does not is
    run there. Ends with the first that fails. Raises CouldNotRun when no copy can be made, and Stopped, without a
    certificate of the batch that it was at, when somebody stops the migration.
    """
    from bridge import clone

    stop.raise_if_asked(run.databases.ops, planned[0].code)
    kept: list[ledger.Entry] = []
    with clone.of_ops(run) as copy:
        run.progress(f"a copy of the ops database by {copy.how}, {copy.seconds:.1f} s")
        for one in planned:
            # of the ops database itself: the copy does not hear of a stop that came after it
            ask = partial(stop.raise_if_asked, run.databases.ops, one.code)
            kept.append(_certify(run, one, _rehearse(copy, one, ask)))
            if kept[-1].body["result"] != "PASS":
                break
    return kept


def raise_unless_passed(certificates: Sequence[ledger.Entry]) -> None:
    """GateFailed with what the rehearsal that failed says; at most the last one has."""
    for entry in certificates:
        if problems := failures(entry.body):
            raise GateFailed(str(entry.batch), problems, next(iter(entry.body["files"]), None))


def _rehearse(copy: Clone, one: Batch, ask: Callable[[], None]) -> dict[str, Any]:
    """All that was seen, with complete lists; whatever went wrong is in its `errors`.

    `ask` raises Stopped, before each run and rollback: a rehearsal that somebody stopped says nothing of the batch.
    """
    from bridge import door

    body: dict[str, Any] = {
        "batch": one.code,
        "as_of": copy.run.as_of,
        "bound_to": door.code_of(one),
        "copy": {"how": copy.how, "seconds": round(copy.seconds, 2)},
        "made_ready": [],
        "runs": [],
        "sources": {},
        "fingerprints": {},
        "differences": {},
        "waits": [],
        "wait_limit": None,
        "errors": [],
        "expires_at": None,
    }
    ask()
    try:
        with _service(copy.run, one) as calling:
            _make_ready(copy.run, one, body["made_ready"])
            if copy.how != "template" and one.code != "A":
                _print_views_anew(copy.run)
            _round_trip(calling, one, body, ask)
        _conditions(copy.run, one, body)
    except Stopped:
        raise
    except Exception as error:  # whatever it was: this batch was not rehearsed to its end
        body["errors"].append(plain(error, 1000) or type(error).__name__)
    return body


@contextmanager
def _service(run: Run, one: Batch) -> Iterator[Run]:
    """A service of its own on the copy, switched off, where a batch that switches is rehearsed or has to be rolled back
    before; and the run that calls it. Reads (G) have bstadmin behind them, writes (H) what stands in for it."""
    from bridge import drills, write_drill

    with run.connect() as conn:
        states = dict(conn.execute("select s.batch, s.status from phase2.batch_state as s").fetchall())
    standing = [code for code in after(one.code) if states.get(code, "PENDING") not in ("PENDING", "ROLLED_BACK")]
    codes = {one.code, *standing}
    if not any(BATCHES[code].switches for code in codes):
        yield run
        return
    ops, writes = run.databases.ops, one.code == "H"
    bstadmin = run.databases.bstadmin if codes & {"G", "H"} else None
    with ExitStack() as stack:
        if writes:
            bstadmin = stack.enter_context(write_drill.stand_in(ops))
            run.progress(f"H  {write_drill.fill(ops, bstadmin)} bookings in what stands in for bstadmin")
        served = drills.served(ops, on=(), bstadmin_url=bstadmin, writes=writes)
        stack.enter_context(core_settings.instead(stack.enter_context(served).settings))
        yield replace(run, databases=replace(run.databases, bstadmin=bstadmin or run.databases.bstadmin))


def _make_ready(run: Run, one: Batch, done: list[str]) -> None:
    """The state before the batch: it and what stands on it rolled back, what it stands on there and passed."""
    from bridge import rollback

    with run.connect() as conn:
        states = dict(conn.execute("select s.batch, s.status from phase2.batch_state as s").fetchall())
    for code in reversed((one.code, *after(one.code))):
        if states.get(code, "PENDING") not in ("PENDING", "ROLLED_BACK"):
            rollback.roll_back(_again(run), BATCHES[code], on_a_copy=True)
            done.append(f"{code} rolled back")
    for code in before(one.code):
        if states.get(code) != "PASS":
            verdict = _run(_again(run), BATCHES[code])
            done.append(f"{code} run: {verdict.result}")
            if verdict.result != "PASS":
                raise CouldNotRun(f"batch {code} does not pass before it: {', '.join(verdict.blocked_by)}")
    if one.code == "H":  # whose first step asks for that
        with run.connect() as conn:
            flags.change(conn, READS, True, reason="rehearsal of batch H", rollout=flags.Rollout())
        done.append("reads switched on for all")


def _print_views_anew(run: Run) -> None:
    """A view that was dumped and restored reads otherwise: a run makes it anew, which would be in its fingerprints."""
    from bridge import steps, warehouse

    with run.connect() as conn:
        for selector in ("ground", "recon"):
            steps.refresh(run, conn, selector, warehouse.digest())


def _round_trip(run: Run, one: Batch, body: dict[str, Any], ask: Callable[[], None]) -> None:
    """The two runs and the rollback between them, measured, and a fingerprint at each point."""
    from bridge import rollback

    taken: dict[str, Fingerprint] = {}

    def look(name: str) -> None:
        ask()
        run.progress(f"{one.code}  fingerprint {name}")
        taken[name] = _fingerprint(run)
        if one.switches:  # events that came stay
            taken[name] = Fingerprint(taken[name].catalog, {_FLAGS: taken[name].content[_FLAGS]})
        body["fingerprints"][name] = _without_landing(taken[name]).digest

    def forward(what: str) -> Run:
        this = _again(run)
        if what == AGAIN:
            _take_landing_over(this)
        run.progress(f"{one.code}  rehearsal: {what}")
        measured = _measured(this, what, lambda: _run(this, one))
        verdict = measured.pop("came_of_it")
        with this.connect() as conn:
            measured["rows"] = rows_written(conn, one, [this.run_id])
        measured |= {
            "result": verdict.result,
            "blocked_by": list(verdict.blocked_by),
            "gates": {
                gate.gate_id: {"status": gate.status, "value": gate.value, "exceptions": gate.exceptions}
                for gate in verdict.gates
            },
        }
        body["runs"].append(measured)
        return this

    if one.switches:
        scripts.run_script(run.databases.ops, scripts.rollback_script(one.code))  # each of its flags is off by a row
    look("fp0")
    forward(RUN)
    look("fp1")
    with run.connect() as conn:
        _keep_landing(conn, one)
        if _lands(one):
            rows = conn.cursor(row_factory=dict_row).execute(_SOURCES).fetchall()
            body["sources"] = {row.pop("source"): row for row in rows}
    run.progress(f"{one.code}  rehearsal: {BACK}")
    this = _again(run)
    measured = _measured(this, BACK, lambda: rollback.roll_back(this, one, on_a_copy=True))
    del measured["came_of_it"]
    body["runs"].append(measured)
    look("fp2")
    forward(AGAIN)
    look("fp3")
    # landed rows are in the sources' hands where the rollback does not empty them: another copy may be another one
    seen = taken if _empties_landing(one) or not _lands(one) else {k: _without_landing(v) for k, v in taken.items()}
    for later, earlier in (("fp1", "fp0"), *REQUIRED):
        lines = fingerprint.difference(seen[earlier], seen[later])
        body["differences"][f"{later} = {earlier}"] = {"total": len(lines), "lines": lines}


def _run(run: Run, one: Batch) -> gates.Verdict:
    """The batch through its steps and its gates; no door, no report."""
    from bridge import steps

    steps.start(run, one)
    for step in one.prechecks:
        steps.execute(run, one, step)
    steps.refuse_if_unfit(run, one)
    for step in one.steps + one.postchecks:
        steps.execute(run, one, step)
    with run.connect() as conn:
        verdict = gates.evaluate(conn, one.code, run.run_id)
        steps.set_state(conn, run, one.code, verdict.result, verdict=verdict)
    return verdict


def _measured(run: Run, what: str, work: Callable[[], Any]) -> dict[str, Any]:
    """Do the work; how long it took, the WAL that the server wrote meanwhile, and the locks that were seen."""
    places = {"ops": run.databases.ops, "balisnap": run.databases.balisnap, "bstadmin": run.databases.bstadmin}
    with run.connect() as conn, lockwatch.watch(places) as seen:
        start = conn.execute("select pg_catalog.pg_current_wal_lsn()").fetchone()
        began = time.monotonic()
        came_of_it = work()
        seconds = time.monotonic() - began
        wal = conn.execute(
            "select pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), %s)::bigint", start
        ).fetchone()
    return {
        "what": what,
        "seconds": round(seconds, 2),
        "wal_bytes": wal[0] if wal else None,
        "locks": [asdict(lock) | {"blocks": lock.blocks} for lock in seen.locks],
        "unwatched": seen.problem,
        "came_of_it": came_of_it,
    }


def _conditions(run: Run, one: Batch, body: dict[str, Any]) -> None:
    """How long the legacy statements would have waited, and what the tolerances say of it and of the expiry."""
    locks = [
        lockwatch.Lock(lock["place"], lock["relation"], lock["mode"], lock["seconds"])
        for measured in body["runs"]
        for lock in measured["locks"]
    ]
    sources = {"balisnap": run.databases.balisnap, "bstadmin": run.databases.bstadmin}
    body["waits"] = [asdict(wait) for wait in lockwatch.waits(sources, locks)]
    with run.connect() as conn:
        limits = tolerances(conn)
    body["wait_limit"] = limits["legacy_wait"]
    body["expires_at"] = runlog.utc_now() + timedelta(days=float(limits["certificate_days"]))


def failures(body: Mapping[str, Any]) -> list[str]:
    """Why this is no passed rehearsal; empty when it is. What was not measured, or is not there, has not passed."""
    found = list(body.get("errors", ["no rehearsal"]))
    runs = {measured["what"]: measured for measured in body.get("runs", [])}
    for what in (RUN, BACK, AGAIN):
        if what not in runs:
            found.append(f"{what}: did not happen")
            continue
        if runs[what]["unwatched"]:
            found.append(f"{what}: its locks were not watched to the end ({runs[what]['unwatched']})")
        if what != BACK and runs[what]["result"] != "PASS":
            found.append(f"{what}: {runs[what]['result']}, blocked by {', '.join(runs[what]['blocked_by'])}")
    prints, differences = body.get("fingerprints", {}), body.get("differences", {})
    for later, earlier in REQUIRED:
        said = differences.get(f"{later} = {earlier}", {})
        if later not in prints or earlier not in prints or "total" not in said:
            found.append(f"{later} = {earlier}: not compared")
        elif said["total"] or prints[later] != prints[earlier]:
            first = f", first: {said['lines'][0]}" if said["lines"] else ""
            found.append(f"{later} is not {earlier}: {said['total']} differences{first}")
    if "fp1" in prints and prints["fp1"] == prints.get("fp0"):
        found.append("the run changed nothing: the comparison proves nothing")
    for wait in body.get("waits", []):
        if wait["problem"]:
            found.append(f"{wait['source']}: {wait['name']}: {wait['problem']}")
        elif wait["seconds"] > float(body["wait_limit"] or 0):
            found.append(f"{wait['source']}: {wait['name']}: would have waited {wait['seconds']} s for our locks")
    if AGAIN in runs and not body.get("expires_at"):
        found.append("it has no date of expiry")
    return found


def _certify(run: Run, one: Batch, body: dict[str, Any]) -> ledger.Entry:
    """The file with all of it, and the entry in the ledger of the ops database."""
    body["failures"] = failures(body)
    body["result"] = "FAIL" if body["failures"] else "PASS"
    file = _write(one, body)
    short = {
        pair: {"total": said["total"], "lines": said["lines"][:MOST_DIFFERENCES]}
        for pair, said in body["differences"].items()
    }
    with run.connect() as conn:
        entry = ledger.append(
            conn,
            "rehearsal",
            batch=one.code,
            run_id=run.run_id,
            body=body | {"differences": short, "files": ledger.files(file)},
        )
    run.progress(f"{one.code}  rehearsal {body['result']}, entry {entry.no}, {file}")
    return entry


def _write(one: Batch, body: Mapping[str, Any]) -> Path:
    folder = settings().phase2_reports / "rehearsal" / one.code
    folder.mkdir(parents=True, exist_ok=True)
    stamp, number = f"{runlog.utc_now():%Y-%m-%dT%H-%M-%SZ}", 1
    while True:
        file = folder / f"{stamp}{'' if number == 1 else f'-{number}'}.json"
        try:
            with file.open("x", encoding="utf-8") as handle:
                handle.write(json.dumps(body, indent=2, default=str, ensure_ascii=False) + "\n")
            return file
        except FileExistsError:
            number += 1


def _again(run: Run) -> Run:
    """The same run under a number of its own."""
    return replace(run, run_id=runlog.uuid7())


def _fingerprint(run: Run) -> Fingerprint:
    with run.connect() as conn:
        rows = conn.execute(
            "select n.nspname::text from pg_catalog.pg_namespace as n"
            " where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and n.nspname <> all(%s)",
            (list(_WORKING),),
        ).fetchall()
        return fingerprint.take(conn, schemas=[name for (name,) in rows])


def _without_landing(whole: Fingerprint) -> Fingerprint:
    """Without landed rows: they are a copy, and of another moment each time."""
    content = {name: found for name, found in whole.content.items() if not name.startswith("landing_")}
    return Fingerprint(whole.catalog, content)


def _lands(one: Batch) -> bool:
    return any(step.kind == "land" for step in one.plan)


def _empties_landing(one: Batch) -> bool:
    """Whether its rollback is the one that leaves no landed rows: no batch is left that reads them."""
    return _lands(one) and not any(_lands(BATCHES[code]) for code in before(one.code))


def _keep_landing(conn: psycopg.Connection, one: Batch) -> None:
    """Set the landed rows aside where the rollback will empty them."""
    if not _empties_landing(one):
        return
    conn.execute("create schema phase2_rehearsal")
    for schema, table in conn.execute(_LANDED).fetchall():
        conn.execute(_copy("create unlogged table {kept} as table {landed}", schema, table))


def _take_landing_over(run: Run) -> None:
    """Give the landed rows, as the last run read them, to this one; it does not copy the sources again."""
    with run.connect() as conn, conn.transaction():
        if conn.execute("select to_regnamespace('phase2_rehearsal') is not null").fetchone() == (True,):
            for schema, table in conn.execute(_LANDED).fetchall():
                conn.execute(_copy("insert into {landed} select * from {kept}", schema, table))
                conn.execute(_copy("analyze {landed}", schema, table))
            conn.execute("drop schema phase2_rehearsal cascade")
        conn.execute(_TAKE_OVER, (run.run_id,))


def _copy(template: LiteralString, schema: str, table: str) -> sql.Composed:
    landed, kept = sql.Identifier(schema, table), sql.Identifier("phase2_rehearsal", f"{schema}.{table}")
    return sql.SQL(template).format(landed=landed, kept=kept)


# --- what a door asks ----------------------------------------------------------------------------------------------


def criteria(conn: psycopg.Connection, batch: Batch, policy: Policy) -> list[Criterion]:
    """One line of the go / no-go: a rehearsal that passed, of this plan and code, not expired, not strayed from."""
    entry = ledger.latest(conn, "rehearsal", batch=batch.code)
    why = _shut(conn, batch, entry)
    if entry and not why:
        evidence = f"entry {entry.no} of {entry.at:%Y-%m-%d %H:%M} UTC, counts until {entry.body['expires_at'][:10]}"
    else:
        evidence = why or ""
    return [
        Criterion(
            name="rehearsal",
            state="HOLD" if why else "PASS",
            evidence=evidence,
            todo=f"Rehearse it: make rehearse BATCH={batch.code}" if why else "",
            paragraph="gates.md, go / no-go",
            demanded=policy.rehearsal,
        )
    ]


def _shut(conn: psycopg.Connection, batch: Batch, entry: ledger.Entry | None) -> str | None:
    """Why the latest rehearsal opens no door."""
    if entry is None:
        return "never rehearsed"
    if problems := _not_certified(entry, batch):
        return problems
    if datetime.fromisoformat(entry.body["expires_at"]) <= runlog.utc_now():
        return f"expired on {entry.body['expires_at'][:10]} (entry {entry.no})"
    astray = ledger.latest(conn, "stray", batch=batch.code)
    if astray and astray.no > entry.no:
        first = (astray.body["strays"] or [""])[0]
        return f"a live run strayed from it: {astray.body['total']} times, first: {first} (entry {astray.no})"
    return None


def _not_certified(entry: ledger.Entry, batch: Batch) -> str | None:
    from bridge import door

    if problems := failures(entry.body):
        return f"failed: {problems[0]}" + (f"; {len(problems)} in all" * (len(problems) > 1)) + f" (entry {entry.no})"
    bound, now = entry.body.get("bound_to") or {}, door.code_of(batch)
    if changed := sorted(part for part in bound.keys() | now.keys() if bound.get(part) != now.get(part)):
        return f"changed since it was rehearsed: {', '.join(changed)} (entry {entry.no})"
    return None


# --- the live run beside its certificate ---------------------------------------------------------------------------


def hold_if_astray(
    conn: psycopg.Connection, batch: Batch, verdict: gates.Verdict, progress: Callable[[str], None]
) -> gates.Verdict:
    """The verdict of a live run, or HOLD where it strays from its rehearsal and the policy demands one.

    An entry "stray" tells of it either way, and uses the certificate up.
    """
    entry = ledger.latest(conn, "rehearsal", batch=batch.code)
    if entry is None or _not_certified(entry, batch):
        return verdict
    found = strays(conn, batch, verdict, entry)
    if not found:
        return verdict
    for line in found[:MOST_DIFFERENCES]:
        progress(f"{batch.code}  strays from its rehearsal (entry {entry.no}): {line}")
    stops = policy().rehearsal
    ledger.append(
        conn,
        "stray",
        batch=batch.code,
        run_id=verdict.run_id,
        body={
            "certificate": entry.no,
            "total": len(found),
            "strays": found[:MOST_DIFFERENCES],
            "stops": stops,
        },
    )
    if not stops or verdict.result != "PASS":
        return verdict
    return replace(verdict, result="HOLD", blocked_by=("rehearsal",))


def strays(conn: psycopg.Connection, batch: Batch, verdict: gates.Verdict, entry: ledger.Entry) -> list[str]:
    """By more than the tolerance: rows written otherwise than rehearsed, and exceptions behind the gates.

    Like with like. A rehearsal's runs are first loads: so is a live run as long as no verdict came of the batch since
    it was last not in, and with it the runs before it that were killed. A later run compares its rows with what is
    there, and writes anything between none and all of them: only more than the rehearsal wrote is astray. The global
    gates are not compared where later batches stand: in the rehearsal they did not.
    """
    limits = tolerances(conn)
    rehearsed = entry.body["runs"][0]
    undone = ledger.latest(conn, "rollback", batch=batch.code)
    runs = ledger.entries(conn, "run", batch=batch.code, after=undone.no if undone else 0)
    judged = ledger.entries(conn, "verdict", batch=batch.code, after=runs[0].no) if runs else []
    is_first = not any(one.body.get("opens_door") for one in judged)
    of = [one.run_id for one in (runs if is_first else runs[-1:]) if one.run_id]
    written = rows_written(conn, batch, of)
    found = []
    for table in sorted(written.keys() | rehearsed["rows"].keys()):
        here, there = written.get(table, 0), rehearsed["rows"].get(table, 0)
        room = max(limits["rows_least"], limits["rows_ratio"] * there)
        if here - there > room or (is_first and there - here > room):
            found.append(f"{table}: {here} rows written, {there} rehearsed, {_words(room)} may differ")
    for gate in verdict.gates:
        if gate.gate_id in GLOBAL_GATES and _later_stands(conn, batch):
            continue
        known = rehearsed["gates"].get(gate.gate_id)
        if known is None:
            found.append(f"{gate.gate_id}: was not asked in the rehearsal")
            continue
        room = max(limits["mismatches_least"], limits["mismatches_ratio"] * known["exceptions"])
        if abs(gate.exceptions - known["exceptions"]) > room:
            found.append(
                f"{gate.gate_id}: {gate.exceptions} exceptions, {known['exceptions']} rehearsed,"
                f" {_words(room)} may differ"
            )
    return found


def rows_written(conn: psycopg.Connection, batch: Batch, runs: Iterable[UUID]) -> dict[str, int]:
    """Rows that these runs of the batch wrote (new, changed, removed) by table, and by script."""
    return dict(conn.execute(_ROWS, {"runs": list(runs), "batch": batch.code}).fetchall())


def tolerances(conn: psycopg.Connection) -> dict[str, Decimal]:
    """The seed, by measure; CouldNotRun when it is not there (batch A's last step makes it)."""
    try:
        return dict(conn.execute("select t.measure, t.tolerance from dbt_seeds.rehearsal_tolerance as t").fetchall())
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        raise CouldNotRun(
            "the tolerances of rehearsals are missing",
            where="dbt_seeds.rehearsal_tolerance",
            todo="Run batch A first: make run BATCH=A",
        ) from None


def _later_stands(conn: psycopg.Connection, batch: Batch) -> bool:
    return conn.execute(
        "select exists (select 1 from phase2.batch_state as s"
        " where s.batch = any(%s) and s.status not in ('PENDING', 'ROLLED_BACK'))",
        (list(after(batch.code)),),
    ).fetchone() == (True,)


def _words(number: Decimal) -> str:
    return f"{number.normalize():f}"
