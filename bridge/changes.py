"""Which rows of a source are not as they were landed: found by row versions, fetched by ranges of keys.

PostgreSQL gives every version of a row a place (`ctid`) and the transaction that wrote it (`xmin`): whatever writes a
row changes them, also what leaves `updated_at` as it was. A landing keeps, for every sixteen keys of a table, how many
rows there are and one number made of their versions; the next one asks the source for the same numbers (no value is
read: a quarter of the cost of hashing rows, an eighth of copying them), fetches the ranges that differ, and compares
row by row. Deleted rows are noticed by their range.

Numbers tell versions of one database apart, and nothing else: its cluster, timeline and oid are kept beside them, and a
digest of its tables' columns and enums, since DDL changes what rows say without writing them (a label is renamed, a
column dropped and added again with a default).
Every function works in the transaction of the connection that it is given; psycopg errors pass through.
"""

from __future__ import annotations

from collections.abc import Sequence

import psycopg
from psycopg import sql

from bridge.preflight import Table

__all__ = ["FEW", "INTO_FETCHED", "INTO_RANGES", "PARENTS", "mark_of", "versions_of", "why_not"]

# Once a day all rows are copied, whatever their versions say.
_WHOLE_EVERY = "24 hours"
# So many ranges at most are looked up one by one.
FEW = 20_000

# What of a changed row leads to its booking; models of the catalog read whole tables.
PARENTS = {
    ("balisnap", "Departure"): "departure_id",
    ("balisnap", "Booking"): "booking_id",
    ("balisnap", "BookingItem"): "booking_id",
    ("balisnap", "BookingTraveler"): "booking_item_id",
    ("balisnap", "Payment"): "booking_id",
    ("bstadmin", "bookings"): "booking_id",
    ("bstadmin", "booking_finances"): "booking_id",
    ("bstadmin", "booking_finance_items"): "booking_finance_id",
}

_CLUSTER = """
    select
        case
            when
                has_function_privilege('pg_catalog.pg_control_system()', 'execute')
                and has_function_privilege('pg_catalog.pg_control_checkpoint()', 'execute')
                then (select s.system_identifier::text from pg_catalog.pg_control_system() as s)
                || '/' || (select c.timeline_id::text from pg_catalog.pg_control_checkpoint() as c)
                || '/' || (select d.oid::text from pg_catalog.pg_database as d where d.datname = current_database())
        end
"""

# Of these tables with their keys: the ones whose row versions cannot be asked for, and why.
_UNFIT = """
    select
        w.name,
        case
            when c.relkind <> 'r' or c.relhassubclass then 'is no plain table'
            when not has_table_privilege(c.oid, 'select') then 'is granted by columns'
            when not exists (
                select 1 from pg_catalog.pg_index as i
                join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum = i.indkey[0]
                where i.indrelid = c.oid and i.indisprimary and i.indnkeyatts = 1 and a.attname = w.key
            ) then 'has another primary key'
        end as why
    from unnest(%s::text[], %s::text[]) as w (name, key)
    join pg_catalog.pg_class as c on c.relname = w.name
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace and n.nspname = 'public'
"""

# Of the columns of these tables what gives a stored value its meaning.
_MEANING = """
    select md5(string_agg(
        concat_ws(
            ' ', c.relname, a.attname, a.attnum, a.atttypid, a.atttypmod, a.atthasmissing, a.attgenerated,
            (
                select string_agg(e.oid || ' ' || e.enumlabel, ',' order by e.oid)
                from pg_catalog.pg_enum as e
                join pg_catalog.pg_type as t on e.enumtypid in (t.oid, t.typelem, t.typbasetype)
                where t.oid = a.atttypid
            )
        ),
        ';' order by c.relname, a.attnum
    ))
    from pg_catalog.pg_class as c
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = to_regnamespace('public') and c.relname = any(%s)
"""

INTO_RANGES = sql.SQL("copy pg_temp.source_ranges (range_no, row_count, version) from stdin (format binary)")
INTO_FETCHED = sql.SQL("copy pg_temp.fetched from stdin (format binary)")


def versions_of(source: psycopg.Connection, tables: Sequence[Table]) -> tuple[str | None, str | None]:
    """(the database whose row versions these are, and what its columns mean; None), or (None, why they cannot be told
    apart)."""
    (cluster,) = source.execute(_CLUSTER).fetchone() or (None,)
    if cluster is None:
        return None, "its cluster does not say which one it is"
    unfit = source.execute(_UNFIT, ([t.name for t in tables], [t.key for t in tables])).fetchall()
    for name, why in unfit:
        if why:
            return None, f"{name} {why}"
    (meaning,) = source.execute(_MEANING, ([t.name for t in tables],)).fetchone() or ("",)
    return f"{cluster}/{meaning}", None


def why_not(ops: psycopg.Connection, source: str, versions_of: str | None) -> str | None:
    """Why the landing that stands cannot follow the source by its changes; None when it can."""
    row = ops.execute(
        """
        select
            r.versions_of is not distinct from %(versions_of)s,
            r.row_count = (select sum(g.row_count) from phase2.landing_ranges as g where g.source = r.source),
            exists (
                select 1 from phase2.landing_runs as w
                where
                    w.source = r.source and w.why_whole is not null
                    and w.landed_at > now() - %(every)s::interval
            )
        from phase2.landing_runs as r
        where r.source = %(source)s
        order by r.landing_no desc limit 1
        """,
        {"source": source, "versions_of": versions_of, "every": _WHOLE_EVERY},
    ).fetchone()
    same_database, has_ranges, is_recent = row or (None, None, None)
    if not same_database:
        return "what was landed is of another database, cluster, timeline or DDL"
    if not has_ranges:
        return "what is known of its row versions was lost"
    if not is_recent:
        return f"all rows are copied once in {_WHOLE_EVERY}"
    return None


def begin(ops: psycopg.Connection) -> None:
    """Where the source's numbers arrive; gone with the transaction."""
    ops.execute(
        "create temporary table source_ranges (range_no bigint, row_count integer, version bigint) on commit drop"
    )


def ranges_of(table: Table) -> sql.Composed:
    """Of every sixteen keys: how many rows, and one number of their versions."""
    return sql.SQL(
        "select (t.{key} >> 4)::bigint, count(*)::integer,"
        " bit_xor(hash_record_extended(row(t.ctid, t.xmin), t.{key}::bigint)) from {table} as t group by 1"
    ).format(key=sql.Identifier(table.key), table=sql.Identifier("public", table.name))


def forget(ops: psycopg.Connection, source: str) -> None:
    """Nothing is known of the source's versions, and no change of a row leads from the last landing to this one."""
    ops.execute("delete from phase2.landing_ranges where source = %s", (source,))
    ops.execute("delete from phase2.landed_changes where source = %s", (source,))
    ops.execute("delete from phase2.landed_moves where source = %s", (source,))


def differing(ops: psycopg.Connection, source: str, table: Table) -> list[int]:
    """The ranges of the source that are not as they were landed."""
    rows = ops.execute(
        """
        select coalesce(n.range_no, h.range_no)
        from (select * from phase2.landing_ranges as r where r.source = %s and r.table_name = %s) as h
        full join pg_temp.source_ranges as n on n.range_no = h.range_no
        where (h.row_count, h.version) is distinct from (n.row_count, n.version)
        order by 1
        """,
        (source, table.name),
    )
    return [int(row[0]) for row in rows]


def rows_in(rows: sql.Composed, table: Table, ranges: Sequence[int]) -> sql.Composed:
    """The rows of a select from the table whose keys are in these ranges; by the key's index when there are few."""
    key = sql.Identifier(table.key)
    if len(ranges) > FEW:
        # of one type on both sides: else each row is held against each range, 90 s in 2,000,000 rows
        return sql.SQL("{rows} where ({key}::bigint >> 4) = any({ranges}::bigint[])").format(
            rows=rows, key=key, ranges=sql.Literal(list(ranges))
        )
    return sql.SQL(
        "select f.* from unnest({ranges}::bigint[]) as r (n)"
        " cross join lateral ({rows} where {key} between r.n * 16 and r.n * 16 + 15) as f"
    ).format(rows=rows, key=key, ranges=sql.Literal(list(ranges)))


def make_room(ops: psycopg.Connection, schema: str, table: Table, ranges: Sequence[int]) -> None:
    """Where the fetched rows arrive, and the ranges that they are of."""
    parts = {"landed": sql.Identifier(schema, table.name), "ranges": sql.Literal(list(ranges))}
    for statement in (
        "drop table if exists pg_temp.fetched, pg_temp.differing_ranges",
        "create temporary table fetched (like {landed}) on commit drop",
        "create temporary table differing_ranges on commit drop as select unnest({ranges}::bigint[]) as range_no",
        "analyze pg_temp.differing_ranges",
    ):
        ops.execute(sql.SQL(statement).format(**parts))


def write(ops: psycopg.Connection, source: str, schema: str, table: Table) -> int:
    """Make the landed rows of the fetched ranges what was fetched, note each that differs; how many."""
    parent = PARENTS.get((source, table.name))
    parts = {
        "landed": sql.Identifier(schema, table.name),
        "key": sql.Identifier(table.key),
        "was_of": sql.SQL("o.{}::bigint").format(sql.Identifier(parent)) if parent else sql.SQL("null::bigint"),
        "is_of": sql.SQL("n.{}::bigint").format(sql.Identifier(parent)) if parent else sql.SQL("null::bigint"),
    }
    for statement in (
        "analyze pg_temp.fetched",
        "drop table if exists pg_temp.changed_rows",
        # the image of a row: 1.0 is not 1.00
        """
        create temporary table changed_rows on commit drop as
        select
            coalesce(o.{key}, n.{key}) as pk,
            case when o.{key} is null then 'insert' when n.{key} is null then 'delete' else 'update' end as kind,
            {was_of} as was_of,
            {is_of} as is_of
        from (
            select l.* from {landed} as l
            join pg_temp.differing_ranges as r on r.range_no = (l.{key} >> 4)
        ) as o
        full join pg_temp.fetched as n on n.{key} = o.{key}
        where o.{key} is null or n.{key} is null or o *<> n
        """,
        "analyze pg_temp.changed_rows",
        "delete from {landed} as l using pg_temp.changed_rows as c where l.{key} = c.pk and c.kind <> 'insert'",
        "insert into {landed} select n.* from pg_temp.fetched as n"
        " join pg_temp.changed_rows as c on c.pk = n.{key} and c.kind <> 'delete'",
    ):
        ops.execute(sql.SQL(statement).format(**parts))
    if parent:
        ops.execute(
            sql.SQL(
                "insert into phase2.landed_moves as m (source, table_name, marks)"
                " select %s, %s, bit_xor(case when c.kind <> 'insert' then {was} else 0 end"
                " # case when c.kind <> 'delete' then {now} else 0 end)"
                " from pg_temp.changed_rows as c having count(*) > 0"
                " on conflict (source, table_name) do update set marks = m.marks # excluded.marks"
            ).format(was=mark_of("c.pk", "c.was_of"), now=mark_of("c.pk", "c.is_of")),
            (source, table.name),
        )
    return ops.execute(
        """
        with noted as (
            insert into phase2.landed_changes (source, table_name, pk, kind, parent)
            select %s, %s, c.pk, c.kind, p.parent
            from pg_temp.changed_rows as c
            cross join lateral (
                select c.was_of as parent where c.kind <> 'insert'
                union
                select c.is_of where c.kind <> 'delete'
            ) as p
        )

        select count(*) from pg_temp.changed_rows
        """,
        (source, table.name),
    ).fetchone()[0]  # type: ignore[index]


def mark_of(key: str, parent: str) -> sql.Composable:
    """A number for a landed row, of its key and whose it is."""
    return sql.SQL(f"hashint8extended({key}::bigint, coalesce({parent}::bigint, -1))")  # type: ignore[arg-type]


def keep_ranges(ops: psycopg.Connection, source: str, table: Table) -> str:
    """The source's numbers are those of what is landed now; the table's digest."""
    names = {"source": source, "table": table.name}
    ops.execute(
        "delete from phase2.landing_ranges as h where h.source = %(source)s and h.table_name = %(table)s"
        " and not exists ("
        "     select 1 from pg_temp.source_ranges as n"
        "     where n.range_no = h.range_no and n.row_count = h.row_count and n.version = h.version)",
        names,
    )
    ops.execute(
        "insert into phase2.landing_ranges (source, table_name, range_no, row_count, version)"
        " select %(source)s, %(table)s, n.range_no, n.row_count, n.version from pg_temp.source_ranges as n"
        " where not exists ("
        "     select 1 from phase2.landing_ranges as h"
        "     where h.source = %(source)s and h.table_name = %(table)s and h.range_no = n.range_no)",
        names,
    )
    row = ops.execute(
        "select coalesce(sum(n.row_count), 0)::text || ':' || coalesce(bit_xor(n.version), 0)::text"
        " from pg_temp.source_ranges as n"
    ).fetchone()
    ops.execute("truncate pg_temp.source_ranges")
    return str(row[0]) if row else ""


def rows_of(ops: psycopg.Connection, source: str, table: Table) -> int:
    """How many rows of the table are landed."""
    row = ops.execute(
        "select coalesce(sum(r.row_count), 0)::bigint from phase2.landing_ranges as r"
        " where r.source = %s and r.table_name = %s",
        (source, table.name),
    ).fetchone()
    return row[0] if row else 0
