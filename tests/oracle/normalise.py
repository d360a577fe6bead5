"""Normalisation of every field that enters the bridge (mapping 1), and the deterministic keys (mapping 2)."""

import re
import unicodedata
import uuid
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Any
from zoneinfo import ZoneInfo

INVISIBLE = "\u200b\u2060\ufeff"
JOINERS = "\u200c\u200d"
# The 25 code points with the Unicode property White_Space.
WHITE_SPACE = (
    "\t\n\x0b\x0c\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
# Wide enough that no sum or rounding of a numeric(65,30) is ever inexact.
EXACT = Context(prec=200, rounding=ROUND_HALF_UP)
CENT = Decimal("0.01")
MONEY_LIMIT = Decimal("1e10")

PLACEHOLDER_NAMES = {"guest", "customer", "unknown", "cancelled", "n/a", "na", "-", "test"}
PLACEHOLDER_EMAILS = {
    "no-email@getyourguide.com",
    "cancelled@getyourguide.com",
    "no-email@unknown.com",
    "test@test.com",
    "-",
    "n/a",
    "na",
    "unknown",
}
PLACEHOLDER_PLACES = {"-", "n/a", "na", "unknown"}

BOOKING_NAMESPACE = uuid.UUID("1396788e-dfe4-558e-977f-cbac85111c4c")
PRODUCT_NAMESPACE = uuid.UUID("1b2c8dda-1d99-57f5-bdc1-b9fb772d8186")
VARIANT_NAMESPACE = uuid.UUID("6b647a19-b987-5dd4-8c1e-94bceb859370")
PAYMENT_NAMESPACE = uuid.UUID("2dfcb1f0-47c5-5823-9bc3-c281e0fd702f")
ENTITY_NAMESPACES = {
    "PRODUCT": PRODUCT_NAMESPACE,
    "VARIANT": VARIANT_NAMESPACE,
    "BOOKING": BOOKING_NAMESPACE,
}

BALI = ZoneInfo("Asia/Makassar")


def upper(value: str) -> str:
    """Upper case, one code point to one (mapping 1; reading: simple case mapping)."""
    return "".join(c.upper() if len(c.upper()) == 1 else c for c in value)


def lower(value: str) -> str:
    """Lower case, one code point to one (mapping 1; reading: simple case mapping)."""
    return "".join(c.lower() if len(c.lower()) == 1 else c for c in value)


def text(value: str | None, also_removed: str = "") -> str | None:
    """Mapping 1, text: invisible characters removed, white space runs one space, trimmed, empty is null."""
    if value is None:
        return None
    visible = "".join(c for c in value if c not in INVISIBLE + also_removed)
    words = "".join(" " if c in WHITE_SPACE else c for c in visible).split(" ")
    return " ".join(word for word in words if word) or None


def lines(value: str | None) -> str | None:
    """Mapping 1, multi-line text: the text rule on each line, empty lines collapsed, none at either end."""
    if value is None:
        return None
    kept: list[str] = []
    for line in value.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        clean = text(line) or ""
        if clean or (kept and kept[-1]):
            kept.append(clean)
    while kept and not kept[-1]:
        kept.pop()
    return "\n".join(kept) or None


def external_ref(value: str | None) -> str | None:
    """Mapping 1, external ref: NFC, text rule, joiners removed too, upper case."""
    if value is None:
        return None
    clean = text(unicodedata.normalize("NFC", value), also_removed=JOINERS)
    return upper(clean) if clean else None


def without_marks(value: str) -> str:
    """NFKD without combining marks, lower case: the beginning of slug and name for matching (mapping 1)."""
    decomposed = unicodedata.normalize("NFKD", value)
    return lower("".join(c for c in decomposed if not unicodedata.category(c).startswith("M")))


def slug(value: str | None) -> str | None:
    """Mapping 1, slug: every run of other characters than a-z0-9 becomes one dash, none at either end."""
    if value is None:
        return None
    return re.sub("[^a-z0-9]+", "-", without_marks(value)).strip("-") or None


def match_name(value: str | None) -> str | None:
    """Mapping 1, name for matching: letters and decimal digits only; an empty one (None) matches nothing."""
    if value is None:
        return None
    kept = (c for c in without_marks(value) if unicodedata.category(c)[0] == "L" or unicodedata.category(c) == "Nd")
    return "".join(kept) or None


def currency(value: str | None) -> tuple[str, bool]:
    """Mapping 1, currency: the code, and whether the raw text was bad (then it is USD)."""
    clean = upper(text(value) or "")
    if re.fullmatch("[A-Z]{3}", clean):
        return clean, False
    return "USD", True


def money(value: Decimal | int | None) -> tuple[Decimal, bool]:
    """Mapping 1, money: numeric(12,2) half away from zero; null is 0; NaN or too large is 0 and bad."""
    if value is None:
        return Decimal("0.00"), False
    number = Decimal(value)
    if not number.is_finite():
        return Decimal("0.00"), True
    rounded = number.quantize(CENT, context=EXACT)
    if abs(rounded) >= MONEY_LIMIT:
        return Decimal("0.00"), True
    return rounded + 0, False


def count(value: int | None) -> int:
    """Mapping 1, head counts: null or negative is 0."""
    return max(value or 0, 0)


def instant(value: Any) -> datetime | None:
    """Mapping 1, source timestamps: zone-less means UTC; infinity is null."""
    if value is None or isinstance(value, str):
        assert value in (None, "infinity", "-infinity"), value
        return None
    if value.replace(tzinfo=None) in (datetime.max, datetime.min):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def in_range(value: datetime | date | None) -> bool:
    """Mapping 1, values that do not fit: a needed date is there and in 1900 to 2199."""
    return value is not None and 1900 <= value.year <= 2199


def bali(value: datetime) -> datetime:
    """Mapping 1, business dates: the wall clock in Bali (`Asia/Makassar`: UTC+8 since 1945, other offsets before)."""
    return value.replace(tzinfo=UTC).astimezone(BALI).replace(tzinfo=None)


def bali_day(value: datetime | None) -> date | None:
    """Mapping 1, business dates: the date in Bali of the instant; instants at the end of time have none."""
    if value is None:
        return None
    return bali(value).date() if value.year < 9999 else None


def travel_day(value: datetime | None) -> date | None:
    """Mapping 1, business dates: balisnap's travel day is the UTC date of the instant plus 12 hours."""
    if value is None:
        return None
    return (value + timedelta(hours=12)).date() if value.year < 9999 else None


def enum_like(value: str | None) -> str | None:
    """Mapping 1, enum-like: upper case, trimmed."""
    clean = text(value)
    return upper(clean) if clean else None


def place(value: str | None) -> str | None:
    """Mapping 1, pickup, meeting point (and phone): `-`, `n/a`, `na`, `unknown` are null."""
    clean = text(value)
    return None if clean is None or lower(clean) in PLACEHOLDER_PLACES else clean


def phone(value: str | None) -> str | None:
    """Mapping 1, phone: towards E.164; what does not become 8 to 15 digits stays as it was."""
    as_it_was = place(value)
    if as_it_was is None:
        return None
    kept = "".join(c for c in as_it_was if c in "0123456789+")
    number = kept[:1] + kept[1:].replace("+", "")
    if number.startswith("00"):
        number = "+" + number[2:]
    elif number.startswith("0"):
        number = "+62" + number[1:]
    elif re.fullmatch("62[0-9]{8,}", number):
        number = "+" + number
    if number.startswith("+620"):
        number = "+62" + number[4:]
    digits = number.lstrip("+")
    return number if 8 <= len(digits) <= 15 else as_it_was


def is_placeholder_name(name: str | None) -> bool:
    """Mapping 1, placeholders: names (after the text rule, without case)."""
    return name is None or lower(name) in PLACEHOLDER_NAMES


def is_placeholder_email(email: str | None) -> bool:
    """Mapping 1, placeholders: e-mails, and anything at example.com."""
    return email is None or lower(email) in PLACEHOLDER_EMAILS or lower(email).endswith("@example.com")


def is_valid_email(email: str) -> bool:
    """Mapping 1, e-mail: the shape of a valid one."""
    return re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", email) is not None


def tour_time(value: str | None) -> time | None:
    """Mapping 4.5: bstadmin's tour time when it is `H:MM`, `H.MM`, with seconds, AM or PM, or an hour with AM or PM."""
    clean = lower(text(value) or "")
    shape = re.fullmatch(r"([0-9]{1,2})(?:([:.])([0-9]{2})(?:[:.]([0-9]{2}))?)? ?(?:([ap])\.?m\.?)?", clean)
    if shape is None:
        return None
    hour, minute, second, half = int(shape[1]), int(shape[3] or 0), int(shape[4] or 0), shape[5]
    if shape[2] is None and half is None:
        return None
    if hour > (12 if half else 23) or minute > 59 or second > 59:
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return time(hour, minute, second)


def key(namespace: uuid.UUID, name: str) -> uuid.UUID:
    """Mapping 2: the UUIDv5 of a backfilled row."""
    return uuid.uuid5(namespace, name)


def ref_key(entity_type: str, channel: str, kind: str, ref: str) -> uuid.UUID:
    """Mapping 2: key of an external ref."""
    return key(ENTITY_NAMESPACES[entity_type], f"{entity_type}:{channel}:{kind}:{ref}")


def queue_key(queue_type: str, system: str, table: str, pk: str, reason: str) -> uuid.UUID:
    """Mapping 2: key of a queue row."""
    return key(VARIANT_NAMESPACE, f"unmapped:{queue_type}:{system}:{table}:{pk}:{reason}")
