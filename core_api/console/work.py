"""Pages of the daily work: ingestion, dead letters, the unmapped queue, conflicts, bookings."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from urllib.parse import urlencode
from uuid import UUID

import orjson
import psycopg
from fastapi import Response

from bridge import conflicts as playbook
from bridge import explain as explaining
from bridge import guardrails, postgres
from bridge.errors import CouldNotRun
from bridge.reports.mask import mask, mask_text
from bridge.settings import Databases
from core_api import audit, mappings, minutes
from core_api.console.frame import Visit, act, page
from core_api.errors import Refused
from core_api.ingest import dead_letters, log

_MINUTES = 60
_REPLAYED = 50  # dead letters of one preview, and so of one replay
_MOST_LEAVES = 300  # of a payload that are shown
_KEEPS = get_args(playbook.Keep)


# -- ingestion --------------------------------------------------------------------------------------------------------


@page("/console/ingestion")
async def ingestion(visit: Visit) -> Response:
    """Throughput, lag, latency, errors; htmx asks for the part that moves every five seconds."""
    core = visit.core
    enabled = await core.flags.is_on("INGEST_QUEUE_ENABLED", core.pool)
    queue = await core.queue.counts() if core.queue else {}
    done, events, answers, (letters, pending) = await asyncio.gather(
        dead_letters.processing_metrics(core.pool, _MINUTES),
        dead_letters.by_minute(core.pool, _MINUTES),
        minutes.kept(core.pool, _MINUTES),
        dead_letters.depths(core.pool),
    )
    payments = await visit.ops(lambda conn: guardrails.history(conn, days=1)["payment-mismatch"])
    known: dict[datetime, dict[str, Any]] = defaultdict(dict)
    for row in (*events, *answers):
        known[row["minute"]] |= row
    last = datetime.now(UTC).replace(second=0, microsecond=0)
    nothing = {"received": 0, "done": 0, "failed": 0} | dict.fromkeys(
        ("latency", "requests", "errors", "pending", "lag")
    )
    hour = [last - timedelta(minutes=ago) for ago in range(_MINUTES, -1, -1)]
    each = [nothing | {"minute": minute} | known.get(minute, {}) for minute in hour]
    for one in each:
        one["rate"] = 100 * one["errors"] / one["requests"] if one["requests"] else None
    return visit.page(
        "ingestion.html.j2",
        enabled=enabled,
        queue=queue,
        done=done,
        each=each,
        came=bool(events),
        asked=sum(one["requests"] or 0 for one in each),
        errors=sum(one["errors"] or 0 for one in each),
        limit=guardrails.limit_of(guardrails.guardrails()["api-5xx"]),
        letters=letters,
        pending=pending,
        payments=payments,
        mismatch=guardrails.guardrails()["payment-mismatch"],
        api=core.metrics.window(_MINUTES),
        minutes=_MINUTES,
    )


# -- dead letters -----------------------------------------------------------------------------------------------------


@page("/console/dead-letters")
async def letters(visit: Visit) -> Response:
    """What could not be applied, the newest first."""
    status, channel, reason = (visit.asked(name) for name in ("status", "channel", "reason"))
    pool, cursor = visit.core.pool, _cursor(visit)
    (items, following), (by_status, _) = await asyncio.gather(
        dead_letters.listed(pool, status=status, channel=channel, reason_code=reason, cursor=cursor),
        dead_letters.depths(pool),
    )
    return visit.page(
        "dead_letters.html.j2",
        items=items,
        following=following,
        by_status=by_status,
        statuses=dead_letters.STATUSES,
        replays=await visit.core.flags.is_on("INGEST_REPLAY_ENABLED", pool),
    )


@page("/console/dead-letters/{key:uuid}")
async def letter(visit: Visit) -> Response:
    """One dead letter: what failed, the event behind it, and what may be done."""
    found = await dead_letters.one(visit.core.pool, visit.request.path_params["key"])
    event = await log.event(visit.core.pool, found["eventId"], personal=True)
    if event is None:
        raise Refused(404, "NOT_FOUND", "its event is not in the log any more")
    return visit.page(
        "dead_letter.html.j2",
        letter=found | {"reasonDetail": mask_text(found["reasonDetail"] or "")},
        event=event,
        leaves=_leaves(_veiled(_payload(event)), _payload(event)),
        transitions=dead_letters.TRANSITIONS.get(found["status"], ()),
        replays=await visit.core.flags.is_on("INGEST_REPLAY_ENABLED", visit.core.pool),
    )


@page("/console/dead-letters/{key:uuid}/preview", "dead letters")
async def letter_preview(visit: Visit) -> Response:
    """What a replay would end as and change; nothing is written."""
    found = await dead_letters.one(visit.core.pool, visit.request.path_params["key"])
    previews = await dead_letters.preview(visit.core.pool, [found["eventId"]])
    return visit.page("preview.html.j2", letter=found, previews=previews, letters={found["eventId"]: found}, gone=())


@act("/console/dead-letters/{key:uuid}/move", "dead letters")
async def move_letter(visit: Visit) -> Response:
    """READY, RESOLVED or CLOSED, where its life allows it."""
    key, status, reason = visit.request.path_params["key"], visit.needed("status", "the status"), visit.reason
    await dead_letters.transition(visit.core.pool, key, status, visit.admin, reason=reason)
    return visit.to(f"/console/dead-letters/{key}", "moved")


@act("/console/dead-letters/{key:uuid}/replay", "dead letters")
async def replay_letter(visit: Visit) -> Response:
    """Bring back the event of a dead letter that is READY."""
    core, key, reason = visit.core, visit.request.path_params["key"], visit.reason
    found = await dead_letters.one(core.pool, key)
    enabled = await core.flags.is_on("INGEST_REPLAY_ENABLED", core.pool)
    await dead_letters.replay_event(
        core.pool,
        core.queue,
        found["eventId"],
        visit.admin,
        enabled=enabled,
        reason=reason,  # type: ignore[arg-type]
    )
    return visit.to(f"/console/dead-letters/{key}", "replayed")


@page("/console/replay", "dead letters")
async def replay_preview(visit: Visit) -> Response:
    """What replaying all that is READY (as filtered) would do, event by event."""
    return await _replay_preview(visit, visit.asked("channel"), visit.asked("reason"))


async def _replay_preview(visit: Visit, channel: str | None, reason: str | None, gone: Sequence[UUID] = ()) -> Response:
    """`gone`: what somebody had previewed and wants replayed, and is not READY any more."""
    pool = visit.core.pool
    keys = await dead_letters.ready(pool, channel=channel, reason_code=reason, limit=_REPLAYED + 1)
    previews = await dead_letters.preview(pool, keys[:_REPLAYED])
    letters = {one["eventId"]: one for one in await dead_letters.of_events(pool, [*keys, *gone])}
    return visit.page(
        "preview.html.j2",
        status=409 if gone else 200,
        letter=None,
        previews=previews,
        letters=letters,
        gone=[letters[key] for key in gone if key in letters],
        more=len(keys) > _REPLAYED,
        filters={"channel": channel or "", "reason_code": reason or ""},
    )


@act("/console/replay", "dead letters")
async def replay_ready(visit: Visit) -> Response:
    """Replay what was previewed, that and nothing else: all of it, or nothing when a part is not READY any more."""
    core, why = visit.core, visit.reason
    keys = list(dict.fromkeys(_uuid(key) for key in visit.chosen[:_REPLAYED]))
    if not keys:
        raise Refused(422, "VALIDATION_ERROR", "nothing was previewed: go back and look at the preview")
    channel, reason = visit.form.get("channel") or None, visit.form.get("reason_code") or None
    enabled = await core.flags.is_on("INGEST_REPLAY_ENABLED", core.pool)
    try:
        await dead_letters.replay(
            core.pool,
            core.queue,  # type: ignore[arg-type]  # a whole IngestQueue, of which Core names what the API itself asks
            visit.admin,
            enabled=enabled,
            reason=why,
            events=keys,
        )
    except Refused as error:
        if error.status != 409:
            raise
        still = {one["eventId"] for one in await dead_letters.of_events(core.pool, keys) if one["status"] == "READY"}
        return await _replay_preview(visit, channel, reason, [key for key in keys if key not in still])
    if not await dead_letters.ready(core.pool, channel=channel, reason_code=reason, limit=1):
        return visit.to("/console/dead-letters", "replayed")
    filters = {"channel": channel, "reason": reason, "said": "replayed-some"}
    return visit.to("/console/replay?" + urlencode({name: value for name, value in filters.items() if value}))


# -- the unmapped queue -----------------------------------------------------------------------------------------------


@page("/console/queue")
async def queue(visit: Visit) -> Response:
    """What no run could map: alike rows together, and one by one."""
    status, kind, channel, reason, detail = (
        visit.asked(name) for name in ("status", "type", "channel", "reason", "detail")
    )
    pool, cursor = visit.core.pool, _cursor(visit)
    groups, found = await asyncio.gather(
        mappings.alike(pool),
        mappings.queue(
            pool,
            status=status or "OPEN",
            queue_type=kind,
            channel=channel,
            reason_code=reason,
            detail=detail,
            cursor=cursor,
        ),
    )
    return visit.page(
        "queue.html.j2",
        groups=[_in_words(row) for row in groups],
        items=[_in_words(row) for row in found["items"]],
        words=_WORDS,
        following=found["nextCursor"],
        statuses=tuple(mappings.TRANSITIONS),
    )


@page("/console/queue/{key:uuid}")
async def queue_row(visit: Visit) -> Response:
    """One row: what the source says beside each candidate, and why that one is a candidate."""
    row = await mappings.queue_row(visit.core.pool, visit.request.path_params["key"])
    causes = _causes(row["payload"])
    offered = {c["product_key"]: c for cause in causes for c in cause.get("candidates") or () if c.get("product_key")}
    described = await mappings.entities(visit.core.pool, "PRODUCT", [UUID(key) for key in offered])
    candidates = [
        product | {"by": explaining.LEVELS.get(offered[str(product["entityKey"])].get("level"), "?")}
        for product in described
    ]
    return visit.page(
        "queue_row.html.j2",
        row=_in_words(row),
        address=f"{row['sourceSystem']}:{row['sourceTable']}:{row['sourcePk']}",
        causes=[mask({name: said for name, said in cause.items() if name != "candidates"}) for cause in causes],
        candidates=candidates,
        leaves=_leaves(mask(row["payload"]), row["payload"]),
        transitions=mappings.TRANSITIONS[row["status"]],
    )


@act("/console/queue/decide", "queue")
async def decide(visit: Visit) -> Response:
    """Resolve, review or close the chosen rows, all alike: by a product, variant or booking that they stand for."""
    keys = [_uuid(key) for key in visit.chosen[: dead_letters.MOST]]
    if not keys:
        raise Refused(422, "VALIDATION_ERROR", "no row is chosen: go back and mark one")
    status, entity = visit.needed("status", "what to do"), visit.form.get("entity", "").strip()
    if status == "RESOLVED" and visit.form.get("entity_key", "").strip():
        entity = f"{visit.form.get('entity_type', '')}:{visit.form['entity_key'].strip()}"
    if status not in mappings.TRANSITIONS:
        raise Refused(422, "VALIDATION_ERROR", "there is no such status")
    resolution = None
    if status == "RESOLVED" and entity:
        kind, _, key = entity.partition(":")
        if kind not in get_args(mappings.EntityType):
            raise Refused(422, "VALIDATION_ERROR", "it stands for a PRODUCT, a VARIANT or a BOOKING")
        resolution = mappings.Resolution(entityType=kind, entityKey=_uuid(key))  # type: ignore[arg-type]
    decision = mappings.Decision(status=status, resolution=resolution, reason=visit.reason)  # type: ignore[arg-type]
    await mappings.decide_all(visit.core.pool, visit.admin, keys, decision)
    return visit.to(f"/console/queue/{keys[0]}" if len(keys) == 1 else "/console/queue", "decided")


# mapping 2 and 3.9 for people: what a row is about, and why no run could decide it
_WORDS = {
    "PRODUCT_MAPPING": "Product",
    "VARIANT_MAPPING": "Variant",
    "PAYMENT_LINK": "Payment",
    "BOOKING_REVIEW": "Booking",
    "CATALOG_EXTENDED_METADATA": "Catalog details",
    "NO_MATCH": "belongs to nothing that is known",
    "MULTI_MATCH": "more than one fits, or they contradict each other",
    "INVALID_SOURCE": "a value of the source cannot be used as it is",
}
_FIELD = re.compile(r"^([a-z][a-z0-9_]*): ")


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    """A row, or a group, as people read it: what it is about, why (`reasons`, one each), mails and phones hidden."""
    parts = filter(None, mask_text(row["reasonDetail"] or "").split("; "))
    return row | {
        "about": _WORDS.get(row["queueType"], row["queueType"]),
        "why": _WORDS.get(row["reasonCode"], row["reasonCode"]),
        "reasons": [_FIELD.sub(lambda found: found[0].replace("_", " "), part) for part in parts],
    }


def _causes(payload: Any) -> list[dict[str, Any]]:
    """A row's causes; batches D and E write one, or problems."""
    if not isinstance(payload, dict):
        return []
    for name in ("causes", "problems"):
        if isinstance(payload.get(name), list):
            return [cause for cause in payload[name] if isinstance(cause, dict)]
    return [payload]


# -- conflicts --------------------------------------------------------------------------------------------------------


@page("/console/conflicts")
async def conflicts(visit: Visit) -> Response:
    """Open conflicts with their clocks, the most pressing first."""
    found, refused = await visit.ops(lambda conn: (playbook.listed(conn), playbook.refused(conn)))
    return visit.page("conflicts.html.j2", found=found, refused=refused, shown=playbook.shown)


@act("/console/refused/{key:uuid}/told", "resolve")
async def told(visit: Visit) -> Response:
    """The writer of a refused write knows of it now."""
    key, reason = visit.request.path_params["key"], visit.reason
    await visit.bridge(lambda: _tell(visit, key, reason))
    return visit.to("/console/conflicts", "told")


def _tell(visit: Visit, key: UUID, reason: str) -> None:
    with postgres.connect(_databases(visit).ops, application_name="phase2-conflicts", autocommit=True) as conn:
        playbook.told(conn, key, reason)


@page("/console/conflicts/{key:uuid}")
async def conflict(visit: Visit) -> Response:
    """One conflict: both sides, and what each way to settle it would change."""
    one = await _conflict(visit)
    plans: list[tuple[str, playbook.Plan]] = []
    if visit.may("simulate") and one.status == "OPEN" and visit.core.bstadmin_url:
        found = await visit.bridge(lambda: playbook.ways(_databases(visit), one))
        plans = [(keep or "rule", planned) for keep, planned in found]
    return visit.page(
        "conflict.html.j2",
        one=one,
        plans=plans,
        by_rule=not any(way == "rule" and not planned.rows for way, planned in plans),
        shown=playbook.shown,
        here=bool(visit.core.bstadmin_url),
        hidden=[f["field"] for f in one.fields if playbook.shown(f["field"], f["core"]) != f["core"]],
    )


@act("/console/conflicts/{key:uuid}/resolve", "resolve")
async def resolve(visit: Visit) -> Response:
    """Settle one conflict: by its rule, or as a person keeps one side."""
    one, keep, reason = await _conflict(visit), visit.needed("keep", "which side stands"), visit.reason
    if keep not in (*_KEEPS, "rule"):
        raise Refused(422, "VALIDATION_ERROR", "core, legacy, both, or by the rule")
    outcomes = await visit.bridge(
        lambda: playbook.apply(
            _databases(visit),
            reason=reason,
            conflict_id=one.conflict_id,
            keep=None if keep == "rule" else keep,  # type: ignore[arg-type]
        )
    )
    outcome = outcomes[0][1] if outcomes else "GONE"
    if outcome not in ("APPLIED", "RESOLVED"):
        raise Refused(409, "CONFLICT_STANDS", _OUTCOMES.get(outcome, "somebody was faster: it is not open any more"))
    return visit.to(f"/console/conflicts/{one.conflict_id}", outcome.lower())


_OUTCOMES = {
    "STALE": "somebody has written since it was compared: nothing was changed, the next reconciliation looks again",
    "WAITS": "its rule waits for a person: say which side stands",
    "BUSY": "a write of this booking has not ended: try again in a moment",
}


async def _conflict(visit: Visit) -> playbook.Conflict:
    key = visit.request.path_params["key"]
    found = await visit.ops(lambda conn: playbook.listed(conn, conflict_id=key))
    if not found:
        raise Refused(404, "NOT_FOUND", "there is no such conflict")
    return found[0]


def _databases(visit: Visit) -> Databases:
    """The two sides that conflicts are about."""
    if visit.core.bstadmin_url is None:
        raise Refused(409, "NO_LEGACY", "bstadmin is not configured here: both sides cannot be compared")
    return Databases(ops=visit.core.ops_url, balisnap="", bstadmin=visit.core.bstadmin_url, channel=None)


# -- bookings ---------------------------------------------------------------------------------------------------------


@page("/console/bookings")
async def bookings(visit: Visit) -> Response:
    """Why a booking, payment, product or package is as it is, from any word that names it."""
    word = visit.asked("q")
    if not word:
        return visit.page("bookings.html.j2", word="", matches=[], told=None, missing=None)

    def look(conn: psycopg.Connection) -> tuple[Any, ...]:
        try:
            matches = explaining.find(conn, word)
        except CouldNotRun as error:
            return [], None, error
        return matches, explaining.explain(conn, matches[0]) if len(matches) == 1 else None, None

    matches, told, missing = await visit.ops(look, snapshot=True)
    status = 404 if missing else 200
    return visit.page("bookings.html.j2", status=status, word=word, matches=matches, told=told, missing=missing)


# -- personal data ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Leaf:
    """One value of a payload: where it stands (a JSON pointer), and whether it is hidden."""

    path: str
    shown: Any
    hidden: bool


def _payload(event: dict[str, Any]) -> Any:
    return orjson.loads(orjson.dumps(event["payload"]))


def _veiled(payload: Any) -> Any:
    """An event's payload as anybody may see it; of a provider's own part nobody knows what it holds: it is hidden."""
    if not isinstance(payload, dict):
        return _all_hidden(payload)
    return {name: _all_hidden(part) if name == "raw" else mask(part, name) for name, part in payload.items()}


def _all_hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _all_hidden(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_all_hidden(part) for part in value]
    return value if value is None or isinstance(value, bool) else "•••"


def _leaves(shown: Any, real: Any, path: str = "") -> list[Leaf]:
    if isinstance(real, dict) and real:
        parts = [(str(name).replace("~", "~0").replace("/", "~1"), shown[name], real[name]) for name in real]
    elif isinstance(real, list) and real:
        parts = [(str(number), *both) for number, both in enumerate(zip(shown, real, strict=True))]
    else:
        return [Leaf(path, shown, shown != real)]
    found = [leaf for name, *both in parts for leaf in _leaves(*both, f"{path}/{name}")]
    return found[:_MOST_LEAVES]


@act("/console/unmask", "unmask")
async def unmask(visit: Visit) -> Response:
    """Show one hidden value, once; that it was shown, to whom and why, is an entry of the ledger."""
    kind, key = visit.needed("kind", "of what"), _uuid(visit.needed("of", "of what"))
    path, reason = visit.needed("path", "which value"), visit.reason
    value = await _document(visit, kind, key)
    for step in path.split("/")[1:]:
        try:
            name = step.replace("~1", "/").replace("~0", "~")
            value = value[int(name)] if isinstance(value, list) else value[name]
        except (KeyError, IndexError, ValueError, TypeError):
            raise Refused(404, "NOT_FOUND", "there is no such value") from None
    if not path.startswith("/") or isinstance(value, dict | list):  # one value, not all that stands below it
        raise Refused(404, "NOT_FOUND", "there is no such value")
    async with visit.core.pool.connection() as conn, conn.transaction():
        await audit.record(
            conn,
            "PERSONAL_DATA_SHOWN",
            visit.admin,
            resource_type=kind,
            resource_id=key,
            field=mask_text(path),
            reason=reason,
        )
    return visit.page("unmasked.html.j2", kind=kind, of=key, at=path, value=value)


async def _document(visit: Visit, kind: str, key: UUID) -> Any:
    """What holds the value."""
    if kind == "ingest_event":
        event = await log.event(visit.core.pool, key, personal=True)
        if event is None:
            raise Refused(404, "NOT_FOUND", "there is no such event")
        return _payload(event)
    if kind == "unmapped_queue":
        return (await mappings.queue_row(visit.core.pool, key))["payload"]
    if kind == "conflict":
        found = await visit.ops(lambda conn: playbook.listed(conn, conflict_id=key))
        if found:
            return {f["field"]: {"core": f["core"], "bstadmin": f["legacy"]} for f in found[0].fields}
    raise Refused(404, "NOT_FOUND", "there is no such thing here")


def _cursor(visit: Visit) -> UUID | None:
    cursor = visit.asked("cursor")
    return _uuid(cursor) if cursor else None


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Refused(422, "VALIDATION_ERROR", "this is no key (a UUID)") from None
