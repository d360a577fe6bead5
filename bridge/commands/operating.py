"""`phase2 stop`, `resume` and `retention`: what operating the migration takes beside running it."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape

from bridge import postgres, steps
from bridge import stop as stops
from bridge.commands.base import Json, app, err, out, print_json, progress
from bridge.settings import databases

Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the ledger with your name.", metavar="WORDS")]


@app.command()
def stop(reason: Reason, json: Json = False) -> None:
    """Hold the migration: a run stops before its next step, and nothing starts until `phase2 resume`.

    Works without Prefect. So do a stop file (`PHASE2_STOP_FILE`) and one row, from any SQL client on the ops database:
    `select phase2.log('stop', null, null, null, current_user, '{"reason": "…"}')`. Rollback and recon stay possible.

    Example: `phase2 stop --reason "payments look wrong since 09:40"`
    """
    dbs = databases()
    steps.bootstrap(dbs.ops)
    with postgres.connect(dbs.ops, application_name="phase2-stop", autocommit=True) as conn:
        entry = stops.ask(conn, reason)
    if json:
        print_json({"entry": entry.no, "by": entry.actor, "at": entry.at, "reason": entry.body["reason"]})
    else:
        out.print(f"stopped by {escape(entry.actor)}, entry {entry.no} of the ledger: {escape(entry.body['reason'])}")
        out.print("a run that is under way stops before its next step; nothing starts until `phase2 resume`")


@app.command()
def resume(reason: Reason, json: Json = False) -> None:
    """Lift every stop that stands: a person's word, with a reason that is kept. Says what it lifted.

    Nothing is started by it: run the batch again. Exit code 2 when nothing is stopped.

    Example: `phase2 resume --reason "webhook fixed, payments of today compared by hand"`
    """
    dbs = databases()
    steps.bootstrap(dbs.ops)
    with postgres.connect(dbs.ops, application_name="phase2-stop", autocommit=True) as conn:
        lifted = stops.lift(conn, reason)
    if json:
        print_json([vars(stop) for stop in lifted])
        return
    for stop in lifted:
        out.print(f"lifted: {escape(str(stop))}")


@app.command()
def retention(json: Json = False) -> None:
    """Forget what has served its time: `sql/phase2/091_retention_cleanup.sql`, until it removes nothing more.

    Old dead letters, idempotency rows and decided queue rows go, 1,000 of each rule at a time, then nonces and answers
    of ingestion. Logged as a step and in the ledger, with the rows of each rule. Exit code 1 while the migration is
    stopped: what an incident may need stays.

    Example: `phase2 retention --json`
    """
    from bridge import retention as rule

    removed = rule.clean(progress=progress)
    if json:
        print_json(removed)
        return
    for name, rows in removed.items():
        out.print(f"{name:<17} {rows:>8,} removed")
    if not removed:
        err.print("the core tables are not there yet: nothing to clean")


def show_stops(ops_url: str) -> None:
    """One line for each stop that stands, above the batches."""
    with postgres.connect(ops_url, application_name="phase2-status", read_only=True) as conn:
        for one in stops.standing(conn):
            out.print(f"[bold yellow]STOPPED[/]  {escape(str(one))}")
            out.print(f"         {escape(stops.HOW_TO_LIFT)}")
