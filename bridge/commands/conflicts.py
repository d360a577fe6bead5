"""`phase2 conflicts`: what core and bstadmin disagree about, with its clocks; and to settle it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape
from rich.table import Table

from bridge import conflicts as playbook
from bridge import postgres, steps
from bridge.commands.base import Json, app, out, print_json
from bridge.errors import CouldNotRun
from bridge.settings import databases

commands = typer.Typer(
    rich_markup_mode="markdown", help="Conflicts of the dual write, and the playbook (blueprint 6.10)."
)
app.add_typer(commands, name="conflicts")

Rule = Annotated[str | None, typer.Option("--rule", help="Only those of this rule.")]
Id = Annotated[UUID, typer.Argument(help="Of the conflict, as the list shows it.")]
One = Annotated[UUID | None, typer.Option("--id", help="Only this one.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the ledger with your name.", metavar="WORDS")]
Keep = Annotated[str | None, typer.Option("--keep", help="As a person would settle it: core, legacy or both.")]


@commands.callback(invoke_without_command=True)
def conflicts(context: typer.Context, rule: Rule = None, json: Json = False) -> None:
    """Open conflicts, the most pressing first, with the time that is left: 30 minutes when high, else 4 hours.

    One that is open for 24 hours blocks the next step of the rollout (H-03). A booking_header conflict freezes its
    booking: writers get 409, events wait.

    Example: `phase2 conflicts`, then `phase2 conflicts simulate`
    """
    if context.invoked_subcommand:
        return
    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-conflicts", read_only=True) as conn:
        found, lost = playbook.listed(conn, rule=rule), playbook.refused(conn)
    if json:
        print_json([asdict(one) | {"fields": _masked(one.fields), "left": str(one.left), "blocks": one.blocks}
                    for one in found])  # fmt: skip
        return
    table = Table("id", "booking", "rule", "severity", "left", "fields: core | bstadmin", box=None, header_style="dim")
    for one in found:
        table.add_row(
            str(one.conflict_id),
            escape(f"{one.channel_code}:{one.external_booking_ref}") + (" [cyan]frozen[/]" if one.freezes else ""),
            f"{one.rule} v{one.rule_version}",
            one.severity,
            ("[red]BLOCKS[/] " if one.blocks else "") + _clock(one.left),
            escape("; ".join(f"{f['field']}: {f['core']} | {f['legacy']}" for f in _masked(one.fields))),
        )
    out.print(table if found else "no open conflict")
    if lost:
        out.print(f"[red]{len(lost)} writes were accepted and refused later[/]: phase2 conflicts refused")


@commands.command()
def refused(json: Json = False) -> None:
    """Writes that were answered 202 and then refused as a whole: bstadmin was away, and held something else when it
    came back, or the core froze the booking meanwhile. Neither side has them, and whoever wrote was not told.

    Tell them (they enter it again, if it is still wanted), then `phase2 conflicts told ID --reason "…"`. Exit code 1:
    there is one.

    Example: `phase2 conflicts refused`
    """
    ops = databases().ops
    steps.bootstrap(ops)
    with postgres.connect(ops, application_name="phase2-conflicts", read_only=True) as conn:
        found = playbook.refused(conn)
    if json:
        print_json([asdict(one) for one in found])
    else:
        table = Table("id", "booking", "what", "by", "accepted", "why", box=None, header_style="dim")
        for one in found:
            booking = f"{one.channel_code}:{one.external_booking_ref}" if one.channel_code else str(one.booking_key)
            what = f"{one.action}: {', '.join(one.fields)}"
            when = f"{one.accepted_at:%Y-%m-%d %H:%M} UTC"
            table.add_row(*map(escape, (str(one.intent_id), booking, what, one.actor, when, one.error or "")))
        out.print(table if found else "no write was refused without a word")
    raise typer.Exit(1 if found else 0)


@commands.command()
def told(id: Annotated[UUID, typer.Argument(help="Of the write, as `phase2 conflicts refused` shows it.")],
         reason: Reason, json: Json = False) -> None:  # fmt: skip
    """Whoever wrote knows now that it was refused: it is no longer listed.

    Example: `phase2 conflicts told 019… --reason "ayu was told by phone, and entered it again"`
    """
    with postgres.connect(databases().ops, application_name="phase2-conflicts", autocommit=True) as conn:
        playbook.told(conn, id, reason)
    if json:
        print_json({"intent": id, "told": True})
    else:
        out.print(f"told: {id}")


@commands.command()
def check(json: Json = False) -> None:
    """Compare both sides of every booking that was written since the last time, and list what differs (H-01).

    The hourly flow does the same, and holds the emitters against the log. Exit code 1 when one differs.
    """
    steps.bootstrap(databases().ops)
    found = playbook.reconcile(databases())
    if json:
        print_json(asdict(found) | {"rate": found.rate})
    else:
        rules = ", ".join(f"{count} {rule}" for rule, count in sorted(found.conflicts.items()))
        out.print(f"{found.checked} bookings compared, {found.mismatched} differ" + (f": {rules}" if rules else ""))
    raise typer.Exit(1 if found.mismatched else 0)


@commands.command()
def simulate(rule: Rule = None, id: One = None, keep: Keep = None,
             json: Json = False) -> None:  # fmt: skip
    """What each rule would change: rows, and money per currency. Nothing is written.

    Example: `phase2 conflicts simulate --rule assignment`
    """
    plans = playbook.simulate(databases(), rule=rule, conflict_id=id, keep=_keep(keep))
    _show([(one, "STALE" if one.stale else "") for one in plans], json)


@commands.command()
def apply(reason: Reason, rule: Rule = None, id: One = None,
          json: Json = False) -> None:  # fmt: skip
    """Settle conflicts by their rule; what waits for a person stays open.

    Where somebody has written since a conflict was compared nothing is applied (STALE). Exit code 1: one stays open.

    Example: `phase2 conflicts apply --rule assignment --reason "as simulated"`
    """
    outcomes = playbook.apply(databases(), reason=reason, rule=rule, conflict_id=id)
    _show(outcomes, json)
    raise typer.Exit(0 if all(outcome == "APPLIED" for _, outcome in outcomes) else 1)


@commands.command()
def resolve(id: Id, keep: Annotated[str, typer.Option("--keep", help="core, legacy, or both as they are.")],
            reason: Reason, json: Json = False) -> None:  # fmt: skip
    """A person says which side stands; a frozen booking is free again by that.

    Example: `phase2 conflicts resolve 019… --keep legacy --reason "the customer moved the day by phone"`
    """
    outcomes = playbook.apply(databases(), reason=reason, conflict_id=id, keep=_keep(keep))
    if not outcomes:
        raise CouldNotRun("there is no such open conflict", where=str(id), todo="phase2 conflicts")
    _show(outcomes, json)
    raise typer.Exit(0 if outcomes[0][1] == "RESOLVED" else 1)


@commands.command()
def undo(id: Id, reason: Reason, json: Json = False) -> None:
    """Put both sides back to what they were before a conflict was settled; it is open again.

    Example: `phase2 conflicts undo 019… --reason "the wrong booking"`
    """
    _show([(playbook.undo(databases(), id, reason=reason), "UNDONE")], json)


def _show(outcomes: list[tuple[playbook.Plan, str]], json: bool) -> None:
    money: Counter[str] = Counter()
    stake: Counter[str] = Counter()
    counted = ("", "APPLIED", "RESOLVED", "UNDONE")
    for one, outcome in outcomes:
        money[one.conflict.currency_code] += one.money if outcome in counted else Decimal(0)  # type: ignore[assignment]
        stake[one.conflict.currency_code] += one.conflict.at_stake  # type: ignore[assignment]
    rows = sum(one.rows for one, outcome in outcomes if outcome in counted)
    if json:
        print_json({
            "conflicts": [
                {"id": one.conflict.conflict_id, "rule": one.conflict.rule, "outcome": outcome or "WOULD_APPLY",
                 "core": _changes(one.core), "legacy": _changes(one.legacy)}
                for one, outcome in outcomes
            ],
            "rows": rows, "money": _amounts(money), "at_stake": _amounts(stake),
        })  # fmt: skip
        return
    table = Table("id", "rule", "core", "bstadmin", "", box=None, header_style="dim")
    for one, outcome in outcomes:
        changes = [
            escape("; ".join(f"{name}: {before} → {after}" for name, (before, after) in _changes(side).items())) or "–"
            for side in (one.core, one.legacy)
        ]
        waits = not outcome and not one.rows
        table.add_row(str(one.conflict.conflict_id), one.conflict.rule, *changes, "a person" if waits else outcome)
    if outcomes:
        out.print(table)
    said = [f"{rows} rows", *(f"{amount} {code} change" for code, amount in _amounts(money).items())]
    said += [f"{amount} {code} in dispute" for code, amount in _amounts(stake).items()]
    out.print(", ".join(said))


def _amounts(counted: Counter[str]) -> dict[str, str]:
    return {code: str(Decimal(amount)) for code, amount in sorted(counted.items()) if amount}


def _changes(side: dict[str, tuple[Any, Any]]) -> dict[str, tuple[Any, Any]]:
    shown = playbook.shown
    return {name: (shown(name, before), shown(name, after)) for name, (before, after) in side.items()}


def _masked(fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [f | {side: playbook.shown(f["field"], f[side]) for side in ("core", "legacy")} for f in fields]


def _clock(left: timedelta) -> str:
    minutes = int(abs(left).total_seconds() // 60)
    words = f"{minutes // 60} h {minutes % 60:02} min"
    return f"[red]{words} over[/]" if left < timedelta(0) else words


def _keep(word: str | None) -> playbook.Keep | None:
    known: dict[str, playbook.Keep] = {"core": "core", "legacy": "legacy", "both": "both"}
    if word is not None and word not in known:
        raise CouldNotRun(f"--keep {word}", todo="core, legacy or both.")
    return known[word] if word else None
