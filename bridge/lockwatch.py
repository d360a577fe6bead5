"""Which locks our sessions hold on tables, and for how long: seen from outside, by looking again and again.

What is held for less than the time between two looks may go unseen. A lock that is seen counts until the look that no
longer finds it: what is said is never too short for one that was seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from bridge import legacy, postgres
from bridge.errors import plain

LOOK_EVERY = 0.05  # seconds; a look takes about a millisecond

# Tables of this database that sessions have locked, transaction by transaction.
_HELD = """
select
    l.pid::text || ' ' || l.virtualtransaction,
    pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
    l.mode
from pg_catalog.pg_locks as l
join pg_catalog.pg_database as d on d.oid = l.database and d.datname = pg_catalog.current_database()
join pg_catalog.pg_stat_activity as a on a.pid = l.pid
join pg_catalog.pg_class as c on c.oid = l.relation and c.relkind in ('r', 'p', 'v', 'm', 'f')
join pg_catalog.pg_namespace as n
    on n.oid = c.relnamespace and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
where l.locktype = 'relation' and l.granted
"""
_LOCKS = _HELD + "and l.pid <> pg_catalog.pg_backend_pid() and a.application_name like %s"
_OWN = _HELD + "and l.pid = pg_catalog.pg_backend_pid()"
OURS = "phase2%"

# What an application's statement waits for, by the lock that it takes itself.
_WAITS_FOR = {
    "AccessShareLock": {"AccessExclusiveLock"},
    "RowShareLock": {"ExclusiveLock", "AccessExclusiveLock"},
    "RowExclusiveLock": {"ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock"},
}


@dataclass(frozen=True)
class Lock:
    """One kind of lock on one table: the longest time that one transaction held it."""

    place: str
    relation: str
    mode: str
    seconds: float

    @property
    def blocks(self) -> str:
        """What an application cannot do meanwhile."""
        if self.mode in _WAITS_FOR["AccessShareLock"]:
            return "reads and writes"
        return "writes" if self.mode in _WAITS_FOR["RowExclusiveLock"] else "nothing"


@dataclass
class Seen:
    """What was seen so far; `problem` when the watch ended before its time: then it proves nothing."""

    longest: dict[tuple[str, str, str], float] = field(default_factory=dict)
    problem: str | None = None

    @property
    def locks(self) -> list[Lock]:
        return [Lock(*key, round(seconds, 3)) for key, seconds in sorted(self.longest.items())]


@contextmanager
def watch(places: Mapping[str, str], *, application: str = OURS) -> Iterator[Seen]:
    """Look at these databases (name, URL) until the block ends. Sessions are told by `application` (a LIKE pattern)."""
    seen, done = Seen(), threading.Event()
    watchers = [
        threading.Thread(target=_look, args=(name, url, application, seen, done), daemon=True)
        for name, url in places.items()
    ]
    for watcher in watchers:
        watcher.start()
    try:
        yield seen
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()


def _look(place: str, url: str, application: str, seen: Seen, done: threading.Event) -> None:
    since: dict[tuple[str, str, str], float] = {}
    try:
        with postgres.connect(url, application_name="phase2-watch", read_only=True, autocommit=True) as conn:
            last = False
            while not last:
                last = done.wait(LOOK_EVERY)  # once more at the end: it closes what is still held
                held = set(conn.execute(_LOCKS, (application,)).fetchall())
                now = time.monotonic()
                for transaction, relation, mode in held | since.keys():
                    began = since.setdefault((transaction, relation, mode), now)
                    key = (place, relation, mode)
                    seen.longest[key] = max(seen.longest.get(key, 0.0), now - began)
                since = {lock: began for lock, began in since.items() if lock in held}
    except Exception as error:  # a thread's error reaches nobody else
        seen.problem = f"{place}: {plain(error)}"


@dataclass(frozen=True)
class Wait:
    """How long one of the legacy applications' statements (gate A-03) would wait for us, and on which tables."""

    source: str
    name: str
    relations: tuple[str, ...]
    seconds: float
    problem: str | None = None


def waits(sources: Mapping[str, str], locks: Iterable[Lock]) -> list[Wait]:
    """Of each statement of the A-03 file: the longest lock of ours that it would have waited for.

    Which tables it locks, and how, its own plan says (`explain` takes the locks of the statement). A table counts where
    it stands in the statement's source, and also in the ops database when that has one of the same name.
    """
    found, taken = [], list(locks)
    for source, url in sources.items():
        with postgres.connect(url, application_name="phase2-legacy", read_only=True) as conn:
            for statement in legacy.statements():
                if statement.source != source:
                    continue
                own, problem = _locks_of(conn, statement.text)
                held = [
                    lock
                    for lock in taken
                    if lock.place in (source, "ops")
                    and any(name == lock.relation and lock.mode in _WAITS_FOR.get(mode, ()) for name, mode in own)
                ]
                found.append(
                    Wait(
                        source,
                        statement.name,
                        tuple(sorted({name for name, _ in own})),
                        max((lock.seconds for lock in held), default=0.0),
                        problem,
                    )
                )
    return found


def _locks_of(conn: psycopg.Connection, text: str) -> tuple[set[tuple[str, str]], str | None]:
    """(table, mode) of what a statement locks; and why that cannot be said."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(f"explain {text}".encode())
            return {(relation, mode) for _, relation, mode in conn.execute(_OWN).fetchall()}, None
    except psycopg.Error as error:
        return set(), plain(error)
