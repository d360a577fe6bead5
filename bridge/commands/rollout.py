"""`phase2 rollout`: one rung of the cutover at a time; `phase2 incident`: what people in operations complain about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated
from uuid import UUID

import psycopg
import typer
from rich.markup import escape
from rich.table import Table

from bridge import incidents, postgres, steps
from bridge.commands.base import Json, app, coloured, out, print_json, progress
from bridge.errors import CouldNotRun
from bridge.settings import databases

Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the ledger with your name.", metavar="WORDS")]


@app.command()
def rollout(
    batch: Annotated[str, typer.Argument(help="G (reads) or H (writes).", metavar="LETTER")],
    go: Annotated[bool, typer.Option("--go", help="Take the next rung, when nothing holds it.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Take one rung back, at once.")] = False,
    reason: Reason = "",
    json: Json = False,
) -> None:
    """Where a cutover stands, and whether its next rung may be taken: testers, 5, 25, 50, 100 %.

    Each step up is a go / no-go: the batch's gates are measured afresh (G: after a full comparison), the shadow reads
    since the last step are judged (G), and what let the batch start must still hold: sign-offs, freeze window, no stop.
    Then a person says `--go`. One rung at a time; `--down` asks nothing. `make rollback` switches all of it off.

    H takes note and meeting point first, then assignment, then booking, each by the same parts; last the web's events.

    Exit code 0: the next rung may be taken (or was); 1: it waits, and the table says for what.

    Example: `phase2 rollout G`, then `phase2 rollout G --go --reason "a quiet week with the testers"`
    """
    from bridge import rollout as ladders

    if go and down:
        raise CouldNotRun("up or down?", todo="Give --go or --down.")
    run = steps.prepare(progress=progress)
    if go or down:
        entry = (ladders.step_up if go else ladders.step_down)(run, batch, reason)
        if json:
            print_json(asdict(entry))
        else:
            out.print(f"{entry.batch}: from {entry.body['from']} to {entry.body['to']}, entry {entry.no} of the ledger")
        return
    seen = ladders.look(run, batch)
    if json:
        told = [asdict(line) | {"holds": line.holds} for line in seen.criteria]
        following = seen.next.name if seen.next else None
        rungs = [rung.name for rung in seen.ladder.rungs]
        print_json({"batch": seen.ladder.code, "rungs": rungs, "stands": seen.now, "next": following,
                    "go": not seen.holding, "holding": seen.holding, "criteria": told})  # fmt: skip
    else:
        for number, rung in enumerate(seen.ladder.rungs):
            mark = "[green]open[/]" if number <= seen.stands else "next" if rung is seen.next else ""
            out.print(f"  {escape(rung.name):<32} {mark}")
        table = Table("criterion", "state", "evidence", "to do", box=None, header_style="bold")
        for line in seen.criteria:
            state = coloured(line.state) + ("" if line.demanded or line.state != "HOLD" else " (not demanded)")
            table.add_row(escape(line.name), state, escape(line.evidence), escape(line.todo))
        if seen.next is None:
            out.print(f"[bold green]at the top[/]: {escape(seen.now)}")
        else:
            out.print(table)
            word = "[bold red]NO GO[/]" if seen.holding else "[bold green]GO[/]"
            out.print(f"{word}  {escape(seen.now)} → {escape(seen.next.name)}  {escape(', '.join(seen.holding))}")
    raise typer.Exit(1 if seen.holding else 0)


incident = typer.Typer(
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Incidents and complaints: an open critical one fails gate BG-03, and holds the next rung of a rollout.",
)
app.add_typer(incident, name="incident")


@contextmanager
def _ops() -> Iterator[psycopg.Connection]:
    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-incident", autocommit=True) as conn:
        yield conn


@incident.command(name="open")
def open_one(
    title: Annotated[str, typer.Option("--title", help="In a few words; no names of guests.", metavar="WORDS")],
    severity: Annotated[str, typer.Option("--severity", help="critical, major or minor.")] = "critical",
    kind: Annotated[str, typer.Option("--kind", help="incident or complaint.")] = "incident",
    json: Json = False,
) -> None:
    """Open one; mails and phones in its title are hidden.

    Example: `phase2 incident open --severity critical --title "drivers of tomorrow are missing on the board"`
    """
    with _ops() as conn:
        found = incidents.opened(conn, title, severity, kind)  # type: ignore[arg-type]
    if json:
        print_json({"incident_id": found})
    else:
        out.print(f"opened: {found}")


@incident.command()
def close(
    incident_id: Annotated[UUID, typer.Argument(help="As the list shows it.", metavar="ID")],
    reason: Reason,
    json: Json = False,
) -> None:
    """Close one, with what has become of it.

    Example: `phase2 incident close 019… --reason "a filter was set; told the team"`
    """
    with _ops() as conn:
        incidents.close(conn, incident_id, reason)
    if json:
        print_json({"incident_id": incident_id, "closed": True})
    else:
        out.print(f"closed: {incident_id}")


@incident.command(name="list")
def list_them(
    closed: Annotated[bool, typer.Option("--closed", help="Those that are closed too.")] = False, json: Json = False
) -> None:
    """Those that are open, critical first. Exit code 1: a critical one is.

    Example: `phase2 incident list --closed`
    """
    with _ops() as conn:
        found = incidents.listed(conn, closed=closed)
    if json:
        print_json([asdict(one) for one in found])
    else:
        table = Table("id", "", "severity", "title", "opened", "closed", box=None, header_style="dim")
        for one in found:
            ended = f"{one.closed_at:%Y-%m-%d %H:%M} {one.closed_by}: {one.close_reason}" if one.closed_at else ""
            when = f"{one.opened_at:%Y-%m-%d %H:%M} {one.opened_by}"
            table.add_row(str(one.incident_id), one.kind, one.severity, escape(one.title), escape(when), escape(ended))
        out.print(table if found else "no open incident")
    raise typer.Exit(1 if any(one.severity == "critical" and not one.closed_at for one in found) else 0)
