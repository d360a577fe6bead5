"""`phase2 rehearse`: a batch on a copy of the ops database, before it is run for real."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from bridge import batches, ledger, rehearsal, steps
from bridge.commands.base import AsOf, BatchCode, Json, app, batch_of, coloured, out, print_json, progress
from bridge.errors import CouldNotRun


@app.command()
def rehearse(
    batch: BatchCode,
    to: Annotated[
        str | None, typer.Option("--to", help="Go on to this batch, on the same copy.", metavar="LETTER")
    ] = None,
    as_of: AsOf = None,
    json: Json = False,
) -> None:
    """Rehearse a batch on a copy of the ops database: run, gates, rollback, run again. The copy is dropped.

    The sources are the real ones, only read. Compared are fingerprints of the whole database: after the rollback it
    must be as before the run, after the second run as after the first. Measured: seconds, rows, WAL, locks, and how
    long these would keep the legacy applications waiting.

    What comes of it is a certificate in the ledger: staging and production ask for one before a batch, of the same plan
    and code, not older than the days in the seed `rehearsal_tolerance`; the live run is compared with it. A batch that
    already stands is rolled back in the copy first, a missing one before it is run there. Exit code 1: it failed.

    Example: `phase2 rehearse --batch D`, or for all of them `phase2 rehearse --batch A --to E`
    """
    first = batch_of(batch)
    try:
        planned = batches.between(first.code, batch_of(to or batch).code)
    except ValueError as error:
        raise CouldNotRun(str(error), todo="Give --to a later batch.") from None
    certificates = rehearsal.perform(steps.prepare(as_of.date() if as_of else None, progress), planned)
    if json:
        print_json([{"entry": entry.no, **entry.body} for entry in certificates])
    else:
        for entry in certificates:
            _show(entry)
    raise typer.Exit(1 if any(rehearsal.failures(entry.body) for entry in certificates) else 0)


def _show(entry: ledger.Entry) -> None:
    body = entry.body
    table = Table(f"batch {entry.batch}", "seconds", "rows", "WAL, MB", "longest lock that blocks", box=None)
    for run in body["runs"]:
        table.add_row(
            run["what"],
            f"{run['seconds']:.1f}",
            f"{sum(run['rows'].values()):,}" if "rows" in run else "",
            f"{(run['wal_bytes'] or 0) / 1e6:.1f}",
            _longest(run["locks"]),
        )
    out.print(table)
    waits = max((wait["seconds"] for wait in body["waits"]), default=0.0)
    out.print(f"  the legacy applications' statements would have waited for {waits:.1f} s at most")
    for pair, said in body["differences"].items():
        if pair != "fp1 = fp0":
            out.print(f"  {pair}: {'yes' if not said['total'] else str(said['total']) + ' differences'}")
            for line in said["lines"]:
                out.print(f"    {escape(line)}")
    for problem in body["failures"]:
        out.print(f"  [red]{escape(problem)}[/]")
    until = f", counts until {body['expires_at'][:10]}" if body["result"] == "PASS" else ""
    out.print(f"{coloured(body['result'])}  entry {entry.no} of the ledger, {next(iter(body['files']))}{until}\n")


def _longest(locks: list[dict[str, Any]]) -> str:
    held = [lock for lock in locks if lock["blocks"] != "nothing"]
    if not held:
        return "none seen"
    worst = max(held, key=lambda lock: lock["seconds"])
    return f"{worst['seconds']:.2f} s on {worst['relation']} ({worst['blocks']})"
