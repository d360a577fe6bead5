"""What a database says, as two dictionaries that can be compared: its catalog, and its content table by table.

Equal fingerprints mean: the same objects with the same definitions, the same rows. Row order, column order, physical
layout, time zone and other settings of a session, and PostgreSQL's version (15 to 17, but for the text of views)
make no difference. Used to prove that sources are untouched, that a rollback is exact, and that a killed run, run
again, ends where an undisturbed one does.

Left out of the content, because they tell of runs and not of what they made: the times when a row was written or
looked at (`created_at`, `updated_at`, `last_reconciled_at`, of our tables only: in a source they are data), and the
tables that are a log. A sequence's position is content: an insert that was taken back has moved it, and that is a
trace. It is left out where the table is a log, and where its numbers are no more than row numbers.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from bridge.scripts import rollback_tables
from bridge.settings import SQL

NOT_READABLE = "not readable"  # the digest of what this user may not select; its rows are -1

# Columns that tell when, or by which run, a row was written.
_BOOKKEEPING: dict[str, frozenset[str]] = {
    **{
        f"public.{table}": frozenset({"created_at", "updated_at", "last_reconciled_at"})
        for table in (*rollback_tables("A"), *rollback_tables("B"))
    },
    "phase2.flags": frozenset({"reason", "changed_by", "changed_at"}),
    "phase2.source_leftovers": frozenset({"created_at", "updated_at"}),
    "phase2.status_snapshot": frozenset({"core_updated_at", "state_updated_at", "run_id", "taken_at"}),
    "phase2.review_snapshot": frozenset({"created_at", "updated_at"}),
    "phase2.paid_bookings": frozenset({"run_id", "noted_at"}),
    "phase2.audit_sample": frozenset({"line_no"}),
    **{f"dbt_recon.recon_{code}_reading": frozenset({"read_at", "run_id"}) for code in "cdefgh"},
}

# What ran, when, and what came of it. A rollback adds to a log, and takes nothing from it.
_LOGS = frozenset(
    {
        "public.migration_run_log",
        "phase2.api_minutes",
        "phase2.batch_state",
        "phase2.bridge_keys",
        "phase2.drills",
        "phase2.exceptions",
        "phase2.gate_inputs",
        "phase2.gate_results",
        "phase2.guardrail_log",
        "phase2.incidents",
        "phase2.landed_changes",
        "phase2.landed_moves",
        "phase2.landing_ranges",
        "phase2.landing_runs",
        "phase2.landing_tables",
        "phase2.ledger",
        "phase2.legacy_query_results",
        "phase2.model_changes",
        "phase2.ops_reads",
        "phase2.parity_bookings",
        "phase2.parity_runs",
        "phase2.parity_told",
        "phase2.pauses",
        "phase2.queue_minutes",
        "phase2.run_context",
        "phase2.shadow_differences",
        "phase2.shadow_reads",
        "phase2.since_crash",
        "phase2.step_log",
        "phase2.touched_bookings",
        "phase2.touched_keys",
        "phase2.touched_names",
        "phase2.touched_subjects",
        "phase2.unmapped_queue_dump",
        "phase2.warehouse_state",
        "phase2.watermarks",
        "phase2.write_checks",
        "phase2.write_intents",
    }
)

_KEPT = (
    "dbt_recon.kept_",
    "dbt_recon.touched_",
    'dbt_recon."touched_',
    "dbt_recon.gone_",
    "dbt_recon.made_",
    "dbt_recon.recon_global_reading",
)  # what gates found booking by booking, when they measured last

# What only gates and rollbacks read: the run fills it around a batch.
_AROUND_A_BATCH = frozenset(
    {"phase2.audit_sample", "phase2.paid_bookings", "phase2.review_snapshot", "phase2.status_snapshot"}
)

# What neither a batch nor a gate of A to E reads; the API writes it beside them, and people at the console.
_OF_THE_API = frozenset(
    {
        "phase2.booking_event_times",
        "phase2.console_ended",
        "phase2.console_tries",
        "phase2.exception_days",
        "phase2.ingest_keys",
        "phase2.ingest_nonces",
    }
)

# Whatever the session, role or database is set to, a value has one text.
_SETTINGS = """
set local search_path = '';
set local timezone = 'UTC';
set local datestyle = 'ISO, YMD';
set local intervalstyle = 'postgres';
set local bytea_output = 'hex';
set local extra_float_digits = 1;
set local quote_all_identifiers = off;
set local row_security = off;
set local jit = off;
set local lock_timeout = '30s'
"""

_TABLES = """
select
    n.nspname,
    c.relname,
    quote_ident(n.nspname) || '.' || quote_ident(c.relname),
    has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'),
    array(
        select a.attname::text from pg_catalog.pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    )
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
where
    (c.relkind = 'r' or (c.relkind = 'm' and c.relispopulated))
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and n.nspname = any(
        coalesce(nullif(current_setting('phase2.fingerprint_schemas'), '')::text[], array[n.nspname::text])
    )
    and not exists (
        select 1 from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
    )
order by 1, 2
"""

# table and column that a sequence belongs to, where there are such
_SEQUENCES = """
select
    quote_ident(n.nspname) || '.' || quote_ident(c.relname),
    d.refobjid::regclass::text,
    a.attname::text,
    has_sequence_privilege(c.oid, 'usage, select'),
    case when has_sequence_privilege(c.oid, 'usage, select') then pg_catalog.pg_sequence_last_value(c.oid) end
from pg_catalog.pg_class as c
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
left join pg_catalog.pg_depend as d
    on d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid
    and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
left join pg_catalog.pg_attribute as a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where
    c.relkind = 'S'
    and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
    and n.nspname = any(
        coalesce(nullif(current_setting('phase2.fingerprint_schemas'), '')::text[], array[n.nspname::text])
    )
"""


@dataclass(frozen=True)
class Content:
    """Of one table: how many rows, and the sum of their 64-bit hashes (a row twice counts twice)."""

    rows: int
    digest: str


@dataclass(frozen=True)
class Fingerprint:
    """Objects in words ("table public.booking_core") with their definitions; "public.booking_core" with its rows."""

    catalog: dict[str, str]
    content: dict[str, Content]

    @property
    def digest(self) -> str:
        """SHA-256 of all of it: equal exactly when two fingerprints are."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()

    @property
    def unread(self) -> tuple[str, ...]:
        """Tables whose content this user may not see: nothing can be said of their rows."""
        return tuple(name for name, content in self.content.items() if content.digest == NOT_READABLE)

    def document(self) -> dict[str, Any]:
        """As JSON can hold it; `read` is the way back."""
        return {"catalog": self.catalog, "content": {name: asdict(table) for name, table in self.content.items()}}


def read(document: Mapping[str, Any]) -> Fingerprint:
    """A fingerprint out of its document; KeyError or TypeError when it is none."""
    content = {str(name): Content(**table) for name, table in document["content"].items()}
    return Fingerprint(catalog=dict(document["catalog"]), content=content)


def take(conn: psycopg.Connection, *, schemas: Sequence[str] | None = None) -> Fingerprint:
    """The fingerprint of these schemas (None: all but the system's), in one read-only snapshot of its own.

    `conn` must not be inside a transaction (psycopg.errors.ActiveSqlTransaction). One statement a table; tables that
    this user may not select are NOT_READABLE.
    """
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        cursor.execute("set transaction isolation level repeatable read, read only")
        _settle(cursor, schemas)
        catalog = dict(cursor.execute((SQL / "fingerprint.sql").read_bytes()).fetchall())
        content: dict[str, Content] = {}
        for schema, table, name, readable, columns in cursor.execute(_TABLES).fetchall():
            if name in _LOGS or name.startswith(_KEPT):
                continue
            kept = sorted(set(columns) - _BOOKKEEPING.get(name, frozenset()))
            content[name] = _digest(cursor, schema, table, kept) if readable else Content(-1, NOT_READABLE)
        for name, table, column, readable, position in cursor.execute(_SEQUENCES).fetchall():
            if table in _LOGS or column in _BOOKKEEPING.get(table or "", ()):
                continue
            label = f"{table}.{_quoted(column)}" if table else name
            moved = Content(1, str(position)) if readable else Content(-1, NOT_READABLE)
            content[f"sequence {label}"] = moved
    return Fingerprint(catalog, content)


def versions(conn: psycopg.Connection, *, around: bool = False, but: Collection[str] = ()) -> str:
    """A digest of which row versions the bridge is made of: as long as it is equal, nobody has written to it.

    The canonical tables, our own state but for the logs, the seeds, the rulebook, and dbt's working tables. Rows are
    not read, only where each stands and which transaction wrote it: a tenth of the cost of `take`. A table that was
    moved (vacuum full, restore) counts as written. `around`: what only gates and rollbacks read, too; `but`:
    without these tables.
    """
    with conn.transaction(), conn.cursor(row_factory=tuple_row) as cursor:
        _settle(cursor, ("public", "phase2", "dbt_seeds"))
        left_out = _LOGS | _OF_THE_API | (frozenset() if around else _AROUND_A_BATCH)
        tables = [row for row in cursor.execute(_TABLES).fetchall() if row[2] not in left_out and row[2] not in but]
        parts = [
            sql.SQL("select {}, count(*), sum(hash_record_extended(row(t.ctid, t.xmin), 0)) from only {} as t").format(
                sql.Literal(name), sql.Identifier(schema, table)
            )
            for schema, table, name, *_ in tables
        ]
        parts.append(
            sql.SQL(
                "select 'rulebook', count(*), sum(hash_record_extended(row(p.ctid, p.xmin), 0))"
                " from pg_catalog.pg_proc as p"
                " join pg_catalog.pg_namespace as n on n.oid = p.pronamespace and n.nspname = 'rulebook'"
            )
        )
        parts.append(  # of working tables and views: whether they are the ones that were made
            sql.SQL(
                "select 'working tables', count(*), sum(hash_record_extended(row(c.oid, c.relfilenode), 0))"
                " from pg_catalog.pg_class as c"
                " join pg_catalog.pg_namespace as n"
                " on n.oid = c.relnamespace and n.nspname in ('dbt_staging', 'dbt_intermediate')"
            )
        )
        rows = [cursor.execute(part).fetchone() for part in parts]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def catalog(conn: psycopg.Connection, *, schemas: Sequence[str] | None = None) -> dict[str, str]:
    """The catalog alone, as `take` has it, in the transaction that `conn` is in."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        _settle(cursor, schemas)
        return dict(cursor.execute((SQL / "fingerprint.sql").read_bytes()).fetchall())


def rows(conn: psycopg.Connection, *, schemas: Sequence[str] | None = None) -> dict[str, Content]:
    """All rows of every table, logs and bookkeeping too, in the transaction of `conn`: what a copy must hold."""
    with conn.cursor(row_factory=tuple_row) as cursor:
        _settle(cursor, schemas)
        return {
            name: _digest(cursor, schema, table, sorted(columns)) if readable else Content(-1, NOT_READABLE)
            for schema, table, name, readable, columns in cursor.execute(_TABLES).fetchall()
        }


def _settle(cursor: psycopg.Cursor, schemas: Sequence[str] | None) -> None:
    cursor.execute(_SETTINGS)
    asked = None if schemas is None else list(schemas)
    cursor.execute("select set_config('phase2.fingerprint_schemas', coalesce(%s::text[]::text, ''), true)", (asked,))


def _digest(cursor: psycopg.Cursor, schema: str, table: str, columns: list[str]) -> Content:
    """Rows are written as Postgres writes a row (quoted, null unlike the empty string), columns in their names' order.

    A sum and not an exclusive or: that would not see a row that came twice, or two rows that went together. 1,000,000
    bookings take 0.8 to 1.0 s on 2 cores (1.9 s without a parallel worker); a row as jsonb takes 1.8 s, md5 1.5 s;
    hash_record_extended takes 0.4 s, but adds up its columns' hashes, so that two rows may swap a value unseen.
    """
    query = sql.SQL("select count(*), coalesce(sum(hashtextextended(row({})::text, 0)), 0)::text from only {}").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, table)
    )
    rows, digest = cursor.execute(query).fetchone() or (0, "0")
    return Content(rows, digest)


def _quoted(name: str) -> str:
    return name if name.isidentifier() and name == name.lower() else f'"{name}"'


def difference(before: Fingerprint, after: Fingerprint) -> list[str]:
    """What changed, a line each, in words; empty when the two are equal. Names and counts, no row's values."""
    lines = [*_catalog_difference(before.catalog, after.catalog)]
    for name in sorted(before.content.keys() | after.content.keys()):
        was, now = before.content.get(name), after.content.get(name)
        if was != now:
            lines.append(_content_difference(name, was, now))
    return lines


def _catalog_difference(before: Mapping[str, str], after: Mapping[str, str]) -> Iterable[str]:
    for word, here, there in (("gone", before, after), ("new", after, before)):
        names = here.keys() - there.keys()
        whole = tuple(f"{name.split(' ')[-1]}." for name in names if name.startswith(("table ", "view ")))
        for name in sorted(names):
            part_of_it = name.startswith(("column ", "index ", "constraint ", "sequence ")) and name.split(" ", 1)[1]
            if not (part_of_it and part_of_it.startswith(whole)):  # a table speaks for its columns and keys
                yield f"{word}: {name}: {_short(here[name])}"
    for name in sorted(before.keys() & after.keys()):
        if before[name] != after[name]:
            yield f"changed: {name}: was {_short(before[name])}; is {_short(after[name])}"


def _content_difference(name: str, was: Content | None, now: Content | None) -> str:
    if name.startswith("sequence "):
        return f"moved: {name}: at {was.digest if was else 'no'}, now {now.digest if now else 'gone'}"
    if now is None:
        return f"rows of {name}: {was.rows if was else 0}, now none: the table is gone"
    if was is None:
        return f"rows of {name}: {now.rows} in a new table"
    if was.rows == now.rows:
        return f"rows of {name}: still {now.rows}, but not the same"
    return f"rows of {name}: {was.rows}, now {now.rows}"


def _short(definition: str) -> str:
    return textwrap.shorten(definition, 160, placeholder=" …")
