"""Dashboard and alert rules: every query is PromQL that can be read, on metrics and labels that /metrics has."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from typing import Any, get_args
from uuid import UUID

import httpx
import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from bridge import flags, guardrails, postgres
from bridge.batches import BATCHES
from bridge.core_settings import core_settings
from bridge.settings import ROOT
from core_api import operations
from core_api.ingest import dead_letters
from core_api.ops import sides
from tests import serving

RULES = [
    rule
    for group in yaml.safe_load((ROOT / "observability" / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((ROOT / "observability" / "grafana" / "phase2.json").read_text("utf-8"))
QUERIES = {rule["alert"]: rule["expr"] for rule in RULES} | {
    panel["title"]: target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]
}
# what a label that a query asks for may be
VALUES: dict[str | tuple[str, str], set[str]] = {
    "guardrail": {*guardrails.guardrails()},
    "flag": {*flags.FLAGS},
    "batch": {*BATCHES},
    "why": {*get_args(sides.Why)},
    ("status", "ingest_dead_letters"): {*dead_letters.STATUSES},
}
ADDED = {"le", "instance", "job"}  # by the histogram, by Prometheus


@pytest.fixture(scope="module")
def scraped() -> Iterator[dict[str, set[str]]]:
    """The samples of a scraped /metrics, each with the names of its labels."""
    with (
        serving.environment(),
        serving.ready(os.environ["TEST_PG_URL"]) as ops,
        serving.back_office(os.environ["TEST_PG_URL"]) as bstadmin,
    ):
        with postgres.connect(ops, autocommit=True) as conn:
            flags.change(conn, "INGEST_WEBHOOK_ENABLED", True, reason="a test")
            conn.execute(
                "insert into phase2.guardrail_log (guardrail, at, status, value, threshold, words)"
                " values ('api-5xx', now(), 'BREACH', 0.2, 0.015, 'x'),"
                " ('lost-events', now() - interval '16 minutes', 'BREACH', 1, 0, 'x'),"
                " ('idempotency', now() - interval '16 minutes', 'NOT_MEASURED', null, 0, 'x');"
                " insert into phase2.gate_results (run_id, batch, gate_id, comparator, status)"
                " values (gen_random_uuid(), 'F', 'G-03', '<=', 'FAIL');"
                " select phase2.log('stop', null, null, null, 'ayu', '{\"reason\": \"x\"}')"
            )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPS_SHADOW_PERCENTAGE", "100")
            core_settings.cache_clear()
            text = _scrape(ops, bstadmin)
        core_settings.cache_clear()
        assert "made" not in text.lower()  # nobody's name, nor a booking's
        samples: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(text):
            labels = {name for sample in family.samples for name in sample.labels}
            kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
            samples |= {family.name + kind: labels for kind in kinds}
        samples = {name: labels for name, labels in samples.items() if not name.endswith("_created")}
        samples["phase2 as it stands"] = set(re.findall(r"^(phase2_\w+\S*) 1\.0$", text, re.M))
        yield samples


class Queue:
    """A queue that is there, and empty."""

    async def add(self, event_key: UUID) -> bool:
        return True

    async def is_connected(self) -> bool:
        return True

    async def counts(self) -> dict[str, Any]:
        return {"connected": True} | dict.fromkeys(operations._STATES, 0)

    async def close(self) -> None: ...


def _scrape(ops: str, bstadmin: str) -> str:
    """What Prometheus is told when a page was read, on both sides, and an event was accepted."""
    with serving.service(ops, Queue, bstadmin) as url, httpx.Client(base_url=url) as client:
        headers = {"authorization": f"Bearer {serving.ADMIN}", "x-admin-role": "STAFF", "x-actor": "made.wirawan"}
        assert client.get("/v1/ops/bookings", headers=headers).status_code == 200
        assert serving.post(client, serving.event()).status_code == 202
        deadline = time.monotonic() + 10
        while "outcome=" not in (text := client.get("/metrics").text).split("ops_shadow_reads")[-1]:
            assert time.monotonic() < deadline, "no read was shadowed"
            time.sleep(0.1)
    return text


def used(expression: str) -> list[promql_parser.VectorSelector]:
    """The selectors of an expression; ValueError when it is no PromQL."""
    return list(_selectors(promql_parser.parse(expression)))


def _selectors(node: object) -> Iterator[promql_parser.VectorSelector]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "vector_selector", "vs", "param"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str | int | float):
            yield from _selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from _selectors(child)


def unknown(expression: str, scraped: dict[str, set[str]]) -> list[str]:
    """What an expression names that is not scraped."""
    found = used(expression)
    labels: set[str] = set().union(*(scraped.get(one.name, set()) for one in found)) | ADDED
    asked = {name for names in re.findall(r"\bby \(([^)]*)\)", expression) for name in re.split(r",\s*", names)}
    asked |= {matcher.name for one in found for matcher in one.matchers.matchers}
    return [one.name for one in found if one.name not in scraped] + sorted(asked - labels) + sorted(nothing(found))


def nothing(found: list[promql_parser.VectorSelector]) -> set[str]:
    """Matchers that no value of their label meets."""
    said = set()
    for one in found:
        for matcher in one.matchers.matchers:
            known = VALUES.get(matcher.name) or VALUES.get((matcher.name, one.name), set())
            parts = matcher.value.split("|") if "Re" in str(matcher.op) else [re.escape(matcher.value)]
            said |= {part for part in parts if not any(re.fullmatch(part, value) for value in known)}
    return said


@pytest.mark.parametrize("name", QUERIES)
def test_a_query_asks_for_what_is_there(scraped: dict[str, set[str]], name: str) -> None:
    assert used(QUERIES[name])
    assert unknown(QUERIES[name], scraped) == []


def test_a_query_that_asks_for_what_is_not_there_is_found(scraped: dict[str, set[str]]) -> None:
    wrong = 'sum by (customer) (rate(core_api_request_total{status="500"}[5m])) / max(phase2_stops{mood="x"})'
    assert unknown(wrong, scraped) == ["core_api_request_total", "customer", "mood", "status", "500", "x"]
    wrong = 'max(phase2_guardrail_value{guardrail="payment"}) + sum(rate(ops_reads_total{why=~"flag|brekaer"}[5m]))'
    assert unknown(wrong, scraped) == ["brekaer", "payment"]
    with pytest.raises(ValueError, match="."):
        used("sum(rate(phase2_stops[5m])")


def test_every_metric_is_shown_somewhere(scraped: dict[str, set[str]]) -> None:
    shown = {one.name for expression in QUERIES.values() for one in used(expression)}
    families = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for name in scraped
        if re.match(r"(core_api|ingest|ops|phase2)_", name)
    }
    assert {name for name in families if name not in shown and f"{name}_bucket" not in shown} == set()


def test_how_the_migration_stands_is_scraped(scraped: dict[str, set[str]]) -> None:
    assert {
        "phase2_stops",
        'phase2_flag_enabled{flag="INGEST_WEBHOOK_ENABLED"}',
        'phase2_gates_failed{batch="F"}',
        'phase2_guardrail_breached{guardrail="api-5xx"}',
    } <= scraped["phase2 as it stands"]
    # what was measured a while ago, before a stop, is no alarm any more
    told = {one for one in scraped["phase2 as it stands"] if re.search("_(breached|not_measured){", one)}
    assert told == {'phase2_guardrail_breached{guardrail="api-5xx"}'}


def test_a_rule_has_a_severity_a_summary_and_a_runbook() -> None:
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert (ROOT / rule["annotations"]["runbook"]).stem == rule["alert"]
        promql_parser.parse_duration(rule.get("for", "1m"))
