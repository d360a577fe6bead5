"""A batch whose run was killed, and run again, ends as if nothing had happened: the crash matrix of CI.

Every step of the plan dies at every kind of point. `make crash-matrix` gives each death a database of its own, on more
bookings, and kills backends so that the whole server restarts. What CI saves: neighbouring steps die one after another
before the batch is let through and compared, a backend dies in the last middle of its step only, the server stays up.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from bridge import postgres, scripts, steps
from bridge.batches import BACKFILL, BATCHES, Batch, Step
from bridge.errors import CouldNotRun
from tests.crashes import AS_OF, BEGIN, POINTS, ROLLBACK, TRAPS, VERDICT, Case, Point, Stage, cases, stage

_POINTS: tuple[Point, ...] = ("before", "middle", "backend", "after")


def _chain(case: Case) -> tuple[str, str]:
    """The deaths that follow one another: of what comes before dbt, of each build, of the gates, of the rollback."""
    part = case.step
    if not case.kind.startswith("dbt") and case.kind not in (VERDICT, ROLLBACK):
        part = "begin to dbt"
    if case.kind == "dbt gates":
        part = VERDICT
    return case.row[0], part


_CHAINS = {
    " ".join(name): tuple(deaths)
    for name, deaths in itertools.groupby(
        (case for case in cases(_POINTS) if case.point != "backend" or case.trap == TRAPS[case.kind][-1]), key=_chain
    )
}


@pytest.fixture(scope="module")
def crashes() -> Iterator[Stage]:
    with stage(bookings=100) as made:
        yield made
        assert made.sources_changed() == []


_OFTEN = ("D dbt batch_d",)  # of the others in `make test-all` alone


@pytest.mark.parametrize(
    "chain", [pytest.param(name, marks=() if name in _OFTEN else pytest.mark.long) for name in _CHAINS]
)
def test_killed_and_run_again_ends_as_if_nothing_had_happened(crashes: Stage, chain: str) -> None:
    assert crashes.undergo(*_CHAINS[chain]) == []


def test_a_dying_runners_lock_is_waited_for_and_a_living_ones_is_not_taken(crashes: Stage) -> None:
    crashes.reset("B", "run")
    said: list[str] = []

    def runner(progress: steps.Progress) -> steps.Run:
        return steps.Run(run_id=uuid4(), databases=crashes.databases, as_of=AS_OF, progress=progress)

    refused = pytest.raises(CouldNotRun, match="another run is under way: phase2-runner")
    with steps.only_runner(runner(said.append)), refused, steps.only_runner(runner(said.append)):
        pass
    assert said == ["another run holds the lock: is it ending?"]

    first = steps.only_runner(runner(said.append))
    first.__enter__()
    with steps.only_runner(runner(lambda line: first.__exit__(None, None, None))):  # it ends while we wait
        assert crashes.left_behind() != []
    assert crashes.left_behind() == []


# --- the matrix can fail -------------------------------------------------------------------------------------------


def test_every_step_of_the_plan_dies_at_every_point() -> None:
    wanted = {(batch.code, step.name) for batch in map(BATCHES.__getitem__, BACKFILL) for step in batch.plan}
    wanted |= {(batch, step) for batch in BACKFILL for step in (BEGIN, VERDICT, ROLLBACK)}
    for points, some in ((POINTS, cases()), (_POINTS, itertools.chain(*_CHAINS.values()))):
        covered = {(case.batch, case.step, case.point) for case in some}
        assert covered == {(*step, point) for step in wanted for point in points}


def test_a_new_step_is_covered_and_a_new_kind_needs_a_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    def plan_with(step: Step) -> dict[str, Batch]:
        return {**BATCHES, "B": replace(BATCHES["B"], steps=(*BATCHES["B"].steps, step))}

    monkeypatch.setattr("tests.crashes.BATCHES", plan_with(Step("script", "013_new.sql", "New")))
    assert {case.point for case in cases() if case.step == "script 013_new"} == set(POINTS)
    monkeypatch.setattr("tests.crashes.BATCHES", plan_with(Step("post", "letter", "New")))  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="post"):
        cases()


def half_committed() -> None:
    """Plants a step that commits its work in two parts, and does not find the first one again."""
    run_script = scripts.run_script

    def in_two_parts(url: str, name: str, params: Any = None, **more: Any) -> scripts.ScriptResult:
        code = uuid4().hex
        with postgres.connect(url, autocommit=True) as conn:
            conn.execute("insert into public.channel_registry (channel_code, channel_name) values (%s, 'New')", (code,))
            result = run_script(url, name, params, **more)
            conn.execute("delete from public.channel_registry where channel_code = %s", (code,))
        return result

    scripts.run_script = in_two_parts


SEED = "script 010_seed_channel_registry"


def test_a_step_that_commits_by_halves_is_found(crashes: Stage) -> None:
    deaths = {case.point: case for case in cases(("before", "middle")) if (case.batch, case.step) == ("B", SEED)}
    assert crashes.undergo(deaths["before"], sabotage=half_committed) == []  # nobody dies between its halves
    found = crashes.undergo(deaths["middle"], sabotage=half_committed)
    assert any("public.channel_registry" in line for line in found), found


def test_a_batch_that_was_not_run_again_is_found(crashes: Stage) -> None:
    case = next(case for case in cases(("before",)) if (case.batch, case.step) == ("B", SEED))
    crashes.reset("B", "run")
    found = crashes.differences(case)
    assert any("channel_registry" in line for line in found), found
    assert any(line.startswith("gate: ('B', 'B-01'") for line in found), found
    assert any(line.startswith("states: ") for line in found), found


@pytest.mark.parametrize(
    ("statement", "word"),
    [
        ("select pg_advisory_lock(1)", "advisory"),
        ("begin; lock table public.booking_core in share mode", "lock ShareLock on public.booking_core"),
        ("begin; select 1", "idle in transaction"),
        ("create temporary table forgotten (id integer)", "forgotten"),
        ("create table public.booking_core__dbt_tmp (id integer)", "booking_core__dbt_tmp"),
        ("create schema landing_bstadmin_before", "landing_bstadmin_before"),
        ("update phase2.batch_state set status = 'RUNNING' where batch = 'C'", "batch C is RUNNING"),
        (
            "insert into phase2.step_log (run_id, batch, step, kind, status, started_at)"
            " values (gen_random_uuid(), 'C', 'land sources', 'land', 'RUNNING', now())",
            "step land sources is RUNNING",
        ),
        (
            "insert into phase2.landing_runs select gen_random_uuid(), source, run_id, source_database, source_host,"
            " source_port, source_version, source_system_identifier, snapshot_at, snapshot_txid, ddl_digest, row_count,"
            " byte_count, seconds from phase2.landing_runs where source = 'balisnap' limit 1",
            "half committed",
        ),
    ],
)
def test_what_a_dead_run_might_leave_is_seen(crashes: Stage, statement: str, word: str) -> None:
    crashes.reset("D", "run")
    assert crashes.left_behind() == []
    with psycopg.connect(crashes.databases.ops, autocommit=True) as conn:
        conn.execute(statement.encode())
        assert any(word in line for line in crashes.left_behind())


def test_a_written_source_is_found(crashes: Stage) -> None:
    assert crashes.sources_changed() == []
    with postgres.connect(crashes.databases.bstadmin, autocommit=True) as conn:
        change = "update public.bookings set note = %s where booking_id = (select min(booking_id) from public.bookings)"
        before = conn.execute("select note from public.bookings order by booking_id limit 1").fetchone()
        assert before
        conn.execute(change, ("changed",))
        found = crashes.sources_changed()
        conn.execute(change, before)
    assert any("public.bookings" in line for line in found), found
