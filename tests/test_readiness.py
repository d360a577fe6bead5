"""Readiness before batch A, freeze windows, and drift of a schema against what was accepted."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from bridge import backup, cli, drift, flags, ledger, postgres, readiness, runlog, scripts, steps
from bridge.batches import BATCHES, Step
from bridge.errors import CouldNotRun, Stopped
from bridge.policy import POLICIES, Criterion
from bridge.settings import Databases, settings
from tests.without_prefect import migrate

A, D = BATCHES["A"], BATCHES["D"]
NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
SIGNED = {f"{item.name}, {role}" for item in readiness.ITEMS.values() for role in item.roles}


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """An ops database with our state, and one as source: both are the tests' own."""
    server, tag = os.environ["TEST_PG_URL"], uuid4().hex[:8]
    names = {place: f"t_ready_{place}_{tag}" for place in ("ops", "balisnap", "bstadmin")}
    with postgres.connect(server, autocommit=True) as conn:
        for name in names.values():
            conn.execute(postgres.statement("create database {}", name))
    found = {place: postgres.with_database(server, name) for place, name in names.items()}
    with postgres.connect(found["balisnap"], autocommit=True) as conn:
        conn.execute(
            "create table public.tours (id integer primary key, name text); insert into public.tours values (1)"
        )
    yield found
    with postgres.connect(server, autocommit=True) as conn:
        for name in names.values():
            conn.execute(postgres.statement("drop database {} with (force)", name))


@pytest.fixture
def conn(urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """The ops database with an empty ledger, in an environment that has all settings, at a fixed time."""
    for name in flags.FLAGS:
        monkeypatch.delenv(name, raising=False)
    for place, url in urls.items():
        monkeypatch.setenv(f"{place.upper()}_DB_URL", url)
    for name, value in {
        "PHASE2_HOME": str(tmp_path),
        "PHASE2_ENV": "production",
        "PHASE2_ACTOR": "ayu",
        "PHASE2_DISK_TOTAL_BYTES": "1000",
        "PHASE2_DISK_USED_BYTES": "100",
    }.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    with postgres.connect(urls["ops"], autocommit=True) as made:
        made.execute("set client_min_messages = error; drop schema if exists phase2 cascade")
        steps.bootstrap(urls["ops"])
        yield made
    settings.cache_clear()


def at(moment: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runlog, "utc_now", lambda: moment)


def lines(conn: psycopg.Connection, batch=A, environment: str = "production") -> dict[str, Criterion]:
    return {line.name: line for line in readiness.criteria(conn, batch, POLICIES[environment])}


def holding(conn: psycopg.Connection, batch=A) -> set[str]:
    return {name for name, line in lines(conn, batch).items() if line.holds}


def phase2(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["phase2", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


def test_nothing_is_ready_by_itself_and_each_item_has_its_way(conn, urls) -> None:
    assert holding(conn) == {"backup of balisnap", "backup of bstadmin", *SIGNED, "freeze window"}
    dbs = Databases(**urls, channel=None)
    for source in ("balisnap", "bstadmin"):
        backup.take(dbs, source, why="readiness")
    for item in readiness.ITEMS.values():
        for role in item.roles:
            readiness.sign(conn, item.name, role, "ayu", "https://wiki/there")
    now = runlog.utc_now()
    readiness.approve_window(conn, now - timedelta(hours=1), now + timedelta(hours=1), "Owner", "dewi")
    assert holding(conn) == set()
    assert "https://wiki/there" in lines(conn)["secrets, DevOps"].evidence
    assert not any(line.holds for line in lines(conn, environment="local").values())


def test_only_the_window_is_asked_before_later_batches(conn) -> None:
    assert set(lines(conn, D)) == {"freeze window"}
    assert holding(conn, D) == {"freeze window"}


# What the system sees ------------------------------------------------------------------------------------------------


def test_a_backup_must_be_recent_whole_and_there(conn, urls, monkeypatch) -> None:
    entry = backup.take(Databases(**urls, channel=None), "balisnap", why="readiness")
    name = "backup of balisnap"
    assert name not in holding(conn)
    assert "1 rows restored and compared" in lines(conn)[name].evidence
    at(entry.at + timedelta(days=readiness.BACKUP_DAYS, seconds=1), monkeypatch)
    assert lines(conn)[name].evidence.startswith("older than")
    at(entry.at, monkeypatch)
    path = backup.folder() / entry.body["file"]
    whole = path.read_bytes()
    for planted in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(planted)
        assert "not whole" in lines(conn)[name].evidence
    path.write_bytes(whole)
    assert name not in holding(conn)
    with monkeypatch.context() as patch:
        patch.setenv("BALISNAP_DB_URL", "postgresql://reader@10.0.0.7:5432/balisnap")
        settings.cache_clear()
        assert lines(conn)[name].evidence.startswith(f"of another database, {entry.body['of']}")
    settings.cache_clear()
    path.unlink()
    assert lines(conn)[name].holds


@pytest.mark.parametrize("value", ["true", "1", "ON"])
def test_a_flag_that_is_on_is_named(conn, monkeypatch, value: str) -> None:
    assert "flags off" not in holding(conn)
    monkeypatch.setenv("OPS_WRITE_CORE_ENABLED", value)
    monkeypatch.setenv("INGEST_QUEUE_ENABLED", "false")
    assert "flags off" in holding(conn)
    assert lines(conn)["flags off"].evidence == "on: OPS_WRITE_CORE_ENABLED"


def test_settings_are_named_and_never_shown(conn, monkeypatch, urls) -> None:
    found = lines(conn)["settings"]
    assert found.state == "PASS"
    assert "OPS_DB_URL" in found.evidence
    monkeypatch.delenv("PHASE2_DISK_USED_BYTES")
    for name in ("PHASE2_ENV", "PHASE2_ACTOR"):
        monkeypatch.setenv(name, "")
    assert lines(conn)["settings"].evidence == "not set here: PHASE2_ENV, PHASE2_ACTOR, PHASE2_DISK_USED_BYTES"
    secret = str(psycopg.conninfo.conninfo_to_dict(urls["ops"])["password"])
    assert secret not in str(lines(conn))


# What is signed ------------------------------------------------------------------------------------------------------


def test_a_signed_item_expires(conn, monkeypatch) -> None:
    entry = readiness.sign(conn, "secrets", "DevOps", "citra", "vault, 7 names")
    assert "secrets, DevOps" not in holding(conn)
    at(entry.at + timedelta(days=readiness.SIGNED_DAYS, seconds=1), monkeypatch)
    assert lines(conn)["secrets, DevOps"].evidence.startswith("older than 30 days")


def test_an_approved_rollback_that_is_edited_or_lost_is_approved_no_more(conn, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "phase2"
    (folder / "rollback").mkdir(parents=True)
    for code in BATCHES:
        script = scripts.rollback_script(code)
        (folder / script).write_bytes((scripts.FOLDER / script).read_bytes())
    monkeypatch.setattr(scripts, "FOLDER", folder)
    readiness.sign(conn, "rollbacks", "Tech Lead", "ayu", "review 12")
    assert "rollbacks, Tech Lead" not in holding(conn)
    (folder / "rollback" / "D.sql").write_text("select 1;\n")
    assert lines(conn)["rollbacks, Tech Lead"].evidence.startswith("void, what it speaks of has changed")
    (folder / "rollback" / "D.sql").unlink()
    assert lines(conn)["rollbacks, Tech Lead"].evidence == "missing: D.sql"


@pytest.mark.parametrize(
    ("item", "role", "evidence"),
    [("weather", "DevOps", "x"), ("secrets", "Owner", "x"), ("secrets", "DevOps", " "), ("secrets", "Boss", "x")],
)
def test_an_item_is_signed_by_its_role_with_evidence(conn, item: str, role: str, evidence: str) -> None:
    with pytest.raises(CouldNotRun):
        readiness.sign(conn, item, role, "ayu", evidence)
    assert ledger.latest(conn, "readiness") is None


# Freeze windows ------------------------------------------------------------------------------------------------------


def test_no_run_outside_of_a_window(conn, monkeypatch) -> None:
    at(NOW, monkeypatch)
    hour = timedelta(hours=1)
    readiness.approve_window(conn, NOW + hour, NOW + 3 * hour, "PM", "putu", "quiet night")
    assert lines(conn, D)["freeze window"].evidence.startswith("it has not begun: 2026-12-01 21:00 to")
    for moment, is_open in ((NOW + hour, True), (NOW + 3 * hour - timedelta(seconds=1), True), (NOW + 3 * hour, False)):
        at(moment, monkeypatch)
        assert ("freeze window" not in holding(conn, D)) == is_open, moment
    at(NOW + hour, monkeypatch)
    (window,) = readiness.windows(conn)
    readiness.revoke_window(conn, window.entry.no, "putu", "a wedding")
    assert lines(conn, D)["freeze window"].evidence == "no window is approved"
    with pytest.raises(CouldNotRun, match="no freeze window"):
        readiness.revoke_window(conn, window.entry.no, "putu", "again")


def test_a_run_stops_before_the_step_that_is_outside_of_its_window(conn, urls, monkeypatch) -> None:
    at(NOW, monkeypatch)
    readiness.approve_window(conn, NOW, NOW + timedelta(hours=1), "PM", "putu")
    done: list[str] = []
    for name in ("begin", "still_the_only_runner", "refuse_if_unfit", "refuse_if_tainted"):
        monkeypatch.setattr(steps, name, lambda *_: None)

    def an_hour(_run: steps.Run, _batch: object, step: Step) -> None:
        done.append(step.name)
        at(NOW + timedelta(minutes=45 * len(done)), monkeypatch)

    monkeypatch.setattr(steps, "execute", an_hour)
    with pytest.raises(Stopped, match=r"on hold: outside of a freeze window, no window is approved\. phase2"):
        asyncio.run(migrate("D", "D", None))
    assert len(done) == 2
    state = conn.execute("select status, blocked_by from phase2.batch_state where batch = 'D'").fetchone()
    assert state == ("HOLD", ["freeze window"])
    monkeypatch.setenv("PHASE2_ENV", "staging")
    settings.cache_clear()
    readiness.raise_if_outside(urls["ops"], "D")


def test_a_window_is_approved_by_the_business_and_has_a_length(conn, monkeypatch) -> None:
    at(NOW, monkeypatch)
    later = NOW + timedelta(hours=1)
    for first, last, role in ((NOW, later, "DevOps"), (later, later, "Owner"), (later, NOW, "Owner")):
        with pytest.raises(CouldNotRun):
            readiness.approve_window(conn, first, last, role, "dewi")
    assert readiness.windows(conn) == []


def test_the_command_takes_bali_time(conn, capsys) -> None:
    window = ("--from", "2036-12-01 22:00", "--to", "2036-12-02T04:00")
    assert phase2("freeze-window", *window, "--role", "Owner", "--as", "dewi", "--json") == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["from"] == "2036-12-01 14:00:00+00:00"
    assert phase2("readiness", "--json") == 1
    shown = json.loads(capsys.readouterr().out)
    assert {"freeze window", "secrets, DevOps"} <= set(shown["holding"])
    assert phase2("sign", "--item", "secrets", "--role", "DevOps", "--as", "citra", "--note", "vault") == 0
    capsys.readouterr()
    phase2("readiness", "--json")
    assert "secrets, DevOps" not in json.loads(capsys.readouterr().out)["holding"]


# Drift ---------------------------------------------------------------------------------------------------------------


def test_a_first_drift_check_without_a_baseline_fails(conn, capsys) -> None:
    assert phase2("drift", "-d", "balisnap") == 1
    assert "phase2 drift -d balisnap --accept" in capsys.readouterr().out
    assert phase2("drift", "-d", "balisnap", "--accept") == 2, "without a reason nothing is accepted"
    assert ledger.latest(conn, "baseline") is None
    assert phase2("drift", "-d", "balisnap", "--accept", "--reason", "release 41") == 0
    assert phase2("drift", "-d", "balisnap") == 0


def test_each_difference_is_listed_and_can_be_accepted(conn, urls, capsys) -> None:
    drift.accept(conn, urls["balisnap"], "balisnap", "release 41")
    with postgres.connect(urls["balisnap"], autocommit=True) as source:
        source.execute(
            "update public.tours set name = '';"
            " alter table public.tours add column price numeric, alter column name set not null;"
            " create index by_name on public.tours (name); create table public.extra (id integer primary key)"
        )
    try:
        found = drift.check(conn, urls["balisnap"], "balisnap")
        assert not found.none
        assert {change["object"]: (change["was"], change["is"]) for change in found.changes}.keys() == {
            "column public.tours.price",
            "column public.tours.name",
            "index public.tours.by_name",
            "table public.extra",
            "column public.extra.id",
            "constraint public.extra.extra_pkey",
            "index public.extra.extra_pkey",
        }
        assert any("changed: column public.tours.name: was text; is text not null" in line for line in found.lines)
        assert phase2("drift", "-d", "balisnap", "--json") == 1
        shown = json.loads(capsys.readouterr().out)
        assert len(shown["differences"]) == 7
        assert shown["baseline"]["reason"] == "release 41"
        accepted = drift.accept(conn, urls["balisnap"], "balisnap", "release 42")
        assert accepted.none
        assert len(accepted.baseline.body["differences"]) == len(found.lines)
        assert drift.check(conn, urls["balisnap"], "balisnap").none
    finally:
        with postgres.connect(urls["balisnap"], autocommit=True) as source:
            source.execute(
                "drop table public.extra; drop index public.by_name;"
                " alter table public.tours drop column price, alter column name drop not null"
            )


def test_two_long_definitions_that_differ_at_their_end_are_told_apart(conn, urls) -> None:
    """A line is shortened, the list is not: what differs is there in full."""
    words = ", ".join(f"{number} as c{number}" for number in range(60))
    with postgres.connect(urls["balisnap"], autocommit=True) as source:
        source.execute(f"create view public.wide as select {words}, 1 as last".encode())
        drift.accept(conn, urls["balisnap"], "balisnap", "x")
        source.execute(f"create or replace view public.wide as select {words}, 2 as last".encode())
        (change,) = drift.check(conn, urls["balisnap"], "balisnap").changes
        source.execute("drop view public.wide")
    assert change["object"] == "view public.wide"
    assert change["was"] != change["is"]
