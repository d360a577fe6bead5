"""The whole bridge without Prefect, for tests: empty databases in, batches run, rows out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date

from bridge import postgres, runlog, steps
from bridge.batches import between
from bridge.settings import SQL, Databases

# Fixed names: dbt keeps its partial parse as long as the profile stays the same.
_WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
NAMES = {role: f"p2_{role}{_WORKER}" for role in ("ops", "balisnap", "bstadmin")}


@dataclass
class Pipeline:
    """Three databases on one server."""

    databases: Databases

    def run(self, first: str, last: str, as_of: date, *, gates: bool = True, full: bool = True) -> list[steps.Outcome]:
        """Batches `first` to `last` through steps and gates, whatever the verdicts; as one run.

        Without `gates` only the bridge is built: measures and reports are left out. Unless `full` is false each batch
        is built and compared row by row, also where nothing has changed.
        """
        run = steps.Run(run_id=runlog.uuid7(), databases=self.databases, as_of=as_of, full=full)
        outcomes = []
        for batch in between(first, last):
            steps.start(run, batch)  # random sources fail gates: the doors are tested elsewhere
            for step in batch.plan:
                if gates or not step.target.startswith("gates_"):
                    steps.execute(run, batch, step)
            if not gates:
                continue
            outcomes.append(steps.conclude(run, batch))
        return outcomes

    def rows(self, sql: str, *parameters: object) -> list[tuple]:
        with postgres.connect(self.databases.ops, read_only=True) as conn:
            return conn.execute(sql, parameters or None).fetchall()


# What a careless administrator may have set for every session of a database; no result may depend on it.
_HOSTILE = (
    "alter database {} set timezone = 'America/St_Johns'",
    "alter database {} set datestyle = 'German'",
    "alter database {} set search_path = 'pg_temp'",
    "alter database {} set extra_float_digits = 0",
    "alter database {} set default_transaction_isolation = 'serializable'",
)


@contextmanager
def fresh(server: str, *, empty: bool = False, hostile: bool = False) -> Iterator[Pipeline]:
    """Ops and source databases (the sources with their schema unless `empty`), dropped before and after.

    `hostile`: every session of every database starts with odd settings.
    """
    urls = {role: postgres.with_database(server, name) for role, name in NAMES.items()}
    _drop(server)
    with postgres.connect(server, autocommit=True) as conn:
        for name in NAMES.values():
            conn.execute(postgres.statement("create database {}", name))
            for setting in _HOSTILE if hostile else ():
                conn.execute(postgres.statement(setting, name))
    for role in ("balisnap", "bstadmin") if not empty else ():
        with postgres.connect(urls[role], autocommit=True) as conn:
            conn.execute("set search_path = public")
            conn.execute((SQL / "sources" / f"{role}.sql").read_bytes())
    steps.bootstrap(urls["ops"])
    try:
        yield Pipeline(Databases(channel=None, **urls))
    finally:
        _drop(server)


def _drop(server: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        for name in NAMES.values():
            conn.execute(postgres.statement("drop database if exists {} with (force)", name))
