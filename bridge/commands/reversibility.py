"""`phase2 reversibility`: what a rollback to bstadmin alone would owe it now."""

from __future__ import annotations

from dataclasses import asdict

import typer
from rich.markup import escape
from rich.table import Table

from bridge import postgres, steps
from bridge import reversibility as meter
from bridge.commands.base import Json, app, out, print_json
from bridge.settings import databases


@app.command()
def reversibility(json: Json = False) -> None:
    """If we rolled back now: what would have to be applied again to bstadmin, until when, and the point of no return.

    Rows, bookings, money per currency and events, by kind. Exit code 1 once something can no longer be applied again.

    Example: `phase2 reversibility --json`
    """
    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-reversibility", read_only=True) as conn:
        read = meter.measure(conn)
    if json:
        print_json(asdict(read) | {"passed": read.passed})
    else:
        table = Table("owed to bstadmin", "rows", "bookings", "money", "events", "until", box=None, header_style="dim")
        for one in read.owed:
            money = ", ".join(f"{amount} {code}" for code, amount in one.money.items())
            until = f"{one.until:%Y-%m-%d %H:%M}" if one.until else "kept"
            table.add_row(one.kind, f"{one.rows:,}", f"{one.bookings:,}", money, f"{one.events:,}", until)
        out.print(table if read.owed else "nothing is owed to bstadmin")
        for step, stands, way in read.steps:
            out.print(f"  {step:<27} {escape(stands):<20} back: {escape(way)}")
        out.print(f"point of no return: {escape(read.point_of_no_return)}")
    raise typer.Exit(1 if read.passed else 0)
