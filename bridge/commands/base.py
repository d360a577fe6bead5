"""What the commands share: the application, how they print, and what they take."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from bridge import batches
from bridge.errors import CouldNotRun
from bridge.settings import ROOT, settings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="""
Move two Postgres applications into one canonical bridge, batch by batch (A to H), each through its gates.

Without settings everything happens in embedded databases below `.phase2/`. Set `OPS_DB_URL`, `BALISNAP_DB_URL` and
`BSTADMIN_DB_URL` to work on real ones; the sources are only ever read.

**Exit codes**: 0 pass · 1 a gate failed or a batch is on hold · 2 could not run.
""",
)

# tables need room when nobody's terminal sets the width
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 140)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
BatchCode = Annotated[str, typer.Option("--batch", "-b", help="Which batch: A to H.", metavar="LETTER")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", formats=["%Y-%m-%d"], help="The day, in Bali, that statuses are computed for (today)."),
]


def progress(line: str) -> None:
    err.print(escape(line), style="dim")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=str))


def batch_of(code: str) -> batches.Batch:
    try:
        return batches.batch(code)
    except KeyError as error:
        raise CouldNotRun(str(error.args[0]), todo="Name one of them, for instance --batch D.") from None


def flow(arguments: list[str]) -> int:
    """Run a flow in a process of its own: only that process pays for Prefect. Its exit code is ours."""
    environment = dict(os.environ)
    home = settings().phase2_home
    # nothing of ours lands in the user's own Prefect profile, and nothing calls home
    environment.setdefault("PREFECT_HOME", str(home / "prefect"))
    environment.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    environment.setdefault("DO_NOT_TRACK", "1")
    environment.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
    environment.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")  # our own messages say it in fewer words
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    child = subprocess.Popen([sys.executable, "-m", "flows", *arguments], env=environment)
    # who stops this process means the run: Ctrl-C reaches both by itself, SIGTERM is handed on
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        code = child.wait()
    except KeyboardInterrupt:
        code = child.wait()
    return code if code in (0, 1) else 2


_COLOURS = {
    "PASS": "green",
    "FAIL": "red",
    "HOLD": "yellow",
    "STALE": "yellow",
    "FAIL, waived": "yellow",
    "ERROR": "red",
    "INTERRUPTED": "red",
    "RUNNING": "cyan",
    "N/A": "dim",
}


def coloured(word: str) -> str:
    return f"[{_COLOURS.get(word, 'dim')}]{word}[/]"
