"""Verdicts: the gates of a batch, measured in SQL, held against the registry, and kept.

For the runner:

    record_preflight(conn, run_id, rows)          A-00: the rows of 000_precheck_readiness
    record_rerun(conn, run_id, added)             B-03: rows that running the seeds again added, by script
    evaluate(conn, batch, run_id) -> Verdict      of one snapshot of everything, kept in phase2
    open_or_raise(conn, batch, predecessor)       the door: GateFailed unless the predecessor's latest verdict is PASS

Measures and exceptions are views (dbt_project/models/recon; one of them a batch says all of it, for A and B a second
one the global gates; a run reads C's to E's, and the global one, once, into …_reading), thresholds are rows of the seed
gate_registry, and the comparison is the function rulebook.gate_status; nothing of the three is repeated here. When a
batch's view is not there, because a table that it reads is not, each of its gates is FAIL: what was not measured never
passes.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import psycopg
from psycopg import IsolationLevel, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from bridge import ledger, waivers
from bridge.batches import BATCHES, GLOBAL_GATES, before
from bridge.errors import CouldNotRun, GateFailed

Status = Literal["PASS", "FAIL", "N/A"]
Result = Literal["PASS", "FAIL", "HOLD"]


@dataclass(frozen=True)
class Gate:
    """One gate as it was measured. `margin` is the room left to the threshold; below 0 it is what is too much."""

    gate_id: str
    title: str
    measure: str
    comparator: str
    threshold: Decimal
    unit: str
    severity: str
    numerator: Decimal | None
    denominator: Decimal | None
    value: Decimal | None
    status: Status
    margin: Decimal | None
    exceptions: int
    listed_apart: int
    note: str
    detail: Any = None
    waivable: bool = True  # a failure is one of the measured value, and no hard stop
    waiver: waivers.Waiver | None = None  # it fails, within what somebody answers for


@dataclass(frozen=True)
class GateException:
    """One key behind a gate. Not counted: listed apart, because the rule says so."""

    gate_id: str
    entity: str
    key: str
    status: str
    is_counted: bool
    detail: Any = None


@dataclass(frozen=True)
class ParityLine:
    """One line of the conservation equation; `unit` is `rows` or a currency."""

    batch: str
    entity: str
    unit: str
    source: Decimal
    bridged: Decimal
    merged: Decimal
    queued: Decimal
    excluded: Decimal
    unaccounted: Decimal
    unaccounted_rows: int
    target: int | None
    reasons: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """One row that a required query (duplicate refs, orphans, drift, linkage) found."""

    query: str
    entity: str
    key: str
    status: str
    detail: Any = None


@dataclass(frozen=True)
class Query:
    """A required reconciliation query and what it found."""

    name: str
    title: str
    rows: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class Verdict:
    """What the gates of a batch said, of one snapshot of the database."""

    batch: str
    run_id: UUID
    as_of: date | None
    evaluated_at: datetime
    result: Result
    blocked_by: tuple[str, ...]
    gates: tuple[Gate, ...]
    parity: tuple[ParityLine, ...]
    queries: tuple[Query, ...]
    exceptions: tuple[GateException, ...]
    seconds: Mapping[str, float]
    waivers: tuple[waivers.Waiver, ...] = ()  # all that stand, of every batch

    @property
    def unaccounted_rows(self) -> int:
        return sum(line.unaccounted_rows for line in self.parity)

    def exceptions_of(self, gate_id: str) -> tuple[GateException, ...]:
        return tuple(e for e in self.exceptions if e.gate_id == gate_id)


REQUIRED_QUERIES = {
    "recon_duplicate_refs": "Duplicate external refs",
    "recon_orphans": "Orphan foreign keys, logical ones too",
    "recon_status_drift": "Fulfilment status against finance settlement",
    "recon_stored_status": "Stored fulfilment status against the recomputed one, which wins",
    "recon_payment_linkage": "Payment linkage",
    "recon_values": "Values that no source row has",
}

# What stands for a gate of the plan that the registry does not know: it has no limit, so that nothing passes it.
_UNREGISTERED = {
    "title": "Not in the registry",
    "measure": "",
    "comparator": None,
    "threshold": None,
    "unit": "count",
    "counts": "failures",
    "severity": waivers.STOP,
    "na_when_empty": False,
    "note": "dbt_seeds.gate_registry has no row of it",
}

# The order of a parity table: as the batches bring them, what landed last.
_ENTITIES = (
    "products",
    "variants",
    "rates",
    "packages",
    "bookings",
    "items",
    "travellers",
    "payments",
    "finances",
    "finance items",
    "landed tables",
)

_REGISTRY = """
select gate_id, batch, title, measure, comparator, threshold, unit, counts, severity, na_when_empty, note
from dbt_seeds.gate_registry
where batch in (%(batch)s, '*') or gate_id = any(%(asked)s) -- some are asked by several batches
order by batch = '*', gate_id collate "C"
"""

_JUDGE = """
select rulebook.gate_status(
    %(numerator)s::numeric, %(value)s::numeric, %(denominator)s::numeric,
    %(comparator)s::text, %(threshold)s::numeric, %(na)s::boolean
)
"""

_KEEP_GATE = """
insert into phase2.gate_results (
    run_id, evaluated_at, batch, gate_id, numerator, denominator, value, comparator, threshold, status, note
)
values (
    %(run_id)s, %(at)s, %(batch)s, %(gate_id)s, %(numerator)s, %(denominator)s, %(value)s, %(comparator)s,
    %(threshold)s, %(status)s, %(note)s
)
"""

_KEEP_EXCEPTIONS = """
copy phase2.exceptions (run_id, evaluated_at, batch, gate_id, entity, key, status, detail) from stdin
"""

# A verdict's list takes the place of the one before it; a failed one's is kept, for those who look into it.
_FORGET_EXCEPTIONS = """
delete from phase2.exceptions as e
where
    e.batch = %(batch)s
    and e.evaluated_at < %(at)s
    and (
        e.evaluated_at < %(at)s - interval '90 days'
        or not exists (
            select 1 from phase2.gate_results as r
            where r.batch = e.batch and r.evaluated_at = e.evaluated_at and r.status = 'FAIL'
        )
    )
"""

# What later runs may not take back without a reversal (gate E-04).
# First which bookings have others than are kept (arrays that are made sorted of all payments take three times as long,
# and a statement that writes reads with one process): by how many captures, and a number made of their keys.
_FIND_PAID = """
create temporary table paid_otherwise on commit drop as
with captured as (
    select e.booking_key, count(*) as captures, bit_xor(uuid_hash_extended(e.payment_key, 0)) as keys
    from public.payment_event as e
    where e.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED')
    group by e.booking_key
)

select c.booking_key
from public.booking_core as c
left join captured as x on c.booking_key = x.booking_key
left join phase2.paid_bookings as k on c.booking_key = k.booking_key
where
    c.customer_payment_status = 'PAID'
    and (
        cardinality(k.captures) is distinct from coalesce(x.captures, 0)
        or x.keys is distinct from case
            when cardinality(k.captures) <= 1 then uuid_hash_extended(k.captures[1], 0)
            else (select bit_xor(uuid_hash_extended(u.key, 0)) from unnest(k.captures) as u (key))
        end
    )
"""

_KEEP_PAID = """
with captured as (
    select e.booking_key, array_agg(e.payment_key order by e.payment_key) as captures
    from public.payment_event as e
    where
        e.payment_status_v2 in ('PAID', 'PARTIALLY_REFUNDED')
        and e.booking_key in (select o.booking_key from pg_temp.paid_otherwise as o)
    group by e.booking_key
)

insert into phase2.paid_bookings as p (booking_key, captures, run_id)
select o.booking_key, coalesce(x.captures, '{}'), %(run_id)s
from pg_temp.paid_otherwise as o
left join captured as x on o.booking_key = x.booking_key
on conflict (booking_key) do update
set captures = excluded.captures, run_id = excluded.run_id, noted_at = now()
"""

# What was measured last (bridge/measure.py writes it anew whenever a row of a booking was written), and what had been
# when who is paid was kept.
_MEASURED = """
select
    (select w.digest from phase2.warehouse_state as w where w.part = 'measured') as measured,
    (select w.digest from phase2.warehouse_state as w where w.part = 'paid as measured') as kept
"""

_PAID_AS_MEASURED = """
insert into phase2.warehouse_state (part, digest) values ('paid as measured', %s)
on conflict (part) do update set digest = excluded.digest, built_at = now()
"""

_LATEST = """
select g.gate_id, g.status, g.run_id
from phase2.gate_results as g
where
    g.batch = %(batch)s
    and g.evaluated_at = (select max(l.evaluated_at) from phase2.gate_results as l where l.batch = %(batch)s)
order by g.gate_result_id
"""


_HISTORY = """
with evaluations as (
    select distinct g.evaluated_at from phase2.gate_results as g
    where g.batch = %(batch)s
    order by g.evaluated_at desc
    limit %(most)s
)

select
    g.gate_id, g.evaluated_at, g.status, g.value::float8 as value, g.threshold::float8 as threshold, g.comparator,
    g.numerator::float8 as numerator, g.denominator::float8 as denominator, g.note, g.run_id
from phase2.gate_results as g
join evaluations as e on g.evaluated_at = e.evaluated_at
where g.batch = %(batch)s
order by g.gate_id, g.evaluated_at
"""


def history(conn: psycopg.Connection, batch: str, most: int = 30) -> list[dict[str, Any]]:
    """The results of a batch's last evaluations, gate by gate, the oldest first."""
    return conn.cursor(row_factory=dict_row).execute(_HISTORY, {"batch": batch, "most": most}).fetchall()


# --- inputs that only the run can see ----------------------------------------------------------------------------


def record_inputs(
    conn: psycopg.Connection,
    run_id: UUID,
    gate_id: str,
    items: Iterable[tuple[str, bool, Mapping[str, Any] | None]],
) -> None:
    """Keep what the run saw for a gate that SQL alone cannot measure: (item, passed, detail) each."""
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into phase2.gate_inputs (run_id, batch, gate_id, item, passed, detail)"
            " values (%s, %s, %s, %s, %s, %s)",
            [
                (run_id, gate_id[0], gate_id, item, passed, Jsonb(dict(detail)) if detail else None)
                for item, passed, detail in items
            ],
        )


def record_preflight(conn: psycopg.Connection, run_id: UUID, rows: Iterable[Sequence[Any]]) -> None:
    """A-00: the rows of 000_precheck_readiness (gate, check, PASS or FAIL, detail)."""
    record_inputs(
        conn,
        run_id,
        "A-00",
        [(str(check), status == "PASS", {"finding": str(found)}) for _, check, status, found in rows],
    )


def record_rerun(conn: psycopg.Connection, run_id: UUID, added: Mapping[str, int]) -> None:
    """B-03: the rows that a second run of the seed scripts added, script by script."""
    record_inputs(conn, run_id, "B-03", [(name, rows == 0, {"rows_added": rows}) for name, rows in added.items()])


# --- the verdict -------------------------------------------------------------------------------------------------


def evaluate(conn: psycopg.Connection, batch: str, run_id: UUID) -> Verdict:
    """The verdict of `batch` on the state as it is; kept in phase2.gate_results and phase2.exceptions.

    Registry, measures, exceptions and parity are read in one repeatable-read transaction that cannot write; what they
    say is kept in a second one. `conn` may not be inside a transaction. Raises CouldNotRun when the registry is not
    there (batch A's last step makes it).
    """
    if conn.info.transaction_status != TransactionStatus.IDLE:
        raise ValueError("evaluate() needs a connection outside of a transaction: it takes its own snapshot")
    code = batch.upper()
    isolation, read_only = conn.isolation_level, conn.read_only
    conn.isolation_level, conn.read_only = IsolationLevel.REPEATABLE_READ, True
    try:
        with conn.transaction():
            verdict = _read(conn, code, run_id)
    finally:
        conn.isolation_level, conn.read_only = isolation, read_only
    with conn.transaction():
        _keep(conn, verdict)
        if code == "E" and any(g.gate_id == "E-04" and g.status != "FAIL" for g in verdict.gates):
            _keep_paid(conn, run_id)
    return verdict


def open_or_raise(conn: psycopg.Connection, batch: str, predecessor: str) -> None:
    """Let `batch` start only behind a predecessor whose latest verdict is PASS; GateFailed names what blocks it.

    Both words count: the gates' latest results, and the state that the runner keeps (an interrupted, failed or rolled
    back batch is shut whatever its gates said before). A failed gate that a waiver bears today is no reason.
    """
    code = predecessor.upper()
    state = conn.execute("select status from phase2.batch_state where batch = %s", (code,)).fetchone()
    latest = conn.execute(_LATEST, {"batch": code}).fetchall()
    said = ledger.entries(conn, "verdict", batch=code, run_id=latest[0][2])[-1:] if latest else []
    borne = waivers.covering(conn, code, waivers.failed_by(said[0] if said else None))
    failed = [gate_id for gate_id, status, _ in latest if status not in ("PASS", "N/A") and gate_id not in borne]
    if latest:  # a gate that the latest verdict did not ask has not passed
        failed += [gate_id for gate_id in _asked(code) if gate_id not in {row[0] for row in latest}]
    if failed:
        raise GateFailed(batch.upper(), failed)
    if not latest or not state or state[0] != "PASS":
        raise GateFailed(batch.upper(), [code])


def _read(conn: psycopg.Connection, batch: str, run_id: UUID) -> Verdict:
    seconds: dict[str, float] = {}
    clock = time.perf_counter

    start = clock()
    conn.execute("set local jit = off")
    conn.execute("set local work_mem = '128MB'")
    with conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            "select now() as at, to_regclass('dbt_seeds.gate_registry') is not null as has_registry,"
            " (select r.as_of from phase2.run_context as r) as as_of"
        ).fetchone()
        assert row is not None
        if not row["has_registry"]:
            raise CouldNotRun(
                "the gate registry is missing", where="dbt_seeds.gate_registry", todo="Run it first: make run BATCH=A"
            )
        registry = cursor.execute(_REGISTRY, {"batch": batch, "asked": list(_asked(batch))}).fetchall()
    known = {row["gate_id"] for row in registry}
    registry += [{**_UNREGISTERED, "gate_id": gate_id} for gate_id in _asked(batch) if gate_id not in known]
    registry = [_held_against_its_file(row) for row in registry]
    states = dict(conn.execute("select batch, status from phase2.batch_state").fetchall())
    seconds["registry"] = clock() - start

    start = clock()
    said, read_at = _said(conn, batch, run_id)
    seconds["measures, exceptions, parity"] = clock() - start

    measures = {row["gate_id"]: row for row in said if row["kind"] == "measure"}
    exceptions = [
        GateException(row["gate_id"], row["entity"], row["key"], row["status"], row["is_counted"], row["detail"])
        for row in said
        if row["kind"] == "exception"
    ]
    lines = (_parity_line(row["detail"]) for row in said if row["kind"] == "parity")
    parity = tuple(sorted(lines, key=lambda line: (_ENTITIES.index(line.entity), line.unit != "rows", line.unit)))
    gates = tuple(_gate(conn, row, measures.get(row["gate_id"]), exceptions, batch) for row in registry)
    standing = waivers.standing(conn)
    borne = waivers.covering(conn, batch, failures(gates))
    gates = tuple(replace(gate, waiver=borne.get(gate.gate_id)) for gate in gates)
    blocked_by = tuple(gate.gate_id for gate in gates if gate.status == "FAIL" and not gate.waiver)
    result: Result = "FAIL" if blocked_by else "PASS"
    if result == "PASS":
        # one batch that is not PASS puts every later one on hold, however good it looks
        blocked_by = tuple(code for code in before(batch) if states.get(code) != "PASS")
        result = "HOLD" if blocked_by else "PASS"
    return Verdict(
        batch=batch,
        run_id=run_id,
        as_of=row["as_of"],
        evaluated_at=read_at or row["at"],
        result=result,
        blocked_by=blocked_by,
        gates=gates,
        parity=parity,
        queries=_queries(said),
        exceptions=tuple(exceptions),
        seconds={part: round(taken, 3) for part, taken in seconds.items()},
        waivers=standing,
    )


def failures(gates: Iterable[Gate]) -> dict[str, dict[str, Any]]:
    """The gates that failed, waived or not, with what a waiver is held against: a verdict's entry keeps it."""
    return {
        gate.gate_id: {
            "severity": gate.severity,
            "waivable": gate.waivable,
            "value": gate.value,
            "threshold": gate.threshold,
            "exceptions": gate.exceptions,
            "waiver": gate.waiver and gate.waiver.entry,
        }
        for gate in gates
        if gate.status == "FAIL"
    }


def _held_against_its_file(row: dict[str, Any]) -> dict[str, Any]:
    """A gate's row of the database; `altered` says that its rule is not the file's, which a PASS is bound to."""
    said = waivers.registered(row["gate_id"])
    file = said and {
        "batch": said["batch"],
        "comparator": said["comparator"],
        "threshold": Decimal(said["threshold"]),
        "counts": said["counts"],
        "severity": said["severity"],
        "na_when_empty": said["na_when_empty"] == "true",
    }
    return row | {"altered": not file or any(row.get(name) != value for name, value in file.items())}


def _asked(batch: str) -> tuple[str, ...]:
    """The gates that the plan asks after this batch, whatever the registry holds."""
    return (*BATCHES[batch].gates, *GLOBAL_GATES)


def _said(conn: psycopg.Connection, batch: str, run_id: UUID) -> tuple[list[dict[str, Any]], datetime | None]:
    """All that the batch's views say, each read in one statement; nothing of a view that is not there.

    It went with a table that it reads, or never was: then nothing is measured, and its gates fail. A run has read its
    batch already, for the gates' tests: its verdict is of that reading, and of that reading's time.
    """
    said: list[dict[str, Any]] = []
    read_at = None
    for view in _views(batch):
        if at := _read_at(conn, view, run_id):
            said, read_at = said + _said_by(conn, f"{view}_reading"), at
        elif _is_there(conn, view):
            said += _said_by(conn, view)
    return said, read_at


def _read_at(conn: psycopg.Connection, view: str, run_id: UUID) -> datetime | None:
    """When the run has read a view; None: it has not."""
    reading = f"{view}_reading"
    if not _is_there(conn, reading):
        return None
    row = conn.execute(
        sql.SQL("select max(read_at) from dbt_recon.{} where run_id = %s").format(sql.Identifier(reading)), (run_id,)
    ).fetchone()
    return row[0] if row else None


def _views(batch: str) -> tuple[str, ...]:
    """A and B bring no rows: their global gates are read from a view of its own, which needs all the tables."""
    own = f"recon_{batch.lower()}"
    return (own, "recon_global") if batch in ("A", "B") else (own,)


def _is_there(conn: psycopg.Connection, relation: str) -> bool:
    return conn.execute("select to_regclass(%s) is not null", (f"dbt_recon.{relation}",)).fetchone() == (True,)


def _said_by(conn: psycopg.Connection, relation: str) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(
            sql.SQL(
                "select kind, gate_id, numerator, denominator, value, entity, key, status, is_counted,"
                " detail::text as detail from dbt_recon.{}"
                ' order by kind, gate_id collate "C", is_counted desc, status collate "C", entity collate "C",'
                ' key collate "C"'
            ).format(sql.Identifier(relation))
        ).fetchall()
    for row in rows:  # money must not become a float on its way
        row["detail"] = None if row["detail"] is None else json.loads(row["detail"], parse_float=Decimal)
    return rows


def _queries(said: Sequence[Mapping[str, Any]]) -> tuple[Query, ...]:
    """The required queries with what they found."""
    found: dict[str, list[Finding]] = {name: [] for name in REQUIRED_QUERIES}
    for row in said:
        if row["kind"] == "finding" and row["gate_id"] in found:
            found[row["gate_id"]].append(
                Finding(row["gate_id"], row["entity"], row["key"], row["status"], row["detail"])
            )
    return tuple(
        Query(name=name, title=title, rows=len(found[name]), findings=tuple(found[name]))
        for name, title in REQUIRED_QUERIES.items()
    )


def _parity_line(line: Mapping[str, Any]) -> ParityLine:
    numbers = {name: Decimal(str(line[name])) for name in _PARITY_NUMBERS}
    return ParityLine(
        batch=line["batch"],
        entity=line["entity"],
        unit=line["unit"],
        unaccounted_rows=int(line["unaccounted_rows"]),
        target=None if line["target"] is None else int(line["target"]),
        reasons={reason: Decimal(str(amount)) for reason, amount in (line["reasons"] or {}).items()},
        **numbers,
    )


_PARITY_NUMBERS = ("source", "bridged", "merged", "queued", "excluded", "unaccounted")


def _gate(
    conn: psycopg.Connection,
    row: Mapping[str, Any],
    measured: Mapping[str, Any] | None,
    exceptions: Sequence[GateException],
    batch: str,
) -> Gate:
    has_limit = row["comparator"] in ("=", "<=", ">=") and row["threshold"] is not None and row["threshold"].is_finite()
    if not has_limit:
        row = {**row, "comparator": "=", "threshold": Decimal(0)}
    mine = [e for e in exceptions if e.gate_id == row["gate_id"]]
    counted = sum(e.is_counted for e in mine)
    numerator = measured["numerator"] if measured else None
    denominator = measured["denominator"] if measured else None
    value = measured["value"] if measured else None
    note = row["note"] or ""
    sound = True
    judged = conn.execute(
        _JUDGE,
        {
            "numerator": numerator,
            "value": value,
            "denominator": denominator,
            "comparator": row["comparator"],
            "threshold": row["threshold"],
            "na": row["na_when_empty"],
        },
    ).fetchone()
    status: Status = judged[0] if judged else "FAIL"
    if measured is None:
        status, sound = "FAIL", False
        views = " or ".join(f"dbt_recon.{view}" for view in _views(batch))
        note = f"not measured: {views} or a table that it reads is missing"
    elif row["na_when_empty"] is False and denominator == 0:
        sound = False
        note = f"nothing was measured. {note}"
    else:
        expected = numerator if row["counts"] == "failures" else (denominator or 0) - numerator
        if expected != counted:
            status, sound = "FAIL", False
            note = f"the measure counts {expected}, its list of exceptions {counted}: not to be trusted. {note}"
    if not has_limit:
        status, sound = "FAIL", False
        note = f"no limit in the registry. {note}"
    elif row["altered"]:
        status, sound = "FAIL", False
        note = f"its rule in dbt_seeds.gate_registry is not that of the file: make recon loads it again. {note}"
    return Gate(
        gate_id=row["gate_id"],
        title=row["title"],
        measure=row["measure"],
        comparator=row["comparator"],
        threshold=row["threshold"],
        unit=row["unit"],
        severity=row["severity"],
        numerator=numerator,
        denominator=denominator,
        value=value,
        status=status,
        margin=_margin(row["comparator"], row["threshold"], value),
        exceptions=counted,
        listed_apart=len(mine) - counted,
        note=note.strip(),
        detail=measured["detail"] if measured else None,
        waivable=sound and value is not None and value.is_finite() and row["severity"] != waivers.STOP,
    )


def _margin(comparator: str, threshold: Decimal, value: Decimal | None) -> Decimal | None:
    if value is None:
        return None
    if comparator == "<=":
        return threshold - value
    if comparator == ">=":
        return value - threshold
    return -abs(value - threshold)


def _dumps(detail: Any) -> str:
    return json.dumps(detail, default=lambda number: int(number) if number % 1 == 0 else float(number))


def _keep(conn: psycopg.Connection, verdict: Verdict) -> None:
    with conn.cursor() as cursor:
        cursor.executemany(
            _KEEP_GATE,
            [
                {
                    "run_id": verdict.run_id,
                    "at": verdict.evaluated_at,
                    "batch": verdict.batch,
                    "gate_id": gate.gate_id,
                    "numerator": gate.numerator,
                    "denominator": gate.denominator,
                    "value": gate.value,
                    "comparator": gate.comparator,
                    "threshold": gate.threshold,
                    "status": gate.status,
                    "note": f"{gate.waiver}. {gate.note}" if gate.waiver else gate.note,
                }
                for gate in verdict.gates
            ],
        )
        kept = cursor.execute(
            "select gate_result_id from phase2.gate_results where run_id = %s and batch = %s and evaluated_at = %s",
            (verdict.run_id, verdict.batch, verdict.evaluated_at),
        ).fetchall()
        ledger.mirror(conn, "gate", [row[0] for row in kept])
        if verdict.exceptions:
            with cursor.copy(_KEEP_EXCEPTIONS) as copy:
                for e in verdict.exceptions:
                    copy.write_row(
                        (
                            verdict.run_id,
                            verdict.evaluated_at,
                            verdict.batch,
                            e.gate_id,
                            e.entity,
                            e.key,
                            e.status,
                            None if e.detail is None else Jsonb(e.detail, dumps=_dumps),
                        )
                    )
    conn.execute(_FORGET_EXCEPTIONS, {"batch": verdict.batch, "at": verdict.evaluated_at})


def _keep_paid(conn: psycopg.Connection, run_id: UUID) -> None:
    """Keep who is paid by what; nothing to do where the rows still are those that were measured when it was kept."""
    measured, kept = conn.execute(_MEASURED).fetchone() or (None, None)
    if _read_at(conn, "recon_e", run_id) is None:
        measured = None  # the verdict is of the views, of rows as they are now
    if measured is not None and measured == kept:
        return
    conn.execute(_FIND_PAID)
    conn.execute("analyze pg_temp.paid_otherwise")
    conn.execute(_KEEP_PAID, {"run_id": run_id})
    if measured is not None:
        conn.execute(_PAID_AS_MEASURED, (measured,))
