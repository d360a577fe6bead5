"""Personal data out of what people see: names, e-mails, phones, passports, birth dates, free text about a person.

Keys, ids, refs, codes, amounts and dates of business stay: without them an exception could not be found again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

# Words of a field's name that mean a person's data, and those that take the meaning back.
_PERSONAL = re.compile(
    r"(^|_)(e?mails?|phones?|passports?|birth(date|day)?|dob|nationality|contact|traveler|traveller|customer|guest|payer"
    r"|first|last|full|main|surname|name|pickup|address|note|special)(_|$)",
    re.IGNORECASE,
)
_IMPERSONAL = re.compile(
    r"(^|_)(id|ids|key|keys|ref|refs|pk|code|status|type|count|qty|amount|currency|table|system|rows)$"
    r"|^(product|variant|package|tour|table|query|channel|script|model|file|source|target|gate|slug|check)_?names?$"
    r"|^is_",
    re.IGNORECASE,
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")  # pickupLocation is a pickup_location
_EMAIL = re.compile(r"[^\s@\"'<>,;:()]+@[^\s@\"'<>,;:()]+\.[^\s@\"'<>,;:()]+")
_PHONE = re.compile(r"(?<![\w.+-])(?:\+|00)\d[\d ().-]{6,17}\d(?!\w)|(?<![\w.+-])(?:0|62)8\d{7,11}(?!\w)")


def mask(value: Any, name: str = "") -> Any:
    """`value` with personal data made unreadable; `name` is the field that holds it. The structure stays."""
    if isinstance(value, Mapping):
        # a list of {"field": "main_email", "raw": "…"}: the field's name is data
        inner = str(value.get("field", "")) if isinstance(value.get("field"), str) else ""
        return {
            key: mask(item, inner if inner and key in ("raw", "value", "values", "wanted", "found") else str(key))
            for key, item in value.items()
        }
    if isinstance(value, str):
        return _hide(value) if _is_personal(name) else mask_text(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [mask(item, name) for item in value]
    if value is None or isinstance(value, bool) or not _is_personal(name):
        return value
    return "•••"


def mask_text(text: str) -> str:
    """Free text with the e-mail addresses and phone numbers in it hidden; the rest stays."""
    return _PHONE.sub("•••", _EMAIL.sub(lambda found: _hide(found.group()), text))


def _is_personal(name: str) -> bool:
    name = _HUMP.sub("_", name)
    return bool(_PERSONAL.search(name)) and not _IMPERSONAL.search(name)


def _hide(text: str) -> str:
    """The first letter of a text and nothing else; of an e-mail the first of both sides."""
    local, at, host = text.strip().partition("@")
    if at:
        return f"{local[:1]}•••@{host[:1]}•••"
    return f"{local[:1]}•••" if local else ""
