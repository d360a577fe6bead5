"""Rehearsals: the round trip of every batch, what a certificate opens, and what a live run is compared with.

The round trips are docs/round-trip.md; when they are no longer what it says the last test fails, and `make round-trip`
writes it anew.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from copy import deepcopy
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql
from typer.testing import CliRunner

from bridge import (
    clone,
    door,
    gates,
    ledger,
    lockwatch,
    postgres,
    rehearsal,
    rollback,
    runlog,
    scripts,
    sources,
    steps,
    stop,
)
from bridge.batches import BACKFILL, BATCHES, between
from bridge.cli import app
from bridge.errors import CouldNotRun, GateFailed, Stopped
from bridge.fingerprint import Fingerprint, difference, take
from bridge.policy import POLICIES, Criterion
from bridge.settings import ROOT, Databases, settings
from tests.pipeline import Pipeline, fresh

AS_OF = date(2026, 2, 19)
TABLE = ROOT / "docs" / "round-trip.md"
STAGING = POLICIES["staging"]
Body = dict[str, Any]


# Whole rehearsals of A to E, a few minutes of them; test_batch_f.py and test_batch_h.py hold theirs on each change.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """Healthy sample sources, and an ops database where nothing has run."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline, pytest.MonkeyPatch.context() as patch:
        sources.create(pipeline.databases.balisnap, pipeline.databases.bstadmin, bookings=100, seed=7, as_of=AS_OF)
        patch.setenv("PHASE2_REPORTS", str(tmp_path_factory.mktemp("reports")))
        patch.setenv("PHASE2_DISK_TOTAL_BYTES", "1000")
        patch.setenv("PHASE2_DISK_USED_BYTES", "100")
        settings.cache_clear()
        yield pipeline
    settings.cache_clear()


@pytest.fixture(scope="module")
def rehearsed(shop: Pipeline) -> dict[str, ledger.Entry]:
    """The certificates of A to E."""
    return {str(entry.batch): entry for entry in rehearsal.perform(as_run(shop), between("A", "E"))}


@pytest.fixture
def conn(shop: Pipeline, rehearsed: dict[str, ledger.Entry]) -> Iterator[psycopg.Connection]:
    with postgres.connect(shop.databases.ops, autocommit=True) as conn:
        yield conn


@pytest.fixture
def staging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PHASE2_ENV", "staging")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


def as_run(shop: Pipeline) -> steps.Run:
    return steps.Run(run_id=runlog.uuid7(), databases=shop.databases, as_of=AS_OF)


def asked(conn: psycopg.Connection, code: str) -> Criterion:
    (line,) = rehearsal.criteria(conn, BATCHES[code], STAGING)
    return line


def copies(shop: Pipeline) -> list[tuple]:
    return shop.rows("select datname from pg_catalog.pg_database where datname like '%%rehearsal' and datname like %s",
                     f"{postgres.database_name(shop.databases.ops)}%")  # fmt: skip


# The round trip -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", BACKFILL)
def test_the_round_trip_is_exact(rehearsed: dict[str, ledger.Entry], code: str) -> None:
    body = rehearsed[code].body
    assert body["failures"] == []
    prints = body["fingerprints"]
    assert prints["fp1"] != prints["fp0"], "the batch changed nothing: the comparison would prove nothing"
    assert (prints["fp2"], prints["fp3"]) == (prints["fp0"], prints["fp1"])
    first, back, again = body["runs"]
    assert first["rows"] == again["rows"]
    assert min(measured["seconds"] for measured in (first, back, again)) > 0
    assert min(measured["wal_bytes"] for measured in (first, back, again)) > 0


def test_what_a_certificate_tells(rehearsed: dict[str, ledger.Entry]) -> None:
    body = rehearsed["D"].body
    assert body["runs"][0]["rows"]["booking_core"] > 50
    assert body["runs"][0]["gates"]["D-01"] == {"status": "PASS", "value": "0", "exceptions": 0}
    assert body["bound_to"] == door.code_of(BATCHES["D"])
    assert {name: len(source["content_digest"]) for name, source in body["sources"].items()} == {
        "balisnap": 64,
        "bstadmin": 64,
    }
    assert body["copy"]["how"] == "template"
    held = {(lock["place"], lock["mode"]) for measured in body["runs"] for lock in measured["locks"]}
    assert {mode for place, mode in held if place != "ops"} == {"AccessShareLock"}, "a source is only read"
    assert ("ops", "AccessExclusiveLock") in held
    assert {wait["source"] for wait in body["waits"]} == {"balisnap", "bstadmin"}
    assert all(wait["relations"] and wait["seconds"] == 0 for wait in body["waits"])


def test_nothing_of_a_rehearsal_stays_but_the_certificate(shop: Pipeline, conn: psycopg.Connection) -> None:
    """Asked before anything has run in the ops database itself."""
    assert copies(shop) == []
    assert {entry.kind for entry in ledger.entries(conn)} == {"rehearsal"}
    for table in ("batch_state", "step_log", "landing_runs", "gate_results", "model_changes"):
        assert conn.execute(postgres.statement("select count(*) from phase2.{}", table)).fetchone() == (0,), table
    assert {path.name for path in settings().phase2_reports.iterdir()} == {"rehearsal"}


def test_its_file_is_held_by_the_ledger(conn: psycopg.Connection, rehearsed: dict[str, ledger.Entry]) -> None:
    assert ledger.verify(conn) == []
    (name,) = rehearsed["E"].body["files"]
    file = settings().phase2_reports / name
    assert name.startswith("rehearsal/E/")
    whole = file.read_text()
    assert json.loads(whole)["fingerprints"] == rehearsed["E"].body["fingerprints"]
    file.write_text(whole.replace("PASS", "pass", 1))
    assert [problem.where for problem in ledger.verify(conn)] == [name]
    file.write_text(whole)


# What it opens --------------------------------------------------------------------------------------------------------


def test_a_certificate_opens_the_door_where_it_is_demanded(conn: psycopg.Connection, staging: None) -> None:
    assert asked(conn, "A").state == "PASS"
    door.open_or_raise(conn, BATCHES["A"])
    with conn.transaction(force_rollback=True):
        planted(conn, "A", {"errors": ["planted"]})
        with pytest.raises(GateFailed, match="rehearsal: failed: planted"):
            door.open_or_raise(conn, BATCHES["A"])


def planted(conn: psycopg.Connection, code: str, change: Body) -> None:
    """Another certificate behind the last one."""
    last = ledger.latest(conn, "rehearsal", batch=code)
    assert last is not None
    ledger.append(conn, "rehearsal", batch=code, body=last.body | change)


def test_never_rehearsed_holds(shop: Pipeline) -> None:
    with postgres.connect(shop.databases.ops) as conn:
        conn.execute("create temporary table ledger (like phase2.ledger)")
        (line,) = rehearsal.criteria(conn, replace(BATCHES["E"], code="F"), POLICIES["local"])
    assert (line.state, line.evidence, line.holds) == ("HOLD", "never rehearsed", False)
    assert "make rehearse BATCH=F" in line.todo


def test_an_expired_certificate_holds(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    now = runlog.utc_now()
    monkeypatch.setattr(runlog, "utc_now", lambda: now + timedelta(days=13))
    assert asked(conn, "D").state == "PASS"
    monkeypatch.setattr(runlog, "utc_now", lambda: now + timedelta(days=15))
    assert asked(conn, "D").state == "HOLD"
    assert asked(conn, "D").evidence.startswith("expired")


@pytest.mark.parametrize("part", ["plan", "dbt code", "functions", "gate definitions"])
def test_another_plan_or_code_holds(conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    now = door.code_of(BATCHES["D"])
    monkeypatch.setattr(door, "code_of", lambda one: now | {part: "another"})
    assert asked(conn, "D").evidence.startswith(f"changed since it was rehearsed: {part}")


def test_the_latest_rehearsal_counts(conn: psycopg.Connection) -> None:
    with conn.transaction(force_rollback=True):
        planted(conn, "D", {"errors": ["planted"]})
        assert asked(conn, "D").evidence.startswith("failed: planted")
        planted(conn, "D", {"errors": []})
        assert asked(conn, "D").state == "PASS"


# What fails it --------------------------------------------------------------------------------------------------------

LINES = [f"rows of public.t{number}: 1, now 2" for number in range(200)]
PAIR = "fp2 = fp0"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("differences", PAIR), {"total": 200, "lines": LINES}, "200 differences, first: rows of public.t0"),
        (("differences", PAIR), {"total": 200, "lines": []}, "fp2 is not fp0: 200 differences"),
        (("differences", PAIR), {"lines": []}, "fp2 = fp0: not compared"),
        (("differences", "fp3 = fp1"), {}, "fp3 = fp1: not compared"),
        (("fingerprints", "fp2"), "another", "fp2 is not fp0: 0 differences"),
        (("fingerprints",), {}, "fp2 = fp0: not compared"),
        (("runs",), [], "run: did not happen"),
        (("runs", 0, "result"), "FAIL", "run: FAIL, blocked by"),
        (("runs", 1, "unwatched"), "ops: gone", "roll back: its locks were not watched to the end"),
        (("waits", 0, "seconds"), 0.3, "would have waited 0.3 s for our locks"),
        (("waits", 0, "problem"), "no such table", "no such table"),
        (("errors",), ["it broke"], "it broke"),
        (("expires_at",), None, "no date of expiry"),
    ],
)
def test_what_fails_a_rehearsal(
    rehearsed: dict[str, ledger.Entry], path: tuple[str | int, ...], value: object, said: str
) -> None:
    body: Any = deepcopy(rehearsed["D"].body)
    assert rehearsal.failures(body) == []
    place = body
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    assert any(said in line for line in rehearsal.failures(body))
    assert rehearsal.failures({}) != []


def test_a_batch_that_changes_nothing_fails(rehearsed: dict[str, ledger.Entry]) -> None:
    body = deepcopy(rehearsed["D"].body)
    body["fingerprints"] = dict.fromkeys(("fp0", "fp1", "fp2", "fp3"), "the same")
    assert rehearsal.failures(body) == ["the run changed nothing: the comparison proves nothing"]


def test_a_truncated_list_never_passes(
    shop: Pipeline, conn: psycopg.Connection, rehearsed: dict[str, ledger.Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry lists few of the differences, or none; their number stands, and it is what counts."""
    body = deepcopy(rehearsed["D"].body) | {"differences": {PAIR: {"total": 200, "lines": LINES}}}
    for listed in (rehearsal.MOST_DIFFERENCES, 0):
        monkeypatch.setattr(rehearsal, "MOST_DIFFERENCES", listed)
        entry = rehearsal._certify(as_run(shop), BATCHES["D"], deepcopy(body))
        assert entry.body["differences"][PAIR] == {"total": 200, "lines": LINES[:listed]}
        assert (entry.body["result"], asked(conn, "D").state) == ("FAIL", "HOLD")
        (name,) = entry.body["files"]
        assert json.loads((settings().phase2_reports / name).read_text())["differences"][PAIR]["lines"] == LINES
    planted(conn, "D", rehearsed["D"].body)


def test_locks_that_block_the_applications_are_found(shop: Pipeline) -> None:
    """Planted: a session of our name holds a table of a source as no reader would."""
    places = {"balisnap": shop.databases.balisnap}
    with lockwatch.watch(places) as seen:
        with postgres.connect(places["balisnap"], application_name="phase2 landing") as ours:
            ours.execute('lock table public."TourVariant" in access exclusive mode')
            time.sleep(0.3)
        with postgres.connect(places["balisnap"], application_name="the shop") as others:
            others.execute('lock table public."TourPackage" in access exclusive mode')
            time.sleep(0.2)
    assert [(lock.relation, lock.blocks) for lock in seen.locks] == [('public."TourVariant"', "reads and writes")]
    waits = {wait.name.split(":")[0]: wait.seconds for wait in lockwatch.waits(places, seen.locks)}
    assert 0.2 < waits["tour list"] < 2
    assert waits["my bookings"] == 0


def test_a_watch_that_is_lost_is_told(shop: Pipeline) -> None:
    with lockwatch.watch({"ops": shop.databases.ops}) as seen:
        time.sleep(0.2)
        with postgres.connect(shop.databases.ops) as conn:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'phase2-watch' and datname = current_database()"
            )
        time.sleep(0.2)
    assert seen.problem is not None
    assert seen.problem.startswith("ops: ")


# The copy -------------------------------------------------------------------------------------------------------------


def test_a_copy_is_the_database_on_each_server(database: str) -> None:
    """By template and by dump; also where the URL is not written as one. PostgreSQL 15 is dumped by the tools of 17."""
    url = conninfo.make_conninfo(database)
    run = steps.Run(run_id=runlog.uuid7(), databases=Databases(url, url, url, None), as_of=AS_OF)
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute("create schema kept; create unlogged table kept.t as select * from generate_series(1, 1000) as n")
        before = take(conn)
    for how in ("template", "dump and restore"):
        with ExitStack() as stack:
            if how != "template":
                stack.enter_context(closing(postgres.connect(url)))
            copy = stack.enter_context(clone.of_ops(run))
            assert copy.how == how
            with copy.run.connect() as own:
                assert difference(before, take(own)) == []


def test_a_copy_is_dumped_where_others_are_connected_and_a_leftover_goes(
    shop: Pipeline, conn: psycopg.Connection
) -> None:
    """`conn` is in the way of a template; a killed rehearsal has left its copy."""
    name = clone.name_of(postgres.database_name(shop.databases.ops))
    create = sql.SQL("create database {} {}").format(sql.Identifier(name), postgres.MADE_TO_BE_DROPPED)
    conn.execute(create)
    told: list[str] = []
    with clone.of_ops(replace(as_run(shop), progress=told.append)) as copy:
        assert copy.how == "dump and restore"
        assert copy.run.databases.balisnap == shop.databases.balisnap
        count = "select count(*) from phase2.ledger"
        with copy.run.connect() as own:
            assert own.execute(count).fetchone() == conn.execute(count).fetchone() != (0,)
        with pytest.raises(CouldNotRun, match="another rehearsal is under way"), clone.of_ops(as_run(shop)):
            pass
        assert copies(shop) == [(name,)]
    assert told == [f"removing {name}, which a rehearsal left behind"]
    assert copies(shop) == []
    conn.execute(postgres.statement("create database {}", name))
    with pytest.raises(CouldNotRun, match="was not made to be dropped"), clone.of_ops(as_run(shop)):
        pass
    assert copies(shop) == [(name,)], "somebody else's"
    conn.execute(postgres.statement("drop database {}", name))


def test_a_copy_goes_also_when_the_rehearsal_breaks(
    shop: Pipeline, conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: object) -> None:
        raise KeyboardInterrupt

    conn.close()  # else the copy takes seconds
    monkeypatch.setattr(rehearsal, "_make_ready", breaks)
    with pytest.raises(KeyboardInterrupt):
        rehearsal.perform(as_run(shop), [BATCHES["A"]])
    assert copies(shop) == []


def test_a_stop_leaves_the_certificate_that_there_is(
    shop: Pipeline, conn: psycopg.Connection, rehearsed: dict[str, ledger.Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """B lands nothing. Stopped before the copy is made, and while the copy, which does not know of it, is at work."""
    before = [entry.no for entry in ledger.entries(conn, "rehearsal")]
    ready = rehearsal._make_ready

    def stopped_meanwhile(*arguments: Any) -> None:
        ready(*arguments)
        stop.ask(conn, "payments look wrong")

    monkeypatch.setattr(rehearsal, "_make_ready", stopped_meanwhile)
    try:
        for _ in range(2):
            with pytest.raises(Stopped, match="payments look wrong"):
                rehearsal.perform(as_run(shop), [BATCHES["B"]])
    finally:
        stop.lift(conn, "a test")
    assert [entry.no for entry in ledger.entries(conn, "rehearsal")] == before
    assert len(ledger.entries(conn, "stop")) == 1, "the second one did not even begin"
    assert copies(shop) == []


def test_long_names_are_shortened() -> None:
    assert clone.name_of("ops_db") == "ops_db__rehearsal"
    assert len(clone.name_of("o" * 60)) <= 63
    assert clone.name_of("o" * 60) != clone.name_of("o" * 59 + "p")


def test_the_command_ends_with_1_when_a_rehearsal_fails(
    shop: Pipeline, rehearsed: dict[str, ledger.Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "prepare", lambda *_: as_run(shop))
    for change, code in (({}, 0), ({"errors": ["planted"], "failures": ["planted"], "result": "FAIL"}, 1)):
        entry = replace(rehearsed["D"], body=rehearsed["D"].body | change)
        monkeypatch.setattr(rehearsal, "perform", lambda *_, e=entry: [e])
        for form in ([], ["--json"]):
            assert CliRunner().invoke(app, ["rehearse", "--batch", "D", *form]).exit_code == code


# A live run beside its certificate ------------------------------------------------------------------------------------


def undo_b(shop: Pipeline) -> None:
    rollback.roll_back(as_run(shop), BATCHES["B"], on_a_copy=True)


def stray_entries(shop: Pipeline) -> list[Body]:
    with postgres.connect(shop.databases.ops) as conn:
        return [entry.body for entry in ledger.entries(conn, "stray")]


@pytest.fixture(scope="module")
def live(shop: Pipeline, rehearsed: dict[str, ledger.Entry]) -> Iterator[Pipeline]:
    """Batch A for real, and no room for B's few rows to differ."""
    assert [outcome.verdict.result for outcome in shop.run("A", "A", AS_OF)] == ["PASS"]
    with postgres.connect(shop.databases.ops) as conn:
        planted(conn, "B", rehearsed["B"].body)
    known = rehearsal.tolerances
    with pytest.MonkeyPatch.context() as patch:  # in the seed's table a run would put it back
        patch.setattr(rehearsal, "tolerances", lambda conn: known(conn) | {"rows_least": Decimal(0)})
        yield shop


def test_a_live_run_that_strays_stops(live: Pipeline, staging: None) -> None:
    """Planted: the channels are there already, so that the seed writes none of the six rows that were rehearsed."""
    scripts.run_script(live.databases.ops, "010_seed_channel_registry.sql")
    [outcome] = live.run("B", "B", AS_OF)
    assert (outcome.verdict.result, outcome.verdict.blocked_by) == ("HOLD", ("rehearsal",))
    with pytest.raises(GateFailed):
        steps.raise_unless_passed(outcome)
    [said] = stray_entries(live)
    assert said["stops"] is True
    assert said["strays"] == ["script 010_seed_channel_registry: 0 rows written, 6 rehearsed, 0.3 may differ"]
    with postgres.connect(live.databases.ops) as conn:
        assert asked(conn, "B").evidence.startswith("a live run strayed from it: 1 times, first: script 010")
        with pytest.raises(GateFailed):
            gates.open_or_raise(conn, "C", "B")
    undo_b(live)


def test_where_no_rehearsal_is_demanded_a_stray_is_told(live: Pipeline) -> None:
    scripts.run_script(live.databases.ops, "010_seed_channel_registry.sql")
    [outcome] = live.run("B", "B", AS_OF)
    assert outcome.verdict.result == "PASS"
    assert stray_entries(live)[-1]["stops"] is False
    undo_b(live)


def test_like_is_compared_with_like(live: Pipeline, staging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed run and the one after it are one first load; a rerun writes nothing; one that writes more is astray."""
    before = len(stray_entries(live))
    killed = as_run(live)
    steps.start(killed, BATCHES["B"])
    steps.execute(killed, BATCHES["B"], BATCHES["B"].steps[0])
    for _ in range(2):
        assert [outcome.verdict.result for outcome in live.run("B", "B", AS_OF)] == ["PASS"]
    assert len(stray_entries(live)) == before
    monkeypatch.setattr(rehearsal, "rows_written", lambda *_: {"script 010_seed_channel_registry": 7})
    assert [outcome.verdict.result for outcome in live.run("B", "B", AS_OF)] == ["HOLD"]


def test_mismatches_are_compared_too(
    live: Pipeline, conn: psycopg.Connection, rehearsed: dict[str, ledger.Entry]
) -> None:
    verdict = gates.evaluate(conn, "B", runlog.uuid7())

    def found(exceptions: int) -> list[str]:
        changed = tuple(replace(gate, exceptions=exceptions) for gate in verdict.gates if gate.gate_id == "B-02")
        return rehearsal.strays(conn, BATCHES["B"], replace(verdict, gates=changed), rehearsed["B"])

    assert found(3) == []
    assert found(4) == ["B-02: 4 exceptions, 0 rehearsed, 3 may differ"]
    assert rehearsal.tolerances(conn)["certificate_days"] == Decimal(14)


def test_a_batch_that_stands_is_rolled_back_in_the_copy_alone(live: Pipeline) -> None:
    """It stands, on hold since its last run strayed: a new certificate is what lets it be run again."""

    def state() -> tuple[Fingerprint, Criterion]:
        with postgres.connect(live.databases.ops, autocommit=True) as conn:
            return take(conn), asked(conn, "B")

    before, held = state()
    [entry] = rehearsal.perform(as_run(live), [BATCHES["B"]])
    assert (entry.body["made_ready"], entry.body["failures"]) == (["B rolled back"], [])
    after, open_again = state()
    assert difference(before, after) == []
    assert (held.state, open_again.state) == ("HOLD", "PASS")


def test_a_rollback_that_does_nothing_fails_it(
    live: Pipeline, rehearsed: dict[str, ledger.Entry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo_b(live)
    folder = tmp_path / "phase2"
    shutil.copytree(scripts.FOLDER, folder)
    (folder / "rollback" / "B.sql").write_text("begin;\nset local search_path = '';\ncommit;\n")
    monkeypatch.setattr(scripts, "FOLDER", folder)
    [entry] = rehearsal.perform(as_run(live), [BATCHES["B"]])
    assert entry.body["result"] == "FAIL"
    assert entry.body["differences"][PAIR]["total"] > 6
    assert copies(live) == []
    with postgres.connect(live.databases.ops) as conn:
        assert asked(conn, "B").state == "HOLD"


# The table ------------------------------------------------------------------------------------------------------------


def test_the_round_trips_are_documented(rehearsed: dict[str, ledger.Entry]) -> None:
    table = _table(rehearsed)
    print(table)
    if os.environ.get("ROUND_TRIP") == "write":
        TABLE.write_text(table, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table, "`make round-trip` writes it anew; look at what changed"


def _table(rehearsed: dict[str, ledger.Entry]) -> str:
    """Each state of the ops database by a number, in the order in which they were first seen."""
    states: dict[str, str] = {}
    lines = [
        "# Round trips",
        "",
        "Each batch, rehearsed on a copy of the ops database: run, rolled back, run again. A fingerprint is of every",
        "table and definition in it; equal ones have the same name here. Written by `make round-trip` (100 sample",
        "bookings); a test fails when it is no longer so. A certificate in the ledger has the digests themselves.",
        "",
        "| batch | fp0 | rows written | fp1 | rolled back: fp2 | rows written again | fp3 | fp2 = fp0 | fp3 = fp1 |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for code in BACKFILL:
        body = rehearsed[code].body
        seen = [states.setdefault(body["fingerprints"][f"fp{n}"], f"state {len(states)}") for n in range(4)]
        written = [sum(body["runs"][n]["rows"].values()) for n in (0, 2)]
        holds = [
            "yes" if body["differences"][pair] == {"total": 0, "lines": []} else "no" for pair in (PAIR, "fp3 = fp1")
        ]
        cells = [code, seen[0], written[0], seen[1], seen[2], written[1], seen[3], *holds]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"
