"""Batch G against a real service: forward to PASS, up and down its ladder, off under traffic with no request failed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bridge import (
    door,
    fingerprint,
    flags,
    gates,
    incidents,
    ledger,
    postgres,
    reads,
    rollback,
    rollout,
    scripts,
    sources,
    steps,
)
from bridge.batches import BATCHES
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun, GateFailed
from bridge.flags import Rollout, Row
from bridge.reads import READS
from bridge.runlog import uuid7
from bridge.settings import Databases, settings
from core_api import minutes
from core_api.console import session as sessions
from core_api.ops import shadow, sides
from tests import pipeline, serving
from tests.ops_parts import AS_OF, admin, shadow_reads

G = BATCHES["G"]
MEASURED = ("G-03", "G-05", "G-06")
CONTENT = ["public", "phase2", "ops_read"]
SLOW = {"served_seconds": 1.0, "shadow_seconds": 1.0}  # beside which a busy machine's own reads weigh nothing


# --- the ladders, without a database -------------------------------------------------------------------------------

_PEOPLE = st.lists(st.sampled_from(["up", "down"]), max_size=40)


def climbed(ladder: rollout.Ladder, to: int) -> dict[str, Row]:
    """The rows of the flags on this rung, as steps leave them."""
    rows: dict[str, Row] = {"WEB_EMIT_BOOKING_EVENT_ENABLED": Row(True, Rollout(percentage=5))}
    for rung in ladder.rungs[: to + 1]:
        rows[rung.flag] = Row(True, rung.rollout.model_copy(update={"actors": ("ayu",)} if rung.flag != WEB else {}))
    return rows


WEB = "WEB_EMIT_BOOKING_EVENT_ENABLED"
ACTORS = ["ayu", *(f"person-{number}" for number in range(60))]
MODULES = {"G": [None], "H": ["note", "meeting_point", "assignment", "booking"]}


@pytest.mark.parametrize("code", ["G", "H"])
def test_each_rung_opens_what_those_below_do_and_more_and_is_found_again(code: str) -> None:
    ladder = rollout.LADDERS[code]
    assert ladder.at({}) == -1
    before: set[object] = set()
    for number, rung in enumerate(ladder.rungs):
        rows = climbed(ladder, number)
        assert ladder.at(rows) == number, rung.name
        opened: set[object] = {
            (rung.flag, actor, module)
            for actor in ACTORS
            for module in MODULES[code]
            for flag in {rung.flag for rung in ladder.rungs}
            if flags.is_on(flag, rows, actor=actor, module=module)
            for rung in [rollout.Rung("", flag, Rollout())]
        }
        assert before < opened, f"{rung.name} opens nothing more, or takes somebody away"
        before = opened
    assert len(before) == len(ACTORS) * len(MODULES[code]) * len({rung.flag for rung in ladder.rungs})


def test_writes_begin_with_what_is_low_in_risk_and_the_web_comes_last() -> None:
    rungs = rollout.LADDERS["H"].rungs
    assert [rung.covers for rung in rungs[:5]] == [("note", "meeting_point")] * 5
    assert [rung.name for rung in rungs[4:7]] == [
        "note, meeting_point: 100 %",
        "assignment: testers",
        "assignment: 5 %",
    ]
    rows = climbed(rollout.LADDERS["H"], 5)
    assert flags.is_on("OPS_WRITE_CORE_ENABLED", rows, actor="nobody", module="note")
    assert not flags.is_on("OPS_WRITE_CORE_ENABLED", rows, actor="nobody", module="assignment")
    assert flags.is_on("OPS_WRITE_CORE_ENABLED", rows, actor="ayu", module="assignment")
    assert not flags.is_on("OPS_WRITE_CORE_ENABLED", rows, actor="ayu", module="booking")
    assert rungs[-1].flag == WEB
    assert climbed(rollout.LADDERS["H"], 14)["OPS_WRITE_CORE_ENABLED"].rollout.modules == ()  # all, later ones too


@given(percentage=st.floats(0, 100), enabled=st.booleans())
def test_what_a_hand_has_set_stands_on_the_rung_that_it_reaches(percentage: float, enabled: bool) -> None:
    at = rollout.LADDERS["G"].at({READS: Row(enabled, Rollout(percentage=percentage))})
    assert at == (sum(percentage >= part for part in (0, 5, 25, 50, 100)) - 1 if enabled else -1)


# --- the batch -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dbs() -> Iterator[Databases]:
    """A shop whose batches A to F count as passed."""
    with serving.environment(), pipeline.fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        ours = made.databases
        sources.create(ours.balisnap, ours.bstadmin, bookings=120, seed=7, as_of=AS_OF)
        made.run("A", "E", AS_OF, gates=False)
        with postgres.connect(ours.ops, autocommit=True) as conn:
            for code in "ABCDEF":
                steps.set_state(conn, run_of(ours), code, "PASS")
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
        "OPS_TESTERS": "ayu, Made@Example.com",
        "OPS_SHADOW_PERCENTAGE": "100",
        "PHASE2_REPORTS": str(tmp_path_factory.mktemp("reports")),
    }
    with pytest.MonkeyPatch.context() as patch:
        # what is made to fail here is no incident; tests/test_guardrails.py has those
        patch.setattr(minutes.Minutes, "count", lambda *_: None)
        patch.setattr(shadow, "AGAIN_SECONDS", 0.0)
        patch.setattr(sides, "FLUSH_SECONDS", 0.3)
        for name, value in given.items():
            patch.setenv(name, value)
        settings.cache_clear()
        core_settings.cache_clear()
        with serving.service(dbs.ops, bstadmin_url=dbs.bstadmin) as url:
            patch.setenv("CORE_API_URL", url)
            core_settings.cache_clear()
            yield url
    settings.cache_clear()
    core_settings.cache_clear()


@pytest.fixture(scope="module")
def conn(dbs: Databases) -> Iterator[psycopg.Connection]:
    with postgres.connect(dbs.ops, autocommit=True) as made:
        yield made


def forward(dbs: Databases) -> gates.Verdict:
    run = run_of(dbs)
    steps.start(run, G)
    for step in G.plan:
        steps.execute(run, G, step)
    return steps.conclude(run, G).verdict


@pytest.fixture(scope="module")
def before(dbs: Databases, conn: psycopg.Connection) -> fingerprint.Fingerprint:
    """What stands before the batch; its flag is off by a row, as after a rollback."""
    scripts.run_script(dbs.ops, "rollback/G.sql")
    return fingerprint.take(conn, schemas=CONTENT)


@pytest.fixture(scope="module")
def first(dbs: Databases, service: str, conn: psycopg.Connection, before: fingerprint.Fingerprint) -> gates.Verdict:
    for read in ("bookings", "booking", "assignments", "finance"):
        shadow_reads(conn, read, 95, **SLOW)  # the rest is the run's to read
    return forward(dbs)


def test_g_opens_the_pages_to_the_testers_and_passes(
    conn: psycopg.Connection, service: str, first: gates.Verdict
) -> None:
    other = {g.gate_id: g.status for g in first.gates if g.status != "PASS"}
    # a small shop says little of what the guardrails measure
    assert {gate: status for gate, status in other.items() if gate not in MEASURED} == {"BG-03": "N/A"}
    assert {status for gate, status in other.items() if gate in MEASURED} <= {"N/A"}
    assert {g.gate_id for g in first.gates} >= set(G.gates)
    assert first.result == "PASS"
    to = flags.read(conn)[READS].rollout
    assert (to.percentage, to.actors, to.emails) == (0, ("ayu",), ("made@example.com",))
    seen = conn.execute("select detail from phase2.step_log where step = 'service pages'").fetchone()
    assert seen is not None
    assert {seen[0]["ayu"], seen[0]["check-0"]} == {"4 pages by new", "4 pages by legacy"}
    assert min(seen[0]["compared"].values()) >= 100


def test_a_page_that_is_not_served_as_the_flag_says_ends_the_run(
    dbs: Databases, service: str, conn: psycopg.Connection, first: gates.Verdict
) -> None:
    pages = next(step for step in G.plan if step.name == "service pages")
    conn.execute("alter view ops_read.ops_finances rename to away")
    try:
        with pytest.raises(GateFailed, match=r"service pages: finance/summary for ayu: 200 by legacy; fallback"):
            steps.execute(run_of(dbs), G, pages)
    finally:
        conn.execute("alter view ops_read.away rename to ops_finances")
        steps.set_state(conn, run_of(dbs), "G", "PASS")


def test_a_page_that_drifted_fails_g_07_and_so_does_no_check_at_all(
    conn: psycopg.Connection, first: gates.Verdict
) -> None:
    def asked() -> gates.Gate:
        conn.execute("delete from dbt_recon.recon_g_reading")
        return {g.gate_id: g for g in gates._read(conn, "G", uuid7()).gates}["G-07"]

    with conn.transaction(force_rollback=True):
        seen = [("overview-desktop", True, None), ("overview-phone", False, {"state": "DRIFT"})]
        gates.record_inputs(conn, uuid7(), "G-07", seen)
        gate = asked()
        assert (gate.status, gate.value, gate.denominator) == ("FAIL", 1, 2)
        assert gate.detail["drifted"] == ["overview-phone"]
        conn.execute("delete from phase2.gate_inputs where gate_id = 'G-07'")
        assert asked().status == "FAIL"


def test_an_open_critical_incident_fails_bg_03_which_names_it(conn: psycopg.Connection, first: gates.Verdict) -> None:
    with conn.transaction(force_rollback=True):
        conn.execute("delete from dbt_recon.recon_g_reading")
        minor = incidents.opened(conn, "a slow morning", "minor", "complaint")
        one = incidents.opened(conn, "no drivers on the board, call +6281234567890", "critical")
        gate = {g.gate_id: g for g in gates._read(conn, "G", uuid7()).gates}["BG-03"]
        assert (gate.status, gate.value, gate.exceptions) == ("FAIL", 1, 1)
        assert [i.incident_id for i in incidents.listed(conn)] == [one, minor]
        assert incidents.listed(conn)[0].title == "no drivers on the board, call •••"
        incidents.close(conn, one, "the filter was set")
        with pytest.raises(CouldNotRun, match="no such open incident"):
            incidents.close(conn, one, "again")
        gate = {g.gate_id: g for g in gates._read(conn, "G", uuid7()).gates}["BG-03"]
        assert (gate.status, gate.denominator) == ("PASS", 1)
        assert not [p for p in ledger.verify(conn) if "incidents" in p.where]
        conn.execute("update phase2.incidents set severity = 'minor' where incident_id = %s", (one,))
        assert [p for p in ledger.verify(conn) if str(one) in p.where], "who plays one down is found"


# --- up and down ---------------------------------------------------------------------------------------------------


@pytest.fixture
def climber(
    dbs: Databases, conn: psycopg.Connection, first: gates.Verdict, monkeypatch: pytest.MonkeyPatch
) -> steps.Run:
    """The door of the batch is tests/test_door.py's: here A to F have no verdicts of their own."""
    monkeypatch.setattr(rollout.door, "criteria", lambda conn, one: [])
    return run_of(dbs)


def test_up_one_rung_when_nothing_holds_it_and_down_whatever_does(climber: steps.Run, conn: psycopg.Connection) -> None:
    seen = rollout.look(climber, "G")
    assert (seen.now, seen.next.name, seen.holding) == ("testers", "5 %", ["shadow reads"])
    with pytest.raises(GateFailed, match="shadow reads: bookings: 0 of"):
        rollout.step_up(climber, "G", "too early")
    refused = ledger.latest(conn, "refused", batch="G")
    assert refused is not None
    assert refused.body["rung"] == "5 %"

    enough(conn)
    one = incidents.opened(conn, "the list is empty", "critical")
    with pytest.raises(GateFailed, match="gates of G: measured now, blocked by BG-03"):
        rollout.step_up(climber, "G", "an incident is open")
    incidents.close(conn, one, "it was a filter")
    taken = rollout.step_up(climber, "G", "a quiet week")
    assert (taken.body["from"], taken.body["to"], taken.subject) == ("testers", "5 %", "5 %")
    assert {line["state"] for line in taken.body["criteria"]} == {"PASS"}
    row = flags.read(conn)[READS]
    assert (row.rollout.percentage, row.rollout.actors) == (5, ("ayu",))
    assert rollout.look(climber, "G").holding == ["shadow reads"], "each rung needs samples of its own"

    down = rollout.step_down(climber, "G", "one complaint")
    assert (down.body["from"], down.body["to"]) == ("5 %", "testers")
    rollout.step_down(climber, "G", "another")
    assert not flags.read(conn)[READS].enabled
    with pytest.raises(CouldNotRun, match="stands on no rung"):
        rollout.step_down(climber, "G", "a third")
    with pytest.raises(CouldNotRun, match="its flag is off"):
        rollout.look(climber, "G")
    flags.change(conn, READS, True, reason="by hand", rollout=Rollout(percentage=100))
    assert rollout.look(climber, "G").next is None
    with pytest.raises(CouldNotRun, match="at the top"):
        rollout.step_up(climber, "G", "still")
    flags.change(conn, READS, True, reason="back", rollout=reads.testers())


def enough(conn: psycopg.Connection) -> None:
    for read in ("bookings", "booking", "assignments", "finance"):
        shadow_reads(conn, read, 299, **SLOW)
    shadow_reads(conn, "bookings", 20, kind="calibration")


def test_the_commands_teach_and_answer_by_their_exit_code(
    climber: steps.Run, service: str, conn: psycopg.Connection
) -> None:
    def phase2(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, words)
        return done.exit_code, done.output or str(done.exception)

    # since the flag was last switched on nobody has read: BG-02 would have nothing to measure
    assert httpx.get(f"{service}/v1/ops/bookings", headers=admin("ayu"), trust_env=False).status_code == 200
    time.sleep(4 * sides.FLUSH_SECONDS)
    code, said = phase2("rollout", "G")
    assert code == 1
    assert "NO GO  testers → 5 %  " in said
    assert said.rstrip().endswith("shadow reads"), said
    assert phase2("incident", "open", "--title", "slow", "--severity", "minor")[0] == 0
    assert phase2("incident", "list")[0] == 0


def passed(conn: psycopg.Connection, code: str) -> None:
    """What a run of a batch leaves that has passed."""
    run_id = uuid7()
    conn.execute(
        "insert into phase2.gate_results (run_id, evaluated_at, batch, gate_id, value, comparator, threshold, status)"
        " select %s, now(), %s, g, 0, '<=', 1, 'PASS' from unnest(%s::text[]) as g",
        (run_id, code, list(gates._asked(code))),
    )
    body = {"result": "PASS", "opens_door": True, "bound_to": door.bound_to(conn, BATCHES[code]), "failed": []}
    ledger.append(conn, "verdict", batch=code, run_id=run_id, body=body)


def test_the_console_takes_a_rung_by_the_command_in_a_process_of_its_own(
    dbs: Databases, service: str, conn: psycopg.Connection, first: gates.Verdict
) -> None:
    """Nothing is replaced in that process: it compares both sides, measures the gates and asks the door itself."""
    enough(conn)
    known = core_settings()
    session = sessions.opened(known, "kadek", "Ops Lead")
    with httpx.Client(base_url=service, trust_env=False, timeout=30) as client:
        client.cookies.set(sessions.cookie_name(), sessions.sealed(session, known))

        def press(which: str) -> str:
            sent = {"token": sessions.token(session, known), "reason": "a quiet week"}
            assert client.post(f"/console/rollout/G/{which}", data=sent).status_code == 303
            deadline = time.monotonic() + 120
            while "being looked at" in (page := client.get("/console/flags").text) and time.monotonic() < deadline:
                time.sleep(0.3)
            return page[page.index("kadek asked for the next rung") :][:3000]

        page = press("up")
        assert ": refused." in page, page
        assert "gates of F: not passed" in page
        assert rollout.LADDERS["G"].at(flags.read(conn)) == 0
        for code in "ABCDEF":
            passed(conn, code)
        page = press("up")
        assert ": taken." in page, page
        assert rollout.LADDERS["G"].at(flags.read(conn)) == 1
        taken = ledger.latest(conn, "rollout", batch="G")
        assert taken is not None
        assert (taken.actor, taken.body["from"], taken.body["to"]) == ("kadek", "testers", "5 %")
        assert {line["name"] for line in taken.body["criteria"]} >= {
            "gates of G",
            "shadow reads",
            "gates of F",
            "no stop",
        }
        press("down")
    assert rollout.LADDERS["G"].at(flags.read(conn)) == 0


# --- off -----------------------------------------------------------------------------------------------------------


def test_rolled_back_under_live_traffic(
    dbs: Databases, service: str, conn: psycopg.Connection, before: fingerprint.Fingerprint, first: gates.Verdict
) -> None:
    """No request fails; within seconds bstadmin answers all of them, and what the batch made is gone, exactly."""
    stop, answers = threading.Event(), []

    def read(actor: str) -> None:
        with httpx.Client(base_url=service, timeout=20, trust_env=False) as client:
            for path in reads._LISTS * 10_000:
                if stop.is_set():
                    return
                answer = client.get(f"/v1/ops/{path}", headers=admin(actor))
                answers.append((time.monotonic(), answer.status_code, answer.headers.get("x-served-by")))

    people = [threading.Thread(target=read, args=(actor,)) for actor in ("ayu", "wayan")]
    flags.change(conn, READS, True, reason="everybody", rollout=Rollout())
    for one in people:
        one.start()
    try:
        time.sleep(flags.FRESH_SECONDS + 0.5)
        toggled = time.monotonic()
        rollback.roll_back(run_of(dbs), G)
        time.sleep(0.3)
    finally:
        stop.set()
        for one in people:
            one.join()
    assert {status for _, status, _ in answers} == {200}
    new = [at for at, _, side in answers if side == "new"]
    assert len(new) > 20
    print(
        f"{len(answers)} reads, none failed; {max(new) - toggled:.1f} s from the toggle to the last by the read model"
    )
    assert {side for at, _, side in answers if at > max(new)} == {"legacy"}
    found = conn.execute("select passed, measured from phase2.drills order by ended_at desc limit 1").fetchone()
    assert found is not None
    assert (found[0], found[1]["batch"]) == (True, "G")
    assert max(new) - toggled <= found[1]["seconds_to_old_path"] + 0.5 < 5.5
    entry = ledger.latest(conn, "drill")
    assert entry is not None
    assert entry.batch == "G"
    assert conn.execute("select to_regnamespace('ops_read')").fetchone() == (None,)
    assert fingerprint.difference(before, fingerprint.take(conn, schemas=CONTENT)) == []
    with pytest.raises(CouldNotRun, match="batch G is not in, or its flag is off: its run takes the first rung"):
        rollout.look(run_of(dbs), "G")
