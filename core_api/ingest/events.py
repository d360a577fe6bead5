"""The contract's body, BookingIngestEventV1: what a request must look like. What its values mean is the rulebook's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from core_api.errors import Refused

LONGEST_KEY = 128  # characters, of the columns idempotency_key, nonce and external_booking_ref
_MOST_NAMED = 20  # faults that one answer lists
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def instant(text: str) -> datetime:
    """An RFC 3339 time as UTC. Raises ValueError when it is none, names no zone, or lies beyond year 1 to 9999."""
    if not _INSTANT.fullmatch(text):
        raise ValueError("must be a time like 2026-11-22T08:30:00Z")
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no time that there is") from None


def _instant(text: str) -> str:
    instant(text)
    return text


def _day(text: str) -> str:
    if not _DAY.fullmatch(text):
        raise ValueError("must be a day like 2026-11-22")
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ValueError("is no day that there is") from None
    return text


Text = Annotated[str, Field(json_schema_extra={"pattern": r"^[^\x00]*$"})]
Instant = Annotated[str, AfterValidator(_instant), Field(json_schema_extra={"format": "date-time"})]
Day = Annotated[str, AfterValidator(_day), Field(json_schema_extra={"format": "date"})]


def _without_point(given: object) -> object:
    return int(given) if isinstance(given, float) and given.is_integer() else given


def whole(least: int, most: int) -> Any:
    """The type of a whole number, also as JSON's 2.0, which tells it from 2 no more than JavaScript does."""
    # the limits first: behind a validator they would not reach the OpenAPI document
    return Annotated[int, Field(ge=least, le=most), BeforeValidator(_without_point)]


Count = whole(0, 2_147_483_647)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class Customer(_Part):
    """Who travels, as far as the channel tells."""

    name: Text | None = None
    email: Text | None = None
    phone: Text | None = None


class Booking(_Part):
    """What was booked. `currency` and `tourTime` are the channel's words; the rulebook reads them."""

    tourDate: Day
    tourTime: Text | None = None
    adult: Count
    child: Count
    currency: Text
    totalPrice: Annotated[float, Field(ge=0)]
    pickupLocation: Text | None = None
    meetingPoint: Text | None = None
    note: Text | None = None


class Raw(_Part):
    """The channel's own message, any JSON."""

    providerPayload: Any = None


class BookingIngestEventV1(_Part):
    """A booking was made, changed or cancelled. Unknown fields are kept in the raw payload and ignored."""

    payloadVersion: Literal["v1"]
    eventType: Literal["CREATED", "UPDATED", "CANCELLED"]
    eventTime: Instant
    source: Literal["DIRECT", "GYG", "VIATOR", "TRIPDOTCOM", "BOKUN", "MANUAL"]
    externalBookingRef: Annotated[Text, Field(min_length=1, max_length=LONGEST_KEY)]
    customer: Customer
    booking: Booking
    raw: Raw


def read(body: bytes) -> BookingIngestEventV1:
    """The event in a body. Raises Refused: 400 INVALID_JSON, or 422 VALIDATION_ERROR that names each field."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        # its words, not its document: an error answer holds nothing of the body
        raise Refused(400, "INVALID_JSON", f"the body cannot be read as JSON ({error.msg})") from None
    faults: dict[str, str] = {}
    event = None
    try:
        event = BookingIngestEventV1.model_validate(content)
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            field = ".".join(str(part) for part in fault["loc"]) or "body"
            faults.setdefault(field, fault["msg"].removeprefix("Value error, "))
    if b"\\u0000" in body:
        for field in _with_nul(content):
            faults[field] = "must not hold NUL"
    if faults:
        raise invalid(faults)
    assert event is not None
    return event


def invalid(faults: dict[str, str]) -> Refused:
    """422 VALIDATION_ERROR: field -> what is wrong with it, never the value."""
    details = [{"field": field, "message": message} for field, message in list(faults.items())[:_MOST_NAMED]]
    return Refused(422, "VALIDATION_ERROR", "; ".join(f"{d['field']}: {d['message']}" for d in details), details)


def _with_nul(content: Any) -> list[str]:
    """Paths of the texts and names that hold a NUL, which jsonb cannot keep; in the order of the document.

    One iterator a level: a body may be a thousand levels deep, or half a million values wide.
    """
    found: list[str] = []
    path: list[str] = []
    levels: list[Iterator[tuple[str, Any]]] = [iter([("body", content)])]
    while levels and len(found) < _MOST_NAMED:
        name, value = next(levels[-1], _END)
        if name is None:
            levels.pop()
            path = path[:-1]
            continue
        if "\x00" in name or (isinstance(value, str) and "\x00" in value):
            where = ".".join([*path[1:], name]).replace("\x00", "\\u0000")
            found.append(where[:_LONGEST_PATH])
        if isinstance(value, dict | list):
            levels.append(iter(value.items()) if isinstance(value, dict) else _numbered(value))
            path.append(name)
    return found


_END: Any = (None, None)
_LONGEST_PATH = 200  # characters of it that an answer shows


def _numbered(values: list[Any]) -> Iterator[tuple[str, Any]]:
    return ((str(index), value) for index, value in enumerate(values))
