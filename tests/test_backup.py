"""Copies are proven before anything is destroyed, and there is a way back from each."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from bridge import backup, cli, fingerprint, ledger, postgres, rollback, runlog, scripts, steps
from bridge.batches import BACKFILL, BATCHES
from bridge.errors import CouldNotRun
from bridge.settings import SQL, Databases, settings
from tests.test_scripts import BATCH_A, BATCH_B, INTENT, load_bookings, load_catalog, load_payments

# Copies and their restoring are tried on the system's older server too; the rest is the same there.
on_our_own = pytest.mark.parametrize("server", ["embedded"], indirect=True)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("PHASE2_HOME", str(tmp_path))
    settings.cache_clear()
    yield tmp_path
    settings.cache_clear()


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, tuple[str, str]]]:
    """An ops database and a source on each server, used by one test after the other: a drop costs more than a test."""
    found: dict[str, tuple[str, str]] = {}
    yield found
    for server, urls in found.items():
        with postgres.connect(server, autocommit=True) as conn:
            for url in urls:
                conn.execute(postgres.statement("drop database {} with (force)", postgres.database_name(url)))


@pytest.fixture
def run(server: str, home: Path, made: dict[str, tuple[str, str]]) -> Iterator[steps.Run]:
    """Batches A to E as if they had run, a booking or two in each table; and a source with odd names and values."""
    if server not in made:
        tag = uuid4().hex[:8]
        made[server] = tuple(postgres.with_database(server, f"t_{place}_{tag}") for place in ("ops", "balisnap"))
        with postgres.connect(server, autocommit=True) as conn:
            for url in made[server]:
                conn.execute(postgres.statement("create database {}", postgres.database_name(url)))
        with postgres.connect(made[server][1], autocommit=True) as conn:
            conn.execute(ODD)
    ops, balisnap = made[server]
    with postgres.connect(ops, autocommit=True) as conn:
        conn.execute(
            "set client_min_messages = error; create schema if not exists public;"
            " drop schema if exists public, phase2, landing_balisnap, landing_bstadmin cascade; create schema public"
        )
    steps.bootstrap(ops)
    for name in BATCH_A + BATCH_B:
        scripts.run_script(ops, name)
    for load in (load_catalog, load_bookings, load_payments):
        load(ops)
    now = steps.Run(
        run_id=runlog.uuid7(),
        databases=Databases(ops=ops, balisnap=balisnap, bstadmin=balisnap, channel=None),
        as_of=date(2026, 2, 19),
    )
    with now.connect() as conn:
        conn.execute("insert into phase2.warehouse_state (part, digest) values ('review snapshot', 'x')")
        for code in BACKFILL:
            steps.set_state(conn, now, code, "PASS")
    yield now
    with now.connect() as conn:
        scratch = f"phase2_scratch_{postgres.database_name(ops)}"
        left = conn.execute("select count(*) from pg_database where datname = %s", (scratch,)).fetchone()
    assert left == (0,), "a scratch database was left behind"


ODD = b"""
create type public."Mood" as enum ('good', 'it''s');
create table public."Odd Table" (
    "Key" bigint generated always as identity primary key, mood public."Mood", note text, at timestamptz, part real,
    doubled bigint generated always as ("Key" * 2) stored
);
insert into public."Odd Table" (mood, note, at, part)
values ('it''s', E'tab\\there', '2026-01-01 00:00:00.000001+00', 0.1), ('good', null, 'infinity', 'NaN');
create index on public."Odd Table" (note);
create view public.seen as select note from public."Odd Table";
"""


def everything(run: steps.Run) -> fingerprint.Fingerprint:
    with run.connect() as conn:
        return fingerprint.take(conn, schemas=["public", "phase2"])


def canonical(run: steps.Run) -> dict[str, fingerprint.Content]:
    """Every column of every canonical row, and of the state beside them."""
    with run.connect() as conn:
        found = fingerprint.rows(conn, schemas=["public", "phase2"])
    return {
        name: content
        for name, content in found.items()
        if (name.startswith("public.") and name != "public.migration_run_log") or name.split(".")[1] in backup.STATE
    }


def take(run: steps.Run, name: str = "ops", **options: object) -> ledger.Entry:
    return backup.take(run.databases, name, why="a test", **options)  # type: ignore[arg-type]


# A copy --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ops", "balisnap"])
def test_a_copy_is_proven_and_told(run: steps.Run, home: Path, name: str) -> None:
    entry = take(run, name)
    file = home / "backups" / entry.body["file"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert entry.body["sha256"] == scripts.checksum(file)
    assert entry.body["rows"]["public.booking_core" if name == "ops" else 'public."Odd Table"'] == 2
    assert "landing_balisnap.tours" not in entry.body["rows"]
    with run.connect() as conn:
        assert ledger.latest(conn, "backup", subject=name) == entry
        assert ledger.verify(conn) == []


@on_our_own
def test_a_source_is_only_read(run: steps.Run) -> None:
    with postgres.connect(run.databases.balisnap, autocommit=True) as conn:
        before = fingerprint.take(conn)
        take(run, "balisnap")
        assert fingerprint.difference(before, fingerprint.take(conn)) == []


@on_our_own
def test_no_password_on_a_command_line(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], str]] = []
    popen = subprocess.Popen

    def watched(command: list[str], **options: object) -> object:
        if "--no-password" in command:
            asked.append((command, options["env"]["PGPASSWORD"]))  # type: ignore[index]
        return popen(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", watched)
    entry = take(run)
    assert [Path(command[0]).name for command, _ in asked] == ["pg_dump", "pg_restore"]
    secret = psycopg.conninfo.conninfo_to_dict(run.databases.ops)["password"]
    for command, password in asked:
        assert password == secret
        assert not any(str(secret) in word for word in command)
    assert str(secret) not in str(entry.body)


def lossy(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the dump leaves something out, and the tool says nothing."""
    start = backup._start

    def less(command: list[str], url: str) -> subprocess.Popen[str]:
        return start([*command, extra] if command[0].endswith("pg_dump") else command, url)

    monkeypatch.setattr(backup, "_start", less)


@on_our_own
@pytest.mark.parametrize(
    ("extra", "says"),
    [
        ("--exclude-table-data=public.booking_contact", r"rows of public\.booking_contact: 1, now 0"),
        ("--exclude-table=public.booking_party", r"rows of public\.booking_party: 1, now none"),
        ("--no-such-option", "pg_dump failed"),
    ],
)
def test_a_copy_that_is_not_complete_is_none(
    run: steps.Run, home: Path, monkeypatch: pytest.MonkeyPatch, extra: str, says: str
) -> None:
    lossy(extra, monkeypatch)
    with pytest.raises(CouldNotRun, match=says):
        take(run, indexes=False)
    assert list((home / "backups").iterdir()) == []
    with run.connect() as conn:
        assert ledger.latest(conn, "backup") is None


@on_our_own
def test_a_copy_whose_rows_differ_is_none(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: as many rows as there were, one of them another."""
    load = backup._load

    def other(scratch: str, file: Path, *, indexes: bool) -> None:
        load(scratch, file, indexes=indexes)
        with postgres.connect(scratch, autocommit=True) as conn:
            conn.execute("update public.booking_core set note = 'x' where external_booking_ref = 'A'")

    monkeypatch.setattr(backup, "_load", other)
    with pytest.raises(CouldNotRun, match=r"rows of public\.booking_core: still 2, but not the same"):
        take(run)


@on_our_own
def test_a_copy_needs_a_user_who_may_read_everything(run: steps.Run, server: str) -> None:
    role = f"t_half_{uuid4().hex[:8]}"
    with postgres.connect(run.databases.balisnap, autocommit=True) as conn:
        conn.execute(postgres.statement("create role {} login password 's3cret'", role))
        try:
            dbs = Databases(
                ops=run.databases.ops,
                balisnap=psycopg.conninfo.make_conninfo(run.databases.balisnap, user=role, password="s3cret"),
                bstadmin=run.databases.bstadmin,
                channel=None,
            )
            with pytest.raises(CouldNotRun, match="permission denied") as refused:
                backup.take(dbs, "balisnap", why="a test")
            assert "administrator" in refused.value.todo
        finally:
            conn.execute(postgres.statement("drop role {}", role))


@on_our_own
def test_the_last_copies_stay(run: steps.Run, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "KEPT", 2)
    other = home / "backups" / "ops-another-2026-01-01T00-00-00-000000Z.dump"
    other.parent.mkdir()
    other.touch()
    unproven = other.with_suffix(".part")  # what a killed command leaves: it pushes out no copy
    unproven.touch()
    made = [take(run, indexes=False) for _ in range(3)]
    assert made[2].body["removed"] == [], "five rollbacks of one day push out no copy of the day before"
    week = time.time() - backup.KEPT_DAYS * 86400 - 60
    os.utime(backup.folder() / made[0].body["file"], (week, week))
    assert backup._forget_older(backup.folder() / made[2].body["file"], None) == [made[0].body["file"]]
    left = {path.name for path in other.parent.iterdir()}
    assert left == {other.name, unproven.name, made[1].body["file"], made[2].body["file"]}


@on_our_own
def test_a_database_of_that_name_which_is_not_ours_stays(run: steps.Run, home: Path) -> None:
    name = f"phase2_scratch_{postgres.database_name(run.databases.ops)}"
    with postgres.connect(run.databases.ops, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {}", name))
        try:
            with pytest.raises(CouldNotRun, match="was not made to be dropped"):
                take(run, indexes=False)
            assert conn.execute("select count(*) from pg_database where datname = %s", (name,)).fetchone() == (1,)
            assert list(backup.folder().iterdir()) == []
            # ours, left by a command that was killed: it goes
            conn.execute(postgres.statement("drop database {}", name))
            create = sql.SQL("create database {} {}").format(sql.Identifier(name), postgres.MADE_TO_BE_DROPPED)
            conn.execute(create)
            take(run, indexes=False)
        finally:
            conn.execute(postgres.statement("drop database if exists {}", name))


# Before a rollback ---------------------------------------------------------------------------------------------------


@on_our_own
def test_a_rollback_copies_first(run: steps.Run) -> None:
    rollback.roll_back(run, BATCHES["E"])
    with run.connect() as conn:
        copy, done = ledger.latest(conn, "backup", batch="E"), ledger.latest(conn, "rollback", batch="E")
        assert copy is not None
        assert done is not None
        assert done.body["copy"] == copy.no < done.no
        assert copy.body["rows"]["public.payment_event"] == 1
        assert conn.execute("select count(*) from public.payment_event").fetchone() == (0,)


@on_our_own
@pytest.mark.parametrize("code", ["D", "E"])
def test_a_rollback_without_a_proven_copy_removes_nothing(
    run: steps.Run, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    if code == "D":
        rollback.roll_back(run, BATCHES["E"])
    before = everything(run)
    lossy("--exclude-table-data=public.booking_contact", monkeypatch)
    with pytest.raises(CouldNotRun, match="the copy is not complete"):
        rollback.roll_back(run, BATCHES[code])
    assert fingerprint.difference(before, everything(run)) == []
    with run.connect() as conn:
        assert conn.execute("select status from phase2.batch_state where batch = %s", (code,)).fetchone() == ("PASS",)
        assert ledger.latest(conn, "rollback", batch=code) is None


@on_our_own
def test_what_was_written_after_the_copy_is_not_removed(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = backup.take

    def slow(*arguments: object, **options: object) -> ledger.Entry:
        entry = copy(*arguments, **options)  # type: ignore[arg-type]
        with run.connect() as conn:
            conn.execute("update public.booking_core set note = 'just now' where external_booking_ref = 'A'")
        return entry

    monkeypatch.setattr(backup, "take", slow)
    with pytest.raises(CouldNotRun, match="has changed since it was copied"):
        rollback.roll_back(run, BATCHES["E"])
    with run.connect() as conn:
        assert conn.execute("select count(*) from public.payment_event").fetchone() == (1,)


@on_our_own
def test_between_the_last_look_and_the_script_nobody_writes(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write after the first look is seen by the second one; what comes after that waits for the script to end."""
    write = "update public.booking_core set note = 'just now' where external_booking_ref = 'A'"
    look, hold = backup.still_as_copied, backup.hold_as_copied

    def then_written(url: str, copy: ledger.Entry) -> None:
        look(url, copy)
        with run.connect() as conn:
            conn.execute(write)

    with monkeypatch.context() as patch:
        patch.setattr(backup, "still_as_copied", then_written)
        with pytest.raises(CouldNotRun, match="has changed since it was copied"):
            rollback.roll_back(run, BATCHES["E"])
    with run.connect() as conn:
        assert conn.execute("select count(*) from public.payment_event").fetchone() == (1,)

    def held(conn: psycopg.Connection, copy: ledger.Entry) -> None:
        hold(conn, copy)
        with run.connect() as other:
            other.execute("set lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute(write)
            assert other.execute("select count(*) from public.booking_core").fetchone() != (0,), "reading goes on"

    monkeypatch.setattr(backup, "hold_as_copied", held)
    rollback.roll_back(run, BATCHES["E"])
    with run.connect() as conn:
        assert conn.execute("select count(*) from public.payment_event").fetchone() == (0,)


def test_what_rollbacks_change_beside_the_canonical_tables_is_put_back_too() -> None:
    changed = set()
    for code in BACKFILL:
        text = (SQL / "phase2" / "rollback" / f"{code}.sql").read_text()
        changed |= set(re.findall(r"(?:delete from|update|truncate)\s+phase2\.(\w+)", text))
    # writes are a log: what they left out of the canonical rows is written again
    assert changed - {"warehouse_state", "write_intents"} <= set(backup.STATE)
    assert changed, "no rollback was read"


# The way back --------------------------------------------------------------------------------------------------------


def test_a_rolled_back_batch_is_restored_exactly(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = canonical(run)
    rollback.roll_back(run, BATCHES["E"])
    rollback.roll_back(run, BATCHES["D"])
    assert canonical(run) != before
    with run.connect() as conn:
        first = backup.copies(conn)[0]
        monkeypatch.setattr(backup, "KEPT_DAYS", 0)
        monkeypatch.setattr(backup, "KEPT", 1)  # the copy of what stands now does not push out the one asked for
        restored = backup.restore(run, first.body["file"])
        assert canonical(run) == before
        assert restored.body["copy"] == first.no
        states = dict(conn.execute("select batch, status from phase2.batch_state").fetchall())
        assert states == dict.fromkeys(BACKFILL, "ERROR"), "a door would be open before the gates are asked"
        assert conn.execute(
            "select count(*) from phase2.warehouse_state where part = 'review snapshot'"
        ).fetchone() == (1,)
        latest = backup.copies(conn)[-1]
        assert latest.body["why"].startswith("before the restore of")
        assert (backup.folder() / first.body["file"]).exists()


@on_our_own
def test_a_restore_of_an_older_state_says_which_batches_it_does_not_have(run: steps.Run) -> None:
    rollback.roll_back(run, BATCHES["E"])
    without_e = canonical(run)
    file = take(run, indexes=False).body["file"]
    load_payments(run.databases.ops)
    with run.connect() as conn:
        steps.set_state(conn, run, "E", "PASS")
        conn.execute(INTENT)
        backup.restore(run, file)
        assert canonical(run) == without_e
        # what was written since the copy goes to the core once more
        assert conn.execute("select core_status from phase2.write_intents").fetchall() == [("BEHIND",)] * 2
        assert conn.execute("select status from phase2.batch_state where batch = 'E'").fetchone() == ("ROLLED_BACK",)


@on_our_own
def test_a_changed_or_unknown_file_restores_nothing(run: steps.Run, home: Path) -> None:
    entry, before = take(run, indexes=False), canonical(run)
    with pytest.raises(CouldNotRun, match="there is no copy") as refused:
        backup.restore(run, "nowhere.dump")
    assert entry.body["file"] in refused.value.todo
    path = home / "backups" / entry.body["file"]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CouldNotRun, match="is not the file"):
        backup.restore(run, entry.body["file"])
    assert canonical(run) == before


@on_our_own
def test_a_restore_that_goes_wrong_changes_nothing(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the state of the batches cannot be written, after all rows are in."""
    file = take(run, indexes=False).body["file"]
    rollback.roll_back(run, BATCHES["E"])
    before = everything(run)

    def broken(*_: object) -> None:
        raise CouldNotRun("planted")

    monkeypatch.setattr(backup, "_close_doors", broken)
    with pytest.raises(CouldNotRun, match="planted"):
        backup.restore(run, file)
    assert fingerprint.difference(before, everything(run)) == []


@on_our_own
def test_two_copies_at_once_are_one_after_the_other(run: steps.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "PATIENCE", "100ms")
    with postgres.connect(run.databases.ops, autocommit=True) as conn:
        backup._alone(conn)
        with pytest.raises(CouldNotRun, match="another copy is being proven"):
            take(run)
    take(run, indexes=False)


@on_our_own
def test_the_commands(run: steps.Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("ops", "balisnap", "bstadmin"):
        monkeypatch.setenv(f"{place.upper()}_DB_URL", getattr(run.databases, place))
    settings.cache_clear()

    def phase2(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["phase2", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert json.loads(phase2("backup", "-d", "balisnap", "--json"))["subject"] == "balisnap"
    before = canonical(run)
    phase2("rollback", "--batch", "E")
    with run.connect() as conn:
        file = backup.copies(conn)[-1].body["file"]
    assert "rows are back" in phase2("restore", "--copy", file, "--yes")
    assert canonical(run) == before
