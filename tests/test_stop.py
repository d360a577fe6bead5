"""A stop, asked for by file, command or plain SQL, holds the migration at its next safe point; a person lifts it."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner

from bridge import batches, ledger, policy, postgres, retention, scripts, sources, steps, stop
from bridge.cli import app
from bridge.errors import CouldNotRun, GateFailed, Stopped
from bridge.settings import settings
from flows import operating
from tests.pipeline import Pipeline, fresh
from tests.shop import AS_OF
from tests.without_prefect import migrate

BY_SQL = "select phase2.log('stop', null, null, null, 'ayu', '{\"reason\": \"payments look wrong\"}')"


@pytest.fixture(scope="module")
def pipeline() -> Iterator[Pipeline]:
    """Empty ops, a small sample; batches A and B in place."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        dbs = made.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=60, seed=3, as_of=AS_OF)
        yield made


@pytest.fixture(autouse=True)
def environment(pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The commands work on the pipeline's databases; what a test stopped is lifted after it."""
    for role in ("ops", "balisnap", "bstadmin"):
        monkeypatch.setenv(f"{role.upper()}_DB_URL", getattr(pipeline.databases, role))
    monkeypatch.setenv("PHASE2_STOP_FILE", str(tmp_path / "stop"))
    monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path.parent / "reports"))  # the ledger holds them
    monkeypatch.setenv("PHASE2_DISK_TOTAL_BYTES", "1000")
    monkeypatch.setenv("PHASE2_DISK_USED_BYTES", "100")
    monkeypatch.setenv("PHASE2_ACTOR", "made")
    settings.cache_clear()
    yield
    with connected(pipeline) as conn:
        if stop.standing(conn):
            stop.lift(conn, "the test is over")
    settings.cache_clear()


def connected(pipeline: Pipeline) -> psycopg.Connection:
    return postgres.connect(pipeline.databases.ops, autocommit=True)


def phase2(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def state(pipeline: Pipeline, code: str) -> tuple:
    rows = pipeline.rows("select status, blocked_by, error_message from phase2.batch_state where batch = %s", code)
    return rows[0] if rows else ("PENDING", None, None)


def by_file(pipeline: Pipeline) -> None:
    stop.file().write_text("the webhook sends rubbish\nmore words")


def by_command(pipeline: Pipeline) -> None:
    assert phase2("stop", "--reason", "the webhook sends rubbish").exit_code == 0


def by_sql(pipeline: Pipeline) -> None:
    with psycopg.connect(pipeline.databases.ops, autocommit=True) as conn:  # any client, with no settings of ours
        conn.execute(BY_SQL)


@pytest.mark.parametrize(
    ("asked", "words"),
    [(by_file, "the webhook sends rubbish"), (by_command, "stopped by made"), (by_sql, "stopped by ayu")],
)
def test_a_run_stops_before_its_next_step_and_only_a_person_lifts_it(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, asked: Any, words: str
) -> None:
    done: list[str] = []
    execute = steps.execute

    def one_step(run: steps.Run, batch: batches.Batch, step: batches.Step) -> Any:
        done.append(step.name)
        result = execute(run, batch, step)
        asked(pipeline)
        return result

    monkeypatch.setattr(steps, "execute", one_step)
    with pytest.raises(Stopped, match=words) as raised:
        asyncio.run(migrate("A", "A", AS_OF))
    assert done == ["sources check"], "it went on"
    assert str(raised.value).startswith("batch A is on hold: stopped by ")
    assert "phase2 resume --reason" in str(raised.value)
    status, blocked_by, error = state(pipeline, "A")
    assert (status, blocked_by) == ("HOLD", ["stop"])
    assert words in error
    shown = phase2("status").output
    assert "STOPPED" in shown
    assert words in shown

    stop.file().unlink(missing_ok=True)  # taking the file away is no lifting: a run has seen it
    with pytest.raises(Stopped, match=words):
        asyncio.run(migrate("A", "A", AS_OF))
    assert done == ["sources check"], "it started"

    lifted = phase2("resume", "--reason", "it was a test")
    assert lifted.exit_code == 0
    assert words in lifted.output
    with connected(pipeline) as conn:
        entry = ledger.latest(conn, "resume")
        assert entry
        assert (entry.actor, entry.body["reason"]) == ("made", "it was a test")
        assert stop.standing(conn) == ()
        assert ledger.verify(conn) == []


def test_nothing_stands_and_a_batch_runs_after_the_lifting(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(migrate("A", "B", AS_OF))
    assert [state(pipeline, code)[0] for code in "AB"] == ["PASS", "PASS"]


def test_a_batch_that_has_passed_stays_passed_when_its_rerun_may_not_start(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_sql(pipeline)
    with pytest.raises(Stopped):
        asyncio.run(migrate("A", "B", AS_OF))
    assert [state(pipeline, code)[0] for code in "AB"] == ["PASS", "PASS"]


def test_a_landing_stops_between_its_tables_and_leaves_the_one_before(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    first = threading.Lock()

    def progress(line: str) -> None:
        said.append(line)
        if line.startswith("landed") and first.acquire(blocking=False):
            said.append("stopped")
            Path(f"{stop.file()}.new").write_text("now")
            Path(f"{stop.file()}.new").replace(stop.file())

    run = steps.Run(run_id=steps.runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF, progress=progress)
    before = pipeline.rows("select count(*) from phase2.landing_runs")
    batch = batches.BATCHES["C"]
    with pytest.raises(Stopped, match="now"):
        steps.execute(run, batch, batch.prechecks[0])
    after = said[said.index("stopped") :]
    assert len([line for line in after if line.startswith("landed")]) <= 1, "the other source's table under way"
    assert pipeline.rows("select count(*) from phase2.landing_runs") == before
    with connected(pipeline) as conn:
        noted = [entry for entry in ledger.entries(conn, "stop") if entry.body.get("reason") == "now"]
    assert len(noted) == 1, "two threads, one entry"


def test_a_resume_needs_a_reason_and_something_to_lift(pipeline: Pipeline) -> None:
    with connected(pipeline) as conn:
        with pytest.raises(CouldNotRun, match="nothing is stopped"):
            stop.lift(conn, "why not")
        stop.ask(conn, "one\nof guest@example.com")
        stop.ask(conn, "two")
        with pytest.raises(CouldNotRun, match="a reason is missing"):
            stop.lift(conn, "  ")
        conn.execute("select phase2.log('resume', null, null, null, 'ayu', '{}')")
        assert [one.reason for one in stop.standing(conn)] == ["one of g•••@e•••", "two"], "lifted without a reason"
        assert len(stop.lift(conn, "both")) == 2


@pytest.mark.parametrize("body", ["'null'", "null", "'\"words\"'", "'[]'", '\'{"reason": ["a", "b"]}\''])
def test_a_stop_by_sql_counts_whatever_its_body_says(pipeline: Pipeline, body: str) -> None:
    with connected(pipeline) as conn:
        conn.execute(f"select phase2.log('stop', null, null, null, null, {body})".encode())
        (one,) = stop.standing(conn)
        assert one.by == "somebody"
        assert stop.lift(conn, "seen") == (one,)


def test_a_stop_file_that_cannot_be_removed_is_not_lifted(pipeline: Pipeline) -> None:
    stop.file().mkdir()
    with connected(pipeline) as conn:
        with pytest.raises(CouldNotRun, match="cannot be removed"):
            stop.lift(conn, "why not")
        stop.file().rmdir()
        assert stop.standing(conn) != ()


def test_the_door_asks_in_every_environment(pipeline: Pipeline) -> None:
    with connected(pipeline) as conn:
        for rules in policy.POLICIES.values():
            (open_,) = stop.criteria(conn, batches.BATCHES["C"], rules)
            assert (open_.state, open_.demanded) == ("PASS", True)
        stop.ask(conn, "wait")
        for rules in policy.POLICIES.values():
            (held,) = stop.criteria(conn, batches.BATCHES["C"], rules)
            assert held.holds
            assert "wait" in held.evidence
            assert "phase2 resume" in held.todo


def test_retention_is_logged_and_held_by_a_stop(pipeline: Pipeline) -> None:
    with connected(pipeline) as conn:
        conn.execute(
            "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk,"
            " reason_code, status, resolved_at) values (gen_random_uuid(), 'PRODUCT_MAPPING', 'test', 't', '1',"
            " 'PRODUCT_MAPPING', 'CLOSED', now() - interval '91 days')"
        )
        conn.execute(
            "insert into phase2.ingest_nonces (nonce, idempotency_key, payload_hash, seen_at) values"
            " ('old', 'k', '', now() - interval '601 seconds'), ('new', 'k', '', now() - interval '590 seconds')"
        )
        conn.execute(  # of the second the event is there: no retention has taken it
            "insert into public.ingest_event_log (event_key, idempotency_key, nonce, source_enum, channel_code,"
            " external_booking_ref, event_type, event_time, event_time_normalized, payload_hash, signature_verified,"
            " process_status, raw_payload) values (gen_random_uuid(), 'kept', '', 'GYG', 'GYG', 'R', 'CREATED', now(),"
            " now(), '', true, 'RECEIVED', '{}')"
        )
        conn.execute(
            "insert into phase2.ingest_keys (idempotency_key, payload_hash, event_key, answer, answered_at) values"
            " ('old', '', gen_random_uuid(), '{}', now() - interval '35 days 1 minute'),"
            " ('kept', '', (select event_key from public.ingest_event_log), '{}', now() - interval '36 days'),"
            " ('new', '', gen_random_uuid(), '{}', now() - interval '34 days')"
        )
        conn.execute(
            "insert into phase2.console_ended (session, until) values ('over', now() - interval '1 s'),"
            " ('held', now() + interval '1 hour')"
        )
        conn.execute(
            "insert into phase2.console_tries (who, try_id, at)"
            " values ('x', gen_random_uuid(), now() - interval '2 d'),"
            " ('x', gen_random_uuid(), now())"
        )
        stop.ask(conn, "an incident")
        with pytest.raises(Stopped, match="retention is on hold: stopped by made"):
            retention.clean()
        stop.lift(conn, "over")
    removed = {"dead letters": 0, "idempotency rows": 0, "unmapped queue": 1, "nonces": 1, "answers": 1,
               "console sign-ins": 2, "ui pictures": 0}  # fmt: skip
    assert json.loads(phase2("retention", "--json").stdout) == removed
    assert set(retention.clean().values()) == {0}
    assert pipeline.rows("select status, rows from phase2.step_log where batch = 'F' order by step_log_id") == [
        ("SUCCEEDED", 5),
        ("SUCCEEDED", 0),
    ]
    assert pipeline.rows("select session from phase2.console_ended") == [("held",)]
    assert pipeline.rows("select nonce from phase2.ingest_nonces") == [("new",)]
    assert pipeline.rows("select idempotency_key from phase2.ingest_keys order by 1") == [("kept",), ("new",)]
    assert pipeline.rows(
        "select count(*) from public.migration_run_log where script_name like '091%%' and run_status = 'SUCCEEDED'"
    ) == [(1,)]
    with connected(pipeline) as conn:
        told = [entry.body["row"]["detail"]["removed"] for entry in ledger.entries(conn, "step", batch="F")]
        assert told == [removed, dict.fromkeys(removed, 0)]
        assert ledger.verify(conn) == []


def test_scheduled_recon_renews_what_is_in_and_leaves_a_run_alone(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[tuple[str, str]] = []

    async def published(outcome: steps.Outcome) -> None:
        judged.append((outcome.verdict.batch, outcome.verdict.result))

    def recon(which: operating.Which) -> None:
        asyncio.run(operating.reconciliation_flow.fn(which))

    monkeypatch.setattr(operating, "publish", published)
    recon("all")
    recon("latest")
    assert judged == [("A", "PASS"), ("B", "PASS"), ("B", "PASS")]

    judged.clear()
    run = steps.Run(run_id=steps.runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF)
    with connected(pipeline) as conn, steps.only_runner(run):
        conn.execute("update phase2.batch_state set status = 'RUNNING' where batch = 'B'")
        recon("all")
        assert judged == []
        conn.execute("update phase2.batch_state set status = 'PASS' where batch = 'B'")

    with connected(pipeline) as conn:
        conn.execute("update public.channel_registry set channel_code = 'OTHER' where channel_code = 'BOKUN'")
        with pytest.raises(GateFailed, match="B-01"):
            recon("latest")
        conn.execute("update public.channel_registry set channel_code = 'BOKUN' where channel_code = 'OTHER'")
        recon("latest")
    assert judged == [("B", "FAIL"), ("B", "PASS")]


def test_a_script_that_fails_says_so_and_is_logged(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = batches.BATCHES["B"].steps[0]
    (tmp_path / step.target).write_text("begin; select 1 / 0; commit;")
    monkeypatch.setattr(scripts, "FOLDER", tmp_path)
    run = steps.Run(run_id=steps.runlog.uuid7(), databases=pipeline.databases, as_of=AS_OF)
    with pytest.raises(CouldNotRun, match="010_seed_channel_registry.sql failed: division by zero"):
        steps.execute(run, batches.BATCHES["B"], step)
    logged = "select run_status, script_checksum from public.migration_run_log order by started_at desc limit 1"
    assert pipeline.rows(logged) == [("FAILED", scripts.checksum(tmp_path / step.target))]
