"""The runbooks of docs/runbooks/, made of what holds: the plan, the alert rules, the guardrails (`make runbooks`).

What no code knows (what an alert means, what to do) stands in observability/runbooks.yml. tests/test_runbooks.py holds
the pages against this, and every command in them against the command line.
"""

from __future__ import annotations

from typing import Any

import yaml

from bridge import scripts, waivers
from bridge.batches import BATCHES, GLOBAL_GATES, Batch
from bridge.errors import CouldNotRun
from bridge.guardrails import FLAGS, guardrails, limit_of
from bridge.settings import ROOT

FOLDER = ROOT / "docs" / "runbooks"
OBSERVABILITY = ROOT / "observability"
MADE = "<!-- made by `make runbooks`: change the plan, observability/ or bridge/guardrails.csv -->"


def pages() -> dict[str, str]:
    """Every runbook by the name of its file."""
    rules = _read("alerts.yml")["groups"]
    alerts = {rule["alert"]: rule for group in rules for rule in group["rules"]}
    words = _read("runbooks.yml")
    made = {f"{name}.md": _alert(name, rule, words[name]) for name, rule in alerts.items()}
    made |= {f"batch-{code}.md": _batch(batch) for code, batch in BATCHES.items()}
    return made | {"README.md": _index({name: words[name]["means"] for name in alerts})}


def _read(name: str) -> Any:
    return yaml.safe_load((OBSERVABILITY / name).read_text("utf-8"))


def _page(*parts: list[str]) -> str:
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _alert(name: str, rule: dict[str, Any], words: dict[str, Any]) -> str:
    listed = [
        f"- **{one.title}** (more than {limit_of(one)}): {one.check}."
        for one in guardrails().values()
        if name == "GuardrailBreached"
    ]
    return _page(
        [f"# {name}", MADE],
        [f"{words['means']} Severity: {rule['labels']['severity']}."],
        ["```", rule["expr"], "```"],
        ["## Look"],
        _numbered(name, words["look"]),
        ["## Do"],
        _numbered(name, words["do"]),
        *([["## What to check, by guardrail"], listed] if listed else []),
    )


def _numbered(name: str, lines: list[Any]) -> list[str]:
    """CouldNotRun when one is no text: YAML makes a mapping of an unquoted line with `: ` in it."""
    for line in lines:
        if not isinstance(line, str):
            raise CouldNotRun(
                f"a line of {name} is no text: {line}", where="observability/runbooks.yml", todo="Put it in quotes."
            )
    return [f"{n}. {line}" for n, line in enumerate(lines, 1)]


def _batch(batch: Batch) -> str:
    code = batch.code
    rules = [row for gate in (*batch.gates, *GLOBAL_GATES) if (row := waivers.registered(gate))]
    flags = [f"`{flag}`" for flag in FLAGS.get(code, ())]
    script = scripts.rollback_script(code)
    return _page(
        [f"# Batch {code}: {batch.focus}", MADE],
        [f"Makes: {batch.output}."],
        ["## Before"],
        [f"1. `phase2 rehearse --batch {code}`", f"2. `phase2 go-no-go --batch {code}`: every line PASS"],
        ["## Run"],
        [f"`phase2 run --from {code} --to {code}`. Its steps:"],
        [f"{n}. {step.title} (`{step.name}`)" for n, step in enumerate(batch.plan, 1)],
        ["## Gates"],
        ["| gate | what | passes when | severity |", "|---|---|---|---|"]
        + [
            f"| {row['gate_id']} | {row['measure'].replace('|', '/')} | {row['comparator']} {row['threshold']} |"
            f" {row['severity']} |"
            for row in rules
        ],
        [f"One failed: `phase2 status`, its report, the cause. Then again: `phase2 recon --batch {code}`."],
        ["## Roll back"],
        [f"`phase2 rollback --batch {code} --dry-run`, then without it:"],
        [f"- {line}" for line in batch.rollback],
        [f'In an incident without our command line: `psql "$OPS_DB_URL" -f sql/phase2/{script}`.'],
        *([[f"Off at once: {', '.join(flags)} by `phase2 flag`."]] if flags else []),
    )


def _index(meanings: dict[str, str]) -> str:
    """Not the alerts' own summaries: these have placeholders that Prometheus fills."""
    return _page(
        ["# Runbooks", MADE],
        ["## By alert"],
        [f"- [{name}]({name}.md): {means}" for name, means in meanings.items()],
        ["## By batch"],
        [f"- [{code}](batch-{code}.md): {batch.focus}" for code, batch in BATCHES.items()],
    )


def write() -> None:
    """Write them all, and remove what is none any more."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    made = pages()
    for file in FOLDER.glob("*.md"):
        if file.name not in made:
            file.unlink()
    for name, text in made.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
