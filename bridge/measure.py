"""Measuring the gates of batches D and E where something was touched: what was found of other bookings was kept.

The views in dbt_recon say what the gates count. Of those that have a row for a booking (or for what is wrong with one)
the rows are kept, `dbt_recon.kept_…`; measures, parity and lists are made of kept rows by the same SQL as of the views
(dbt_project/macros/materializations/recon_view.sql makes the twins). `read` brings the rows up to date first:

    what may be measured otherwise is found by row versions (phase2.measured_ranges) of everything that the views read,
    landed or bridged, whoever wrote it: what the run says of itself is not asked;
    what was or is held against it is taken in (bridge/follow.py, sql/follow/measured_close.sql);
    kept rows of these bookings are deleted, and made again by the views on these bookings alone.

It is one transaction and one snapshot. What cannot be told apart like that is measured of all rows; `read` says why.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import psycopg
from psycopg import sql

from bridge import follow

__all__ = ["BATCHES", "Measured", "forget", "prepare", "read", "renew"]

BATCHES = {"gates_d": "d", "gates_e": "e"}

# Whose a kept row is; of a finding about the catalog nobody's, it is made again each time.
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
}
_KEPT_OF_E = {
    "recon_rows_payments": _ROW,
    "recon_rows_finances": _ROW,
    "recon_rows_finance_items": _ROW,
    "recon_audit_sample": "k.booking_key",
}
_ALL = _KEPT | _KEPT_OF_E
_STATE = "measured"


@dataclass(frozen=True)
class Measured:
    """How a batch's gates were measured: `whole` says why of all rows, None: of the bookings and keys counted here."""

    whole: str | None
    bookings: int = 0
    keys: int = 0


def read(conn: psycopg.Connection, batch: str, project: str, *, whole: str | None = None) -> Measured:
    """Measure the gates of `batch` ("d", "e") into dbt_recon.recon_{batch}_reading, as the run in phase2.run_context.

    `conn` is outside of a transaction. `whole`: why all rows are to be measured, whatever is known.
    """
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("set local jit = off; set local work_mem = '128MB'; set local hash_mem_multiplier = 2")
        now, why = prepare(conn, project)
        whole = whole or why
        if whole:
            views = _ALL if batch == "e" else _KEPT
            _measure_all(conn, views)
            measured = Measured(whole)
        else:
            views = _ALL
            _measure_touched(conn)
            measured = Measured(None, *follow.size(conn))
        _write_reading(conn, batch)
        follow.run_file(conn, "measured_keep")
        if views is _ALL and not _has_strays(conn):
            state = json.dumps({**now, "kept": _kept_digest(conn)})
            conn.execute(
                "insert into phase2.warehouse_state (part, digest) values (%s, %s)"
                " on conflict (part) do update set digest = excluded.digest, built_at = now()",
                (_STATE, state),
            )
        else:
            forget(conn)
    return measured


def forget(conn: psycopg.Connection) -> None:
    """The next time all rows are measured."""
    conn.execute("delete from phase2.warehouse_state where part = %s", (_STATE,))


def renew(conn: psycopg.Connection) -> None:
    """Before the views are made again: the tables for rows of touched bookings go, their columns may be others."""
    for (name,) in conn.execute(_TOUCHED).fetchall():
        conn.execute(sql.SQL("drop table {} cascade").format(_relation("touched", name)))


# The landed and canonical tables that have one.
_TOUCHED = """
select substr(c.relname, length('touched_') + 1)
from pg_catalog.pg_class as c
where c.relnamespace = to_regnamespace('dbt_recon') and c.relkind = 'r' and c.relname like 'touched\\_%'
order by 1
"""


def prepare(conn: psycopg.Connection, project: str) -> tuple[dict[str, str], str | None]:
    """Fill the touched tables with what has to be measured again: (what that rests on, why all rows have to be)."""
    conn.execute("truncate phase2.touched_bookings, phase2.touched_keys, phase2.touched_names")
    follow.run_file(conn, "measured_ranges")
    now = {**follow.premises(conn, project), "sample": _sample(conn)}
    _differ(conn)
    return now, _why_not(conn, now) or _touch(conn)


def _why_not(conn: psycopg.Connection, now: dict[str, str]) -> str | None:
    row = conn.execute("select w.digest from phase2.warehouse_state as w where w.part = %s", (_STATE,)).fetchone()
    if row is None:
        return "nothing is kept of an earlier measure"
    was = json.loads(row[0])
    for name, why in _PREMISES.items():
        if was.get(name) != now[name]:
            return why
    if now["sample"]:
        return "an export of captures is given"
    if was.get("kept") != _kept_digest(conn):
        return "somebody has changed what was kept of an earlier measure"
    return None


_PREMISES = follow.PREMISES | {"sample": "the export of captures is another"}


def _sample(conn: psycopg.Connection) -> str:
    row = conn.execute("select coalesce(count(*)::text, '') from phase2.audit_sample having count(*) > 0").fetchone()
    return str(row[0]) if row else ""


def _differ(conn: psycopg.Connection) -> None:
    conn.execute("drop table if exists pg_temp.measured_differing, pg_temp.kept_findings")
    conn.execute(
        "create temporary table measured_differing as"
        " select coalesce(n.part, h.part) as part, coalesce(n.range_no, h.range_no) as range_no"
        " from phase2.measured_ranges as h"
        " full join pg_temp.measured_now as n on n.part = h.part and n.range_no = h.range_no"
        " where (h.row_count, h.version) is distinct from (n.row_count, n.version)"
    )
    conn.execute("analyze pg_temp.measured_differing")


def _touch(conn: psycopg.Connection) -> str | None:
    """Fill the touched tables; or say why all rows must be measured."""
    ranges, strays = conn.execute(
        "select count(*), count(*) filter (where range_no = -1) from pg_temp.measured_differing"
    ).fetchone() or (0, 0)
    if strays:
        return "rows have changed whose booking cannot be told"
    if not ranges:
        return None
    row = conn.execute("select to_regclass('dbt_intermediate.whole_booking_sources') is not null").fetchone()
    if row != (True,):
        return "the working tables of the last whole run are not at hand"
    conn.execute(
        sql.SQL("create temporary table kept_findings as {}").format(
            sql.SQL(" union all ").join(
                sql.SQL("select {} as booking_key from {} as k where k.batch <> 'C'").format(
                    sql.SQL(owner), _relation("kept", view)
                )
                for view, owner in _ALL.items()
                if owner is _FINDING
            )
        )
    )
    follow.run_file(conn, "measured_seeds")
    follow.close(conn, "measured_close")
    for table in ("bookings", "keys"):
        conn.execute(sql.SQL("analyze phase2.{}").format(sql.Identifier(f"touched_{table}")))
    return follow.too_many(conn)


def _measure_all(conn: psycopg.Connection, views: dict[str, str]) -> None:
    for view in _ALL:
        conn.execute(sql.SQL("truncate {}").format(_relation("kept", view)))
    for view in views:
        conn.execute(
            sql.SQL("insert into {} select * from {}").format(
                _relation("kept", view), sql.Identifier("dbt_recon", view)
            )
        )
        conn.execute(sql.SQL("analyze {}").format(_relation("kept", view)))


def _measure_touched(conn: psycopg.Connection) -> None:
    for (name,) in conn.execute(_TOUCHED).fetchall():
        names = {"touched": _relation("touched", name), "part": _relation("part", name)}
        conn.execute(sql.SQL("truncate {touched}").format(**names))
        conn.execute(sql.SQL("insert into {touched} select * from {part}").format(**names))
        conn.execute(sql.SQL("analyze {touched}").format(**names))
    for view, owner in _ALL.items():
        parts = {"kept": _relation("kept", view), "part": _relation("part", view), "is_touched": _is_touched(owner)}
        conn.execute(sql.SQL("delete from {kept} as k where {is_touched}").format(**parts))
        conn.execute(sql.SQL("insert into {kept} select * from {part}").format(**parts))


def _is_touched(owner: str) -> sql.Composed:
    if owner in (_ROW, _IDENTITY):
        of = "{} in (select t.source_system, t.booking_id from phase2.touched_bookings as t)"
    else:
        of = "{} in (select t.booking_key from phase2.touched_keys as t)"
    if owner is _FINDING:
        of += " or k.batch = 'C'"
    return sql.SQL(of).format(sql.SQL(owner))  # type: ignore[arg-type]


def _has_strays(conn: psycopg.Connection) -> bool:
    """Whether a kept row is of no booking that could be told: then it could not be found again."""
    questions = [
        sql.SQL("exists (select 1 from {} as k where {} {})").format(
            _relation("kept", view),
            sql.SQL("k.booking_id is null" if owner in (_ROW, _IDENTITY) else f"({owner}) is null"),  # type: ignore[arg-type]
            sql.SQL("and k.batch <> 'C'" if owner is _FINDING else ""),
        )
        for view, owner in _ALL.items()
    ]
    return conn.execute(sql.SQL("select {}").format(sql.SQL(" or ").join(questions))).fetchone() == (True,)


def _kept_digest(conn: psycopg.Connection) -> str:
    """Which row versions the kept rows are: nobody but `read` writes them."""
    parts = [
        sql.SQL(
            "select {}, count(*), coalesce(bit_xor(hash_record_extended(row(k.ctid, k.xmin), 0)), 0) from {} as k"
        ).format(sql.Literal(view), _relation("kept", view))
        for view in _ALL
    ]
    return repr(conn.execute(sql.SQL(" union all ").join(parts) + sql.SQL(" order by 1")).fetchall())


def _write_reading(conn: psycopg.Connection, batch: str) -> None:
    """As the model recon_{batch}_reading has it, of kept rows."""
    names = {
        "reading": sql.Identifier("dbt_recon", f"recon_{batch}_reading"),
        "said": _relation("kept", f"recon_{batch}"),
    }
    said = sql.SQL(
        "select r.kind, r.gate_id, r.numerator, r.denominator, r.value, r.entity, r.key, r.status, r.is_counted,"
        " r.detail, now() as read_at, (select c.run_id from phase2.run_context as c) as run_id from {said} as r"
    ).format(**names)
    conn.execute(
        sql.SQL("create unlogged table if not exists {reading} as {rows} with no data").format(**names, rows=said)
    )
    conn.execute(sql.SQL("truncate {reading}").format(**names))
    conn.execute(sql.SQL("insert into {reading} {rows}").format(**names, rows=said))


def _relation(twin: str, view: str) -> sql.Identifier:
    return sql.Identifier("dbt_recon", f"{twin}_{view}")
