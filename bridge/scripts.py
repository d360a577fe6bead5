"""Runs the numbered scripts of `sql/phase2` and their rollbacks, and says what came of it.

A script is one transaction with its own `begin` and `commit`, plain SQL that psql can run as well. Nobody but the
runner's lock keeps two of them apart; each waits at most its `lock_timeout` for a table.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bridge import postgres
from bridge.errors import CouldNotRun
from bridge.settings import SQL

FOLDER = SQL / "phase2"

# What a rollback empties or drops, in public; for the plan that is shown before it runs.
_ROLLBACK_TABLES: dict[str, tuple[str, ...]] = {
    "A": (
        "channel_registry",
        "channel_external_refs",
        "catalog_product",
        "catalog_variant",
        "catalog_variant_rate",
        "booking_core",
        "booking_contact",
        "booking_party",
        "booking_item_snapshot",
        "payment_event",
        "ops_booking_state",
        "ops_assignment",
        "ops_finance_bridge",
        "ingest_event_log",
        "ingest_dead_letter",
        "unmapped_queue",
        "migration_run_log",
    ),
    "B": (
        "channel_registry",
        "ref_mapping_status",
        "ref_ingest_status",
        "ref_replay_status",
        "ref_dead_letter_status",
        "ref_unmapped_queue_status",
        "ref_package_ref_type",
    ),
    "C": ("catalog_variant_rate", "catalog_variant", "catalog_product", "channel_external_refs", "unmapped_queue"),
    "D": (
        "booking_core",
        "booking_contact",
        "booking_party",
        "booking_item_snapshot",
        "ops_booking_state",
        "ops_assignment",
        "channel_external_refs",
        "unmapped_queue",
    ),
    "E": ("payment_event", "ops_finance_bridge", "unmapped_queue"),
    "F": (),  # flags alone: every event stays
    "G": (),  # a flag, views and indexes
    "H": (),  # a flag alone: every write stays
}


@dataclass(frozen=True)
class ScriptResult:
    """What a script did. `rows` counts the rows it wrote or removed; `results` is its last result set."""

    name: str
    checksum: str
    rows: int
    seconds: float
    columns: tuple[str, ...]
    results: tuple[tuple[object, ...], ...]


def checksum(*files: Path) -> str:
    """SHA-256 of the files' bytes, one after the other: of one file what `sha256sum` says."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def rollback_script(code: str) -> str:
    """The rollback of a batch, as a name for `run_script`."""
    return f"rollback/{code}.sql"


def rollback_tables(code: str) -> tuple[str, ...]:
    """The tables in public that the rollback of a batch empties (of shared ones: its own rows) or drops."""
    return _ROLLBACK_TABLES[code]


def run_script(
    url: str,
    name: str,
    params: Mapping[str, object] | None = None,
    *,
    first: Callable[[psycopg.Connection], None] | None = None,
) -> ScriptResult:
    """Run one script; `params` are settings of its session (`phase2.disk_total_bytes`), read by `current_setting`.

    `first` is done in the script's transaction, before it. Raises what that raises, and CouldNotRun when Postgres
    refuses; nothing of either is then left behind.
    """
    path = FOLDER / name
    if not path.is_file():
        raise CouldNotRun(f"there is no script {name}", where=str(FOLDER), todo="Check the plan in bridge/batches.py.")
    began = time.monotonic()
    with postgres.connect(url, application_name="phase2-script", autocommit=True) as conn:
        for setting, value in (params or {}).items():
            conn.execute("select set_config(%s, %s, false)", (setting, str(value)))
        try:
            if first:  # of the script's own `begin` Postgres only warns then; its `commit` is that of both
                conn.execute("begin")
                first(conn)
            cursor = conn.execute(path.read_bytes())
        except psycopg.Error as error:
            raise CouldNotRun(
                f"{name} failed: {error.diag.message_primary or type(error).__name__}",
                where=postgres.describe(url),
                todo=_todo(error),
            ) from None
        columns, results, rows = _collect(cursor)
    return ScriptResult(name, checksum(path), rows, time.monotonic() - began, columns, results)


def run_retention(url: str, *, rows_each: int = 1000) -> dict[str, int]:
    """091 until it removes nothing more; rows removed by rule. Each round is a transaction of its own."""
    removed: dict[str, int] = {}
    while True:
        result = run_script(url, "091_retention_cleanup.sql", {"phase2.retention_rows": rows_each})
        for rule, _, rows in result.results:
            removed[str(rule)] = removed.get(str(rule), 0) + int(str(rows))
        if not result.rows:
            return removed


def _collect(cursor: psycopg.Cursor) -> tuple[tuple[str, ...], tuple[tuple[object, ...], ...], int]:
    """The last result set, and the rows written: its column `rows` where it counts itself, else by statement."""
    columns: tuple[str, ...] = ()
    results: tuple[tuple[object, ...], ...] = ()
    written = 0
    while True:
        if cursor.description:
            columns = tuple(column.name for column in cursor.description)
            results = tuple(cursor.fetchall())
        elif (cursor.statusmessage or "").split(" ")[0] in ("INSERT", "UPDATE", "DELETE", "MERGE"):
            written += cursor.rowcount
        if not cursor.nextset():
            break
    if "rows" in columns:
        position = columns.index("rows")
        written = sum(int(str(row[position])) for row in results)
    return columns, results, written


def _todo(error: psycopg.Error) -> str:
    state = error.sqlstate or ""
    if state == "55P03":
        return "A table was locked for longer than the script waits: see pg_locks, and run it again."
    if state in ("42501", "42P01", "3F000"):
        return "Check the user's rights on schema public, and that the batches before this one ran."
    if state == "2BP01":
        return "Something that is not ours depends on the table: have its owner drop it, then run it again."
    return "Nothing was changed: correct the cause and run it again."
