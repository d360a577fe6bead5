"""Writes of the back office on two real databases: what goes where, by which flag, and what a crash leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import errors

from bridge import conflicts, postgres
from bridge.errors import CouldNotRun
from bridge.flags import Rollout, Row
from bridge.settings import SQL
from core_api import database
from core_api.auth import Admin
from core_api.errors import Refused
from core_api.ops import intents
from core_api.ops.intents import FLAG
from tests import serving
from tests.ingest_parts import until
from tests.write_parts import AYU, OFF, STRICT, Booking, Sides


def equal(sides: Sides, booking: Booking) -> dict[str, object]:
    """Both sides hold the same; what that is."""
    ours = sides.ours(booking)
    assert ours == sides.theirs(booking)
    return ours


def test_a_note_goes_to_both_sides(sides):
    booking = sides.booking()
    said = sides.write(booking, note="  vegan \n\n\n lunch ")
    assert (said["core"], said["legacy"], said["fallback"]) == ("DONE", "DONE", False)
    assert (said["state"]["stateVersion"], said["state"]["note"]) == (2, "vegan\n\nlunch")
    assert equal(sides, booking)["note"] == "vegan\n\nlunch"
    again = sides.write(booking, note=None, meeting_point="Gate 2")
    assert again["state"]["stateVersion"] == 3
    assert equal(sides, booking) | {"note": None, "meeting_point": "Gate 2"} == equal(sides, booking)


def test_with_the_flag_off_legacy_alone_is_written_and_the_core_catches_up_when_it_is_on(sides):
    booking = sides.booking()
    said = sides.write(booking, rows=OFF, note="by phone")
    assert (said["core"], said["legacy"], said["state"]["stateVersion"]) == ("BEHIND", "DONE", 2)
    assert (sides.ours(booking)["note"], sides.theirs(booking)["note"]) == ("first", "by phone")
    assert sides.write(booking, rows=OFF, note="by mail", version=2)["state"]["note"] == "by mail"
    sides.sweep(core=False)
    assert sides.ours(booking)["note"] == "first"
    sides.sweep(core=True)
    assert equal(sides, booking)["note"] == "by mail"
    assert sides.version(booking) == 3


def test_the_flag_opens_modules_and_actors(sides):
    booking = sides.booking()
    for_notes = {FLAG: Row(True, Rollout(modules=("note",)))}
    assert sides.write(booking, rows=for_notes, note="a")["core"] == "DONE"
    assert sides.write(booking, rows=for_notes, meeting_point="b")["core"] == "BEHIND"
    assert sides.write(booking, rows=for_notes, note="c", meeting_point="c")["core"] == "BEHIND"
    for_ayu = {FLAG: Row(True, Rollout(percentage=0, actors=("ayu",)))}
    assert sides.write(booking, rows=for_ayu, note="d", admin=Admin("ADMIN", "made"))["core"] == "BEHIND"
    assert sides.write(booking, rows=for_ayu, note="e")["core"] == "DONE"  # and what was behind came first
    sides.sweep()
    assert equal(sides, booking) | {"note": "e", "meeting_point": "c"} == equal(sides, booking)
    assert sides.version(booking) == 6
    by_mail = {FLAG: Row(True, Rollout(percentage=0, emails=("made@example.com",)))}
    made = sides.booking()
    assert sides.write(made, rows=by_mail, admin=Admin("MANAGER", "Made@Example.com"), note="e")["core"] == "DONE"


def test_assigned_and_unassigned(sides):
    booking = sides.booking()
    sides.write(booking, "assign", assigned_driver_id=1)
    assert equal(sides, booking)["driver"] == 1
    sides.write(booking, "assign", assigned_driver_id=2, assigned_partner_id=7)
    assert equal(sides, booking)["driver"] == 2
    sides.write(booking, "assign", assigned_driver_id=1)
    rows = sides.sql(
        "select driver_id, is_active, unassigned_at is null from public.ops_assignment"
        " where booking_key = %s order by 1",
        booking.key,
    )
    assert rows == [(1, True, True), (2, False, False)]
    sides.write(booking, "unassign")
    assert equal(sides, booking)["driver"] is None
    with pytest.raises(Refused, match="no such driver"):
        sides.write(booking, "assign", assigned_driver_id=99)


def test_a_stale_write_is_told_what_stands(sides):
    booking = sides.booking()
    sides.write(booking, note="one", version=1)
    with pytest.raises(Refused) as refused:
        sides.write(booking, note="two", version=1)
    assert (refused.value.status, refused.value.code) == (409, "STALE_VERSION")
    assert refused.value.details["stateVersion"] == 2
    assert refused.value.details["note"] == "one"
    assert equal(sides, booking)["note"] == "one"


def test_the_same_request_again_has_the_first_answer_and_another_one_is_refused(sides):
    booking = sides.booking()
    key = uuid4().hex
    first = sides.write(booking, note="once", key=key, version=1)
    sides.write(booking, note="meanwhile")
    assert sides.write(booking, note="once", key=key, version=1) == first
    for note, who in (("other", AYU), ("once", Admin("ADMIN", "made"))):  # nor has somebody else that answer
        with pytest.raises(Refused) as refused:
            sides.write(booking, note=note, key=key, version=1, admin=who)
        assert (refused.value.status, refused.value.code) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert equal(sides, booking)["note"] == "meanwhile"
    assert len(sides.intents(booking)) == 2


def test_a_booking_that_is_not_in_bstadmin(sides):
    booking = sides.booking(legacy=False)
    said = sides.write(booking, note="core alone")
    assert (said["core"], said["legacy"]) == ("DONE", "NONE")
    with pytest.raises(Refused, match="NOT_IN_LEGACY"):
        sides.write(booking, rows=OFF, note="nowhere")
    assert sides.ours(booking)["note"] == "core alone"


def test_what_was_written_behind_our_back_is_not_overwritten(sides):
    booking = sides.booking()
    sides.write(booking, note="ours")
    sides.behind(booking, note="theirs")
    said = sides.write(booking, note="ours again")
    assert (said["core"], said["legacy"]) == ("DONE", "CONFLICT")
    assert (sides.ours(booking)["note"], sides.theirs(booking)["note"]) == ("ours again", "theirs")
    assert sides.conflicts(booking) == [("choice", [{"core": "ours again", "field": "note", "legacy": "theirs"}])]


def test_another_field_changed_behind_our_back_stays_noticed_after_a_write_of_ours(sides):
    booking = sides.booking()
    sides.behind(booking, meeting_point="Pier")
    assert sides.write(booking, note="ours")["legacy"] == "DONE"
    assert sides.write(booking, meeting_point="Gate")["legacy"] == "CONFLICT"
    assert sides.theirs(booking)["meeting_point"] == "Pier"


def test_bstadmin_is_away(sides):
    booking, nowhere = sides.booking(), "postgresql://nobody@127.0.0.1:1/none"
    said = sides.write(booking, note="later", legacy=nowhere)
    assert (said["core"], said["legacy"]) == ("DONE", "PENDING")
    said = sides.write(booking, note="later still", legacy=nowhere)
    assert said["legacy"] == "PENDING"
    assert sides.theirs(booking)["note"] == "first"
    sides.sweep()
    assert equal(sides, booking)["note"] == "later still"
    with pytest.raises(Refused) as refused:
        sides.write(booking, rows=OFF, note="no", legacy=nowhere)
    assert refused.value.status == 503


@pytest.mark.parametrize("point", ["", "core"])
def test_who_cancels_in_bstadmin_is_not_overruled_by_an_assignment(sides, monkeypatch, point):
    booking = sides.booking()

    async def reached(at: str) -> None:
        if at == point:
            sides.behind(booking, status="CANCELLED")

    if point:
        monkeypatch.setattr(intents, "reached", reached)
    else:
        sides.behind(booking, status="CANCELLED")
    sides.write(booking, "assign", assigned_driver_id=1)
    assert sides.theirs(booking)["status"] == "CANCELLED"
    assert sides.ours(booking)["status"] == ("NEW" if point else "CANCELLED")  # the comparison finds the former


def test_while_it_was_away_somebody_wrote_there(sides):
    booking, nowhere = sides.booking(), "postgresql://nobody@127.0.0.1:1/none"
    sides.write(booking, note="ours", legacy=nowhere)
    sides.behind(booking, note="theirs")
    sides.sweep()
    assert sides.theirs(booking)["note"] == "theirs"
    assert sides.conflicts(booking)[0][0] == "choice"


@pytest.mark.parametrize("what", ["booking", "driver"])
def test_what_can_never_go_in_is_a_conflict_and_holds_up_no_other(sides, what):
    """bstadmin was away; back again, it has not got the booking, or the driver, any more."""
    booking, other, nowhere = sides.booking(), sides.booking(), "postgresql://nobody@127.0.0.1:1/none"
    if what == "booking":
        sides.write(booking, note="x", legacy=nowhere)
        sides.sql("delete from public.bookings where booking_id = %s", booking.id, legacy=True)
    else:
        sides.write(booking, "assign", assigned_driver_id=99_999, legacy=nowhere)
    sides.write(other, note="of the other", legacy=nowhere)
    sides.sweep()
    assert sides.intents(booking) == [("DONE", "CONFLICT", False)]
    assert sides.conflicts(booking)
    assert equal(sides, other)["note"] == "of the other"


def test_a_booking_that_the_sweeper_cannot_take_on_holds_up_no_other(sides, monkeypatch):
    booking, other, nowhere = sides.booking(), sides.booking(), "postgresql://nobody@127.0.0.1:1/none"
    sides.write(booking, note="x", legacy=nowhere)
    sides.write(other, note="of the other", legacy=nowhere)
    finish = intents.finish

    async def fails(conn: Any, legacy: Any, key: Any, **more: Any) -> None:
        if key == booking.key:
            raise ValueError("no")
        await finish(conn, legacy, key, **more)

    monkeypatch.setattr(intents, "finish", fails)
    sides.sweep()
    assert equal(sides, other)["note"] == "of the other"
    monkeypatch.undo()
    sides.sweep()
    assert equal(sides, booking)["note"] == "x"


def test_a_slow_statement_is_no_outage(sides, monkeypatch):
    """One write that runs into its statement timeout falls back, and holds up no other."""
    booking, other = sides.booking(), sides.booking()
    sides.sql(
        "create function phase2.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(9); end $$;"
        " create trigger slow before update on public.ops_booking_state for each row when (old.booking_key ="
        f" '{booking.key}') execute function phase2.slow()"
    )
    monkeypatch.setattr(
        database, "_SERVICE", database._SERVICE.replace("statement_timeout=10s", "statement_timeout=1s")
    )
    try:
        said = sides.write(booking, note="fallen back")
        assert (said["core"], said["legacy"], said["fallback"]) == ("BEHIND", "DONE", True)
        sides.write(other, rows=OFF, note="of the other")
        sides.sweep()  # the slow one comes first
        assert equal(sides, other)["note"] == "of the other"
    finally:
        sides.sql("drop trigger slow on public.ops_booking_state; drop function phase2.slow")
    assert not database.is_away(errors.QueryCanceled())
    assert database.is_away(errors.AdminShutdown())
    assert database.is_away(psycopg.OperationalError())
    sides.sweep()


def test_who_writes_the_old_way_takes_no_strictness_from_a_write_before(sides, monkeypatch):
    """A strict write that broke off before the core had it, then somebody for whom the flag is off."""
    booking, old_way = sides.booking(), {FLAG: Row(True, Rollout(percentage=0, actors=("ayu",), strict=True))}

    async def breaks_off(at: str) -> None:
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(intents, "reached", breaks_off)
        with pytest.raises(ConnectionError):
            sides.write(booking, rows=old_way, note="strict")
    sides.sql(
        "create function phase2.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        " create trigger no before update on public.ops_booking_state for each row when (old.booking_key ="
        f" '{booking.key}') execute function phase2.no()"
    )
    try:
        said = sides.write(booking, rows=old_way, admin=Admin("MANAGER", "made"), meeting_point="Gate")
        assert (said["core"], said["legacy"]) == ("BEHIND", "DONE")
    finally:
        sides.sql("drop trigger no on public.ops_booking_state; drop function phase2.no")
    assert [core for core, *_ in sides.intents(booking)] == ["REFUSED", "BEHIND"]
    assert sides.theirs(booking)["note"] == "first", "bstadmin alone has what had to be on both sides or none"
    sides.sweep()
    assert equal(sides, booking)["meeting_point"] == "Gate"


def test_what_the_core_does_not_take_goes_to_legacy_unless_strict(sides):
    booking = sides.booking()
    # no contact, note or status of this booking can be written
    sides.sql(
        "create function phase2.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        " create trigger no before update on public.ops_booking_state for each row when (old.booking_key ="
        f" '{booking.key}') execute function phase2.no()"
    )
    try:
        with pytest.raises(Refused, match="CORE_WRITE_FAILED"):
            sides.write(booking, rows=STRICT, note="strict", key="k")
        assert sides.theirs(booking)["note"] == "first"
        said = sides.write(booking, note="fallen back")
        assert (said["core"], said["legacy"], said["fallback"]) == ("BEHIND", "DONE", True)
        assert (sides.ours(booking)["note"], sides.theirs(booking)["note"]) == ("first", "fallen back")
        sides.sweep()
        assert sides.ours(booking)["note"] == "first"
    finally:
        sides.sql("drop trigger no on public.ops_booking_state; drop function phase2.no")
    sides.sweep()
    assert equal(sides, booking)["note"] == "fallen back"
    assert sides.write(booking, rows=STRICT, note="strict", key="k")["core"] == "DONE"  # the key was given back


def test_refused_as_a_whole_when_bstadmin_changes_before_the_core_has_it(sides, monkeypatch):
    booking, key = sides.booking(), uuid4().hex

    async def reached(at: str) -> None:
        if at == "intent":
            sides.behind(booking, note="theirs")

    monkeypatch.setattr(intents, "reached", reached)
    with pytest.raises(Refused) as refused:
        sides.write(booking, rows=OFF, note="ours", key=key, version=1)
    assert (refused.value.status, refused.value.code) == (409, "CHANGED_IN_LEGACY")
    monkeypatch.undo()
    assert (sides.ours(booking)["note"], sides.theirs(booking)["note"]) == ("first", "theirs")
    sides.sweep()
    assert (sides.ours(booking)["note"], sides.theirs(booking)["note"]) == ("first", "theirs")
    assert sides.version(booking) == 1


def test_what_was_on_its_way_when_the_booking_froze_waits_for_the_person(sides):
    booking, key = sides.booking(), uuid4().hex
    sides.write(booking, note="later", key=key, version=1, legacy="postgresql://nobody@127.0.0.1:1/none")
    frozen = sides.sql("select phase2.note_conflict(%s, 'booking_header', '[]', 'test', null)", booking.key)[0][0]
    for _ in range(2):
        assert sides.write(booking, note="later", key=key, version=1)["core"] == "DONE"  # sent again: the first answer
        sides.sweep()
    assert sides.theirs(booking)["note"] == "first"
    sides.sql("update phase2.conflicts set status = 'RESOLVED' where conflict_id = %s", frozen)
    sides.sweep()
    assert equal(sides, booking)["note"] == "later"


def test_status_is_recomputed_on_both_sides(sides):
    booking = sides.booking()
    sides.sql("update public.booking_core set tour_date = '2026-01-05' where booking_key = %s", booking.key)
    said = sides.write(booking, "sync")
    assert said["state"]["opsFulfillmentStatus"] == "ATTENTION"
    assert equal(sides, booking)["status"] == "ATTENTION"


def test_a_package_leads_to_its_own_in_bstadmin(sides):
    booking, product, variant = sides.booking(package=1), uuid4(), uuid4()
    sides.sql(
        "insert into public.catalog_product (product_key, slug, name) values (%s, %s, 'P')", product, str(product)
    )
    sides.sql(
        "insert into public.catalog_variant (variant_key, product_key, code, name, service_type, duration_days)"
        " values (%s, %s, 'V', 'V', 'PRIVATE', 1)",
        variant, product,
    )  # fmt: skip
    sides.sql(
        "insert into public.channel_external_refs (external_ref_key, entity_type, entity_key, channel_code,"
        " external_ref_kind, external_ref, source_system, source_table, source_pk)"
        " values (gen_random_uuid(), 'VARIANT', %s, 'MANUAL', 'BSTADMIN_PACKAGE_ID', '2', 'bstadmin', 't', '2')",
        variant,
    )
    said = sides.write(booking, package_ref_type="CATALOG_VARIANT", package_ref_key=str(variant))
    assert said["state"]["packageRefKey"] == str(variant)
    assert equal(sides, booking)["package"] == 2
    with pytest.raises(Refused, match="no such variant"):
        sides.write(booking, package_ref_type="CATALOG_PRODUCT", package_ref_key=str(variant))


# -- over HTTP --------------------------------------------------------------------------------------------------------

ADMIN = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "MANAGER", "x-actor": "ayu"}


@pytest.fixture(scope="module")
def client(sides) -> Iterator[httpx.Client]:
    with (
        serving.environment(),
        serving.service(sides.ops, bstadmin_url=sides.bstadmin, bstadmin_write_url=sides.bstadmin) as url,
        httpx.Client(base_url=url, timeout=20) as made,
    ):
        yield made


def test_over_http(sides, client):
    sides.flag(True)
    until(lambda: _patched(sides, client)["core"] == "DONE", 10, lambda: "the flag is not in force")
    booking = sides.booking()
    path = f"/v1/ops/bookings/{booking.id}"  # or its key
    assert client.get(path + "/state", headers=ADMIN | {"x-admin-role": "STAFF"}).json()["data"]["stateVersion"] == 1
    for headers, status in (
        ({}, 401),
        (ADMIN | {"x-admin-role": "STAFF"}, 403),
        (ADMIN, 422),  # no key
        (ADMIN | {"x-idempotency-key": "k" * 129}, 422),
    ):
        for method, rest, body in _CALLS:
            assert client.request(method, path + rest, json=body, headers=headers).status_code == status
    for method, rest, body in _CALLS:
        key = {"x-idempotency-key": uuid4().hex}
        body = body | ({"stateVersion": sides.version(booking)} if "stateVersion" in body else {})
        first = client.request(method, path + rest, json=body, headers=ADMIN | key)
        again = client.request(method, path + rest, json=body, headers=ADMIN | key)
        assert (first.status_code, first.json()["data"]) == (200, again.json()["data"]), first.text
        other = client.request(method, path + rest, json=body | {"reason": "x"}, headers=ADMIN | key)
        assert other.status_code == 200  # why is no part of what is written
    stale = client.patch(path, json={"stateVersion": 1, "note": "x"}, headers=ADMIN | {"x-idempotency-key": "s"})
    assert (stale.status_code, stale.json()["error"]["code"]) == (409, "STALE_VERSION")
    assert stale.json()["error"]["details"]["stateVersion"] == 5
    for faulty in (
        {"stateVersion": None, "note": "x"},
        {"stateVersion": 1.5, "note": "x"},
        {},
        {"stateVersion": "5", "note": "x"},
        {"total": 1, "note": ""},
        {"packageRefKey": str(booking.key)},
        {"note": "\x00"},
    ):
        answered = client.patch(
            path, json={"stateVersion": 5} | faulty, headers=ADMIN | {"x-idempotency-key": uuid4().hex}
        )
        assert answered.status_code == 422, answered.text
    assert client.patch("/v1/ops/bookings/x", json={"stateVersion": 1, "note": ""},
                        headers=ADMIN | {"x-idempotency-key": "n"}).status_code == 404  # fmt: skip
    assert equal(sides, booking)["note"] == "vegan"
    trail = client.get("/v1/audit/events", params={"resourceId": str(booking.key)}, headers=ADMIN).json()["data"][
        "items"
    ]
    assert [one["eventType"] for one in trail] == [
        "ops.booking.sync", "ops.booking.unassign", "ops.booking.assign", "ops.booking.patch",
    ]  # fmt: skip
    assert "vegan" not in str(trail)


_CALLS: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("PATCH", "", {"stateVersion": 1, "note": "vegan"}),
    ("POST", "/assign", {"stateVersion": 1, "driverId": 1}),
    ("POST", "/unassign", {"stateVersion": 1}),
    ("POST", "/status/sync", {}),
)


def _patched(sides: Sides, client: httpx.Client) -> dict[str, object]:
    booking = sides.booking()
    key = {"x-idempotency-key": uuid4().hex}
    body = {"stateVersion": 1, "note": "x"}
    return client.patch(f"/v1/ops/bookings/{booking.key}", json=body, headers=ADMIN | key).json()["data"]


def test_the_writing_role_may_do_what_a_write_does_and_no_more(sides):
    with postgres.connect(sides.bstadmin, autocommit=True) as conn:
        conn.execute((SQL / "roles" / "writer_bstadmin.sql").read_bytes())
        conn.execute("alter role phase2_writer password 'writer'")
    parts = psycopg.conninfo.conninfo_to_dict(sides.bstadmin) | {"user": "phase2_writer", "password": "writer"}
    url = f"postgresql://phase2_writer:writer@{parts['host']}:{parts['port']}/{parts['dbname']}"
    booking = sides.booking()
    assert sides.write(booking, "assign", assigned_driver_id=1, legacy=url)["legacy"] == "DONE"
    assert sides.write(booking, note="by the role", legacy=url)["legacy"] == "DONE"
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in (
            "update public.bookings set main_contact_name = 'x'",
            "delete from public.bookings",
            "select main_contact_email from public.bookings",
            "update public.audit_logs set action = 'x'",
            "insert into public.users (id, updated_at) values ('x', now())",
            "create table public.x ()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(statement)


def test_a_write_that_is_refused_after_it_was_accepted_is_listed_until_its_writer_is_told(sides):
    """Its answer was 202; the request that is refused itself was told by that."""
    away = "postgresql://nobody@127.0.0.1:1/none"
    booking = sides.booking()

    def listed() -> list[conflicts.Refused]:
        # a moment passes, in which a request would still be answered
        sides.sql("update phase2.write_intents set touched_at = now() - interval '6 seconds'")
        with postgres.connect(sides.ops, autocommit=True) as conn:
            return [one for one in conflicts.refused(conn) if one.booking_key == booking.key]

    # of a core that does not take it: bstadmin was to get it alone, when it is back
    sides.sql(
        "create function phase2.no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;"
        " create trigger no before update on public.ops_booking_state for each row when (old.booking_key ="
        f" '{booking.key}') execute function phase2.no()"
    )
    try:
        said = sides.write(booking, note="ours", legacy=away)
        assert (said["status"], said["core"], said["legacy"]) == (202, "BEHIND", "PENDING")
        assert listed() == []
        sides.behind(booking, note="theirs")
        sides.sweep()
        with pytest.raises(Refused, match="CORE_WRITE_FAILED"):
            sides.write(booking, rows=STRICT, note="refused at once")
    finally:
        sides.sql("drop trigger no on public.ops_booking_state; drop function phase2.no")
    assert sides.theirs(booking)["note"] == "theirs"
    (one,) = listed()
    assert (one.action, one.fields, one.actor) == ("patch", ["note"], "ayu")
    assert "ours" not in repr(one), "what a person wrote is not shown"
    with postgres.connect(sides.ops, autocommit=True) as conn:
        with pytest.raises(CouldNotRun, match="reason"):
            conflicts.told(conn, one.intent_id, " ")
        conflicts.told(conn, one.intent_id, "by phone")
        with pytest.raises(CouldNotRun, match="no such refused write"):
            conflicts.told(conn, one.intent_id, "again")
    assert listed() == []


def test_a_partner_comes_back_after_batch_d_was_rolled_back_and_run_again(sides):
    """bstadmin has no place for one: the backfill brings the driver alone."""
    booking, other = sides.booking(), sides.booking()
    for one in (booking, other):
        sides.write(one, "assign", assigned_driver_id=2, assigned_partner_id=7)
        sides.sql(
            "update phase2.write_intents set core_status = 'BEHIND' where booking_key = %s", one.key
        )  # sql/phase2/rollback/D.sql
        sides.sql("update public.ops_booking_state set assigned_partner_id = null where booking_key = %s", one.key)
        sides.sql("update public.ops_assignment set partner_id = null where booking_key = %s", one.key)
        sides.sql("update phase2.booking_source_times set source_updated_at = now() where booking_key = %s", one.key)
    # of the other one the backfill has brought who was assigned in bstadmin since
    sides.sql("update public.ops_booking_state set assigned_driver_id = 1 where booking_key = %s", other.key)
    sides.sweep()
    held = "select assigned_driver_id, assigned_partner_id from public.ops_booking_state where booking_key = %s"
    assert sides.sql(held, booking.key) == [(2, 7)]
    assert sides.sql(held, other.key) == [(1, None)]
    rows = "select driver_id, partner_id from public.ops_assignment where booking_key = %s and is_active"
    assert sides.sql(rows, booking.key) == [(2, 7)]
