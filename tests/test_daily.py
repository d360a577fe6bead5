"""The report of the day and the exit criteria, on verdicts that a test makes up."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from typer.testing import CliRunner

from bridge import daily, exit_criteria, flags, ledger, postgres, scripts
from bridge.cli import app
from bridge.core_settings import core_settings
from bridge.settings import settings
from tests import serving


@pytest.fixture
def conn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """An ops database with the canonical tables, and nothing in them."""
    with serving.environment(), serving.empty(os.environ["TEST_PG_URL"]) as url:
        for script in ("001_create_core_bridge_tables", "010_seed_channel_registry"):
            scripts.run_script(url, f"{script}.sql")
        for role in ("OPS", "BALISNAP", "BSTADMIN"):
            monkeypatch.setenv(f"{role}_DB_URL", url if role == "OPS" else f"{url}_{role.lower()}")
        monkeypatch.setenv("PHASE2_REPORTS", str(tmp_path))
        monkeypatch.setenv("PHASE2_STOP_FILE", str(tmp_path / "stop"))
        settings.cache_clear()
        with postgres.connect(url, autocommit=True) as made:
            yield made
    settings.cache_clear()


def verdict(
    conn: psycopg.Connection, batch: str, gates: dict[str, tuple[str, float]], *keys: str, ago: int = 0
) -> None:
    """What the gates of a batch said so many days ago; `keys`: bookings behind the first gate."""
    run, at = uuid4(), datetime.now(UTC) - timedelta(days=ago)
    for gate, (status, value) in gates.items():
        conn.execute(
            "insert into phase2.gate_results (run_id, evaluated_at, batch, gate_id, value, comparator, threshold,"
            " status) values (%s, %s, %s, %s, %s, '<=', 0.01, %s)",
            (run, at, batch, gate, value, status),
        )
    for key in keys:
        conn.execute(
            "insert into phase2.exceptions (run_id, evaluated_at, batch, gate_id, entity, key, status)"
            " values (%s, %s, %s, %s, 'booking', %s, 'WRONG')",
            (run, at, batch, next(iter(gates)), key),
        )


def booking(conn: psycopg.Connection, price: int, currency: str) -> str:
    key = str(uuid4())
    conn.execute(
        "insert into public.booking_core (booking_key, channel_code, external_booking_ref, booking_created_at,"
        " tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type, total_price, currency_code)"
        " values (%s, 'GYG', %s, now(), current_date, 'PAID', 'NEW', 'LEGACY_PACKAGE', %s, %s)",
        (key, key[:8], price, currency),
    )
    return key


def test_the_report_tells_what_is_new_what_has_gone_and_the_money(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = booking(conn, 100, "USD"), booking(conn, 50, "USD"), booking(conn, 70, "EUR")
    monkeypatch.setattr(daily, "today_in_bali", lambda: date(2026, 11, 22))
    verdict(conn, "D", {"D-03": ("PASS", 0.004), "D-01": ("PASS", 0)}, first, second, ago=2)
    before = daily.make(conn).document
    assert (before["new"], before["closed"], before["open"]) == (2, 0, 2)
    assert before["money"] == [{"currency": "USD", "bookings": 2, "amount": "150.00"}]

    monkeypatch.setattr(daily, "today_in_bali", lambda: date(2026, 11, 23))
    verdict(conn, "D", {"D-03": ("FAIL", 0.02), "D-01": ("PASS", 0)}, second, third)
    made = daily.make(conn)
    assert (made.document["new"], made.document["closed"], made.document["open"]) == (1, 1, 2)
    assert {m["currency"]: m["amount"] for m in made.document["money"]} == {"EUR": "70.00", "USD": "50.00"}
    assert made.document["failed"] == ["D-03 of D"]
    [gate] = [one for one in made.document["gates"] if one["id"] == "D-03"]
    assert (gate["value"], gate["day_before"], gate["new"], gate["closed"], gate["open"]) == (0.02, 0.004, 1, 1, 2)
    page = made.html.read_text()
    assert "1 gates fail" in page
    assert gate["trend"] in page
    assert json.loads(made.json.read_text())["day"] == "2026-11-23"

    assert daily.make(conn).document == made.document  # a second one of the day says the same
    assert len(ledger.entries(conn, "daily")) == 2
    verdict(conn, "D", {"D-03": ("PASS", 0)}, first)  # it had gone, and is back
    monkeypatch.setattr(daily, "today_in_bali", lambda: date(2026, 11, 24))
    again = daily.make(conn).document
    assert (again["new"], again["closed"], again["open"]) == (1, 2, 1)
    assert {one.where.split(" ")[0] for one in ledger.verify(conn)} <= {"phase2.gate_results"}  # made up here
    said = CliRunner().invoke(app, ["daily", "--json"])
    assert (said.exit_code, json.loads(said.stdout)["failed"]) == (0, [])

    shown: list[dict[str, Any]] = []

    async def artifact(**given: Any) -> None:
        shown.append(given)

    from flows import operating  # Prefect takes seconds to come

    monkeypatch.setattr(operating, "create_table_artifact", artifact)
    monkeypatch.setattr(operating, "say", lambda words: None)
    asyncio.run(operating.daily_flow.fn())
    assert [one["description"] for one in shown] == ["2026-11-24"]
    assert [row["id"] for row in shown[0]["table"]] == ["D-01", "D-03"]

    # a report without any is one too: gone is told once, and what comes back after it is new
    told = []
    for day, keys in ((25, ()), (26, ()), (27, (first,))):
        monkeypatch.setattr(daily, "today_in_bali", lambda day=day: date(2026, 11, day))
        verdict(conn, "D", {"D-03": ("PASS", 0)}, *keys)
        said_then = daily.make(conn).document
        told.append((said_then["new"], said_then["closed"], said_then["open"]))
    assert told == [(0, 1, 0), (0, 0, 0), (1, 0, 1)]


def test_a_dead_letter_whose_replay_failed_waits_for_a_person(conn: psycopg.Connection) -> None:
    for status in ("OPEN", "READY", "REPLAYING", "FAILED", "RESOLVED", "CLOSED"):
        conn.execute(
            "insert into public.ingest_dead_letter (dead_letter_key, event_key, reason_code, status, first_failed_at,"
            " last_failed_at, raw_payload) values (gen_random_uuid(), gen_random_uuid(), 'X', %s, now(), now(), '{}')",
            (status,),
        )
    assert daily.as_of(conn, "2026-11-23", {})["waiting"]["dead_letters"] == 3


def states(conn: psycopg.Connection) -> list[str]:
    return [one.state for one in exit_criteria.criteria(conn)]


def test_each_exit_criterion_holds_when_its_evidence_is_there_and_not_before(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in serving.ENVIRONMENT:
        if name.endswith("_ENABLED"):
            monkeypatch.setenv(name, "false")
    monkeypatch.setenv("PHASE2_ENV", "production")
    settings.cache_clear()
    core_settings.cache_clear()
    assert states(conn) == ["HOLD"] * 5
    assert all(one.todo for one in exit_criteria.criteria(conn))

    def on(*names: Any) -> None:
        for name in names:
            flags.change(conn, name, True, reason="a test")

    def rolled_back(batch: str) -> None:
        conn.execute(
            "insert into phase2.drills (drill_id, drill, passed, measured, started_at)"
            " values (gen_random_uuid(), 'rollback', true, jsonb_build_object('batch', %s::text), now())",
            (batch,),
        )

    for code in "ABCDE":
        conn.execute("insert into phase2.batch_state (batch, status) values (%s, 'PASS')", (code,))
    assert states(conn) == ["PASS", *["HOLD"] * 4]
    verdict(conn, "F", dict.fromkeys(("F-01", "F-02", "F-02-P95", "F-03", "F-04", "F-06"), ("PASS", 0)))
    on("INGEST_WEBHOOK_ENABLED", "INGEST_QUEUE_ENABLED", "WEB_EMIT_BOOKING_EVENT_ENABLED")
    conn.execute(
        "insert into public.ingest_event_log (event_key, idempotency_key, nonce, source_enum, channel_code,"
        " external_booking_ref, event_type, event_time, event_time_normalized, payload_hash, signature_verified,"
        " process_status, raw_payload) values (gen_random_uuid(), 'k', 'n', 'GYG', 'GYG', 'R', 'CREATED', now(), now(),"
        " '', true, 'DONE', '{}')"
    )
    assert states(conn) == ["PASS", "PASS", *["HOLD"] * 3]
    on("INGEST_REPLAY_ENABLED")
    assert states(conn) == ["PASS"] * 3 + ["HOLD"] * 2
    verdict(conn, "G", dict.fromkeys(("BG-01", "BG-02", "BG-04"), ("PASS", 0)))
    on("OPS_READ_NEW_MODEL_ENABLED")
    assert states(conn) == ["PASS"] * 3 + ["HOLD"] * 2  # the fallback was never shown
    rolled_back("G")
    assert states(conn) == ["PASS"] * 4 + ["HOLD"]
    verdict(conn, "H", {"H-01": ("N/A", 0), "H-02": ("PASS", 0), "H-03": ("PASS", 0)})
    on("OPS_WRITE_CORE_ENABLED")
    rolled_back("H")
    assert states(conn) == ["PASS"] * 5
    with conn.transaction(force_rollback=True):  # what was judged long ago says nothing of today
        conn.execute("update phase2.gate_results set evaluated_at = evaluated_at - interval '3 days' where batch = 'G'")
        assert states(conn) == ["PASS"] * 3 + ["HOLD", "PASS"]
    with conn.transaction(force_rollback=True):  # before batch A
        conn.execute("alter table public.ingest_event_log rename to away")
        assert states(conn)[1] == "HOLD"
    assert CliRunner().invoke(app, ["exit-criteria"]).exit_code == 0
    flags.change(
        conn, "OPS_READ_NEW_MODEL_ENABLED", True, reason="a test", rollout=flags.rollout_of({"percentage": 50})
    )
    ledger.append(conn, "stop", body={"reason": "5xx"})
    said = CliRunner().invoke(app, ["exit-criteria", "--json"])
    assert said.exit_code == 1
    assert [one["state"] for one in json.loads(said.stdout)] == ["HOLD", "PASS", "PASS", "HOLD", "PASS"]
    core_settings.cache_clear()
