"""`phase2 bundle` and `phase2 explain`: what can be handed over, and why a row is as it is."""

from __future__ import annotations

import json as jsonlib
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer
from psycopg import IsolationLevel
from rich.markup import escape
from rich.table import Table

from bridge import bundle as bundles
from bridge import explain as explaining
from bridge import postgres, steps
from bridge.commands.base import BatchCode, Json, app, batch_of, err, out, print_json
from bridge.errors import CouldNotRun
from bridge.reports.write import explanation
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
    The same content makes the same bytes. No personal data. What the ledger would not say has its digests in an entry
    "bundle", so that the head, kept elsewhere, holds all of it. Exit code 1: something is not what the ledger says, and
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
        changed = ", ".join(written.stale)
        err.print(
            f"STALE: {changed} changed since the verdict; dbt/, scripts/ and plan.json are of now", style="yellow"
        )
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


@app.command()
def explain(
    word: Annotated[
        str,
        typer.Argument(
            help="A booking ref, source id, payment ref, capture id, key, slug, code, or a row: `balisnap:Booking:12`."
        ),
    ],
    html: Annotated[Path | None, typer.Option("--html", help="Write one page to this file.", metavar="FILE")] = None,
    json: Json = False,
) -> None:
    """Say why a row of the bridge is as it is.

    What the bridge holds, from which landed rows, by which rule for each field, which candidates lost and why, rows of
    the queue, gates that list it, runs that wrote it, later events. Only reads; names, mails and phones are masked. A
    word with several meanings lists them, each with what to ask for. Exit code 2: nothing is called that, or several
    things are.

    Example: `phase2 explain GYG-123456`, `phase2 explain balisnap:Payment:77 --html payment.html`
    """
    with postgres.connect(databases().ops, application_name="phase2-explain", read_only=True) as conn:
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        matches = explaining.find(conn, word)
        if len(matches) > 1:
            _list_matches(word, matches, json)
            raise typer.Exit(2)
        document = explaining.explain(conn, matches[0])
    if html:
        _write(html, explanation(document))
    if json:
        print_json(document)
    else:
        _tell(document)
        if html:
            out.print(f"page: {html}")


def _write(page: Path, text: str) -> None:
    try:
        page.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CouldNotRun(
            f"the page cannot be written: {error.strerror}",
            where=str(page),
            todo="Name a file that can be, in a folder that is there: --html.",
        ) from None


def _list_matches(word: str, matches: list[explaining.Match], json: bool) -> None:
    if json:
        print_json({"matches": [{"kind": m.kind, "ask_for": m.name, "understood_as": m.said} for m in matches]})
        return
    table = Table("kind", "understood as", "ask for", box=None, header_style="bold")
    for match in matches:
        table.add_row(match.kind, escape(match.said), escape(match.name))
    out.print(f"{escape(word)} means {len(matches)} things:")
    out.print(table)


def _tell(told: dict[str, Any]) -> None:
    """The document in lines: what it is, who lost, then field by field."""
    say = out.print
    say(f"[bold]{escape(told['title'])}[/]  {told['key'] or ''}")
    for line in told["summary"]:
        say(f"  {escape(line)}")
    for note in told["notes"]:
        say(f"  [yellow]{escape(note)}[/]")
    if told["candidates"]:
        say("\n[bold]Candidates[/]  ranked by proof of payment (mapping 4.3)")
        for candidate in told["candidates"]:
            word = "[green]won[/] " if candidate["won"] else "[red]lost[/]"
            say(f"  {candidate['rank']}  {word}  {candidate['row']}  {candidate['proof']}; {escape(candidate['why'])}")
    for package in told["packages"]:
        where = package["product_key"] or "nothing"
        say(f"\n[bold]Package[/] {package['row']}  {package['outcome']} → {where} {package['variant_by'] or ''}")
        for candidate in package["candidates"]:
            word = {True: "[green]won[/] ", False: "[red]lost[/]", None: "[yellow]open[/]"}[candidate["won"]]
            say(f"  {word}  {candidate.get('product_key')}  by {candidate['by']}  {escape(candidate['why'] or '')}")
    for row in told["rows"]:
        say(f"\n[bold]{row['table']}[/]  {row['key']}  {', '.join(row['from'])}")
        for field in row["fields"]:
            rule = f"{field['rule']} (mapping {field['paragraph']}: {', '.join(field['decided_in'])})"
            say(f"  {field['column']} = {escape(_short(field['value']))}  [dim]{escape(rule)}[/]")
            for origin in field["from"]:
                mark = {True: "[green]✓[/]", False: "[red]✗[/]", None: "[dim]·[/]"}[origin["in_bridge"]]
                why = f"  {origin['why']}" if origin["why"] else ""
                say(f"    {mark} {origin['row']} {origin['column']} = {escape(_short(origin['value']) + why)}")
    say("\n[bold]Landed rows[/]")
    for source in told["sources"]:
        note = f"makes {source['makes']}" if source["makes"] else ""
        say(f"  {source['row']}  {escape('; '.join(filter(None, (note, source['note']))))}")
    for name, lines in (
        (
            "Queue",
            [f"{q['status']}  {q['queue_type']} {q['reason_code']}  {q['reason_detail']}" for q in told["queue"]],
        ),
        ("Gates that list it", [f"{e['gate_id']}  {e['status']}  {e['key']}" for e in told["exceptions"]]),
        ("Verdicts", [_verdict(verdict) for verdict in told["verdicts"]]),
        ("Runs", [f"{r['batch']}  {r['model']}  {r['status']}  {r['started_at']}" for r in told["runs"]]),
        ("Events", [f"{e['event_time']}  {e['event_type']}  {e['process_status']}" for e in told["events"]]),
    ):
        say(f"\n[bold]{name}[/]{'' if lines else '  none'}")
        for line in lines:
            say(f"  {escape(line)}")


def _verdict(verdict: dict[str, Any]) -> str:
    stale = f"  STALE: {', '.join(verdict['stale'])} changed since" if verdict["stale"] else ""
    return f"{verdict['batch']}  {verdict['result']}  {verdict['at']}  entry {verdict['entry']}{stale}"


def _short(value: Any) -> str:
    """A value in one line."""
    text = value if isinstance(value, str) else jsonlib.dumps(value, ensure_ascii=False)
    return shorten(text, 160, placeholder=" …")
