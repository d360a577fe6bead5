"""Watches the locks while a step runs, so that the migration never keeps another application waiting for long.

A second session looks at each database that the step holds locks in. When an application has waited for one of our
sessions for nearly `PHASE2_MAX_BLOCKING_SECONDS`, our statement is cancelled and the step backs off (`BackOff`). Steps
are idempotent and each of their transactions is whole (tests/test_crashes.py): a cancelled one is simply run again.
What we wait for ourselves, and foreign transactions that stay open, are told in a line of progress. Names and tables
only: no statement's text is read, it may hold personal data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from bridge import postgres
from bridge.errors import GateFailed, plain
from bridge.settings import settings

# Sessions that do a step's work. The step's log, the lock's holder and the watch itself never block anybody.
OURS = ("phase2-script", "phase2 landing", "phase2-dbt", "phase2-run")
OLD_TRANSACTION_SECONDS = 60.0  # told from then on; gate A-00 refuses to begin beside one of 15 minutes
_SECONDS_TO_CANCEL = 1.0  # a session that blocks on after it, idle in its transaction, is ended

# Who waits, for which of our sessions, for how long, for what; and our own waits, for whom.
_WAITS = """
with ours as materialized (
    select a.pid
    from pg_catalog.pg_stat_activity as a
    where a.datname = current_database() and a.usename = current_user and a.application_name = any(%(ours)s)
),

waiting as materialized (
    select
        l.pid,
        l.pid in (select o.pid from ours as o) as is_ours,
        l.mode,
        coalesce(l.relation::regclass::text, 'a row of ours') as relation,
        coalesce(extract(epoch from clock_timestamp() - l.waitstart), 0)::double precision as seconds,
        pg_catalog.pg_blocking_pids(l.pid) as blockers,
        coalesce(n.nspname ~ '^(landing|dbt)_|^rulebook$', false) as is_working_table
    from pg_catalog.pg_locks as l
    left join pg_catalog.pg_class as c on l.relation = c.oid
    left join pg_catalog.pg_namespace as n on c.relnamespace = n.oid
    where not l.granted and (l.database is null or l.database in (0, (
        select d.oid from pg_catalog.pg_database as d
        where d.datname = current_database()
    )))
)

select
    w.pid,
    w.is_ours,
    coalesce(nullif(a.application_name, ''), 'no name'),
    w.relation,
    w.mode,
    w.seconds,
    array(select o.pid from ours as o where o.pid = any(w.blockers)) as by_us,
    array(
        select b.pid || ' (' || coalesce(nullif(b.application_name, ''), 'no name') || ')'
        from pg_catalog.pg_stat_activity as b
        where b.pid = any(w.blockers) and b.pid not in (select o.pid from ours as o)
    ) as by_others
from waiting as w
inner join pg_catalog.pg_stat_activity as a on w.pid = a.pid
where
    w.is_ours
    or (
        -- who looks into our working tables is at work on the migration, and waits until they are made
        not w.is_working_table
        and a.application_name not like 'phase2%%' and coalesce(a.backend_type, '') in ('client backend', '')
    )
"""

_OLD = """
select a.pid, coalesce(nullif(a.application_name, ''), 'no name'), extract(epoch from now() - a.xact_start)::integer
from pg_catalog.pg_stat_activity as a
where
    a.datname = current_database() and a.application_name not like 'phase2%%' and a.backend_type = 'client backend'
    and a.xact_start < now() - %(seconds)s * interval '1 second'
"""

Progress = Callable[[str], None]


class BackOff(Exception):
    """Our statement was cancelled so that somebody need not wait; says who, for what and how long."""


@dataclass
class _Seen:
    """What the watchers of one attempt have seen and done."""

    reasons: list[str] = field(default_factory=list)
    cancelled: dict[int, float] = field(default_factory=dict)
    told: set[tuple[object, ...]] = field(default_factory=set)


def pauses() -> tuple[float, ...]:
    """Seconds to wait before each new attempt of a step that backed off; after the last one it could not run."""
    limit = settings().phase2_max_blocking_seconds
    return (limit, 2 * limit, 4 * limit)


@contextmanager
def over(places: Mapping[str, str], progress: Progress) -> Iterator[None]:
    """Watch these databases (name, URL) while the block runs; BackOff instead of its error when it was cancelled.

    A block that ended well although a statement of it was cancelled counts as cancelled too: it may have swallowed it.
    """
    seen, done = _Seen(), threading.Event()
    watchers = [
        threading.Thread(target=_watch, args=(place, url, progress, seen, done), name=f"watch {place}", daemon=True)
        for place, url in places.items()
    ]
    for watcher in watchers:
        watcher.start()
    try:
        yield
    except GateFailed:
        raise
    except Exception as error:
        _end(watchers, done)
        if seen.reasons:
            raise BackOff("; ".join(seen.reasons)) from error
        raise
    finally:
        _end(watchers, done)
    if seen.reasons:
        raise BackOff("; ".join(seen.reasons))


def _end(watchers: list[threading.Thread], done: threading.Event) -> None:
    done.set()
    for watcher in watchers:
        watcher.join()


def _watch(place: str, url: str, progress: Progress, seen: _Seen, done: threading.Event) -> None:
    """Look again and again. A watch that is lost is told and begun anew: it must not end the step."""
    limit = settings().phase2_max_blocking_seconds
    look_every = min(0.5, limit / 10)
    while not done.is_set():
        try:
            with postgres.connect(url, application_name="phase2-watch", read_only=True, autocommit=True) as conn:
                while not done.wait(look_every):
                    _look(conn, place, limit - 2 * look_every, progress, seen)
        except Exception as error:  # a thread's error reaches nobody else
            if ("lost", place) not in seen.told:
                seen.told.add(("lost", place))
                progress(f"locks in {place} are not watched: {plain(error)}")
            done.wait(1.0)


def _look(conn: psycopg.Connection, place: str, limit: float, progress: Progress, seen: _Seen) -> None:
    for pid, is_ours, name, relation, mode, seconds, by_us, by_others in conn.execute(_WAITS, {"ours": list(OURS)}):
        if is_ours:
            if by_others and seconds >= limit and ("wait", pid, relation) not in seen.told:
                seen.told.add(("wait", pid, relation))
                progress(f"waiting for {relation} in {place} ({mode}), held by {', '.join(by_others)}")
        elif by_us and seconds >= limit:
            _release(conn, by_us, seen)
            if ("blocked", pid) not in seen.told:
                seen.told.add(("blocked", pid))
                reason = f"{pid} ({name}) waited {seconds:.1f} s for {relation} in {place} ({mode})"
                seen.reasons.append(reason)
                progress(f"backing off: {reason}")
    if place == "ops":
        for pid, name, seconds in conn.execute(_OLD, {"seconds": OLD_TRANSACTION_SECONDS}):
            if ("old", pid) not in seen.told:
                seen.told.add(("old", pid))
                progress(f"a transaction of {pid} ({name}) in {place} is open for {seconds} s")


def _release(conn: psycopg.Connection, blockers: list[int], seen: _Seen) -> None:
    """Cancel our sessions that block; end the one that does so on, idle in its transaction."""
    for pid in blockers:
        now = time.monotonic()
        if now - seen.cancelled.setdefault(pid, now) > _SECONDS_TO_CANCEL:
            conn.execute("select pg_catalog.pg_terminate_backend(%s)", (pid,))
        else:
            conn.execute("select pg_catalog.pg_cancel_backend(%s)", (pid,))
