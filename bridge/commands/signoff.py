"""`phase2 go-no-go`, `sign`, `revoke`, `readiness`, `freeze-window`, `backup`, `restore`, `drift`: may we go on?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta, timezone
from typing import Annotated, Any, Literal

import psycopg
import typer
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

from bridge import backup as backups
from bridge import batches, door, postgres, steps
from bridge import drift as drifts
from bridge import readiness as ready
from bridge import signoff as signoffs
from bridge.commands.base import BatchCode, Json, app, batch_of, coloured, out, print_json, progress
from bridge.errors import CouldNotRun
from bridge.policy import Criterion, policy
from bridge.settings import databases

_BALI = timezone(timedelta(hours=8))
_TIMES = ["%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M"]

Role = Annotated[str, typer.Option("--role", help=f"One of: {', '.join(signoffs.ROLES)}.", metavar="ROLE")]
Who = Annotated[str, typer.Option("--as", help="Your name, as the ledger keeps it.", metavar="NAME")]
Database = Annotated[
    Literal["balisnap", "bstadmin", "ops"], typer.Option("--database", "-d", help="Which one.", metavar="NAME")
]


@contextmanager
def _ledger(*, read_only: bool = False) -> Iterator[psycopg.Connection]:
    dbs = databases()
    steps.bootstrap(dbs.ops)
    with postgres.connect(dbs.ops, application_name="phase2-sign", read_only=read_only, autocommit=True) as conn:
        yield conn


@app.command(name="go-no-go")
def go_no_go(batch: BatchCode, json: Json = False) -> None:
    """May this batch start? Every criterion with its state and evidence, who has signed and who is missing.

    It is the door itself that is shown: a run asks the same. What the environment's policy does not demand
    (`PHASE2_ENV`) is shown too, and holds nothing up. Exit code 0: go; 1: no go. Changes nothing.

    Example: `phase2 go-no-go --batch D`
    """
    one = batch_of(batch)
    with _ledger(read_only=True) as conn:
        lines = door.criteria(conn, one)
    raise typer.Exit(_show(lines, json, batch=one.code))


@app.command()
def readiness(json: Json = False) -> None:
    """What has to be there before batch A: copies of the sources, settings, flags, signed items, the freeze window.

    The system looks itself where it can; the rest is signed with evidence (`phase2 sign --item`) and asked again after
    30 days, or when the files that it speaks of change. Settings are named, their values never shown. Exit code 1:
    something that the policy demands is missing.

    Example: `PHASE2_ENV=production phase2 readiness`
    """
    with _ledger(read_only=True) as conn:
        lines = ready.criteria(conn, batches.batch("A"), policy())
    raise typer.Exit(_show(lines, json))


def _show(lines: Sequence[Criterion], json: bool, **more: Any) -> int:
    holding = [line.name for line in lines if line.holds]
    environment = policy().environment
    if json:
        told = [asdict(line) | {"holds": line.holds} for line in lines]
        print_json({**more, "policy": environment, "go": not holding, "holding": holding, "criteria": told})
        return 1 if holding else 0
    table = Table("criterion", "state", "evidence", "to do", box=None, header_style="bold")
    for line in lines:
        state = coloured(line.state) + ("" if line.demanded or line.state != "HOLD" else " (not demanded)")
        table.add_row(escape(line.name), state, escape(line.evidence), escape(line.todo))
    out.print(table)
    missing = sum(line.state == "HOLD" for line in lines) - len(holding)
    if holding:
        out.print(f"[bold red]NO GO[/]  policy {environment}: {escape(', '.join(holding))}")
    else:
        rest = f"; {missing} would hold where everything is demanded" if missing else ""
        out.print(f"[bold green]GO[/]  policy {environment}{rest}")
    return 1 if holding else 0


@app.command()
def sign(
    role: Role,
    who: Who,
    batch: Annotated[str, typer.Option("--batch", "-b", help="The batch that may start.", metavar="LETTER")] = "",
    item: Annotated[
        str, typer.Option("--item", help=f"Or an item of the readiness: {', '.join(ready.ITEMS)}.", metavar="ITEM")
    ] = "",
    note: Annotated[str, typer.Option("--note", help="Kept with it; of an item the evidence: a link, a ticket.")] = "",
    json: Json = False,
) -> None:
    """Sign a batch off in a role, or an item of the readiness.

    A batch's sign-off is bound to what was signed: its plan and code, the numbers by which the batch before it was
    judged, its rehearsal. When one of these changes it is void. Tech Lead, Backend Lead, DevOps, Ops Lead and Owner are
    five people.

    Example: `phase2 sign --batch D --role "Tech Lead" --as ayu`
    """
    if bool(batch) == bool(item):
        raise CouldNotRun("what is signed?", todo="Name one of --batch and --item.")
    with _ledger() as conn:
        if batch:
            entry = signoffs.sign(conn, batch_of(batch), role, who, note)
        else:
            entry = ready.sign(conn, item, role, who, note)
    if json:
        print_json(asdict(entry))
    else:
        out.print(escape(f"{entry.actor} has signed, entry {entry.no} of the ledger"))


@app.command()
def revoke(
    who: Who,
    reason: Annotated[str, typer.Option("--reason", help="Why.")],
    batch: Annotated[str, typer.Option("--batch", "-b", help="Of this batch …", metavar="LETTER")] = "",
    role: Annotated[str, typer.Option("--role", help="… the sign-off of this role.", metavar="ROLE")] = "",
    window: Annotated[int, typer.Option("--window", help="Or the freeze window of that entry.", metavar="NO")] = 0,
    json: Json = False,
) -> None:
    """Take a sign-off back, or a freeze window: it does not count from now on.

    Example: `phase2 revoke --batch D --role Owner --as made --reason "holiday moved"`
    """
    if bool(batch and role) == bool(window):
        raise CouldNotRun("what is revoked?", todo="Name --batch and --role, or --window.")
    with _ledger() as conn:
        if window:
            what = f"freeze window {ready.revoke_window(conn, window, who, reason)}"
        else:
            entry = signoffs.revoke(conn, batch_of(batch), role, who, reason)
            what = f"sign-off of {entry.subject} for batch {entry.batch}"
    if json:
        print_json({"revoked": what})
    else:
        out.print(escape(f"revoked: {what}"))


@app.command(name="freeze-window")
def freeze_window(
    first: Annotated[datetime | None, typer.Option("--from", formats=_TIMES, help="Its begin, Bali time.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=_TIMES, help="Its end, Bali time.")] = None,
    role: Annotated[str, typer.Option("--role", help="PM or Owner.", metavar="ROLE")] = "",
    who: Annotated[str, typer.Option("--as", help="Your name.", metavar="NAME")] = "",
    note: Annotated[str, typer.Option("--note", help="Kept with it.")] = "",
    json: Json = False,
) -> None:
    """Approve a window in which batches may run, or list those that stand.

    The shop and the back office are not deployed meanwhile. Where the policy demands it (production) no batch starts
    outside of one.

    Example: `phase2 freeze-window --from "2026-12-01 22:00" --to "2026-12-02 04:00" --role Owner --as made`
    """
    if (first is None) != (last is None):
        raise CouldNotRun("a window has a begin and an end", todo="Give --from and --to, in Bali time.")
    with _ledger() as conn:
        if first and last:
            known = [
                ready.approve_window(conn, first.replace(tzinfo=_BALI), last.replace(tzinfo=_BALI), role, who, note)
            ]
        else:
            known = ready.windows(conn)
    if json:
        print_json([{"entry": w.entry.no, "from": w.first, "to": w.last, "by": w.entry.actor} for w in known])
        return
    for window in known:
        out.print(escape(str(window)))
    if not known:
        out.print("no freeze window stands")


@app.command()
def backup(database: Database, json: Json = False) -> None:
    """Copy a database, restore the copy beside the ops database, and compare: rows and content of every table.

    Only a copy that is proven stays: below `PHASE2_HOME/backups`, the last five of each database. The source is only
    read; its user must be allowed to read all of it (the DBA's, not `phase2_reader`). Of ops the schemas `public` and
    `phase2` are copied: the rest is made again. Needs room for a second copy on the ops server.

    Example: `phase2 backup --database balisnap`
    """
    dbs = databases()
    steps.bootstrap(dbs.ops)
    entry = backups.take(dbs, database, why="asked for")
    if json:
        print_json(asdict(entry))
        return
    table = Table("table", "rows", box=None, header_style="bold")
    for name, rows in entry.body["rows"].items():
        table.add_row(escape(name), f"{rows:,}")
    out.print(table)
    place = backups.folder() / entry.body["file"]
    out.print(f"{escape(str(place))}  {entry.body['bytes']:,} bytes, {entry.body['proof']}, entry {entry.no}")


@app.command()
def restore(
    copy: Annotated[str, typer.Option("--copy", help="A file of PHASE2_HOME/backups.", metavar="FILE")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    json: Json = False,
) -> None:
    """Put the canonical rows back as a copy of the ops database has them: the way back from a rollback.

    The copy is proven once more, and what stands now is copied first. All in one transaction. The schema is not
    touched: after a rollback of A or B run these first. Afterwards the copy's batches are ERROR: run them again, which
    writes nothing where nothing differs.

    Example: `phase2 restore --copy ops-ops_db-3f2a1c-2026-12-01T14-00-00-000000Z.dump`
    """
    run = steps.prepare(progress=progress)
    if sys.stdin.isatty() and not yes and not Confirm.ask(f"Replace all rows by those of {copy}?", default=False):
        raise typer.Abort()
    with steps.only_runner(run):
        entry = backups.restore(run, copy)
    if json:
        print_json(asdict(entry))
    else:
        out.print(f"{entry.body['rows']:,} rows are back, entry {entry.no}; next: phase2 run --from A --to E")


@app.command()
def drift(
    database: Database,
    accept: Annotated[bool, typer.Option("--accept", help="Accept the catalog as it is.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why it is accepted.")] = "",
    json: Json = False,
) -> None:
    """Is the schema of a database still the one that was accepted? Every difference is listed.

    Tables, columns, constraints, indexes, views, functions, types, grants: all of a source, of ops schema `public`. The
    first check fails, as there is nothing to compare with: accept a baseline, with a reason. `--json` has each
    definition in full. Exit code 1: something differs, or there is no baseline.

    Example: `phase2 drift -d balisnap --accept --reason "as of release 41"`, later `phase2 drift -d balisnap`
    """
    url = getattr(databases(), database)
    with _ledger() as conn:
        found = drifts.accept(conn, url, database, reason) if accept else drifts.check(conn, url, database)
    baseline = found.baseline
    if json:
        about = baseline and {"entry": baseline.no, "by": baseline.actor, "at": baseline.at, **baseline.body}
        if about:
            del about["catalog"]
        print_json({"database": database, "digest": found.digest, "baseline": about, "differences": found.changes})
    elif baseline is None:
        out.print(f"[red]no baseline[/]  of {database}: nothing can be said of its drift")
        out.print(f'accept what is there: phase2 drift -d {database} --accept --reason "…"', markup=False)
    else:
        for line in found.lines:
            out.print(escape(line))
        since = f"the baseline of {baseline.at:%Y-%m-%d}, entry {baseline.no}, by {baseline.actor}"
        out.print(escape(f"{database}: {len(found.changes) or 'no'} differences from {since}"))
    raise typer.Exit(0 if found.none else 1)
