"""What this process has answered: for Prometheus, and by window for `/v1/metrics/api`. No value of a request in it.

One process a port, and Prometheus scrapes each: counters add up over them. The gauges of what all of them share (queue,
log, dead letters) are the same from each, so that one asks for their maximum.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from core_api.minutes import PARTS, is_error, part_of

LONGEST_WINDOW = 1440  # minutes
_STEP = math.log(1.1)  # latencies are kept in classes 10 % wide


@dataclass
class _Cell:
    """One route in one minute."""

    requests: int = 0
    client_errors: int = 0
    server_errors: int = 0
    latencies: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class Metrics:
    """Counts of one process, from its start on."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "core_api_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.path_requests = Counter(
            "core_api_path_requests",
            "Answers on the core path, as the guardrail counts",
            ["part"],
            registry=self.registry,
        )
        self.path_errors = Counter(
            "core_api_path_errors", "Server errors among them: not that a flag is off", ["part"], registry=self.registry
        )
        for part in PARTS:  # a rate needs what was before the first
            self.path_requests.labels(part)
            self.path_errors.labels(part)
        self.seconds = Histogram(
            "core_api_request_seconds",
            "Time to answer",
            ["route"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.events = Counter("ingest_requests", "Ingest requests by outcome", ["outcome"], registry=self.registry)
        self.not_queued = Counter(
            "ingest_not_queued", "Accepted events that could not be added to the queue at once", registry=self.registry
        )
        self.queue_jobs = Gauge("ingest_queue_jobs", "Jobs of the queue by state", ["state"], registry=self.registry)
        self.queue_connected = Gauge("ingest_queue_connected", "Whether Redis answers", registry=self.registry)
        self.dead_letters = Gauge("ingest_dead_letters", "Dead letters by status", ["status"], registry=self.registry)
        self.pending = Gauge("ingest_events_pending", "Accepted, and neither applied nor dead", registry=self.registry)
        self.oldest = Gauge(
            "ingest_oldest_pending_seconds", "How long ago the oldest of them was accepted", registry=self.registry
        )
        self.in_flight = Gauge("core_api_requests_in_flight", "Requests being answered", registry=self.registry)
        self.stops = Gauge("phase2_stops", "Stops of the migration that nobody has lifted", registry=self.registry)
        self.refused = Gauge(
            "ops_writes_refused_untold",
            "Writes that were accepted and refused later, of whom nobody was told",
            registry=self.registry,
        )
        self.flags = Gauge(
            "phase2_flag_enabled", "Whether a flag is on, for whomever", ["flag"], registry=self.registry
        )
        self.gates = Gauge(
            "phase2_gates_failed", "Gates that failed at the latest verdict", ["batch"], registry=self.registry
        )
        self.guardrail_value = Gauge(
            "phase2_guardrail_value", "As it was last measured", ["guardrail"], registry=self.registry
        )
        self.guardrail_limit = Gauge(
            "phase2_guardrail_limit", "What it stops at", ["guardrail"], registry=self.registry
        )
        self.guardrail_breached = Gauge(
            "phase2_guardrail_breached", "Whether it is now over its limit", ["guardrail"], registry=self.registry
        )
        self.guardrail_blind = Gauge(
            "phase2_guardrail_not_measured", "Whether it can now not be measured", ["guardrail"], registry=self.registry
        )
        self.guardrail_measured = Gauge(
            "phase2_guardrail_measured_timestamp_seconds", "When that was", ["guardrail"], registry=self.registry
        )
        self._minutes: dict[int, dict[tuple[str, str], _Cell]] = {}

    def record(self, method: str, route: str, status: int, seconds: float, code: str | None = None) -> None:
        """Count one answer. `route` is the path's template, never the path; `code`: of an error."""
        self.requests.labels(method, route, status).inc()
        if part := part_of(method, route):
            self.path_requests.labels(part).inc()
            self.path_errors.labels(part).inc(is_error(status, code))
        self.seconds.labels(route).observe(seconds)
        minute = int(time.time() // 60)
        cells = self._minutes.get(minute)
        if cells is None:
            cells = self._minutes[minute] = defaultdict(_Cell)
            for old in [m for m in self._minutes if m <= minute - LONGEST_WINDOW]:
                del self._minutes[old]
        cell = cells[method, route]
        cell.requests += 1
        cell.client_errors += 400 <= status < 500
        cell.server_errors += status >= 500
        cell.latencies[math.ceil(math.log(max(seconds, 1e-5)) / _STEP)] += 1

    def show(
        self,
        flags: Mapping[str, bool],
        stops: int,
        refused: int,
        gates: Mapping[str, int],
        guardrails: Iterable[tuple[str, str | None, float | None, float, float]],
    ) -> None:
        """How the migration stands; `guardrails`: name, status (None: of a while ago), value, limit, seconds of the
        epoch."""
        self.stops.set(stops)
        self.refused.set(refused)
        for flag, is_on in flags.items():
            self.flags.labels(flag).set(is_on)
        for batch, failed in gates.items():
            self.gates.labels(batch).set(failed)
        for gauge in (self.guardrail_value, self.guardrail_breached, self.guardrail_blind, self.guardrail_measured):
            gauge.clear()  # what was not measured for a day says nothing of today
        for name, status, value, limit, at in guardrails:
            if value is not None:
                self.guardrail_value.labels(name).set(value)
            self.guardrail_limit.labels(name).set(limit)
            self.guardrail_breached.labels(name).set(status == "BREACH")
            self.guardrail_blind.labels(name).set(status == "NOT_MEASURED")
            self.guardrail_measured.labels(name).set(at)

    def window(self, minutes: int) -> dict[str, Any]:
        """The last minutes (the current one too): in all and by route; latencies in ms, within 10 %."""
        since = int(time.time() // 60) - minutes
        routes: dict[tuple[str, str], _Cell] = defaultdict(_Cell)
        total = _Cell()
        for minute, cells in self._minutes.items():
            for key, cell in cells.items() if minute > since else ():
                _add(routes[key], cell)
                _add(total, cell)
        return {
            "windowMinutes": minutes,
            "totals": _shape(total),
            "routes": [{"method": m, "route": r, **_shape(cell)} for (m, r), cell in sorted(routes.items())],
        }


def _add(into: _Cell, cell: _Cell) -> None:
    into.requests += cell.requests
    into.client_errors += cell.client_errors
    into.server_errors += cell.server_errors
    for number, count in cell.latencies.items():
        into.latencies[number] += count


def _shape(cell: _Cell) -> dict[str, Any]:
    def at(share: float) -> float | None:
        left = share * cell.requests
        for number in sorted(cell.latencies):
            left -= cell.latencies[number]
            if left <= 0:
                return round(math.exp(number * _STEP) * 1000, 2)
        return None

    errors = cell.client_errors + cell.server_errors
    return {
        "requests": cell.requests,
        "clientErrors": cell.client_errors,
        "serverErrors": cell.server_errors,
        "errorRate": round(errors / cell.requests, 4) if cell.requests else 0.0,
        "latenciesMs": {"sampleCount": cell.requests, "median": at(0.5), "p95": at(0.95), "max": at(1.0)},
    }
