"""What is around every page: who is here and may what, forms that nobody else can send, errors that say what to do."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import orjson
import psycopg
from fastapi import Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from psycopg import IsolationLevel
from starlette.requests import ClientDisconnect
from starlette.responses import RedirectResponse
from starlette.routing import Route

from bridge import door, ledger, postgres
from bridge.errors import CouldNotRun, plain
from bridge.policy import policy
from bridge.reports import draw
from core_api.app import Core, Direct, body_of, last_frame
from core_api.auth import Admin
from core_api.console import access, charts
from core_api.console import session as sessions
from core_api.console.session import Session
from core_api.errors import Refused

_log = logging.getLogger("core_api.console")
HERE = Path(__file__).parent
SECONDS = 10  # the longest that a statement of a page may take
CODE_SECONDS = 10.0  # so old may be what a page says of the project's own files: whether a verdict is stale
BALI = timedelta(hours=8)

_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data:; base-uri 'none'; object-src 'none';"
    " form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

# What is said after an action; its word is in the address, its text never is.
SAID = {
    "moved": "Done: the dead letter has been moved.",
    "replayed": "The replay was requested. The worker takes it within seconds; this page shows how it ends.",
    "replayed-some": "The replay of what you had previewed was requested, and of nothing else. What follows is READY"
    " too: it came since, or was not among the first. Look at it; then replay it, if it should be.",
    "decided": "Decided, and written to the ledger. Every later run obeys it.",
    "resolved": "Resolved. bstadmin's part goes there with the worker, within seconds.",
    "applied": "Settled by its rule, and written to the ledger.",
    "told": "Noted, and written to the ledger.",
    "flag": "The flag is changed. Every process follows within seconds.",
    "asked": "Asked: both sides are compared and the gates measured first. This page shows how it ends.",
    "down": "One rung back. Every process follows within seconds.",
    "stopped": "The migration is on hold: nothing starts, and what runs stops at its next safe point.",
    "resumed": "The hold is lifted.",
    "signed": "Signed, and written to the ledger.",
    "revoked": "Taken back, and written to the ledger.",
    "window": "The freeze window is written to the ledger.",
    "out": "You have signed out.",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Visit:
    """One request of somebody who may make it; `form` holds the fields of a POST, the last of each name."""

    request: Request
    core: Core
    session: Session
    form: Mapping[str, str] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()  # every field named `key`; with a mark at `all` every one named `shown` too

    @property
    def admin(self) -> Admin:
        return Admin(self.session.role, self.session.name)

    def may(self, action: str) -> bool:
        return access.may(self.session.role, action)

    def asked(self, name: str) -> str | None:
        """A filter of the address; None when it is not there or blank."""
        return self.request.query_params.get(name, "").strip()[:200] or None

    def needed(self, name: str, what: str) -> str:
        """A field of the form. Refused (422) when it is blank."""
        value = self.form.get(name, "").strip()
        if not value:
            raise Refused(422, "VALIDATION_ERROR", f"{what} is missing: go back and say it")
        if len(value) > 2000 or "\x00" in value:
            raise Refused(422, "VALIDATION_ERROR", f"{what} is too long, or no text")
        return value

    @property
    def reason(self) -> str:
        return self.needed("reason", "the reason")

    async def bridge(self, work: Callable[[], T]) -> T:
        """A function of the bridge, in a thread of its own, as the person who has signed in."""

        def run() -> T:
            kept = _code() if self.request.method == "GET" else {}  # what is signed is of now
            with ledger.acting(self.session.name, self.session.role), door.remembering(kept):
                return work()

        return await asyncio.to_thread(run)

    async def ops(self, work: Callable[[psycopg.Connection], T], *, write: bool = False, snapshot: bool = False) -> T:
        """The same with a connection to the ops database; `snapshot`: all it reads is of one moment."""

        def run() -> T:
            with postgres.connect(
                self.core.ops_url, application_name="phase2-console", read_only=not write, autocommit=not snapshot
            ) as conn:
                conn.execute(f"set statement_timeout = '{SECONDS}s'".encode())
                if snapshot:
                    conn.rollback()
                    conn.isolation_level = IsolationLevel.REPEATABLE_READ
                return work(conn)

        return await self.bridge(run)

    def page(self, template: str, *, status: int = 200, **values: Any) -> Response:
        """A whole page, or for htmx its part alone."""
        shown = {
            "visit": self,
            "may": self.may,
            "csrf": sessions.token(self.session, self.core.settings),
            "path": self.request.url.path,
            "query": dict(self.request.query_params),
            "said": SAID.get(self.request.query_params.get("said", "")),
            "part": "hx-request" in self.request.headers,
            "environment": policy().environment,
            "now": datetime.now(UTC),
        }
        text = templates().get_template(template).render(**shown | values)
        return Response(text, status, media_type="text/html")

    def to(self, path: str, said: str = "") -> Response:
        """Another page, after an action."""
        return RedirectResponse(path + (f"?said={said}" if said else ""), 303)


_code_kept: tuple[float, dict[str, dict[str, str]]] = (float("-inf"), {})


def _code() -> dict[str, dict[str, str]]:
    """What the files of the project say, read again when it is older than CODE_SECONDS."""
    global _code_kept
    if time.monotonic() - _code_kept[0] > CODE_SECONDS:
        _code_kept = (time.monotonic(), {})
    return _code_kept[1]


Handler = Callable[[Visit], Awaitable[Response]]


@dataclass(frozen=True)
class Place:
    """One address: what it asks the table of access for; None: for nobody's sign-in."""

    method: str
    path: str
    action: str | None
    handler: Handler


PLACES: list[Place] = []


def page(path: str, action: str | None = "look") -> Callable[[Handler], Handler]:
    """What is shown at `path`, to whoever may do `action`."""
    return _place("GET", path, action)


def act(path: str, action: str | None) -> Callable[[Handler], Handler]:
    """What a form sent to `path` does, for whoever may do `action`."""
    return _place("POST", path, action)


def _place(method: str, path: str, action: str | None) -> Callable[[Handler], Handler]:
    def keep(handler: Handler) -> Handler:
        PLACES.append(Place(method, path, action, handler))
        return handler

    return keep


def routes() -> list[Route]:
    """The console's addresses, for the app."""
    from core_api.console import gate, migration, work  # noqa: F401 - their pages place themselves here

    found: list[Route] = [Direct("/console/static/{file}", _static, methods=["GET"])]
    found += [Direct(place.path, _endpoint(place), methods=[place.method]) for place in PLACES]
    nowhere = Place("GET", "/console/{path:path}", "look", _nowhere)
    return [*found, Direct(nowhere.path, _endpoint(nowhere), methods=["GET"])]


async def _nowhere(visit: Visit) -> Response:
    raise Refused(404, "NOT_FOUND", "there is no such page here")


def _endpoint(place: Place) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        core: Core = request.app.state.core
        known = sessions.read(request.cookies.get(sessions.cookie_name()), core.settings)
        visit = Visit(request, core, sessions.opened(core.settings))
        try:
            if known and known.name and await sessions.is_over(core.pool, known):
                known = None
            if known:
                visit = Visit(request, core, known)
            response = await _serve(place, visit, known)
        except Refused as error:
            request.scope["error_code"] = error.code
            response = _sorry(visit, error.status, error.message, headers=error.headers)
        except CouldNotRun as error:
            response = _sorry(visit, 409, error.what, error.where, error.todo)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction):
            response = _sorry(
                visit, 503, "what this page shows is not there yet", "", "Run batches A and B first: make run BATCH=A"
            )
        except psycopg.errors.QueryCanceled:
            response = _sorry(visit, 503, f"it took longer than {SECONDS} s", "", "Narrow the filter, and try again.")
        except psycopg.DataError as error:
            response = _sorry(visit, 422, f"a value cannot be read: {plain(error, 120)}")
        except psycopg.OperationalError:
            response = _sorry(visit, 503, "the database does not answer", "", "Try again in a moment; see /health/db.")
        except ClientDisconnect:
            raise
        except Exception as error:  # a page that says so, and a line for who mends it: without what was sent
            _log.error("unforeseen: %s %s", type(error).__name__, last_frame(error))
            response = _sorry(
                visit,
                500,
                "this should not have happened",
                "",
                f"Tell a developer: request {request.scope['request_id']}",
            )
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return answer


async def _serve(place: Place, visit: Visit, known: Session | None) -> Response:
    request, settings = visit.request, visit.core.settings
    if place.action is not None and (known is None or not known.name):
        if place.method == "GET" and "hx-request" not in request.headers:
            return RedirectResponse("/console/sign-in?" + urlencode({"next": request.url.path}), 303)
        raise Refused(401, "UNAUTHORIZED", "your session is over: sign in again, then repeat this")
    if place.action is not None and not visit.may(place.action):
        raise Refused(403, "FORBIDDEN", f"the role {visit.session.role} may not do this ({place.action})")
    if place.method == "POST":
        fields = await _fields(request)
        if (
            not _is_own(request)
            or known is None
            or not sessions.is_token(dict(fields).get("token", ""), known, settings)
        ):
            raise Refused(
                403, "FORBIDDEN", "this form is not one of your session: open the page again, and send it anew"
            )
        form = dict(fields)
        marks = ("key", "shown") if form.get("all") else ("key",)
        chosen = tuple(dict.fromkeys(value for name, value in fields if name in marks))
        visit = Visit(request, visit.core, known, form, chosen)
    return await place.handler(visit)


async def _fields(request: Request) -> list[tuple[str, str]]:
    if request.headers.get("content-type", "").split(";")[0].strip() != "application/x-www-form-urlencoded":
        raise Refused(422, "VALIDATION_ERROR", "a form is sent as application/x-www-form-urlencoded")
    try:
        return parse_qsl((await body_of(request)).decode(), keep_blank_values=True, max_num_fields=500, errors="strict")
    except (UnicodeDecodeError, ValueError):
        raise Refused(422, "VALIDATION_ERROR", "the form cannot be read") from None


def _is_own(request: Request) -> bool:
    """Whether the browser says that the form stands on a page of ours, as far as it says anything."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None and site not in ("same-origin", "none"):
        return False
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


_WHAT = {
    401: "Sign in",
    403: "Not allowed",
    404: "Not here",
    409: "Not possible now",
    422: "Something is missing",
    429: "Too many tries",
}


def _sorry(
    visit: Visit, status: int, what: str, where: str = "", todo: str = "", headers: dict[str, str] | None = None
) -> Response:
    response = visit.page(
        "sorry.html.j2", status=status, title=_WHAT.get(status, "Not now"), what=what, where=where, todo=todo
    )
    for name, value in (headers or {}).items():
        response.headers[name] = value
    return response


# -- files ------------------------------------------------------------------------------------------------------------

_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".LICENSE": "text/plain"}


@lru_cache(maxsize=1)
def _files() -> dict[str, tuple[bytes, str]]:
    """All there is, read once: no address leads anywhere else."""
    return {path.name: (path.read_bytes(), _TYPES[path.suffix]) for path in (HERE / "static").iterdir()}


async def _static(request: Request) -> Response:
    found = _files().get(request.path_params["file"])
    if found is None:
        return Response("not here", 404, headers=_HEADERS, media_type="text/plain")
    headers = _HEADERS | {"cache-control": "public, max-age=31536000, immutable"}
    return Response(found[0], headers=headers, media_type=found[1])


@lru_cache(maxsize=16)
def _address(file: str) -> str:
    """With its digest, so that it may be kept for ever."""
    return f"/console/static/{file}?{hashlib.sha256(_files()[file][0]).hexdigest()[:12]}"


# -- templates --------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The console's templates: everything is escaped, and what is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"when": when, "ago": ago, "flat": draw.flat, "number": draw.number, "json": _json}
    made.globals |= {"draw": draw, "charts": charts, "file": _address, "with_": _with, "quoted": _quoted}
    return made


def when(value: datetime | str | None) -> Markup | str:
    """A time in UTC with Bali's beside it; with its day there when that is another one."""
    if value is None:
        return "–"
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    there = at + BALI
    bali = f"{there:%H:%M}" if there.date() == at.date() else f"{there:%d %b %H:%M}"
    return Markup('<time datetime="{}">{} <small>UTC</small> <span class="bali">{} Bali</span></time>').format(
        f"{at:%Y-%m-%dT%H:%M:%SZ}", f"{at:%Y-%m-%d %H:%M}", bali
    )


def ago(value: timedelta | float) -> str:
    """A span in words: `3 h 05 min`."""
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    minutes = int(abs(seconds) // 60)
    if minutes < 1:
        return f"{abs(seconds):.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes < 2880 else f"{minutes // 1440} days"


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z, default=str).decode()


def _with(query: Mapping[str, str], **changes: Any) -> str:
    """The address's filters with these in place of theirs."""
    asked = {name: value for name, value in {**query, **changes}.items() if value not in (None, "") and name != "said"}
    return "?" + urlencode(asked)


def _quoted(text: str) -> str:
    return quote(text, safe="")
