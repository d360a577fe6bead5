"""Reading the canonical tables, and saying in words where two sets of rows disagree."""

import json
import uuid
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import dict_row
from psycopg.types.datetime import DateLoader, TimestampLoader, TimestamptzLoader
from psycopg.types.json import set_json_loads

from tests.oracle import normalise as n

Row = dict[str, Any]
Tables = dict[str, list[Row]]

KEYS = {
    "catalog_product": "product_key",
    "catalog_variant": "variant_key",
    "catalog_variant_rate": "variant_rate_key",
    "channel_external_refs": "external_ref_key",
    "booking_core": "booking_key",
    "booking_contact": "booking_key",
    "booking_party": "booking_key",
    "booking_item_snapshot": "booking_item_key",
    "payment_event": "payment_key",
    "ops_booking_state": "booking_key",
    "ops_assignment": "assignment_key",
    "ops_finance_bridge": "finance_bridge_key",
    "unmapped_queue": "queue_key",
}
IGNORED = {"created_at", "updated_at", "last_reconciled_at"}
QUEUE_COLUMNS = ("queue_key", "queue_type", "source_system", "source_table", "source_pk", "reason_code", "status")
# Columns that let a reader recognise a row whose key says nothing.
LABELS = {
    "catalog_product": ("slug",),
    "catalog_variant": ("code",),
    "catalog_variant_rate": ("traveler_type", "price"),
    "channel_external_refs": ("entity_type", "channel_code", "external_ref_kind", "external_ref"),
    "booking_core": ("channel_code", "external_booking_ref"),
    "booking_item_snapshot": ("variant_external_id", "total_amount"),
    "payment_event": ("payment_time", "amount"),
    "ops_assignment": ("driver_id", "is_active"),
    "ops_finance_bridge": ("booking_finance_id",),
    "unmapped_queue": QUEUE_COLUMNS[1:],
}


def plain_json(value: Any) -> Any:
    """JSON by value: numbers exact, whatever their notation; keys in any order."""
    if isinstance(value, dict):
        return {str(k): plain_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(v) for v in value]
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal):
        number = Decimal(str(value))
        return ("number", number.normalize(n.EXACT) if number.is_finite() else str(number))
    return plain(value)


def traveler_value(column: str, value: Any) -> Any:
    """A traveller's value: texts after the text rule, times by value (mapping 4.10)."""
    if value is None or value in ("infinity", "-infinity"):
        return None
    if isinstance(value, str) and column in ("created_at", "updated_at"):
        value = datetime.fromisoformat(value)
    if isinstance(value, str) and column == "birth_date":
        value = date.fromisoformat(value)
    return n.text(value) if isinstance(value, str) else plain(value)


def plain(value: Any) -> Any:
    """A column's value in a form in which equal values are equal."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, Decimal):
        return value.normalize(n.EXACT) if value.is_finite() else str(value)
    if isinstance(value, uuid.UUID):
        return str(value)
    return value


def canonical(table: str, row: Row) -> Row:
    """A row as it is compared: without bookkeeping columns, every value in plain form."""
    columns: Iterable[str] = QUEUE_COLUMNS if table == "unmapped_queue" else (c for c in row if c not in IGNORED)
    compared: Row = {}
    for column in columns:
        value = row[column]
        if column == "traveler_rows" and value is not None:
            compared[column] = [{k: traveler_value(k, v) for k, v in t.items()} for t in value]
        elif column in ("snapshot_json", "raw_payload"):
            compared[column] = plain_json(value)
        else:
            compared[column] = plain(value)
    return compared


def label(table: str, row: Row) -> str:
    """How a row is called in a difference."""
    words = ", ".join(f"{c}={row.get(c)!r}" for c in LABELS.get(table, ()))
    return f"{table} {row[KEYS[table]]}" + (f" ({words})" if words else "")


def difference(expected: Tables, actual: Tables) -> list[str]:
    """Every row and column in which the two disagree, in words; empty when they agree.

    Tables are those of `expected`. JSON and numbers compare by value, times as instants, `unmapped_queue` by what
    identifies a row and its status.
    """
    found: list[str] = []
    for table in sorted(expected):
        key = KEYS[table]
        wanted = {str(row[key]): canonical(table, row) for row in expected[table]}
        seen = {str(row[key]): canonical(table, row) for row in actual.get(table, [])}
        for rows, name in ((expected[table], "expected"), (actual.get(table, []), "actual")):
            if len({str(row[key]) for row in rows}) != len(rows):
                found.append(f"{table}: a {key} occurs twice in the {name} rows")
        for k in sorted(wanted.keys() - seen.keys()):
            found.append(f"{label(table, wanted[k])}: missing")
        for k in sorted(seen.keys() - wanted.keys()):
            found.append(f"{label(table, seen[k])}: not expected")
        for k in sorted(wanted.keys() & seen.keys()):
            for column, value in wanted[k].items():
                if seen[k].get(column) != value:
                    found.append(
                        f"{label(table, wanted[k])}: {column} expected {value!r}, actual {seen[k].get(column)!r}"
                    )
    return found


def tolerant(base: type[Loader]) -> type[Loader]:
    """A loader that gives what Python's dates cannot hold (infinity, year 12026) as the text that Postgres shows."""

    class Tolerant(base):  # type: ignore[misc, valid-type]
        def load(self, data: Buffer) -> Any:
            try:
                return super().load(data)
            except psycopg.DataError:
                return bytes(data).decode()

    return Tolerant


def load(conn: psycopg.Connection[Any], schema: str, tables: Iterable[str]) -> Tables:
    """The rows of some tables: times in UTC, `infinity` as text, JSON numbers exact."""
    rows: Tables = {}
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.adapters.register_loader("timestamp", tolerant(TimestampLoader))
        cursor.adapters.register_loader("timestamptz", tolerant(TimestamptzLoader))
        cursor.adapters.register_loader("date", tolerant(DateLoader))
        set_json_loads(lambda data: json.loads(data, parse_float=Decimal), context=cursor)
        zone = conn.info.parameter_status("TimeZone")
        cursor.execute("select set_config('TimeZone', 'UTC', false)")
        try:
            for table in tables:
                cursor.execute(sql.SQL("select * from {}").format(sql.Identifier(schema, table)))
                rows[table] = cursor.fetchall()
        finally:
            if not conn.closed and conn.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                cursor.execute("select set_config('TimeZone', %s, false)", [zone])
    return rows
