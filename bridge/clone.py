"""A copy of the ops database to rehearse or to drill on, dropped afterwards.

Copied by `create database … template` where nobody else is connected and the user owns the database (a matter of
seconds, whatever its size is), else by `pg_dump | pg_restore`. The copy's name is the database's with `__rehearsal`
behind it: what a killed rehearsal left is found by that, and removed by the next one, if it bears our mark. The name is
always the same, so that dbt's parse of the project, which is bound to a database, stays warm. A drill's copy has a name
of its own each time, behind `__drill_`: what a killed one still has at work never meets the next copy.
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import conninfo, sql

from bridge import backup, postgres, steps
from bridge.errors import CouldNotRun, plain

_SUFFIX = "__rehearsal"
_DRILL = "__drill_"
_SMALL = 2**30  # bytes: copied as a template in a few seconds
_DRILL_LOCK = 0x70686173653264  # a session-level advisory lock, "phase2d" in ASCII

_LIKE = """
select
    pg_catalog.pg_encoding_to_char(d.encoding), d.datcollate, d.datctype,
    case d.datlocprovider when 'i' then 'icu' when 'b' then 'builtin' else 'libc' end,
    coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')
from pg_catalog.pg_database as d
where d.datname = pg_catalog.current_database()
"""

_OTHERS = """
select count(*) from pg_catalog.pg_stat_activity as a
where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid()
"""


@dataclass(frozen=True)
class Clone:
    """The copy: a run on it, how it was made (`template`, `dump and restore`), and how long that took."""

    run: steps.Run
    how: str
    seconds: float


def name_of(database: str, suffix: str = _SUFFIX) -> str:
    """The copy's name; a long one is shortened, as Postgres knows 63 bytes of it."""
    if len(database.encode()) + len(suffix) <= 63:
        return database + suffix
    return f"phase2_{hashlib.sha256(database.encode()).hexdigest()[:24]}{suffix}"


@contextmanager
def of_ops(run: steps.Run) -> Iterator[Clone]:
    """A copy of the run's ops database, dropped at the end whatever happens. While it is made nobody runs a batch.

    Raises CouldNotRun: another rehearsal or a run is under way, or the user may not make a database.
    """
    name = name_of(postgres.database_name(run.databases.ops))
    databases = replace(run.databases, ops=conninfo.make_conninfo(run.databases.ops, dbname=name))
    copy = replace(run, databases=databases, full=True)
    with ExitStack() as stack:
        with steps.only_runner(run) as conn:
            _remove_leftover(conn, copy, name)
            stack.callback(_drop, run.databases.ops, name)
            began = time.monotonic()
            how = _copy(conn, run.databases.ops, databases.ops, name)
            seconds = time.monotonic() - began
            stack.enter_context(steps.only_runner(copy))  # as long as it is held, this is no leftover
        yield Clone(copy, how, seconds)


@contextmanager
def to_drill_on(run: steps.Run) -> Iterator[Clone]:
    """The same for a drill, without the runner's lock: no batch waits for it, nor it for a batch.

    Raises CouldNotRun: another drill is under way (each would be in what the other measures).
    """
    token = secrets.token_hex(4)
    name = name_of(postgres.database_name(run.databases.ops), _DRILL + token)
    databases = replace(run.databases, ops=conninfo.make_conninfo(run.databases.ops, dbname=name))
    # not named phase2-…: a run does not wait for it
    with ExitStack() as stack:
        conn = stack.enter_context(
            postgres.connect(run.databases.ops, application_name="phase2 drill", autocommit=True)
        )
        # as long as this session lives; whatever copy is there when it begins, a killed drill has left
        if conn.execute("select pg_try_advisory_lock(%s)", (_DRILL_LOCK,)).fetchone() != (True,):
            raise CouldNotRun(
                "another drill is under way",
                where=postgres.describe(run.databases.ops),
                todo="Wait until it has ended: each would be in what the other measures.",
            )
        left = conn.execute(
            "select d.datname from pg_catalog.pg_database as d where starts_with(d.datname, %s)",
            (name.removesuffix(token),),
        ).fetchall()
        for (other,) in left:
            if postgres.refuse_a_stranger(conn, other):
                run.progress(f"removing {other}, which a drill left behind")
                conn.execute(postgres.statement("drop database {} with (force)", other))
        stack.callback(_drop, run.databases.ops, name)
        began = time.monotonic()
        # nobody can connect while it is a template: a batch that begins just then may wait for that, a few seconds
        small = conn.execute(
            "select pg_database_size(d.oid) < %s from pg_catalog.pg_database as d where d.datname = current_database()",
            (_SMALL,),
        ).fetchone() == (True,)
        how = _copy(conn, run.databases.ops, databases.ops, name, template=small)
        yield Clone(replace(run, databases=databases), how, time.monotonic() - began)


def _remove_leftover(conn: psycopg.Connection, copy: steps.Run, name: str) -> None:
    """Drop what a killed rehearsal left; CouldNotRun when its rehearsal lives, or when it is none of ours."""
    if not postgres.refuse_a_stranger(conn, name):
        return
    usable = "select d.datconnlimit <> -2 from pg_catalog.pg_database as d where d.datname = %s"
    if conn.execute(usable, (name,)).fetchone() == (True,):  # else a drop of it was interrupted: nobody can be in it
        try:
            with steps.only_runner(copy):
                pass
        except CouldNotRun as busy:
            raise CouldNotRun(
                f"another rehearsal is under way: {busy.what}",
                where=postgres.describe(copy.databases.ops),
                todo="Wait until it has ended.",
            ) from None
    copy.progress(f"removing {name}, which a rehearsal left behind")
    conn.execute(postgres.statement("drop database {} with (force)", name))


def _drop(ops_url: str, name: str) -> None:
    with postgres.connect(ops_url, application_name="phase2-rehearsal", autocommit=True) as conn:
        conn.execute(postgres.statement("drop database if exists {} with (force)", name))


def _copy(conn: psycopg.Connection, ops_url: str, copy_url: str, name: str, *, template: bool = True) -> str:
    """Make the copy; how it was made. Without `template` by dump and restore."""
    try:
        if not template or _in_use(conn):
            raise psycopg.errors.ObjectInUse  # the server would wait 5 s for it to end
        conn.execute(
            sql.SQL("create database {} template {} {}").format(
                sql.Identifier(name), sql.Identifier(postgres.database_name(ops_url)), postgres.MADE_TO_BE_DROPPED
            )
        )
        return "template"
    except (psycopg.errors.ObjectInUse, psycopg.errors.InsufficientPrivilege):
        pass  # somebody else is connected, or the database is not this user's
    encoding, collate, ctype, provider, locale = conn.execute(_LIKE).fetchone() or ("UTF8", "C", "C", "libc", None)
    options = [("encoding", encoding), ("lc_collate", collate), ("lc_ctype", ctype), ("locale_provider", provider)]
    if locale:
        options.append(("icu_locale" if provider == "icu" else "builtin_locale", locale))
    try:
        conn.execute(
            sql.SQL("create database {} template template0 {} {}").format(
                sql.Identifier(name),
                postgres.MADE_TO_BE_DROPPED,
                sql.SQL(" ").join(
                    sql.SQL("{} {}").format(sql.SQL(option), sql.Literal(value)) for option, value in options
                ),
            )
        )
    except psycopg.errors.InsufficientPrivilege:
        raise CouldNotRun(
            "this user may not make a database to copy to",
            where=postgres.describe(ops_url),
            todo="Have an administrator grant it: alter role … createdb.",
        ) from None
    _restore(conn, ops_url, copy_url)
    return "dump and restore"


def _in_use(conn: psycopg.Connection) -> bool:
    """Whether somebody else is connected, and still is a moment later."""
    for _ in range(5):
        (others,) = conn.execute(_OTHERS).fetchone() or (0,)
        if not others:
            return False
        time.sleep(0.1)
    return True


def _restore(conn: psycopg.Connection, ops_url: str, copy_url: str) -> None:
    """`pg_dump | pg_restore`, without a file in between that could be left behind."""
    dump, restore = (backup.tool(name, conn.info.server_version // 10000) for name in ("pg_dump", "pg_restore"))
    (source, env), (target, _) = (backup.for_tools(url) for url in (ops_url, copy_url))
    with subprocess.Popen(
        [dump, "--format=custom", "--compress=0", "--no-password", f"--dbname={source}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
    ) as reading:
        # the copy is this user's alone: other owners and grants are of no use to it, and not this user's to give
        writing = subprocess.run(
            [restore, "--no-owner", "--no-privileges", "--no-comments", "--no-password", f"--dbname={target}"],
            stdin=reading.stdout,
            capture_output=True,
            env=env,
        )
        assert reading.stdout is not None
        assert reading.stderr is not None
        reading.stdout.close()  # a dump that nobody reads any more must end
        said = reading.stderr.read() + writing.stderr
    # pg_restore 17 asks older servers for a setting that they do not have; all else is an error
    errors = [line for line in said.decode(errors="replace").splitlines() if "error:" in line]
    errors = [line for line in errors if "transaction_timeout" not in line]
    if reading.returncode or errors:
        raise CouldNotRun(
            f"the ops database could not be dumped and restored: {plain('; '.join(errors[:3]))}",
            where=postgres.describe(ops_url),
            todo="Its user must be able to read every table of it.",
        )
