"""`phase2 parity`: is the read model what bstadmin shows; and `phase2 shadow`: may its rollout go a step up."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bridge.commands.base import Json, app, out, print_json, progress


@app.command()
def parity(
    most: Annotated[int, typer.Option("--most", help="List at most so many unexplained bookings.")] = 20,
    json: Json = False,
) -> None:
    """Compare every booking of bstadmin, as landed, field by field with what the read model shows of it.

    Approved differences (seed `approved_differences`) are counted apart, by rule. What is not explained is listed,
    values masked; all of it stands in `phase2.parity_bookings`, and gate BG-01 asks for the latest comparison.

    Exit code 1 when a difference is not explained. Example: `phase2 parity --most 5`
    """
    from bridge import parity as full
    from bridge import steps

    result = full.compare(steps.prepare(progress=progress), most=most)
    if json:
        print_json(asdict(result))
    else:
        counts = result.counts
        out.print(
            f"{counts['bookings']:,} bookings in {result.seconds:g} s: {counts['same']:,} same, "
            f"{counts['explained']:,} with approved differences alone, [bold]{result.unexplained:,} unexplained[/] "
            f"({counts['different']:,} differ, {counts['missing']:,} missing, {counts['surplus']:,} too many)"
        )
        table = Table("field", "rule", "bookings", "example", "why", "owner", box=None, pad_edge=False)
        for row in result.fields:
            table.add_row(
                row["field"],
                row["rule"] or "[red]unexplained[/]",
                f"{row['bookings']:,}",
                row["example"],
                escape(row["reason"] or ""),
                row["owner"] or "",
            )
        out.print(table)
        for booking in result.found:
            for field, (old, new, rule) in booking["differences"].items():
                if rule is None:
                    line = (
                        f"{booking['status']}  {booking['id']}  {field}: {old!r} in bstadmin, {new!r} in the read model"
                    )
                    out.print(escape(line))
    raise typer.Exit(1 if result.unexplained else 0)
