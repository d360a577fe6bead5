"""A first load in ranges ends as one at once does, whatever their size; killed, it goes on with the range it was at."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge import fingerprint, postgres, runlog, sources, steps, warehouse
from bridge.batches import BATCHES
from bridge.errors import CouldNotRun
from bridge.settings import settings
from tests.pipeline import Pipeline, fresh
from tests.shop import AS_OF

BOOKINGS = 120
_OPS = f"p2_ops{os.environ.get('PYTEST_XDIST_WORKER', '')}"
_UNTIL_C = f"{_OPS}_until_c"


@pytest.fixture(scope="module")
def until_c() -> Iterator[Pipeline]:
    """Batches A to C are in; each test goes on from there."""
    server = os.environ["TEST_PG_URL"]
    with fresh(server, empty=True) as made:
        sources.create(made.databases.balisnap, made.databases.bstadmin, bookings=BOOKINGS, seed=11, as_of=AS_OF)
        made.run("A", "C", AS_OF, gates=False)
        copy(server, _OPS, _UNTIL_C)
        yield made
        with postgres.connect(server, autocommit=True) as conn:
            conn.execute(postgres.statement("drop database {} with (force)", _UNTIL_C))


@pytest.fixture
def pipeline(until_c: Pipeline) -> Pipeline:
    """As it was when batch C had ended."""
    copy(os.environ["TEST_PG_URL"], _UNTIL_C, _OPS)
    return until_c


def copy(server: str, old: str, new: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("drop database if exists {} with (force)", new))
        conn.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (old,))
        conn.execute(postgres.statement("create database {} template {}", new, old))


def content(pipeline: Pipeline) -> fingerprint.Fingerprint:
    with postgres.connect(pipeline.databases.ops, autocommit=True) as conn:
        return fingerprint.take(conn, schemas=["public", "phase2"])


@pytest.fixture(scope="module")
def at_once(until_c: Pipeline) -> fingerprint.Fingerprint:
    """What the bridge holds when nothing is cut."""
    runs = Runs(until_c)
    runs.batch("D", "E")
    assert runs.ranges == [], "a small load is not cut"
    return content(until_c)


@pytest.fixture
def of(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Sets how many bookings the first range has; each of the others has twice as many as the one before."""

    def first(bookings: int) -> None:
        monkeypatch.setenv("PHASE2_FIRST_RANGE", str(bookings))
        settings.cache_clear()

    monkeypatch.setenv("PHASE2_RANGE_SECONDS", "3600")
    yield first
    settings.cache_clear()


class Runs:
    """Runs of single batches on a pipeline; what they said."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline
        self.said: list[str] = []

    def batch(self, *codes: str) -> None:
        self.said = []
        run = steps.Run(
            run_id=runlog.uuid7(), databases=self.pipeline.databases, as_of=AS_OF, progress=self.said.append
        )
        for code in codes:
            steps.start(run, BATCHES[code])
            for step in BATCHES[code].plan:
                if not step.target.startswith("gates_"):
                    steps.execute(run, BATCHES[code], step)

    @property
    def ranges(self) -> list[str]:
        return [line.split(" of ")[0].removeprefix("  range ") for line in self.said if line.startswith("  range ")]


def dies(monkeypatch: pytest.MonkeyPatch, ranges_done: int, nodes_done: int | None = None) -> None:
    """The run ends after so many ranges; with `nodes_done` within the next, after so many of its models."""
    build = warehouse.build
    built: list[str] = []
    left = [nodes_done or 0]

    def breathe() -> None:
        left[0] -= 1
        if left[0] < 0:
            raise CouldNotRun("killed")

    def until(ops_url: str, selector: str, **more: Any) -> list[warehouse.Node]:
        if more.get("between"):
            if len(built) == ranges_done and nodes_done is None:
                raise CouldNotRun("killed")
            if len(built) == ranges_done:
                more["breathe"] = breathe
            built.append(selector)
        return build(ops_url, selector, **more)

    monkeypatch.setattr(warehouse, "build", until)


def killed(runs: Runs, code: str, ranges_done: int, nodes_done: int | None = None) -> list[str]:
    """A run that dies so; the ranges that it came to an end with."""
    with pytest.MonkeyPatch.context() as patch:
        dies(patch, ranges_done, nodes_done)
        with pytest.raises(CouldNotRun, match="killed"):
            runs.batch(code)
    return runs.ranges


def work_was_made(pipeline: Pipeline) -> bool:
    """By the last step of the log: whether dbt made working tables."""
    nodes = pipeline.rows(
        "select n.node ->> 'name' from phase2.step_log as s"
        " cross join jsonb_array_elements(s.detail -> 'nodes') as n (node)"
        " where s.step_log_id = (select max(l.step_log_id) from phase2.step_log as l)"
    )
    return any(name.startswith("int_") for (name,) in nodes)


def test_killed_between_and_within_ranges_it_goes_on_and_ends_as_at_once(
    at_once: fingerprint.Fingerprint, pipeline: Pipeline, of: Callable[[int], None]
) -> None:
    of(20)
    runs = Runs(pipeline)
    for code, middle in (("D", 3), ("E", 2)):
        first = killed(runs, code, 1)
        assert len(first) == 1
        assert first[0].startswith("0.0% to ")
        assert killed(runs, code, 0, middle) == []
        runs.batch(code)
        assert runs.ranges[0].startswith(first[0].split(" to ")[1]), "the next range, not the first"
        assert runs.ranges[-1].endswith(" to 100.0%")
        assert len(runs.ranges) > 1
        assert not work_was_made(pipeline), "what was made before the death is taken over"
    assert fingerprint.difference(at_once, content(pipeline)) == []
    # what stood already may have been written to meanwhile: the next run compares all of it, and writes nothing
    runs.batch("D")
    assert runs.ranges == []
    assert "there is no run of this batch that it could follow" in " ".join(runs.said)
    assert fingerprint.difference(at_once, content(pipeline)) == []


@pytest.mark.long
@pytest.mark.parametrize("size", [5, 17, 59])
def test_the_size_of_ranges_makes_no_difference(
    at_once: fingerprint.Fingerprint, pipeline: Pipeline, of: Callable[[int], None], size: int
) -> None:
    of(size)
    runs = Runs(pipeline)
    runs.batch("D", "E")
    assert sum(line.startswith("0.0% to ") for line in runs.ranges) == 2, "both are cut"
    assert len(runs.ranges) > 2
    assert fingerprint.difference(at_once, content(pipeline)) == []


@pytest.mark.long
def test_sources_that_moved_meanwhile_are_computed_and_compared_from_the_beginning(
    pipeline: Pipeline, of: Callable[[int], None]
) -> None:
    """The last but one: it changes the sources."""
    of(20)
    runs = Runs(pipeline)
    killed(runs, "D", 2)
    with postgres.connect(pipeline.databases.bstadmin, autocommit=True) as conn:
        conn.execute("update public.bookings set note = 'moved', updated_at = '2026-02-01' where booking_id % 2 = 0")
    runs.batch("D")
    assert runs.ranges[0].startswith("0.0% to ")
    assert work_was_made(pipeline)
    cut = content(pipeline)
    copy(os.environ["TEST_PG_URL"], _UNTIL_C, _OPS)
    of(1000)
    runs.batch("D")
    assert runs.ranges == []
    assert fingerprint.difference(content(pipeline), cut) == []


@pytest.mark.long
def test_a_payment_that_moved_to_a_booking_of_a_later_range_is_there_once(
    pipeline: Pipeline, of: Callable[[int], None]
) -> None:
    """It changes the sources, too: after all others."""
    of(20)
    runs = Runs(pipeline)
    runs.batch("D")
    killed(runs, "E", 2)
    paid = pipeline.rows(
        "select (array_agg(e.payment_key))[1], r.external_ref::integer from public.channel_external_refs as r"
        " left join public.payment_event as e on e.booking_key = r.entity_key"
        " where r.external_ref_kind = 'BALISNAP_BOOKING_ID' group by r.entity_key, r.external_ref order by r.entity_key"
    )
    low, high = next(one for one in paid if one[0]), paid[-1]
    assert not high[0], "of a range that was not reached"
    with postgres.connect(pipeline.databases.balisnap, autocommit=True) as conn:
        conn.execute('update public."Payment" set booking_id = %s where booking_id = %s', (high[1], low[1]))
    runs.batch("D", "E")
    owners = pipeline.rows(
        "select e.payment_key, r.external_ref::integer from public.payment_event as e"
        " join public.channel_external_refs as r"
        " on r.entity_key = e.booking_key and r.external_ref_kind = 'BALISNAP_BOOKING_ID'"
    )
    assert [owner for key, owner in owners if key == low[0]] == [high[1]]
