"""Gates: a healthy migration passes each of them, and each of them fails by a real fault.

One migration of a sample shop is run through the batches (module fixture); every fault is put into a clone of it.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from uuid import uuid4

import jsonschema
import psycopg
import pytest

from bridge import gates, legacy, postgres, reports, runlog, sources, steps, warehouse
from bridge.batches import BATCHES, GLOBAL_GATES, ORDER, between
from bridge.errors import CouldNotRun, GateFailed
from bridge.settings import ROOT, Databases
from tests import test_scripts

AS_OF = date(2026, 11, 22)
SCHEMA = json.loads((ROOT / "bridge" / "reports" / "report.schema.json").read_text("utf-8"))
_PLACES = ("ops", "balisnap", "bstadmin")


class Shop:
    """A migrated sample shop, and what each batch's gates said of it."""

    def __init__(self, server: str) -> None:
        self.server = server
        self.names = {place: f"gates_{place}" for place in _PLACES}
        self.verdicts: dict[str, gates.Verdict] = {}

    def url(self, place: str = "ops") -> str:
        return postgres.with_database(self.server, self.names[place])

    def drop(self) -> None:
        with postgres.connect(self.server, autocommit=True) as conn:
            for name in self.names.values():
                conn.execute(postgres.statement("drop database if exists {} with (force)", name))

    def migrate(self, written: Path) -> None:
        with postgres.connect(self.server, autocommit=True) as conn:
            for name in self.names.values():
                conn.execute(postgres.statement("create database {}", name))
        sources.create(self.url("balisnap"), self.url("bstadmin"), bookings=4000, seed=3, as_of=AS_OF)
        steps.bootstrap(self.url())
        databases = Databases(self.url(), self.url("balisnap"), self.url("bstadmin"), None)
        run = steps.Run(run_id=runlog.uuid7(), databases=databases, as_of=AS_OF)
        for batch in between("A", "E"):
            steps.start(run, batch)
            for step in batch.plan:
                steps.execute(run, batch, step)
            with run.connect() as conn:
                verdict = gates.evaluate(conn, batch.code, run.run_id)
                reports.write(conn, verdict, written)
                steps.set_state(conn, run, batch.code, verdict.result)
            self.verdicts[batch.code] = verdict

    @contextmanager
    def clone(self) -> Iterator[psycopg.Connection]:
        """A copy of the ops database to break; foreign keys look away (replica), as after a restore gone wrong."""
        name = f"gates_{uuid4().hex[:12]}"
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute(postgres.statement("create database {} template {}", name, self.names["ops"]))
        try:
            with postgres.connect(postgres.with_database(self.server, name), autocommit=True) as conn:
                conn.execute("set session_replication_role = replica")
                yield conn
        finally:
            with postgres.connect(self.server, autocommit=True) as conn:
                conn.execute(postgres.statement("drop database {} with (force)", name))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shop(written: Path) -> Iterator[Shop]:
    made = Shop(os.environ["TEST_PG_URL"])
    with postgres.connect(made.server, autocommit=True) as conn:
        # the names are fixed (dbt's partial parse is bound to them), so test runs side by side take turns
        conn.execute("select pg_advisory_lock(hashtext('the shop of test_gates'))")
        made.drop()
        made.migrate(written)
        yield made
        made.drop()


def evaluate(conn: psycopg.Connection, batch: str) -> dict[str, gates.Gate]:
    return {gate.gate_id: gate for gate in gates.evaluate(conn, batch, uuid4()).gates}


# --- a healthy shop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", ORDER)
def test_healthy_shop_passes_every_gate(shop: Shop, batch: str) -> None:
    verdict = shop.verdicts[batch]

    assert {g.gate_id: (g.status, g.note) for g in verdict.gates if g.status == "FAIL"} == {}
    assert (verdict.result, verdict.blocked_by) == ("PASS", ())
    assert {g.gate_id for g in verdict.gates} == {*BATCHES[batch].gates, *GLOBAL_GATES}


def test_only_what_a_healthy_shop_may_lack_is_not_applicable(shop: Shop) -> None:
    empty = {(batch, g.gate_id) for batch, v in shop.verdicts.items() for g in v.gates if g.status == "N/A"}

    first_runs = {(b, g) for b in "AB" for g in GLOBAL_GATES}
    assert first_runs <= empty <= {*first_runs, ("C", "G-01"), ("E", "E-04")}


@pytest.mark.parametrize("batch", ["C", "D", "E"])
def test_conservation_holds_in_each_line(shop: Shop, batch: str) -> None:
    lines = shop.verdicts[batch].parity

    assert {line.entity for line in lines} >= {"products", "variants", "rates", "packages", "landed tables"}
    for line in lines:
        parts = line.bridged + line.merged + line.queued + line.excluded + line.unaccounted
        assert line.source == parts, line
        assert line.unaccounted_rows == 0, line
    assert sum(line.source for line in lines) > 0


def test_money_is_conserved_per_currency(shop: Shop) -> None:
    money = {(line.entity, line.unit) for line in shop.verdicts["E"].parity if line.unit != "rows"}

    assert {entity for entity, _ in money} == {"bookings", "items", "payments"}
    assert {unit for _, unit in money} >= {"USD", "IDR"}


def test_every_verdicts_report_follows_the_schema(shop: Shop, written: Path) -> None:
    files = sorted(written.rglob("*.json"))

    assert {f.parent.name for f in files} == set(ORDER)
    for file in files:
        content = json.loads(file.read_text("utf-8"))
        jsonschema.Draft202012Validator(SCHEMA).validate(content)
        assert content["ran"]["steps"], file


def test_verdict_and_full_exceptions_are_kept(shop: Shop) -> None:
    verdict = shop.verdicts["D"]
    with postgres.connect(shop.url(), read_only=True) as conn:
        kept = conn.execute(
            "select gate_id, status, value from phase2.gate_results where batch = 'D' and evaluated_at = %s",
            (verdict.evaluated_at,),
        ).fetchall()
        listed = conn.execute(
            "select count(*) from phase2.exceptions where batch = 'D' and evaluated_at = %s", (verdict.evaluated_at,)
        ).fetchone()

    assert {(g.gate_id, g.status, g.value) for g in verdict.gates} == set(kept)
    assert listed == (len(verdict.exceptions),)


# --- each gate fails by a real fault -----------------------------------------------------------------------------

_LANDED = (
    *(
        f'landing_balisnap."{name}"'
        for name in (
            *("TourPackage", "TourImage", "TourProduct", "TourVariant", "VariantRatePlan", "VariantItinerary"),
            *("Departure", "Booking", "BookingItem", "BookingTraveler", "Payment"),
        )
    ),
    *(
        f"landing_bstadmin.{name}"
        for name in (
            *("tours", "tour_packages", "tour_images", "tour_itineraries"),
            *("bookings", "booking_finances", "booking_finance_items"),
        )
    ),
)

FAULTS: dict[str, tuple[str, str, str]] = {
    "A-00 a check failed": (
        "A",
        "A-00",
        "insert into phase2.gate_inputs (run_id, batch, gate_id, item, passed)"
        " select '00000000-0000-0000-0000-0000000000ff', 'A', 'A-00', v.item, v.passed"
        " from (values ('free_disk', false), ('time_zone', true)) as v (item, passed)",
    ),
    "A-00 nothing was checked": ("A", "A-00", "delete from phase2.gate_inputs where gate_id = 'A-00'"),
    "A-01 a table is gone": ("A", "A-01", "drop table public.migration_run_log cascade"),
    "A-01 a column has another type": ("A", "A-01", "alter table public.booking_contact alter phone type text"),
    "A-01 a column too many": ("A", "A-01", "alter table public.unmapped_queue add extra text"),
    "A-02 an index is gone": ("A", "A-02", "drop index public.ix_booking_core_tour_date"),
    "A-02 a foreign key is gone": (
        "A",
        "A-02",
        "alter table public.payment_event drop constraint payment_event_booking_key_fkey",
    ),
    "A-02 a check is gone": (
        "A",
        "A-02",
        "alter table public.unmapped_queue drop constraint ck_unmapped_queue_status",
    ),
    "A-02 a unique index is not unique": (
        "A",
        "A-02",
        "drop index public.ux_payment_event_payment_ref_not_null;"
        "create index ux_payment_event_payment_ref_not_null on public.payment_event (payment_ref)"
        " where payment_ref is not null",
    ),
    "A-03 a statement fails after": (
        "A",
        "A-03",
        "update phase2.legacy_query_results set succeeded = false where legacy_query_result_id = ("
        "select max(legacy_query_result_id) from phase2.legacy_query_results where phase = 'AFTER')",
    ),
    "A-03 a source was not asked": (
        "A",
        "A-03",
        "delete from phase2.legacy_query_results where source = 'bstadmin'",
    ),
    "A-03 nothing ran after": ("A", "A-03", "delete from phase2.legacy_query_results where phase = 'AFTER'"),
    "B-01 a channel is missing": ("B", "B-01", "delete from public.channel_registry where channel_code = 'BOKUN'"),
    "B-02 a code is missing": ("B", "B-02", "delete from public.ref_dead_letter_status where status_code = 'CLOSED'"),
    "B-02 a dictionary is gone": ("B", "B-02", "drop table public.ref_replay_status cascade"),
    "B-03 the rerun added rows": (
        "B",
        "B-03",
        "insert into phase2.gate_inputs (run_id, batch, gate_id, item, passed)"
        " values (gen_random_uuid(), 'B', 'B-03', 'seed scripts', false)",
    ),
    "B-03 there was no rerun": ("B", "B-03", "delete from phase2.gate_inputs where gate_id = 'B-03'"),
    "C-01 products without variant": (
        "C",
        "C-01",
        "insert into public.catalog_product (product_key, slug, name)"
        " select gen_random_uuid(), 'orphan-' || n, 'orphan' from generate_series(1, 20) as n",
    ),
    "C-01 variants without product": (
        "C",
        "C-01",
        "update public.catalog_variant set product_key = gen_random_uuid() where variant_key in ("
        "select variant_key from public.catalog_variant order by variant_key limit 20)",
    ),
    "C-01 refs to nothing": (
        "C",
        "C-01",
        "update public.channel_external_refs set entity_key = gen_random_uuid() where entity_type = 'VARIANT'",
    ),
    "C-01 refs to nothing, and no catalog": (
        "C",
        "C-01",
        "truncate public.catalog_variant_rate; delete from public.catalog_variant; delete from public.catalog_product",
    ),
    "C-02 the queue is long": (
        "C",
        "C-02",
        "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)"
        " select gen_random_uuid(), 'PRODUCT_MAPPING', 'bstadmin', 'tour_packages', 'x' || n, 'NO_MATCH'"
        " from generate_series(1, 200) as n",
    ),
    "C-02 there is no catalog": (
        "C",
        "C-02",
        "truncate public.catalog_variant_rate, public.catalog_variant, public.catalog_product cascade",
    ),
    "C-03 a variant without active rate": (
        "C",
        "C-03",
        "update public.catalog_variant_rate set is_active = false where variant_key = ("
        "select variant_key from public.catalog_variant order by variant_key limit 1)",
    ),
    "C-04 another reason": (
        "C",
        "C-04",
        "update public.unmapped_queue set reason_code = 'OTHER' where queue_key = ("
        "select queue_key from public.unmapped_queue order by queue_key limit 1)",
    ),
    "D-01 another spelling of an identity": (
        "D",
        "D-01",
        "insert into public.booking_core (booking_key, channel_code, external_booking_ref, booking_created_at,"
        " tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type)"
        " select gen_random_uuid(), channel_code, ' ' || lower(external_booking_ref), now(), tour_date, 'PAID', 'NEW',"
        " 'LEGACY_PACKAGE' from public.booking_core where external_booking_ref ~ '[A-Z]'"
        " order by external_booking_ref limit 1",
    ),
    "D-01 a source's id leads to another row": (
        "D",
        "D-01",
        "update public.channel_external_refs as r set entity_key = (select max(booking_key::text)::uuid"
        " from public.booking_core) where external_ref_key = (select external_ref_key"
        " from public.channel_external_refs where external_ref_kind = 'BSTADMIN_BOOKING_ID'"
        " and entity_key <> (select max(booking_key::text)::uuid from public.booking_core) limit 1)",
    ),
    "D-02 a blank ref": (
        "D",
        "D-02",
        "update public.booking_core set external_booking_ref = '' where booking_key = ("
        "select booking_key from public.booking_core order by booking_key limit 1)",
    ),
    "D-02 a null channel": (
        "D",
        "D-02",
        "alter table public.booking_core alter channel_code drop not null;"
        "update public.booking_core set channel_code = null where booking_key = ("
        "select booking_key from public.booking_core order by booking_key limit 1)",
    ),
    "D-03 other head counts": (
        "D",
        "D-03",
        "update public.booking_core set number_of_adult = number_of_adult + 1 where booking_key in ("
        "select booking_key from public.booking_core order by booking_key limit 100)",
    ),
    "D-03 bookings without items": (
        "D",
        "D-03",
        "delete from public.booking_item_snapshot where booking_key in ("
        "select booking_key from public.booking_core where number_of_adult > 0 order by booking_key limit 100)",
    ),
    "D-04 no type": (
        "D",
        "D-04",
        "alter table public.booking_core alter package_ref_type drop not null;"
        "update public.booking_core set package_ref_type = null where booking_key = ("
        "select booking_key from public.booking_core order by booking_key limit 1)",
    ),
    "D-04 a catalog type without key": (
        "D",
        "D-04",
        "update public.booking_core set package_ref_key = null where booking_key = ("
        "select booking_key from public.booking_core where package_ref_type = 'CATALOG_VARIANT'"
        " order by booking_key limit 1)",
    ),
    "D-05 a source booking is not in the bridge": (
        "D",
        "D-05",
        "delete from public.booking_core where booking_key = ("
        "select booking_key from public.booking_core order by booking_key limit 1)",
    ),
    "D-06 a booking from nowhere": (
        "D",
        "D-06",
        "insert into public.booking_core (booking_key, channel_code, external_booking_ref, booking_created_at,"
        " tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type)"
        " values (gen_random_uuid(), 'GYG', 'FROM-NOWHERE', now(), '2026-01-01', 'PAID', 'NEW', 'LEGACY_PACKAGE')",
    ),
    "E-01 a payment without booking": (
        "E",
        "E-01",
        "update public.payment_event set booking_key = gen_random_uuid() where payment_key = ("
        "select payment_key from public.payment_event order by payment_key limit 1)",
    ),
    "E-01 a payment on another booking": (
        "E",
        "E-01",
        "update public.payment_event as p set booking_key = (select booking_key from public.booking_core"
        " where channel_code = 'GYG' order by booking_key limit 1) where payment_key = ("
        "select payment_key from public.payment_event order by payment_key limit 1)",
    ),
    "E-02 done and not paid": (
        "E",
        "E-02",
        "update public.booking_core set customer_payment_status = 'PENDING_PAYMENT' where booking_key in ("
        "select booking_key from public.booking_core where ops_fulfillment_status = 'DONE'"
        " order by booking_key limit 40)",
    ),
    "E-03 another amount than the capture": (
        "E",
        "E-03",
        "update public.payment_event set amount = amount + 5 where payment_key = ("
        "select payment_key from public.payment_event where raw_payload ? 'purchase_units'"
        " order by payment_key limit 1)",
    ),
    "E-03 a capture of the export is not in the bridge": (
        "E",
        "E-03",
        "insert into phase2.audit_sample (capture_id, amount, currency) values ('UNKNOWN', 10, 'USD')",
    ),
    "E-04 a paid booking fell": (
        "E",
        "E-04",
        "update public.booking_core set customer_payment_status = 'PENDING_PAYMENT' where booking_key = ("
        "select booking_key from public.booking_core where customer_payment_status = 'PAID'"
        " and channel_code = 'GYG' order by booking_key limit 1)",
    ),
    "E-04 a paid booking fell beside an attempt that was cancelled": (
        "E",
        "E-04",
        'insert into landing_balisnap."Payment" select (p).* from (select jsonb_populate_record(l, jsonb_build_object('
        "'payment_id', 900001, 'payment_status_v2', 'CANCELLED', 'gateway_capture_id', 'TRIED')) as p"
        ' from landing_balisnap."Payment" as l join public.payment_event as e on e.payment_key ='
        " rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)"
        " join public.booking_core as c on c.booking_key = e.booking_key where c.channel_code = 'DIRECT'"
        " and c.customer_payment_status = 'PAID' and e.payment_status_v2 = 'PAID' order by c.booking_key limit 1) as n;"
        "update public.booking_core set customer_payment_status = 'PENDING_PAYMENT' where booking_key = ("
        "select c.booking_key from public.payment_event as e join public.booking_core as c"
        " on c.booking_key = e.booking_key where c.channel_code = 'DIRECT' and c.customer_payment_status = 'PAID'"
        " and e.payment_status_v2 = 'PAID' order by c.booking_key limit 1)",
    ),
    "G-01 a booking twice": (
        "D",
        "G-01",
        "insert into public.booking_core (booking_key, channel_code, external_booking_ref, booking_created_at,"
        " tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type)"
        " select gen_random_uuid(), channel_code, ' ' || external_booking_ref, now(), tour_date, 'PAID', 'NEW',"
        " 'LEGACY_PACKAGE' from public.booking_core order by booking_key limit 1",
    ),
    "G-02 paid flags differ": (
        "D",
        "G-02",
        "update public.ops_booking_state set is_paid_flag = not is_paid_flag where booking_key in ("
        "select booking_key from public.booking_core order by booking_key limit 100)",
    ),
    "G-02 statuses drift from settlement": (
        "D",
        "G-02",
        "update landing_bstadmin.booking_finance_items set paid = not paid",
    ),
    "G-08 a product is gone": (
        "C",
        "G-08",
        "delete from public.catalog_product where product_key = ("
        "select entity_key from public.channel_external_refs where external_ref_kind = 'BALISNAP_PRODUCT_ID' limit 1)",
    ),
    "G-08 two products are one": (
        "C",
        "G-08",
        "update public.channel_external_refs set entity_key = (select min(entity_key::text)::uuid from"
        " public.channel_external_refs where external_ref_kind = 'BALISNAP_PRODUCT_ID') where external_ref_key = ("
        "select external_ref_key from public.channel_external_refs where external_ref_kind = 'BALISNAP_PRODUCT_ID'"
        " order by entity_key desc limit 1)",
    ),
    "G-08 two variants are one": (
        "C",
        "G-08",
        "update public.channel_external_refs set entity_key = (select min(entity_key::text)::uuid from"
        " public.channel_external_refs where external_ref_kind = 'BALISNAP_VARIANT_ID') where external_ref_key = ("
        "select external_ref_key from public.channel_external_refs where external_ref_kind = 'BALISNAP_VARIANT_ID'"
        " order by entity_key desc limit 1)",
    ),
    "G-08 a package leads to no product of the shop": (
        "C",
        "G-08",
        "insert into public.catalog_product (product_key, slug, name) values"
        " ('00000000-0000-0000-0000-0000000000aa', 'elsewhere', 'Elsewhere');"
        "update public.channel_external_refs set entity_key = '00000000-0000-0000-0000-0000000000aa'"
        " where external_ref_key = (select external_ref_key from public.channel_external_refs"
        " where entity_type = 'PRODUCT' and external_ref_kind = 'BSTADMIN_PACKAGE_ID' order by entity_key limit 1)",
    ),
    "G-08 a rate is gone, and its currency under review": (
        "C",
        "G-08",
        "with gone as (delete from public.catalog_variant_rate where variant_rate_key = ("
        "select rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', min(l.rate_plan_id)::text)"
        ' from landing_balisnap."VariantRatePlan" as l join public.catalog_variant_rate as r on r.variant_rate_key'
        " = rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', l.rate_plan_id::text)) returning variant_rate_key)"
        " insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk,"
        " reason_code) select gen_random_uuid(), 'CATALOG_EXTENDED_METADATA', 'balisnap', 'VariantRatePlan',"
        " l.rate_plan_id::text, 'INVALID_SOURCE' from landing_balisnap.\"VariantRatePlan\" as l join gone"
        " on gone.variant_rate_key = rulebook.row_key('rate', 'balisnap', 'VariantRatePlan', l.rate_plan_id::text)",
    ),
    "G-08 a finance is gone, and a queue row of another kind": (
        "E",
        "G-08",
        "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk,"
        " reason_code) select gen_random_uuid(), 'PAYMENT_LINK', 'bstadmin', 'booking_finances',"
        " booking_finance_id::text, 'MULTI_MATCH' from public.ops_finance_bridge order by finance_bridge_key limit 1;"
        "delete from public.ops_finance_bridge where finance_bridge_key = ("
        "select finance_bridge_key from public.ops_finance_bridge order by finance_bridge_key limit 1)",
    ),
    "G-08 a finance on another booking": (
        "E",
        "G-08",
        "update public.ops_finance_bridge set booking_key = (select booking_key from public.booking_core"
        " where booking_key not in (select booking_key from public.ops_finance_bridge) limit 1)"
        " where finance_bridge_key = ("
        "select finance_bridge_key from public.ops_finance_bridge order by finance_bridge_key limit 1)",
    ),
    "G-08 a finance hides an unpaid item": (
        "E",
        "G-08",
        "update landing_bstadmin.booking_finance_items set paid = false where finance_item_id = ("
        "select min(i.finance_item_id) from landing_bstadmin.booking_finance_items as i"
        " join public.ops_finance_bridge as f on f.booking_finance_id = i.booking_finance_id"
        " where f.settlement_status = 'SETTLED')",
    ),
    "G-08 a payment is gone while the bridge says all is well": (
        "A",
        "G-08",
        "delete from public.payment_event where payment_key = ("
        "select payment_key from public.payment_event order by payment_key limit 1)",
    ),
    "G-02 paid flags differ, asked after B": (
        "B",
        "G-02",
        "update public.ops_booking_state set is_paid_flag = not is_paid_flag where booking_key in ("
        "select booking_key from public.booking_core order by booking_key limit 100)",
    ),
    "G-01 a booking twice, asked after A": (
        "A",
        "G-01",
        "insert into public.booking_core (booking_key, channel_code, external_booking_ref, booking_created_at,"
        " tour_date, customer_payment_status, ops_fulfillment_status, package_ref_type)"
        " select gen_random_uuid(), channel_code, ' ' || external_booking_ref, now(), tour_date, 'PAID', 'NEW',"
        " 'LEGACY_PACKAGE' from public.booking_core order by booking_key limit 1",
    ),
    "G-08 a valid booking waits in the queue": (
        "D",
        "G-08",
        "with gone as (delete from public.channel_external_refs where external_ref_key = (select external_ref_key"
        " from public.channel_external_refs where external_ref_kind = 'BALISNAP_BOOKING_ID' order by external_ref_key"
        " limit 1) returning source_pk) insert into public.unmapped_queue (queue_key, queue_type, source_system,"
        " source_table, source_pk, reason_code) select gen_random_uuid(), 'BOOKING_REVIEW', 'balisnap', 'Booking',"
        " source_pk, 'INVALID_SOURCE' from gone",
    ),
    "G-08 an item's money is another": (
        "D",
        "G-08",
        "update public.booking_item_snapshot set total_amount = total_amount + 1 where booking_item_key = ("
        "select booking_item_key from public.booking_item_snapshot where variant_external_id is not null"
        " order by booking_item_key limit 1)",
    ),
    "G-08 a total is another": (
        "D",
        "G-08",
        "update public.booking_core set total_price = total_price + 1 where booking_key = ("
        "select booking_key from public.booking_core order by booking_key limit 1)",
    ),
    "G-08 a traveller is gone": (
        "D",
        "G-08",
        "update public.booking_party set traveler_rows = traveler_rows - 0 where booking_key = ("
        "select booking_key from public.booking_party where jsonb_array_length(traveler_rows) > 0 limit 1)",
    ),
    "G-08 a payment is gone": (
        "E",
        "G-08",
        "delete from public.payment_event where payment_key = ("
        "select payment_key from public.payment_event order by payment_key limit 1)",
    ),
    "G-08 a finance is gone": (
        "E",
        "G-08",
        "delete from public.ops_finance_bridge where finance_bridge_key = ("
        "select finance_bridge_key from public.ops_finance_bridge order by finance_bridge_key limit 1)",
    ),
    "G-08 landed rows were lost in a crash": ("C", "G-08", 'truncate landing_balisnap."TourImage"'),
    "G-08 every landed row was lost in a crash": (
        "C",
        "G-08",
        "truncate " + ", ".join(_LANDED),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_gate_fails_by_a_real_fault(shop: Shop, fault: str) -> None:
    batch, gate_id, statements = FAULTS[fault]
    with shop.clone() as conn:
        for statement in statements.split(";"):
            conn.execute(statement.encode())
        verdict = gates.evaluate(conn, batch, uuid4())
    gate = next(g for g in verdict.gates if g.gate_id == gate_id)

    assert gate.status == "FAIL"
    assert "not to be trusted" not in gate.note
    assert not gate.note.startswith("not measured")
    assert gate_id in verdict.blocked_by
    assert verdict.result == "FAIL"
    if gate.denominator:
        assert gate.exceptions == len([e for e in verdict.exceptions_of(gate_id) if e.is_counted]) > 0
        assert gate.margin is not None
        assert gate.margin < 0


def test_every_gate_of_the_registry_has_a_fault_that_fails_it(shop: Shop) -> None:
    with postgres.connect(shop.url(), read_only=True) as conn:
        known = {row[0] for row in conn.execute("select gate_id from dbt_seeds.gate_registry").fetchall()}

    assert known == {gate_id for _, gate_id, _ in FAULTS.values()}
    assert known == {*GLOBAL_GATES, *(gate for batch in BATCHES.values() for gate in batch.gates)}


# --- what the rules list apart -----------------------------------------------------------------------------------


def test_refunded_after_the_trip_is_listed_apart(shop: Shop) -> None:
    with shop.clone() as conn:
        before = evaluate(conn, "E")["E-02"]
        conn.execute(
            "update public.booking_core set customer_payment_status = 'REFUNDED' where booking_key = ("
            "select c.booking_key from public.booking_core as c where c.ops_fulfillment_status = 'DONE'"
            " and c.customer_payment_status = 'PAID' and not exists ("
            "select 1 from public.payment_event as p where p.booking_key = c.booking_key)"
            " order by c.booking_key limit 1)"
        )
        after = evaluate(conn, "E")["E-02"]

    assert after.numerator == before.numerator
    assert after.listed_apart == before.listed_apart + 1


def test_reviewed_booking_without_source_is_listed_apart(shop: Shop) -> None:
    batch, gate_id, statement = FAULTS["D-06 a booking from nowhere"]
    with shop.clone() as conn:
        conn.execute(statement.encode())
        conn.execute(
            "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk,"
            " reason_code) values (gen_random_uuid(), 'BOOKING_REVIEW', 'canonical', 'booking_identity',"
            " 'GYG:FROM-NOWHERE', 'NO_MATCH')"
        )
        gate = evaluate(conn, batch)[gate_id]

    assert (gate.status, gate.numerator, gate.listed_apart) == ("PASS", 0, 1)


def test_retired_variant_needs_no_price_and_is_listed_apart(shop: Shop) -> None:
    """A variant that the sources no longer carry stays in the bridge while its rates and refs go (mapping 2)."""
    with shop.clone() as conn:
        before = evaluate(conn, "C")["C-03"]
        row = conn.execute("select variant_key from public.catalog_variant order by variant_key limit 1").fetchone()
        assert row is not None
        conn.execute("delete from public.catalog_variant_rate where variant_key = %s", row)
        conn.execute("delete from public.channel_external_refs where entity_key = %s", row)
        gate = evaluate(conn, "C")["C-03"]

    assert before.denominator is not None
    assert (gate.status, gate.denominator, gate.exceptions) == ("PASS", before.denominator - 1, 0)
    assert gate.listed_apart == before.listed_apart + 1
    assert gate.detail == {"retired": gate.listed_apart}


def test_reversed_payment_explains_a_downgrade(shop: Shop) -> None:
    with shop.clone() as conn:
        row = conn.execute(
            "select c.booking_key, p.payment_key from public.booking_core as c"
            " join public.payment_event as p on p.booking_key = c.booking_key"
            " where c.customer_payment_status = 'PAID' and p.payment_status_v2 = 'PAID' order by p.payment_key limit 1"
        ).fetchone()
        assert row is not None
        conn.execute(
            'update landing_balisnap."Payment" set payment_status_v2 = %s, gateway_capture_id = null'
            " where rulebook.row_key('payment', 'balisnap', 'Payment', payment_id::text) = %s",
            ("CANCELLED", row[1]),
        )
        conn.execute(
            "update public.booking_core set customer_payment_status = 'FAILED' where booking_key = %s", (row[0],)
        )
        gate = evaluate(conn, "E")["E-04"]

    assert (gate.numerator, gate.listed_apart) == (0, 1)


def test_drift_from_the_stored_status_is_listed_with_both_values_and_is_no_fault(shop: Shop) -> None:
    """The recomputed status wins (mapping 4.7); of several candidates the best-ranked one's is compared."""
    with shop.clone() as conn:
        row = conn.execute(
            "select c.booking_key, c.ops_fulfillment_status, min(b.booking_id) from public.booking_core as c"
            " join public.channel_external_refs as r on r.entity_key = c.booking_key"
            " and r.external_ref_kind = 'BSTADMIN_BOOKING_ID'"
            " join landing_bstadmin.bookings as b on b.booking_id::text = r.external_ref"
            " group by c.booking_key having count(*) = 1 and bool_and(b.status = c.ops_fulfillment_status)"
            " and bool_and(b.status = 'DONE') order by c.booking_key limit 1"
        ).fetchone()
        assert row is not None
        before = gates.evaluate(conn, "D", uuid4())
        conn.execute("update landing_bstadmin.bookings set status = ' ready' where booking_id = %s", (row[2],))
        after = gates.evaluate(conn, "D", uuid4())
        # a candidate of the same booking that proves less says nothing
        conn.execute(
            "insert into landing_bstadmin.bookings select (jsonb_populate_record(b, jsonb_build_object('booking_id',"
            " 900001, 'status', 'NEW', 'is_paid', false, 'updated_at', '2199-01-01'))).*"
            " from landing_bstadmin.bookings as b where b.booking_id = %s",
            (row[2],),
        )
        conn.execute(
            "insert into public.channel_external_refs select (jsonb_populate_record(r, jsonb_build_object("
            "'external_ref_key', gen_random_uuid(), 'external_ref', '900001', 'source_pk', '900001'))).*"
            " from public.channel_external_refs as r where r.external_ref_kind = 'BSTADMIN_BOOKING_ID'"
            " and r.external_ref = %s::text",
            (row[2],),
        )
        again = gates.evaluate(conn, "D", uuid4())

    def listed(verdict: gates.Verdict) -> dict[str, object]:
        query = next(q for q in verdict.queries if q.name == "recon_stored_status")
        assert query.rows == len(query.findings)
        return {f.key: f.detail for f in query.findings}

    key = str(row[0])
    assert key not in listed(before)
    assert listed(after)[key] == {"booking_id": row[2], "stored": "READY", "recomputed": "DONE"}
    assert listed(again)[key] == listed(after)[key]
    numbers = [next(g.numerator for g in v.gates if g.gate_id == "G-02") for v in (before, after)]
    assert numbers[0] == numbers[1]
    assert after.result == "PASS"


@pytest.mark.parametrize("batch", ["A", "B"])
def test_rerun_of_a_batch_without_rows_asks_the_global_gates_of_the_bridge_as_it_is(shop: Shop, batch: str) -> None:
    with shop.clone() as conn:
        verdict = gates.evaluate(conn, batch, uuid4())

    full = {g.gate_id: (g.status, g.numerator, g.denominator) for g in shop.verdicts["E"].gates}
    assert {g: full[g] for g in GLOBAL_GATES} == {
        g.gate_id: (g.status, g.numerator, g.denominator) for g in verdict.gates if g.gate_id in GLOBAL_GATES
    }
    assert verdict.parity == shop.verdicts["E"].parity
    assert [(q.name, q.rows) for q in verdict.queries] == [(q.name, q.rows) for q in shop.verdicts["E"].queries]


def test_batch_without_rows_is_not_asked_for_what_has_landed_since(shop: Shop) -> None:
    """What the next batches have still to bridge, or a landing that a crash emptied, does not hold A."""
    with shop.clone() as conn:
        conn.execute("update phase2.landing_runs set landed_at = clock_timestamp()")
        conn.execute("delete from public.payment_event")
        landed_anew = evaluate(conn, "A")
        conn.execute("update phase2.landing_runs set landed_at = '2000-01-01'")
        as_passed = evaluate(conn, "A")
        conn.execute("truncate " + ", ".join(_LANDED))
        crashed = evaluate(conn, "A")

    assert [landed_anew[g].status for g in GLOBAL_GATES] == ["PASS", "N/A", "N/A"]
    assert as_passed["G-08"].status == "FAIL"
    assert [crashed[g].status for g in GLOBAL_GATES] == ["PASS", "N/A", "N/A"]


def test_missing_table_fails_what_reads_it_and_is_named(shop: Shop) -> None:
    with shop.clone() as conn:
        conn.execute("drop table public.booking_party cascade")
        measured = evaluate(conn, "A")

    assert measured["A-01"].numerator == 16
    assert [measured[g].status for g in GLOBAL_GATES] == ["FAIL"] * 3
    assert measured["G-08"].note.startswith("not measured")


def test_exceptions_of_the_latest_evaluation_and_of_failed_ones_are_kept(shop: Shop) -> None:
    with shop.clone() as conn:
        passed = gates.evaluate(conn, "D", uuid4())
        conn.execute(
            "update public.booking_core set external_booking_ref = ' ' where booking_key = ("
            "select booking_key from public.booking_core order by booking_key limit 1)"
        )
        failed, latest = (gates.evaluate(conn, "D", uuid4()) for _ in range(2))

        def kept() -> set[object]:
            return {r[0] for r in conn.execute("select run_id from phase2.exceptions where batch = 'D'").fetchall()}

        assert passed.exceptions
        assert kept() == {failed.run_id, latest.run_id}
        for table in ("exceptions", "gate_results"):
            conn.execute(
                postgres.statement(
                    "update phase2.{} set evaluated_at = evaluated_at - interval '91 days' where run_id = %s", table
                ),
                (failed.run_id,),
            )
        others = conn.execute("select count(*) from phase2.exceptions where batch <> 'D'").fetchone()
        newest = gates.evaluate(conn, "D", uuid4())
        assert kept() == {latest.run_id, newest.run_id}
        assert conn.execute("select count(*) from phase2.exceptions where batch <> 'D'").fetchone() == others


# --- the audit sample --------------------------------------------------------------------------------------------

_A_CAPTURE = (
    "select e.payment_key, e.booking_key, l.payment_id, e.gateway_capture_id, e.amount, e.currency_code"
    ' from public.payment_event as e join landing_balisnap."Payment" as l on e.payment_key ='
    " rulebook.row_key('payment', 'balisnap', 'Payment', l.payment_id::text)"
    " where e.raw_payload ? 'purchase_units' and e.gateway_capture_id is not null order by e.payment_key limit 1"
)
_ANOTHER = "select booking_key from public.booking_core where booking_key <> %s and channel_code = %s limit 1"


def test_payment_that_a_person_linked_is_on_its_booking(shop: Shop) -> None:
    with shop.clone() as conn:
        row = conn.execute(_A_CAPTURE).fetchone()
        assert row is not None
        other = conn.execute(_ANOTHER, (row[1], "DIRECT")).fetchone()
        assert other is not None
        conn.execute("update public.payment_event set booking_key = %s where payment_key = %s", (other[0], row[0]))
        moved = evaluate(conn, "E")
        conn.execute(
            "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk,"
            " reason_code, status, resolved_by, payload) values (gen_random_uuid(), 'PAYMENT_LINK', 'balisnap',"
            " 'Payment', %s::text, 'NO_MATCH', 'RESOLVED', 'someone', jsonb_build_object('resolution',"
            " jsonb_build_object('entity_type', 'BOOKING', 'entity_key', %s::text)))",
            (row[2], other[0]),
        )
        linked = evaluate(conn, "E")

    assert (moved["E-01"].numerator, moved["E-03"].exceptions) == (1, 1)
    assert (linked["E-01"].numerator, linked["E-03"].exceptions) == (0, 0)


def test_payment_that_its_source_deleted_is_compared_with_the_bridge(shop: Shop) -> None:
    with shop.clone() as conn:
        row = conn.execute(_A_CAPTURE).fetchone()
        assert row is not None
        conn.execute('delete from landing_balisnap."Payment" where payment_id = %s', (row[2],))
        conn.execute("insert into phase2.audit_sample (capture_id, amount, currency) values (%s, %s, %s)", row[3:])
        agrees = evaluate(conn, "E")["E-03"]
        conn.execute("update phase2.audit_sample set amount = amount + 1")
        differs = evaluate(conn, "E")["E-03"]

    assert (agrees.status, agrees.numerator, agrees.denominator) == ("PASS", 1, 1)
    assert (differs.status, differs.numerator) == ("FAIL", 0)


def test_payload_sample_takes_direct_payments_only(shop: Shop) -> None:
    with shop.clone() as conn:
        row = conn.execute(_A_CAPTURE).fetchone()
        assert row is not None
        before = evaluate(conn, "E")["E-03"]
        conn.execute("update public.booking_core set channel_code = 'GYG' where booking_key = %s", (row[1],))
        after = evaluate(conn, "E")["E-03"]

    assert before.denominator is not None
    assert after.denominator is not None
    assert after.denominator < before.denominator


# --- the verdict itself ------------------------------------------------------------------------------------------


def test_threshold_is_read_from_the_registry_alone(shop: Shop) -> None:
    with shop.clone() as conn:
        conn.execute("update dbt_seeds.gate_registry set threshold = 0 where gate_id = 'G-02'")
        strict = evaluate(conn, "D")["G-02"]
        conn.execute("update dbt_seeds.gate_registry set threshold = 1, comparator = '=' where gate_id = 'G-02'")
        odd = evaluate(conn, "D")["G-02"]

    assert strict.value is not None
    assert strict.value > 0
    assert (strict.status, odd.status) == ("FAIL", "FAIL")


def test_count_that_disagrees_with_its_exceptions_never_passes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    said: Callable[..., list[dict]] = gates._said

    def forgetful(conn: psycopg.Connection, batch: str) -> list[dict]:
        rows = said(conn, batch)
        extra = {"kind": "exception", "gate_id": "D-02", "entity": "booking", "key": "k", "status": "REF_NULL"}
        return [*rows, {**extra, "is_counted": True, "detail": None}]

    monkeypatch.setattr(gates, "_said", forgetful)
    with shop.clone() as conn:
        gate = evaluate(conn, "D")["D-02"]

    assert gate.numerator == 0
    assert gate.status == "FAIL"
    assert "not to be trusted" in gate.note


def test_batch_whose_view_is_gone_fails_in_every_gate(shop: Shop) -> None:
    with shop.clone() as conn:
        conn.execute("drop table public.booking_party cascade")
        verdict = gates.evaluate(conn, "D", uuid4())

    assert {g.status for g in verdict.gates} == {"FAIL"}
    assert set(verdict.blocked_by) == {*BATCHES["D"].gates, *GLOBAL_GATES}


def test_global_view_that_went_with_a_landing_schema_is_made_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The view of batch A reads no landed table and outlives them: it alone does not say that all is there."""
    built: list[str] = []
    monkeypatch.setattr(warehouse, "build", lambda _, selector, **__: built.append(selector))
    with shop.clone() as conn:
        url = postgres.with_database(shop.server, conn.info.dbname)
        run = steps.Run(run_id=uuid4(), databases=Databases(url, url, url, None), as_of=AS_OF)
        digest = conn.execute("select digest from phase2.warehouse_state where part = 'recon_a'").fetchone()
        assert digest is not None
        steps.refresh(run, conn, "recon_a", digest[0])
        assert built == []
        conn.execute("drop schema landing_balisnap cascade")
        assert conn.execute("select to_regclass('dbt_recon.recon_a') is not null").fetchone() == (True,)
        steps.refresh(run, conn, "recon_a", digest[0])

    assert built == ["recon_a"]


def test_later_batch_is_on_hold_when_an_earlier_one_is_not_passed(shop: Shop) -> None:
    with shop.clone() as conn:
        conn.execute("update phase2.batch_state set status = 'FAIL' where batch = 'B'")
        verdict = gates.evaluate(conn, "D", uuid4())

    assert (verdict.result, verdict.blocked_by) == ("HOLD", ("B",))


def test_evaluation_reads_one_snapshot_and_cannot_write_while_it_does(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple] = []
    said = gates._said

    def spy(conn: psycopg.Connection, batch: str) -> list[dict]:
        seen.append(
            conn.execute(
                "select current_setting('transaction_isolation'), current_setting('transaction_read_only')"
            ).fetchone()
        )
        return said(conn, batch)

    monkeypatch.setattr(gates, "_said", spy)
    with shop.clone() as conn:
        evaluate(conn, "C")
        assert conn.read_only is None
        assert conn.isolation_level is None

    assert seen == [("repeatable read", "on")]


def test_evaluation_refuses_a_connection_inside_a_transaction(shop: Shop) -> None:
    with shop.clone() as conn, conn.transaction(), pytest.raises(ValueError, match="outside of a transaction"):
        gates.evaluate(conn, "C", uuid4())


def test_evaluation_without_registry_says_what_to_do(database: str) -> None:
    steps.bootstrap(database)
    with (
        postgres.connect(database, autocommit=True) as conn,
        pytest.raises(CouldNotRun, match="make run BATCH=A"),
    ):
        gates.evaluate(conn, "A", uuid4())


@pytest.mark.parametrize(
    ("numerator", "value", "denominator", "comparator", "threshold", "na", "status"),
    [
        (1, 0.01, 100, "<=", 0.01, True, "PASS"),
        (2, 0.0100001, 100, "<=", 0.01, True, "FAIL"),
        (17, 17, 17, "=", 17, False, "PASS"),
        (16, 16, 17, "=", 17, False, "FAIL"),
        (9, 0.995, 10, ">=", 0.995, False, "PASS"),
        (9, 0.9949, 10, ">=", 0.995, False, "FAIL"),
        (0, None, 0, "<=", 0.01, True, "N/A"),
        (None, None, 0, "<=", 0.01, True, "N/A"),
        (0, 0, 0, "=", 0, True, "N/A"),
        (0, 0, 0, "=", 0, False, "FAIL"),
        (3, None, 0, "<=", 0.01, True, "FAIL"),
        (18, 18, 0, "=", 0, True, "FAIL"),
        (None, 18, 0, "=", 0, True, "FAIL"),
        (0, 0, None, "=", 0, False, "PASS"),
        (0, None, 5, "=", 0, True, "FAIL"),
        (None, None, None, ">=", 0, True, "FAIL"),
        (0, "NaN", 5, ">=", 0, True, "FAIL"),
        (0, 0, 5, "<", 1, True, "FAIL"),
    ],
)
def test_gate_status(
    shop: Shop,
    numerator: object,
    value: object,
    denominator: object,
    comparator: str,
    threshold: float,
    na: bool,
    status: str,
) -> None:
    with postgres.connect(shop.url(), read_only=True) as conn:
        row = conn.execute(
            "select rulebook.gate_status(%s::numeric, %s::numeric, %s::numeric, %s, %s::numeric, %s)",
            (numerator, value, denominator, comparator, threshold, na),
        ).fetchone()

    assert row == (status,)


# --- the door ----------------------------------------------------------------------------------------------------


def test_door_opens_behind_a_batch_that_passed(shop: Shop) -> None:
    with postgres.connect(shop.url(), read_only=True) as conn:
        gates.open_or_raise(conn, "D", "C")


@pytest.mark.parametrize("status", ["RUNNING", "FAIL", "HOLD", "ERROR", "ROLLED_BACK"])
def test_door_is_shut_unless_the_runner_says_pass(shop: Shop, status: str) -> None:
    with shop.clone() as conn:
        conn.execute("update phase2.batch_state set status = %s where batch = 'C'", (status,))
        with pytest.raises(GateFailed) as raised:
            gates.open_or_raise(conn, "D", "C")

    assert raised.value.blocked_by == ["C"]


def test_door_is_shut_when_the_latest_verdict_failed(shop: Shop) -> None:
    with shop.clone() as conn:
        conn.execute("update public.catalog_variant_rate set is_active = false")
        gates.evaluate(conn, "C", uuid4())
        with pytest.raises(GateFailed) as raised:
            gates.open_or_raise(conn, "D", "C")

    assert raised.value.blocked_by == ["C-03"]


def test_door_is_shut_before_the_first_verdict(database: str) -> None:
    steps.bootstrap(database)
    with postgres.connect(database, autocommit=True) as conn:
        conn.execute("insert into phase2.batch_state (batch, status) values ('A', 'PASS')")
        with pytest.raises(GateFailed) as raised:
            gates.open_or_raise(conn, "B", "A")

    assert raised.value.blocked_by == ["A"]


# --- the contract ------------------------------------------------------------------------------------------------


def test_seed_of_the_contract_says_what_its_page_says() -> None:
    """A-01 and A-02 measure by the seed; 090 holds the contract itself, and test_scripts holds that to the page too."""
    columns, constraints, indexes = test_scripts.contract()
    core = {table for table in columns if not table.startswith("ref_")}
    said: dict[tuple[str, str, str], str] = {
        (table, "column", name): kind + (" not null" if needed else "") + (f" default {default}" if default else "")
        for table in core
        for name, kind, needed, default in columns[table]
    }
    kinds = {"PRIMARY KEY": "primary_key", "FOREIGN KEY": "foreign_key", "CHECK": "check", "UNIQUE": "unique"}
    for table in core:
        for name, text in constraints[table].items():
            kind = next(kind for start, kind in kinds.items() if text.startswith(start))
            said[table, kind, name] = text.replace(" public.", " ")
        for name, text in indexes[table].items():
            said[table, "index", name] = text.replace(" public.", " ")
    with (ROOT / "dbt_project" / "seeds" / "target_contract.csv").open(newline="") as file:
        seed = {(r["table_name"], r["kind"], r["object_name"]): r["definition"] for r in csv.DictReader(file)}

    assert len(core) == 17
    assert seed == said


def test_seed_of_the_dictionaries_says_what_the_contracts_page_says() -> None:
    with (ROOT / "dbt_project" / "seeds" / "dictionary_contract.csv").open(newline="") as file:
        seed = {(r["dictionary"], r["code"]) for r in csv.DictReader(file)}

    assert seed == {(table, code) for table, codes in test_scripts.seeds().items() for code in codes}


# --- gates as dbt tests ------------------------------------------------------------------------------------------


def test_dbt_names_the_gate_that_fails(shop: Shop) -> None:
    with shop.clone() as conn:
        conn.execute(
            "update public.booking_core set external_booking_ref = '' where booking_key = ("
            "select booking_key from public.booking_core order by booking_key limit 1)"
        )
        url = postgres.with_database(shop.server, conn.info.dbname)
        nodes = [n for n in warehouse.invoke(url, ["build", "--select", "recon_d_measures"]) if n.kind == "test"]

    failed = {node.name for node in nodes if node.status == "fail"}
    assert {node.name for node in nodes if node.name.startswith("gate_")} == {
        *(f"gate_{gate.replace('-', '_')}" for gate in BATCHES["D"].gates),
        *(f"gate_{gate.replace('-', '_')}_after_D" for gate in GLOBAL_GATES),
    }
    assert "gate_D_02" in failed
    assert not failed & {"gate_D_03", "gate_D_04", "gate_D_06", "gate_G_01_after_D"}


# --- the legacy statements ---------------------------------------------------------------------------------------


def test_legacy_statements_have_names_of_their_own_on_both_sources() -> None:
    every = legacy.statements()

    assert {s.source for s in every} == {"balisnap", "bstadmin"}
    assert len({(s.source, s.name) for s in every}) == len(every) >= 15
    assert all(s.text.lower().startswith("select") for s in every)


def test_legacy_statement_that_fails_is_a_finding_and_nothing_is_written(shop: Shop) -> None:
    with postgres.connect(shop.url("balisnap"), read_only=True) as conn:
        failed = legacy.ask(conn, legacy.Statement("balisnap", "gone", 'select no_such from public."Booking"'))
        writing = legacy.ask(conn, legacy.Statement("balisnap", "writes", 'delete from public."Payment" returning 1'))
        fine = legacy.ask(conn, legacy.statements()[0])

    assert "no_such" in (failed.error or "")
    assert "read-only" in (writing.error or "")
    assert fine.error is None


def test_run_ids_of_inputs_do_not_mix(shop: Shop) -> None:
    """The latest run's word counts: an old failure does not stick, an old pass does not help."""
    with shop.clone() as conn:
        gates.record_preflight(conn, uuid4(), [("A-00", "free_disk", "FAIL", "5 % free")])
        assert evaluate(conn, "A")["A-00"].status == "FAIL"
        gates.record_preflight(conn, uuid4(), [("A-00", "free_disk", "PASS", "60 % free")])
        assert evaluate(conn, "A")["A-00"].status == "PASS"
        gates.record_rerun(conn, uuid4(), 3)
        gate = evaluate(conn, "B")["B-03"]

    assert gate.status == "FAIL"
