"""Batch F against a real service: forward to PASS, each gate by the fault that fails it, rollback with nothing lost.

Its gates look at traffic and at a service, which the shop of the fault matrix does not have: their faults are here.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from bridge import flags, gates, postgres, steps
from bridge.batches import BATCHES
from bridge.core_settings import core_settings
from bridge.ingest_client import send, signed
from bridge.settings import ROOT
from tests.serving import ADMIN, SECRET, TOKEN, event
from tests.shop import Shop

F = BATCHES["F"]
FLAGS = {"INGEST_WEBHOOK_ENABLED", "INGEST_QUEUE_ENABLED", "INGEST_REPLAY_ENABLED", "WEB_EMIT_BOOKING_EVENT_ENABLED",
         "EMAIL_PIPELINE_CORE_ENABLED"}  # fmt: skip


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shop(written: Path) -> Iterator[Shop]:
    with Shop(os.environ["TEST_PG_URL"], f"batchf{os.environ.get('PYTEST_XDIST_WORKER', '')}", bookings=120).open(
        written
    ) as made:
        yield made


@contextmanager
def serving(ops: str, home: Path, **more: str) -> Iterator[str]:
    """`core_api serve` on this database, with a Valkey and a port of its own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {
        "OPS_DB_URL": ops,
        "BALISNAP_DB_URL": postgres.with_database(ops, "balisnap"),
        "BSTADMIN_DB_URL": postgres.with_database(ops, "bstadmin"),
        "PHASE2_HOME": str(home),
        "CORE_API_PORT": str(port),
        "INGEST_SERVICE_TOKEN": TOKEN,
        "INGEST_SERVICE_SECRET": SECRET,
        "CORE_API_ADMIN_TOKEN": ADMIN,
        "INGEST_SWEEP_SECONDS": "0.5",
        "INGEST_RECOVER_SECONDS": "1",
        "PYTHONPATH": str(ROOT),
        **more,
    }
    with (home / "service.log").open("ab") as said:
        process = subprocess.Popen([sys.executable, "-m", "core_api", "serve"], env=environment, stderr=said)
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or _answers(url), 30)
        assert process.poll() is None, (home / "service.log").read_text()
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


@contextmanager
def told(url: str, **more: str) -> Iterator[None]:
    """The environment of who calls the service there."""
    ours = {
        "CORE_API_URL": url,
        "INGEST_SERVICE_TOKEN": TOKEN,
        "INGEST_SERVICE_SECRET": SECRET,
        "CORE_API_ADMIN_TOKEN": ADMIN,
        **more,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ours.items():
            patch.setenv(name, value)
        core_settings.cache_clear()
        yield
    core_settings.cache_clear()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url + "/health/db", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def until(true: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def service(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    # as `make serve`: the environment says on, so that F has to shut it first
    on = {name: "true" for name in FLAGS if name.startswith("INGEST")}
    with serving(shop.url(), tmp_path_factory.mktemp("service"), **on) as url, told(url):
        yield url


def drilled(conn: psycopg.Connection) -> None:
    """What the drills of a replay and of a rollback leave behind when they pass."""
    conn.execute(
        "insert into phase2.drills (drill_id, drill, passed, measured, started_at) values"
        " (gen_random_uuid(), 'replay', true, '{\"audit_rows\": 3}', now()),"
        " (gen_random_uuid(), 'rollback', true, '{\"seconds_to_old_path\": 3}', now())"
    )


def accept(**changes: Any) -> str:
    with httpx.Client(trust_env=False) as client:
        answer = send(client, signed(core_settings(), event(**changes), uuid4().hex))
    assert answer.status_code == 202, answer.text
    return answer.json()["data"]["eventId"]


def pending(run: steps.Run) -> int:
    with run.connect() as conn:
        row = conn.execute(
            "select count(*) from public.ingest_event_log where phase2.is_pending(process_status, next_retry_at)"
        ).fetchone()
    assert row
    return row[0]


@pytest.fixture(scope="module")
def forward(shop: Shop, service: str, written: Path) -> gates.Verdict:
    """F, as it is run: some traffic was there before it."""
    run = shop.run()
    for _ in range(5):
        accept()
    until(lambda: not pending(run), 15)
    with run.connect() as conn:
        drilled(conn)
    return shop.migrate(run, F, written)


def test_f_switches_everything_on_and_passes(shop: Shop, service: str, forward: gates.Verdict) -> None:
    assert {g.gate_id: g.status for g in forward.gates if g.status != "PASS"} in ({}, {"F-03": "N/A"})
    assert {g.gate_id for g in forward.gates} >= set(F.gates)
    with shop.run().connect() as conn:
        rows = flags.read(conn)
        assert {flag for flag, row in rows.items() if row.enabled} == FLAGS
        assert rows["WEB_EMIT_BOOKING_EVENT_ENABLED"].rollout.percentage < 100
        assert rows["EMAIL_PIPELINE_CORE_ENABLED"].rollout.channels
        seen = conn.execute("select item from phase2.gate_inputs where gate_id = 'F-00'").fetchall()
    assert {("token and secret are the emitters'",), ("a worker is there",), ("INGEST_QUEUE_ENABLED",)} <= set(seen)
