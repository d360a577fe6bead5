"""The ledger: a chain that nobody can change unseen, and rows beside it that it speaks for."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import pytest

from bridge import ledger, runlog, steps
from bridge.settings import settings


@pytest.fixture
def conn(database):
    steps.bootstrap(database)
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def chain(conn):
    """Three entries of our own."""
    return [ledger.append(conn, "note", subject=str(number), body={"amount": "1.10"}) for number in range(3)]


def tampered(conn: psycopg.Connection, statement: str, *values: object) -> None:
    """What an owner of the database can do: the trigger is off for it."""
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute(statement.encode(), values)


def test_entries_follow_each_other(conn, chain):
    assert [entry.no for entry in chain] == [1, 2, 3]
    assert ledger.head(conn) == (3, chain[-1].digest)
    assert ledger.verify(conn) == []
    assert ledger.verify(conn, pinned=chain[0].digest) == []
    assert [entry.subject for entry in ledger.entries(conn, "note", after=1)] == ["1", "2"]
    assert ledger.latest(conn, "note", subject="1") == chain[1]
    assert ledger.latest(conn, "verdict") is None


@pytest.mark.parametrize("name", ["reason", "note", "evidence", "error"])
def test_a_persons_mail_and_phone_are_masked_before_the_chain_has_them(conn, name):
    said = "asked made.wirawan@example.org, +6281234567890; see ticket 4711"
    entry = ledger.append(conn, "note", body={name: said, "digest": "+6281234567890"})
    assert entry.body == {name: "asked m•••@e•••, •••; see ticket 4711", "digest": "+6281234567890"}


@pytest.mark.parametrize("statement", ["update phase2.ledger set digest = ''", "delete from phase2.ledger"])
def test_nobody_rewrites_by_mistake(conn, chain, statement):
    with pytest.raises(psycopg.errors.RaiseException, match="append only"):
        conn.execute(statement)
    with pytest.raises(psycopg.errors.RaiseException, match="append only"):
        conn.execute("truncate phase2.ledger")


def test_one_changed_byte_is_found_and_named(chain, conn):
    rows = conn.execute("select entry_no, entry, digest from phase2.ledger order by entry_no").fetchall()
    assert ledger.chain_problems(rows) == []
    for index, (no, text, digest) in enumerate(rows):
        for at, letter in enumerate(text):
            changed = (no, text[:at] + chr(ord(letter) ^ 1) + text[at + 1 :], digest)
            found = ledger.chain_problems([*rows[:index], changed, *rows[index + 1 :]])
            assert f"entry {no}" in {problem.where for problem in found}, (no, at)


def test_a_changed_entry_with_its_digest_made_anew_breaks_the_next(conn, chain):
    tampered(
        conn,
        "update phase2.ledger set entry = replace(entry, '1.10', '9.10'),"
        " digest = encode(sha256(convert_to(replace(entry, '1.10', '9.10'), 'UTF8')), 'hex') where entry_no = 2",
    )
    assert [problem.where for problem in ledger.verify(conn)] == ["entry 3"]


def test_a_lost_entry_is_named(conn, chain):
    tampered(conn, "delete from phase2.ledger where entry_no = 2")
    assert ledger.Problem("entry 3", "entry 2 is missing") in ledger.verify(conn)


def test_entries_cut_off_the_end_are_found_by_a_pinned_head(conn, chain):
    tampered(conn, "delete from phase2.ledger where entry_no = 3")
    assert ledger.verify(conn) == []
    assert [problem.where for problem in ledger.verify(conn, pinned=chain[-1].digest)] == ["head"]


def test_two_writers_make_one_chain(conn, database):
    conn.execute("set lock_timeout = '100ms'")
    with psycopg.connect(database) as other:
        ledger.append(other, "note", subject="first")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            ledger.append(conn, "note", subject="second")
        other.commit()
    ledger.append(conn, "note", subject="second")
    assert [entry.subject for entry in ledger.entries(conn)] == ["first", "second"]
    assert ledger.verify(conn) == []


@pytest.fixture
def logged(conn):
    """A step that succeeded and one that failed."""
    run_id = uuid4()
    with runlog.step(conn, run_id=run_id, batch="A", name="one", kind="script") as entry:
        entry.rows = 5
    with pytest.raises(ValueError, match="broken"), runlog.step(conn, run_id=run_id, batch="A", name="two", kind="dbt"):
        raise ValueError("broken")


def test_each_step_has_its_entry(conn, logged):
    told = ledger.entries(conn, "step", batch="A")
    assert [(entry.subject, entry.body["row"]["status"]) for entry in told] == [("one", "SUCCEEDED"), ("two", "FAILED")]
    assert told[0].body["row"]["rows"] == 5
    assert told[0].actor == ledger.who()
    assert ledger.verify(conn) == []


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("update phase2.step_log set rows = 6 where step = 'one'", "is not what entry 1 says"),
        ("delete from phase2.step_log where step = 'one'", "is gone; entry 1 tells of it"),
        (
            "insert into phase2.step_log (run_id, batch, step, kind, status, started_at)"
            " values (gen_random_uuid(), 'A', 'three', 'dbt', 'SUCCEEDED', now())",
            "is in no entry: somebody else wrote it",
        ),
    ],
)
def test_a_row_that_differs_from_its_entry_is_named(conn, logged, statement, what):
    conn.execute(statement)
    (problem,) = ledger.verify(conn)
    assert problem.where.startswith("phase2.step_log ")
    assert problem.what == what


def test_a_step_under_way_has_no_entry_yet(conn):
    with runlog.step(conn, run_id=uuid4(), batch="A", name="one", kind="script"):
        assert ledger.verify(conn) == []


def test_files_are_held_by_their_digest(conn, tmp_path, monkeypatch):
    monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path))
    settings.cache_clear()
    try:
        report = tmp_path / "recon" / "A" / "report.json"
        report.parent.mkdir(parents=True)
        report.write_text("{}")
        ledger.append(conn, "verdict", batch="A", body={"files": ledger.files(report)})
        assert ledger.verify(conn) == []
        report.write_text("[]")
        assert ledger.verify(conn) == [
            ledger.Problem("recon/A/report.json", "the file is not the one that entry 1 tells of")
        ]
        report.unlink()
        assert ledger.verify(conn) == [ledger.Problem("recon/A/report.json", "the file of entry 1 is not there")]
    finally:
        settings.cache_clear()


def test_rows_from_before_the_ledger_are_adopted(conn, logged, database):
    tampered(conn, "truncate phase2.ledger")
    conn.execute("delete from phase2.warehouse_state where part = 'state'")
    steps.bootstrap(database)
    assert [entry.subject for entry in ledger.entries(conn, "step")] == ["one", "two"]
    assert ledger.verify(conn) == []


def test_gate_results_are_mirrored(conn):
    conn.execute(
        "insert into phase2.gate_results (run_id, batch, gate_id, comparator, status)"
        " values (gen_random_uuid(), 'A', 'A-01', '=', 'FAIL')"
    )
    key = conn.execute("select gate_result_id from phase2.gate_results").fetchone()
    ledger.mirror(conn, "gate", [key[0]])
    assert ledger.latest(conn, "gate", batch="A", subject="A-01").body["row"]["status"] == "FAIL"
    conn.execute("update phase2.gate_results set status = 'PASS'")
    assert [problem.what for problem in ledger.verify(conn)] == ["is not what entry 1 says"]


def test_a_dropped_table_is_named(conn, logged):
    ledger.append(conn, "script", batch="A", body={"row": {"run_key": str(uuid4())}})
    conn.execute("drop table phase2.step_log")
    assert ledger.verify(conn) == [
        ledger.Problem("phase2.step_log", "the table is gone; 2 entries tell of its rows"),
        ledger.Problem("public.migration_run_log", "the table is gone; 1 entries tell of its rows"),
    ]
    ledger.append(conn, "rollback", batch="A")  # takes the scripts' log along, and no other
    assert [problem.where for problem in ledger.verify(conn)] == ["phase2.step_log"]


@pytest.mark.parametrize(
    ("statement", "rows"),
    [
        ("delete from phase2.exceptions", 0),
        ("delete from phase2.exceptions where key = '1'", 1),
        ("update phase2.exceptions set detail = '{\"left\": 2}' where key = '1'", 2),
        ("insert into phase2.exceptions (run_id, evaluated_at, batch, gate_id, entity, key, status)"
         " select run_id, evaluated_at, batch, gate_id, entity, '3', status from phase2.exceptions limit 1", 3),
        ("drop table phase2.exceptions", 0),
    ],
)  # fmt: skip
def test_a_verdicts_exceptions_are_held_by_their_digest(conn, statement, rows):
    at = datetime(2026, 2, 19, tzinfo=UTC)
    conn.execute(
        "insert into phase2.exceptions (run_id, evaluated_at, batch, gate_id, entity, key, status, detail)"
        " select gen_random_uuid(), %s, 'C', 'C-02', 'rates', n::text, 'DIFFERS', '{\"left\": 1}'"
        " from generate_series(1, 2) as n",
        (at,),
    )
    body = {"evaluated_at": at, "exceptions": ledger.listed(conn, "C", at)}
    ledger.append(conn, "verdict", batch="C", body=body)
    assert ledger.verify(conn) == []
    conn.execute(statement)
    found = ledger.Problem(
        "phase2.exceptions C-02 of batch C", f"the list is not what entry 1 says: 2 rows, {rows} found"
    )
    assert ledger.verify(conn) == [found]
    conn.execute(
        "insert into phase2.gate_results (run_id, batch, gate_id, comparator, status)"
        " values (gen_random_uuid(), 'C', 'C-02', '=', 'PASS')"
    )
    ledger.mirror(conn, "gate", [conn.execute("select gate_result_id from phase2.gate_results").fetchone()[0]])
    assert ledger.verify(conn) == []  # a later evaluation has let the list go
