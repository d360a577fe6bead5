"""Reads of the back office from both sides, on real databases: who answers, in what order, and what never fails."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from unittest.mock import AsyncMock

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from bridge import parity, postgres, steps, warehouse
from bridge.core_settings import core_settings
from bridge.runlog import uuid7
from bridge.settings import Databases
from bridge.shadow import judge, upper_bound
from core_api import database
from core_api.ops import shadow, sides
from core_api.ops.sides import Breaker
from tests import serving
from tests.ops_parts import AS_OF, admin, items, shadow_reads, shop, switch

SETTINGS = {"OPS_SHADOW_PERCENTAGE": "0", "OPS_READ_TIMEOUT_SECONDS": "0.5"}
TIE = "2026-01-02 03:04:05.678"


@pytest.fixture(scope="module")
def dbs() -> Iterator[Databases]:
    with serving.environment(), shop() as made:
        os.environ.update(SETTINGS)
        core_settings.cache_clear()
        # many bookings of one day, made at one time: only their numbers tell them apart
        with (
            postgres.connect(made.bstadmin, autocommit=True) as old,
            postgres.connect(made.ops, autocommit=True) as new,
        ):
            day, *_ = old.execute(
                "select tour_date from public.bookings where booking_id in (select booking_id from public.bookings"
                " where booking_ref is not null) group by 1 order by count(*) desc limit 1"
            ).fetchone()
            tied = [r[0] for r in old.execute("select booking_id from public.bookings order by 1 limit 12")]
            old.execute(
                "update public.bookings set tour_date = %s, created_at = %s where booking_id = any(%s)",
                (day, TIE, tied),
            )
            new.execute(
                "update public.booking_core as c set tour_date = (%s + interval '8 hours')::date,"
                " booking_created_at = %s from public.channel_external_refs as r where r.entity_key = c.booking_key"
                " and r.external_ref_kind = 'BSTADMIN_BOOKING_ID' and r.external_ref = any(%s)",
                (day, TIE + "Z", list(map(str, tied))),
            )
            new.execute(  # and as landed
                "update landing_bstadmin.bookings set tour_date = %s, created_at = %s where booking_id = any(%s)",
                (day, TIE, tied),
            )
        # `new` reads the new model, everybody else bstadmin
        switch(made.ops, True, percentage=0, actors=["new"])
        yield made
        for name in SETTINGS:
            del os.environ[name]


@pytest.fixture(scope="module")
def url(dbs) -> Iterator[str]:
    with serving.service(dbs.ops, bstadmin_url=dbs.bstadmin) as url:
        yield url


@pytest.fixture(scope="module")
def client(url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=20) as client:
        yield client


def get(client: httpx.Client, path: str, actor: str = "new", **asked: object) -> httpx.Response:
    return client.get(f"/v1/ops/{path}", params=asked, headers=admin(actor))


def served(answered: httpx.Response) -> str:
    assert answered.status_code == 200, answered.text
    return answered.headers["x-served-by"]


def run_of(dbs: Databases) -> steps.Run:
    return steps.Run(run_id=uuid7(), databases=dbs, as_of=AS_OF)


# -- both sides, one shape --------------------------------------------------------------------------------------------


def test_both_sides_show_the_same_bookings_in_the_same_shape(client, dbs):
    old, new = items(client, actor="old", limit=200), items(client, actor="new", limit=200)
    with postgres.connect(dbs.bstadmin) as conn:
        held = [str(row[0]) for row in conn.execute("select booking_id from public.bookings")]
    assert sorted(row["id"] for row in old) == sorted(held)
    assert {row["id"] for row in new} <= set(held)
    assert len(held) - len(new) <= 2, "those that were merged with another one"
    assert set(old[0]) == set(new[0])
    for row in (new[0], new[-1]):
        one, other = (get(client, f"bookings/{row['id']}", actor=actor) for actor in ("new", "old"))
        assert (served(one), served(other)) == ("new", "legacy")
        assert set(one.json()["data"]) == set(other.json()["data"]) > set(row)
        for name in ("id", "tourDate", "totalPrice", "status"):
            assert one.json()["data"][name] == other.json()["data"][name]


@pytest.mark.parametrize("assigned", [True, False])
def test_the_assignment_board(client, dbs, assigned):
    old, new = (items(client, "/v1/ops/assignments", actor=a, assigned=assigned, limit=200) for a in ("old", "new"))
    assert all((row["driverId"] is not None) is assigned for row in old + new)
    assert len({row["id"] for row in old} ^ {row["id"] for row in new}) <= 4
    assert old
    assert set(old[0]) == set(new[0])


def test_the_board_is_the_whole_boards_rows_whatever_it_is_asked_for(client):
    """Found by indexes first, page by page: of one driver, of nobody, of some days, of days without any."""
    for actor in ("new", "old"):
        whole = {is_: items(client, "/v1/ops/assignments", actor, assigned=is_, limit=200) for is_ in (True, False)}
        drivers = Counter(row["driverId"] for row in whole[True])
        for driver in (drivers.most_common()[0][0], drivers.most_common()[-1][0], 2**31 - 1):
            theirs = [row for row in whole[True] if row["driverId"] == driver]
            assert items(client, "/v1/ops/assignments", actor, driverId=driver, limit=3) == theirs
            assert items(client, "/v1/ops/assignments", actor, driverId=driver, assigned=False) == []
            some = [row for row in theirs if row["tourDate"] >= "2026-06-01"]
            assert items(client, "/v1/ops/assignments", actor, driverId=driver, dateFrom="2026-06-01") == some
        for is_, rows in whole.items():
            assert items(client, "/v1/ops/assignments", actor, assigned=is_, limit=7) == rows
            some = [row for row in rows if "2026-01-01" <= row["tourDate"] <= "2026-10-31"]
            days = {"dateFrom": "2026-01-01", "dateTo": "2026-10-31"}
            assert items(client, "/v1/ops/assignments", actor, assigned=is_, limit=7, **days) == some
            assert items(client, "/v1/ops/assignments", actor, assigned=is_, dateTo="2001-01-01") == []


def test_the_finance_summary(client):
    last = max(row["tourDate"] for row in items(client, limit=200, dateTo=str(AS_OF)))
    old, new = (get(client, "finance/summary", actor, dateTo=last).json()["data"] for actor in ("old", "new"))
    assert old["dateTo"] == last
    assert [row["currency"] for row in old["items"]] == [row["currency"] for row in new["items"]]
    for row in new["items"]:
        assert row["bookings"] >= row["paidBookings"]
        assert row["bookings"] >= row["finances"] >= row["settled"]
    long = get(client, "finance/summary", dateFrom="2026-01-01", dateTo="2026-12-31").json()["data"]
    assert (long["dateFrom"], long["dateTo"]) == ("2026-12-01", "2026-12-31")


def test_a_booking_that_only_an_event_has_told_of_is_listed_under_its_key(client, dbs):
    with without_number(dbs.ops) as (number, key):
        row = next(row for row in items(client, limit=200) if row["id"] == key)
        assert get(client, f"bookings/{key}").json()["data"]["reference"] == row["reference"]
        # bstadmin has it all the same: whoever asks by its number is answered from there
        assert served(get(client, f"bookings/{number}")) == "legacy; missing"
        assert get(client, f"bookings/{key}", "old").status_code == 404
    assert get(client, "bookings/999999999").status_code == 404
    assert get(client, "bookings/nonsense").status_code == 404


# -- filters and pages ------------------------------------------------------------------------------------------------


@given(
    size=st.integers(1, 40),
    status=st.sampled_from([None, "DONE", "NEW"]),
    source=st.sampled_from([None, "GYG"]),
    q=st.sampled_from([None, "made", "GYG"]),
    few=st.sampled_from([sides.FEW, 3]),  # that are looked up; more are met on the way down
    turns=st.lists(st.sampled_from(["new", "old"]), min_size=1, max_size=4),
)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_never_skip_or_repeat_whichever_side_serves_each(client, size, status, source, q, few, turns):
    sides.FEW, kept = few, sides.FEW
    try:
        pages_never_skip_or_repeat(client, size, status, source, q, turns)
    finally:
        sides.FEW = kept


def pages_never_skip_or_repeat(client, size, status, source, q, turns) -> None:
    asked = {name: it for name, it in (("status", status), ("source", source), ("q", q)) if it}
    whole = {side: get(client, "bookings", side, limit=200, **asked).json()["data"]["items"] for side in ("new", "old")}
    for side in ("new", "old"):
        assert items(client, actor=side, limit=size, **asked) == whole[side]
    pages: list[str] = []
    cursor: dict[str, str] = {}
    for turn in range(300):
        page = get(client, "bookings", turns[turn % len(turns)], limit=size, **asked, **cursor).json()["data"]
        pages += [row["id"] for row in page["items"]]
        if page["nextCursor"] is None:
            break
        cursor = {"cursor": page["nextCursor"]}
    places = {side: {row["id"]: (row["tourDate"], row["createdAt"]) for row in whole[side]} for side in whole}
    both = places["new"].keys() & places["old"].keys()
    # an approved difference (of two sources the first created_at) moves a booking within its day
    moved = {one for one in both if places["new"][one] != places["old"][one]}
    assert {one for one, times in Counter(pages).items() if times > 1} <= moved
    assert both - moved <= set(pages) <= places["new"].keys() | places["old"].keys()
    assert len(set(turns)) > 1 or len(pages) == len(set(pages)), "one side alone never repeats"


def test_days_without_end_are_paged_through(client, dbs):
    """bstadmin holds such tours; the read model lists them as invalid."""
    with postgres.connect(dbs.bstadmin, autocommit=True) as conn:
        kept = conn.execute("select booking_id, tour_date from public.bookings order by 1 desc limit 3").fetchall()
        conn.execute(
            "update public.bookings set tour_date = 'infinity' where booking_id = any(%s)", ([row[0] for row in kept],)
        )
        try:
            for size in (1, 2):
                found = [row["id"] for row in items(client, actor="old", limit=size)]
                assert set(found[:3]) == {str(row[0]) for row in kept}
                assert len(found) == len(set(found)) > 100
        finally:
            for number, day in kept:
                conn.execute("update public.bookings set tour_date = %s where booking_id = %s", (day, number))


def test_filters(client):
    every = items(client, limit=200)
    some = items(client, limit=200, status="DONE", source="GYG", dateFrom="2026-01-01", dateTo="2026-10-31")
    assert some == [
        row
        for row in every
        if row["status"] == "DONE" and row["channel"] == "GYG" and "2026-01-01" <= row["tourDate"] <= "2026-10-31"
    ]
    one = every[3]
    part = one["reference"][2:9].lower()
    assert one["id"] in [row["id"] for row in items(client, q=part)]
    assert items(client, q=part, status="CANCELLED" if one["status"] != "CANCELLED" else "NEW") == []


@pytest.mark.parametrize("few", [sides.FEW, 3])  # all are met at the top of the list, or each way is gone
def test_a_search_finds_what_the_whole_list_holds(client, monkeypatch, few):
    monkeypatch.setattr(sides, "FEW", few)
    every = items(client, limit=200)
    name = every[5]["customerName"].split()[0].lower()
    for q in (name, every[7]["reference"][-5:], every[0]["reference"][:3], "qqqzzz"):
        for asked in ({}, {"source": "DIRECT"}, {"status": "DONE"}, {"dateFrom": "2026-01-01", "dateTo": "2026-06-30"}):
            held = [
                row
                for row in every
                if q.lower() in f"{row['reference']}\n{row['customerName']}".lower()
                and row["channel"] == asked.get("source", row["channel"])
                and row["status"] == asked.get("status", row["status"])
                and asked.get("dateFrom", "") <= row["tourDate"] <= asked.get("dateTo", "9999")
            ]
            assert items(client, q=q, limit=4, **asked) == held


HOSTILE = [
    {"q": "'; drop table public.bookings; --"},
    {"q": "%%%"},
    {"q": "___"},
    {"q": "\\\\\\"},
    {"q": "a' or '1'='1"},
    {"q": "\x00\x00\x00"},
    {"q": "ab"},
    {"q": "x" * 5000},
    {"q": "\udce9\udce9\udce9".encode("utf-8", "surrogateescape")},
    {"status": "' or 1=1 --"},
    {"source": "gyg"},
    {"dateFrom": "2026-02-31"},
    {"dateFrom": "0001-01-01"},
    {"dateTo": "9999-12-31"},
    {"dateTo": "infinity"},
    {"limit": "many"},
    {"limit": "-5"},
    {"limit": "99999999999999999999"},
    {"cursor": "AAAA"},
    {"cursor": "x" * 5000},
    {"cursor": "WyIyMDI2LTAxLTAxIiwgIngiLCAxLCBudWxsXQ"},
    {"cursor": "WyIyMDI2LTAxLTAxIiwgIjIwMjYtMDEtMDFUMDA6MDA6MDBaIiwgLTEsIG51bGxd"},
    {"cursor": "bnVsbA"},
    {"cursor": "e30"},
    {"cursor": "W1tdLFtdLFtdLFtdXQ"},
    {"cursor": "WyIyMDI2LVcwMS0xIiwiMjAyNi0wMS0wMVQwMDowMDowMFoiLDEsbnVsbF0"},  # a day as a week of the year
]


@pytest.mark.parametrize("asked", HOSTILE, ids=lambda asked: "-".join(map(str, asked)))
@pytest.mark.parametrize("actor", ["new", "old"])
def test_hostile_filters(client, asked, actor):
    for path in ("bookings", "assignments") if "q" not in asked else ("bookings",):
        answered = get(client, path, actor, **asked)
        assert answered.status_code in (200, 422), answered.text
        if answered.status_code == 422:
            assert answered.json()["error"]["code"] == "VALIDATION_ERROR"
        elif "q" in asked:
            assert answered.json()["data"]["items"] == [], "a wildcard is a letter like any other"
            assert served(answered) == ("new" if actor == "new" else "legacy")


# -- who answers ------------------------------------------------------------------------------------------------------


def test_an_actor_stays_on_one_side_and_a_change_is_in_force_within_5_seconds(client, dbs):
    people = [f"person-{number}" for number in range(30)]
    try:
        switch(dbs.ops, True, percentage=50)
        until(lambda: {served(get(client, "bookings", one, limit=1)) for one in people} == {"new", "legacy"})
        first = {one: served(get(client, "bookings", one, limit=1)) for one in people}
        for path in ("bookings", "assignments"):
            assert first == {one: served(get(client, path, one, limit=1)) for one in people}
        switch(dbs.ops, False)
        took = until(lambda: all(served(get(client, "bookings", one, limit=1)) == "legacy" for one in people))
        assert took < 5
    finally:
        switch(dbs.ops, True, percentage=0, actors=["new"])
        until(lambda: served(get(client, "bookings", "new", limit=1)) == "new")


def until(true: Callable[[], bool], seconds: float = 6.0) -> float:
    """Wait until it is so; how long it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds, "it did not come"
        time.sleep(0.05)
    return time.monotonic() - started


def test_when_the_read_model_fails_bstadmin_answers_and_the_breaker_spares_both(client, dbs, monkeypatch):
    monkeypatch.setattr(Breaker, "OPEN_SECONDS", 0.6)
    try:
        with renamed(dbs.ops):
            found = [served(get(client, "bookings", limit=1)) for _ in range(Breaker.FAILURES + 3)]
            assert found == ["legacy; fallback"] * Breaker.FAILURES + ["legacy; breaker"] * 3
            time.sleep(0.7)
            assert served(get(client, "bookings", limit=1)) == "legacy; fallback", "one tries again"
            assert served(get(client, "bookings", limit=1)) == "legacy; breaker"
            assert get(client, "bookings/1").status_code == 200
            assert get(client, f"bookings/{uuid7()}").status_code == 503, "bstadmin cannot say that there is none"
    finally:
        until(lambda: served(get(client, "bookings", limit=1)) == "new")
    said = client.get("/metrics").text
    assert 'ops_reads_total{read="bookings",side="legacy",why="fallback"}' in said


def test_when_the_read_model_is_late_bstadmin_answers_in_time(client, dbs):
    with postgres.connect(dbs.ops) as conn:
        conn.execute("lock table public.booking_core in access exclusive mode")
        started = time.monotonic()
        assert served(get(client, "bookings", limit=1)) == "legacy; fallback"
        assert time.monotonic() - started < 2
        conn.rollback()
    until(lambda: served(get(client, "bookings", limit=1)) == "new")


def test_when_the_read_model_does_not_even_give_up_bstadmin_answers_in_time(client, dbs):
    get(client, "bookings", limit=1)
    with postgres.connect(dbs.ops, autocommit=True) as conn:
        pids = [
            row[0]
            for row in conn.execute(
                "select pid from pg_stat_activity"
                " where application_name = 'phase2-ops-read' and datname = current_database()"
            )
        ]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        started = time.monotonic()
        assert served(get(client, "bookings", limit=1)) == "legacy; fallback"
        assert time.monotonic() - started < 2
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    until(lambda: served(get(client, "bookings", limit=1)) == "new", 12)


def test_when_the_database_of_the_read_model_is_gone_bstadmin_answers(dbs, monkeypatch):
    monkeypatch.setenv("OPS_READ_NEW_MODEL_ENABLED", "true")
    monkeypatch.setenv("OPS_READ_TIMEOUT_SECONDS", "0.2")
    core_settings.cache_clear()
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    with serving.service(nowhere, bstadmin_url=dbs.bstadmin) as url, httpx.Client(base_url=url, timeout=20) as client:
        found = [served(get(client, "bookings", "anybody", limit=1)) for _ in range(Breaker.FAILURES + 1)]
    assert found == ["legacy; fallback"] * Breaker.FAILURES + ["legacy; breaker"]
    monkeypatch.undo()
    core_settings.cache_clear()


def test_answers_are_counted_in_the_database(client, dbs):
    get(client, "bookings", limit=1)

    def counts() -> dict[tuple[str, str], int]:
        with postgres.connect(dbs.ops) as conn:
            return {
                (side, why): count
                for side, why, count in conn.execute("select side, why, sum(reads) from phase2.ops_reads group by 1, 2")
            }

    until(lambda: counts().get(("new", "flag"), 0) > 0, 8)


# -- what is found ----------------------------------------------------------------------------------------------------

ONE = """
select r.external_ref, c.booking_key
from public.booking_core as c
join public.channel_external_refs as r on c.booking_key = r.entity_key and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
join public.booking_contact as t on c.booking_key = t.booking_key
join public.ops_booking_state as s on c.booking_key = s.booking_key
join public.ops_assignment as a on c.booking_key = a.booking_key and a.is_active
where
    c.channel_code = 'GYG' and s.assigned_driver_id is not null and c.note is null and t.main_name is not null
    and (
        select count(*) from public.channel_external_refs as o
        where o.entity_key = c.booking_key and o.external_ref_kind like '%BOOKING_ID'
    ) = 1
order by c.booking_key
limit 2
"""
PLANTED = {
    "a cent": ("total_price", "update public.booking_core set total_price = total_price + 0.01 where booking_key = %s"),
    "a day": ("tour_date", "update public.booking_core set tour_date = tour_date + 1 where booking_key = %s"),
    "a driver": (
        "driver_id",
        "update public.ops_booking_state set assigned_driver_id = assigned_driver_id + 1 where booking_key = %s",
    ),
    "a driver on the board": (
        "board_driver_id",
        "update public.ops_assignment set driver_id = driver_id + 1 where booking_key = %s and is_active",
    ),
    "a child": (
        "children",
        "update public.booking_core set number_of_child = number_of_child + 1 where booking_key = %s",
    ),
    "null against empty": ("note", "update public.booking_core set note = '' where booking_key = %s"),
    "a name against null": (
        "customer_name",
        "update public.booking_contact set main_name = null where booking_key = %s",
    ),
    "an hour": ("tour_time", "update public.booking_core set tour_time = '23:59' where booking_key = %s"),
    "a status": (
        "status",
        "update public.booking_core set ops_fulfillment_status = case ops_fulfillment_status when 'CANCELLED' then"
        " 'DONE' else 'CANCELLED' end where booking_key = %s",
    ),
}
TABLES = (
    "booking_core",
    "booking_contact",
    "booking_party",
    "booking_item_snapshot",
    "payment_event",
    "ops_booking_state",
    "ops_assignment",
    "ops_finance_bridge",
)


@contextmanager
def restored(ops: str, key: object) -> Iterator[psycopg.Connection]:
    """Whatever is done to a booking's rows is undone."""
    column = {"channel_external_refs": "entity_key"}
    tables = (*TABLES, "channel_external_refs")
    with postgres.connect(ops, autocommit=True) as conn:
        kept = {
            table: conn.execute(
                postgres.statement(
                    "select coalesce(jsonb_agg(t), '[]') from public.{} as t where {} = %s",
                    table,
                    column.get(table, "booking_key"),
                ),
                (key,),
            ).fetchone()[0]
            for table in tables
        }
        try:
            yield conn
        finally:
            remove(conn, key)
            for table, rows in kept.items():
                conn.execute(
                    postgres.statement(
                        "insert into public.{} select * from jsonb_populate_recordset(null::public.{}, %s)",
                        table,
                        table,
                    ),
                    (Jsonb(rows),),
                )


def remove(conn: psycopg.Connection, key: object) -> None:
    conn.execute("delete from public.channel_external_refs where entity_key = %s", (key,))
    for table in reversed(TABLES):
        conn.execute(postgres.statement("delete from public.{} where booking_key = %s", table), (key,))


@contextmanager
def without_number(ops: str) -> Iterator[tuple[str, str]]:
    """A booking as an event leaves it: bstadmin's number of it is not known."""
    with postgres.connect(ops) as conn:
        number, key = conn.execute(ONE).fetchone()
    with restored(ops, key) as conn:
        conn.execute(
            "delete from public.channel_external_refs where entity_key = %s"
            " and external_ref_kind = 'BSTADMIN_BOOKING_ID'",
            (key,),
        )
        yield number, str(key)


@contextmanager
def renamed(ops: str) -> Iterator[None]:
    """The read model's views are not there."""
    with postgres.connect(ops, autocommit=True) as conn:
        conn.execute("alter schema ops_read rename to ops_read_away")
        try:
            yield
        finally:
            conn.execute("alter schema ops_read_away rename to ops_read")


def unexplained(result: parity.Parity) -> dict[str, set[str]]:
    return {
        row["id"]: {name for name, (_, _, rule) in row["differences"].items() if rule is None} for row in result.found
    }


def test_full_parity_of_equal_data_finds_nothing(dbs):
    result = parity.compare(run_of(dbs))
    assert unexplained(result) == {}
    assert result.counts["bookings"] == result.counts["same"] + result.counts["explained"] > 100
    explained = {(row["field"], row["rule"]) for row in result.fields}
    assert ("meeting_point", "PLACE") in explained
    assert all(row["reason"] and row["owner"] for row in result.fields)


@pytest.mark.parametrize("kind", PLANTED)
def test_full_parity_finds_what_is_planted_with_the_right_field(dbs, kind):
    field, plant = PLANTED[kind]
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(ONE).fetchone()
    with restored(dbs.ops, key) as conn:
        assert conn.execute(plant, (key,)).rowcount == 1
        assert unexplained(parity.compare(run_of(dbs))) == {number: {field}}


def test_full_parity_finds_missing_bookings_and_swapped_names(dbs):
    with postgres.connect(dbs.ops) as conn:
        (number, key), (other, other_key) = conn.execute(ONE).fetchall()
    with restored(dbs.ops, key) as conn:
        remove(conn, key)
        result = parity.compare(run_of(dbs))
        assert unexplained(result) == {number: {"booking"}}
        assert result.counts["missing"] == 1
    with restored(dbs.ops, key) as conn, restored(dbs.ops, other_key):
        names = "select booking_key, main_name from public.booking_contact where booking_key = any(%s)"
        found = dict(conn.execute(names, ([key, other_key],)).fetchall())
        for one, another in ((key, other_key), (other_key, key)):
            conn.execute(
                "update public.booking_contact set main_name = %s where booking_key = %s", (found[another], one)
            )
        result = parity.compare(run_of(dbs))
        assert unexplained(result) == {number: {"customer_name"}, other: {"customer_name"}}
        assert found[key] not in str(result.found), "names are masked"


def test_an_approval_that_has_expired_explains_nothing_and_nothing_is_ignored_for_ever(dbs):
    def different() -> int:
        # as it was made is part of what stands: the comparison would load the seed again
        return conn.execute("select count(*) from ops_read.shadow_bookings where status = 'DIFFERENT'").fetchone()[0]

    with postgres.connect(dbs.ops) as conn:
        conn.execute("update dbt_seeds.approved_differences set expires_on = '2026-01-01' where rule = 'PLACE'")
        assert different() > 50
        conn.execute(
            "insert into dbt_seeds.approved_differences select field, 'IGNORE', 'x', 'x', null"
            " from dbt_seeds.approved_differences where rule = 'PLACE'"
        )
        assert different() > 50
        conn.execute("update dbt_seeds.approved_differences set expires_on = '2999-01-01' where rule = 'IGNORE'")
        assert different() == 0
        conn.rollback()


BOTH_SOURCES = """
select max(r.external_ref) filter (where r.external_ref_kind = 'BSTADMIN_BOOKING_ID'), c.booking_key
from public.booking_core as c
join public.channel_external_refs as r on c.booking_key = r.entity_key and r.external_ref_kind like '%BOOKING_ID'
join public.ops_booking_state as s on c.booking_key = s.booking_key
where c.channel_code = 'DIRECT' and s.assigned_driver_id is not null
group by c.booking_key
having count(*) = 2 and count(*) filter (where r.external_ref_kind = 'BSTADMIN_BOOKING_ID') = 1
limit 1
"""


WRONG = (
    "update public.booking_core set booking_date = '2001-01-01', tour_date = '2001-01-01', tour_time = '23:59',"
    " number_of_adult = 77, number_of_child = 78, currency_code = 'XXX', total_price = 77.77,"
    " legacy_package_id = 987654, note = 'Wrong', booking_created_at = '2001-01-01' where booking_key = %s",
    "update public.booking_contact set main_name = 'Wrong', main_email = 'wrong@example.org', phone = '+62000000',"
    " pickup_location = 'nowhere', meeting_point = 'nowhere' where booking_key = %s",
    "update public.ops_booking_state set is_paid_flag = true, paid_at = '2001-01-01' where booking_key = %s",
)
UNPAID = """
update landing_balisnap.{} set {} = 'FAILED'
where
    booking_id in (
        select r.external_ref::integer from public.channel_external_refs as r
        where r.entity_key = %s and r.external_ref_kind = 'BALISNAP_BOOKING_ID'
    )
"""


def test_a_value_that_no_source_says_is_not_the_other_sources(dbs):
    """Every field of a booking of both sources, with a review and after an event too old, holds what nobody said."""
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(BOTH_SOURCES).fetchone()
        conn.execute(
            "insert into public.unmapped_queue (queue_key, queue_type, channel_code, source_system, source_table,"
            " source_pk, reason_code, reason_detail, status) select gen_random_uuid(), 'BOOKING_REVIEW', 'DIRECT',"
            " 'canonical', 'booking_identity', channel_code || ':' || external_booking_ref, 'MULTI_MATCH', 'a test',"
            " 'OPEN' from public.booking_core where booking_key = %s on conflict do nothing",
            (key,),
        )
        says = "update landing_bstadmin.bookings set is_paid = false, note = null where booking_id = %s"
        conn.execute(says, (number,))
        conn.execute(postgres.statement(UNPAID, "Booking", "status_v2"), (key,))
        conn.execute(postgres.statement(UNPAID, "Payment", "payment_status_v2"), (key,))
        for wrong in WRONG:
            conn.execute(wrong, (key,))

        def found() -> tuple[dict[str, set[str]], set[str]]:
            conn.execute(parity._TOLD)
            rows = conn.execute(
                "select id, differences from ops_read.shadow_bookings where status = 'DIFFERENT'"
            ).fetchall()
            told = {one: {f for f, (_, _, rule) in differences.items() if rule is None} for one, differences in rows}
            return told, {f for _, d in rows for f, (_, _, rule) in d.items() if rule == "INGESTED"}

        whole = {
            *("booked_on", "tour_date", "tour_time", "adults", "children", "currency", "total_price", "package_id"),
            *("customer_name", "customer_email", "customer_phone", "pickup_location", "meeting_point", "created_at"),
            *("is_paid", "paid_at", "note"),
        }
        assert found() == ({number: whole}, set())
        # what an event has told since the sources were landed, none of them can say yet: for seven days
        told_by_an_event = "insert into phase2.booking_freshness (booking_key, last_event_time) values (%s, %s)"
        conn.execute(told_by_an_event, (key, datetime.now(UTC) - timedelta(days=8)))
        conn.execute("delete from phase2.booking_source_times where booking_key = %s", (key,))
        assert found() == ({number: whole}, set())
        conn.execute("update phase2.booking_freshness set last_event_time = now() where booking_key = %s", (key,))
        ingested = whole - {"booked_on", "tour_date", "total_price", "package_id", "created_at"}
        assert found() == ({number: whole - ingested}, ingested)
        conn.rollback()


@pytest.mark.parametrize(
    ("field", "plant"),
    [
        PLANTED["a driver"],
        PLANTED["a status"],
        ("created_at", "update public.booking_core set booking_created_at = '2199-01-01' where booking_key = %s"),
        ("note", "update public.booking_core set note = 'of another one' where booking_key = %s"),
    ],
    ids=lambda it: it if it.isidentifier() else "",
)
def test_another_source_explains_only_what_it_can_have_said(dbs, field, plant):
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(BOTH_SOURCES).fetchone()
        conn.execute("update landing_bstadmin.bookings set note = 'window seat' where booking_id = %s", (number,))
        conn.execute("update public.booking_core set note = 'window seat' where booking_key = %s", (key,))
        conn.execute(parity._TOLD)
        assert conn.execute(plant, (key,)).rowcount == 1
        found = conn.execute(
            "select differences from ops_read.shadow_bookings where id = %s and status = 'DIFFERENT'", (number,)
        ).fetchone()
        assert found, "explained by the other source"
        assert {name for name, (_, _, rule) in found[0].items() if rule is None} == {field}
        conn.rollback()


# -- shadow reads -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def watched(dbs) -> Iterator[httpx.Client]:
    """A service that runs every read on the other side too."""
    os.environ["OPS_SHADOW_PERCENTAGE"] = "100"
    core_settings.cache_clear()
    try:
        with (
            serving.service(dbs.ops, bstadmin_url=dbs.bstadmin) as url,
            httpx.Client(base_url=url, timeout=20) as client,
        ):
            yield client
    finally:
        os.environ["OPS_SHADOW_PERCENTAGE"] = SETTINGS["OPS_SHADOW_PERCENTAGE"]
        core_settings.cache_clear()


def shadowed(dbs: Databases, read: Callable[[], object]) -> tuple[dict, dict[tuple[str, str], tuple]]:
    """The shadow read that a read gave rise to, and its differences: (booking, field) -> (old, new, rule)."""
    with postgres.connect(dbs.ops, autocommit=True) as conn:
        conn.execute("truncate phase2.shadow_reads cascade")
        read()
        until(lambda: conn.execute("select exists (select 1 from phase2.shadow_reads)").fetchone() == (True,))
        row = conn.execute("select to_jsonb(r) from phase2.shadow_reads as r").fetchone()[0]
        found = conn.execute(
            "select booking, field, legacy_value, new_value, rule from phase2.shadow_differences order by 1, 2"
        ).fetchall()
    return row, {(booking, field): (old, new, rule) for booking, field, old, new, rule in found}


PATHS = ("bookings", "assignments", "finance/summary", "bookings/{number}")


@pytest.mark.parametrize("actor", ["new", "old"])
@pytest.mark.parametrize("path", PATHS)
def test_shadow_of_equal_data_finds_nothing_unexplained(watched, dbs, monkeypatch, path, actor):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    with postgres.connect(dbs.ops) as conn:
        number, _ = conn.execute(ONE).fetchone()
    asked = {"limit": 200} if path in ("bookings", "assignments") else {}
    row, found = shadowed(dbs, lambda: get(watched, path.format(number=number), actor, **asked))
    assert row["outcome"] in ("same", "explained"), found
    assert (row["kind"], row["served_by"]) == ("shadow", "new" if actor == "new" else "legacy")
    assert row["served_seconds"] > 0
    assert row["shadow_seconds"] > 0
    assert all(rule for _, _, rule in found.values())
    if "limit" in asked:
        assert row["bookings"] > 20
        assert row["dates"] == row["heads"] == row["bookings"]
        assert row["path"].endswith("?limit=200")


SHOWN = {"tour_date": ("bookings", "assignments"), "board_driver_id": ("assignments",), "note": ()}


@pytest.mark.parametrize("kind", PLANTED)
def test_shadow_finds_what_is_planted_with_the_right_field(watched, dbs, monkeypatch, kind):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    field, plant = PLANTED[kind]
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(ONE).fetchone()
    with restored(dbs.ops, key) as conn:
        conn.execute(plant, (key,))
        if field != "board_driver_id":
            row, found = shadowed(dbs, lambda: get(watched, f"bookings/{number}", "new"))
            assert row["outcome"] == "different"
            assert {name for (_, name), (_, _, rule) in found.items() if rule is None} == {field}
        for path in SHOWN.get(field, ("bookings",)):
            row, found = shadowed(dbs, lambda path=path: get(watched, path, "old", limit=200))
            wrong = {(one, name) for (one, name), (_, _, rule) in found.items() if rule is None}
            shown = "driver_id" if field == "board_driver_id" else field
            assert wrong - {(number, "row")} == {(number, shown)}
            assert row["unexplained"] == len(wrong)
            for count, fields in (("money_wrong", {"total_price"}), ("dates_wrong", {"tour_date"})):
                assert row[count] == (1 if shown in fields or (number, "row") in wrong else 0)


def test_shadow_finds_a_missing_booking_and_masks_names(watched, dbs, monkeypatch):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(ONE).fetchone()
    with restored(dbs.ops, key) as conn:
        remove(conn, key)
        row, found = shadowed(dbs, lambda: get(watched, "bookings", "old", limit=200))
        assert [(one, name) for (one, name), (_, _, rule) in found.items() if rule is None] == [(number, "booking")]
    with restored(dbs.ops, key) as conn:
        conn.execute("update public.booking_contact set main_name = 'Wayan Sudarma' where booking_key = %s", (key,))
        row, found = shadowed(dbs, lambda: get(watched, f"bookings/{number}", "old"))
        assert found[number, "customer_name"][1] == "W•••"


def test_shadow_takes_no_name_for_balisnaps_that_balisnap_does_not_say(watched, dbs, monkeypatch):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    parity.compare(run_of(dbs))
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(BOTH_SOURCES).fetchone()
    with restored(dbs.ops, key) as conn:
        wrong = "update public.booking_contact set main_name = 'Wrong' where booking_key = %s"
        conn.execute(wrong, (key,))
        for landed in ("truncate phase2.parity_told", "update phase2.parity_runs set landed = '{}'"):
            conn.execute(landed)  # what a full comparison has kept, or what is landed: the same
            _, found = shadowed(dbs, lambda: get(watched, f"bookings/{number}", actor="new"))
            assert {name for (_, name), (*_, rule) in found.items() if rule is None} == {"customer_name"}
        away = (
            "update {}.{} set booking_id = -booking_id where abs(booking_id) in (select external_ref::integer from"
            " public.channel_external_refs where entity_key = %s and external_ref_kind like '%%BOOKING_ID')"
        )
        landed = [("landing_balisnap", name) for name in ("Booking", "BookingItem", "Payment")]
        for back in (False, True):
            for table in (*landed, ("landing_bstadmin", "bookings")):
                conn.execute(postgres.statement(away, *table), (key,))
            if not back:
                row, found = shadowed(dbs, lambda: get(watched, f"bookings/{number}", actor="new"))
                assert (row["outcome"], found) == ("failed", {})
                assert row["error"].startswith("what the sources said is not landed any more")


def test_a_booking_that_bstadmin_has_not_got_yet_is_explained_for_a_week_and_is_compared_once_it_has(
    watched, dbs, monkeypatch
):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)

    def said(of: str) -> dict[str, str | None]:
        _, found = shadowed(dbs, lambda: get(watched, "bookings", "new", limit=200, dateFrom="2024-01-01"))
        return {name: rule for (one, name), (_, _, rule) in found.items() if one == of}

    with postgres.connect(dbs.bstadmin, autocommit=True) as old, without_number(dbs.ops) as (number, key):
        ref = old.execute("select booking_ref from public.bookings where booking_id = %s", (number,)).fetchone()[0]
        move = "update public.bookings set {} where booking_id = %s"
        with postgres.connect(dbs.ops, autocommit=True) as conn:
            conn.execute(
                "insert into phase2.booking_event_times (booking_key, made_here, first_event_at)"
                " values (%s, true, now())",
                (key,),
            )
            try:
                # bstadmin has it: on another day, and so on no page of these
                old.execute(move.format("tour_date = tour_date - interval '9 years'"), (number,))
                assert said(key)["tour_date"] is None
                old.execute(
                    move.format("booking_ref = 'another one', tour_date = tour_date + interval '9 years'"), (number,)
                )
                assert said(key) == {"booking": "INGESTED"}
                row, found = shadowed(dbs, lambda: get(watched, f"bookings/{key}", "new"))
                assert (row["outcome"], row["reread"]) == ("explained", False)
                conn.execute(
                    "update public.booking_core set created_at = now() - interval '8 days' where booking_key = %s",
                    (key,),
                )
                assert said(key) == {"booking": None}, "for a week"
                conn.execute("update public.booking_core set created_at = now() where booking_key = %s", (key,))
                conn.execute("update phase2.booking_event_times set made_here = false where booking_key = %s", (key,))
                assert said(key) == {"booking": None}, "no event has made it: its number was lost"
            finally:
                old.execute(move.format("booking_ref = %s"), (ref, number))
                conn.execute("delete from phase2.booking_event_times where booking_key = %s", (key,))


def test_shadow_finds_a_page_that_shows_what_the_booking_is_not(watched, dbs, monkeypatch):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    statement = sides._statement

    def a_cent_more(side: sides.SideName, name: str, *rest: object) -> bytes:
        text = statement(side, name, *rest)
        wrong = b"(b.total_price + 0.01)::text" if (side, name) == ("new", "bookings") else b"b.total_price::text"
        return text.replace(b"b.total_price::text", wrong)

    monkeypatch.setattr(sides, "_statement", a_cent_more)
    row, found = shadowed(dbs, lambda: get(watched, "bookings", "new", limit=5))
    assert {(name, rule) for (_, name), (_, _, rule) in found.items() if rule is None} == {("total_price", None)}
    assert row["money_wrong"] == row["unexplained"] >= 4


def test_a_merged_booking_stands_on_a_page_once(watched, dbs, monkeypatch):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    with postgres.connect(dbs.ops) as conn:
        number, key = conn.execute(ONE).fetchone()
    with restored(dbs.ops, key) as conn, postgres.connect(dbs.bstadmin, autocommit=True) as old:
        conn.execute(
            "insert into public.channel_external_refs select (jsonb_populate_record(r, jsonb_build_object("
            "'external_ref_key', gen_random_uuid(), 'external_ref', '999999'))).*"
            " from public.channel_external_refs as r where r.external_ref_kind = 'BSTADMIN_BOOKING_ID'"
            " and r.external_ref = %s",
            (number,),
        )
        old.execute(
            "insert into public.bookings select (jsonb_populate_record(b, jsonb_build_object('booking_id', 999999,"
            " 'booking_ref', lower(b.booking_ref)))).* from public.bookings as b where b.booking_id = %s",
            (number,),
        )
        try:
            for path, asked in (("bookings/999999", {}), ("bookings", {"limit": 200})):
                row, found = shadowed(dbs, lambda path=path, asked=asked: get(watched, path, "new", **asked))
                assert row["outcome"] == "explained", found
                assert found["999999", "row"][2] == "OTHER_BOOKING"
        finally:
            old.execute("delete from public.bookings where booking_id = 999999")
    # what else is asked may be anything
    row, _ = shadowed(dbs, lambda: get(watched, "bookings", "new", q="wayan", name="Wayan Sudarma"))
    assert row["path"] == "/v1/ops/bookings?q=•••"


def test_bstadmin_against_itself_is_the_noise(watched, dbs, monkeypatch):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 100.0)
    row, found = shadowed(dbs, lambda: get(watched, "bookings", "old", limit=200))
    assert (row["kind"], row["outcome"], found) == ("calibration", "same", {})


def test_what_is_over_the_budget_is_dropped_and_what_fails_is_kept_as_failed(watched, dbs, monkeypatch):
    monkeypatch.setattr(shadow, "CALIBRATION_PERCENTAGE", 0.0)
    monkeypatch.setattr(shadow, "SECONDS", 1.0)
    with postgres.connect(dbs.ops) as conn:
        conn.execute("truncate phase2.shadow_reads cascade")
        conn.commit()
        conn.execute("lock table public.booking_core in access exclusive mode")
        started = time.monotonic()
        for _ in range(shadow.CONCURRENCY + 3):
            assert served(get(watched, "bookings", "old", limit=1)) == "legacy"
        assert time.monotonic() - started < 1, "a shadow read that waits keeps nobody waiting"
        conn.rollback()
        conn.autocommit = True
        counted = "select count(*) from phase2.shadow_reads"
        until(lambda: conn.execute(counted).fetchone() == (shadow.CONCURRENCY,))  # those that waited come to their end
    said = watched.get("/metrics").text
    assert 'ops_shadow_reads_total{outcome="dropped",read="bookings"} 3.0' in said
    with renamed(dbs.ops):
        row, _ = shadowed(dbs, lambda: get(watched, "bookings", "old", limit=1))
    assert row["outcome"] == "failed"
    assert "does not exist" in row["error"]


# -- the step up, and the gates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("different", "compared", "expected"),
    [(0, 299, 0.00997), (0, 298, 0.01001), (1, 473, 0.00999), (3, 1000, 0.00774), (0, 0, 1.0), (5, 5, 1.0)],
)
def test_how_high_a_rate_may_be(different, compared, expected):
    assert upper_bound(different, compared) == pytest.approx(expected, abs=2e-5)


def gates(ops: str) -> dict[str, tuple]:
    """What recon_g measures: value, numerator, denominator; and how many exceptions it lists."""
    with postgres.connect(ops) as conn:
        listed = dict(
            conn.execute(
                "select gate_id, count(*) from dbt_recon.recon_g where kind = 'exception' group by 1"
            ).fetchall()
        )
        return {
            gate: (value, numerator, denominator, listed.get(gate, 0))
            for gate, value, numerator, denominator in conn.execute(
                "select gate_id, value, numerator, denominator from dbt_recon.recon_g"
                " where kind = 'measure' and gate_id like 'BG-%'"
            )
        }


@pytest.fixture(scope="module")
def measured(dbs) -> Databases:
    warehouse.build(dbs.ops, "recon")
    return dbs


def test_a_step_up_waits_for_enough_samples_and_stops_at_differences(dbs):
    with postgres.connect(dbs.ops, autocommit=True) as conn:
        conn.execute("truncate phase2.shadow_reads cascade")
        for read in ("bookings", "booking", "assignments", "finance"):
            shadow_reads(conn, read, 298)
        waits = judge(conn)
        assert not waits.may_step_up
        assert {reason.split(":")[0].split(" was")[0] for reason in waits.reasons} == {
            "bookings", "booking", "assignments", "finance", "bstadmin",
        }  # fmt: skip
        for read in ("bookings", "booking", "unassigned", "finance"):
            shadow_reads(conn, read, 1)
        shadow_reads(conn, "bookings", 20, kind="calibration")
        assert judge(conn).may_step_up
        shadow_reads(conn, "booking", 1, outcome="failed", error="late")
        assert judge(conn).may_step_up, "what could not be compared is told, not counted"
        shadow_reads(conn, "booking", 12, money_wrong=1)
        assert [reason.split(":")[0] for reason in judge(conn).reasons] == ["money"]
        shadow_reads(conn, "booking", 3, outcome="different")
        assert [reason.split(":")[0] for reason in judge(conn).reasons] == ["booking", "money"]
        conn.execute("update phase2.flags set changed_at = now() where flag = 'OPS_READ_NEW_MODEL_ENABLED'")
        assert judge(conn).lines[0].compared == 0, "each step needs samples of its own"


def test_gate_bg_01_holds_the_latest_full_comparison_to_its_limit(measured):
    parity.compare(run_of(measured))
    value, numerator, denominator, listed = gates(measured.ops)["BG-01"]
    assert (value, numerator, listed) == (0, 0, 0)
    assert denominator > 100
    with postgres.connect(measured.ops) as conn:
        _, key = conn.execute(ONE).fetchone()
    with restored(measured.ops, key) as conn:
        remove(conn, key)
        parity.compare(run_of(measured))
    value, numerator, _, listed = gates(measured.ops)["BG-01"]
    assert (numerator, listed) == (1, 1)
    assert float(value) == pytest.approx(1 / float(denominator))
    with postgres.connect(measured.ops, autocommit=True) as conn:
        conn.execute("truncate phase2.parity_bookings")  # as a crash of the server does
        assert gates(measured.ops)["BG-01"][0] is None
    parity.compare(run_of(measured))
    with postgres.connect(measured.ops, autocommit=True) as conn:
        conn.execute("update phase2.parity_runs set landed = '{}'")
        assert gates(measured.ops)["BG-01"][0] is None, "other rows are landed now"
    parity.compare(run_of(measured))


def test_what_is_a_month_old_is_forgotten(dbs):
    async def forgotten() -> None:
        async with database.pool(dbs.ops, size=1, application_name="test") as pool:
            await sides.forget(pool)

    with postgres.connect(dbs.ops, autocommit=True) as conn:
        conn.execute("truncate phase2.shadow_reads cascade")
        shadow_reads(conn, "booking", 2, compared_at="2026-01-01T00:00:00Z")
        shadow_reads(conn, "booking", 3)
        asyncio.run(forgotten())
        assert conn.execute("select count(*) from phase2.shadow_reads").fetchone() == (3,)
        conn.execute("truncate phase2.shadow_reads cascade")


def test_gate_bg_02_counts_server_errors_since_the_switch(measured, monkeypatch):
    monkeypatch.setattr(sides.Sides, "flush", AsyncMock())  # services of other tests stand, and would add theirs
    with postgres.connect(measured.ops, autocommit=True) as conn:
        conn.execute("truncate phase2.ops_reads")
        assert gates(measured.ops)["BG-02"][:3] == (None, 0, 0)
        conn.execute("update phase2.flags set changed_at = now() - interval '1 hour'")
        conn.execute(
            "insert into phase2.ops_reads"
            " select date_trunc('minute', now()) - ago * interval '1 minute', %s, 'bookings', 'legacy', 'fallback',"
            " failed, 1, reads from (values (0, false, 97), (0, true, 3), (30, true, 50)) as v (ago, failed, reads)",
            (uuid7(),),
        )
        value, numerator, denominator, listed = gates(measured.ops)["BG-02"]
        assert (float(value), numerator, denominator, listed) == (0.03, 3, 100, 3)
        conn.execute("truncate phase2.ops_reads")


def test_gate_bg_04_compares_both_sides_times_for_the_same_reads(measured):
    with postgres.connect(measured.ops, autocommit=True) as conn:
        conn.execute("truncate phase2.shadow_reads cascade")
        for read in ("bookings", "booking", "assignments"):
            shadow_reads(conn, read, 100)
        shadow_reads(conn, "finance", 99)
        assert (gates(measured.ops)["BG-04"][0], gates(measured.ops)["BG-04"][3]) == (None, 1), "too few"
        shadow_reads(conn, "finance", 1)
        value, _, denominator, listed = gates(measured.ops)["BG-04"]
        assert (float(value), denominator, listed) == (1.0, 4, 0)
        shadow_reads(conn, "finance", 10, slow=1.5)
        value, _, _, listed = gates(measured.ops)["BG-04"]
        assert (float(value), listed) == (1.5, 1)
        conn.execute("truncate phase2.shadow_reads cascade")
