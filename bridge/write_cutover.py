"""What batch H does beside its flag (blueprint 6.9): both sides compared, and what was emitted held against the log."""

from __future__ import annotations

from uuid import UUID

from bridge import conflicts, emitters, gates, postgres, runlog
from bridge.settings import Databases


def hourly(dbs: Databases) -> tuple[conflicts.Check, list[conflicts.Conflict], list[str]]:
    """Both sides of what was written since the last time, and the emitters against the log: the comparison, what is
    overdue, and the gates of H that fail by it (H-01 to H-03): as long as one does, the rollout goes no step up."""
    check = conflicts.reconcile(dbs)
    lost = count_losses(runlog.uuid7(), dbs)
    overdue, failing = conflicts.watch(dbs, check)
    return check, overdue, sorted({*failing, *(["H-02"] if lost else [])})


def count_losses(run_id: UUID, dbs: Databases) -> int:
    """Inputs of gate H-02: each change that an emitter has left behind without an event; how many there are."""
    looked = emitters.unlogged(dbs)
    items: list[tuple[str, bool, dict[str, object] | None]] = [("the emitters", True, {"begun": len(looked)})]
    for one in looked:
        items.append((f"{one.emitter} emitter", True, {"compared": one.compared}))
        items += [(f"{table} {key}", False, {"emitter": one.emitter}) for table, key in one.missing]
    with postgres.connect(dbs.ops, application_name="phase2-conflicts", autocommit=True) as conn:
        gates.record_inputs(conn, run_id, "H-02", items)
    return sum(len(one.missing) for one in looked)
