"""Numbers as people read them, and where things stand on a drawn track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PARTS = ("bridged", "merged", "queued", "excluded", "unaccounted")


def number(value: float | int | None, digits: int = 0) -> str:
    """1234567.5 as `1,234,567.5`; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value:,.{digits}f}" if digits else f"{value:,.2f}" if value != int(value) else f"{int(value):,}"


def percent(value: float | None) -> str:
    """0.00198 as `0.198 %`; as many digits as it takes to tell it from 0, at most six."""
    if value is None:
        return "–"
    shown = value * 100
    if shown == int(shown):
        return f"{int(shown)} %"
    for digits in (2, 3, 4, 6):
        if round(shown, digits) != 0 and (shown >= 1 or digits > 2):
            return f"{shown:.{digits}f} %"
    return f"{shown:.6f} %"


def value_of(gate: dict[str, Any]) -> str:
    """The measured value in the gate's unit."""
    return _in(gate["unit"], gate["value"])


def threshold_of(gate: dict[str, Any]) -> str:
    """Comparator and threshold: `≤ 1 %`."""
    limit = _in(gate["unit"], gate["threshold"])
    return f"{ {'<=': '≤', '>=': '≥'}.get(gate['comparator'], gate['comparator']) } {limit}"


def _in(unit: str, value: float | None) -> str:
    if unit == "ratio":
        return percent(value)
    return number(value) + (" s" if unit == "seconds" and value is not None else "")


def fraction_of(gate: dict[str, Any]) -> str:
    """The numbers behind the value: `16 of 19,993`."""
    if gate["numerator"] is None:
        return "not measured"
    if gate["denominator"] is None:
        return number(gate["numerator"])
    return f"{number(gate['numerator'])} of {number(gate['denominator'])}"


def margin_of(gate: dict[str, Any]) -> str:
    """How far the value is from its threshold, in words."""
    if gate["status"] == "N/A":
        return "nothing to measure"
    margin = gate["margin"]
    if margin is None:
        return "not measured"
    if gate["comparator"] == "=":
        if margin == 0:
            return "exact"
        return f"off by {_in(gate['unit'], -margin)}"
    room = _in(gate["unit"], abs(margin))
    return f"{room} to spare" if margin >= 0 else f"{room} too much"


@dataclass(frozen=True)
class Track:
    """A gate drawn on a line from 0 to 100: where passing begins and ends, and where the value stands."""

    passes_from: float
    passes_to: float
    at: float | None
    limit: float


def track(gate: dict[str, Any]) -> Track:
    """The track of a gate. An upper limit stands at two thirds, a value beyond the line stands at its end."""
    limit, value = float(gate["threshold"]), gate["value"]
    at: float | None
    if gate["comparator"] == "<=":
        scale = limit * 1.5 or 1.0
        at = None if value is None else min(100.0, 100 * value / scale)
        return Track(0.0, 100 * limit / scale, at, 100 * limit / scale)
    if limit == 0:
        # zero or not: any other value stands well away, further the more there are
        at = None if value is None else 0.0 if value == 0 else 100 * (1 - 0.7 / (1 + abs(float(value)) ** 0.5))
        return Track(0.0, 4.0, at, 0.0)
    at = None if value is None else max(0.0, min(100.0, 100 * float(value) / limit))
    if at is not None and (value != limit if gate["comparator"] == "=" else value < limit):
        at = min(at, 90.0)  # a miss is seen as one, however near
    return Track(96.0, 100.0, at, 100.0)


def shares(line: dict[str, Any]) -> list[tuple[str, float, float]]:
    """The parts of a parity line that are not 0, each with where it begins and how wide it is (0 to 100)."""
    amounts = [(part, abs(float(line[part]))) for part in PARTS]
    total = sum(amount for _, amount in amounts)
    drawn, begin = [], 0.0
    for part, amount in amounts:
        if amount and total:
            # a part that exists is seen, however small
            width = max(0.6, 100 * amount / total)
            drawn.append((part, min(begin, 100 - width), width))
            begin += width
    return drawn


def total_of(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """The rows of all entities in one line."""
    rows = [line for line in lines if line["unit"] == "rows" and line["entity"] != "landed tables"]
    return {part: sum(line[part] for line in rows) for part in ("source", *PARTS)}


def seconds(value: float | None) -> str:
    """0.41 as `0.4 s`, 83 as `1 min 23 s`."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s" if value >= 0.1 else f"{value * 1000:.0f} ms"
    return f"{int(value // 60)} min {int(value % 60)} s"


def flat(detail: Any) -> str:
    """A small JSON value in one readable line."""
    if detail is None:
        return ""
    if isinstance(detail, dict):
        return ", ".join(f"{key}: {flat(item)}" for key, item in detail.items() if item is not None)
    if isinstance(detail, list):
        return "; ".join(flat(item) for item in detail)
    return str(detail)


@dataclass(frozen=True)
class Line:
    """A history drawn in a box of 1000 by 100: the line, the limit's height, and where something was wrong."""

    points: str
    limit: float
    marks: list[tuple[float, str]]
    last: Sequence[Any] | None


def line(history: Sequence[Sequence[Any]], limit: float, *, most: int = 400) -> Line:
    """Draw measurements (time, status, value, …), at most so many points: of what falls on one the highest."""
    if not history:
        return Line("", 0.0, [], None)
    began, ended = history[0][0], history[-1][0]
    span = (ended - began).total_seconds() or 1.0
    highest = max([limit * 1.5, *(one[2] for one in history if one[2] is not None)]) or 1.0
    columns: dict[int, float] = {}
    marks: dict[int, str] = {}
    for at, status, value, *_ in history:
        x = round((at - began).total_seconds() / span * most)
        if value is not None:
            columns[x] = max(columns.get(x, 0.0), value)
        if status in ("BREACH", "NOT_MEASURED"):
            marks[x] = status
    points = " ".join(f"{x / most * 1000:.1f},{90 - value / highest * 85:.1f}" for x, value in sorted(columns.items()))
    height = round(90 - limit / highest * 85, 1)
    return Line(points, height, [(x / most * 1000, status) for x, status in sorted(marks.items())], history[-1])
