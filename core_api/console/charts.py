"""Small drawings as inline SVG: their numbers stand beside them as text, and their shapes tell what colours do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bridge.reports import draw

_WIDE, _HIGH, _EDGE = 220, 44, 5


def history(points: Sequence[dict[str, Any]], label: str) -> Markup:
    """A gate over its evaluations (`value`, `threshold`, `status`), the limit dashed; a failed one is a square."""
    values = [float(p["value"]) for p in points if p["value"] is not None]
    if not values:
        return Markup('<span class="soft">never measured</span>')
    limits = [float(p["threshold"]) for p in points if p["threshold"] is not None]
    low, high = min([*values, *limits]), max([*values, *limits])
    room = (high - low) or 1.0

    def x(number: int) -> float:
        return round(_EDGE + number * (_WIDE - 2 * _EDGE) / max(len(points) - 1, 1), 1)

    def y(value: float) -> float:
        return round(_HIGH - _EDGE - (value - low) / room * (_HIGH - 2 * _EDGE), 1)

    parts = []
    if limits:
        at = y(limits[-1])
        parts.append(Markup('<line class="limit" x1="0" x2="{}" y1="{}" y2="{}"/>').format(_WIDE, at, at))
    placed = [(x(n), y(float(p["value"])), p["status"]) for n, p in enumerate(points) if p["value"] is not None]
    parts.append(Markup('<polyline points="{}"/>').format(" ".join(f"{left},{top}" for left, top, _ in placed)))
    for left, top, status in placed:
        if status == "FAIL":
            parts.append(
                Markup('<rect class="fail" x="{}" y="{}" width="7" height="7"/>').format(left - 3.5, top - 3.5)
            )
        else:
            parts.append(Markup('<circle class="pass" cx="{}" cy="{}" r="2.5"/>').format(left, top))
    return _svg(label, _WIDE, _HIGH, parts)


def series(readings: Sequence[tuple[Any, str, float | None, str]], threshold: float, label: str) -> Markup:
    """A guardrail over its measurements (at, status, value, words), drawn as a gate is."""
    points = [
        {"value": value, "threshold": threshold, "status": "FAIL" if status == "BREACH" else status}
        for _, status, value, _ in readings
    ]
    return history(points, label)


def bars(values: Sequence[float | None], label: str, *, bad: Sequence[float] = ()) -> Markup:
    """A bar for each value, the part of `bad` in it dark, at its foot; None has none. `told` says them in words."""
    wide, high = 480, 72
    top = max([value or 0 for value in values], default=0) or 1
    step = wide / max(len(values), 1)

    def bar(kind: str, number: int, value: float) -> Markup:
        tall = round(value / top * (high - 4), 1)
        left, width = round(number * step, 1), round(max(step - 1, 1), 1)
        return Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
            kind, left, round(high - tall, 1), width, tall
        )

    parts = [bar("bar", number, value) for number, value in enumerate(values) if value]
    parts += [bar("fail", number, value) for number, value in enumerate(bad) if value]
    return _svg(f"{label}: {told(values)}", wide, high, parts)


def told(values: Sequence[float | None]) -> str:
    """What bars show, in words: `highest 12, latest 3; not measured in 4 of 61 minutes`."""
    measured = [value for value in values if value is not None]
    if not measured:
        return "not measured"
    words = f"highest {draw.number(max(measured))}, latest {draw.number(measured[-1])}"
    gaps = len(values) - len(measured)
    return f"{words}; not measured in {gaps} of {len(values)} minutes" if gaps else words


def _svg(label: str, wide: int, high: int, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="chart" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
    ).format(label, wide, high, Markup("").join(parts))
