"""`phase2 waive`, `unwaive`, `waivers`, and what `phase2 run --dry-run` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bridge import door, postgres, steps, waivers
from bridge.batches import Batch
from bridge.commands.base import BatchCode, Json, app, coloured, out, print_json
from bridge.errors import CouldNotRun
from bridge.settings import databases

GateId = Annotated[str, typer.Option("--gate", "-g", help="Which gate of it, for instance C-01.", metavar="ID")]


@app.command()
def waive(
    batch: BatchCode,
    gate: GateId,
    reason: Annotated[str, typer.Option("--reason", help="Why this failure can be borne.")],
    expires: Annotated[
        datetime, typer.Option("--expires", formats=["%Y-%m-%d"], help="The last day, in Bali, that it stands.")
    ],
    at_most: Annotated[int | None, typer.Option("--at-most", help="Scope: no more exceptions than this.")] = None,
    value: Annotated[
        str | None, typer.Option("--value", help="Scope: a value no worse than this (0.01 is 1 %).", metavar="NUMBER")
    ] = None,
    json: Json = False,
) -> None:
    """Answer for a known failure of one gate of one batch, under your name, until a day.

    Within its scope the gate still says FAIL and holds nothing up; each report shows who bears it. Without a scope it
    is the number of exceptions that the latest verdict counted. It holds from the next verdict on: `phase2 recon`, or
    a run. Gates of severity `stop` in the registry (A, B, D-01, G-01, G-08) cannot be waived.

    Example: `phase2 waive --batch C --gate C-01 --reason "14 retired tours, ticket 812" --expires 2026-12-31`
    """
    dbs = databases()
    steps.bootstrap(dbs.ops)
    try:
        limit = None if value is None else Decimal(value)
    except InvalidOperation:
        raise CouldNotRun(f"--value {value} is no number", todo="Write it as 0.01.") from None
    with postgres.connect(dbs.ops, application_name="phase2-waive", autocommit=True) as conn:
        given = waivers.waive(
            conn, batch=batch, gate=gate, reason=reason, expires=expires.date(), at_most=at_most, value=limit
        )
    if json:
        print_json(asdict(given))
    else:
        out.print(escape(f"{given.gate} of batch {given.batch}: {given}"))
        out.print(f"It holds from the next verdict on: make recon BATCH={given.batch}")


@app.command()
def unwaive(
    batch: BatchCode,
    gate: GateId,
    reason: Annotated[str, typer.Option("--reason", help="Why it ends before its day.")],
    json: Json = False,
) -> None:
    """Revoke a waiver: the gate fails again, and the doors behind its batch shut at once.

    Example: `phase2 unwaive --batch C --gate C-01 --reason "the tours are mapped"`
    """
    dbs = databases()
    steps.bootstrap(dbs.ops)
    with postgres.connect(dbs.ops, application_name="phase2-waive", autocommit=True) as conn:
        ended = waivers.revoke(conn, batch=batch, gate=gate, reason=reason)
    if json:
        print_json(asdict(ended))
    else:
        out.print(f"the waiver of {ended.gate} for batch {ended.batch} (entry {ended.entry}) stands no more")


@app.command(name="waivers")
def list_waivers(json: Json = False) -> None:
    """The waivers that stand: which gate of which batch, who answers for it, until when, for how much.

    Expired and revoked ones are in the ledger (`phase2.ledger`, kinds `waiver` and `waiver revoked`).
    """
    dbs = databases()
    steps.bootstrap(dbs.ops)
    with postgres.connect(dbs.ops, application_name="phase2-waive", read_only=True) as conn:
        standing = waivers.standing(conn)
    if json:
        print_json([asdict(waiver) | {"scope": waiver.scope} for waiver in standing])
        return
    table = Table("batch", "gate", "by", "until", "scope", "reason", "entry", box=None, header_style="bold")
    for w in standing:
        table.add_row(w.batch, w.gate, escape(w.by), str(w.expires), w.scope, escape(w.reason), str(w.entry))
    out.print(table if standing else "no waiver stands")


def dry_run(planned: Sequence[Batch], json: bool, as_of: date | None = None) -> int:
    """Show what a run would do, changing nothing; exit code 1 when the first door is shut."""
    shown = door.dry_run(databases().ops, planned, as_of)
    if json:
        print_json(shown)
    else:
        for one in shown:
            out.print(f"[bold]{one['batch']}[/]  {one['focus']}")
            for line in one["door"]:
                word = coloured(line["state"]) + ("" if line["demanded"] else " (not demanded)")
                out.print(f"  door  {line['name']}: {word}  {escape(line['evidence'])}")
            for step in one["steps"]:
                out.print(f"  step  {step['name']}: {escape(step['title'])}")
                for name, checksum in step["files"].items():
                    out.print(f"        {name}  sha256 {checksum}", style="dim")
            out.print(f"  then  the gates {', '.join(one['gates'])}")
        out.print("nothing was changed")
    return 1 if any(line["holds"] for line in shown[0]["door"]) else 0
