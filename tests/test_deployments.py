"""prefect.yaml against the flows and the page that explains it. tests/test_flows.py deploys it and runs a worker."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prefect import Flow, flow
from prefect.events import DeploymentEventTrigger, Resource
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from bridge import rollout
from bridge.emitters import Emitted
from bridge.errors import GateFailed
from bridge.policy import Criterion
from bridge.settings import ROOT, settings
from flows import cutover, drills, emitters, operating

DEPLOYMENTS: dict[str, dict[str, Any]] = {
    deployment["name"]: deployment
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text("utf-8"))["deployments"]
}
# What runs by itself, and when (UTC); everything else is started by a person.
SCHEDULES = {
    "emit-mail": "* * * * *",
    "emit-web": "* * * * *",
    "follow-hourly": "50 * * * *",
    "recon-hourly": "10 * * * *",
    "recon-daily": "30 18 * * *",
    "rehearsal-nightly": "0 17 * * *",
    "drill-weekly": "0 20 * * 0",
    "retention": "0 19 * * *",
    "dual-write-hourly": "20 * * * *",
    "shadow-hourly": "40 * * * *",
    "daily": "0 21 * * *",
    "guardrails": "*/5 * * * *",
}


def flow_of(deployment: dict[str, Any]) -> Flow:
    return load_flow_from_entrypoint(str(ROOT / deployment["entrypoint"]))


def unhelpful(one: Flow) -> list[str]:
    """Parameters that the form of the Prefect page would show without a type or without help."""
    properties = parameter_schema(one.fn).properties
    return [
        name
        for name, shown in properties.items()
        if not shown.get("description") or not {"type", "anyOf", "enum", "allOf", "$ref"} & shown.keys()
    ]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_names_a_flow_and_gives_it_parameters_that_it_takes(name: str) -> None:
    deployment = DEPLOYMENTS[name]
    one = flow_of(deployment)
    assert one.validate_parameters(deployment.get("parameters", {}) | missing(one, deployment)) is not None
    assert deployment["description"]
    assert (one.description or "").strip()


def missing(one: Flow, deployment: dict[str, Any]) -> dict[str, str]:
    """What only the person who starts it can say: which batch."""
    required = parameter_schema(one.fn).required or []
    return {name: "C" for name in required if name not in deployment.get("parameters", {})}


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_each_parameter_has_a_type_and_help(name: str) -> None:
    assert unhelpful(flow_of(DEPLOYMENTS[name])) == []


def test_a_parameter_without_type_or_help_is_found() -> None:
    @flow(name="planted")
    def planted(told: int, untyped, silent: str) -> None:
        """Planted.

        Args:
            told: What it is.
            untyped: What it is.
        """

    assert unhelpful(planted) == ["untyped", "silent"]


@pytest.mark.parametrize("name", sorted(DEPLOYMENTS.keys() - {"go-no-go"}))
def test_what_writes_runs_one_at_a_time(name: str) -> None:
    """All of them do: verdicts and reports at the least. A go / no-go waits for a person, maybe beside another one."""
    strategy = "CANCEL_NEW" if name.startswith(("emit-", "guard")) else "ENQUEUE"  # in a minute there is another one
    assert DEPLOYMENTS[name]["concurrency_limit"] == {"limit": 1, "collision_strategy": strategy}
    assert DEPLOYMENTS[name]["work_pool"] == {"name": "phase2"}


def test_what_runs_by_itself_is_what_should() -> None:
    found = {
        name: [schedule["cron"] for schedule in deployment["schedules"]]
        for name, deployment in DEPLOYMENTS.items()
        if "schedules" in deployment
    }
    assert found == {name: [cron] for name, cron in SCHEDULES.items()}
    zones = {s["timezone"] for deployment in DEPLOYMENTS.values() for s in deployment.get("schedules", [])}
    assert zones == {"UTC"}
    waits_for_a_person = [
        name for name, deployment in DEPLOYMENTS.items() if not deployment.get("schedules", [{}])[0].get("active", True)
    ]
    assert waits_for_a_person == ["follow-hourly"]


@pytest.mark.parametrize(
    ("deployment", "event"),
    [("recon-after-a-stop", "phase2.guardrail.stop"), ("recon-after-a-blind-look", "phase2.guardrail.blind")],
)
def test_an_event_of_the_guardrails_starts_its_deployment(deployment: str, event: str) -> None:
    """What the flow emits (flows/guardrails.py) is what the deployment waits for."""
    [given] = DEPLOYMENTS[deployment]["triggers"]
    trigger = DeploymentEventTrigger.model_validate(given)
    resource = Resource.model_validate({"prefect.resource.id": "phase2.guardrail.api-5xx"})
    assert trigger.expect == {event}
    assert trigger.match.matches(resource)
    said = (ROOT / "flows" / "guardrails.py").read_text("utf-8")
    assert f'event="{event}"' in said


def test_the_page_for_operators_explains_each_deployment_and_each_kind_of_pool() -> None:
    page = (ROOT / "docs" / "operations.md").read_text("utf-8")
    section = page.split("## On a Prefect server", 1)[1]
    for name in DEPLOYMENTS:
        assert f"`{name}`" in section
    for kind in ("process", "docker", "kubernetes"):
        assert f"--type {kind}" in section


@pytest.mark.parametrize(("environment", "rehearsed"), [("staging", [("A", "E")]), ("production", []), ("local", [])])
def test_the_nightly_rehearsal_is_for_staging_alone(
    monkeypatch: pytest.MonkeyPatch, environment: str, rehearsed: list[tuple[str, str]]
) -> None:
    asked: list[tuple[str, str]] = []

    async def rehearsal(first: str, last: str) -> None:
        asked.append((first, last))

    monkeypatch.setattr(operating, "rehearsal_flow", rehearsal)
    monkeypatch.setenv("PHASE2_ENV", environment)
    settings.cache_clear()
    try:
        asyncio.run(operating.nightly_rehearsal_flow.fn())
    finally:
        settings.cache_clear()
    assert asked == rehearsed


@pytest.mark.parametrize(("environment", "drilled"), [("staging", ["all"]), ("production", []), ("local", [])])
def test_the_weekly_drill_is_for_staging_alone(
    monkeypatch: pytest.MonkeyPatch, environment: str, drilled: list[str]
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(drills, "drill_flow", asked.append)
    monkeypatch.setenv("PHASE2_ENV", environment)
    settings.cache_clear()
    try:
        drills.weekly_drill_flow.fn()
    finally:
        settings.cache_clear()
    assert asked == drilled


@pytest.mark.parametrize("which", ["web", "mail"])
def test_an_emitter_flow_runs_its_emitter_and_says_what_came_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    monkeypatch.setattr(emitters, "_ready", lambda: "databases")
    monkeypatch.setattr(
        emitters.emitters, f"emit_{which}", lambda given, progress: Emitted(which, enabled=given != "databases")
    )
    asyncio.run({"web": emitters.emit_web_flow, "mail": emitters.emit_mail_flow}[which].fn())
    assert "is off, nothing was read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("holding", "said", "taken"),
    [
        ([], cutover.Go(go=True, reason="quiet"), ["quiet"]),
        ([], cutover.Go(), []),
        (["shadow reads"], cutover.Go(go=True, reason="all the same"), []),
    ],
    ids=["yes", "silence", "held"],
)
def test_a_rung_is_taken_when_nothing_holds_it_and_a_person_says_so(
    monkeypatch: pytest.MonkeyPatch, holding: list[str], said: cutover.Go, taken: list[str]
) -> None:
    found: list[str] = []
    lines = [Criterion(name, "HOLD", "too few", "", "", True) for name in holding]
    seen = rollout.Look(rollout.LADDERS["G"], 0, lines)

    async def nothing(**_: object) -> None:
        """An artifact: there is no server here."""

    async def answer(**_: object) -> cutover.Go:
        return said

    def step_up(run: object, code: str, reason: str) -> SimpleNamespace:
        found.append(reason)
        return SimpleNamespace(body={"from": "testers", "to": "5 %"}, no=1)

    monkeypatch.setattr(cutover.steps, "prepare", lambda **_: None)
    monkeypatch.setattr(cutover.rollout, "look", lambda run, code: seen)
    monkeypatch.setattr(cutover.rollout, "step_up", step_up)
    monkeypatch.setattr(cutover, "create_table_artifact", nothing)
    monkeypatch.setattr(cutover, "pause_flow_run", answer)
    with nullcontext() if taken else pytest.raises(GateFailed):
        asyncio.run(cutover.rollout_step_flow.fn("G"))
    assert found == taken
