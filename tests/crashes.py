"""Crash equivalence: each step of the plan is killed at each of its points, and the same command is given again.

`make crash-matrix` runs every case and prints the matrix; tests/test_crashes.py runs the cases of CI. A case begins on
a copy of the ops database as it was before its batch, and ends with its comparison to an undisturbed run: catalog and
content fingerprints, gates, states, and whatever a killed session could have left (locks, temporary tables, prepared
transactions, a half landing, dbt's half-made relations).

The runner is the flow itself (`python -m flows`, without Prefect's API around its functions) in a process forked off a
server that has dbt and Prefect imported already. A point is reached, never slept for: before and after a step the
runner waits for us, and in its middle a trap holds up one of its statements until pg_blocking_pids() says so.
"""

from __future__ import annotations

import argparse
import fcntl
import gc
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from itertools import repeat
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NoReturn

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from bridge import cli, embedded, fingerprint, landing, postgres, scripts, sources, steps
from bridge.batches import BACKFILL, BATCHES, ORDER, Batch, Step
from bridge.errors import CouldNotRun
from bridge.settings import ROOT, Databases, settings

AS_OF = date(2026, 2, 19)
PATIENCE = 120.0  # seconds until something that never comes is called so

Point = Literal["before", "middle", "backend", "server", "after"]
POINTS: dict[Point, str] = {
    "before": "runner killed before the step",
    "middle": "runner killed in the middle of it",
    "backend": "its Postgres backend terminated in the middle of it",
    "server": "its Postgres backend killed in the middle of it: the whole server restarts, unlogged tables are empty",
    "after": "runner killed when the step is done, before it says so",
}

# What a batch does beside the steps of its plan.
BEGIN, VERDICT, ROLLBACK = "begin", "gates and report", "rollback"

_KEY = 0x7472617073  # of the advisory lock that holds a trapped statement ("traps" in ASCII)


# --- traps: what the middle of a step is ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Trap:
    """Holds one statement of a step, by a trigger in the ops database, a lock on a table, or a wait in a script.

    `when` is a condition in SQL; a trigger catches the `nth` statement that meets it, and no other.
    """

    name: str
    at: Literal["ddl", "write", "script", "ops table", "bstadmin table"]
    tables: tuple[str, ...] = ()
    nth: int = 1
    when: str = "true"


_OF_CANONICAL_TABLES = ("public.*",)
_HALFWAY = Trap("committing", "script")
_SOURCE = ("public.bookings",)  # of bstadmin: the legacy pages read it, and it is in the middle of the landing

# A new step of these kinds is covered by itself; a new kind has to say here where its middle is.
TRAPS: dict[str, tuple[Trap, ...]] = {
    BEGIN: (Trap("state", "write", ("phase2.batch_state",)),),
    "sources": (Trap("schema", "ddl", nth=3),),
    "script": (_HALFWAY,),
    "rerun": (_HALFWAY,),
    ROLLBACK: (_HALFWAY,),
    "legacy": (Trap("reading", "bstadmin table", _SOURCE),),
    "land": (Trap("copying", "bstadmin table", _SOURCE),),
    "snapshot": (Trap("keeping", "write", ("phase2.status_snapshot",)),),
    "audit": (Trap("emptying", "write", ("phase2.audit_sample",)),),
    "dbt ground": (Trap("definitions", "ddl", nth=5),),
    "dbt gates": (Trap("reading", "ops table", ("dbt_seeds.gate_registry",)),),
    "dbt batch": (
        Trap("working tables", "ddl", nth=6),
        Trap("first write", "write", _OF_CANONICAL_TABLES),
        Trap(
            "one model is in",
            "write",
            _OF_CANONICAL_TABLES,
            when="exists (select 1 from phase2.model_changes as m join phase2.run_context as r on m.run_id = r.run_id)",
        ),
    ),
    VERDICT: (
        Trap("results", "write", ("phase2.gate_results",)),
        Trap("state", "write", ("phase2.batch_state",)),
    ),
}

_LOGS = ("public.migration_run_log",)


@dataclass(frozen=True)
class Case:
    """One death: in which step of which batch, at which point; in the middle: in which trap."""

    batch: str
    step: str
    kind: str
    point: Point
    trap: Trap | None = None
    first: str = ""  # the run begins with an earlier batch, whose landing and working tables this one takes over

    @property
    def row(self) -> tuple[str, str]:
        return (f"{self.first} to {self.batch}" if self.first else self.batch, self.step)

    @property
    def command(self) -> str:
        return ROLLBACK if self.kind == ROLLBACK else "run"

    def __str__(self) -> str:
        return f"{' '.join(self.row)}, {self.point}" + (f" ({self.trap.name})" if self.trap else "")


def cases(points: tuple[Point, ...] = tuple(POINTS)) -> list[Case]:
    """Every step of the plan, at every point. KeyError when a step is of a kind without a trap."""
    found = []
    for batch in (BATCHES[code] for code in BACKFILL):
        rows = [(BEGIN, BEGIN)]
        rows += [(step.name, _kind(step)) for step in batch.plan]
        rows += [(VERDICT, VERDICT), (ROLLBACK, ROLLBACK)]
        for name, kind in rows:
            for point in points:
                traps: tuple[Trap | None, ...] = (None,) if point in ("before", "after") else TRAPS[kind]
                found += [Case(batch.code, name, kind, point, trap) for trap in traps]
    return found + [replace(case, first="D") for case in found if (case.batch, case.kind) == ("E", "dbt batch")]


def _kind(step: Step) -> str:
    """Of dbt's steps each sort of selector is a kind of its own: `dbt batch`, `dbt gates`, `dbt ground`."""
    return f"dbt {step.target.split('_')[0]}" if step.kind == "dbt" else step.kind


# --- the runner ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """What a runner process is to do, and where it is to wait."""

    first: str
    batch: str
    command: str
    environment: dict[str, str]
    log: str
    waits: tuple[tuple[str, str], ...] = ()  # (step, "before" or "after")
    folder: str | None = None  # of trapped scripts, for the step at which it waits
    sabotage: Callable[[], None] | None = None  # a fault planted into the runner, for the tests of this matrix


def _runner(order: _Order, pipe: Connection) -> NoReturn:
    """The runner's process: the flows' own functions, with a wait where one was asked for; exits as the command."""
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(order.environment)
    settings.cache_clear()
    gc.disable()  # this process does not live long
    from flows import __main__ as command
    from flows import migration

    def wait(step: str, where: str) -> None:
        if (step, where) in order.waits:
            pipe.send((step, where))
            pipe.recv()

    def around(step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def waiting(*arguments: Any, **words: Any) -> Any:
            wait(step, "before")
            result = work(*arguments, **words)
            wait(step, "after")
            return result

        return waiting

    def run_step(run: steps.Run, batch: Batch, step: Step) -> None:
        original, folder = steps._KINDS[step.kind], scripts.FOLDER

        def working(*arguments: Any) -> None:
            original(*arguments)
            wait(step.name, "after")  # its work is committed, the log does not say so yet

        wait(step.name, "before")
        steps._KINDS[step.kind] = working
        if order.folder and (step.name, "before") in order.waits:
            scripts.FOLDER = Path(order.folder)
        try:
            steps.execute(run, batch, step)
        finally:
            steps._KINDS[step.kind] = original
            scripts.FOLDER = folder

    async def publish(_: steps.Outcome) -> None:
        """Prefect's artifacts: there is no Prefect here."""

    migration.run_step = run_step  # type: ignore[assignment]
    migration.conclude = around(VERDICT, steps.conclude)  # type: ignore[assignment]
    migration.publish = publish  # type: ignore[assignment]
    steps.begin = around(BEGIN, steps.begin)
    if order.sabotage:
        order.sabotage()
    if order.command == ROLLBACK:
        if order.folder:
            scripts.FOLDER = Path(order.folder)
        scripts.run_script = around(ROLLBACK, scripts.run_script)
        sys.argv = ["phase2", "rollback", "--batch", order.batch]
        cli.main()
    command.migration_flow = migration.migration_flow.fn  # type: ignore[assignment]
    sys.argv = ["flows", "run", "--from", order.first, "--to", order.batch, "--as-of", AS_OF.isoformat()]
    sys.exit(command.main())


class Runner:
    """A runner's process and the line to it."""

    def __init__(self, order: _Order) -> None:
        context = multiprocessing.get_context("forkserver")
        # what takes seconds is imported once, by the server that runners are forked off
        context.set_forkserver_preload(["dbt.cli.main", "dbt.adapters.postgres", "flows.migration", "flows.__main__"])
        self.log = Path(order.log)
        self._pipe, theirs = context.Pipe()
        self.process = context.Process(target=_runner, args=(order, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def reached(self, step: str, where: str) -> None:
        """Wait until it waits there."""
        if not self._pipe.poll(PATIENCE):
            raise AssertionError(f"it never came to {where} {step}: {self.tail()}")
        try:
            assert self._pipe.recv() == (step, where)
        except EOFError:
            raise AssertionError(f"it ended without coming to {where} {step}: {self.tail()}") from None

    def go_on(self) -> None:
        self._pipe.send(None)

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE)
        assert self.process.exitcode == -signal.SIGKILL, f"it had ended before it could be killed: {self.tail()}"

    def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        self.process.join(PATIENCE)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"it did not end: {self.tail()}")
        return self.process.exitcode

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:] if self.log.exists() else ""


# --- the stage -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class State:
    """What a run leaves: the ops database as fingerprint, each batch's gates and state."""

    prints: fingerprint.Fingerprint
    gates: list[tuple]
    states: dict[str, str]


def _before(code: str) -> str:
    """The copy of the ops database as it is before a batch."""
    return f"crash_before_{code}"


def _after(code: str) -> str:
    return ORDER[ORDER.index(code) + 1]


@dataclass
class Stage:
    """A server of our own, two sample sources, and the ops database as it is before and after each batch."""

    home: Path
    databases: Databases
    expected: dict[tuple[str, str, str], State] = field(default_factory=dict)
    sources_before: list[fingerprint.Fingerprint] = field(default_factory=list)

    @property
    def server(self) -> str:
        return postgres.with_database(self.databases.ops, "postgres")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PHASE2_ENV": "local",
            "OPS_DB_URL": self.databases.ops,
            "BALISNAP_DB_URL": self.databases.balisnap,
            "BSTADMIN_DB_URL": self.databases.bstadmin,
            "PHASE2_HOME": str(self.home),
            "PHASE2_REPORTS": str(self.home / "reports"),
            "PHASE2_DISK_TOTAL_BYTES": "1000",
            "PHASE2_DISK_USED_BYTES": "100",
            "DBT_WRITE_JSON": "false",  # nobody reads dbt's artifacts here
        }

    def prepare(self, bookings: int) -> None:
        """Make the sources, and an ops database that no batch has been at."""
        for name in ("crash_balisnap", "crash_bstadmin"):
            self._admin("drop database if exists {} with (force)", name)
            self._admin("create database {}", name)
        sources.create(self.databases.balisnap, self.databases.bstadmin, bookings=bookings, seed=7, as_of=AS_OF)
        self.sources_before = self._source_prints()
        self._admin("drop database if exists {} with (force)", "crash_ops")
        self._admin("create database {}", "crash_ops")
        steps.bootstrap(self.databases.ops)
        self._save(_before("A"))

    def _undisturbed(self, code: str, command: str, first: str = "") -> State:
        """What that command leaves where nobody dies; made once, when it is asked for, as is what comes before it."""
        if (known := self.expected.get((first, code, command))) is not None:
            return known
        self._begin(first or code, command)
        runner = self.start(code, command, first)
        assert runner.ended() == 0, runner.tail()
        assert self.left_behind() == []
        if command == "run" and not first:
            self._save(_before(_after(code)))
        return self.expected.setdefault((first, code, command), self.state())

    def _save(self, name: str) -> None:
        self._admin("drop database if exists {} with (force)", name)
        self._admin("create database {} template {}", name, "crash_ops")

    def reset(self, code: str, command: str, first: str = "") -> None:
        """The ops database as it was before that command, whose undisturbed end is known then."""
        self._undisturbed(code, command, first)
        self._begin(first or code, command)

    def _begin(self, code: str, command: str) -> None:
        stands = _after(code) if command == ROLLBACK else code
        if stands != ORDER[0]:
            self._undisturbed(ORDER[ORDER.index(stands) - 1], "run")
        self._admin("drop database if exists {} with (force)", "crash_ops")
        self._admin("create database {} template {}", "crash_ops", _before(stands))

    def _admin(self, statement: str, *names: str) -> None:
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute(postgres.statement(statement, *names))

    def start(self, code: str, command: str, first: str = "", **how: Any) -> Runner:
        """A runner of that batch, or of those from `first` to it."""
        log = self.home / "runner.log"
        log.unlink(missing_ok=True)
        return Runner(_Order(first or code, code, command, self.environment, str(log), **how))

    def state(self) -> State:
        with postgres.connect(self.databases.ops, autocommit=True) as conn:
            gates = conn.execute(
                "select g.batch, g.gate_id, g.numerator, g.denominator, g.value, g.threshold, g.status"
                " from phase2.gate_results as g"
                " where (g.batch, g.evaluated_at) in"
                " (select l.batch, max(l.evaluated_at) from phase2.gate_results as l group by 1)"
                " order by g.batch, g.gate_id"
            ).fetchall()
            states = dict(conn.execute("select batch, status from phase2.batch_state").fetchall())
        with postgres.connect(self.databases.ops) as conn:
            return State(fingerprint.take(conn), gates, states)

    def _source_prints(self) -> list[fingerprint.Fingerprint]:
        prints = []
        for url in (self.databases.balisnap, self.databases.bstadmin):
            with postgres.connect(url) as conn:
                prints.append(fingerprint.take(conn))
        return prints

    def sources_changed(self) -> list[str]:
        """Differences of the sources since they were made, in words."""
        pairs = zip(self.sources_before, self._source_prints(), strict=True)
        return [line for before, after in pairs for line in fingerprint.difference(before, after)]

    # --- one case

    def undergo(self, *deaths: Case, sabotage: Callable[[], None] | None = None) -> list[str]:
        """Die these deaths of one command, one after the other; give it once more; what differs from undisturbed?"""
        first = deaths[0]
        self.reset(first.batch, first.command, first.first)
        with ExitStack() as stack:
            for case in deaths:
                self._die(case, stack, sabotage)
            again = self.start(first.batch, first.command, first.first, sabotage=sabotage)
            if again.ended() != 0:
                return [f"the last run ended with {again.process.exitcode}: {again.tail()}"]
        self._disarm()
        return self.differences(first, landed="server" not in {case.point for case in deaths})

    def differences(self, case: Case, *, landed: bool = True) -> list[str]:
        found, expected = self.state(), self.expected[case.first, case.batch, case.command]
        lines = fingerprint.difference(*(self._compared(s.prints, case, landed) for s in (expected, found)))
        lines += [f"gate: {gate}, undisturbed" for gate in expected.gates if gate not in found.gates]
        lines += [f"gate: {gate}, here" for gate in found.gates if gate not in expected.gates]
        if found.states != expected.states:
            lines.append(f"states: {found.states}, undisturbed {expected.states}")
        return lines + self.left_behind()

    @staticmethod
    def _compared(prints: fingerprint.Fingerprint, case: Case, landed: bool) -> fingerprint.Fingerprint:
        """All but the rows of dbt's working tables: each run makes them anew, and they tell what it found here before.

        After a crash of the server a rollback does not land again: landed rows are gone, as documented.
        """
        without = ("dbt_intermediate.", "dbt_recon.")
        if not landed and case.command == ROLLBACK:
            without += ("landing_",)
        rows = {name: of for name, of in prints.content.items() if not name.startswith(without)}
        return replace(prints, content=rows)

    def _die(self, case: Case, stack: ExitStack, sabotage: Callable[[], None] | None) -> None:
        if case.kind == "land":
            self._lose_the_landing()
        start = partial(self.start, case.batch, case.command, case.first, sabotage=sabotage)
        if case.point == "server":
            with postgres.connect(self.server, autocommit=True) as conn:
                # a sequence of a database that was copied since the last checkpoint is not safe from a crash
                conn.execute("checkpoint")
        if case.trap is None:
            runner = start(waits=((case.step, case.point),))
            runner.reached(case.step, case.point)
            runner.kill()
            return
        with ExitStack() as held:
            folder = str(held.enter_context(_trapped_scripts())) if case.trap.at == "script" else None
            runner = start(waits=((case.step, "before"),), folder=folder)
            runner.reached(case.step, "before")
            stack.close()  # the trap of the death before this one
            self._disarm()
            holder = held.enter_context(self._armed(case.trap))
            runner.go_on()
            trapped = self._caught(holder, runner, case)
            if case.point == "middle":
                runner.kill()
                if not case.trap.at.endswith("table"):
                    # what the dead runner was at stays stuck: the next run has to cope
                    stack.push(held.pop_all())
                return
            self._end_backend(trapped, case.point)
        code = runner.ended()
        assert code == 2, f"its backend was gone: {code}, {runner.tail()}"
        if case.point == "server":
            self._wait_for_the_server()
        else:
            assert not (left := self.left_behind()), f"its backend was gone, and it left {left}"

    def _lose_the_landing(self) -> None:
        """A landing that stands is taken over: only of one that is not whole another is made."""
        with postgres.connect(self.databases.ops, autocommit=True) as conn:
            conn.execute("update phase2.landing_tables set row_count = row_count + 1")

    def _wait_for_the_server(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with suppress(CouldNotRun), postgres.connect(self.server):
                return
            time.sleep(0.05)
        raise AssertionError("the server did not come back")

    def _disarm(self) -> None:
        """Take the traps away; what still sits in one has to go by itself."""
        with postgres.connect(self.databases.ops, autocommit=True) as conn:
            conn.execute("set lock_timeout = '20s'")
            try:
                conn.execute("drop schema if exists crash cascade")
            except psycopg.errors.LockNotAvailable:
                raise AssertionError(f"a dead runner still holds locks: {self.left_behind()}") from None

    @contextmanager
    def _armed(self, trap: Trap) -> Iterator[int]:
        """Lay the trap; the pid of the session that holds it."""
        where = self.databases.bstadmin if trap.at == "bstadmin table" else self.databases.ops
        with suppress(psycopg.OperationalError), postgres.connect(where, application_name="crash-trap") as conn:
            if trap.at.endswith("table"):
                for table in trap.tables:
                    conn.execute(postgres.statement("lock table {}.{} in access exclusive mode", *table.split(".")))
            else:
                conn.autocommit = True
                conn.execute("select pg_advisory_lock(%s)", (_KEY,))
            if trap.at in ("ddl", "write"):
                _lay(conn, trap)
            yield conn.info.backend_pid

    def _caught(self, holder: int, runner: Runner, case: Case) -> int:
        """The pid of the session that the trap holds; for a landing the one that copies into the ops database."""
        deadline = time.monotonic() + PATIENCE
        with postgres.connect(self.server, autocommit=True) as conn:
            while time.monotonic() < deadline:
                row = conn.execute(
                    "select a.pid from pg_catalog.pg_stat_activity as a"
                    " where %s = any (pg_catalog.pg_blocking_pids(a.pid))",
                    (holder,),
                ).fetchone()
                if row and case.kind == "land":
                    row = conn.execute(
                        "select p.pid from pg_catalog.pg_stat_progress_copy as p"
                        " where p.datname = %s and p.command = 'COPY FROM'",
                        (postgres.database_name(self.databases.ops),),
                    ).fetchone()
                if row:
                    return int(row[0])
                if not runner.process.is_alive():
                    break
                time.sleep(0.005)
        raise AssertionError(f"{case}: nothing came into the trap: {runner.tail()}")

    def _end_backend(self, pid: int, point: Point) -> None:
        if point == "server":
            os.kill(pid, signal.SIGKILL)
            return
        with postgres.connect(self.server, autocommit=True) as conn:
            assert conn.execute("select pg_terminate_backend(%s)", (pid,)).fetchone() == (True,)

    def left_behind(self) -> list[str]:
        """What no ended run may leave, in words: of sessions, locks, relations and states."""
        with postgres.connect(self.databases.ops, autocommit=True) as conn:
            lines = [line for (line,) in conn.execute(_LEFT_BEHIND).fetchall()]
            return lines + [f"landing: {problem}" for problem in landing.landing_problems(conn) if "half" in problem]


_LEFT_BEHIND = """
select 'session ' || a.application_name || ' in ' || a.datname || ', ' || coalesce(a.state, '') || ': ' || a.query
from pg_catalog.pg_stat_activity as a
where a.pid <> pg_backend_pid() and a.backend_type = 'client backend'

union all

select 'lock ' || l.mode || ' on ' || coalesce(l.relation::regclass::text, l.locktype) || ' of pid ' || l.pid
from pg_catalog.pg_locks as l
where
    l.pid <> pg_backend_pid() and l.locktype in ('relation', 'advisory', 'transactionid')
    and not exists (select 1 from pg_catalog.pg_stat_activity as a where a.pid = l.pid and a.backend_type like 'auto%')

union all

select 'prepared transaction ' || p.gid from pg_catalog.pg_prepared_xacts as p

union all

select 'relation ' || c.oid::regclass::text
from pg_catalog.pg_class as c
where c.relpersistence = 't' or c.relname like '%\\_\\_dbt\\_%'

union all

select 'schema ' || n.nspname from pg_catalog.pg_namespace as n where n.nspname like 'landing%\\_before'

union all

select 'batch ' || s.batch || ' is RUNNING' from phase2.batch_state as s where s.status = 'RUNNING'

union all

select 'step ' || s.step || ' is RUNNING'
from phase2.step_log as s
where
    s.status = 'RUNNING'
    and s.run_id = (select l.run_id from phase2.step_log as l order by l.step_log_id desc limit 1)
"""


def _lay(conn: psycopg.Connection, trap: Trap) -> None:
    """A function in a schema of its own that waits for the advisory lock, and the triggers that call it."""
    conn.execute("create schema crash")
    conn.execute("create sequence crash.seen")
    returns = "event_trigger" if trap.at == "ddl" else "trigger"
    conn.execute(
        sql.SQL(
            "create function crash.trap() returns {} language plpgsql as $$ begin"
            " if {} and nextval('crash.seen') = {} then perform pg_advisory_xact_lock_shared({}); end if;"
            + (" return null;" if trap.at == "write" else "")
            + " end $$"
        ).format(sql.SQL(returns), sql.SQL(trap.when), sql.Literal(trap.nth), sql.Literal(_KEY))  # type: ignore[arg-type]
    )
    if trap.at == "ddl":
        conn.execute("create event trigger crash on ddl_command_end execute function crash.trap()")
        return
    wanted = [tuple(name.split(".")) for name in trap.tables]
    found = conn.execute(
        "select n.nspname, c.relname from pg_catalog.pg_class as c"
        " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
        " where c.relkind = 'r' and n.nspname in ('public', 'phase2') and n.nspname || '.' || c.relname <> all (%s)",
        (list(_LOGS),),
    ).fetchall()
    for schema, table in found:
        if (schema, table) in wanted or (schema, "*") in wanted:
            conn.execute(
                postgres.statement(
                    "create trigger crash after insert or update or delete on {}.{}"
                    " for each statement execute function crash.trap()",
                    schema,
                    table,
                )
            )


@contextmanager
def _trapped_scripts() -> Iterator[Path]:
    """The numbered scripts, each with a wait for the advisory lock before its commit."""
    wait = f"do $trap$ begin perform pg_advisory_xact_lock_shared({_KEY}); end $trap$;\n\ncommit;"
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "phase2"
        shutil.copytree(scripts.FOLDER, folder)
        for script in folder.rglob("*.sql"):
            script.write_text(script.read_text().replace("\ncommit;", "\n" + wait))
        yield folder


@contextmanager
def stage(bookings: int, name: str = "crashes") -> Iterator[Stage]:
    """A stage on a server that nobody else uses: its backends are killed, and with them the whole server."""
    home = ROOT / ".phase2" / "tests" / name
    home.mkdir(parents=True, exist_ok=True)
    with (home / "stage.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = embedded.ensure(home).ops
        try:
            with postgres.connect(server, autocommit=True) as conn:
                conn.execute("alter system set fsync = off")  # processes die here, the machine does not
                conn.execute("select pg_reload_conf()")
            urls = {name: postgres.with_database(server, f"crash_{name}") for name in ("ops", "balisnap", "bstadmin")}
            made = Stage(home, Databases(channel=None, **urls))
            made.prepare(bookings)
            yield made
        finally:
            embedded.stop(home)
            shutil.rmtree(home / "reports", ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, default=2000)
    parser.add_argument("--jobs", type=int, default=2, help="stages side by side, each with a server of its own")
    parser.add_argument("--only", default="", help="the cases whose name holds these words: 'D dbt batch_d, middle'")
    chosen = parser.parse_args()
    every = [case for case in cases() if chosen.only in str(case)]
    found: dict[Case, list[str]] = {}
    with ProcessPoolExecutor(chosen.jobs, multiprocessing.get_context("spawn")) as pool:
        for part in pool.map(
            _some, [every[n :: chosen.jobs] for n in range(chosen.jobs)], repeat(chosen.bookings), range(chosen.jobs)
        ):
            found |= part
    _show({case: found[case] for case in every})
    return 1 if any(found.values()) else 0


def _some(some: list[Case], bookings: int, job: int) -> dict[Case, list[str]]:
    """These cases, each by itself, on a stage of their own."""
    some.sort(key=lambda case: case.point == "server")  # a crash empties the unlogged tables of the copies too
    found: dict[Case, list[str]] = {}
    with stage(bookings, f"crashes-{job}") as made:
        for case in some:
            made.reset(case.batch, case.command, case.first)  # its undisturbed end is known before the server crashes
        for case in some:
            began = time.monotonic()
            try:
                found[case] = made.undergo(case)
            except (AssertionError, CouldNotRun) as problem:
                found[case] = [str(problem)]
            if case is some[-1]:
                found[case] += [f"a source was changed: {line}" for line in made.sources_changed()]
            lines = [f"{'BAD' if found[case] else 'ok '} {time.monotonic() - began:5.1f} s  {case}", *found[case][:20]]
            print("\n      ".join(lines), file=sys.stderr, flush=True)
    return found


def _show(found: dict[Case, list[str]]) -> None:
    """The executed matrix: step by point; a step with several middles has so many deaths in a cell."""
    table = Table(box=None, header_style="bold")
    for head in ("batch", "step", *POINTS):
        table.add_column(head)
    for row in dict.fromkeys(case.row for case in cases()):
        cells = []
        for point in POINTS:
            here = [lines for case, lines in found.items() if (case.row, case.point) == (row, point)]
            bad = sum(map(bool, here))
            cells.append(f"{bad} of {len(here)} BAD" if bad else " ".join(["ok"] * len(here)) or "-")
        if set(cells) != {"-"}:
            table.add_row(*row, *cells)
    Console(width=140).print(table)
    for point, words in POINTS.items():
        print(f" {point:8}{words}")
    print(f"{len(found)} deaths, {sum(map(bool, found.values()))} of them with another end than an undisturbed run")


if __name__ == "__main__":
    sys.exit(main())
