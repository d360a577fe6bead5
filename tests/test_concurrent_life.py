"""The shop stays open while batches run: no statement fails or waits, and the run ends though rows keep coming."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from bridge import arrivals, ledger, legacy, postgres, sources, steps
from bridge.settings import ROOT, Databases, settings
from tests.pipeline import Pipeline, fresh
from tests.shop import AS_OF
from tests.without_prefect import migrate

BOOKINGS = 200
LIMIT = 5.0  # PHASE2_MAX_BLOCKING_SECONDS as it is by default

# What the applications write, as they do: one statement, one commit. Rows are copied from their neighbours.
_NEW = """
insert into public.{table} ({columns})
select {columns} from (
    select (jsonb_populate_record(b, jsonb_build_object(
        '{key}', nextval(pg_get_serial_sequence('public.{table}', '{key}')), 'booking_ref', %s::text,
        'created_at', localtimestamp, 'updated_at', localtimestamp
    ))).* from public.{table} as b order by b.{key} limit 1
) as n
"""
_CHANGED = "update public.{table} set note = %s, updated_at = localtimestamp where {key} = %s"

# What the core and its ingest path do with the canonical tables.
_EVENT = """
insert into public.ingest_event_log (
    event_key, idempotency_key, nonce, source_enum, channel_code, external_booking_ref, event_type, event_time,
    event_time_normalized, payload_hash, process_status, raw_payload
)
values (
    gen_random_uuid(), %(no)s, %(no)s, 'GYG', 'GYG', %(no)s, 'CREATED', now(), now(), %(no)s, 'RECEIVED', '{}'
)
"""
_READ = """
select c.booking_key, c.external_booking_ref, b.main_name, s.ops_fulfillment_status
from public.booking_core as c
left join public.booking_contact as b on c.booking_key = b.booking_key
left join public.ops_booking_state as s on c.booking_key = s.booking_key
order by c.tour_date desc
limit 20
"""
_TOUCH = """
update public.booking_contact set updated_at = updated_at
where booking_key = (select min(b.booking_key::text)::uuid from public.booking_contact as b)
"""


@dataclass
class Life:
    """The applications at work, until they are told to go home."""

    databases: Databases
    home: threading.Event = field(default_factory=threading.Event)
    asked: dict[str, list[float]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def ask(self, conn: psycopg.Connection, name: str, statement: str, *values: object) -> None:
        began = time.monotonic()
        try:
            conn.execute(statement.encode(), values[0] if values and isinstance(values[0], dict) else values or None)
        except psycopg.Error as error:
            self.failed.append(f"{name}: {error}")
        self.asked.setdefault(name, []).append(time.monotonic() - began)

    def pages(self, source: str) -> None:
        """The pages of an application, one after the other."""
        statements = [statement for statement in legacy.statements() if statement.source == source]
        with open_for(getattr(self.databases, source)) as conn:
            for statement in itertools.cycle(statements):
                if self.home.wait(0.01):
                    return
                self.ask(conn, f"{source} page", statement.text)

    def bookings(self, source: str, table: str, key: str) -> None:
        """Bookings that come and are changed."""
        with open_for(getattr(self.databases, source)) as conn:
            columns = ", ".join(
                row[0]
                for row in conn.execute(
                    "select quote_ident(a.attname) from pg_attribute as a where a.attrelid = %s::regclass"
                    " and a.attnum > 0 and not a.attisdropped",
                    (f"public.{table}",),
                )
            )
            new = _NEW.format(table=table, key=key, columns=columns)
            for number in itertools.count():
                if self.home.wait(0.05):
                    return
                self.ask(conn, f"{source} new booking", new, f"LIFE-{number}")
                self.ask(
                    conn, f"{source} changed booking", _CHANGED.format(table=table, key=key), f"{number}", number % 50
                )

    def core(self) -> None:
        """Events, reads and writes on the canonical tables, once they are there with their references."""
        with open_for(self.databases.ops) as conn:
            for number in itertools.count():
                if self.home.wait(0.02):
                    return
                if conn.execute("select status from phase2.batch_state where batch = 'B'").fetchone() != ("PASS",):
                    continue
                self.ask(conn, "ops event", _EVENT, {"no": f"LIFE-{number}"})
                self.ask(conn, "ops read", _READ)
                self.ask(conn, "ops write", _TOUCH)

    @contextmanager
    def goes_on(self) -> Iterator[None]:
        work = (
            (self.pages, "balisnap"),
            (self.pages, "bstadmin"),
            (self.bookings, "balisnap", '"Booking"', "booking_id"),
            (self.bookings, "bstadmin", "bookings", "booking_id"),
            (self.core,),
        )
        threads = [threading.Thread(target=self._until_home, args=each, daemon=True) for each in work]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.home.set()
            for thread in threads:
                thread.join()

    def _until_home(self, work, *arguments) -> None:
        try:
            work(*arguments)
        except Exception as error:  # a thread's error reaches nobody else
            self.failed.append(f"{work.__name__} {arguments}: {error}")

    def __str__(self) -> str:
        return "\n".join(
            f"{name:<26} {len(seconds):>6} statements, longest {max(seconds):.3f} s"
            for name, seconds in sorted(self.asked.items())
        )


def open_for(url: str) -> psycopg.Connection:
    """As an application connects: what waits longer than the limit fails."""
    options = f"-c statement_timeout={int(LIMIT * 1000)} -c timezone=UTC"
    return psycopg.connect(url, application_name="web shop", autocommit=True, options=options)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """A sample in the sources, an empty ops database, and the environment that names them."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        dbs = made.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=BOOKINGS, seed=7, as_of=AS_OF)
        for role in ("ops", "balisnap", "bstadmin"):
            monkeypatch.setenv(f"{role.upper()}_DB_URL", getattr(dbs, role))
        monkeypatch.setenv("PHASE2_HOME", str(tmp_path))
        monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path / "reports"))
        monkeypatch.setenv("PHASE2_DISK_TOTAL_BYTES", "1000")
        monkeypatch.setenv("PHASE2_DISK_USED_BYTES", "100")
        settings.cache_clear()
        yield made
    settings.cache_clear()


@pytest.mark.long
def test_the_shop_stays_open_while_batches_run(pipeline: Pipeline) -> None:
    life = Life(pipeline.databases)
    with life.goes_on():
        asyncio.run(migrate("A", "E", AS_OF))
    print(f"\n{life}")
    assert life.failed == []
    assert set(life.asked) >= {"ops write", "bstadmin new booking", "balisnap changed booking", "bstadmin page"}
    assert min(len(seconds) for seconds in life.asked.values()) > 20
    assert max(max(seconds) for seconds in life.asked.values()) < LIMIT
    stand = {line.batch: line.status for line in steps.status(pipeline.databases.ops)}
    assert stand == {**dict.fromkeys("ABCDE", "PASS"), **dict.fromkeys("FGH", "PENDING")}

    # what came after the snapshot is told, counted, and not in the landing
    rows = pipeline.rows(
        "select batch, detail -> 'arrived' from phase2.step_log where kind = 'arrivals' order by batch"
    )
    assert [batch for batch, _ in rows] == ["C", "D", "E"]
    assert rows[-1][1]["bstadmin.bookings"]["new"] > 0
    assert rows[-1][1]["bstadmin.bookings"]["changed"] > 0
    with postgres.connect(pipeline.databases.ops, read_only=True) as ops:
        found, problems = arrivals.since_the_landing(ops, pipeline.databases)
    assert problems == []
    for source, table in (("balisnap", "Booking"), ("bstadmin", "bookings")):
        there = counted(getattr(pipeline.databases, source), "public", table)
        landed = counted(pipeline.databases.ops, f"landing_{source}", table)
        assert found[f"{source}.{table}"]["new"] == there - landed > 0
        assert 0 < found[f"{source}.{table}"]["changed"] <= 50
    assert "came after the snapshot, for the next run: " in arrivals.words(found)


def test_a_statement_that_fails_or_waits_is_seen(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.test_concurrent_life.LIMIT", 0.3)
    life = Life(pipeline.databases)
    with open_for(pipeline.databases.bstadmin) as conn, psycopg.connect(pipeline.databases.bstadmin) as blocker:
        life.ask(conn, "good", "select count(*) from public.bookings")
        assert life.failed == []
        blocker.execute("lock table public.bookings in access exclusive mode")
        life.ask(conn, "late", "select count(*) from public.bookings")
        life.ask(conn, "wrong", "select the_day from public.tours")
    assert ["statement timeout" in life.failed[0], "does not exist" in life.failed[1]] == [True, True]
    assert life.asked["late"][0] >= 0.3


def counted(url: str, schema: str, table: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute(postgres.statement("select count(*) from {}.{}", schema, table)).fetchone()
    return row[0] if row else 0


def test_a_source_that_is_gone_at_the_end_is_told_and_holds_nothing(pipeline: Pipeline) -> None:
    gone = Databases(pipeline.databases.ops, pipeline.databases.balisnap, "postgresql://x@127.0.0.1:1/bstadmin", None)
    with postgres.connect(pipeline.databases.ops, read_only=True) as ops:
        found, problems = arrivals.since_the_landing(ops, gone)
    assert problems != []
    assert all(name.startswith("balisnap.") for name in found)
    assert problems[0].startswith("bstadmin: cannot connect")


def test_two_runners_at_once_one_works_and_the_other_leaves(pipeline: Pipeline, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.without_prefect", "run", "--from", "A", "--to", "B", "--as-of", f"{AS_OF}"]
    runners = [subprocess.Popen(command, cwd=ROOT, text=True, stderr=subprocess.PIPE) for _ in range(2)]
    said = [runner.communicate(timeout=300)[1] for runner in runners]
    codes = [runner.returncode for runner in runners]
    assert 0 in codes, said
    for code, text in zip(codes, said, strict=True):
        # who waited in vain for four seconds leaves; on a fast machine the first has ended by then, and both have run
        assert code == 0 or (code == 2 and "another run is under way: phase2-runner" in text), text
    assert [line.status for line in steps.status(pipeline.databases.ops)][:2] == ["PASS", "PASS"]
    runs = pipeline.rows(
        "select run_id, min(started_at), max(ended_at) from phase2.step_log group by run_id order by 2"
    )
    assert len(runs) == codes.count(0)
    for first, second in itertools.pairwise(runs):
        assert first[2] <= second[1], "they ran side by side"
    assert pipeline.rows("select count(*) from public.channel_registry") == [(6,)]
    with postgres.connect(pipeline.databases.ops) as conn:
        assert ledger.verify(conn) == []
