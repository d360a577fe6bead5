"""Measuring gates where something was touched: what was found of other bookings was kept.

The views in dbt_recon say what the gates count. Of those that have a row for a booking (or for what is wrong with one)
the rows are kept, `dbt_recon.kept_…`; measures, parity and lists are made of kept rows by the same SQL as of the views
(dbt_project/macros/materializations/recon_view.sql makes the twins), sums of rows that went and came. `read` brings the
rows up to date first:

    what may be measured otherwise is found by row versions (bridge/written.py) of everything that the views read,
    landed or bridged, whoever wrote it: what the run says of itself is not asked;
    what was or is held against it is taken in (bridge/follow.py, sql/follow/measured_close.sql);
    kept rows of these bookings are deleted, and made again by the views on these bookings alone;
    sums are kept as sums: those of the deleted rows are taken off, those of the new ones added, by the same SQL.

It is one transaction and one snapshot. What cannot be told apart like that is measured of all rows; `read` says why.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

from bridge import changes, follow, written

__all__ = ["BATCHES", "Measured", "forget", "prepare", "read", "renew", "stands"]

# The view that a batch's verdict reads of bookings, by the dbt selector of its gates. A and B have the global gates.
BATCHES = {"gates_a": "global", "gates_b": "global", "gates_c": "c", "gates_d": "d", "gates_e": "e"}

# Whose a kept row is; of a finding about the catalog nobody's, it is made again each time. In the order in which the
# views read each other.
_ROW = "(split_part(k.source, '.', 1), k.booking_id)"
_IDENTITY = "(k.source_system, k.booking_id)"
_FINDING = "case k.entity when 'booking' then k.key else (k.detail ->> 'booking_key')::uuid end"
_KEPT = {
    "recon_booking_links": _IDENTITY,
    "recon_rows_bookings": _ROW,
    "recon_rows_items": _ROW,
    "recon_rows_travellers": _ROW,
    "recon_source_identities": _IDENTITY,
    "recon_values": _FINDING,
    "recon_status_drift": _FINDING,
    "recon_stored_status": _FINDING,
    "recon_payment_linkage": _FINDING,
    "recon_head_counts": _FINDING,
    "recon_orphans": _FINDING,
    "recon_core_faults": "k.key",
    "recon_unsourced": "k.booking_key",
    "recon_ref_marks": "k.entity_key",
}
# Who shares a ref is not known by booking: made again where any booking's refs are others.
_TOGETHER = ("recon_duplicate_bookings", "recon_duplicate_refs")
_MARKS = "recon_ref_marks"
# Sums over kept rows: what went is taken off them, what came is added.
_SUMS = ("recon_sums", "recon_identity_sums")
_ROW_OF_MARKS = "hash_record_extended(row(k.entity_key, k.mark), 0)"
_KEPT_OF_E = {
    "recon_rows_payments": _ROW,
    "recon_rows_finances": _ROW,
    "recon_rows_finance_items": _ROW,
    "recon_audit_sample": "k.booking_key",
    "recon_done_unpaid": "k.booking_key",
}
_ALL = _KEPT | _KEPT_OF_E
_STATE = "measured"
_WHO = "measure"


@dataclass(frozen=True)
class Measured:
    """How a batch's gates were measured: `whole` says why of all rows, None: of the bookings and keys counted here."""

    whole: str | None
    bookings: int = 0
    keys: int = 0


def read(
    conn: psycopg.Connection,
    batch: str,
    project: str,
    run_id: UUID,
    *,
    whole: str | None = None,
    unless_whole: Collection[str] = ("global", "c"),
) -> Measured:
    """Measure what `BATCHES` names into its reading in dbt_recon, as this run.

    `conn` is outside of a transaction. `whole`: why all rows are to be measured, whatever is known; gates of the
    batches in `unless_whole` are not measured here then.
    """
    with written.snapshot(conn):
        conn.execute("set local jit = off; set local work_mem = '128MB'; set local hash_mem_multiplier = 2")
        was = _state(conn)
        if batch == "global":  # of an earlier batch of this run
            conn.execute("drop table if exists dbt_recon.recon_global_reading")
        if not was and batch == "global":  # on a first run the tables that are asked may not be there yet
            return Measured("nothing is kept of an earlier measure")
        now = _now(conn, project)
        whole = whole or _why_not(conn, was, now) or written.look(conn, _WHO)
        if batch == "c" and not whole and _catalog_stands_alone(conn):
            _write_reading(conn, batch, run_id)
            return Measured(None)
        whole = whole or _touch(conn, was)
        if whole and batch in unless_whole:  # C's own views are small: nothing of them is kept
            return Measured(whole)
        if whole:
            kept = _measure_all(conn, _ALL if batch == "e" else _KEPT)
            measured = Measured(whole)
        else:
            kept = _measure_touched(conn, was["kept"])
            measured = Measured(None, *follow.size(conn))
        _write_reading(conn, batch, run_id)
        if whole or follow.size(conn) != (0, 0):  # what is known from here on, other batches' readings do not have
            conn.execute("delete from phase2.warehouse_state where part like 'reading gates%'")
        if kept is None:
            forget(conn)
            return measured
        if whole:
            written.begin(conn, _WHO)
        else:
            written.absorb(conn, _WHO)
        state = {**now, "kept": kept, "landed": _landed_marks(conn), **written.here(conn)}
        conn.execute(
            "insert into phase2.warehouse_state (part, digest) values (%s, %s)"
            " on conflict (part) do update set digest = excluded.digest, built_at = now()",
            (_STATE, json.dumps(state)),
        )
    return measured


def _catalog_stands_alone(conn: psycopg.Connection) -> bool:
    """Whether kept rows are right for the gates of batch C as they are.

    These ask of bookings only who shares a ref in the bridge, and else of the catalog. So where nobody has written to
    the bridge's bookings (`written.look`), those that were landed since are left for batch D.
    """
    if conn.execute("select exists (select 1 from pg_temp.written as w where w.part <> 'events')").fetchone() == (
        True,
    ):
        return False
    conn.execute("truncate phase2.touched_bookings, phase2.touched_keys, phase2.touched_names")
    _fill_touched(conn)
    return not any(
        conn.execute(
            sql.SQL(_OTHER_FINDINGS).format(kept=_relation("kept", view), part=_relation("part", view))
        ).rowcount
        for view, owner in _ALL.items()
        if owner is _FINDING or view == _MARKS
    )


# What is said of the catalog, and was not, or the other way round.
_OTHER_FINDINGS = """
(select k.* from {kept} as k where k.batch = 'C' except all select p.* from {part} as p where p.batch = 'C')
union all
(select p.* from {part} as p where p.batch = 'C' except all select k.* from {kept} as k where k.batch = 'C')
"""


def stands(conn: psycopg.Connection, project: str) -> bool:
    """Whether nothing of bookings, landed or bridged, nor of events, is other than when it was measured last."""
    with conn.transaction(force_rollback=True):
        conn.execute("set transaction isolation level repeatable read")
        return prepare(conn, project)[1] is None and follow.size(conn) == (0, 0) and not follow.others_wrote(conn)


def forget(conn: psycopg.Connection) -> None:
    """The next time all rows are measured."""
    conn.execute("delete from phase2.warehouse_state where part = %s", (_STATE,))


def renew(conn: psycopg.Connection) -> None:
    """Before the views are made again: the tables for touched and moved rows go, their columns may be others."""
    for twin in ("touched", "gone", "made"):
        for name in _twins(conn, twin):
            conn.execute(sql.SQL("drop table {} cascade").format(_relation(twin, name)))


def _twins(conn: psycopg.Connection, twin: str) -> list[str]:
    """What has a table `twin_…`: landed and canonical tables (touched), views whose rows are summed (gone, made)."""
    names = conn.execute(
        "select substr(c.relname, length(%(twin)s) + 2) from pg_catalog.pg_class as c"
        " where c.relnamespace = to_regnamespace('dbt_recon') and c.relkind = 'r'"
        " and starts_with(c.relname, %(twin)s || '_') order by 1",
        {"twin": twin},
    )
    return [name for (name,) in names]


def prepare(conn: psycopg.Connection, project: str) -> tuple[dict[str, Any], str | None]:
    """Fill the touched tables with what has to be measured again: (what that rests on, why all rows have to be)."""
    was, now = _state(conn), _now(conn, project)
    # which looks first where the batch was to write: before the touched tables are emptied
    return now, _why_not(conn, was, now) or written.look(conn, _WHO) or _touch(conn, was)


def _now(conn: psycopg.Connection, project: str) -> dict[str, Any]:
    row = conn.execute("select coalesce(max(c.change_no), 0) from phase2.landed_changes as c").fetchone()
    return {**follow.premises(conn, project), "sample": _sample(conn), "change_no": row[0] if row else 0}


def _state(conn: psycopg.Connection) -> dict[str, Any]:
    row = conn.execute("select w.digest from phase2.warehouse_state as w where w.part = %s", (_STATE,)).fetchone()
    return json.loads(row[0]) if row else {}


def _why_not(conn: psycopg.Connection, was: dict[str, Any], now: dict[str, Any]) -> str | None:
    if not was:
        return "nothing is kept of an earlier measure"
    for name, why in _PREMISES.items():
        if was.get(name) != now[name]:
            return why
    if now["sample"]:
        return "an export of captures is given"
    if not _is_as_kept(conn, was):
        return "somebody has changed what was kept of an earlier measure"
    return None


_PREMISES = follow.PREMISES | {"sample": "the export of captures is another"}


def _sample(conn: psycopg.Connection) -> str:
    row = conn.execute("select coalesce(count(*)::text, '') from phase2.audit_sample having count(*) > 0").fetchone()
    return str(row[0]) if row else ""


def _is_as_kept(conn: psycopg.Connection, was: dict[str, Any]) -> bool:
    """Whether nobody but `read` has written to kept rows: as many as then, and none that it did not see or write."""
    is_young = written.young(conn, was)
    if is_young is None:
        return False
    counts = [
        sql.SQL(
            "select {name}, count(*), count(*) filter (where case when {is_young} then {is_news} end) from {kept} as t"
        ).format(
            name=sql.Literal(view), is_young=is_young, is_news=written.news(was, "t.xmin"), kept=_relation("kept", view)
        )
        for view in (*_ALL, *_TOGETHER, *_SUMS)
    ]
    rows = conn.execute(sql.SQL(" union all ").join(counts)).fetchall()
    return all(news == 0 for *_, news in rows) and {view: count for view, count, _ in rows} == was["kept"]


def _touch(conn: psycopg.Connection, was: dict[str, Any]) -> str | None:
    """Fill the touched tables after `written.look`; or say why all rows must be measured."""
    conn.execute("truncate phase2.touched_bookings, phase2.touched_keys, phase2.touched_names")
    if why := _find_landed(conn, was):
        return why
    found, gone = conn.execute(_FOUND).fetchone() or (False, False)
    if gone:
        return "rows of the queue are gone"
    if not found:
        return None
    if follow.whole_tables(conn) is None:
        return "the working tables of the last whole run are not at hand"
    follow.run_file(conn, "measured_seeds")
    follow.run_file(conn, "landed_seeds")
    follow.close(conn, "measured_close")
    return follow.too_many(conn)


# Whether anything is to be measured again, and whether a row of the queue is gone: whose it was cannot be told.
_FOUND = """
    select
        exists (select 1 from pg_temp.written as w where w.part <> 'events')
        or exists (select 1 from pg_temp.changes_since),
        exists (
            select 1 from pg_temp.written as w
            where
                w.part = 'queue'
                and not exists (select 1 from public.unmapped_queue as q where q.queue_key = w.key)
        )
"""

# Landed tables that lead to bookings, with their keys.
_LANDED = {
    ("balisnap", "Departure"): "departure_id",
    ("balisnap", "Booking"): "booking_id",
    ("balisnap", "BookingItem"): "booking_item_id",
    ("balisnap", "BookingTraveler"): "traveler_id",
    ("balisnap", "Payment"): "payment_id",
    ("bstadmin", "bookings"): "booking_id",
    ("bstadmin", "booking_finances"): "booking_finance_id",
    ("bstadmin", "booking_finance_items"): "finance_item_id",
}


def _find_landed(conn: psycopg.Connection, was: dict[str, Any]) -> str | None:
    """Fill pg_temp.changes_since with what leads to bookings whose landed rows are others; or say why not.

    Rows that landings wrote or removed are noted (phase2.landed_changes); any other that was written shows it by its
    version, and any other that is gone or has moved by the number of all keys.
    """
    is_young = written.young(conn, was)
    if is_young is None:
        return "the rows are of another server, were restored, or were looked at too long ago"
    conn.execute("drop table if exists pg_temp.changes_since")
    conn.execute(
        "create temporary table changes_since as"
        " select c.source, c.table_name, c.parent, c.booking_key from phase2.landed_changes as c"
        " where c.change_no > %s and c.kind <> 'touched' and c.parent is not null",
        (was["change_no"],),
    )
    for source, table in _LANDED:
        conn.execute(
            sql.SQL(
                "insert into pg_temp.changes_since (source, table_name, parent)"
                " select distinct {source}, {table}, t.{parent} from {landed} as t"
                " where case when {is_young} then {is_news} end"
            ).format(
                source=sql.Literal(source),
                table=sql.Literal(table),
                parent=sql.Identifier(changes.PARENTS[source, table]),
                landed=sql.Identifier(f"landing_{source}", table),
                is_young=is_young,
                is_news=written.news(was, "t.xmin"),
            )
        )
    conn.execute("analyze pg_temp.changes_since")
    if _landed_marks(conn) != was["landed"]:
        return "landed rows are gone, or belong elsewhere, without a landing"
    return None


def _landed_marks(conn: psycopg.Connection) -> dict[str, int]:
    """Of each landed table a number of its keys, without what landings have added, removed or moved since all rows were
    copied: it stays."""
    scans = [
        sql.SQL(
            "select {name}, (select coalesce(bit_xor({mark}), 0) from {landed} as t)"
            " # coalesce((select m.marks from phase2.landed_moves as m"
            " where m.source = {source} and m.table_name = {table}), 0)"
        ).format(
            name=sql.Literal(f"{source}.{table}"),
            mark=changes.mark_of(f't."{key}"', f't."{changes.PARENTS[source, table]}"'),
            landed=sql.Identifier(f"landing_{source}", table),
            source=sql.Literal(source),
            table=sql.Literal(table),
        )
        for (source, table), key in _LANDED.items()
    ]
    return dict(conn.execute(sql.SQL(" union all ").join(scans)).fetchall())


def _measure_all(conn: psycopg.Connection, views: dict[str, str]) -> dict[str, int] | None:
    """Make the kept rows of these views anew; how many of each, None where they are not to be followed."""
    kept = {}
    # of all rows with all rows: a plan that took them for a few would look up each by itself, for hours
    conn.execute("set local enable_nestloop = off")
    for view in _ALL:
        conn.execute(sql.SQL("truncate {}").format(_relation("kept", view)))
    for view in (*views, *_TOGETHER, *_SUMS):
        kept[view] = _make(conn, view, view if view in _TOGETHER else f"anew_{view}")
        conn.execute(sql.SQL("analyze {}").format(_relation("kept", view)))
    conn.execute("reset enable_nestloop")
    return kept if views is _ALL and not _has_strays(conn, _ALL) else None


def _make(conn: psycopg.Connection, view: str, rows: str) -> int:
    """The kept rows of a view, all of them, by the view `rows`; how many."""
    kept = {"kept": _relation("kept", view), "view": sql.Identifier("dbt_recon", rows)}
    conn.execute(sql.SQL("truncate {kept}").format(**kept))
    return conn.execute(sql.SQL("insert into {kept} select * from {view}").format(**kept)).rowcount


def _measure_touched(conn: psycopg.Connection, were: dict[str, int]) -> dict[str, int] | None:
    """Make the kept rows of touched bookings again; how many of each view there are then, None as `_measure_all`."""
    _fill_touched(conn)
    kept: dict[str, int] = {}
    strays = refs_stand = False
    summed = set(_twins(conn, "gone"))
    for view, owner in _ALL.items():
        row = sql.SQL(_ROW_OF_MARKS if view == _MARKS else "null::bigint")
        gone, said, _ = _move(
            conn, view, summed, "gone", row, sql.SQL("false"),
            sql.SQL("delete from {kept} as k where {is_touched} returning k.*").format(
                kept=_relation("kept", view), is_touched=_is_touched(owner)
            ),
        )  # fmt: skip
        made, says, stray = _move(
            conn, view, summed, "made", row, _is_stray(owner),
            sql.SQL("insert into {kept} as k select * from {part} returning k.*").format(
                kept=_relation("kept", view), part=_relation("part", view)
            ),
        )  # fmt: skip
        kept[view] = were[view] - gone + made
        strays = strays or stray
        if view == _MARKS:
            refs_stand = said == says
    for view in _TOGETHER:
        kept[view] = were[view] if refs_stand else _make(conn, view, view)
    for view in _SUMS:
        kept[view] = _add_up(conn, view)
    return None if strays else kept


def _move(
    conn: psycopg.Connection,
    view: str,
    summed: set[str],
    twin: str,
    row: sql.Composable,
    is_stray: sql.Composable,
    statement: sql.Composable,
) -> tuple[int, int | None, bool]:
    """Take rows away from a view's kept ones ("gone"), or add them ("made"), and note them where they are summed up:
    how many, what `row` says of all of them, whether one is nobody's."""
    parts = {"moved": _relation(twin, view), "statement": statement, "row": row, "is_stray": is_stray}
    noted = sql.SQL("")
    if view in summed:
        conn.execute(sql.SQL("truncate {moved}").format(**parts))
        noted = sql.SQL(", noted as (insert into {moved} select * from moved)").format(**parts)
    return conn.execute(
        sql.SQL(
            "with moved as ({statement}){noted}"
            " select count(*), bit_xor({row}), coalesce(bool_or({is_stray}), false) from moved as k"
        ).format(**parts, noted=noted)
    ).fetchone() or (0, None, False)


def _add_up(conn: psycopg.Connection, view: str) -> int:
    """Bring kept sums up to date: numeric columns are added, the others say of what; how many sums there are."""
    columns = conn.execute(
        "select a.attname, a.atttypid = 'numeric'::regtype from pg_catalog.pg_attribute as a"
        " where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum",
        (_relation("kept", view).as_string(conn),),
    ).fetchall()

    def listed(
        added: LiteralString,
        what: LiteralString = "{}",
        between: LiteralString = ", ",
        *,
        of: Collection[bool] = (True, False),
    ) -> sql.Composed:
        forms = [sql.SQL(added if is_sum else what).format(sql.Identifier(c)) for c, is_sum in columns if is_sum in of]
        return sql.SQL(between).join(forms)

    grouped = sql.SQL(" group by {} having {}").format(
        listed("{}", of=[False]), listed("sum({}) <> 0", between=" or ", of=[True])
    )
    names = {
        "kept": _relation("kept", view), "made": _relation("made", view), "gone": _relation("gone", view),
        "sums": listed("sum({0}) as {0}", "{0}"), "off": listed("-{}"),
        "groups": sql.SQL("") if all(is_sum for _, is_sum in columns) else grouped,
    }  # fmt: skip
    conn.execute("drop table if exists pg_temp.sums")
    conn.execute(
        sql.SQL(
            "create temporary table sums as select {sums} from ("
            "select * from {kept} union all select * from {made} union all select {off} from {gone}) as s{groups}"
        ).format(**names)
    )
    conn.execute(sql.SQL("truncate {kept}").format(**names))
    return conn.execute(sql.SQL("insert into {kept} select * from pg_temp.sums").format(**names)).rowcount


def _fill_touched(conn: psycopg.Connection) -> None:
    """The rows of touched bookings, of each landed and canonical table that the views read."""
    for name in _twins(conn, "touched"):
        names = {"touched": _relation("touched", name), "part": _relation("part", name)}
        conn.execute(sql.SQL("truncate {touched}").format(**names))
        conn.execute(sql.SQL("insert into {touched} select * from {part}").format(**names))
        conn.execute(sql.SQL("analyze {touched}").format(**names))


def _is_touched(owner: str) -> sql.Composed:
    if owner in (_ROW, _IDENTITY):
        of = "{} in (select t.source_system, t.booking_id from phase2.touched_bookings as t)"
    else:
        of = "{} in (select t.booking_key from phase2.touched_keys as t)"
    if owner in (_FINDING, _KEPT[_MARKS]):
        of += " or k.batch = 'C'"
    return sql.SQL(of).format(sql.SQL(owner))  # type: ignore[arg-type]


def _is_stray(owner: str) -> sql.Composable:
    """Whether a kept row is of no booking that could be told: then it could not be found again."""
    if owner in (_ROW, _IDENTITY):
        return sql.SQL("k.booking_id is null")
    batch = " and k.batch <> 'C'" if owner is _FINDING else ""
    return sql.SQL(f"({owner}) is null{batch}")  # type: ignore[arg-type]


def _has_strays(conn: psycopg.Connection, views: dict[str, str]) -> bool:
    questions = [
        sql.SQL("exists (select 1 from {} as k where {})").format(_relation("kept", view), _is_stray(owner))
        for view, owner in views.items()
    ]
    return conn.execute(sql.SQL("select {}").format(sql.SQL(" or ").join(questions))).fetchone() == (True,)


def _write_reading(conn: psycopg.Connection, batch: str, run_id: UUID) -> None:
    """As the model recon_{batch}_reading has it, of kept rows."""
    names = {
        "reading": sql.Identifier("dbt_recon", f"recon_{batch}_reading"),
        "said": _relation("kept", f"recon_{batch}"),
        "run_id": sql.Literal(run_id),
    }
    said = sql.SQL(
        "select r.kind, r.gate_id, r.numerator, r.denominator, r.value, r.entity, r.key, r.status, r.is_counted,"
        " r.detail, now() as read_at, {run_id} as run_id from {said} as r"
    ).format(**names)
    conn.execute(
        sql.SQL("create unlogged table if not exists {reading} as {rows} with no data").format(**names, rows=said)
    )
    conn.execute(sql.SQL("truncate {reading}").format(**names))
    conn.execute(sql.SQL("insert into {reading} {rows}").format(**names, rows=said))


def _relation(twin: str, view: str) -> sql.Identifier:
    return sql.Identifier("dbt_recon", f"{twin}_{view}")
