"""How each kind of step runs, and the life of a run around them: prepare, begin, steps, verdict, finish.

Everything here is a plain function over a `Run`; the flows call them in order, tests call them without Prefect.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

from bridge import (
    arrivals,
    breath,
    door,
    embedded,
    fingerprint,
    follow,
    gates,
    ingestion,
    landing,
    ledger,
    legacy,
    measure,
    postgres,
    ranges,
    reads,
    rehearsal,
    reports,
    runlog,
    scripts,
    stop,
    warehouse,
    watch,
    write_cutover,
    written,
)
from bridge.batches import BATCHES, ORDER, Batch, Step, before
from bridge.errors import CouldNotRun, GateFailed, Stopped, Tainted, plain
from bridge.policy import Criterion, policy
from bridge.reports import draw
from bridge.reports.mask import mask_text
from bridge.settings import SQL, Databases, databases, settings

Progress = Callable[[str], None]

# One runner at a time, held by the database: the key of a session-level advisory lock ("phase2" in ASCII).
_RUNNER_LOCK = 0x706861736532

SEED_SCRIPTS = tuple(step.target for step in BATCHES["B"].steps)


@dataclass(frozen=True)
class Run:
    """One run of one or more batches: on which databases, as of which day in Bali."""

    run_id: UUID
    databases: Databases
    as_of: date
    progress: Progress = field(default=lambda _: None, repr=False)
    full: bool = False  # compare every row, also where nothing can have changed
    breathe: Callable[[], None] = field(default=lambda: None, repr=False)  # waits while the server suffers

    def connect(self) -> psycopg.Connection:
        return postgres.connect(self.databases.ops, application_name="phase2-run", autocommit=True)


def today_in_bali() -> date:
    """The day that it is in Bali (UTC+8, no daylight saving)."""
    return (datetime.now(UTC) + timedelta(hours=8)).date()


def bootstrap(ops_url: str) -> None:
    """Make our own schemas (state, landing) where they are missing; idempotent, no canonical table is touched.

    Looks first: on a database that is ready, nothing is executed and no lock is taken.
    """
    ours = ("state.sql", "ledger.sql", "landing/balisnap.sql", "landing/bstadmin.sql", "ingest/state.sql")
    more = [*sorted((SQL / "ingest").glob("*.sql")), *sorted((SQL / "ops").glob("*.sql"))]
    files = list(dict.fromkeys([*(SQL / name for name in ours), *more]))
    digest = scripts.checksum(*files)
    with postgres.connect(ops_url, application_name="phase2-bootstrap", autocommit=True) as conn:
        try:
            ready = conn.execute(
                "select digest = %s from phase2.warehouse_state where part = 'state'", (digest,)
            ).fetchone()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            ready = None
        if ready and ready[0]:
            return
        try:
            with conn.transaction():
                conn.execute("select pg_advisory_xact_lock(%s)", (_RUNNER_LOCK + 1,))  # two first commands at once
                # functions of ingestion name tables of batch A and the rulebook, which come later
                conn.execute("set local check_function_bodies = off")
                for file in files:
                    conn.execute(file.read_bytes())
                if ledger.head(conn)[0] == 0:
                    ledger.adopt(conn)
                conn.execute(
                    "insert into phase2.warehouse_state (part, digest) values ('state', %s)"
                    " on conflict (part) do update set digest = excluded.digest, built_at = now()",
                    (digest,),
                )
        except psycopg.errors.InsufficientPrivilege as error:
            raise CouldNotRun(
                f"not allowed to make our own schemas: {error.diag.message_primary}",
                where=postgres.describe(ops_url),
                todo="Grant CREATE on the ops database to this user (and on extension pgcrypto).",
            ) from None


def prepare(as_of: date | None = None, progress: Progress = lambda _: None, *, full: bool = False) -> Run:
    """Start a run: databases up, own schemas there, the run's day fixed for every model that asks."""
    dbs = databases()
    _refuse_a_source_as_ops(dbs)
    bootstrap(dbs.ops)
    return Run(run_id=runlog.uuid7(), databases=dbs, as_of=as_of or today_in_bali(), progress=progress, full=full)


def _refuse_a_source_as_ops(dbs: Databases) -> None:
    """The ops URL may name a source under another spelling; nothing is written before this look."""
    ops = postgres.identity(dbs.ops)
    for name, url in (("balisnap", dbs.balisnap), ("bstadmin", dbs.bstadmin)):
        try:
            same = postgres.identity(url) == ops
        except CouldNotRun:
            continue  # a source that does not answer is told by the step that needs it
        if same:
            raise CouldNotRun(
                f"the ops database is the source {name}",
                where=postgres.describe(dbs.ops),
                todo="The bridge needs a database of its own; the sources are never written.",
            )


@contextmanager
def only_runner(run: Run) -> Iterator[psycopg.Connection]:
    """Hold the runner's lock, by the session that it yields; CouldNotRun when another run has it.

    A killed runner frees it with its connection, which the server notices a moment later; and what it was at goes on
    until the server has noticed that too. Both are waited for, seconds at most, so that the command can be given again
    at once.
    """
    with postgres.connect(run.databases.ops, application_name=_runner_name(run), autocommit=True) as conn:
        free = "select pg_try_advisory_lock(%s)"
        if not _in_time(conn, free, (_RUNNER_LOCK,), lambda: run.progress("another run holds the lock: is it ending?")):
            holder = conn.execute(_HOLDER, (_RUNNER_LOCK,)).fetchone()
            raise CouldNotRun(
                "another run is under way" + (f": {holder[0]}, since {holder[1]} UTC" if holder else ""),
                where=postgres.describe(run.databases.ops),
                todo="Wait until it has ended; `phase2 status` shows where it is.",
            )
        # whoever still works after that has a living client (`make recon`, an engineer's dbt) and may go on
        _in_time(conn, _NOBODY_ELSE, None, lambda: run.progress("waiting for what a killed run left at work"))
        yield conn


def still_the_only_runner(run: Run) -> None:
    """Before each step: CouldNotRun when the session that holds the lock was ended (a restart, a firewall)."""
    with run.connect() as conn:
        holder = conn.execute(_HOLDER, (_RUNNER_LOCK,)).fetchone()
    if not holder or holder[0] != _runner_name(run):
        raise CouldNotRun(
            "the session that holds the runner's lock is gone",
            where=postgres.describe(run.databases.ops),
            todo="Run the batch again; nothing of it is lost.",
        )


# Who holds the runner's lock in this database (another one of the server may have a runner too), and since when.
_HOLDER = """
select a.application_name, to_char(a.backend_start, 'YYYY-MM-DD HH24:MI:SS')
from pg_catalog.pg_locks as l
join pg_catalog.pg_stat_activity as a on a.pid = l.pid
join pg_catalog.pg_database as d on d.oid = l.database and d.datname = current_database()
where l.locktype = 'advisory' and l.granted and (l.classid::bigint << 32) + l.objid::bigint = %s
"""


def _runner_name(run: Run) -> str:
    return f"phase2-runner {run.run_id}"


# Sessions of our name that are at work; the runner's own have not begun when this is asked.
_NOBODY_ELSE = """
select not exists (
    select 1 from pg_catalog.pg_stat_activity as a
    where
        a.datname = current_database() and a.pid <> pg_backend_pid() and a.state <> 'idle'
        and a.application_name like any (array['phase2-%', 'phase2 landing'])
)
"""
_SECONDS_TO_END = 4.0  # the server asks every second whether a session's client is still there


def _in_time(
    conn: psycopg.Connection, question: str, parameters: tuple[object, ...] | None, tell: Callable[[], None]
) -> bool:
    """Whether the question is answered with yes within a few seconds; `tell` is called once when it is not at once."""
    deadline = None
    while conn.execute(question, parameters).fetchone() != (True,):
        if deadline is None:
            tell()
            deadline = time.monotonic() + _SECONDS_TO_END
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def begin(run: Run, batch: Batch) -> None:
    """Open the door of a batch: whatever the policy demands is there (GateFailed when not); then start it.

    A refused door is an entry too. D and E take over the landing that the batches before them passed on.
    """
    stop.raise_if_asked(run.databases.ops, batch.code)
    with run.connect() as conn:
        try:
            asked = door.open_or_raise(conn, batch, run.as_of)
        except GateFailed as refused:
            body = {"environment": policy().environment, "as_of": run.as_of, "holding": refused.blocked_by}
            ledger.append(conn, "refused", batch=batch.code, run_id=run.run_id, body=body)
            raise
        if door.takes_over_the_landing(batch):
            conn.execute(_TAKE_OVER, (run.run_id,))
    start(run, batch, asked)


# The landing that stands is this run's: it was passed on, so nothing else is read.
_TAKE_OVER = """
update phase2.landing_runs as r
set run_id = %s
where r.landing_id = (select l.landing_id from phase2.landing_runs as l order by l.landing_no desc limit 1)
"""


def start(run: Run, batch: Batch, asked: Sequence[Criterion] = ()) -> None:
    """Mark the batch as running, and fix the day and the run that its models read; `asked` is what the door asked."""
    with run.connect() as conn:
        conn.execute(
            "insert into phase2.run_context (only_row, as_of, run_id) values (true, %(as_of)s, %(run_id)s)"
            " on conflict (only_row) do update"
            " set as_of = excluded.as_of, run_id = excluded.run_id, set_at = now()",
            {"as_of": run.as_of, "run_id": run.run_id},
        )
        with conn.transaction():
            set_state(conn, run, batch.code, "RUNNING")
            body = {
                "as_of": run.as_of,
                "code": door.code_of(batch),
                "environment": policy().environment,
                "door": [{"name": line.name, "state": line.state, "demanded": line.demanded} for line in asked],
            }
            ledger.append(conn, "run", batch=batch.code, run_id=run.run_id, body=body)


def execute(run: Run, batch: Batch, step: Step) -> runlog.Entry:
    """Run one step and log it. Raises CouldNotRun (nothing half-written: each step is its own transactions)."""
    run.progress(f"{batch.code}  {step.title}")
    with run.connect() as conn:
        if step.kind != "script" or not step.target.startswith("000"):
            _require_schema(conn, batch)
        try:
            with (
                runlog.step(conn, run_id=run.run_id, batch=batch.code, name=step.name, kind=step.kind) as entry,
                breath.over(run.databases.ops, run.run_id, batch.code, step.name, run.progress, entry) as take,
            ):
                _watched(replace(run, breathe=take), batch, step, conn, entry)
        finally:
            if not conn.closed:
                runlog.record_scripts(conn, run.run_id)
    return entry


def _watched(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    """The step's work, begun again after each back-off from somebody who waits for us; CouldNotRun after the last."""
    dbs = run.databases
    places = {"ops": dbs.ops}
    if step.kind == "land":  # the other steps hold no lock in a source that its own pages do not take
        places |= {"balisnap": dbs.balisnap, "bstadmin": dbs.bstadmin}
    backed_off: list[str] = []
    for pause in (*watch.pauses(), None):
        try:
            run.breathe()
            with watch.over(places, run.progress):
                _KINDS[step.kind](run, batch, step, conn, entry)
            return
        except watch.BackOff as back:
            backed_off.append(str(back))
            if pause is None or conn.closed:
                raise CouldNotRun(
                    f"others had to wait for us, each of {len(backed_off)} times: {backed_off[-1]}",
                    where=f"batch {batch.code}, {step.name}",
                    todo="Run it again at a quieter hour, or let them wait longer (PHASE2_MAX_BLOCKING_SECONDS).",
                ) from None
            entry.detail.clear()  # of the attempt that was cancelled
            run.progress(f"{batch.code}  again in {pause:g} s")
            time.sleep(pause)
            stop.raise_if_asked(dbs.ops, batch.code)
        finally:
            if backed_off:
                entry.detail["backed_off"] = backed_off


def tell_what_arrived(run: Run, batch: Batch) -> None:
    """What came to the sources while the batch ran: a line of progress and a step of its log; only reads."""
    if not any(step.kind == "land" for step in batch.plan):
        return
    name = "arrivals since the snapshot"
    with (
        run.connect() as conn,
        runlog.step(conn, run_id=run.run_id, batch=batch.code, name=name, kind="arrivals") as entry,
    ):
        found, problems = arrivals.since_the_landing(conn, run.databases)
        entry.detail["arrived"] = found
        entry.detail["told"] = [arrivals.words(found), *(f"not counted: {problem}" for problem in problems)]
    for line in entry.detail["told"]:
        run.progress(f"{batch.code}  {line}")


@dataclass(frozen=True)
class Outcome:
    """A verdict, and the report that was written of it."""

    verdict: gates.Verdict
    report: reports.Written

    @property
    def document(self) -> dict[str, Any]:
        """The report's JSON, as it was written."""
        return json.loads(self.report.json.read_text())

    def table(self) -> list[dict[str, str]]:
        """The gates, one row each, in words."""
        return gates_table(self.document)


def gates_table(document: dict[str, Any]) -> list[dict[str, str]]:
    """The gates of a report, one row each, in words."""
    return [
        {
            "gate": gate["id"],
            "title": gate["title"],
            "value": draw.value_of(gate),
            "limit": draw.threshold_of(gate),
            "of": draw.fraction_of(gate),
            "status": gate["status"] + (", waived" if gate.get("waived") else ""),
        }
        for gate in document["gates"]
    ]


def refuse_if_unfit(run: Run, batch: Batch) -> None:
    """Batch A changes no schema on a server that failed its precheck (blueprint 6.2): GateFailed with what failed."""
    with run.connect() as conn:
        rows = conn.execute(
            "select jsonb_array_elements(s.detail -> 'checks') from phase2.step_log as s"
            " where s.run_id = %s and s.batch = %s and s.detail ->> 'script' like '000%%'",
            (run.run_id, batch.code),
        ).fetchall()
        failed = [check for (check,) in rows if "FAIL" in check]
        if not failed:
            return
        for check in failed:
            run.progress(f"{batch.code}  " + "  ".join(check))
        set_state(conn, run, batch.code, "FAIL", blocked_by=sorted({check[0] for check in failed}))
    raise GateFailed(batch.code, sorted({check[0] for check in failed}))


def refuse_if_tainted(run: Run, batch: Batch) -> None:
    """A batch whose last run failed a hard gate is not run again as it was: Tainted, and nothing was written.

    Asked when the sources are landed: what they hold now is compared with what they held then, and with what the
    batches before it passed on.
    """
    _refuse_other_rows(run, batch)
    with run.connect() as conn:
        found = door.taint(conn, batch)
        if found is None:
            return
        gates_failed = list(found.gates)
        body = {"verdict": found.entry, "gates": gates_failed, "changed": list(found.changed)}
        with conn.transaction():
            if found.stands:
                report = reports.found(found.files, settings().phase2_reports)
                undone = ledger.entries(conn, "rollback", batch=batch.code, after=found.entry)
                status = "ROLLED_BACK" if undone else "FAIL"
                set_state(conn, run, batch.code, status, blocked_by=gates_failed, written=report)
            kind = "taint" if found.stands else "taint lifted"
            ledger.append(conn, kind, batch=batch.code, run_id=run.run_id, body=body)
    if found.stands:
        run.progress(f"{batch.code}  not run again: nothing has changed since the failed verdict (entry {found.entry})")
        run.progress(f"{batch.code}  {door.mend(batch, found)}")
        raise Tainted(batch.code, gates_failed)
    run.progress(f"{batch.code}  failed before; changed since: {', '.join(found.changed)}")


def _refuse_other_rows(run: Run, batch: Batch) -> None:
    """The landing that stood may have been lost, and made anew: GateFailed when it is not what was passed on."""
    with run.connect() as conn:
        others = [code for code in before(batch.code) if "source snapshot" in door.stale(conn, code)]
        if not others:
            return
        why = f"{', '.join(others)} passed on other rows than are landed now: phase2 run --from {others[0]}"
        with conn.transaction():
            set_state(conn, run, batch.code, "HOLD", blocked_by=others, error=why)
            ledger.append(conn, "hold", batch=batch.code, run_id=run.run_id, body={"reason": why})
    raise GateFailed(batch.code, [why])


def conclude(run: Run, batch: Batch, *, opens_door: bool = True) -> Outcome:
    """Ask the gates, write the report, keep the verdict. The door itself is `raise_unless_passed`.

    `opens_door` is false for a look at a batch whose run was interrupted: its state is not made a PASS by looking.
    """
    with run.connect() as conn:
        verdict = gates.evaluate(conn, batch.code, run.run_id)
        if opens_door:
            verdict = rehearsal.hold_if_astray(conn, batch, verdict, run.progress)
        bound = door.binding(conn, batch, run.run_id, run.as_of, verdict)
        written = reports.write(conn, verdict, settings().phase2_reports)
        with conn.transaction():
            if opens_door:
                set_state(conn, run, batch.code, verdict.result, verdict=verdict, written=written)
            ledger.append(
                conn,
                "verdict",
                batch=batch.code,
                run_id=run.run_id,
                body={
                    "result": verdict.result,
                    "blocked_by": verdict.blocked_by,
                    "evaluated_at": verdict.evaluated_at,
                    "opens_door": opens_door,
                    **bound,
                    "exceptions": ledger.listed(conn, batch.code, verdict.evaluated_at),
                    "files": ledger.files(written.json, written.md, written.html),
                },
            )
    run.progress(f"{batch.code}  {verdict.result}  {written.html}")
    return Outcome(verdict, written)


def raise_unless_passed(outcome: Outcome) -> None:
    """The door after a batch: GateFailed names the gates that did not pass."""
    verdict = outcome.verdict
    if verdict.result != "PASS":
        raise GateFailed(verdict.batch, list(verdict.blocked_by), str(outcome.report.html))


def mark_error(run: Run, batch: Batch, error: BaseException) -> None:
    """A batch that could not run to its verdict: ERROR, never PASS."""
    with run.connect() as conn:
        words = mask_text(plain(error, 2000)) or type(error).__name__
        with conn.transaction():
            set_state(conn, run, batch.code, "ERROR", error=words)
            ledger.append(conn, "error", batch=batch.code, run_id=run.run_id, body={"error": words})


def mark_stopped(run: Run, batch: Batch, stopped: Stopped) -> None:
    """A batch that somebody stopped: HOLD, with who, why and how to lift it."""
    with run.connect() as conn, conn.transaction():
        set_state(conn, run, batch.code, "HOLD", blocked_by=stopped.blocked_by, error=stopped.why)
        ledger.append(conn, "hold", batch=batch.code, run_id=run.run_id, body={"reason": stopped.why})


def set_state(
    conn: psycopg.Connection,
    run: Run,
    code: str,
    status: str,
    *,
    verdict: gates.Verdict | None = None,
    written: reports.Written | None = None,
    blocked_by: list[str] | None = None,
    error: str | None = None,
) -> None:
    conn.execute(
        """
        insert into phase2.batch_state as s (
            batch, status, run_id, as_of, started_at, ended_at, blocked_by,
            report_json_path, report_md_path, report_html_path, report_digest, dbt_digest, error_message
        )
        values (
            %(batch)s, %(status)s, %(run_id)s, %(as_of)s, now(), %(ended)s, %(blocked_by)s,
            %(json)s, %(md)s, %(html)s, %(digest)s, %(dbt)s, %(error)s
        )
        on conflict (batch) do update set
            status = excluded.status, run_id = excluded.run_id, as_of = excluded.as_of,
            started_at = case when excluded.status = 'RUNNING' then now() else s.started_at end,
            ended_at = excluded.ended_at, blocked_by = excluded.blocked_by,
            report_json_path = excluded.report_json_path, report_md_path = excluded.report_md_path,
            report_html_path = excluded.report_html_path, report_digest = excluded.report_digest,
            dbt_digest = excluded.dbt_digest, error_message = excluded.error_message, updated_at = now()
        """,
        {
            "batch": code,
            "status": status,
            "run_id": run.run_id,
            "as_of": run.as_of,
            "ended": None if status == "RUNNING" else runlog.utc_now(),
            "blocked_by": list(verdict.blocked_by) if verdict else blocked_by,
            "json": str(written.json) if written else None,
            "md": str(written.md) if written else None,
            "html": str(written.html) if written else None,
            "digest": written.digest if written else None,
            "dbt": warehouse.digest(),
            "error": error,
        },
    )


def _require_schema(conn: psycopg.Connection, batch: Batch) -> None:
    """Batches after A need its tables; without them dbt's errors would be riddles."""
    if batch.code == "A":
        return
    row = conn.execute("select to_regclass('public.booking_core') is not null").fetchone()
    if not row or not row[0]:
        raise CouldNotRun("the core tables are missing", where="public", todo="Run batch A first: make run BATCH=A")


# --- the kinds of step -------------------------------------------------------------------------------------------


def _script(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    file = scripts.FOLDER / step.target
    if file.is_file():  # before it runs: a failure is logged with what failed
        entry.detail["script"], entry.checksum = step.target, scripts.checksum(file)
    parameters = _capacity(run.databases.ops) if step.target.startswith("000") else {}
    result = scripts.run_script(run.databases.ops, step.target, parameters)
    entry.rows = result.rows
    if result.results:
        entry.detail["checks"] = [list(map(str, row)) for row in result.results]
    if step.target.startswith("000"):
        gates.record_preflight(conn, run.run_id, result.results)


def _capacity(ops_url: str) -> dict[str, str]:
    """Inputs of the precheck: given, or measured where the disk is ours to see (the embedded server)."""
    chosen = settings()
    total, used = chosen.phase2_disk_total_bytes, chosen.phase2_disk_used_bytes
    if chosen.is_embedded and total is None and used is None:
        total, used = embedded.disk_bytes(chosen.phase2_home)
    return {
        "phase2.disk_total_bytes": "" if total is None else str(total),
        "phase2.disk_used_bytes": "" if used is None else str(used),
        "phase2.server_time_zone": postgres.server_time_zone(ops_url),
    }


def _sources(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    dbs = run.databases
    landing.check_sources(dbs.ops, dbs.balisnap, dbs.bstadmin)


def _rerun(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    added = {script: scripts.run_script(run.databases.ops, script, {}).rows for script in SEED_SCRIPTS}
    entry.rows = sum(added.values())
    gates.record_rerun(conn, run.run_id, added)


def _legacy(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    entry.rows = legacy.run(conn, run.databases, phase=step.target.upper(), run_id=run.run_id)


def _land(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    """One landing serves a whole run, and the later batches that run alone (`begin`): all read the same snapshot."""
    row = conn.execute("select count(distinct source) from phase2.landing_runs where run_id = %s", (run.run_id,))
    if row.fetchone() == (2,) and landing.landing_is_complete(conn):
        entry.detail["reused"] = "the snapshot that the batch before it passed on"
        return
    dbs = run.databases

    def told(line: str) -> None:
        """Each table, and each second of a long one, is a safe point: a landing that ends early has changed nothing."""
        stop.raise_if_asked(dbs.ops, batch.code)
        run.progress(line)

    result = landing.land(
        dbs.ops, dbs.balisnap, dbs.bstadmin, run_id=run.run_id, progress=told, breathe=run.breathe, whole=run.full
    )
    if result.why_whole is None:
        entry.rows = sum(t.changed or 0 for t in result.tables)
        entry.detail["followed"] = f"{entry.rows:,} of {result.rows:,} rows had changed since the last landing"
        run.progress(f"{batch.code}  {entry.detail['followed']}")
    else:
        entry.rows = result.rows
        entry.detail["whole"] = result.why_whole
    entry.detail["tables"] = {f"{t.source}.{t.table}": t.rows for t in result.tables}
    if entry.rows:  # something will be built of them
        warehouse.warm(dbs.ops)


def _snapshot(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    with run.connect() as own, own.transaction():  # what ends this connection leaves the log's
        if not _batch_e_stands(own):
            _keep_reviews(own)
        cursor = own.execute((SQL / "status_snapshot.sql").read_bytes())
        while cursor.nextset():
            pass
        entry.rows = cursor.rowcount


def _batch_e_stands(conn: psycopg.Connection) -> bool:
    """Whether batch E has run and was not rolled back: it keeps the statuses before it writes."""
    return conn.execute("select exists (select 1 from phase2.status_snapshot)").fetchone() == (True,)


def _keep_reviews(conn: psycopg.Connection) -> None:
    """Batch E lists reviews too (mapping 5.3), of a landing of its own: its rollback leaves them as batch D had."""
    with conn.transaction():
        conn.execute((SQL / "review_snapshot.sql").read_bytes())


def _audit(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    """The capture export given for gate E-03; without one the captures inside the payments' payloads are compared."""
    file = settings().phase2_audit_file
    with run.connect() as own, own.transaction():
        own.execute("delete from phase2.audit_sample")
        # reports name a sample by its line in the file, the same in each run
        own.execute("select setval(pg_get_serial_sequence('phase2.audit_sample', 'line_no'), 1, false)")
        if file is None:
            entry.detail["sample"] = "captures inside raw_payload"
            return
        copy = (
            "copy phase2.audit_sample (capture_id, amount, currency, status, captured_at)"
            " from stdin (format csv, header match)"
        )
        try:
            with file.open("rb") as rows, own.cursor() as cursor:
                with cursor.copy(copy) as target:
                    while chunk := rows.read(1 << 16):
                        target.write(chunk)
                entry.rows = cursor.rowcount
        except (OSError, psycopg.DataError) as error:
            reason = error.diag.message_primary if isinstance(error, psycopg.Error) else error.strerror
            raise CouldNotRun(
                f"the audit file cannot be read: {reason}",
                where=str(file),
                todo="It is a CSV with the header capture_id,amount,currency,status,captured_at (PHASE2_AUDIT_FILE).",
            ) from None


def _service(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    """A look at the service, or a flag; GateFailed (of F by F-00) when something there is not as it must be."""
    work: Any = {"F": ingestion, "G": reads, "H": write_cutover}[batch.code]
    look = work.switch_on if step.kind == "flag" else work.look
    try:
        entry.detail |= look(run, step.target)
    except ingestion.Unfit as unfit:
        blocked = "F-00" if batch.code == "F" else step.name
        run.progress(f"{batch.code}  {blocked}: {unfit}")
        set_state(conn, run, batch.code, "FAIL", blocked_by=[blocked], error=f"{blocked}: {unfit}")
        raise GateFailed(batch.code, [f"{blocked}: {unfit}"]) from None


def _emit(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    entry.detail |= ingestion.emit(run, step.target)


def _parity(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    """What it finds is gate BG-01's to judge."""
    from bridge import parity

    found = parity.compare(run)
    entry.rows, entry.detail["compared"] = found.counts["bookings"], dict(found.counts)


def _retention(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    from bridge import retention

    retention.work(run, entry)


def _guardrails(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    from bridge import guardrails, ui_gate

    entry.checksum = warehouse.digest()
    for part in ("ground", "recon"):  # some measures are views
        refresh(run, conn, part, entry.checksum)
    entry.detail["measured"] = {one.guardrail: one.words for one in guardrails.measure(run.databases)}
    if "G-07" in batch.gates:
        entry.detail["ui"] = ui_gate.confirm(conn)


def _dbt(run: Run, batch: Batch, step: Step, conn: psycopg.Connection, entry: runlog.Entry) -> None:
    if step.target.startswith("batch_") and not landing.landing_is_complete(conn):
        raise CouldNotRun(
            "the landed rows are gone (the server restarted after a crash)",
            where="landing_balisnap, landing_bstadmin",
            todo=f"Run the batch again: make run BATCH={batch.code}",
        )
    entry.checksum = warehouse.digest()
    nodes = refresh(run, conn, "ground", entry.checksum)
    if nodes:
        ranges.make_work_again(conn)
    if step.target.startswith("gates_"):
        nodes += refresh(run, conn, "recon", entry.checksum)
    if step.target == "ops_read":
        nodes += refresh(run, conn, "ops_read", entry.checksum)
    unseen = follow.look(conn) if step.target in follow.BATCHES else None
    if step.target.startswith("batch_") and _is_settled(run, conn, step.target, entry, unseen):
        entry.detail["unchanged"] = "what it reads and what it wrote are as after its last run: not built again"
    elif step.target in _READINGS and _reading_stands(run, conn, step.target, entry):
        entry.detail["unchanged"] = "what it measures is as it was when it was read last: the same numbers stand"
    elif step.target not in ("ground", "ops_read"):
        read_of = _measures(run, conn, entry) if step.target in _READINGS else ""
        if step.target in measure.BATCHES:
            nodes += _measure(run, conn, step.target, entry)
        else:
            nodes += _build(run, conn, step.target, entry, unseen)
        if read_of:
            _remember(conn, f"reading {step.target}", read_of)
        # a load that went on after a death: somebody may have written to what stood already, so nothing is settled
        if step.target.startswith("batch_") and not entry.detail.get("resumed"):
            _settle(run, conn, step.target, entry)
    entry.rows = sum(node.rows or 0 for node in nodes if node.kind == "model" and "/bridge/" in node.selector_path)
    entry.detail["nodes"] = [
        {
            "name": n.name,
            "kind": n.kind,
            "status": n.status,
            "rows": n.rows,
            "seconds": n.seconds,
            "sha256": n.checksum,
        }
        for n in nodes
    ]


def _build(
    run: Run, conn: psycopg.Connection, selector: str, entry: runlog.Entry, unseen: str | None
) -> list[warehouse.Node]:
    """Build a batch or its gates. Batch E takes over batch D's working tables when nothing has moved since."""
    follows = selector in follow.BATCHES and _follows(run, conn, selector, entry, unseen)
    of = follow.digest(conn) if follows else "all"
    if selector == "batch_d":
        made_of = f"{_work_of_d(conn, run, entry)} {of}"
        _remember(conn, "work of batch_d", "")  # it is about to be replaced, model by model
        nodes = _built(run, conn, selector, selector, entry, follows=follows)
        _remember(conn, "work of batch_d", made_of)
        if follows:
            follow.built(conn, then="batch_e")
        if _batch_e_stands(conn):
            _keep_reviews(conn)
        return nodes
    if selector == "batch_e" and f"{_work_of_d(conn, run, entry)} {of}" == _remembered(conn, "work of batch_d"):
        entry.detail["reused"] = "what batch D built from the same landed rows"
        nodes = _built(run, conn, selector, "batch_e_after_d", entry, follows=follows)
    else:
        if selector == "batch_e" and not follows:
            follow.begin_whole(conn)
        nodes = _built(run, conn, selector, selector, entry, follows=follows)
        if follows:
            follow.built(conn, then="batch_d")
    if selector == "batch_e" and not follows:
        follow.make_ready(conn)
    return nodes


def _built(
    run: Run, conn: psycopg.Connection, batch: str, selector: str, entry: runlog.Entry, *, follows: bool
) -> list[warehouse.Node]:
    """Build what a selector of the batch names; a large first load of D or E in ranges that commit on their own."""
    if batch in follow.BATCHES and not follows:
        made_of = f"{_reads(run, conn, entry)} {conn.execute(_OTHERS).fetchone()}"
        if batch == "batch_e":  # it shares working tables with D, which a run of D may have made anew
            made_of += f" {_remembered(conn, 'work of batch_d')}"
        load = ranges.begin(conn, batch, selector, made_of, whole=run.full)
        if load is not None:
            entry.detail["resumed"] = load.has_work or load.done > 0
            nodes, entry.detail["ranges"] = ranges.run(
                conn, run.databases.ops, batch, load, progress=run.progress, breathe=run.breathe
            )
            return nodes
    return warehouse.build(run.databases.ops, selector, progress=run.progress, breathe=run.breathe, follows=follows)


def _measure(run: Run, conn: psycopg.Connection, selector: str, entry: runlog.Entry) -> list[warehouse.Node]:
    """Measure the gates, and test them where all rows were measured; the verdict judges the same rows."""
    whole = "asked for" if run.full else None
    with run.connect() as own:  # what ends this connection leaves the log's
        measured = measure.read(own, measure.BATCHES[selector], entry.checksum or "", run.run_id, whole=whole)
    _tell_measured(run, measured, entry)
    if not measured.whole and selector in _READINGS:
        return []
    # the others' own views are small: nothing of them is kept, and C's are measured there
    tests = ["--exclude-resource-type", "model"] if selector in ("gates_d", "gates_e") else []
    return warehouse.build(run.databases.ops, selector, progress=run.progress, breathe=run.breathe, extra=tests)


def _tell_measured(run: Run, measured: measure.Measured, entry: runlog.Entry) -> None:
    if measured.whole:
        entry.detail["whole"] = measured.whole
        if not run.full:
            run.progress(f"  measures everything: {measured.whole}")
        return
    bookings, keys = measured.bookings, measured.keys
    entry.detail["followed"] = {"bookings_of_the_sources": bookings, "bookings_of_the_bridge": keys}
    run.progress(f"  measures what was touched: {bookings:,} bookings of the sources, {keys:,} of the bridge")


def measure_again(run: Run, conn: psycopg.Connection, batch: Batch, project: str) -> None:
    """Bring the reading of the gates of A to E up to date without a run; nothing where the views are to be asked."""
    selector, entry = f"gates_{batch.code.lower()}", runlog.Entry(checksum=project)
    if run.full or selector not in measure.BATCHES:
        return
    if selector in _READINGS and _reading_stands(run, conn, selector, entry):
        return
    read_of = _measures(run, conn, entry)
    with run.connect() as own:  # what ends this connection leaves the log's
        # what is kept is of C to E: E keeps all of it
        measured = measure.read(own, measure.BATCHES[selector], project, run.run_id, unless_whole=("global", "c", "d"))
    _tell_measured(run, measured, entry)
    if selector in _READINGS and (not measured.whole or batch.code == "E"):
        _remember(conn, f"reading {selector}", read_of)


def _follows(run: Run, conn: psycopg.Connection, selector: str, entry: runlog.Entry, unseen: str | None) -> bool:
    """Whether the batch computes only what changes lead to; the reason, or how much it is, is told and logged."""
    why = "asked for" if run.full else None
    if why is None:
        warehouse.warm(run.databases.ops)
        why = follow.prepare(conn, selector, entry.checksum or "", run.as_of, unseen)
    if why is None:
        bookings, keys = follow.size(conn)
        entry.detail["followed"] = {"bookings_of_the_sources": bookings, "bookings_of_the_bridge": keys}
        run.progress(f"  follows what changed: {bookings:,} bookings of the sources, {keys:,} of the bridge")
        return True
    if selector == "batch_d":
        follow.begin_whole(conn)
    entry.detail["whole"] = why
    if not run.full:
        run.progress(f"  computes everything: {why}")
    return False


def _is_settled(run: Run, conn: psycopg.Connection, selector: str, entry: runlog.Entry, unseen: str | None) -> bool:
    """Whether a rerun of this batch would change nothing: the same project, day and landed rows, and nobody wrote.

    A batch that is run again on what it made writes nothing (idempotence: tests/test_rerun.py holds it). So a batch
    stays settled while others of our own come after it, and until anybody else writes one row. `unseen`: what the look
    at the rows of bookings has said, which batch C does not read.
    """
    if _remembered(conn, "bridge") != _small_tables(conn):
        conn.execute("delete from phase2.warehouse_state where part like 'settled %'")
    if selector in follow.BATCHES and (unseen or follow.others_wrote(conn)):
        conn.execute("delete from phase2.warehouse_state where part in ('settled batch_d', 'settled batch_e')")
    settled = not run.full and _remembered(conn, f"settled {selector}") == _reads(run, conn, entry, selector)
    if not settled:  # until it has ended, whatever becomes of it
        conn.execute("delete from phase2.warehouse_state where part = %s", (f"settled {selector}",))
    return settled


def _small_tables(conn: psycopg.Connection, *, around: bool = False) -> str:
    """Which row versions the bridge is made of, but for bookings and events: bridge/written.py looks at these."""
    refs = conn.execute(_REFS_OF_THE_CATALOG).fetchone()
    return f"{fingerprint.versions(conn, around=around, but=_WATCHED)} {refs}"


# Tables that grow with the bookings; what batch D alone writes and reads, besides.
_WATCHED = (written.TABLES | {"phase2.booking_source_times"}) - {"public.unmapped_queue"}
_REFS_OF_THE_CATALOG = """
select count(*), sum(hash_record_extended(row(e.ctid, e.xmin), 0))
from public.channel_external_refs as e
where e.entity_type <> 'BOOKING'
"""


# The gates of these are measured once a run, into a table (dbt_project/models/recon/batch_*/recon_*_reading.sql).
_READINGS = {f"gates_{code}": f"recon_{code}_reading" for code in "cde"}


def _reading_stands(run: Run, conn: psycopg.Connection, selector: str, entry: runlog.Entry) -> bool:
    """Whether a batch's gates would be measured as they were: the reading then is this run's, of this time."""
    remembered = _remembered(conn, f"reading {selector}")
    if run.full or remembered is None or not landing.landing_is_complete(conn):
        return False
    with run.connect() as own:  # what ends this connection leaves the log's
        if remembered != _measures(run, own, entry) or not measure.stands(own, entry.checksum or ""):
            return False
    reading = postgres.statement("update {}.{} set read_at = now(), run_id = %s", "dbt_recon", _READINGS[selector])
    try:
        return conn.execute(reading, (run.run_id,)).rowcount > 0
    except psycopg.errors.UndefinedTable:
        return False


def _measures(run: Run, conn: psycopg.Connection, entry: runlog.Entry) -> str:
    """All that the gates of C to E read but for the rows of bookings (`measure.stands`): what a batch reads, the
    bridge's other tables, and what runs keep around the batches."""
    around = _small_tables(conn, around=True)
    made = _remembered(conn, "recon as made")
    return hashlib.sha256(f"{_reads(run, conn, entry)} {around} {made}".encode()).hexdigest()


def forget_what_is_settled(conn: psycopg.Connection) -> None:
    """The next run of every batch builds it again, and all of it."""
    conn.execute("delete from phase2.warehouse_state where part like 'settled %'")
    follow.forget(conn)
    measure.forget(conn)
    ranges.forget(conn)


def _settle(run: Run, conn: psycopg.Connection, selector: str, entry: runlog.Entry) -> None:
    with written.snapshot(conn):
        _remember(conn, f"settled {selector}", _reads(run, conn, entry, selector))
        _remember(conn, "bridge", _small_tables(conn))
        if selector in follow.BATCHES:
            follow.settle(conn, selector, entry.checksum or "", run.as_of)


def _reads(run: Run, conn: psycopg.Connection, entry: runlog.Entry, selector: str = "") -> str:
    landed = conn.execute(_LANDED).fetchone()  # which also sets the mark
    if selector == "batch_c":
        landed = conn.execute(_LANDED_CATALOG).fetchone()
    return f"{entry.checksum} {run.as_of} {landed}"


# What is landed, on a server that has not crashed since: that would have emptied the working tables.
_LANDED = """
with marked as (
    insert into phase2.since_crash
    select gen_random_uuid()
    where not exists (select 1 from phase2.since_crash)
    returning since_crash
)

select
    (select since_crash from marked union all select since_crash from phase2.since_crash limit 1)::text as since_crash,
    array(
        select distinct on (r.source) r.content_digest
        from phase2.landing_runs as r
        order by r.source, r.landing_no desc
    )
"""

# What batch C reads of it: the tables of the catalog.
_LANDED_CATALOG = """
select
    (select s.since_crash from phase2.since_crash as s)::text,
    array(
        select r.source || r.versions_of || t.table_name || t.content_digest
        from (
            select distinct on (n.source) n.source, n.landing_id, coalesce(n.versions_of, '') as versions_of
            from phase2.landing_runs as n
            order by n.source, n.landing_no desc
        ) as r
        join phase2.landing_tables as t on t.landing_id = r.landing_id and t.source = r.source
        where t.table_name ~ '^(Tour|Variant|tour)'
        order by 1
    )
"""


def _work_of_d(conn: psycopg.Connection, run: Run, entry: runlog.Entry) -> str:
    """What batch D's working tables are made of: project, run (its day), landing, and what others write meanwhile.

    Ingestion, core writes and people leave a trace in one of these three tables with whatever they do to a booking.
    """
    return f"{entry.checksum} {run.run_id} {conn.execute(_MADE_OF).fetchone()}"


# What others write that the models of D and E read; a load that was cut into ranges writes none of it.
_OTHERS = """
select
    (
        select (count(*), sum(hashtextextended(concat_ws('|', f.*), 0)))
        from phase2.booking_freshness as f
    ),
    (
        select (count(*), sum(hashtextextended(concat_ws('|', q.queue_key, q.status, q.resolved_by, q.payload), 0)))
        from public.unmapped_queue as q
        where q.queue_type = 'PAYMENT_LINK' and q.status in ('RESOLVED', 'CLOSED')
    ),
    (select (count(*), count(e.processed_at), max(e.processed_at)) from public.ingest_event_log as e)
"""

_MADE_OF = """
select
    (select max(r.landing_no) from phase2.landing_runs as r),
    (
        select (count(*), sum(hashtextextended(concat_ws('|', f.*), 0)))
        from phase2.booking_freshness as f
    ),
    (
        select (count(*), sum(hashtextextended(concat_ws('|', q.queue_key, q.status, q.resolved_by, q.payload), 0)))
        from public.unmapped_queue as q
        where q.queue_type = 'PAYMENT_LINK'
    ),
    (select (count(*), count(e.processed_at), max(e.processed_at)) from public.ingest_event_log as e)
"""


def refresh(run: Run, conn: psycopg.Connection, selector: str, digest: str) -> list[warehouse.Node]:
    """Build what a selector names, unless it stands as this version of the dbt project made it; the nodes built.

    What judges is made again too when anybody has changed it in the database: a list, a function, a view.
    """
    stands = conn.execute(_STANDS, (list(_VIEWS[selector]),)).fetchone() == (True,)
    if stands and _remembered(conn, selector) == digest:
        if _remembered(conn, f"{selector} as made") == _as_it_is(run, selector):
            return []
        run.progress(f"somebody has changed it in the database: building {selector} again")
    else:
        run.progress(f"the dbt project has changed: building {selector}")
    if selector == "recon":
        measure.renew(conn)
    nodes = warehouse.build(run.databases.ops, selector, progress=run.progress, breathe=run.breathe)
    _remember(conn, selector, digest)
    _remember(conn, f"{selector} as made", _as_it_is(run, selector))
    return nodes


def _as_it_is(run: Run, selector: str) -> str:
    """A digest of the functions and views of a selector, and of the rows of the lists; not of who may read them."""
    schemas = {"ground": ["rulebook", "dbt_staging", "dbt_seeds"], "recon": ["dbt_recon"], "ops_read": ["ops_read"]}[
        selector
    ]
    with run.connect() as own, own.transaction():  # what ends this connection leaves the log's
        made: list[Any] = own.execute(_DEFINITIONS, {"schemas": schemas}).fetchall()
        if selector == "ground":
            made += sorted(fingerprint.rows(own, schemas=["dbt_seeds"]).items())
    return hashlib.sha256(repr(made).encode()).hexdigest()


_DEFINITIONS = """
select p.pronamespace::regnamespace::text, pg_get_functiondef(p.oid)
from pg_catalog.pg_proc as p
where p.pronamespace::regnamespace::text = any(%(schemas)s) and p.prokind in ('f', 'p')
union all
select c.oid::regclass::text, pg_get_viewdef(c.oid)
from pg_catalog.pg_class as c
where c.relnamespace::regnamespace::text = any(%(schemas)s) and c.relkind = 'v'
order by 1, 2
"""


# What of a selector may vanish: a landing schema or a table that is made anew takes the views on it along.
_VIEWS = {
    "ground": ("dbt_staging.stg_balisnap__bookings", "dbt_staging.stg_bstadmin__bookings"),
    "ops_read": ("ops_read.shadow_bookings", "ops_read.shadow_told", "ops_read.shadow_told_several"),
    "recon": (
        "dbt_recon.recon_global",
        "dbt_recon.kept_recon_c",
        "dbt_recon.kept_recon_d",
        "dbt_recon.kept_recon_e",
        *(f"dbt_recon.recon_{code.lower()}" for code in ORDER),
    ),
}
_STANDS = "select bool_and(to_regclass(wanted) is not null) from unnest(%s::text[]) as wanted"


def _remembered(conn: psycopg.Connection, part: str) -> str | None:
    row = conn.execute("select w.digest from phase2.warehouse_state as w where w.part = %s", (part,)).fetchone()
    return row[0] if row else None


def _remember(conn: psycopg.Connection, selector: str, digest: str) -> None:
    conn.execute(
        "insert into phase2.warehouse_state (part, digest) values (%s, %s)"
        " on conflict (part) do update set digest = excluded.digest, built_at = now()",
        (selector, digest),
    )


_KINDS: dict[str, Callable[[Run, Batch, Step, psycopg.Connection, runlog.Entry], None]] = {
    "script": _script,
    "sources": _sources,
    "rerun": _rerun,
    "legacy": _legacy,
    "land": _land,
    "snapshot": _snapshot,
    "audit": _audit,
    "dbt": _dbt,
    "service": _service,
    "flag": _service,
    "emit": _emit,
    "retention": _retention,
    "parity": _parity,
    "guardrails": _guardrails,
}


@dataclass(frozen=True)
class BatchStatus:
    """One line of `phase2 status`; a batch that never ran is PENDING."""

    batch: str
    focus: str
    status: str
    gates: str
    blocked_by: tuple[str, ...]
    as_of: date | None
    ended_at: datetime | None
    report: Path | None
    error: str | None
    stands: bool  # something of it is in the database: it can be rolled back
    changed: tuple[str, ...] = ()  # of a STALE pass: what is not as it was judged
    waived: tuple[str, ...] = ()  # gates that fail within a waiver
    pausing: str | None = None  # what a run that is at work waits for just now


_STATUS = """
select
    s.batch, s.run_id, s.status, s.blocked_by, s.as_of, s.ended_at, s.report_html_path, s.error_message,
    (
        select count(*) filter (where g.status <> 'FAIL') || ' of ' || count(*)
        from phase2.gate_results as g
        where
            g.batch = s.batch
            and g.evaluated_at = (select max(l.evaluated_at) from phase2.gate_results as l where l.batch = s.batch)
    ) as gates
from phase2.batch_state as s
"""


def status(ops_url: str) -> list[BatchStatus]:
    """Where each batch stands, in the order of the plan; what a FAIL holds and what was killed is derived here."""
    bootstrap(ops_url)
    with postgres.connect(ops_url, application_name="phase2-status", read_only=True) as conn:
        rows = conn.cursor(row_factory=dict_row).execute(_STATUS).fetchall()
        free = conn.execute("select pg_try_advisory_lock_shared(%s)", (_RUNNER_LOCK,)).fetchone() == (True,)
        passed = [row["batch"] for row in rows if row["status"] == "PASS"]
        waived = {code: door.waived(conn, code) for code in passed}
        against = {code: door.against(conn, code) for code in passed}
        stale = {code: door.stale(conn, code) for code in passed}
        at_work = {row["batch"]: row["run_id"] for row in rows if row["status"] == "RUNNING" and not free}
        pausing = {code: breath.under_way(conn, run_id) for code, run_id in at_work.items()}
    known = {row["batch"]: row for row in rows}
    lines: list[BatchStatus] = []
    held_by: tuple[str, ...] = ()
    for code in ORDER:
        row = known.get(code)
        status = row["status"] if row else "PENDING"
        if status == "RUNNING" and free:
            status = "INTERRUPTED"  # its runner is gone: it was killed
        judged = status in ("PASS", "FAIL")
        lapsed = against.get(code, ())
        if lapsed:
            status = "FAIL"  # a waiver that it passed with stands no more, or the ledger knows of no such pass
        elif stale.get(code):
            status = "STALE"
        lines.append(
            BatchStatus(
                batch=code,
                focus=BATCHES[code].focus,
                status="HOLD" if held_by else status,
                gates=row["gates"] if row and judged else "",
                blocked_by=held_by or lapsed or (tuple(row["blocked_by"] or ()) if row else ()),
                as_of=row["as_of"] if row else None,
                ended_at=row["ended_at"] if row else None,
                report=Path(row["report_html_path"]) if row and row["report_html_path"] else None,
                error=row["error_message"] if row else None,
                stands=row is not None and row["status"] not in ("PENDING", "ROLLED_BACK"),
                changed=stale.get(code, ()),
                waived=tuple(gate for gate, stands in waived.get(code, {}).items() if stands),
                pausing=pausing.get(code),
            )
        )
        if status == "FAIL" and not held_by:  # one FAIL puts every later batch on hold (gates.md)
            held_by = lines[-1].blocked_by
    return lines
