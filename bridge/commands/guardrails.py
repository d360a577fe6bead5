"""`phase2 guardrails`: what is measured while a flag of F, G or H is on, and what has stopped the migration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bridge.commands.base import Json, app, coloured, out, print_json, progress


@app.command()
def guardrails(
    page: Annotated[bool, typer.Option("--page", help="Write the page with a week of every guardrail, drawn.")] = False,
    json: Json = False,
) -> None:
    """Measure the guardrails (blueprint 8) once, as the schedule does every 5 minutes while a flag of F, G or H is on.

    A breach is a hard stop: the whole migration is on hold, the flags of the batch in question go off, it is rolled
    back, and people are told. Only `phase2 resume --reason "…"` lifts it. Without a flag nothing is measured.

    Exit code 1: a hard stop stands; 2: a guardrail cannot be measured. Example: `phase2 guardrails --page`
    """
    from bridge import guardrails as rails
    from bridge import postgres
    from bridge.settings import databases

    dbs = databases()
    seen = rails.watch(dbs, progress=progress)
    written = seen.page
    if page:
        with postgres.connect(dbs.ops, application_name="phase2-guardrails", autocommit=True) as conn:
            written = rails.write_page(conn)
    if json:
        print_json(asdict(seen) | {"page": written})
    else:
        if not seen.active:
            out.print("no flag of F, G or H is on: nothing is measured")
        table = Table("guardrail", "", "limit", "in words", box=None, header_style="bold")
        for one in seen.readings:
            row = rails.guardrails()[one.guardrail]
            word = {"OK": "PASS", "BREACH": "FAIL", "TOO_LITTLE": "N/A", "NOT_MEASURED": "ERROR"}[one.status]
            shown = coloured(word).replace(word, one.status.replace("_", " ").lower())
            table.add_row(row.title, shown, rails.limit_of(row), escape(one.words))
        if seen.readings:
            out.print(table)
        for stop in seen.stops:
            out.print(f"[bold red]STOPPED[/]  {escape(str(stop))}")
        if written:
            out.print(str(written))
    raise typer.Exit(1 if seen.stops else 2 if seen.blind else 0)
