"""The emitters on a schedule: what changed in a source since the last run, as events. prefect.yaml says when."""

from __future__ import annotations

from prefect import flow

from bridge import emitters, steps
from bridge.settings import Databases, databases
from flows.migration import say


@flow(name="emit web")
async def emit_web_flow() -> None:
    """Bookings and payments of balisnap that changed, to the core API; nothing while its flag is off."""
    say(emitters.words(emitters.emit_web(_ready(), progress=say)))


@flow(name="emit mail")
async def emit_mail_flow() -> None:
    """Parsed booking mails of bstadmin, to the core API; nothing while its flag is off."""
    say(emitters.words(emitters.emit_mail(_ready(), progress=say)))


def _ready() -> Databases:
    dbs = databases()
    steps.bootstrap(dbs.ops)
    return dbs
