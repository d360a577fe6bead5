"""Emitters with real sources and the real service: nothing lost, nothing changed that did not change, nothing told."""

from __future__ import annotations

import os
from collections.abc import Iterator
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


def changed(before: fingerprint.Fingerprint, after: fingerprint.Fingerprint) -> set[str]:
    """Canonical tables whose rows differ; the event log is not one."""
    names = {name for name in before.content | after.content if before.content.get(name) != after.content.get(name)}
    return names - {"public.ingest_event_log", "public.ingest_dead_letter"}


def test_everything_emitted_over_a_backfill_changes_nothing(shop: Pipeline, ops: Ops) -> None:
    switch(ops, WEB)
    first = emitters.emit_web(shop.databases)
    assert (first.enabled, first.read) == (True, 0), "what batch D has read needs no event"
    sources_before = (content(shop.databases.balisnap), content(shop.databases.bstadmin))
    before = content(shop.databases.ops)
    from_the_beginning(ops, "web")
    done = emitters.emit_web(shop.databases)
    assert done.new == done.sent == done.read > 35
    drain(ops)
    assert changed(before, content(shop.databases.ops)) == set()
    assert (content(shop.databases.balisnap), content(shop.databases.bstadmin)) == sources_before
    again = emitters.emit_web(shop.databases)
    assert (again.new, again.known) == (0, again.read)
