"""Emitters: what changed in a source since the watermark, as signed events (docs/ingestion-emitters.md).

The sources are only read. The watermark moves over what has been answered, so a run that is killed, or that nobody
answers, is taken up by the next one; what comes twice is known by its key. Both emitters are this one function with
other SQL (sql/emitters).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import httpx
import psycopg
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from bridge import flags, ingest_client, postgres
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun, plain
from bridge.flags import Flag
from bridge.settings import SQL, Databases

CONNECTIONS = 16  # at once to the core API
_TOGETHER = 500  # changes after which the watermark moves
_SECONDS = 30.0  # the longest that one answer may take
_ROUNDS = 20  # events of one booking, type and second that come in one go

Progress = Callable[[str], None]


class AtWork(CouldNotRun):
    """The same emitter is at work elsewhere."""


@dataclass(frozen=True)
class _Emitter:
    """One emitter: its flag, its source, and for how long a change may come to light after its time."""

    name: Literal["web", "mail"]
    flag: Flag
    source: Literal["balisnap", "bstadmin"]
    overlap: timedelta

    def sql(self, part: str = "") -> str:
        return (SQL / "emitters" / f"{self.name}{part}.sql").read_text("utf-8")


# A transaction that is open for longer, or a clock that is further behind, is met by the next backfill only.
WEB = _Emitter("web", "WEB_EMIT_BOOKING_EVENT_ENABLED", "balisnap", timedelta(hours=1))
# A mail is written down when it comes, and parsed a while later: nothing in its row says when.
MAIL = _Emitter("mail", "EMAIL_PIPELINE_CORE_ENABLED", "bstadmin", timedelta(days=1))


@dataclass(frozen=True)
class Emitted:
    """What one run of an emitter did. Of what it `read`, each is `known`, `skipped`, `refused` or `new`."""

    emitter: str
    enabled: bool
    read: int = 0
    known: int = 0  # had its event, or its refusal, from an earlier run
    skipped: int = 0  # not in the rollout: read again when that changes
    refused: int = 0  # can never be an event as it is: a row in the unmapped queue says why
    new: int = 0  # an event now
    sent: int = 0  # answered with 202
    replays: int = 0  # of those, answered with an earlier event's answer: sent once more, for a time of their own
    watermark: datetime | None = None


@dataclass(frozen=True)
class _Mark:
    """A row of phase2.watermarks."""

    at: datetime
    rollout: dict[str, Any] = field(default_factory=dict)
    skipped_from: datetime | None = None
    since: datetime | None = None  # where it began: what changed before that never became an event


def emit_web(dbs: Databases, *, progress: Progress = lambda _: None) -> Emitted:
    """Bookings of balisnap that changed, or of which a payment did, to the core API.

    Raises CouldNotRun when a database or the API cannot be reached, the API does not take events now, or another web
    emitter is at work; what was answered until then counts.
    """
    return _emit(WEB, dbs, progress)


def emit_mail(dbs: Databases, *, progress: Progress = lambda _: None) -> Emitted:
    """Parsed booking mails of bstadmin to the core API, under their message ids; else as `emit_web`."""
    return _emit(MAIL, dbs, progress)


def words(done: Emitted) -> str:
    """One line for people."""
    if not done.enabled:
        flag = {"web": WEB, "mail": MAIL}[done.emitter].flag
        return f'{done.emitter}: {flag} is off, nothing was read (phase2 flag {flag} on --reason "…")'
    parts = {"known before": done.known, "not in the rollout": done.skipped, "refused for good": done.refused}
    more = "".join(f", {count} {what}" for what, count in parts.items() if count)
    return (
        f"{done.emitter}: {done.read} read, {done.new} new events{more}; up to {done.watermark:%Y-%m-%d %H:%M:%S} UTC"
    )


def _emit(emitter: _Emitter, dbs: Databases, progress: Progress) -> Emitted:
    try:
        with postgres.connect(dbs.ops, application_name=f"phase2-emit-{emitter.name}", autocommit=True) as ops:
            row = flags.in_force(emitter.flag, flags.read(ops))
            if not row.enabled:
                kept = _read_mark(ops, emitter)
                return Emitted(emitter.name, enabled=False, watermark=kept.at if kept else None)
            with _alone(ops, emitter), _snapshot(emitter, getattr(dbs, emitter.source)) as source:
                return _all(emitter, row, ops, source, progress)
    except psycopg.Error as error:
        raise CouldNotRun(
            f"the {emitter.name} emitter stopped: {plain(error)}",
            where=f"ops database, {emitter.source}",
            todo="Run it again: it goes on where it was.",
        ) from None


@contextmanager
def _alone(ops: psycopg.Connection, emitter: _Emitter) -> Iterator[None]:
    """Hold this emitter's lock, at the longest for as long as the session lives; AtWork when another one has it."""
    name = f"phase2 emit {emitter.name}"
    row = ops.execute("select pg_try_advisory_lock(hashtextextended(%s, 0))", (name,)).fetchone()
    if not row or not row[0]:
        raise AtWork(
            f"another {emitter.name} emitter is at work",
            where=f"{ops.info.host}:{ops.info.port}/{ops.info.dbname}",
            todo="Wait until it has ended.",
        )
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # lost with the session, else
            ops.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", (name,))


@contextmanager
def _snapshot(emitter: _Emitter, url: str) -> Iterator[psycopg.Connection]:
    """The source as it is now: one snapshot, read-only."""
    name = f"phase2-emit-{emitter.name}"
    with postgres.connect(url, application_name=name, read_only=True) as source:
        source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        yield source


@dataclass
class _Run:
    """What a run holds while it works."""

    emitter: _Emitter
    ops: psycopg.Connection
    rows: dict[str, flags.Row]
    client: httpx.Client
    pool: ThreadPoolExecutor
    counts: Counter[str] = field(default_factory=Counter)


def _all(
    emitter: _Emitter, row: flags.Row, ops: psycopg.Connection, source: psycopg.Connection, progress: Progress
) -> Emitted:
    mark = _begin(emitter, row, ops)
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    with (
        httpx.Client(limits=limits, timeout=_SECONDS, trust_env=False) as client,  # no proxy, no netrc
        ThreadPoolExecutor(CONNECTIONS) as pool,
        psycopg.RawServerCursor(source, f"emit_{emitter.name}") as cursor,
    ):
        run = _Run(emitter, ops, {emitter.flag: row}, client, pool)
        cursor.execute(emitter.sql(), [(mark.at - emitter.overlap).replace(tzinfo=None)])
        while changes := cursor.fetchmany(_TOGETHER):
            if flags.in_force(emitter.flag, flags.read(ops)) != row:
                progress(f"{emitter.flag} was changed: the next run goes on from here")
                break
            times = [at.replace(tzinfo=UTC) for at, _ in changes]
            skipped = _emit_some(run, [document for _, document in changes])
            left_out = [*(times[place] for place in skipped), *([mark.skipped_from] if mark.skipped_from else [])]
            mark = _Mark(max(mark.at, times[-1]), mark.rollout, min(left_out, default=None), mark.since)
            _write_mark(emitter, ops, mark)
            counts = run.counts
            progress(
                f"{emitter.name}: {counts['read']} read, {counts['new']} new, {counts['skipped']} not in the rollout"
            )
    return Emitted(emitter.name, enabled=True, watermark=mark.at, **run.counts)


def _emit_some(run: _Run, documents: list[str]) -> list[int]:
    """Send what is to be sent of these changes; the places of those that are not in the rollout."""
    skipped: list[int] = []
    run.counts["read"] += len(documents)
    places = list(range(len(documents)))
    for _ in range(_ROUNDS):
        to_send = []
        asked = [documents[place] for place in places]
        for place, event in zip(places, _events(run.ops, run.emitter, asked), strict=True):
            if event["is_known"]:
                run.counts["known"] += 1
            elif not flags.is_on(run.emitter.flag, run.rows, actor=event["ref"], channel=event["channel"]):
                run.counts["skipped"] += 1
                skipped.append(place)
            elif event["problem"]:
                _refuse(run, event, event["problem"])
            else:
                to_send.append((place, event))
        places = []
        for (place, event), (status, told) in zip(
            to_send, run.pool.map(lambda one: _send(run, one[1]), to_send), strict=True
        ):
            if status != 202:
                _refuse(run, event, told)
                continue
            run.counts["sent"] += 1
            if told:
                run.counts["replays"] += 1
                places.append(place)
            else:
                run.counts["new"] += 1
        if not places:
            return skipped
    raise CouldNotRun(
        f"{len(places)} events get other events' answers, again and again",
        where=core_settings().url,
        todo="See whether somebody else sends events of the same bookings with the same times.",
    )


def _events(ops: psycopg.Connection, emitter: _Emitter, documents: list[str]) -> list[dict[str, Any]]:
    """The events of these documents, in their order: what the second statement of the emitter selects."""
    with psycopg.RawCursor(ops, row_factory=dict_row) as cursor:
        cursor.execute(emitter.sql("_events"), [f"[{','.join(documents)}]"])
        return cursor.fetchall()


# Refused for good: the same bytes are refused again, whenever they come. The words are the API's; a proxy has others.
_FOR_GOOD = frozenset({"INVALID_JSON", "PAYLOAD_TOO_LARGE", "VALIDATION_ERROR", "IDEMPOTENCY_KEY_REUSED"})


def _send(run: _Run, event: dict[str, Any]) -> tuple[int, str]:
    """Status, and what was said: of 202 empty or that it is another event's answer, of a refusal its faults.

    Status 0: not sent. Raises CouldNotRun for what may be accepted later.
    """
    try:
        request = ingest_client.signed(core_settings(), json.loads(event["event"]), event["key"])
    except (RecursionError, ValueError):  # a parser's JSON may be nested, or hold a number, beyond all measure
        return 0, "it cannot be read"
    response = ingest_client.send(run.client, request)
    is_replay = _part(response, "data").get("idempotentReplay")
    if response.status_code == 202 and isinstance(is_replay, bool):
        return 202, "another event's answer" if is_replay else ""
    error = _part(response, "error")
    code = str(error.get("code", ""))
    if code in _FOR_GOOD:
        details = error.get("details")
        faults = details if isinstance(details, list) else []
        fields = sorted({str(fault.get("field")) for fault in faults if isinstance(fault, dict)})
        return response.status_code, f"{code}: {', '.join(fields)}" if fields else code
    raise CouldNotRun(
        f"the core API does not take events: {response.status_code} {code}",
        where=core_settings().url,
        todo="See its flags (phase2 flag), its log and CORE_API_URL; the next run goes on from here.",
    )


def _part(response: httpx.Response, name: str) -> dict[str, Any]:
    """`data` or `error` of an answer of the core API; empty when there is none, or somebody else answers."""
    try:
        said = response.json()
    except (RecursionError, ValueError):
        return {}
    part = said.get(name) if isinstance(said, dict) else None
    return part if isinstance(part, dict) else {}


_REFUSE = """
insert into public.unmapped_queue as q (
    queue_key, queue_type, channel_code, source_system, source_table, source_pk, reason_code, reason_detail, payload
)
select
    rulebook.queue_key('BOOKING_REVIEW', 'ingest', i.source_table, i.source_pk, 'INVALID_SOURCE'), 'BOOKING_REVIEW',
    i.channel, 'ingest', i.source_table, i.source_pk, 'INVALID_SOURCE', i.why, jsonb_build_object('key', i.key)
from (
    values (
        %(source_table)s::text, %(source_pk)s::text, %(channel)s::text, %(why)s::text, %(key)s::text
    )
) as i (source_table, source_pk, channel, why, key)
on conflict (queue_key) do update
    set reason_detail = excluded.reason_detail, payload = excluded.payload, updated_at = now()
    where q.payload is distinct from excluded.payload
"""


def _refuse(run: _Run, event: dict[str, Any], why: str) -> None:
    """Leave it to people: which row of the source, and which of its fields; no values."""
    run.counts["refused"] += 1
    run.ops.execute(_REFUSE, {**event, "why": f"no event can be made of it: {why}", "event": None})


def _begin(emitter: _Emitter, row: flags.Row, ops: psycopg.Connection) -> _Mark:
    """Where this run starts. What an earlier rollout left out is read again under another one."""
    rollout = row.rollout.model_dump(mode="json")
    mark = _read_mark(ops, emitter)
    if mark is None:
        first = _first(ops, emitter)
        mark = _Mark(first, rollout, since=first)
    elif mark.rollout != rollout:
        mark = _Mark(min(mark.at, mark.skipped_from or mark.at), rollout, since=mark.since)
    else:
        return mark
    _write_mark(emitter, ops, mark)
    return mark


# what batch D has read needs no event: the landing before it
_FIRST = """
select max(l.snapshot_at) from phase2.landing_runs as l
where l.source = %s and l.snapshot_at <= (select b.started_at from phase2.batch_state as b where b.batch = 'D')
"""
_EVER = datetime(1900, 1, 1, tzinfo=UTC)


def _first(ops: psycopg.Connection, emitter: _Emitter) -> datetime:
    row = ops.execute(_FIRST, (emitter.source,)).fetchone()
    return row[0] if row and row[0] else _EVER


def _read_mark(ops: psycopg.Connection, emitter: _Emitter) -> _Mark | None:
    row = ops.execute(
        "select w.at, w.detail -> 'rollout', (w.detail ->> 'skipped_from')::timestamptz,"
        " (w.detail ->> 'since')::timestamptz from phase2.watermarks as w where w.name = %s",
        (f"emit_{emitter.name}",),
    ).fetchone()
    return _Mark(row[0], row[1] or {}, row[2], row[3]) if row else None


def _write_mark(emitter: _Emitter, ops: psycopg.Connection, mark: _Mark) -> None:
    detail = {
        "rollout": mark.rollout,
        "skipped_from": mark.skipped_from and mark.skipped_from.isoformat(),
        "since": mark.since and mark.since.isoformat(),
    }
    ops.execute(
        "insert into phase2.watermarks (name, at, detail) values (%s, %s, %s)"
        " on conflict (name) do update set at = excluded.at, detail = excluded.detail, updated_at = now()",
        (f"emit_{emitter.name}", mark.at, Jsonb(detail)),
    )


# --- what was emitted, and is not in the log (gate H-02) -------------------------------------------------------------

_LOOK_BACK = timedelta(days=1)
_IN_THE_LOG = timedelta(days=34)  # the retention takes an event a day later


@dataclass(frozen=True)
class Looked:
    """What an emitter's watermark has left behind for good: how many changes have their event, and which have none."""

    emitter: str
    compared: int
    missing: tuple[tuple[str, str], ...]  # table and key in the source


def unlogged(dbs: Databases) -> list[Looked]:
    """The day behind each watermark, and behind its overlap, which the next run reads again: is all of it in the log?

    Left out is what the rollout leaves out, and what was refused. An emitter that never ran says nothing. Raises
    CouldNotRun.
    """
    found = []
    try:
        with postgres.connect(dbs.ops, application_name="phase2-emit-look", read_only=True, autocommit=True) as ops:
            for emitter in (WEB, MAIL):
                if mark := _read_mark(ops, emitter):
                    found.append(_look(emitter, mark, ops, getattr(dbs, emitter.source)))
    except psycopg.Error as error:
        raise CouldNotRun(
            f"emitters and log cannot be compared: {plain(error)}", where="ops database, sources"
        ) from None
    return found


def _look(emitter: _Emitter, mark: _Mark, ops: psycopg.Connection, source_url: str) -> Looked:
    to = mark.at - emitter.overlap
    since = max(mark.since or _first(ops, emitter), to - _LOOK_BACK, datetime.now(UTC) - _IN_THE_LOG)
    rows: dict[str, flags.Row] = {emitter.flag: flags.Row(True, flags.rollout_of(mark.rollout))}
    compared, missing = 0, []
    with (
        _snapshot(emitter, source_url) as source,
        psycopg.RawServerCursor(source, f"look_{emitter.name}") as cursor,
    ):
        cursor.execute(emitter.sql(), [since.replace(tzinfo=None)])
        while changes := cursor.fetchmany(_TOGETHER):
            documents = [document for at, document in changes if at.replace(tzinfo=UTC) < to]
            for event in _events(ops, emitter, documents):
                if event["problem"] or not flags.is_on(
                    emitter.flag, rows, actor=event["ref"], channel=event["channel"]
                ):
                    continue
                compared += 1
                if not event["is_known"]:
                    missing.append((event["source_table"], event["source_pk"]))
            if len(documents) < len(changes):
                break
    return Looked(emitter.name, compared, tuple(missing))
