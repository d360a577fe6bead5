"""Large first loads in ranges that commit on their own.

The working tables of batch D or E are made first, of all bookings: they are ours, unlogged, and nobody waits for them.
What they hold is then written to the canonical tables range by range of the bookings' keys, which are hashes, so that
an equal share of the key space is an equal share of the bookings. A range is one build of the batch's bridge models
with the range as dbt's vars (`in_range`), each model a transaction of its own. The next range is made as large as the
one before was fast (PHASE2_RANGE_SECONDS), twice or half of it at most. Tests run at the end, over everything.

What is done stands in phase2.warehouse_state. After a death, a back-off or a pause that was too long the next run goes
on with the range after the last one that was noted, if what it reads is as it was; in the one that was under way only
what is missing is written. If the sources have moved since, working tables are made again and all ranges compared. A
run that went on is not settled (bridge/steps.py): somebody may have written to what stood already, so the next one
compares everything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import psycopg

from bridge import warehouse
from bridge.settings import settings

Progress = Callable[[str], None]

_SLICES = 1 << 16  # of the key space: a boundary is the first four digits of a key
_MOST = 20  # ranges, or a few less: each reads the working tables as a whole

# Whether anything of the batch is in the bridge, and how many bookings the sources have.
_FIRST = {
    "batch_d": "select not exists (select 1 from public.booking_core)",
    "batch_e": "select not exists (select 1 from public.payment_event)"
    " and not exists (select 1 from public.ops_finance_bridge)",
}
_BOOKINGS = """
select coalesce(sum(t.row_count), 0)::bigint
from phase2.landing_tables as t
where
    t.landing_id = (select r.landing_id from phase2.landing_runs as r order by r.landing_no desc limit 1)
    and t.table_name in ('Booking', 'bookings')
"""


@dataclass
class Load:
    """A load in ranges: of which rows, by which selector; whether the working tables are made; how far it is."""

    made_of: str
    selector: str
    has_work: bool = False
    done: int = 0  # slices of the key space
    size: int = 0  # of the next range, in slices
    smallest: int = 1  # an invocation of dbt and a look at the working tables have their price, whatever is written
    again: bool = False  # another run began it: a row may be there already, below a key of another range


def begin(conn: psycopg.Connection, batch: str, selector: str, made_of: str, *, whole: bool = False) -> Load | None:
    """The load that this run makes or goes on with; None when it is small, or no first one.

    `selector` is what builds the whole batch, `made_of` a word for all that it reads. `whole`: from the beginning.
    """
    bookings = conn.execute(_BOOKINGS).fetchone()
    first = settings().phase2_first_range
    share = first / max(bookings[0] if bookings else 0, 1)
    found = conn.execute(
        "select w.digest from phase2.warehouse_state as w where w.part = %s", (_part(batch),)
    ).fetchone()
    if found is not None:
        load = Load(**json.loads(found[0]))
        if load.made_of == made_of and not whole:
            return replace(load, again=True)
    elif share > 0.5 or conn.execute(_FIRST[batch].encode()).fetchone() != (True,):
        return None
    size = max(1, int(_SLICES * min(share, 1)))
    load = Load(made_of, selector, size=size, smallest=max(size // 4, _SLICES // _MOST, 1), again=found is not None)
    _note(conn, batch, load)
    return load


def run(
    conn: psycopg.Connection,
    ops_url: str,
    batch: str,
    load: Load,
    *,
    progress: Progress,
    breathe: Callable[[], None],
) -> tuple[list[warehouse.Node], list[str]]:
    """Make or finish the load: the nodes that were built, and a line for each range."""

    def build(part: str, *extra: str, between: warehouse.Range | None = None) -> list[warehouse.Node]:
        return warehouse.build(
            ops_url, f"{load.selector}_{part}", progress=progress, breathe=breathe, extra=list(extra), between=between
        )

    nodes: list[warehouse.Node] = []
    lines: list[str] = []
    if not load.has_work:
        nodes += build("work")
        load.has_work = True
        _note(conn, batch, load)
    if load.done:
        lines.append(f"goes on at {load.done / _SLICES:.1%} of the bookings")
        progress(f"  {lines[-1]}")
    while load.done < _SLICES:
        until = load.done + load.size
        if _SLICES - until < load.size / 2:  # the rest is not worth a range of its own
            until = _SLICES
        began = time.monotonic()
        between = warehouse.Range(_key(load.done), _key(until), load.again)
        built = build("writes", "--resource-type", "model", between=between)
        seconds, longest = time.monotonic() - began, max(built, key=lambda node: node.seconds)
        nodes = _together(nodes, built)
        lines.append(
            f"{load.done / _SLICES:.1%} to {until / _SLICES:.1%} of the bookings in {seconds:.1f} s"
            f" (the longest transaction: {longest.name}, {longest.seconds:.1f} s)"
        )
        progress(f"  range {lines[-1]}")
        fitting = int((until - load.done) * settings().phase2_range_seconds / max(seconds, 0.001))
        load.size = max(load.smallest, load.size // 2, min(fitting, load.size * 2))
        load.done = until
        _note(conn, batch, load)
    # before the tests: whoever runs it again after one that failed wants all of it compared
    conn.execute("delete from phase2.warehouse_state where part = %s", (_part(batch),))
    return nodes + build("writes", "--resource-type", "test"), lines


def _together(nodes: list[warehouse.Node], more: list[warehouse.Node]) -> list[warehouse.Node]:
    """Each node once, with what all its ranges took and wrote."""
    by_id = {node.unique_id: node for node in nodes}
    for node in more:
        was = by_id.get(node.unique_id)
        by_id[node.unique_id] = (
            node
            if was is None
            else replace(node, seconds=round(was.seconds + node.seconds, 3), rows=(was.rows or 0) + (node.rows or 0))
        )
    return list(by_id.values())


def forget(conn: psycopg.Connection) -> None:
    """What was loaded in part is compared from the beginning, or is gone."""
    conn.execute("delete from phase2.warehouse_state where part like 'ranges of %'")


def make_work_again(conn: psycopg.Connection) -> None:
    """The working tables may be gone with what they stood on."""
    conn.execute(
        "update phase2.warehouse_state set digest = jsonb_set(digest::jsonb, '{has_work}', 'false')::text"
        " where part like 'ranges of %'"
    )


def _key(slices: int) -> str:
    """The first key of a slice; empty beyond the last."""
    return f"{slices:04x}0000-0000-0000-0000-000000000000" if slices < _SLICES else ""


def _part(batch: str) -> str:
    return f"ranges of {batch}"


def _note(conn: psycopg.Connection, batch: str, load: Load) -> None:
    conn.execute(
        "insert into phase2.warehouse_state (part, digest) values (%s, %s)"
        " on conflict (part) do update set digest = excluded.digest, built_at = now()",
        (_part(batch), json.dumps(asdict(load))),
    )
