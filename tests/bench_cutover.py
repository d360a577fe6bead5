"""`make bench-cutover BOOKINGS=1000000`: is the cutover of reads fast enough, on databases of that size.

Full parity (seconds), the reads of the back office on both sides through the service (p50, p95 in ms, the mixture of an
ops day), what shadow reads add to their p95 (rounds with and without them in turn), each page of the console (ms, KB),
one look of the guardrails, and dual writes a second. Each figure is held to the limit that docs/cutover-reads.md or
docs/console.md names; over it the bench fails. `--use` measures the databases of the last `--keep`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
from rich.console import Console
from rich.table import Table

from bridge import embedded, flags, guardrails, parity, postgres, runlog, sources, steps, warehouse
from bridge.batches import between
from bridge.core_settings import core_settings
from bridge.settings import SQL, Databases, settings
from core_api.console import session as sessions
from tests import bench_writes, serving

AS_OF = date(2026, 11, 23)
PARITY_SECONDS, READ_MS, SHADOW_OVERHEAD = 30.0, 50.0, 0.10  # the first of 1,000,000 bookings
PAGE_MS, PAGE_KB = 300.0, 200.0
_NAMES = {role: f"cutover_{role}" for role in ("ops", "balisnap", "bstadmin")}
# the views of gates that guardrails ask
_WATCHED = (
    "recon_booking_links",
    "recon_fresher_bookings",
    "recon_duplicate_bookings",
    "recon_payment_linkage",
    "recon_second_rows",
)
_SHADOW = 5.0  # percent of the reads, as the service does by default

Figure = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bookings", type=int, default=100_000)
    parser.add_argument("--reads", type=int, default=600, help="in each round, on each side")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--keep", action="store_true", help="leave the databases")
    parser.add_argument("--use", action="store_true", help="measure the databases that were left")
    chosen = parser.parse_args()
    server = embedded.ensure(settings().phase2_home).ops
    dbs = Databases(channel=None, **{role: postgres.with_database(server, name) for role, name in _NAMES.items()})
    if chosen.use:
        steps.bootstrap(dbs.ops)  # what was left may be of another version
    else:
        _make(server, dbs, chosen.bookings)
    figures = [_parity(dbs, chosen.bookings)]
    with serving.environment(), postgres.connect(dbs.ops, autocommit=True) as conn:
        flags.change(
            conn,
            "OPS_READ_NEW_MODEL_ENABLED",
            True,
            reason="bench",
            rollout=flags.rollout_of({"percentage": 0, "actors": ["new"]}),
        )
        paths = _paths(dbs, chosen.reads)
        figures += _reads(dbs, paths, chosen.rounds)
        figures.append(_overhead(dbs, paths, chosen.rounds))
        _busy(conn, chosen.bookings)
        figures += _console(dbs, conn)
    figures.append(_guardrails(dbs))
    figures += [
        {**found, "what": f"{found['what']} (p95 {found['p95']} ms)", "unit": "a second", "limit": "", "holds": True}
        for found in bench_writes.measure()
    ]
    _show(figures, chosen.bookings)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2))
    if not (chosen.keep or chosen.use):
        _drop(server)
    sys.exit(0 if all(figure["holds"] for figure in figures) else 1)


def _make(server: str, dbs: Databases, bookings: int) -> None:
    """Two sources of that size, the bridge, the read model and its indexes."""
    _drop(server)
    with postgres.connect(server, autocommit=True) as conn:
        for name in _NAMES.values():
            conn.execute(postgres.statement("create database {}", name))
    _tell(f"filling two sources with {bookings:,} bookings")
    sources.create(dbs.balisnap, dbs.bstadmin, bookings=bookings, seed=7, as_of=AS_OF, progress=_tell)
    steps.bootstrap(dbs.ops)
    run = _run(dbs)
    for batch in between("A", "E"):
        steps.start(run, batch)
        for step in batch.plan:
            if not step.target.startswith("gates_"):
                _tell(f"{batch.code}  {step.title}")
                steps.execute(run, batch, step)
    with postgres.connect(dbs.ops, autocommit=True) as conn:
        started = time.perf_counter()
        conn.execute((SQL / "phase2" / "020_add_ops_read_indexes.sql").read_bytes())
        _tell(f"indexes of the pages: {time.perf_counter() - started:.1f} s")
        parity.ready(run, conn)
        warehouse.invoke(dbs.ops, ["run", "--select", *_WATCHED])
        conn.execute("vacuum analyze")


def _run(dbs: Databases) -> steps.Run:
    return steps.Run(run_id=runlog.uuid7(), databases=dbs, as_of=AS_OF)


def _parity(dbs: Databases, bookings: int) -> Figure:
    results = [parity.compare(_run(dbs)) for _ in range(3)]
    seconds = statistics.median(result.seconds for result in results)
    found = results[0].counts
    return {
        "what": f"full parity of {found['bookings']:,} bookings of bstadmin, {found['explained']:,} with approved"
        f" differences, {results[0].unexplained} unexplained",
        "value": seconds,
        "unit": "s",
        "limit": PARITY_SECONDS,
        "holds": seconds <= PARITY_SECONDS and results[0].unexplained == 0,
    }


def _paths(dbs: Databases, count: int) -> dict[str, list[str]]:
    """What an ops day asks, by kind: the same each time."""
    chance = random.Random(7)
    with postgres.connect(dbs.bstadmin, read_only=True) as conn:
        numbers = [row[0] for row in conn.execute("select booking_id from public.bookings tablesample system (1)")]
        names = [
            row[0]
            for row in conn.execute(
                "select main_contact_name from public.bookings tablesample system (1)"
                " where length(main_contact_name) > 5 and main_contact_name ~ '^[A-Za-z ]+$' limit 200"
            )
        ]
        refs = [
            row[0]
            for row in conn.execute(
                "select booking_ref from public.bookings tablesample system (1)"
                " where booking_ref ~ '^[A-Z0-9]{8,}$' limit 200"
            )
        ]

    def day(spread: int = 400) -> date:
        return AS_OF + timedelta(days=chance.randint(-spread, 30))

    def window(days: int) -> str:
        first = day()
        return f"dateFrom={first}&dateTo={first + timedelta(days=days)}"

    statuses = ("NEW", "READY", "ATTENTION", "COMPLETED", "DONE", "UPDATED", "CANCELLED", "NO_SHOW")
    kinds = {
        "list": lambda: "bookings",
        "list, by status": lambda: f"bookings?status={chance.choice(statuses)}",
        "list, by source and days": lambda: f"bookings?source={chance.choice(('GYG', 'BOKUN', 'DIRECT'))}&{window(30)}",
        "search, reference": lambda: f"bookings?q={chance.choice(refs)[2:8]}",
        "search, name": lambda: f"bookings?q={chance.choice(names).split()[0]}",
        "detail": lambda: f"bookings/{chance.choice(numbers)}",
        "board": lambda: f"assignments?{window(7)}",
        "board, no driver": lambda: f"assignments?assigned=false&{window(7)}",
        "finance": lambda: f"finance/summary?dateTo={day()}",
    }
    return {kind: [make() for _ in range(max(count // len(kinds), 10))] for kind, make in kinds.items()}


@contextmanager
def _service(dbs: Databases, shadow: float) -> Iterator[httpx.Client]:
    os.environ["OPS_SHADOW_PERCENTAGE"] = str(shadow)
    core_settings.cache_clear()
    with serving.service(dbs.ops, bstadmin_url=dbs.bstadmin) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def _times(client: httpx.Client, actor: str, paths: list[str]) -> list[float]:
    """Milliseconds of each read, which that side itself has answered."""
    headers = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "STAFF", "x-actor": actor}
    times = []
    for path in paths:
        started = time.perf_counter()
        answered = client.get(f"/v1/ops/{path}", headers=headers)
        times.append((time.perf_counter() - started) * 1000)
        assert answered.status_code == 200, answered.text
        assert answered.headers["x-served-by"] == {"new": "new", "old": "legacy"}[actor], answered.headers[
            "x-served-by"
        ]
    return times


def _reads(dbs: Databases, paths: dict[str, list[str]], rounds: int) -> list[Figure]:
    figures: list[Figure] = []
    times: dict[tuple[str, str], list[float]] = {(kind, side): [] for kind in paths for side in ("new", "old")}
    with _service(dbs, 0.0) as client:
        for number in range(rounds + 1):
            for (kind, side), found in times.items():
                # a fifth is enough of bstadmin, whose searches look at every booking
                measured = _times(client, side, paths[kind][:: 1 if side == "new" else 5])
                found += measured if number else []  # the first round warms up
    for kind in (*paths, "all"):
        of = {
            side: [t for (k, s), found in times.items() if s == side and kind in (k, "all") for t in found]
            for side in ("new", "old")
        }
        new, old = (statistics.quantiles(of[side], n=20)[-1] for side in ("new", "old"))
        figures.append(
            {
                "what": f"read: {kind}",
                "value": round(new, 1),
                "p50": round(statistics.median(of["new"]), 1),
                "legacy_p50": round(statistics.median(of["old"]), 1),
                "legacy_p95": round(old, 1),
                "unit": "ms p95",
                "limit": READ_MS,
                "holds": new <= READ_MS,
            }
        )
        _tell(f"{kind}: new {figures[-1]['p50']} / {new:.1f} ms, bstadmin {figures[-1]['legacy_p50']} / {old:.1f} ms")
    return figures


def _overhead(dbs: Databases, paths: dict[str, list[str]], rounds: int) -> Figure:
    """The p95 of all reads beside shadow reads, over that without: rounds in turn, the median of their ratios."""
    every = [path for kind in paths.values() for path in kind]
    random.Random(7).shuffle(every)
    ratios = []
    with _service(dbs, 0.0) as without:
        _times(without, "new", every)
        for _ in range(rounds):
            alone = statistics.quantiles(_times(without, "new", every), n=20)[-1]
            with _service(dbs, _SHADOW) as beside:
                _times(beside, "new", every[:50])
                ratios.append(statistics.quantiles(_times(beside, "new", every), n=20)[-1] / alone - 1)
    overhead = statistics.median(ratios)
    with postgres.connect(dbs.ops) as conn:
        kept = conn.execute("select count(*) from phase2.shadow_reads").fetchone()
    return {
        "what": f"what shadow reads ({_SHADOW:g} %) add to the p95 of all reads ({kept[0] if kept else 0} were kept)",
        "value": round(overhead * 100, 1),
        "unit": "%",
        "limit": SHADOW_OVERHEAD * 100,
        "holds": overhead <= SHADOW_OVERHEAD,
    }


# As many events as bookings, one in a hundred of them a dead letter, and a row of the queue for each tenth booking.
_EVENTS = """
insert into public.ingest_event_log (
    event_key, idempotency_key, nonce, source_enum, channel_code, external_booking_ref, event_type, event_time,
    event_time_normalized, payload_hash, signature_verified, process_status, attempt_count, request_received_at,
    processed_at, raw_payload, created_at
)
select
    gen_random_uuid(), 'bench-' || c.number, 'bench-' || c.number, c.channel_code, c.channel_code,
    c.external_booking_ref, 'UPDATED', c.at, c.at, md5(c.number::text), true,
    case when c.number %% 100 = 0 then 'FAILED' else 'DONE' end, 1 + (c.number %% 50 = 0)::integer, c.at,
    c.at + interval '80 ms',
    jsonb_build_object(
        'payloadVersion', 'v1', 'source', c.channel_code, 'externalBookingRef', c.external_booking_ref,
        'eventType', 'UPDATED', 'eventTime', c.at, 'customer', jsonb_build_object('name', 'Made Wirawan'),
        'booking', jsonb_build_object(
            'tourDate', '2026-12-24', 'adult', 2, 'child', 1, 'currency', 'USD', 'totalPrice', 120.5,
            'note', repeat('so many words of a guest ', 20)
        ),
        'raw', '{}'::jsonb
    ),
    c.at
from (
    select
        b.channel_code, b.external_booking_ref, b.number,
        date_trunc('second', now()) - b.number * interval '5 seconds' as at
    from (select *, row_number() over (order by k.booking_key) as number from public.booking_core as k) as b
    where b.number <= %(bookings)s
) as c
"""
_LETTERS = """
insert into public.ingest_dead_letter (
    dead_letter_key, event_key, reason_code, reason_detail, status, first_failed_at, last_failed_at, raw_payload
)
select
    gen_random_uuid(), e.event_key, 'SCHEMA_INVALID', 'a bench',
    (array['OPEN', 'READY', 'CLOSED'])[1 + row_number() over () %% 3], e.created_at, e.created_at, e.raw_payload
from public.ingest_event_log as e
where e.process_status = 'FAILED'
"""
_QUEUE = """
insert into public.unmapped_queue (
    queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code, reason_detail, status,
    payload, created_at
)
select
    gen_random_uuid(), 'PRODUCT_MAPPING', 'MANUAL', 'bstadmin', 'bench', n::text, 'MULTI_MATCH', 'a bench', 'OPEN',
    jsonb_build_object('package_name', 'Package ' || n %% 500), now() - n * interval '1 minute'
from generate_series(1, %(bookings)s / 10) as n
"""


_CONFLICT = """
select phase2.note_conflict(r.entity_key, 'choice', '[{"field": "note", "core": "a", "legacy": "b"}]', 'a bench', null)
from public.channel_external_refs as r
where r.external_ref_kind = 'BSTADMIN_BOOKING_ID'
order by r.entity_key
limit 200
"""
_ONE_EACH = """
select
    (select d.dead_letter_key from public.ingest_dead_letter as d where d.status = 'READY' limit 1),
    (select c.conflict_id from phase2.conflicts as c where c.status = 'OPEN' limit 1),
    (select q.queue_key from public.unmapped_queue as q where q.source_table = 'bench' limit 1),
    (select c.external_booking_ref from public.booking_core as c where c.channel_code = 'GYG' limit 1),
    (select c.external_booking_ref from public.booking_core as c where c.channel_code = 'DIRECT' limit 1)
"""


def _busy(conn: psycopg.Connection, bookings: int) -> None:
    """An event log, dead letters and a queue of that size, and 200 open conflicts, once."""
    if conn.execute("select exists (select 1 from public.ingest_event_log)").fetchone() == (True,):
        return
    _tell(f"filling the log with {bookings:,} events")
    for statement in (_EVENTS, _LETTERS, _QUEUE, _CONFLICT):
        conn.execute(statement, {"bookings": bookings})
    conn.execute("vacuum analyze")


def _console(dbs: Databases, conn: psycopg.Connection) -> list[Figure]:
    """Each page of the console as somebody sees it who has signed in: the median of 6 looks, and what it weighs."""
    letter, conflict, row, gyg, direct = conn.execute(_ONE_EACH).fetchall()[0]
    pages = {
        "overview": "",
        **{f"batch {code}": f"batches/{code}" for code in "ADG"},
        "sign-offs of G": "sign-offs/G",
        "flags": "flags",
        "audit": "audit",
        "guardrails": "guardrails",
        "ingestion": "ingestion",
        "dead letters": "dead-letters",
        "a dead letter": f"dead-letters/{letter}",
        "preview of one": f"dead-letters/{letter}/preview",
        "preview of all that is READY": "replay",
        "daily report": "daily",
        "exit criteria": "exit-criteria",
        "queue": "queue",
        "a row of the queue": f"queue/{row}",
        "conflicts": "conflicts",
        "a conflict, simulated": f"conflicts/{conflict}",
        "explain a booking of GYG": f"bookings?q={gyg}",
        "explain a booking of DIRECT": f"bookings?q={direct}",
        "explain what is called nothing": "bookings?q=nothing-at-all",
    }
    figures = []
    session = sessions.sealed(sessions.opened(core_settings(), "ayu", "ADMIN"), core_settings())
    with _service(dbs, 0.0) as client:
        client.cookies.set(sessions.cookie_name(), session)
        for name, path in pages.items():
            times, size = [], 0
            for _ in range(7):
                started = time.perf_counter()
                answered = client.get(f"/console/{path}".rstrip("/"))
                times.append((time.perf_counter() - started) * 1000)
                size = len(answered.content)
                assert answered.status_code in (200, 404), f"{path}: {answered.status_code}"
            ms, weight = statistics.median(times[1:]), size / 1024
            figures.append(
                {
                    "what": f"console: {name} ({weight:.0f} KB)",
                    "value": round(ms),
                    "kb": round(weight, 1),
                    "first": round(times[0]),
                    "unit": "ms",
                    "limit": PAGE_MS,
                    "holds": ms <= PAGE_MS and weight <= PAGE_KB,
                }
            )
            _tell(f"console: {name}: {ms:.0f} ms (the first look {times[0]:.0f}), {weight:.0f} KB")
    return figures


def _guardrails(dbs: Databases) -> Figure:
    """One look of all of them, as the flow has it every five minutes."""
    started = time.perf_counter()
    found = guardrails.measure(dbs)
    seconds = time.perf_counter() - started
    blind = ", ".join(f"{one.guardrail}: {one.words}" for one in found if one.status == "NOT_MEASURED")
    return {
        "what": f"one look of the guardrails{f' (not measured: {blind})' if blind else ''}",
        "value": round(seconds, 2),
        "unit": "s",
        "limit": "",
        "holds": True,
    }


def _show(figures: list[Figure], bookings: int) -> None:
    table = Table("", "value", "p50", "bstadmin p50", "bstadmin p95", "limit", "", title=f"{bookings:,} bookings")
    for f in figures:
        told = [str(f.get(name, "")) for name in ("p50", "legacy_p50", "legacy_p95")]
        table.add_row(
            f["what"],
            f"{f['value']} {f['unit']}",
            *told,
            str(f["limit"]),
            "holds" if f["holds"] else "[red]TOO MUCH[/]",
        )
    Console(width=150).print(table)


def _drop(server: str) -> None:
    with postgres.connect(server, autocommit=True) as conn:
        for name in _NAMES.values():
            conn.execute(postgres.statement("drop database if exists {} with (force)", name))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
