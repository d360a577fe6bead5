"""Flags (cutover.md): environment, row, kill switch; who is in; what the ledger keeps; the command."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from bridge import flags, ledger, policy, postgres, rollout, steps, stop
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun, GateFailed
from bridge.flags import Rollout, Row
from bridge.settings import settings
from core_api import app as service
from core_api.ingest import sweeper, worker

READS = "OPS_READ_NEW_MODEL_ENABLED"


def on(rollout: Rollout) -> dict[str, Row]:
    return {READS: Row(True, rollout)}


@pytest.mark.parametrize(
    ("environment", "row", "kill", "expected"),
    [
        ("false", None, "", False),
        ("true", None, "", True),
        ("true", Row(False), "", False),
        ("false", Row(True), "", True),
        ("true", Row(True), READS, False),
        ("true", Row(True), "INGEST_QUEUE_ENABLED, all", False),
        ("true", Row(True), READS.lower(), False),
        ("true", Row(True), "INGEST_QUEUE_ENABLED", True),
    ],
)
def test_the_row_beats_the_environment_and_the_kill_switch_beats_both(monkeypatch, environment, row, kill, expected):
    monkeypatch.setenv(READS, environment)
    monkeypatch.setenv("PHASE2_KILL", kill)
    core_settings.cache_clear()
    try:
        assert flags.is_on(READS, {READS: row} if row else {}) is expected
    finally:
        monkeypatch.undo()
        core_settings.cache_clear()


@given(actor=st.text(min_size=1), low=st.floats(0, 100), high=st.floats(0, 100))
def test_an_actor_stays_in_while_the_percentage_grows(actor, low, high):
    low, high = sorted((low, high))
    was = flags.is_on(READS, on(Rollout(percentage=low)), actor=actor)
    assert was is flags.is_on(READS, on(Rollout(percentage=low)), actor=actor)
    assert not was or flags.is_on(READS, on(Rollout(percentage=high)), actor=actor)


def test_a_percentage_is_that_part_of_the_actors_and_another_part_for_another_flag():
    people = [f"user-{number}" for number in range(4000)]
    in_reads = {one for one in people if flags.is_on(READS, on(Rollout(percentage=25)), actor=one)}
    write = {"OPS_WRITE_CORE_ENABLED": Row(True, Rollout(percentage=25))}
    in_writes = {one for one in people if flags.is_on("OPS_WRITE_CORE_ENABLED", write, actor=one)}
    assert 900 < len(in_reads) < 1100
    assert 180 < len(in_reads & in_writes) < 320, "a quarter of a quarter: the two are not the same people"


@pytest.mark.parametrize(
    ("rollout", "who", "expected"),
    [
        (Rollout(percentage=0), {"actor": "ayu"}, False),
        (Rollout(percentage=0, actors=("ayu",)), {"actor": "ayu"}, True),
        (Rollout(percentage=0, actors=("ayu",)), {"actor": "made"}, False),
        (Rollout(percentage=0, emails=("ayu@example.com",)), {"email": "Ayu@Example.com"}, True),
        (Rollout(percentage=50), {}, False),
        (Rollout(), {}, True),
        (Rollout(channels=("GYG",)), {"channel": "GYG"}, True),
        (Rollout(channels=("GYG",)), {"channel": "VIATOR"}, False),
        (Rollout(channels=("GYG",)), {}, False),
        (Rollout(modules=("note",), actors=("ayu",)), {"module": "assignment", "actor": "ayu"}, False),
        (Rollout(modules=("note",)), {"module": "note"}, True),
    ],
)
def test_who_is_in(rollout, who, expected):
    assert flags.is_on(READS, on(rollout), **who) is expected
    assert not flags.is_on(READS, {READS: Row(False, rollout)}, **who)


def test_a_change_is_in_the_ledger_without_addresses_and_keeps_the_rollout(database):
    steps.bootstrap(database)
    with postgres.connect(database, application_name="test", autocommit=True) as conn:
        rollout = Rollout(percentage=5, emails=("ayu@example.com",))
        flags.change(conn, READS, True, reason="testers", rollout=rollout, actor="made")
        flags.change(conn, READS, False, reason="back", actor="made")
        assert flags.read(conn)[READS] == Row(False, rollout)
        told = ledger.entries(conn, "flag", subject=READS)
    assert [entry.actor for entry in told] == ["made", "made"]
    assert told[0].body["before"] is None
    assert told[1].body["before"] == {"enabled": True, "percentage": 5.0, "emails": 1}
    assert told[1].body["after"]["enabled"] is False
    assert "example.com" not in repr(told)


UNREADABLE = [
    '{"percentage": "many"}',
    '{"percentage": 101}',
    '{"channels": "GYG"}',
    '{"actors": null}',
    "null",
    "[5]",
    "5",
    '"all"',
]


def write(conn: psycopg.Connection, rollout: str, enabled: bool = True) -> None:
    """A row as somebody leaves it by hand."""
    conn.execute(
        "insert into phase2.flags (flag, enabled, rollout, reason, changed_by) values (%s, %s, %s::jsonb, 'x', 'x')"
        " on conflict (flag) do update set enabled = excluded.enabled, rollout = excluded.rollout",
        (READS, enabled, rollout),
    )


def test_a_row_that_cannot_be_read_is_off_is_shown_and_is_mended(database, monkeypatch):
    monkeypatch.setenv("OPS_DB_URL", database)
    for name in ("BALISNAP_DB_URL", "BSTADMIN_DB_URL"):
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:9/none")
    settings.cache_clear()
    steps.bootstrap(database)
    try:
        with postgres.connect(database, application_name="test", autocommit=True) as conn:
            for kept in UNREADABLE:
                write(conn, kept)
                rows = flags.read(conn)
                assert not flags.is_on(READS, rows, actor="ayu", email="ayu@example.com", channel="GYG")
                assert rows[READS].fault.startswith("off: cannot be read: ")
            [shown] = json.loads(CliRunner().invoke(app, ["flag", READS, "--json"]).stdout)
            assert (shown["enabled"], shown["fault"]) == (False, "off: cannot be read: all of it")
            assert "cannot be read" in CliRunner().invoke(app, ["flag"]).stdout
            # for whom is not known any more: nobody, until somebody says so
            assert CliRunner().invoke(app, ["flag", READS, "on", "--reason", "again"]).exit_code == 0
            assert flags.read(conn)[READS] == Row(True, Rollout(percentage=0))
            write(conn, "[5]")
            assert CliRunner().invoke(app, ["flag", READS, "off", "--reason", "mended"]).exit_code == 0
            assert flags.read(conn)[READS] == Row(False, Rollout(percentage=0))

            write(conn, '{"percent": 5, "channels": ["GYG"]}')  # meant for few: it must not become all
            row = flags.read(conn)[READS]
            assert row == Row(False, Rollout(percentage=0), "off: cannot be read: percent")
    finally:
        monkeypatch.undo()
        settings.cache_clear()


def test_what_a_person_asks_for_has_to_be_right():
    with pytest.raises(CouldNotRun, match="percent: "):
        flags.rollout_of({"percent": 5})


_NAMES = st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True).map(tuple)
_ROWS = st.builds(
    Row,
    st.booleans(),
    st.builds(
        Rollout,
        percentage=st.sampled_from([0.0, 40.0, 100.0]),
        **dict.fromkeys(("actors", "emails", "channels", "modules", "whole"), _NAMES),
    ),
)
_WHO = st.fixed_dictionaries(
    {name: st.sampled_from([None, "a", "b", "c"]) for name in ("actor", "email", "channel", "module")}
)


@given(before=_ROWS, after=_ROWS, who=_WHO)
def test_what_opens_no_more_lets_nobody_in(before, after, who):
    if not flags.opens_more(before, after) and flags.is_on(READS, {READS: after}, **who):
        assert flags.is_on(READS, {READS: before}, **who)


@pytest.fixture
def ops(database, monkeypatch, tmp_path):
    """A database with our state, named by the environment of the commands."""
    monkeypatch.setenv("OPS_DB_URL", database)
    monkeypatch.setenv("PHASE2_STOP_FILE", str(tmp_path / "stop"))
    for name in ("BALISNAP_DB_URL", "BSTADMIN_DB_URL"):
        monkeypatch.setenv(name, "postgresql://nobody@127.0.0.1:9/none")
    settings.cache_clear()
    steps.bootstrap(database)
    with postgres.connect(database, application_name="test", autocommit=True) as conn:
        yield conn
    monkeypatch.undo()
    settings.cache_clear()


def phase2(*words: str) -> str:
    """What a command says, or why it could not."""
    done = CliRunner().invoke(app, list(words))
    return "" if done.exit_code == 0 else str(done.exception)


@pytest.mark.parametrize("by", ["a person", "the file"])
def test_under_a_stop_nothing_is_opened_and_everything_can_be_shut(ops, by):
    assert phase2("flag", READS, "on", "--percentage", "25", "--reason", "testers") == ""
    if by == "the file":
        stop.file().write_text("payments look wrong")
    else:
        stop.ask(ops, "payments look wrong")
    for wider in (("--percentage", "50"), ("--actor", "ayu")):
        said = phase2("flag", READS, "on", *wider, "--reason", "impatient")
        assert "nothing is switched on while the migration is stopped" in said
        assert "payments look wrong" in said
        assert "phase2 resume" in said
    with pytest.raises(GateFailed, match="payments look wrong"):  # before anything is measured
        rollout.step_up(steps.prepare(), "G", "impatient")
    assert phase2("flag", READS, "on", "--percentage", "5", "--reason", "fewer") == ""
    assert phase2("flag", READS, "off", "--reason", "none") == ""
    assert "nothing is switched on" in phase2("flag", READS, "on", "--reason", "impatient")
    stop.lift(ops, "mended")
    assert phase2("flag", READS, "on", "--reason", "again") == ""
    assert [e.body["after"]["enabled"] for e in ledger.entries(ops, "flag")] == [True, True, False, True]


WRITES, WEB = "OPS_WRITE_CORE_ENABLED", "WEB_EMIT_BOOKING_EVENT_ENABLED"


def test_by_hand_no_flag_goes_past_its_ladder_but_where_the_policy_lets_it(ops, monkeypatch):
    def hand(flag: flags.Flag, **wanted: object) -> bool:
        try:
            rollout.by_hand(ops, flag, True, reason="a test", rollout=Rollout(**wanted))
        except CouldNotRun:
            return False
        rollout.by_hand(ops, flag, False, reason="off is always possible", rollout=Rollout(percentage=0))
        return True

    assert hand(READS)  # as local
    monkeypatch.setattr(rollout, "policy", lambda: policy.POLICIES["production"])
    assert not hand(READS, percentage=0)  # G is not in: its run opens it
    for code in "GH":
        ops.execute("insert into phase2.batch_state (batch, status) values (%s, 'PASS')", (code,))
    assert hand(READS, percentage=0, actors=("ayu",))
    assert not hand(READS, percentage=5)
    ledger.append(ops, "rollout", batch="G", subject="25 %")
    assert hand(READS, percentage=25)
    assert not hand(READS, percentage=25.1)
    assert "the ladder of G, whose last go is: 25 %" in phase2_in_production(monkeypatch, READS)
    ledger.append(ops, "rollback", batch="G")  # and run again
    assert not hand(READS, percentage=5)

    assert hand(WRITES, percentage=0, modules=("note", "meeting_point"))
    assert not hand(WRITES, percentage=0, modules=("assignment",))
    assert not hand(WRITES, percentage=0)  # all modules
    ledger.append(ops, "rollout", batch="H", subject="assignment: 25 %")
    low = ("note", "meeting_point")
    assert hand(WRITES, percentage=25, modules=(*low, "assignment"), whole=low)
    assert not hand(WRITES, percentage=25, modules=(*low, "assignment"), whole=(*low, "assignment"))
    assert hand(WEB, percentage=60)  # batch F widens it in parts
    assert not hand(WEB)  # all of it is the last rung of H
    ledger.append(ops, "rollout", batch="H", subject="web events: 100 %")
    assert hand(WEB)
    assert hand("INGEST_REPLAY_ENABLED")  # of no ladder


def phase2_in_production(monkeypatch, flag):
    monkeypatch.setenv("PHASE2_ENV", "production")
    settings.cache_clear()
    try:
        return phase2("flag", flag, "on", "--percentage", "100", "--reason", "all of them")
    finally:
        monkeypatch.delenv("PHASE2_ENV")
        settings.cache_clear()


def test_since_when_a_flag_is_on_stays_while_it_is_on(database):
    """Gate F-02 counts what waited for the queue from there: a switch repeated must not take it back to zero."""
    steps.bootstrap(database)
    with postgres.connect(database, application_name="test", autocommit=True) as conn:

        def since(enabled: bool, **rollout: float) -> datetime:
            flags.change(conn, READS, enabled, reason="test", rollout=Rollout(**rollout), actor="test")
            [(at,)] = conn.execute("select f.changed_at from phase2.flags as f").fetchall()
            return at

        begun = since(True)
        assert since(True) == begun
        assert since(True, percentage=5) == begun
        ended = since(False)
        assert ended > begun
        assert since(False) == ended
        assert since(True) > ended


def test_chores_and_sweeper_outlive_what_nobody_foresaw(monkeypatch):
    """Each looks first whether it is on; what goes wrong there ends the round, and no more."""
    looks, swept, forgotten = itertools.count(), asyncio.Event(), asyncio.Event()

    class Odd:
        async def is_on(self, *_: object) -> bool:
            if next(looks) == 0:
                raise RuntimeError("nobody foresaw it")
            return True

    async def sweep(*_: object) -> None:
        swept.set()

    async def forget(*_: object) -> None:
        forgotten.set()

    monkeypatch.setattr(sweeper, "sweep", sweep)
    monkeypatch.setattr(service, "forget", forget)
    one = object.__new__(worker.IngestWorker)
    one._flags, one._pool, one._queue = Odd(), None, None
    one._settings = core_settings().model_copy(update={"ingest_sweep_seconds": 0.01})

    async def run(task: Coroutine[Any, Any, None], done: asyncio.Event) -> None:
        nonlocal looks
        looks = itertools.count()
        running = asyncio.create_task(task)
        try:
            await asyncio.wait_for(done.wait(), 5)
        finally:
            running.cancel()

    asyncio.run(run(one._sweep(), swept))
    asyncio.run(run(service._chores(SimpleNamespace(flags=Odd(), pool=None)), forgotten))
