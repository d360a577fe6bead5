"""Fault against gate: each planted fault fails its gate, which names the rows and holds the next batch.

And the other way round: which gates catch each fault. The matrix of what was executed is docs/fault-matrix.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest

from bridge import gates, postgres, steps
from bridge.batches import BATCHES, GLOBAL_GATES, ORDER, after
from bridge.errors import GateFailed
from tests.faults import FAULTS, Fault
from tests.shop import Shop

GATES = (*(gate for batch in BATCHES.values() for gate in batch.gates), *GLOBAL_GATES)

# fault -> the gates that failed of it, as they were executed
CAUGHT: dict[str, set[str]] = {}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Shop(os.environ["TEST_PG_URL"], "faults", bookings=600).open(tmp_path_factory.mktemp("reports")) as made:
        yield made


@pytest.fixture(scope="module")
def healthy(shop: Shop) -> dict[str, dict[str, set[str]]]:
    """What the gates of each batch list of the shop as it is: batch -> gate -> counted keys."""
    assert {code: verdict.blocked_by for code, verdict in shop.verdicts.items()} == dict.fromkeys(ORDER, ())
    return {code: {gate: _named(verdict, gate) for gate in GATES} for code, verdict in shop.verdicts.items()}


def _named(verdict: gates.Verdict, gate_id: str) -> set[str]:
    return {e.key for e in verdict.exceptions_of(gate_id) if e.is_counted}


def _judge(shop: Shop, conn: psycopg.Connection, codes: tuple[str, ...]) -> dict[str, gates.Verdict]:
    """The verdicts of all batches, kept as a run keeps them."""
    verdicts = {code: gates.evaluate(conn, code, uuid4()) for code in codes}
    for code, verdict in verdicts.items():
        steps.set_state(conn, shop.run(), code, verdict.result, verdict=verdict)
    return verdicts


def _assert_hold(shop: Shop, conn: psycopg.Connection, gate_id: str, batch: str) -> None:
    """The door behind the batch is shut by this gate, and `status` says so of every later batch."""
    for later in after(batch) or ("F",):
        with pytest.raises(GateFailed) as raised:
            gates.open_or_raise(conn, later, batch)
        assert gate_id in raised.value.blocked_by
    lines = {line.batch: line for line in steps.status(postgres.with_database(shop.server, conn.info.dbname))}
    first = next(code for code in ORDER if lines[code].status == "FAIL")
    assert first <= batch
    assert gate_id in lines[first].blocked_by or first < batch
    assert {lines[code].status for code in after(first)} <= {"HOLD"}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda f: f.id)
def test_fault_fails_its_gate(shop: Shop, healthy: dict[str, dict[str, set[str]]], fault: Fault) -> None:
    with shop.clone() as conn:
        keys = fault.apply(conn)
        verdicts = _judge(shop, conn, ORDER)
        CAUGHT[fault.id] = {gate for verdict in verdicts.values() for gate in verdict.blocked_by if gate in GATES}
        verdict = verdicts[fault.batch]
        gate = next(g for g in verdict.gates if g.gate_id == fault.gate)

        assert gate.status == "FAIL", CAUGHT[fault.id]
        assert "not to be trusted" not in gate.note
        assert not gate.note.startswith("not measured")
        assert (verdict.result, fault.gate in verdict.blocked_by) == ("FAIL", True)
        found = _named(verdict, fault.gate)
        assert keys <= found - healthy[fault.batch][fault.gate], found
        if not keys:
            assert gate.note.startswith("nothing was measured")
        _assert_hold(shop, conn, fault.gate, fault.batch)
