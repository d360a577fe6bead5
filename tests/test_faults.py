"""Fault against gate: each planted fault fails its gate, which names the rows and holds the next batch.

And the other way round: which gates catch each fault. What was executed is docs/fault-matrix.md; when it is no longer
that, the last test fails, and `make fault-matrix` writes it anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonschema
import psycopg
import pytest

from bridge import gates, postgres, reports, steps
from bridge.batches import BACKFILL, BATCHES, GLOBAL_GATES, after, between
from bridge.errors import GateFailed
from bridge.settings import ROOT
from bridge.sources import SCENARIOS, Scenario
from tests.faults import CHANGED, FAULTS, LANDED, PLACES, Changed, Fault
from tests.shop import Shop

GATES = (*(gate for code in BACKFILL for gate in BATCHES[code].gates), *GLOBAL_GATES)
MATRIX = ROOT / "docs" / "fault-matrix.md"
SCHEMA = json.loads((ROOT / "bridge" / "reports" / "report.schema.json").read_text("utf-8"))
SCENARIO_FAULTS = tuple(scenario for scenario in SCENARIOS.values() if scenario.gate)


@dataclass(frozen=True)
class Executed:
    """One fault as it was executed: the gates that failed of it, and the batches that were asked."""

    place: str
    title: str
    gate: str
    failed: frozenset[str]
    asked: frozenset[str]

    def cell(self, gate: str) -> str:
        if gate in self.failed:
            return "**X**" if gate == self.gate else "x"
        return "" if gate in GLOBAL_GATES or gate[0] in self.asked else "–"


EXECUTED: dict[str, Executed] = {}
Listed = dict[str, dict[str, set[str]]]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("reports")


@pytest.fixture(scope="module")
def shop(written: Path) -> Iterator[Shop]:
    with Shop(os.environ["TEST_PG_URL"], bookings=600).open(written) as made:
        yield made


@pytest.fixture(scope="module")
def healthy(shop: Shop) -> Listed:
    """What the gates list of the shop as it is, where all of them pass: batch -> gate -> counted keys."""
    assert {code: verdict.blocked_by for code, verdict in shop.verdicts.items()} == dict.fromkeys(BACKFILL, ())
    return {code: {gate: _named(verdict, gate) for gate in GATES} for code, verdict in shop.verdicts.items()}


def _named(verdict: gates.Verdict, gate_id: str) -> set[str]:
    return {e.key for e in verdict.exceptions_of(gate_id) if e.is_counted}


def _failed(verdicts: dict[str, gates.Verdict]) -> frozenset[str]:
    return frozenset(g.gate_id for verdict in verdicts.values() for g in verdict.gates if g.status == "FAIL")


def _judge(shop: Shop, conn: psycopg.Connection) -> dict[str, gates.Verdict]:
    """The verdicts of all batches, kept as a run keeps them."""
    verdicts = {code: gates.evaluate(conn, code, uuid4()) for code in BACKFILL}
    for code, verdict in verdicts.items():
        steps.set_state(conn, shop.run(), code, verdict.result, verdict=verdict)
    return verdicts


def _assert_on_hold(conn: psycopg.Connection, url: str, gate_id: str, failed_in: str) -> None:
    """The door behind the batch is shut by this gate, and `status` shows every later batch on hold."""
    for later in after(failed_in):
        with pytest.raises(GateFailed) as raised:
            gates.open_or_raise(conn, later, failed_in)
        assert gate_id in raised.value.blocked_by
    lines = {line.batch: line for line in steps.status(url)}
    first = next(code for code in BACKFILL if lines[code].status == "FAIL")
    assert BACKFILL.index(first) <= BACKFILL.index(failed_in)
    assert gate_id in lines[first].blocked_by or first != failed_in
    assert {lines[code].status for code in after(first)} <= {"HOLD"}


# --- schema, seeds, landing, bridge ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda f: f.id)
def test_fault_fails_its_gate_which_names_the_rows(shop: Shop, healthy: Listed, fault: Fault) -> None:
    with shop.clone() as conn:
        keys = fault.apply(conn)
        verdicts = _judge(shop, conn)
        EXECUTED[fault.id] = Executed(fault.place, fault.title, fault.gate, _failed(verdicts), frozenset(BACKFILL))
        verdict = verdicts[fault.batch]
        gate = next(g for g in verdict.gates if g.gate_id == fault.gate)

        assert gate.status == "FAIL", _failed(verdicts)
        assert (verdict.result, fault.gate in verdict.blocked_by) == ("FAIL", True)
        assert not gate.note.startswith(("not measured", "no limit", "the measure counts"))
        assert keys <= _named(verdict, fault.gate) - healthy[fault.batch][fault.gate]
        assert gate.margin is None or gate.margin < 0 or not gate.denominator
        if not keys:
            assert gate.note.startswith("nothing was measured")
        _assert_on_hold(conn, postgres.with_database(shop.server, conn.info.dbname), fault.gate, fault.batch)


# --- sources -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stages(shop: Shop) -> dict[str, dict[str, Any]]:
    """The ops database before C, D and E is kept; returns the healthy rows of the tables that scenarios change."""
    rows = {changed.table: _rows(shop, changed) for changed in CHANGED.values()}
    shop.stages()
    return rows


def _rows(shop: Shop, changed: Changed) -> dict[str, Any]:
    with postgres.connect(shop.url(changed.source), read_only=True) as conn:
        key = conn.execute(
            "select a.attname from pg_index as i join pg_attribute as a on a.attrelid = i.indrelid"
            " and a.attnum = i.indkey[0] where i.indisprimary and i.indrelid = to_regclass(%s)",
            (f'public."{changed.table}"',),
        ).fetchone()
        assert key is not None
        return dict(
            conn.execute(
                postgres.statement("select t.{}::text, to_jsonb(t) from public.{} as t", key[0], changed.table)
            ).fetchall()
        )


@pytest.mark.parametrize("scenario", SCENARIO_FAULTS, ids=lambda s: s.name)
def test_scenario_fails_its_gate_in_a_real_run(
    shop: Shop, healthy: Listed, stages: dict[str, dict[str, Any]], written: Path, scenario: Scenario
) -> None:
    """Planted in the source, landed, run from the first batch that it can reach until a door is shut."""
    assert scenario.gate is not None
    changed = CHANGED[scenario.name]
    # sources are landed by C; D and E take over what it passed on
    first = "A" if scenario.gate[0] == "A" else "C"
    shop.back_to("C")
    shop.fill(scenario.name)
    found, before = _rows(shop, changed), stages[changed.table]
    rows = [key for key in before.keys() | found.keys() if before.get(key) != found.get(key)]
    planted = [str(before.get(key, found.get(key))[changed.by]) if changed.by else key for key in rows]
    run = shop.run()
    verdicts: dict[str, gates.Verdict] = {}
    with suppress(GateFailed):  # the door of a later batch: that it is this gate that shuts it is asserted below
        for one in between(first, "E"):
            verdicts[one.code] = shop.migrate(run, one, written)
    failed_in = list(verdicts)[-1]
    verdict = verdicts[failed_in]
    with run.connect() as conn:
        keys = {row[0] for row in conn.execute(changed.names.encode(), (changed.kind, planted)).fetchall()}
        EXECUTED[scenario.name] = Executed(
            "source", f"`{scenario.name}`: {scenario.title}", scenario.gate, _failed(verdicts), frozenset(verdicts)
        )
        assert (verdict.result, scenario.gate in verdict.blocked_by) == ("FAIL", True)
        assert keys
        assert _named(verdict, scenario.gate) - healthy[failed_in][scenario.gate] == keys
        _assert_on_hold(conn, shop.url(), scenario.gate, failed_in)


# --- gates must not be fooled ------------------------------------------------------------------------------------

_VIEW = (
    "alter view dbt_recon.recon_d rename to recon_d_true;"
    "create view dbt_recon.recon_d as select * from dbt_recon.recon_d_true where "
)
_ONE_ADULT_MORE = (
    "update public.booking_core set number_of_adult = number_of_adult + 1 where booking_key = ("
    "select min(booking_key::text)::uuid from public.booking_core);"
)
# what is done to gates and measures -> after which batch it is asked, the gates that have to fail, the damage
FOOLED: dict[str, tuple[str, set[str], str]] = {
    "the measures are empty": ("D", {*BATCHES["D"].gates, *GLOBAL_GATES}, _VIEW + "false"),
    "the measures are gone": (
        "D",
        {*BATCHES["D"].gates, *GLOBAL_GATES},
        "drop view dbt_recon.recon_d cascade",
    ),
    "one gate is not measured": ("D", {"D-05"}, _VIEW + "gate_id is distinct from 'D-05'"),
    "a measure is null": (
        "D",
        {"D-05"},
        "alter view dbt_recon.recon_d rename to recon_d_true; create view dbt_recon.recon_d as select kind, gate_id,"
        " numerator, denominator, case when gate_id = 'D-05' then null else value end as value, entity, key, status,"
        " is_counted, detail from dbt_recon.recon_d_true",
    ),
    "a gate counts rows and names none": (
        "D",
        {"D-03", "G-02"},
        _ONE_ADULT_MORE + _VIEW + "kind <> 'exception'",
    ),
    "a gate is not in the registry": ("D", {"D-05"}, "delete from dbt_seeds.gate_registry where gate_id = 'D-05'"),
    "a gate moved to another batch": (
        "D",
        {"D-05"},
        "update dbt_seeds.gate_registry set batch = 'H' where gate_id = 'D-05'",
    ),
    "the registry is empty": ("D", {*BATCHES["D"].gates, *GLOBAL_GATES}, "truncate dbt_seeds.gate_registry"),
    "a threshold is null": (
        "D",
        {"D-05"},
        "update dbt_seeds.gate_registry set threshold = null where gate_id = 'D-05'",
    ),
    "a threshold is no number": (
        "D",
        {"D-05"},
        "update dbt_seeds.gate_registry set threshold = 'NaN' where gate_id = 'D-05'",
    ),
    "a comparator is null": (
        "D",
        {"D-05"},
        "update dbt_seeds.gate_registry set comparator = null where gate_id = 'D-05'",
    ),
    "a threshold is null, and there is nothing to measure": (
        "C",
        {"C-04"},
        "update dbt_seeds.gate_registry set threshold = null where gate_id = 'C-04'; truncate public.unmapped_queue",
    ),
    "there is nothing to measure, where that is no excuse": (
        "C",
        {"C-02"},
        "truncate public.catalog_variant_rate, public.catalog_variant, public.catalog_product cascade",
    ),
    "whether nothing is an excuse is null": (
        "C",
        {"C-04"},
        "update dbt_seeds.gate_registry set na_when_empty = null; truncate public.unmapped_queue",
    ),
    "bridge and landing are empty": (
        "D",
        {"G-08"},
        "truncate public.booking_core, public.catalog_product, public.channel_registry cascade;"
        " truncate public.channel_external_refs, public.unmapped_queue, " + ", ".join(LANDED),
    ),
    "bridge and landing are empty, and no landing is known": (
        "D",
        {"G-08"},
        "truncate public.booking_core, public.catalog_product, public.channel_registry cascade;"
        " truncate public.channel_external_refs, public.unmapped_queue, phase2.landing_runs cascade;"
        " truncate " + ", ".join(LANDED),
    ),
}


@pytest.mark.parametrize("trick", FOOLED)
def test_gate_is_not_fooled(shop: Shop, written: Path, trick: str) -> None:
    code, expected, statements = FOOLED[trick]
    with shop.clone() as conn:
        conn.execute(statements.encode())
        run = shop.run()
        verdict = gates.evaluate(conn, code, run.run_id)
        kept = reports.write(conn, verdict, written)
        steps.set_state(conn, run, code, verdict.result, verdict=verdict, written=kept)
        failed = {g.gate_id for g in verdict.gates if g.status == "FAIL"}

        assert expected <= failed
        assert {g.gate_id for g in verdict.gates} >= {*BATCHES[code].gates, *GLOBAL_GATES}
        jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(kept.json.read_text("utf-8")))
        for gate_id in expected:
            _assert_on_hold(conn, postgres.with_database(shop.server, conn.info.dbname), gate_id, code)


def test_door_is_shut_when_a_gate_was_not_asked(shop: Shop) -> None:
    """A verdict that lacks a gate, kept by whatever version, opens nothing."""
    with shop.clone() as conn:
        conn.execute("delete from phase2.gate_results where gate_id = 'D-05'")
        with pytest.raises(GateFailed) as raised:
            gates.open_or_raise(conn, "E", "D")

    assert raised.value.blocked_by == ["D-05"]


# --- the matrix --------------------------------------------------------------------------------------------------


def _matrix() -> str:
    faults = sorted(EXECUTED.values(), key=lambda f: (GATES.index(f.gate), PLACES.index(f.place)))
    lines = [
        "# Fault matrix",
        "",
        "Written by `tests/test_faults.py` of what it executed: it fails when this page says anything else, and",
        "`make fault-matrix` writes it anew. Each row is a fault, planted in a healthy shop that went through A to E.",
        "The gates of F look at traffic and at a service, and have their faults in `tests/test_batch_f.py`.",
        "",
        "- **X**: the gate that it is planted for. It fails, names the planted rows among its exceptions, and every",
        "  later batch is on hold. x: any other gate that fails of it, in whatever batch.",
        "- `source`: a scenario (`make scenarios` lists them), landed and run up to the door that it shuts.",
        "  –: not asked: its batch had passed before, or is on hold.",
        "- `landing`: the copied rows. `bridge`, `schema`, `seed`: the 17 tables. `run`: what a run recorded.",
        "  These are planted behind E, and the gates of all batches are asked.",
        "",
        f"{len(faults)} faults, {len(GATES)} gates.",
        "",
        f"| no | where | fault | {' | '.join(GATES)} |",
        f"|---|---|---|{'---|' * len(GATES)}",
    ]
    for number, fault in enumerate(faults, 1):
        cells = " | ".join(fault.cell(gate) for gate in GATES)
        lines.append(f"| {number} | {fault.place} | {fault.title} | {cells} |")
    lines += ["", "## By gate", "", "| gate | fails by | in all |", "|---|---|---|"]
    for gate in GATES:
        failed = [number for number, fault in enumerate(faults, 1) if gate in fault.failed]
        lines.append(f"| {gate} | {', '.join(map(str, failed))} | {len(failed)} |")
    return "\n".join(lines) + "\n"


def test_every_gate_has_a_fault_that_fails_it_and_every_fault_a_gate(shop: Shop) -> None:
    with postgres.connect(shop.url(), read_only=True) as conn:
        registry = {row[0] for row in conn.execute("select gate_id from dbt_seeds.gate_registry").fetchall()}
    registry -= {gate for gate in registry if gate.startswith("BG-")}  # they need readers: tests/test_ops_reads.py
    registry -= {gate for gate in registry if gate.startswith("H-")}  # they need writes: tests/test_conflicts.py
    registry -= {"G-07"}  # it needs a browser: tests/test_ui_gate.py, tests/test_batch_g.py
    registry -= set(BATCHES["F"].gates)  # they need a service: tests/test_batch_f.py
    planted = {fault.gate for fault in FAULTS.values()} | {scenario.gate for scenario in SCENARIO_FAULTS}

    assert registry == set(GATES) == planted
    assert {name: executed for name, executed in EXECUTED.items() if executed.gate not in executed.failed} == {}
    assert {scenario.name for scenario in SCENARIO_FAULTS} == set(CHANGED)


def test_matrix_is_what_was_executed() -> None:
    if len(EXECUTED) < len(FAULTS) + len(SCENARIO_FAULTS):
        pytest.skip("not all faults were executed")
    matrix = _matrix()
    print(matrix)
    if os.environ.get("FAULT_MATRIX") == "write":
        MATRIX.write_text(matrix, encoding="utf-8")

    assert MATRIX.read_text(encoding="utf-8") == matrix, "`make fault-matrix` writes it anew; look at what changed"
