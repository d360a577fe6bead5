"""A write that breaks off anywhere ends with both sides equal, or with a conflict that is listed; never in silence."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import hypothesis.strategies as st
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridge import conflicts
from bridge.errors import CouldNotRun
from bridge.settings import Databases
from core_api import database
from core_api.errors import Refused
from core_api.ops import intents, sweeper, writes
from tests.write_parts import AYU, OFF, ON, STRICT, Sides

T = TypeVar("T")
POINTS = ("intent", "core", "written", "legacy", "ended")
NOW = timedelta(0)


@pytest.fixture(autouse=True, scope="module")
def _for_everyone(sides) -> Iterator[None]:
    """What changes in bstadmin alone is behind our back then, whichever booking it is."""
    sides.flag(True)
    yield
    sides.flag(False)


def in_a_process_that_dies(work: Callable[[], None], point: str) -> None:
    """Run `work` in a process of its own, which is killed at that point of its write."""

    async def reached(at: str) -> None:
        if at == point:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        intents.reached = reached
        try:
            work()
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"it was not killed at {point}: {status}"


@pytest.mark.parametrize("rows", [ON, OFF, STRICT], ids=["on", "off", "strict"])
@pytest.mark.parametrize("point", POINTS)
def test_killed_and_asked_again(sides, point, rows):
    booking, key = sides.booking(), uuid4().hex
    in_a_process_that_dies(lambda: sides.write(booking, note="new", key=key, version=1, rows=rows), point)
    said = sides.write(booking, note="new", key=key, version=1, rows=rows)
    assert (said["legacy"], said["state"]["stateVersion"]) == ("DONE", 2)
    sides.sweep()  # of the flag that was off: the core catches up
    once(sides, booking, "new")


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_never_asked_again(sides, point):
    booking = sides.booking()
    in_a_process_that_dies(lambda: sides.write(booking, note="new"), point)
    sides.sweep()
    once(sides, booking, "new")


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_switched_off_meanwhile(sides, point):
    """Rollback of H: nothing is lost; legacy has it all, and the core again when the flag is on."""
    booking = sides.booking()
    in_a_process_that_dies(lambda: sides.write(booking, note="new"), point)
    sides.sweep(core=False)
    assert sides.theirs(booking)["note"] == "new"
    sides.sweep(core=True)
    once(sides, booking, "new")


@pytest.mark.parametrize("point", ["intent", "core", "written"])
def test_killed_and_somebody_wrote_behind_our_back(sides, point):
    booking = sides.booking()
    in_a_process_that_dies(lambda: sides.write(booking, note="ours"), point)
    sides.behind(booking, note="theirs")
    sides.sweep()
    conflicts.reconcile(databases(sides), settle=NOW)
    assert (sides.ours(booking)["note"], sides.theirs(booking)["note"]) == ("ours", "theirs")
    assert [rule for rule, _ in sides.conflicts(booking)] == ["choice"]


@pytest.mark.parametrize("who", ["phase2-test-ops", "phase2-test-legacy"])
@pytest.mark.parametrize("point", POINTS)
def test_a_connection_is_cut(sides, monkeypatch, point, who):
    booking, key = sides.booking(), uuid4().hex

    async def reached(at: str) -> None:
        if at == point:
            cut(sides, who)

    monkeypatch.setattr(intents, "reached", reached)
    try:
        said = sides.write(booking, note="new", key=key, version=1)
        assert said["state"]["note"] == "new"
    except (psycopg.OperationalError, psycopg.InterfaceError):
        pass
    monkeypatch.undo()
    sides.sweep()
    once(sides, booking, "new")


@pytest.mark.parametrize("point", ["intent", "core", "written"])
def test_two_that_both_believe_to_be_alone(sides, point):
    booking = sides.booking()
    in_a_process_that_dies(lambda: sides.write(booking, note="new"), point)

    async def finish(pool: Any, legacy: Any) -> None:
        async with pool.connection() as one, pool.connection() as other:
            await asyncio.gather(*(intents.finish(c, legacy, booking.key, core=True) for c in (one, other)))

    sides.call(finish)
    once(sides, booking, "new")


def once(sides: Sides, booking: Any, note: str) -> None:
    """The write is on both sides, and was written there once."""
    assert sides.ours(booking) == sides.theirs(booking)
    assert sides.ours(booking)["note"] == note
    assert sides.sql("select state_version from public.ops_booking_state where booking_key = %s", booking.key) == [(2,)]
    ((core, legacy, _),) = sides.intents(booking)
    assert (core, legacy) == ("DONE", "DONE")
    assert sides.sql("select who from public.history where booking_id = %s", booking.id, legacy=True) == [
        ("phase2-test-legacy",)
    ]


def cut(sides: Sides, who: str) -> None:
    ours = [psycopg.conninfo.conninfo_to_dict(url)["dbname"] for url in (sides.ops, sides.bstadmin)]
    sides.sql(
        "select pg_terminate_backend(a.pid) from pg_stat_activity as a"
        " where a.application_name = %s and a.datname = any(%s)",
        who, ours,
    )  # fmt: skip


def databases(sides: Sides) -> Databases:
    return Databases(sides.ops, sides.bstadmin, sides.bstadmin, None)


# -- any history ------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """The process is gone."""


class Writers(RuleBasedStateMachine):
    """Writers on both sides of one booking, crashes, outages, the flag on and off, conflicts and their settling."""

    sides: Sides
    runner: asyncio.Runner
    pools: tuple[Any, Any, Any]

    def __init__(self) -> None:
        super().__init__()
        self.rows = ON
        self.asked: list[dict[str, Any]] = []
        self.accepted: set[str] = set()  # keys that were answered with 200 or 202
        self.frozen: dict[str, Any] | None = None
        self.cancelled = False

    @initialize()
    def begin(self) -> None:
        self.booking = self.sides.booking()

    # what happens

    @rule(note=st.sampled_from(["a", "b", "c", None]))
    def note(self, note: str | None) -> None:
        self.write({"action": "patch", "changes": {"note": note}})

    @rule(driver=st.sampled_from([1, 2]))
    def assign(self, driver: int) -> None:
        self.write({"action": "assign", "changes": {"assigned_driver_id": driver, "assigned_partner_id": None}})

    @rule(note=st.sampled_from(["a", "b", "c"]), point=st.sampled_from(POINTS))
    def crash(self, note: str, point: str) -> None:
        self.write({"action": "patch", "changes": {"note": note}}, crash=point)

    @rule(note=st.sampled_from(["a", "b", "c"]))
    def bstadmin_is_away(self, note: str) -> None:
        self.write({"action": "patch", "changes": {"note": note}}, away=True)

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0, 20))
    def again(self, which: int) -> None:
        self.write(self.asked[which % len(self.asked)])

    @rule(note=st.sampled_from(["a", "b", "c"]))
    def behind_our_back(self, note: str) -> None:
        self.sides.behind(self.booking, note=note)

    @rule(price=st.sampled_from([80, 100]))
    def price_behind_our_back(self, price: int) -> None:
        self.sides.behind(self.booking, total_price=price)

    @rule()
    def cancelled_behind_our_back(self) -> None:
        self.sides.behind(self.booking, status="CANCELLED")
        self.cancelled = True

    @rule(rows=st.sampled_from([ON, OFF, STRICT]))
    def flag(self, rows: Any) -> None:
        self.rows = rows

    @rule()
    def sweep(self) -> None:
        pool, legacy, _ = self.pools
        on = self.rows is not OFF
        with contextlib.suppress(psycopg.OperationalError):  # a connection that was cut: the next round has another
            self.runner.run(sweeper.sweep(pool, legacy, core=on, older=-1))

    @rule()
    def reconcile(self) -> None:
        conflicts.reconcile(databases(self.sides), settle=NOW)
        if self.frozen is None and self.is_frozen():
            self.frozen = self.held()

    @rule(keep=st.sampled_from([None, "core", "legacy"]))
    def settle(self, keep: Any) -> None:
        open_ones = self.open()
        for key in open_ones[:1]:
            try:
                conflicts.apply(databases(self.sides), conflict_id=key, keep=keep, reason="x", settle=NOW)
            except CouldNotRun as refused:
                if f"--keep {keep} cannot write" not in str(refused):
                    raise
                assert key in self.open()  # that side cannot be written, and nothing was
        if not self.is_frozen():
            self.frozen = None

    @rule()
    def undo(self) -> None:
        rows = self.sides.sql(
            "select conflict_id from phase2.conflicts where booking_key = %s and status in ('APPLIED', 'RESOLVED')"
            " order by ended_at desc limit 1",
            self.booking.key,
        )
        with contextlib.suppress(CouldNotRun):
            for (key,) in rows:
                conflicts.undo(databases(self.sides), key, reason="x")
        if self.frozen is None and self.is_frozen():
            self.sweep()  # what undoes it is on its way
            self.frozen = self.held()

    @rule(note=st.sampled_from(["a", "b", "c"]), point=st.sampled_from(POINTS), who=st.sampled_from(["ops", "legacy"]))
    def cut(self, note: str, point: str, who: str) -> None:
        self.write({"action": "patch", "changes": {"note": note}}, cut_at=(point, f"phase2-test-{who}"))

    # what holds

    @invariant()
    def a_frozen_booking_is_as_it_was(self) -> None:
        if self.frozen is not None:
            assert self.held() == self.frozen

    def teardown(self) -> None:
        if not hasattr(self, "booking"):
            return
        self.rows = ON
        for _ in range(3):
            self.sweep()
        conflicts.reconcile(databases(self.sides), settle=NOW)
        booking, sides = self.booking, self.sides
        assert sides.theirs(booking)["status"] == "CANCELLED" or not self.cancelled
        differing = {
            n for n, v in sides.ours(booking).items() if n not in ("at", "status") and v != sides.theirs(booking)[n]
        }
        listed = {f["field"] for _, fields in sides.conflicts(booking) for f in fields}
        # of a frozen booking what was accepted before waits, too
        waits = sides.sql(
            "select jsonb_object_keys(i.legacy_target) from phase2.write_intents as i"
            " where i.booking_key = %s and i.legacy_status = 'PENDING' and phase2.is_frozen(i.booking_key)",
            booking.key,
        )
        names = {"note": "note", "driver": "assigned_driver_id"}
        assert {names[name] for name in differing} <= listed | {name for (name,) in waits}, (
            sides.ours(booking),
            sides.theirs(booking),
        )
        rows = sides.sql(
            "select intent_id, split_part(idempotency_key, ':', 1), core_status, legacy_status"
            " from phase2.write_intents"
            " where booking_key = %s order by place",
            booking.key,
        )
        still = self.is_frozen()
        # none lost: what was answered for has ended on both sides, in a conflict, or waits for the person who thaws it
        ended = {key: (core, legacy) for _, key, core, legacy in rows if core != "REFUSED"}
        for key in self.accepted:
            core, legacy = ended[key]
            assert still or (core == "DONE" and legacy in ("DONE", "CONFLICT")), (core, legacy)
        # none twice: a version each in the core, an update each in bstadmin
        done = sum(core == "DONE" for _, _, core, _ in rows)
        assert sides.sql("select state_version from public.ops_booking_state where booking_key = %s", booking.key) == [
            (1 + done,)
        ]
        theirs = sum(legacy == "DONE" for *_, legacy in rows)
        unknown = sum(legacy == "PENDING" for *_, legacy in rows)  # of a frozen booking: it may have been written
        assert theirs <= self.updates() <= theirs + unknown
        assert still or not unknown

    # how

    def write(
        self,
        asked: dict[str, Any],
        *,
        crash: str | None = None,
        away: bool = False,
        cut_at: tuple[str, str] = ("", ""),
    ) -> None:
        if "key" not in asked:
            asked = asked | {"key": uuid4().hex, "version": self.sides.version(self.booking)}
            self.asked.append(asked)

        async def reached(at: str) -> None:
            if at == crash:
                raise Crash
            if at == cut_at[0]:
                cut(self.sides, cut_at[1])

        pool, legacy, nowhere = self.pools
        intents.reached = reached
        try:
            self.runner.run(
                writes.perform(pool, nowhere if away else legacy, self.rows, AYU, self.booking.key, **asked)
            )
            self.accepted.add(asked["key"])
        except (Refused, Crash, psycopg.OperationalError, psycopg.InterfaceError):
            pass
        finally:
            intents.reached = _reached

    def open(self) -> list[Any]:
        return [
            row[0]
            for row in self.sides.sql(
                "select conflict_id from phase2.conflicts where booking_key = %s and status = 'OPEN' order by 1",
                self.booking.key,
            )
        ]

    def is_frozen(self) -> bool:
        return self.sides.sql("select phase2.is_frozen(%s)", self.booking.key)[0][0]

    def held(self) -> dict[str, Any]:
        core = self.sides.sql("select phase2.core_values(%s)", self.booking.key)[0][0]
        return core | {"updates": self.updates()}

    def updates(self) -> int:
        return self.sides.sql(
            "select count(*) from public.history where booking_id = %s and who like 'phase2%%'",
            self.booking.id, legacy=True,
        )[0][0]  # fmt: skip


_reached = intents.reached


def test_any_history_of_writes(sides):
    async def pools() -> tuple[Any, Any, Any]:
        made = []
        nowhere = "postgresql://nobody@127.0.0.1:1/none"
        for url, name in ((sides.ops, "ops"), (sides.bstadmin, "legacy"), (nowhere, "nowhere")):
            made.append(database.pool(url, size=2, application_name=f"phase2-test-{name}", wait_seconds=0.3))
            await made[-1].open()
        return made[0], made[1], made[2]

    with asyncio.Runner() as runner:
        Writers.sides, Writers.runner, Writers.pools = sides, runner, runner.run(pools())
        try:
            run_state_machine_as_test(
                Writers,
                settings=settings(
                    max_examples=int(os.environ.get("WRITE_EXAMPLES", "8")),
                    stateful_step_count=14,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                    print_blob=True,
                ),  # fmt: skip
            )
        finally:
            for pool in Writers.pools:
                runner.run(pool.close())
