"""The inner loop of whoever edits one model: build it, test it and its parents, see which rows are others now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from bridge import ledger, postgres, steps, stop, warehouse
from bridge.errors import CouldNotRun
from bridge.policy import policy

_SHOWN_KEYS = 5
_WRITTEN_WITH_A_ROW = ("created_at", "updated_at", "read_at", "run_id")  # no difference of what the model says


@dataclass(frozen=True)
class Difference:
    """Rows of a relation against those before the build. `columns`: in how many changed rows each column differs.

    Without a key rows are compared whole: then none is `changed`. A column that one side lacks, or has by another
    type, is in `columns_changed` and is not compared.
    """

    relation: str
    key: str | None
    before: int
    after: int
    new: int
    gone: int
    changed: int
    columns: dict[str, int]
    columns_changed: tuple[str, ...]
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """What was built and tested, and what it did to the rows; None where there is no relation (a function)."""

    nodes: tuple[warehouse.Node, ...]
    difference: Difference | None

    @property
    def failed(self) -> tuple[warehouse.Node, ...]:
        return tuple(node for node in self.nodes if node.status in ("error", "fail", "runtime error", "skipped"))


def build(run: steps.Run, name: str) -> Built:
    """Build the model `name` with its unit and data tests, and run the data tests of its parents.

    The parents are taken as they are. Writes like a batch does, so it holds the runner's lock, heeds a stop, and is in
    the ledger; but past the doors, so only where the policy is local. Raises CouldNotRun when it is not, when there is
    no such model, or when something else runs; Stopped when the migration is.
    """
    if (environment := policy().environment) != "local":
        raise CouldNotRun(
            f"one model by itself goes past the doors, and the policy here is {environment}",
            where="PHASE2_ENV",
            todo="Build it in a database of your own; here run its batch: make run BATCH=…",
        )
    found = warehouse.find(run.databases.ops, name)
    if found is None:
        raise CouldNotRun(f"there is no model {name!r}", where="dbt_project/models", todo="Name a file there, no .sql.")
    with steps.only_runner(run), run.connect() as conn:
        stop.raise_if_asked(run.databases.ops, name)
        ledger.append(conn, "model", subject=name, run_id=run.run_id)
        if found.relation:
            _keep(conn, found.relation)
        nodes = warehouse.invoke(run.databases.ops, ["build", "--select", name], progress=run.progress)
        nodes += warehouse.invoke(
            run.databases.ops,
            ["test", "--select", f"1+{name}", "--exclude", name, "--exclude-resource-type", "unit_test"],
        )
        built = any(node.status == "success" and node.unique_id == found.unique_id for node in nodes)
        difference = _compare(conn, found) if found.relation and built else None
    return Built(tuple(nodes), difference)


def _keep(conn: psycopg.Connection, relation: tuple[str, str]) -> None:
    """Its rows as they are, for as long as the connection lives; none when it is not there yet."""
    there = conn.execute("select to_regclass(%s) is not null", (".".join(relation),)).fetchone()
    if there == (True,):
        conn.execute(postgres.statement("create temp table model_before as table {}.{}", *relation))


def _compare(conn: psycopg.Connection, found: warehouse.Found) -> Difference:
    assert found.relation is not None
    after = sql.Identifier(*found.relation)
    if conn.execute("select to_regclass('pg_temp.model_before') is not null").fetchone() != (True,):
        conn.execute(sql.SQL("create temp table model_before as table {} with no data").format(after))
    described = conn.execute(_COLUMNS, (".".join(found.relation),)).fetchall()
    columns_changed = tuple(name for name, is_same in described if not is_same and name not in _WRITTEN_WITH_A_ROW)
    columns = [name for name, is_same in described if is_same and name not in _WRITTEN_WITH_A_ROW]
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    counts = _one(conn, "select (select count(*) from pg_temp.model_before), (select count(*) from {})", after)
    if found.key not in columns:
        before = sql.Identifier("pg_temp", "model_before")
        beyond = "select count(*) from (select {} from {} except all select {} from {}) as d"
        new, gone = (_one(conn, beyond, names, a, names, b)[0] for a, b in ((after, before), (before, after)))
        return Difference(".".join(found.relation), None, *counts, new, gone, 0, {}, columns_changed, ())
    key = sql.Identifier(found.key)
    others = [column for column in columns if column != found.key]
    differs = [sql.SQL("(b.{c} is distinct from a.{c})").format(c=sql.Identifier(column)) for column in others]
    conn.execute(
        sql.SQL(
            "create temp table model_difference as"
            " select coalesce(a.{key}, b.{key})::text as key, b.{key} is null as is_new, a.{key} is null as is_gone,"
            " array[{differs}]::boolean[] as differs"
            " from pg_temp.model_before as b full join {after} as a on b.{key} = a.{key}"
            " where b.{key} is null or a.{key} is null or {any}"
        ).format(
            key=key,
            after=after,
            differs=sql.SQL(", ").join(differs),
            any=sql.SQL(" or ").join(differs or [sql.SQL("false")]),
        )
    )
    new, gone, changed = _one(
        conn,
        "select count(*) filter (where is_new), count(*) filter (where is_gone),"
        " count(*) filter (where not is_new and not is_gone) from pg_temp.model_difference",
    )
    per_column = conn.execute(
        "select d.place, count(*) from pg_temp.model_difference as m"
        " cross join unnest(m.differs) with ordinality as d (differs, place)"
        " where d.differs and not m.is_new and not m.is_gone group by d.place order by d.place"
    ).fetchall()
    keys = conn.execute(
        'select m.key from pg_temp.model_difference as m order by m.key collate "C" limit %s', (_SHOWN_KEYS,)
    ).fetchall()
    return Difference(
        ".".join(found.relation), found.key, *counts, new, gone, changed,
        {others[place - 1]: count for place, count in per_column}, columns_changed, tuple(key for (key,) in keys),
    )  # fmt: skip


# Each column of either side, and whether both have it by one type.
_COLUMNS = """
select
    coalesce(n.attname, o.attname),
    coalesce(n.atttypid = o.atttypid, false)
from (
    select a.attname, a.atttypid, a.attnum from pg_catalog.pg_attribute as a
    where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped
) as n
full join (
    select a.attname, a.atttypid, a.attnum from pg_catalog.pg_attribute as a
    where a.attrelid = 'pg_temp.model_before'::regclass and a.attnum > 0 and not a.attisdropped
) as o on n.attname = o.attname
order by coalesce(n.attnum, o.attnum)
"""


def _one(conn: psycopg.Connection, template: LiteralString, *parts: Any) -> tuple[Any, ...]:
    row = conn.execute(sql.SQL(template).format(*parts)).fetchone()
    assert row is not None
    return row
