"""The core API: one factory. Around every request: its id, a log line, its measure, and one shape of answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Generic, Protocol, TypeVar
from uuid import UUID

import orjson
import psycopg
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bridge.core_settings import CoreSettings, core_settings
from bridge.errors import plain
from bridge.flags import Flags
from bridge.runlog import uuid7
from bridge.settings import databases
from core_api import database
from core_api.auth import Admin, admin
from core_api.errors import Refused
from core_api.ingest.log import Acceptor, forget
from core_api.metrics import Metrics
from core_api.minutes import Minutes
from core_api.minutes import forget as forget_minutes

if TYPE_CHECKING:
    from core_api.ops.intents import Writing
    from core_api.ops.shadow import Shadow
    from core_api.ops.sides import Sides

LONGEST_BODY = 1_048_576  # bytes
BODY_SECONDS = 10.0  # the longest that a client may take to send it
ANSWER_SECONDS = 30.0  # the longest that an answer may take in all
FLUSH_SECONDS = 5.0  # how often the answers are counted in the database
POOL_SIZE = 8  # connections: Postgres shares commits among those that wait for it, more would only wait for a core

_log = logging.getLogger("core_api")


class Queue(Protocol):
    """What the API asks of the queue."""

    async def add(self, event_key: UUID) -> bool: ...

    async def is_connected(self) -> bool: ...

    async def counts(self) -> dict[str, Any]: ...

    async def close(self) -> None: ...


@dataclass
class Core:
    """What the routes work with; `request.app.state.core`. The URLs are for functions of the bridge."""

    settings: CoreSettings
    ops_url: str
    bstadmin_url: str | None
    pool: database.Pool
    flags: Flags
    metrics: Metrics
    minutes: Minutes
    acceptor: Acceptor
    queue: Queue | None
    sides: Sides
    shadow: Shadow
    writing: Writing | None


def create_app(
    *,
    ops_url: str | None = None,
    bstadmin_url: str | None = None,
    bstadmin_write_url: str | None = None,
    queue: Callable[[], Queue] | None = None,
) -> FastAPI:
    """The service on the ops database and on bstadmin (without `ops_url` those of the settings; on an ops database
    alone reads of the back office have no old path); `queue` makes the queue, in the event loop.

    Our own state (`steps.bootstrap`) has to be there. Without a queue events wait in the log for the sweeper.
    """
    from core_api import mappings, operations
    from core_api.console import frame, session
    from core_api.ingest import dead_letter_routes, routes
    from core_api.ops import reads, writes
    from core_api.ops.intents import Writing
    from core_api.ops.shadow import Shadow
    from core_api.ops.sides import Sides

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ops, bstadmin = (ops_url, bstadmin_url) if ops_url else (databases().ops, databases().bstadmin)
        pool, metrics = database.pool(ops, size=POOL_SIZE, application_name="phase2-core-api"), Metrics()
        sides, shadow = Sides(ops, bstadmin, metrics), Shadow(ops, bstadmin, metrics)
        await pool.open()
        await sides.open()
        await shadow.open()
        writing = Writing(ops, bstadmin_write_url) if bstadmin_write_url else None
        if writing:
            await writing.open()
        core = Core(
            core_settings(),
            ops,
            bstadmin,
            pool,
            Flags(),
            metrics,
            Minutes(),
            Acceptor(pool),
            queue() if queue else None,
            sides,
            shadow,
            writing,
        )
        app.state.core = core
        session.users(core.settings)
        await core.flags.is_on("INGEST_WEBHOOK_ENABLED", pool)
        chores = [asyncio.create_task(_chores(core)), asyncio.create_task(sides.keep_flushing(pool))]
        try:
            yield
        finally:
            # uvicorn has answered what it held by now
            for chore in chores:
                chore.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await chore
            await shadow.close()
            await sides.flush(pool)
            with contextlib.suppress(psycopg.Error, OSError):
                await core.minutes.flush(pool)
            await sides.close()
            if writing:
                await writing.close()
            if core.queue:
                await core.queue.close()
            await pool.close()

    app = FastAPI(
        title="Core API",
        version="1",
        description="Ingestion of bookings, and what stands behind it (docs/ingestion.md).",
        lifespan=lifespan,
        redirect_slashes=False,
        redoc_url=None,
    )
    # Found before its declaration among the routers, which documents it: it reads its request itself, and FastAPI's way
    # to it costs a fifth of the API's CPU.
    app.router.routes.append(Direct(routes.PATH, routes.take, methods=["POST"]))
    app.state.routes = []
    for part in (routes, dead_letter_routes, mappings, operations, reads, writes):
        app.include_router(part.router)
        app.state.routes += part.router.routes
    app.router.routes.extend(frame.routes())
    # FastAPI's own way to another document is to assign the method
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(Observed)
    # Starlette types a handler by Exception, each of these takes its own kind
    app.add_exception_handler(Refused, _refused)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    app.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    app.add_exception_handler(psycopg.Error, _database)  # type: ignore[arg-type]
    return app


class Direct(Route):
    """A route of Starlette that says, as FastAPI's do, that it was taken."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self
        await super().handle(scope, receive, send)


async def _chores(core: Core) -> None:
    """Flags are read before a request has to wait for it; answers are counted in the database; what was remembered for
    a while is forgotten.
    """
    forget_at, flush_at = 0.0, 0.0
    while True:
        try:
            await core.flags.is_on("INGEST_WEBHOOK_ENABLED", core.pool)
            if time.monotonic() >= flush_at:
                flush_at = time.monotonic() + FLUSH_SECONDS
                await core.minutes.flush(core.pool)
            if time.monotonic() >= forget_at:
                forget_at = time.monotonic() + 60
                await forget(core.pool)
                await forget_minutes(core.pool)
        except Exception as error:  # the next round looks again
            _log.warning("chores: %s", plain(error) if isinstance(error, psycopg.Error) else type(error).__name__)
        await asyncio.sleep(1.0)


# -- answers ----------------------------------------------------------------------------------------------------------

T = TypeVar("T")


class Meta(BaseModel):
    """Beside every `data`."""

    requestId: UUID
    timestamp: datetime


class Answer(BaseModel, Generic[T]):
    """Success."""

    data: T
    meta: Meta


class Fault(BaseModel):
    """`code` is for machines and also opens `message`."""

    code: str
    message: str
    details: Any
    requestId: UUID


class Refusal(BaseModel):
    """Every answer from 400 on."""

    error: Fault


class Page(BaseModel, Generic[T]):
    """A list: give `nextCursor` back as `cursor` for what follows; null at its end."""

    items: list[T]
    nextCursor: str | None


Limit = Annotated[int, Query(description="1 to 200, else the nearest")]
Cursor = Annotated[UUID | None, Query(description="nextCursor of the page before")]


def most(limit: int) -> int:
    """The rows of a page: 1 to 200."""
    return min(max(limit, 1), 200)


def page(rows: list[dict[str, Any]], size: int, key: str) -> dict[str, Any]:
    """A page of `size` from one row more than that, if there were as many."""
    return {"items": rows[:size], "nextCursor": str(rows[size - 1][key]) if len(rows) > size else None}


def as_admin(request: Request) -> Admin:
    """Who reads (any role). Raises Refused: 401, 403."""
    return admin(request.headers, request.app.state.core.settings)


def as_writer(request: Request) -> Admin:
    """Who changes something (MANAGER, ADMIN). Raises Refused: 401, 403."""
    return admin(request.headers, request.app.state.core.settings, write=True)


def documented(model: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this body itself."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    _DOCUMENTED[model.__name__] = model
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


_DOCUMENTED: dict[str, type[BaseModel]] = {}
_ADMIN_HEADERS = (
    ("x-admin-role", True, {"type": "string", "description": "ADMIN, MANAGER or STAFF, in any case"}),
    ("x-actor", False, {"type": "string", "maxLength": 128, "description": "who; else system"}),
)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """OpenAPI 3.1 of all routes: bodies that routes read themselves, tokens, and the headers of an admin."""
    if app.openapi_schema:
        return app.openapi_schema
    made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = made["components"]
    for name, model in _DOCUMENTED.items():
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        components["schemas"] |= schema.pop("$defs", {}) | {name: schema}
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape of a 422: never ours
        components["schemas"].pop(name, None)
    for path in made["paths"].values():
        for call in path.values():
            if "HTTPValidationError" in str(call["responses"].get("422")):
                del call["responses"]["422"]
    components["securitySchemes"] = {
        "serviceToken": {"type": "http", "scheme": "bearer", "description": "INGEST_SERVICE_TOKEN"},
        "adminToken": {"type": "http", "scheme": "bearer", "description": "CORE_API_ADMIN_TOKEN"},
    }
    for route in app.state.routes:
        depends = getattr(getattr(route, "dependant", None), "dependencies", ())
        if any(one.call in (as_admin, as_writer) for one in depends):
            for method in route.methods:  # type: ignore[attr-defined]
                call = made["paths"][route.path_format][method.lower()]  # type: ignore[attr-defined]
                call["security"] = [{"adminToken": []}]
                call["responses"].setdefault("400", call["responses"]["401"])  # x-actor
                call.setdefault("parameters", []).extend(
                    {"name": name, "in": "header", "required": required, "schema": schema}
                    for name, required, schema in _ADMIN_HEADERS
                )
    app.openapi_schema = made
    return made


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for OpenAPI."""
    return {status: {"model": Refusal} for status in statuses}


def answer(request: Request, data: Any, status: int = 200) -> Response:
    """`data` in the envelope."""
    meta = {"requestId": request.scope["request_id"], "timestamp": datetime.now(UTC)}
    return _json({"data": data, "meta": meta}, status)


def _json(content: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content, option=orjson.OPT_UTC_Z), status, headers, media_type="application/json")


def _error(scope: Any, refused: Refused) -> Response:
    scope["error_code"] = refused.code
    content = {
        "code": refused.code,
        "message": f"{refused.code}: {refused.message}",
        "details": refused.details,
        "requestId": scope["request_id"],
    }
    return _json({"error": content}, refused.status, refused.headers)


async def _refused(request: Request, error: Refused) -> Response:
    return _error(request.scope, error)


_WORDS = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


async def _http(request: Request, error: HTTPException) -> Response:
    code = _WORDS.get(error.status_code, "BAD_REQUEST")
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 405:  # of every route with this path: Starlette names those of the first
        there = (r for r in request.app.state.routes if r.matches(request.scope)[0] != Match.NONE)
        allowed = {method for route in there for method in route.methods}
        headers["allow"] = ", ".join(sorted(allowed)) or headers.get("allow", "")
    return _error(request.scope, Refused(error.status_code, code, str(error.detail), None, headers))


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    return _error(request.scope, faulty(error.errors()))


def faulty(errors: Any) -> Refused:
    """422 VALIDATION_ERROR of pydantic's list of errors, each with its field and without its value."""
    found = [
        {"field": ".".join(map(str, e["loc"])) or "body", "message": e["msg"].removeprefix("Value error, ")}
        for e in errors
    ][:20]
    return Refused(422, "VALIDATION_ERROR", "; ".join(f"{f['field']}: {f['message']}" for f in found), found)


async def _database(request: Request, error: psycopg.Error) -> Response:
    if isinstance(error, psycopg.DataError):
        return _error(request.scope, Refused(422, "VALIDATION_ERROR", "the request holds a value that cannot be kept"))
    _log.error("database: %s", plain(error), extra={"said": {"requestId": request.scope["request_id"]}})
    return _error(request.scope, unavailable())


def unavailable() -> Refused:
    """503: the database does not answer, or is not ready for this yet."""
    return Refused(503, "SERVICE_UNAVAILABLE", "the database does not answer", headers={"retry-after": "5"})


async def body_of(request: Request) -> bytes:
    """The body's bytes as received. Raises Refused: 413 over 1 MiB, chunked or not; 408 when it does not come."""
    too_large = Refused(
        413, "PAYLOAD_TOO_LARGE", f"the body is over {LONGEST_BODY} bytes", headers={"connection": "close"}
    )
    declared = request.headers.get("content-length", "")
    if len(declared) > 7 or (declared.isdigit() and int(declared) > LONGEST_BODY):
        raise too_large
    chunks, size = [], 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > LONGEST_BODY:
                    raise too_large
                chunks.append(chunk)
    except TimeoutError:
        raise Refused(408, "REQUEST_TIMEOUT", "the body did not come", headers={"connection": "close"}) from None
    return b"".join(chunks)


M = TypeVar("M", bound=BaseModel)


async def content_of(request: Request, model: type[M], *, required: bool = True) -> M:
    """The JSON body of an admin's call; none is `{}` where none is required. Raises Refused: 400, 408, 413, 422."""
    body = await body_of(request)
    try:
        return model.model_validate_json(body if body or required else b"{}", strict=True)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=False, include_input=False)
        if faults[0]["type"] == "json_invalid":
            raise Refused(400, "INVALID_JSON", "the body cannot be read as JSON") from None
        raise faulty(faults) from None


def key_of(text: str) -> UUID:
    """An id of a path. Raises Refused: 404 when it is none."""
    try:
        if len(text) != 36:
            raise ValueError
        return UUID(text)
    except ValueError:
        raise not_found() from None


def not_found() -> Refused:
    """404."""
    return Refused(404, "NOT_FOUND", "there is no such thing here")


# -- around every request ---------------------------------------------------------------------------------------------


class Observed:
    """Request id, log line, measures, the longest time for an answer, and an envelope for what nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics: Metrics = scope["app"].state.core.metrics
        request_id = scope["request_id"] = _request_id(scope)
        started, status = time.perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        metrics.in_flight.inc()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self.app(scope, receive, sending)
        except ClientDisconnect:
            status = status or 499
        except Exception as error:
            late = isinstance(error, TimeoutError)
            if not late:  # the type alone: a message may quote what was sent
                where = last_frame(error)
                _log.error("unforeseen: %s %s", type(error).__name__, where, extra={"said": {"requestId": request_id}})
            if not status:
                refused = unavailable() if late else Refused(500, "INTERNAL_ERROR", "this should not have happened")
                await _error(scope, refused)(scope, receive, sending)
        finally:
            metrics.in_flight.dec()
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if scope["method"] in _METHODS else "OTHER"
            metrics.record(method, route, status, seconds, scope.get("error_code"))
            scope["app"].state.core.minutes.count(method, route, status, scope.get("error_code"))
            if _log.isEnabledFor(logging.INFO):
                said = {
                    "requestId": request_id,
                    "method": method,
                    "route": route,
                    "status": status,
                    "ms": round(seconds * 1000, 2),
                }
                if code := scope.get("error_code"):
                    said["code"] = code
                _log.info("request", extra={"said": said})


_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


def _request_id(scope: Scope) -> str:
    """The caller's `x-request-id` when it is a UUID, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and len(value) == 36:
            with contextlib.suppress(ValueError):
                return str(UUID(value.decode("latin-1")))
    return str(uuid7())


def last_frame(error: BaseException) -> str:
    """Where an error was raised."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
