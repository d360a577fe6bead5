"""The whole run, batches A to E, over rows in memory."""

from datetime import date
from typing import Any

from tests.oracle import bookings, catalog
from tests.oracle.bookings import Freshness
from tests.oracle.unmapped import Queue, life_cycle

Tables = dict[str, list[dict[str, Any]]]


def merge_refs(computed: list[dict[str, Any]], before: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mapping 2: refs that the sources no longer carry go; an existing row with the same value keeps its key."""

    def value(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(row[c] for c in ("entity_type", "channel_code", "external_ref_kind", "external_ref"))

    held = {value(row): row for row in before}
    written = {value(row) for row in computed}
    rows = [
        {**row, "external_ref_key": held[value(row)]["external_ref_key"]} if value(row) in held else row
        for row in computed
    ]
    others = [
        dict(row)
        for row in before
        if value(row) not in written and row["source_system"] not in ("balisnap", "bstadmin")
    ]
    return rows + others


def bridge(
    balisnap: Tables,
    bstadmin: Tables,
    as_of: date,
    before: Tables | None = None,
    freshness: Freshness | None = None,
) -> Tables:
    """The rows that the canonical tables must hold after batches A to E.

    `before` holds the canonical tables before the run (for a first run: none); it may also hold `ingest_event_log`.
    `freshness` gives by booking key the largest event time applied and the time of the last core write (mapping 4.13).
    Columns `created_at`, `updated_at` and `last_reconciled_at` are not computed.
    """
    before, queue = before or {}, Queue()
    made = catalog.build(balisnap, bstadmin, before, queue)
    booked = bookings.build(balisnap, bstadmin, made, as_of, before, freshness or {}, queue)
    refs = made.tables.pop("channel_external_refs") + booked.pop("channel_external_refs")
    return {
        **made.tables,
        **booked,
        "channel_external_refs": merge_refs(refs, before.get("channel_external_refs", [])),
        "unmapped_queue": life_cycle(queue.causes, before.get("unmapped_queue", [])),
    }
