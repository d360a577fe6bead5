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


@app.command()
def shadow(
    read: Annotated[bool, typer.Option("--read", help="First read what is lacking, where nobody else does.")] = False,
    most: Annotated[int, typer.Option("--most", help="List at most so many unexplained differences.")] = 20,
    json: Json = False,
) -> None:
    """Say whether the rollout of the read model may go a step up, by the shadow reads since the flag's last change.

    Each main read, and money, dates and head counts, need so many samples that the mismatch rate is below the limit of
    gate BG-01 with 95 % confidence: 299 without a single difference for 1 %.

    With `--read` pages of other days and bookings are read through the service until there are as many, for three
    minutes at most: for a demo, or a quiet night. What people read says more.

    Exit code 1 when the step has to wait. Example: `phase2 shadow --read`
    """
    from bridge import postgres, reads, steps
    from bridge import shadow as samples
    from bridge.settings import databases

    ops = databases().ops
    if read:
        reads.read_enough(steps.prepare(progress=progress))
    else:
        steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-shadow", read_only=True) as conn:
        judged = samples.judge(conn, most=most)
    if json:
        print_json(asdict(judged) | {"may_step_up": judged.may_step_up, "reasons": judged.reasons})
    else:
        table = Table("compared", "times", "different", "at most, with 95 %", box=None, pad_edge=False)
        for line in judged.lines:
            colour = "green" if line.holds(judged.limit) else "red"
            table.add_row(line.subject, f"{line.compared:,}", f"{line.different:,}", f"[{colour}]{line.upper:.2%}[/]")
        out.print(f"shadow reads since {judged.since:%Y-%m-%d %H:%M} UTC; the limit is {judged.limit:.2%}")
        out.print(table)
        beside = judged.beside
        out.print(
            f"bstadmin against itself: {beside['noise']} of {beside['calibrations']} differed; "
            f"gone when read again: {beside['gone_when_read_again']}; failed: {beside['failed']}; "
            f"approved differences: {beside['explained']:,} ({beside['ignored']:,} ignored)"
        )
        for row in judged.found:
            out.print(
                escape(
                    f"{row['compared_at']:%H:%M:%S}  {row['read_name']} {row['booking']}  {row['field']}: "
                    f"{row['legacy_value']!r} in bstadmin, {row['new_value']!r} in the read model"
                )
            )
        out.print(
            "[bold green]the next step may be taken[/]" if judged.may_step_up else "[bold]the next step waits[/]:"
        )
        for reason in judged.reasons:
            out.print(f"  {escape(reason)}")
    raise typer.Exit(0 if judged.may_step_up else 1)
