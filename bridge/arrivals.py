"""What came to the sources after the snapshot that a run landed: told at its end, brought by the next run.

A run works on one snapshot, so that it ends although rows keep arriving. New rows have a key beyond the landed ones;
changed ones have a later `updated_at`, where the table has that column. Only reads.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from bridge import postgres, preflight
from bridge.errors import CouldNotRun, plain
from bridge.settings import Databases, settings

# A day of grace: what a source dates later than that is nonsense, and says nothing of when the row was written.
_LANDED = """
select
    max(t.{key})::numeric,
    (max({updated}) filter (where {updated} < (r.snapshot_at at time zone 'UTC') + interval '1 day'))::text
from {table} as t
right join (
    select l.snapshot_at from phase2.landing_runs as l
    where l.source = {source}
    order by l.landing_no desc
    limit 1
) as r on true
group by r.snapshot_at
"""
_SINCE = """
select
    count(*) filter (where coalesce(t.{key} > %(key)s, true)),
    count(*) filter (
        where t.{key} <= %(key)s and {updated} > %(updated)s::timestamp
        and {updated} < localtimestamp + interval '1 day'
    )
from {table} as t
where coalesce(t.{key} > %(key)s, true) or {updated} > %(updated)s::timestamp
"""


def since_the_landing(ops: psycopg.Connection, dbs: Databases) -> tuple[dict[str, dict[str, int]], list[str]]:
    """Rows by `source.table`, {"new": …, "changed": …}, of tables that have any; and which sources were not counted.

    No statement takes longer than the time that an application may wait for us. A source that cannot be asked is no
    error: the run has what it needs of it.
    """
    found: dict[str, dict[str, int]] = {}
    problems: list[str] = []
    for source, url in (("balisnap", dbs.balisnap), ("bstadmin", dbs.bstadmin)):
        try:
            with postgres.connect(url, application_name="phase2-arrivals", read_only=True, autocommit=True) as conn:
                milliseconds = round(settings().phase2_max_blocking_seconds * 1000)
                conn.execute("select set_config('statement_timeout', %s, false)", (str(milliseconds),))
                for table in preflight.wanted_tables(ops, f"landing_{source}"):
                    new, changed = _count(ops, conn, source, table)
                    if new or changed:
                        found[f"{source}.{table.name}"] = {"new": new, "changed": changed}
        except (CouldNotRun, psycopg.Error) as error:
            problems.append(f"{source}: {plain(error)}")
    return found, problems


def _count(ops: psycopg.Connection, conn: psycopg.Connection, source: str, table: preflight.Table) -> tuple[int, int]:
    has_updated = any(column.name == "updated_at" for column in table.columns)
    names = {
        "key": sql.Identifier(table.key),
        "updated": sql.SQL("t.updated_at" if has_updated else "null::timestamp"),
        "source": sql.Literal(source),
    }
    landed = ops.execute(
        sql.SQL(_LANDED).format(table=sql.Identifier(f"landing_{source}", table.name), **names)
    ).fetchone() or (None, None)
    row = conn.execute(
        sql.SQL(_SINCE).format(table=sql.Identifier("public", table.name), **names),
        {"key": landed[0], "updated": landed[1]},
    ).fetchone()
    return (row[0], row[1]) if row else (0, 0)


def words(found: dict[str, dict[str, int]]) -> str:
    """In one line, for progress and reports."""
    if not found:
        return "nothing came to the sources after the snapshot"
    tables = (
        f"{name} " + " and ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
        for name, counts in found.items()
    )
    return f"came after the snapshot, for the next run: {'; '.join(tables)}"
