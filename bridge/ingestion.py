"""What batch F does (blueprint 6.7): looks at the service from outside, switches its flags on one by one, and off.

Nothing here makes a booking: what is sent to see whether a request is judged rightly breaks the schema on purpose. What
was seen becomes inputs of gates F-00 and F-05. Where something is not as it must be, Unfit says so; a webhook whose
smoke test failed is shut again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import yaml
from psycopg.types.json import Jsonb

from bridge import flags, gates, ledger, runlog
from bridge.core_settings import CoreSettings, core_settings
from bridge.errors import CouldNotRun
from bridge.flags import Flag, Rollout
from bridge.ingest_client import Request, send, signed
from bridge.settings import ROOT

if TYPE_CHECKING:  # steps dispatches to this module
    from bridge.steps import Run

FOLLOWS_SECONDS = 15.0  # the longest that a process may take to follow a flag: FRESH_SECONDS, on a busy machine
WORK_SECONDS = 60.0  # the longest that the first of the waiting events may take
WORKER = "phase2-ingest-worker"  # how a worker's sessions are named in the ops database
OURS: tuple[Flag, ...] = (
    "INGEST_QUEUE_ENABLED",
    "INGEST_WEBHOOK_ENABLED",
    "INGEST_REPLAY_ENABLED",
    "WEB_EMIT_BOOKING_EVENT_ENABLED",
    "EMAIL_PIPELINE_CORE_ENABLED",
)

# How the emitters begin; `phase2 flag` widens it, and a run leaves a flag that is on as it is.
FIRST: Mapping[Flag, Rollout] = {
    "WEB_EMIT_BOOKING_EVENT_ENABLED": Rollout(percentage=5),
    "EMAIL_PIPELINE_CORE_ENABLED": Rollout(channels=("GYG",)),
}

Item = tuple[str, bool, Mapping[str, Any] | None]


class Unfit(Exception):
    """Gate F-00: this is not as it must be."""


@dataclass(frozen=True)
class Service:
    """The service of a run, as an emitter and an admin reach it."""

    run: Run
    settings: CoreSettings
    client: httpx.Client

    def get(self, path: str, *, actor: str = "phase2 run", shadow: bool = False, **query: Any) -> httpx.Response:
        """As whoever `actor` is; `shadow`: a read that is run on the other side too."""
        headers = {"x-actor": actor} | ({"x-shadow": "always"} if shadow else {})
        return self._call("GET", path, headers, params=query)

    def post(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return self._call("POST", path, {}, json=body)

    def patch(self, path: str, body: Mapping[str, Any], *, actor: str, key: str) -> httpx.Response:
        """A write of whoever `actor` is, under this idempotency key."""
        return self._call("PATCH", path, {"x-actor": actor, "x-idempotency-key": key}, json=body)

    def emit(self, event: Mapping[str, Any], *, forged: bool = False) -> tuple[httpx.Response, Request]:
        """Send it under a key of its own; `forged`: signed with a secret that nobody has."""
        request = signed(self.settings, event, f"check-{runlog.uuid7()}")
        if forged:
            request = Request(request.url, {**request.headers, "x-signature": "0" * 64}, request.body)
        return send(self.client, request), request

    def _call(self, method: str, path: str, given: Mapping[str, str], **more: Any) -> httpx.Response:
        token = self.settings.core_api_admin_token
        headers = {"x-admin-role": "ADMIN", "x-actor": "phase2 run", **given}
        if token:
            headers["authorization"] = f"Bearer {token.get_secret_value()}"
        try:
            return self.client.request(method, self.settings.url + path, headers=headers, **more)
        except httpx.TransportError as error:
            raise CouldNotRun(
                f"the core API does not answer: {type(error).__name__}",
                where=self.settings.url,
                todo="Start it (make serve), or set CORE_API_URL.",
            ) from None


# --- what the steps do ---------------------------------------------------------------------------------------------


def look(run: Run, what: str) -> dict[str, Any]:
    """One look at the service: `keys`, `closed`, `smoke`, `worker` or `replay`; what it found, for the log.

    Raises CouldNotRun (nobody answers, or it works on another ops database) and Unfit; both after what was seen is
    kept for the gates.
    """
    with client() as http:
        return _LOOKS[what](Service(run, core_settings(), http))


def switch_on(run: Run, flag: Flag) -> dict[str, Any]:
    """Switch a flag of ingestion on, as it begins, and wait until the service follows; one that is on stays as is."""
    with run.connect() as conn:
        row = flags.read(conn).get(flag)
        if row is None or not row.enabled:
            flags.change(conn, flag, True, reason="batch F", rollout=FIRST.get(flag, Rollout()))
        standing = flags.in_force(flag, flags.read(conn))
    with client() as http:
        service = Service(run, core_settings(), http)
        follows = standing.enabled and (flag not in _FOLLOWS or in_time(lambda: _FOLLOWS[flag](service)))
    _keep(run, "F-00", [(flag, follows, {"is": flags.words(standing) or "off"})])
    if not standing.enabled:
        raise Unfit(f"{flag} is killed here: PHASE2_KILL names it")
    if not follows:
        raise CouldNotRun(
            f"the service does not follow {flag}",
            where=service.settings.url,
            todo="Its OPS_DB_URL names another ops database than ours, or its PHASE2_KILL the flag.",
        )
    return {"on": flags.words(standing)}


def emit(run: Run, which: str) -> dict[str, Any]:
    """Run an emitter (`web`, `mail`) once, and wait until a worker has tried what it sent."""
    from bridge import emitters  # which stands on steps

    began = runlog.utc_now()
    one = {"web": emitters.emit_web, "mail": emitters.emit_mail}[which]
    deadline = time.monotonic() + WORK_SECONDS
    while True:
        try:
            emitted = one(run.databases, progress=run.progress)
            break
        except emitters.AtWork:  # the schedule's own, which has seen the flag
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    waiting = "select count(*) from public.ingest_event_log where created_at >= %s and process_status = 'RECEIVED'"
    with run.connect() as conn:
        taken = in_time(lambda: conn.execute(waiting, (began,)).fetchone() == (0,), WORK_SECONDS)
    return {"emitted": {**asdict(emitted), "watermark": str(emitted.watermark)}, "all taken": taken}


def switched_off(run: Run, began: float, before: Mapping[str, int]) -> dict[str, Any]:
    """After the flags went off at `began` (monotonic): wait for the service, and count; evidence for gate G-04.

    `before`: the events by status from then. A service that does not answer serves nothing: that is said, and nothing
    is measured. Raises CouldNotRun when it does not follow, or an event is missing.
    """
    found: dict[str, Any] = {"before": before}
    with client() as http:
        service = Service(run, core_settings(), http)
        try:
            shut = in_time(lambda: _is_shut(service))
            found["seconds_to_old_path"] = round(time.monotonic() - began, 2)
            stopped = shut and in_time(lambda: _queue(service)["enabled"] is False)
        except (CouldNotRun, Unfit) as away:
            found["not measured"] = str(away)
            shut = stopped = True
    with run.connect() as conn:
        found["after"] = events_by_status(conn)
        kept = conn.execute(_FROM_BEFORE, (time.monotonic() - began,)).fetchone()
        found["lost"] = max(0, sum(before.values()) - (kept[0] if kept else 0))
        if "not measured" not in found:
            passed = shut and stopped and not found["lost"]
            drill_id = runlog.uuid7()
            with conn.transaction():
                conn.execute(
                    "insert into phase2.drills (drill_id, drill, passed, measured, started_at, run_id)"
                    " values (%s, 'rollback', %s, %s, now() - %s * interval '1 second', %s)",
                    (drill_id, passed, Jsonb(found), time.monotonic() - began, run.run_id),
                )
                ledger.mirror(conn, "drill", [drill_id])
    if found["lost"]:
        raise CouldNotRun(f"{found['lost']} events are gone from the log", where="public.ingest_event_log")
    if not shut or not stopped:
        raise CouldNotRun(
            "the flags are off, and the service does not follow",
            where=service.settings.url,
            todo="Stop it: it works on another ops database, or has lost it.",
        )
    return found


_FROM_BEFORE = """
select count(*) from public.ingest_event_log as e where e.created_at <= clock_timestamp() - %s * interval '1 second'
"""


def events_by_status(conn: psycopg.Connection) -> dict[str, int]:
    """How many events the log holds, by their status."""
    return dict(
        conn.execute(
            "select e.process_status, count(*) from public.ingest_event_log as e group by 1 order by 1"
        ).fetchall()
    )


# --- looks ---------------------------------------------------------------------------------------------------------


def _keys(service: Service) -> dict[str, Any]:
    """Before anything is switched: keys, kill switch, schedule, and a service that is well."""
    chosen = service.settings
    keys = ("ingest_service_token", "ingest_service_secret", "core_api_admin_token")
    killed = chosen.killed & set(OURS)
    alive, depends = service.get("/health"), service.get("/health/db")
    said = data_of(depends)
    cron = _schedule()
    # every day of every month and week, at whatever hours
    daily = cron is not None and cron.split()[2:] == ["*"] * 3
    _keep(service.run, "F-05", [("daily", daily, {"cron": cron})])
    return _require(
        service,
        [
            *((key.upper(), getattr(chosen, key) is not None, None) for key in keys),
            ("PHASE2_KILL", not killed, {"kills": sorted(killed)}),
            ("the service lives", alive.status_code == 200, {"status": alive.status_code}),
            ("its database", depends.status_code == 200, said),
            ("its queue", said.get("redis") == "ok", said),
        ],
    )


def _closed(service: Service) -> dict[str, Any]:
    """The endpoint is there and shut. One that somebody has opened by a flag is left open: emitters are at it."""
    with service.run.connect() as conn:
        row = flags.read(conn).get("INGEST_WEBHOOK_ENABLED")
        if row and row.enabled:
            return {"open": "the flag is on already: what runs is not interrupted"}
        if row is None:  # the environment may say on
            flags.change(conn, "INGEST_WEBHOOK_ENABLED", False, reason="batch F begins with the endpoint shut")
    if not in_time(lambda: _is_shut(service)):
        answer = service.emit({})[0]
        raise CouldNotRun(
            f"INGEST_WEBHOOK_ENABLED is off, and a signed request is answered {answer.status_code}, not 503",
            where=service.settings.url,
            todo="It works on another ops database, or is another service: compare its OPS_DB_URL with ours.",
        )
    return {"answers": "503 INGEST_WEBHOOK_DISABLED"}


def _smoke(service: Service) -> dict[str, Any]:
    """Right token, secret and time: judged as far as the body, which breaks the schema. No event can come of it."""
    right, request = service.emit({"payloadVersion": "smoke test"})
    wrong, forged = service.emit({"payloadVersion": "smoke test"}, forged=True)
    keys = [one.headers["x-idempotency-key"] for one in (request, forged)]
    with service.run.connect() as conn:
        seen = conn.execute(
            "select exists (select 1 from phase2.ingest_nonces as n where n.nonce = %s)", (request.headers["x-nonce"],)
        ).fetchone() == (True,)
        written = conn.execute(
            "select exists (select 1 from public.ingest_event_log as e where e.idempotency_key = any(%s))", (keys,)
        ).fetchone() == (True,)
    judged = _word(right) == (422, "VALIDATION_ERROR")
    if judged and not seen:
        _shut(service, "its smoke test failed")
        raise CouldNotRun(
            "the service works on another ops database: it has judged a request that ours knows nothing of",
            where=service.settings.url,
            todo="Start it with our OPS_DB_URL, or name the right one in CORE_API_URL.",
        )
    refused = _word(wrong) == (401, "UNAUTHORIZED_SIGNATURE")
    if not judged or not refused or written:
        _shut(service, "its smoke test failed")
    return _require(
        service,
        [
            ("token and secret are the emitters'", judged, {"answer": words_of(right)}),
            ("a wrong signature is refused", refused, {"answer": words_of(wrong)}),
            ("nothing was written", not written, None),
        ],
    )


def _worker(service: Service) -> dict[str, Any]:
    """A worker holds sessions on our database, and takes what waits; and what the queue forgets, and when."""
    due = (
        "select count(*) from public.ingest_event_log as e where phase2.is_pending(e.process_status, e.next_retry_at)"
        " and coalesce(e.next_retry_at, e.created_at) <= now()"
    )
    sessions = (
        "select count(*) from pg_catalog.pg_stat_activity as a"
        " where a.datname = current_database() and a.application_name = %s"
    )
    with service.run.connect() as conn:
        there = in_time(lambda: conn.execute(sessions, (WORKER,)).fetchone() != (0,))
        waiting = (conn.execute(due).fetchone() or (0,))[0]
        done = "select count(*) from public.ingest_event_log where process_status <> 'RECEIVED'"
        before = conn.execute(done).fetchone()
        works = not waiting or in_time(
            lambda: conn.execute(done).fetchone() != before or conn.execute(due).fetchone() == (0,), WORK_SECONDS
        )
    queue = _queue(service)
    oldest = queue.get("oldestDays") or {}  # of a queue that is not connected nothing is known
    _keep(
        service.run,
        "F-05",
        [
            (f"{state} jobs", state in oldest and (oldest[state] or 0) <= days + 1, {"oldest_days": oldest.get(state)})
            for state, days in _JOB_DAYS.items()
        ],
    )
    return _require(
        service,
        [
            ("the queue is connected", queue["connected"] is True, {"lastError": queue.get("lastError")}),
            ("a worker is there", there, {"sessions named": WORKER}),
            ("it takes what waits", works, {"waiting": waiting}),
        ],
    )


_JOB_DAYS = {"completed": 14, "failed": 30}  # blueprint 6.7


def _replay(service: Service) -> dict[str, Any]:
    """A replay of nothing is taken, and the dead letters can be seen."""
    nothing = service.post("/v1/ingest/replays", _OF_NOTHING)
    letters = service.get("/v1/ingest/dead-letter", limit=1)
    return _require(
        service,
        [
            ("replay answers", nothing.status_code == 202, {"answer": words_of(nothing)}),
            ("dead letters are listed", letters.status_code == 200, {"answer": words_of(letters)}),
        ],
    )


_OF_NOTHING = {"preview": False, "reason": "batch F looks whether it answers", "channelCode": "NONE", "limit": 1}
_LOOKS: Mapping[str, Callable[[Service], dict[str, Any]]] = {
    "keys": _keys,
    "closed": _closed,
    "smoke": _smoke,
    "worker": _worker,
    "replay": _replay,
}

# How it is seen from outside that a flag is on; those of the emitters are read by who emits.
_FOLLOWS: Mapping[Flag, Callable[[Service], bool]] = {
    "INGEST_WEBHOOK_ENABLED": lambda service: not _is_shut(service),
    "INGEST_QUEUE_ENABLED": lambda service: _queue(service)["enabled"] is True,
    "INGEST_REPLAY_ENABLED": lambda service: service.post("/v1/ingest/replays", _OF_NOTHING).status_code != 503,
}


# --- parts ---------------------------------------------------------------------------------------------------------


def client() -> httpx.Client:
    return httpx.Client(timeout=30, trust_env=False)


def _is_shut(service: Service) -> bool:
    return _word(service.emit({})[0]) == (503, "INGEST_WEBHOOK_DISABLED")


def _queue(service: Service) -> dict[str, Any]:
    """Of `metrics/queue` the queue; Unfit when the admin token is not the service's."""
    answer = service.get("/v1/ingest/metrics/queue")
    if answer.status_code != 200:
        item = ("the admin token is the service's", False, {"answer": words_of(answer)})
        _require(service, [item])
    return data_of(answer).get("queue", {"enabled": None, "connected": None})


def data_of(answer: httpx.Response, part: str = "data") -> dict[str, Any]:
    """The data (or `error`) of an answer; empty when it is none of the core API's."""
    try:
        said = answer.json()[part]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def _word(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(data_of(answer, "error").get("code", ""))


def words_of(answer: httpx.Response) -> str:
    return " ".join(str(part) for part in _word(answer) if part)


def _schedule() -> str | None:
    """When the retention runs by itself, as the deployment says; None: it does not."""
    file = ROOT / "prefect.yaml"
    said = yaml.safe_load(file.read_text()) if file.exists() else {}
    for deployment in said.get("deployments", ()):
        if str(deployment.get("entrypoint", "")).endswith(":retention_flow"):
            return next(
                (
                    when["cron"]
                    for when in deployment.get("schedules", ())
                    if when.get("cron") and when.get("active", True)
                ),
                None,
            )
    return None


def _require(service: Service, items: Iterable[Item]) -> dict[str, Any]:
    """Keep what was seen for gate F-00; Unfit when something of it is not as it must be."""
    seen = list(items)
    _keep(service.run, "F-00", seen)
    if failed := [name for name, passed, _ in seen if not passed]:
        raise Unfit(", ".join(failed))
    return {name: "ok" for name, _, _ in seen}


def _shut(service: Service, why: str) -> None:
    with service.run.connect() as conn:
        row = flags.read(conn).get("INGEST_WEBHOOK_ENABLED")
        if row and row.enabled:
            flags.change(conn, "INGEST_WEBHOOK_ENABLED", False, reason=f"batch F: {why}")


def _keep(run: Run, gate_id: str, items: Iterable[Item]) -> None:
    with run.connect() as conn:
        gates.record_inputs(conn, run.run_id, gate_id, items)


def in_time(true: Callable[[], bool], seconds: float | None = None) -> bool:
    """Wait for it, by default as long as a flag may take; whether it came in time."""
    deadline = time.monotonic() + (FOLLOWS_SECONDS if seconds is None else seconds)
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
