"""Copies that are proven, and the way back from one.

A copy is a dump of one snapshot, restored into a scratch database on the ops server and compared with that snapshot,
table by table: rows, and the sum of their hashes. What differs, or cannot be restored, is no copy: it is removed, and
CouldNotRun says so. Nothing that destroys canonical data runs before such a copy (blueprint 3.3, 6; `rollback.py`).

The sources are only read. Passwords reach the tools by their environment, never by a command line.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from graphlib import TopologicalSorter
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import IsolationLevel, conninfo, sql

from bridge import embedded, fingerprint, ledger, postgres, runlog, scripts
from bridge.batches import ORDER
from bridge.errors import CouldNotRun, plain
from bridge.fingerprint import NOT_READABLE, Content, Fingerprint
from bridge.settings import Databases, settings
from bridge.steps import Run, set_state

# Of each database the last five copies stay, and all of the last week: five rollbacks in a row push out no older one
# that somebody relies on.
KEPT = 5
KEPT_DAYS = 7
PATIENCE = "5s"  # for another copy that is being proven

# Of the ops database: what cannot be made again. Landed rows and dbt's tables are made by the next run.
_SCHEMAS: dict[str, list[str] | None] = {"ops": ["public", "phase2"], "balisnap": None, "bstadmin": None}

# What a rollback changes beside the canonical tables, and `restore` puts back with them.
STATE = (
    "audit_sample",
    "booking_event_times",
    "booking_freshness",
    "booking_source_times",
    "conflicts",
    "paid_bookings",
    "review_snapshot",
    "source_leftovers",
    "status_snapshot",
    "tickets",
)


def folder() -> Path:
    """Where copies are kept; nobody else may look into it."""
    place = settings().phase2_home / "backups"
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o700)
    return place


def take(
    dbs: Databases,
    name: str,
    *,
    why: str,
    batch: str | None = None,
    run_id: UUID | None = None,
    indexes: bool = True,
    keep: Path | None = None,
) -> ledger.Entry:
    """Copy a database (ops, balisnap, bstadmin) and prove the copy; the entry "backup" tells of it.

    Without `indexes` the proof restores the rows alone: minutes less for a million bookings, and what a rollback could
    lose are rows. Older copies go (`_forget_older`), but for the file `keep`. Raises CouldNotRun when the copy could
    not be made or is not proven; no file is left then.
    """
    url, began = getattr(dbs, name), time.monotonic()
    where = hashlib.sha256(postgres.describe(url).encode()).hexdigest()[:6]  # databases of one name on two servers
    file = folder() / f"{name}-{postgres.database_name(url)}-{where}-{runlog.utc_now():%Y-%m-%dT%H-%M-%S-%fZ}.dump"
    unproven = file.with_suffix(".part")
    with postgres.connect(dbs.ops, application_name="phase2-backup", autocommit=True) as ops:
        _alone(ops)
        unproven.touch(mode=0o600, exist_ok=False)
        try:
            content, encoding = _dump(url, unproven, _SCHEMAS[name])
            with _scratch(ops, dbs.ops, encoding) as scratch:
                _load(scratch, unproven, indexes=indexes)
                _prove(scratch, content, _SCHEMAS[name], unproven)
            unproven.rename(file)
        finally:
            unproven.unlink(missing_ok=True)
        removed = _forget_older(file, keep)
        return ledger.append(
            ops,
            "backup",
            batch=batch,
            subject=name,
            run_id=run_id,
            body={
                "why": why,
                "of": postgres.describe(url),
                "file": file.name,
                "sha256": _sha256(file),
                "bytes": file.stat().st_size,
                "rows": {table: found.rows for table, found in content.items()},
                "digests": {table: found.digest for table, found in content.items()},
                "proof": "restored and compared" if indexes else "rows restored and compared",
                "seconds": round(time.monotonic() - began, 2),
                "removed": removed,
            },
        )


def still_as_copied(ops_url: str, copy: ledger.Entry) -> None:
    """Look again, after the proof has taken its time: CouldNotRun when somebody has written canonical rows since."""
    with postgres.connect(ops_url, application_name="phase2-backup", read_only=True) as conn:
        _refuse_changes(conn, copy)


def _refuse_changes(conn: psycopg.Connection, copy: ledger.Entry) -> None:
    now = fingerprint.rows(conn, schemas=["public"])
    was = {table: found for table, found in _content(copy).items() if table.startswith("public.")}
    if changed := _difference(was, now):
        raise CouldNotRun(
            f"the database has changed since it was copied: {changed[0]}",
            where=copy.body["of"],
            todo="Stop what writes to it, then give the command again.",
        )


def hold_as_copied(conn: psycopg.Connection, copy: ledger.Entry) -> None:
    """The same in the transaction of `conn`, which keeps everybody else from writing canonical rows until it ends.

    Readers go on. Raises psycopg.errors.LockNotAvailable when somebody holds a table for longer than PATIENCE.
    """
    ours = sorted({f"public.{table}" for code in ORDER for table in scripts.rollback_tables(code)})
    there = conn.execute("select t from unnest(%s::text[]) as t where to_regclass(t) is not null", (ours,)).fetchall()
    conn.execute("select set_config('lock_timeout', %s, true)", (PATIENCE,))
    names = [sql.Identifier(*table.split(".")) for (table,) in there]
    if names:
        conn.execute(sql.SQL("lock table {} in share row exclusive mode").format(sql.SQL(", ").join(names)))
    _refuse_changes(conn, copy)


def copies(conn: psycopg.Connection, name: str = "ops") -> list[ledger.Entry]:
    """The proven copies of a database whose files are here, the newest last."""
    return [entry for entry in ledger.entries(conn, "backup", subject=name) if (folder() / entry.body["file"]).exists()]


def is_whole(copy: ledger.Entry) -> bool:
    """Whether a copy's file is here, and is the one that was proven."""
    file = folder() / copy.body["file"]
    return file.exists() and _sha256(file) == copy.body["sha256"]


def restore(run: Run, file: str) -> ledger.Entry:
    """Put the canonical rows, and the state beside them, back as a copy of the ops database has them.

    The file is proven once more, what stands now is copied first, and the rows are replaced in one transaction that is
    only committed when they are the copy's. The schema is not touched: after a rollback of A or B run these first. The
    copy's batches are ERROR afterwards: each passes its gates again before a door opens.
    """
    with run.connect() as conn:
        copy = next((entry for entry in copies(conn) if entry.body["file"] == file), None)
        if copy is None:
            raise CouldNotRun(
                f"there is no copy {file!r} of the ops database",
                where=str(folder()),
                todo="Copies: " + (", ".join(entry.body["file"] for entry in copies(conn)) or "none yet") + ".",
            )
        path = folder() / file
        if not is_whole(copy):
            raise CouldNotRun(
                f"{file} is not the file that entry {copy.no} tells of", where=str(path), todo="Take another copy."
            )
        present = take(
            run.databases, "ops", why=f"before the restore of {file}", run_id=run.run_id, indexes=False, keep=path
        )
        _alone(conn)
        with _scratch(conn, run.databases.ops, "UTF8") as scratch:
            _load(scratch, path, indexes=False)
            _prove(scratch, _content(copy), _SCHEMAS["ops"], path)
            with postgres.connect(scratch, read_only=True) as source, conn.transaction():
                hold_as_copied(conn, present)
                replaced = _replace(source, conn, _content(copy))
                _write_again(source, conn)
                _close_doors(source, conn, run, copy)
                return ledger.append(
                    conn, "restore", subject="ops", run_id=run.run_id, body={"copy": copy.no, "rows": replaced}
                )


# --- a copy ----------------------------------------------------------------------------------------------------------


def _alone(ops: psycopg.Connection) -> None:
    """One scratch database at a time; the lock goes with the session, which may take a moment to end."""
    ops.execute("select set_config('lock_timeout', %s, false)", (PATIENCE,))
    try:
        ops.execute("select pg_advisory_lock(hashtextextended('phase2.scratch', 0))")
    except psycopg.errors.LockNotAvailable:
        raise CouldNotRun(
            "another copy is being proven", where="the ops server", todo="Wait until it has ended."
        ) from None


def _dump(url: str, file: Path, schemas: list[str] | None) -> tuple[dict[str, Content], str]:
    """Dump into `file`; what the snapshot of the dump holds, and the database's encoding."""
    with postgres.connect(url, application_name="phase2-backup", read_only=True) as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        conn.execute("set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0")
        snapshot, encoding = conn.execute(
            "select pg_export_snapshot(), current_setting('server_encoding')"
        ).fetchone() or ("", "")
        pg_dump = tool("pg_dump", conn.info.server_version // 10000)
        arguments = [f"--snapshot={snapshot}", "--format=custom", "--compress=1", "--lock-wait-timeout=30s"]
        if schemas:  # then extensions are left out, unless they are asked for
            arguments += ["--extension=*", *(f"--schema={schema}" for schema in schemas)]
        dump = _start([pg_dump, *arguments, f"--file={file}"], url)
        try:
            content = fingerprint.rows(conn, schemas=schemas)  # while it is being written
            _, said = dump.communicate()
        finally:
            dump.kill()
    unread = [table for table, found in content.items() if found.digest == NOT_READABLE]
    if dump.returncode or unread:
        raise CouldNotRun(
            f"pg_dump failed: {_errors(said)}" if dump.returncode else f"not readable: {', '.join(unread)}",
            where=postgres.describe(url),
            todo="A copy needs a user who may read every table: the database's administrator takes it.",
        )
    return content, encoding


@contextmanager
def _scratch(ops: psycopg.Connection, ops_url: str, encoding: str) -> Iterator[str]:
    """An empty database beside the ops database, dropped in the end; what a killed command left of it goes first."""
    name = f"phase2_scratch_{postgres.database_name(ops_url)}"[:63]
    drop = postgres.statement("drop database if exists {} with (force)", name)
    create = sql.SQL("create database {} template template0 encoding {} locale_provider libc locale 'C' {}")
    try:
        if postgres.refuse_a_stranger(ops, name):
            ops.execute(drop)
        ops.execute(create.format(sql.Identifier(name), sql.Literal(encoding), postgres.MADE_TO_BE_DROPPED))
    except psycopg.errors.InsufficientPrivilege as error:
        raise CouldNotRun(
            f"not allowed to make the scratch database that proves a copy: {error.diag.message_primary}",
            where=postgres.describe(ops_url),
            todo="Give this user CREATEDB on the ops server (sql/roles/runner_ops.sql).",
        ) from None
    try:
        yield conninfo.make_conninfo(ops_url, dbname=name)
    finally:
        if not ops.closed:
            ops.execute(drop)


def _load(scratch: str, file: Path, *, indexes: bool) -> None:
    """Restore a dump into the empty scratch database."""
    with postgres.connect(scratch, autocommit=True) as conn:
        pg_restore = tool("pg_restore", conn.info.server_version // 10000)
        conn.execute("drop schema public")  # a dump of chosen schemas makes it
    listed = subprocess.run([pg_restore, "--list", str(file)], capture_output=True, text=True)
    if " SCHEMA - public " not in listed.stdout:
        with postgres.connect(scratch, autocommit=True) as conn:
            conn.execute("create schema public")
    arguments = ["--no-owner", "--no-privileges", "--no-comments", "--no-publications", "--no-subscriptions"]
    arguments += [] if indexes else ["--section=pre-data", "--section=data"]
    restored = _start([pg_restore, *arguments, str(file)], scratch)
    _, said = restored.communicate()
    # pg_restore 17 asks older servers for a setting that they do not have; all else is an error
    if restored.returncode and (errors := _errors(said, but="transaction_timeout")):
        raise CouldNotRun(
            f"the copy cannot be restored: {errors}", where=str(file), todo="Without a proven copy nothing is removed."
        )


def _prove(scratch: str, content: dict[str, Content], schemas: list[str] | None, file: Path) -> None:
    """CouldNotRun when what was restored is not what was in the snapshot."""
    with postgres.connect(scratch, read_only=True) as conn:
        restored = fingerprint.rows(conn, schemas=schemas)
    if lines := _difference(content, restored):
        raise CouldNotRun(
            f"the copy is not complete: {'; '.join(lines[:3])}" + (f"; {len(lines)} tables" if len(lines) > 3 else ""),
            where=str(file),
            todo="Without a proven copy nothing is removed.",
        )


def _difference(was: dict[str, Content], now: dict[str, Content]) -> list[str]:
    return fingerprint.difference(Fingerprint({}, was), Fingerprint({}, now))


def _content(copy: ledger.Entry) -> dict[str, Content]:
    return {table: Content(rows, copy.body["digests"][table]) for table, rows in copy.body["rows"].items()}


def _forget_older(file: Path, keep: Path | None) -> list[str]:
    """Of the copies of the same database the last KEPT stay, and those of KEPT_DAYS; the names of those that went."""
    prefix = file.name.rsplit("-", 6)[0]  # without the time
    same = sorted(path for path in file.parent.glob("*.dump") if path.name.rsplit("-", 6)[0] == prefix)
    oldest = (runlog.utc_now() - timedelta(days=KEPT_DAYS)).timestamp()
    gone = [path for path in same[:-KEPT] if path != keep and path.stat().st_mtime < oldest]
    for path in gone:
        path.unlink()
    return [path.name for path in gone]


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def tool(name: str, server: int) -> str:
    """The client tool of the embedded PostgreSQL; of the system's when the server is newer, or there is no other."""
    found = embedded.client(name, server) or shutil.which(name)
    if not found:
        raise CouldNotRun(f"{name} is not here", where="PATH", todo=f"Install the client tools of PostgreSQL {server}.")
    return found


def for_tools(url: str, **words: str) -> tuple[str, dict[str, str]]:
    """A connection string for a command line, which others may see, and the environment that has the password."""
    parts = conninfo.conninfo_to_dict(url)
    password = str(parts.pop("password", None) or "")
    environment = {**os.environ, "LC_ALL": "C", **({"PGPASSWORD": password} if password else {})}
    return conninfo.make_conninfo(**{**parts, **words}), environment


def _start(command: list[str], url: str) -> subprocess.Popen[str]:
    dsn, environment = for_tools(url, application_name="phase2-backup")
    return subprocess.Popen(
        [command[0], f"--dbname={dsn}", "--no-password", *command[1:]],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def _errors(said: str, *, but: str = "\n") -> str:
    lines = [line for line in said.splitlines() if "error:" in line and but not in line]
    return plain("; ".join(lines[:3]))


# --- the way back ----------------------------------------------------------------------------------------------------

_CANONICAL = """
select quote_ident(n.nspname) || '.' || quote_ident(c.relname), n.nspname::text, c.relname::text,
    array(
        select a.attname::text from pg_catalog.pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
        order by a.attnum
    ),
    array(
        select quote_ident(m.nspname) || '.' || quote_ident(r.relname)
        from pg_catalog.pg_constraint as k
        join pg_catalog.pg_class as r on r.oid = k.confrelid
        join pg_catalog.pg_namespace as m on m.oid = r.relnamespace
        where k.conrelid = c.oid and k.contype = 'f' and k.confrelid <> c.oid
    )
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where
    c.relkind = 'r'
    and (n.nspname = 'public' and c.relname <> 'migration_run_log' or n.nspname = 'phase2' and c.relname = any(%s))
"""

_WORK = (
    "delete from phase2.warehouse_state where part in ('work of batch_d', 'review snapshot') or part like 'follows %'"
)
_REVIEWS = "select part, digest, built_at from phase2.warehouse_state where part = 'review snapshot'"


def _replace(source: psycopg.Connection, ops: psycopg.Connection, content: dict[str, Content]) -> int:
    """All rows of the restored tables by those of the scratch database, parents first; how many came."""
    here = {row[0]: row[1:] for row in ops.execute(_CANONICAL, (list(STATE),)).fetchall()}
    wanted = {row[0] for row in source.execute(_CANONICAL, (list(STATE),)).fetchall()}
    if missing := sorted(wanted - here.keys()):
        raise CouldNotRun(
            f"tables of the copy are missing: {', '.join(missing)}", where="ops", todo="Run batches A and B first."
        )
    names = [sql.Identifier(schema, table) for schema, table, _, _ in here.values()]
    ops.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(names)))
    parents = {table: set(references) & here.keys() for table, (_, _, _, references) in here.items()}
    for table in TopologicalSorter(parents).static_order():
        if table not in wanted:
            continue
        schema, name, columns, _ = here[table]
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        names_it = {"columns": listed, "table": sql.Identifier(schema, name)}
        out = sql.SQL("copy (select {columns} from {table}) to stdout (format binary)").format(**names_it)
        into = sql.SQL("copy {table} ({columns}) from stdin (format binary)").format(**names_it)
        with source.cursor().copy(out) as rows, ops.cursor().copy(into) as target:
            for chunk in rows:
                target.write(chunk)
    ops.execute(_WORK)
    for row in source.execute(_REVIEWS).fetchall():
        ops.execute("insert into phase2.warehouse_state (part, digest, built_at) values (%s, %s, %s)", row)
    now = fingerprint.rows(ops, schemas=["public", "phase2"])
    if lines := _difference(
        {table: content[table] for table in sorted(wanted)}, {table: now[table] for table in sorted(here)}
    ):
        raise CouldNotRun(f"not restored: {'; '.join(lines[:3])}", where="ops", todo="Nothing was changed.")
    return sum(content[table].rows for table in wanted)


# Writes of the back office are a log, and stay: what the core had got since the copy it gets once more, in its order.
_BEHIND = """
update phase2.write_intents as i
set core_status = 'BEHIND', core_error = 'restored from a copy'
where i.core_status = 'DONE' and not i.intent_id = any(%s)
"""


def _write_again(source: psycopg.Connection, ops: psycopg.Connection) -> None:
    there = source.execute("select to_regclass('phase2.write_intents') is not null").fetchone() == (True,)
    done = "select i.intent_id from phase2.write_intents as i where i.core_status = 'DONE'"
    ops.execute(_BEHIND, ([key for (key,) in source.execute(done.encode()).fetchall()] if there else [],))


def _close_doors(source: psycopg.Connection, ops: psycopg.Connection, run: Run, copy: ledger.Entry) -> None:
    """The batches of the copy have to pass their gates again; those that it does not have are rolled back."""
    for (code,) in ops.execute("select batch from phase2.batch_state order by batch").fetchall():
        then = source.execute("select status from phase2.batch_state where batch = %s", (code,)).fetchone()
        if then and then[0] not in ("PENDING", "ROLLED_BACK"):
            set_state(ops, run, code, "ERROR", error=f"restored from a copy (entry {copy.no}): run it again")
        else:
            set_state(ops, run, code, "ROLLED_BACK")
