"""A sample shop that went through batches A to E without Prefect, and copies of it to break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from bridge import gates, postgres, rollback, runlog, sources, steps
from bridge.batches import BACKFILL, Batch, batch, between
from bridge.settings import Databases, settings
from tests.pipeline import NAMES

AS_OF = date(2026, 11, 22)


class Shop:
    """A migrated sample shop in three databases of fixed names, and what each batch's gates said of it.

    They have the names of tests/pipeline.py: test runs side by side take turns (`open`).
    """

    def __init__(self, server: str, bookings: int, seed: int = 3) -> None:
        self.server = server
        self.bookings = bookings
        self.seed = seed
        self.names = NAMES
        self.prefix = f"{NAMES['ops']}_"  # of copies
        self.done = f"{self.prefix}done"
        self.verdicts: dict[str, gates.Verdict] = {}

    def stages(self) -> None:
        """Keep copies of the state before batches C, D and E: what the rollbacks leave, with everything else made."""
        for code in reversed(BACKFILL[BACKFILL.index("C") :]):
            rollback.roll_back(self.run(), batch(code))
            self._copy(self.names["ops"], f"{self.prefix}before_{code.lower()}")

    def back_to(self, code: str) -> None:
        """The ops database as it was before this batch."""
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute(postgres.statement("drop database {} with (force)", self.names["ops"]))
        self._copy(f"{self.prefix}before_{code.lower()}", self.names["ops"])

    def _copy(self, template: str, name: str) -> None:
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute(postgres.statement("create database {} template {}", name, template))

    def url(self, place: str = "ops") -> str:
        return postgres.with_database(self.server, self.names[place])

    def run(self) -> steps.Run:
        databases = Databases(self.url(), self.url("balisnap"), self.url("bstadmin"), None)
        return steps.Run(run_id=runlog.uuid7(), databases=databases, as_of=AS_OF)

    @contextmanager
    def open(self, written: Path) -> Iterator[Shop]:
        """Made and migrated; dropped at the end, with every copy."""
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute("select pg_advisory_lock(hashtext(%s))", (f"the shop {self.names['ops']}",))
            self._drop(conn)
            self._migrate(conn, written)
            self._copy(self.names["ops"], self.done)
            yield self
            self._drop(conn)

    def _drop(self, conn: psycopg.Connection) -> None:
        copies = conn.execute(
            "select datname from pg_database where starts_with(datname, %s)", (self.prefix,)
        ).fetchall()
        for name in (*self.names.values(), *(copy for (copy,) in copies)):
            conn.execute(postgres.statement("drop database if exists {} with (force)", name))

    def _migrate(self, conn: psycopg.Connection, written: Path) -> None:
        for name in self.names.values():
            conn.execute(postgres.statement("create database {}", name))
        self.fill("healthy")
        steps.bootstrap(self.url())
        run = self.run()
        for one in between("A", "E"):
            self.verdicts[one.code] = self.migrate(run, one, written)

    def migrate(self, run: steps.Run, one: Batch, written: Path) -> gates.Verdict:
        """One batch through its door, its steps, its gates and its report; GateFailed when the door is shut."""
        steps.begin(run, one)
        for step in one.plan:
            steps.execute(run, one, step)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PHASE2_REPORTS", str(written))
            settings.cache_clear()
            verdict = steps.conclude(run, one).verdict
        settings.cache_clear()
        return verdict

    def fill(self, scenario: str) -> None:
        """Make the sources anew, as this scenario has them."""
        sources.create(
            self.url("balisnap"),
            self.url("bstadmin"),
            bookings=self.bookings,
            seed=self.seed,
            scenario=scenario,
            as_of=AS_OF,
        )

    @contextmanager
    def clone(self) -> Iterator[psycopg.Connection]:
        """A copy of the ops database to break; foreign keys look away (replica), as after a restore gone wrong."""
        name = f"{self.prefix}{uuid4().hex[:12]}"
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute(postgres.statement("create database {} template {}", name, self.done))
            try:
                with postgres.connect(postgres.with_database(self.server, name), autocommit=True) as ops:
                    ops.execute("set session_replication_role = replica")
                    yield ops
            finally:
                conn.execute(postgres.statement("drop database {} with (force)", name))
