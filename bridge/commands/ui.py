"""`phase2 ui`: the UI release gate (G-07): pictures of the main pages against approved ones."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bridge import postgres, steps
from bridge.commands.base import Json, app, coloured, out, print_json
from bridge.settings import databases

commands = typer.Typer(rich_markup_mode="markdown", help="The UI release gate (blueprint 8.1).", no_args_is_help=True)
app.add_typer(commands, name="ui")

Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the ledger with your name.", metavar="WORDS")]


@commands.command()
def check(
    pages: Annotated[Path | None, typer.Option("--pages", help="Another file of pages than PHASE2_UI_PAGES.")] = None,
    json: Json = False,
) -> None:
    """Picture every configured page in every size, and compare it with its approved baseline.

    The report shows baseline, candidate and difference side by side; gate G-07 reads the result. Exit code 1: a page
    has drifted, or has no approved baseline. Needs Chromium. Example: `phase2 ui check`
    """
    from bridge import ui_gate

    ops = databases().ops
    steps.bootstrap(ops)
    configured = ui_gate.read(pages)
    with postgres.connect(ops, application_name="phase2-ui", autocommit=True) as conn:
        made = ui_gate.check(conn, configured)
    if json:
        print_json({"report": made.report, "compared": [asdict(one) for one in made.compared]})
    else:
        table = Table("picture", "", "differs", box=None, header_style="bold")
        for one in made.compared:
            word = coloured("PASS" if one.state == "SAME" else "FAIL")
            table.add_row(escape(one.item), f"{word} {one.state.replace('_', ' ').lower()}", f"{one.share:.4%}")
        out.print(table)
        out.print(str(made.report))
    raise typer.Exit(1 if made.drifted else 0)


@commands.command()
def approve(
    items: Annotated[list[str] | None, typer.Argument(help="Pictures, as the check names them; none: all.")] = None,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Make the drifted pictures of the latest check the baselines: a person's word, its reason and digests are kept.

    Example: `phase2 ui approve bookings-phone --reason "the new heading, ticket 12"`
    """
    from bridge import ui_gate

    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-ui", autocommit=True) as conn:
        approved = ui_gate.approve(conn, reason, tuple(items or ()))
    if json:
        print_json([{"item": one.item, "sha256": one.digest} for one in approved])
        return
    for one in approved:
        out.print(f"approved: {escape(one.item)}  {one.digest[:16]}")
