"""What a landing needs of a source, and whether the source has it: asked before a row is copied.

The needed tables and columns are those of the landing schema (`sql/landing/*.sql`), read from the catalog.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from bridge.errors import CouldNotRun

# Landing type: the source types that it holds without loss. Another type than its own is cast in the select.
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "text": ("text", "character varying", "character", "enum"),
    "smallint": ("smallint",),
    "integer": ("integer", "smallint"),
    "numeric": ("numeric", "bigint", "integer", "smallint"),
    "boolean": ("boolean",),
    "date": ("date",),
    "time without time zone": ("time without time zone",),
    "timestamp without time zone": ("timestamp without time zone",),
    "jsonb": ("jsonb", "json"),
}

_SHOWN_KEYS = 5


class LandingError(CouldNotRun):
    """A landing could not be made; the landing before it is whole. Holds no row data and no passwords."""


@dataclass(frozen=True)
class Column:
    name: str
    type: str
    not_null: bool


@dataclass(frozen=True)
class Table:
    """A landing table: its columns in their order, the source's primary key first."""

    name: str
    columns: tuple[Column, ...]

    @property
    def key(self) -> str:
        return self.columns[0].name


@dataclass(frozen=True)
class SourceColumn:
    """A column as the source has it; `type` is `enum` for any enum, the base type for a domain."""

    name: str
    type: str
    not_null: bool
    readable: bool


@dataclass(frozen=True)
class Problem:
    what: str
    todo: str


_WANTED = """
    select c.relname, a.attname, pg_catalog.format_type(a.atttypid, null), a.attnotnull
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where n.nspname = %s and c.relkind = 'r'
    order by c.oid, a.attnum
"""

_FOUND = """
    select
        c.relname, a.attname,
        case y.typtype when 'e' then 'enum' else pg_catalog.format_type(y.oid, null) end,
        a.attnotnull,
        pg_catalog.has_schema_privilege(n.oid, 'USAGE')
        and (
            pg_catalog.has_table_privilege(c.oid, 'SELECT')
            or pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
        )
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_catalog.pg_type as t on t.oid = a.atttypid
    join pg_catalog.pg_type as y on y.oid = coalesce(nullif(t.typbasetype, 0), t.oid)
    where n.nspname = 'public' and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname = any(%s)
"""


def wanted_tables(ops: psycopg.Connection, schema: str) -> tuple[Table, ...]:
    """The tables of a landing schema, in the order of their file."""
    columns: dict[str, list[Column]] = {}
    for table, name, type_, not_null in ops.execute(_WANTED, (schema,)):
        columns.setdefault(table, []).append(Column(name, type_, not_null))
    return tuple(Table(name, tuple(members)) for name, members in columns.items())


def found_columns(source: psycopg.Connection, tables: tuple[Table, ...]) -> dict[str, dict[str, SourceColumn]]:
    """What the source's schema `public` has of these tables, by table and column; no entry: no table."""
    found: dict[str, dict[str, SourceColumn]] = {}
    for table, name, type_, not_null, readable in source.execute(_FOUND, ([t.name for t in tables],)):
        found.setdefault(table, {})[name] = SourceColumn(name, type_, not_null, readable)
    return found


def check(
    source: psycopg.Connection, name: str, tables: tuple[Table, ...]
) -> tuple[dict[str, dict[str, SourceColumn]], list[Problem]]:
    """All that is wrong with the source, not only the first thing; runs inside its snapshot."""
    found = found_columns(source, tables)
    problems = _missing_tables(name, [table.name for table in tables if table.name not in found])
    for table in tables:
        if table.name in found:
            problems += _table_problems(name, table, found[table.name])
    if not problems:
        problems = [p for table in tables for p in _nulls(source, name, table, found[table.name])]
    return found, problems


def select(table: Table, found: dict[str, SourceColumn]) -> sql.Composed:
    """The select whose rows are exactly the landing table's: its columns, its order, its types."""
    expressions = [
        sql.Identifier(column.name)
        if found[column.name].type == column.type
        else sql.SQL("{}::{}").format(sql.Identifier(column.name), sql.SQL(_cast(column.type)))
        for column in table.columns
    ]
    return sql.SQL("select {} from {}").format(sql.SQL(", ").join(expressions), sql.Identifier("public", table.name))


def _cast(landing_type: str) -> str:
    if landing_type not in _ACCEPTED:
        raise ValueError(f"sql/landing uses the type {landing_type!r}, which preflight does not know")
    return landing_type


def _missing_tables(source: str, names: list[str]) -> list[Problem]:
    if not names:
        return []
    shown = ", ".join(f'"{name}"' for name in names)
    variable = f"{source.upper()}_DB_URL"
    return [
        Problem(
            f"table {shown} is missing" if len(names) == 1 else f"tables {shown} are missing",
            f"Check that {variable} points at the database of {source}; its tables are in schema public.",
        )
    ]


def _table_problems(source: str, table: Table, found: dict[str, SourceColumn]) -> list[Problem]:
    variable = f"{source.upper()}_DB_URL"
    problems = []
    unreadable = []
    for column in table.columns:
        there = found.get(column.name)
        if there is None:
            problems.append(
                Problem(
                    f'column "{column.name}" of table "{table.name}" is missing',
                    f"The schema of {source} changed: restore the column, or change sql/landing/{source}.sql "
                    "and the models that read it.",
                )
            )
        elif there.type not in _ACCEPTED[_cast(column.type)]:
            problems.append(
                Problem(
                    f'column "{column.name}" of table "{table.name}" is {there.type}, not {column.type}',
                    f"The schema of {source} changed: restore the type, or change sql/landing/{source}.sql "
                    "and the models that read it.",
                )
            )
        elif not there.readable:
            unreadable.append(column.name)
    if unreadable:
        all_of_it = len(unreadable) == len(table.columns)
        what = "" if all_of_it else f" (columns {', '.join(unreadable)})"
        problems.append(
            Problem(
                f'table "{table.name}" may not be read{what}',
                f'In {source}, as its owner: grant usage on schema public and select on "{table.name}" '
                f"to the user of {variable}.",
            )
        )
    return problems


def _nulls(source: psycopg.Connection, name: str, table: Table, found: dict[str, SourceColumn]) -> list[Problem]:
    """Nulls where the landing allows none: possible only in columns whose NOT NULL the source has dropped."""
    problems = []
    for column in table.columns:
        if not column.not_null or found[column.name].not_null:
            continue
        parts = {
            "table": sql.Identifier("public", table.name),
            "key": sql.Identifier(table.key),
            "column": sql.Identifier(column.name),
        }
        row = source.execute(sql.SQL("select count(*) from {table} where {column} is null").format(**parts)).fetchone()
        count = row[0] if row else 0
        if not count:
            continue
        statement = "select t.{key}::text from {table} as t where t.{column} is null order by t.{key} limit %s"
        keys = source.execute(sql.SQL(statement).format(**parts), (_SHOWN_KEYS,)).fetchall()
        shown = ", ".join(str(key) for (key,) in keys) + (", …" if count > len(keys) else "")
        rows = "1 row has" if count == 1 else f"{count} rows have"
        problems.append(
            Problem(
                f'{rows} null in column "{column.name}" of table "{table.name}", which may not be null '
                f"({table.key} {shown})",
                f"In {name}: fill the column in these rows, and set it not null, as its application expects.",
            )
        )
    return problems
