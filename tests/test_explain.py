"""`phase2 explain`: any word finds its row, every field has its rule and its origin, and nobody's data is shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bridge import explain, postgres, sources
from bridge.errors import CouldNotRun
from bridge.reports.write import explanation
from bridge.settings import DBT_PROJECT, ROOT, SQL, Databases, settings
from tests.pipeline import fresh

AS_OF = date(2026, 2, 19)
NAMES = {"main_contact_name": "Made Wirawan Adiputra", "main_contact_email": "made.wirawan@mail.id"}


@dataclass
class Shop:
    """Batches A to E of a small shop, with two cases of our own."""

    databases: Databases
    ref: str  # of a booking whose two candidates say different things
    web: int  # its id in balisnap
    lost: int  # id in bstadmin of a booking that cannot be bridged


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with pytest.MonkeyPatch.context() as patch, fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        patch.setenv("PHASE2_REPORTS", str(tmp_path_factory.mktemp("reports")))
        settings.cache_clear()
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=80, seed=7, as_of=AS_OF)
        with postgres.connect(dbs.balisnap) as web, postgres.connect(dbs.bstadmin) as admin:
            refs = [ref for (ref,) in admin.execute("select booking_ref from public.bookings where source = 'DIRECT'")]
            row = web.execute(
                'select b.booking_id, b.booking_ref from public."Booking" as b'
                ' inner join public."Payment" as p on b.booking_id = p.booking_id'
                " where b.booking_ref = any(%s) and p.gateway_capture_id is not null order by 1 limit 1",
                (refs,),
            ).fetchone()
            assert row, "the sample has no booking in both sources"
            web.execute(
                'update public."Booking" set main_contact_name = %(main_contact_name)s,'
                " main_contact_email = %(main_contact_email)s, updated_at = '2025-01-01'"
                " where booking_id = %(id)s",
                {**NAMES, "id": row[0]},
            )
            admin.execute(
                "update public.bookings set main_contact_name = 'Guest', main_contact_email = 'made at mail',"
                " updated_at = '2025-06-01', total_price = 1 where booking_ref = %s",
                (row[1],),
            )
            lost = admin.execute(
                "update public.bookings set tour_date = 'infinity' where booking_id ="
                " (select max(booking_id) from public.bookings where source <> 'DIRECT') returning booking_id"
            ).fetchone()
            assert lost
        pipeline.run("A", "E", AS_OF)
        yield Shop(dbs, ref=row[1], web=row[0], lost=lost[0])
    settings.cache_clear()


@pytest.fixture
def conn(shop: Shop) -> Iterator[psycopg.Connection]:
    with postgres.connect(shop.databases.ops, read_only=True) as connection:
        yield connection


@pytest.fixture
def changed(shop: Shop) -> Iterator[psycopg.Connection]:
    """A connection that may write; what it wrote is taken back."""
    with postgres.connect(shop.databases.ops) as connection:
        yield connection
        connection.rollback()


def told(conn: psycopg.Connection, word: str) -> dict[str, Any]:
    (match,) = explain.find(conn, word)
    return explain.explain(conn, match)


def fields(document: dict[str, Any], table: str) -> dict[str, dict[str, Any]]:
    """Of the table's first row."""
    return {field["column"]: field for row in document["rows"] if row["table"] == table for field in row["fields"]}


def one(conn: psycopg.Connection, query: str, *parameters: object) -> Any:
    row = conn.execute(query.encode(), parameters or None).fetchone()
    assert row is not None, query
    return row[0]


# --- the rules -----------------------------------------------------------------------------------------------------


def test_every_column_of_the_bridge_has_its_rule(conn: psycopg.Connection) -> None:
    columns = {
        table: {name for (name,) in names}
        for table in explain.rules()
        if (
            names := conn.execute(
                "select column_name::text from information_schema.columns where table_schema = 'public'"
                " and table_name = %s and column_name not in ('created_at', 'updated_at')",
                (table,),
            ).fetchall()
        )
    }
    assert columns == {table: set(of) for table, of in explain.rules().items()}
    rows = set(conn.execute("select distinct table_name from information_schema.tables where table_schema = 'public'"))
    elsewhere = {"channel_registry", "ingest_event_log", "ingest_dead_letter", "unmapped_queue", "migration_run_log"}
    assert {table for (table,) in rows if not table.startswith("ref_")} - elsewhere == set(columns)


def test_every_rule_names_what_there_is(conn: psycopg.Connection) -> None:
    places = {path.stem for part in ("models", "functions") for path in (DBT_PROJECT / part).rglob("*.sql")}
    mapping = (ROOT / "docs" / "mapping-rules.md").read_text("utf-8")
    paragraphs = set(re.findall(r"^\| ([0-9.]+)[ |]", mapping, re.M))
    landed = {
        (schema.removeprefix("landing_"), f"{table}.{column}")
        for schema, table, column in conn.execute(
            "select table_schema::text, table_name::text, column_name::text from information_schema.columns"
            " where table_schema like 'landing_%'"
        )
    }
    said = {
        column
        for (column,) in conn.execute(
            "select column_name::text from information_schema.columns where table_schema in"
            " ('dbt_intermediate', 'dbt_staging') and table_name in"
            " ('int_booking_candidates', 'stg_balisnap__bookings', 'stg_bstadmin__bookings')"
        )
    }
    for rule in (rule for of in explain.rules().values() for rule in of.values()):
        assert set(rule.decided_in) <= places, rule
        assert rule.decided_in, rule
        assert rule.paragraph in paragraphs, rule
        assert rule.rule, rule
        assert rule.value in said | {""}, rule
        for system, names in (("balisnap", rule.balisnap), ("bstadmin", rule.bstadmin)):
            assert {(system, name) for name in names if not name.endswith(".*")} <= landed, rule


def test_each_value_of_every_booking_has_a_candidate_that_says_so(conn: psycopg.Connection) -> None:
    """The map is true: of each field that candidates compete for, one of them has the value that the bridge has."""
    explained = 0
    for (key,) in conn.execute("select booking_key from public.booking_core order by 1").fetchall():
        document = explain.explain(conn, explain.Match("booking", key, None, "key"))
        for table in ("booking_core", "booking_contact", "ops_booking_state"):
            for column, field in fields(document, table).items():
                competing = [origin for origin in field["from"] if origin["in_bridge"] is not None]
                if competing and field["value"] is not None:
                    assert any(origin["in_bridge"] for origin in competing), (key, column, field)
                    explained += 1
                assert all(origin["why"] for origin in competing if not origin["in_bridge"]), (key, column)
    assert explained > 80 * 8


# --- a booking -----------------------------------------------------------------------------------------------------


def test_who_won_who_lost_and_why(shop: Shop, conn: psycopg.Connection) -> None:
    document = told(conn, shop.ref)
    web = f"balisnap:Booking:{shop.web}"
    winner, loser = document["candidates"]
    assert (winner["row"], winner["won"], winner["proof"]) == (web, True, "a payment with a capture id")
    assert (loser["won"], loser["why"]) == (False, f"weaker proof than {web}")
    core, contact = fields(document, "booking_core"), fields(document, "booking_contact")
    assert {origin["row"]: (origin["in_bridge"], origin["why"]) for origin in core["total_price"]["from"][:2]} == {
        web: (True, None),
        loser["row"]: (False, f"rank 2: the value of {web} stands"),
    }
    # bstadmin is the later one, and loses all the same
    assert [(o["in_bridge"], o["why"]) for o in contact["main_name"]["from"]] == [
        (True, None),
        (False, "a placeholder"),
    ]
    assert [(o["in_bridge"], o["why"]) for o in contact["main_email"]["from"]] == [
        (True, None),
        (False, "not a valid address"),
    ]
    assert core["total_price"]["paragraph"] == "4.5"
    assert "norm_money" in core["total_price"]["decided_in"]
    payment = next(row for row in document["rows"] if row["table"] == "payment_event")
    assert payment["from"][0].startswith("balisnap:Payment:")
    assert {verdict["batch"]: verdict["stale"] for verdict in document["verdicts"]} == {"D": [], "E": []}
    assert {run["model"] for run in document["runs"]} >= {"booking_core", "payment_event", "booking_external_refs"}


def test_any_word_finds_it(shop: Shop, conn: psycopg.Connection) -> None:
    ref = shop.ref
    key = one(conn, "select booking_key from public.booking_core where external_booking_ref = %s", ref)
    child = "select {}::text from public.{} where booking_key = %s limit 1"
    words = [
        ref,
        f"  {ref.lower()}\u200b ",
        f"DIRECT:{ref}",
        str(key),
        f"balisnap:Booking:{shop.web}",
        *(
            one(conn, child.format(column, table), key)
            for column, table in (
                ("payment_key", "payment_event"),
                ("payment_ref", "payment_event"),
                ("gateway_capture_id", "payment_event"),
                ("booking_item_key", "booking_item_snapshot"),
                ("finance_bridge_key", "ops_finance_bridge"),
                ("'bstadmin:booking_finances:' || booking_finance_id", "ops_finance_bridge"),
            )
        ),
    ]
    for word in words:
        assert [(match.kind, match.key) for match in explain.find(conn, word)] == [("booking", key)], word
    match = explain.find(conn, words[7])[0]
    assert match.row is not None  # the payment is what was asked for
    assert explain.explain(conn, match)["part"] == str(match.row)


def test_a_number_means_several_things_and_each_can_be_asked_for(conn: psycopg.Connection) -> None:
    matches = explain.find(conn, "1")
    kinds = {match.kind for match in matches}
    assert {"booking", "product", "variant", "package"} <= kinds
    assert len({match.name for match in matches}) == len(matches)
    for match in matches:
        again = explain.find(conn, match.name)
        assert [(other.kind, other.key) for other in again] == [(match.kind, match.key)], match


def test_what_is_called_nothing_says_what_was_searched(conn: psycopg.Connection) -> None:
    for word in ("NONE-SUCH", "balisnap:Payment:999999999", "00000000-0000-7000-8000-000000000000", "%", "'; --"):
        with pytest.raises(CouldNotRun, match="nothing here is called") as error:
            explain.find(conn, word)
        assert "payment refs, capture and order ids" in error.value.todo


def test_a_booking_that_could_not_be_bridged_says_why(shop: Shop, conn: psycopg.Connection) -> None:
    document = told(conn, f"bstadmin:bookings:{shop.lost}")
    assert document["kind"] == "source"
    assert document["notes"] == ["not bridged (mapping 1): its travel day is missing or outside 1900 to 2199"]
    assert [(row["queue_type"], row["reason_code"]) for row in document["queue"]] == [
        ("BOOKING_REVIEW", "INVALID_SOURCE")
    ]
    assert "D-05" in {row["gate_id"] for row in document["exceptions"]}


def test_queue_rows_gates_and_events_of_a_booking(shop: Shop, changed: psycopg.Connection) -> None:
    before = told(changed, shop.ref)
    queued = len(before["queue"])
    changed.execute(
        "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code,"
        " status, payload) values (gen_random_uuid(), 'BOOKING_REVIEW', 'canonical', 'booking_identity', %s,"
        " 'NO_MATCH', 'OPEN', %s)",
        (f"DIRECT:{shop.ref}", json.dumps(NAMES)),
    )
    changed.execute(
        "insert into phase2.exceptions (run_id, batch, gate_id, entity, key, status)"
        " values (gen_random_uuid(), 'D', 'D-01', 'bookings', %s, 'DUPLICATE')",
        (f"{before['key']}:DIRECT:{shop.ref}",),
    )
    changed.execute(
        "insert into public.ingest_event_log (event_key, idempotency_key, nonce, source_enum, channel_code,"
        " external_booking_ref, event_type, event_time, event_time_normalized, payload_hash, process_status,"
        " raw_payload)"
        " values (gen_random_uuid(), 'k', 'n', 'DIRECT', 'DIRECT', %s, 'UPDATED', now(), now(), 'h', 'DONE', %s)",
        (shop.ref, json.dumps(NAMES)),
    )
    document = told(changed, shop.ref)
    assert len(document["queue"]) == queued + 1
    assert "D-01" in {row["gate_id"] for row in document["exceptions"]}
    assert [event["event_type"] for event in document["events"]] == ["UPDATED"]
    assert "1 event since." in document["summary"]
    assert NAMES["main_contact_name"] not in json.dumps(document)


def test_a_value_that_no_candidate_says_is_seen(shop: Shop, changed: psycopg.Connection) -> None:
    changed.execute("update public.booking_core set total_price = 7777 where external_booking_ref = %s", (shop.ref,))
    origins = fields(told(changed, shop.ref), "booking_core")["total_price"]["from"][:2]
    assert [origin["in_bridge"] for origin in origins] == [False, False]
    assert {origin["why"] for origin in origins} == {"made to fit, or the bridge is newer (mapping 1, 4.13)"}


def test_without_the_working_tables_it_says_what_it_cannot_know(shop: Shop, changed: psycopg.Connection) -> None:
    changed.execute("drop schema dbt_intermediate cascade")
    document = told(changed, shop.ref)
    assert document["candidates"] == []
    assert "nobody's rank is known" in document["notes"][0]
    assert fields(document, "booking_core")["total_price"]["rule"]
    product = one(changed, "select slug from public.catalog_product order by 1 limit 1")
    matches = [match for match in explain.find(changed, product) if match.kind == "product"]
    assert "rolled back" in explain.explain(changed, matches[0])["notes"][0]


def test_before_batch_a_there_is_nothing_to_explain(database: str) -> None:
    with postgres.connect(database) as empty, pytest.raises(CouldNotRun, match="no bridge to explain"):
        explain.find(empty, "GYG-1")


# --- the catalog ---------------------------------------------------------------------------------------------------


def test_a_product_with_its_packages_and_rates(conn: psycopg.Connection) -> None:
    key = one(
        conn,
        "select p.product_key::text from dbt_intermediate.int_catalog_packages as p"
        " where p.outcome = 'MAPPED' order by p.package_id limit 1",
    )
    document = told(conn, key)
    assert document["kind"] == "product"
    product = next(row for row in document["rows"] if row["table"] == "catalog_product")
    assert product["from"][0].startswith("balisnap:TourProduct:")
    assert fields(document, "catalog_product")["name"]["value"] == one(
        conn, "select name from public.catalog_product where product_key = %s", key
    )  # a product's name is nobody's
    assert any(package["maps_here"] and package["outcome"] == "MAPPED" for package in document["packages"])
    rates = [row for row in document["rows"] if row["table"] == "catalog_variant_rate"]
    assert rates
    assert all(row["from"] for row in rates)
    assert {verdict["batch"] for verdict in document["verdicts"]} == {"C"}


def test_each_package_says_where_it_went(conn: psycopg.Connection) -> None:
    packages = conn.execute("select package_id, outcome from dbt_intermediate.int_catalog_packages").fetchall()
    assert {"MAPPED", "OWN", "MULTI_MATCH"} <= {outcome for _, outcome in packages}
    for package_id, outcome in packages:
        document = told(conn, f"bstadmin:tour_packages:{package_id}")
        own = next(p for p in document["packages"] if p["row"] == f"bstadmin:tour_packages:{package_id}")
        assert own["outcome"] == outcome
        assert f"bstadmin:tour_packages:{package_id}" in {source["row"] for source in document["sources"]}
        assert bool(document["rows"]) == (outcome in ("MAPPED", "OWN"))
        won = [candidate["won"] for candidate in own["candidates"]]
        assert {"MAPPED": True in won, "MULTI_MATCH": set(won) == {None}, "OWN": won == []}[outcome]


# --- who reads it --------------------------------------------------------------------------------------------------


def test_people_are_masked_and_the_page_stands_alone(shop: Shop, conn: psycopg.Connection) -> None:
    document = told(conn, shop.ref)
    page = explanation(document)
    people = [
        str(value)
        for (row,) in conn.execute(
            "select jsonb_build_array(c.main_name, c.main_email, c.phone, c.pickup_location)"
            " from public.booking_contact as c where c.booking_key = %s",
            (document["key"],),
        )
        for value in row
        if value
    ]
    assert NAMES["main_contact_name"] in people
    for text in (json.dumps(document, ensure_ascii=False), page):
        assert [person for person in people if person in text] == []
    assert fields(document, "booking_contact")["main_name"]["value"] == "M•••"
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert "<script" not in page
    targets = set(re.findall(r'id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= targets


def test_the_command(shop: Shop, tmp_path: Path) -> None:
    urls = {f"{name.upper()}_DB_URL": getattr(shop.databases, name) for name in ("ops", "balisnap", "bstadmin")}

    def phase2(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / "phase2"), "explain", *arguments]
        return subprocess.run(command, env=os.environ | urls, text=True, capture_output=True, timeout=120)

    page = tmp_path / "page.html"
    done = phase2(shop.ref, "--html", str(page))
    assert done.returncode == 0, done.stderr
    assert "a placeholder" in done.stdout
    assert NAMES["main_contact_name"] not in done.stdout
    assert page.read_text("utf-8").startswith("<!doctype html>")
    nowhere = phase2(shop.ref, "--html", str(tmp_path / "none" / "page.html"))
    assert nowhere.returncode == 2
    assert "the page cannot be written: No such file or directory" in nowhere.stderr
    assert "PHASE2_DEBUG" not in nowhere.stderr
    assert json.loads(phase2(shop.ref, "--json").stdout)["kind"] == "booking"
    several = phase2("1", "--json")
    assert several.returncode == 2
    assert {"kind", "ask_for", "understood_as"} == set(json.loads(several.stdout)["matches"][0])
    nothing = phase2("NONE-SUCH")
    assert nothing.returncode == 2
    assert "Searched:" in nothing.stderr


def test_every_query_can_be_read_alone() -> None:
    """They take what is asked from settings, so that an engineer can run them in psql."""
    for path in (SQL / "explain").glob("*.sql"):
        text = path.read_text("utf-8")
        assert text.startswith("-- "), path.name
        assert "current_setting('phase2.explain" in text, path.name
        assert "%(" not in text, path.name
