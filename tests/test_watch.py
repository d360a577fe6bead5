"""While a step runs, nobody waits for long: the step backs off, and is run again; what it waits for itself is told."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest

from bridge import postgres, runlog, sources, steps, watch
from bridge.batches import BATCHES, Batch, Step
from bridge.errors import CouldNotRun
from bridge.settings import settings
from tests.pipeline import Pipeline, fresh
from tests.shop import AS_OF

LIMIT = 0.6
LAND = BATCHES["C"].prechecks[0]
SCRIPT = Step("script", "held.sql", "Hold a lock")


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    """Batches A and B in, a small sample in the sources."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        dbs = made.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=60, seed=3, as_of=AS_OF)
        made.run("A", "B", AS_OF, gates=False)
        yield made


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PHASE2_MAX_BLOCKING_SECONDS", str(LIMIT))
    settings.cache_clear()
    yield
    settings.cache_clear()


class Shop:
    """Another application: it says how long each of its statements took, and which failed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.waited: list[float] = []
        self.errors: list[str] = []

    def asks(self, statement: str, *, after: Callable[[], bool]) -> threading.Thread:
        """Run a statement once `after` is true, in a transaction that is taken back."""
        thread = threading.Thread(target=self._ask, args=(statement, after), daemon=True)
        thread.start()
        return thread

    def _ask(self, statement: str, after: Callable[[], bool]) -> None:
        with connected(self.url) as conn:
            soon(after)
            began = time.monotonic()
            try:
                conn.execute(statement.encode())
            except psycopg.Error as error:
                self.errors.append(str(error))
            self.waited.append(time.monotonic() - began)
            conn.rollback()


def connected(url: str) -> psycopg.Connection:
    return psycopg.connect(url, application_name="web shop")


def soon(question: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not question():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


@contextmanager
def held(url: str, statement: str) -> Iterator[psycopg.Connection]:
    """Something of an application's that stays open until the block ends, or its connection is closed."""
    with connected(url) as conn:
        conn.execute(statement.encode())
        yield conn
        conn.rollback()


def let_go(holder: psycopg.Connection, when: Callable[[], bool]) -> threading.Thread:
    """End the transaction of `holder` when it is time, or after 20 seconds."""

    def wait() -> None:
        with suppress(AssertionError):  # the test sees by itself that it did not come
            soon(when)
        holder.rollback()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def waits_in(url: str, application: str) -> bool:
    with connected(url) as conn:
        return conn.execute(
            "select exists (select 1 from pg_locks as l join pg_stat_activity as a on a.pid = l.pid"
            " where not l.granted and a.application_name = %s and a.datname = current_database())",
            (application,),
        ).fetchone() == (True,)


def executed(pipeline: Pipeline, step: Step, said: list[str], batch: Batch = BATCHES["C"]) -> runlog.Entry:
    run = steps.Run(run_id=runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF, progress=said.append)
    return steps.execute(run, batch, step)


def holding(
    monkeypatch: pytest.MonkeyPatch, pipeline: Pipeline, work: Callable[[psycopg.Connection, int], None]
) -> Any:
    """In the place of a script: a transaction of ours that locks a table; `work` gets it with the attempt's number."""
    attempts: list[int] = []

    def script(*_: Any) -> None:
        attempts.append(len(attempts))
        with postgres.connect(pipeline.databases.ops, application_name="phase2-script") as conn:
            conn.execute("lock table public.booking_core in access exclusive mode")
            work(conn, attempts[-1])

    monkeypatch.setitem(steps._KINDS, "script", script)
    return attempts


def locked(pipeline: Pipeline) -> Callable[[], bool]:
    question = (
        "select exists (select 1 from pg_locks where mode = 'AccessExclusiveLock' and granted"
        " and relation = 'public.booking_core'::regclass)"
    )
    return lambda: pipeline.rows(question) == [(True,)]


def at_work(conn: psycopg.Connection, attempt: int) -> None:
    conn.execute("select pg_sleep(10)" if attempt == 0 else "select 1")


def idle(conn: psycopg.Connection, attempt: int) -> None:
    """As a session that waits for another one, in the middle of its transaction."""
    for _ in range(100 if attempt == 0 else 0):
        time.sleep(0.1)
        if select.select([conn.pgconn.socket], [], [], 0)[0]:  # the server says something though nothing was asked
            raise CouldNotRun("the connection was lost")


@pytest.mark.parametrize("work", [at_work, idle])
def test_a_step_that_keeps_an_application_waiting_backs_off_and_is_run_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, work: Callable[[psycopg.Connection, int], None]
) -> None:
    attempts = holding(monkeypatch, pipeline, work)
    shop, said = Shop(pipeline.databases.ops), list[str]()
    asked = shop.asks("select count(*) from public.booking_core", after=locked(pipeline))
    entry = executed(pipeline, SCRIPT, said)
    asked.join()
    assert attempts == [0, 1]
    assert shop.errors == []
    # a session that is idle has nothing to cancel: it is ended a second later
    assert 0.3 < shop.waited[0] < (LIMIT if work is at_work else LIMIT + 1.5)
    (reason,) = entry.detail["backed_off"]
    assert "(web shop) waited" in reason
    assert "public.booking_core in ops (AccessShareLock)" in reason
    assert any(line.startswith("backing off: ") for line in said)
    logged = pipeline.rows(
        "select status, detail -> 'backed_off' from phase2.step_log order by step_log_id desc limit 1"
    )
    assert logged == [("SUCCEEDED", [reason])]


def test_a_step_that_nobody_waits_for_is_left_alone(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = holding(monkeypatch, pipeline, lambda conn, _: conn.execute("select pg_sleep(1.5)") and None)
    said: list[str] = []
    assert executed(pipeline, SCRIPT, said).detail == {}
    assert attempts == [0]
    assert said == ["C  Hold a lock"]


def test_who_looks_into_our_working_tables_waits(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(conn: psycopg.Connection, _: int) -> None:
        conn.execute("lock table landing_bstadmin.bookings in access exclusive mode")
        asked.start()
        conn.execute("select pg_sleep(1.5)")

    shop = Shop(pipeline.databases.ops)
    statement = "select count(*) from landing_bstadmin.bookings"
    asked = threading.Thread(target=shop._ask, args=(statement, lambda: True))
    attempts = holding(monkeypatch, pipeline, work)
    assert executed(pipeline, SCRIPT, []).detail == {}
    asked.join()
    assert attempts == [0]
    assert shop.waited[0] > LIMIT


def test_tries_are_bounded_and_then_it_says_who_waited(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "pauses", lambda: (0.1, 0.1))
    attempts = holding(monkeypatch, pipeline, lambda conn, _: conn.execute("select pg_sleep(10)") and None)
    shop, over = Shop(pipeline.databases.ops), threading.Event()

    def again_and_again() -> None:
        while not over.is_set():
            shop._ask("insert into public.booking_core default values", after=lambda: True)

    asking = threading.Thread(target=again_and_again)
    asking.start()
    try:
        with pytest.raises(CouldNotRun, match="others had to wait for us, each of 3 times") as raised:
            executed(pipeline, SCRIPT, [])
    finally:
        over.set()
        asking.join()
    assert attempts == [0, 1, 2]
    assert "(web shop) waited" in raised.value.what
    assert raised.value.where == "batch C, script held"
    [(status, detail)] = pipeline.rows("select status, detail from phase2.step_log order by step_log_id desc limit 1")
    assert status == "FAILED"
    assert len(detail["backed_off"]) == 3
    assert max(shop.waited) < LIMIT


def test_a_source_whose_tables_are_copied_can_still_be_altered(pipeline: Pipeline) -> None:
    """A landing holds what it has read until its end: an application's own migration, and all behind it, would wait."""
    source = pipeline.databases.bstadmin
    shop, said = Shop(source), list[str]()
    with ExitStack() as stack:
        last = stack.enter_context(held(source, "lock table public.booking_finance_items in access exclusive mode"))
        copied = any_line(said, "landed bstadmin.tours")
        altering = shop.asks("alter table public.tours add column note text", after=copied)
        reading = shop.asks("select count(*) from public.tours", after=lambda: copied() and altering.is_alive())
        release = let_go(last, any_line(said, "C  again"))
        entry = executed(pipeline, LAND, said)
        for thread in (altering, reading, release):
            thread.join()
    assert shop.errors == []
    assert len(shop.waited) == 2
    assert max(shop.waited) < LIMIT
    assert "public.tours in bstadmin (AccessExclusiveLock)" in entry.detail["backed_off"][0]
    assert pipeline.rows("select count(*) > 0 from landing_bstadmin.bookings") == [(True,)]


def any_line(said: list[str], start: str) -> Callable[[], bool]:
    return lambda: any(line.startswith(start) for line in list(said))


def test_dbt_backs_off_too(pipeline: Pipeline) -> None:
    """dbt waits behind one application's lock, and another one waits behind dbt."""
    ops = pipeline.databases.ops
    executed(pipeline, LAND, [])
    shop, said = Shop(ops), list[str]()
    with ExitStack() as stack:
        first = stack.enter_context(held(ops, "lock table public.catalog_variant in share mode"))
        behind = shop.asks("lock table public.catalog_variant in share mode", after=lambda: waits_in(ops, "phase2-dbt"))
        release = let_go(first, any_line(said, "C  again"))
        entry = executed(pipeline, BATCHES["C"].steps[0], said)
        behind.join()
        release.join()
    assert shop.errors == []
    assert shop.waited[0] < LIMIT
    assert "public.catalog_variant in ops (ShareLock)" in entry.detail["backed_off"][0]
    assert pipeline.rows("select count(*) > 0 from public.catalog_variant") == [(True,)]


def test_what_we_wait_for_and_old_transactions_are_told(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "OLD_TRANSACTION_SECONDS", 0.2)
    attempts = holding(monkeypatch, pipeline, lambda *_: None)
    said: list[str] = []
    with held(pipeline.databases.ops, "select 'guest@example.com'") as other:
        other.execute("lock table public.booking_core in access share mode")
        release = let_go(other, any_line(said, "waiting for "))
        entry = executed(pipeline, SCRIPT, said)
        release.join()
    assert attempts == [0]
    assert entry.detail == {}
    (waiting,) = [line for line in said if line.startswith("waiting for ")]
    assert waiting.startswith("waiting for public.booking_core in ops (AccessExclusiveLock), held by ")
    assert waiting.endswith(" (web shop)")
    (old,) = [line for line in said if "a transaction of" in line]
    assert "(web shop) in ops is open for" in old
    assert not any("guest" in line for line in said), "a statement's text"


def test_a_lost_watch_is_told_and_ends_no_step(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill_the_watch(conn: psycopg.Connection, _: int) -> None:
        for _ in range(10):
            time.sleep(0.1)
            with connected(pipeline.databases.ops) as other, suppress(psycopg.Error):
                other.execute(
                    "select pg_terminate_backend(a.pid) from pg_stat_activity as a"
                    " where a.application_name = 'phase2-watch' and a.datname = current_database()"
                )

    attempts = holding(monkeypatch, pipeline, kill_the_watch)
    said: list[str] = []
    executed(pipeline, SCRIPT, said)
    assert attempts == [0]
    assert len([line for line in said if line.startswith("locks in ops are not watched: ")]) == 1
