"""Batch H against a real service and a real bstadmin: forward to PASS, what holds it, off under live traffic."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from typer.testing import CliRunner

from bridge import drills, flags, gates, ledger, postgres, rehearsal, rollout, sources, steps, write_cutover
from bridge.batches import BATCHES
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.errors import GateFailed
from bridge.flags import Rollout
from bridge.policy import POLICIES
from bridge.reads import READS
from bridge.runlog import uuid7
from bridge.settings import Databases, settings
from bridge.write_cutover import WRITES
from core_api import minutes
from tests import pipeline, serving
from tests.ops_parts import AS_OF

H = BATCHES["H"]
MEASURED = ("G-03", "G-05", "G-06")
READER = f"p2_reader_{os.environ.get('PYTEST_XDIST_WORKER', '')}"
DRILLED = """
insert into phase2.drills (drill_id, drill, passed, measured, started_at)
values (gen_random_uuid(), 'rollback', true, '{"batch": "H", "seconds_to_old_path": 2}', now())
"""


@pytest.fixture(scope="module")
def dbs() -> Iterator[Databases]:
    """A shop whose batches A to G count as passed, with the reads on for all."""
    with serving.environment(), pipeline.fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        ours = made.databases
        sources.create(ours.balisnap, ours.bstadmin, bookings=60, seed=7, as_of=AS_OF)
        made.run("A", "E", AS_OF, gates=False)
        with postgres.connect(ours.ops, autocommit=True) as conn:
            for code in "ABCDEFG":
                steps.set_state(conn, run_of(ours), code, "PASS")
            flags.change(conn, READS, True, reason="G is through", rollout=Rollout())
            conn.execute(DRILLED)
            serving.ui_checked(conn)
        yield ours


def run_of(dbs: Databases) -> steps.Run:
    return steps.Run(run_id=uuid7(), databases=dbs, as_of=AS_OF)


@pytest.fixture(scope="module")
def service(dbs: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service that the run calls, and the environment of who calls it."""
    given = {
        "OPS_DB_URL": dbs.ops,
        "BALISNAP_DB_URL": dbs.balisnap,
        "BSTADMIN_DB_URL": dbs.bstadmin,
        "BSTADMIN_WRITE_DB_URL": dbs.bstadmin,
        "OPS_TESTERS": "ayu",
        "PHASE2_REPORTS": str(tmp_path_factory.mktemp("reports")),
    }
    with pytest.MonkeyPatch.context() as patch:
        # what is made to fail here is no incident; tests/test_guardrails.py has those
        patch.setattr(minutes.Minutes, "count", lambda *_: None)
        patch.setattr(write_cutover, "LATEST", timedelta(seconds=0.5))
        for name, value in given.items():
            patch.setenv(name, value)
        settings.cache_clear()
        core_settings.cache_clear()
        with serving.service(dbs.ops, bstadmin_url=dbs.bstadmin, bstadmin_write_url=dbs.bstadmin) as url:
            patch.setenv("CORE_API_URL", url)
            core_settings.cache_clear()
            yield url
    settings.cache_clear()
    core_settings.cache_clear()


@pytest.fixture(scope="module")
def conn(dbs: Databases) -> Iterator[psycopg.Connection]:
    with postgres.connect(dbs.ops, autocommit=True) as made:
        yield made


def notes(dbs: Databases) -> list[tuple[Any, ...]]:
    """Of both sides what is no time of writing."""
    with postgres.connect(dbs.bstadmin) as theirs, postgres.connect(dbs.ops) as ours:
        return [
            *theirs.execute("select to_jsonb(b) - 'updated_at' from public.bookings as b order by booking_id"),
            *ours.execute("select to_jsonb(c) - 'updated_at' from public.booking_core as c order by booking_key"),
        ]


@pytest.fixture(scope="module")
def first(dbs: Databases, service: str) -> tuple[gates.Verdict, bool]:
    """The verdict of its run, and whether that left both sides as they were."""
    run, before = run_of(dbs), notes(dbs)
    steps.start(run, H)
    for step in H.plan:
        steps.execute(run, H, step)
    return steps.conclude(run, H).verdict, notes(dbs) == before


def test_h_lets_the_testers_write_notes_and_changes_nothing_by_looking(
    conn: psycopg.Connection, first: tuple[gates.Verdict, bool]
) -> None:
    verdict, unchanged = first
    other = {g.gate_id: g.status for g in verdict.gates if g.status != "PASS"}
    # a small shop says little of what the guardrails measure
    assert {gate: status for gate, status in other.items() if gate not in MEASURED} == {"H-03": "N/A"}
    assert {status for gate, status in other.items() if gate in MEASURED} <= {"N/A"}, verdict.exceptions
    assert {g.gate_id for g in verdict.gates} >= set(H.gates)
    assert (verdict.result, unchanged) == ("PASS", True)
    row = flags.read(conn)[WRITES].rollout
    assert (row.percentage, row.actors, row.modules) == (0, ("ayu",), ("note", "meeting_point"))
    assert rollout.LADDERS["H"].at(flags.read(conn)) == 0
    written = conn.execute(
        "select actor, mode, core_status, legacy_status from phase2.write_intents order by place"
    ).fetchall()
    assert written == [("ayu", "DUAL", "DONE", "DONE"), ("check-0", "LEGACY", "BEHIND", "DONE")]
    looked = conn.execute("select detail from phase2.step_log where step = 'service write'").fetchone()
    assert looked is not None
    assert looked[0]["old path still"] == ["assignment", "booking"]


# --- what holds it -------------------------------------------------------------------------------------------------


def step(dbs: Databases, name: str) -> None:
    steps.execute(run_of(dbs), H, next(one for one in H.plan if one.name == name))


def test_each_look_ends_the_run_by_its_name(
    request: pytest.FixtureRequest,
    dbs: Databases,
    conn: psycopg.Connection,
    service: str,
    first: tuple[gates.Verdict, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conn.execute(postgres.statement("create role {} login password 'x'", READER))
    request.addfinalizer(lambda: conn.execute(postgres.statement("drop role {}", READER)))
    flags.change(conn, READS, True, reason="back", rollout=Rollout(percentage=50))
    with pytest.raises(GateFailed, match="service ladder: the reads are on for 50 %, and writes wait"):
        step(dbs, "service ladder")
    flags.change(conn, READS, True, reason="through", rollout=Rollout())
    reader = postgres.conninfo.make_conninfo(dbs.bstadmin, user=READER, password="x")
    for url, says in (
        (dbs.balisnap, "another database than BSTADMIN_DB_URL"),
        (reader, "lacks rights"),
        (reader, "takes no writes: it is a replica"),
    ):
        if "no writes" in says:
            conn.execute(postgres.statement("alter role {} set default_transaction_read_only = on", READER))
        monkeypatch.setenv("BSTADMIN_WRITE_DB_URL", url)
        core_settings.cache_clear()
        with pytest.raises(GateFailed, match=f"service writer: .*{says}"):
            step(dbs, "service writer")
    monkeypatch.setenv("BSTADMIN_WRITE_DB_URL", dbs.bstadmin)
    core_settings.cache_clear()
    with monkeypatch.context() as replica:
        replica.setattr(postgres, "identity", lambda url: uuid4())  # a server of its own, of the same lineage
        with pytest.raises(GateFailed, match="are a server and its replica"):
            step(dbs, "service writer")
    with serving.service(dbs.ops, bstadmin_url=dbs.bstadmin) as deaf:
        monkeypatch.setenv("CORE_API_URL", deaf)
        core_settings.cache_clear()
        with pytest.raises(GateFailed, match="service write: a write of ayu answers 503"):
            step(dbs, "service write")
    monkeypatch.undo()
    core_settings.cache_clear()
    steps.set_state(conn, run_of(dbs), "H", "PASS")


def test_a_rung_waits_for_both_sides_and_for_old_conflicts(
    dbs: Databases,
    conn: psycopg.Connection,
    service: str,
    first: tuple[gates.Verdict, bool],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """H-01 and H-03 hold the next rung, whoever has found it: the hourly flow, or the look at the ladder itself."""
    monkeypatch.setattr(rollout.door, "criteria", lambda conn, one: [])
    monkeypatch.setattr(rollout, "policy", lambda: POLICIES["production"])
    assert rollout.look(run_of(dbs), "H").holding == ["time on this rung"]
    monkeypatch.setattr(rollout, "policy", lambda: replace(POLICIES["local"], stands=timedelta(0)))
    _, number = written_one(conn)
    behind(dbs, number, "behind our back")
    conn.execute(AN_HOUR)
    assert write_cutover.hourly(dbs)[2] == ["H-01"]
    before = flags.read(conn)[WRITES]
    with pytest.raises(GateFailed, match="gates of H: measured now, blocked by H-01"):
        rollout.step_up(run_of(dbs), "H", "too early")
    conn.execute("update phase2.conflicts set detected_at = now() - interval '25 hours'")
    assert write_cutover.hourly(dbs)[2] == ["H-01", "H-03"]
    assert flags.read(conn)[WRITES] == before, "what is found switches nothing on, and nothing off"
    behind(dbs, number, None)
    conn.execute(AN_HOUR)
    assert write_cutover.hourly(dbs)[2] == []
    taken = rollout.step_up(run_of(dbs), "H", "settled")
    assert (taken.body["from"], taken.body["to"]) == ("note, meeting_point: testers", "note, meeting_point: 5 %")


# time passes, and the next look is at the same writes
AN_HOUR = """
update phase2.write_intents set accepted_at = now() - interval '10 minutes', touched_at = now();
delete from phase2.write_checks
"""


def written_one(conn: psycopg.Connection) -> tuple[UUID, int]:
    row = conn.execute("select i.booking_key, i.legacy_ids[1] from phase2.write_intents as i limit 1").fetchone()
    assert row is not None
    return row


def behind(dbs: Databases, number: int, note: str | None) -> None:
    with postgres.connect(dbs.bstadmin, autocommit=True) as theirs:
        theirs.execute(
            "update public.bookings set note = %s, updated_at = updated_at + interval '1 s' where booking_id = %s",
            (note, number),
        )


# --- off -----------------------------------------------------------------------------------------------------------


def test_rolled_back_by_command_under_live_traffic(
    dbs: Databases, conn: psycopg.Connection, service: str, first: tuple[gates.Verdict, bool]
) -> None:
    """No write fails, none is lost; the command prints the time to the old path, which is evidence of H-04."""
    flags.change(conn, WRITES, True, reason="all", rollout=Rollout())
    rows = conn.execute(
        "select c.booking_key, r.external_ref::integer from public.booking_core as c join public.channel_external_refs"
        " as r on r.entity_key = c.booking_key and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'"
        " where c.tour_date < '2026-11-01' order by c.tour_date desc limit 3"
    ).fetchall()
    stop, answers, last = threading.Event(), [], {}
    headers = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "MANAGER", "x-actor": "ayu"}

    def write(key: UUID) -> None:
        path = f"/v1/ops/bookings/{key}"
        with httpx.Client(base_url=service, headers=headers, timeout=20, trust_env=False) as client:
            version = client.get(f"{path}/state").json()["data"]["stateVersion"]
            for number in range(100_000):
                if stop.wait(0.02):
                    return
                answer = client.patch(path, json={"stateVersion": version, "note": f"note {number}"},
                                      headers={"x-idempotency-key": uuid4().hex})  # fmt: skip
                answers.append((answer.status_code, answer.json().get("data", {}).get("core"), answer.text))
                if answer.status_code != 200:
                    return
                version, last[key] = answer.json()["data"]["state"]["stateVersion"], f"note {number}"

    people = [threading.Thread(target=write, args=(key,)) for key, _ in rows]
    time.sleep(flags.FRESH_SECONDS + 0.5)
    for one in people:
        one.start()
    try:
        time.sleep(1.0)
        done = CliRunner().invoke(app, ["rollback", "--batch", "H", "--json"], catch_exceptions=False)
        time.sleep(0.3)
    finally:
        stop.set()
        for one in people:
            one.join()
    assert (done.exit_code, json.loads(done.stdout)["rolled_back"]) == (0, True)
    assert {status for status, *_ in answers} == {200}, answers[-1]
    assert {core for _, core, _ in answers} == {"DONE", "BEHIND"}
    found = conn.execute("select passed, measured from phase2.drills order by ended_at desc limit 1").fetchone()
    assert found is not None
    measured = found[1]
    assert (found[0], measured["batch"], measured["left"], measured["lost"]) == (True, "H", 0, 0)
    print(f"{len(answers)} writes, none failed; {measured['seconds_to_old_path']} s to the old path")
    assert 0 <= measured["seconds_to_old_path"] < 5
    with postgres.connect(dbs.bstadmin) as theirs:
        for key, number in rows:
            held = theirs.execute("select note from public.bookings where booking_id = %s", (number,)).fetchone()
            assert held == (last[key],)
    assert not flags.read(conn)[WRITES].enabled
    entry = ledger.latest(conn, "drill", batch="H")
    assert entry is not None
    assert conn.execute("select status from phase2.batch_state where batch = 'H'").fetchone() == ("ROLLED_BACK",)


# --- rehearsed -----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_rehearsal_of_h_writes_to_what_stands_in_for_bstadmin(
    dbs: Databases, service: str, first: tuple[gates.Verdict, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = steps.execute
    # what dbt does in a rehearsal is test_rehearsal's; here it would be a minute
    monkeypatch.setattr(steps, "execute", lambda *of: execute(*of) if of[2].kind in ("service", "flag") else None)
    monkeypatch.setattr(rehearsal, "_print_views_anew", lambda run: None)
    monkeypatch.setattr(drills, "_START_SECONDS", 90.0)
    before = notes(dbs)
    [entry] = rehearsal.perform(run_of(dbs), [H])
    assert rehearsal.failures(entry.body) == []
    assert "reads switched on for all" in entry.body["made_ready"]
    assert notes(dbs) == before
