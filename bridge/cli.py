"""`phase2`: the one command line. Exit codes: 0 pass, 1 a gate failed or a door is shut, 2 could not run."""

from __future__ import annotations

import json as jsonlib
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.prompt import Confirm
from rich.table import Table

from bridge import batches, postgres
from bridge.commands import (  # noqa: F401  (a topic's commands register themselves)
    conflicts,
    cutover,
    daily,
    door,
    drills,
    emitters,
    evidence,
    flags,
    guardrails,
    ledger,
    operating,
    rehearsal,
    reversibility,
    rollout,
    serve,
    signoff,
    ui,
)
from bridge.commands.base import (
    AsOf,
    BatchCode,
    Json,
    app,
    batch_of,
    coloured,
    err,
    flow,
    out,
    print_json,
    progress,
)
from bridge.errors import CouldNotRun, GateFailed, plain
from bridge.settings import ROOT, databases, settings

# the base of every complaint about a command's words; Typer exports only this child of it
_UsageError: Any = typer.BadParameter.__mro__[1]


def main() -> None:
    """Entry point: errors become one clear message and an exit code."""
    try:
        sys.exit(app(standalone_mode=False) or 0)  # the exit code of `typer.Exit` is returned, not raised
    except typer.Abort:
        err.print("stopped: nothing was done")
        sys.exit(2)
    except GateFailed as failed:
        err.print(f"[bold red]HOLD[/]  {escape(str(failed))}")
        sys.exit(1)
    except CouldNotRun as problem:
        _tell(problem)
        sys.exit(2)
    except _UsageError as usage:
        usage.show()
        sys.exit(2)
    except Exception as unexpected:  # whatever it was, no gate said no: exit code 1 would lie
        if os.environ.get("PHASE2_DEBUG"):
            raise
        _tell(CouldNotRun(f"{type(unexpected).__name__}: {plain(unexpected)}", todo="PHASE2_DEBUG=1 shows where."))
        sys.exit(2)


def _tell(problem: CouldNotRun) -> None:
    err.print(f"[bold red]could not run[/]  {escape(problem.what)}")
    if problem.where:
        err.print(f"  where  {escape(problem.where)}")
    if problem.todo:
        err.print(f"  to do  {escape(problem.todo)}")


@app.command()
def up(json: Json = False) -> None:
    """Start the databases and make our own schemas in the ops database.

    Embedded: makes and starts a real PostgreSQL below `.phase2/`. With URLs set: only looks whether they answer.
    """
    from bridge import steps

    dbs = databases()
    for url in (dbs.balisnap, dbs.bstadmin):
        postgres.connect(url, read_only=True).close()
    steps.bootstrap(dbs.ops)
    places = {"ops": dbs.ops, "balisnap": dbs.balisnap, "bstadmin": dbs.bstadmin}
    shown = {name: postgres.describe(url) for name, url in places.items()}
    if json:
        print_json(shown)
    else:
        for name, place in shown.items():
            out.print(f"{name:<9} {place}")


@app.command()
def run(
    from_batch: Annotated[str, typer.Option("--from", help="First batch.", metavar="LETTER")] = "A",
    to_batch: Annotated[str, typer.Option("--to", help="Last batch; F needs the service.", metavar="LETTER")] = "E",
    as_of: AsOf = None,
    on_fail: Annotated[str, typer.Option("--on-fail", help="When a gate fails: `hold` or `rollback`.")] = "hold",
    full: Annotated[
        bool, typer.Option("--full", help="Compare every row, also where nothing it reads or wrote has changed.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show steps, scripts and doors.")] = False,
    json: Json = False,
) -> None:
    """Run batches in their order, through the Prefect flows.

    A batch starts only when every batch before it is PASS. When a gate fails the batch is on hold (exit code 1): look
    at its report, mend the cause, run it again. With `--on-fail rollback` the failed batch is rolled back at once.
    A batch that failed is not run again as it was: something of its sources, code, gates or decisions must be another.

    `--dry-run` shows what would be done and what the doors say, needs no right to write, and changes nothing.

    Example: `phase2 run --from C --to E --as-of 2026-02-19`
    """
    planned = _between(from_batch, to_batch)
    if on_fail not in ("hold", "rollback"):
        raise CouldNotRun(f"--on-fail {on_fail}", todo="Use hold or rollback.")
    if dry_run:
        raise typer.Exit(door.dry_run(planned, json, as_of.date() if as_of else None))
    began = time.time()
    code = flow(
        ["run", "--from", planned[0].code, "--to", planned[-1].code, "--on-fail", on_fail]
        + (["--as-of", as_of.date().isoformat()] if as_of else [])
        + (["--full"] if full else [])
    )
    _show_status(json, judged_since=began)
    raise typer.Exit(code)


@app.command()
def model(
    name: Annotated[str, typer.Argument(help="A dbt model, seed or function, by its name.", metavar="NAME")],
    json: Json = False,
) -> None:
    """Build one dbt model and show what it changed: for whoever edits it.

    Runs its unit and data tests and its parents' data tests; the parents are taken as they are. Then says which rows
    are new, gone or changed against before, and in which columns. Exit code 1: a test failed.
    """
    from bridge import model as one
    from bridge import steps

    built = one.build(steps.prepare(progress=progress), name)
    if json:
        nodes = [{"name": n.name, "kind": n.kind, "status": n.status, "seconds": n.seconds} for n in built.nodes]
        print_json({"nodes": nodes, "difference": built.difference and asdict(built.difference)})
    else:
        out.print(f"{len(built.nodes) - len(built.failed)} of {len(built.nodes)} nodes and tests are good")
        for node in built.failed:
            out.print(f"[red]{node.status}[/] {node.kind} {node.name}  {escape(plain(node.message))}")
        if built.difference:
            _show_difference(built.difference)
            if built.difference.relation.startswith("public."):
                out.print("the verdict of its batch is of the rows before: make recon BATCH=…")
    raise typer.Exit(1 if built.failed else 0)


def _show_difference(difference: Any) -> None:
    others = difference.new + difference.gone + difference.changed
    out.print(
        f"{difference.relation}: {difference.before:,} rows before, {difference.after:,} now"
        f" ({difference.new:,} new, {difference.gone:,} gone, {difference.changed:,} changed)"
    )
    if difference.columns_changed:
        out.print(f"  new, gone or of another type: {', '.join(difference.columns_changed)}")
    for column, rows in difference.columns.items():
        out.print(f"  {column} differs in {rows:,}")
    if difference.keys:
        more = " …" if others > len(difference.keys) else ""
        out.print(f"  {difference.key}: {', '.join(difference.keys)}{more}")


@app.command()
def recon(
    batch: BatchCode,
    full: Annotated[bool, typer.Option("--full", help="Ask every row, whatever was measured before.")] = False,
    json: Json = False,
) -> None:
    """Evaluate the gates of one batch on the state as it is; write the report.

    Does not run the batch and does not start Prefect. Exit code 0: every gate passed; 1: one did not.
    """
    from bridge import recon as reconciliation

    outcome = reconciliation.evaluate(batch_of(batch).code, full=full, progress=progress)
    if json:
        print_json(outcome.document)
    else:
        _show_gates(outcome.table())
        verdict = outcome.verdict
        out.print(f"unaccounted source rows: {verdict.unaccounted_rows}")
        out.print(f"batch {verdict.batch}: {coloured(verdict.result)}  {outcome.report.html}")
    raise typer.Exit(0 if outcome.verdict.result == "PASS" else 1)


@app.command()
def rollback(
    batch: BatchCode,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what it would do.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask on a terminal.")] = False,
    json: Json = False,
) -> None:
    """Roll one batch back, exactly: what it will do is shown first.

    Refuses when a later batch is in: roll back in reverse order. On a terminal it asks; in a script it does not.
    """
    from bridge import rollback as undo
    from bridge import steps

    one = batch_of(batch)
    run = steps.prepare(progress=progress)
    with run.connect() as conn:
        undo.check(conn, one)
        lines = undo.plan(conn, one)
    if not json:
        out.print(f"Rollback of batch {one.code} ({one.focus}):")
        for line in lines:
            out.print(f"  - {escape(line)}")
    if not dry_run:
        if sys.stdin.isatty() and not yes and not Confirm.ask("Go ahead?", default=False):
            raise typer.Abort()
        with steps.only_runner(run):
            undo.roll_back(run, one)
    if json:
        print_json({"batch": one.code, "rolled_back": not dry_run, "plan": lines})
    elif not dry_run:
        out.print(f"batch {one.code} is rolled back")


@app.command()
def status(json: Json = False) -> None:
    """Where each batch stands: its verdict, what blocks it, its report."""
    _show_status(json)


@app.command()
def fingerprint(
    database: Annotated[str, typer.Option("--database", "-d", help="Which one: ops, balisnap or bstadmin.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="A fingerprint kept with --json: say what differs.")
    ] = None,
    json: Json = False,
) -> None:
    """What a database holds, as a number a table and a definition an object; only reads.

    Keep one before a run and compare after it: nothing else shows so shortly that a source was not touched, or that
    a rollback was exact. Exit code 1 when something differs. With `--json` and `--against` the differences are listed.

    Example: `phase2 fingerprint -d balisnap --json > before.json`, later
    `phase2 fingerprint -d balisnap --against before.json`
    """
    from bridge import fingerprint as fingerprints

    urls = {name: url for name, url in vars(databases()).items() if name in ("ops", "balisnap", "bstadmin")}
    if database not in urls:
        raise CouldNotRun(f"there is no database {database!r}", todo=f"Name one of them: {', '.join(urls)}.")
    try:
        before = fingerprints.read(jsonlib.loads(against.read_text(encoding="utf-8"))) if against else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CouldNotRun(
            f"no fingerprint can be read from it: {plain(error)}", where=str(against), todo="Make it with --json."
        ) from None
    with postgres.connect(urls[database], application_name="phase2-fingerprint", read_only=True) as conn:
        taken = fingerprints.take(conn)
    for name in taken.unread:
        err.print(f"not compared, this user may not read it: {escape(name)}", style="yellow")
    lines = fingerprints.difference(before, taken) if before else []
    if json:
        print_json({"differences": lines} if before else taken.document())
    elif before:
        for line in lines:
            out.print(escape(line))
        out.print(f"{database}: {len(lines)} differences" if lines else f"{database}: no difference")
    else:
        rows = sum(content.rows for content in taken.content.values() if content.rows > 0)
        out.print(f"{database}: {len(taken.catalog)} objects, {rows} rows, fingerprint {taken.digest}")
    raise typer.Exit(1 if lines else 0)


@app.command()
def scenarios(json: Json = False) -> None:
    """List the sample sources that `demo` can make, and the other faults that the tests plant: what catches which."""
    from bridge import sources

    if json:
        print_json([{"name": s.name, "gate": s.gate, "title": s.title} for s in sources.SCENARIOS.values()])
        return
    table = Table("scenario", "fails gate", "what is planted", box=None, header_style="bold")
    for scenario in sources.SCENARIOS.values():
        table.add_row(scenario.name, scenario.gate or "-", scenario.title)
    out.print(table)
    out.print("\nOne of them: make demo SCENARIO=duplicate-pax")
    planted = Table("planted in", "fault", "caught by", box=None, header_style="bold")
    for where, fault, caught_by in _planted_faults():
        planted.add_row(where, fault, caught_by)
    out.print("\nPlanted by the tests where a sample source cannot reach (docs/fault-matrix.md has all, in full):\n")
    out.print(planted)


def _planted_faults() -> list[tuple[str, str, str]]:
    """Of each fault beside the scenarios: where it is planted, what it is, the gates that fail of it."""
    lines = (ROOT / "docs" / "fault-matrix.md").read_text("utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    header = next(row for row in rows if row[0] == "no")
    return [
        (row[1], row[2], " ".join(gate for gate, cell in zip(header[3:], row[3:], strict=True) if "x" in cell.lower()))
        for row in rows
        if len(row) == len(header) and row[0].isdigit() and row[1] != "source"
    ]


@app.command()
def demo(
    bookings: Annotated[int, typer.Option(help="About how many bookings the two sources hold together.")] = 20_000,
    seed: Annotated[int, typer.Option(help="The same seed makes the same rows.")] = 7,
    scenario: Annotated[str, typer.Option(help="See `phase2 scenarios`.")] = "healthy",
    as_of: AsOf = None,
    json: Json = False,
) -> None:
    """Make two sample source databases and take them through batches A to E.

    Only ever writes sources that it made itself.
    """
    from bridge import sources, steps

    day = as_of.date() if as_of else steps.today_in_bali()
    dbs = databases()
    if scenario not in sources.SCENARIOS:
        raise CouldNotRun(f"there is no scenario {scenario!r}", todo="`phase2 scenarios` lists them.")
    steps.bootstrap(dbs.ops)
    sample: dict[str, Any] = {"bookings": bookings, "seed": seed, "scenario": scenario, "as_of": day}
    if not sources.is_current(dbs.balisnap, dbs.bstadmin, **sample):
        _forget_the_last_sample(dbs.ops)
    sources.create(dbs.balisnap, dbs.bstadmin, **sample, reuse=True, progress=progress)
    began = time.time()
    code = flow(["run", "--from", "A", "--to", "E", "--on-fail", "hold", "--as-of", day.isoformat()])
    _show_status(json, judged_since=began)
    raise typer.Exit(code)


def _forget_the_last_sample(ops: str) -> None:
    """A bridge made of another sample would see all its bookings gone: roll it back first, on our own server only."""
    from bridge import rollback as undo
    from bridge import steps

    standing = [line.batch for line in steps.status(ops) if line.stands]
    if not standing:
        return
    if not settings().is_embedded:
        raise CouldNotRun(
            f"batches {', '.join(standing)} hold the bridge of another sample",
            where=postgres.describe(ops),
            todo="Roll them back in reverse order, or give demo a fresh ops database.",
        )
    run = steps.prepare(progress=progress)
    with steps.only_runner(run):
        for code in reversed(standing):
            undo.roll_back(run, batches.batch(code))


def _between(first: str, last: str) -> tuple[batches.Batch, ...]:
    try:
        return batches.between(batch_of(first).code, batch_of(last).code)
    except ValueError as error:
        raise CouldNotRun(str(error), todo="Give --from before --to.") from None


def _show_status(json: bool, *, judged_since: float | None = None) -> None:
    """Where each batch stands; before it the gates of those whose report was written since (seconds of the epoch)."""
    from bridge import steps

    lines = steps.status(databases().ops)
    if json:
        print_json([vars(line) for line in lines])
        return
    for line in lines if judged_since is not None else ():
        written = line.report.with_suffix(".json") if line.report else None
        if written and written.exists() and judged_since is not None and written.stat().st_mtime >= judged_since:
            out.print(f"[bold]{line.batch}[/]  {line.focus}  {coloured(line.status)}")
            _show_gates(steps.gates_table(jsonlib.loads(written.read_text())))
    operating.show_stops(databases().ops)
    table = Table("batch", "", "status", "as of", "gates", box=None, header_style="bold")
    table.add_column("report", overflow="fold")
    for line in lines:
        table.add_row(
            line.batch,
            line.focus,
            coloured(line.status),
            line.as_of.isoformat() if line.as_of else "",
            _why(line),
            _relative(line.report) if line.report else "",
        )
    out.print(table)


def _relative(path: Path) -> str:
    """As short as it can be opened from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _why(line: Any) -> str:
    """What a person wants to know of a batch: the error, what blocks it, or how many gates passed."""
    if line.pausing:
        return escape(f"pausing: {line.pausing}")
    if line.error:
        return escape(line.error.splitlines()[0][:90])
    if line.status == "STALE":
        return f"changed since: {', '.join(line.changed)}"
    if line.blocked_by:
        return f"blocked by {', '.join(line.blocked_by)}"
    waived = f", {', '.join(line.waived)} waived" if line.waived else ""
    return f"{line.gates} pass{waived}" if line.gates else ""


def _show_gates(rows: list[dict[str, str]]) -> None:
    table = Table("gate", "", "value", "limit", "of", "status", box=None, header_style="bold")
    for row in rows:
        table.add_row(row["gate"], escape(row["title"]), row["value"], row["limit"], row["of"], coloured(row["status"]))
    out.print(table)


if __name__ == "__main__":
    main()
