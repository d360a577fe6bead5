"""`phase2 verify`: the ledger, or a bundle of it, recomputed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from bridge import ledger, postgres, steps, verify_bundle
from bridge.commands.base import Json, app, out, print_json
from bridge.errors import CouldNotRun
from bridge.settings import databases


@app.command()
def verify(
    pinned: Annotated[
        str | None, typer.Option("--head", help="A digest kept outside the database: it must be in the chain.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="An evidence bundle or its folder; no database is asked.")
    ] = None,
    json: Json = False,
) -> None:
    """Recompute the ledger: every digest of its chain, the rows that it tells of, exceptions, every report's file.

    One changed byte anywhere is named. Keep the head that it prints (each report has it too) where the database's
    owner cannot reach it: with `--head` a chain that was cut off or written anew is found as well. Exit code 1:
    something is wrong.

    Example: `phase2 verify --head 3f2a…`
    """
    if bundle:
        problems, number, digest = _of_bundle(bundle, pinned)
    else:
        dbs = databases()
        steps.bootstrap(dbs.ops)
        with postgres.connect(dbs.ops, application_name="phase2-verify", read_only=True) as conn:
            problems = ledger.verify(conn, pinned=pinned)
            number, digest = ledger.head(conn)
    if json:
        print_json({"entries": number, "head": digest, "problems": [asdict(problem) for problem in problems]})
    else:
        for problem in problems:
            out.print(f"[red]{escape(problem.where)}[/]  {escape(problem.what)}")
        out.print(f"{number} entries, {len(problems) or 'no'} problems")
        out.print(f"head {digest}")
    raise typer.Exit(1 if problems else 0)


def _of_bundle(place: Path, pinned: str | None) -> tuple[list[verify_bundle.Problem], int, str]:
    try:
        problems, manifest = verify_bundle.check(place, pinned)
    except OSError as error:
        raise CouldNotRun(
            f"the bundle cannot be read: {error.strerror}", where=str(place), todo="Make it: phase2 bundle --batch D"
        ) from None
    head = manifest.get("head") or {}
    return problems, head.get("no", 0), head.get("digest", "")
