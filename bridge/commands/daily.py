"""`phase2 daily`: the reconciliation report of the day; and `phase2 exit-criteria`: is phase 2 done."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape
from rich.table import Table

from bridge import postgres, steps
from bridge.commands.base import Json, app, coloured, out, print_json
from bridge.settings import databases


@app.command()
def daily(json: Json = False) -> None:
    """Write the reconciliation report of the day: trend of each gate, new and gone exceptions, money at stake.

    It reads the latest verdicts and asks no gate; `reports/daily/{day}.html` and `.json`, one a day in Bali. Exit code
    1: a gate fails, or the migration is stopped. Example: `phase2 daily`
    """
    from bridge import daily as report

    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-daily", autocommit=True) as conn:
        made = report.make(conn)
    said = made.document
    if json:
        print_json(said)
    else:
        out.print(f"{said['new']:,} new exceptions, {said['closed']:,} gone, {said['open']:,} open")
        for one in said["money"]:
            out.print(f"at stake: {one['amount']} {one['currency']} of {one['bookings']:,} bookings")
        for name in (*said["failed"], *said["stops"]):
            out.print(f"[red]{escape(name)}[/]")
        out.print(str(made.html))
    raise typer.Exit(1 if said["failed"] or said["stops"] else 0)


@app.command(name="exit-criteria")
def exit_criteria(json: Json = False) -> None:
    """Ask the exit criteria of phase 2 (blueprint 11) of the system as it stands.

    Exit code 1: one of them does not hold yet. Example: `phase2 exit-criteria`
    """
    from bridge import exit_criteria as checklist

    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-exit", read_only=True) as conn:
        found = checklist.criteria(conn)
    if json:
        print_json([asdict(one) for one in found])
    else:
        table = Table("", "criterion", "what was found", "to do", box=None, header_style="bold")
        for one in found:
            table.add_row(coloured(one.state), escape(one.name), escape(one.evidence), escape(one.todo))
        out.print(table)
    raise typer.Exit(1 if any(one.holds for one in found) else 0)
