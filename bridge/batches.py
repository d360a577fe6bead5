"""The plan: each batch as the blueprint (chapter 6) has it, as data.

A batch is prechecks, steps, postchecks, the gates that its verdict asks (thresholds live in the gate registry), and
what its rollback does. `steps.py` knows how each kind of step runs; the flows run them in this order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Kind = Literal[
    "sources", "script", "rerun", "legacy", "land", "snapshot", "audit", "dbt", "service", "flag", "emit", "retention",
    "parity",
    "guardrails",
]  # fmt: skip


@dataclass(frozen=True)
class Step:
    """One named step. `target` is a script, a dbt selector, or a word that the kind understands."""

    kind: Kind
    target: str
    title: str

    @property
    def name(self) -> str:
        return f"{self.kind} {self.target}".removesuffix(".sql")


@dataclass(frozen=True)
class Batch:
    """One batch of the blueprint."""

    code: str
    focus: str
    output: str
    prechecks: tuple[Step, ...]
    steps: tuple[Step, ...]
    postchecks: tuple[Step, ...]
    gates: tuple[str, ...]
    rollback: tuple[str, ...] = field(default=())

    @property
    def plan(self) -> tuple[Step, ...]:
        return self.prechecks + self.steps + self.postchecks

    @property
    def switches(self) -> bool:
        """Whether it switches flags on: its rollback switches them off, and removes no canonical row."""
        return any(step.kind == "flag" for step in self.steps)


GLOBAL_GATES = ("G-01", "G-02", "G-08")


def _measure(code: str) -> Step:
    return Step("dbt", f"gates_{code}", "Measure the gates, and test them")


_GUARDRAILS = Step("guardrails", "measure", "Measure the guardrails, which gates read too")
_LAND = Step("land", "sources", "Copy both sources, one read-only snapshot each")

BATCHES: dict[str, Batch] = {
    batch.code: batch
    for batch in (
        Batch(
            code="A",
            focus="Schema foundation",
            output="17 core tables, indexes, constraints",
            prechecks=(
                Step("sources", "check", "Look whether both sources can be read and have what is needed"),
                Step(
                    "script",
                    "000_precheck_readiness.sql",
                    "Is the server fit: transactions, locks, disk, version",
                ),
                Step("legacy", "before", "Run the legacy applications' statements, before"),
            ),
            steps=(
                Step("script", "001_create_core_bridge_tables.sql", "Create the 17 core tables"),
                Step("script", "002_add_indexes_and_unique_constraints.sql", "Add foreign keys and indexes"),
                Step("script", "003_seed_required_enums_and_checks.sql", "Add the checks of the status columns"),
            ),
            postchecks=(
                Step("script", "090_postcheck_reconciliation.sql", "Compare the schema with its contract"),
                Step("legacy", "after", "Run the legacy applications' statements again"),
                Step(
                    "dbt",
                    "ground",
                    "Load the reference lists, create the rulebook's functions and the views on the landing",
                ),
                _measure("a"),
            ),
            gates=("A-00", "A-01", "A-02", "A-03"),
            rollback=("drop the 17 core tables and dbt's working schemas; the sources are not touched",),
        ),
        Batch(
            code="B",
            focus="Reference seed",
            output="channel registry and status dictionaries",
            prechecks=(),
            steps=(
                Step("script", "010_seed_channel_registry.sql", "Seed the six channels"),
                Step("script", "011_seed_status_dictionary.sql", "Seed the status dictionaries"),
                Step("script", "012_seed_package_ref_type_dictionary.sql", "Seed the package reference types"),
            ),
            postchecks=(Step("rerun", "seeds", "Run the seeds again: nothing may be added"), _measure("b")),
            gates=("B-01", "B-02", "B-03"),
            rollback=("delete the seeded channels, drop the six dictionaries",),
        ),
        Batch(
            code="C",
            focus="Catalog bridge backfill",
            output="products, variants, rates, external refs, unmapped queue",
            prechecks=(_LAND,),
            steps=(Step("dbt", "batch_c", "Build the catalog bridge"),),
            postchecks=(_measure("c"),),
            gates=("C-01", "C-02", "C-03", "C-04"),
            rollback=(
                "keep a dump of the unmapped queue (phase2.unmapped_queue_dump)",
                "empty the catalog bridge: rates, variants, products, their external refs and queue rows",
                "empty the landing and drop dbt's working tables: the next run makes both again",
            ),
        ),
        Batch(
            code="D",
            focus="Booking bridge backfill",
            output="bookings with contact, party, items, state, assignments, external refs",
            prechecks=(_LAND,),
            steps=(Step("dbt", "batch_d", "Build the booking bridge"),),
            postchecks=(_measure("d"),),
            gates=("D-01", "D-02", "D-03", "D-04", "D-05", "D-06"),
            rollback=(
                "empty the booking bridge: bookings and all that hangs on them, their refs and review rows",
                "drop dbt's working tables: the next run makes them again",
            ),
        ),
        Batch(
            code="E",
            focus="Payment and finance bridge",
            output="payment events, payment status, settlement linkage",
            prechecks=(
                _LAND,
                Step("snapshot", "statuses", "Keep the statuses as they are, for the rollback"),
                Step("audit", "sample", "Load the PayPal capture export, where one is given"),
            ),
            steps=(Step("dbt", "batch_e", "Build the payment and finance bridge"),),
            postchecks=(_measure("e"),),
            gates=("E-01", "E-02", "E-03", "E-04"),
            rollback=(
                "delete the payment events, finance links and their queue rows",
                "restore every booking's statuses from the snapshot taken before the batch first ran",
                "restore the reviews of bookings as batch D left them, but for what a person has decided",
                "drop dbt's working tables: the next run makes them again",
            ),
        ),
        Batch(
            code="F",
            focus="Ingestion pipeline activation",
            output="signed webhook, queue worker, replay, emitters and retention, beside the old path",
            prechecks=(
                _LAND,
                Step(
                    "service", "keys", "Are tokens and secret set, does the service answer, is the retention scheduled"
                ),
            ),
            # the smoke test comes after the flag: a request that is refused before its signature shows nothing of it
            steps=(
                Step("service", "closed", "The endpoint is deployed and shut: a signed request answers 503"),
                Step("flag", "INGEST_WEBHOOK_ENABLED", "Switch the webhook on"),
                Step("service", "smoke", "Smoke test: signed requests that can write nothing are judged rightly"),
                Step("flag", "INGEST_QUEUE_ENABLED", "Switch the queue on"),
                Step("service", "worker", "A worker is there, and takes what is waiting"),
                Step("flag", "INGEST_REPLAY_ENABLED", "Switch the audited replay on"),
                Step("service", "replay", "Replay and the list of dead letters answer"),
                Step("flag", "WEB_EMIT_BOOKING_EVENT_ENABLED", "Switch the web emitter on, for a small part"),
                Step("emit", "web", "Emit what has changed in balisnap, once, and see it applied"),
                Step("flag", "EMAIL_PIPELINE_CORE_ENABLED", "Switch the mail adapter on, for some channels"),
                Step("emit", "mail", "Emit the parsed mails, once, and see them applied"),
                Step("retention", "091_retention_cleanup.sql", "Forget what has served its time; daily from now on"),
            ),
            postchecks=(_GUARDRAILS, _measure("f")),
            gates=(
                *("F-00", "F-01", "F-02", "F-02-P95", "F-03", "F-04", "F-05", "F-06"),
                *("G-03", "G-04", "G-05", "G-06"),
            ),
            rollback=(
                "switch off queue, webhook, replay and both emitters, and wait until the service says so",
                "keep every event: pending and failed ones wait in the log, to be applied or replayed later",
                "count the events before and after, and note how long it took (gate G-04)",
            ),
        ),
        Batch(
            code="G",
            focus="Ops read cutover",
            output="the back office's pages from the new model, for the testers; then step by step (bridge/rollout.py)",
            prechecks=(
                _LAND,
                Step("service", "reads", "Does the service answer the back office, with bstadmin behind it"),
            ),
            steps=(
                Step("script", "020_add_ops_read_indexes.sql", "Index what the pages look for"),
                Step("dbt", "ops_read", "Build the read model, and what compares it with bstadmin"),
                Step("parity", "bookings", "Compare every booking and field with bstadmin"),
                Step("flag", "OPS_READ_NEW_MODEL_ENABLED", "Switch the reads on, for the testers"),
                Step("service", "pages", "The main pages: by the new model for a tester, by bstadmin for another"),
            ),
            postchecks=(_GUARDRAILS, _measure("g")),
            gates=("BG-01", "BG-02", "BG-03", "BG-04", "G-03", "G-05", "G-06", "G-07"),
            rollback=(
                "switch the reads off, wait until the service answers from bstadmin, and note how long it took (G-04)",
                "drop the read model (schema ops_read) and the indexes of script 020",
            ),
        ),
        Batch(
            code="H",
            focus="Controlled write cutover",
            output="notes and meeting points written by the core API, for the testers; then step by step"
            " (bridge/rollout.py)",
            prechecks=(
                Step("service", "ladder", "Are the reads on for all: batch G stands at the top of its ladder"),
                Step("service", "writer", "Can bstadmin be written, by a writer with its rights and no other database"),
            ),
            steps=(
                Step(
                    "flag", "OPS_WRITE_CORE_ENABLED", "Switch writes on for the testers, note and meeting point alone"
                ),
                Step("service", "write", "A note as it stands: a tester's on both sides, another's the old way"),
                Step("service", "compare", "Compare both sides of what was written, and emitters with the log"),
            ),
            postchecks=(_GUARDRAILS, _measure("h")),
            gates=("H-01", "H-02", "H-03", "H-04", "G-03", "G-05", "G-06", "G-07"),
            rollback=(
                "switch writes through the core off, for all; bstadmin alone is written then",
                "wait until open writes have reached bstadmin and due events are applied",
                "count what is lost (gate H-02), and note how long it took (H-04, G-04)",
            ),
        ),
    )
}

ORDER = tuple(BATCHES)
BACKFILL = ORDER[: ORDER.index("F")]  # what needs databases alone: a first run, a demo


def batch(code: str) -> Batch:
    """The batch of that letter, in any case; KeyError names the ones there are."""
    try:
        return BATCHES[code.strip().upper()]
    except KeyError:
        raise KeyError(f"there is no batch {code!r}; batches: {', '.join(ORDER)}") from None


def between(first: str, last: str) -> tuple[Batch, ...]:
    """The batches from `first` to `last`, both included; ValueError when they are the wrong way round."""
    start, end = ORDER.index(batch(first).code), ORDER.index(batch(last).code)
    if start > end:
        raise ValueError(f"batch {first} comes after batch {last}")
    return tuple(BATCHES[code] for code in ORDER[start : end + 1])


def before(code: str) -> tuple[str, ...]:
    """The codes of the batches that must have passed before this one starts."""
    return ORDER[: ORDER.index(batch(code).code)]


def after(code: str) -> tuple[str, ...]:
    """The codes of the batches that stand on this one."""
    return ORDER[ORDER.index(batch(code).code) + 1 :]
