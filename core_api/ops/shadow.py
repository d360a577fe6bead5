"""Shadow reads (cutover.md, G 3): for a sample of live reads the other side runs too, after the answer is gone.

Each booking that differs is held against the approved differences by the rule that the full parity uses
(`rulebook.read_differences`); what they do not explain is read again, both sides, before it counts. A part of the reads
of bstadmin is compared with bstadmin itself: that is the noise of live data. Nothing here ever slows or breaks a
request: shadow reads have connections of their own, few at a time, and what is over the budget is dropped and counted.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter as Counts
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg
from prometheus_client import Counter
from psycopg.types.json import Jsonb

from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun, plain
from bridge.reports.mask import mask
from bridge.runlog import uuid7
from core_api.database import Pool
from core_api.metrics import Metrics
from core_api.ops.sides import Row, Served, Side

CONCURRENCY = 2  # shadow reads at work; what comes meanwhile is dropped
SECONDS = 5.0  # the longest that one side may take
AGAIN_SECONDS = 0.25  # until a difference is read again
CALIBRATION_PERCENTAGE = 10.0  # of the shadow reads beside bstadmin's answers: bstadmin again
_ALONE = " -c max_parallel_workers_per_gather=0"  # no shadow read takes a second core
_SUMS_OF = 5000  # bookings behind a finance summary that are looked at one by one

Kind = Literal["shadow", "calibration"]
Found = dict[str, dict[str, list[Any]]]  # booking -> field -> [bstadmin's value, the read model's, rule or None]

_log = logging.getLogger("core_api.shadow")
_MONEY, _DATES, _HEADS = {"total_price", "currency", "paid_price"}, {"tour_date"}, {"adults", "children", "heads"}
_WHOLE = {"booking", "row"}
_CORE_ALONE = {"partner_id"}  # bstadmin has no place for it
# what decides whether a row stands on a page, and where
_PLACE = {"channel", "reference", "customer_name", "tour_date", "created_at", "status", "driver_id", "board_driver_id"}
_IN_SUMS = {
    "booking", "row", "tour_date", "status", "currency", "total_price", "adults", "children", "is_paid",
    "finance_id", "validated_at", "is_locked", "settlement",
}  # fmt: skip


@dataclass
class Compared:
    """What came of one shadow read."""

    bookings: int = 0
    money: int = 0
    dates: int = 0
    heads: int = 0
    reread: bool = False
    found: Found = field(default_factory=dict)

    def wrong(self, fields: set[str]) -> int:
        """Bookings with an unexplained difference in one of these fields."""
        return sum(
            any(rule is None and name in fields for name, (_, _, rule) in found.items())
            for found in self.found.values()
        )

    def rules(self) -> Counts[str | None]:
        return Counts(rule for found in self.found.values() for _, _, rule in found.values())

    @property
    def outcome(self) -> str:
        if not self.found:
            return "same"
        return "different" if None in self.rules() else "explained"


class Shadow:
    """The shadow reads of one process."""

    def __init__(self, ops_url: str, legacy_url: str | None, metrics: Metrics) -> None:
        self._new = Side("new", ops_url, size=CONCURRENCY, purpose="shadow", options=_ALONE)
        self._legacy = (
            Side("legacy", legacy_url, size=CONCURRENCY, purpose="shadow", options=_ALONE) if legacy_url else None
        )
        self._percentage = core_settings().ops_shadow_percentage
        self._running: set[asyncio.Task[None]] = set()
        self.outcomes = Counter(
            "ops_shadow_reads", "Shadow reads by what came of them", ["read", "outcome"], registry=metrics.registry
        )

    async def open(self) -> None:
        for side in (self._new, self._legacy):
            if side:
                await side.pool.open()

    async def close(self) -> None:
        """What is at work is given up."""
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        for side in (self._new, self._legacy):
            if side:
                await side.pool.close(timeout=1.0)

    async def offer(
        self, pool: Pool, read: str, path: str, parameters: Mapping[str, Any], served: Served, *, always: bool = False
    ) -> None:
        """Perhaps run a read that was answered on the other side too; comes back at once.

        `always`: surely, and comes back when it is compared, so that whoever validates pages asks no faster than that.
        """
        if self._legacy is None or not (always or random.uniform(0, 100) < self._percentage):
            return
        while len(self._running) >= CONCURRENCY:
            if not always:
                self.outcomes.labels(read, "dropped").inc()
                return
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._compare(pool, read, path, dict(parameters), served))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if always:
            await asyncio.wait({task})  # whoever goes away meanwhile does not end it

    async def _compare(self, pool: Pool, read: str, path: str, parameters: dict[str, Any], served: Served) -> None:
        assert self._legacy is not None
        calibrates = served.side == "legacy" and random.uniform(0, 100) < CALIBRATION_PERCENTAGE
        kind: Kind = "calibration" if calibrates else "shadow"
        other = self._legacy if calibrates or served.side == "new" else self._new
        compared, seconds, problem = Compared(), None, None
        try:
            started = time.perf_counter()
            rows = await other.rows(read, parameters, seconds=SECONDS)
            seconds = time.perf_counter() - started
            legacy, new = (served.rows, rows) if served.side == "legacy" else (rows, served.rows)
            compared = await self._differences(kind, read, parameters, legacy, new)
        except (psycopg.Error, TimeoutError, OSError, CouldNotRun) as error:
            problem = plain(error) or type(error).__name__
        except Exception as error:  # the other side's answer is of a shape that nobody foresaw: its failure, not ours
            problem = type(error).__name__
            _log.exception("shadow of %s", read)
        outcome = "failed" if problem else compared.outcome
        self.outcomes.labels(read, outcome).inc()
        try:
            await _keep(pool, kind, read, path, served, seconds, outcome, problem, compared)
        except (psycopg.Error, OSError) as error:
            self.outcomes.labels(read, "not kept").inc()
            _log.warning("a shadow read cannot be kept: %s", plain(error))

    async def _differences(
        self, kind: Kind, read: str, parameters: dict[str, Any], legacy: list[Row], new: list[Row]
    ) -> Compared:
        size = parameters.get("size", 0)
        compared = _counted(read, legacy, new, size)
        compared.found = await self._found(kind, read, parameters, legacy, new)
        if None in compared.rules():  # what is approved does not count, whether it lasts or not
            compared.reread = True
            await asyncio.sleep(AGAIN_SECONDS)
            second = self._legacy if kind == "calibration" else self._new
            assert self._legacy is not None
            assert second is not None
            legacy, new = await asyncio.gather(
                self._legacy.rows(read, parameters, seconds=SECONDS), second.rows(read, parameters, seconds=SECONDS)
            )
            compared.found = await self._found(kind, read, parameters, legacy, new)
        return compared

    async def _found(
        self, kind: Kind, read: str, parameters: dict[str, Any], legacy: list[Row], new: list[Row]
    ) -> Found:
        apart = _apart(read, legacy, new, parameters.get("size", 0))
        if not apart:
            return {}
        if kind == "calibration":
            return {one: {"row": ["one", "another", None]} for one in apart}
        if read == "finance":
            return await self._sums(parameters, legacy, new, apart)
        return await self._rows(apart, legacy, new)

    async def _rows(self, apart: set[str], legacy: list[Row], new: list[Row]) -> Found:
        """Of bookings that are not the same on both pages: what of them differs, and why."""
        on_legacy, on_new = {row["id"]: row for row in legacy}, {row["id"]: row for row in new}
        shown = set().union(*legacy[:1], *new[:1])
        found: Found = {}
        for one, differences in (await self._explained(apart)).items():
            # the board shows the driver of the history of assignments, the other pages that of the booking's state
            aliases = {"driver_id": "board_driver_id"} if "partner_id" in shown else {}
            there = {
                name: differences[of] for name in {*shown, "booking"} if (of := aliases.get(name, name)) in differences
            }
            if one in on_legacy and one in on_new:
                # what the page shows otherwise than the booking is: its statement is wrong
                old, new = _shown(on_legacy[one]), _shown(on_new[one])
                there |= {
                    name: [old[name], new.get(name), None]
                    for name in old.keys() - there.keys() - _CORE_ALONE
                    if old[name] != new.get(name)
                }
            elif "row" in differences:  # merged with one that is there
                there["row"] = differences["row"]
            elif "booking" not in there:
                # the page of one side lacks what that side holds: only what decides about its place explains that
                rules = [it[2] for name, it in differences.items() if name in _PLACE]
                why = next((rule for rule in rules if rule), None) if None not in rules else None
                there["row"] = ["there" if one in on_legacy else None, "there" if one in on_new else None, why]
            if there:
                found[one] = there
        return found

    async def _sums(self, parameters: dict[str, Any], legacy: list[Row], new: list[Row], apart: set[str]) -> Found:
        """Of a finance summary: its sums, explained where each booking that adds something else is."""
        assert self._legacy is not None
        behind = [
            {row["id"]: row["digest"] for row in rows}
            for rows in await asyncio.gather(
                self._legacy.rows("finance_bookings", parameters, seconds=SECONDS),
                self._new.rows("finance_bookings", parameters, seconds=SECONDS),
            )
        ]
        differing = {one for one, _ in behind[0].items() ^ behind[1].items()}
        why: str | None = None
        if differing and len(behind[0]) <= 100 * _SUMS_OF and len(differing) <= _SUMS_OF:
            every = await self._explained(differing)
            rules = [it[2] for found in every.values() for name, it in found.items() if name in _IN_SUMS]
            why = "BOOKINGS_EXPLAINED" if rules and None not in rules else None
        on_legacy, on_new = {row["currency"]: row for row in legacy}, {row["currency"]: row for row in new}
        none: Row = {}
        return {
            one: {
                name: [on_legacy.get(one, none).get(name), on_new.get(one, none).get(name), why]
                for name in {*on_legacy.get(one, none), *on_new.get(one, none)}
                if on_legacy.get(one, none).get(name) != on_new.get(one, none).get(name)
            }
            for one in apart
        }

    async def _explained(self, ids: set[str]) -> Found:
        """What differs of these bookings as they are now, with the rule that explains it; those that do not: {}."""
        assert self._legacy is not None
        numbers = [one for one in ids if one.isdigit()]
        keys = [one for one in ids if not one.isdigit()]
        old = await self._legacy.rows("pair", {"numbers": numbers, "refs": []}, seconds=SECONDS)
        identities = [{"channel": row["channel"], "reference": row["reference"]} for row in old]
        asked = {"numbers": numbers, "keys": keys, "identities": Jsonb(identities)}
        by_number: dict[str, Row] = {}
        by_identity: dict[tuple[str, str], Row] = {}
        by_key: dict[str, Row] = {}
        for row in await self._new.rows("pair", asked, seconds=SECONDS):
            if row["_has_several"] and row["_told"] is None:
                raise CouldNotRun("what the sources said is not landed any more", todo="Run the batches again.")
            by_number |= dict.fromkeys(row["_numbers"], row)
            if not row["_numbers"]:  # an event has told of it, no backfill has met it yet
                by_identity[row["channel"], row["reference"]] = row
                by_key[row["_key"]] = row
        pairs = []
        for row in old:
            identity = (row["channel"], (row["reference"] or "").strip().upper())
            canonical = by_number.get(row["id"]) or by_identity.get(identity)
            if canonical:
                by_key.pop(canonical["_key"], None)
            pairs.append({"id": row["id"], "legacy": _facts(row), "canonical": canonical and _facts(canonical)})
        gone = set(numbers) - {row["id"] for row in old}
        lone = {row["reference"]: key for key, row in by_key.items() if key in ids and row["reference"]}
        # bstadmin may show it elsewhere, on another day or page
        wanted = {"numbers": [], "refs": [*lone, *map(str.lower, lone)]}
        for row in await self._legacy.rows("pair", wanted, seconds=SECONDS) if lone else []:
            canonical = by_key.pop(lone[row["reference"].upper()], None)
            if canonical and row["id"] not in numbers:
                pairs.append({"id": canonical["_key"], "legacy": _facts(row), "canonical": _facts(canonical)})
        pairs += [{"id": one, "legacy": None, "canonical": _facts(by_number[one])} for one in gone if one in by_number]
        pairs += [{"id": key, "legacy": None, "canonical": _facts(row)} for key, row in by_key.items() if key in ids]
        rows = await self._new.rows("explained", {"pairs": Jsonb(pairs)}, seconds=SECONDS)
        return {row["id"]: row["differences"] or {} for row in rows}


def _facts(row: Row) -> Row:
    """A row as the rule takes it: what only comparisons need has a name like the rest."""
    return {name.lstrip("_"): value for name, value in row.items()}


def _shown(row: Row) -> Row:
    """What both sides can show alike; the id is how they find each other, and merged bookings have several."""
    return {name: it for name, it in row.items() if not name.startswith("_") and name not in ("id", "booking_key")}


def _apart(read: str, legacy: list[Row], new: list[Row], size: int) -> set[str]:
    """The bookings (or currencies) that the two answers do not show alike, as far down as both pages reach."""
    if read == "booking":
        return {(legacy or new)[0]["id"]} if list(map(_shown, legacy)) != list(map(_shown, new)) else set()
    tied: set[str] = set()
    if read == "finance":
        pages = [{row["currency"]: row for row in rows} for rows in (legacy, new)]
    else:
        ends = [_place(rows[-1]) for rows in (legacy, new) if len(rows) >= size]
        end = max(ends) if ends else None
        pages = [
            {row["id"]: _shown(row) for row in rows if end is None or _place(row) >= end} for rows in (legacy, new)
        ]
        last = {row["id"] for rows in (legacy, new) for row in rows if _place(row) == end}
        # of several at the place where a page ends it may hold some and the other page others
        tied = last - (pages[0].keys() & pages[1].keys()) if len(last) > 1 else set()
    return {one for one in (pages[0].keys() | pages[1].keys()) - tied if pages[0].get(one) != pages[1].get(one)}


def _place(row: Row) -> tuple[str, str]:
    return row["tour_date"], row["created_at"]


def _counted(read: str, legacy: list[Row], new: list[Row], size: int) -> Compared:
    """How much was compared: bookings, and of them those whose money, dates and head counts are shown."""
    rows = max(legacy, new, key=len)
    number = len(rows)
    names = set(rows[0]) if rows else set()
    return Compared(
        bookings=number,
        money=number if names & _MONEY else 0,
        dates=number if names & _DATES else 0,
        heads=number if names & _HEADS else 0,
    )


_KEEP_READ = """
insert into phase2.shadow_reads (
    shadow_id, read_name, path, kind, served_by, served_seconds, shadow_seconds, outcome, reread, bookings, money,
    dates, heads, explained, unexplained, money_wrong, dates_wrong, heads_wrong, ignored, error
)
values (
    %(shadow_id)s, %(read)s, %(path)s, %(kind)s, %(served_by)s, %(served_seconds)s, %(shadow_seconds)s, %(outcome)s,
    %(reread)s, %(bookings)s, %(money)s, %(dates)s, %(heads)s, %(explained)s, %(unexplained)s, %(money_wrong)s,
    %(dates_wrong)s, %(heads_wrong)s, %(ignored)s, %(error)s
)
"""
_KEEP_DIFFERENCE = """
insert into phase2.shadow_differences (shadow_id, booking, field, legacy_value, new_value, rule)
values (%s, %s, %s, %s, %s, %s)
"""


async def _keep(
    pool: Pool,
    kind: Kind,
    read: str,
    path: str,
    served: Served,
    seconds: float | None,
    outcome: str,
    problem: str | None,
    compared: Compared,
) -> None:
    shadow_id, rules = uuid7(), compared.rules()
    values = {
        "shadow_id": shadow_id,
        "read": read,
        "path": path,
        "kind": kind,
        "served_by": served.side,
        "served_seconds": served.seconds,
        "shadow_seconds": seconds,
        "outcome": outcome,
        "reread": compared.reread,
        "bookings": compared.bookings,
        "money": compared.money,
        "dates": compared.dates,
        "heads": compared.heads,
        "explained": sum(count for rule, count in rules.items() if rule),
        "unexplained": rules[None],
        "money_wrong": compared.wrong(_MONEY | _WHOLE),
        "dates_wrong": compared.wrong(_DATES | _WHOLE),
        "heads_wrong": compared.wrong(_HEADS | _WHOLE),
        "ignored": rules["IGNORE"],
        "error": problem,
    }
    differences = [
        (shadow_id, one, name, _masked(old, name), _masked(new, name), rule)
        for one, found in compared.found.items()
        for name, (old, new, rule) in found.items()
    ]
    async with pool.connection() as conn, conn.transaction(), conn.cursor() as cursor:
        await cursor.execute(_KEEP_READ, values)
        await cursor.executemany(_KEEP_DIFFERENCE, differences)


def _masked(value: Any, name: str) -> str | None:
    hidden = mask(value, name)
    return None if hidden is None else str(hidden)
