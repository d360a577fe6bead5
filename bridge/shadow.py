"""What the shadow reads say (cutover.md, G 3 and 5): may the rollout of the read model go a step up.

    judge(conn) -> Judgement    of the shadow reads since the flag was last changed, a day at most

Not the mismatch rate counts but how high it may be: the upper end of its 95 % confidence interval (Clopper-Pearson)
has to be below the limit of gate BG-01, for each main read and for money, dates and head counts. Few samples keep it
high by themselves. bstadmin against bstadmin tells the noise, and has to have been measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bridge.errors import CouldNotRun

READS = ("bookings", "booking", "assignments", "finance")
LEAST_CALIBRATIONS = 20
_CONFIDENCE = 0.95

_SINCE = """
select greatest(
    now() - interval '1 day',
    (select f.changed_at from phase2.flags as f where f.flag = 'OPS_READ_NEW_MODEL_ENABLED'),
    -- a rollout that grows does not change since when the flag is on
    (
        select max((l.entry::jsonb ->> 'at')::timestamptz) from phase2.ledger as l
        where l.kind = 'flag' and l.subject = 'OPS_READ_NEW_MODEL_ENABLED'
    )
)
"""
_COUNTED = """
select
    case r.read_name when 'unassigned' then 'assignments' else r.read_name end as subject,
    count(*) as compared,
    count(*) filter (where r.outcome = 'different') as different
from phase2.shadow_reads as r
where r.kind = 'shadow' and r.outcome <> 'failed' and r.compared_at >= %(since)s
group by 1
union all
select v.subject, v.compared, v.different
from (
    select
        sum(r.money) as money, sum(r.money_wrong) as money_wrong,
        sum(r.dates) as dates, sum(r.dates_wrong) as dates_wrong,
        sum(r.heads) as heads, sum(r.heads_wrong) as heads_wrong
    from phase2.shadow_reads as r
    where r.kind = 'shadow' and r.outcome <> 'failed' and r.compared_at >= %(since)s
) as s
cross join lateral (
    values ('money', s.money, s.money_wrong), ('dates', s.dates, s.dates_wrong), ('head counts', s.heads, s.heads_wrong)
) as v (subject, compared, different)
"""
_BESIDE = """
select
    count(*) filter (where r.kind = 'calibration' and r.outcome <> 'failed') as calibrations,
    count(*) filter (where r.kind = 'calibration' and r.outcome = 'different') as noise,
    count(*) filter (where r.kind = 'shadow' and r.outcome = 'failed') as failed,
    count(*) filter (where r.reread and r.outcome = 'same') as gone_when_read_again,
    coalesce(sum(r.explained), 0) as explained,
    coalesce(sum(r.ignored), 0) as ignored
from phase2.shadow_reads as r
where r.compared_at >= %(since)s
"""
_FOUND = """
select d.booking, d.field, d.legacy_value, d.new_value, r.read_name, r.path, r.compared_at
from phase2.shadow_differences as d
join phase2.shadow_reads as r on d.shadow_id = r.shadow_id
where r.kind = 'shadow' and d.rule is null and r.compared_at >= %(since)s
order by r.compared_at desc, d.booking, d.field
limit %(most)s
"""


@dataclass(frozen=True)
class Line:
    """One thing that was compared: reads of one kind, or bookings whose money, dates or head counts were shown."""

    subject: str
    compared: int
    different: int
    upper: float  # how high the rate of what differs may be

    def holds(self, limit: float) -> bool:
        return self.upper <= limit


@dataclass(frozen=True)
class Judgement:
    """Whether a step up may be taken; `reasons` why not, in words. Values in `found` are masked."""

    since: datetime
    limit: float
    lines: list[Line]
    beside: dict[str, int]  # calibrations, noise, failed, gone_when_read_again, explained, ignored
    found: list[dict[str, Any]]

    @property
    def reasons(self) -> list[str]:
        told = [
            f"{line.subject}: {line.different} of {line.compared} differ, so it may be {line.upper:.2%} of them "
            f"(at most {self.limit:.2%})"
            for line in self.lines
            if not line.holds(self.limit)
        ]
        if self.beside["calibrations"] < LEAST_CALIBRATIONS:
            times = f"{self.beside['calibrations']} times, {LEAST_CALIBRATIONS} are needed"
            told.append(f"bstadmin was compared with itself {times}")
        failed = self.beside["failed"]
        every = failed + sum(line.compared for line in self.lines if line.subject in READS)
        if failed > self.limit * every:
            told.append(f"{failed} of {every} reads failed on the other side (at most {self.limit:.2%})")
        return told

    @property
    def may_step_up(self) -> bool:
        return not self.reasons


def judge(conn: psycopg.Connection, *, most: int = 20) -> Judgement:
    """What the shadow reads since the flag's last change say; CouldNotRun without the registry's limit."""
    limit = conn.execute("select to_regclass('dbt_seeds.gate_registry') is not null").fetchone()
    row = (
        limit == (True,)
        and conn.execute("select g.threshold from dbt_seeds.gate_registry as g where g.gate_id = 'BG-01'").fetchone()
    )
    if not row or not isinstance(row[0], Decimal):
        raise CouldNotRun(
            "the limit of gate BG-01 is missing",
            where="dbt_seeds.gate_registry",
            todo="Run: make parity, which loads it.",
        )
    asked = {"since": (conn.execute(_SINCE).fetchone() or (None,))[0], "most": most}
    with conn.cursor(row_factory=dict_row) as cursor:
        counted = {r["subject"]: r for r in cursor.execute(_COUNTED, asked).fetchall()}
        beside = cursor.execute(_BESIDE, asked).fetchone() or {}
        found = cursor.execute(_FOUND, asked).fetchall()
    lines = []
    for subject in (*READS, "money", "dates", "head counts"):
        told = counted.get(subject, {})
        compared, different = int(told.get("compared") or 0), int(told.get("different") or 0)
        lines.append(Line(subject, compared, different, upper_bound(different, compared)))
    return Judgement(asked["since"], float(row[0]), lines, {k: int(v) for k, v in beside.items()}, found)


def lacking(conn: psycopg.Connection) -> list[str]:
    """The main reads of which there are too few samples for a step up, were none of them different."""
    judged = judge(conn, most=0)
    enough = math.ceil(math.log(1 - _CONFIDENCE) / math.log1p(-judged.limit))
    few = [line.subject for line in judged.lines if line.subject in READS and line.compared < enough]
    return few or list(READS[:1] if judged.beside["calibrations"] < LEAST_CALIBRATIONS else ())


def upper_bound(different: int, compared: int, confidence: float = _CONFIDENCE) -> float:
    """The largest rate at which so few out of so many would still be found in one of 20 cases (Clopper-Pearson).

    One-sided; 1.0 when nothing was compared. 0 of 299 gives just under 1 %.
    """
    if different >= compared:
        return 1.0
    low, high = different / compared, 1.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if at_most(different, compared, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def at_most(found: int, of: int, rate: float) -> float:
    """The probability of `found` or fewer out of `of` at that rate."""
    if rate >= 1:
        return 0.0
    log, total = of * math.log1p(-rate), 0.0
    for number in range(found + 1):
        total += math.exp(log)
        log += math.log((of - number) / (number + 1)) + math.log(rate) - math.log1p(-rate)
    return total
