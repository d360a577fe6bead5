"""What a rerun writes: nothing when nothing changed, and of a changed source only the identities that it is about."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest

from bridge import fingerprint, postgres, runlog, sources, steps, warehouse, written
from bridge.batches import BATCHES
from bridge.errors import CouldNotRun
from tests.pipeline import Pipeline, fresh

AS_OF = date(2026, 2, 19)
OF_BOOKINGS = (
    "booking_core", "booking_contact", "booking_party", "booking_item_snapshot", "payment_event", "ops_booking_state",
    "ops_assignment", "ops_finance_bridge",
)  # fmt: skip
OTHERS = ("channel_registry", "catalog_product", "catalog_variant", "catalog_variant_rate", "migration_run_log")


@pytest.fixture(scope="module")
def migrated() -> Iterator[Pipeline]:
    with (
        fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline,
        postgres.connect(os.environ["TEST_PG_URL"]) as elsewhere,
    ):
        # the server's other databases are at work: that is nothing to this one
        elsewhere.execute("savepoint one")
        elsewhere.execute("select pg_current_xact_id()")
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=300, seed=7, as_of=AS_OF)
        for outcome in pipeline.run("A", "E", AS_OF):
            assert outcome.verdict.result == "PASS", (outcome.verdict.batch, outcome.verdict.blocked_by)
        yield pipeline


def versions(pipeline: Pipeline) -> dict[str, set[tuple]]:
    """Where each row stands and which transaction wrote it; for tables of bookings with the booking's key."""
    found: dict[str, set[tuple]] = {}
    with postgres.connect(pipeline.databases.ops, read_only=True) as conn:
        for table in OF_BOOKINGS:
            query = postgres.statement("select booking_key, ctid::text, xmin::text from public.{}", table)
            found[table] = set(conn.execute(query).fetchall())
        for table in OTHERS:
            query = postgres.statement("select null, ctid::text, xmin::text from public.{}", table)
            found[table] = set(conn.execute(query).fetchall())
    return found


def built_by_a_run(pipeline: Pipeline) -> list[str]:
    """The batches that a run, not a full one, builds again."""
    pipeline.run("C", "E", AS_OF, gates=False, full=False)
    return [
        code
        for code, unchanged in pipeline.rows(
            "select batch, detail ? 'unchanged' from phase2.step_log"
            " where run_id = (select run_id from phase2.step_log order by step_log_id desc limit 1)"
            " and step = 'dbt batch_' || lower(batch) order by step_log_id"
        )
        if not unchanged
    ]


def test_after_its_first_run_nothing_is_built_again(migrated: Pipeline) -> None:
    assert built_by_a_run(migrated) == []


def test_an_unchanged_rerun_writes_nothing(migrated: Pipeline) -> None:
    before = versions(migrated)
    assert all(before.values())
    migrated.run("A", "E", AS_OF)
    assert versions(migrated) == before


@pytest.mark.long
def test_what_is_settled_is_not_built_again(migrated: Pipeline) -> None:
    """Until one row is written by somebody else, the day or the sources change, or the server has crashed."""

    def built() -> list[str]:
        return built_by_a_run(migrated)

    def change(database: str, statement: str) -> None:
        with postgres.connect(database) as conn:
            assert conn.execute(statement.encode()).rowcount > 0
            conn.commit()

    ops = migrated.databases.ops
    migrated.run("C", "E", AS_OF, gates=False)
    assert built() == []
    change(ops, "update public.booking_contact set booking_key = booking_key where ctid = '(0,1)'")
    assert built() == ["C", "D", "E"]
    assert built() == []
    change(ops, "update dbt_seeds.gate_registry set note = note")
    assert built() == ["C", "D", "E"]
    change(
        migrated.databases.balisnap,
        'update public."Payment" set user_id = user_id'
        ' where payment_id = (select min(payment_id) from public."Payment")',
    )
    assert built() == ["D", "E"]
    change(
        migrated.databases.balisnap,
        'update public."TourProduct" set slug = slug'
        ' where product_id = (select min(product_id) from public."TourProduct")',
    )
    assert built() == ["C", "D", "E"]
    with postgres.connect(ops) as conn:
        conn.execute("drop table dbt_intermediate.int_booking_reviews cascade")
        conn.commit()
    assert built() == ["C", "D", "E"]
    change(ops, "delete from phase2.since_crash")
    assert built() == ["C", "D", "E"]
    assert built() == []
    migrated.run("C", "E", date(2026, 2, 20), gates=False, full=False)
    assert built() == ["C", "D", "E"]
    assert built() == []


def test_a_changed_source_row_writes_its_identity_and_nothing_else(migrated: Pipeline) -> None:
    before = versions(migrated)
    with postgres.connect(migrated.databases.bstadmin) as conn:
        changed = conn.execute(
            """
            update public.bookings set total_price = total_price + 1, updated_at = updated_at + interval '1 day'
            where booking_id in (
                select b.booking_id from public.bookings as b
                where b.source = 'GYG' and b.currency = 'USD' and b.total_price > 10 order by 1 limit 3
            )
            returning booking_id::text
            """
        ).fetchall()
        conn.commit()
    assert len(changed) == 3
    keys = {
        row[0]
        for row in migrated.rows(
            "select entity_key from public.channel_external_refs"
            " where external_ref_kind = 'BSTADMIN_BOOKING_ID' and external_ref = any(%s)",
            [row[0] for row in changed],
        )
    }
    assert len(keys) == 3

    migrated.run("C", "E", AS_OF)

    after = versions(migrated)
    for table in OTHERS:
        assert after[table] == before[table], table
    for table in OF_BOOKINGS:
        touched = {key for key, *_ in after[table] ^ before[table]}
        assert touched <= keys, table
    assert {key for key, *_ in after["booking_core"] ^ before["booking_core"]} == keys


def test_a_deleted_booking_stays_under_review_and_a_corrected_ref_keeps_its_key(migrated: Pipeline) -> None:
    """Mapping 2: never deleted, but NO_MATCH; and a corrected ref is no new booking."""
    with postgres.connect(migrated.databases.bstadmin) as conn:
        ids = [
            row[0]
            for row in conn.execute(
                """
                select b.booking_id from public.bookings as b
                where
                    b.source = 'VIATOR' and b.booking_ref ~ '^[A-Z0-9-]+$'
                    and not exists (select 1 from public.booking_finances as f where f.booking_id = b.booking_id)
                order by 1 limit 2
                """
            )
        ]
        deleted, renamed = ids
        ref = conn.execute("select booking_ref from public.bookings where booking_id = %s", (deleted,)).fetchone()
        conn.execute("delete from public.bookings where booking_id = %s", (deleted,))
        conn.execute("update public.bookings set booking_ref = 'CORRECTED-1' where booking_id = %s", (renamed,))
        conn.commit()
    of_id = (
        "select entity_key from public.channel_external_refs"
        " where external_ref_kind = 'BSTADMIN_BOOKING_ID' and external_ref = %s"
    )
    [(old_key,)] = migrated.rows(of_id, str(renamed))

    migrated.run("C", "E", AS_OF)

    assert migrated.rows("select booking_key from public.booking_core where external_booking_ref = 'CORRECTED-1'") == [
        (old_key,)
    ]
    assert migrated.rows(of_id, str(renamed)) == [(old_key,)]
    assert ref is not None
    [(channel, status, reason)] = migrated.rows(
        "select q.channel_code, q.status, q.reason_code from public.booking_core as c"
        " join public.unmapped_queue as q on q.source_pk = c.channel_code || ':' || c.external_booking_ref"
        " where c.channel_code = 'VIATOR' and c.external_booking_ref = %s",
        ref[0],
    )
    assert (channel, status, reason) == ("VIATOR", "OPEN", "NO_MATCH")
    assert migrated.rows(of_id, str(deleted)) == []


def test_who_was_at_work_in_another_database_is_told_after_its_end_too(migrated: Pipeline) -> None:
    dbs = migrated.databases
    with (
        postgres.connect(dbs.ops, autocommit=True) as conn,
        postgres.connect(dbs.balisnap, autocommit=True) as neighbour,
        postgres.connect(dbs.ops, autocommit=True) as writer,
    ):
        later = "select pg_current_xact_id()"  # only who began before the last that has ended is named by a snapshot
        neighbour.execute(f"begin; {later}")
        conn.execute(later)
        with written.snapshot(conn):
            neighbour.execute("commit")
            assert not written.here(conn)["beside"]
        writer.execute(f"begin; {later}")
        conn.execute(later)
        with written.snapshot(conn):
            assert written.here(conn)["beside"]
        writer.execute("commit")


@pytest.mark.parametrize("full", [False, True])
def test_an_item_goes_where_the_sources_have_it_also_from_a_newer_booking(migrated: Pipeline, full: bool) -> None:
    """Mapping 4.13: two bookings change their only items; the one that the bridge is newer of is not left without."""
    swapped = migrated.rows(
        "select substring(max(r.external_ref), '[0-9]+')::integer, i.booking_key, max(i.booking_item_key::text)::uuid"
        " from public.booking_item_snapshot as i join public.channel_external_refs as r"
        " on r.entity_key = i.booking_key and r.external_ref_kind = 'BALISNAP_BOOKING_ID'"
        " where not i.snapshot_json ? 'synthetic' group by i.booking_key"
        " having count(distinct i.booking_item_key) = 1 and count(distinct r.external_ref) = 1 order by 1 limit 2"
    )
    [(one, newer, its_item), (other, older, another)] = swapped
    lies_on = "select booking_item_key, booking_key from public.booking_item_snapshot where booking_key = any(%s)"
    with postgres.connect(migrated.databases.ops) as conn:
        conn.execute(
            "insert into phase2.booking_freshness (booking_key, last_event_time) values (%s, '2100-01-01')"
            " on conflict (booking_key) do update set last_event_time = excluded.last_event_time",
            (newer,),
        )
    with postgres.connect(migrated.databases.balisnap) as conn:
        conn.execute(
            'update public."BookingItem" set booking_id = %(one)s + %(other)s - booking_id'
            " where booking_id in (%(one)s, %(other)s)",
            {"one": one, "other": other},
        )

    migrated.run("C", "D", AS_OF, gates=False, full=full)

    assert set(migrated.rows(lies_on, [newer, older])) == {(its_item, older), (another, newer)}


@pytest.mark.long
def test_a_resolution_stays_and_is_obeyed(migrated: Pipeline) -> None:
    """Mapping 3.9: a person maps a package; every later run obeys, and leaves the row alone."""
    [(queue_key, package)] = migrated.rows(
        "select queue_key, source_pk from public.unmapped_queue"
        " where queue_type = 'PRODUCT_MAPPING' and reason_code = 'NO_MATCH' and status = 'OPEN' order by 1 limit 1"
    )
    [(product,)] = migrated.rows(
        "select entity_key from public.channel_external_refs where external_ref_kind = 'BALISNAP_PRODUCT_ID'"
        " order by external_ref limit 1"
    )
    with postgres.connect(migrated.databases.ops) as conn:
        conn.execute(
            "update public.unmapped_queue set status = 'RESOLVED', resolved_by = 'wayan', resolved_at = now(),"
            " payload = payload || jsonb_build_object('resolution',"
            " jsonb_build_object('entity_type', 'PRODUCT', 'entity_key', %s::text)) where queue_key = %s",
            (product, queue_key),
        )
        conn.commit()
    row = "select xmin::text, status, resolved_by from public.unmapped_queue where queue_key = %s"
    before = migrated.rows(row, queue_key)

    migrated.run("C", "E", AS_OF)
    migrated.run("C", "E", AS_OF)

    assert migrated.rows(row, queue_key) == before
    assert migrated.rows(
        "select entity_key from public.channel_external_refs where entity_type = 'PRODUCT'"
        " and external_ref_kind = 'BSTADMIN_PACKAGE_ID' and external_ref = %s",
        package,
    ) == [(product,)]


@pytest.mark.long
def test_a_first_load_without_foreign_keys_puts_them_back_and_checks_every_row() -> None:
    """Small loads keep their keys on, so this one is told that it is a large one."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=100, seed=7, as_of=AS_OF)
        pipeline.run("A", "C", AS_OF, gates=False)
        with postgres.connect(dbs.ops) as conn:
            before = fingerprint.take(conn, schemas=["public"])
            conn.execute(
                "create schema spy; create table spy.seen (command text);"
                "create function spy.see() returns event_trigger language plpgsql as"
                " $$begin insert into spy.seen values (current_query()); end$$;"
                "create event trigger spy on ddl_command_end when tag in ('ALTER TABLE') execute function spy.see()"
            )
        large = ["--vars", "{loosen_from: 0}"]
        with pytest.raises(CouldNotRun, match="foreign key"), spoiled(dbs.ops):
            warehouse.build(dbs.ops, "batch_d", extra=large)
        with postgres.connect(dbs.ops) as conn:
            assert fingerprint.take(conn, schemas=["public"]).catalog == before.catalog
        warehouse.build(dbs.ops, "batch_d", extra=large)
        with postgres.connect(dbs.ops) as conn:
            assert fingerprint.take(conn, schemas=["public"]).catalog == before.catalog
            loosened = conn.execute("select count(*) from spy.seen where command like '%drop constraint%'").fetchone()
            parties = conn.execute("select count(*) from public.booking_party").fetchone()
        assert loosened is not None
        assert loosened[0] >= 5
        assert parties != (0,)


@contextmanager
def spoiled(ops: str) -> Iterator[None]:
    """A booking that loses its row between its own load and its party's: its party hangs on nothing."""
    with postgres.connect(ops, autocommit=True) as conn:
        conn.execute(
            "create function spy.lose() returns trigger language plpgsql as"
            " $$begin delete from public.booking_core where booking_key = ("
            "select min(booking_key::text)::uuid from public.booking_core); return null; end$$;"
            "create trigger lose after insert on public.booking_core for each statement execute function spy.lose()"
        )
    try:
        yield
    finally:
        with postgres.connect(ops, autocommit=True) as conn:
            conn.execute("drop trigger lose on public.booking_core; drop function spy.lose()")


@pytest.mark.long
def test_batch_e_takes_over_what_batch_d_built_unless_somebody_has_moved_meanwhile() -> None:
    ask = (
        "insert into public.unmapped_queue"
        " (queue_key, queue_type, source_system, source_table, source_pk, reason_code, payload)"
        " values (gen_random_uuid(), 'PAYMENT_LINK', 'balisnap', 'Payment', '999999999', 'NO_MATCH', '{}')"
    )
    decide = (
        "update public.unmapped_queue set status = 'RESOLVED', resolved_by = 'ops',"
        " payload = payload || jsonb_build_object('resolution', jsonb_build_object('entity_type', 'BOOKING',"
        " 'entity_key', (select min(c.booking_key::text) from public.booking_core as c)))"
        " where queue_type = 'PAYMENT_LINK' and status = 'OPEN'"
    )
    fresher = (
        "insert into phase2.booking_freshness (booking_key, last_core_write_at)"
        " select c.booking_key, now() from public.booking_core as c limit 1"
    )
    landed_again = (
        "insert into phase2.landing_runs (landing_id, source, run_id, source_database, source_host, source_port,"
        " source_version, snapshot_at, snapshot_txid, ddl_digest, row_count, byte_count, seconds)"
        " select gen_random_uuid(), r.source, r.run_id, r.source_database, r.source_host, r.source_port,"
        " r.source_version, r.snapshot_at, r.snapshot_txid, r.ddl_digest, r.row_count, r.byte_count, r.seconds"
        " from phase2.landing_runs as r limit 1"
    )
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=100, seed=7, as_of=AS_OF)
        pipeline.run("A", "E", AS_OF, gates=False)
        run = steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF)
        build_d, build_e = BATCHES["D"].steps[0], BATCHES["E"].steps[0]
        taken_over = []
        for change in (None, decide, fresher, landed_again):
            with postgres.connect(dbs.ops) as conn:
                conn.execute(ask)
            steps.start(run, BATCHES["D"])
            steps.execute(run, BATCHES["D"], build_d)
            if change:
                with postgres.connect(dbs.ops) as conn:
                    assert conn.execute(change).rowcount > 0
            if change == landed_again:  # two landings do not agree: the step refuses them, so ask it for its reason
                with run.connect() as conn:
                    entry = runlog.Entry(checksum=warehouse.digest())
                    made_of = steps._work_of_d(conn, run, entry)
                    kept = conn.execute("select digest from phase2.warehouse_state where part = 'work of batch_d'")
                    taken_over.append(kept.fetchone() == (f"{made_of} all",))
            else:
                taken_over.append("reused" in steps.execute(run, BATCHES["E"], build_e).detail)
    assert taken_over == [True, False, False, False]


@pytest.mark.long
def test_items_of_a_booking_that_is_newer_in_the_bridge_are_no_first_load() -> None:
    """All that the model may remove is empty then, but its keys are taken: a plain insert would break on them."""
    with fresh(os.environ["TEST_PG_URL"], empty=True) as pipeline:
        dbs = pipeline.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=60, seed=7, as_of=AS_OF)
        pipeline.run("A", "D", AS_OF, gates=False)
        with postgres.connect(dbs.ops) as conn:
            conn.execute(
                "insert into phase2.booking_freshness (booking_key, last_core_write_at)"
                " select c.booking_key, timestamptz '2100-01-01' from public.booking_core as c"
            )
            conn.execute("update public.channel_external_refs set source_system = 'ingest'")
        before = versions(pipeline)
        pipeline.run("D", "D", AS_OF, gates=False)
        assert versions(pipeline)["booking_item_snapshot"] == before["booking_item_snapshot"]
