"""A database that is ready for ingestion, the service in front of it, and an emitter that signs."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import uvicorn

from bridge import gates, ledger, postgres, runlog, signature, steps, ui_gate, warehouse
from bridge.core_settings import core_settings
from bridge.settings import SQL
from core_api.app import Queue, create_app

PATH = "/v1/ingest/bookings/events"
TOKEN, SECRET, ADMIN = "t" * 40, "s" * 40, "a" * 40
ENVIRONMENT = {
    "INGEST_SERVICE_TOKEN": TOKEN,
    "INGEST_SERVICE_SECRET": SECRET,
    "CORE_API_ADMIN_TOKEN": ADMIN,
    "INGEST_WEBHOOK_ENABLED": "true",
    "INGEST_QUEUE_ENABLED": "true",
    "INGEST_REPLAY_ENABLED": "true",
}


@contextmanager
def environment() -> Iterator[None]:
    """The service's environment: tokens and secret of ours, everything switched on."""
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update(ENVIRONMENT)
    core_settings.cache_clear()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        core_settings.cache_clear()


@contextmanager
def empty(server: str) -> Iterator[str]:
    """An ops database with our own state and nothing else; dropped in the end."""
    with _own(server, "template1") as url:
        steps.bootstrap(url)
        yield url


@contextmanager
def ready(server: str) -> Iterator[str]:
    """The same with what batches A and B make, and the rulebook."""
    with _own(server, _ground(server)) as url:
        yield url


@contextmanager
def _own(server: str, template: str) -> Iterator[str]:
    name = f"ingest_{uuid4().hex[:12]}"
    with postgres.connect(server, autocommit=True) as admin:
        admin.execute(postgres.statement("create database {} template {}", name, template))
        try:
            yield postgres.with_database(server, name)
        finally:
            admin.execute(postgres.statement("drop database {} with (force)", name))


@lru_cache
def _ground(server: str) -> str:
    """The database that the others are copies of: made once a worker, by a name that stays (tests/pipeline.py)."""
    name = f"p2_ground{os.environ.get('PYTEST_XDIST_WORKER', '')}"
    url = postgres.with_database(server, name)
    with postgres.connect(server, autocommit=True) as admin:
        admin.execute(postgres.statement("drop database if exists {} with (force)", name))
        admin.execute(postgres.statement("create database {}", name))
    steps.bootstrap(url)
    with postgres.connect(url, autocommit=True) as conn:
        for script in sorted((SQL / "phase2").glob("0[01]*.sql")):
            conn.execute(script.read_bytes())
    warehouse.build(url, "ground")
    return name


@contextmanager
def back_office(server: str) -> Iterator[str]:
    """A bstadmin without a booking; dropped in the end."""
    name = f"bstadmin_{uuid4().hex[:12]}"
    url = postgres.with_database(server, name)
    with postgres.connect(server, autocommit=True) as admin:
        admin.execute(postgres.statement("create database {}", name))
        try:
            with postgres.connect(url, autocommit=True) as conn:
                conn.execute("set search_path = public")
                conn.execute((SQL / "sources" / "bstadmin.sql").read_bytes())
            yield url
        finally:
            admin.execute(postgres.statement("drop database {} with (force)", name))


@contextmanager
def service(
    ops_url: str,
    queue: Callable[[], Queue] | None = None,
    bstadmin_url: str | None = None,
    bstadmin_write_url: str | None = None,
) -> Iterator[str]:
    """The app under uvicorn in a thread, on a port of its own; its URL. The environment is the caller's."""
    app = create_app(ops_url=ops_url, bstadmin_url=bstadmin_url, bstadmin_write_url=bstadmin_write_url, queue=queue)
    config = uvicorn.Config(app, port=0, loop="uvloop", http="httptools", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the service did not start"
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(15)
    assert not thread.is_alive(), "the service did not stop"


def event(**changes: Any) -> dict[str, Any]:
    """A valid event with a ref of its own; `booking__adult=3` changes a nested field, `...` removes one."""
    made: dict[str, Any] = {
        "payloadVersion": "v1",
        "eventType": "CREATED",
        "eventTime": "2026-11-22T08:30:00.250Z",
        "source": "GYG",
        "externalBookingRef": f"GYG{uuid4().hex[:12].upper()}",
        "customer": {"name": "Made Wirawan", "email": "made@balimail.id", "phone": "+6281234567"},
        "booking": {
            "tourDate": "2026-12-24",
            "tourTime": "08:00",
            "adult": 2,
            "child": 1,
            "currency": "USD",
            "totalPrice": 120.5,
            "pickupLocation": "Hotel Ubud",
            "meetingPoint": None,
            "note": None,
        },
        "raw": {"providerPayload": {"id": 1}},
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = made
        for parent in parents:
            target = target[parent]
        if value is ...:
            del target[name]
        else:
            target[name] = value
    return made


def signed(body: bytes, *, secret: str = SECRET, at: datetime | None = None, **headers: str | None) -> dict[str, str]:
    """The emitter's headers for a body. `headers` (with `_` for `-`) replace them before signing; None removes one."""
    made = {
        "authorization": f"Bearer {TOKEN}",
        "content-type": "application/json",
        "x-signature-algorithm": signature.ALGORITHM,
        "x-timestamp": (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "x-nonce": uuid4().hex,
        "x-idempotency-key": uuid4().hex,
    }
    made |= {name.replace("_", "-"): value for name, value in headers.items()}  # type: ignore[misc]
    made.setdefault(
        "x-signature",
        signature.sign(
            secret,
            "POST",
            PATH,
            made["x-timestamp"] or "",
            made["x-nonce"] or "",
            made["x-idempotency-key"] or "",
            signature.digest(body),
        ),
    )
    return {name: value for name, value in made.items() if value is not None}


def post(client: httpx.Client, content: Any, **headers: Any) -> httpx.Response:
    """Send an event, or bytes as they are, signed."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return client.post(PATH, content=body, headers=signed(body, **headers))


def rows(url: str, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """What a statement returns, committed."""
    return _connection(url).execute(query.encode(), parameters or None).fetchall()


@lru_cache(maxsize=1)
def _connection(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True)


def ui_checked(conn: psycopg.Connection) -> None:
    """As after a UI check in which nothing has drifted, without a browser."""
    run_id = runlog.uuid7()
    gates.record_inputs(conn, run_id, "G-07", [("overview-desktop", True, None)])
    ledger.append(conn, "ui", run_id=run_id, body={"bound_to": ui_gate.bound_to(conn, ui_gate.read())})
