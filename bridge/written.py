"""Which rows of the bridge were written, moved or removed since somebody looked last, whoever did it.

A row's version names the transaction that wrote it (`xmin`): new and changed rows are those that the snapshot of the
last look did not see. That is one scan which reads next to no value, and gives the very keys. Rows that are gone leave
no version. For them a look keeps one number made of all primary keys and the bookings that they hang on; what was
inserted since must explain how it has changed. Where it does not, rows were removed or moved, and are found by such a
number of each booking (`phase2.bridge_keys`): first where something was written or was to be written
(`phase2.touched_keys`), then everywhere.

Two look: `follow` (batches D and E) and `measure` (their gates). `look` fills pg_temp.written with (part, key): of part
`booking` the booking's key, of `fresh`, `queue` and `events` the row's own. `absorb` makes that the known state.
Transactions are numbered by cluster: after a restore or a move nothing can be told, and `look` says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

__all__ = ["TABLES", "absorb", "begin", "forget", "here", "look", "news", "snapshot", "young"]

# (table, primary key, whose row it is, part)
_TABLES = (
    ("booking_core", "booking_key", "booking_key", "booking"),
    ("booking_contact", "booking_key", "booking_key", "booking"),
    ("booking_party", "booking_key", "booking_key", "booking"),
    ("booking_item_snapshot", "booking_item_key", "booking_key", "booking"),
    ("payment_event", "payment_key", "booking_key", "booking"),
    ("ops_booking_state", "booking_key", "booking_key", "booking"),
    ("ops_assignment", "assignment_key", "booking_key", "booking"),
    ("ops_finance_bridge", "finance_bridge_key", "booking_key", "booking"),
    ("channel_external_refs", "external_ref_key", "entity_key", "booking"),
    ("booking_freshness", "booking_key", "booking_key", "fresh"),
    ("unmapped_queue", "queue_key", "queue_key", "queue"),
    ("ingest_event_log", "event_key", "event_key", "events"),
)
TABLES = frozenset(f"{'phase2' if part == 'fresh' else 'public'}.{table}" for table, _, _, part in _TABLES)

# Transactions count to 2^32 and around: a mark older than a quarter of it says nothing.
_TOO_OLD = 1 << 30

# Which server this is, and where it stands: what the current snapshot sees, the transaction that asks, and whether
# others of this database were at work. A server numbers the transactions of all its databases; those of another one,
# and what analyzes tables by itself, write no row here. Who may not see that they are such counts them.
_HERE = """
    select
        case
            when
                has_function_privilege('pg_catalog.pg_control_system()', 'execute')
                and has_function_privilege('pg_catalog.pg_control_checkpoint()', 'execute')
                then (select s.system_identifier::text from pg_catalog.pg_control_system() as s)
                || '/' || (select c.timeline_id::text from pg_catalog.pg_control_checkpoint() as c)
        end as server,
        pg_current_snapshot()::text as snapshot,
        coalesce(pg_current_xact_id_if_assigned()::text, '') as own,
        exists (
            select from pg_snapshot_xip(pg_current_snapshot()) as x (xid)
            where not exists (
                select from pg_catalog.pg_stat_activity as a
                where
                    a.backend_xid = (x.xid::text::bigint & 4294967295)::text::xid
                    and (a.datname <> current_database() or a.backend_type = 'autovacuum worker')
            )
        ) as beside,
        extract(epoch from now())::text as at
"""

# One scan of a table: the number of all its keys; rows that the mark's snapshot did not see go to written_rows. `age`
# leaves the few that may be such, their whole transaction number (xid8) says whether they are. What was inserted since
# says so by created_at, or by a key that was not known; if either lies, the numbers do not agree.
_SCAN = """
    with scanned as materialized (
        select
            bit_xor(r.mark) as marks,
            array_agg(r.key) filter (where r.is_young) as keys,
            array_agg(r.mark) filter (where r.is_young) as each_mark,
            array_agg(r.xid) filter (where r.is_young) as xids,
            array_agg(r.created_at) filter (where r.is_young) as created
        from (
            select
                t.{owner} as key, {mark} as mark, {created} as created_at, t.xmin as xid, {is_young} as is_young
            from only {table} as t
            where {condition}
        ) as r
    ),

    noted as (
        insert into pg_temp.written_rows (part, key, mark, is_new)
        select {part}, n.key, n.mark, coalesce(n.created_at >= to_timestamp({at}::double precision), k.key is null)
        from scanned as s
        cross join lateral unnest(s.keys, s.each_mark, s.xids, s.created) as n (key, mark, xid, created_at)
        left join phase2.bridge_keys as k
            on n.created_at is null and k.who = {who} and k.part = {part} and k.key = n.key
        where {is_news}
    )

    select coalesce(s.marks, 0) from scanned as s
"""

_REMOVED_HERE = """
    insert into pg_temp.differing (part, key, marks)
    select h.part, h.key, n.marks
    from pg_temp.suspects as h
    left join pg_temp.keys_now as n on n.part = h.part and n.key = h.key
    left join phase2.bridge_keys as k on k.who = %(who)s and k.part = h.part and k.key = h.key
    where n.marks is distinct from k.marks
"""
_REMOVED_ANYWHERE = """
    insert into pg_temp.differing (part, key, marks)
    select coalesce(n.part, k.part), coalesce(n.key, k.key), n.marks
    from pg_temp.keys_now as n
    full join (select * from phase2.bridge_keys as b where b.who = %(who)s) as k on k.part = n.part and k.key = n.key
    where n.marks is distinct from k.marks
"""


@contextmanager
def snapshot(conn: psycopg.Connection) -> Iterator[None]:
    """A transaction that reads one snapshot, and knows who was at work beside it (`here`), for what it keeps of a look.

    Who ends between the snapshot and the question may have been of this database: then a moment later another snapshot
    is tried, a few times. Sessions are told once a transaction, so what is asked here stands until its end.
    """
    for tries_left in reversed(range(20)):
        with conn.transaction():
            conn.execute("set transaction isolation level repeatable read")
            if not tries_left or not here(conn)["beside"]:
                yield
                return
        time.sleep(0.01)


def begin(conn: psycopg.Connection, who: str) -> None:
    """All that stands is known to `who`. In one snapshot, as `look`."""
    conn.execute("drop table if exists pg_temp.keys_now")
    _read_keys(conn, everywhere=True)
    conn.execute("delete from phase2.bridge_keys as k where k.who = %s", (who,))
    conn.execute(
        "insert into phase2.bridge_keys (who, part, key, marks) select %s, n.part, n.key, n.marks"
        " from pg_temp.keys_now as n order by n.key",  # in the order of the index
        (who,),
    )
    conn.execute("analyze phase2.bridge_keys")
    _keep(conn, who, {**here(conn), "keys": _number(conn, "select bit_xor(n.marks) from pg_temp.keys_now as n")})


def forget(conn: psycopg.Connection, who: str) -> None:
    """Nothing is known of an earlier look."""
    conn.execute("delete from phase2.warehouse_state where part = %s", (_part(who),))


def look(conn: psycopg.Connection, who: str) -> str | None:
    """Fill pg_temp.written with what was written since `who` looked last; or say why it cannot be told.

    The caller's transaction is repeatable read: all of it is of one snapshot.
    """
    mark = _mark(conn, who)
    if mark is None:
        return "nothing is known of an earlier look"
    is_young = young(conn, mark)
    if is_young is None:
        return "the rows are of another server, were restored, or were looked at too long ago"
    conn.execute("drop table if exists pg_temp.written, pg_temp.written_rows, pg_temp.differing, pg_temp.looked")
    conn.execute("create temporary table written_rows (part text, key uuid, mark bigint, is_new boolean)")
    conn.execute("create temporary table differing (part text, key uuid, marks bigint)")
    keys = 0
    for number, (name, pk, owner, part) in enumerate(_TABLES):
        row = conn.execute(
            sql.SQL(_SCAN).format(
                owner=sql.Identifier(owner),
                mark=_hash(number, pk, owner),
                created=sql.SQL("t.created_at" if part == "booking" else "null::timestamptz"),
                is_young=is_young,
                table=_relation(name, part),
                condition=_condition(name),
                part=sql.Literal(part),
                at=sql.Literal(mark["at"]),
                who=sql.Literal(who),
                is_news=news(mark, "n.xid"),
            )
        ).fetchone()
        keys ^= row[0] if row else 0
    conn.execute("analyze pg_temp.written_rows")
    added = _number(conn, "select bit_xor(w.mark) from pg_temp.written_rows as w where w.is_new")
    if mark["keys"] ^ added == keys:
        conn.execute(
            "insert into pg_temp.differing (part, key, marks)"
            " select w.part, w.key, bit_xor(w.mark) # coalesce(max(k.marks), 0) from pg_temp.written_rows as w"
            " left join phase2.bridge_keys as k on k.who = %s and k.part = w.part and k.key = w.key"
            " where w.is_new group by 1, 2",
            (who,),
        )
    else:
        _find_removed(conn, who, mark["keys"] ^ keys)
    conn.execute(
        "create temporary table written as select w.part, w.key from pg_temp.written_rows as w"
        " union select d.part, d.key from pg_temp.differing as d"
    )
    conn.execute("analyze pg_temp.written")
    said = json.dumps({**here(conn), "keys": keys})
    conn.execute(sql.SQL("create temporary table looked as select {} as said").format(sql.Literal(said)))
    return None


def absorb(conn: psycopg.Connection, who: str) -> None:
    """What the last `look` on this connection found is known to `who` from here on."""
    conn.execute(
        "delete from phase2.bridge_keys as k using pg_temp.differing as d"
        " where k.who = %s and k.part = d.part and k.key = d.key",
        (who,),
    )
    conn.execute(
        "insert into phase2.bridge_keys (who, part, key, marks)"
        " select %s, d.part, d.key, d.marks from pg_temp.differing as d where d.marks is not null",
        (who,),
    )
    row = conn.execute("select l.said from pg_temp.looked as l").fetchone()
    assert row is not None
    _keep(conn, who, json.loads(row[0]))


def here(conn: psycopg.Connection) -> dict[str, Any]:
    """Which server this is (None: it does not say), what the current snapshot sees, which transaction asks ('' before
    it writes), whether others of this database are at work, and when."""
    row = conn.execute(_HERE).fetchone()
    assert row is not None
    return dict(zip(("server", "snapshot", "own", "beside", "at"), row, strict=True))


def young(conn: psycopg.Connection, mark: dict[str, Any]) -> sql.Composable | None:
    """A predicate over alias `t` that no row fails which `mark` (of `here`) has not seen; None: it cannot be told.

    It lets a few through that were seen: those of transactions beside the oldest one that was at work then. Of what it
    wrote itself none: after a first run these are all rows that there are.
    """
    row = conn.execute(
        "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint - m.oldest,"
        " age((m.oldest & 4294967295)::text::xid)"
        " from (select pg_snapshot_xmin(%s::pg_snapshot)::text::bigint as oldest) as m",
        (mark["snapshot"],),
    ).fetchone()
    gone_by, age = row or (-1, 0)
    server = here(conn)["server"]
    if server is None or server != mark["server"] or not 0 <= gone_by < _TOO_OLD:
        return None
    own = sql.Literal(str(int(mark["own"]) & 0xFFFFFFFF)) if mark["own"] else None
    return sql.SQL("(age(t.xmin) <= {}{})").format(
        sql.Literal(age), sql.SQL(" and t.xmin <> {}::xid").format(own) if own else sql.SQL("")
    )


def news(mark: dict[str, Any], xid: str) -> sql.Composable:
    """Whether the mark's snapshot did not see a transaction (xid, its lower half), of rows that are `young`."""
    # A snapshot names the transactions that were at work, not their savepoints': beside one of these only what is older
    # than all of them was surely seen. What has been seen and is taken for new is looked at once more, no more.
    if mark.get("beside", True):
        seen = sql.SQL("x.whole < pg_snapshot_xmin({}::pg_snapshot)").format(sql.Literal(mark["snapshot"]))
    else:
        seen = sql.SQL("pg_visible_in_snapshot(x.whole, {}::pg_snapshot)").format(sql.Literal(mark["snapshot"]))
    return sql.SQL(
        "(select not {seen} from ("
        " select (m.now - (((m.now - {xid}::text::bigint + 2147483648) & 4294967295) - 2147483648))::text::xid8"
        " as whole"
        " from (select pg_snapshot_xmax(pg_current_snapshot())::text::bigint as now) as m) as x)"
    ).format(seen=seen, xid=sql.SQL(xid))


def _find_removed(conn: psycopg.Connection, who: str, moved: int) -> None:
    """Fill pg_temp.differing; `moved`: by what the number of all keys has changed."""
    conn.execute("drop table if exists pg_temp.suspects, pg_temp.keys_now")
    conn.execute(
        "create temporary table suspects as select w.part, w.key from pg_temp.written_rows as w"
        " union select 'booking', t.booking_key from phase2.touched_keys as t"
    )
    conn.execute("analyze pg_temp.suspects")
    _read_keys(conn, everywhere=False)
    conn.execute(_REMOVED_HERE, {"who": who})
    explained = _number(
        conn,
        "select bit_xor(coalesce(d.marks, 0) # coalesce(k.marks, 0)) from pg_temp.differing as d"
        " left join phase2.bridge_keys as k on k.who = %s and k.part = d.part and k.key = d.key",
        who,
    )
    if explained != moved:
        conn.execute("truncate pg_temp.differing")
        conn.execute("drop table pg_temp.keys_now")
        _read_keys(conn, everywhere=True)
        conn.execute(_REMOVED_ANYWHERE, {"who": who})


def _read_keys(conn: psycopg.Connection, *, everywhere: bool) -> None:
    """Make pg_temp.keys_now: of each booking (or of those in pg_temp.suspects) the number of its rows' keys."""
    suspects = sql.SQL(" and t.{owner} in (select s.key from pg_temp.suspects as s where s.part = {part})")
    parts = []
    for of in dict.fromkeys(part for *_, part in _TABLES):
        scans = [
            sql.SQL("select t.{owner} as key, {mark} as mark from only {table} as t where {condition}{suspect}").format(
                owner=sql.Identifier(owner), mark=_hash(number, pk, owner),
                table=_relation(name, part), condition=_condition(name),
                suspect=sql.SQL("") if everywhere
                else suspects.format(owner=sql.Identifier(owner), part=sql.Literal(part)),
            )
            for number, (name, pk, owner, part) in enumerate(_TABLES) if part == of
        ]  # fmt: skip
        # each part by itself: a group is found by its key alone, without comparing words
        parts.append(
            sql.SQL(
                "select {part} as part, r.key, bit_xor(r.mark) as marks from ({scans}) as r where r.key is not null"
                " group by r.key"
            ).format(part=sql.Literal(of), scans=sql.SQL(" union all ").join(scans))
        )
    conn.execute(sql.SQL("create temporary table keys_now as {}").format(sql.SQL(" union all ").join(parts)))
    conn.execute("analyze pg_temp.keys_now")


def _hash(number: int, pk: str, owner: str) -> sql.Composed:
    """A row by its table, its key and whose it is: a row that moves is another."""
    if pk == owner:
        return sql.SQL("uuid_hash_extended(t.{}, {})").format(sql.Identifier(pk), sql.Literal(number))
    return sql.SQL("uuid_hash_extended(t.{}, uuid_hash_extended(t.{}, {}))").format(
        sql.Identifier(owner), sql.Identifier(pk), sql.Literal(number)
    )


def _relation(name: str, part: str) -> sql.Identifier:
    return sql.Identifier("phase2" if part == "fresh" else "public", name)


def _condition(name: str) -> sql.SQL:
    return sql.SQL("t.entity_type = 'BOOKING'" if name == "channel_external_refs" else "true")


def _part(who: str) -> str:
    return f"seen by {who}"


def _mark(conn: psycopg.Connection, who: str) -> dict[str, Any] | None:
    row = conn.execute("select w.digest from phase2.warehouse_state as w where w.part = %s", (_part(who),)).fetchone()
    return json.loads(row[0]) if row else None


def _keep(conn: psycopg.Connection, who: str, mark: dict[str, Any]) -> None:
    conn.execute(
        "insert into phase2.warehouse_state (part, digest) values (%s, %s)"
        " on conflict (part) do update set digest = excluded.digest, built_at = now()",
        (_part(who), json.dumps(mark)),
    )


def _number(conn: psycopg.Connection, question: str, *parameters: object) -> int:
    row = conn.execute(question.encode(), parameters or None).fetchone()
    return (row[0] if row else None) or 0
