"""Sample source databases: realistic, messy, seeded, any size (issue "Sample sources").

Two databases with the schemas of `sql/sources/`, filled by set-based SQL from `sql/sample/`:

    common.sql                  helpers, catalogue skeleton and booking plan, the same in both databases
    balisnap.sql, bstadmin.sql  the fill, before constraints; common peculiarities at a real shop's rates
    quirks_{source}.sql         the rare cases, one of each in every 20,000 bookings, after the constraints
    scenarios.sql               what makes one gate fail on purpose
    rules.sql                   mapping rule -> rows that exercise it; a test holds that each has some

Content depends on (bookings, seed, as_of, scenario) alone: row numbers are hashed, times are computed from
`as_of`, nothing reads a clock, a locale or a time zone. Of 20 bookings 6 stand in balisnap alone, 13 in
bstadmin alone, 1 in both. Rare cases weigh under 1 % together, so that every gate of A to E passes in `healthy`.

Not made here, because the sources' own types forbid it: a booking `source` outside the registry (4.1), a null
price of a rate (3.1), a payment or variant whose parent row is missing (their parents are unusable instead).
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bridge.errors import CouldNotRun
from bridge.postgres import connect, describe

SQL = Path(__file__).resolve().parent.parent / "sql"
SOURCES = ("balisnap", "bstadmin")
_KINDS = {"balisnap": "BX", "bstadmin": "OX"}
_MARKER = "phase2 sample data: this database may be overwritten by bridge.sources"

Progress = Callable[[str], None]


class SourceError(CouldNotRun):
    """A sample database cannot be made: what, where, what to do."""


@dataclass(frozen=True)
class Scenario:
    """A state of the sources. `gate` is the one that it breaks, None when all pass."""

    name: str
    gate: str | None
    title: str
    statements: tuple[tuple[str, str], ...] = ()  # (source, SQL)

    def sql_for(self, source: str) -> str:
        return "\n".join(text for where, text in self.statements if where == source)


@dataclass(frozen=True)
class Rule:
    """A paragraph of the mapping and a query that counts the source rows that exercise it."""

    paragraph: str
    source: str
    title: str
    query: str


def _read_scenarios() -> dict[str, Scenario]:
    scenarios = {"healthy": Scenario("healthy", None, "A normal shop: messy, but every gate passes.")}
    text = (SQL / "sample" / "scenarios.sql").read_text(encoding="utf-8")
    for block in text.split("\n-- @scenario ")[1:]:
        head, body = block.split("\n", 1)
        name, gate, title = (part.strip() for part in head.split("|"))
        parts = re.split(r"^-- @(balisnap|bstadmin)\n", body, flags=re.M)
        scenarios[name] = Scenario(name, gate, title, tuple(zip(parts[1::2], parts[2::2], strict=True)))
    return scenarios


SCENARIOS: dict[str, Scenario] = _read_scenarios()


def rules() -> list[Rule]:
    """The list of `rules.sql`: which rows of the samples exercise which paragraph of the mapping."""
    found = []
    text = (SQL / "sample" / "rules.sql").read_text(encoding="utf-8")
    for block in text.split("\n-- @rule ")[1:]:
        head, body = block.split("\n", 1)
        paragraph, source, title = (part.strip() for part in head.split("|"))
        found.append(Rule(paragraph, source, title, body.strip().rstrip(";")))
    return found


def version() -> str:
    """Changes whenever any file does that the samples are made from."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted([*(SQL / "sources").glob("*.sql"), *(SQL / "sample").glob("*.sql")]):
        if path.name != "rules.sql":
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def fingerprint_inputs(*, bookings: int, seed: int, scenario: str = "healthy", as_of: date) -> dict[str, object]:
    """What determines the content: the row of `sample.phase2_sample` that a finished fill leaves behind."""
    return {"bookings": bookings, "seed": seed, "scenario": scenario, "as_of": as_of, "version": version()}


def is_current(
    balisnap_url: str, bstadmin_url: str, *, bookings: int, seed: int, scenario: str = "healthy", as_of: date
) -> dict[str, dict[str, int]] | None:
    """The row counts of both databases when they hold exactly this sample, else None. Writes nothing."""
    wanted = fingerprint_inputs(bookings=bookings, seed=seed, scenario=scenario, as_of=as_of)
    rows: dict[str, dict[str, int]] = {}
    for source, url in zip(SOURCES, (balisnap_url, bstadmin_url), strict=True):
        with connect(url, application_name="phase2-sample", read_only=True) as conn:
            if not _is_ours(conn):
                return None
            kept = conn.execute(
                "select rows from sample.phase2_sample where source = %(source)s and bookings = %(bookings)s"
                " and seed = %(seed)s and scenario = %(scenario)s and as_of = %(as_of)s and version = %(version)s",
                {"source": source, **wanted},
            ).fetchone()
        if kept is None:
            return None
        rows[source] = kept[0]
    return rows


def create(
    balisnap_url: str,
    bstadmin_url: str,
    *,
    bookings: int,
    seed: int,
    scenario: str = "healthy",
    as_of: date,
    reuse: bool = False,
    progress: Progress = lambda line: None,
) -> dict[str, dict[str, int]]:
    """Make both databases anew; returns rows per table per source.

    With `reuse`, databases that already hold exactly this sample (by their marker rows) are left as they are.

    `bookings` counts canonical bookings, roughly: about 35 % of them have a row in balisnap, 70 % in bstadmin.
    Each database is written in one transaction, both at the same time, and both commit or neither does (but for a
    crash between two commits, after which the next run makes them anew).

    Raises SourceError for bad parameters, for two URLs of one database, and for a database that has tables but not
    our marker: nothing that we did not make is ever overwritten.
    """
    _check_parameters(bookings, seed, scenario)
    if reuse:
        there = is_current(balisnap_url, bstadmin_url, bookings=bookings, seed=seed, scenario=scenario, as_of=as_of)
        if there:
            progress("this sample is already there")
            return there
    opened: dict[str, psycopg.Connection] = {}
    try:
        for source, url in zip(SOURCES, (balisnap_url, bstadmin_url), strict=True):
            opened[source] = connect(url, application_name=f"phase2-sample-{source}")
        _refuse_same_database(opened, balisnap_url)
        for source, url in zip(SOURCES, (balisnap_url, bstadmin_url), strict=True):
            _refuse_foreign_database(opened[source], url)
        inputs = fingerprint_inputs(bookings=bookings, seed=seed, scenario=scenario, as_of=as_of)
        rows = _fill_both(opened, {"balisnap": balisnap_url, "bstadmin": bstadmin_url}, inputs, progress)
        for conn in opened.values():
            conn.commit()
        return rows
    finally:
        for conn in opened.values():
            conn.close()


def _check_parameters(bookings: int, seed: int, scenario: str) -> None:
    if not 20 <= bookings <= 20_000_000:
        raise SourceError(f"bookings={bookings} is not possible", todo="Choose 20 to 20,000,000.")
    if not 0 <= seed < 2**31:
        raise SourceError(f"seed={seed} is not possible", todo="Choose a whole number from 0 to 2147483647.")
    if scenario not in SCENARIOS:
        raise SourceError(f"no scenario is called {scenario!r}", todo=f"Choose one of: {', '.join(SCENARIOS)}.")


def _is_ours(conn: psycopg.Connection) -> bool:
    """Whether an earlier run of `create` left its marker in this database."""
    row = conn.execute(
        "select obj_description(to_regclass('sample.phase2_sample'), 'pg_class') = %s", (_MARKER,)
    ).fetchone()
    return bool(row and row[0])


def _refuse_foreign_database(conn: psycopg.Connection, url: str) -> None:
    encoding = conn.execute("show server_encoding").fetchone()
    if encoding != ("UTF8",):
        raise SourceError(
            f"the database's encoding is {encoding[0] if encoding else 'unknown'}",
            where=describe(url),
            todo="Create it with encoding UTF8: the samples hold names in many scripts.",
        )
    if _is_ours(conn):
        return
    foreign = conn.execute(
        """
        select format('%I.%I', n.nspname, c.relname)
        from pg_class c
        join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
          and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'
          and not exists (
            select from pg_depend d
            where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
          )
        order by n.nspname collate "C", c.relname collate "C"
        limit 4
        """
    ).fetchall()
    if foreign or conn.execute("select to_regnamespace('sample') is not null").fetchone() == (True,):
        names = ", ".join(row[0] for row in foreign[:3]) or "schema sample"
        raise SourceError(
            f"refusing to write: the database holds objects that sample data did not make ({names}"
            f"{', …' if len(foreign) > 3 else ''})",
            where=describe(url),
            todo="Give an empty database for the sample. To use the real source, leave the sample step out.",
        )


def _refuse_same_database(opened: dict[str, psycopg.Connection], url: str) -> None:
    identities = {
        conn.execute(
            "select extract(epoch from pg_postmaster_start_time())::text, oid from pg_database"
            " where datname = current_database()"
        ).fetchone()
        for conn in opened.values()
    }
    if len(identities) < len(opened):
        raise SourceError(
            "both sources are the same database",
            where=describe(url),
            todo="Give each its own (BALISNAP_DB_URL, BSTADMIN_DB_URL).",
        )


def _fill_both(
    opened: dict[str, psycopg.Connection], urls: dict[str, str], inputs: dict[str, object], progress: Progress
) -> dict[str, dict[str, int]]:
    """Fill the two databases side by side; when one fails the other is cancelled, and nothing is committed."""
    lock = threading.Lock()

    def fill(source: str) -> dict[str, int]:
        def say(line: str) -> None:
            with lock:
                progress(f"{source}: {line}")

        try:
            return _fill(opened[source], source, inputs, say)
        except psycopg.Error as error:
            raise SourceError(
                str(error).split("\n", 1)[0],
                where=describe(urls[source]),
                todo="Nothing was written. Check free disk, permissions and that nobody else uses the database.",
            ) from error

    with ThreadPoolExecutor(max_workers=len(opened), thread_name_prefix="sample") as pool:
        futures = {source: pool.submit(fill, source) for source in opened}
        try:
            done, running = wait(futures.values(), return_when=FIRST_EXCEPTION)
            if running:
                raise next(error for future in done if (error := future.exception()))
            return {source: future.result() for source, future in futures.items()}
        except BaseException:  # a failure of one, or Ctrl-C: the other must not work on for minutes
            for conn in opened.values():
                conn.cancel()
            raise


def _fill(conn: psycopg.Connection, source: str, inputs: dict[str, object], say: Progress) -> dict[str, int]:
    ddl, constraints = (SQL / "sources" / f"{source}.sql").read_text(encoding="utf-8").split("-- @constraints\n")
    tables = [name.strip('"') for name in re.findall(r'^create table ("?\w+"?)', ddl, flags=re.M)]
    types = [name.strip('"') for name in re.findall(r'^create type ("?\w+"?)', ddl, flags=re.M)]
    sample = SQL / "sample"

    # one plan for everybody: no parallel workers (the other source has the second core), no JIT, memory to sort in
    for setting, value in {
        "lock_timeout": "30s",
        "jit": "off",
        "work_mem": "128MB",
        "maintenance_work_mem": "256MB",
        "temp_buffers": "64MB",
        "max_parallel_workers_per_gather": "0",
        "synchronous_commit": "off",
        "timezone": "UTC",
        "datestyle": "ISO, YMD",
    }.items():
        conn.execute("select set_config(%s, %s, true)", (setting, value))

    say("tables")
    _drop_own(conn, tables, types)
    conn.execute("create schema sample")
    conn.execute(
        "create table sample.phase2_sample (source text primary key, bookings integer not null, seed bigint not null,"
        " scenario text not null, as_of date not null, version text not null, rows jsonb not null,"
        " finished_at timestamptz not null default now())"
    )
    conn.execute(sql.SQL("comment on table sample.phase2_sample is {}").format(sql.Literal(_MARKER)))
    conn.execute("create table sample.input (bookings integer, seed bigint, as_of date, kinds text)")
    conn.execute(
        "insert into sample.input values (%(bookings)s, %(seed)s, %(as_of)s, %(kinds)s)",
        {**inputs, "kinds": _KINDS[source]},
    )
    conn.execute("set local search_path = public")
    conn.execute(_script(ddl))
    conn.execute("set local search_path = ''")

    for step, script in _steps(sample / "common.sql", sample / f"{source}.sql"):
        say(step)
        conn.execute(_script(script))
    say("constraints and indexes")
    conn.execute("set local search_path = public")
    conn.execute(_script(constraints))
    conn.execute("set local search_path = ''")
    for step, script in _steps(sample / f"quirks_{source}.sql"):
        say(step)
        conn.execute(_script(script))
    scenario = SCENARIOS[str(inputs["scenario"])]
    if scenario.sql_for(source):
        say(f"scenario {scenario.name}")
        conn.execute(_script(scenario.sql_for(source)))

    say("statistics")
    _set_sequences(conn, tables)
    rows = {}
    for table in tables:
        name = sql.Identifier("public", table)
        conn.execute(sql.SQL("analyze {}").format(name))
        counted = conn.execute(sql.SQL("select count(*) from {}").format(name)).fetchone()
        rows[table] = counted[0] if counted else 0
    conn.execute(
        "insert into sample.phase2_sample (source, bookings, seed, scenario, as_of, version, rows)"
        " values (%(source)s, %(bookings)s, %(seed)s, %(scenario)s, %(as_of)s, %(version)s, %(rows)s)",
        {**inputs, "source": source, "rows": Jsonb(rows)},
    )
    say(f"{sum(rows.values()):,} rows")
    return rows


def _drop_own(conn: psycopg.Connection, tables: list[str], types: list[str]) -> None:
    """Drop what an earlier run made, by name and without cascade: a view that somebody added stops us."""
    conn.execute(
        sql.SQL("drop table if exists {}").format(sql.SQL(", ").join(sql.Identifier("public", t) for t in tables))
    )
    conn.execute(
        sql.SQL("drop type if exists {}").format(sql.SQL(", ").join(sql.Identifier("public", t) for t in types))
    )
    conn.execute("drop schema if exists sample cascade")


def _set_sequences(conn: psycopg.Connection, tables: list[str]) -> None:
    """Serial columns go on after the largest id, as in a database that grew by itself."""
    columns = conn.execute(
        "select table_name::text, column_name::text from information_schema.columns"
        " where table_schema = 'public' and column_default like 'nextval(%%' and table_name = any(%s)",
        (tables,),
    ).fetchall()
    for table, column in columns:
        name = sql.Identifier("public", table)
        conn.execute(
            sql.SQL("select setval(pg_get_serial_sequence({}, {}), (select coalesce(max({}), 1) from {}))").format(
                name.as_string(conn), column, sql.Identifier(column), name
            )
        )


def _steps(*paths: Path) -> list[tuple[str, str]]:
    """The parts of SQL files between lines `-- @step title`."""
    steps = []
    for path in paths:
        for part in re.split(r"^-- @step ", path.read_text(encoding="utf-8"), flags=re.M)[1:]:
            title, script = part.split("\n", 1)
            steps.append((title.strip(), script))
    return steps


def _script(text: str) -> bytes:
    """A script from our own files, as bytes: psycopg takes `str` only for literal queries."""
    return text.encode()
