"""What batch G does (blueprint 6.8): its flag on for the testers, the main pages looked at from outside, and off again.

The pages are asked as the back office asks them, for somebody whom the flag names and for somebody whom it does not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import count, cycle
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from bridge import flags, ledger, runlog, shadow
from bridge.core_settings import core_settings
from bridge.errors import CouldNotRun
from bridge.flags import Flag, Rollout
from bridge.ingestion import Service, Unfit, client, data_of, in_time, words_of
from bridge.policy import policy
from bridge.scripts import ScriptResult

if TYPE_CHECKING:  # steps dispatches to this module
    from bridge.steps import Run

READS: Flag = "OPS_READ_NEW_MODEL_ENABLED"
PAIRS = 100  # requests that both sides have answered, of each main read: what gate BG-04 asks for
PAIRS_SECONDS = 180.0  # the longest
AT_ONCE = 2  # as many as the service compares; what differs it reads again
COUNTED_SECONDS = 15.0  # the service keeps its counts every 5 s
_PATH = "/v1/ops/"
_LISTS = ("bookings", "assignments", "finance/summary")
_ENOUGH = """
select m.read_name, count(r.read_name)
from unnest(array['bookings', 'booking', 'assignments', 'finance']) as m (read_name)
left join phase2.shadow_reads as r
    on r.read_name = m.read_name and r.kind = 'shadow' and r.outcome <> 'failed'
    and r.compared_at > now() - interval '1 day'
group by m.read_name
"""
_COUNTED = "select exists (select 1 from phase2.ops_reads as r where r.minute >= date_trunc('minute', %s::timestamptz))"


def testers() -> Rollout:
    """Those for whom reads and writes are switched first: OPS_TESTERS. CouldNotRun when nobody is named."""
    named = [name.strip() for name in core_settings().ops_testers.split(",") if name.strip()]
    if not named and policy().environment == "local":
        named = ["tester"]
    if not named:
        raise CouldNotRun(
            "nobody is named who tests the new side first",
            where="OPS_TESTERS",
            todo="Name them as the back office does (x-actor), with commas: OPS_TESTERS=ayu,made@example.com",
        )
    emails = tuple(name.lower() for name in named if "@" in name)
    return Rollout(percentage=0, actors=tuple(name for name in named if "@" not in name), emails=emails)


def switch_on(run: Run, flag: Flag) -> dict[str, Any]:
    """Switch the reads on for the testers, and wait until the service follows; a flag that is on stays as it is.

    Raises CouldNotRun: nobody is named, or the service does not follow; Unfit: it is killed here.
    """
    with run.connect() as conn:
        row = flags.read(conn).get(flag)
        if row is None or not row.enabled:
            flags.change(conn, flag, True, reason="batch G: testers first", rollout=testers())
        rows = flags.read(conn)
    standing = flags.in_force(flag, rows)
    if not standing.enabled:
        raise Unfit(f"{flag} is killed here: PHASE2_KILL names it")
    with _service(run) as service:
        actor = _tester(rows)
        if not in_time(lambda: _side(service, actor) in ("new", "legacy; fallback", "legacy; breaker")):
            raise CouldNotRun(
                f"the service does not follow {flag}",
                where=service.settings.url,
                todo="Its OPS_DB_URL names another ops database than ours, or its PHASE2_KILL the flag.",
            )
    return {"on": flags.words(standing)}


def look(run: Run, what: str) -> dict[str, Any]:
    """One look at the service: `reads` (before: bstadmin answers through it) or `pages` (after, on both sides).

    Raises CouldNotRun: nobody answers, or it works on another ops database; Unfit: a page is not as it must be.
    """
    with _service(run) as service:
        return {"reads": _reads, "pages": _pages}[what](service)


def switch_off(run: Run, script: Callable[[], ScriptResult]) -> tuple[ScriptResult, dict[str, Any]]:
    """The flag off, the proof that bstadmin answers who read from the new model, and only then `script`.

    Kept in `phase2.drills` for gate G-04. A service that does not answer serves nothing: that is said, and nothing is
    measured. Raises CouldNotRun, before `script`, when the service goes on with the read model.
    """
    with run.connect() as conn:
        actor = _somebody(flags.read(conn), inside=True)
        began = time.monotonic()
        flags.change(conn, READS, False, reason="rollback of batch G")
    found: dict[str, Any] = {"batch": "G"}
    with _service(run) as service:
        try:
            off = in_time(lambda: _side(service, actor or "check-0") == "legacy")
            if actor:
                found["seconds_to_old_path"] = round(time.monotonic() - began, 2)
            else:
                found["not measured"] = "the flag was off before"
            time.sleep(flags.FRESH_SECONDS)  # by then each process has looked again
            off = off and _side(service, actor or "check-0") == "legacy"
        except CouldNotRun as away:
            found["not measured"], off = str(away), True
    if "not measured" not in found:
        with run.connect() as conn:
            _keep(conn, run, found, off, time.monotonic() - began)
    if not off:
        raise CouldNotRun(
            "the flag is off, and the service goes on with the read model",
            where=core_settings().url,
            todo="Stop it: it works on another ops database, or has lost it.",
        )
    return script(), found


def _keep(conn: psycopg.Connection, run: Run, found: dict[str, Any], passed: bool, seconds: float) -> None:
    drill_id = runlog.uuid7()
    with conn.transaction():
        conn.execute(
            "insert into phase2.drills (drill_id, drill, passed, measured, started_at, run_id)"
            " values (%s, 'rollback', %s, %s, now() - %s * interval '1 second', %s)",
            (drill_id, passed, Jsonb(found), seconds, run.run_id),
        )
        ledger.mirror(conn, "drill", [drill_id])


# --- looks ---------------------------------------------------------------------------------------------------------


def _reads(service: Service) -> dict[str, Any]:
    """Before anything is switched: a service with our token, and bstadmin behind it."""
    if READS in service.settings.killed:
        raise Unfit(f"{READS} is killed here: PHASE2_KILL names it")
    answer = service.get(f"{_PATH}bookings", limit=1)
    if answer.status_code != 200:
        raise Unfit(f"the booking list answers {words_of(answer)}")
    return {"booking list": answer.headers.get("x-served-by", "")}


def _pages(service: Service) -> dict[str, Any]:
    """Booking list, detail, assignments and finance summary: by the side that the flag names, for one of each kind."""
    began = runlog.utc_now()
    with service.run.connect() as conn:
        rows = flags.read(conn)
    actors = [(_tester(rows), "new")]
    if other := _somebody(rows, inside=False):
        actors.append((other, "legacy"))
    found: dict[str, Any] = {}
    for actor, side in actors:
        for page in (*_LISTS, f"bookings/{_ids(service, actor, 1)[0]}"):
            answer = service.get(_PATH + page, actor=actor)
            by = answer.headers.get("x-served-by")
            if answer.status_code != 200 or by != side:
                raise Unfit(f"{page} for {actor}: {words_of(answer)} by {by or 'nobody'}, not by {side}")
        found[actor] = f"4 pages by {side}"
    with service.run.connect() as conn:
        found["compared"] = _pair(service, conn, [actor for actor, _ in actors])
        if not in_time(lambda: conn.execute(_COUNTED, (began,)).fetchone() == (True,), COUNTED_SECONDS):
            raise CouldNotRun(
                "the service has answered, and our ops database knows nothing of it",
                where=service.settings.url,
                todo="It works on another ops database: compare its OPS_DB_URL with ours.",
            )
    return found


def read_enough(run: Run) -> None:
    """Read what the next rung lacks, on both sides; for when nobody else reads. CouldNotRun: the reads are not on."""
    with _service(run) as service, run.connect() as conn:
        rows = flags.read(conn)
        actors = [_tester(rows)]
        if other := _somebody(rows, inside=False):
            actors.append(other)
        _compare(service, actors, lambda: shadow.lacking(conn))


def _pair(service: Service, conn: psycopg.Connection, actors: list[str]) -> dict[str, int]:
    """Read what gate BG-04 lacks; how many pairs there are then."""

    def lacking() -> list[str]:
        return [name for name, pairs in conn.execute(_ENOUGH).fetchall() if pairs < PAIRS]

    _compare(service, actors, lacking)
    return dict(conn.execute(_ENOUGH).fetchall())


def _compare(service: Service, actors: list[str], lacking: Callable[[], list[str]]) -> None:
    """Read pages of other days and other bookings each time, on both sides, until none is lacking or time is over."""
    deadline = time.monotonic() + PAIRS_SECONDS
    ids, today = cycle(_ids(service, actors[0], 200)), runlog.utc_now().date()

    def read(asked: tuple[str, str, dict[str, str]]) -> None:
        page, actor, query = asked
        service.get(_PATH + page, actor=actor, shadow=True, **query)

    with ThreadPoolExecutor(AT_ONCE) as people:
        for number in count():
            names = lacking()
            if not names or time.monotonic() > deadline:
                return
            day = {"dateTo": str(today + timedelta(days=60 - number % 240))}
            pages = [(page, day) for page in _LISTS if page.partition("/")[0] in names]
            if "booking" in names:
                pages.append((f"bookings/{next(ids)}", {}))
            list(people.map(read, [(page, actor, query) for page, query in pages for actor in actors]))


def _ids(service: Service, actor: str, most: int) -> list[str]:
    """The first bookings of the list; Unfit when there is none to be opened."""
    answer = service.get(f"{_PATH}bookings", actor=actor, limit=most)
    ids = [row["id"] for row in data_of(answer).get("items", [])]
    if not ids:
        raise Unfit(f"the booking list for {actor}: {words_of(answer)}, and no booking")
    return ids


def _side(service: Service, actor: str) -> str | None:
    return service.get(f"{_PATH}bookings", actor=actor, limit=1).headers.get("x-served-by")


def _somebody(rows: dict[str, flags.Row], *, inside: bool) -> str | None:
    """Somebody for whom the reads are on, or off; those whom the flag names come first. None: there is nobody."""
    to = flags.in_force(READS, rows).rollout
    names = (*to.actors, *to.emails, *(f"check-{number}" for number in range(1000)))
    return next((name for name in names if flags.is_on(READS, rows, actor=name, email=name) is inside), None)


def _tester(rows: dict[str, flags.Row]) -> str:
    """Somebody for whom the reads are on; CouldNotRun when the flag is on for nobody."""
    if found := _somebody(rows, inside=True):
        return found
    raise CouldNotRun(
        f"{READS} is on for nobody",
        where="phase2.flags",
        todo=f'phase2 flag {READS} on --actor NAME --reason "why"',
    )


@contextmanager
def _service(run: Run) -> Iterator[Service]:
    with client() as http:
        yield Service(run, core_settings(), http)
