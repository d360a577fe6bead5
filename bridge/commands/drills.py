"""`phase2 drill`: the required tests of ingestion, on a copy of the ops database."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from bridge import ledger, steps
from bridge.commands.base import Json, app, coloured, out, print_json, progress
from bridge.errors import CouldNotRun


@app.command()
def drill(
    name: Annotated[
        str | None,
        typer.Argument(
            help="duplicate, out-of-order, burst, replay, rollback, read-rollback, write-rollback; none: all."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Drill ingestion and writes (blueprint 6.7, 6.9), on a copy of the ops database that is dropped.

    A service of its own (API, worker, Valkey) works on the copy, and an empty database stands in for bstadmin; every
    booking is made up, and none reaches the ops database. Drilled are duplicate deliveries, events out of order, a
    burst of ten times the busiest minute (of at least 200 events), the replay of a failed event with its audit rows,
    the rollback: flags off while events come in, how long until the old path serves, and that nothing is lost; and
    the rollbacks of reads and of writes, while people read and write.

    What comes of it is a row of `phase2.drills`, an entry `drill` in the ledger, and a report below `reports/drills/`;
    the gates F-06, G-04 and H-04 ask for the latest of each, of the last 30 days. Exit code 1: a drill failed.

    Example: `phase2 drill burst`
    """
    from bridge import drills

    known = {one.replace("_", "-"): one for one in drills.DRILLS}
    asked = (name or "").lower().replace("_", "-")
    if asked and asked not in known:
        raise CouldNotRun(f"there is no drill {name!r}", todo=f"One of: {', '.join(known)}.")
    entries = drills.perform(steps.prepare(progress=progress), [known[asked]] if asked else list(known.values()))
    if json:
        print_json([{"entry": entry.no, "drill": entry.subject, **entry.body} for entry in entries])
    else:
        for entry in entries:
            _show(entry)
    raise typer.Exit(0 if drills.verdict(entries) == "PASS" else 1)


def _show(entry: ledger.Entry) -> None:
    table = Table("", entry.body["title"], "", box=None, header_style="bold")
    for check in entry.body["checks"]:
        table.add_row(coloured("PASS" if check["passed"] else "FAIL"), escape(check["name"]), escape(check["found"]))
    out.print(table)
    out.print(f"{coloured(entry.body['result'])}  entry {entry.no} of the ledger, {_page(entry)}\n")


def _page(entry: ledger.Entry) -> str:
    return next(name for name in entry.body["files"] if name.endswith(".html"))
