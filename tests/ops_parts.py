"""A shop whose back office can be read from both sides: small samples through batches C to E, and the read model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import httpx
import psycopg
from psycopg import sql

from bridge import flags, postgres, sources, warehouse
from bridge.settings import SQL, Databases
from tests import pipeline, serving

AS_OF = date(2026, 11, 23)
FLAG: flags.Flag = "OPS_READ_NEW_MODEL_ENABLED"


@contextmanager
def shop(bookings: int = 200) -> Iterator[Databases]:
    """Three databases, the bridge built, the read model and its indexes there."""
    with pipeline.fresh(os.environ["TEST_PG_URL"], empty=True) as made:
        dbs = made.databases
        sources.create(dbs.balisnap, dbs.bstadmin, bookings=bookings, seed=7, as_of=AS_OF)
        made.run("A", "E", AS_OF, gates=False)
        with postgres.connect(dbs.ops, autocommit=True) as conn:
            conn.execute((SQL / "phase2" / "020_add_ops_read_indexes.sql").read_bytes())
        warehouse.build(dbs.ops, "ops_read")
        yield dbs


def switch(ops: str, on: bool, **rollout: object) -> None:
    """The reads' flag, as a person sets it."""
    with postgres.connect(ops, autocommit=True) as conn:
        flags.change(conn, FLAG, on, reason="a test", rollout=flags.rollout_of(rollout))


def admin(actor: str = "ayu") -> dict[str, str]:
    return {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "STAFF", "x-actor": actor}


def items(client: httpx.Client, path: str = "/v1/ops/bookings", actor: str = "new", **asked: object) -> list[dict]:
    """All items of a list, page by page."""
    found: list[dict] = []
    while True:
        answered = client.get(path, params=asked, headers=admin(actor))
        assert answered.status_code == 200, answered.text
        page = answered.json()["data"]
        found += page["items"]
        if page["nextCursor"] is None:
            return found
        asked["cursor"] = page["nextCursor"]


def shadow_reads(conn: psycopg.Connection, read: str, count: int, *, slow: float = 1.0, **columns: object) -> None:
    """So many shadow reads, as the service keeps them."""
    row = {
        "read_name": read,
        "path": "/v1/ops",
        "kind": "shadow",
        "served_by": "legacy",
        "served_seconds": 0.1,
        "shadow_seconds": 0.1 * slow,
        "outcome": "same",
        "money": 1,
        "dates": 1,
        "heads": 1,
        **columns,
    }
    every = [sql.Identifier(name) for name in row]
    conn.execute(
        sql.SQL(
            "insert into phase2.shadow_reads (shadow_id, {}) select gen_random_uuid(), {} from generate_series(1, {})"
        ).format(sql.SQL(", ").join(every), sql.SQL(", ").join(map(sql.Placeholder, row)), sql.Literal(count)),
        row,
    )
