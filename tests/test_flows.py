"""The migration as its users run it: the command line, real Prefect server, worker and deployments, real databases."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.settings import PREFECT_API_URL, temporary_settings

from bridge import postgres, sources
from bridge.batches import BACKFILL
from bridge.fingerprint import Fingerprint, difference, take
from bridge.settings import ROOT, SQL

BIN = Path(sys.executable).parent
BOOKINGS = "300"
AS_OF = "2026-02-19"
CORE_TABLES = """
    select c.relname, pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid)
        + pg_stat_get_tuples_deleted(c.oid)
    from pg_catalog.pg_class as c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
    order by 1
"""


class Shop:
    """A set of databases on the test server, and the command line pointed at them."""

    def __init__(self, server: str, home: Path, prefect_url: str) -> None:
        tag = uuid4().hex[:8]
        self.server = server
        self.untouched: dict[str, Fingerprint] = {}
        self.names = {role: f"f_{role}_{tag}" for role in ("ops", "balisnap", "bstadmin", "channel")}
        with postgres.connect(server, autocommit=True) as conn:
            for name in self.names.values():
                conn.execute(postgres.statement("create database {}", name))
        self.urls = {role: postgres.with_database(server, name) for role, name in self.names.items()}
        self.home = home
        self.env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")},
            "OPS_DB_URL": self.urls["ops"],
            "BALISNAP_DB_URL": self.urls["balisnap"],
            "BSTADMIN_DB_URL": self.urls["bstadmin"],
            "CHANNEL_DB_URL": self.urls["channel"],
            "PHASE2_HOME": str(home),
            "PHASE2_REPORTS": str(home / "reports"),
            "PHASE2_DISK_TOTAL_BYTES": "1000",
            "PHASE2_DISK_USED_BYTES": "100",
            "PREFECT_API_URL": prefect_url,
            "PREFECT_HOME": str(home / "prefect"),
            "DO_NOT_TRACK": "1",
        }

    def phase2(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BIN / "phase2"), *arguments], env=self.env | env, text=True, capture_output=True, timeout=500
        )

    def ops(self, sql: str) -> list[tuple]:
        with postgres.connect(self.urls["ops"]) as conn:
            return conn.execute(sql).fetchall()

    def fingerprint(self, place: str, schemas: list[str] | None = None) -> Fingerprint:
        with postgres.connect(self.urls[place], read_only=True) as conn:
            return take(conn, schemas=schemas)

    def statuses(self) -> dict[str, str]:
        """Of A to E, which need no service."""
        lines = json.loads(self.phase2("status", "--json").stdout)
        return {line["batch"]: line["status"] for line in lines if line["batch"] in BACKFILL}

    def drop(self) -> None:
        with postgres.connect(self.server, autocommit=True) as conn:
            for name in self.names.values():
                conn.execute(postgres.statement("drop database if exists {} with (force)", name))


@pytest.fixture(scope="module")
def prefect_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A local Prefect server of this test's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("prefect")
    log = (home / "server.log").open("w")
    server = subprocess.Popen(
        [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        env={
            **os.environ,
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_UI_ENABLED": "false",
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(240):
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                time.sleep(0.5)
        else:
            pytest.fail("the Prefect server did not start: " + (home / "server.log").read_text()[-2000:])
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)


@pytest.fixture(scope="module")
def shop(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A healthy sample shop, migrated from A to E by `phase2 demo`; `shop.untouched` are its sources before it."""
    shop = Shop(os.environ["TEST_PG_URL"], tmp_path_factory.mktemp("shop"), prefect_url)
    sources.create(  # the demo finds its sample there
        shop.urls["balisnap"],
        shop.urls["bstadmin"],
        bookings=int(BOOKINGS),
        seed=7,
        as_of=date.fromisoformat(AS_OF),
    )
    shop.untouched = {source: shop.fingerprint(source) for source in ("balisnap", "bstadmin")}
    done = shop.phase2("demo", "--bookings", BOOKINGS, "--as-of", AS_OF)
    assert done.returncode == 0, done.stderr[-3000:]
    yield shop
    shop.drop()


def test_demo_takes_every_batch_through_its_gates(shop: Shop) -> None:
    assert shop.statuses() == dict.fromkeys("ABCDE", "PASS")
    assert shop.ops("select count(*) > 200 from public.booking_core") == [(True,)]


def test_the_channel_database_gets_no_ddl(shop: Shop) -> None:
    with postgres.connect(shop.urls["channel"]) as conn:
        found = conn.execute(
            "select n.nspname, c.relname from pg_catalog.pg_class as c"
            " join pg_catalog.pg_namespace as n on n.oid = c.relnamespace"
            " where n.nspname <> 'information_schema' and n.nspname not like 'pg\\_%'"
        ).fetchall()
    assert found == []


def test_verdicts_are_prefect_artifacts(shop: Shop, prefect_url: str) -> None:
    answer = httpx.post(f"{prefect_url}/artifacts/filter", json={"limit": 200}, timeout=20).json()
    keys = {artifact["key"] for artifact in answer}
    assert {f"phase2-batch-{code}" for code in "abcde"} <= keys
    assert {f"phase2-batch-{code}-gates" for code in "abcde"} <= keys
    report = next(a for a in answer if a["key"] == "phase2-batch-d")
    assert "D-01" in report["data"]


# a process with the flow in it, once for each number of hours
ASK = """
import asyncio, sys
from flows.go_no_go import go_no_go_flow

for hours in sys.argv[1:]:
    try:
        asyncio.run(go_no_go_flow(code="D", hours=float(hours)))
        print("go")
    except Exception as error:
        print(error)
"""


def test_a_go_no_go_waits_for_a_person_and_only_a_yes_is_one(shop: Shop, prefect_url: str) -> None:
    """Answered yes, answered with nothing but the form's defaults, and not answered in time."""
    yes = {"go": True, "role": "Owner", "name": "dewi", "note": "window agreed"}
    process = subprocess.Popen(
        [sys.executable, "-c", ASK, "1", "1", "0.002"], env=shop.env, cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    for answer in (yes, {}):
        asyncio.run(answered(prefect_url, answer, process))
    said = process.communicate(timeout=120)[0].splitlines()
    assert said == ["go"] + [
        f"batch D is on hold: no go: {why}" for why in ("nobody said yes", "nobody answered in time")
    ]
    decisions = shop.ops(
        "select subject, actor, body ->> 'note' from phase2.ledger where kind = 'decision' order by 1, 3"
    )
    assert decisions[0] == ("go", "dewi", "window agreed")
    assert [(subject, note) for subject, _, note in decisions[1:]] == [
        ("no-go", ""),
        ("no-go", "nobody answered in time"),
    ]
    assert shop.ops("select subject, actor from phase2.ledger where kind = 'sign-off'") == [("Owner", "dewi")]
    shown = httpx.post(f"{prefect_url}/artifacts/filter", json={"limit": 200}, timeout=20).json()
    table = next(artifact["data"] for artifact in shown if artifact["key"] == "phase2-go-no-go-d")
    assert "sign-off Owner" in table
    assert "gates of C" in table


async def answered(prefect_url: str, answer: dict[str, object], process: subprocess.Popen[str]) -> None:
    """Answer the go / no-go that is paused."""
    with temporary_settings({PREFECT_API_URL: prefect_url}):
        async with get_client() as client:
            paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
            for _ in range(600):
                assert process.poll() is None, "it did not wait"
                for run in await client.read_flow_runs(flow_run_filter=paused):
                    # it is paused a moment before it can be answered
                    result = await client.resume_flow_run(run.id, run_input=answer)
                    if result.status == SetStateStatus.ACCEPT:
                        return
                await asyncio.sleep(0.1)
    raise AssertionError("it never paused")


def test_public_holds_the_canonical_tables_and_nothing_else(shop: Shop) -> None:
    [(tables,)] = shop.ops(
        "select count(*) from pg_catalog.pg_class where relnamespace = 'public'::regnamespace and relkind <> 'i'"
    )
    assert tables == 17 + 6


def test_an_unchanged_rerun_writes_no_tuple(shop: Shop) -> None:
    before = shop.ops(CORE_TABLES)
    assert len(before) == 23
    done = shop.phase2("run", "--from", "A", "--to", "E", "--as-of", AS_OF)
    assert done.returncode == 0, done.stderr[-3000:]
    shop.ops("select pg_stat_force_next_flush()")
    assert shop.ops(CORE_TABLES) == before
    latest = sorted((shop.home / "reports" / "recon" / "D").glob("*.json"))[-1]
    assert json.loads(latest.read_text())["ran"]["rows_changed"] == 0


def test_recon_needs_no_prefect_and_no_dbt(shop: Shop) -> None:
    """The measures are views: nothing heavy is imported as long as the dbt project is the one that made them."""
    code = (
        "import sys; from bridge import recon;"
        "outcome = recon.evaluate('D');"
        "assert outcome.verdict.result == 'PASS', outcome.verdict.blocked_by;"
        "print([m for m in ('prefect', 'dbt') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=shop.env, text=True, capture_output=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr[-2000:]


def test_a_deployment_runs_on_a_worker(shop: Shop, prefect_url: str) -> None:
    prefect = str(BIN / "prefect")
    env = shop.env
    for command in (
        [prefect, "work-pool", "create", "phase2", "--type", "process"],
        [prefect, "--no-prompt", "deploy", "--all"],
        [prefect, "--no-prompt", "deployment", "schedule", "pause", "--all"],  # it is this test that starts runs
    ):
        done = subprocess.run(command, env=env, cwd=ROOT, text=True, capture_output=True, timeout=200)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    worker = subprocess.Popen(
        [prefect, "worker", "start", "--pool", "phase2"],
        env=env,
        cwd=ROOT,
        stdout=(shop.home / "worker.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for asked in (
            ["batch/batch", "--param", "code=C", "--param", f"as_of={AS_OF}"],
            ["retention/retention"],
        ):
            done = subprocess.run(
                [prefect, "deployment", "run", *asked, "--watch"],
                env=env,
                cwd=ROOT,
                text=True,
                capture_output=True,
                timeout=400,
            )
            assert done.returncode == 0, done.stdout[-2000:] + (shop.home / "worker.log").read_text()[-3000:]
    finally:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(30)
    runs = httpx.post(
        f"{prefect_url}/flow_runs/filter",
        json={"flow_runs": {"deployment_id": {"is_null_": False}}},
        timeout=20,
    ).json()
    assert {run["state_type"] for run in runs} == {"COMPLETED"}
    assert len(runs) == 2
    assert shop.ops("select status from phase2.step_log where step like '%091%'") == [("SUCCEEDED",)]
    deployed = httpx.post(f"{prefect_url}/deployments/filter", json={}, timeout=20).json()
    schema = next(one for one in deployed if one["name"] == "batch")["parameter_openapi_schema"]
    assert schema["properties"]["on_fail"]["enum"] == ["hold", "rollback"]
    assert "rollback" in schema["properties"]["on_fail"]["description"]
    assert all(one["global_concurrency_limit"]["limit"] == 1 for one in deployed)


def test_a_drill_is_a_flow_with_its_checks_as_an_artifact(shop: Shop) -> None:
    said = "from flows.drills import drill_flow; drill_flow('replay')"
    done = subprocess.run([sys.executable, "-c", said], env=shop.env, cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert shop.ops("select drill, passed from phase2.drills") == [("replay", True)]
    made = httpx.post(f"{shop.env['PREFECT_API_URL']}/artifacts/filter", json={}).json()
    (artifact,) = [one for one in made if one["key"] == "phase2-drills"]
    assert artifact["description"] == "PASS"
    assert {row["held"] for row in json.loads(artifact["data"])} == {"yes"}
    assert shop.ops("select count(*) from public.ingest_event_log") == [(0,)]


def test_rollback_refuses_while_later_batches_stand_on_it(shop: Shop) -> None:
    done = shop.phase2("rollback", "--batch", "C")
    assert done.returncode == 2
    assert "D, E stand on it" in done.stderr
    assert shop.statuses()["C"] == "PASS"


@pytest.mark.long
def test_rollback_of_each_batch_in_reverse_and_forward_again(shop: Shop) -> None:
    before = shop.fingerprint("ops", ["public"])
    for code in "EDCBA":
        shown = shop.phase2("rollback", "--batch", code, "--dry-run")
        assert shown.returncode == 0, shown.stderr
        assert shop.statuses()[code] == "PASS", "a dry run changed something"
        done = shop.phase2("rollback", "--batch", code)
        assert done.returncode == 0, done.stderr
        assert "Rollback of batch" in done.stdout
    left = shop.ops(
        "select c.relname from pg_catalog.pg_class as c where c.relnamespace = 'public'::regnamespace"
        " and c.relkind in ('r', 'v')"
    )
    assert left == []
    done = shop.phase2("run", "--from", "A", "--to", "E", "--as-of", AS_OF)
    assert done.returncode == 0, done.stderr[-3000:]
    assert difference(before, shop.fingerprint("ops", ["public"])) == []


@pytest.mark.long
def test_killed_in_mid_batch_and_run_again_ends_as_if_nothing_had_happened(
    shop: Shop, prefect_url: str, tmp_path: Path
) -> None:
    """Mapping 6. The middle of batch D is found by its progress: some models have written, others have not."""
    other = Shop(os.environ["TEST_PG_URL"], tmp_path, prefect_url)
    try:
        sources.create(
            other.urls["balisnap"],
            other.urls["bstadmin"],
            bookings=int(BOOKINGS),
            seed=7,
            as_of=date.fromisoformat(AS_OF),
        )
        untouched = {source: other.fingerprint(source) for source in ("balisnap", "bstadmin")}
        done = other.phase2("run", "--from", "A", "--to", "C", "--as-of", AS_OF)
        assert done.returncode == 0, done.stderr[-2000:]
        runner = subprocess.Popen(
            [str(BIN / "phase2"), "run", "--from", "D", "--to", "D", "--as-of", AS_OF],
            env=other.env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        written = "select count(*) from phase2.model_changes where model in ('booking_core', 'booking_contact')"
        for _ in range(6000):
            if other.ops(written)[0][0]:
                break
            assert runner.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        os.killpg(runner.pid, signal.SIGKILL)
        runner.wait(30)
        for _ in range(100):  # the server needs a moment to see that its client is gone
            if other.statuses()["D"] == "INTERRUPTED":
                break
            time.sleep(0.1)
        assert other.statuses()["D"] == "INTERRUPTED"
        assert other.phase2("run", "--from", "E", "--to", "E", "--as-of", AS_OF).returncode == 1

        done = other.phase2("run", "--from", "D", "--to", "E", "--as-of", AS_OF)
        assert done.returncode == 0, done.stderr[-2000:]
        assert other.statuses() == dict.fromkeys("ABCDE", "PASS")
        assert difference(shop.fingerprint("ops", ["public"]), other.fingerprint("ops", ["public"])) == []
        for source in ("balisnap", "bstadmin"):
            assert difference(untouched[source], other.fingerprint(source)) == []
    finally:
        other.drop()


@pytest.mark.long
def test_a_failed_gate_holds_the_batches_after_it_or_rolls_back(prefect_url: str, tmp_path: Path) -> None:
    shop = Shop(os.environ["TEST_PG_URL"], tmp_path, prefect_url)
    try:
        done = shop.phase2("demo", "--bookings", BOOKINGS, "--as-of", AS_OF, "--scenario", "duplicate-pax")
        assert done.returncode == 1, done.stderr[-3000:]
        assert "D-03" in done.stderr
        assert shop.statuses() == {"A": "PASS", "B": "PASS", "C": "PASS", "D": "FAIL", "E": "HOLD"}

        done = shop.phase2("run", "--from", "E", "--to", "E", "--as-of", AS_OF)
        assert done.returncode == 1
        assert shop.ops("select count(*) from public.payment_event") == [(0,)]

        done = shop.phase2("run", "--from", "D", "--to", "D", "--as-of", AS_OF, "--on-fail", "rollback")
        assert done.returncode == 1
        assert shop.statuses()["D"] == "ROLLED_BACK"
        assert shop.ops("select count(*) from public.booking_core") == [(0,)]
    finally:
        shop.drop()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("alter table public.bookings rename column tour_date to the_day", ("bookings", "tour_date", "missing")),
        ("alter table public.bookings alter column total_price type text", ("bookings", "total_price", "text")),
        ("drop table public.booking_finance_items", ("booking_finance_items",)),
    ],
)
def test_a_source_that_is_not_as_expected_is_exit_2_and_nothing_is_written(
    prefect_url: str, tmp_path: Path, fault: str, words: tuple[str, ...]
) -> None:
    shop = Shop(os.environ["TEST_PG_URL"], tmp_path, prefect_url)
    try:
        for role in ("balisnap", "bstadmin"):
            with postgres.connect(shop.urls[role], autocommit=True) as conn:
                conn.execute("set search_path = public")
                conn.execute((SQL / "sources" / f"{role}.sql").read_bytes())
        with postgres.connect(shop.urls["bstadmin"], autocommit=True) as conn:
            conn.execute(fault)
        done = shop.phase2("run", "--from", "A", "--to", "E", "--as-of", AS_OF)
        assert done.returncode == 2
        for word in ("bstadmin", *words):
            assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert shop.statuses()["A"] == "ERROR"
        assert shop.ops("select relname from pg_catalog.pg_class where relnamespace = 'public'::regnamespace") == []
    finally:
        shop.drop()


def test_an_unreachable_source_in_a_later_run_leaves_the_bridge_as_it_was(shop: Shop) -> None:
    before = shop.ops("select count(*), max(xmin::text) from public.booking_core")
    nowhere = "postgresql://reader:very-secret@127.0.0.1:1/bstadmin"
    done = shop.phase2("run", "--from", "C", "--to", "E", "--as-of", AS_OF, BSTADMIN_DB_URL=nowhere)
    assert done.returncode == 2
    assert "127.0.0.1:1/bstadmin" in done.stderr
    assert "very-secret" not in done.stdout + done.stderr
    assert shop.statuses()["C"] == "ERROR"
    assert shop.ops("select count(*), max(xmin::text) from public.booking_core") == before
    done = shop.phase2("run", "--from", "C", "--to", "C", "--as-of", AS_OF)
    assert done.returncode == 0, done.stderr[-2000:]
    assert shop.statuses() == dict.fromkeys("ABCDE", "PASS")


def test_the_sources_are_as_they_were_before_the_demo(shop: Shop) -> None:
    """After the demo, reruns, recons, a worker's run, all rollbacks and a source that could not be reached."""
    for source, before in shop.untouched.items():
        assert before.content, source
        assert difference(before, shop.fingerprint(source)) == []


def test_a_server_that_fails_the_precheck_is_not_touched(prefect_url: str, tmp_path: Path) -> None:
    """Blueprint 6.2: only when every check is PASS does 001 run; here the disk is fuller than A-00 allows."""
    shop = Shop(os.environ["TEST_PG_URL"], tmp_path, prefect_url)
    try:
        for role in ("balisnap", "bstadmin"):
            with postgres.connect(shop.urls[role], autocommit=True) as conn:
                conn.execute("set search_path = public")
                conn.execute((SQL / "sources" / f"{role}.sql").read_bytes())
        done = shop.phase2("run", "--from", "A", "--to", "A", PHASE2_DISK_USED_BYTES="800")
        assert done.returncode == 1
        assert "A-00" in done.stderr
        assert shop.statuses() == {"A": "FAIL", "B": "HOLD", "C": "HOLD", "D": "HOLD", "E": "HOLD"}
        assert shop.ops("select relname from pg_catalog.pg_class where relnamespace = 'public'::regnamespace") == []
    finally:
        shop.drop()
