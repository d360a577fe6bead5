"""The floor beside the bench: landing by plain COPY, and one hand-written insert-select per target table.

The same sources, tables, constraints and rulebook functions, two connections side by side; the winner of an identity is
taken as it is. Nothing is checked, merged, queued, logged or gated: what a gated migration costs is what it takes more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from psycopg import sql

from bridge import postgres, preflight
from bridge.settings import Databases

_FILES = Path(__file__).parent

# What each of the two connections loads, in turn; what the others refer to comes first.
_LOADS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "C": (
        ("catalog_product",),
        ("catalog_variant", "catalog_variant_rate", "channel_external_refs"),
        ("source_leftovers",),
    ),
    "D": (
        ("booking_core",),
        ("channel_external_refs", "booking_contact", "ops_assignment"),
        ("booking_item_snapshot", "booking_party", "ops_booking_state"),
    ),
    "E": ((), ("payment_event",), ("ops_finance_bridge",)),
}
_OTHER_SCHEMA = {"source_leftovers": "phase2"}  # the others are in public


def land(databases: Databases) -> int:
    """Copy the columns that our landing copies, one connection a source; the rows copied."""

    def one(name: str, url: str) -> int:
        with postgres.connect(databases.ops) as ops, postgres.connect(url, read_only=True) as source:
            tables = preflight.wanted_tables(ops, f"landing_{name}")
            found, _ = preflight.check(source, name, tables)
            rows = 0
            for table in tables:
                into = sql.Identifier(f"landing_{name}", table.name)
                ops.execute(sql.SQL("truncate {}").format(into))
                out_of = sql.SQL("copy ({}) to stdout (format binary)").format(
                    preflight.select(table, found[table.name])
                )
                copy_in = sql.SQL("copy {} from stdin (format binary, freeze true)").format(into)
                with ops.cursor() as target, source.cursor() as origin:
                    with target.copy(copy_in) as written, origin.copy(out_of) as read:
                        for block in read:
                            written.write(block)
                    rows += target.rowcount
                ops.execute(sql.SQL("analyze {}").format(into))
        return rows

    return sum(
        _side_by_side([lambda: one("balisnap", databases.balisnap), lambda: one("bstadmin", databases.bstadmin)])
    )


def load(ops: str, batch: str, *, compare: bool) -> int:
    """Load one batch's tables; with `compare` only what is new or differs. The rows written."""
    with postgres.connect(ops, autocommit=True) as conn:
        if batch == "C":
            conn.execute("drop schema if exists floor cascade")
            conn.execute("create schema floor")
        else:
            conn.execute("drop view if exists floor.channel_external_refs")
        conn.execute((_FILES / f"{batch.lower()}.sql").read_bytes())
    first, left, right = _LOADS[batch]
    written = sum(_fill(ops, first, compare))
    written += sum(
        _side_by_side([lambda: sum(_fill(ops, left, compare)), lambda: sum(_fill(ops, right, compare))]),
    )
    return written


def _fill(ops: str, tables: Iterable[str], compare: bool) -> Iterable[int]:
    for table in tables:
        with postgres.connect(ops, autocommit=True) as conn:
            schema = _OTHER_SCHEMA.get(table, "public")
            yield conn.execute(_insert(conn, schema, table, compare)).rowcount
            if not compare:
                conn.execute(postgres.statement("analyze {}.{}", schema, table))


def _insert(conn: psycopg.Connection, schema: str, table: str, compare: bool) -> sql.Composed:
    columns = [
        sql.Identifier(row[0])
        for row in conn.execute(
            "select attname from pg_catalog.pg_attribute where attrelid = %s::regclass and attnum > 0",
            (f"floor.{table}",),
        )
    ]
    key, *values = columns  # each view names its key first
    source, target = sql.Identifier("floor", table), sql.Identifier(schema, table)
    names = sql.SQL(", ").join(columns)
    if not compare:
        return sql.SQL("insert into {} ({}) select {} from {}").format(target, names, names, source)
    return sql.SQL(
        "insert into {target} as t ({names})"
        " select {news} from {source} as s left join {target} as x on s.{key} = x.{key}"
        " where x.{key} is null or ({news_values}) is distinct from ({old_values})"
        " on conflict ({key}) do update set {changes}"
    ).format(
        target=target,
        names=names,
        source=source,
        key=key,
        news=sql.SQL(", ").join(sql.SQL("s.{}").format(c) for c in columns),
        news_values=sql.SQL(", ").join(sql.SQL("s.{}").format(c) for c in values),
        old_values=sql.SQL(", ").join(sql.SQL("x.{}").format(c) for c in values),
        changes=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(c) for c in values),
    )


def _side_by_side(works: list[Callable[[], int]]) -> list[int]:
    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(lambda work: work(), works))
