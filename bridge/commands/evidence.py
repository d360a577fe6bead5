"""`phase2 bundle` and `phase2 explain`: what can be handed over, and why a row is as it is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bridge import bundle as bundles
from bridge import steps
from bridge.commands.base import BatchCode, Json, app, batch_of, err, out, print_json
from bridge.settings import databases


@app.command()
def bundle(
    batch: BatchCode,
    out_file: Annotated[
        Path | None, typer.Option("--out", help="Where to write it (reports/bundles/…).", metavar="FILE")
    ] = None,
    json: Json = False,
) -> None:
    """Write the evidence of one batch as one archive, for whoever has to believe it.

    In it: the report of the latest verdict, the run log, the whole ledger, plan, dbt project and what ran of it,
    scripts, fingerprint, certificates, decisions, and `verify.py`, which recomputes every digest with Python alone.
    The same content makes the same bytes. No personal data. Exit code 1: something is not what the ledger says, and
    nothing was written.

    Example: `phase2 bundle --batch D`, then, anywhere: `unzip -d evidence D-80-….zip && python evidence/verify.py`
    """
    one = batch_of(batch)
    ops = databases().ops
    steps.bootstrap(ops)
    try:
        written = bundles.write(ops, one, out_file)
    except bundles.Unsound as unsound:
        if json:
            print_json({"bundle": None, "problems": [asdict(problem) for problem in unsound.problems]})
        for problem in unsound.problems if not json else ():
            out.print(f"[red]{escape(problem.where)}[/]  {escape(problem.what)}")
        err.print("no bundle was written: the evidence does not hold together")
        raise typer.Exit(1) from None
    if written.stale:
        err.print("the dbt project has changed since the batch ran: dbt/manifest.json is of now", style="yellow")
    if json:
        print_json(
            {
                "bundle": str(written.path),
                "sha256": written.sha256,
                "files": written.files,
                "entries": written.head[0],
                "head": written.head[1],
                "stale": written.stale,
                "problems": [],
            }
        )
        return
    out.print(f"{written.path}")
    out.print(f"{written.files} files, {written.head[0]} entries of the ledger")
    out.print(f"head {written.head[1]}")
    out.print(f"sha256 {written.sha256}")
