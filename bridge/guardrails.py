"""Guardrails (blueprint 8 and 9): what is measured while a flag of F, G or H is on, and the hard stop on a breach.

The measures are SQL (sql/ops/guardrails.sql), the guardrails are rows of guardrails.csv; a limit that a gate has too is
that gate's, in the registry. A breach holds the whole migration (`stop`), switches off the flags of the batch in
question, tells people, and rolls the batch back with what stands on it. Each of these is looked at again every time, so
that one that was killed or refused is taken up by the next look. Only a person lifts it: `phase2 resume`.
"""

from __future__ import annotations

import csv
import logging
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import psycopg
from psycopg.types.json import Jsonb

from bridge import alerts, flags, ingestion, ledger, postgres, rollback, steps, stop, waivers
from bridge.batches import BATCHES
from bridge.errors import CouldNotRun, plain
from bridge.flags import Flag
from bridge.reports import draw
from bridge.reports.write import guardrails as write_guardrails
from bridge.settings import Databases, settings
from bridge.shadow import at_most

Status = Literal["OK", "BREACH", "TOO_LITTLE", "NOT_MEASURED"]
Progress = Callable[[str], None]
_T = TypeVar("_T")

FLAGS: Mapping[str, tuple[Flag, ...]] = {
    "F": ingestion.OURS,
    "G": ("OPS_READ_NEW_MODEL_ENABLED",),
    "H": ("OPS_WRITE_CORE_ENABLED",),
}
KEPT = timedelta(days=90)
SETTLED = timedelta(minutes=30)  # a booking of the public web is given this long to be paid
_PART = {"ingest": "F", "reads": "G", "writes": "H", "event": "F", "write": "H"}
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_SECONDS = 60  # the longest that a measure may take
_PREFECT = "Prefect"
_NAMED = 1000  # keys that a measurement keeps
_STRANGE = 0.0001  # what is less probable than this in an hour calls for a person
_log = logging.getLogger("phase2.guardrails")


@dataclass(frozen=True)
class Guardrail:
    """One row of guardrails.csv. `stop` and `alarm`: how many of how many measurements. `chance`: a ratio over its
    limit is a breach when healthy traffic would give so many with less than this probability; 1: whenever it is over.
    `usual`: the share of failures of healthy traffic, where that is not measured. `least`: what is needed to judge,
    docs/guardrails.md says of what.
    """

    name: str
    title: str
    gate: str
    threshold: float
    unit: str
    chance: float
    usual: float
    least: int
    stop: tuple[int, int]
    alarm: tuple[int, int]
    batch: str  # F, G, H; `part`: that of the part that failed; `latest`: the last with a flag on
    measure: str
    check: str


@dataclass(frozen=True)
class Reading:
    """One measurement. `batch` is the one in question."""

    guardrail: str
    at: datetime
    status: Status
    words: str
    value: float | None = None
    numerator: int | None = None
    denominator: int | None = None
    batch: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Watch:
    """What one look found and did. `active`: batches with a flag on; `blind`: guardrails that cannot be measured;
    `told`: those of them of which people were told now; `unannounced`: stops of which no event of Prefect has told."""

    at: datetime
    active: tuple[str, ...]
    readings: tuple[Reading, ...]
    stops: tuple[stop.Stop, ...]
    stopped: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    unannounced: tuple[stop.Stop, ...] = ()
    done: tuple[str, ...] = ()
    page: Path | None = None


@cache
def guardrails() -> Mapping[str, Guardrail]:
    """The rows of guardrails.csv, by name, each with the limit of its gate where it has one."""

    def times(text: str) -> tuple[int, int]:
        few, many = text.split(" of ")
        return int(few), int(many)

    def made(row: dict[str, str]) -> Guardrail:
        gate = waivers.registered(row["gate"]) if row["gate"] else None
        return Guardrail(
            name=row["guardrail"],
            title=row["title"],
            gate=row["gate"],
            threshold=float(gate["threshold"] if gate else row["threshold"]),
            unit=row["unit"],
            chance=float(row["chance"]),
            usual=float(row["usual"] or 0),
            least=int(row["least"]),
            stop=times(row["stop"]),
            alarm=times(row["alarm"]),
            batch=row["batch"],
            measure=row["measure"],
            check=row["check"],
        )

    with (Path(__file__).parent / "guardrails.csv").open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file)
    rows = [dict(zip(head, line, strict=True)) for line in lines]  # a comma that is not quoted would move the rest
    return {row["guardrail"]: made(row) for row in rows}


def active(conn: psycopg.Connection) -> tuple[str, ...]:
    """The batches of F, G and H with a flag on, in their order."""
    rows = flags.read(conn)
    return tuple(code for code, ours in FLAGS.items() if any(flags.in_force(flag, rows).enabled for flag in ours))


# --- measuring -----------------------------------------------------------------------------------------------------


def measure(dbs: Databases, *, at: datetime | None = None) -> tuple[Reading, ...]:
    """Measure every guardrail, and keep what was found. One that cannot be measured says so; nothing is raised."""
    with postgres.connect(dbs.ops, application_name="phase2-guardrails", autocommit=True) as conn:
        conn.execute("select set_config('statement_timeout', %s, false)", (f"{_SECONDS}s",))
        moment = at or _now(conn)
        on, since = active(conn), _since(conn)
        found = tuple(
            _judged(guardrails()[name], moment, lambda one=one: one(conn, dbs, moment, since), on)
            for name, one in _MEASURES.items()
        )
        _keep(conn, found)
    return found


def _now(conn: psycopg.Connection) -> datetime:
    """By the database's clock, as all that is measured: this machine's may go wrong, and back."""
    row = conn.execute("select now()").fetchone()
    assert row is not None
    return row[0]


def _since(conn: psycopg.Connection) -> datetime:
    """When a person last lifted a stop: what was before that is not held against us again."""
    lifted = ledger.latest(conn, "resume")
    return lifted.at if lifted else _LONG_AGO


@dataclass(frozen=True)
class _Count:
    """What a measure counted. `by_chance`: how probable so many failures are in healthy traffic. `too_little`: why it
    says nothing; `blind`: why it should, and cannot."""

    failed: int
    of: int | None
    part: str = ""
    by_chance: float = 0.0
    value: float | None = None
    too_little: str = ""
    blind: str = ""
    words: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


class _Blind(Exception):
    """It cannot be measured, and why."""


def _judged(
    guardrail: Guardrail, at: datetime, counted: Callable[[], Sequence[_Count]], on: Sequence[str] = ()
) -> Reading:
    """The reading of a guardrail: of its parts the worst, and which of the others say nothing."""
    try:
        parts = [(_status(guardrail, part), part) for part in counted()]
    except (_Blind, CouldNotRun) as why:
        return Reading(guardrail.name, at, "NOT_MEASURED", str(why))
    except psycopg.Error as error:
        return Reading(guardrail.name, at, "NOT_MEASURED", plain(error))
    except Exception as error:  # whatever is wrong with one, the others are measured, and the stop is kept
        _log.exception("guardrail %s", guardrail.name)
        return Reading(guardrail.name, at, "NOT_MEASURED", type(error).__name__)
    status, worst = min(parts, key=lambda one: _order(guardrail, *one))
    if status == "NOT_MEASURED":
        return Reading(guardrail.name, at, status, worst.blind, detail=worst.detail)
    words = worst.too_little or worst.words
    if status == "TOO_LITTLE" and not worst.too_little:
        words += "; too few to tell it from chance"
    said = [(worst.part, words), *((p.part, p.too_little) for s, p in parts if p is not worst and s == "TOO_LITTLE")]
    return Reading(
        guardrail.name,
        at,
        status,
        "; ".join(f"{part}: {words}" if part else words for part, words in said if words),
        _value(guardrail, worst),
        worst.failed,
        worst.of,
        {"part": _PART.get(worst.part, "F"), "latest": on[-1] if on else "F"}.get(guardrail.batch, guardrail.batch),
        worst.detail,
    )


def _order(guardrail: Guardrail, status: Status, counted: _Count) -> tuple[int, float]:
    """What says most comes first: over its limit but maybe by chance is neither right nor wrong yet, and before OK."""
    value = _value(guardrail, counted) or 0.0
    doubtful = status == "TOO_LITTLE" and value > guardrail.threshold
    return ({"BREACH": 0, "NOT_MEASURED": 1, "OK": 3, "TOO_LITTLE": 2 if doubtful else 4}[status], -value)


def _value(guardrail: Guardrail, counted: _Count) -> float | None:
    if counted.value is not None:
        return counted.value
    if guardrail.unit == "count":
        return float(counted.failed)
    return counted.failed / counted.of if counted.of else None


def _status(guardrail: Guardrail, counted: _Count) -> Status:
    value = _value(guardrail, counted)
    if counted.blind:
        return "NOT_MEASURED"
    if counted.too_little or value is None:
        return "TOO_LITTLE"
    if value <= guardrail.threshold:
        return "OK"
    return "BREACH" if counted.by_chance < guardrail.chance else "TOO_LITTLE"


def at_least(failed: int, of: int, failed_else: int, of_else: int) -> float:
    """The probability that of all failures here and elsewhere so many or more fall here, if it is all the same where
    (Fisher's exact test, one-sided)."""

    def ways(of: int, chosen: int) -> float:
        return math.lgamma(of + 1) - math.lgamma(chosen + 1) - math.lgamma(of - chosen + 1)

    failures, every = failed + failed_else, of + of_else
    return sum(
        math.exp(ways(failures, n) + ways(every - failures, of - n) - ways(every, of))
        for n in range(max(failed, of - (every - failures)), min(failures, of) + 1)
    )


def _api(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    rows = conn.execute("select * from phase2.guardrail_api(%s, %s)", ([at], since)).fetchall()
    if not any(heard for _, _, heard, _, _ in rows):
        raise _Blind("no process of the core API has counted its answers for 5 minutes: is it up, on this database?")
    return [api_count(part, requests, errors) for _, part, _, requests, errors in rows]


def api_count(part: str, requests: int, errors: int) -> _Count:
    """One part of the core path in 15 minutes."""
    guardrail = guardrails()["api-5xx"]
    words = f"{errors} of {requests} answers in 15 minutes were server errors"
    few = "" if requests else "no request in 15 minutes"
    if 0 < errors < guardrail.least and errors > requests * guardrail.threshold:
        few = f"{words}; fewer than {guardrail.least} may be one person's"
    by_chance = 1 - at_most(errors - 1, requests, guardrail.usual)
    return _Count(errors, requests, part, by_chance=by_chance, too_little=few, words=words)


# Of the newest bookings; they are many, and nothing but the primary key tells where the last days begin.
_BOOKINGS = """
select
    to_jsonb(date_bin('5 minutes', b.created_at, timestamp '2000-01-01') at time zone 'UTC') as at,
    b.status_v2::text, b.status, p.payments, count(*), min(b.booking_id)
from public."Booking" as b
cross join lateral (
    select coalesce(jsonb_agg(distinct jsonb_build_array(p.payment_status_v2::text, p.payment_status)), '[]')
    from public."Payment" as p where p.booking_id = b.booking_id
) as p (payments)
where
    b.booking_id >= %(first)s and b.created_at > %(at)s::timestamptz at time zone 'UTC' - interval '11 days'
    and b.created_at <= %(at)s::timestamptz at time zone 'UTC'
group by 1, 2, 3, 4
"""
_FIRST = """
select (l.detail ->> 'first')::bigint from phase2.guardrail_log as l
where l.guardrail = 'public-booking-success' and l.detail ? 'first' and l.at < %s order by l.at desc limit 1
"""


def _bookings(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    at -= SETTLED
    known = conn.execute(_FIRST, (at,)).fetchone()
    groups = booking_groups(dbs.balisnap, at, known[0] if known else 0)
    first = min((group.pop("first") for group in groups), default=0)
    rows = conn.execute("select * from phase2.guardrail_bookings(%s, %s, %s)", (Jsonb(groups), [at], since)).fetchall()
    return [booking_count(*row[1:], detail={"first": first}) for row in rows]


def booking_groups(balisnap: str, at: datetime, first: int = 0) -> list[dict[str, Any]]:
    """Bookings of the eleven days up to a moment, from a booking id on: by five minutes and what their statuses say."""
    with postgres.connect(balisnap, application_name="phase2-guardrails", read_only=True) as source:
        source.execute("select set_config('statement_timeout', %s, false)", (f"{_SECONDS}s",))
        rows = source.execute(_BOOKINGS, {"at": at, "first": first}).fetchall()
    names = ("at", "v2", "status", "payments", "bookings", "first")
    return [dict(zip(names, row, strict=True)) for row in rows]


def booking_count(
    hours: int,
    bookings: int,
    failed: int,
    baseline: int,
    baseline_failed: int,
    quietest: int,
    detail: Mapping[str, Any] = {},
) -> _Count:
    """The bookings of one window against those of seven days; `quietest`: how many as long a time of these, at
    the same hours, had at the least."""
    guardrail = guardrails()["public-booking-success"]
    window = {1: "hour", 24: "day"}.get(hours, f"{hours // 24} days")
    usual = 1 - baseline_failed / baseline if baseline else 0.0
    if baseline < guardrail.least or not usual:
        few = f"a baseline of {baseline} bookings in 7 days, {usual:.0%} of them paid"
        return _Count(failed, bookings, too_little=few, detail=detail)
    if not bookings:
        none = f"no booking in the last {window}"
        if math.exp(-quietest) < _STRANGE:
            none += f", where the seven days before had {quietest} or more in each such time: can anybody book?"
            return _Count(0, 0, blind=none, detail=detail)
        return _Count(0, 0, too_little=f"{none}, where {baseline / 168 * hours:.0f} are usual", detail=detail)
    rate = 1 - failed / bookings
    return _Count(
        failed,
        bookings,
        by_chance=at_least(failed, bookings, baseline_failed, baseline),
        value=max(0.0, 1 - rate / usual),
        words=f"{rate:.1%} of {bookings} bookings of the last {window} were paid, {usual:.1%} of {baseline} in 7 days",
        detail=detail,
    )


def _duplicates(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    rows = conn.execute("select d.key::text from dbt_recon.recon_duplicate_bookings as d order by 1 limit 5000")
    return [_listed(conn, "duplicate-bookings", since, rows, "bookings are there twice")]


def _dead_letters(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    rows = conn.execute("select * from phase2.guardrail_dead_letters(%s, %s)", ([at], since)).fetchall()
    return [dead_letter_count(*row[1:]) for row in rows]


def dead_letter_count(came: int, went: int, decreased: bool) -> _Count:
    """The dead letters of one hour."""
    growth = 0 if decreased else max(0, came - went)
    falling = ", fewer again in its last quarter" if decreased else ""
    words = f"{came} events became dead letters in an hour, {went} left them{falling}"
    return _Count(growth, None, words=words)


def _payments(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    rows = conn.execute("select * from phase2.guardrail_payments(%s, %s)", ([at], since)).fetchall()
    return [payment_count(*row[1:]) for row in rows]


def payment_count(sampled: int, mismatched: Sequence[Any]) -> _Count:
    """The sample of one day. A single contradiction of few bookings may be anything."""
    guardrail, found = guardrails()["payment-mismatch"], len(mismatched)
    words = f"payments contradict {found} of {sampled} bookings that changed in a day"
    alone = found == 1 and sampled * guardrail.threshold < 1
    few = f"{words}; one alone stops nothing" if alone else ""
    if not found and sampled < guardrail.least:
        few = f"{words}; {guardrail.least} are needed"
    detail = {"keys": [str(key) for key in mismatched]}
    return _Count(found, sampled, too_little=few, words=words, detail=detail)


def _lost(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    rows = conn.execute("select l.what, l.key::text from phase2.guardrail_lost() as l order by 1, 2").fetchall()
    named = {"event": "events are lost", "write": "writes have not ended on both sides"}
    return [
        _listed(conn, "lost-events", since, [key for what, *key in rows if what == part], words, part)
        for part, words in named.items()
    ]


def _second_rows(conn: psycopg.Connection, dbs: Databases, at: datetime, since: datetime) -> list[_Count]:
    rows = conn.execute("select s.event_key::text from dbt_recon.recon_second_rows as s order by 1 limit 5000")
    return [_listed(conn, "idempotency", since, rows, "events were taken twice")]


_KNOWN = """
select k.key from phase2.guardrail_log as l
cross join lateral jsonb_array_elements_text(l.detail -> 'keys') as k (key)
where l.guardrail = %s and l.status = 'BREACH' and l.at <= %s
"""


def _listed(
    conn: psycopg.Connection, name: str, since: datetime, rows: Iterable[Sequence[str]], words: str, part: str = ""
) -> _Count:
    """Of what may not be at all: what no stop has named that a person has lifted since."""
    stops = [one.at for one in ledger.entries(conn, "stop", subject=name) if one.at <= since]
    known = {key for (key,) in conn.execute(_KNOWN, (name, max(stops, default=_LONG_AGO)))}
    keys = [key for (key,) in rows if key not in known]
    return _Count(len(keys), None, part, words=f"{len(keys)} {words}", detail={"keys": keys[:_NAMED]})


_MEASURES: Mapping[str, Callable[[psycopg.Connection, Databases, datetime, datetime], list[_Count]]] = {
    "public-booking-success": _bookings,
    "api-5xx": _api,
    "duplicate-bookings": _duplicates,
    "dead-letter-growth": _dead_letters,
    "payment-mismatch": _payments,
    "lost-events": _lost,
    "idempotency": _second_rows,
}


def _keep(conn: psycopg.Connection, readings: Iterable[Reading]) -> None:
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(
            "insert into phase2.guardrail_log (guardrail, at, status, value, threshold, numerator, denominator, batch,"
            " words, detail) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict (guardrail, at) do nothing",
            [
                (
                    one.guardrail,
                    one.at,
                    one.status,
                    None if one.value is None else round(Decimal(one.value), 9),
                    guardrails()[one.guardrail].threshold,
                    one.numerator,
                    one.denominator,
                    one.batch,
                    one.words,
                    Jsonb(dict(one.detail)),
                )
                for one in readings
            ],
        )
        # what a stop has named is known for ever
        cursor.execute(
            "delete from phase2.guardrail_log as l"
            " where l.at < now() - %s and not (l.status = 'BREACH' and l.detail ? 'keys')",
            (KEPT,),
        )


# --- acting --------------------------------------------------------------------------------------------------------


def watch(dbs: Databases, *, at: datetime | None = None, progress: Progress = lambda _: None) -> Watch:
    """One look: measure while a flag is on, stop on a breach, and see that every stop of ours is in force.

    CouldNotRun when the ops database is away, once people were told: nobody sees then whether the business is hurt.
    """
    try:
        steps.bootstrap(dbs.ops)
        return _watch(dbs, at, progress)
    except (CouldNotRun, psycopg.Error) as error:
        why = error.what if isinstance(error, CouldNotRun) else plain(error)
        alerts.tell_unkept("phase2.guardrail.blind", "ops-database", {"words": f"no guardrail can be measured: {why}"})
        raise CouldNotRun(
            f"no guardrail can be measured: {why}", where=postgres.describe(dbs.ops), todo="docs/guardrails.md"
        ) from None


def _watch(dbs: Databases, at: datetime | None, progress: Progress) -> Watch:
    with postgres.connect(dbs.ops, application_name="phase2-guardrails", autocommit=True) as conn:
        on = active(conn)
    readings = measure(dbs, at=at) if on else ()
    done: list[str] = []
    with postgres.connect(dbs.ops, application_name="phase2-guardrails", autocommit=True) as conn:
        _one_after_the_other(conn)
        standing = {one.subject for one in stop.standing(conn)}
        stopped = []
        for one in readings:
            guardrail = guardrails()[one.guardrail]
            if one.status == "BREACH" and one.guardrail not in standing and _so_often(conn, one, guardrail.stop):
                reason = f"{guardrail.title}: {one.words}; the limit is {limit_of(guardrail)}"
                stop.ask(conn, reason, subject=one.guardrail, batch=one.batch, actor="guardrails")
                stopped.append(one.guardrail)
        blind = tuple(
            one.guardrail
            for one in readings
            if one.status == "NOT_MEASURED" and _so_often(conn, one, guardrails()[one.guardrail].alarm)
        )
        ours = [one for one in stop.standing(conn) if one.subject in guardrails()]
        for one in ours:
            done += _tried(conn, done, "a flag cannot be switched off", lambda one=one: _switch_off(conn, one)) or []
        page: Path | None = None
        told_of = {(e.subject, e.body.get("about")) for e in ledger.entries(conn, "alert")}
        for one in ours:
            done += _tried(conn, done, "nobody can be told", lambda one=one: _tell(conn, one)) or []
        without = [one for one in ours if (one.subject, f"page of entry {one.entry}") not in told_of]
        if without and (page := _tried(conn, done, "the page cannot be written", lambda: write_page(conn))):
            for one in without:  # now, or one that was killed
                _note(conn, one, f"page of entry {one.entry}", page.name)
        unannounced = tuple(one for one in ours if (one.subject, f"event of entry {one.entry}") not in told_of)
        told = tuple(
            one.guardrail
            for one in readings
            if one.guardrail in blind
            and _tried(conn, done, "nobody can be told", lambda one=one: _tell_blind(conn, one))
        )
    for one in ours:
        done += _roll_back(dbs, one, progress)
    for line in done:
        progress(line)
    return Watch(
        at or datetime.now(UTC), on, readings, tuple(ours), tuple(stopped), blind, told, unannounced, tuple(done), page
    )


def announced(dbs: Databases, one: stop.Stop) -> None:
    """Keep that an event of Prefect has told of a stop: a flow that was killed before it tells in its next run."""
    with postgres.connect(dbs.ops, application_name="phase2-guardrails", autocommit=True) as conn:
        _note(conn, one, f"event of entry {one.entry}", _PREFECT)


def _note(conn: psycopg.Connection, one: stop.Stop, about: str, to: str) -> None:
    body = {"event": "phase2.guardrail.stop", "about": about, "to": to, "delivered": True, "error": None}
    ledger.append(conn, "alert", subject=one.subject, body=body)


def _tried(conn: psycopg.Connection, done: list[str], failure: str, act: Callable[[], _T]) -> _T | None:
    """What one act of a look gave. Whatever is wrong with it is said in `done`, and the next act is still done; but
    for a database that is gone: of that the look itself tells."""
    try:
        return act()
    except Exception as error:
        if conn.closed:
            raise
        done.append(f"{failure}: {_why(error)}")
        _log.error(done[-1])
        return None


def _why(error: Exception) -> str:
    """In words that quote nothing of what was handled."""
    if isinstance(error, CouldNotRun):
        return error.what
    if isinstance(error, psycopg.Error):
        return plain(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} ({Path(last.filename).name}:{last.lineno})"


def _one_after_the_other(conn: psycopg.Connection) -> None:
    """Two looks at once (the schedule and a person) make one stop; until this connection ends. Who waits for one that
    hangs goes on: a second stop is better than none."""
    try:
        with conn.transaction():
            conn.execute("set local lock_timeout = '30s'")
            conn.execute("select pg_advisory_lock(hashtextextended('phase2.guardrails', 0))")
    except psycopg.errors.LockNotAvailable:
        _log.warning("another look at the guardrails hangs")


def limit_of(guardrail: Guardrail) -> str:
    """Its limit in words: `2 %`, `100`."""
    return draw.percent(guardrail.threshold) if guardrail.unit == "ratio" else f"{guardrail.threshold:g}"


_OFTEN = """
select count(*) filter (where l.status = %s) from (
    select l.status from phase2.guardrail_log as l
    where l.guardrail = %s and l.at > greatest(%s, %s - interval '30 minutes') and l.at <= %s
    order by l.at desc limit %s
) as l
"""


def _so_often(conn: psycopg.Connection, one: Reading, times: tuple[int, int]) -> bool:
    """Whether so many of the last measurements, since a person last lifted a stop, said what this one says."""
    asked = (one.status, one.guardrail, _since(conn), one.at, one.at, times[1])
    row = conn.execute(_OFTEN, asked).fetchone()
    return bool(row) and row[0] >= times[0]


def _switch_off(conn: psycopg.Connection, one: stop.Stop) -> list[str]:
    """The flags of the batch in question, also one that somebody has switched on under a stop."""
    rows, done = flags.read(conn), []
    for flag in FLAGS.get(one.batch or "", ()):
        if flags.in_force(flag, rows).enabled:
            flags.change(conn, flag, False, reason=f"hard stop, entry {one.entry}: {one.subject}", actor="guardrails")
            done.append(f"{flag} is off")
    return done


def _tell(conn: psycopg.Connection, one: stop.Stop) -> list[str]:
    guardrail = guardrails()[one.subject or ""]
    said = {
        "words": one.reason,
        "batch": one.batch,
        "since": one.at,
        "check": guardrail.check,
        "lift": stop.HOW_TO_LIFT,
    }
    told = alerts.tell(conn, "phase2.guardrail.stop", guardrail.name, f"entry {one.entry}", said)
    return [f"told: {one.reason}"] if told else []


# it was last well when so many in a row were measured: one in between is no end of it
_SEEN = """
select coalesce(max(l.at) filter (where l.measured >= %s), min(l.at))::text from (
    select
        l.at,
        count(*) filter (where l.status <> 'NOT_MEASURED')
            over (order by l.at rows between %s preceding and current row) as measured
    from phase2.guardrail_log as l where l.guardrail = %s
) as l
"""


def _tell_blind(conn: psycopg.Connection, one: Reading) -> bool:
    """Once for as long as it lasts; whether it was now."""
    guardrail = guardrails()[one.guardrail]
    row = conn.execute(_SEEN, (guardrail.alarm[1], guardrail.alarm[1] - 1, guardrail.name)).fetchone()
    said = {"words": f"{guardrail.title} cannot be measured: {one.words}", "since": row and row[0]}
    return alerts.tell(conn, "phase2.guardrail.blind", guardrail.name, f"not measured since {row and row[0]}", said)


def _roll_back(dbs: Databases, one: stop.Stop, progress: Progress) -> list[str]:
    """The batch in question and what stands on it, the last first; a refusal is told, and tried again next time."""
    done = []
    try:
        run = steps.prepare(progress=progress)
        with run.connect() as conn:
            states = dict(conn.execute("select b.batch, b.status from phase2.batch_state as b").fetchall())
        codes = [c for c in reversed(FLAGS) if c >= (one.batch or "F")]
        standing = [c for c in codes if states.get(c, "PENDING") not in ("PENDING", "ROLLED_BACK")]
        if standing:
            with steps.only_runner(run):
                for code in standing:
                    roll_back(run, code)
                    done.append(f"batch {code} is rolled back")
    except Exception as refused:  # whatever it is, the rollbacks after other stops are still tried
        words = f"the rollback after {one.subject} could not run, it is tried again: {_why(refused)}"
        about = f"rollback, entry {one.entry}"
        done.append(words)
        with postgres.connect(dbs.ops, application_name="phase2-guardrails", autocommit=True) as conn:
            _tried(
                conn,
                done,
                "nobody can be told",
                lambda: alerts.tell(conn, "phase2.guardrail.rollback", one.subject or "", about, {"words": words}),
            )
    return done


def roll_back(run: steps.Run, code: str) -> None:
    """The rollback path of one batch, by its letter. CouldNotRun when it is refused."""
    rollback.roll_back(run, BATCHES[code])


# --- history -------------------------------------------------------------------------------------------------------

_HISTORY = """
select l.guardrail, l.at, l.status, l.value::float8, l.words from phase2.guardrail_log as l
where l.at > %s order by l.guardrail, l.at
"""


def history(conn: psycopg.Connection, days: float = 7.0) -> dict[str, list[tuple[datetime, Status, float | None, str]]]:
    """What each guardrail measured in the last days, in order."""
    found: dict[str, list[tuple[datetime, Status, float | None, str]]] = {name: [] for name in guardrails()}
    for name, *rest in conn.execute(_HISTORY, (datetime.now(UTC) - timedelta(days=days),)):
        found.setdefault(name, []).append(tuple(rest))  # type: ignore[arg-type]
    return found


def write_page(conn: psycopg.Connection) -> Path:
    """One page: the stops that stand, what to check, and a week of every guardrail, drawn."""
    kept, rows = history(conn), guardrails()
    content = {
        "stops": [one for one in stop.standing(conn) if one.subject in rows],
        "guardrails": rows,
        "limits": {name: limit_of(one) for name, one in rows.items()},
        "lines": {name: draw.line(kept[name], one.threshold) for name, one in rows.items()},
    }
    return write_guardrails(content, datetime.now(UTC), settings().phase2_reports)
