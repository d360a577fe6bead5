"""sql/phase2: the schema is the contract exactly, reruns change nothing, rollbacks leave what was before."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import psycopg
import pytest

from bridge import postgres, scripts
from bridge.batches import BATCHES
from bridge.errors import CouldNotRun
from bridge.settings import SQL

PHASE2 = SQL / "phase2"
CONTRACT = Path(__file__).parent / "expected" / "target_schema.md"
BATCH_A = (
    "001_create_core_bridge_tables.sql",
    "002_add_indexes_and_unique_constraints.sql",
    "003_seed_required_enums_and_checks.sql",
)
BATCH_B = (
    "010_seed_channel_registry.sql",
    "011_seed_status_dictionary.sql",
    "012_seed_package_ref_type_dictionary.sql",
)
FIT = {"phase2.disk_total_bytes": 1000, "phase2.disk_used_bytes": 700, "phase2.server_time_zone": "UTC"}
_TYPES = {"timestamptz": "timestamp with time zone", "time": "time without time zone"}
_SPACE = UUID("1396788e-dfe4-558e-977f-cbac85111c4c")


def key(name: str) -> UUID:
    return uuid5(_SPACE, name)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, str]]:
    """A database a server, used by one test after the other: to make and drop it costs more than most tests."""
    databases: dict[str, str] = {}
    yield databases
    for server, url in databases.items():
        with postgres.connect(server, autocommit=True) as conn:
            conn.execute(postgres.statement("drop database {} with (force)", postgres.database_name(url)))


@pytest.fixture
def ops(server: str, made: dict[str, str]) -> str:
    """An ops database with our own state and nothing else."""
    if server not in made:
        name = f"t_scripts_{uuid4().hex[:8]}"
        with postgres.connect(server, autocommit=True) as conn:
            conn.execute(postgres.statement("create database {}", name))
        made[server] = postgres.with_database(server, name)
    execute(
        made[server],
        "set client_min_messages = error",
        "drop schema if exists public, phase2, other cascade",
        "create schema public",
        "grant usage on schema public to public",
    )
    state = [SQL / "state.sql", SQL / "ingest" / "state.sql", SQL / "ingest" / "apply.sql"]
    state += sorted((SQL / "ops").glob("*.sql"))
    execute(made[server], "set check_function_bodies = off", *(file.read_text() for file in state))
    return made[server]


@pytest.fixture
def bridge(ops: str) -> str:
    """An ops database with batches A and B."""
    for name in BATCH_A + BATCH_B:
        scripts.run_script(ops, name)
    return ops


def execute(url: str, *statements: str) -> None:
    """Run statements; `<name>` in them is the key of that name."""
    with postgres.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(re.sub(r"<(\w+)>", lambda found: str(key(found[1])), statement).encode())


def query(url: str, statement: str) -> list[tuple]:
    with postgres.connect(url, autocommit=True) as conn:
        return conn.execute(statement.encode()).fetchall()


# The contract, read from its page ------------------------------------------------------------------------------------


def contract() -> tuple[dict[str, list[tuple]], dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """Columns, constraints and indexes by table, as the catalog would word them."""
    columns: dict[str, list[tuple]] = {}
    constraints: dict[str, dict[str, str]] = {}
    indexes: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", CONTRACT.read_text(), flags=re.MULTILINE)[1:]:
        table, _, body = section.partition("\n")
        if not re.fullmatch(r"[a-z_]+", table.strip()):
            continue
        table = table.strip()
        columns[table], constraints[table], indexes[table] = [], {}, {}
        for line in body.splitlines():
            if line.startswith("| ") and not line.startswith("| column"):
                name, type_, null, default = (cell.strip() for cell in line.strip("|").split("|"))
                pair = [("created_at", "timestamptz"), ("updated_at", "timestamptz")]
                for column, kind in pair if name == "ts pair" else [(name, type_)]:
                    wanted = _TYPES.get(kind, kind).replace("varchar", "character varying")
                    quoted = f"{default}::character varying" if default.startswith("'") else default
                    columns[table].append((column, wanted, null == "no", quoted or None))
            elif match := re.match(r"- (PK|FK|unique|check) `(\w+)`: (.*)", line):
                text = match[3].replace("::varchar", "::character varying").replace("REFERENCES ", "REFERENCES public.")
                constraints[table][match[2]] = text
            elif match := re.match(r"- (unique )?index `(\w+)`: (.*)", line):
                unique = "UNIQUE " if match[1] else ""
                indexes[table][match[2]] = f"CREATE {unique}INDEX {match[2]} ON public.{table} USING btree {match[3]}"
    return columns, constraints, indexes


def catalog(url: str) -> tuple[dict[str, list[tuple]], dict[str, dict[str, str]], dict[str, dict[str, str]]]:
    """The same of a database's schema public; all that is there, not only what is looked for."""
    columns: dict[str, list[tuple]] = {}
    for table, *column in query(
        url,
        """
        select c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
            pg_catalog.pg_get_expr(d.adbin, d.adrelid)
        from pg_catalog.pg_class as c
        left join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        left join pg_catalog.pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'm', 'p', 'f', 'S')
        order by c.relname, a.attnum
        """,
    ):
        columns.setdefault(table, []).append(tuple(column))
    constraints: dict[str, dict[str, str]] = {table: {} for table in columns}
    for table, name, text in query(
        url,
        "select c.conrelid::regclass::text, c.conname, pg_catalog.pg_get_constraintdef(c.oid)"
        " from pg_catalog.pg_constraint as c"
        " where c.connamespace = 'public'::regnamespace and c.contype <> 'n'",
    ):
        constraints[table.removeprefix("public.")][name] = text
    indexes: dict[str, dict[str, str]] = {table: {} for table in columns}
    for table, name, text in query(
        url,
        "select i.tablename, i.indexname, i.indexdef from pg_catalog.pg_indexes as i where i.schemaname = 'public'"
        " and not exists (select 1 from pg_catalog.pg_constraint as c where c.conname = i.indexname)",
    ):
        indexes[table][name] = text
    return columns, constraints, indexes


def fingerprint(url: str, schemas: tuple[str, ...] = ("public",)) -> dict[str, object]:
    """Schema and content of all ordinary tables, row order aside."""
    found: dict[str, object] = {"catalog": catalog(url)}
    with postgres.connect(url, autocommit=True) as conn:
        for schema, table in conn.execute("select schemaname, tablename from pg_catalog.pg_tables").fetchall():
            if schema in schemas:
                rows = conn.execute(f'select t::text from "{schema}"."{table}" as t'.encode())  # noqa: S608
                found[f"{schema}.{table}"] = sorted(rows.fetchall())
    return found


def versions(url: str) -> list[tuple]:
    """Every tuple version of the canonical tables that hold rows in these tests, and the catalog's own."""
    return query(
        url,
        "select 'channel_registry', ctid::text, xmin::text from public.channel_registry"
        " union all select 'ref_mapping_status', ctid::text, xmin::text from public.ref_mapping_status"
        " union all select 'ref_dead_letter_status', ctid::text, xmin::text from public.ref_dead_letter_status"
        " union all select 'ref_package_ref_type', ctid::text, xmin::text from public.ref_package_ref_type"
        " union all select relname, ctid::text, xmin::text from pg_catalog.pg_class"
        " where relnamespace = 'public'::regnamespace"
        " union all select conname, ctid::text, xmin::text from pg_catalog.pg_constraint"
        " where connamespace = 'public'::regnamespace order by 1, 2",
    )


# Files ---------------------------------------------------------------------------------------------------------------


def test_released_scripts_are_not_edited() -> None:
    """A change of a released file needs a new number; only a file that no server has run may change its line."""
    released = {}
    for line in (PHASE2 / "checksums.txt").read_text().splitlines():
        digest, _, name = line.partition("  ")
        released[name] = digest
    files = [*PHASE2.glob("*.sql"), *PHASE2.glob("rollback/*.sql")]
    assert {str(file.relative_to(PHASE2)): scripts.checksum(file) for file in files} == released


def test_names_are_the_blueprints_and_each_batch_has_its_rollback() -> None:
    assert {file.name for file in PHASE2.glob("*.sql")} == {
        "000_precheck_readiness.sql",
        *BATCH_A,
        *BATCH_B,
        "020_add_ops_read_indexes.sql",
        "090_postcheck_reconciliation.sql",
        "091_retention_cleanup.sql",
    }
    assert {f"rollback/{file.name}" for file in PHASE2.glob("rollback/*.sql")} == {
        scripts.rollback_script(code) for code in BATCHES
    }
    planned = {step.target for batch in BATCHES.values() for step in batch.plan if step.kind == "script"}
    assert all((PHASE2 / name).is_file() for name in planned)


@pytest.mark.parametrize("file", sorted(PHASE2.rglob("*.sql")), ids=lambda file: file.name)
def test_each_script_is_one_plain_transaction_that_waits_for_no_lock_for_long(file: Path) -> None:
    text = re.sub(r"--.*", "", file.read_text())
    statements = [part.strip() for part in text.split(";")]
    assert statements[0] == "begin"
    assert statements[-2:] == ["commit", ""]
    assert len([part for part in statements if part in ("begin", "commit", "rollback")]) == 2
    assert "set local search_path = ''" in statements
    if "set local transaction_read_only = on" not in statements:
        assert "set local lock_timeout = '5s'" in statements
    assert not re.search(r"^\s*\\", text, flags=re.MULTILINE), "psql commands do not run elsewhere"


# Batch A -------------------------------------------------------------------------------------------------------------


def test_schema_is_the_contract_exactly(bridge: str) -> None:
    wanted, found = contract(), catalog(bridge)
    assert len(wanted[0]) == 23
    assert found == wanted


def test_batch_a_makes_the_17_tables_and_no_dictionary(ops: str) -> None:
    for name in BATCH_A:
        scripts.run_script(ops, name)
    assert set(catalog(ops)[0]) == {table for table in contract()[0] if not table.startswith("ref_")}
    assert len(catalog(ops)[0]) == 17


def test_rerun_changes_nothing(bridge: str) -> None:
    before, tuples = fingerprint(bridge), versions(bridge)
    for name in BATCH_A + BATCH_B:
        assert scripts.run_script(bridge, name).rows == 0
    assert fingerprint(bridge) == before
    assert versions(bridge) == tuples


def test_no_triggers_and_no_sequences(bridge: str) -> None:
    assert query(bridge, "select tgname from pg_catalog.pg_trigger where not tgisinternal") == []
    assert (
        query(
            bridge,
            "select relname from pg_catalog.pg_class where relkind = 'S' and relnamespace = 'public'::regnamespace",
        )
        == []
    )


def test_script_that_fails_halfway_leaves_nothing(ops: str) -> None:
    scripts.run_script(ops, BATCH_A[0])
    execute(ops, "alter table public.unmapped_queue drop column queue_type")
    before = catalog(ops)
    with pytest.raises(CouldNotRun, match="002_add_indexes.*queue_type"):
        scripts.run_script(ops, BATCH_A[1])
    assert catalog(ops) == before


def test_locked_table_is_a_clear_message_within_seconds(ops: str) -> None:
    scripts.run_script(ops, BATCH_A[0])
    with postgres.connect(ops) as holder:
        holder.execute("lock table public.booking_core in access exclusive mode")
        began = time.monotonic()
        with pytest.raises(CouldNotRun, match="lock timeout.*pg_locks"):
            scripts.run_script(ops, BATCH_A[1])
        assert time.monotonic() - began < 9


def test_unknown_script_is_named(ops: str) -> None:
    with pytest.raises(CouldNotRun, match="no script 099_nothing.sql"):
        scripts.run_script(ops, "099_nothing.sql")


# 000 -----------------------------------------------------------------------------------------------------------------


def preflight(url: str, **changed: object) -> dict[str, str]:
    params = FIT | {f"phase2.{name}": value for name, value in changed.items()}
    rows = scripts.run_script(url, "000_precheck_readiness.sql", params).results
    assert {row[0] for row in rows} == {"A-00"}
    return {str(row[1]): str(row[2]) for row in rows}


def test_precheck_passes_on_a_fit_server(ops: str) -> None:
    assert preflight(ops) == {
        "long_transactions": "PASS",
        "blocked_locks": "PASS",
        "free_disk": "PASS",
        "server_version": "PASS",
        "time_zone": "PASS",
    }


def test_precheck_disk_needs_both_inputs_and_30_percent(ops: str) -> None:
    cases = [
        (1000, 700, "PASS"),
        (1000, 701, "FAIL"),
        ("", 1, "FAIL"),
        (1000, "", "FAIL"),
        ("", "", "FAIL"),
        (0, 0, "FAIL"),
        (1000, 1001, "FAIL"),
        ("lots", 1, "FAIL"),
        (-1000, 1, "FAIL"),
        (10**15, 7 * 10**14, "PASS"),
    ]
    for total, used, verdict in cases:
        assert preflight(ops, disk_total_bytes=total, disk_used_bytes=used)["free_disk"] == verdict, (total, used)
    rows = scripts.run_script(ops, "000_precheck_readiness.sql").results
    assert [row[2] for row in rows if row[1] == "free_disk"] == ["FAIL"]


def test_precheck_time_zone(ops: str) -> None:
    for zone, verdict in (("UTC", "PASS"), ("Etc/UTC", "PASS"), ("Asia/Makassar", "FAIL")):
        assert preflight(ops, server_time_zone=zone)["time_zone"] == verdict


def test_precheck_sees_an_old_transaction(ops: str) -> None:
    text = (PHASE2 / "000_precheck_readiness.sql").read_text()
    sooner = text.replace("interval '15 minutes'", "interval '1 second'")
    assert sooner.count("interval '1 second'") == 2
    with postgres.connect(ops) as old, postgres.connect(ops, autocommit=True) as conn:
        old.execute("select 1")
        pid = old.info.backend_pid
        time.sleep(1.2)
        assert preflight(ops)["long_transactions"] == "PASS"
        cursor = conn.execute(sooner.encode())
        while not cursor.description:
            cursor.nextset()
        verdicts = {row[1]: row[2:] for row in cursor.fetchall()}
    assert verdicts["long_transactions"][0] == "FAIL"
    assert f"pid {pid} open for 0 min" in verdicts["long_transactions"][1]


def test_precheck_sees_a_blocked_lock_but_not_an_advisory_one(ops: str) -> None:
    execute(ops, "create table phase2.busy (n integer)")
    with postgres.connect(ops) as holder:
        holder.execute("select pg_advisory_xact_lock(7)")
        holder.execute("lock table phase2.busy in access exclusive mode")

        def wait_for(statement: str) -> None:
            with postgres.connect(ops, application_name="waits") as waiting:
                waiting.execute(statement.encode())

        def waiting() -> int:
            return len(query(ops, "select 1 from pg_catalog.pg_stat_activity where wait_event_type = 'Lock'"))

        threads = [threading.Thread(target=wait_for, args=("select pg_advisory_xact_lock(7)",))]
        threads[0].start()
        while waiting() < 1:
            time.sleep(0.02)
        assert preflight(ops)["blocked_locks"] == "PASS"
        threads.append(threading.Thread(target=wait_for, args=("select count(*) from phase2.busy",)))
        threads[1].start()
        while waiting() < 2:
            time.sleep(0.02)
        verdict = preflight(ops)["blocked_locks"]
        holder.rollback()
        for thread in threads:
            thread.join()
    assert verdict == "FAIL"


def test_precheck_does_not_pass_on_sessions_that_it_cannot_see(ops: str) -> None:
    user = f"r_{key(ops).hex[:10]}"
    execute(ops, f"create role {user} login password 'blind'")
    try:
        blind = psycopg.conninfo.make_conninfo(ops, user=user, password="blind")
        assert preflight(blind)["long_transactions"] == "PASS"
        with postgres.connect(ops) as other:
            other.execute("select 1")
            assert preflight(blind)["long_transactions"] == "FAIL"
    finally:
        execute(ops, f"drop role {user}")


# 090 -----------------------------------------------------------------------------------------------------------------


def postcheck(url: str) -> dict[str, tuple[str, str, str]]:
    rows = scripts.run_script(url, "090_postcheck_reconciliation.sql").results
    return {str(name): (str(status), str(detail), str(gate)) for gate, name, status, detail in rows}


def test_postcheck_passes_on_the_contract_and_covers_all_of_it(bridge: str) -> None:
    checks = postcheck(bridge)
    columns, constraints, indexes = contract()
    assert {status for status, _, _ in checks.values()} == {"PASS"}
    assert set(checks) == {
        *(f"table {table}" for table in columns),
        *(f"constraint {name}" for table in constraints.values() for name in table),
        *(f"index {name}" for table in indexes.values() for name in table),
        "no triggers on the canonical tables",
    }
    assert sum(gate == "A-01" for _, _, gate in checks.values()) == 17


def test_postcheck_before_batch_b_does_not_ask_for_dictionaries(ops: str) -> None:
    for name in BATCH_A:
        scripts.run_script(ops, name)
    checks = postcheck(ops)
    assert {status for status, _, gate in checks.values() if gate.startswith("A-")} == {"PASS"}
    assert {status for status, _, gate in checks.values() if gate == "B-02"} == {"N/A"}


DAMAGES = [
    ("drop table public.ops_assignment", "table ops_assignment", "missing"),
    ("alter table public.booking_core drop column note", "table booking_core", "missing: note text"),
    ("alter table public.booking_core add column more text", "table booking_core", "unexpected: more text"),
    (
        "alter table public.booking_core alter column note type varchar(10)",
        "table booking_core",
        "wanted: note text, found: note varchar(10)",
    ),
    (
        "alter table public.booking_core alter column total_price type numeric(10,2)",
        "table booking_core",
        "found: total_price numeric(10,2)",
    ),
    ("alter table public.booking_core alter column tour_date drop not null", "table booking_core", "tour_date"),
    ("alter table public.booking_core alter column note set not null", "table booking_core", "note"),
    (
        "alter table public.booking_core alter column currency_code set default 'IDR'",
        "table booking_core",
        "'IDR'",
    ),
    ("alter table public.booking_core alter column currency_code drop default", "table booking_core", "'USD'"),
    (
        "alter table public.booking_core alter column booking_created_at type timestamp",
        "table booking_core",
        "booking_created_at",
    ),
    ('alter table public.booking_core alter column note type text collate "C"', "table booking_core", "collation"),
    ("alter table public.migration_run_log set unlogged", "table migration_run_log", "logged"),
    (
        "alter table public.migration_run_log drop constraint migration_run_log_pkey",
        "constraint migration_run_log_pkey",
        "missing",
    ),
    (
        "alter table public.catalog_product drop constraint catalog_product_slug_key",
        "constraint catalog_product_slug_key",
        "missing",
    ),
    (
        "alter table public.booking_contact drop constraint booking_contact_booking_key_fkey",
        "constraint booking_contact_booking_key_fkey",
        "missing",
    ),
    (
        "alter table public.booking_contact drop constraint booking_contact_booking_key_fkey,"
        " add constraint booking_contact_booking_key_fkey foreign key (booking_key)"
        " references public.booking_core (booking_key) on delete cascade",
        "constraint booking_contact_booking_key_fkey",
        "ON DELETE CASCADE",
    ),
    (
        "alter table public.booking_contact drop constraint booking_contact_booking_key_fkey,"
        " add constraint booking_contact_booking_key_fkey foreign key (booking_key)"
        " references public.booking_core (booking_key) not valid",
        "constraint booking_contact_booking_key_fkey",
        "NOT VALID",
    ),
    (
        "alter table public.unmapped_queue drop constraint ck_unmapped_queue_status,"
        " add constraint ck_unmapped_queue_status check (status in ('OPEN', 'CLOSED'))",
        "constraint ck_unmapped_queue_status",
        "found",
    ),
    ("drop index public.ix_booking_core_tour_date", "index ix_booking_core_tour_date", "missing"),
    (
        "drop index public.ux_booking_core_channel_external_ref; create index ux_booking_core_channel_external_ref"
        " on public.booking_core (channel_code, external_booking_ref)",
        "index ux_booking_core_channel_external_ref",
        "found: CREATE INDEX",
    ),
    (
        "drop index public.ix_payment_event_booking_time; create index ix_payment_event_booking_time"
        " on public.payment_event (booking_key, payment_time)",
        "index ix_payment_event_booking_time",
        "found",
    ),
    (
        "create function public.f() returns trigger language plpgsql as 'begin return new; end';"
        " create trigger meddling before insert on public.booking_core for each row execute function public.f()",
        "no triggers on the canonical tables",
        "meddling on booking_core",
    ),
    ("alter table public.ref_ingest_status add column more text", "table ref_ingest_status", "unexpected"),
]


def test_postcheck_notices_each_difference_and_nothing_else(bridge: str) -> None:
    """Each damage is done, checked and undone in one transaction, on one database."""
    script = (PHASE2 / "090_postcheck_reconciliation.sql").read_text()
    select = script.replace("begin;\nset local transaction_read_only = on;", "").replace("commit;", "")
    with postgres.connect(bridge) as conn:
        for damage, check, says in DAMAGES:
            conn.execute(damage.encode())
            cursor = conn.execute(select.encode())
            while not cursor.description:
                cursor.nextset()
            checks = {name: (status, detail) for _, name, status, detail in cursor.fetchall()}
            conn.rollback()
            assert checks[check][0] == "FAIL", damage
            assert says in checks[check][1], damage
            failed = [name for name, (status, _) in checks.items() if status == "FAIL"]
            assert failed == [check] or damage.startswith("drop table"), damage


def test_postcheck_on_an_empty_database_fails_every_table(ops: str) -> None:
    checks = postcheck(ops)
    assert {status for _, (status, _, gate) in checks.items() if gate == "A-01"} == {"FAIL"}


# Batch B -------------------------------------------------------------------------------------------------------------


def seeds() -> dict[str, set[str]]:
    section = CONTRACT.read_text().split("## Seeds")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (\w+) \| ([A-Z_, ]+) \|$", section, flags=re.MULTILINE)
    return {table: set(values.split(", ")) for table, values in rows}


def test_seeds_are_the_contracts(bridge: str) -> None:
    assert len(seeds()) == 7
    for table, wanted in seeds().items():
        code = contract()[0][table][0][0]
        rows = query(bridge, f"select {code} from public.{table}")  # noqa: S608
        assert {row[0] for row in rows} == wanted
        assert len(rows) == len(wanted)


def test_seeds_add_what_is_missing_and_restore_a_label_and_leave_the_switch(bridge: str) -> None:
    execute(
        bridge,
        "delete from public.channel_registry where channel_code = 'GYG'",
        "update public.channel_registry set channel_name = 'x', is_active = false where channel_code = 'VIATOR'",
        "delete from public.ref_ingest_status where status_code = 'DONE'",
        "update public.ref_package_ref_type set type_label = 'x' where type_code = 'CATALOG_VARIANT'",
    )
    assert [scripts.run_script(bridge, name).rows for name in BATCH_B] == [2, 1, 1]
    assert query(
        bridge,
        "select channel_code, channel_name, is_active from public.channel_registry"
        " where channel_code in ('GYG', 'VIATOR') order by 1",
    ) == [("GYG", "GetYourGuide", True), ("VIATOR", "Viator", False)]
    assert [scripts.run_script(bridge, name).rows for name in BATCH_B] == [0, 0, 0]


# Rollbacks -----------------------------------------------------------------------------------------------------------


def load_catalog(url: str) -> None:
    execute(
        url,
        """
        insert into public.catalog_product (product_key, slug, name) values ('<p>', 'p', 'P');
        insert into public.catalog_variant (variant_key, product_key, code, name, service_type, duration_days)
        values ('<v>', '<p>', 'V', 'V', 'PRIVATE', 1);
        insert into public.catalog_variant_rate (variant_rate_key, variant_key, traveler_type, price)
        values ('<r>', '<v>', 'ADULT', 10);
        insert into public.channel_external_refs (
            external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
            source_table, source_pk
        ) values ('<x>', 'PRODUCT', '<p>', 'DIRECT', 'BALISNAP_PRODUCT_ID', '1', 'balisnap',
            'TourProduct', '1');
        insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code,
            status, payload)
        values ('<q>', 'PRODUCT_MAPPING', 'bstadmin', 'tour_packages', '9', 'NO_MATCH', 'RESOLVED',
            '{"resolution": {"entity_type": "PRODUCT"}}');
        insert into phase2.source_leftovers (leftover_key, source_system, source_table, source_pk, attributes)
        values ('<left>', 'bstadmin', 'tour_packages', '9', '{"slug": "x"}');
        """,
    )


def load_bookings(url: str) -> None:
    execute(
        url,
        """
        insert into public.booking_core (
            booking_key, channel_code, external_booking_ref, booking_created_at, tour_date, customer_payment_status,
            ops_fulfillment_status, package_ref_type, updated_at
        ) values
            ('<b1>', 'GYG', 'A', now(), '2026-01-01', 'PENDING_PAYMENT', 'NEW', 'LEGACY_PACKAGE', '2026-01-01'),
            ('<b2>', 'DIRECT', 'B', now(), '2026-01-01', 'PAID', 'READY', 'LEGACY_PACKAGE', '2026-01-02');
        insert into public.booking_contact (booking_key) values ('<b1>');
        insert into public.booking_party (booking_key) values ('<b1>');
        insert into public.booking_item_snapshot (booking_item_key, booking_key, variant_key)
        values ('<i>', '<b1>', '<v>');
        insert into public.ops_booking_state (booking_key, ops_fulfillment_status, is_paid_flag, updated_at)
        values ('<b1>', 'NEW', false, '2026-01-03'), ('<b2>', 'READY', true, '2026-01-04');
        insert into public.ops_assignment (assignment_key, booking_key, assignment_source, assigned_at)
        values ('<a>', '<b1>', 'BSTADMIN', now());
        insert into public.channel_external_refs (
            external_ref_key, entity_type, entity_key, channel_code, external_ref_kind, external_ref, source_system,
            source_table, source_pk
        ) values ('<y>', 'BOOKING', '<b1>', 'GYG', 'BOOKING_REF', 'A', 'bstadmin', 'bookings', '1');
        insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)
        values ('<z>', 'BOOKING_REVIEW', 'canonical', 'booking_identity', 'GYG:A', 'MULTI_MATCH');
        """,
    )


def load_payments(url: str) -> None:
    """What batch E does: the snapshot, then statuses, flags, times, payments, finance links and queue rows."""
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute((SQL / "status_snapshot.sql").read_bytes())
    execute(
        url,
        """
        update public.booking_core set customer_payment_status = 'PAID', ops_fulfillment_status = 'DONE',
            updated_at = now() where booking_key = '<b1>';
        update public.ops_booking_state set is_paid_flag = true, paid_at = now(), ops_fulfillment_status = 'DONE',
            updated_at = now() where booking_key = '<b1>';
        insert into public.payment_event (payment_key, booking_key, payment_time, amount)
        values ('<pay>', '<b1>', now(), 5);
        insert into public.ops_finance_bridge (finance_bridge_key, booking_key)
        values ('<fin>', '<b1>');
        insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code)
        values ('<l>', 'PAYMENT_LINK', 'balisnap', 'Payment', '77', 'NO_MATCH'),
            ('<m>', 'BOOKING_REVIEW', 'balisnap', 'Payment', '78', 'INVALID_SOURCE');
        """,
    )


def test_rollbacks_in_reverse_order_leave_what_was_before_each_batch(ops: str) -> None:
    before = {"A": fingerprint(ops)}
    for name in BATCH_A:
        scripts.run_script(ops, name)
    before["B"] = fingerprint(ops)
    for name in BATCH_B:
        scripts.run_script(ops, name)
    before["C"] = fingerprint(ops)
    load_catalog(ops)
    before["D"] = fingerprint(ops)
    load_bookings(ops)
    before["E"] = fingerprint(ops)
    load_payments(ops)
    assert fingerprint(ops) != before["E"]

    rows = {}
    for code in reversed("ABCDE"):
        rows[code] = scripts.run_script(ops, scripts.rollback_script(code)).rows
        assert fingerprint(ops) == before[code], f"after the rollback of {code}"
    assert rows["E"] == 1 + 1 + 2 + 1 + 1  # payment, finance link, queue rows, core and state restored
    assert rows["D"] == 2 + 1 + 1 + 1 + 2 + 1 + 1 + 1
    assert rows["C"] == 6
    assert rows["B"] == 6
    assert query(ops, "select batch, queue_type, status from phase2.unmapped_queue_dump order by dump_id") == [
        *sorted([("E", "PAYMENT_LINK", "OPEN"), ("E", "BOOKING_REVIEW", "OPEN")], reverse=True),
        ("D", "BOOKING_REVIEW", "OPEN"),
        ("C", "PRODUCT_MAPPING", "RESOLVED"),
    ]
    for table in ("source_leftovers", "status_snapshot", "booking_freshness", "paid_bookings"):
        assert query(ops, f"select count(*) from phase2.{table}") == [(0,)]  # noqa: S608


def test_rollback_of_e_keeps_what_d_changed_elsewhere_since(bridge: str) -> None:
    load_catalog(bridge)
    load_bookings(bridge)
    load_payments(bridge)
    execute(
        bridge,
        "update public.booking_core set note = 'later', updated_at = '2026-02-02' where booking_key = '<b2>'",
    )
    scripts.run_script(bridge, "rollback/E.sql")
    assert query(
        bridge, "select external_booking_ref, note, updated_at::date::text from public.booking_core order by 1"
    ) == [("A", None, "2026-01-01"), ("B", "later", "2026-02-02")]


def test_snapshot_keeps_the_statuses_from_before_the_first_run(bridge: str) -> None:
    load_catalog(bridge)
    load_bookings(bridge)
    load_payments(bridge)
    first = query(bridge, "select * from phase2.status_snapshot order by booking_key")
    with postgres.connect(bridge, autocommit=True) as conn:
        assert conn.execute((SQL / "status_snapshot.sql").read_bytes()).rowcount == 0
    assert query(bridge, "select * from phase2.status_snapshot order by booking_key") == first


def test_rollback_twice_is_rollback_once(bridge: str) -> None:
    load_catalog(bridge)
    load_bookings(bridge)
    load_payments(bridge)
    for code in reversed("ABCDE"):
        scripts.run_script(bridge, scripts.rollback_script(code))
        once = fingerprint(bridge, ("public", "phase2"))
        assert scripts.run_script(bridge, scripts.rollback_script(code)).rows == 0
        assert fingerprint(bridge, ("public", "phase2")) == once


INTENT = """
insert into phase2.write_intents (
    intent_id, idempotency_key, request_hash, booking_key, action, modules, mode, strict, actor, role, base_version,
    before, target, legacy_ids, legacy_target, legacy_expected, core_status, legacy_status
)
select
    gen_random_uuid(), n::text, 'x', gen_random_uuid(), 'patch', '{note}', 'DUAL', false, 'ayu', 'ADMIN', 1, '{}', '{}',
    '{}', '{}', '{}', 'DONE', (array['DONE', 'NONE'])[n]
from generate_series(1, 2) as n
"""


def test_rollback_of_d_opens_writes_that_bstadmin_does_not_have_and_ends_conflicts(bridge: str) -> None:
    execute(
        bridge,
        INTENT,
        # the partner who is assigned, and one before
        INTENT.replace("gen_random_uuid(), n::text", "gen_random_uuid(), 'partner ' || n")
        .replace("'x', gen_random_uuid()", "'x', '00000000-0000-0000-0000-000000000001'")
        .replace("'{}', '{}',\n", """'{}', '{"assigned_partner_id": 7}',\n""")
        .replace("'NONE'", "'DONE'"),
        "insert into phase2.conflicts (conflict_id, booking_key, rule, rule_version, module, severity, freezes,"
        " fields, found_by, due_at) values (gen_random_uuid(), gen_random_uuid(), 'choice', 1, 'booking', 'medium',"
        " false, '[]', 'reconciliation', now())",
    )
    scripts.run_script(bridge, "rollback/D.sql")
    assert query(
        bridge, "select legacy_status, core_status from phase2.write_intents order by legacy_status, place"
    ) == [
        ("DONE", "DONE"),
        ("DONE", "DONE"),
        ("DONE", "BEHIND"),
        ("NONE", "BEHIND"),
    ]
    assert query(bridge, "select status from phase2.conflicts") == [("GONE",)]


@pytest.mark.parametrize(
    ("code", "loads", "says"),
    [
        ("A", [load_catalog], "still holds rows"),
        ("B", [load_catalog], "violates foreign key"),
        ("C", [load_catalog, load_bookings], "roll back batch D first"),
        ("D", [load_catalog, load_bookings, load_payments], "roll back batch E first"),
    ],
)
def test_rollback_refuses_while_later_rows_stand(bridge: str, code: str, loads: list, says: str) -> None:
    for load in loads:
        load(bridge)
    before = fingerprint(bridge, ("public", "phase2"))
    with pytest.raises(CouldNotRun, match=says):
        scripts.run_script(bridge, scripts.rollback_script(code))
    assert fingerprint(bridge, ("public", "phase2")) == before


def test_rollback_of_a_does_not_cascade_to_what_others_built(bridge: str) -> None:
    execute(bridge, "create schema other", "create view other.mine as select booking_key from public.booking_core")
    with pytest.raises(CouldNotRun, match="depend"):
        scripts.run_script(bridge, "rollback/A.sql")
    assert len(catalog(bridge)[0]) == 23


def test_rollback_of_a_leaves_other_tables_alone(bridge: str) -> None:
    execute(bridge, "create table public.somebody_elses (n integer)")
    # a comparison (make parity) makes the read model without batch G
    execute(bridge, "create schema ops_read; create view ops_read.ops_bookings as select * from public.booking_core")
    scripts.run_script(bridge, "rollback/B.sql")
    scripts.run_script(bridge, "rollback/A.sql")
    assert set(catalog(bridge)[0]) == {"somebody_elses"}


# 091 -----------------------------------------------------------------------------------------------------------------


def load_events(url: str, state: str, days: float, *, letter: str | None = None, letter_days: float = 0) -> UUID:
    """One event of that age, and perhaps a dead letter whose last change is `letter_days` ago."""
    status, _, retry = state.partition("+")
    event = key(f"{state}{days}{letter}{letter_days}")
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute(
            "insert into public.ingest_event_log (event_key, idempotency_key, nonce, source_enum, channel_code,"
            " external_booking_ref, event_type, event_time, event_time_normalized, payload_hash, process_status,"
            " next_retry_at, raw_payload, created_at)"
            " values (%(key)s, %(name)s, 'n', 'GYG', 'GYG', %(name)s, 'CREATED', now(), now(), 'h', %(status)s,"
            " case when %(retry)s then now() end, '{}', now() - make_interval(secs => %(days)s * 86400))",
            {"key": event, "name": event.hex, "status": status, "retry": bool(retry), "days": days},
        )
        if letter:
            conn.execute(
                "insert into public.ingest_dead_letter (dead_letter_key, event_key, reason_code, status,"
                " first_failed_at, last_failed_at, raw_payload, updated_at)"
                " values (%s, %s, 'X', %s, now(), now(), '{}', now() - make_interval(secs => %s * 86400))",
                (event, event, letter, letter_days),
            )
    return event


def test_retention_removes_what_its_policy_says_and_nothing_else(bridge: str) -> None:
    gone = [
        load_events(bridge, "DONE", 35.1),
        load_events(bridge, "FAILED", 36),
        load_events(bridge, "DONE", 80, letter="SUCCEEDED", letter_days=30.1),
        load_events(bridge, "DONE", 81, letter="RESOLVED", letter_days=31),
        load_events(bridge, "FAILED", 82, letter="CLOSED", letter_days=32),
    ]
    kept = [
        load_events(bridge, "DONE", 34.9),
        load_events(bridge, "RECEIVED", 90),
        load_events(bridge, "PROCESSING", 90),
        load_events(bridge, "FAILED+retry", 90),
        load_events(bridge, "DONE", 90, letter="SUCCEEDED", letter_days=29.9),
        *(
            load_events(bridge, "FAILED", 91, letter=status, letter_days=91)
            for status in ("OPEN", "READY", "REPLAYING", "FAILED")
        ),
    ]
    execute(
        bridge,
        """
        insert into public.unmapped_queue (queue_key, queue_type, source_system, source_table, source_pk, reason_code,
            status, resolved_at, updated_at, payload)
        values
            ('<1>', 'T', 's', 't', 'closed long ago', 'R', 'CLOSED', now() - interval '91 days', now(), null),
            ('<2>', 'T', 's', 't', 'resolved before', 'R', 'RESOLVED', null, now() - interval '91 days', '{}'),
            ('<3>', 'T', 's', 't', 'closed lately', 'R', 'CLOSED', now() - interval '89 days', now(), null),
            ('<4>', 'T', 's', 't', 'open', 'R', 'OPEN', null, now() - interval '200 days', null),
            ('<5>', 'T', 's', 't', 'in review', 'R', 'IN_REVIEW', null, now() - interval '200 days', null),
            ('<6>', 'T', 's', 't', 'a standing decision', 'R', 'RESOLVED', now() - interval '200 days', now(),
                '{"resolution": {"entity_type": "PRODUCT"}}')
        """,
    )
    assert scripts.run_retention(bridge, rows_each=2) == {
        "dead letters": 3,
        "idempotency rows": len(gone),
        "unmapped queue": 2,
        "nonces": 0,
    }
    assert {row[0] for row in query(bridge, "select event_key from public.ingest_event_log")} == set(kept)
    assert [row[0] for row in query(bridge, "select source_pk from public.unmapped_queue order by queue_key")] == [
        name
        for _, name in sorted(
            [
                (key("3"), "closed lately"),
                (key("4"), "open"),
                (key("5"), "in review"),
                (key("6"), "a standing decision"),
            ]
        )
    ]
    assert set(scripts.run_retention(bridge).values()) == {0}


def test_retention_leaves_a_row_that_somebody_holds_for_the_next_day(bridge: str) -> None:
    load_events(bridge, "DONE", 40)
    held = load_events(bridge, "DONE", 41)
    with postgres.connect(bridge) as holder:
        holder.execute("select 1 from public.ingest_event_log where event_key = %s for update", (held,))
        assert scripts.run_retention(bridge)["idempotency rows"] == 1
    assert scripts.run_retention(bridge)["idempotency rows"] == 1


# State ---------------------------------------------------------------------------------------------------------------


def test_state_is_idempotent_and_finds_pgcrypto_wherever_it_is(database: str) -> None:
    execute(database, "create schema extensions", "create extension pgcrypto schema extensions")
    for _ in range(2):
        execute(database, (SQL / "state.sql").read_text())
    assert query(database, "select encode(phase2.sha1('abc'), 'hex')") == [
        ("a9993e364706816aba3e25717850c26c9cd0d89d",)
    ]
    undocumented = query(
        database,
        "select c.relname from pg_catalog.pg_class as c where c.relnamespace = 'phase2'::regnamespace"
        " and c.relkind = 'r' and pg_catalog.obj_description(c.oid, 'pg_class') is null",
    )
    assert undocumented == []
