"""`make bench-ingest`: how much ingestion takes, how soon what it took is applied, and where the time goes.

Real parts on one machine with the load generator: API and worker in processes of their own, PostgreSQL, Valkey. For
each concurrency of the worker

  drain       the events wait in the queue, then a paused worker goes on: applied a second with nobody beside it
  burst       all at once over 50 connections, as fast as they are answered: accepted a second beside the worker
  rest, peak, 10 x peak
              one after the other at their moments, whoever is late: a request's time counts from its moment

The shop that this is for has 100,000 bookings in some years: a hundred a day, and in its busiest minute a few. Peak is
taken as 10 events a second, so that 10 x peak is far beyond any day of its life. Four events of five are new bookings,
the others change or cancel one that is there; one in a hundred can never be applied: a dead letter.

Each load is checked: every event accepted once, accepted = applied + dead, each booking there once in all six tables. A
sum that is wrong ends the run with exit code 1.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import redis
import uvloop
from psycopg.rows import dict_row

from bridge import embedded, postgres
from bridge.settings import ROOT
from core_api import local
from tests import serving

HOME = ROOT / ".phase2" / "bench"
PAGE = ROOT / "docs" / "performance-ingest.md"
RATES = {"rest": 1, "peak": 10, "10 x peak": 100}
_TICKS = os.sysconf("SC_CLK_TCK")
DEAD_EACH, _CHANGE_EACH = 100, 5
PATIENCE = 180.0  # seconds for the worker to end what it has
_QUEUE = "ingest-bookings-events"
_BEGIN, _END = "<!-- figures: make bench-ingest ARGS=--write -->", "<!-- end of figures -->"
Figures = dict[str, Any]

# The bookings that are there before: made by the same two functions, 200 in a transaction for the sake of its locks.
_SEED = """
select phase2.apply_event((a.answer ->> 'eventId')::uuid)
from generate_series(%(first)s::bigint, %(last)s::bigint) as i
cross join lateral phase2.accept_event(
    phase2.uuid7(), 'seed-' || i, 'seed-' || i, md5(i::text), 'GYG', 'SEED' || i, 'CREATED', '2026-10-01T08:00:00Z',
    %(payload)s, true
) as a
"""
_TIMES = """
select
    k.idempotency_key, e.event_key::text,
    extract(epoch from e.created_at)::double precision,
    extract(epoch from pg_xact_commit_timestamp(k.xmin))::double precision,
    extract(epoch from e.processed_at)::double precision,
    extract(epoch from pg_xact_commit_timestamp(e.xmin))::double precision
from phase2.ingest_keys as k
join public.ingest_event_log as e on e.event_key = k.event_key
where k.idempotency_key = any(%s)
"""
_PENDING = """
select count(*) from public.ingest_event_log as e where phase2.is_pending(e.process_status, e.next_retry_at)
"""
_SUMS = """
select
    count(*) as logged,
    count(*) filter (where e.process_status = 'DONE') as applied,
    count(distinct d.event_key) as dead,
    count(*) filter (where (e.process_status = 'DONE') = (d.event_key is not null)) as both_or_neither,
    (select count(*) from public.booking_core) as booking_core,
    (select count(*) from public.booking_contact) as booking_contact,
    (select count(*) from public.booking_party) as booking_party,
    (select count(*) from public.booking_item_snapshot) as booking_item_snapshot,
    (select count(*) from public.ops_booking_state) as ops_booking_state,
    (select count(*) from public.channel_external_refs where entity_type = 'BOOKING') as channel_external_refs
from public.ingest_event_log as e
left join public.ingest_dead_letter as d on d.event_key = e.event_key
"""
_STATEMENTS = """
select
    case when s.query ~ 'phase2.accept_event' then 'accept' else 'apply' end, sum(s.calls)::bigint,
    sum(s.total_exec_time)
from bench.pg_stat_statements as s
join pg_catalog.pg_database as d on d.oid = s.dbid
where d.datname = current_database() and s.toplevel and s.query ~ 'phase2.(accept_event|work_events)'
group by 1
"""


class Wrong(Exception):
    """A sum does not hold: the figures say nothing."""


@dataclass
class Sent:
    """One request, and its moments as seconds of the epoch."""

    key: str
    wire: bytes
    due: float = 0.0
    sent: float = 0.0
    answered: float = 0.0
    status: int = 0
    repeated: bool = False


class Event(NamedTuple):
    """An event's moments: of its request, of both transactions, of its job."""

    request: Sent
    begun: float
    accepted: float
    processed: float | None
    applied: float
    taken: float
    ended: float


@dataclass
class Sums:
    """What must be in the database by now."""

    logged: int = 0
    applied: int = 0
    dead: int = 0
    bookings: int = 0


@dataclass
class Load:
    """Events to come: new bookings, changes of old ones, and a few that cannot be applied."""

    bookings: int
    made: int = 0

    def take(self, count: int, sums: Sums) -> list[Sent]:
        """Signed requests, good for 5 minutes; what they come to is added to `sums`."""
        taken = []
        for _ in range(count):
            self.made += 1
            dies, changes = self.made % DEAD_EACH == 0, self.made % _CHANGE_EACH == 0 and self.bookings
            kind = "CREATED" if not changes else "CANCELLED" if self.made % 20 == 0 else "UPDATED"
            ref = f"SEED{1 + self.made * 7919 % self.bookings}" if changes else f"NEW{self.made}"
            event = _event(kind, ref, self.made, "2500-01-01" if dies else "2026-12-24")
            body = json.dumps(event).encode()
            headers = serving.signed(body)
            head = [f"POST {serving.PATH} HTTP/1.1", "host: bench", f"content-length: {len(body)}"]
            head += [f"{name}: {value}" for name, value in headers.items()]
            taken.append(Sent(headers["x-idempotency-key"], "\r\n".join(head).encode() + b"\r\n\r\n" + body))
            sums.logged += 1
            sums.dead += dies
            sums.applied += not dies
            sums.bookings += not dies and not changes
        return taken


def _event(kind: str, ref: str, number: int, tour_date: str) -> dict[str, Any]:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_793_000_000 + number))  # after those of the seed
    provider = {"reference": ref, "product": "Ubud day trip", "option": "Private car", "language": "en", "lines": [
        {"category": "ADULT", "quantity": 2, "unit": 45.0}, {"category": "CHILD", "quantity": 1, "unit": 30.5},
    ], "text": "Hi, a booking was made for your tour. Please confirm it within a day. " * 6}  # fmt: skip
    return serving.event(
        eventType=kind, eventTime=at, externalBookingRef=ref, booking__tourDate=tour_date,
        customer__name=f"Guest Number {number}", customer__email=f"guest{number}@mail.test",
        booking__note=f"note {number}", raw__providerPayload=provider,
    )  # fmt: skip


async def drive(port: int, requests: Sequence[Sent], connections: int, rate: float | None) -> None:
    """Send each at its moment, `rate` a second, over the first connection that is free; None: as fast as they go."""
    needed = min(connections, len(requests), int(rate or connections))  # one that waits for long would be closed
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(needed)]
    waiting = iter(requests)
    start = time.time() + 0.05
    for place, request in enumerate(requests):
        request.due = start + (place / rate if rate else 0.0)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for request in waiting:
            if (early := request.due - time.time()) > 0:
                await asyncio.sleep(early)
            request.sent = time.time()
            writer.write(request.wire)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            at = head.index(b"content-length:") + 15
            body = await reader.readexactly(int(head[at : head.index(b"\r\n", at)]))
            request.answered = time.time()
            request.status = int(head[9:12])
            request.repeated = b'"idempotentReplay":false' not in body
        writer.close()

    await asyncio.gather(*(one(*connection) for connection in opened))


# -- the parts --------------------------------------------------------------------------------------------------------


@contextmanager
def server() -> Iterator[str]:
    """A PostgreSQL of our own that keeps the moments of commits and counts statements; stopped in the end."""
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "bench.lock").open("w") as alone:
        fcntl.flock(alone, fcntl.LOCK_EX)
        try:
            url = postgres.with_database(embedded.ensure(HOME).ops, "postgres")
            with postgres.connect(url, autocommit=True) as conn:
                conn.execute("alter system set track_commit_timestamp = on")
                conn.execute("alter system set shared_preload_libraries = 'pg_stat_statements'")
                row = conn.execute("select count(*) from pg_settings where pending_restart").fetchone()
                set_up = conn.execute("show track_commit_timestamp").fetchone() == ("on",)
            if row != (0,) or not set_up:
                embedded.stop(HOME)
                embedded.ensure(HOME)
            yield url
        finally:
            embedded.stop(HOME)


@contextmanager
def filled(server_url: str, bookings: int) -> Iterator[str]:
    """An ops database that is ready for events and holds so many bookings; dropped in the end."""
    with serving.ready(server_url) as ops:
        with postgres.connect(ops, autocommit=True) as conn:
            conn.execute("create schema bench")
            conn.execute("create extension pg_stat_statements schema bench")
            payload = json.dumps(_event("CREATED", "SEED", 0, "2026-12-24"))
            for first in range(1, bookings + 1, 200):
                conn.execute(_SEED, {"first": first, "last": min(first + 199, bookings), "payload": payload})
            conn.execute("vacuum analyze")
        yield ops


class Parts:
    """The processes of a run, and where they are."""

    api: subprocess.Popen[bytes]
    worker: subprocess.Popen[bytes]
    concurrency: int

    def __init__(self, ops: str, home: Path, profile: Path | None) -> None:
        self.ops, self.home, self.profile = ops, home, profile
        self.redis = local.ensure(home)[0]
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def sql(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with postgres.connect(self.ops, application_name="bench", autocommit=True) as conn:
            done = conn.execute(statement.encode(), values or None)
            return done.fetchall() if done.description else []

    @contextmanager
    def process(self, part: str, concurrency: int = 1) -> Iterator[subprocess.Popen[bytes]]:
        """API or worker, as production starts it."""
        environment = os.environ | serving.ENVIRONMENT | {
            "OPS_DB_URL": self.ops, "PHASE2_ENV": "local",
            **{f"{name.upper()}_DB_URL": postgres.with_database(self.ops, name) for name in ("balisnap", "bstadmin")},
            "PHASE2_HOME": str(self.home), "INGEST_REDIS_URL": self.redis, "INGEST_QUEUE_NAME": _QUEUE,
            "INGEST_WORKER_CONCURRENCY": str(concurrency), "CORE_API_PORT": str(self.port), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        command = [sys.executable, "-m", "core_api", part]
        if self.profile:
            command[1:1] = ["-m", "cProfile", "-o", str(self.profile / f"{part}-{concurrency}.prof")]
        with (self.home / f"{part}.log").open("ab") as said:
            child = subprocess.Popen(command, env=environment, stderr=said, stdout=said)
            try:
                yield child
            finally:
                child.send_signal(signal.SIGCONT)
                child.send_signal(signal.SIGINT)  # after SIGTERM no profile would be written
                try:
                    child.wait(30)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()

    @contextmanager
    def worker_with(self, concurrency: int) -> Iterator[None]:
        """A worker for some loads."""
        with self.process("worker", concurrency) as self.worker:
            self.concurrency = concurrency
            yield

    def wait_for_api(self) -> None:
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and self.api.poll() is None:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200:
                    return
            time.sleep(0.05)
        raise Wrong(f"the API does not answer: {(self.home / 'api.log').read_text()[-1000:]}")

    def settled(self) -> None:
        """Wait until nothing is pending, in the log and in the queue."""
        ends = time.monotonic() + PATIENCE
        with redis.Redis.from_url(self.redis) as client, postgres.connect(self.ops, autocommit=True) as conn:

            def pending() -> int:
                (events,) = conn.execute(_PENDING).fetchone() or (0,)
                jobs = client.llen(f"bull:{_QUEUE}:wait") + client.llen(f"bull:{_QUEUE}:active")
                return events or jobs + client.zcard(f"bull:{_QUEUE}:delayed")

            while left := pending():
                if time.monotonic() > ends or self.worker.poll() is not None:
                    raise Wrong(f"{left} events are not at their end after {PATIENCE:g} s, or the worker has ended")
                time.sleep(0.1)

    def jobs(self, event_keys: Sequence[str]) -> dict[str, tuple[float, float]]:
        """Of each event when a worker took its job last, and when that ended."""
        with redis.Redis.from_url(self.redis) as client, client.pipeline(transaction=False) as pipe:
            for key in event_keys:
                pipe.hmget(f"bull:{_QUEUE}:{key}", "processedOn", "finishedOn")
            found = pipe.execute()
        return {key: (int(row[0]) / 1000, int(row[1]) / 1000) for key, row in zip(event_keys, found, strict=True)}


@contextmanager
def parts(ops: str, profile: Path | None) -> Iterator[Parts]:
    """Valkey and the API; all is stopped in the end."""
    with tempfile.TemporaryDirectory() as folder:
        found = Parts(ops, Path(folder), profile)
        try:
            with found.process("api") as found.api:
                found.wait_for_api()
                yield found
        finally:
            local.stop(found.home)


def cpu_seconds(pids: Sequence[int]) -> float:
    """User and system time of these processes so far; what has ended counts nothing."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def peak_mb(pid: int) -> float:
    """The most memory that the process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def cores_busy() -> float:
    """Seconds that the cores of this machine have worked so far, for whomever."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / _TICKS


# -- measuring --------------------------------------------------------------------------------------------------------


def check(found: Parts, expected: Sums, requests: Sequence[Sent]) -> None:
    """Wrong unless each event was accepted once and ended once, and each booking is there once in each table."""
    refused = sum(request.status != 202 or request.repeated for request in requests)
    if refused:
        raise Wrong(f"{refused} of {len(requests)} events were not accepted as new")
    with postgres.connect(found.ops) as conn:
        there = conn.cursor(row_factory=dict_row).execute(_SUMS).fetchone() or {}
    wanted = {"logged": expected.logged, "applied": expected.applied, "dead": expected.dead, "both_or_neither": 0}
    differ = [
        f"{name}: {count} instead of {wanted.get(name, expected.bookings)}"
        for name, count in there.items()
        if count != wanted.get(name, expected.bookings)
    ]
    if differ:
        raise Wrong("; ".join(differ))


def measure(found: Parts, load: str, requests: list[Sent], expected: Sums, work: Callable[[], None]) -> Figures:
    """Do `work`, wait for the end of what it began, check it; all figures of this load."""
    found.sql("select bench.pg_stat_statements_reset()")
    pids = {
        "API": [found.api.pid],
        "worker": [found.worker.pid],
        "PostgreSQL": [row[0] for row in found.sql("select pid from pg_catalog.pg_stat_activity")],
        "Valkey": [local.pid(found.home) or 0],
        "generator": [os.getpid()],
    }
    before, busy_before = {part: cpu_seconds(those) for part, those in pids.items()}, cores_busy()
    started = time.time()
    work()
    found.settled()
    seconds, busy = time.time() - started, cores_busy() - busy_before
    spent = {part: cpu_seconds(those) - before[part] for part, those in pids.items()}
    check(found, expected, requests)

    times = {row[0]: row[1:] for row in found.sql(_TIMES, [request.key for request in requests])}
    jobs = found.jobs([row[0] for row in times.values()])
    events = [Event(request, *times[request.key][1:], *jobs[times[request.key][0]]) for request in requests]
    applied = [event.applied for event in events]
    began = min(applied) if load == "drain" else min(event.request.due for event in events)
    accepting = max(event.request.answered for event in events) - min(event.request.due for event in events)
    return {
        "load": load,
        "concurrency": found.concurrency,
        "events": len(events),
        "accepted_per_second": len(events) / accepting,
        "applied_per_second": len(events) / (max(applied) - began),
        "ms": {
            # a request's time counts from its moment, whenever it was sent
            "answered": spread(event.request.answered - event.request.due for event in events),
            "accepted to applied": spread(event.applied - event.accepted for event in events),
            "moment to applied": spread(event.applied - event.request.due for event in events),
        },
        "stages": {
            "until it is sent": spread(event.request.sent - event.request.due for event in events),
            "HTTP, signature": spread(event.begun - event.request.sent for event in events),
            "accept statement": spread(event.accepted - event.begun for event in events),
            "flush, queue add, answer": spread(event.request.answered - event.accepted for event in events),
            "wait in queue": spread(event.taken - event.accepted for event in events),
            "taken, its turn comes": spread(event.processed - event.taken for event in events if event.processed),
            "its turn to commit": spread(event.applied - event.processed for event in events if event.processed),
            "flush, end of job": spread(event.ended - event.applied for event in events),
        },
        "statements": {
            part: {"events_per_call": len(events) / calls, "ms_per_event": milliseconds / len(events)}
            for part, calls, milliseconds in found.sql(_STATEMENTS)
        },
        "cpu_ms_per_event": {part: 1000 * value / len(events) for part, value in spent.items()},
        "cores": {"ours": sum(spent.values()) / seconds, "all": busy / seconds},
        "peak_mb": {"API": peak_mb(found.api.pid), "worker": peak_mb(found.worker.pid)},
    }


def spread(seconds: Iterable[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(1000 * value for value in seconds)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }


def run(ops: str, asked: argparse.Namespace) -> list[Figures]:
    """All loads with each concurrency. Raises Wrong when a sum does not hold."""
    expected = Sums(logged=asked.bookings, applied=asked.bookings, bookings=asked.bookings)
    load = Load(asked.bookings)
    figures: list[Figures] = []

    def send(requests: list[Sent], rate: float | None = None) -> None:
        uvloop.run(drive(found.port, requests, asked.connections, rate))

    def note(row: Figures) -> None:
        figures.append(row)
        print(f"concurrency {row['concurrency']}, {row['load']}: {row['events']} events", file=sys.stderr)

    with parts(ops, asked.profile) as found:
        for concurrency in asked.concurrency:
            with found.worker_with(concurrency):
                send(load.take(300, expected))  # plans, prepared statements, pools
                found.settled()
                found.worker.send_signal(signal.SIGSTOP)
                queued = load.take(asked.events, expected)
                send(queued)
                note(measure(found, "drain", queued, expected, partial(found.worker.send_signal, signal.SIGCONT)))
                burst = load.take(asked.events, expected)
                note(measure(found, "burst", burst, expected, partial(send, burst)))
                for name, rate in RATES.items():
                    steady = load.take(max(2, round(rate * asked.seconds)), expected)
                    note(measure(found, name, steady, expected, partial(send, steady, rate)))
    return figures


# -- telling ----------------------------------------------------------------------------------------------------------


def tables(figures: list[Figures], asked: argparse.Namespace) -> str:
    """The figures as Markdown, to read and for the page."""
    said = [
        f"{platform.system()}, {os.cpu_count()} cores, Python {platform.python_version()}; {asked.bookings:,} bookings"
        f" before; {asked.connections} connections; drain and burst {asked.events:,} events, the others"
        f" {asked.seconds:g} s; one durable commit {asked.commit_ms:.2f} ms.",
        "",
        "Latencies in ms: median / p95 / max. Cores: ours of all that were busy.",
        "",
    ]
    rows = [
        [
            row["concurrency"], row["load"], row["events"],
            f"{row['accepted_per_second']:,.0f}", f"{row['applied_per_second']:,.0f}",
            *("–" if row["load"] == "drain" and name != "answered" else _three(row["ms"][name]) for name in row["ms"]),
            f"{row['cores']['ours']:.1f} / {row['cores']['all']:.1f}",
            f"{row['peak_mb']['API']:.0f}, {row['peak_mb']['worker']:.0f}",
        ]
        for row in figures
    ]  # fmt: skip
    heads = ["concurrency", "load", "events", "accepted/s", "applied/s", *figures[0]["ms"], "cores", "MB: API, worker"]
    said += _table(heads, rows)
    said += ["", "Where the time goes, in ms, median and p95:", ""]
    chosen = [row for row in figures if row["load"] != "drain"]
    said += _table(
        ["concurrency", "load", *chosen[0]["stages"]],
        [[r["concurrency"], r["load"], *(f"{s['median']:.1f}, {s['p95']:.1f}" for s in r["stages"].values())]
         for r in chosen],
    )  # fmt: skip
    said += ["", "What an event costs: CPU in ms of each part, and both statements in the server:", ""]
    said += _table(
        ["concurrency", "load", *figures[0]["cpu_ms_per_event"], "accept: events a call, ms an event", "apply"],
        [
            [row["concurrency"], row["load"], *(f"{ms:.2f}" for ms in row["cpu_ms_per_event"].values())]
            + [
                f"{s['events_per_call']:.1f}, {s['ms_per_event']:.2f}" if (s := row["statements"].get(part)) else "–"
                for part in ("accept", "apply")
            ]
            for row in figures
        ],
    )
    return "\n".join(said)


def _three(ms: dict[str, float]) -> str:
    return " / ".join(f"{ms[part]:,.0f}" if ms[part] >= 10 else f"{ms[part]:.1f}" for part in ("median", "p95", "max"))


def _table(heads: list[str], rows: list[list[Any]]) -> list[str]:
    cells = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(heads))]
    lines = [
        "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def commit_ms(ops: str) -> float:
    """What one small durable commit takes here."""
    taken = []
    with postgres.connect(ops, autocommit=True) as conn:
        conn.execute("create table bench.probe (n integer)")
        for number in range(100):
            began = time.perf_counter()
            conn.execute("insert into bench.probe values (%s)", (number,))
            taken.append(time.perf_counter() - began)
    return 1000 * statistics.median(taken)


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 1 when a sum does not hold."""
    numbers = lambda text: [int(number) for number in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, default=2000, help="that are there before")
    parser.add_argument("--events", type=int, default=2000, help="of drain and burst")
    parser.add_argument("--seconds", type=float, default=30, help="that rest, peak and 10 x peak last")
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--concurrency", type=numbers, default=[1, 4, 16], help="of the worker: 1,4,16")
    parser.add_argument("--json", type=Path, help="also write each figure here")
    parser.add_argument("--write", action="store_true", help="also put the tables into docs/performance-ingest.md")
    parser.add_argument("--profile", type=Path, help="a folder for cProfile's numbers of API and worker; slow")
    asked = parser.parse_args(arguments)
    with serving.environment(), server() as url, filled(url, asked.bookings) as ops:
        asked.commit_ms = commit_ms(ops)
        try:
            figures = run(ops, asked)
        except Wrong as wrong:
            print(f"a sum does not hold: {wrong}", file=sys.stderr)
            return 1
    told = tables(figures, asked)
    print(told)
    if asked.json:
        asked.json.write_text(json.dumps(figures, indent=2))
    if asked.write:
        before, _, rest = PAGE.read_text().partition(_BEGIN)
        PAGE.write_text(f"{before}{_BEGIN}\n\n{told}\n\n{_END}{rest.partition(_END)[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
