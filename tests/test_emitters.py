"""Emitters with real sources and the real service: nothing lost, nothing changed that did not change, nothing told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from bridge import emitters, fingerprint, flags, postgres, sources
from bridge.core_settings import core_settings
from bridge.flags import Flag, Rollout
from tests import serving
from tests.pipeline import Pipeline, fresh
from tests.test_apply_equals_backfill import today

Ops = psycopg.Connection[Any]
TABLES = ("booking_core", "booking_contact", "booking_party", "booking_item_snapshot", "ops_booking_state",
          "ops_assignment", "payment_event", "ops_finance_bridge")  # fmt: skip
MAIL: Flag = "EMAIL_PIPELINE_CORE_ENABLED"
WEB: Flag = "WEB_EMIT_BOOKING_EVENT_ENABLED"


@pytest.fixture(scope="module")
def shop() -> Iterator[Pipeline]:
    """Sample sources, backfilled by A to E, and the core API in front."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as made, serving.environment():
        sources.create(made.databases.balisnap, made.databases.bstadmin, bookings=120, seed=7, as_of=today())
        made.run("A", "E", today(), gates=False)
        with serving.service(made.databases.ops) as url:
            os.environ["CORE_API_URL"] = url
            core_settings.cache_clear()
            try:
                yield made
            finally:
                del os.environ["CORE_API_URL"]


@pytest.fixture
def ops(shop: Pipeline) -> Iterator[Ops]:
    with postgres.connect(shop.databases.ops, autocommit=True) as conn:
        yield conn


def switch(ops: Ops, flag: Flag, **rollout: Any) -> None:
    flags.change(ops, flag, True, reason="test", rollout=Rollout(**rollout), actor="test")


def from_the_beginning(ops: Ops, name: str) -> None:
    ops.execute(
        "insert into phase2.watermarks (name, at) values (%s, '2000-01-01')"
        " on conflict (name) do update set at = excluded.at, detail = excluded.detail",
        (f"emit_{name}",),
    )


def drain(ops: Ops) -> None:
    """Apply what was accepted, in its order, as the worker does."""
    ops.execute(
        "select phase2.apply_event(e.event_key) from public.ingest_event_log as e"
        " where e.process_status = 'RECEIVED' order by e.created_at, e.event_key"
    )
    assert ops.execute("select count(*) from public.ingest_event_log where process_status <> 'DONE'").fetchone() == (0,)


def content(url: str) -> fingerprint.Fingerprint:
    with postgres.connect(url, autocommit=True) as conn:
        return fingerprint.take(conn, schemas=["public"])


def bookings(ops: Ops) -> dict[tuple[Any, str], Any]:
    """All that the bridge holds of its bookings: (key, field) -> value; not when rows were written."""
    found: dict[tuple[Any, str], Any] = {}
    for table in TABLES:
        for key, row in ops.execute(
            postgres.statement("select t.booking_key, to_jsonb(t) - array['created_at', 'updated_at'] from {}.{} as t",
                               "public", table)
        ).fetchall():  # fmt: skip
            part = row.get("booking_item_key") or row.get("assignment_key") or ""
            found |= {(key, f"{table}.{part}.{field}"): value for field, value in row.items()}
    return found


def is_open(before: dict[tuple[Any, str], Any], field: tuple[Any, str]) -> bool:
    """Whether the backfill knew no value: an event of any age fills nulls, and a placeholder counts as one."""
    key, name = field
    what = name.removeprefix("booking_contact..").removeprefix("is_placeholder_").removeprefix("main_")
    return before[field] is None or before.get((key, f"booking_contact..is_placeholder_{what}")) is True


@pytest.mark.parametrize(
    ("flag", "name", "emit", "least"), [(WEB, "web", emitters.emit_web, 35), (MAIL, "mail", emitters.emit_mail, 60)]
)
def test_everything_emitted_over_a_backfill_changes_nothing(
    shop: Pipeline, ops: Ops, flag: Flag, name: str, emit: Callable[..., emitters.Emitted], least: int
) -> None:
    """But for what the sources have no value of: a mail has tour times and names that bstadmin's row does not."""
    switch(ops, flag)
    first = emit(shop.databases)
    assert (first.enabled, first.new) == (True, 0), "what batch D has read needs no event"
    untouched = (content(shop.databases.balisnap), content(shop.databases.bstadmin))
    before = bookings(ops)
    from_the_beginning(ops, name)
    done = emit(shop.databases)
    assert done.new == done.read > least
    drain(ops)
    after = bookings(ops)
    assert {field for field in after if before.get(field) != after[field] and not is_open(before, field)} == set()
    assert before.keys() == after.keys()
    assert (content(shop.databases.balisnap), content(shop.databases.bstadmin)) == untouched
    again = emit(shop.databases)
    assert (again.new, again.known) == (0, again.read)
