"""A sample shop that went through batches A to E without Prefect, and copies of it to break."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from uuid import uuid4

import psycopg

from bridge import gates, postgres, reports, runlog, sources, steps
from bridge.batches import between
from bridge.settings import Databases

AS_OF = date(2026, 11, 22)
_PLACES = ("ops", "balisnap", "bstadmin")


class Shop:
    """A migrated sample shop in three databases of fixed names, and what each batch's gates said of it.

    The names are fixed because dbt's partial parse is bound to them: test runs side by side take turns (`open`).
    """

    def __init__(self, server: str, prefix: str, bookings: int, seed: int = 3) -> None:
        self.server = server
        self.prefix = prefix
        self.bookings = bookings
        self.seed = seed
        self.names = {place: f"{prefix}_{place}" for place in _PLACES}
        self.verdicts: dict[str, gates.Verdict] = {}

    def url(self, place: str = "ops") -> str:
        return postgres.with_database(self.server, self.names[place])

    def run(self) -> steps.Run:
        databases = Databases(self.url(), self.url("balisnap"), self.url("bstadmin"), None)
        return steps.Run(run_id=runlog.uuid7(), databases=databases, as_of=AS_OF)

    @contextmanager
    def open(self, written: Path) -> Iterator[Shop]:
        """Made and migrated; dropped at the end, with every copy."""
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute("select pg_advisory_lock(hashtext(%s))", (f"the shop {self.prefix}",))
            self._drop(conn)
            self._migrate(conn, written)
            yield self
            self._drop(conn)

    def _drop(self, conn: psycopg.Connection) -> None:
        rows = conn.execute("select datname from pg_database where starts_with(datname, %s)", (f"{self.prefix}_",))
        for (name,) in rows.fetchall():
            conn.execute(postgres.statement("drop database {} with (force)", name))

    def _migrate(self, conn: psycopg.Connection, written: Path) -> None:
        for name in self.names.values():
            conn.execute(postgres.statement("create database {}", name))
        self.sample("healthy")
        steps.bootstrap(self.url())
        run = self.run()
        for batch in between("A", "E"):
            steps.start(run, batch)
            for step in batch.plan:
                steps.execute(run, batch, step)
            with run.connect() as ops:
                verdict = gates.evaluate(ops, batch.code, run.run_id)
                reports.write(ops, verdict, written)
                steps.set_state(ops, run, batch.code, verdict.result)
            self.verdicts[batch.code] = verdict

    def sample(self, scenario: str) -> None:
        """Fill the sources."""
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
        name = f"{self.prefix}_{uuid4().hex[:12]}"
        with postgres.connect(self.server, autocommit=True) as conn:
            conn.execute(postgres.statement("create database {} template {}", name, self.names["ops"]))
            try:
                with postgres.connect(postgres.with_database(self.server, name), autocommit=True) as ops:
                    ops.execute("set session_replication_role = replica")
                    yield ops
            finally:
                conn.execute(postgres.statement("drop database {} with (force)", name))
