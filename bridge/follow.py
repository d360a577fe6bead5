"""Which bookings a batch must compute again: those that a change leads to, and all that could mean another for them.

A batch that follows changes builds the same models as a whole one, on the bookings in `phase2.touched_bookings`; the
result is that of a whole run, since the set is closed. It starts from

    rows that landings wrote or removed since the batch last settled (phase2.landed_changes),
    rows of the bridge, its queue and its events that others wrote meanwhile (bridge/written.py),
    bookings whose status depends on a day between the run's and the last one's,

and takes in, until nothing is added: who has or had the same name, a made-up one too; the bridge's booking of any of
them, and its name; who has or had the same payment ref; what people resolved from or to them.

`prepare` says why not where a premise does not hold: then everything is built. What it needs to know of bookings that
are not touched (names, keys, payment refs) stands in working tables of the last whole run, kept up to date.
"""

from __future__ import annotations

import json
import re
from datetime import date

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from bridge import written
from bridge.settings import SQL

__all__ = [
    "BATCHES", "PREMISES", "built", "close", "forget", "look", "make_ready", "others_wrote", "premises", "prepare",
    "run_file", "settle", "too_many", "whole_tables",
]  # fmt: skip

BATCHES = ("batch_d", "batch_e")

# Where more than this share of the bookings is touched, everything is built: it costs no more.
WORTH_IT = 0.2

# dbt's working tables of the last whole run that know all bookings, and how they are asked.
_WHOLE = {
    "booking_sources": ("(source_system, booking_id)", "using hash (external_booking_ref)"),  # of any length
    "booking_candidates": ("(source_system, booking_id)", "(booking_key)"),
    "payments": ("(booking_id)", "using hash (payment_ref)"),
}
_STATEMENTS = SQL / "follow"


def look(conn: psycopg.Connection) -> str | None:
    """Find what others wrote to the bridge since a batch settled last; or say why that cannot be told."""
    conn.execute("analyze public.channel_registry")  # a few rows that are joined with many, and nobody else analyzes
    with conn.transaction():
        if conn.info.transaction_status == TransactionStatus.INTRANS and conn.autocommit:
            conn.execute("set transaction isolation level repeatable read")
        return written.look(conn, _WHO)


def others_wrote(conn: psycopg.Connection) -> bool:
    """Whether the last look on this connection found anything."""
    return conn.execute("select exists (select 1 from pg_temp.written)").fetchone() == (True,)


def prepare(conn: psycopg.Connection, batch: str, project: str, as_of: date, unseen: str | None) -> str | None:
    """Fill the touched tables for this batch; or say why all of it must be built. `unseen`: what `look` has said."""
    was = _state(conn, batch)
    if was is None:
        return "there is no run of this batch that it could follow"
    now = premises(conn, project)
    for name, why in PREMISES.items():
        if was.get(name) != now[name]:
            return why
    if not _keep_whole(conn):
        return "the working tables of the last whole run are gone"
    with conn.transaction():
        conn.execute("truncate phase2.touched_bookings, phase2.touched_keys, phase2.touched_names")
        conn.execute("truncate phase2.touched_subjects")
        if why := unseen or _seed_what_others_wrote(conn):
            return why
        first, last = sorted((as_of, _day(was)))
        run_file(conn, "seeds", batch=batch, since=was["change_no"], first=first, last=last, moved=first != last)
        run_file(conn, "landed_seeds")
        close(conn)
        if why := too_many(conn):
            return why
        run_file(conn, "subjects", since=was["change_no"])
    conn.execute("analyze phase2.touched_subjects")
    return None


def too_many(conn: psycopg.Connection) -> str | None:
    """Why to compute everything: it costs no more than what is touched. None where it is worth it."""
    touched, bookings = conn.execute(
        "select (select count(*) from phase2.touched_bookings) + (select count(*) from phase2.touched_keys),"
        " (select coalesce(sum(t.row_count), 0)::bigint from phase2.landing_tables as t"
        " where t.table_name in ('Booking', 'bookings') and t.landing_id = ("
        " select r.landing_id from phase2.landing_runs as r order by r.landing_no desc limit 1))"
    ).fetchone() or (0, 0)
    if touched > 1000 and touched > WORTH_IT * 2 * bookings:
        return f"{touched:,} of {2 * bookings:,} bookings and sources are touched"
    return None


def size(conn: psycopg.Connection) -> tuple[int, int]:
    """How many bookings of the sources, and of the bridge, are touched."""
    return conn.execute(
        "select (select count(*) from phase2.touched_bookings), (select count(*) from phase2.touched_keys)"
    ).fetchone() or (0, 0)


def digest(conn: psycopg.Connection) -> str:
    """Which bookings of the sources the working tables are of."""
    row = conn.execute(
        "select count(*)::text || ':' || coalesce(bit_xor(hash_record_extended(row(t.source_system, t.booking_id), 0)),"
        " 0)::text from phase2.touched_bookings as t"
    ).fetchone()
    return str(row[0]) if row else ""


def begin_whole(conn: psycopg.Connection) -> None:
    """The working tables are about to be made anew, of all bookings: until that has ended, nothing can be followed."""
    with conn.transaction():
        forget(conn)
        for name in _WHOLE:
            conn.execute(sql.SQL("drop table if exists dbt_intermediate.{}").format(sql.Identifier(f"whole_{name}")))


def forget(conn: psycopg.Connection) -> None:
    """The next run of every batch builds all of it."""
    conn.execute("delete from phase2.warehouse_state where part like 'follows %'")


def built(conn: psycopg.Connection, then: str) -> None:
    """The working tables of the last whole run say of the touched bookings what was just computed.

    `then` is the other batch, which has them to follow too.
    """
    with conn.transaction():
        run_file(conn, "carry", batch=then)
        for name in _WHOLE:
            names = {
                "whole": sql.Identifier("dbt_intermediate", f"whole_{name}"),
                "part": sql.Identifier("dbt_intermediate", f"int_{name}"),
                "system": sql.SQL("'balisnap'" if name == "payments" else "w.source_system"),
            }
            conn.execute(
                sql.SQL(
                    "delete from {whole} as w using phase2.touched_bookings as t"
                    " where t.source_system = {system} and t.booking_id = w.booking_id"
                ).format(**names)
            )
            conn.execute(sql.SQL("insert into {whole} select * from {part}").format(**names))


def settle(conn: psycopg.Connection, batch: str, project: str, as_of: date) -> None:
    """The batch has ended: from here on its next run follows. In the caller's transaction, a repeatable read."""
    if _most_is_new(conn) or written.look(conn, _WHO):
        written.begin(conn, _WHO)
    else:
        written.absorb(conn, _WHO)
    row = conn.execute("select coalesce(max(c.change_no), 0) from phase2.landed_changes as c").fetchone()
    state = {**premises(conn, project), "as_of": as_of.isoformat(), "change_no": row[0] if row else 0}
    conn.execute(
        "insert into phase2.warehouse_state (part, digest) values (%s, %s)"
        " on conflict (part) do update set digest = excluded.digest, built_at = now()",
        (f"follows {batch}", json.dumps(state)),
    )
    conn.execute(
        "delete from phase2.landed_changes where change_no <= ("
        " select min((w.digest::jsonb ->> 'change_no')::bigint) from phase2.warehouse_state as w"
        " where w.part in ('follows batch_d', 'follows batch_e', 'measured')"
        " having count(*) filter (where w.part <> 'measured') = 2)"
    )


def _most_is_new(conn: psycopg.Connection) -> bool:
    """Whether this run has written so much of the bridge that all keys are sooner read anew than those of its rows."""
    return conn.execute(
        "select coalesce(sum(m.inserted + m.updated + m.removed), 0) > ("
        " select greatest(c.reltuples, 0) / 10 from pg_catalog.pg_class as c"
        " where c.oid = 'phase2.bridge_keys'::regclass)"
        " from phase2.model_changes as m inner join phase2.run_context as r on m.run_id = r.run_id"
    ).fetchone() == (True,)


_WHO = "follow"

PREMISES = {
    "project": "the project has changed",
    "since_crash": "the server has crashed since the last run",
    "whole_landing": "all rows were landed anew",
    "catalog": "what the catalog's ids mean has changed",
    "lists": "a list, a function or a channel has changed",
}


def _state(conn: psycopg.Connection, batch: str) -> dict[str, object] | None:
    found = _remembered(conn, f"follows {batch}")
    return json.loads(found) if found else None


def _remembered(conn: psycopg.Connection, part: str) -> str | None:
    row = conn.execute("select w.digest from phase2.warehouse_state as w where w.part = %s", (part,)).fetchone()
    return row[0] if row else None


def _day(state: dict[str, object]) -> date:
    return date.fromisoformat(str(state["as_of"]))


def premises(conn: psycopg.Connection, project: str) -> dict[str, str]:
    """What must be as it was, in a word each (`PREMISES` says what it means when one is not)."""
    row = conn.execute((_STATEMENTS / "premises.sql").read_bytes()).fetchone()
    assert row is not None
    return {"project": project, **dict(zip(("since_crash", "whole_landing", "catalog", "lists"), row, strict=True))}


def make_ready(conn: psycopg.Connection) -> None:
    """A whole run of batch E has ended: give the working tables what runs that follow it look up in them.

    Not after a whole run of D, whose tables E takes over first; a run that follows D alone does it (`_keep_whole`).
    """
    for name in _WHOLE:
        _index(conn, name)


def _keep_whole(conn: psycopg.Connection) -> bool:
    """The last whole run's tables under a name that dbt does not write; False when they are not to be had."""
    for name in _WHOLE:
        whole, part = conn.execute(
            "select to_regclass('dbt_intermediate.whole_' || %(n)s), to_regclass('dbt_intermediate.int_' || %(n)s)",
            {"n": name},
        ).fetchone() or (None, None)
        if whole is not None:
            continue
        if part is None:
            return False
        _index(conn, name)
        names = {"part": sql.Identifier("dbt_intermediate", f"int_{name}"), "new": sql.Identifier(f"whole_{name}")}
        conn.execute(sql.SQL("alter table {part} rename to {new}").format(**names))
    return True


def _index(conn: psycopg.Connection, name: str) -> None:
    """Indexes of a working table as dbt made it, which has none or all; its statistics are dbt's."""
    table = sql.Identifier("dbt_intermediate", f"int_{name}")
    has = "select c.relhasindex from pg_catalog.pg_class as c where c.oid = to_regclass('dbt_intermediate.int_' || %s)"
    if conn.execute(has, (name,)).fetchone() != (False,):
        return
    with conn.transaction():
        for key in _WHOLE[name]:
            conn.execute(sql.SQL("create index on {table} {key}").format(table=table, key=sql.SQL(key)))


def whole_tables(conn: psycopg.Connection) -> str | None:
    """How the names of the last whole run's tables begin: `whole_`, as dbt made them until a batch has followed it;
    None when they are not to be had, or about to be made."""
    row = conn.execute(
        "select case when bool_and(to_regclass('dbt_intermediate.whole_' || n.name) is not null) then 'whole_'"
        " when bool_and(to_regclass('dbt_intermediate.int_' || n.name) is not null)"
        " and exists (select 1 from phase2.warehouse_state as w where w.part = 'follows batch_d') then 'int_' end"
        " from unnest(%s::text[]) as n (name)",
        (list(_WHOLE),),
    ).fetchone()
    return row[0] if row else None


def _seed_what_others_wrote(conn: psycopg.Connection) -> str | None:
    row = conn.execute(_DELETED).fetchone()
    if row and row[0]:
        return f"somebody has deleted rows ({row[0]})"
    run_file(conn, "foreign")
    return None


# A booking, a row of the queue or an event that was there and is not.
_DELETED = """
    select min(case w.part when 'booking' then 'core' else w.part end)
    from pg_temp.written as w
    left join public.booking_core as c on w.part = 'booking' and c.booking_key = w.key
    left join public.unmapped_queue as q on w.part = 'queue' and q.queue_key = w.key
    left join public.ingest_event_log as e on w.part = 'events' and e.event_key = w.key
    where w.part <> 'fresh' and c.booking_key is null and q.queue_key is null and e.event_key is null
"""


def close(conn: psycopg.Connection, *files: str) -> None:
    """Take in whatever shares a name, a key or a payment ref with what was added in the round before.

    `files`: more statements of one round each.
    """
    number = 0
    analyze(conn)  # else a round of thousands is planned as one of a few
    while sum(run_file(conn, name, round=number) for name in ("close", *files)):
        number += 1
        analyze(conn)


def analyze(conn: psycopg.Connection) -> None:
    """Let what reads the touched tables be planned with their real sizes."""
    conn.execute("analyze phase2.touched_bookings, phase2.touched_keys, phase2.touched_names")


def run_file(conn: psycopg.Connection, name: str, **parameters: object) -> int:
    """A file's statements, one by one; how many rows they inserted.

    The settings that they name are these parameters, as constants: a round's rows are planned as the few that they are.
    """
    inserted = 0
    text = (_STATEMENTS / f"{name}.sql").read_text(encoding="utf-8")
    text = text.replace("dbt_intermediate.whole_", f"dbt_intermediate.{whole_tables(conn)}")
    text = _SETTING.sub(r"%(\1)s", text.replace("%", "%%"))
    with psycopg.ClientCursor(conn) as cursor:
        for statement in text.split(";\n"):
            cursor.execute(statement.encode(), parameters)
            if cursor.statusmessage and cursor.statusmessage.startswith("INSERT"):
                inserted += cursor.rowcount
    return inserted


_SETTING = re.compile(r"current_setting\('phase2\.(\w+)'\)")
