"""The conflict playbook: each rule found, simulated, applied as simulated, undone; what waits for a person; clocks."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from uuid import UUID

import pytest
from typer.testing import CliRunner

from bridge import conflicts, ledger, postgres, reversibility, runlog, warehouse, write_cutover
from bridge.cli import app
from bridge.commands import conflicts as commands
from bridge.commands import reversibility as reversibility_command
from bridge.errors import CouldNotRun
from bridge.settings import Databases
from core_api.errors import Refused
from tests.booking_events import START, Event, accept
from tests.booking_events import apply as play
from tests.write_parts import Booking, Sides

NOW = timedelta(0)


@pytest.fixture(autouse=True)
def _nothing_before(sides) -> None:
    sides.flag(False)
    sides.sql(
        "truncate phase2.write_intents, phase2.conflicts, phase2.tickets, phase2.booking_event_times,"
        " phase2.booking_freshness, phase2.ingest_keys, phase2.gate_inputs, public.ingest_event_log,"
        " public.payment_event cascade"
    )


@pytest.fixture
def databases(sides) -> Databases:
    return Databases(sides.ops, sides.bstadmin, sides.bstadmin, None)


def check(databases: Databases) -> conflicts.Check:
    return conflicts.reconcile(databases, settle=NOW)


def the_one(sides: Sides, booking: Booking) -> UUID:
    rows = sides.sql("select conflict_id from phase2.conflicts where booking_key = %s and status = 'OPEN'", booking.key)
    assert len(rows) == 1
    return rows[0][0]


def settled(sides: Sides, databases: Databases, key: UUID, keep: conflicts.Keep | None = None) -> conflicts.Plan:
    """Simulated, applied, and found as simulated on both sides; the plan."""
    (plan,) = conflicts.simulate(databases, conflict_id=key, keep=keep, settle=NOW)
    before = both(sides, plan)
    assert before == {side: {n: b for n, (b, _) in getattr(plan, side).items()} for side in ("core", "legacy")}
    ((applied, outcome),) = conflicts.apply(databases, conflict_id=key, keep=keep, reason="test", settle=NOW)
    assert (applied.core, applied.legacy) == (plan.core, plan.legacy)
    assert outcome == ("RESOLVED" if keep else "APPLIED")
    sides.sweep()
    assert both(sides, plan) == {side: {n: a for n, (_, a) in getattr(plan, side).items()} for side in before}
    return plan


def both(sides: Sides, plan: conflicts.Plan) -> dict[str, dict[str, object]]:
    """What both sides hold of what a plan changes."""
    core = sides.sql("select phase2.core_values(%s)", plan.conflict.booking_key)[0][0]
    booking_id = (plan.legacy_row or {}).get("booking_id")  # None: bstadmin does not hold it
    rows = sides.sql("select to_jsonb(b) from public.bookings as b where b.booking_id = %s", booking_id, legacy=True)
    return {"core": {n: core[n] for n in plan.core}, "legacy": {n: rows[0][0][n] for n in plan.legacy}}


def undone(sides: Sides, databases: Databases, plan: conflicts.Plan) -> None:
    conflicts.undo(databases, plan.conflict.conflict_id, reason="test")
    sides.sweep()
    assert both(sides, plan) == {
        side: {n: b for n, (b, _) in getattr(plan, side).items()} for side in ("core", "legacy")
    }
    assert the_one_status(sides, plan.conflict.conflict_id) == "OPEN"


def the_one_status(sides: Sides, key: UUID) -> str:
    return sides.sql("select status from phase2.conflicts where conflict_id = %s", key)[0][0]


def test_equal_sides_give_nothing(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="same")
    sides.write(booking, "assign", assigned_driver_id=1)
    found = check(databases)
    assert (found.checked, found.mismatched) == (1, 0)
    assert check(databases).checked == 0  # the window begins where the last one ended


def test_assignment_changed_on_both_sides_within_five_minutes(sides, databases):
    booking = sides.booking()
    sides.write(booking, "assign", assigned_driver_id=1)
    sides.behind(booking, assigned_driver_id=2)
    assert check(databases).conflicts == {"assignment": 1}
    key = the_one(sides, booking)
    plan = settled(sides, databases, key)
    assert plan.legacy["assigned_driver_id"] == (2, 1)
    assert plan.core == {}
    undone(sides, databases, plan)
    assert conflicts.apply(databases, conflict_id=key, reason="again", settle=NOW)[0][1] == "APPLIED"
    sides.sweep()
    assert sides.theirs(booking)["driver"] == sides.ours(booking)["driver"] == 1


def test_assignment_changed_later_waits_for_a_person(sides, databases):
    booking = sides.booking()
    sides.write(booking, "assign", assigned_driver_id=1)
    sides.sql(
        "update phase2.write_intents set accepted_at = accepted_at - interval '6 minutes' where booking_key = %s",
        booking.key,
    )
    sides.behind(booking, assigned_driver_id=2)
    assert check(databases).conflicts == {"choice": 1}
    key = the_one(sides, booking)
    assert conflicts.apply(databases, conflict_id=key, reason="test", settle=NOW)[0][1] == "WAITS"
    plan = settled(sides, databases, key, keep="legacy")
    assert plan.core["assigned_driver_id"] == (1, 2)
    assert sides.ours(booking)["driver"] == 2
    undone(sides, databases, plan)


def test_a_status_that_is_not_the_recomputed_one(sides, databases):
    booking = sides.booking()
    sides.write(booking, "sync")
    sides.behind(booking, status="CANCELLED")
    assert check(databases).conflicts == {"ops_state": 1}
    plan = settled(sides, databases, the_one(sides, booking))
    assert plan.core["ops_fulfillment_status"] == ("NEW", "CANCELLED")
    undone(sides, databases, plan)


def test_finance_is_bstadmins_and_leaves_a_ticket(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="x")
    sides.sql(
        "insert into public.ops_finance_bridge (finance_bridge_key, booking_key, booking_finance_id)"
        " values (gen_random_uuid(), %s, 1)",
        booking.key,
    )
    sides.sql(
        "insert into public.booking_finances (booking_id, is_locked, validated_at, updated_at)"
        " values (%s, true, '2026-03-01 10:00', now())",
        booking.id,
        legacy=True,
    )
    found = check(databases).conflicts
    assert found == {"finance": 1, "ops_state": 1}  # validated is COMPLETED
    key = sides.sql("select conflict_id from phase2.conflicts where booking_key = %s and rule = 'finance'", booking.key)
    plan = settled(sides, databases, key[0][0])
    assert plan.core == {"is_locked": (False, True), "validated_at": (None, "2026-03-01T10:00:00+00:00")}
    assert sides.sql("select count(*) from phase2.tickets where closed_at is null") == [(1,)]
    undone(sides, databases, plan)
    assert sides.sql("select count(*) from phase2.tickets where closed_at is null") == [(0,)]


@pytest.mark.parametrize("legacy", [True, False], ids=["in bstadmin", "not in bstadmin"])
def test_payments_that_came_in_the_wrong_order_are_told_in_their_own(sides, databases, legacy):
    """Nobody has written to the booking but them."""
    booking, other = sides.booking(legacy=legacy), sides.booking(legacy=legacy)
    for one in (booking, other):
        sides.sql("update public.booking_core set channel_code = 'DIRECT' where booking_key = %s", one.key)
        sides.sql("update public.bookings set source = 'DIRECT' where booking_id = %s", one.id, legacy=True)
    pay = (
        "insert into public.payment_event (payment_key, booking_key, payment_time, amount, payment_status_v2) select"
        " gen_random_uuid(), %s, timestamptz '2026-03-01' + p.minutes * interval '1 minute', 100, p.status"
        " from (values (10, 'REFUNDED'), (0, 'PAID')) as p (minutes, status) where p.status = any(%s)"
    )
    sides.sql(pay, other.key, ["REFUNDED", "PAID"])  # as a batch writes them: together
    sides.sql(pay, booking.key, ["REFUNDED"])  # the refund came first
    assert check(databases).checked == 0
    sides.sql(pay, booking.key, ["PAID"])
    found = check(databases)
    assert (found.conflicts, found.checked) == ({"payment": 1}, 1)
    plan = settled(sides, databases, the_one(sides, booking))
    assert plan.core["customer_payment_status"] == ("PAID", "REFUNDED")
    assert sides.sql("select count(*) from public.payment_event where booking_key = %s", booking.key) == [(2,)]
    undone(sides, databases, plan)


def test_a_header_that_differs_freezes_the_booking_until_a_person_says(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="x")
    sides.behind(booking, total_price=80)
    assert check(databases).conflicts == {"booking_header": 1}
    key = the_one(sides, booking)
    fresh = "select last_core_write_at > now() from phase2.booking_freshness where booking_key = %s"
    assert sides.sql(fresh, booking.key) == [(True,)], "a backfill would take it over"
    with pytest.raises(Refused) as refused:
        sides.write(booking, note="no")
    assert (refused.value.status, refused.value.code) == (409, "BOOKING_FROZEN")
    (plan,) = conflicts.simulate(databases, conflict_id=key, settle=NOW)
    assert (plan.rows, plan.money, plan.conflict.at_stake) == (0, 0, 20)  # never the latest: a person says
    assert conflicts.apply(databases, conflict_id=key, reason="test", settle=NOW)[0][1] == "WAITS"
    plan = settled(sides, databases, key, keep="core")
    assert plan.legacy == {"total_price": (80, 100)}
    assert plan.money == 20
    undone(sides, databases, plan)
    with pytest.raises(Refused, match="BOOKING_FROZEN"):
        sides.write(booking, note="no")
    plan = settled(sides, databases, key, keep="legacy")
    assert plan.core == {"total_price": (100, 80)}
    assert sides.sql(fresh, booking.key) == [(False,)]
    sides.write(booking, note="free again")
    assert sides.sql("select status from public.unmapped_queue where source_pk = %s", str(key)) == [("RESOLVED",)]


@pytest.mark.parametrize("keep", ["core", "legacy"])
def test_the_same_number_in_another_currency_is_another_total(sides, databases, keep):
    booking = sides.booking()
    sides.write(booking, note="x")
    sides.behind(booking, currency="IDR")
    assert check(databases).conflicts == {"booking_header": 1}
    plan = settled(sides, databases, the_one(sides, booking), keep=keep)
    assert plan.money == plan.conflict.at_stake == 100
    assert check(databases).mismatched == 0
    undone(sides, databases, plan)


@pytest.mark.parametrize(
    ("behind", "rule", "says"),
    [
        ({"source": "BOKUN", "total_price": 80}, "booking_header", "channel_code.*run D, then --keep both"),
        ({"status": "NO_SHOW"}, "ops_state", "ops_fulfillment_status.*apply --rule ops_state"),
    ],
)
def test_a_side_that_cannot_be_written_is_refused_in_words_and_settles_nothing(sides, databases, behind, rule, says):
    booking = sides.booking()
    sides.write(booking, "sync")
    sides.behind(booking, **behind)
    assert check(databases).conflicts == {rule: 1}
    key, held = the_one(sides, booking), (sides.ours(booking), sides.theirs(booking))
    for keep in ("core", "legacy"):
        with pytest.raises(CouldNotRun, match=says):
            conflicts.apply(databases, conflict_id=key, keep=keep, reason="test", settle=NOW)
    assert ([one for one, _ in sides.conflicts(booking)], held) == (
        [rule],
        (sides.ours(booking), sides.theirs(booking)),
    )
    assert conflicts.apply(databases, conflict_id=key, keep="both", reason="test", settle=NOW)[0][1] == "RESOLVED"


def test_no_rule_changes_a_booking_that_another_conflict_has_frozen(sides, databases):
    booking = sides.booking()
    sides.write(booking, "sync")
    sides.behind(booking, status="CANCELLED", total_price="100.01")
    assert check(databases).conflicts == {"ops_state": 1, "booking_header": 1}
    held = (sides.ours(booking), sides.theirs(booking))
    ((_, outcome),) = conflicts.apply(databases, rule="ops_state", reason="test", settle=NOW)
    sides.sweep()
    assert (outcome, held) == ("FROZEN", (sides.ours(booking), sides.theirs(booking)))


@pytest.mark.parametrize("behind", [{}, {"total_price": 80}], ids=["open", "frozen"])
def test_what_bstadmin_has_deleted_waits_for_a_person(sides, databases, behind):
    booking = sides.booking()
    sides.write(booking, note="x")
    sides.behind(booking, **behind)
    check(databases)
    sides.sql("delete from public.bookings where booking_id = %s", booking.id, legacy=True)
    sides.sql("update phase2.write_intents set touched_at = now() where booking_key = %s", booking.key)
    assert check(databases).conflicts == {"choice": 1}
    held = sides.ours(booking)
    for rule, _ in sides.conflicts(booking):
        ((_, outcome),) = conflicts.apply(databases, rule=rule, keep="legacy", reason="test", settle=NOW)
        assert outcome == "RESOLVED"
    assert check(databases).mismatched == 0
    assert sides.ours(booking) == held


def test_what_a_person_leaves_as_it_is_does_not_come_back_until_it_changes(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="ours")
    sides.behind(booking, note="theirs")
    check(databases)
    key = the_one(sides, booking)
    assert conflicts.apply(databases, conflict_id=key, keep="both", reason="x", settle=NOW)[0][1] == "RESOLVED"
    sides.sql("update phase2.write_intents set touched_at = now() where booking_key = %s", booking.key)
    assert check(databases).mismatched == 0
    sides.behind(booking, note="theirs again")
    assert check(databases).conflicts == {"choice": 1}


def test_what_was_settled_and_differs_in_the_same_way_again_is_found_again(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="ours")
    for _ in range(2):
        sides.behind(booking, note="theirs")
        check(databases)
        settled(sides, databases, the_one(sides, booking), keep="core")
        assert sides.theirs(booking)["note"] == "ours"


def test_nothing_is_applied_when_somebody_has_written_since(sides, databases):
    booking = sides.booking()
    sides.write(booking, "assign", assigned_driver_id=1)
    sides.behind(booking, assigned_driver_id=2)
    check(databases)
    key = the_one(sides, booking)
    sides.behind(booking, assigned_driver_id=None)
    ((plan, outcome),) = conflicts.apply(databases, conflict_id=key, reason="test", settle=NOW)
    assert (plan.stale, outcome) == (True, "STALE")
    assert sides.theirs(booking)["driver"] is None
    # and what changes between the plan and the worker's write is noticed by the write
    check(databases)
    assert conflicts.apply(databases, conflict_id=key, reason="test", settle=NOW)[0][1] == "APPLIED"
    sides.behind(booking, assigned_driver_id=2)
    sides.sweep()
    assert sides.theirs(booking)["driver"] == 2
    assert the_one(sides, booking) != key
    with pytest.raises(CouldNotRun, match="has written there since"):
        conflicts.undo(databases, key, reason="test")


def test_clocks(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="ours")
    sides.behind(booking, note="theirs")
    check(databases)
    key = the_one(sides, booking)
    with postgres.connect(sides.ops, autocommit=True) as conn:
        (one,) = conflicts.listed(conn, conflict_id=key)
        assert timedelta(hours=3, minutes=59) < one.left <= timedelta(hours=4)
        assert one not in conflicts.escalate(conn)
        conn.execute(
            "update phase2.conflicts set detected_at = now() - interval '25 h', due_at = now() - interval '21 h'"
            " where conflict_id = %s",
            (key,),
        )
        for _ in range(2):
            assert key in {late.conflict_id for late in conflicts.escalate(conn)}
        (one,) = conflicts.listed(conn, conflict_id=key)
        assert one.blocks
        told = [e for e in ledger.entries(conn, "escalation") if e.body["conflict"] == str(key)]
        assert len(told) == 1


def test_equal_again_is_gone(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="ours")
    sides.behind(booking, note="theirs")
    check(databases)
    key = the_one(sides, booking)
    sides.behind(booking, note="ours")
    check(databases)
    assert the_one_status(sides, key) == "GONE"


def test_an_event_of_a_frozen_booking_waits_and_is_not_lost(sides, databases):
    booking = sides.booking()
    sides.write(booking, note="x")
    sides.behind(booking, total_price=80)
    check(databases)
    ref = sides.sql("select external_booking_ref from public.booking_core where booking_key = %s", booking.key)[0][0]
    with postgres.connect(sides.ops, autocommit=True) as conn:
        event = Event("UPDATED", at=int(time.time() - START.timestamp()), total=150)
        key = accept(conn, event, "GYG", ref)
        assert play(conn, key) == "BUSY"
        plan = settled(sides, databases, the_one(sides, booking), keep="legacy")
        assert plan.core == {"total_price": (100, 80)}
        assert play(conn, key) == "APPLIED"
    assert sides.sql("select total_price from public.booking_core where booking_key = %s", booking.key) == [(150,)]


# -- what the gates and the meter say ---------------------------------------------------------------------------------


def gates(sides: Sides) -> dict[str, tuple[str, int]]:
    """Of each gate of H what it says, and how many rows it lists."""
    return {
        gate: (status, listed)
        for gate, status, listed in sides.sql(
            "select g.gate_id, rulebook.gate_status(h.numerator, h.value, h.denominator, g.comparator, g.threshold,"
            " g.na_when_empty), (select count(*) from dbt_recon.recon_h_exceptions as e where e.gate_id = g.gate_id)"
            " from dbt_seeds.gate_registry as g join dbt_recon.recon_h as h on h.gate_id = g.gate_id"
            " where g.batch = 'H' and h.kind = 'measure' order by 1"
        )
    }


def statuses(sides: Sides) -> dict[str, str]:
    return {gate: status for gate, (status, _) in gates(sides).items()}


DRILLED = """
insert into phase2.drills (drill_id, drill, passed, measured, started_at)
values (gen_random_uuid(), 'rollback', true, '{"batch": "H", "seconds_to_old_path": 2}', now())
"""


def test_gates_of_h_and_the_fault_that_fails_each(sides, databases):
    warehouse.build(sides.ops, "recon")
    sides.sql("truncate phase2.write_checks, phase2.drills")
    # nobody has compared, emitted or drilled: no gate passes by that
    assert gates(sides) == {"H-01": ("FAIL", 1), "H-02": ("FAIL", 1), "H-03": ("N/A", 0), "H-04": ("FAIL", 0)}
    booking = sides.booking()
    sides.write(booking, note="ours")
    check(databases)
    assert write_cutover.count_losses(runlog.uuid7(), databases) == 0
    sides.sql(DRILLED)
    assert statuses(sides) == {"H-01": "PASS", "H-02": "PASS", "H-03": "N/A", "H-04": "PASS"}
    for damage in (
        "update phase2.drills set ended_at = ended_at - interval '31 days'",
        "update phase2.drills set measured = measured - 'seconds_to_old_path'",
    ):
        sides.sql(damage)
        assert gates(sides)["H-04"] == ("FAIL", 1)
        sides.sql("truncate phase2.drills")
        sides.sql(DRILLED)
    sides.behind(booking, note="theirs")
    check(databases)
    sides.sql("update phase2.drills set passed = false")
    sides.sql("update phase2.conflicts set detected_at = now() - interval '25 hours'")
    assert gates(sides) == {"H-01": ("FAIL", 1), "H-02": ("PASS", 0), "H-03": ("FAIL", 1), "H-04": ("FAIL", 1)}
    found = conflicts.reconcile(databases, settle=NOW)
    assert conflicts.watch(databases, found)[1] == ["H-01", "H-03"]
    borne_out = (
        "select h.gate_id from dbt_recon.recon_h as h where h.kind = 'measure' and h.gate_id <> 'H-04'"
        " and h.gate_id like 'H-%' and h.numerator <> (select count(*) from dbt_recon.recon_h_exceptions as e"
        " where e.gate_id = h.gate_id and e.is_counted)"
    )
    assert sides.sql(borne_out) == []


@pytest.mark.parametrize(
    ("plant", "status"),
    [
        ("update public.ingest_event_log set process_status = 'FAILED'", "LOST"),
        ("delete from public.ingest_event_log", "NOT_IN_THE_LOG"),
        ("update public.ingest_event_log set created_at = now() - interval '61 minutes'", "NOT_PROCESSED"),
        ("update phase2.write_intents set legacy_status = 'PENDING', accepted_at = now() - interval '2 hours'",
         "NOT_ENDED"),
        ("update phase2.gate_inputs set recorded_at = now() - interval '3 hours'", "NOT_COMPARED"),
    ],
)  # fmt: skip
def test_each_loss_fails_h_02_by_its_name(sides, databases, plant, status):
    """Accepted and not processed, accepted and gone from the log, a write that never ended, an hour without a look."""
    sides.sql("update phase2.write_intents set core_status = 'DONE', legacy_status = 'DONE'")
    sides.write(sides.booking(), note="ours")
    write_cutover.count_losses(runlog.uuid7(), databases)
    exceptions = "select e.status from dbt_recon.recon_h_exceptions as e where e.gate_id = 'H-02' and e.is_counted"
    with postgres.connect(sides.ops, autocommit=True) as conn, conn.transaction(force_rollback=True):
        conn.execute("delete from public.ingest_event_log; delete from phase2.ingest_keys")
        conn.execute(
            "insert into phase2.flags (flag, enabled, reason, changed_by, changed_at)"
            " values ('INGEST_QUEUE_ENABLED', true, 'x', 'x', now() - interval '1 day')"
            " on conflict (flag) do update set enabled = true, changed_at = excluded.changed_at"
        )
        accept(conn, Event("CREATED", at=0), "GYG", "LOST1")
        assert conn.execute(exceptions).fetchall() == []
        conn.execute(plant.encode())
        assert set(conn.execute(exceptions).fetchall()) == {(status,)}


def test_what_a_rollback_would_owe(sides):
    with postgres.connect(sides.ops, autocommit=True) as conn:
        before = reversibility.measure(conn)
        assert not before.passed
        booking = sides.booking()
        sides.write(booking, note="later", legacy="postgresql://nobody@127.0.0.1:1/none")
        sides.write(sides.booking(legacy=False), note="core alone")
        sides.write(sides.booking(), "assign", assigned_driver_id=1, assigned_partner_id=3)
        play(conn, accept(conn, Event("CREATED", at=0, total=70, currency="IDR"), "GYG", "ONLY1"))
        play(conn, accept(conn, Event("UPDATED", at=9, total=75, currency="IDR"), "GYG", "ONLY1"))
        owed = {one.kind: one for one in reversibility.measure(conn).owed}
        pending = owed["writes that bstadmin has not got yet"]
        assert (pending.rows, pending.bookings, pending.until) == (1, 1, None)
        assert owed["writes to bookings that bstadmin does not have"].rows == 1
        assert owed["partners, for whom bstadmin has no place"].rows >= 1
        only = owed["bookings that only the core has"]
        assert (only.bookings, only.money, only.events, only.lost) == (1, {"IDR": "75.00"}, 2, 0)
        assert only.until is not None
        conn.execute("delete from public.ingest_event_log")  # as retention does after 35 days
        read = reversibility.measure(conn)
        assert read.passed
        assert "only a backup" in read.point_of_no_return


def test_the_commands(sides, databases, monkeypatch):
    """List, simulate, apply and undo from a shell; a note is never shown."""
    for module in (commands, reversibility_command):
        monkeypatch.setattr(module, "databases", lambda: databases)
    booking = sides.booking()
    sides.write(booking, "assign", assigned_driver_id=1)
    sides.write(booking, note="allergic to nuts")
    sides.behind(booking, assigned_driver_id=2, note="diabetic")
    check(databases)
    shell = CliRunner()

    def said(*words: str, code: int = 0) -> str:
        done = shell.invoke(app, list(words))
        assert done.exit_code == code, (words, done.output, done.exception)
        assert "allergic" not in done.output
        assert "diabetic" not in done.output
        return done.output

    found = json.loads(said("conflicts", "--json"))
    assert [one["rule"] for one in found] == ["assignment", "choice"]
    assert "16 characters" in said("conflicts")
    (key,) = (one["conflict_id"] for one in found if one["rule"] == "assignment")
    (asked,) = (one["conflict_id"] for one in found if one["rule"] == "choice")
    simulated = json.loads(said("conflicts", "simulate", "--json"))
    assert simulated["rows"] == 1
    assert json.loads(said("conflicts", "apply", "--reason", "x", "--json", code=1))["rows"] == 1  # one waits
    sides.sweep()
    said("conflicts", "resolve", asked, "--keep", "core", "--reason", "x")
    sides.sweep()
    assert sides.ours(booking) == sides.theirs(booking)
    said("conflicts", "undo", key, "--reason", "x")
    sides.sweep()
    assert sides.theirs(booking)["driver"] == 2
    assert json.loads(said("reversibility", "--json"))["passed"] is False
