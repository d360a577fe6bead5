"""Real servers for the tests: the embedded PostgreSQL, and the machine's own 15 or later where there is one."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import httpx
import pytest
from psycopg import sql

from bridge import embedded, postgres
from bridge.settings import ROOT

_HOME = ROOT / ".phase2" / "tests"
_presence: IO[str]
# Each file is one worker's: those that take minutes begin first, so that none of them is left alone in the end.
_LONGEST = (
    "follow", "flows", "rollback", "faults", "rerun", "batch_f", "door", "concurrent_life", "crashes",
    "ingest_outages", "differential", "console", "explain", "batch_h", "batch_g", "guardrails", "gates",
)  # fmt: skip
_SYSTEM = sorted(Path("/usr/lib/postgresql").glob("1[5-9]/bin/initdb"))


def pytest_configure(config: pytest.Config) -> None:
    """Name the servers in the environment, so that every test and every process that it starts finds them."""
    _come_in()
    for name in ("OPS_DB_URL", "BALISNAP_DB_URL", "BSTADMIN_DB_URL", "CHANNEL_DB_URL"):
        os.environ.pop(name, None)  # tests make their own databases: never those of the shell
    os.environ["PHASE2_ENV"] = "local"  # a test that is about a policy says which
    if "TEST_PG_URL" not in os.environ:
        os.environ["TEST_PG_URL"] = _server(_HOME / "embedded")
    if "TEST_PG15_URL" not in os.environ and _SYSTEM:
        os.environ["TEST_PG15_URL"] = _server(_HOME / "system", _SYSTEM[0].parent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {f"test_{name}": place for place, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_unconfigure(config: pytest.Config) -> None:
    if not _last_one_out():
        return
    embedded.stop(_HOME / "embedded")
    if _SYSTEM:
        embedded.stop(_HOME / "system", _SYSTEM[0].parent)


def _come_in() -> None:
    """Test runs side by side share the servers; each holds a shared lock for as long as it lives."""
    _HOME.mkdir(parents=True, exist_ok=True)
    global _presence
    _presence = (_HOME / "users.lock").open("w")
    fcntl.flock(_presence, fcntl.LOCK_SH)


def _last_one_out() -> bool:
    try:
        fcntl.flock(_presence, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _server(home: Path, binaries: Path | None = None) -> str:
    """The maintenance URL of a server that neither waits for the disk, as what is killed here is never the machine, nor
    makes much of a password: tests connect twenty times a second, and each time it was hashed 4096 times on both sides.
    """
    url = postgres.with_database(embedded.ensure(home, binaries).ops, "postgres")
    with postgres.connect(url, autocommit=True) as conn:
        conn.execute("alter system set fsync = off")
        conn.execute("alter system set full_page_writes = off")
        conn.execute("select pg_reload_conf()")
        if conn.info.server_version >= 160000:
            conn.execute("set scram_iterations = 1")
            password = sql.Literal(conn.info.password)
            conn.execute(sql.SQL("alter role current_user password {}").format(password))
    return url


@pytest.fixture(params=["embedded", "system"])
def server(request: pytest.FixtureRequest) -> str:
    """A server's maintenance URL: each test runs on the embedded PostgreSQL and on the system's."""
    name = "TEST_PG_URL" if request.param == "embedded" else "TEST_PG15_URL"
    if name not in os.environ:
        pytest.skip("no PostgreSQL of the system's own here (install `postgresql-15` to test on it too)")
    return os.environ[name]


@pytest.fixture
def database(server: str) -> Iterator[str]:
    """An empty database of its own, dropped afterwards."""
    name = f"t_{uuid4().hex[:12]}"
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("create database {}", name))
    yield postgres.with_database(server, name)
    with postgres.connect(server, autocommit=True) as conn:
        conn.execute(postgres.statement("drop database {} with (force)", name))


@pytest.fixture(scope="session")
def sides() -> Iterator[Any]:
    """An ops database and a bstadmin for tests of writes (tests/write_parts.py); their bookings are each test's own."""
    from tests.write_parts import both_sides

    with both_sides() as made:
        yield made


@pytest.fixture(scope="module")
def url(ops: str) -> Iterator[str]:
    """The core API in front of the module's ops database."""
    from tests import serving  # FastAPI: for those who ask for it

    with serving.service(ops) as answering:
        yield answering


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    """A client of it."""
    with httpx.Client(base_url=url, timeout=20) as made:
        yield made
