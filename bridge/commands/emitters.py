"""`phase2 emit`: one run of an emitter, by hand."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from bridge.commands.base import Json, app, out, print_json, progress
from bridge.errors import CouldNotRun
from bridge.settings import databases


@app.command()
def emit(
    which: Annotated[str, typer.Argument(help="web (balisnap's bookings and payments) or mail (bstadmin's inbox).")],
    json: Json = False,
) -> None:
    """Send what changed in a source since the last run to the core API, as signed events; the source is only read.

    Does nothing while the emitter's flag is off: `WEB_EMIT_BOOKING_EVENT_ENABLED` (a percentage of the bookings),
    `EMAIL_PIPELINE_CORE_ENABLED` (a set of channels). What a rollout leaves out is sent when it grows. Prefect's
    deployments `emit-web` and `emit-mail` do the same every minute.

    Example: `phase2 emit web`
    """
    from bridge import emitters, steps

    emitter = {"web": emitters.emit_web, "mail": emitters.emit_mail}.get(which)
    if emitter is None:
        raise CouldNotRun(f"there is no emitter {which!r}", todo="phase2 emit web, or phase2 emit mail")
    dbs = databases()
    steps.bootstrap(dbs.ops)
    done = emitter(dbs, progress=progress)
    if json:
        print_json(asdict(done))
    else:
        out.print(escape(emitters.words(done)))
