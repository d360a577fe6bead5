"""Rollback is exact: each batch where it is the last one in, after an interrupted run too, and all in reverse.

Compared are fingerprints on fresh connections, of the whole ops database but for dbt's working tables: every run makes
them again, and each rollback of C, D and E drops them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import pytest

from bridge import gates, postgres, recon, rollback, runlog, scripts, sources, steps
from bridge.batches import BACKFILL, BATCHES
from bridge.errors import CouldNotRun, GateFailed
from bridge.fingerprint import Fingerprint, difference, take
from bridge.settings import settings
from tests.pipeline import Pipeline, fresh

AS_OF = date(2026, 2, 19)


def fingerprint(pipeline: Pipeline, *, landed: bool = True) -> Fingerprint:
    with postgres.connect(pipeline.databases.ops) as conn:
        schemas = conn.execute(
            "select nspname::text from pg_catalog.pg_namespace where nspname !~ '^pg_'"
            " and nspname not in ('information_schema', 'dbt_intermediate')"
        ).fetchall()
        conn.rollback()
        return take(conn, schemas=[name for (name,) in schemas if landed or not name.startswith("landing_")])


def inexact(pipeline: Pipeline, before: Fingerprint) -> list[str]:
    """What a rollback left otherwise than it was; working tables with rows of the batch would be such a thing too."""
    left = pipeline.rows("select tablename from pg_catalog.pg_tables where schemaname = 'dbt_intermediate'")
    return difference(before, fingerprint(pipeline)) + [f"still there: {name}" for (name,) in left]


def as_run(pipeline: Pipeline) -> steps.Run:
    return steps.Run(run_id=runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF)


def roll_back(pipeline: Pipeline, code: str) -> None:
    rollback.roll_back(as_run(pipeline), BATCHES[code])


def roll_back_with_a_script_that_does_nothing(pipeline: Pipeline, code: str, folder: Path) -> None:
    """Planted: all goes well, and the log says ROLLED_BACK; then the batch counts as in again."""
    script = folder / scripts.rollback_script(code)
    script.parent.mkdir()
    script.write_text("begin;\nset local search_path = '';\ncommit;\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scripts, "FOLDER", folder)
        roll_back(pipeline, code)
    with postgres.connect(pipeline.databases.ops) as conn:
        conn.execute(
            "update phase2.batch_state set status = 'PASS' where batch = %s and status = 'ROLLED_BACK'", (code,)
        )


def run(pipeline: Pipeline, code: str) -> Fingerprint:
    pipeline.run(code, code, AS_OF)
    return fingerprint(pipeline)


def interrupt(pipeline: Pipeline, code: str) -> None:
    """Begin the batch and break it off half-way: between two scripts, or by ending dbt's sessions as it writes."""
    batch, one = BATCHES[code], as_run(pipeline)
    steps.start(one, batch)
    if code in "AB":
        for step in (*batch.prechecks, *batch.steps[:2]):
            steps.execute(one, batch, step)
        return
    for step in batch.prechecks:
        steps.execute(one, batch, step)
    (step,) = batch.steps
    with ended_as_it_writes(pipeline, one), pytest.raises(CouldNotRun):
        steps.execute(one, batch, step)


@contextmanager
def ended_as_it_writes(pipeline: Pipeline, one: steps.Run) -> Iterator[None]:
    """From the first model on that has written rows, each session of dbt is ended."""
    done = threading.Event()

    def watch() -> None:
        with postgres.connect(pipeline.databases.ops, autocommit=True) as conn:
            while not done.is_set():
                conn.execute(
                    "select pg_terminate_backend(a.pid) from pg_catalog.pg_stat_activity as a"
                    " where a.datname = current_database() and a.application_name like 'phase2-dbt%%'"
                    " and exists (select 1 from phase2.model_changes as m where m.run_id = %s and m.inserted > 0)",
                    (one.run_id,),
                )
                time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


@dataclass
class Cycle:
    """What one batch went through; each entry is a difference, empty when there is none."""

    ran: list[str] = field(default_factory=list)
    rolled_back: list[str] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)
    rolled_back_after_that: list[str] = field(default_factory=list)
    forward_again: list[str] = field(default_factory=list)
    nothing_done: list[str] = field(default_factory=list)
    in_reverse: list[str] = field(default_factory=list)


def change_sources(pipeline: Pipeline, first: int) -> None:
    """Of five bookings, the others' is mended: some reviews lose their cause, others get one. And statuses change."""
    with postgres.connect(pipeline.databases.bstadmin) as conn:
        conn.execute("update public.bookings set currency = 'USD' where currency = '??'")
        broken = conn.execute(
            "update public.bookings set currency = '??' where booking_id in (select booking_id from public.bookings"
            " where source = 'GYG' and currency = 'USD' order by booking_id offset %s limit 5)",
            (first,),
        )
        assert broken.rowcount == 5
        conn.execute(
            "update public.bookings set"
            " status = (case status when 'CANCELLED' then 'READY' else 'CANCELLED' end)::public.\"BookingStatus\""
            " where booking_id %% 3 = %s",
            (first % 3,),
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Sample sources with something to review, and a capture export; gates may fail: rollback is for that too."""
    captures = tmp_path_factory.mktemp("audit") / "captures.csv"
    captures.write_text("capture_id,amount,currency,status,captured_at\nX,1,USD,COMPLETED,2026-01-01\n")
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline, pytest.MonkeyPatch.context() as patch:
        sources.create(pipeline.databases.balisnap, pipeline.databases.bstadmin, bookings=150, seed=7, as_of=AS_OF)
        change_sources(pipeline, 0)
        patch.setenv("PHASE2_AUDIT_FILE", str(captures))
        settings.cache_clear()
        yield pipeline
    settings.cache_clear()


@pytest.fixture(scope="module")
def cycles(shop: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cycle]:
    """A to E, each: run, rolled back, interrupted, rolled back, run again; then all rolled back in reverse."""
    found: dict[str, Cycle] = {}
    before: dict[str, Fingerprint] = {}
    for code in BACKFILL:
        cycle = found[code] = Cycle()
        before[code] = fingerprint(shop)
        first = run(shop, code)
        cycle.ran = difference(before[code], first)
        roll_back_with_a_script_that_does_nothing(shop, code, tmp_path_factory.mktemp(code))
        cycle.nothing_done = difference(before[code], fingerprint(shop))
        roll_back(shop, code)
        cycle.rolled_back = inexact(shop, before[code])
        interrupt(shop, code)
        cycle.interrupted = difference(before[code], fingerprint(shop))
        roll_back(shop, code)
        cycle.rolled_back_after_that = inexact(shop, before[code])
        cycle.forward_again = difference(first, run(shop, code))
    for code in reversed(BACKFILL):
        roll_back(shop, code)
        found[code].in_reverse = inexact(shop, before[code])
    return found


@pytest.mark.parametrize("code", BACKFILL)
def test_rollback_of_the_last_batch_is_exact(cycles: dict[str, Cycle], code: str) -> None:
    assert cycles[code].ran, "the batch changed nothing: the comparison would prove nothing"
    assert cycles[code].rolled_back == []


@pytest.mark.parametrize("code", BACKFILL)
def test_a_rollback_that_does_nothing_is_found(cycles: dict[str, Cycle], code: str) -> None:
    assert cycles[code].nothing_done == cycles[code].ran != []


@pytest.mark.parametrize("code", BACKFILL)
def test_rollback_after_an_interrupted_run_is_exact(cycles: dict[str, Cycle], code: str) -> None:
    assert cycles[code].interrupted, "nothing was half done: the comparison would prove nothing"
    assert cycles[code].rolled_back_after_that == []


@pytest.mark.parametrize("code", BACKFILL)
def test_forward_again_is_as_the_first_time(cycles: dict[str, Cycle], code: str) -> None:
    assert cycles[code].forward_again == []


@pytest.mark.parametrize("code", BACKFILL)
def test_rollbacks_in_reverse_are_exact(cycles: dict[str, Cycle], code: str) -> None:
    assert cycles[code].in_reverse == []


# Batch E copies the sources anew and lists reviews of what it sees; they are otherwise batch D's ----------------------


def reviews(pipeline: Pipeline) -> dict[tuple, tuple]:
    rows = pipeline.rows(
        "select source_table, source_pk, reason_code, status, resolved_by, payload::text, resolved_at"
        " from public.unmapped_queue where queue_type = 'BOOKING_REVIEW' and source_table <> 'Payment'"
    )
    return {row[:3]: row[3:] for row in rows}


@pytest.mark.long
def test_rollback_of_e_on_a_newer_landing_leaves_the_reviews_as_d_did(shop: Pipeline, cycles: dict[str, Cycle]) -> None:
    """Also what a person has decided since stays; and after a later run of D its reviews are the ones that stay."""
    assert cycles["A"].in_reverse == []
    shop.run("A", "D", AS_OF)
    before, as_d_left = fingerprint(shop, landed=False), reviews(shop)
    shop.run("E", "E", AS_OF)
    change_sources(shop, 10)
    shop.run("E", "E", AS_OF)
    as_e_left, changed = reviews(shop), difference(before, fingerprint(shop, landed=False))
    for table in ("booking_core", "ops_booking_state"):
        assert any(line.startswith(f"rows of public.{table}: still") for line in changed), f"{table} is as it was"
    assert as_e_left.keys() - as_d_left.keys(), "no review was opened: the comparison would prove nothing"
    assert any(as_e_left[key][0] == "CLOSED" for key in as_d_left), "none was closed"
    roll_back(shop, "E")
    assert difference(before, fingerprint(shop, landed=False)) == []

    shop.run("E", "E", AS_OF)
    decided = min(as_e_left.keys() - as_d_left.keys())
    with postgres.connect(shop.databases.ops) as conn:
        conn.execute(
            "update public.unmapped_queue set status = 'RESOLVED', resolved_by = 'a person'"
            " where (source_table, source_pk, reason_code) = (%s, %s, %s)",
            decided,
        )
    shop.run("D", "D", AS_OF)
    as_d_left = reviews(shop)
    assert as_d_left[decided][:2] == ("RESOLVED", "a person")
    change_sources(shop, 20)
    shop.run("E", "E", AS_OF)
    assert reviews(shop) != as_d_left
    roll_back(shop, "E")
    assert reviews(shop) == as_d_left


def test_a_rollback_killed_after_its_script_leaves_no_door_open(monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def run_and_die(*arguments: object, **words: object) -> None:
        run_script(*arguments, **words)  # type: ignore[arg-type]
        raise Killed

    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=60, seed=7, as_of=AS_OF)
        assert [outcome.verdict.result for outcome in pipeline.run("A", "B", AS_OF)] == ["PASS", "PASS"]
        one, run_script = as_run(pipeline), scripts.run_script
        monkeypatch.setattr(scripts, "run_script", run_and_die)
        with pytest.raises(Killed):
            rollback.roll_back(one, BATCHES["B"])
        monkeypatch.undo()
        assert pipeline.rows("select count(*) from public.channel_registry") == [(0,)]
        with one.connect() as conn, pytest.raises(GateFailed):
            gates.open_or_raise(conn, "C", "B")
        assert [line.status for line in steps.status(dbs.ops)][1] == "INTERRUPTED"
        rollback.roll_back(one, BATCHES["B"])
        assert [line.status for line in steps.status(dbs.ops)][1] == "ROLLED_BACK"


@pytest.mark.long
def test_a_recon_that_waited_for_a_rollback_does_not_revive_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=60, seed=7, as_of=AS_OF)
        pipeline.run("A", "B", AS_OF)
        one = as_run(pipeline)

        @contextmanager
        def after_a_rollback(run: steps.Run) -> Iterator[None]:
            rollback.roll_back(one, BATCHES["B"])
            with only_runner(run):
                yield

        only_runner = steps.only_runner
        monkeypatch.setattr(steps, "prepare", lambda **_: one)
        monkeypatch.setattr(steps, "only_runner", after_a_rollback)
        with pytest.raises(CouldNotRun, match="ROLLED_BACK since a moment ago"):
            recon.evaluate("B")
        assert pipeline.rows("select status from phase2.batch_state where batch = 'B'") == [("ROLLED_BACK",)]
