"""The door before a batch: what a PASS is bound to, what taints a batch, and every criterion of the go / no-go.

A PASS is bound to five hashes (`PARTS`). When one of them is another now, the pass is STALE and opens nothing, until
`make recon` or a run judges anew. A run whose verdict failed in a hard gate (severity `stop` or `critical`) taints its
batch: the same plan on the same data is not run again, because it would end the same way.

For the runner: `open_or_raise` before a batch starts; `taint` after its sources are landed and before it writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg

from bridge import fingerprint, gates, ledger, legacy, postgres, scripts, waivers
from bridge.batches import ORDER, Batch, batch, before
from bridge.errors import GateFailed, plain
from bridge.policy import Criterion, Policy, policy
from bridge.settings import DBT_PROJECT, SQL

PARTS = ("plan", "dbt code", "functions", "gate definitions", "source snapshot")

# What only a run measures: its failure holds the batches after it, and running the batch again is how it is mended.
SEEN_BY_A_RUN = frozenset({"A-00", "A-03", "B-03", "F-00"})

# What of the dbt project belongs to one batch; the rest is every batch's. A batch's code is the rest, its own, and
# that of the batches before it: mending a model of D makes no pass of C stale. tests/test_door.py asks dbt.
_OF_BATCH: dict[str, tuple[str, ...]] = {
    "A": ("models/recon/batch_a/*",),
    "B": ("models/recon/batch_b/*",),
    "C": ("models/*/catalog/*", "models/recon/batch_c/*", "data-tests/catalog_*"),
    # the statuses of bookings are made of payments
    "D": ("models/*/booking/*", "models/intermediate/payment/*", "models/recon/batch_d/*", "data-tests/booking_*"),
    "E": ("models/bridge/payment/*", "models/recon/batch_e/*", "data-tests/payment_*"),
    "F": ("models/recon/batch_f/*",),
    "G": (
        *("models/ops_read/*", "models/shadow/*", "models/recon/batch_g/*"),
        *("macros/read_differences.sql", "macros/read_told.sql", "seeds/approved_differences.csv"),
    ),
    "H": ("models/recon/batch_h/*",),
}
_NOT_CODE = ("target", "logs", "dbt_packages", "__pycache__")

# The latest verdict that opened or shut the door after a batch; with `of_a_run`, of those that a run of it ended with.
_VERDICT = """
select l.entry_no
from phase2.ledger as l
where
    l.kind = 'verdict' and l.batch = %(batch)s and (l.body ->> 'opens_door')::boolean
    and (not %(of_a_run)s or exists (
        select 1 from phase2.ledger as r
        where r.kind = 'run' and r.run_id = l.run_id and r.batch = l.batch
    ))
order by l.entry_no desc
limit 1
"""

# Rows landed without a digest (by an older version) are known by their landing alone.
_LANDED = """
select distinct on (r.source) r.source, coalesce(r.content_digest, r.landing_id::text)
from phase2.landing_runs as r
order by r.source, r.landing_no desc
"""

# The capture export that batch E compares with is of its sources too; its lines count, not their order.
_AUDITED = """
select count(*), sum(hashtextextended(row(a.capture_id, a.amount, a.currency, a.status, a.captured_at)::text, 0))
from phase2.audit_sample as a
"""

# What people and the core have done to the bridge; what a run itself closes in the queue is marked as its own.
_DECIDED = """
select
    (
        select (count(*), sum(hashtextextended(row(q.queue_key, q.status, q.resolved_by, q.payload)::text, 0)))
        from public.unmapped_queue as q
        where q.status <> 'OPEN' and q.resolved_by is distinct from 'phase2 run: cause gone'
    )::text,
    (select (count(*), sum(hashtextextended(f::text, 0))) from phase2.booking_freshness as f)::text,
    (select (count(*), count(e.processed_at), max(e.processed_at)) from public.ingest_event_log as e)::text
"""

# The schema that A makes, and the codes that B seeds.
_SCHEMA = """
select
    (
        select sum(hashtextextended(
            row(c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)::text, 0
        ))
        from pg_catalog.pg_class as c
        join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = to_regnamespace('public') and c.relkind in ('r', 'v', 'm', 'p', 'f')
    ),
    (
        select sum(hashtextextended(row(k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid))::text, 0))
        from pg_catalog.pg_constraint as k
        where k.connamespace = to_regnamespace('public')
    ),
    (
        select sum(hashtextextended(row(i.indrelid::regclass, pg_get_indexdef(i.indexrelid), i.indisvalid)::text, 0))
        from pg_catalog.pg_index as i
        join pg_catalog.pg_class as c on c.oid = i.indexrelid and c.relnamespace = to_regnamespace('public')
    ),
    (select sum(hashtextextended(d::text, 0)) from phase2.dictionary_codes() as d)
"""


# --- what a PASS is bound to -------------------------------------------------------------------------------------


def bound_to(conn: psycopg.Connection, one: Batch) -> dict[str, str]:
    """The hashes (SHA-256) of what a verdict of this batch rests on, as it is now; A and B read no landed rows."""
    return code_of(one) | _sources(conn, one)


_kept: ContextVar[dict[str, dict[str, str]] | None] = ContextVar("kept", default=None)


@contextmanager
def remembering(kept: dict[str, dict[str, str]]) -> Iterator[None]:
    """Within it what files say of a batch is read once, into `kept`: a page asks for it many times over."""
    before = _kept.set(kept)
    try:
        yield
    finally:
        _kept.reset(before)


def code_of(one: Batch) -> dict[str, str]:
    """Those of them that files say: plan, dbt code, functions, gate definitions."""
    kept = _kept.get()
    if kept is None:
        return _code_of(one)
    if one.code not in kept:
        kept[one.code] = _code_of(one)
    return kept[one.code]


def _code_of(one: Batch) -> dict[str, str]:
    project = _project()
    return {
        "plan": _plan(one),
        "dbt code": _digest(_contents(_dbt_files(one, project))),
        "functions": _digest(_contents(path for path in project if path.parts[0] == "functions")),
        "gate definitions": _digest(
            row for row in waivers.registry() if row["batch"] in (one.code, "*") or row["gate_id"] in one.gates
        ),
    }


def stale(conn: psycopg.Connection, code: str) -> tuple[str, ...]:
    """What of the five is not what the latest verdict of a batch was bound to; empty: it stands as it was judged."""
    verdict = _verdict(conn, code)
    return _changed(verdict.body.get("bound_to") if verdict else None, bound_to(conn, batch(code)))


def waived(conn: psycopg.Connection, code: str) -> dict[str, bool]:
    """Gates that failed in the latest verdict of a batch within a waiver, each with whether it still stands."""
    failed = waivers.failed_by(_verdict(conn, code))
    borne = waivers.covering(conn, code, failed)
    return {gate: gate in borne for gate, said in failed.items() if said["waiver"]}


def binding(conn: psycopg.Connection, one: Batch, run_id: UUID, as_of: date, verdict: gates.Verdict) -> dict[str, Any]:
    """What a verdict's entry keeps for the door.

    Of a run the code is that of its start: files that were changed while it ran did not make what was judged.
    """
    started = ledger.entries(conn, "run", batch=one.code, run_id=run_id)[-1:]
    code = started[0].body.get("code") if started else None
    bound = bound_to(conn, one) | (code or {})
    failed = gates.failures(verdict.gates)
    return {
        "bound_to": bound,
        "as_of": as_of,
        "failed": failed,
        "ops": _ops(conn, one) if verdict.result == "FAIL" else None,
    }


def _plan(one: Batch) -> str:
    files: list[Path] = []
    for step in one.plan:
        if step.kind in ("script", "retention"):
            files.append(scripts.FOLDER / step.target)
        elif step.kind == "legacy":
            files.append(legacy.QUERIES)
        elif step.kind == "land":
            files += sorted((SQL / "landing").glob("*.sql"))
    return _digest([asdict(one), *(scripts.checksum(file) for file in files)])


def _dbt_files(one: Batch, project: list[Path] | None = None) -> Iterable[Path]:
    later = [pattern for code in ORDER[ORDER.index(one.code) + 1 :] for pattern in _OF_BATCH[code]]
    apart = ("functions/*", f"seeds/{waivers.REGISTRY.name}", *later)
    return (path for path in project or _project() if not any(fnmatch(str(path), pattern) for pattern in apart))


def _project() -> list[Path]:
    """The files of the dbt project, by their names in it."""
    paths = (path.relative_to(DBT_PROJECT) for path in sorted(DBT_PROJECT.rglob("*")) if path.is_file())
    return [path for path in paths if not set(path.parts) & set(_NOT_CODE)]


def _contents(paths: Iterable[Path]) -> Iterable[tuple[str, str]]:
    return ((str(path), scripts.checksum(DBT_PROJECT / path)) for path in paths)


def _sources(conn: psycopg.Connection, one: Batch) -> dict[str, str]:
    if not _lands(one):
        return {}
    rows: list[Any] = conn.execute(_LANDED).fetchall()
    if any(step.kind == "audit" for step in one.plan):
        rows += conn.execute(_AUDITED).fetchall()
    return {"source snapshot": _digest(rows)}


def _lands(one: Batch) -> bool:
    return any(step.kind == "land" for step in one.prechecks)


def _changed(then: Mapping[str, str] | None, now: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(part for part in PARTS if (then or {}).get(part) != now.get(part))


def _verdict(conn: psycopg.Connection, code: str, *, of_a_run: bool = False) -> ledger.Entry | None:
    row = conn.execute(_VERDICT, {"batch": code, "of_a_run": of_a_run}).fetchone()
    return ledger.entries(conn, "verdict", batch=code, after=row[0] - 1)[0] if row else None


def _digest(content: Iterable[Any]) -> str:
    return hashlib.sha256(json.dumps(list(content), default=str, sort_keys=True).encode()).hexdigest()


# --- taint -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taint:
    """A run that failed in hard gates which nobody has waived; `changed` is what is another than at that run."""

    entry: int  # of the ledger: its verdict
    gates: tuple[str, ...]
    changed: tuple[str, ...]
    files: Mapping[str, str]  # its report

    @property
    def stands(self) -> bool:
        return not self.changed


def taint(conn: psycopg.Connection, one: Batch) -> Taint | None:
    """The taint of a batch, were it run on the rows that are landed now; None: it has none. Another day lifts none.

    A verdict of `make recon` that passes lifts a taint, one that fails makes none: what has become worse since the
    run was written by somebody else, and running the batch again is how it is mended.
    """
    latest, of_run = _verdict(conn, one.code), _verdict(conn, one.code, of_a_run=True)
    if not latest or not of_run or {latest.body["result"], of_run.body["result"]} != {"FAIL"}:
        return None
    failed = waivers.failed_by(of_run)
    hard = {
        gate: said for gate, said in failed.items() if said["severity"] in waivers.HARD and gate not in SEEN_BY_A_RUN
    }
    unborne = tuple(gate for gate in hard if gate not in waivers.covering(conn, one.code, hard))
    if not unborne:
        return None
    changed = _changed(of_run.body.get("bound_to"), bound_to(conn, one))
    if of_run.body.get("ops") != _ops(conn, one):
        changed += ("decisions" if _lands(one) else "ops database",)
    return Taint(of_run.no, unborne, changed, of_run.body.get("files") or {})


def _ops(conn: psycopg.Connection, one: Batch) -> str:
    """Of the ops database what may have been mended: decisions and events; for A and B schema and rows, which a rerun
    of them judges as they stand."""
    if conn.execute("select to_regclass('public.unmapped_queue') is null").fetchone() == (True,):
        return ""
    if _lands(one):
        return _digest(conn.execute(_DECIDED).fetchall())
    return _digest([*conn.execute(_SCHEMA).fetchall(), fingerprint.versions(conn)])


# --- the door ----------------------------------------------------------------------------------------------------


def criteria(
    conn: psycopg.Connection, one: Batch, asked: Policy | None = None, as_of: date | None = None
) -> list[Criterion]:
    """Every line of the go / no-go before this batch, run as of this day (today), under the policy in force.

    Only reads.
    """
    chosen = asked or policy()
    lines = [_passed(conn, code) for code in before(one.code)]
    lines.append(_untainted(conn, one))
    lines.append(_of_its_day(conn, one, as_of or waivers.today(), chosen))
    for others in _others():
        lines += others(conn, one, chosen)
    return lines


def _others() -> tuple[Callable[[psycopg.Connection, Batch, Policy], list[Criterion]], ...]:
    """The criteria that stand elsewhere; imported here because they look at steps, which open this door."""
    from bridge import readiness, rehearsal, signoff, stop

    return (rehearsal.criteria, readiness.criteria, signoff.criteria, stop.criteria)


def open_or_raise(conn: psycopg.Connection, one: Batch, as_of: date | None = None) -> list[Criterion]:
    """Let a batch start, as of this day (today): what was asked. GateFailed names every criterion that holds it.

    A taint is asked after the prechecks (`taint`): the sources, which they land, may have been mended.
    """
    lines = criteria(conn, one, as_of=as_of)
    holding = [line for line in lines if line.holds and line.name != _taint_of(one)]
    if holding:
        raise GateFailed(one.code, [f"{line.name}: {line.evidence}. {line.todo}".strip() for line in holding])
    return lines


def takes_over_the_landing(one: Batch) -> bool:
    """Whether a batch reads the rows that an earlier batch landed and passed on: D and E do, C lands."""
    return _lands(one) and any(_lands(batch(code)) for code in before(one.code))


def _passed(conn: psycopg.Connection, code: str) -> Criterion:
    """Whether the batch before has passed, and its pass is of what is there now: tables and ledger must both say so."""
    verdict = _verdict(conn, code)
    said = f"entry {verdict.no} of {verdict.at:%Y-%m-%d %H:%M} UTC" if verdict else "no verdict"
    try:
        gates.open_or_raise(conn, "?", code)
        blocked_by = against(conn, code)
    except GateFailed as failed:
        blocked_by = tuple(failed.blocked_by)
    if blocked_by:
        found = f"not passed: {', '.join(blocked_by)} ({said})" if blocked_by != (code,) else f"not passed ({said})"
        return _line(f"gates of {code}", "HOLD", found, f"Run it: make run BATCH={code}")
    changed = stale(conn, code)
    if changed:
        found = f"STALE, changed since it was judged: {', '.join(changed)} ({said})"
        return _line(f"gates of {code}", "HOLD", found, f"Judge it anew: make recon BATCH={code}, or run it again")
    borne = waivers.covering(conn, code, waivers.failed_by(verdict))
    waived = "".join(f"; {gate} {waiver}" for gate, waiver in borne.items())
    return _line(f"gates of {code}", "PASS", f"passed ({said}){waived}", "")


def against(conn: psycopg.Connection, code: str) -> tuple[str, ...]:
    """What the ledger says against a pass of this batch, whatever the tables beside it say; empty: it has passed.

    Its latest verdict is no PASS, a gate failed in it that no waiver bears today, or it was begun, stopped or rolled
    back since.
    """
    verdict = _verdict(conn, code)
    if verdict is None:
        return (code,)
    failed = waivers.failed_by(verdict)
    borne = waivers.covering(conn, code, failed)
    blocked_by = tuple(gate for gate in failed if gate not in borne)
    if not blocked_by and verdict.body["result"] != "PASS":
        blocked_by = tuple(verdict.body.get("blocked_by") or (code,))
    since = ledger.entries(conn, "run", "error", "hold", "rollback", batch=code, after=verdict.no)
    return blocked_by + tuple(f"{entry.kind} since (entry {entry.no})" for entry in since[-1:])


def _untainted(conn: psycopg.Connection, one: Batch) -> Criterion:
    found = taint(conn, one)
    if found is None:
        return _line(_taint_of(one), "PASS", "no run of it failed a hard gate since it last passed", "")
    what = f"{', '.join(found.gates)} failed (entry {found.entry})"
    if found.stands:
        return _line(_taint_of(one), "HOLD", f"{what}, and nothing has changed since", mend(one, found))
    return _line(_taint_of(one), "PASS", f"{what}; changed since: {', '.join(found.changed)}", "")


def _of_its_day(conn: psycopg.Connection, one: Batch, as_of: date, policy: Policy) -> Criterion:
    """Whether this run is of today in Bali, and those of the batches before were of the day on which they ran.

    A day more or less is none: a run may pass midnight. Demanded wherever there is a policy but local's.
    """
    odd = []
    for code in before(one.code):
        ran = ledger.latest(conn, "run", batch=code)
        if ran and ran.body.get("as_of"):
            day, of_day = waivers.in_bali(ran.at), date.fromisoformat(ran.body["as_of"])
            if abs((of_day - day).days) > 1:
                odd.append(f"{code} ran on {day} as of {of_day} (entry {ran.no})")
    if abs((as_of - waivers.today()).days) > 1:
        odd.append(f"this run is as of {as_of}, today is {waivers.today()}")
    todo = "Run it without --as-of." if odd else ""
    found = "; ".join(odd) or f"as of {as_of}"
    demanded = policy.environment != "local"
    return Criterion("as of", "HOLD" if odd else "PASS", found, todo, "gates.md, go / no-go", demanded)


def mend(one: Batch, found: Taint) -> str:
    """What lifts a taint, in words."""
    causes = "source rows, code or gates" if _lands(one) else "the bridge, its schema, code or gates"
    again = "run it again"
    if takes_over_the_landing(one):  # rows that have changed are landed by the batch before
        again += f" (rows: phase2 run --from C --to {one.code})"
    words = f"Mend the cause ({causes}) and {again}; after a decision or a repair, make recon BATCH={one.code}"
    waivable = [gate for gate in found.gates if (waivers.registered(gate) or {}).get("severity") != waivers.STOP]
    if len(waivable) == len(found.gates):
        words += f"; or phase2 waive --batch {one.code} --gate {', '.join(waivable)}"
    return words


def _taint_of(one: Batch) -> str:
    return f"taint of {one.code}"


def _line(name: str, state: Any, evidence: str, todo: str) -> Criterion:
    return Criterion(name, state, evidence, todo, "gates.md, go / no-go", True)


# --- dry run -----------------------------------------------------------------------------------------------------


def dry_run(ops_url: str, planned: Iterable[Batch], as_of: date | None = None) -> list[dict[str, Any]]:
    """What a run of these batches would do: steps, scripts with their checksums, doors. Reads, and nothing else.

    A door that this user may not look at, or of a database where nothing has run, is said to be so.
    """
    with postgres.connect(ops_url, application_name="phase2-dry-run", read_only=True, autocommit=True) as conn:
        return [
            {
                "batch": one.code,
                "focus": one.focus,
                "door": [asdict(line) | {"holds": line.holds} for line in _seen(conn, one, as_of)],
                "steps": [
                    {"name": step.name, "title": step.title, "files": _files(step.kind, step.target)}
                    for step in one.plan
                ],
                "bound_to": code_of(one),
                "gates": [*one.gates, *gates.GLOBAL_GATES],
            }
            for one in planned
        ]


def _seen(conn: psycopg.Connection, one: Batch, as_of: date | None) -> list[Criterion]:
    try:
        if conn.execute("select to_regclass('phase2.ledger') is null").fetchone() == (True,):
            return [_line("state", "HOLD" if before(one.code) else "N/A", "nothing has run here", "")]
        return criteria(conn, one, as_of=as_of)
    except psycopg.Error as error:
        return [_line("state", "HOLD", f"cannot be read: {plain(error)}", "Grant select on schema phase2.")]


def _files(kind: str, target: str) -> dict[str, str]:
    """The files that a step runs, with their checksums."""
    if kind in ("script", "retention"):
        paths = [scripts.FOLDER / target]
    elif kind == "rerun":
        paths = [scripts.FOLDER / step.target for step in batch("B").steps]
    elif kind == "legacy":
        paths = [legacy.QUERIES]
    else:
        paths = []
    return {path.name: scripts.checksum(path) for path in paths}
