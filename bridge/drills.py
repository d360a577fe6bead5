"""The drills of batch F (blueprint 6.7) and the rollbacks of G and H (6.8, 6.9): on a copy, with its own service.

    copy of the ops database → API, worker and Valkey on it → drills → evidence in the ops database → copy dropped

Nothing that is made up reaches the ops database. Each drill is a function of the service; it checks by name, and says
what it measured. Its evidence is a row of `phase2.drills`, an entry "drill" in the ledger, and a report. A drill that
failed, or did not come to its end, is evidence too, and the latest counts.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from bridge import clone, flags, ledger, parity, postgres, runlog, steps, stop, write_drill
from bridge.core_settings import CoreSettings
from bridge.errors import CouldNotRun, GateFailed, Stopped, plain
from bridge.flags import Flag
from bridge.ingest_client import PATH, send, signed
from bridge.policy import policy
from bridge.reports.write import drill as write_report
from bridge.settings import ROOT, settings

_BATCH = "F"  # whose gates ask for them, but for the one of H
INGESTION: tuple[Flag, ...] = ("INGEST_WEBHOOK_ENABLED", "INGEST_QUEUE_ENABLED", "INGEST_REPLAY_ENABLED")
TIMES_THE_PEAK = 10
LEAST_PEAK = 200  # events a minute: what the burst is taken from where the log has seen less, or nothing yet
CONNECTIONS = 50
_ACTOR = "drill"
_NOWHERE = "postgresql://nobody@127.0.0.1:1/none"  # a service opens no real source
_START_SECONDS = 60.0
_DONE_SECONDS = 60.0  # the longest that a drill waits for what it has sent
_READS: Flag = "OPS_READ_NEW_MODEL_ENABLED"
_PAGES = ("bookings?limit=20", "assignments?limit=20", "finance/summary")
_TOGETHER = 8  # parallel deliveries of one event


# --- a service on a copy -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Service:
    """A running service: its database, where it answers and with which tokens (of its own)."""

    ops: str
    settings: CoreSettings
    client: httpx.Client
    ask: Callable[[], None] = lambda: None  # raises Stopped: called where a drill may end
    bstadmin: str | None = None  # what stands in for it

    def connect(self) -> psycopg.Connection:
        return postgres.connect(self.ops, application_name="phase2 drill", autocommit=True)

    def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        with self.connect() as conn:
            return conn.cursor(row_factory=dict_row).execute(statement.encode(), values).fetchall()

    def one(self, statement: str, **values: Any) -> Any:
        """The first value of the first row."""
        return next(iter(self.rows(statement, **values)[0].values()))

    def send(self, event: Mapping[str, Any], key: str | None = None) -> httpx.Response:
        """The event under this key, or one of its own."""
        return send(self.client, signed(self.settings, event, key or secrets.token_hex(16)))

    def admin(self, method: str, path: str, *, key: str | None = None, **body: Any) -> httpx.Response:
        """A call of an admin's; `key` is a write's idempotency key."""
        token = self.settings.core_api_admin_token
        assert token is not None
        headers = {
            "authorization": f"Bearer {token.get_secret_value()}",
            "x-admin-role": "MANAGER",
            "x-actor": _ACTOR,
            **({"x-idempotency-key": key} if key else {}),
        }
        return self.client.request(method, self.settings.url + path, headers=headers, json=body or None)

    def switch(self, on: bool, *names: Flag) -> None:
        with self.connect() as conn:
            for name in names:
                flags.change(conn, name, on, reason="drill", rollout=flags.Rollout(), actor=_ACTOR)


@contextmanager
def served(
    ops_url: str,
    *,
    on: Sequence[Flag] = INGESTION,
    ask: Callable[[], None] = lambda: None,
    bstadmin_url: str | None = None,
    writes: bool = False,
) -> Iterator[Service]:
    """API and worker on this copy, with a Valkey, a port, tokens and a queue of their own; ended whatever happens.

    `on`: the flags of ingestion that are on; the others are off. `bstadmin_url`: what it reads as bstadmin, or what
    stands in for it; written only with `writes`, whatever the environment says. Raises CouldNotRun: it is no copy made
    to be dropped, the tables are not there, or the service does not start.
    """
    with postgres.connect(ops_url, application_name="phase2 drill", autocommit=True) as conn:
        if not postgres.refuse_a_stranger(conn, postgres.database_name(ops_url)):
            raise CouldNotRun("there is no such database", where=postgres.describe(ops_url))
        _refuse_without_tables(conn, ops_url)
    steps.bootstrap(ops_url)
    given = {name: secrets.token_hex(32) for name in ("core_api_admin_token", "ingest_service_token")}
    given["ingest_service_secret"] = secrets.token_hex(32)
    for _ in range(3):  # a free port may be taken between the look and the start
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        told = {
            "core_api_host": "127.0.0.1",
            "core_api_port": port,
            "core_api_url": url,
            "bstadmin_write_db_url": SecretStr(bstadmin_url) if bstadmin_url and writes else None,
            **{f"{name}_previous": None for name in given},
            **{name: SecretStr(value) for name, value in given.items()},
        }
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        with httpx.Client(timeout=30, limits=limits, trust_env=False) as client:
            service = Service(ops_url, CoreSettings().model_copy(update=told), client, ask, bstadmin_url)
            service.switch(True, *on)
            service.switch(False, *(flag for flag in INGESTION if flag not in on))
            theirs = (bstadmin_url or _NOWHERE, bstadmin_url if bstadmin_url and writes else _NOWHERE)
            with _running(ops_url, theirs, port, given) as (process, log):
                until(partial(_started, process, client, url), _START_SECONDS)
                if process.poll() is None and _answers(client, url):
                    yield service
                    return
                said = log.read_text(errors="replace").strip().splitlines()
    raise CouldNotRun(
        "the service does not start" + (f": {plain(said[-1])}" if said else ""),
        where=postgres.describe(ops_url),
        todo="make serve shows more.",
    )


@contextmanager
def _running(
    ops_url: str, bstadmin: tuple[str, str], port: int, given: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """`core_api serve` behind a tether, and its log; gone when this ends, or when this process does."""
    home = Path(tempfile.mkdtemp(prefix="phase2-drill-"))
    log = home / "service.log"
    environment = os.environ | {
        "OPS_DB_URL": ops_url,
        "BALISNAP_DB_URL": _NOWHERE,
        "BSTADMIN_DB_URL": bstadmin[0],
        "BSTADMIN_WRITE_DB_URL": bstadmin[1],  # never that of the environment: the copy holds real writes
        "PHASE2_ENV": policy().environment,
        "PHASE2_HOME": str(home),
        "PHASE2_KILL": "",
        "CORE_API_HOST": "127.0.0.1",
        "CORE_API_PORT": str(port),
        "INGEST_REDIS_URL": "",
        "INGEST_QUEUE_NAME": f"drill-{port}",
        **{name.upper(): value for name, value in given.items()},
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    command = [sys.executable, "-m", "core_api", "serve"]
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge.tether", str(home), *command],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
            start_new_session=True,  # Ctrl-C is for whoever drills
        )
    assert process.stdin is not None
    try:
        yield process, log
    finally:
        process.stdin.close()
        process.wait()


def _started(process: subprocess.Popen[bytes], client: httpx.Client, url: str) -> bool:
    return process.poll() is not None or _answers(client, url)


def _answers(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url + "/health/db").status_code == 200
    except httpx.TransportError:
        return False


def until(true: Callable[[], Any], seconds: float, every: float = 0.05) -> bool:
    """Wait for it; whether it came in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def _refuse_without_tables(conn: psycopg.Connection, ops_url: str) -> None:
    try:
        conn.execute("select rulebook.norm_ref('x') from public.ingest_event_log, dbt_seeds.gate_registry limit 0")
        if conn.execute("select from public.channel_registry limit 1").fetchone() is not None:
            return
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
        pass
    raise CouldNotRun(
        "the tables of batches A and B are not there", where=postgres.describe(ops_url), todo="phase2 run --to B"
    )


# --- events --------------------------------------------------------------------------------------------------------

_SOURCE = "GYG"
_BEGAN = runlog.utc_now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)


def _ref() -> str:
    return f"DRILL-{secrets.token_hex(6).upper()}"


def _event(ref: str, kind: str = "CREATED", second: int = 0, **booking: Any) -> dict[str, Any]:
    """A made-up event; `second` is its place among those of its booking."""
    at = _BEGAN + timedelta(seconds=second)
    return {
        "payloadVersion": "v1",
        "eventType": kind,
        "eventTime": at.isoformat().replace("+00:00", "Z"),
        "source": _SOURCE,
        "externalBookingRef": ref,
        "customer": {"name": "Drill Example", "email": "drill@example.com", "phone": None},
        "booking": {
            "tourDate": (at + timedelta(days=30)).date().isoformat(),
            "tourTime": "08:30",
            "adult": 2,
            "child": 0,
            "currency": "USD",
            "totalPrice": 90,
            "pickupLocation": "Ubud",
        }
        | booking,
        "raw": {"providerPayload": {"drill": True}},
    }


# --- the drills ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Check:
    """One thing that must hold, whether it did, and what was found."""

    name: str
    passed: bool
    found: str


@dataclass
class Outcome:
    """What came of a drill."""

    checks: list[Check] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def check(self, name: str, passed: bool, found: object = "") -> bool:
        self.checks.append(Check(name, bool(passed), str(found)))
        return bool(passed)

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)


_PENDING = """
select count(*) from public.ingest_event_log as e
where e.event_key = any(%(keys)s) and phase2.is_pending(e.process_status, e.next_retry_at)
"""


def _ended(service: Service, keys: Sequence[str]) -> bool:
    """Wait until none of these events is pending; whether that came in time. Raises Stopped."""
    given = [UUID(key) for key in keys]
    began = time.monotonic()
    while not until(lambda: not service.one(_PENDING, keys=given), 2, 0.1):
        if time.monotonic() - began > _DONE_SECONDS:
            return False
        service.ask()
    return True


def duplicate(service: Service) -> Outcome:
    """The same key again and in parallel, and the same event under other keys: one row, the first answer each time."""
    out = Outcome()
    event, key = _event(_ref()), secrets.token_hex(16)
    first = service.send(event, key)
    out.check("the first delivery is accepted", first.status_code == 202, first.status_code)
    again = [service.send(event, key) for _ in range(2)]
    out.check("same key again: the first answer", all(_same(first, one) for one in again), _statuses(again))

    once = _event(_ref())
    request = signed(service.settings, once, secrets.token_hex(16))
    bytewise = [send(service.client, request) for _ in range(2)]
    out.check("the same bytes again: the first answer", _same(*bytewise), _statuses(bytewise))

    racing, race_key = _event(_ref()), secrets.token_hex(16)
    raced = _in_parallel(lambda: service.send(racing, race_key))
    told = {_data(one).get("eventId") for one in raced}
    firsts = [_data(one).get("idempotentReplay") for one in raced].count(False)
    out.check(
        "same key in parallel: one answer for all, given first once",
        {one.status_code for one in raced} == {202} and len(told) == 1 and firsts == 1,
        f"{_statuses(raced)}, {len(told)} events",
    )

    service.ask()
    other = service.send(event)
    out.check("same event under another key: the first answer", _same(first, other), other.status_code)
    twin = _event(_ref())
    twins = _in_parallel(lambda: service.send(twin))
    told = {_data(one).get("eventId") for one in twins}
    out.check(
        "same event under other keys in parallel: one event",
        {one.status_code for one in twins} == {202} and len(told) == 1,
        f"{_statuses(twins)}, {len(told)} events",
    )

    changed = service.send(event | {"eventType": "UPDATED"}, key)
    code = changed.json().get("error", {}).get("code")
    out.check(
        "same key with another body is refused",
        (changed.status_code, code) == (422, "IDEMPOTENCY_KEY_REUSED"),
        f"{changed.status_code} {code}",
    )

    refs = sorted(one["externalBookingRef"] for one in (event, once, racing, twin))
    logged = service.rows(
        "select e.event_key::text as key, e.external_booking_ref as ref from public.ingest_event_log as e"
        " where e.source_enum = %(source)s and e.external_booking_ref = any(%(refs)s)",
        source=_SOURCE,
        refs=refs,
    )
    rows = sorted(row["ref"] for row in logged)
    out.check("one row in the log for each event", rows == refs, f"{len(rows)} rows of {len(refs)} events")
    ended = _ended(service, [row["key"] for row in logged])
    bookings = service.one(
        "select count(*) from public.booking_core as c where c.external_booking_ref = any(%(refs)s)", refs=refs
    )
    out.check("one booking for each event", ended and bookings == len(refs), f"{bookings} of {len(refs)}")
    late = service.send(event, key)
    out.check("same key after it was applied: the first answer still", _same(first, late), late.status_code)
    out.measured = {
        "deliveries": 8 + 2 * _TOGETHER,
        "events": len(refs),
        "rows": len(rows),
        "second_rows": len(rows) - len(refs),
    }
    return out


def _in_parallel(deliver: Callable[[], httpx.Response]) -> list[httpx.Response]:
    with ThreadPoolExecutor(_TOGETHER) as pool:
        return [one.result() for one in [pool.submit(deliver) for _ in range(_TOGETHER)]]


def _data(answer: httpx.Response) -> dict[str, Any]:
    """What the answer holds; empty of a refusal."""
    return answer.json().get("data", {})


def _same(first: httpx.Response, again: httpx.Response) -> bool:
    """The first answer again, marked as such."""
    return first.status_code == again.status_code == 202 and _data(again) == _data(first) | {"idempotentReplay": True}


def _statuses(answers: Sequence[httpx.Response]) -> str:
    codes = [one.status_code for one in answers]
    return ", ".join(f"{codes.count(code)} x {code}" for code in sorted(set(codes)))


# Of each booking what it shows, in all tables; keys, its ref and the times of writing aside.
_SHOWN = """
select
    c.external_booking_ref as ref,
    jsonb_build_array(
        to_jsonb(c) - array['booking_key', 'external_booking_ref', 'created_at', 'updated_at'],
        to_jsonb(t) - array['booking_key', 'created_at', 'updated_at'],
        to_jsonb(p) - array['booking_key', 'created_at', 'updated_at'],
        to_jsonb(s) - array['booking_key', 'created_at', 'updated_at'],
        (
            select jsonb_agg(to_jsonb(i) - array['booking_item_key', 'booking_key', 'created_at', 'updated_at'])
            from public.booking_item_snapshot as i where i.booking_key = c.booking_key
        )
    ) as shown,
    c.number_of_adult as adults,
    c.ops_fulfillment_status as status
from public.booking_core as c
left join public.booking_contact as t on c.booking_key = t.booking_key
left join public.booking_party as p on c.booking_key = p.booking_key
left join public.ops_booking_state as s on c.booking_key = s.booking_key
where c.channel_code = %(source)s and c.external_booking_ref = any(%(refs)s)
"""

# What arrives, as (type, second, adults); beside it the adults of the latest, and whether it ends cancelled.
_DISORDERS: dict[str, tuple[tuple[tuple[str, int, int], ...], int, bool]] = {
    "UPDATED before CREATED": ((("UPDATED", 20, 3), ("CREATED", 10, 2)), 3, False),
    "older after newer": ((("CREATED", 10, 2), ("UPDATED", 30, 4), ("UPDATED", 20, 3)), 4, False),
    "CANCELLED in between": ((("CREATED", 10, 2), ("UPDATED", 30, 4), ("CANCELLED", 20, 2)), 4, False),
    "CANCELLED first": ((("CANCELLED", 30, 5), ("UPDATED", 20, 4), ("CREATED", 10, 2)), 5, True),
}


def out_of_order(service: Service) -> Outcome:
    """Events of a booking in another order than they happened: it ends as it would have in their order."""
    out = Outcome()
    pairs = {name: (_ref(), _ref()) for name in _DISORDERS}
    keys: list[str] = []
    for name, (arriving, _, _) in _DISORDERS.items():
        service.ask()
        for ref, order in zip(pairs[name], (arriving, sorted(arriving, key=lambda one: one[1])), strict=True):
            for kind, second, adults in order:
                pickup = f"Stop {second}" if kind != "UPDATED" else None
                answer = service.send(_event(ref, kind, second, adult=adults, totalPrice=30 * adults,
                                             pickupLocation=pickup))  # fmt: skip
                if answer.status_code == 202:
                    keys.append(answer.json()["data"]["eventId"])
    sent = 2 * sum(len(arriving) for arriving, _, _ in _DISORDERS.values())
    out.check("every event is accepted", len(keys) == sent, f"{len(keys)} of {sent}")
    out.check("every event comes to its end", _ended(service, keys))
    done = service.one(
        "select count(*) from public.ingest_event_log where event_key = any(%(keys)s) and process_status = 'DONE'",
        keys=[UUID(key) for key in keys],
    )
    out.check("every event is DONE", done == sent, f"{done} of {sent}")
    refs = [ref for pair in pairs.values() for ref in pair]
    shown = {row["ref"]: row for row in service.rows(_SHOWN, source=_SOURCE, refs=refs)}
    same = 0
    for name, (_, adults, cancelled) in _DISORDERS.items():
        disordered, ordered = (shown.get(ref) for ref in pairs[name])
        if disordered is None or ordered is None:
            out.check(name, False, "there is no booking")
            continue
        same += disordered["shown"] == ordered["shown"]
        out.check(f"{name}: as in their order", disordered["shown"] == ordered["shown"],
                  "the same rows" if disordered["shown"] == ordered["shown"] else "other rows")  # fmt: skip
        found = (disordered["adults"], disordered["status"] == "CANCELLED")
        out.check(f"{name}: the latest event stands", found == (adults, cancelled),
                  f"{disordered['adults']} adults, {disordered['status']}")  # fmt: skip
    out.measured = {"events": sent, "done": done, "bookings": len(refs), "pairs": len(pairs), "pairs_alike": same}
    return out


_PEAK = """
select coalesce(max(m.events), 0)
from (
    select count(*) as events from public.ingest_event_log as e
    where e.external_booking_ref not like 'DRILL-%%'
    group by date_trunc('minute', e.request_received_at)
) as m
"""
_BURST = """
select
    count(*) as logged,
    count(*) filter (where e.process_status = 'DONE') as done,
    percentile_cont(array[0.5, 0.95, 1]) within group (
        order by extract(epoch from coalesce(e.processed_at, clock_timestamp()) - e.request_received_at)::float8
    ) as latencies
from public.ingest_event_log as e
where e.event_key = any(%(keys)s)
"""


_WITHIN = {
    "F-01": "success rate (F-01)",
    "F-02": "accepted to done, median (F-02)",
    "F-02-P95": "accepted to done, p95 (F-02-P95)",
}


def burst(service: Service, *, events: int | None = None) -> Outcome:
    """At least ten times the average of the busiest minute, within the time that this asks for: limits of F-01, F-02.

    `events`: how many instead of a minute's worth, at the same pace at least.
    """
    out = Outcome()
    known = limits(service)
    busiest = service.one(_PEAK)
    pace = TIMES_THE_PEAK * max(busiest, LEAST_PEAK)  # events a minute
    count = events or pace
    made = [_event(_ref()) for _ in range(count)]
    statuses: list[int] = []
    keys: list[str] = []

    def one(event: Mapping[str, Any]) -> None:
        try:
            answer = service.send(event)
        except CouldNotRun:
            statuses.append(0)
            return
        statuses.append(answer.status_code)
        if answer.status_code == 202:
            keys.append(answer.json()["data"]["eventId"])

    service.send(_event(_ref()))  # plans and connections are made by the first
    began = time.monotonic()
    with ThreadPoolExecutor(min(CONNECTIONS, count)) as pool:
        list(pool.map(one, made))
    seconds = time.monotonic() - began
    service.ask()
    _ended(service, keys)
    found = service.rows(_BURST, keys=[UUID(key) for key in keys])[0]
    median, p95, longest = found["latencies"] or (None, None, None)
    rate, success = 60 * count / seconds, found["done"] / count
    out.measured = {
        "busiest_minute": busiest,
        "least_peak": LEAST_PEAK,
        "times_the_peak": TIMES_THE_PEAK,
        "events": count,
        "seconds_to_send": round(seconds, 2),
        "sent_a_minute": round(rate),
        "accepted": len(keys),
        "done": found["done"],
        "success_rate": success,
        "median_seconds": _rounded(median),
        "p95_seconds": _rounded(p95),
        "max_seconds": _rounded(longest),
        "limits": {gate: known.get(gate) for gate in _WITHIN},
    }
    out.check(f"sent at {TIMES_THE_PEAK} times the peak or faster", rate >= pace, f"{rate:.0f} a minute, asked {pace}")
    out.check("every event is accepted", len(keys) == count, f"{len(keys)} of {count}")
    out.check("every accepted event is in the log", found["logged"] == len(keys), f"{found['logged']} of {len(keys)}")
    for gate, measured, unit in (
        ("F-01", success, ""),
        ("F-02", median, " s"),
        ("F-02-P95", p95, " s"),
    ):
        limit = known.get(gate)
        if limit is None or measured is None:
            out.check(_WITHIN[gate], False, "no limit in the registry" if limit is None else "nothing measured")
            continue
        held = measured >= limit if gate == "F-01" else measured <= limit
        out.check(_WITHIN[gate], held, f"{measured:.3f}{unit}, limit {limit:g}{unit}")
    return out


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


_LIMITS = """
select g.gate_id, g.threshold::float8
from dbt_seeds.gate_registry as g
where g.gate_id in ('F-01', 'F-02', 'F-02-P95', 'G-04')
"""


def limits(service: Service) -> dict[str, float]:
    """The registry's limits by gate, as far as it has them; seconds, F-01 a ratio."""
    with service.connect() as conn:
        return dict(conn.execute(_LIMITS).fetchall())


# What makes the drill's event fail, and is mended: it refuses this one booking, as a rule would that knows it not.
_BREAK = """
create or replace function phase2.drill_refuses() returns trigger language plpgsql as $$
begin
    if new.external_booking_ref = tg_argv[0] then
        raise exception 'VALIDATION_ERROR: refused by the drill' using errcode = 'P2001';
    end if;
    return new;
end
$$;
create trigger drill_refuses before insert or update on public.booking_core
for each row execute function phase2.drill_refuses({ref})
"""
_MEND = """
drop trigger if exists drill_refuses on public.booking_core;
drop function if exists phase2.drill_refuses()
"""
_AUDITED = (
    "INGEST_REPLAY_REJECTED",
    "INGEST_DEAD_LETTER_STATUS_UPDATED",
    "INGEST_REPLAY_REQUESTED",
)


@contextmanager
def _refused(service: Service, ref: str) -> Iterator[None]:
    """The copy refuses this booking, until `_MEND` at the latest when this ends."""
    try:
        with service.connect() as conn:
            conn.execute(sql.SQL(_BREAK).format(ref=sql.Literal(ref)))
        yield
    finally:
        with service.connect() as conn:
            conn.execute(_MEND)


def replay(service: Service) -> Outcome:
    """An event that fails goes to the dead letters; mended, made READY and replayed it is DONE, and all is audited."""
    out, ref = Outcome(), _ref()
    with _refused(service, ref):
        _replay(service, ref, out)
    return out


def _replay(service: Service, ref: str, out: Outcome) -> None:
    began = time.monotonic()
    answer = service.send(_event(ref, adult=2, pickupLocation="First stop"))
    if not out.check("the event is accepted", answer.status_code == 202, answer.status_code):
        return
    key = answer.json()["data"]["eventId"]
    _ended(service, [key])
    event = service.admin("GET", f"{PATH}/{key}").json()["data"]
    out.check("it fails, and no retry is to come", (event["processStatus"], event["nextRetryAt"]) == ("FAILED", None),
              event["processStatus"])  # fmt: skip
    letters = service.admin("GET", "/v1/ingest/dead-letter?limit=200").json()["data"]["items"]
    letter = next((one for one in letters if one["eventId"] == key), None)
    found = letter and (letter["status"], letter["poisonMessage"], letter["reasonCode"])
    words = f"{letter['status']}, {letter['reasonCode']}" if letter else "it is not there"
    if not out.check("it is among the dead letters, poisoned", found == ("OPEN", True, "VALIDATION_ERROR"), words):
        return
    assert letter is not None
    refused = service.admin("POST", f"{PATH}/{key}/replay", reason="drill: before it is mended")
    out.check("it does not come back while it is not READY", refused.status_code == 409, refused.status_code)

    service.ask()
    with service.connect() as conn:
        conn.execute(_MEND)
    later = service.send(_event(ref, "UPDATED", 10, adult=3, pickupLocation=None))
    _ended(service, [later.json()["data"]["eventId"]])
    status = f"/v1/ingest/dead-letter/{letter['deadLetterKey']}/status/READY"
    ready = service.admin("PATCH", status, reason="drill: mended")
    out.check("a person makes it READY", ready.status_code == 200, ready.status_code)
    asked = time.monotonic()
    replayed = service.admin("POST", f"{PATH}/{key}/replay", reason="drill: mended")
    out.check("the replay is taken", replayed.status_code == 202, replayed.status_code)
    _ended(service, [key])
    seconds = time.monotonic() - asked
    event = service.admin("GET", f"{PATH}/{key}").json()["data"]
    out.check("it is DONE", event["processStatus"] == "DONE", event["processStatus"])
    letter = service.admin("GET", f"/v1/ingest/dead-letter/{letter['deadLetterKey']}").json()["data"]
    out.check("its dead letter has SUCCEEDED", (letter["status"], letter["replayCount"]) == ("SUCCEEDED", 1),
              f"{letter['status']}, {letter['replayCount']} replays")  # fmt: skip
    shown = service.rows(_SHOWN, source=_SOURCE, refs=[ref])
    adults = [row["adults"] for row in shown]
    out.check("the booking shows what came later", adults == [3], f"{len(shown)} bookings, adults {adults}")

    resources = {"INGEST_DEAD_LETTER_STATUS_UPDATED": letter["deadLetterKey"]}
    rows = 0
    for kind in _AUDITED:
        resource = resources.get(kind, key)
        trail = service.admin("GET", f"/v1/audit/events?eventType={kind}&resourceId={resource}").json()["data"]["items"]
        rows += len(trail)
        whole = len(trail) == 1 and trail[0]["actor"] == _ACTOR and trail[0]["metadata"].get("role") == "MANAGER"
        out.check(f"audited: {kind}", whole and bool(trail[0]["metadata"].get("reason")),
                  f"{len(trail)} rows" + ("" if whole or not trail else ", not as a whole"))  # fmt: skip
    out.measured = {
        "events": 1,
        "done": int(event["processStatus"] == "DONE"),
        "audit_rows": rows,
        "seconds_from_replay_to_done": round(seconds, 2),
        "seconds": round(time.monotonic() - began, 2),
    }


class _Traffic:
    """Somebody who asks every few hundredths of a second, and keeps what he was answered: status and word."""

    def __init__(self, once: Callable[[], tuple[int, str]]) -> None:
        self.answers: list[tuple[float, int, str]] = []  # when it came, status, word
        self._once = once
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._send, daemon=True)

    def __enter__(self) -> _Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _send(self) -> None:
        while not self._end.wait(0.03):
            try:
                answer = self._once()
            except (CouldNotRun, httpx.TransportError):
                answer = (0, "")
            self.answers.append((time.monotonic(), *answer))

    def accepted(self) -> list[str]:
        return [word for _, status, word in self.answers if status == 202]

    def settled(self, wanted: int | str, seconds: float) -> bool:
        """Whether every answer of the last seconds was of this status, or this word, and there were some."""
        since = time.monotonic() - seconds
        late = [word if isinstance(wanted, str) else status for at, status, word in self.answers if at >= since]
        return len(late) > 3 and set(late) == {wanted}

    def switched(self, old: int | str, toggled: float) -> float:
        """Seconds from the toggle until the first answer of the old path after which no other came."""
        found = [(at, word if isinstance(old, str) else status) for at, status, word in self.answers]
        last = max((at for at, one in found if one != old), default=toggled)
        first = min((at for at, one in found if one == old and at >= last), default=None)
        return (first or time.monotonic()) - toggled


def _emit(service: Service) -> tuple[int, str]:
    """An event of a booking of its own; its id, or the error's code."""
    answer = service.send(_event(_ref()))
    said = answer.json()
    return answer.status_code, said["data"]["eventId"] if answer.status_code == 202 else said["error"]["code"]


_LOGGED = "select count(*) from public.ingest_event_log as e where e.event_key = any(%(keys)s)"
_BURIED = """
select count(*)
from public.ingest_dead_letter as d
join public.ingest_event_log as e on d.event_key = e.event_key
where e.event_key = %(key)s::uuid and d.status = 'OPEN' and e.process_status = 'FAILED'
"""
_SETTLED = 1.0  # seconds of one and the same answer
_PATIENCE = 300.0  # for a flag to be in force, where the registry has no limit


def rollback(service: Service) -> Outcome:
    """The flags go off while events come in: how long until the old path serves, and that nothing is lost."""
    out = Outcome()
    limit = limits(service).get("G-04")
    ref = _ref()
    with _refused(service, ref):
        failing = _data(service.send(_event(ref))).get("eventId")
        _ended(service, [failing] if failing else [])
    buried = service.one(_BURIED, key=failing)
    try:
        with _Traffic(partial(_emit, service)) as traffic:
            until(lambda: traffic.settled(202, _SETTLED), _DONE_SECONDS)
            service.ask()
            toggled = time.monotonic()
            # in the blueprint's order: the queue, then the webhook
            service.switch(False, "INGEST_QUEUE_ENABLED", "INGEST_WEBHOOK_ENABLED")
            off = until(lambda: traffic.settled(503, _SETTLED), limit or _PATIENCE)
            old = traffic.switched(503, toggled)
            words = {word for _, status, word in traffic.answers if status == 503}
            before = traffic.accepted()
            kept = service.one(_LOGGED, keys=[UUID(key) for key in before])
            service.ask()
            # first the webhook alone: what comes now waits in the log
            toggled = time.monotonic()
            service.switch(True, "INGEST_WEBHOOK_ENABLED")
            on = until(lambda: traffic.settled(202, _SETTLED), limit or _PATIENCE)
            new = time.monotonic() - toggled - _SETTLED
            waiting = service.one(_PENDING, keys=[UUID(key) for key in traffic.accepted()])
            service.switch(True, "INGEST_QUEUE_ENABLED")
    finally:
        service.switch(True, *INGESTION)
    accepted = traffic.accepted()
    ended = _ended(service, accepted)
    after = service.rows(_BURST, keys=[UUID(key) for key in accepted])[0]
    strange = sorted({status for _, status, _ in traffic.answers} - {202, 503})
    out.measured = {
        "seconds_to_old_path": round(old, 2),
        "seconds_to_new_path": round(new, 2),
        "accepted_before": len(before),
        "in_the_log": kept,
        "waited_while_off": waiting,
        "accepted": len(accepted),
        "done": after["done"],
        "limit_seconds": limit,
    }
    within = f"{old:.1f} s, " + ("no limit in the registry" if limit is None else f"limit {limit:g} s")
    out.check("the old path serves in time (G-04)", off and limit is not None and old <= limit, within)
    out.check("the endpoint says that it is off", words == {"INGEST_WEBHOOK_DISABLED"}, ", ".join(sorted(words)))
    out.check("no request failed otherwise", not strange, ", ".join(map(str, strange)) or "202 and 503 alone")
    out.check("everything accepted before is in the log", bool(before) and kept == len(before),
              f"{kept} of {len(before)}")  # fmt: skip
    out.check("what is accepted while the queue is off waits", on and waiting > 0, f"{waiting} waited")
    out.check("on again, everything is applied", ended and after["done"] == len(accepted),
              f"{after['done']} of {len(accepted)}")  # fmt: skip
    still = service.one(_BURIED, key=failing)
    out.check("what had failed is kept, to be replayed", buried == still == 1, f"{still} of {buried}")
    return out


def read_rollback(service: Service) -> Outcome:
    """Pages are read from the new model, and the flag goes off: how long until bstadmin answers; no request fails."""
    out, limit, pages = Outcome(), limits(service).get("G-04"), cycle(_PAGES)

    def read() -> tuple[int, str]:
        answer = service.admin("GET", f"/v1/ops/{next(pages)}")
        return answer.status_code, answer.headers.get("x-served-by", "nobody")

    try:
        with _Traffic(read) as traffic:
            service.switch(True, _READS)
            on = until(lambda: traffic.settled("new", _SETTLED), _DONE_SECONDS)
            service.ask()
            toggled = time.monotonic()
            service.switch(False, _READS)
            off = until(lambda: traffic.settled("legacy", _SETTLED), limit or _PATIENCE)
            old = traffic.switched("legacy", toggled)
    finally:
        service.switch(False, _READS)
    said = ", ".join(sorted({f"{status} by {side}" for _, status, side in traffic.answers}))
    out.measured = {"seconds_to_old_path": round(old, 2), "reads": len(traffic.answers), "limit_seconds": limit}
    within = f"{old:.1f} s, " + ("no limit in the registry" if limit is None else f"limit {limit:g} s")
    out.check("the new model serves while the flag is on", on, said)
    out.check("bstadmin serves in time (G-04)", off and limit is not None and old <= limit, within)
    out.check("no request failed", {status for _, status, _ in traffic.answers} == {200}, said)
    return out


def write_rollback(service: Service) -> Outcome:
    """The flag of writes goes off while people write: no write fails, and bstadmin has all of them."""
    out = Outcome()
    write_drill.rollback(service, out)
    return out


DRILLS: dict[str, Callable[[Service], Outcome]] = {
    "duplicate": duplicate,
    "out_of_order": out_of_order,
    "burst": burst,
    "replay": replay,
    "rollback": rollback,
    "read_rollback": read_rollback,
    "write_rollback": write_rollback,
}
TITLES = {
    "duplicate": "Duplicate delivery",
    "out_of_order": "Events out of order",
    "burst": "Burst of ten times the peak",
    "replay": "Replay of a failed event",
    "rollback": "Rollback: flags off while events come in",
    "read_rollback": "Rollback of reads: the flag off while pages are read",
    "write_rollback": "Rollback of writes: the flag off while people write",
}
# As what its evidence is kept, and for whose gate, where that is not its name and F.
_KEPT_AS = {"read_rollback": ("rollback", "G"), "write_rollback": ("rollback", "H")}


# --- a run of drills, and its evidence -----------------------------------------------------------------------------

# What waits in the log, or is open, is the ops database's to apply: in the copy it would only be in the way.
_PARK = """
update public.ingest_event_log as e
set process_status = 'FAILED', next_retry_at = null
where phase2.is_pending(e.process_status, e.next_retry_at);
update phase2.write_intents as i
set core_status = 'REFUSED', legacy_status = 'REFUSED'
where i.core_status in ('PENDING', 'BEHIND') or i.legacy_status = 'PENDING'
"""
_KEEP = """
insert into phase2.drills (drill_id, drill, passed, measured, started_at, ended_at, run_id)
values (%(id)s, %(drill)s, %(passed)s, %(measured)s, %(started)s, %(ended)s, %(run)s)
"""


@dataclass(frozen=True)
class Ground:
    """Where drills happen: the run that asked for them, the copy, and the service on it."""

    run: steps.Run
    copy: clone.Clone
    service: Service


@contextmanager
def ground(run: steps.Run) -> Iterator[Ground]:
    """A copy with a service on it; both are gone in the end. Raises CouldNotRun, and Stopped."""
    # of the ops database itself: the copy does not hear of a stop that came after it
    ask = partial(stop.raise_if_asked, run.databases.ops, _BATCH)
    ask()
    with run.connect() as conn:
        _refuse_without_tables(conn, run.databases.ops)
    with clone.to_drill_on(run) as copy:
        run.progress(f"a copy of the ops database by {copy.how}, {copy.seconds:.1f} s")
        with postgres.connect(copy.run.databases.ops, application_name="phase2 drill", autocommit=True) as conn:
            conn.execute(_PARK)
        ops = copy.run.databases.ops
        with write_drill.stand_in(ops) as bstadmin, served(ops, ask=ask, bstadmin_url=bstadmin, writes=True) as service:
            run.progress(f"a service of its own answers at {service.settings.url}")
            yield Ground(run, copy, service)


def perform(run: steps.Run, names: Sequence[str] = tuple(DRILLS)) -> list[ledger.Entry]:
    """These drills, one after the other on one copy, also after one that failed; their entries in the ledger."""
    with ground(run) as there:
        return [drill(there, name) for name in names]


def drill(there: Ground, name: str, how: Callable[[Service], Outcome] | None = None) -> ledger.Entry:
    """One drill and its evidence. Stopped, without any, when somebody stops the migration."""
    there.service.ask()
    there.run.progress(f"drill {name}: {TITLES[name].lower()}")
    started = runlog.utc_now()
    try:
        if name == "read_rollback":
            with there.copy.run.connect() as conn:
                parity.ready(there.copy.run, conn)
        outcome = (how or DRILLS[name])(there.service)
    except Stopped:
        raise
    except Exception as error:  # whatever it was: this drill did not come to its end
        outcome = Outcome([Check("it comes to its end", False, plain(error) or type(error).__name__)])
    return _keep(there, name, outcome, started)


def _keep(there: Ground, name: str, outcome: Outcome, started: datetime) -> ledger.Entry:
    """The report, the row, and the entry that tells of both."""
    run, ended = there.run, runlog.utc_now()
    kind, batch = _KEPT_AS.get(name, (name, _BATCH))
    content = {
        "drill": kind,
        "batch": batch,
        "drill_id": runlog.uuid7(),
        "title": TITLES[name],
        "result": "PASS" if outcome.passed else "FAIL",
        "started_at": started,
        "ended_at": ended,
        "seconds": round((ended - started).total_seconds(), 1),
        "run_id": run.run_id,
        "copy": {"how": there.copy.how, "seconds": round(there.copy.seconds, 2)},
        "checks": [asdict(check) for check in outcome.checks],
        "measured": outcome.measured,
    }
    with run.connect() as conn:
        entries, head = ledger.head(conn)
        content["ledger"] = {"entries": entries, "head": head}
        written = write_report(content, settings().phase2_reports)
        with conn.transaction():
            conn.execute(
                _KEEP,
                {
                    "id": content["drill_id"],
                    "drill": kind,
                    "passed": outcome.passed,
                    "measured": Jsonb({"batch": batch, **outcome.measured}),
                    "started": started,
                    "ended": ended,
                    "run": run.run_id,
                },
            )
            ledger.mirror(
                conn,
                "drill",
                [content["drill_id"]],
                **{part: content[part] for part in ("title", "result", "seconds", "copy", "checks")},
                files=ledger.files(written.html, written.md, written.json),
            )
            entry = ledger.latest(conn, "drill", batch=batch, subject=kind)
            assert entry is not None
    failed = sum(not check.passed for check in outcome.checks)
    run.progress(
        f"drill {name}: {content['result']}, {len(outcome.checks)} checks, {failed} failed, {content['seconds']} s,"
        f" entry {entry.no}, {written.html}"
    )
    return entry


def failures(entry: ledger.Entry) -> list[str]:
    """What did not hold; empty when the drill passed."""
    found = [f"{check['name']}: {check['found']}" for check in entry.body["checks"] if not check["passed"]]
    return [f"drill {entry.subject}: {line}" for line in found or ["nothing was checked"] * (not entry.body["checks"])]


def verdict(entries: Sequence[ledger.Entry]) -> str:
    """PASS, or FAIL when one of them failed."""
    return "FAIL" if any(map(failures, entries)) else "PASS"


def table(entries: Sequence[ledger.Entry]) -> list[dict[str, str]]:
    """Every check of them, for an artifact."""
    return [
        {
            "drill": str(entry.subject),
            "check": check["name"],
            "held": "yes" if check["passed"] else "no",
            "found": check["found"],
            "entry": str(entry.no),
        }
        for entry in entries
        for check in entry.body["checks"]
    ]


def raise_unless_passed(entries: Sequence[ledger.Entry]) -> None:
    """GateFailed with what the drills that failed say."""
    if problems := [line for entry in entries for line in failures(entry)]:
        raise GateFailed(str(entries[-1].batch), problems)
