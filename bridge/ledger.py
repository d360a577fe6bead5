"""The ledger (`phase2.ledger`): append, read, verify. `sql/ledger.sql` makes it and holds the one rule of writing.

Each entry is a JSON text with the digest of the entry before it; an entry's digest is the SHA-256 of its own text. What
was decided by people or by a run is read from the ledger itself (the latest entry of its kind), so that there is no
second table to drift from it. Tables that a run fills for itself (steps, gate results, the scripts' log) stand beside
it: their entries hold the row as it was, and `verify` compares.
"""

from __future__ import annotations

import getpass
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from bridge.settings import settings
from bridge.verify_bundle import Problem, chain_problems


@dataclass(frozen=True)
class Entry:
    """One entry as it stands; `at` is UTC."""

    no: int
    at: datetime
    kind: str
    batch: str | None
    subject: str | None
    run_id: UUID | None
    actor: str
    body: dict[str, Any]
    digest: str


# Tables whose rows an entry mirrors: kind of entry -> table, its key. Written by `mirror`.
MIRRORED: dict[str, tuple[str, str, str]] = {
    "step": ("phase2", "step_log", "step_log_id"),
    "gate": ("phase2", "gate_results", "gate_result_id"),
    "script": ("public", "migration_run_log", "run_key"),
    "drill": ("phase2", "drills", "drill_id"),
    "incident": ("phase2", "incidents", "incident_id"),
}

_BATCH_OF = {
    "script": sql.SQL("r.said ->> 'batch_code'"),
    "incident": sql.SQL("'G'"),
    "drill": sql.SQL("coalesce(r.said #>> '{measured,batch}', 'F')"),
}

# Words of people: nobody can take a phone number out of the chain again, and bundles hand it over.
_WORDS = ("reason", "note", "evidence", "error")

# Entries of rows that must still be there: batch A's rollback takes migration_run_log along, and what was in it.
_TOLD = """
(
    select b.*
    from phase2.ledger as b
    where
        b.kind = {kind}
        and ({kind} <> 'script' or b.entry_no > (
            select coalesce(max(u.entry_no), 0) from phase2.ledger as u where u.kind = 'rollback' and u.batch = 'A'
        ))
)
"""

# The list behind each gate of one evaluation: how long it is, and the digest of its rows in whatever order.
_LISTED = """
select r.gate_id, count(*), encode(sha256(string_agg(r.said, ''::bytea order by r.said)), 'hex')
from (
    select
        e.gate_id,
        sha256(convert_to(jsonb_build_array(e.entity, e.key, e.status, e.detail)::text, 'UTF8')) as said
    from phase2.exceptions as e
    where e.batch = %(batch)s and e.evaluated_at = %(at)s::timestamptz
) as r
group by r.gate_id
order by r.gate_id collate "C"
"""

# The last verdict of each batch that tells of its lists; a later evaluation, whose gates are told, has let them go.
_LISTS = """
select distinct on (v.batch) v.entry_no, v.batch, v.body ->> 'evaluated_at', v.body -> 'exceptions'
from phase2.ledger as v
where
    v.kind = 'verdict'
    and v.body ? 'exceptions'
    and not exists (
        select 1 from phase2.ledger as g where g.kind = 'gate' and g.batch = v.batch and g.entry_no > v.entry_no
    )
order by v.batch, v.entry_no desc
"""


_acting: ContextVar[tuple[str, str] | None] = ContextVar("acting", default=None)


@contextmanager
def acting(name: str, role: str) -> Iterator[None]:
    """Within it `name` acts, in this role: a service does what somebody has asked it for who has signed in there."""
    before = _acting.set((name, role))
    try:
        yield
    finally:
        _acting.reset(before)


def who() -> str:
    """Who acts: whoever has signed in, PHASE2_ACTOR, or the user of the operating system."""
    acting = _acting.get()
    named = acting[0] if acting else settings().phase2_actor
    if named:
        return named
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


def _role() -> str | None:
    """In which role they act who sign in somewhere; on a command line nobody has one."""
    acting = _acting.get()
    return acting[1] if acting else settings().phase2_actor_role


def append(
    conn: psycopg.Connection,
    kind: str,
    *,
    batch: str | None = None,
    subject: str | None = None,
    run_id: UUID | None = None,
    actor: str | None = None,
    body: Mapping[str, Any] | None = None,
) -> Entry:
    """Write one entry at the end of the chain, in the transaction of `conn` (its own when that is autocommit).

    The chain is locked until that transaction ends: keep it short. `body` is JSON, without secrets and personal data;
    mails and phones in its free text are masked here (`masked`). It holds the role too in which they act who have
    signed in (`acting`).
    """
    role = _role() if actor in (None, who()) else None
    said = ({"role": role} if role else {}) | dict(body or {})
    row = conn.execute(
        "select l.entry_no, l.entry, l.digest"
        " from phase2.log(%s::text, %s::text, %s::text, %s::uuid, %s::text, %s::jsonb) as l",
        (kind, batch, subject, run_id, actor or who(), Jsonb(masked(said), dumps=_dumps)),
    ).fetchone()
    assert row is not None
    return _entry(row)


def lock(conn: psycopg.Connection) -> None:
    """Let nobody write an entry until this transaction ends."""
    conn.execute("select pg_advisory_xact_lock(hashtextextended('phase2.ledger', 0))")


def masked(body: Mapping[str, Any]) -> dict[str, Any]:
    """An entry's body with the mails and phones in the words of people hidden: whoever writes an entry asks this."""
    from bridge.reports.mask import mask_text  # reports read the ledger: a circle

    return {
        name: mask_text(value) if name in _WORDS and isinstance(value, str) else value for name, value in body.items()
    }


def mirror(conn: psycopg.Connection, kind: str, keys: Iterable[Any], **more: Any) -> None:
    """An entry for each of these rows of the kind's table, with the row as it is, and what more there is to say."""
    schema, table, key = MIRRORED[kind]
    statement = sql.SQL(
        "select phase2.log(%(kind)s::text, {batch}, r.said ->> {subject}, (r.said ->> 'run_id')::uuid,"
        " %(who)s::text, jsonb_build_object('row', r.said) || %(more)s)"
        " from (select to_jsonb(t) - 'recorded' as said from {table} as t where t.{key} = any(%(keys)s)"
        " order by t.{key}) as r"
    ).format(
        table=sql.Identifier(schema, table),
        key=sql.Identifier(key),
        batch=_BATCH_OF.get(kind, sql.SQL("r.said ->> 'batch'")),
        subject=sql.Literal({"gate": "gate_id", "script": "script_name", "incident": "severity"}.get(kind, kind)),
    )
    conn.execute(statement, {"kind": kind, "who": who(), "keys": list(keys), "more": Jsonb(more, dumps=_dumps)})


def adopt(conn: psycopg.Connection) -> None:
    """Begin the chain with what older tables hold already: rows from before there was a ledger."""
    for kind, (schema, table, key) in MIRRORED.items():
        if not _is_there(conn, f"{schema}.{table}"):
            continue
        rows = conn.execute(
            sql.SQL("select t.{} from {} as t where to_jsonb(t) ->> 'status' is distinct from 'RUNNING'").format(
                sql.Identifier(key), sql.Identifier(schema, table)
            )
        ).fetchall()
        mirror(conn, kind, [row[0] for row in rows])


def head(conn: psycopg.Connection) -> tuple[int, str]:
    """Number and digest of the last entry; (0, '') of an empty ledger. Pin it outside the database."""
    row = conn.execute(
        "select l.entry_no, l.digest from phase2.ledger as l order by l.entry_no desc limit 1"
    ).fetchone()
    return (row[0], row[1]) if row else (0, "")


def entries(
    conn: psycopg.Connection,
    *kinds: str,
    batch: str | None = None,
    subject: str | None = None,
    run_id: UUID | None = None,
    after: int = 0,
) -> list[Entry]:
    """Entries in their order; no kinds: of every kind."""
    rows = conn.execute(
        "select l.entry_no, l.entry, l.digest from phase2.ledger as l"
        " where (%(kinds)s::text[] = '{}' or l.kind = any(%(kinds)s))"
        " and (%(batch)s::text is null or l.batch = %(batch)s)"
        " and (%(subject)s::text is null or l.subject = %(subject)s)"
        " and (%(run_id)s::uuid is null or l.run_id = %(run_id)s)"
        " and l.entry_no > %(after)s order by l.entry_no",
        {"kinds": list(kinds), "batch": batch, "subject": subject, "run_id": run_id, "after": after},
    ).fetchall()
    return [_entry(row) for row in rows]


def newest(
    conn: psycopg.Connection,
    *kinds: str,
    batch: str | None = None,
    actor: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Entry]:
    """At most `limit` entries, the last first, of those before entry number `before`; no kinds: of every kind."""
    rows = conn.execute(
        "select l.entry_no, l.entry, l.digest from phase2.ledger as l"
        " where (%(kinds)s::text[] = '{}' or l.kind = any(%(kinds)s))"
        " and (%(batch)s::text is null or l.batch = %(batch)s)"
        " and (%(actor)s::text is null or l.actor = %(actor)s)"
        " and (%(before)s::bigint is null or l.entry_no < %(before)s) order by l.entry_no desc limit %(limit)s",
        {"kinds": list(kinds), "batch": batch, "actor": actor, "before": before, "limit": limit},
    ).fetchall()
    return [_entry(row) for row in rows]


def latest(conn: psycopg.Connection, *kinds: str, batch: str | None = None, subject: str | None = None) -> Entry | None:
    """The last entry of these kinds, if there is one."""
    row = conn.execute(
        "select l.entry_no, l.entry, l.digest from phase2.ledger as l"
        " where l.kind = any(%(kinds)s)"
        " and (%(batch)s::text is null or l.batch = %(batch)s)"
        " and (%(subject)s::text is null or l.subject = %(subject)s)"
        " order by l.entry_no desc limit 1",
        {"kinds": list(kinds), "batch": batch, "subject": subject},
    ).fetchone()
    return _entry(row) if row else None


def listed(conn: psycopg.Connection, batch: str, at: datetime | str) -> dict[str, dict[str, Any]]:
    """What a verdict's entry keeps of its exceptions: of each gate that lists some, `rows` and their `sha256`."""
    if not _is_there(conn, "phase2.exceptions"):
        return {}
    rows = conn.execute(_LISTED, {"batch": batch, "at": at}).fetchall()
    return {gate: {"rows": count, "sha256": digest} for gate, count, digest in rows}


def verify(conn: psycopg.Connection, *, pinned: str | None = None) -> list[Problem]:
    """Recompute everything: the chain, the rows and lists beside it that it tells of, and the files of every report.

    `pinned` is a digest that was kept outside: it must be in the chain (who cuts entries off the end, or writes the
    chain anew, is found by that alone). Empty: nothing is wrong.
    """
    rows = conn.execute("select l.entry_no, l.entry, l.digest from phase2.ledger as l order by l.entry_no").fetchall()
    problems = chain_problems(rows)
    if pinned and pinned not in {digest for _, _, digest in rows}:
        problems.append(
            Problem("head", f"the pinned digest {pinned} is not in the chain: entries were cut or rewritten")
        )
    for kind, (schema, table, key) in MIRRORED.items():
        problems += _mirror_problems(conn, kind, schema, table, key)
    problems += _list_problems(conn)
    for _, text, _ in rows:
        problems += _file_problems(text)
    return problems


def _mirror_problems(conn: psycopg.Connection, kind: str, schema: str, table: str, key: str) -> list[Problem]:
    """Rows that differ from their entry, lost rows, and rows without an entry (a step under way has none yet)."""
    name, told = f"{schema}.{table}", sql.SQL(_TOLD).format(kind=sql.Literal(kind))
    if not _is_there(conn, name):
        count = conn.execute(sql.SQL("select count(*) from {} as l").format(told)).fetchone()
        return [Problem(name, f"the table is gone; {count[0]} entries tell of its rows")] if count and count[0] else []
    rows = conn.execute(
        sql.SQL(
            """
            with told as (
                select distinct on (l.body -> 'row' ->> {key_name})
                    l.entry_no, l.body -> 'row' as said, l.body -> 'row' ->> {key_name} as id
                from {told} as l
                order by l.body -> 'row' ->> {key_name}, l.entry_no desc
            )
            select t.entry_no, coalesce(t.id, r.{key}::text), t.said is null, r.{key} is null
            from told as t
            full join {table} as r on t.id = r.{key}::text
            where
                t.said is distinct from to_jsonb(r) - 'recorded'
                and not (t.said is null and coalesce(to_jsonb(r) ->> 'status' = 'RUNNING', false))
            order by 1, 2
            """
        ).format(
            key_name=sql.Literal(key),
            told=told,
            key=sql.Identifier(key),
            table=sql.Identifier(schema, table),
        )
    ).fetchall()
    problems = []
    for entry_no, id_, untold, gone in rows:
        if untold:
            what = "is in no entry: somebody else wrote it"
        elif gone:
            what = f"is gone; entry {entry_no} tells of it"
        else:
            what = f"is not what entry {entry_no} says"
        problems.append(Problem(f"{name} {id_}", what))
    return problems


def _list_problems(conn: psycopg.Connection) -> list[Problem]:
    """Lists of exceptions that are not those of their verdict; older ones may be gone (retention)."""
    problems = []
    for entry_no, batch, at, told in conn.execute(_LISTS).fetchall():
        found = listed(conn, batch, at)
        problems += [
            Problem(
                f"phase2.exceptions {gate} of batch {batch}",
                f"the list is not what entry {entry_no} says: {told.get(gate, _NONE)['rows']} rows,"
                f" {found.get(gate, _NONE)['rows']} found",
            )
            for gate in sorted(told | found)
            if told.get(gate, _NONE) != found.get(gate, _NONE)
        ]
    return problems


_NONE = {"rows": 0}


def _is_there(conn: psycopg.Connection, name: str) -> bool:
    return conn.execute("select to_regclass(%s) is not null", (name,)).fetchone() == (True,)


def _file_problems(text: str) -> list[Problem]:
    """The files that an entry names with their digests (`body.files`): gone, or changed."""
    try:
        said = json.loads(text)
        files = (said.get("body") or {}).get("files") or {}
    except (ValueError, AttributeError):
        return []  # the chain has told of it
    problems = []
    for name, digest in files.items():
        path = settings().phase2_reports / name
        if not path.exists():
            problems.append(Problem(name, f"the file of entry {said.get('no')} is not there"))
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            problems.append(Problem(name, f"the file is not the one that entry {said.get('no')} tells of"))
    return problems


def files(*paths: Path) -> dict[str, str]:
    """Files below the reports' folder, as an entry's `body.files` holds them: relative name and SHA-256."""
    root = settings().phase2_reports
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _entry(row: tuple[Any, ...]) -> Entry:
    said = json.loads(row[1])
    return Entry(
        no=row[0],
        at=datetime.fromisoformat(said["at"]),
        kind=said["kind"],
        batch=said["batch"],
        subject=said["subject"],
        run_id=UUID(said["run_id"]) if said["run_id"] else None,
        actor=said["actor"],
        body=said["body"],
        digest=row[2],
    )


def _dumps(value: Any) -> str:
    return json.dumps(value, default=str)
