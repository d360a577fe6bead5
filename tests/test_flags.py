"""Flags (cutover.md): environment, row, kill switch; who is in; what the ledger keeps; the command."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import flags, ledger, postgres, steps
from bridge.core_settings import core_settings
from bridge.flags import Rollout, Row

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
