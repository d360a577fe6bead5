"""`phase2 flag`: what is on, for whom; and to switch it, with a reason."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bridge import flags, postgres, steps
from bridge.commands.base import Json, app, out, print_json
from bridge.errors import CouldNotRun
from bridge.settings import databases


@app.command()
def flag(
    name: Annotated[str | None, typer.Argument(help="Which flag; none: all of them.")] = None,
    to: Annotated[str | None, typer.Argument(help="on or off; none: how it stands.")] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the ledger.")] = None,
    percentage: Annotated[float | None, typer.Option("--percentage", help="Of the actors, 0 to 100.")] = None,
    actors: Annotated[list[str] | None, typer.Option("--actor", help="Always in; repeat it.")] = None,
    emails: Annotated[list[str] | None, typer.Option("--email", help="Always in; repeat it.")] = None,
    channels: Annotated[list[str] | None, typer.Option("--channel", help="Only these; repeat it.")] = None,
    modules: Annotated[list[str] | None, typer.Option("--module", help="Only these; repeat it.")] = None,
    strict: Annotated[bool | None, typer.Option("--strict/--fallback", help="Whether the old path stands in.")] = None,
    json: Json = False,
) -> None:
    """Show the flags (blueprint 5), or switch one; every process follows within seconds.

    What is not named of a rollout stays as it was. `PHASE2_KILL` in the environment beats whatever is set here. Nothing
    is switched on while the migration is stopped; in staging and production the flags of reads and writes go no further
    than `phase2 rollout` has said go.

    Example: `phase2 flag WEB_EMIT_BOOKING_EVENT_ENABLED on --percentage 5 --reason "first step"`
    """
    from bridge import rollout as ladders

    ops = databases().ops
    steps.bootstrap(ops)
    known = {one: one for one in flags.FLAGS}
    if name is not None and name.upper() not in known:
        raise CouldNotRun(f"there is no flag {name!r}", todo=f"One of: {', '.join(known)}.")
    chosen = known[name.upper()] if name else None
    given = {
        "percentage": percentage,
        "actors": actors,
        "emails": [email.lower() for email in emails] if emails else None,
        "channels": channels,
        "modules": modules,
        "strict": strict,
    }
    with postgres.connect(ops, application_name="phase2-flag", autocommit=True) as conn:
        if to is not None:
            if to.lower() not in ("on", "off") or not (reason or "").strip() or chosen is None:
                raise CouldNotRun(
                    "a flag is switched on or off, with a reason",
                    todo=f'phase2 flag {chosen or name} off --reason "why"',
                )
            before = flags.read(conn).get(chosen)
            rollout = (before.rollout if before else flags.Rollout()).model_dump()
            rollout |= {part: value for part, value in given.items() if value is not None}
            ladders.by_hand(conn, chosen, to.lower() == "on", reason=reason or "", rollout=flags.rollout_of(rollout))
        elif any(value is not None for value in given.values()):
            raise CouldNotRun("on or off?", todo=f'phase2 flag {name} on --percentage 5 --reason "why"')
        rows = flags.read(conn)
    standing = {one: flags.in_force(one, rows) for one in ((chosen,) if chosen else flags.FLAGS)}
    if json:
        print_json(
            [
                {"flag": one, "enabled": row.enabled, **row.rollout.model_dump(), "fault": row.fault or None}
                for one, row in standing.items()
            ]
        )
        return
    table = Table("flag", "is", "for whom", box=None, header_style="dim")
    for one, row in standing.items():
        table.add_row(one, "[green]on[/]" if row.enabled else "[dim]off[/]", escape(flags.words(row)))
    out.print(table)
