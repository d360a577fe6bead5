"""What the pages of the back office read (cutover.md, G; blueprint 6.8): bookings, assignments, finance.

A booking's id is bstadmin's number, which both sides know; one that only an event has told of so far has its booking
key for an id until a backfill meets it in bstadmin.
"""

from __future__ import annotations

import base64
import re
from datetime import date, datetime
from functools import cache
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, BeforeValidator
from starlette.background import BackgroundTask

from bridge.steps import today_in_bali
from core_api.app import Answer, Core, Limit, Page, answer, as_admin, key_of, most, not_found, refusals, unavailable
from core_api.auth import Admin
from core_api.errors import Refused
from core_api.ops.sides import Row, Served

router = APIRouter(prefix="/v1/ops", tags=["ops reads"])

Status = Literal["NEW", "READY", "ATTENTION", "COMPLETED", "DONE", "UPDATED", "CANCELLED", "NO_SHOW"]
Source = Literal["DIRECT", "GYG", "VIATOR", "TRIPDOTCOM", "BOKUN", "MANUAL"]


def _day(given: Any) -> Any:
    """Only what is written as a day: a number would be read as seconds."""
    if isinstance(given, str) and not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", given):
        raise ValueError("not a day, written as 2026-12-31")
    return given


Day = Annotated[date | None, BeforeValidator(_day)]
Words = Annotated[
    str | None,
    Query(min_length=3, max_length=100, pattern=r"^[^\x00]*$", description="part of the reference or of the name"),
]
Cursor = Annotated[str | None, Query(max_length=400, description="nextCursor of the page before")]


_WILD, _ESCAPED = re.compile(r"([%_\\])"), r"\\\1"


class BookingRow(BaseModel):
    """A line of the booking list. Money is text, days are Bali's."""

    id: str
    channel: str
    reference: str | None
    createdAt: str
    bookedOn: str | None
    tourDate: str
    tourTime: str | None
    customerName: str | None
    adults: int | None
    children: int | None
    currency: str
    totalPrice: str
    status: str
    isPaid: bool | None
    packageId: int | None
    driverId: int | None


class Booking(BookingRow):
    """The page of one booking. `bookingKey` is what writes are addressed to; bstadmin does not know it."""

    bookingKey: str | None
    customerEmail: str | None
    customerPhone: str | None
    pickupLocation: str | None
    meetingPoint: str | None
    paidAt: str | None
    assignedAt: str | None
    note: str | None
    financeId: int | None
    patternId: int | None
    validatedAt: str | None
    isLocked: bool | None
    settlement: str | None


class AssignmentRow(BaseModel):
    """A line of the assignment board."""

    id: str
    channel: str
    reference: str | None
    createdAt: str
    tourDate: str
    tourTime: str | None
    adults: int | None
    children: int | None
    pickupLocation: str | None
    status: str
    driverId: int | None
    partnerId: int | None
    assignedAt: str | None


class FinanceRow(BaseModel):
    """Bookings of one currency; cancelled ones and no-shows are left out."""

    currency: str
    bookings: int
    heads: int
    totalPrice: str
    paidBookings: int
    paidPrice: str
    finances: int
    validated: int
    locked: int
    settled: int


class Finance(BaseModel):
    """The finance summary of the tours of some days."""

    dateFrom: date
    dateTo: date
    items: list[FinanceRow]


_HEADER = {
    "x-served-by": {"description": "`new` or `legacy`; and why, if not by the flag", "schema": {"type": "string"}}
}


@router.get(
    "/bookings",
    response_model=None,
    responses={200: {"model": Answer[Page[BookingRow]], "headers": _HEADER}, **refusals(401, 403, 422, 503)},
)
async def bookings(
    request: Request,
    admin: Annotated[Admin, Depends(as_admin)],
    status: Status | None = None,
    source: Source | None = None,
    dateFrom: Day = None,
    dateTo: Day = None,
    q: Words = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Bookings, the latest tour first; the days are those of the tour, both included."""
    size = most(limit)
    parameters = {
        "status": status,
        "source": source,
        "date_from": dateFrom,
        "date_to": dateTo,
        "pattern": q and f"%{_WILD.sub(_ESCAPED, q)}%",
        "found": None,
        "size": size + 1,
        **_after(cursor),
    }
    served = await _serve(request, admin, "bookings", parameters)
    return await _page(request, served, size)


@router.get(
    "/bookings/{booking_id}",
    response_model=None,
    responses={200: {"model": Answer[Booking], "headers": _HEADER}, **refusals(401, 403, 404, 503)},
)
async def booking(request: Request, booking_id: str, admin: Annotated[Admin, Depends(as_admin)]) -> Response:
    """One booking, by bstadmin's number, or by its booking key while it has none."""
    number = booking_id if re.fullmatch(r"[1-9][0-9]{0,9}", booking_id) else None
    parameters = {"number": number, "key": None if number else key_of(booking_id)}
    served = await _serve(request, admin, "booking", parameters, one=True)
    if not served.rows:
        # bstadmin knows no booking keys: that it has none of this one says nothing
        raise unavailable() if parameters["key"] and served.why in ("fallback", "breaker") else not_found()
    # of bookings that were merged the page keeps the number that was asked for
    found = served.rows[0] | ({"id": booking_id} if number else {})
    return await _answered(request, served, _shown(found))


@router.get(
    "/assignments",
    response_model=None,
    responses={200: {"model": Answer[Page[AssignmentRow]], "headers": _HEADER}, **refusals(401, 403, 422, 503)},
)
async def assignments(
    request: Request,
    admin: Annotated[Admin, Depends(as_admin)],
    assigned: Annotated[bool, Query(description="false: those that still need a driver")] = True,
    driverId: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    dateFrom: Day = None,
    dateTo: Day = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """The assignment board, the latest tour first."""
    size = most(limit)
    parameters = {
        "assigned": assigned,
        "driver": driverId,
        "date_from": dateFrom,
        "date_to": dateTo,
        "size": size + 1,
        **_after(cursor),
    }
    served = await _serve(request, admin, "assignments" if assigned else "unassigned", parameters)
    return await _page(request, served, size)


@router.get(
    "/finance/summary",
    response_model=None,
    responses={200: {"model": Answer[Finance], "headers": _HEADER}, **refusals(401, 403, 422, 503)},
)
async def finance(
    request: Request, admin: Annotated[Admin, Depends(as_admin)], dateFrom: Day = None, dateTo: Day = None
) -> Response:
    """What the tours of some days bring, both included: the last 7; of more than 31 the last 31."""
    last = dateTo or (_later(dateFrom, 6) if dateFrom else today_in_bali())
    first = max(dateFrom or _later(last, -6), _later(last, -30))
    served = await _serve(request, admin, "finance", {"date_from": first, "date_to": last})
    return await _answered(
        request, served, {"dateFrom": first, "dateTo": last, "items": [_shown(row) for row in served.rows]}
    )


def _later(day: date, days: int) -> date:
    """A day some days on, within what there is."""
    return date.fromordinal(min(max(day.toordinal() + days, date.min.toordinal()), date.max.toordinal()))


async def _serve(request: Request, admin: Admin, read: str, parameters: dict[str, Any], *, one: bool = False) -> Served:
    core: Core = request.app.state.core
    served = await core.sides.serve(core.flags, core.pool, admin, read, parameters, one=one)
    request.state.read = (read, parameters)
    return served


async def _answered(request: Request, served: Served, data: Any) -> Response:
    """The answer; when it is gone, its read is offered to the shadow. Who validates a page waits for what comes of
    that, and for no chance."""
    core: Core = request.app.state.core
    response = answer(request, data)
    response.headers["x-served-by"] = served.header
    read, parameters = request.state.read
    offered = (core.pool, read, _path(request), parameters, served)
    if request.headers.get("x-shadow") == "always":
        await core.shadow.offer(*offered, always=True)
    else:
        response.background = BackgroundTask(core.shadow.offer, *offered)
    return response


_TOLD = {"status", "source", "dateFrom", "dateTo", "limit", "assigned", "driverId"}


def _path(request: Request) -> str:
    """Path and query without values that may name a person, and without cursors."""
    asked = request.query_params.items()
    said = "&".join(f"{name}={value if name in _TOLD else '•••'}" for name, value in asked if name in {*_TOLD, "q"})
    return (request.url.path + (f"?{said}" if said else ""))[:400]


async def _page(request: Request, served: Served, size: int) -> Response:
    rows = served.rows[:size]
    following = _cursor(rows[-1]) if len(served.rows) > size else None
    return await _answered(request, served, {"items": [_shown(row) for row in rows], "nextCursor": following})


def _shown(row: Row) -> Row:
    """A row as the page has it: names in camel case, without what only comparisons and cursors need."""
    return {_camel(name): value for name, value in row.items() if not name.startswith("_")}


@cache
def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


def _cursor(row: Row) -> str:
    """Where a page ends, good on either side: day, time of creation, bstadmin's number, booking key."""
    place = [row["tour_date"], row["created_at"], row["_number"], row.get("_key")]
    return base64.urlsafe_b64encode(orjson.dumps(place)).decode().rstrip("=")


def _after(cursor: str | None) -> dict[str, Any]:
    """The parameters of what a cursor says. Raises Refused: 422 when it is none of ours."""
    day, created, number, key = (None, None, None, None)
    if cursor is not None:
        try:
            day, created, number, key = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
            # as both databases read them: what one could not read would look like its failure
            day = day if day == "infinity" else date.fromisoformat(day).isoformat()
            created = created if created == "infinity" else datetime.fromisoformat(created).isoformat()
            if not (number is None or (isinstance(number, int) and 0 < number < 2**63)):
                raise ValueError
            key = key and key_of(key)
        except (ValueError, TypeError, Refused):
            raise Refused(422, "VALIDATION_ERROR", "cursor: it is not the nextCursor of a page") from None
    return {"after_date": day, "after_created": created, "after_number": number, "after_key": key}
