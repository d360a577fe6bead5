"""Reports: they follow the published schema, hide personal data, stand alone, and are never overwritten."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from uuid import UUID, uuid4

import jsonschema
import pytest

from bridge import gates, postgres, reports
from bridge.reports import draw
from bridge.settings import ROOT, SQL

SCHEMA = json.loads((ROOT / "bridge" / "reports" / "report.schema.json").read_text("utf-8"))
RUN = UUID("01890000-0000-7000-8000-000000000001")


def gate(gate_id: str, **other: object) -> gates.Gate:
    facts: dict = {
        "title": "Head counts",
        "measure": "bookings that differ",
        "comparator": "<=",
        "threshold": Decimal("0.01"),
        "unit": "ratio",
        "severity": "critical",
        "numerator": Decimal(2),
        "denominator": Decimal(1000),
        "value": Decimal("0.002"),
        "status": "PASS",
        "margin": Decimal("0.008"),
        "exceptions": 2,
        "listed_apart": 0,
        "note": "",
    }
    return gates.Gate(gate_id=gate_id, **{**facts, **other})


def verdict(**other: object) -> gates.Verdict:
    facts: dict = {
        "batch": "D",
        "run_id": RUN,
        "as_of": date(2026, 11, 22),
        "evaluated_at": datetime(2026, 11, 22, 23, 5, 7, tzinfo=UTC),
        "result": "PASS",
        "blocked_by": (),
        "gates": (gate("D-03"), gate("G-08", unit="count", comparator="=", threshold=Decimal(0), exceptions=0)),
        "parity": (
            gates.ParityLine(
                batch="D",
                entity="bookings",
                unit="rows",
                source=Decimal(10),
                bridged=Decimal(7),
                merged=Decimal(2),
                queued=Decimal(1),
                excluded=Decimal(0),
                unaccounted=Decimal(0),
                unaccounted_rows=0,
                target=7,
                reasons={"merged: duplicate of an identity": Decimal(2)},
            ),
        ),
        "queries": (gates.Query("recon_orphans", "Orphan foreign keys", 0, ()),),
        "exceptions": (
            gates.GateException(
                "D-03",
                "booking",
                "guest someone@example.org of 'DIRECT:BK-1'",
                "HEAD_COUNT_DIFFERS",
                True,
                {"main_name": "Wayan Sukarta", "external_booking_ref": "BK-1", "booking": 3, "items": 2},
            ),
            gates.GateException("D-03", "booking", "<script>alert(1)</script>", "HEAD_COUNT_DIFFERS", True, None),
        ),
        "seconds": {"registry": 0.01},
    }
    return gates.Verdict(**{**facts, **other})


@pytest.fixture
def conn(database: str):
    with postgres.connect(database, autocommit=True) as opened:
        opened.execute((SQL / "state.sql").read_bytes())
        opened.execute((SQL / "ledger.sql").read_bytes())
        opened.execute((SQL / "ingest" / "state.sql").read_bytes())
        yield opened


def test_report_follows_the_schema_and_says_unaccounted_first(conn, tmp_path: Path) -> None:
    written = reports.write(conn, verdict(), tmp_path)

    assert written.json == tmp_path / "recon" / "D" / "2026-11-22T23-05-07Z.json"
    assert {p.suffix for p in written.json.parent.iterdir()} == {".json", ".md", ".html"}
    content = json.loads(written.json.read_text("utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    assert next(iter(content)) == "unaccounted"
    assert written.md.read_text("utf-8").splitlines()[0].startswith("**Unaccounted: 0**")
    body = re.sub(r"<style>.*?</style>", "", written.html.read_text("utf-8"), flags=re.DOTALL)
    words = re.sub(r"<[^>]+>", " ", body[body.index("<body>") :]).split()
    assert words[:2] == ["Unaccounted:", "0"]


def test_digest_is_that_of_the_json_file_and_stands_in_the_others(conn, tmp_path: Path) -> None:
    written = reports.write(conn, verdict(), tmp_path)

    assert written.digest == hashlib.sha256(written.json.read_bytes()).hexdigest()
    assert written.digest in written.md.read_text("utf-8")
    assert written.digest in written.html.read_text("utf-8")


def test_two_reports_of_one_second_are_both_kept(conn, tmp_path: Path) -> None:
    first, second = (reports.write(conn, verdict(), tmp_path) for _ in range(2))

    assert second.json.name == "2026-11-22T23-05-07Z-2.json"
    assert second.html.name == "2026-11-22T23-05-07Z-2.html"
    assert first.json.exists()


def test_personal_data_is_masked_everywhere_and_refs_stay(conn, tmp_path: Path) -> None:
    written = reports.write(conn, verdict(), tmp_path)

    for path in (written.json, written.md, written.html):
        text = path.read_text("utf-8")
        assert "Wayan" not in text
        assert "Sukarta" not in text
        assert "someone@" not in text
        assert "BK-1" in text


def test_page_stands_alone_and_runs_nothing(conn, tmp_path: Path) -> None:
    page = reports.write(conn, verdict(), tmp_path).html.read_text("utf-8")

    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert not re.search(r"""(src|href)\s*=|url\(|@import|https?://""", page)
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_at_most_a_hundred_exceptions_are_shown_and_all_are_counted(conn, tmp_path: Path) -> None:
    many = tuple(gates.GateException("D-03", "booking", f"k{n}", "NO_ITEMS", True) for n in range(250))
    written = reports.write(
        conn,
        verdict(
            result="FAIL",
            blocked_by=("D-03",),
            exceptions=many,
            gates=(gate("D-03", status="FAIL", exceptions=250, numerator=Decimal(250), margin=Decimal("-0.24")),),
        ),
        tmp_path,
    )

    content = json.loads(written.json.read_text("utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    assert content["exceptions"][0]["counted"] == 250
    assert len(content["exceptions"][0]["shown"]) == 100
    assert "The first 100 of 250" in written.html.read_text("utf-8")
    assert "**FAIL**" in written.md.read_text("utf-8")


def test_report_names_what_ran_with_checksum_rows_and_duration(conn, tmp_path: Path) -> None:
    conn.execute(
        "insert into phase2.step_log (run_id, batch, step, kind, checksum, status, started_at, ended_at, rows, detail)"
        " values (%s, 'D', 'dbt batch_d', 'dbt', 'abc123', 'SUCCEEDED', now() - interval '3 s', now(), 5, %s)",
        (RUN, json.dumps({"nodes": [{"name": "booking_core", "kind": "model", "status": "success", "rows": 5}]})),
    )
    conn.execute(
        "insert into phase2.model_changes (run_id, model, target, inserted, updated)"
        " values (%s, 'booking_core', 'booking_core', 4, 1), (%s, 'catalog_product', 'catalog_product', 9, 0)",
        (RUN, RUN),
    )

    content = json.loads(reports.write(conn, verdict(), tmp_path).json.read_text("utf-8"))

    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    (step,) = content["ran"]["steps"]
    assert (step["checksum"], step["rows"], round(step["seconds"])) == ("abc123", 5, 3)
    assert step["nodes"][0]["name"] == "booking_core"
    assert content["ran"]["rows_changed"] == 5, "another batch's model of the same run is not this batch's change"


def test_report_shows_what_a_step_told(conn, tmp_path: Path) -> None:
    detail = {"told": ["came after the snapshot: bstadmin.bookings 3 new"], "backed_off": ["7 (web shop) waited 4.0 s"]}
    conn.execute(
        "insert into phase2.step_log (run_id, batch, step, kind, status, started_at, detail)"
        " values (%s, 'D', 'arrivals since the snapshot', 'arrivals', 'SUCCEEDED', now(), %s)",
        (RUN, json.dumps(detail)),
    )

    written = reports.write(conn, verdict(), tmp_path)

    content = json.loads(written.json.read_text("utf-8"))
    jsonschema.Draft202012Validator(SCHEMA).validate(content)
    for line in (detail["told"][0], "backed off: 7 (web shop) waited 4.0 s"):
        assert line in content["ran"]["steps"][0]["told"]
        assert line in written.md.read_text("utf-8")
        assert line in written.html.read_text("utf-8")


def test_evaluation_without_a_run_shows_the_last_run_of_the_batch(conn, tmp_path: Path) -> None:
    other = uuid4()
    conn.execute(
        "insert into phase2.step_log (run_id, batch, step, kind, status, started_at)"
        " values (%s, 'D', 'land sources', 'land', 'SUCCEEDED', now())",
        (other,),
    )

    content = json.loads(reports.write(conn, verdict(), tmp_path).json.read_text("utf-8"))

    assert content["run_id"] == str(RUN)
    assert content["ran"]["run_id"] == str(other)
    assert [step["name"] for step in content["ran"]["steps"]] == ["land sources"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("main_name", "Wayan Sukarta", "W•••"),
        ("main_email", "wayan@mail.example", "w•••@m•••"),
        ("phone", "+62 812 3456 7890", "+•••"),
        ("passport_number", "X1234567", "X•••"),
        ("birth_date", "1990-04-05", "1•••"),
        ("pickup_location", "Hotel Bunga, room 12", "H•••"),
        ("phone_number", 628123456789, "•••"),
        ("note", "call +62 812 3456 7890", "c•••"),
        ("external_booking_ref", "BK-0812345678901", "BK-0812345678901"),
        ("booking_key", "9f0c3b1e-0000-5000-8000-000000000000", "9f0c3b1e-0000-5000-8000-000000000000"),
        ("product_name", "Mount Batur Sunrise", "Mount Batur Sunrise"),
        ("table_name", "booking_core", "booking_core"),
        ("customer_payment_status", "PAID", "PAID"),
        ("traveler_id", 12, 12),
        ("is_placeholder_name", True, True),
        ("error", "key (email)=(a.b@c.example) exists", "key (email)=(a•••@c•••) exists"),
        ("finding", "ring 081234567890 now", "ring ••• now"),
        ("at", "2026-11-22 10:00:00+00", "2026-11-22 10:00:00+00"),
        ("amount", "1250000.00", "1250000.00"),
    ],
)
def test_mask_hides_people_and_keeps_keys(name: str, value: object, shown: object) -> None:
    assert reports.mask({name: value}) == {name: shown}


def test_mask_reads_the_field_name_out_of_a_list_of_problems() -> None:
    problems = [{"field": "main_email", "raw": "x@y.example"}, {"field": "currency_code", "raw": "Rp"}]

    assert reports.mask({"problems": problems}) == {
        "problems": [{"field": "main_email", "raw": "x•••@y•••"}, {"field": "currency_code", "raw": "Rp"}]
    }


@pytest.mark.parametrize(
    ("comparator", "threshold", "value", "inside"),
    [
        ("<=", 0.01, 0.002, True),
        ("<=", 0.01, 0.01, True),
        ("<=", 0.01, 0.0101, False),
        ("<=", 0.01, 9.0, False),
        (">=", 0.995, 0.999, True),
        (">=", 0.995, 0.9949, False),
        ("=", 0, 0, True),
        ("=", 0, 1, False),
        ("=", 0, 100000, False),
        ("=", 17, 17, True),
        ("=", 17, 16, False),
        ("=", 1, 0.9999, False),
        ("=", 1, 1, True),
    ],
)
def test_track_draws_the_dot_where_it_passes(comparator: str, threshold: float, value: float, inside: bool) -> None:
    drawn = draw.track({"comparator": comparator, "threshold": threshold, "value": value})

    assert drawn.at is not None
    assert 0 <= drawn.at <= 100
    assert (drawn.passes_from <= drawn.at <= drawn.passes_to) is inside


def test_numbers_read_well() -> None:
    assert draw.percent(0.00073976) == "0.074 %"
    assert draw.percent(1) == "100 %"
    assert draw.percent(0.0000001) == "0.000010 %"
    assert draw.number(1234567) == "1,234,567"
    assert draw.number(12.5) == "12.50"
    assert draw.number(None) == "–"
