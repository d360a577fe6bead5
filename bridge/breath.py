"""Breath: a run waits while the ops server suffers, and says why.

Asked before each step, each table of a landing and each node of dbt, so also before each range of a first load
(bridge/ranges.py). Nothing of ours is open then but a landing's transactions, and dbt's other node where it has two
threads. Sessions of this project, its service too, are not looked at: events wait for a run by design. Where the server
cannot be read, it is told once and nothing waits: what is really wrong with it the step finds out by itself.

    sessions       others' at work, on the whole server
    lock waits     others' in the ops database, of a second and more, whoever holds the lock
    replication    of the replica that is furthest behind
    WAL            of the whole server, a second, since the run was let through last: the pause brings the rate down
    autovacuum     dead rows of a canonical table, beyond twice what autovacuum itself waits for
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import psycopg

from bridge import postgres, runlog, stop
from bridge.errors import CouldNotRun, plain
from bridge.settings import settings

Progress = Callable[[str], None]

LOOK_EVERY = 1.0  # seconds, while it waits
_STANDS_FOR = 0.5  # a look that found nothing: dbt has nodes of a few hundredths of a second

_READING = """
select
    (
        select count(*) from pg_catalog.pg_stat_activity as a
        where
            a.state = 'active' and a.backend_type = 'client backend' and a.pid <> pg_catalog.pg_backend_pid()
            and a.application_name not like 'phase2%%'
    ) as sessions,
    (
        select count(distinct l.pid) from pg_catalog.pg_locks as l
        join pg_catalog.pg_stat_activity as a on a.pid = l.pid
        where
            not l.granted and l.waitstart < clock_timestamp() - interval '1 second'
            and a.datname = current_database() and a.application_name not like 'phase2%%'
            -- who looks into our working tables waits until they are made
            and not exists (
                select 1 from pg_catalog.pg_class as c
                join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
                where c.oid = l.relation and n.nspname ~ '^(landing|dbt)_'
            )
    ) as lock_waits,
    (
        select coalesce(max(extract(epoch from r.replay_lag)), 0)::double precision
        from pg_catalog.pg_stat_replication as r
    ) as replica_seconds,
    pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::double precision as wal_bytes,
    (
        select s.relname || ' has ' || s.n_dead_tup from pg_catalog.pg_stat_all_tables as s
        join pg_catalog.pg_class as c on c.oid = s.relid
        where
            s.schemaname = 'public'
            and current_setting('autovacuum')::boolean -- off: waiting for it would be in vain
            and s.n_dead_tup > greatest(%(dead_rows)s, 2 * (
                current_setting('autovacuum_vacuum_threshold')::double precision
                + current_setting('autovacuum_vacuum_scale_factor')::double precision * greatest(c.reltuples, 0)
            ))
        order by s.n_dead_tup desc
        limit 1
    ) as dead_rows
"""


@dataclass
class Breath:
    """The breath of one step. `take` may be called from several threads: one looks, the others wait with it."""

    ops_url: str
    run_id: UUID
    batch: str
    step: str
    progress: Progress
    pauses: list[str] = field(default_factory=list)
    _waited: float = 0.0
    _let_through: tuple[float, float] | None = None  # when (monotonic), and how many bytes of WAL there were
    _conn: psycopg.Connection | None = None
    _is_blind: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> None:
        """Return at once, or when the server has recovered.

        CouldNotRun when the step has waited for PHASE2_MAX_PAUSE_SECONDS in all; Stopped when somebody asks for it.
        """
        with self._lock:
            if self._let_through and time.monotonic() - self._let_through[0] < _STANDS_FOR:
                return
            reasons = self._look()
            if reasons:
                self._pause(reasons)

    def close(self) -> None:
        """The step has ended."""
        if self._conn is not None:
            self._conn.close()

    def _pause(self, reasons: list[str]) -> None:
        began, told = time.monotonic(), "; ".join(reasons)
        self.progress(f"{self.batch}  pausing: {told}")
        pause_no = self._note_begin(told)
        try:
            while reasons:
                longest = settings().phase2_max_pause_seconds
                if self._waited + time.monotonic() - began >= longest:
                    told = "; ".join(reasons)
                    raise CouldNotRun(
                        f"the server has not recovered, and the step has paused for {longest:g} s: {told}",
                        where=f"batch {self.batch}, {self.step}, {postgres.describe(self.ops_url)}",
                        todo="Run it again at a quieter hour; docs/operations.md, Breath, has the limits.",
                    )
                stop.raise_if_asked(self.ops_url, self.batch)
                time.sleep(LOOK_EVERY)
                reasons = self._look()
                if reasons and _kinds("; ".join(reasons)) != _kinds(told):
                    self._note_end(pause_no)
                    told = "; ".join(reasons)
                    self.progress(f"{self.batch}  still pausing: {told}")
                    pause_no = self._note_begin(told)
        finally:
            seconds = time.monotonic() - began
            self._waited += seconds
            self.pauses.append(f"{seconds:.0f} s: {told}")
            self._note_end(pause_no)
        self.progress(f"{self.batch}  goes on after {seconds:.0f} s")

    def _look(self) -> list[str]:
        """What is over its limit now; lets through when nothing is."""
        chosen = settings()
        try:
            row = self._connected().execute(_READING, {"dead_rows": chosen.phase2_max_dead_rows}).fetchone()
        except (psycopg.Error, CouldNotRun) as error:
            self.close()
            self._conn = None
            if not self._is_blind:
                self._is_blind = True
                self.progress(f"how the server is cannot be seen: {plain(error)}")
            return []
        assert row is not None
        now, (sessions, lock_waits, replica_seconds, wal_bytes, dead_rows) = time.monotonic(), row
        since, bytes_then = self._let_through or (now, wal_bytes)
        wal_rate = (wal_bytes - bytes_then) / 1e6 / max(now - since, 0.001)
        reasons = []
        if sessions > chosen.phase2_max_active_sessions:
            reasons.append(f"{sessions} sessions of others are at work (limit {chosen.phase2_max_active_sessions})")
        if lock_waits > chosen.phase2_max_lock_waits:
            reasons.append(f"{lock_waits} sessions of others wait for a lock (limit {chosen.phase2_max_lock_waits})")
        if replica_seconds > chosen.phase2_max_replica_seconds:
            limit = chosen.phase2_max_replica_seconds
            reasons.append(f"a replica is {replica_seconds:.0f} s behind (limit {limit:g})")
        if wal_rate > chosen.phase2_max_wal_mb_per_second:
            limit = chosen.phase2_max_wal_mb_per_second
            reasons.append(f"{wal_rate:.0f} MB of WAL a second (limit {limit:g})")
        if dead_rows:
            limit = chosen.phase2_max_dead_rows
            reasons.append(f"autovacuum is behind: {dead_rows} dead rows (limit {limit})")
        if not reasons:
            self._let_through = (now, wal_bytes)
        return reasons

    def _connected(self) -> psycopg.Connection:
        if self._conn is None:
            self._conn = postgres.connect(self.ops_url, application_name="phase2-breath", autocommit=True)
        return self._conn

    def _note_begin(self, reason: str) -> int:
        row = (
            self._connected()
            .execute(
                "insert into phase2.pauses (run_id, batch, step, reason) values (%s, %s, %s, %s) returning pause_no",
                (self.run_id, self.batch, self.step, reason),
            )
            .fetchone()
        )
        assert row is not None
        return int(row[0])

    def _note_end(self, pause_no: int) -> None:
        try:
            self._connected().execute(
                "update phase2.pauses set ended_at = clock_timestamp() where pause_no = %s", (pause_no,)
            )
        except (psycopg.Error, CouldNotRun):
            self._conn = None  # the server is gone: a pause without an end is one of a run that was killed


def _kinds(reasons: str) -> str:
    """What is over its limit, without by how much."""
    return re.sub(r"[\d.]+", "", reasons)


@contextmanager
def over(
    ops_url: str, run_id: UUID, batch: str, step: str, progress: Progress, entry: runlog.Entry
) -> Iterator[Callable[[], None]]:
    """The breath of a step, whose log says when it paused and why; yields what to call before each piece of work."""
    breath = Breath(ops_url, run_id, batch, step, progress)
    try:
        yield breath.take
    finally:
        breath.close()
        if breath.pauses:
            entry.detail["pauses"] = breath.pauses


def under_way(conn: psycopg.Connection, run_id: UUID) -> str | None:
    """What a run that is at work waits for just now, since when; None when it does not."""
    row = conn.execute(
        "select p.reason || ', since ' || to_char(p.began_at, 'HH24:MI:SS') || ' UTC' from phase2.pauses as p"
        " where p.run_id = %s and p.ended_at is null order by p.pause_no desc limit 1",
        (run_id,),
    ).fetchone()
    return row[0] if row else None
