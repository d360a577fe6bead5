"""Gates: a healthy migration passes each of them; what they list apart, how they judge, what they keep, the door.

One migration of a sample shop is run through the batches (module fixture); what is changed is changed in a clone of
it. That each gate fails by planted faults is `test_faults.py`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import jsonschema
import psycopg
import pytest

from bridge import gates, legacy, postgres, steps, waivers, warehouse
from bridge.batches import BACKFILL, BATCHES, GLOBAL_GATES
from bridge.errors import CouldNotRun, GateFailed
from bridge.settings import ROOT, Databases
from tests import test_scripts
from tests.faults import FAULTS, LANDED
from tests.shop import AS_OF, Shop

SCHEMA = json.loads((ROOT / "bridge" / "reports" / "report.schema.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shop(written: Path) -> Iterator[Shop]:
    with Shop(os.environ["TEST_PG_URL"], bookings=4000).open(written) as made:
        yield made


def evaluate(conn: psycopg.Connection, batch: str) -> dict[str, gates.Gate]:
    return {gate.gate_id: gate for gate in gates.evaluate(conn, batch, uuid4()).gates}


# --- a healthy shop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", BACKFILL)
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

    assert {entity for entity, _ in money} == {"rates", "bookings", "items", "payments"}
    assert {unit for _, unit in money} >= {"USD", "IDR"}


def test_every_verdicts_report_follows_the_schema(shop: Shop, written: Path) -> None:
    files = sorted(written.rglob("*.json"))

    assert {f.parent.name for f in files} == set(BACKFILL)
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
    fault = FAULTS["D-06, bridge: a booking from nowhere"]
    with shop.clone() as conn:
        fault.apply(conn)
        conn.execute(
            "insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk,"
            " reason_code) values (gen_random_uuid(), 'BOOKING_REVIEW', 'canonical', 'booking_identity',"
            " 'GYG:FROM-NOWHERE', 'NO_MATCH')"
        )
        gate = evaluate(conn, fault.batch)[fault.gate]

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


def test_verdict_keeps_who_is_paid_and_by_which_captures(shop: Shop) -> None:
    stands = (
        "select c.booking_key, array(select e.payment_key from public.payment_event as e where"
        " e.booking_key = c.booking_key and e.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED') order by 1)"
        " from public.booking_core as c where c.customer_payment_status = 'PAID' order by 1"
    )
    kept = (
        "select p.booking_key, p.captures from phase2.paid_bookings as p"
        " join public.booking_core as c on c.booking_key = p.booking_key"
        " where c.customer_payment_status = 'PAID' order by 1"
    )
    with shop.clone() as conn:
        paid = [row[0] for row in conn.execute(stands).fetchall() if len(row[1]) == 1][:5]
        for changes in (
            "select 1",
            # a second capture, one that moved, one that is gone, one that is no capture any more, a PAID without any
            "insert into public.payment_event (payment_key, booking_key, payment_time, amount, payment_status_v2)"
            " values (gen_random_uuid(), '{0}', now(), 1, 'PAID');"
            " update public.payment_event set booking_key = '{0}' where booking_key = '{1}';"
            " delete from public.payment_event where booking_key = '{2}';"
            " update public.payment_event set payment_status_v2 = 'FAILED' where booking_key = '{3}';"
            " update public.booking_core set customer_payment_status = 'PAID' where booking_key ="
            " (select min(c.booking_key::text)::uuid from public.booking_core as c"
            "  where c.customer_payment_status <> 'PAID')",
            "delete from phase2.paid_bookings where booking_key = '{4}';"
            " update public.payment_event set payment_key = gen_random_uuid() where booking_key in ('{0}', '{4}')",
        ):
            conn.execute(changes.format(*paid).encode())
            evaluate(conn, "E")
            assert conn.execute(kept).fetchall() == conn.execute(stands).fetchall()
        runs = "select count(distinct p.run_id) from phase2.paid_bookings as p"
        before = conn.execute(runs).fetchone()
        evaluate(conn, "E")
        assert conn.execute(runs).fetchone() == before  # who is kept already is not written

        # of a reading that stands, and nothing was measured since it was kept: not asked again
        conn.execute(
            "insert into phase2.warehouse_state (part, digest) values ('measured', 'once')"
            " on conflict (part) do update set digest = excluded.digest"
        )
        run_id = uuid4()
        conn.execute("update dbt_recon.recon_e_reading set run_id = %s", (run_id,))
        gates.evaluate(conn, "E", run_id)
        conn.execute("delete from phase2.paid_bookings where booking_key = %s", (paid[0],))
        gates.evaluate(conn, "E", run_id)
        assert paid[0] not in {row[0] for row in conn.execute(kept).fetchall()}
        conn.execute("update phase2.warehouse_state set digest = 'again' where part = 'measured'")
        gates.evaluate(conn, "E", run_id)
        assert conn.execute(kept).fetchall() == conn.execute(stands).fetchall()


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
        conn.execute("truncate " + ", ".join(LANDED))
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


def test_threshold_is_the_registrys_and_the_database_has_it_from_the_file(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Planted: a limit that was tightened in both counts; one loosened in the database alone fails its gate."""
    text = waivers.REGISTRY.read_text("utf-8")
    with shop.clone() as conn:
        conn.execute("update dbt_seeds.gate_registry set threshold = 1 where gate_id = 'G-02'")
        loose = evaluate(conn, "D")["G-02"]
        conn.execute("update dbt_seeds.gate_registry set threshold = 0.01, severity = 'minor' where gate_id = 'G-02'")
        light = evaluate(conn, "D")["G-02"]
        conn.execute("update dbt_seeds.gate_registry set threshold = 0, severity = 'critical' where gate_id = 'G-02'")
        monkeypatch.setattr(waivers, "REGISTRY", tmp_path / "gate_registry.csv")
        edited = "".join(
            line.replace(",<=,0.01,", ",<=,0,") if line.startswith("G-02,") else line
            for line in text.splitlines(keepends=True)
        )
        waivers.REGISTRY.write_text(edited, "utf-8")
        strict = evaluate(conn, "D")["G-02"]

    assert strict.value is not None
    assert strict.value > 0
    assert (strict.status, strict.waivable, strict.threshold) == ("FAIL", True, 0)
    for gate in (loose, light):
        assert (gate.status, gate.waivable, "not that of the file" in gate.note) == ("FAIL", False, True)


def test_count_that_disagrees_with_its_exceptions_never_passes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    said: Callable[..., tuple] = gates._said

    def forgetful(conn: psycopg.Connection, batch: str, run_id: UUID) -> tuple:
        rows, read_at = said(conn, batch, run_id)
        extra = {"kind": "exception", "gate_id": "D-02", "entity": "booking", "key": "k", "status": "REF_NULL"}
        return [*rows, {**extra, "is_counted": True, "detail": None}], read_at

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
        digest = conn.execute("select digest from phase2.warehouse_state where part = 'recon'").fetchone()
        assert digest is not None
        steps.refresh(run, conn, "recon", digest[0])
        assert built == []
        conn.execute("drop schema landing_balisnap cascade")
        assert conn.execute("select to_regclass('dbt_recon.recon_a') is not null").fetchone() == (True,)
        steps.refresh(run, conn, "recon", digest[0])

    assert built == ["recon"]


@pytest.mark.parametrize(
    ("selector", "statement"),
    [
        ("ground", "update dbt_seeds.gate_registry set threshold = 1"),
        (
            "ground",
            "create or replace function rulebook.gate_status(numerator numeric, value numeric, denominator numeric,"
            " comparator text, threshold numeric, na_when_empty boolean) returns text language sql immutable"
            " as $$ select 'PASS' $$",
        ),
        (
            "recon",
            "do $$ begin execute 'create or replace view dbt_recon.recon_d as select * from ('"
            " || rtrim(pg_get_viewdef('dbt_recon.recon_d'), ';') || ') as r where r.kind = ''measure'''; end $$",
        ),
    ],
)
def test_what_judges_is_made_again_when_somebody_changed_it_in_the_database(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, selector: str, statement: str
) -> None:
    built: list[str] = []
    monkeypatch.setattr(warehouse, "build", lambda _, selector, **__: built.append(selector))
    with shop.clone() as conn:
        url = postgres.with_database(shop.server, conn.info.dbname)
        run = steps.Run(run_id=uuid4(), databases=Databases(url, url, url, None), as_of=AS_OF)
        digests = dict(conn.execute("select part, digest from phase2.warehouse_state").fetchall())
        for part in ("ground", "recon"):
            steps.refresh(run, conn, part, digests[part])
        assert built == [], "five batches on, all is as it was made"
        conn.execute(statement.encode())
        for part in ("ground", "recon"):
            steps.refresh(run, conn, part, digests[part])

    assert built == [selector]


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

    def spy(conn: psycopg.Connection, batch: str, run_id: UUID) -> tuple:
        seen.append(
            conn.execute(
                "select current_setting('transaction_isolation'), current_setting('transaction_read_only')"
            ).fetchone()
        )
        return said(conn, batch, run_id)

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
        nodes = [n for n in warehouse.invoke(url, ["build", "--select", "recon_d_reading"]) if n.kind == "test"]

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
        gates.record_rerun(conn, uuid4(), {"010_seed_channel_registry.sql": 3})
        gate = evaluate(conn, "B")["B-03"]

    assert gate.status == "FAIL"


def test_the_reading_of_a_run_is_believed_only_by_that_run_and_only_when_whole(shop: Shop) -> None:
    with shop.clone() as conn:
        run_id = uuid4()
        conn.execute("update dbt_recon.recon_d_reading set run_id = %s", (run_id,))
        conn.execute("delete from dbt_recon.recon_d_reading where kind = 'measure' and gate_id = 'D-03'")
        of_the_run = gates.evaluate(conn, "D", run_id)
        of_another = gates.evaluate(conn, "D", uuid4())

    assert (of_the_run.result, of_the_run.blocked_by) == ("FAIL", ("D-03",))
    assert next(g.note for g in of_the_run.gates if g.gate_id == "D-03").startswith("not measured")
    assert of_another.result == "PASS"
