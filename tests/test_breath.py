"""A run pauses while the server suffers, for each reason there is; it says why, goes on by itself, and gives up."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from uuid import uuid4

import psycopg
import pytest

from bridge import breath, postgres, runlog, steps, stop, warehouse
from bridge.batches import BATCHES, Step
from bridge.errors import CouldNotRun, Stopped
from bridge.settings import settings
from tests.pipeline import Pipeline, fresh
from tests.shop import AS_OF


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    """Batch A in; the sources are not asked."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        with postgres.connect(made.databases.ops, autocommit=True) as conn:
            conn.execute("create table public.crowded (id integer, note text)")
        yield made


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets limits by their names, without PHASE2_MAX_; those that a test does not name are out of reach."""
    monkeypatch.setattr(breath, "LOOK_EVERY", 0.1)
    monkeypatch.setattr(breath, "_STANDS_FOR", 0.0)

    def are(**said: float) -> None:
        far = dict.fromkeys(
            ("active_sessions", "lock_waits", "replica_seconds", "wal_mb_per_second", "dead_rows"), 10**9
        )
        for name, value in {**far, "pause_seconds": 60, **said}.items():
            monkeypatch.setenv(f"PHASE2_MAX_{name.upper()}", str(value))
        settings.cache_clear()

    are()
    yield are
    settings.cache_clear()


def breathing(pipeline: Pipeline, said: list[str]) -> breath.Breath:
    return breath.Breath(pipeline.databases.ops, uuid4(), "D", "dbt batch_d", said.append)


def paused_until(taken: breath.Breath, said: list[str], mend: Callable[[], object]) -> str:
    """Takes a breath in which it has to pause, then mends the cause and sees that it goes on; what it said."""
    thread = threading.Thread(target=taken.take)
    thread.start()
    deadline = time.monotonic() + 20
    while not said:
        assert time.monotonic() < deadline, "it did not pause"
        time.sleep(0.02)
    time.sleep(0.3)
    assert thread.is_alive(), "the cause is still there"
    with postgres.connect(taken.ops_url) as conn:
        assert breath.under_way(conn, taken.run_id) is not None
    mend()
    thread.join(20)
    assert not thread.is_alive(), "it goes on once the cause is gone"
    assert said[0].startswith("D  pausing: ")
    assert said[-1].startswith("D  goes on after ")
    with postgres.connect(taken.ops_url) as conn:
        assert breath.under_way(conn, taken.run_id) is None
        kept = conn.execute(
            "select reason from phase2.pauses where run_id = %s and ended_at > began_at", (taken.run_id,)
        ).fetchall()
    reason = said[0].removeprefix("D  pausing: ")
    assert kept == [(reason,)]
    assert taken.pauses[0].endswith(reason)
    taken.close()
    return reason


def session(url: str) -> psycopg.Connection:
    return psycopg.connect(url, application_name="web shop", autocommit=True)


def in_thread(conn: psycopg.Connection, statement: str) -> threading.Thread:
    def ask() -> None:
        try:
            conn.execute(statement.encode())
        except psycopg.errors.QueryCanceled:
            return

    thread = threading.Thread(target=ask)
    thread.start()
    return thread


def test_a_quiet_server_is_not_waited_for(server: str) -> None:
    """On each version of PostgreSQL that there is, with the limits as they come."""
    said: list[str] = []
    taken = breath.Breath(server, uuid4(), "D", "dbt batch_d", said.append)
    taken.take()
    taken.close()
    assert said == []
    assert taken.pauses == []


def test_sessions_at_work(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    said: list[str] = []
    with ExitStack() as stack:
        others = [stack.enter_context(session(pipeline.databases.ops)) for _ in range(8)]
        limits(active_sessions=7)
        working = [in_thread(conn, "select pg_sleep(30)") for conn in others]
        time.sleep(0.2)

        def end() -> None:
            limits(active_sessions=10**9)  # other workers' sessions are there too
            for conn in others:
                conn.cancel_safe()

        reason = paused_until(breathing(pipeline, said), said, end)
        for thread in working:
            thread.join()
    assert "sessions of others are at work (limit 7)" in reason


def test_lock_waits(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    said: list[str] = []
    limits(lock_waits=0)
    with session(pipeline.databases.ops) as holder, session(pipeline.databases.ops) as waiter:
        holder.execute("begin; lock table public.crowded")
        waiting = in_thread(waiter, "begin; lock table public.crowded; rollback")
        time.sleep(0.3)
        taken = breathing(pipeline, said)
        taken.take()
        assert said == [], "less than a second is no wait"
        time.sleep(1.0)
        reason = paused_until(taken, said, lambda: holder.execute("rollback"))
        waiting.join()
    assert reason == "1 sessions of others wait for a lock (limit 0)"


def test_wal(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    """The pause brings the rate down by itself, however the rest of the server is at work."""
    said: list[str] = []
    taken = breathing(pipeline, said)
    taken.take()
    with session(pipeline.databases.ops) as conn:
        conn.execute("select pg_logical_emit_message(false, 'test', repeat('x', 60000000))")
    limits(wal_mb_per_second=40)
    reason = paused_until(taken, said, lambda: None)
    assert "MB of WAL a second (limit 40)" in reason


def test_autovacuum(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    said: list[str] = []
    limits(dead_rows=100)
    with session(pipeline.databases.ops) as conn:
        conn.execute("insert into public.crowded select n, 'a' from generate_series(1, 200) as n")
        conn.execute("analyze public.crowded")
        for _ in range(5):
            conn.execute("update public.crowded set note = note || 'b'")
        conn.execute("select pg_stat_force_next_flush()")
        conn.execute("select 1")
        reason = paused_until(breathing(pipeline, said), said, lambda: conn.execute("vacuum public.crowded"))
    assert reason.startswith("autovacuum is behind: crowded has ")
    assert reason.endswith(" dead rows (limit 100)")


def test_replication(pipeline: Pipeline, limits: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """What pg_stat_replication would say of two replicas stands in a table."""
    said: list[str] = []
    limits(replica_seconds=5)
    monkeypatch.setattr(
        breath, "_READING", breath._READING.replace("pg_catalog.pg_stat_replication", "public.replicas")
    )
    with session(pipeline.databases.ops) as conn:
        conn.execute("create table public.replicas (replay_lag interval)")
        conn.execute("insert into public.replicas values (null), (interval '42 seconds')")
        reason = paused_until(
            breathing(pipeline, said), said, lambda: conn.execute("update public.replicas set replay_lag = null")
        )
    assert reason == "a replica is 42 s behind (limit 5)"


def test_it_gives_up_and_the_step_log_says_why(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    said: list[str] = []
    limits(active_sessions=0, pause_seconds=0.5)
    run = steps.Run(run_id=runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF, progress=said.append)
    with session(pipeline.databases.ops) as conn:
        working = in_thread(conn, "select pg_sleep(30)")
        time.sleep(0.1)
        with pytest.raises(CouldNotRun, match="has not recovered, and the step has paused for 0.5 s: [0-9]+ sessions"):
            steps.execute(run, BATCHES["A"], Step("script", "000_precheck_readiness.sql", "Look"))
        conn.cancel_safe()
        working.join()
    status, pauses = pipeline.rows(
        "select status, detail -> 'pauses' from phase2.step_log where run_id = %s", run.run_id
    )[0]
    assert status == "FAILED"
    assert len(pauses) == 1
    assert "sessions of others are at work (limit 0)" in pauses[0]


def test_somebody_who_stops_the_run_ends_the_pause(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    limits(replica_seconds=0.001, active_sessions=0)
    with session(pipeline.databases.ops) as conn, postgres.connect(pipeline.databases.ops, autocommit=True) as own:
        working = in_thread(conn, "select pg_sleep(30)")
        time.sleep(0.1)
        stop.ask(own, "enough")
        with pytest.raises(Stopped, match="enough"):
            breathing(pipeline, []).take()
        stop.lift(own, "go on")
        conn.cancel_safe()
        working.join()


def test_a_server_that_cannot_be_read_is_told_once(pipeline: Pipeline, limits: Callable[..., None]) -> None:
    said: list[str] = []
    taken = breathing(pipeline, said)
    taken.ops_url = postgres.with_database(taken.ops_url, "not_there")
    taken.take()
    taken.take()
    assert len(said) == 1
    assert said[0].startswith("how the server is cannot be seen: cannot connect")


def test_dbt_takes_breath_before_each_node_and_ends_where_there_is_none(pipeline: Pipeline) -> None:
    breaths: list[int] = []

    def breathe() -> None:
        breaths.append(1)
        if len(breaths) == 3:
            raise CouldNotRun("out of breath")

    with pytest.raises(CouldNotRun, match="out of breath"):
        warehouse.build(pipeline.databases.ops, "ground", breathe=breathe)
    assert len(breaths) == 3, "nobody asks again"
    made = pipeline.rows("select count(*) from pg_class where relnamespace = to_regnamespace('dbt_seeds')")
    assert made < [(10,)], made
