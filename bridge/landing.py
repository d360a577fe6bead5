"""Copies what is needed of both sources into the landing schemas of the ops database (design 3.2).

One read-only, repeatable-read snapshot a source, the two sources side by side, `COPY … TO STDOUT` piped into
`COPY … FROM STDIN`, both binary. Each source's rows are replaced in one transaction of the ops database, and
the two commit together at the end: a landing that fails leaves the one before it whole.

A landing on top of another one fetches only the ranges of keys in which a row version is another (`bridge/changes.py`),
and leaves what a whole landing would; where that cannot be had, the whole is copied, and the result says why.

Raises LandingError, whose words name source, table and column, and never a row's values or a password.
"""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID, uuid4

import psycopg
from psycopg import conninfo, sql

from bridge import changes, postgres, preflight
from bridge.preflight import LandingError, SourceColumn, Table
from bridge.settings import SQL

__all__ = [
    "SOURCES",
    "check_sources",
    "LandingError",
    "LandingResult",
    "TableResult",
    "ensure_tables",
    "land",
    "landing_is_complete",
    "landing_problems",
]

SOURCES = ("balisnap", "bstadmin")

_BLOCK_BYTES = 256 * 1024
_PROGRESS_SECONDS = 1.0

# A table of a million rows takes seconds; half an hour without an end is a broken line. No lock is waited for
# long: in the source another's change comes first, in ops somebody reads the landing that is to be replaced.
_SOURCE_SETTINGS = (
    "set client_encoding = 'UTF8'",
    "set statement_timeout = '30min'",
    "set lock_timeout = '10s'",
    "set row_security = off",  # a policy must fail the copy, not hide rows from it
    # an untouched table is read in the same order each time, so that its digest is the same
    "set synchronize_seqscans = off",
    "set max_parallel_workers_per_gather = 0",
)
_OPS_SETTINGS = (
    "set client_encoding = 'UTF8'",
    "set statement_timeout = '30min'",
    "set lock_timeout = '30s'",
)

_IDENTITY = """
    select
        current_database(), current_setting('server_version'), now(), pg_catalog.pg_current_snapshot()::text,
        case
            when pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')
                then (select system_identifier::text from pg_catalog.pg_control_system())
        end
"""


Progress = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class TableResult:
    """What was copied of one table.

    `rows` are those that it holds now, `bytes` the size of the binary COPY stream. Equal `digest`: the same rows (of
    their versions in one database; of the stream where a source shows no versions). `changed` is None where the whole
    was copied, else the rows that were written or removed.
    """

    source: str
    table: str
    rows: int
    bytes: int
    seconds: float
    digest: str
    changed: int | None = None

    def __str__(self) -> str:
        if self.changed is not None:
            return f"{self.source}.{self.table}: {self.changed:,} of {self.rows:,} rows changed"
        rate = f", {self.rows / self.seconds:,.0f} rows/s" if self.seconds and self.rows else ""
        return f"{self.source}.{self.table}: {self.rows:,} rows{rate}"


@dataclass(frozen=True)
class LandingResult:
    """A committed landing, as phase2.landing_runs and phase2.landing_tables hold it.

    `why_whole`: why all rows were copied; None when only changes were.
    """

    landing_id: UUID
    tables: tuple[TableResult, ...]
    seconds: float
    why_whole: str | None = None

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables)


@dataclass
class _Side:
    """One source on its way into ops."""

    name: str
    source: psycopg.Connection
    ops: psycopg.Connection
    where: str
    tables: tuple[Table, ...] = ()
    found: dict[str, dict[str, SourceColumn]] = field(default_factory=dict)
    identity: tuple[object, ...] = ()
    versions_of: str | None = None  # the database whose row versions can be told apart; None: copy, and compare nothing
    no_versions: str | None = None  # why they cannot

    @property
    def schema(self) -> str:
        return f"landing_{self.name}"


class _Stopped(Exception):
    """The other source failed: no error of its own."""


def land(
    ops_url: str,
    balisnap_url: str,
    bstadmin_url: str,
    run_id: UUID | None = None,
    progress: Progress | None = None,
    *,
    breathe: Callable[[], None] = lambda: None,
    whole: bool = False,
) -> LandingResult:
    """Replace the landing by the sources as they are now; `whole`: by copying every row of them.

    `progress` gets a line with rows and rate when a table is done, and each second while one is copied; it is
    called from two threads. So is `breathe`, before each table.

    Needs `sql/state.sql` in the ops database. Raises LandingError, and then nothing has changed.
    """
    began = time.monotonic()
    landing_id = uuid4()
    stop = threading.Event()
    with ExitStack() as stack:
        sides = _sides(stack, ops_url, balisnap_url, bstadmin_url)
        try:
            _check(sides)
            why = "asked for" if whole else _why_whole(sides)
            if why is None:
                results = _side_by_side(
                    sides, stop, lambda side: _follow_source(side, stop, progress or _silent, breathe)
                )
            else:
                results = _side_by_side(
                    sides, stop, lambda side: _copy_source(side, stop, progress or _silent, breathe)
                )
            for side, tables in zip(sides, results, strict=True):
                _guard_ops(
                    side,
                    "phase2.landing_runs",
                    lambda s=side, t=tables: _record(s, landing_id, run_id, t, began, why),
                )
            for side in sides:
                _guard_ops(side, "the commit", side.ops.commit)
        except BaseException:
            for side in sides:
                with suppress(psycopg.Error):
                    side.ops.rollback()
            raise
    tables = tuple(table for result in results for table in result)
    return LandingResult(landing_id, tables, time.monotonic() - began, why)


def check_sources(ops_url: str, balisnap_url: str, bstadmin_url: str) -> None:
    """Whether both sources can be read and have what is needed; LandingError names all that they lack."""
    with ExitStack() as stack:
        _check(_sides(stack, ops_url, balisnap_url, bstadmin_url))


def _sides(stack: ExitStack, ops_url: str, balisnap_url: str, bstadmin_url: str) -> list[_Side]:
    sides = []
    for name, url in zip(SOURCES, (balisnap_url, bstadmin_url), strict=True):
        ops = stack.enter_context(closing(_open("ops", ops_url, _OPS_SETTINGS)))
        source = stack.enter_context(closing(_open(name, url, _SOURCE_SETTINGS, read_only=True)))
        sides.append(_Side(name, source, ops, postgres.describe(url)))
    return sides


def ensure_tables(ops: psycopg.Connection) -> None:
    """Make both landing schemas as their files say, inside the caller's transaction.

    A schema made from another version of its file is dropped and made anew: rows landed by other columns are
    of no use to the models, and the views on it are dbt's, which makes them at the next build.
    """
    for name in SOURCES:
        _ensure_schema(ops, name)


def landing_is_complete(ops: psycopg.Connection) -> bool:
    """Whether the landing tables hold exactly what the latest landing brought, from both sources."""
    return not landing_problems(ops)


def landing_problems(ops: psycopg.Connection, counted: Collection[str] = SOURCES) -> list[str]:
    """What is wrong with the landing, in words; empty when models may run on it. `counted`: whose tables are counted.

    Unlogged tables are empty after a crash of the server, so each table is counted.
    """
    latest = ops.execute(
        "select distinct on (r.source) r.source, r.landing_id, r.ddl_digest from phase2.landing_runs as r"
        " order by r.source, r.landing_no desc"
    ).fetchall()
    problems = [f"{name} was never landed" for name in SOURCES if name not in {row[0] for row in latest}]
    if not problems and len({landing_id for _, landing_id, _ in latest}) > 1:
        problems.append("the two sources are of different landings: a landing ended half committed")
    problems += [
        f"sql/landing/{source}.sql has changed since {source} was landed"
        for source, _, digest in latest
        if digest != _ddl(source)[1]
    ]
    if problems:
        return problems
    expected = ops.execute(
        "select t.source, t.table_name, t.row_count from phase2.landing_tables as t"
        " where t.landing_id = %s order by t.source, t.table_name",
        (latest[0][1],),
    ).fetchall()
    for source, table, rows in expected:
        if source not in counted:
            continue
        identifier = sql.Identifier(f"landing_{source}", table)
        try:
            row = ops.execute(sql.SQL("select count(*) from {}").format(identifier)).fetchone()
        except psycopg.errors.UndefinedTable:
            ops.rollback()
            return [*problems, f"landing_{source}.{table} is missing"]
        held = row[0] if row else 0
        if held != rows:
            problems.append(f"landing_{source}.{table} holds {held} rows, {rows} were landed")
    return problems


def _check(sides: list[_Side]) -> None:
    """Make the landing tables, open the snapshots, and say all that both sources lack."""
    problems: list[tuple[_Side, preflight.Problem]] = []
    for side in sides:
        try:
            _ensure_schema(side.ops, side.name)
            side.tables = preflight.wanted_tables(side.ops, side.schema)
        except psycopg.Error as error:
            raise _ops_error(error, side, "sql/landing") from None
        try:
            side.identity = side.source.execute(_IDENTITY).fetchone() or ()
            side.found, wrong = preflight.check(side.source, side.name, side.tables)
            side.versions_of, side.no_versions = changes.versions_of(side.source, side.tables)
        except psycopg.Error as error:
            raise _source_error(error, side, None) from None
        problems += [(side, problem) for problem in wrong]
    if problems:
        raise LandingError(
            "; ".join(f"{side.name}: {problem.what}" for side, problem in problems),
            where=", ".join(dict.fromkeys(f"{side.name} at {side.where}" for side, _ in problems)),
            todo=" ".join(dict.fromkeys(problem.todo for _, problem in problems)),
        )


def _side_by_side(
    sides: list[_Side], stop: threading.Event, work: Callable[[_Side], list[TableResult]]
) -> list[list[TableResult]]:
    """Run `work` for both sources; when one fails the other is cancelled, and the first failure is raised."""

    def until_stopped(side: _Side) -> list[TableResult]:
        try:
            return work(side)
        except (LandingError, psycopg.Error):
            if stop.is_set():  # cancelled by us: what it says of that is not the reason
                raise _Stopped from None
            raise

    with ThreadPoolExecutor(len(sides), thread_name_prefix="landing") as pool:
        futures = [pool.submit(until_stopped, side) for side in sides]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            if not all(future.done() and not future.exception() for future in futures):
                stop.set()
                for side, future in zip(sides, futures, strict=True):
                    if not future.done():
                        for connection in (side.source, side.ops):
                            with suppress(psycopg.Error):
                                connection.cancel_safe(timeout=5)
        wait(futures)
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda e: (isinstance(e, _Stopped), not isinstance(e, LandingError))):
            raise error
        return [future.result() for future in futures]


def _why_whole(sides: list[_Side]) -> str | None:
    """Why all rows must be copied; None when the landing that stands can follow the sources."""
    for side in sides:
        if side.no_versions:
            return f"{side.name}: {side.no_versions}"
    for side in sides:  # each by its own connection: a lock on the other's tables would stand in its way
        if found := landing_problems(side.ops, (side.name,)):
            return found[0]
        if why := changes.why_not(side.ops, side.name, side.versions_of):
            return f"{side.name}: {why}"
    return None


def _copy_source(
    side: _Side, stop: threading.Event, progress: Progress, breathe: Callable[[], None]
) -> list[TableResult]:
    """Copy one source's tables in the open transactions; commits nothing."""
    _guard_ops(side, "source_ranges", lambda: changes.begin(side.ops))
    targets = [sql.Identifier(side.schema, table.name) for table in side.tables]
    _guard_ops(
        side,
        side.schema,
        lambda: side.ops.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(targets))),
    )
    _guard_ops(side, "phase2.landing_ranges", lambda: changes.forget(side.ops, side.name))
    results = []
    for table in side.tables:
        breathe()
        results.append(_copy_table(side, table, stop, progress))
        _guard_ops(side, table.name, lambda t=table: _make_known(side, t))
    _let_go(side)
    return results


def _make_known(side: _Side, table: Table) -> None:
    """Tell the planner what a table holds now, and its indexes where."""
    side.ops.execute(sql.SQL("analyze {}").format(sql.Identifier(side.schema, table.name)))
    side.ops.execute(
        "select brin_summarize_new_values(i.indexrelid) from pg_index as i where i.indrelid = %s::regclass",
        (sql.Identifier(side.schema, table.name).as_string(side.ops),),
    )


def _follow_source(
    side: _Side, stop: threading.Event, progress: Progress, breathe: Callable[[], None]
) -> list[TableResult]:
    """Bring one source's landed tables up to date in the open transactions; commits nothing."""
    _guard_ops(side, "source_ranges", lambda: changes.begin(side.ops))
    results = []
    for table in side.tables:
        breathe()
        results.append(_follow_table(side, table, stop, progress))
    _let_go(side)
    return results


def _let_go(side: _Side) -> None:
    try:
        side.source.rollback()  # nothing was written: only the snapshot is let go
    except psycopg.Error as error:
        raise _source_error(error, side, None) from None


def _copy_table(side: _Side, table: Table, stop: threading.Event, progress: Progress) -> TableResult:
    began = time.monotonic()
    # The table was truncated in this transaction, which is what `freeze` asks for: rows are written frozen,
    # so that the models' first read does not write hint bits to every page.
    into = sql.SQL("copy {} ({}) from stdin (format binary, freeze true)").format(
        sql.Identifier(side.schema, table.name),
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns),
    )
    stream = None if side.versions_of else hashlib.sha256()

    def so_far(rows: int, size: int, digest: str = "") -> TableResult:
        return TableResult(side.name, table.name, rows, size, time.monotonic() - began, digest)

    def tell(rows: int, size: int) -> None:
        progress(f"landing {so_far(rows, size)} …")

    query = preflight.select(table, side.found[table.name])
    rows, size = _pipe(side, table, query, into, stop, tell, stream.update if stream else None)
    if stream:
        digest = stream.hexdigest()
    else:
        _pipe(side, table, changes.ranges_of(table), changes.INTO_RANGES, stop)
        digest = _guard_ops(side, table.name, lambda: changes.keep_ranges(side.ops, side.name, table))
    result = so_far(rows, size, digest)
    progress(f"landed {result}")
    return result


def _follow_table(side: _Side, table: Table, stop: threading.Event, progress: Progress) -> TableResult:
    """Fetch the ranges of keys that are not as they were landed, and write the rows in them that differ."""
    began = time.monotonic()
    _pipe(side, table, changes.ranges_of(table), changes.INTO_RANGES, stop)
    found = _guard_ops(side, table.name, lambda: changes.differing(side.ops, side.name, table))
    size = changed = 0
    if found:
        _guard_ops(side, table.name, lambda: changes.make_room(side.ops, side.schema, table, found))
        query = changes.rows_in(preflight.select(table, side.found[table.name]), table, found)
        _, size = _pipe(side, table, query, changes.INTO_FETCHED, stop)
        changed = _guard_ops(side, table.name, lambda: changes.write(side.ops, side.name, side.schema, table))
    digest = _guard_ops(side, table.name, lambda: changes.keep_ranges(side.ops, side.name, table))
    rows = _guard_ops(side, table.name, lambda: changes.rows_of(side.ops, side.name, table))
    result = TableResult(side.name, table.name, rows, size, time.monotonic() - began, digest, changed)
    if changed:
        progress(f"landed {result}")
    return result


def _pipe(
    side: _Side,
    table: Table,
    query: sql.Composed,
    into: sql.Composable,
    stop: threading.Event,
    tell: Callable[[int, int], None] | None = None,
    see: Callable[[bytes], object] | None = None,
) -> tuple[int, int]:
    """Copy what a query of the source gives into ops; (rows, bytes). `tell` is called each second, `see` per block."""
    size, reported = 0, time.monotonic()
    try:
        with side.ops.cursor() as cursor:
            with cursor.copy(into) as copy, closing(_blocks(side, table, query)) as blocks:
                for rows, block in blocks:
                    if stop.is_set():
                        raise _Stopped
                    size += len(block)
                    if see:
                        see(block)
                    copy.write(block)
                    if tell and time.monotonic() - reported >= _PROGRESS_SECONDS:
                        tell(rows, size)
                        reported = time.monotonic()
            return cursor.rowcount, size
    except psycopg.Error as error:
        raise _ops_error(error, side, table.name) from None


def _blocks(side: _Side, table: Table, query: sql.Composed) -> Iterator[tuple[int, bytes]]:
    """A query's binary COPY stream in blocks, each with the rows that were read so far.

    libpq hands over a message a row (and one for the trailer), so rows are counted without a look into them.
    """
    out_of = sql.SQL("copy ({}) to stdout (format binary)").format(query)
    try:
        with side.source.cursor() as cursor, cursor.copy(out_of) as copy:
            rows, size, parts = 0, 0, []
            for message in copy:
                rows += 1
                size += len(message)
                parts.append(message)
                if size >= _BLOCK_BYTES:
                    yield rows, b"".join(parts)
                    size, parts = 0, []
            yield rows - 1, b"".join(parts)
    except psycopg.Error as error:
        raise _source_error(error, side, table.name) from None


def _record(
    side: _Side, landing_id: UUID, run_id: UUID | None, results: list[TableResult], began: float, why: str | None
) -> None:
    database, version, snapshot_at, snapshot, system_identifier = side.identity
    info = side.source.info
    side.ops.execute(
        "insert into phase2.landing_runs (landing_id, source, run_id, source_database, source_host,"
        " source_port, source_version, source_system_identifier, snapshot_at, snapshot_txid, ddl_digest,"
        " row_count, byte_count, seconds, content_digest, versions_of, why_whole)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            landing_id, side.name, run_id, database, info.host, info.port, version, system_identifier,
            snapshot_at, snapshot, _ddl(side.name)[1],
            sum(r.rows for r in results), sum(r.bytes for r in results), round(time.monotonic() - began, 3),
            hashlib.sha256(
                "".join([f"{side.versions_of}\n", *sorted(f"{r.table} {r.digest}\n" for r in results)]).encode()
            ).hexdigest(),
            side.versions_of, why,
        ),
    )  # fmt: skip
    with side.ops.cursor() as cursor:
        cursor.executemany(
            "insert into phase2.landing_tables (landing_id, source, table_name, run_id, row_count,"
            " byte_count, seconds, content_digest) values (%s, %s, %s, %s, %s, %s, %s, %s)",
            [(landing_id, side.name, r.table, run_id, r.rows, r.bytes, round(r.seconds, 3), r.digest) for r in results],
        )


def _ddl(source: str) -> tuple[str, str]:
    """The landing file's text and its SHA-256."""
    text = (SQL / "landing" / f"{source}.sql").read_text(encoding="utf-8")
    return text, hashlib.sha256(text.encode()).hexdigest()


def _ensure_schema(ops: psycopg.Connection, source: str) -> None:
    """Make the landing schema if it is not there, or make it anew if its file now says something else.

    Which version of the file it holds stands in the schema's comment, so that this is one look on most days.
    """
    text, digest = _ddl(source)
    schema = f"landing_{source}"
    row = ops.execute(
        "select pg_catalog.obj_description(n.oid, 'pg_namespace') from pg_catalog.pg_namespace as n"
        " where n.nspname = %s",
        (schema,),
    ).fetchone()
    mark = f"sql/landing/{source}.sql, sha256 {digest}"
    if row and mark in (row[0] or ""):
        return
    if not row:
        ops.execute(text.encode())
    else:
        before = preflight.wanted_tables(ops, schema)
        old = sql.Identifier(f"{schema}_before")
        ops.execute(sql.SQL("alter schema {} rename to {}").format(sql.Identifier(schema), old))
        ops.execute(text.encode())
        if {t.name: t for t in before} != {t.name: t for t in preflight.wanted_tables(ops, schema)}:
            ops.execute(sql.SQL("drop schema {} cascade").format(old))
        else:
            ops.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
            ops.execute(sql.SQL("alter schema {} rename to {}").format(old, sql.Identifier(schema)))
    ops.execute(
        sql.SQL("comment on schema {} is {}").format(
            sql.Identifier(schema),
            sql.Literal(f"Rows of {source} as they were at the last landing (phase2.landing_runs). {mark}"),
        )
    )


# Errors: what, where, what to do. Postgres' own detail and context lines show row values and are never used.


def _open(name: str, url: str, settings: tuple[str, ...], *, read_only: bool = False) -> psycopg.Connection:
    """A connection to a source or to ops, or a LandingError that tells the causes apart."""
    variable = f"{name.upper()}_DB_URL"
    try:
        conninfo.conninfo_to_dict(url)
    except psycopg.Error:
        raise LandingError(
            f"{name}: the connection URL cannot be read",
            where=variable,
            todo="Write postgresql://user:password@host:port/database, special characters percent-encoded.",
        ) from None
    try:
        connection = postgres.connect(url, application_name="phase2 landing", read_only=read_only)
    except preflight.CouldNotRun as error:
        raise _connect_error(name, variable, postgres.describe(url), error.what) from None
    if read_only:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    try:
        for setting in settings:
            connection.execute(setting.encode())
        connection.commit()
    except psycopg.Error as error:
        connection.close()
        raise LandingError(f"{name}: {_words(error)}", where=postgres.describe(url), todo="Run it again.") from None
    return connection


_CONNECT_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        r"password authentication failed|no password supplied",
        "the user or the password is wrong",
        "Correct user and password in {variable}.",
    ),
    (
        r'role ".*" does not exist',
        "the user does not exist",
        "Correct the user in {variable}, or create the role.",
    ),
    (
        r'database ".*" does not exist',
        "the database does not exist",
        "Correct the database's name in {variable}, or create it.",
    ),
    (
        r"permission denied for database",
        "the user may not connect",
        "Grant connect on the database to the user.",
    ),
    (
        r"pg_hba\.conf",
        "the server refuses connections from here",
        "Ask the server's owner for a line in pg_hba.conf.",
    ),
    (
        r"(translate|resolve) host|Name or service",
        "the host's name is unknown",
        "Correct the host in {variable}, or the name service.",
    ),
    (
        r"too many (clients|connections)",
        "the server has no connection free",
        "Run it again when it is less busy.",
    ),
    (r"starting up|shutting down|in recovery", "the server is not ready", "Run it again in a moment."),
    (r"SSL|certificate", "the encrypted connection failed", "Check sslmode and certificates in {variable}."),
    (
        r"refused|timeout|timed out|unreachable|No such file|No route|could not connect|failed|closed",
        "the server cannot be reached",
        "Check that it runs, that host and port in {variable} are right, and that no firewall is between.",
    ),
)


def _connect_error(name: str, variable: str, where: str, text: str) -> LandingError:
    for pattern, what, todo in _CONNECT_CAUSES:
        if re.search(pattern, text):
            return LandingError(f"{name}: {what}", where=where, todo=todo.format(variable=variable))
    return LandingError(f"{name}: {text}", where=where, todo=f"Check {variable}.")


def _source_error(error: psycopg.Error, side: _Side, table: str | None) -> LandingError:
    at = f' while copying table "{table}"' if table else ""
    where = f"{side.name} at {side.where}"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return LandingError(
            f"{side.name}: no permission to read all rows{at}",
            where=where,
            todo=f"Grant select to the user of {side.name.upper()}_DB_URL, free of row-level security.",
        )
    return LandingError(f"{side.name}: {_words(error)}{at}", where=where, todo=_todo(error))


def _ops_error(error: psycopg.Error, side: _Side, table: str) -> LandingError:
    # Names only: of the context ("COPY bookings, line 7, column note: "…"") the value stays behind.
    column = error.diag.column_name
    if (
        not column
        and error.diag.context
        and (named := re.match(r"COPY [^,]+, line \d+, column (\w+)", error.diag.context))
    ):
        column = named[1]
    at = f' at "{table}"' + (f' column "{column}"' if column else "")
    return LandingError(f"ops: {_words(error)}{at}", where=f"ops, landing of {side.name}", todo=_todo(error))


def _guard_ops(side: _Side, table: str, work: Callable[[], T]) -> T:
    try:
        return work()
    except psycopg.Error as error:
        raise _ops_error(error, side, table) from None


# Classes whose primary message speaks of the server or of names; those of class 22 and 23 may quote a value.
_SPEAKABLE = ("08", "25", "3D", "3F", "40", "42", "53", "54", "55", "57", "58")


def _words(error: psycopg.Error) -> str:
    state = error.sqlstate
    if state is None or state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05"):
        return "the connection was lost"
    if state == "57014":
        return "the statement was cancelled or ran into its time limit"
    if state == "55P03":
        return "a lock was not free in time"
    if state[:2] in _SPEAKABLE and error.diag.message_primary:
        return error.diag.message_primary
    return f"{type(error).__name__} (SQLSTATE {state})"


def _todo(error: psycopg.Error) -> str:
    state = error.sqlstate
    if state is None or state.startswith(("08", "57", "40")):
        return "Nothing was changed: run it again once the server and the line are well."
    if state == "55P03":
        return "Nothing was changed: see who holds the table (pg_locks), and run it again."
    if state.startswith("53"):
        return "Nothing was changed: the server lacks disk, memory or connections; make room, then run it again."
    return "Nothing was changed: correct the cause and run it again."


def _silent(_: str) -> None:
    """No progress wanted."""
