"""The bench of ingestion runs, and a sum that does not hold ends it: a figure of lost events is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge import postgres
from tests import bench_ingest, serving

TINY = ["--bookings", "30", "--events", "60", "--seconds", "0.5", "--connections", "5", "--concurrency", "4"]


@pytest.fixture(scope="module")
def ground() -> Iterator[tuple[str, str]]:
    """The bench's server and an ops database that is filled, to be copied."""
    with serving.environment(), bench_ingest.server() as server, bench_ingest.filled(server, 30) as ops:
        yield server, ops


@pytest.fixture
def planted(ground: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A copy that the bench takes for its own."""
    server, ops = ground
    copy = f"{postgres.database_name(ops)}_copy"
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {} template {}", copy, postgres.database_name(ops)))

        @contextmanager
        def given(*_: object) -> Iterator[str]:
            yield postgres.with_database(ops, copy)

        monkeypatch.setattr(bench_ingest, "server", given)
        monkeypatch.setattr(bench_ingest, "filled", given)
        monkeypatch.setattr(bench_ingest, "RATES", {"rest": 40})
        monkeypatch.setattr(bench_ingest, "DEAD_EACH", 10)
        monkeypatch.setattr(bench_ingest, "PATIENCE", 20.0)
        yield postgres.with_database(ops, copy)
        conn.execute(postgres.statement("drop database {} with (force)", copy))


@pytest.mark.long
def test_the_bench_runs_and_writes_its_page(
    planted: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page, before = tmp_path / "page.md", bench_ingest.PAGE.read_text()
    page.write_text(before)
    monkeypatch.setattr(bench_ingest, "PAGE", page)
    assert bench_ingest.main([*TINY, "--write", "--json", str(tmp_path / "figures.json")]) == 0
    told = capsys.readouterr().out.strip()
    head, _, tail = page.read_text().partition(told)
    assert before.startswith(head.rstrip())
    assert before.endswith(tail.lstrip())
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [(row["load"], row["events"]) for row in figures] == [("drain", 60), ("burst", 60), ("rest", 20)]


PLANTED = {
    "booking_party: ": """
        create function bench.fault() returns trigger language plpgsql as 'begin return null; end';
        create trigger fault before insert on public.booking_party for each row execute function bench.fault()
    """,
    "both_or_neither: ": """
        create function bench.fault() returns trigger language plpgsql as $$
        begin
            update public.ingest_event_log set process_status = 'DONE' where event_key = new.event_key;
            return new;
        end $$;
        create trigger fault after insert on public.ingest_dead_letter for each row execute function bench.fault()
    """,
}


@pytest.mark.parametrize("wrong", PLANTED)
def test_a_sum_that_does_not_hold_is_an_error(planted: str, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    with postgres.connect(planted, autocommit=True) as conn:
        conn.execute(PLANTED[wrong].encode())
    assert bench_ingest.main(TINY) == 1
    told = capsys.readouterr()
    assert wrong in told.err
    assert told.out == ""
